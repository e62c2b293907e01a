package machine

import (
	"fmt"
	"slices"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/nodes"
)

// A branch node waits for what its conditions compare. Then one of its arms is taken, as a fact says, and a scope opens whose body is
// the one node of that arm. The node takes values from the nodes around the branch (a promise in it names those of the next workflow
// outwards) and waits for its producers there, which the branch itself need not have waited for: a producer that has not succeeded
// when the arm is taken is counted, and counted down when it does. A producer that is skipped or fails, where the rest goes on, skips
// the arm's node, and so the branch.
//
//	queued ──▶ running, arm taken ──▶ what the arm's node ends with
//	   └──▶ failed: no arm (else_fail), or a condition without a value
//
// Arms that are not taken leave no trace: which they are follows from ArmTaken and the graph.

// armPath leads from a node of a workflow's body to the node of an arm: the branch node's place in the body, then the arm to take
// there, and in each branch node that is the node of an arm itself.
type armPath struct {
	branch uint32
	arms   []uint32
}

// takeArm evaluates the conditions of a queued branch node and opens the scope of the arm that is taken.
func (t *step) takeArm(i uint32) error {
	arm, failure, err := t.facts.Arm(t.Ref(i))
	switch {
	case err != nil:
		return fmt.Errorf("choose the arm of node %s: %w", t.nodeID(i), err)
	case failure != nil:
		return t.fail(i, cut(failureOf(failure)))
	}
	return t.all(nodeRunning(t.at, i, t.at), &aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ArmTaken{
		ArmTaken: &aloftv1.ArmTaken{Node: i, Arm: arm},
	}})
}

func (s *State) armTaken(at int64, e *aloftv1.ArmTaken) error {
	i := e.GetNode()
	n, arms := s.node(i), s.spec(i).arms
	switch {
	case n.phase != uint8(core.NodeExecution_RUNNING) || n.child != noIndex:
		return fmt.Errorf("the node is %s or has a scope", s.Ref(i).phase())
	case uint64(e.GetArm()) >= uint64(len(arms)) || arms[e.GetArm()] == nil:
		return fmt.Errorf("the branch has %d arms", len(arms))
	}
	n.updated = at
	body := arms[e.GetArm()]
	s.openScope(body, i, 0)
	c := s.scopes[n.child]
	arm, around := &c.nodes[0], s.around(c)
	for _, p := range body.producers {
		switch core.NodeExecution_Phase(around.nodes[p].phase) {
		case core.NodeExecution_SUCCEEDED, core.NodeExecution_RECOVERED:
		case core.NodeExecution_FAILED, core.NodeExecution_SKIPPED:
			arm.skip = true
			arm.missing++
		default:
			arm.missing++
		}
	}
	switch {
	case arm.skip:
		s.skipLater(c.first)
	case s.mayBegin(c.first):
		s.makeReady(c.first)
	}
	return nil
}

// around is the scope that the promises of a scope's nodes refer to: the scope itself, or for that of an arm the next one outwards
// that is a workflow's.
func (s *State) around(c *scope) *scope {
	for c.body.isArm() {
		c = s.scopeOf(c.node)
	}
	return c
}

// waitingArm is the node of an arm that a path leads to from a scope; false: the arm is not taken, not yet, or it is over.
func (s *State) waitingArm(c *scope, path armPath) (i uint32, ok bool) {
	i = c.first + path.branch
	for _, arm := range path.arms {
		if n := s.node(i); n.activity != inScope || s.scopes[n.child].body != s.spec(i).arms[arm] {
			return 0, false
		}
		i = s.scopes[s.node(i).child].first
	}
	return i, true
}

// branch indexes a branch node: each arm is a body of one node.
func (b *builder) branch(w *body, n *core.Node, target *core.BranchNode, s *nodeSpec) {
	arms := nodes.Arms(target)
	s.kind, s.arms = KindBranch, make([]*body, len(arms))
	if len(arms) == 0 {
		b.refuse(w, n, "it has no arms")
	}
	for arm, inner := range arms {
		switch {
		case inner != nil:
			s.arms[arm] = &body{template: w.template, nodes: []nodeSpec{b.node(w, inner)}, byID: map[string]uint32{inner.GetId(): 0}, failure: noIndex, producers: []uint32{}}
		case arm < len(s.arms)-1 || target.GetIfElse().GetError() == nil:
			b.refuse(w, n, "arm %d has no node", arm)
		}
	}
}

// armEdges adds the producers of the nodes of a branch's arms: they are waited for by the arm that is taken.
func (b *builder) armEdges(w *body, c *core.ConnectionSet, spec *nodeSpec, path armPath, waits func(from uint32)) {
	for arm, inside := range spec.arms {
		if inside == nil {
			continue
		}
		here := armPath{branch: path.branch, arms: append(slices.Clip(path.arms), uint32(arm))}
		inner := &inside.nodes[0]
		known := map[uint32]bool{}
		b.producersOf(w, c, inner.node, func(from uint32) {
			if known[from] || w.nodes[from].kind == KindStart {
				return
			}
			known[from] = true
			inside.producers = append(inside.producers, from)
			w.nodes[from].waitingArms = append(w.nodes[from].waitingArms, here)
			waits(from)
		})
		b.armEdges(w, c, inner, here, waits)
	}
}
