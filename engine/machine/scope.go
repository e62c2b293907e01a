package machine

import (
	"errors"
	"slices"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// scope is one run of a body: the execution itself (the root), or what is inside a node. Scopes form a tree: each but the root is in a
// node of another.
//
//	running ──▶ failing (of itself: its attempts are stopped) ──▶ handling (its failure node runs) ──▶ done
//	running, failing, handling ──▶ stopped (because what contains it fails or is terminated) ──▶ done
//	running ──▶ done
//
// A node of a scope is not begun, active or over. Of those that are not begun some are pending: everything that they wait for in
// the scope is there. So a scope has come to rest when
//
//	active = 0 and pending = 0
//
// and then, and only then, it is settled: if it fails and has a failure node that did not run yet, that node becomes pending; else the
// scope is concluded, and its result is the end of its node, or of the execution. A scope in which nodes failed and the rest was to
// go on (FAIL_AFTER_EXECUTABLE_NODES_COMPLETE) comes to rest twice: it begins to fail the first time.
//
// A scope that fails or is stopped halts: its pending nodes are not begun any more, its active attempts and waits are put in line to
// be stopped, and the scopes inside its nodes are stopped likewise. It is over when the last of them is.
type scope struct {
	body       *body
	id         aloft.NodeID         // unique id of the node that the scope is in; empty: the root
	node       uint32               // number of that node; noIndex: the root
	attempt    uint32               // the attempt of that node
	first      uint32               // number of the first node; the scope's nodes are first … first + len(body.nodes) - 1
	head, tail uint32               // the active nodes, linked, in the order in which they began
	active     uint32               // how many those are
	pending    uint32               // nodes that are ready, runnable or to be skipped; 0 once the scope has halted
	runnable   uint32               // those of them that are runnable: 0 ≤ runnable ≤ pending
	err        *core.ExecutionError // of the first node that failed, or what the scope fails with; nil: neither
	failing    bool                 // it fails of itself
	handling   bool                 // its failure node may run, or has: handling implies failing
	stopped    bool                 // what contains it ends
	done       bool                 // its node, or the execution, is over

	block
}

// runs says whether new nodes of the scope may begin, the failure node apart.
func (c *scope) runs() bool { return !c.failing && !c.stopped && !c.done }

// succeeded says whether the scope's end-node has: then so have all others.
func (s *State) succeeded(c *scope) bool {
	return aloft.Succeeded(core.NodeExecution_Phase(c.nodes[c.body.end].phase)) // an arm's node may be recovered
}

// skipped says whether the scope's end-node was, although nothing in the scope failed: the arm of a branch was.
func (s *State) skipped(c *scope) bool {
	return c.err == nil && c.nodes[c.body.end].phase == uint8(core.NodeExecution_SKIPPED)
}

// mayBegin says whether a node has everything that it waits for, but for room.
func (s *State) mayBegin(i uint32) bool {
	c := s.scopeOf(i)
	if c.done {
		return false
	}
	if n := &c.nodes[i-c.first]; n.phase != uint8(core.NodeExecution_UNDEFINED) || n.missing > 0 || n.skip {
		return false
	}
	if i-c.first == c.body.failure {
		return c.handling && !c.stopped
	}
	return c.runs()
}

// mayRetry says whether an active node may have another attempt.
func (s *State) mayRetry(i uint32) bool {
	c := s.scopeOf(i)
	if i-c.first == c.body.failure {
		return !c.stopped
	}
	return c.runs()
}

func (t *step) failing(number uint32, cause *core.ExecutionError) *aloftv1.Event {
	if number == 0 {
		return &aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ExecutionFailing{ExecutionFailing: &aloftv1.ExecutionFailing{Error: cause}}}
	}
	return &aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ScopeFailing{
		ScopeFailing: &aloftv1.ScopeFailing{Node: t.scopes[number].node, Error: cause},
	}}
}

// result is what a scope has resulted in that has come to rest: the end of the node that it is in, or of the execution.
//
//	terminated, the root  ABORTED
//	failing               FAILED, with its error
//	its end-node is over  SUCCEEDED, with the outputs of that
//	stopped               ABORTED
//	its end-node skipped  SKIPPED: that of an arm whose producer failed or was skipped
//	else                  RUNNING: what could still run has run, and it fails with the error of a node
func (s *State) result(number uint32) (phase core.NodeExecution_Phase, outputs *aloftv1.LiteralRef, cause *core.ExecutionError) {
	c := s.scopes[number]
	switch {
	case number == 0 && s.terminated:
		return core.NodeExecution_ABORTED, nil, nil
	case c.failing:
		return core.NodeExecution_FAILED, nil, c.err
	case s.succeeded(c):
		return core.NodeExecution_SUCCEEDED, c.ref(c.nodes[c.body.end].outputs), nil
	case c.stopped:
		return core.NodeExecution_ABORTED, nil, nil
	case s.skipped(c):
		return core.NodeExecution_SKIPPED, nil, nil
	}
	return core.NodeExecution_RUNNING, nil, c.err
}

// conclude ends a scope in which nothing is active and nothing is pending, and with it the node or the execution that it is of.
func (t *step) conclude(number uint32) error {
	phase, outputs, cause := t.result(number)
	node, root := t.scopes[number].node, number == 0
	switch {
	case phase == core.NodeExecution_RUNNING && cause == nil:
		return errors.New("a graph has come to rest without an end: nothing in it failed and its end-node has not succeeded")
	case phase == core.NodeExecution_RUNNING:
		return t.decide(t.failing(number, cause))
	case phase == core.NodeExecution_SUCCEEDED && root:
		return t.endExecution(core.WorkflowExecution_SUCCEEDED, outputs, nil)
	case phase == core.NodeExecution_SUCCEEDED:
		return t.decide(nodeSucceeded(t.at, node, outputs, ""))
	case phase == core.NodeExecution_FAILED && root:
		return t.endExecution(core.WorkflowExecution_FAILED, nil, cause)
	case phase == core.NodeExecution_FAILED:
		return t.fail(node, cause)
	case phase == core.NodeExecution_SKIPPED:
		return t.decide(nodeSkipped(t.at, node))
	case root:
		return t.endExecution(core.WorkflowExecution_ABORTED, nil, nil)
	}
	return t.decide(nodeAborted(t.at, node, t.reason()))
}

func (s *State) openScope(w *body, parent, attempt uint32) {
	c := &scope{
		body: w, node: parent, attempt: attempt,
		first: uint32(len(s.homes)), head: noIndex, tail: noIndex,
		block: block{nodes: make([]node, len(w.nodes))},
	}
	number := uint32(len(s.scopes))
	if parent != noIndex {
		c.id = s.nodeID(parent)
		s.node(parent).child, s.node(parent).activity = number, inScope
	}
	s.scopes = append(s.scopes, c)
	s.blockBytes += c.block.bytes()
	s.homes = slices.Grow(s.homes, len(w.nodes))
	for i := range w.nodes {
		s.homes = append(s.homes, number)
		c.nodes[i] = node{missing: w.nodes[i].upstream, attempt: noIndex, child: noIndex, next: noIndex, prev: noIndex}
		if parent == noIndex {
			continue // the graph has made their ids distinct
		}
		id, changed := distinctID(c.id, attempt, w.nodes[i].node.GetId(), func(id aloft.NodeID) bool {
			_, taken := s.ids[hash(id)]
			_, rooted := s.graph.taken[id]
			return taken || rooted
		})
		s.ids[hash(id)] = struct{}{}
		if changed {
			s.renamed[c.first+uint32(i)] = id
		}
	}
	if w.isArm() {
		return // armTaken counts what the node of an arm waits for
	}
	for i := range w.nodes {
		if s.mayBegin(c.first + uint32(i)) { // start-node
			s.makeReady(c.first + uint32(i))
		}
	}
}

func (s *State) scopeFailing(number uint32, cause *core.ExecutionError) error {
	c := s.scopes[number]
	if c.failing || c.stopped || c.done {
		return errors.New("the scope is over or ending")
	}
	if cause == nil {
		return errors.New("it has no error")
	}
	c.failing, c.err = true, cause
	s.halt(number)
	s.settle(number)
	return nil
}

// halt marks for stopping all that is active in a scope and in the scopes inside it, and forgets what has not begun.
func (s *State) halt(number uint32) {
	c := s.scopes[number]
	s.runnables -= c.runnable
	c.pending, c.runnable = 0, 0
	for i := c.head; i != noIndex; i = s.node(i).next {
		n := s.node(i)
		switch n.activity {
		case inScope:
			s.scopes[n.child].stopped = true
			s.halt(n.child)
			s.settle(n.child)
		case inAttempt, inWait:
			s.stops.push(i)
		case idle:
		}
	}
}

// settle notes that a scope has come to rest, if no node of it is active or pending: what failed is handled by its failure
// node, once, and after that the scope ends.
func (s *State) settle(number uint32) {
	c := s.scopes[number]
	switch {
	case c.done || c.active > 0 || c.pending > 0:
	case c.failing && !c.stopped && !c.handling && c.body.failure != noIndex:
		c.handling = true
		s.makeReady(c.first + c.body.failure)
	default:
		s.rested.push(number)
	}
}
