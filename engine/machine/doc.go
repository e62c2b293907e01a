// Package machine decides everything about a run: what starts, what is retried, what is stopped and how it all ends.
//
// After store, before executor: package engine loads a journal, folds it into a State, hands it the messages of the
// inbox and the time, commits the events that Step decided together with their projection into records, and lets
// executors act on what was committed. The machine is pure. It reads no clock, disk, network, random source or
// configuration, so the same journal and the same messages give the same decisions for ever, and a simulator can run
// millions of executions from a seed.
//
//	messages, now ──▶ Step ──▶ events ──▶ (engine commits journal + records) ──▶ attempts for executors
//	                   │ ▲
//	           Apply   ▼ │  facts: references to resolved inputs, asked within the step
//	                  State  = Fold(journal)
//
// Step decides one small thing at a time as an event and applies it at once, so a decision always rests on the state
// that all earlier ones left. Apply is the only code that changes a State: what is pending (nodes that are ready, timers,
// attempts to be stopped, scopes that have come to rest) is kept there too, which is why a fold of the journal goes on
// exactly where the process that wrote it stopped.
//
// Each subject has a file, with what is decided about it (methods of step) above what is folded (methods of State): the execution,
// scopes, nodes, attempts and their retries (retry.go), waits, and what is used again (reuse.go). What a kind of node can do is a row of
// the table in kind.go; what one kind alone does is in the file of its name. graph.go makes a Graph of a compiled closure; view.go is
// what others see of a State.
//
// What it relies on: that entries come back in the order in which they were committed, and that facts are true. When a
// journal breaks a rule (a node that succeeds twice, a start before its upstream has succeeded) Apply refuses it: that is
// a bug of ours or a damaged store, and the execution stays where it is rather than going on from a lie. When a fact
// cannot be had, Step returns the error, nothing may be committed, and the step is repeated from a fold.
package machine
