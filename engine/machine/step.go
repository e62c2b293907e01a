package machine

import (
	"fmt"
	"time"

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
	// Arm evaluates the conditions of a branch node: which of its arms is taken, in the order of ArmTaken. A Failure: none is.
	Arm(node NodeRef) (uint32, *aloftv1.Failure, error)
	// Cached asks the catalog for the outputs of a task node that may be cached (NodeRef.Cacheable) and has these inputs.
	// It may be asked again while the node is parked: that the answer is another one then is the point.
	Cached(node NodeRef, inputs *aloftv1.LiteralRef) (CacheAnswer, error)
	// Recovered asks what the execution that this one recovers has of a node.
	Recovered(node NodeRef) (Recovery, error)
	// Policy is what holds now. It may be another one the next time: what follows from it is written down. Not to be changed.
	Policy() *Policy
}

// Step consumes messages in order (all of them, whatever the limit), fires what is due at now, and advances as far as
// it can, or until about limit events were decided (0: no limit). Each event is applied to s as it is decided: a caller
// whose commit is refused throws s away and folds again. So it does after a Go error: a fact could not be had, or s
// contradicts itself; nothing may be committed.
//
// Messages that change nothing (duplicates, outcomes of attempts that were replaced or that were not scheduled, all that
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
		return t.fire(t.timers[0].node)
	case !t.skips.empty():
		return t.decide(nodeSkipped(t.at, t.skips.front()))
	case !t.rested.empty():
		return t.conclude(t.rested.front())
	case !t.ready.empty():
		return t.start(t.ready.front())
	default:
		return t.start(t.runnable.front())
	}
}

// start begins a node that is ready.
func (t *step) start(i uint32) error {
	spec := t.spec(i)
	if !spec.kind.can().queue {
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
	if cache.WaitFor != "" {
		return t.park(i, cache)
	}
	switch spec.kind {
	case KindTask:
		return t.begin(i)
	case KindWorkflow:
		return t.enter(i)
	case KindBranch:
		return t.takeArm(i)
	case KindStart, KindEnd:
	}
	return t.decide(nodeSucceeded(t.at, i, inputs, ""))
}
