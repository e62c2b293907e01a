// Package catalog finds what was computed before. It stands between engine, which asks it before it lets a task run, and
// store, which keeps the results; api asks it to explain.
//
// # By what a result is found
//
// A key (key.go) is Flyte's: project, domain and name of the task, its cache version, the types of its inputs and outputs, and
// the values of those inputs that count. It is kept taken apart, with every result and with every search, so that of a miss
// it can be said what differs from the nearest earlier result (explain.go). Both are pure.
//
//	task, node's overrides ─▶ Signature ──inputs──▶ CacheKey ─▶ ResultID ─▶ store
//	                                                   │
//	                              earlier results ─▶ Nearest ─▶ "input "x" was 5 and is 6"
//
// # A result that is found is there
//
// Find (catalog.go) does not believe the store: objects may have been deleted or have rotted since. It looks at every object
// that a result refers to, and takes one that is damaged out of the catalog with the reason: then the task computes it again,
// and the new result takes its place.
//
// Where many nodes begin, the engine reads what there is for several of them at once (Ahead) and has each looked at when its
// turn has come (Use).
//
// # Limits
//
// Results go when they are too old or a project has too many (limit.go), unless they are pinned. A result that is gone stays
// in the store as a record, for explanations. Its objects are not deleted here: an execution that used them still shows them.
//
// # When it fails
//
// A store or a blob store that cannot answer is an error, never a miss: the engine waits and asks again, and nothing that was
// finished is computed anew because of an outage. What is noted of uses may be lost in a crash: it only orders what goes first.
package catalog
