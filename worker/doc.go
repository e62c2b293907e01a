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
// A zygote preloads what tasks of its environment were seen to import, as far as that is proved to make no difference:
// zygote.py tells the whole of it. A task tells its imports when its own work begins; if it is much, a successor is started
// in the background and takes the zygote's place when it is ready. The former then ends, and its children become the
// supervisor's. The first zygote of an environment preloads nothing, since an attempt waits for it.
//
// A zygote is keyed by interpreter, environment digest, and the variables that its imports read; it is out of date when a
// file of those imports changes ([imports]). An attempt that a fork would not do justice to gets a fresh interpreter, and
// its exit record says why: a variable that only a fresh interpreter honours, a module of its code that flytekit's import
// would find first, a library that read before the fork what the code has changed since.
//
// # What a task can say
//
// A task can write to the socket on which its warm child tells the supervisor how it ends, by accident or not. So what comes
// from there is bounded before it is kept, told or written down (limit.go): a child that says more is not read any further, and
// its attempt is judged by its exit. The names of modules are told in one event and are in no record. A message of the protocol
// has a bound, too, and one that is longer costs itself alone: to close the connection would help nothing, since the same message
// comes again on the next one.
//
// # The processes of an attempt
//
// An attempt is one process that we start, which speaks for it alone, and all that it starts in turn. They have in common,
// each from its first instruction on:
//
//   - a session of the first process, environment variables from nothing, a temporary folder;
//   - a mark: a text in the environment, and its number as a resource limit that Linux does not enforce (RLIMIT_LOCKS). A
//     process may have another session, another parent and an empty environment; the limit is inherited all the same;
//   - a control group, where the system lets us make one (root does; so does systemd for what it delegates to a user): of
//     version 2 with the memory controller, else of version 1 for memory, else of version 2 without. With the memory
//     controller the kernel holds the attempt's limit for all of its processes together; else their memory is sampled. A
//     group without a limit is used again by the attempts to come, one with a limit is removed;
//   - a score by which the kernel prefers it to us when the machine runs out of memory.
//
// How they get there: what a process has is inherited, so the supervisor puts these on itself, forks, and takes them off
// again ([group.fork]); into a group of version 2 the kernel starts the process. A warm child exists before its attempt: it
// is marked, and joins the group, before it gets its go. In version 2, where that takes the kernel ten milliseconds, one
// without a limit is known by its mark alone.
//
// When they end: with the first process, however that ended; with a stop (SIGTERM to the session, SIGKILL to all after the
// grace); when they use more memory than the limit; and when the kernel has killed one of them for want of memory, as in
// Kubernetes with memory.oom.group. Then all that is in the control group, or has the mark, is killed again and again until
// nothing is left; each process is held by a descriptor while it is asked whether it belongs to the attempt, so a number
// that was given to another process ends no stranger. Only then is the exit record written. What cannot be killed within
// seconds (it hangs in the kernel) is logged as an error and keeps its group.
//
// A supervisor that is killed leaves groups and processes as they are. The next one finds them below the folders that the
// file groups names and by the marks in the claims: those of attempts that are not over are adopted, all others are ended.
//
// That is isolation against accidents, not against attackers: a program that changes the limit on purpose, where there are
// no control groups, is lost to us, and root may leave every group.
package worker
