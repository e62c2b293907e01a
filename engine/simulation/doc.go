// Package simulation runs whole worlds from a seed. It stands beside the flow and tests its middle as one: store, engine,
// machine, and how literals become objects.
//
// A world has engines, executors with places where tasks run, a store, blobs, clocks, and clients that register versions of
// workflows, create executions and terminate them. All of it runs on one goroutine under virtual time, and all chance is drawn
// from one random source, so a seed is a complete description of a run:
//
//	go test ./engine/simulation -run Seed -v -seed=17     one world, told in detail
//	go test ./engine/simulation -run Seed -seeds=5000     many, from -first on
//	make seeds SEEDS=100000                               very many, when nothing else is to be done
//
// The parts of a world (world_test.go):
//
//   - The plan (plan_test.go) is what clients ask for, the same with and without faults: graphs with sub-workflows, failure
//     nodes and both failure policies; tasks that succeed, fail, hang, starve, need retries or go on from checkpoints; sleeps;
//     limits of time, of parallelism and of retries; literals of a few bytes and of more than a row holds; executions of a later
//     release in the same store. Some tasks are cached. They have few inputs and versions, so that executions and versions share
//     results; some executions overwrite results.
//   - Executors (executor_test.go) run tasks by waiting. The outputs of a task follow from its inputs.
//   - Recoveries (recovered_test.go): an execution that has failed is recovered by another one, and that by a third; some tasks
//     that failed in the one succeed in the next.
//   - Faults (fault_test.go) have names. Some happen between calls: crashes, pauses, power cuts, clocks that jump, tasks that
//     are lost or run twice, executors that fall silent or never come back. Some befall calls of the store and of the blobs
//     (store_test.go): the call fails, is done and its caller told that it failed, is done by halves or much later, or is the last
//     of its process. Each world has about half of the faults, so that two rare ones meet undisturbed by the others. Results are
//     removed and their objects deleted or changed (cached_test.go); a service is away for hours, and no other fault happens
//     meanwhile (outage_test.go).
//   - Invariants (invariant_test.go) name the promise of the design that they could falsify. They are checked after each commit
//     against a fold of the journal, and P5 (no execution is stuck) after each action.
//
// The life of a world:
//
//	faults     150 to 300 random actions: a pass of an engine or executor, time, a request of a client, a fault
//	calm       faults have ended; passes and time until each execution has ended
//	mended     all that has failed is recovered, with everything mended that made it fail, and ends
//	compared   each execution with the same one in a world without faults, unless its end was visibly a matter of faults (it was
//	           terminated, too many attempts were lost); each recovery that succeeded, node by node, with the execution in a
//	           world where no task fails
//
// A broken promise ends the world, and the test prints the seed. Run again with -v and -seed, it tells each action.
//
// The promises:
//
//	P1   an execution or termination that was acknowledged is there
//	P2   a node starts after the outputs that it needs are durable; a node succeeds once; records say what the journal says
//	P3   an outcome is adopted once, from the attempt that is meant, under the newest epoch
//	P4   outputs depend neither on faults nor on the number of recoveries; an outage costs its first failure
//	P5   no execution is stuck
//	P6   what runs is the version that was launched, also if other versions are registered meanwhile
//	P7   no engine writes to an execution of a later release
//	P8   a node's life is a few rows (that memory follows what runs is a test of package engine)
//	P9   a result that is found is there, as it was written, and as the node would have computed it; where the task asks for
//	     that (cache_serialize), one node at a time computes it
//	P10  nothing happens before its time, nor long after it, and no engine's clock moves the runs of another
//
// The test of the simulator itself (mutation_test.go) plants bugs, one by one, and demands that a seed finds each of them
// (make mutations). Its list says which bugs the simulator is known to find.
//
// The package relies on the contracts of store/memstore and blobtest.Memory. The same conformance suites that check these two
// check the real stores.
package simulation
