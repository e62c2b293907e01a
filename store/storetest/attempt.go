package storetest

import (
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func (s *suite) waiting(now time.Time) []string {
	s.Helper()
	attempts, err := s.store.Waiting(s.ctx, now, 0)
	s.ok(err)
	return nodesOf(attempts)
}

func onlyWhatIsDueFreeAndNotStoppedWaits(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n9", "n1", "n5", "n3")
	step := s.step(e)
	later := attempt(e, "n0", 1)
	later.NotBefore = at(30)
	step.Attempts = []*store.Attempt{later}
	s.commit(step)
	s.equal(s.waiting(at(29)), []string{"n9", "n1", "n5", "n3"})
	s.equal(s.waiting(at(30)), []string{"n9", "n1", "n5", "n3", "n0"})
	two, err := s.store.Waiting(s.ctx, at(29), 2)
	s.ok(err)
	s.equal(two, a[:2])
	s.assign("x", a[0])
	a[1].Phase, a[1].EndedAt = core.TaskExecution_ABORTED, at(5)
	a[2].Stop = "because"
	step = s.step(e)
	step.Attempts = a[1:3]
	s.commit(step)
	s.equal(s.waiting(at(29)), []string{"n3"})
}

func waitingReasonsAreForThoseNobodyHas(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0", "n1")
	s.assign("x", a[0])
	stranger := a[1].AttemptKey
	stranger.Token = "another"
	s.ok(s.store.SetWaiting(s.ctx, "", append(keys(a), stranger), "no room: needs 4 CPUs"))
	if got := s.attempt(a[0]).Waiting; got != "" {
		s.Errorf("an assigned attempt waits: %q", got)
	}
	if got := s.attempt(a[1]).Waiting; got != "no room: needs 4 CPUs" {
		s.Errorf("the reason is %q", got)
	}
	s.assign("x", a[1])
	if got := s.attempt(a[1]).Waiting; got != "" {
		s.Errorf("after it was assigned it still waits: %q", got)
	}
	// An executor says why it has not started an attempt that it has.
	const made = "its Python environment is being made"
	s.ok(s.store.SetWaiting(s.ctx, "y", keys(a), "of another executor"))
	s.ok(s.store.SetWaiting(s.ctx, "x", keys(a[1:]), made))
	if first, second := s.attempt(a[0]).Waiting, s.attempt(a[1]).Waiting; first != "" || second != made {
		s.Errorf("attempts of an executor wait: %q, %q, want the second for its environment", first, second)
	}
	a[1].Phase, a[1].Executor, a[1].StartedAt = core.TaskExecution_RUNNING, "x", at(5)
	step := s.step(e)
	step.Attempts = a[1:]
	s.commit(step)
	s.ok(s.store.SetWaiting(s.ctx, "x", keys(a[1:]), "too late"))
	if got := s.attempt(a[1]).Waiting; got != "" {
		s.Errorf("it runs and waits: %q", got)
	}
}

func oneInstanceGetsAnAttempt(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0", "n1")
	s.assign("x", a[0])
	s.known("y")
	errs := s.store.Assign(s.ctx, "y", "", keys(a), at(3))
	s.is(errs[0], aloft.ErrConflict)
	s.ok(errs[1])
	s.assign("x", a[0]) // assigning it again is no error
	wrong := a[0].AttemptKey
	wrong.Token = "another"
	s.is(s.store.Assign(s.ctx, "x", "", []store.AttemptKey{wrong}, at(3))[0], aloft.ErrConflict)
	wrong = a[0].AttemptKey
	wrong.Attempt = 7
	s.is(s.store.Assign(s.ctx, "x", "", []store.AttemptKey{wrong}, at(3))[0], aloft.ErrConflict)
	for executor, want := range map[string][]string{"x": {"n0"}, "y": {"n1"}, "z": nil} {
		got, err := s.store.Assigned(s.ctx, executor)
		s.ok(err)
		s.equal(nodesOf(got), want)
	}
	got := s.attempt(a[0])
	if got.Phase != core.TaskExecution_INITIALIZING || got.Executor != "x" || !got.UpdatedAt.Equal(at(2)) {
		s.Errorf("assigned: %+v", got)
	}
}

func whatHasEndedOrIsToBeStoppedIsNotAssigned(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0", "n1", "n2")
	s.assign("x", a[2])
	a[0].Phase, a[0].EndedAt = core.TaskExecution_FAILED, at(5)
	a[1].Stop = "because"
	a[2].Phase, a[2].EndedAt = core.TaskExecution_SUCCEEDED, at(5)
	step := s.step(e)
	step.Attempts = a
	s.commit(step)
	for _, err := range s.store.Assign(s.ctx, "x", "", keys(a), at(6)) {
		s.is(err, aloft.ErrConflict)
	}
	has, err := s.store.Assigned(s.ctx, "x")
	s.ok(err)
	if len(has) != 0 {
		s.Errorf("x still has %v", nodesOf(has))
	}
}

func whatTheEngineRunsIsHiddenFromExecutors(s *suite) {
	e := s.make("e1")
	a := attempt(e, "n0", 0)
	a.ByEngine = true
	step := s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	s.equal(s.waiting(at(100)), []string(nil))
	s.is(s.store.Assign(s.ctx, "x", "", keys(step.Attempts), at(2))[0], aloft.ErrConflict)
	s.equal(s.attempt(a), a)
}

func aReportEntersTheInboxOnce(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0")[0]
	s.assign("x", a)
	for range 2 {
		for _, err := range s.store.Report(s.ctx, "x", []store.Report{started(a), outcome(a)}) {
			s.ok(err)
		}
	}
	rows := s.inbox()
	if len(rows) != 2 {
		s.Fatalf("the inbox has %d messages, want start and outcome", len(rows))
	}
	s.equal(rows[0].Inbox, started(a).Inbox)
	s.equal(rows[1].Inbox, outcome(a).Inbox)
	s.is(s.store.Report(s.ctx, "x", []store.Report{{Attempt: a.AttemptKey, Inbox: create("x")}})[0], aloft.ErrInvalid)
}

func aZombiesReportIsDropped(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0", "n1", "n2")
	s.assign("x", a...)
	report := func(executor string, r store.Report) error {
		return s.store.Report(s.ctx, executor, []store.Report{r})[0]
	}

	superseded := outcome(a[0])
	superseded.Attempt.Token = "an earlier one"
	s.is(report("x", superseded), aloft.ErrConflict)
	s.is(report("y", outcome(a[0])), aloft.ErrConflict) // y never had the attempt, or another instance has adopted it
	a[1].Phase, a[1].EndedAt, a[1].Lost = core.TaskExecution_FAILED, at(5), true
	step := s.step(e)
	step.Attempts = a[1:2]
	s.commit(step)
	s.is(report("x", outcome(a[1])), aloft.ErrConflict)
	// A report that is refused does not hinder the other reports.
	errs := s.store.Report(s.ctx, "x", []store.Report{outcome(a[1]), outcome(a[2])})
	s.is(errs[0], aloft.ErrConflict)
	s.ok(errs[1])
	if rows := s.inbox(); len(rows) != 1 || rows[0].Inbox.GetOutcome().GetNode() != "n2" {
		s.Fatalf("the inbox is %v, want the outcome of n2 alone", rows)
	}
	s.end(e, core.WorkflowExecution_FAILED)
	s.is(report("x", outcome(a[0])), aloft.ErrConflict)
	if rows := s.inbox(); len(rows) != 0 {
		s.Fatalf("what has ended got %v", rows)
	}
}

func aStopOfWhatNobodyHasEndsIt(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0")[0]
	a.Stop, a.UpdatedAt = "a sibling failed", at(4)
	for range 2 { // written again before the outcome was consumed
		step := s.step(e)
		step.Attempts = []*store.Attempt{a}
		s.commit(step)
	}
	rows := s.inbox()
	if len(rows) != 1 {
		s.Fatalf("the inbox has %d messages, want one outcome", len(rows))
	}
	o := rows[0].Inbox.GetOutcome()
	if o.GetStopped() != "a sibling failed" || o.GetNode() != "n0" || o.GetToken() != a.Token || o.GetStartedAt() != 0 || o.GetEndedAt() != at(4).UnixNano() {
		s.Errorf("the outcome is %v", o)
	}
	s.is(s.store.Assign(s.ctx, "x", "", []store.AttemptKey{a.AttemptKey}, at(5))[0], aloft.ErrConflict)
	a.Phase, a.EndedAt = core.TaskExecution_ABORTED, at(5)
	step := s.step(e)
	step.Attempts, step.Consumed = []*store.Attempt{a}, []int64{rows[0].Seq}
	s.commit(step)
	if rows := s.inbox(); len(rows) != 0 {
		s.Errorf("after it has ended there is %v", rows)
	}
	got := s.attempt(a)
	if got.Phase != core.TaskExecution_ABORTED || got.Executor != "" {
		s.Errorf("it became %+v", got)
	}
}

func aStopOfWhatAnInstanceHasIsLeftToIt(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0")[0]
	s.assign("x", a)
	a.Stop = "a sibling failed"
	step := s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	if rows := s.inbox(); len(rows) != 0 {
		s.Fatalf("the inbox is %v, want nothing before the executor reports", rows)
	}
	has, err := s.store.Assigned(s.ctx, "x")
	s.ok(err)
	if len(has) != 1 || has[0].Stop != "a sibling failed" {
		s.Fatalf("x sees %v", has)
	}
}

func (s *suite) heartbeat(id, place string, now time.Time) store.Instance {
	s.Helper()
	i := store.Instance{ID: id, Kind: "process", Place: place, MilliCPU: 2000, Memory: 1 << 30, Slots: 8, SeenAt: now, Expires: now.Add(10 * time.Second)}
	s.ok(s.store.Heartbeat(s.ctx, i))
	return i
}

func attemptsAreAdoptedWithinAPlace(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0", "n1", "n2")
	s.heartbeat("x", "here", at(0))
	s.heartbeat("y", "here", at(0))
	s.heartbeat("far", "there", at(0))
	s.assign("x", a[0], a[1])
	a[1].Phase, a[1].EndedAt = core.TaskExecution_SUCCEEDED, at(5)
	step := s.step(e)
	step.Attempts = a[1:2]
	s.commit(step)
	_, err := s.store.Adopt(s.ctx, "x", "far")
	s.is(err, aloft.ErrPrecondition)
	_, err = s.store.Adopt(s.ctx, "x", "nobody")
	s.is(err, aloft.ErrPrecondition)
	n, err := s.store.Adopt(s.ctx, "x", "y")
	s.ok(err)
	if n != 1 {
		s.Errorf("adopted %d attempts, want the one that has not ended", n)
	}
	has, err := s.store.Assigned(s.ctx, "y")
	s.ok(err)
	s.equal(nodesOf(has), []string{"n0"})
	if got := s.attempt(a[1]).Executor; got != "x" {
		s.Errorf("what had ended on x is now %q's", got)
	}
	// The old instance is a zombie from now on.
	s.is(s.store.Report(s.ctx, "x", []store.Report{outcome(a[0])})[0], aloft.ErrConflict)
	s.ok(s.store.Report(s.ctx, "y", []store.Report{outcome(a[0])})[0])
	n, err = s.store.Adopt(s.ctx, "x", "y")
	s.ok(err)
	if n != 0 {
		s.Errorf("adopted %d attempts again", n)
	}
}

func anInstanceIsOneProcessAtATime(s *suite) {
	beat := func(nonce, follows string, at time.Time) error {
		return s.store.Heartbeat(s.ctx, store.Instance{ID: "x", Kind: "process", Place: "here", Nonce: nonce, Follows: follows, SeenAt: at, Expires: at.Add(time.Minute)})
	}
	e := s.make("e1")
	s.ok(beat("first", "", at(0)))
	s.ok(beat("first", "", at(1)))
	s.is(beat("second", "", at(2)), aloft.ErrFenced)
	s.is(beat("second", "another", at(2)), aloft.ErrFenced)
	s.ok(s.store.Assign(s.ctx, "x", "first", keys(s.schedule(e, "n0")), at(2))[0])
	s.ok(beat("second", "first", at(3)))
	s.ok(beat("second", "first", at(4)))
	s.is(beat("first", "", at(5)), aloft.ErrFenced)
	next := s.schedule(e, "n1")
	s.is(s.store.Assign(s.ctx, "x", "first", keys(next), at(5))[0], aloft.ErrConflict)
	s.ok(s.store.Assign(s.ctx, "x", "second", keys(next), at(6))[0])
	got, err := s.store.Instances(s.ctx)
	s.ok(err)
	if len(got) != 1 || got[0].Nonce != "second" || got[0].Follows != "" || !got[0].SeenAt.Equal(at(4)) {
		s.Errorf("there are %+v, want the second process alone", got)
	}
	has, err := s.store.Assigned(s.ctx, "x")
	s.ok(err)
	if len(has) != 2 {
		s.Errorf("it has %d attempts, want those of both processes", len(has))
	}
}

func anInstanceIsRemovedWhenItHasNothing(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0")[0]
	s.heartbeat("y", "here", at(0))
	s.heartbeat("x", "here", at(0))
	x := s.heartbeat("x", "here", at(5))
	got, err := s.store.Instances(s.ctx)
	s.ok(err)
	if len(got) != 2 {
		s.Fatalf("there are %d instances, want 2", len(got))
	}
	s.equal(got[0], x)
	s.assign("x", a)
	s.is(s.store.RemoveInstance(s.ctx, "x"), aloft.ErrPrecondition)
	s.ok(s.store.RemoveInstance(s.ctx, "y"))
	a.Phase, a.EndedAt = core.TaskExecution_SUCCEEDED, at(5)
	step := s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	s.ok(s.store.RemoveInstance(s.ctx, "x"))
	s.ok(s.store.RemoveInstance(s.ctx, "x"))
	// The reaper finds lost attempts by registered instances: an instance that is not registered must get none.
	s.is(s.store.Assign(s.ctx, "x", "", keys(s.schedule(e, "n1")), at(6))[0], aloft.ErrConflict)
	got, err = s.store.Instances(s.ctx)
	s.ok(err)
	if len(got) != 0 {
		s.Fatalf("there are still %v", got)
	}
}
