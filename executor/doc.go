// Package executor takes attempts from the store, gives them to a back end that runs them, finds them again after a
// restart, and reports how they ended to the inbox of their execution.
//
// After the engine has scheduled an attempt, before package worker runs the user's code. The loop is the same for every
// back end; what runs an attempt is a [Backend], one package each (executor/process, later executor/kube), and
// executor/executortest is the suite that all of them pass.
//
//	store.Waiting ─▶ admission.Choose ─▶ store.Assign ─▶ Backend.Start ─▶ … ─▶ Event ─▶ store.Report ─▶ Backend.Forget
//
// It relies on the store for what must survive: an attempt is assigned before it is started, its outcome is in the inbox
// before the back end forgets it. So a crash at any point ends in starting an attempt again that a back end attaches to,
// or in reporting an outcome again that the store drops. When the store is unavailable nothing new starts and outcomes
// wait; when the back end is, its attempts stay assigned and starting them is tried again; one that blames a service which is away
// gives back to the queue what it has not started, and nothing more starts until package health says that it is well.
package executor
