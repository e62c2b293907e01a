package machine

import (
	"errors"
	"fmt"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// node is one node of a scope. Its template is found by its distance from the scope's first node.
type node struct {
	created, started, updated, ended int64
	err                              *core.ExecutionError
	missing                          uint32 // upstream nodes that have not succeeded
	attempt                          uint32 // the latest attempt; noIndex: it has had none
	child                            uint32 // the scope inside it; noIndex: none yet
	inputs, outputs                  uint32 // references
	next, prev                       uint32 // neighbours in the scope's list of active nodes
	phase                            uint8
	systemFailures                   uint8
	activity                         activity
	skip                             bool // an upstream node failed or was skipped
}

// activity is what goes on in a node.
type activity uint8

const (
	idle      activity = iota // it has not begun, is between two attempts, or has ended
	inAttempt                 // its latest attempt has not ended
	inScope                   // the scope inside it has not ended
	inWait                    // it is parked: State.waits has on what
)

// isActive says whether the node has begun and not ended.
func (n *node) isActive() bool {
	return n.phase == uint8(core.NodeExecution_QUEUED) || n.phase == uint8(core.NodeExecution_RUNNING)
}

// fail fails a node, and what contains it unless the rest is to go on or is over already.
func (t *step) fail(i uint32, cause *core.ExecutionError) error {
	if err := t.decide(nodeFailed(t.at, i, cause)); err != nil {
		return err
	}
	number := t.homes[i]
	if t.graph.goOn || !t.scopes[number].runs() {
		return nil
	}
	return t.decide(t.failing(number, cause))
}

// makeReady puts a node that may begin in line.
func (s *State) makeReady(i uint32) {
	c := s.scopeOf(i)
	c.pending++
	if s.spec(i).kind.can().room {
		c.runnable++
		s.runnables++
		s.runnable.push(i)
	} else {
		s.ready.push(i)
	}
}

// begin takes a node out of the line: this is its first event.
func (s *State) begin(i uint32, at int64) error {
	if !s.mayBegin(i) {
		n := s.node(i)
		return fmt.Errorf("the node is %s, waits for %d upstream nodes, or its scope is ending", s.Ref(i).phase(), n.missing)
	}
	s.leave(i)
	s.node(i).created = at
	return nil
}

func (s *State) leave(i uint32) {
	c := s.scopeOf(i)
	c.pending--
	if s.spec(i).kind.can().room {
		c.runnable--
		s.runnables--
	}
}

func (s *State) nodeQueued(at int64, e *aloftv1.NodeQueued) error {
	i := e.GetNode()
	needsRoom := s.spec(i).kind.can().room
	if needsRoom && !s.room() {
		return fmt.Errorf("%d task nodes run already", s.tasks)
	}
	if err := s.begin(i, at); err != nil {
		return err
	}
	c := s.scopeOf(i)
	inputs, err := c.intern(e.GetInputs())
	if err != nil {
		return err
	}
	n := s.node(i)
	n.phase, n.inputs, n.updated = uint8(core.NodeExecution_QUEUED), inputs, at
	n.prev, n.next = c.tail, noIndex
	if c.tail == noIndex {
		c.head = i
	} else {
		s.node(c.tail).next = i
	}
	c.tail = i
	c.active++
	if needsRoom {
		s.tasks++
	}
	return nil
}

func (s *State) nodeRunning(at int64, e *aloftv1.NodeRunning) error {
	i := e.GetNode()
	n := s.node(i)
	if n.phase != uint8(core.NodeExecution_QUEUED) {
		return fmt.Errorf("the node is %s", s.Ref(i).phase())
	}
	n.phase, n.started, n.updated = uint8(core.NodeExecution_RUNNING), at, at
	if e.GetStartedAt() != 0 {
		n.started = e.GetStartedAt()
	}
	return nil
}

// expectOver refuses the end of a node in which something still goes on.
func (s *State) expectOver(i uint32) error {
	n := s.node(i)
	if !n.isActive() {
		return fmt.Errorf("the node is %s", s.Ref(i).phase())
	}
	switch n.activity {
	case inAttempt:
		return fmt.Errorf("attempt %d has not ended", s.latest(i).number)
	case inScope:
		if c := s.scopes[n.child]; c.active > 0 || c.pending > 0 {
			return fmt.Errorf("%d nodes inside are active and %d pending", c.active, c.pending)
		}
	case idle, inWait:
	}
	return nil
}

// end closes a node. A node that was active leaves its scope's list.
func (s *State) end(i uint32, at int64, phase core.NodeExecution_Phase, cause *core.ExecutionError) {
	n := s.node(i)
	if n.isActive() {
		c := s.scopeOf(i)
		if n.prev == noIndex {
			c.head = n.next
		} else {
			s.node(n.prev).next = n.next
		}
		if n.next == noIndex {
			c.tail = n.prev
		} else {
			s.node(n.next).prev = n.prev
		}
		n.next, n.prev = noIndex, noIndex
		c.active--
		if s.spec(i).kind.can().room {
			s.tasks--
		}
	}
	switch n.activity {
	case inScope:
		s.scopes[n.child].done = true
		s.over = append(s.over, n.child)
	case inWait:
		s.endWait(i)
	case idle, inAttempt:
	}
	n.activity = idle
	n.phase, n.err, n.updated, n.ended = uint8(phase), cause, at, at
}

func (s *State) nodeSucceeded(at int64, e *aloftv1.NodeSucceeded) error {
	i := e.GetNode()
	n, can := s.node(i), s.spec(i).kind.can()
	if !can.queue {
		if err := s.begin(i, at); err != nil {
			return err
		}
	} else if err := s.expectOver(i); err != nil {
		return err
	}
	switch {
	case can.attempt && (n.attempt == noIndex || s.latest(i).phase != uint8(core.TaskExecution_SUCCEEDED)):
		return errors.New("its last attempt has not succeeded")
	case can.scope && (n.child == noIndex || s.scopes[n.child].failing || !s.succeeded(s.scopes[n.child])):
		return errors.New("the graph inside has not succeeded")
	}
	return s.succeed(i, at, core.NodeExecution_SUCCEEDED, e.GetOutputs())
}

// succeed ends a node with outputs and lets begin what waited for it alone.
func (s *State) succeed(i uint32, at int64, phase core.NodeExecution_Phase, ref *aloftv1.LiteralRef) error {
	c := s.scopeOf(i)
	outputs, err := c.intern(ref)
	if err != nil {
		return err
	}
	n := s.node(i)
	n.outputs = outputs
	s.end(i, at, phase, nil)
	for _, d := range s.spec(i).downstream {
		if c.nodes[d].missing--; s.mayBegin(c.first + d) {
			s.makeReady(c.first + d)
		}
	}
	for _, path := range s.spec(i).waitingArms {
		if arm, ok := s.waitingArm(c, path); ok {
			if s.node(arm).missing--; s.mayBegin(arm) {
				s.makeReady(arm)
			}
		}
	}
	s.settle(s.homes[i])
	return nil
}

func (s *State) nodeFailed(at int64, e *aloftv1.NodeFailed) error {
	i := e.GetNode()
	if e.GetError() == nil {
		return errors.New("it has no error")
	}
	n := s.node(i)
	if n.phase == uint8(core.NodeExecution_UNDEFINED) { // its inputs could not be resolved
		if err := s.begin(i, at); err != nil {
			return err
		}
	} else if err := s.expectOver(i); err != nil {
		return err
	}
	if n.attempt != noIndex && s.latest(i).phase == uint8(core.TaskExecution_SUCCEEDED) {
		return errors.New("its last attempt has succeeded")
	}
	s.end(i, at, core.NodeExecution_FAILED, e.GetError())
	if c := s.scopeOf(i); c.err == nil { // when the failure node fails there is one
		c.err = e.GetError()
	}
	s.skipDownstream(i)
	s.settle(s.homes[i])
	return nil
}

func (s *State) nodeSkipped(at int64, e *aloftv1.NodeSkipped) error {
	i := e.GetNode()
	n := s.node(i)
	switch {
	case !s.scopeOf(i).runs():
		return errors.New("its scope is ending")
	case n.activity == inScope && s.skipped(s.scopes[n.child]):
	case n.phase != uint8(core.NodeExecution_UNDEFINED) || !n.skip:
		return fmt.Errorf("the node is %s, or nothing before it failed", s.Ref(i).phase())
	default:
		s.scopeOf(i).pending--
		n.created = at
	}
	s.end(i, at, core.NodeExecution_SKIPPED, nil)
	s.skipDownstream(i)
	s.settle(s.homes[i])
	return nil
}

// skipDownstream marks what can never start, where the policy is to go on with the rest.
func (s *State) skipDownstream(i uint32) {
	c := s.scopeOf(i)
	if !s.graph.goOn || !c.runs() {
		return
	}
	for _, d := range s.spec(i).downstream {
		if n := &c.nodes[d]; !n.skip {
			n.skip = true
			s.skipLater(c.first + d)
		}
	}
	for _, path := range s.spec(i).waitingArms {
		if arm, ok := s.waitingArm(c, path); ok && !s.node(arm).skip {
			s.node(arm).skip = true
			s.skipLater(arm)
		}
	}
}

// skipLater puts a node in line to be skipped.
func (s *State) skipLater(i uint32) {
	s.scopeOf(i).pending++
	s.skips.push(i)
}

func (s *State) nodeAborted(at int64, e *aloftv1.NodeAborted) error {
	i := e.GetNode()
	if err := s.expectOver(i); err != nil {
		return err
	}
	if c := s.scopeOf(i); !c.failing && !c.stopped {
		return errors.New("its scope is not ending")
	}
	s.end(i, at, core.NodeExecution_ABORTED, &core.ExecutionError{Code: CodeNodeAborted, Message: e.GetReason()})
	s.settle(s.homes[i])
	return nil
}
