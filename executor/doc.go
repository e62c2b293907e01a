// Package executor takes attempts from the store, gives them to a back end that runs them, finds them again after a
// restart, and reports how they ended to the inbox of their execution.
//
// It comes after the engine, which schedules attempts, and before package worker, which runs the user's code. The loop is the
// same for every back end. A [Backend] runs attempts in one kind of place; each is a package (executor/process, later
// executor/kube), and executor/executortest is the suite that all of them pass.
//
//	the store's queue ─▶ admission.Choose ─▶ store.Assign ─▶ Backend.Start ─▶ … ─▶ Event ─▶ store.Report ─▶ Backend.Forget
//
// It relies on the store for what must survive: an attempt is assigned before it is started, its outcome is in the inbox
// before the back end forgets it. So a crash at any point ends in starting an attempt again that a back end attaches to,
// or in reporting an outcome again that the store drops.
//
// # The life of an attempt
//
// An attempt is remembered in three places: the store has its record, the executor has a [run] in memory only, and the back end
// remembers it where the attempt runs. For processes that is the supervisor with its journal (package worker).
//
//	what happens                       phase in the store    run of the executor     state in the supervisor
//	the engine schedules the attempt   QUEUED                -                       -
//	Store.Assign                       INITIALIZING          is made (take)          -
//	Backend.Start                                            has its job             starting: the claim is synced
//	the process runs                                         told                    running
//	Store.Report of the start,
//	adopted by the engine              RUNNING
//	the task says that it is done                            over                    done (warm tasks only)
//	the process is gone                                      over                    exited: the exit record is synced
//	Store.Report of the outcome                              adoptable
//	the engine adopts the outcome      SUCCEEDED, FAILED …
//	hold sees that, Backend.Forget                           is deleted              forgotten
//
// What holds at all times:
//
//   - a back end has started an attempt ⇒ the store has assigned the attempt to an instance of that back end's place;
//   - a back end has started an attempt ⇒ every later Start attaches to it and starts nothing, until Forget;
//   - an attempt has ended ⇒ the back end can tell its outcome again, until the engine has adopted it;
//   - the store takes an outcome only from the instance that has the attempt, and with the attempt's token.
//
// What happens when a part fails:
//
//   - The server ends. Its attempts run on. The next server of the place has the same instance: findAgain starts each attempt
//     that is assigned to it. The back end attaches to it, or starts it if the first start had not come about, and tells
//     the outcome if the attempt has ended meanwhile.
//   - The instance does not come back. The engine gives its attempts to another instance of the same place, which finds them
//     in hold; without one they are lost, and the engine replaces them.
//   - The supervisor ends: see package worker.
//   - The store is away. Nothing new starts; reports wait in memory, and are made anew by the back end if we end, too.
//   - The back end cannot start an attempt. The attempt stays assigned, and tend tries again. If the error names a service
//     (aloft.ServiceError), this lasts, and it is certain that nothing was started, requeue ends the attempt: the node gets
//     another attempt, which waits in the queue. While the service is away nothing more starts.
//   - The back end cannot keep what an attempt left (a full disk). It holds the outcome back (Event.Held) and tries again: the
//     task has run, and is not run again.
//
// Example: the server is killed between the end of a task and Store.Report. The store says RUNNING, the supervisor has the
// exit record. The next server calls Start, the back end attaches and finds the attempt exited, reads its outputs and sends the
// outcome. Had the kill come just after Store.Report, the outcome would be sent twice, and the store would drop the second:
// the inbox has it under the same deduplication key, or the attempt has ended.
package executor
