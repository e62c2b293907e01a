// Package catalog finds what was computed before. It stands between engine, which asks it before it lets a task run, and
// store, which keeps the results; api asks it to explain.
//
// # By what a result is found
//
// A key (key.go) is Flyte's: project, domain and name of the task, its cache version, the types of its inputs and outputs, and
// the values of those inputs that count. Its parts are kept with every result and with every search, so that a miss can be
// explained by the parts that differ from those of the nearest earlier result (explain.go). Both files have pure functions only.
//
//	task, node's overrides ─▶ Signature ──inputs──▶ CacheKey ─▶ ResultID ─▶ store
//	                                                   │
//	                              earlier results ─▶ Nearest ─▶ "input "x" was 5 and is 6"
//
// # A result that is found is there
//
// Find (catalog.go) does not trust the record of a result: its objects may have been deleted or damaged since. Find verifies
// every object that the result refers to. If one is missing or damaged, it removes the result from the catalog with the reason:
// then the task computes the result again, and the new one takes its place.
//
// Where many nodes begin, the engine reads the results of several nodes at once (Ahead) and verifies each of them when its node
// begins (Use).
//
// # Only one computes
//
// Where the task wants it (cache_serialize), a miss also asks for the reservation of the result (FindOrReserve): the node that
// gets it computes, the others are parked until it is given back. The states of a reservation are told in the store
// (store.Reservation).
//
// # Limits
//
// A result is removed when it is too old or its project's results are too large together (limit.go), unless it is pinned. A
// result that is gone stays in the store as a record, for explanations. Its objects are not deleted here: an execution that used
// them still shows them.
//
// # When it fails
//
// A store or a blob store that cannot answer is an error, never a miss: the engine waits and asks again, and no finished result
// is computed anew because of an outage. Times of last use may be lost in a crash: they only decide which results go first.
package catalog
