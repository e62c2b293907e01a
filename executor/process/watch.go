package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/environment"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/worker"
)

// Watch turns the supervisor's events into outcomes. See executor.Backend.
func (b *Backend) Watch(ctx context.Context, expected []aloft.AttemptID, report func(executor.Event)) error {
	client, err := b.waitForSupervisor(ctx)
	if err != nil {
		return nil // waitForSupervisor fails only when ctx ends
	}
	if err := b.giveUpOrphans(ctx, client, expected); err != nil {
		b.config.Logger.Warn("look for attempts that were given up", "error", err)
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { b.startWarmWorker(ctx, client) })
	reading.Go(func() { b.removeDiscarded(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
			b.mu.Lock()
			found := b.found
			b.found = nil
			b.mu.Unlock()
			for _, event := range found {
				b.handle(ctx, event, report, &reading)
			}
		case event, ok := <-client.Events():
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the worker's connection was closed")
			}
			b.handle(ctx, event, report, &reading)
		}
	}
}

// restBeforeWarming is how long a server that is just starting has the processors for itself before a warm worker starts.
const restBeforeWarming = 200 * time.Millisecond

// startWarmWorker has the supervisor start the warm worker of the environment in which most attempts will run, so that the
// first attempt need not wait for it.
func (b *Backend) startWarmWorker(ctx context.Context, client *worker.Client) {
	known, ok := b.config.Environments.(interface {
		Present(ctx context.Context) (environment.Environment, error)
	})
	if !ok || b.config.Mode == worker.ModeCold {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(restBeforeWarming):
	}
	env, err := known.Present(ctx)
	var short string
	if err == nil {
		short, err = worker.ShortPath(b.config.DataDir)
	}
	if err == nil {
		err = client.Prepare(ctx, worker.Environment{Interpreter: env.Interpreter, Digest: env.Digest, Variables: b.commonVariables(env, short)})
	}
	switch { // an error is only logged: an attempt that needs the environment tells its user
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, aloft.ErrNotFound): // no environment stands for all images; an image may have its own
		b.config.Logger.Info("no warm worker is started ahead", "error", err)
	default:
		b.config.Logger.Warn("no warm worker is started ahead", "error", err)
	}
}

// handle takes one event of the supervisor, or one that attach has made.
func (b *Backend) handle(ctx context.Context, event worker.Event, report func(executor.Event), reading *sync.WaitGroup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.jobs[event.AttemptID]
	if a == nil || a.reported { // Start will attach to the attempt, or the attempt was given up
		return
	}
	switch event.Kind {
	case worker.EventStarted:
		started := executor.Event{Job: a.job, Started: a.job.Started("", time.Now().UnixNano())}
		b.mu.Unlock()
		report(started)
		b.mu.Lock()
	case worker.EventDone, worker.EventExited:
		if event.Kind == worker.EventExited {
			a.exited = &event
		}
		if a.reading {
			return // finish is at work: it looks at a.exited if the files of the attempt tell no outcome yet
		}
		a.reading = true
		// Reading what the attempt left means waiting for the disk: events of other attempts are handled meanwhile.
		reading.Go(func() { b.finish(ctx, a, event, report) })
	}
}

// waitForSupervisor calls supervisor until it succeeds or ctx ends: the server is of use before its tasks can run.
func (b *Backend) waitForSupervisor(ctx context.Context) (*worker.Client, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		client, err := b.supervisor(ctx)
		if err == nil {
			return client, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		b.config.Logger.Warn("the worker cannot be reached: tasks wait", "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// giveUpOrphans ends the attempts that the supervisor has and that the store has given up: no Start has come for them, and
// Watch does not expect them.
func (b *Backend) giveUpOrphans(ctx context.Context, client *worker.Client, expected []aloft.AttemptID) error {
	keep := map[string]bool{}
	for _, id := range expected {
		keep[attemptName(id)] = true
	}
	known, err := client.List(ctx)
	if err != nil {
		return err
	}
	for _, status := range known {
		b.mu.Lock()
		started := b.jobs[status.AttemptID] != nil
		b.mu.Unlock()
		if started || keep[status.AttemptID] {
			continue
		}
		b.config.Logger.Info("end an attempt that was given up", "attempt", status.AttemptID)
		if err := client.Stop(ctx, status.AttemptID, b.config.Grace); err != nil {
			return err
		}
		if err := client.Forget(ctx, status.AttemptID); err != nil {
			return err
		}
		b.mu.Lock()
		delete(b.inherited, status.AttemptID)
		b.mu.Unlock()
	}
	return b.sweep(keep, known)
}

// sweep removes the folders of attempts that neither the store (keep) nor the supervisor (known) has: a server was killed
// before it had handed them over, or while it was removing them.
func (b *Backend) sweep(keep map[string]bool, known []worker.Status) error {
	kept := map[string]bool{}
	for name := range keep {
		kept[folderName(name)] = true
	}
	for _, status := range known {
		kept[folderName(status.AttemptID)] = true
	}
	folders, err := os.ReadDir(filepath.Join(b.config.DataDir, "attempts"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, folder := range folders {
		name := strings.TrimSuffix(strings.TrimSuffix(folder.Name(), tempSuffix), inputsSuffix)
		if !kept[name] {
			b.removeUnknown(name, folder.Name())
		}
	}
	return nil
}

// removeUnknown removes a folder of an attempt that no Start is or was at work for. The folder's age says nothing: a file
// system's clock may be some milliseconds behind ours, so that a folder that a Start is just making looks older than this server.
func (b *Backend) removeUnknown(name, folder string) {
	b.mu.Lock()
	wanted := b.locked[name]
	for attempt := range b.jobs {
		wanted = wanted || folderName(attempt) == name
	}
	if wanted {
		b.mu.Unlock()
		return
	}
	b.locked[name] = true // a Start that comes meanwhile waits
	b.mu.Unlock()
	defer b.unlockFolders(name)
	b.discard(filepath.Join(b.config.DataDir, "attempts", folder))
}

// finish reads what an attempt left and reports its outcome, once. It begins at the exit (EventExited) or, for a warm task, some
// milliseconds before that, when the task says that it is done (EventDone). If the files tell no outcome then, finish reads them
// again after the exit. A Stop ends a reading that takes long: the terabytes that a task left, or a disk that is full, keep no
// execution from being terminated.
func (b *Backend) finish(ctx context.Context, a *attempt, event worker.Event, report func(executor.Event)) {
	wait := 50 * time.Millisecond
	server := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	a.cancel = cancel
	if a.abandoned {
		cancel()
	}
	b.mu.Unlock()
	for {
		over := event.Kind == worker.EventExited
		outcome, err := b.outcome(ctx, a, event.Exit, over)
		if err == nil {
			b.mu.Lock()
			a.reading, a.reported = false, true
			b.mu.Unlock()
			report(executor.Event{Job: a.job, Outcome: outcome})
			return
		}
		b.mu.Lock()
		if a.exited != nil && ctx.Err() != nil && server.Err() == nil { // a Stop has ended the reading
			a.reading, a.reported = false, true
			exit := a.exited.Exit
			b.mu.Unlock()
			outcome := a.job.Outcome()
			outcome.StartedAt, outcome.EndedAt = exit.StartedAt.UnixNano(), time.Now().UnixNano()
			outcome.Result = &aloftv1.Outcome_Stopped{Stopped: "stopped as asked, before all that it left was read"}
			report(executor.Event{Job: a.job, Outcome: outcome})
			return
		}
		if !over && a.exited != nil { // the exit came while we read, and there may be more to read now
			event = *a.exited
			b.mu.Unlock()
			continue
		}
		if !over || ctx.Err() != nil {
			a.reading = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		// Our own part failed (a full disk): the task's result waits, it is not thrown away.
		err = aloft.Blame(aloft.ServiceBlob, err) // all that outcome reads and writes is in the blob store
		b.config.Logger.Warn("keep what the attempt left", "attempt", a.job.ID.String(), "error", err, "again_in", wait)
		report(executor.Event{Job: a.job, Held: err})
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// errNotOver: the task says that it is done, and its files tell no outcome yet.
var errNotOver = errors.New("it is not over yet")
