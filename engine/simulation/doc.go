// Package simulation runs whole worlds from a seed: beside the flow, to test its middle (store, engine, machine) as one.
//
// A world has engines that crash, pause, compete and lose leases, executors that lose tasks, fall silent and report late,
// twice and wrongly, a store that fails in bursts before or after it did its work, clocks that jump, and people who create
// and terminate random workflows. All of it runs on one goroutine under virtual time, drawn from one random source, so a
// seed is a complete description of a run:
//
//	go test ./engine/simulation -run Seed -seed=17        one world, told in detail
//	go test ./engine/simulation -run Seed -seeds=5000     many
//
// After each commit the execution's journal is folded again and compared with its records, and the promises are checked:
// nothing acknowledged is lost (P1), downstream starts after durable outputs (P2), a result is adopted once and from
// the attempt that is meant (P3), nothing is ever stuck (P5). When the faults end, every execution must end as it does in
// a world without faults.
//
// It relies on store/memstore to keep to the contract of package store; storetest holds the real store to the same.
package simulation
