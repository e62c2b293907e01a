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
//   - The supervisor is killed: tasks run on. The client starts another supervisor, which reads the claims, watches the processes
//     that still run (found by boot id, pid, start time, or by the mark in their environment) and reports the other attempts:
//     by the files they left if these are complete, else as lost.
//   - A zygote is killed: see below.
//   - The machine stops: claims and exit records were synced, so each started attempt is reported, and none is started twice.
//
// # Warm workers
//
// A warm worker is a zygote: a Python process that has imported flytekit, and forks a child for each attempt. A child must be as
// good as a fresh interpreter (zygote.py tells how that is reached), but needs no second for its imports.
//
// An attempt gets the zygote of its key: interpreter, digest of the environment, and those variables that the zygote's imports
// read or that Python honours only at its start. The states of a zygote:
//
//	         process ready                replaced by its successor, or files have changed
//	starting ─────────────▶ ready ───────────────────────────────────────────▶ ready, retiring ──▶ ended
//	   │                      └─(idle, or its process has ended)─────────────────────────────────▶ ended
//	   └─(its imports fail)─▶ failed, for [failureRest]: attempts of its key start cold meanwhile
//
// The first zygote of a key imports flytekit alone, since an attempt waits for it. When the work of a task begins, its child tells
// which further modules of the environment it had to import; the supervisor keeps them in the environment's profile. If there are
// many, or their imports were slow, a successor is started in the background: it imports the modules ahead, as far as it can
// prove that they make no difference there, and takes the place of the previous zygote when it is ready. Modules that it cannot prove
// are dropped: noted in the profile, with the reason, and left to the tasks.
//
//	supervisor                     zygote               child
//	  ├─ number, socket ────────────▶ forks ─────────────▶ tells its pid
//	  ├─ what to run (childSpec) ────────────────────────▶ enters its control group, sets variables, folders, logs
//	  ├─ claim is on disk: go ───────────────────────────▶ runs the task's command line
//	  ◀───────────────────────────────────────────────────┤ the modules that it has imported
//	  ◀───────────────────────────────────────────────────┘ exit code (EventDone), memory
//	  ◀── the child was reaped ──────┘                      (EventExited)
//
// What holds at all times:
//
//   - a child runs no user code before its attempt's claim is on disk;
//   - a zygote forks only while the files of its imports are as they were ([imports]);
//   - a line of successors has at most two zygotes at a time: z and z.successor, where z.successor.previous == z, and then
//     the successor and z while z is retiring.
//
// What happens when a part fails:
//
//   - The zygote does not get ready: attempts start cold, and the reason is in their exit records.
//   - A successor fails: the previous zygote stays. The modules that only the successor was to import are forgotten: one of them
//     may have ended it.
//   - The zygote hangs or dies: its children run on as children of the supervisor, and the next attempt gets a new zygote.
//   - A fork cannot be as good as a fresh interpreter: the attempt starts cold. This is so for a variable that only a fresh
//     interpreter honours, and for code with a module that flytekit's import would find first.
//   - The child finds that out only at an import of the task (a native library that has read a variable which the code has changed
//     since): the attempt starts over, cold, and later attempts of the same code start cold at once.
//
// Example: the first task of a server imports pandas, which takes it a second, and its child tells some hundred modules. A
// successor imports them in the background, proves most of them, and drops the others. From then on a task that imports pandas
// takes the proved modules from its zygote, and imports the dropped ones itself.
//
// # What a task can say
//
// A task can write to the socket on which its warm child tells the supervisor how it ends, by accident or not. So each message
// from there is bounded before it is kept, sent on or written down (limit.go): if there is more, it is not read, and the attempt
// is judged by its exit. The names of modules are sent in one event and are in no record. A message of the protocol between client
// and supervisor has a bound, too. A longer one is refused, and the connection stays: the same message would come again on the
// next one.
//
// # The processes of an attempt
//
// An attempt is one process that we start, and all processes that it starts in turn; only the first one tells us how the attempt
// ends. All of them have in common, each from its first instruction on:
//
//   - a session of the first process, environment variables from nothing, a temporary folder;
//   - a mark: a text in the environment, and its number as a resource limit that Linux does not enforce (RLIMIT_LOCKS). A
//     process may have another session, another parent and an empty environment; the limit is inherited all the same;
//   - a control group, where the system lets us make one (root does; so does systemd for what it delegates to a user): of
//     version 2 with the memory controller, else of version 1 for memory, else of version 2 without. With the memory
//     controller the kernel holds the attempt's limit for all of its processes together; else their memory is sampled. A
//     group without a limit is used again by the attempts to come, one with a limit is removed;
//   - a score by which the kernel kills them rather than us when the machine runs out of memory.
//
// How a process gets these: a child inherits them, so the supervisor puts them on itself, forks, and takes them off again
// ([group.fork]); into a group of version 2 the kernel starts the process directly. A warm child exists before its attempt: it is
// marked, and joins the group, before it gets its go. In version 2 joining takes the kernel ten milliseconds, so a warm child
// without a memory limit has no group there and is found by its mark alone.
//
// When the processes end: with the first process, however that ended; with a stop (SIGTERM to the session, SIGKILL to all after
// the grace); when they use more memory than the limit; and when the kernel has killed one of them for want of memory, as in
// Kubernetes with memory.oom.group. Then every process in the control group, or with the mark, is killed, again and again until
// none is left. A descriptor holds each process while we look whether it belongs to the attempt, so that no other process is
// killed which was given the same pid. Only then is the exit record written. A process that cannot be killed within seconds (it
// hangs in the kernel) is logged as an error and keeps its group.
//
// A supervisor that is killed leaves groups and processes as they are. The next supervisor finds the groups below the folders
// that the file groups names, and the processes by the marks in the claims: attempts that are not over are adopted, all other
// processes are ended.
//
// That is isolation against accidents, not against attackers: where there are no control groups, we do not find a program that
// changes the limit on purpose, and root may leave every group.
package worker
