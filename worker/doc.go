// Package worker runs beside the user's code: a supervisor process that is the parent of every task process of one data
// folder, the warm Python worker it forks tasks from, the capture of their logs, and the record of how each one ended.
// It comes after executor/process, before the user's code and package blob.
//
//	server ──unix socket──▶ supervisor (own session, child subreaper, one per data folder)
//	                          │  claim synced ─▶ go ─▶ done ─▶ exit record synced ─▶ Exited ─▶ Forget
//	                          ├─▶ zygote (one per interpreter, environment and start-up variables) ─fork─▶ attempt
//	                          └─▶ fresh interpreter, or any other command ─────────────────────exec─▶ attempt
//
// It relies on a local disk that keeps what was synced and on /proc (Linux). What happens when a part fails:
//
//   - The server is killed: no task notices. The next server connects, gets every running attempt and every exit record
//     that was not yet forgotten.
//   - The supervisor is killed: tasks run on. The client starts another one, which reads the claims, watches the processes
//     that are still there (found by boot id, pid, start time, or by the mark in their environment) and reports the others:
//     by the files they left if those are complete, else as lost.
//   - The zygote is killed: its children run on as children of the supervisor; the next attempt gets a new zygote.
//   - The machine stops: claims and exit records were synced, so each started attempt is reported, and none is started twice.
//
// A zygote preloads what tasks of its environment were seen to import. A task tells that when its own work begins; if it is
// much, a successor is started in the background and takes the zygote's place when it is ready and has nothing that a fork
// would not survive. The former then ends, and its children become the supervisor's.
//
// An attempt runs in its own session, with environment variables from nothing and its own temporary folder, and when it
// is over nothing that it started is left. That is isolation against accidents, not against attackers.
package worker
