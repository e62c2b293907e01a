// Package engine moves executions: it claims them, loads them, steps them and commits what was decided.
//
// It stands between launch, which commits a new execution with its first inbox message, and executor, which finds in the
// committed records what it has to run, and whose reports come back through the inbox. Package engine/machine decides;
// this package reads what the machine needs and writes what it decided.
//
//	store.Inbox, store.Due ──▶ collect ──▶ ready queue ──▶ step ──▶ commit ──▶ ready again (more), idle (waits), gone (ended)
//	                             ▲                          │ │        │
//	             wake-up, poll ──┘          machine.Step ◀──┘ │        └── one store.Commit for many executions
//	                               facts: literal, store, blob┘
//
// Run has three layers: goroutines that collect, step and commit for as long as it is asked to; Pass, which does each of
// them once on the caller's goroutine (tests and the simulator drive passes by hand); and the decision itself, which is
// the machine's.
//
// Several engines may run on one store, each of which holds its share of the shards. When an engine joins, the share of the
// others becomes smaller: in a shard above its share an engine begins no step any more, finishes its commits and gives the
// shard back. The shards of an engine that died are taken by the others when its leases have run out.
//
// Each concept is told in one place: the states of an execution in memory with the type run, its inbox and the cursor with
// the type inboxes, group commit in commit.go, leases and epochs with the type leases, the three clocks in clock.go, timers
// with the type timers, what bounds the memory with the type memory, failed steps with the method postpone.
//
// What it relies on, and what happens when that fails:
//   - Nothing is visible before its commit. A step that the store refuses (fenced, overtaken) is thrown away with the
//     state it changed, and the execution is folded from its journal again by the engine that holds its shard then.
//   - When the outcome of a commit is unknown, the very same steps are committed again until it is known; their commit
//     ids make that harmless. Nothing else of these executions moves meanwhile.
//   - No clock is trusted: clock.go tells which there are, and what a run goes by when its journal is ahead of the engine's
//     clock.
//   - An engine moves a shard as long as its own monotonic clock says that the lease runs. The epoch in the store decides in
//     the end.
//   - When a step cannot be made (a literal or a closure cannot be read), the execution waits and its step is tried again with
//     growing pauses, for ever unless Config.MaxOutage says otherwise; if that lasts, the execution's record says what it
//     waits for.
//   - Memory is bounded in bytes. An execution that leaves it is folded from its journal again.
package engine
