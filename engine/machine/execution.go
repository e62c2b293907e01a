package machine

import (
	"errors"
	"fmt"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

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

func (t *step) endExecution(phase core.WorkflowExecution_Phase, outputs *aloftv1.LiteralRef, cause *core.ExecutionError) error {
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ExecutionEnded{
		ExecutionEnded: &aloftv1.ExecutionEnded{Phase: phase, Outputs: outputs, Error: cause},
	}})
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

// expiry is when the execution fails for having lasted too long; 0: never, or it is over or ending already.
func (s *State) expiry() int64 {
	if s.create == nil || !s.scopes[0].runs() {
		return 0
	}
	if s.overdue.expiry {
		return s.overdue.until
	}
	return s.expires
}

func (s *State) executionStarted(at int64, e *aloftv1.ExecutionStarted) error {
	if s.create != nil {
		return errors.New("the execution has started before")
	}
	if s.terminated {
		return errors.New("the execution is being terminated")
	}
	if e.GetCreate() == nil {
		return errors.New("it does not say what to run")
	}
	s.create, s.phase, s.started, s.changed = e.GetCreate(), core.WorkflowExecution_RUNNING, at, at
	s.expires = e.GetExpiresAt()
	s.openScope(s.graph.root, noIndex, 0)
	return nil
}

func (s *State) terminateRequested(at int64, e *aloftv1.TerminateRequested) error {
	if s.terminated {
		return errors.New("the execution is being terminated already")
	}
	s.terminated, s.cause, s.principal = true, e.GetCause(), e.GetPrincipal()
	s.phase, s.changed = core.WorkflowExecution_ABORTING, at
	if s.create != nil {
		s.scopes[0].stopped = true
		s.halt(0)
		s.settle(0)
	}
	return nil
}

func (s *State) executionEnded(at int64, e *aloftv1.ExecutionEnded) error {
	if len(s.outstanding) > 0 || s.engineAttempts > 0 {
		return fmt.Errorf("%d attempts and %d by the engine have not ended", len(s.outstanding), s.engineAttempts)
	}
	var failing, succeeded bool
	if s.create != nil {
		c := s.scopes[0]
		if c.active > 0 || c.pending > 0 {
			return fmt.Errorf("%d nodes are active and %d pending", c.active, c.pending)
		}
		failing, succeeded = c.failing, s.succeeded(c)
		c.done = true
	}
	var right bool
	switch e.GetPhase() {
	case core.WorkflowExecution_SUCCEEDED:
		right = succeeded && !failing && !s.terminated
	case core.WorkflowExecution_FAILED:
		right = failing && !s.terminated && e.GetError() != nil
	case core.WorkflowExecution_ABORTED:
		right = s.terminated
	}
	if !right {
		return fmt.Errorf("it cannot be %s (succeeded %t, failing %t, terminated %t)", e.GetPhase(), succeeded, failing, s.terminated)
	}
	var outputs uint32
	if s.create != nil {
		var err error
		if outputs, err = s.scopes[0].intern(e.GetOutputs()); err != nil {
			return err
		}
	}
	s.phase, s.outputs, s.changed, s.ended = e.GetPhase(), outputs, at, at
	if e.GetError() != nil {
		s.err = e.GetError()
	}
	return nil
}
