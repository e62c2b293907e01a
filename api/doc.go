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
// # How a request comes in
//
// A request passes these stations in order. Each of them may refuse the request, in the protocol of its client (refuse.go).
//
//	gate     reads the headers alone: whether this program or page may call, under this host, with such a body (gate.go)
//	intake   receives the message of the call, decompresses it, weighs it, and takes room for it (intake.go)
//	guard    runs the method, turns its error or panic into a code, and takes room for the answer (API.answer, error.go)
//	hold     of GetExecution alone: the answer may wait until the execution has ended (hold.go)
//
// Two things are shared by all requests, and a request has to wait for them, in both cases for at most room.Patience together:
// the room (Config.Room, package room), which is bytes, and the slots (heavySlot), of which each keeps one processor busy with a
// large message. For a message of n bytes that decodes into d bytes (package weight)
//
//	n ≤ aloft.MaxMessageBytes,  d ≤ aloft.MaxDecodedBytes,  room of the request ≥ n + 2n + d  while its method runs
//	answer of m bytes: 3m more,  until it is sent
//	slots = max(1, GOMAXPROCS/2); needed above 256 KiB; given back while the request waits for room or for the wire
//
// A request has given back its slot and all of its room when it ends, in whichever way. A client that sends or takes nothing is cut
// off after a time (bodyIdle, bodyRate, answerIdle). A request that finds no room in time is refused with RESOURCE_EXHAUSTED; a
// method without effect (effect.go) is begun anew when there was no room for what it reads. Files of signed links pass the gate
// and skip the rest: their handler streams them, and only their time on the wire is bounded.
//
// For example, a CreateExecution with 1 MiB of gzip that is 4 MiB of inputs: the intake grows a buffer to 1 MiB as bytes come,
// waits for a slot, decompresses into a second buffer that grows likewise, and gives back the room of the first. It weighs the
// message, 30 MiB once it is decoded, and takes room for that and for two copies of 4 MiB. The codec decodes it, the guard
// gives back the slot and calls Launcher.Create. The answer is a few bytes; when it is written, all of the room is free again.
//
// # What it relies on
//
// It relies on store, blob, registry and launch. When one of them cannot do its part, the answer is UNAVAILABLE with the
// reason, and the client tries again: every call may be repeated, because flytekit repeats each failed call three times.
package api
