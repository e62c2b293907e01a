// Package recovery decides what a recovery does: from a finished run and a target graph, which results are reused and which
// nodes run, each with its reason; which failures have one cause; and how a batch of recoveries goes on.
//
// It stands beside launch and before engine. It is pure: records and graphs are handed in, decisions are returned. The engine
// calls Decide for one node at a time, a dry run calls NewPlan, which calls Decide for all of them: so a recovery does what its dry
// run has said. Package recovery/job carries batches out.
//
// A node of the target is matched with a node of the finished run by its Path, the ids in the templates from the top. Flyte
// matches unique ids, which contain the attempt of the parent, and so finds no nodes below a parent that was retried.
//
//	finished run ── nodes by path ──┐
//	                                ├─ Decide ─▶ take over as a whole │ enter, and ask for each node inside │ run
//	target graph ── path, target ───┘
//
// The target is an argument, so that it can be another version one day: a node that has another target there is not taken
// over. Within one version, all nodes on which a finished node depends had finished, too.
package recovery
