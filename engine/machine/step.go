package machine

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Decision is what one step decided: to be committed whole or not at all.
type Decision struct {
	Events       []*aloftv1.Event // in order; empty: nothing happened
	More         bool             // the limit was reached and there is more to decide now: step again, without messages
	DueAt        time.Time        // when to step again if nothing happens before; zero: no timer
	JournalDueAt time.Time        // DueAt as the journal has it: of what is kept back, when it was due. It goes into the record
	Ended        bool             // the execution has ended: nothing will ever follow
}

// Facts are reads that are answered within a step. The values stay outside, the state holds references only.
//
// Each returns either a reference (nil: no values), or a Failure: it cannot be had, for good, and that is the node's
// result; or a Go error: it cannot be had now. Facts must give the same answer each time they are asked.
// An implementer stores the value that a reference means together with the node's record in the commit of the step.
type Facts interface {
	// Inputs resolves the bindings of a node. For an end-node they are the outputs of its scope. For the failure node
	// NodeRef.Handles gives the error that its input "err" describes.
	Inputs(node NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error)
	// Echo gives the outputs of a task of type echo: its inputs under new names, the sorted names of its inputs paired
	// with the sorted names of its outputs.
	Echo(node NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error)
	// Duration gives the single input of a task of type core-sleep.
	Duration(node NodeRef) (time.Duration, *aloftv1.Failure, error)
	// Cached asks the catalog for the outputs of a task node that may be cached (NodeRef.Cacheable) and has these inputs.
	// It may be asked again while the node is parked: that the answer is another one then is the point.
	Cached(node NodeRef, inputs *aloftv1.LiteralRef) (CacheAnswer, error)
	// Recovered asks what the execution that this one recovers has of a node.
	Recovered(node NodeRef) (Recovery, error)
	// Policy is what holds now. It may be another one the next time: what follows from it is written down. Not to be changed.
	Policy() *Policy
}

// maxSystemFailures is how often an attempt is replaced that failed through no fault of the user's, unless the policy says.
const maxSystemFailures = 3

// maxErrorMessage is the number of bytes from which a message loses its middle, as in Flyte.
const maxErrorMessage = 100 << 10

// Step consumes messages in order (all of them, whatever the limit), fires what is due at now, and advances as far as
// it can, or until about limit events were decided (0: no limit). Each event is applied to s as it is decided: a caller
// whose commit is refused throws s away and folds again. So it does after a Go error: a fact could not be had, or s
// contradicts itself; nothing may be committed.
//
// Messages that change nothing (duplicates, outcomes of attempts that were replaced or that nobody scheduled, all that
// comes after the end) give no event. now may go backwards: events never do.
func (s *State) Step(messages []*aloftv1.Inbox, now time.Time, facts Facts, limit int) (Decision, error) {
	t := step{State: s, facts: facts, at: max(now.UnixNano(), s.last, 1)}
	s.release(t.at)
	for _, m := range messages {
		if err := t.consume(m); err != nil {
			return Decision{}, fmt.Errorf("step execution %s: %w", s.id, err)
		}
	}
	for t.pending() && (limit <= 0 || len(t.events) < limit) {
		if err := t.advance(); err != nil {
			return Decision{}, fmt.Errorf("step execution %s: %w", s.id, err)
		}
	}
	s.forgetHeard()
	return Decision{Events: t.events, More: t.pending(), DueAt: s.DueAt(), JournalDueAt: s.journalDueAt(), Ended: s.Ended()}, nil
}

// step is one call of Step.
type step struct {
	*State
	facts  Facts
	at     int64 // the time of all its events
	events []*aloftv1.Event
}

func (t *step) decide(e *aloftv1.Event) error {
	if err := t.Apply(e); err != nil {
		return err
	}
	t.events = append(t.events, e)
	return nil
}

// all decides in order until one is refused.
func (t *step) all(events ...*aloftv1.Event) error {
	for _, e := range events {
		if err := t.decide(e); err != nil {
			return err
		}
	}
	return nil
}

// ---- messages

func (t *step) consume(m *aloftv1.Inbox) error {
	if t.Ended() {
		return nil
	}
	switch k := m.GetKind().(type) {
	case *aloftv1.Inbox_Create:
		if t.create != nil {
			return nil
		}
		started := &aloftv1.ExecutionStarted{Create: k.Create}
		if limit := t.facts.Policy().ExecutionTimeout; limit > 0 {
			started.ExpiresAt = after(t.at, limit)
		}
		return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ExecutionStarted{ExecutionStarted: started}})
	case *aloftv1.Inbox_Terminate:
		return t.terminate(k.Terminate)
	case *aloftv1.Inbox_AttemptStarted:
		return t.attemptStarted(k.AttemptStarted)
	case *aloftv1.Inbox_Outcome:
		return t.outcome(k.Outcome)
	case *aloftv1.Inbox_GiveUp:
		return t.giveUp(k.GiveUp)
	case *aloftv1.Inbox_Wake:
		return t.wake(k.Wake)
	}
	return fmt.Errorf("this release does not know inbox messages of kind %T", m.GetKind())
}

func (t *step) terminate(m *aloftv1.Terminate) error {
	if t.terminated {
		return nil
	}
	err := t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_TerminateRequested{
		TerminateRequested: &aloftv1.TerminateRequested{Cause: m.GetCause(), Principal: m.GetPrincipal()},
	}})
	if err != nil || t.create != nil {
		return err
	}
	return t.endExecution(core.WorkflowExecution_ABORTED, nil, nil) // it overtook Create
}

// giveUp fails an execution whose steps could not be done for longer than the configuration allows. One that is ending
// already goes on ending.
func (t *step) giveUp(m *aloftv1.GiveUp) error {
	if t.create == nil || t.terminated || t.scopes[0].failing {
		return nil
	}
	cause := m.GetError()
	if cause == nil {
		cause = &core.ExecutionError{Code: CodeOutage, Kind: core.ExecutionError_SYSTEM, Message: "a service was away for too long"}
	}
	return t.decide(t.failing(0, cut(cause)))
}

// adoptable finds the attempt that an executor means: the current one of its node, not ended, with the right token.
func (t *step) adoptable(nodeID string, number uint32, token string) (i uint32, ok bool) {
	i, ok = t.outstanding[aloft.NodeID(nodeID)]
	if !ok || t.attempts[t.nodes[i].attempt].number != number {
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
	n, a := &t.nodes[i], &t.attempts[t.nodes[i].attempt]
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
		// From now by our own clock, not from when the executor's clock says that it began: that one may have been set
		// back, and nobody's time is cut short by that.
		running.ExpiresAt = after(t.at, time.Duration(a.timeout))
	}
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_AttemptRunning{AttemptRunning: running}})
}

// within moves a time that an executor's clock gave between the attempt's creation and now, so that records are in order
// whatever the clocks say.
func (t *step) within(a *attempt, at int64) int64 { return min(max(at, a.created), t.at) }

func (t *step) outcome(m *aloftv1.Outcome) error {
	i, ok := t.adoptable(m.GetNode(), m.GetAttempt(), m.GetToken())
	if !ok {
		return nil
	}
	n, a := &t.nodes[i], &t.attempts[t.nodes[i].attempt]
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
	if failure := t.expired[n.attempt]; failure != nil && m.GetOutputs() == nil {
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

// ---- ends of attempts

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
	return t.another(x, cause, failed.GetRecoverable())
}

func (t *step) attemptLost(x *attemptEnded, reason string) error {
	x.body.Result = &aloftv1.AttemptEnded_Lost{Lost: reason}
	return t.another(x, lostError(reason), true)
}

// another ends a failed attempt and schedules the next one, or fails the node when there is no next one.
//
// The budgets are Flyte's: failures of the system are counted apart from the user's and replaced maxSystemFailures times;
// of the others the node may have as many attempts as the user stated. Failures whose kind is unknown are the user's.
//
// A failure by a service that has a health is charged once for each of its outages, to whoever found it. Those that fall
// into an outage which is known are charged to nobody, and one that finds another outage after the service had been well
// gives back what the outages before it took.
func (t *step) another(x *attemptEnded, cause *core.ExecutionError, recoverable bool) error {
	i := x.body.GetNode()
	o := t.outages[i].before(x.body.GetFailure())
	system := uint32(t.nodes[i].systemFailures) - (t.outages[i].charged - o.charged)
	done, most, retries := x.body.GetAttempt()+1-system-o.free, t.spec(i).maxAttempts, t.spec(i).maxAttempts-1
	budget, used := aloftv1.AttemptEnded_USER, done
	if cause.GetKind() == core.ExecutionError_SYSTEM {
		limit := t.facts.Policy().systemRetries()
		done, most, retries = system, limit, limit
		budget, used = aloftv1.AttemptEnded_SYSTEM, system+1
	}
	stopping := !t.mayRetry(i)
	charge := &aloftv1.AttemptCharge{Budget: budget, RetriesUsed: min(used, retries), RetriesAllowed: retries, Reason: reasonOf(cause)}
	x.body.Charge = charge
	n := next{memory: t.memory[t.nodes[i].attempt]}
	switch {
	case !recoverable:
		charge.Budget, charge.RetriesUsed, charge.RetriesAllowed = aloftv1.AttemptEnded_NONE, 0, 0
		charge.Reason += ", not recoverable: no other attempt would help"
	case stopping:
		charge.Budget, charge.RetriesUsed, charge.RetriesAllowed = aloftv1.AttemptEnded_NONE, 0, 0
		charge.Reason += ", but what contains it is ending"
	case spared(x.body.GetFailure()):
		budget = aloftv1.AttemptEnded_NONE
		charge.Budget, charge.RetriesUsed, charge.RetriesAllowed = budget, 0, 0
		charge.Reason = fmt.Sprintf("%s has been away since %s: not counted", x.body.GetFailure().GetService(),
			timeOf(x.body.GetFailure().GetServiceAwaySince()).UTC().Format(time.RFC3339))
		n = t.next(i, cause, n.memory, system+o.free+1)
		charge.NextAt = max(n.notBefore, t.at)
	case done < most:
		if x.body.GetFailure().GetService() != "" {
			charge.Reason = "a failure of " + x.body.GetFailure().GetService()
		}
		n = t.next(i, cause, n.memory, used)
		charge.NextAt = max(n.notBefore, t.at)
	case most > 1:
		charge.Reason += ", and its retries are used up"
	default:
		charge.Reason += ", and it has no retries"
	}
	if recoverable && !stopping {
		x.body.Budget = budget
	}
	if err := t.decide(&x.event); err != nil {
		return err
	}
	switch {
	case recoverable && stopping: // it would have had another attempt: it did not fail, it was not let go on
		return t.decide(nodeAborted(t.at, i, t.reason()))
	case charge.NextAt != 0:
		return t.schedule(i, n)
	case recoverable:
		cause = cut(&core.ExecutionError{
			Code:    CodeRetriesExhausted + cause.GetCode(),
			Message: fmt.Sprintf("[%d/%d] currentAttempt done. Last Error: %s::%s", done, most, cause.GetKind(), cause.GetMessage()),
			Kind:    cause.GetKind(), ErrorUri: cause.GetErrorUri(), Timestamp: cause.GetTimestamp(), Worker: cause.GetWorker(),
		})
	}
	return t.fail(i, cause)
}

// reasonOf says for which budget a failure is, and why.
func reasonOf(cause *core.ExecutionError) string {
	switch {
	case cause.GetCode() == CodeAttemptLost:
		return "nobody knows how it ended"
	case cause.GetKind() == core.ExecutionError_SYSTEM:
		return "a failure of the system (" + cause.GetCode() + ")"
	case cause.GetCode() == CodeTimeout || cause.GetCode() == CodeQueueTimeout:
		return "its time was over"
	}
	return "a failure of the task (" + cause.GetCode() + ")"
}

// next is what sets an attempt apart from the one before.
type next struct {
	notBefore  int64  // 0: at once
	memory     int64  // 0: as its node states
	checkpoint string // of an attempt of the execution that is recovered; stated with the first attempt
}

// next asks the policies what becomes of a retry. What we run ourselves needs neither pause nor memory.
func (t *step) next(i uint32, cause *core.ExecutionError, memory int64, retry uint32) next {
	spec, policy := t.spec(i), t.facts.Policy()
	n := next{memory: memory}
	if spec.byEngine != "" {
		return n
	}
	name := spec.task.GetId().GetName()
	if pause := policy.pause(name, cause, retry, t.chance(i, t.attempts[t.nodes[i].attempt].number)); pause > 0 {
		n.notBefore = after(t.at, pause)
	}
	had := cmp.Or(memory, max(spec.stable.GetMemoryLimit(), spec.stable.GetMemory()))
	if more := policy.more(name, cause, had); more > had {
		n.memory = more
	}
	return n
}

func (t *step) attemptStopped(x *attemptEnded, reason string) error {
	x.body.Result = &aloftv1.AttemptEnded_Stopped{Stopped: reason}
	return t.all(&x.event, nodeAborted(t.at, x.body.GetNode(), t.reason()))
}

// reason is why something is being stopped, in Flyte's words.
func (s *State) reason() string {
	switch {
	case s.terminated && s.cause != "":
		return "Workflow aborted: " + s.cause
	case s.terminated:
		return "Workflow aborted."
	case s.expires != 0 && s.err.GetCode() == CodeExecutionTimeout:
		return "Workflow aborted: " + s.err.GetMessage()
	}
	return "Some node execution failed, auto-abort."
}

// cut takes the middle out of a message that is too long for a record.
func cut(e *core.ExecutionError) *core.ExecutionError {
	m := e.GetMessage()
	if len(m) <= maxErrorMessage {
		return e
	}
	const mark = " ... <Message Truncated> ... "
	half := (maxErrorMessage - len(mark)) / 2
	// A character cut in two would make the message unfit for protobuf, and the step unfit to be committed.
	m = strings.ToValidUTF8(m[:half], "") + mark + strings.ToValidUTF8(m[len(m)-half:], "")
	return &core.ExecutionError{
		Code: e.GetCode(), Message: m, ErrorUri: e.GetErrorUri(), Kind: e.GetKind(), Timestamp: e.GetTimestamp(), Worker: e.GetWorker(),
	}
}

// ---- advancing

// pending says whether there is something to do at the time of the step.
func (t *step) pending() bool { return t.More() || t.timerDue() }

func (t *step) timerDue() bool {
	due := t.dueAt()
	return due != 0 && due <= t.at
}

// advance does one thing that is pending. What ends goes before what begins: that makes room, and nothing begins that is
// to be stopped. Each thing is decided whole, so that a limit falls between two of them.
func (t *step) advance() error {
	switch {
	case !t.stops.empty():
		return t.stop(t.stops.front())
	case t.timerDue():
		if at := t.expiry(); at != 0 && at == t.dueAt() {
			return t.decide(t.failing(0, &core.ExecutionError{
				Code: CodeExecutionTimeout, Kind: core.ExecutionError_USER,
				Message: fmt.Sprintf("execution timeout [%s] expired", time.Duration(at-t.started)),
			}))
		}
		if len(t.due) == 0 || t.due[0].at > t.dueAt() {
			return t.look(t.looks[0].of)
		}
		return t.fire(t.attempts[t.due[0].of].node)
	case !t.skips.empty():
		return t.decide(nodeSkipped(t.at, t.skips.front()))
	case !t.rested.empty():
		return t.conclude(t.rested.front())
	case !t.ready.empty():
		return t.start(t.ready.front())
	default:
		return t.start(t.held.front())
	}
}

func (t *step) stop(i uint32) error {
	if _, parked := t.parked[i]; parked {
		return t.decide(nodeAborted(t.at, i, t.reason()))
	}
	a := &t.attempts[t.nodes[i].attempt]
	if a.byEngine {
		x := newAttemptEnded(t.at, i, a.number)
		x.body.StartedAt, x.body.EndedAt = a.started, t.at
		return t.attemptStopped(x, t.reason())
	}
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_AttemptStopRequested{
		AttemptStopRequested: &aloftv1.AttemptStopRequested{Node: i, Attempt: a.number, Reason: t.reason()},
	}})
}

// fire ends a sleep, and whatever has had its time.
func (t *step) fire(i uint32) error {
	a := &t.attempts[t.nodes[i].attempt]
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

// start begins a node that is ready.
func (t *step) start(i uint32) error {
	spec := t.spec(i)
	if spec.kind == KindStart {
		return t.decide(nodeSucceeded(t.at, i, t.Ref(i).ScopeInputs(), ""))
	}
	if taken, err := t.recover(i); taken || err != nil {
		return err
	}
	inputs, failure, err := t.facts.Inputs(t.Ref(i))
	switch {
	case err != nil:
		return fmt.Errorf("resolve inputs of node %s: %w", t.nodeID(i), err)
	case failure != nil:
		return t.fail(i, cut(failureOf(failure)))
	}
	var cache CacheAnswer
	if spec.cacheable {
		if cache, err = t.cached(i, inputs); err != nil {
			return err
		}
		if cache.hit() {
			return t.decide(nodeCached(t.at, i, inputs, cache))
		}
	}
	if err := t.decide(nodeQueued(t.at, i, inputs, cache.Lookup)); err != nil {
		return err
	}
	switch {
	case cache.WaitFor != "":
		return t.park(i, cache)
	case spec.kind == KindEnd:
		return t.decide(nodeSucceeded(t.at, i, inputs, ""))
	case spec.kind == KindWorkflow:
		return t.all(nodeRunning(t.at, i, t.at), &aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ScopeOpened{
			ScopeOpened: &aloftv1.ScopeOpened{Node: i},
		}})
	}
	return t.begin(i)
}

// begin gives a queued task node its first attempt.
func (t *step) begin(i uint32) error {
	if t.spec(i).byEngine != "" {
		if err := t.decide(nodeRunning(t.at, i, t.at)); err != nil {
			return err
		}
		return t.schedule(i, next{})
	}
	checkpoint, err := t.checkpoint(i)
	if err != nil {
		return err
	}
	return t.schedule(i, next{checkpoint: checkpoint})
}

func failureOf(f *aloftv1.Failure) *core.ExecutionError {
	if f.GetError() == nil {
		return &core.ExecutionError{Code: CodeUnknown, Message: "no reason is known"}
	}
	return f.GetError()
}

// schedule gives a task node its next attempt, and runs it if that is our own part.
func (t *step) schedule(i uint32, as next) error {
	n, spec := &t.nodes[i], t.spec(i)
	var number uint32
	if n.attempt != none {
		number = t.attempts[n.attempt].number + 1
	}
	e, scheduled := newAttemptScheduled(t.at, i, number, t.token(i, number))
	policy := t.facts.Policy()
	timeout := policy.timeout(spec)
	scheduled.Timeout = int64(timeout)
	if spec.byEngine == "" {
		scheduled.Last = uint32(n.systemFailures) >= policy.systemRetries()
		scheduled.NotBefore, scheduled.Memory, scheduled.Checkpoint = as.notBefore, as.memory, as.checkpoint
		if policy.QueueTimeout > 0 {
			scheduled.ExpiresAt = after(max(t.at, as.notBefore), policy.QueueTimeout)
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

// fail fails a node, and what contains it unless the rest is to go on or is over already.
func (t *step) fail(i uint32, cause *core.ExecutionError) error {
	if err := t.decide(nodeFailed(t.at, i, cause)); err != nil {
		return err
	}
	number := t.nodes[i].scope
	if t.graph.goOn || !t.scopes[number].runs() {
		return nil
	}
	return t.decide(t.failing(number, cause))
}

func (t *step) failing(number uint32, cause *core.ExecutionError) *aloftv1.Event {
	if number == 0 {
		return &aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ExecutionFailing{ExecutionFailing: &aloftv1.ExecutionFailing{Error: cause}}}
	}
	return &aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ScopeFailing{
		ScopeFailing: &aloftv1.ScopeFailing{Node: t.scopes[number].node, Error: cause},
	}}
}

// conclude ends a scope in which nothing is active and nothing waits, and with it the node or execution it belongs to.
func (t *step) conclude(number uint32) error {
	c := &t.scopes[number]
	outputs := func() *aloftv1.LiteralRef { return t.ref(t.nodes[c.first+c.workflow.end].outputs) }
	if number == 0 {
		switch {
		case t.terminated:
			return t.endExecution(core.WorkflowExecution_ABORTED, nil, nil)
		case c.failing:
			return t.endExecution(core.WorkflowExecution_FAILED, nil, c.err)
		case t.succeeded(c):
			return t.endExecution(core.WorkflowExecution_SUCCEEDED, outputs(), nil)
		}
	} else {
		switch {
		case c.failing:
			return t.fail(c.node, c.err)
		case t.succeeded(c):
			return t.decide(nodeSucceeded(t.at, c.node, outputs(), ""))
		case c.stopped:
			return t.decide(nodeAborted(t.at, c.node, t.reason()))
		}
	}
	if c.err == nil {
		return errors.New("a graph has come to rest without an end: nothing in it failed and its end-node has not succeeded")
	}
	return t.decide(t.failing(number, c.err)) // what could still run has run
}

func (t *step) endExecution(phase core.WorkflowExecution_Phase, outputs *aloftv1.LiteralRef, cause *core.ExecutionError) error {
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ExecutionEnded{
		ExecutionEnded: &aloftv1.ExecutionEnded{Phase: phase, Outputs: outputs, Error: cause},
	}})
}
