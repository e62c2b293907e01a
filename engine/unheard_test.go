package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// halfAnHour is how long attempts may last.
func halfAnHour(c *engine.Config) { c.Policy.Timeout = 30 * time.Minute }

// runsForHalfAnHour creates an execution whose only attempt, of node r, has begun and may last half an hour.
func (b *bench) runsForHalfAnHour() (aloft.ExecutionID, *store.Attempt) {
	b.Helper()
	w := workflow{name: "runs", tasks: []*core.TaskTemplate{runTask}, nodes: []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": text("1")})}}
	b.register(w)
	id := b.create(w, "runs", nil)
	e := b.engine("a", halfAnHour)
	b.heartbeat("x", "here", 24*time.Hour)
	b.settle(e)
	a := b.unassigned()[0]
	b.startAttempt(e, a)
	return id, a
}

// The clock of the second server is four hours ahead, or no server ran for as long: an attempt's time is over. If its executor
// reports soon how it ended, that counts.
func TestWhatLiesUnreadGoesBeforeADeadlineThatPassedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		told time.Duration // when the executor reports, after the second engine began; negative: never
		want string        // the code of the node's error
	}{
		"at once": {0, "ValueError"}, "some seconds later": {9 * time.Second, "ValueError"}, "never": {-1, machine.CodeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			id, a := b.runsForHalfAnHour()
			b.clock.advance(4 * time.Hour)
			e := b.engine("b", halfAnHour)
			b.settle(e)
			if c.told >= 0 {
				b.run(e, c.told)
				b.report(a, &aloftv1.Outcome{Result: &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{
					Error: &core.ExecutionError{Code: "ValueError", Kind: core.ExecutionError_USER, Message: "its own"},
				}}})
			} else {
				b.run(e, 15*time.Second)
				b.report(a, &aloftv1.Outcome{Result: &aloftv1.Outcome_Stopped{Stopped: "as asked"}})
			}
			b.run(e, time.Second)
			failed := b.wantPhase(id, core.WorkflowExecution_FAILED)
			if code := failed.Error.GetCode(); code != c.want && code != machine.CodeRetriesExhausted+c.want {
				t.Errorf("it failed with %s: %s, want %s", code, failed.Error.GetMessage(), c.want)
			}
		})
	}
}

// An engine whose clock is an hour ahead keeps a deadline back and commits something else. The next engine finds the deadline at
// its own time, not at the end of the time for which the first one kept it back.
func TestADeadlineThatAFastClockKeptBackIsFoundInTime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id, a := b.runsForHalfAnHour()
	fast := b.fastEngine()
	b.settle(fast)
	again := &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: &aloftv1.AttemptStarted{Node: "r", Token: a.Token}}}
	if err := errors.Join(b.store.Report(t.Context(), "x", []store.Report{{Attempt: a.AttemptKey, Inbox: again}})...); err != nil {
		t.Fatal(err)
	}
	b.settle(fast) // it consumes a message that changes nothing
	e := b.engine("a", halfAnHour)
	b.settle(e)
	b.run(e, 31*time.Minute)
	got, err := b.store.GetAttempt(t.Context(), aloft.AttemptID{Execution: id, Node: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Stop == "" {
		t.Error("a minute after its time was over the attempt is not stopped")
	}
}
