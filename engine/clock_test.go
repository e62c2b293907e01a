package engine_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// fastEngine is an engine whose clock is an hour ahead of the test's.
func (b *bench) fastEngine() *engine.Engine {
	clock := newHandClock()
	clock.now = b.clock.Now().Add(time.Hour)
	return b.engine("a", func(c *engine.Config) {
		c.Clock, c.Policy.SystemRetries = clock, aloft.SystemRetries{Backoff: time.Minute}
	})
}

// startAttempt lets executor x begin an attempt.
func (b *bench) startAttempt(e *engine.Engine, a *store.Attempt) {
	b.Helper()
	b.assign("x", a)
	inbox := &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: &aloftv1.AttemptStarted{
		Node: string(a.Node), Token: a.Token, StartedAt: b.clock.Now().UnixNano(),
	}}}
	if err := errors.Join(b.store.Report(b.Context(), "x", []store.Report{{Attempt: a.AttemptKey, Inbox: inbox}})...); err != nil {
		b.Fatal(err)
	}
	b.settle(e)
}

// A server whose clock was an hour ahead commits an execution and leaves. The server that goes on with the execution ends no
// attempt of another one.
func TestAFastClockEndsNoAttemptsOfOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "runs", tasks: []*core.TaskTemplate{runTask}, nodes: []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": text("1")})}}
	b.register(w)
	theirs := b.create(w, "theirs", nil)
	b.settle(b.fastEngine())
	if at := b.execution(theirs).StartedAt; at.Before(b.clock.Now().Add(30 * time.Minute)) {
		t.Fatalf("the fast server did not have it: it started at %s", at)
	}
	e := b.engine("a", func(c *engine.Config) { c.Policy = machine.Policy{Timeout: 30 * time.Minute} })
	b.settle(e)
	mine := b.create(w, "mine", nil)
	b.settle(e)
	b.startAttempt(e, b.unassigned()[1])
	b.clock.advance(20 * time.Second)
	b.settle(e)
	if err := b.store.Append(t.Context(), theirs, terminateFor("it is read now")); err != nil {
		t.Fatal(err)
	}
	b.settle(e)
	b.settle(e) // the attempt, which no executor had, is stopped by that
	b.wantPhase(theirs, core.WorkflowExecution_ABORTED)
	own, err := b.store.GetAttempt(t.Context(), aloft.AttemptID{Execution: mine, Node: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if own.Stop != "" {
		t.Fatalf("20 s after it started it is stopped: %s", own.Stop)
	}
	b.clock.advance(30 * time.Minute)
	b.settle(e)
	if own, _ = b.store.GetAttempt(t.Context(), own.ID); own.Stop == "" {
		t.Error("30 min after it started it goes on")
	}
}

func terminateFor(cause string) store.Message {
	return store.Message{Dedup: store.TerminateDedup, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{Cause: cause}}}}
}

// The store finds executions that are due by the engine's clock. Those that are ahead, and due by their own clock, are found
// all the same, however many there are, and whether or not they fit into memory.
func TestTimersOfRunsThatAreAheadFireByTheirOwnClock(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "sleeps", tasks: []*core.TaskTemplate{sleepTask}, nodes: []*core.Node{sleepNode("s", 30*time.Minute)}}
	b.register(w)
	var ids []aloft.ExecutionID
	for i := range 200 {
		ids = append(ids, b.create(w, fmt.Sprintf("e%d", i), nil))
	}
	b.settle(b.fastEngine())
	e := b.engine("a", func(c *engine.Config) { c.CacheRuns = 20_000 })
	b.settle(e)
	b.clock.advance(29 * time.Minute)
	b.settle(e)
	b.wantPhase(ids[0], core.WorkflowExecution_RUNNING)
	b.clock.advance(2 * time.Minute)
	b.settle(e)
	for _, id := range ids {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	}
}

// An attempt that is to start after a pause does so although the time of its record was written by a fast clock.
func TestPausesOfRunsThatAreAheadEndByOurClock(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	retried := task("retried", "python-task", map[string]core.SimpleType{"x": core.SimpleType_STRING}, nil)
	w := workflow{name: "retries", tasks: []*core.TaskTemplate{retried}, nodes: []*core.Node{taskNode("r", retried, map[string]*core.BindingData{"x": text("1")})}}
	b.register(w)
	id := b.create(w, "pauses", nil)
	fast := b.fastEngine()
	b.settle(fast)
	first := b.unassigned()[0]
	b.assign("x", first)
	b.report(first, &aloftv1.Outcome{Result: &aloftv1.Outcome_Lost{Lost: "its machine is gone"}})
	b.settle(fast)
	second := aloft.AttemptID{Execution: id, Node: "r", Attempt: 1}
	a, err := b.store.GetAttempt(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	if !a.NotBefore.After(b.clock.Now().Add(time.Hour)) {
		t.Fatalf("the attempt may start at %s: the test needs a pause by the fast clock", a.NotBefore)
	}
	pause := a.NotBefore.Sub(b.clock.Now().Add(time.Hour))
	e := b.engine("a")
	b.settle(e)
	if got := b.unassigned(); len(got) != 0 {
		t.Errorf("%d attempts start before their pause is over", len(got))
	}
	b.clock.advance(pause)
	b.settle(e)
	if got := b.unassigned(); len(got) != 1 || got[0].ID != second {
		t.Errorf("after the pause of %s there are %d attempts to start, want 1", pause, len(got))
	}
}
