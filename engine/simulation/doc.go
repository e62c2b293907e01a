// Package simulation runs whole worlds from a seed: beside the flow, to test its middle (store, engine, machine, and how
// literals become objects) as one.
//
// A world has engines, executors with places where tasks run, a store, blobs, clocks, and people who register versions of
// workflows, create executions and terminate them. All of it runs on one goroutine under virtual time, drawn from one random
// source, so a seed is a complete description of a run:
//
//	go test ./engine/simulation -run Seed -v -seed=17     one world, told in detail
//	go test ./engine/simulation -run Seed -seeds=5000     many, from -first on
//	make seeds SEEDS=100000                               very many, when nothing else is to be done
//
// What happens:
//
//   - The plan (plan_test.go) is what people want, the same with and without faults: graphs with sub-workflows, failure
//     nodes and both failure policies, tasks that succeed, fail, hang, starve, need retries or go on from checkpoints, sleeps,
//     limits of time, of parallelism and of retries, literals of a few bytes and of more than a row holds, executions of a later
//     release in the same store. Some tasks have results that are used again, of few inputs and versions, so that executions
//     and versions meet in them; some executions overwrite those.
//   - What has failed is recovered by another execution, and that by a third, with other luck (recovered_test.go).
//   - Faults (fault_test.go) have names. Some happen between calls: crashes, pauses, power cuts, clocks that jump, tasks that
//     are lost or run twice, executors that fall silent or never come back. Some befall calls of the store and of the blobs
//     (store_test.go): they fail, are done without a word, by halves, much later, or are the last of their process. Each world
//     has about half of them, so that rare ones meet undisturbed by the others. Results are removed and their objects deleted or
//     changed behind everybody's back (cached_test.go); a service is away for hours, and nothing else goes wrong meanwhile
//     (outage_test.go).
//   - Invariants (invariant_test.go) are named by the promise of the design that they could falsify. They are checked after
//     each commit against a fold of the journal, and P5 (nothing is stuck) after everything that happens.
//   - After a while the faults end. Then every execution has to end, and as it does in a world without any, unless the world
//     visibly had its part in it (somebody terminated it, too many attempts were lost). Then all that has failed is recovered with
//     what made it fail mended, and each execution that recovered another and succeeded is compared, node by node, with one in
//     a world where nothing fails.
//
// The promises: P1 what was acknowledged is there; P2 downstream starts after durable outputs, a node succeeds once, records say
// what the journal says; P3 a result is adopted once, from the attempt that is meant, under the newest epoch; P4 what is
// computed does not depend on what went wrong, nor on how often it was recovered, and an outage costs its first failure; P5;
// P6 what runs is the version that was launched, whatever is registered meanwhile; P7 nobody touches an execution of a later
// release; P8 a node's life is a few rows (that memory follows what runs is a test of package engine); P9 what is found is
// there and as it was written, and is what would have been computed, by one at a time where that is asked for; P10 nothing
// happens before its time, nor long after it, and no engine's clock moves the runs of another.
//
// mutation_test.go turns it round: it plants bugs, one by one, and demands that a seed finds each (make mutations). It
// is the list of what the simulator is known to see.
//
// The package relies on store/memstore and blobtest.Memory to keep to their contracts: the suites that hold them to these
// hold the real ones to the same.
package simulation
