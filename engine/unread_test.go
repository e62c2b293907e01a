package engine_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func oneTask() workflow {
	return workflow{name: "waits", tasks: []*core.TaskTemplate{runTask}, nodes: []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": text("1")})}}
}

// wantWaiting demands that the execution's record says why it cannot go on, and that the store does not count it as stuck.
func (b *bench) wantWaiting(id aloft.ExecutionID, text string) {
	b.Helper()
	e := b.execution(id)
	if !strings.Contains(e.Waiting, text) {
		b.Errorf("execution %s waits for %q, want it to say %q", id.Name, e.Waiting, text)
	}
	if stuck, err := b.store.Stuck(b.Context(), 0); err != nil || len(stuck) > 0 {
		b.Errorf("stuck: %v, error %v", stuck, err)
	}
	if waits, err := b.store.Waits(b.Context(), 0); err != nil || len(waits) != 1 || waits[0].Execution != id || waits[0].Waits != 1 || waits[0].Reason != e.Waiting {
		b.Errorf("the executions that wait are %v, error %v, want this one", waits, err)
	}
}

func (b *bench) terminate(id aloft.ExecutionID, cause string) {
	b.Helper()
	if err := b.store.Append(b.Context(), id, terminateFor(cause)); err != nil {
		b.Fatal(err)
	}
}

// The record of an execution whose journal cannot be read says so. The execution ends when it is terminated, with its attempts.
func TestAnExecutionWhoseJournalIsDamagedWaitsByNameAndCanBeTerminated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register(oneTask())
	damaged, other := b.create(oneTask(), "damaged", nil), b.create(oneTask(), "other", nil)
	b.settle(b.engine("a"))
	b.memory.DamageEntry(b.execution(damaged).Key, 1)

	var log bytes.Buffer
	e := b.engine("a", func(c *engine.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, a := range b.unassigned() {
		b.assign("x", a)
		b.report(a, succeeded(map[string]string{"o0": "1"}))
	}
	b.settle(e)
	b.wantPhase(other, core.WorkflowExecution_SUCCEEDED)
	b.wantWaiting(damaged, "journal entry 1")
	if !strings.Contains(log.String(), "execution="+damaged.String()) {
		t.Errorf("the log does not name the execution:\n%s", &log)
	}

	b.terminate(damaged, "it cannot be read")
	b.settle(e)
	got := b.wantPhase(damaged, core.WorkflowExecution_ABORTED)
	if got.AbortCause != "it cannot be read" || got.EndedAt.IsZero() {
		t.Errorf("it ended at %s because of %q", got.EndedAt, got.AbortCause)
	}
	attempts, err := b.store.ListAttempts(t.Context(), damaged, "", store.Query{})
	if err != nil || len(attempts) != 1 || attempts[0].Phase != core.TaskExecution_ABORTED {
		t.Errorf("its attempts are %v, error %v, want one that was aborted", attempts, err)
	}
	for node, want := range map[aloft.NodeID]core.NodeExecution_Phase{"r": core.NodeExecution_ABORTED, aloft.StartNode: core.NodeExecution_SUCCEEDED} {
		if n, err := b.store.GetNode(t.Context(), damaged, node); err == nil && n.Phase != want {
			t.Errorf("node %s is %s, want %s", node, n.Phase, want)
		}
	}
	if left, err := b.store.Assigned(t.Context(), "x"); err != nil || len(left) != 0 {
		t.Errorf("executors are to go on with %v, error %v", left, err)
	}
}

// assigned creates an execution that waits for its attempt, which executor x has.
func (b *bench) assigned(name string) (aloft.ExecutionID, *engine.Engine, *store.Attempt) {
	b.Helper()
	b.register(oneTask())
	id := b.create(oneTask(), name, nil)
	e := b.engine("a")
	b.settle(e)
	a := b.unassigned()[0]
	b.assign("x", a)
	return id, e, a
}

// A message that cannot be read costs its own execution alone.
func TestADamagedMessageStopsItsExecutionAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	damaged, e, a := b.assigned("damaged")
	b.report(a, succeeded(map[string]string{"o0": "1"}))
	b.memory.DamageMessages(b.execution(damaged).Key)
	other := b.create(fanOut(1), "unregistered", nil)
	b.register(fanOut(1))
	b.settle(e)
	b.wantPhase(other, core.WorkflowExecution_SUCCEEDED)
	b.wantWaiting(damaged, "inbox message")
	b.clock.advance(time.Hour)
	b.settle(e)
	b.wantWaiting(damaged, "inbox message")

	b.terminate(damaged, "enough")
	b.settle(e)
	b.wantEndedUnread(damaged, a)
}

// A large message that cannot be read is damaged as a small one is: that only its size is listed makes no difference.
func TestADamagedLargeMessageKeepsNoExecutionFromBeingTerminated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	damaged, e, a := b.assigned("damaged")
	b.report(a, succeeded(map[string]string{"o0": strings.Repeat("1", 2*store.MaxListedMessage)}))
	for i := range 2 {
		message := store.Message{Dedup: fmt.Sprint("wake ", i), Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: strings.Repeat("x", 2*store.MaxListedMessage)}}}}
		if err := b.memory.Append(t.Context(), damaged, message); err != nil {
			t.Fatal(err)
		}
	}
	b.memory.DamageMessages(b.execution(damaged).Key)
	b.settle(e)
	b.wantWaiting(damaged, "inbox message")

	var log bytes.Buffer
	e = b.engine("a", func(c *engine.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	b.settle(e)
	b.wantWaiting(damaged, "inbox message")
	if !strings.Contains(log.String(), "execution="+damaged.String()) {
		t.Errorf("after a restart the log does not name the execution:\n%s", &log)
	}

	b.terminate(damaged, "enough")
	b.settle(e)
	b.wantEndedUnread(damaged, a)
}

// wantEndedUnread demands that the execution has ended with its attempt, whose outcome may be the message that cannot be read.
func (b *bench) wantEndedUnread(id aloft.ExecutionID, a *store.Attempt) {
	b.Helper()
	if e := b.wantPhase(id, core.WorkflowExecution_ABORTED); e.AbortCause != "enough" {
		b.Errorf("it ended because of %q, want what the request says", e.AbortCause)
	}
	ended, err := b.store.GetAttempt(b.Context(), a.ID)
	if err != nil || ended.Phase != core.TaskExecution_ABORTED || ended.Stop == "" {
		b.Errorf("the attempt is %s, to be stopped for %q, error %v", ended.Phase, ended.Stop, err)
	}
	if left, err := b.store.Assigned(b.Context(), "x"); err != nil || len(left) != 0 {
		b.Errorf("executors are to go on with %v, error %v", left, err)
	}
}

// The message that cannot be read may be the outcome for which an aborting execution waits: no executor reports it again.
func TestADamagedMessageEndsAnExecutionThatIsBeingAborted(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2 * store.MaxListedMessage} {
		for _, restarts := range []bool{false, true} {
			b := newBench(t)
			id, e, a := b.assigned("damaged")
			b.terminate(id, "enough")
			b.settle(e)
			b.wantPhase(id, core.WorkflowExecution_ABORTING)
			b.report(a, succeeded(map[string]string{"o0": strings.Repeat("1", size)}))
			b.memory.DamageMessages(b.execution(id).Key)
			if restarts {
				e = b.engine("a")
			}
			b.settle(e)
			b.wantEndedUnread(id, a)
		}
	}
}

// A request to terminate that cannot be read is known by its deduplication key: it was acknowledged.
func TestADamagedRequestToTerminateIsGranted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register(oneTask())
	id := b.create(oneTask(), "damaged", nil)
	e := b.engine("a")
	b.settle(e)
	b.terminate(id, "enough")
	b.memory.DamageMessages(b.execution(id).Key)
	b.settle(e)
	b.settle(e)
	b.wantPhase(id, core.WorkflowExecution_ABORTED)
}

// Messages of an execution that cannot go on do not hide those of others, and do not fill the memory.
func TestManyMessagesOfAParkedExecutionHideNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register(oneTask())
	b.register(fanOut(1))
	full := b.create(oneTask(), "full", nil)
	b.settle(b.engine("a"))
	b.memory.DamageEntry(b.execution(full).Key, 1)
	e := b.engine("a")
	for i := range 60_000 {
		message := store.Message{Dedup: fmt.Sprint("wake ", i), Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: strings.Repeat("x", 100)}}}}
		if err := b.memory.Append(t.Context(), full, message); err != nil {
			t.Fatal(err)
		}
	}
	other := b.create(fanOut(1), "other", nil)
	b.settle(e)
	b.wantPhase(other, core.WorkflowExecution_SUCCEEDED)
	if held := e.Held(); held["bytes of messages"] > 1<<20 || held["known messages"] > 4000 {
		t.Errorf("the engine holds %v of an execution that is parked", held)
	}
}

// Many and large messages of an execution that does go on are consumed, all of them, within bounds.
func TestMoreMessagesThanFitAreReadAsTheirTurnComes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register(oneTask())
	id := b.create(oneTask(), "busy", nil)
	e := b.engine("a")
	b.settle(e)
	for i := range 200 {
		message := store.Message{Dedup: fmt.Sprint("wake ", i), Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: strings.Repeat("x", i%2*50_000+1)}}}}
		if err := b.memory.Append(t.Context(), id, message); err != nil {
			t.Fatal(err)
		}
	}
	a := b.unassigned()[0]
	b.assign("x", a)
	b.report(a, succeeded(map[string]string{"o0": strings.Repeat("1", 30_000)}))
	b.settle(e)
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
}

// A step may fail because of one of its messages: a request to terminate is consumed without that message.
func TestAnExecutionWhoseStepCannotBeMadeCanBeTerminated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id, e, a := b.assigned("stuck")
	b.objects.limit, b.objects.err = 3, fmt.Errorf("write object x: no space left: %w", aloft.ErrUnavailable)
	b.report(a, succeeded(map[string]string{"o0": "too large for a row"}))
	b.settle(e)
	b.clock.advance(time.Minute)
	b.settle(e)
	b.wantWaiting(id, "no space left")
	b.terminate(id, "enough")
	b.settle(e)
	b.wantPhase(id, core.WorkflowExecution_ABORTING)
}

// Inputs that would take too much memory where they are read are the mistake of the bindings that name them so often.
func TestInputsThatCannotBeKeptFailTheirNode(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register(oneTask())
	id := b.create(oneTask(), "heavy", nil)
	b.objects.limit, b.objects.err = 0, fmt.Errorf("keep literals: %w: it would take more than 256 MiB", aloft.ErrExhausted)
	b.settle(b.engine("a"))
	if e := b.wantPhase(id, core.WorkflowExecution_FAILED); e.Error.GetKind() != core.ExecutionError_USER || !strings.Contains(e.Error.GetMessage(), "256 MiB") {
		t.Errorf("it failed with %v", e.Error)
	}
}
