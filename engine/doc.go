// Package engine moves executions: it claims them, loads them, steps them and commits what was decided.
//
// After launch has committed a new execution with its first inbox message, before executor, which finds in the committed
// records what it has to run, and whose reports come back through the inbox. Package engine/machine decides; everything
// here reads for it and writes what it decided.
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
// Several engines may run on one store. Each says that it is there and holds its share of the shards: it takes no more than
// that, and of those that it has above it, because another one came, it begins no step any more, finishes its commits and
// gives them back. What a dead one had is taken when its leases have run out.
//
// What it relies on, and what happens when that fails:
//   - Nothing is visible before its commit. A step that the store refuses (fenced, overtaken) is thrown away with the
//     state it changed, and the execution is folded from its journal again by whoever owns it then.
//   - When the outcome of a commit is unknown, the very same steps are committed again until it is known; their commit
//     ids make that harmless. Nothing else of these executions moves meanwhile.
//   - No clock is trusted: clock.go tells which there are, and what a run goes by when its journal is ahead of ours.
//   - A shard is ours as long as our own monotonic clock says that the lease runs. The epoch in the store decides in the end.
//   - When we cannot do our part (a literal or a closure cannot be read), the execution waits and is tried again with
//     growing pauses, for ever; if that lasts, the execution's record says what it waits for. It never fails by our fault.
//   - Memory is bounded in bytes: memory.go says what bounds what. What leaves it is folded from its journal again.
package engine
