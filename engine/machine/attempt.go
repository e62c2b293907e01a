package machine

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// attempt is one try of a task node.
type attempt struct {
	created, started, updated, ended int64
	due                              int64 // by engine: when it is over; else not before
	timeout                          int64 // how long it may run; 0: any time
	expires                          int64 // when it is ended: queued, if it has not begun by then; running, if it is not over; 0: never
	err                              *core.ExecutionError
	node                             uint32
	prev                             uint32 // the one before it; noIndex: it is the first
	number                           uint32
	outputs                          uint32
	stop                             uint32 // why it is to be stopped, plus 1; 0: it is not
	phase                            uint8
	last                             bool // no other follows if the system fails it
	byEngine                         bool
	lost                             bool
}

// timer is when something is to be done about an attempt if nothing is heard of it; 0: never.
func (a *attempt) timer() int64 {
	switch {
	case a.ended != 0 || a.stop != 0:
		return 0
	case a.byEngine && (a.expires == 0 || a.due <= a.expires):
		return a.due
	}
	return a.expires
}

// adoptable finds the attempt that an executor means: the current one of its node, not ended, with the right token.
func (t *step) adoptable(nodeID string, number uint32, token string) (i uint32, ok bool) {
	i, ok = t.outstanding[aloft.NodeID(nodeID)]
	if !ok || t.latest(i).number != number {
		return 0, false
	}
	right := t.tokenOf(i, number)
	return i, token == string(right[:])
}

func (t *step) attemptStarted(m *aloftv1.AttemptStarted) error {
	i, ok := t.adoptable(m.GetNode(), m.GetAttempt(), m.GetToken())
	if !ok {
		return nil
	}
	n, a := t.node(i), t.latest(i)
	if a.phase != uint8(core.TaskExecution_QUEUED) {
		return nil
	}
	at := t.within(a, m.GetStartedAt())
	if n.phase == uint8(core.NodeExecution_QUEUED) {
		if err := t.decide(nodeRunning(t.at, i, at)); err != nil {
			return err
		}
	}
	running := &aloftv1.AttemptRunning{Node: i, Attempt: a.number, Executor: m.GetExecutor(), StartedAt: at}
	if a.timeout > 0 && a.stop == 0 {
		// From now by our own clock, not from when the executor's clock says that it began: that clock may have been set
		// back, and the attempt would get less time.
		running.ExpiresAt = after(t.at, time.Duration(a.timeout))
	}
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_AttemptRunning{AttemptRunning: running}})
}

// within moves a time that an executor's clock gave between the attempt's creation and now, so that records are in order
// also where clocks differ.
func (t *step) within(a *attempt, at int64) int64 { return min(max(at, a.created), t.at) }

func (t *step) outcome(m *aloftv1.Outcome) error {
	i, ok := t.adoptable(m.GetNode(), m.GetAttempt(), m.GetToken())
	if !ok {
		return nil
	}
	n, a := t.node(i), t.latest(i)
	x := newAttemptEnded(t.at, i, a.number)
	ended := &x.body
	ended.StartedAt = a.started
	if ended.StartedAt == 0 && m.GetStartedAt() != 0 { // its start was not told, or overtaken
		ended.StartedAt = t.within(a, m.GetStartedAt())
	}
	ended.EndedAt = t.at
	if m.GetEndedAt() != 0 {
		ended.EndedAt = max(t.within(a, m.GetEndedAt()), ended.StartedAt)
	}
	ended.DeckUri, ended.Objects, ended.Environment, ended.Usage = m.GetDeckUri(), m.GetObjects(), m.GetEnvironment(), m.GetUsage()
	if n.phase == uint8(core.NodeExecution_QUEUED) && ended.StartedAt != 0 {
		if err := t.decide(nodeRunning(t.at, i, ended.StartedAt)); err != nil {
			return err
		}
	}
	// What was stopped for its time may tell of that in many ways. Only outputs are better than what we know.
	if failure := t.scopeOf(i).expired[n.attempt]; failure != nil && m.GetOutputs() == nil {
		return t.attemptFailed(x, failure)
	}
	switch r := m.GetResult().(type) {
	case *aloftv1.Outcome_Outputs:
		// A reference that cannot be kept would stop the execution for ever: it is the executor's failure, not the run's.
		if size := len(r.Outputs.GetRef().GetDigest()); size != 0 && size != sha256.Size {
			return t.attemptLost(x, fmt.Sprintf("its executor reported outputs with a digest of %d bytes", size))
		}
		return t.attemptSucceeded(x, r.Outputs.GetRef())
	case *aloftv1.Outcome_Failure:
		return t.attemptFailed(x, r.Failure)
	case *aloftv1.Outcome_Lost:
		return t.attemptLost(x, r.Lost)
	case *aloftv1.Outcome_Stopped:
		if a.stop == 0 {
			return t.attemptLost(x, "stopped, but not by the engine: "+r.Stopped)
		}
		return t.attemptStopped(x, r.Stopped)
	}
	return t.attemptLost(x, "its executor reported an end without a result")
}

func (t *step) attemptSucceeded(x *attemptEnded, outputs *aloftv1.LiteralRef) error {
	if outputs == nil {
		outputs = &x.nothing
	}
	x.success.Outputs = outputs
	x.body.Result = &x.success
	if err := t.decide(&x.event); err != nil {
		return err
	}
	return t.decide(nodeSucceeded(t.at, x.body.GetNode(), outputs, x.body.GetDeckUri()))
}

func (t *step) attemptFailed(x *attemptEnded, failure *aloftv1.Failure) error {
	cause := failure.GetError()
	if cause == nil {
		cause = &core.ExecutionError{Code: CodeUnknown, Message: "the attempt failed and its executor did not say why"}
	}
	cause = cut(cause)
	failed := &aloftv1.Failure{Error: cause, Recoverable: failure.GetRecoverable()}
	if cause.GetKind() == core.ExecutionError_SYSTEM {
		failed.Service, failed.ServiceAwaySince, failed.ServiceWellAt = failure.GetService(), failure.GetServiceAwaySince(), failure.GetServiceWellAt()
	}
	x.body.Result = &aloftv1.AttemptEnded_Failure{Failure: failed}
	return t.retryOrFail(x, cause, failed.GetRecoverable())
}

func (t *step) attemptLost(x *attemptEnded, reason string) error {
	x.body.Result = &aloftv1.AttemptEnded_Lost{Lost: reason}
	return t.retryOrFail(x, lostError(reason), true)
}

func (t *step) attemptStopped(x *attemptEnded, reason string) error {
	x.body.Result = &aloftv1.AttemptEnded_Stopped{Stopped: reason}
	return t.all(&x.event, nodeAborted(t.at, x.body.GetNode(), t.reason()))
}

// schedule gives a task node its next attempt, and runs it if that is our own part.
func (t *step) schedule(i uint32, plan attemptPlan) error {
	n, spec := t.node(i), t.spec(i)
	var number uint32
	if last := t.latest(i); last != nil {
		number = last.number + 1
	}
	e, scheduled := newAttemptScheduled(t.at, i, number, t.token(i, number))
	policy := t.facts.Policy()
	timeout := policy.timeout(spec)
	scheduled.Timeout = int64(timeout)
	if spec.byEngine == "" {
		scheduled.Last = uint32(n.systemFailures) >= policy.systemRetries()
		scheduled.NotBefore, scheduled.Memory, scheduled.Checkpoint = plan.notBefore, plan.memory, plan.checkpoint
		if policy.QueueTimeout > 0 {
			scheduled.ExpiresAt = after(max(t.at, plan.notBefore), policy.QueueTimeout)
		}
		return t.decide(e)
	}
	scheduled.ByEngine = true
	if timeout > 0 {
		scheduled.ExpiresAt = after(t.at, timeout)
	}
	var outputs *aloftv1.LiteralRef
	var failure *aloftv1.Failure
	var wait time.Duration
	var err error
	if spec.byEngine == TaskEcho {
		outputs, failure, err = t.facts.Echo(t.Ref(i))
	} else {
		wait, failure, err = t.facts.Duration(t.Ref(i))
	}
	if err != nil {
		return fmt.Errorf("run %s of node %s: %w", spec.byEngine, t.nodeID(i), err)
	}
	scheduled.DueAt = t.at
	if failure == nil && wait > 0 {
		scheduled.DueAt = after(t.at, wait)
	}
	if err := t.decide(e); err != nil || scheduled.DueAt > t.at {
		return err
	}
	x := newAttemptEnded(t.at, i, number)
	x.body.StartedAt, x.body.EndedAt = t.at, t.at
	if failure != nil {
		return t.attemptFailed(x, failure)
	}
	return t.attemptSucceeded(x, outputs)
}

func (t *step) stop(i uint32) error {
	if t.node(i).activity == inWait {
		return t.decide(nodeAborted(t.at, i, t.reason()))
	}
	a := t.latest(i)
	if a.byEngine {
		x := newAttemptEnded(t.at, i, a.number)
		x.body.StartedAt, x.body.EndedAt = a.started, t.at
		return t.attemptStopped(x, t.reason())
	}
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_AttemptStopRequested{
		AttemptStopRequested: &aloftv1.AttemptStopRequested{Node: i, Attempt: a.number, Reason: t.reason()},
	}})
}

// fire does what the timer of a node is for: a sleep is over, an attempt has had its time, or a parked node asks again.
func (t *step) fire(i uint32) error {
	if t.node(i).activity == inWait {
		return t.resume(i)
	}
	a := t.latest(i)
	if a.byEngine {
		x := newAttemptEnded(t.at, i, a.number)
		x.body.StartedAt, x.body.EndedAt = a.started, t.at
		if a.timer() == a.due {
			return t.attemptSucceeded(x, nil)
		}
		return t.attemptFailed(x, expired(CodeTimeout, timeoutMessage, a.timeout))
	}
	failure := expired(CodeTimeout, timeoutMessage, a.timeout)
	if a.phase == uint8(core.TaskExecution_QUEUED) {
		failure = expired(CodeQueueTimeout, "the attempt did not begin within [%s]", a.expires-max(a.created, a.due))
	}
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_AttemptStopRequested{AttemptStopRequested: &aloftv1.AttemptStopRequested{
		Node: i, Attempt: a.number, Reason: failure.GetError().GetMessage(), Failure: failure,
	}}})
}

const timeoutMessage = "task execution timeout [%s] expired" // Flyte's

// expired is the failure of what has had its time. It is the user's, and another attempt may be quicker.
func expired(code, message string, after int64) *aloftv1.Failure {
	return &aloftv1.Failure{Recoverable: true, Error: &core.ExecutionError{
		Code: code, Message: fmt.Sprintf(message, time.Duration(after)), Kind: core.ExecutionError_USER,
	}}
}

func (s *State) attemptScheduled(at int64, e *aloftv1.AttemptScheduled) error {
	i := e.GetNode()
	c, n, spec := s.scopeOf(i), s.node(i), s.spec(i)
	if !n.isActive() || !s.mayRetry(i) {
		return fmt.Errorf("the node is %s, or its scope is ending", s.Ref(i).phase())
	}
	var number uint32
	if last := c.latest(n); last != nil {
		if last.ended == 0 || last.phase == uint8(core.TaskExecution_SUCCEEDED) {
			return fmt.Errorf("attempt %d is %s", last.number, core.TaskExecution_Phase(last.phase))
		}
		number = last.number + 1
	}
	if e.GetAttempt() != number {
		return fmt.Errorf("the next attempt is %d", number)
	}
	if e.GetByEngine() != (spec.byEngine != "") {
		return fmt.Errorf("tasks of type %q are run by an executor, others by the engine", spec.task.GetType())
	}
	if t := s.tokenOf(i, number); e.GetToken() != string(t[:]) {
		return errors.New("its token does not follow from the seed")
	}
	a := attempt{
		created: at, updated: at, due: e.GetNotBefore(),
		node: i, prev: n.attempt, number: number,
		phase: uint8(core.TaskExecution_QUEUED), byEngine: e.GetByEngine(),
		timeout: e.GetTimeout(), expires: e.GetExpiresAt(), last: e.GetLast(),
	}
	n.attempt, n.updated = uint32(len(c.attempts)), at
	if e.GetMemory() > 0 {
		set(&c.memories, n.attempt, e.GetMemory())
	}
	if e.GetCheckpoint() != "" {
		set(&c.offers, i, e.GetCheckpoint())
	}
	if n.activity == inWait {
		s.endWait(i)
	}
	n.activity = inAttempt
	if a.byEngine {
		a.phase, a.started, a.due = uint8(core.TaskExecution_RUNNING), at, e.GetDueAt()
		s.engineAttempts++
	} else {
		s.outstanding[s.nodeID(i)] = i
	}
	if at := a.timer(); at != 0 || a.byEngine {
		s.timers.push(timer{at: at, node: i})
	}
	c.attempts = append(c.attempts, a)
	return nil
}

// current is the attempt that an event means: the last one of its node, which must not have ended.
func (s *State) current(i, number uint32) (*attempt, error) {
	a := s.latest(i)
	if a == nil || a.number != number || a.ended != 0 {
		return nil, errors.New("it is not the current attempt, or has ended")
	}
	return a, nil
}

func (s *State) attemptRunning(at int64, e *aloftv1.AttemptRunning) error {
	a, err := s.current(e.GetNode(), e.GetAttempt())
	if err != nil {
		return err
	}
	if a.phase != uint8(core.TaskExecution_QUEUED) {
		return fmt.Errorf("it is %s", core.TaskExecution_Phase(a.phase))
	}
	a.phase, a.started, a.updated = uint8(core.TaskExecution_RUNNING), at, at
	if e.GetStartedAt() != 0 {
		a.started = e.GetStartedAt()
	}
	a.expires = e.GetExpiresAt()
	if at := a.timer(); at != 0 {
		s.timers.push(timer{at: at, node: a.node})
	}
	return nil
}

func (s *State) attemptStopRequested(at int64, e *aloftv1.AttemptStopRequested) error {
	a, err := s.current(e.GetNode(), e.GetAttempt())
	if err != nil {
		return err
	}
	expired := e.GetFailure() != nil
	if a.byEngine || a.stop != 0 || e.GetReason() == "" || !expired && s.mayRetry(a.node) {
		return errors.New("it has been asked to stop, needs not be asked, or there is no reason")
	}
	if expired {
		if e.GetFailure().GetError() == nil || a.expires == 0 || at < a.expires {
			return fmt.Errorf("its time is not over before %d, or there is no error", a.expires)
		}
		set(&s.scopeOf(a.node).expired, s.node(a.node).attempt, e.GetFailure())
	}
	a.stop, a.updated = s.text(e.GetReason())+1, at
	return nil
}

func (s *State) attemptEnded(at int64, e *aloftv1.AttemptEnded) error {
	i := e.GetNode()
	a, err := s.current(i, e.GetAttempt())
	if err != nil {
		return err
	}
	c, n := s.scopeOf(i), s.node(i)
	phase := core.TaskExecution_FAILED
	switch r := e.GetResult().(type) {
	case *aloftv1.AttemptEnded_Outputs:
		phase = core.TaskExecution_SUCCEEDED
		if a.outputs, err = c.intern(r.Outputs); err != nil {
			return err
		}
	case *aloftv1.AttemptEnded_Failure:
		if a.err = r.Failure.GetError(); a.err == nil {
			return errors.New("it has no error")
		}
	case *aloftv1.AttemptEnded_Lost:
		a.lost, a.err = true, lostError(r.Lost)
	case *aloftv1.AttemptEnded_Stopped:
		phase = core.TaskExecution_ABORTED
		a.err = &core.ExecutionError{Code: CodeTaskAborted, Message: r.Stopped}
	default:
		return errors.New("it has no result")
	}
	a.phase, a.updated, a.ended = uint8(phase), at, at
	if e.GetStartedAt() != 0 {
		a.started = e.GetStartedAt()
	}
	if e.GetEndedAt() != 0 {
		a.ended = e.GetEndedAt()
	}
	if e.GetDeckUri() != "" {
		set(&c.decks, n.attempt, e.GetDeckUri())
	}
	tally := s.tally(i).after(at, e.GetFailure(), e.GetBudget())
	if n.systemFailures = tally.system; tally.outage != (outage{}) {
		set(&c.outages, i, tally.outage)
	}
	n.activity, n.updated = idle, at
	delete(c.expired, n.attempt)
	if a.byEngine {
		s.engineAttempts--
	} else {
		delete(s.outstanding, s.nodeID(i))
	}
	return nil
}

// lostError is what is known of an attempt of which nothing is known.
func lostError(reason string) *core.ExecutionError {
	return &core.ExecutionError{Code: CodeAttemptLost, Message: reason, Kind: core.ExecutionError_SYSTEM}
}
