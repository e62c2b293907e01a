// Package api is where every client arrives: it validates, translates and answers. It comes first in the flow, before
// registry (which versions a client registers) and launch (which turns inputs into an execution).
//
// One http.Handler on one port serves gRPC, gRPC-Web and Connect (connectrpc.com/connect), REST under /api/v1 in JSON and in
// binary protobuf (grpc-gateway, in process), health, reflection, signed links to objects, and a page for each execution. All
// of them end in the same methods, one file per noun, and every answer passes through guard, where the one table of error.go
// turns our errors into codes: never UNKNOWN, which flytekit takes for a request to log in, and INTERNAL only with a logged
// cause whose id is in the message.
//
//	flytekit ── gRPC ──▶ connect ──┐
//	browser ─ gRPC-Web ─▶ connect ─┼─▶ guard ─▶ task.go, workflow.go, execution.go … ─▶ registry, launch, store, blob
//	console ─── REST ──▶ gateway ──┘
//
// Cached results have three services over the same records: Flyte's DataCatalog and CacheService, and our own ResultService,
// which says why there was none (explain.go, by package catalog).
//
// It relies on store, blob, registry and launch. When one of them cannot do its part, the answer is UNAVAILABLE with the
// reason, and the client tries again: every call may be repeated, because flytekit repeats each failed call three times.
package api
