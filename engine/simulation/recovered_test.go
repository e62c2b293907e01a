package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/recovery"
	"github.com/aloft-dev/aloft/store"
)

// What happens to executions that have failed.
const (
	nodeRecovered      = "a task node is recovered"
	scopeRecovered     = "a sub-workflow is recovered as a whole"
	chainRecovered     = "an execution that recovers another is recovered"
	checkpointHandedOn = "a task goes on from the checkpoint of an execution that is recovered"
	comparedRecovered  = "compared a recovered execution with a clean one"
)

// longestChain is how many recoveries follow on one execution.
const longestChain = 3

// planRecovery adds a recovery of an execution to the plan, if it has failed and the plan has none yet. fixed: what made the
// execution fail is mended.
func (w *world) planRecovery(i int, fixed bool) {
	p := w.plan.executions[i]
	if _, created := w.created[p.name]; !created || p.newer || p.chain == longestChain && !fixed {
		return
	}
	if slices.ContainsFunc(w.plan.executions, func(other plannedExecution) bool { return other.recovers == p.name }) {
		return
	}
	w.withoutFaults(func() {
		e, err := w.memory.GetExecution(w.ctx, w.id(p.name))
		if err != nil || !aloft.Terminal(e.Phase) || e.Phase == core.WorkflowExecution_SUCCEEDED {
			return
		}
		next := p
		next.name, next.recovers, next.chain, next.fixed = p.name+"-r", p.name, p.chain+1, fixed
		next.terminated = next.terminated && !fixed
		w.plan.executions = append(w.plan.executions, next)
		w.tell("%s is to be recovered by %s (fixed: %t)", p.name, next.name, fixed)
		if next.chain > 1 {
			w.count(chainRecovered)
		}
	})
}

// recoverAll recovers all executions that have failed, with what made them fail mended.
func (w *world) recoverAll() {
	for i := range w.plan.executions {
		w.planRecovery(i, true)
	}
	for i := range w.plan.executions {
		w.create(i)
	}
}

// failsNoMore says whether a task succeeds that failed in the execution that is recovered.
func (w *world) failsNoMore(a *store.Attempt) bool {
	p := w.planned(a.ID.Execution.Name)
	if w.nothingFails || p.fixed || p.recovers == "" {
		return w.nothingFails || p.fixed
	}
	h := fnv.New32()
	fmt.Fprint(h, w.seed, p.name, a.Node)
	return h.Sum32()%2 == 0
}

// failureNode is the id of the nodes that handle failures, which are never taken over.
const failureNode = "efn"

// checkRecovered compares the new entries of a journal with the execution that it recovers.
func (w *world) checkRecovered(s *snapshot) error {
	for _, row := range s.journal[s.run.entries:] {
		for _, event := range row.Entry.GetEvents() {
			switch k := event.GetKind().(type) {
			case *aloftv1.Event_NodeRecovered:
				if err := w.checkTaken(s, s.state.Node(k.NodeRecovered.GetNode()), k.NodeRecovered); err != nil {
					return err
				}
			case *aloftv1.Event_NodeQueued:
				if err := w.checkNotRunAgain(s, s.state.Node(k.NodeQueued.GetNode())); err != nil {
					return err
				}
			case *aloftv1.Event_NodeCached:
				if err := w.checkNotRunAgain(s, s.state.Node(k.NodeCached.GetNode())); err != nil {
					return err
				}
			case *aloftv1.Event_AttemptScheduled:
				if err := w.checkHandedOn(s, s.state.Node(k.AttemptScheduled.GetNode()), k.AttemptScheduled); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sourceOf is the record of a node in the execution that is recovered; nil: it has none.
func (w *world) sourceOf(s *snapshot, node machine.NodeRef) (*store.Node, error) {
	if s.run.planned.recovers == "" {
		return nil, nil
	}
	if s.run.source == nil {
		nodes, err := w.nodesOf(s.run.planned.recovers)
		if err != nil {
			return nil, err
		}
		s.run.source = nodes
	}
	return s.run.source[pathOf(node)], nil
}

func pathOf(node machine.NodeRef) recovery.Path {
	if parent, nested := node.Parent(); nested {
		return pathOf(parent).Join(node.SpecID())
	}
	return recovery.Path(node.SpecID())
}

// nodesOf are the nodes of an execution with their inputs and outputs.
func (w *world) nodesOf(name string) (map[recovery.Path]*store.Node, error) {
	id := w.id(name)
	all, err := w.memory.ListNodes(w.ctx, id, "", true, store.Query{})
	if err != nil {
		return nil, err
	}
	byID := map[aloft.NodeID]*store.Node{}
	for _, n := range all {
		if byID[n.ID], err = w.memory.GetNode(w.ctx, id, n.ID); err != nil {
			return nil, err
		}
	}
	byPath := map[recovery.Path]*store.Node{}
	for _, n := range byID {
		path := recovery.Path(n.SpecNodeID)
		for above := byID[n.Parent]; above != nil; above = byID[above.Parent] {
			path = recovery.Path(above.SpecNodeID).Join(string(path))
		}
		byPath[path] = n
	}
	return byPath, nil
}

func (w *world) checkTaken(s *snapshot, node machine.NodeView, taken *aloftv1.NodeRecovered) error {
	source, err := w.sourceOf(s, node.NodeRef)
	if err != nil {
		return err
	}
	switch {
	case source == nil:
		return fmt.Errorf("node %s was taken over, and nothing of it was there", node.ID())
	case !aloft.Succeeded(source.Phase):
		return fmt.Errorf("node %s was taken over, and it had ended %s", node.ID(), source.Phase)
	case string(source.ID) != taken.GetSource() || !proto.Equal(source.Inputs.GetRef(), taken.GetInputs()) || !proto.Equal(source.Outputs.GetRef(), taken.GetOutputs()):
		return fmt.Errorf("node %s was taken over from %s with %v and %v, and there %s has %v and %v",
			node.ID(), taken.GetSource(), taken.GetInputs(), taken.GetOutputs(), source.ID, source.Inputs, source.Outputs)
	case node.SpecID() == failureNode:
		return fmt.Errorf("node %s was taken over, which handles a failure", node.ID())
	}
	if node.Kind() == machine.KindWorkflow {
		w.count(scopeRecovered)
	} else {
		w.count(nodeRecovered)
	}
	return nil
}

// refersToDamaged says whether an object was damaged in which a value is kept, or to which it refers.
func (w *world) refersToDamaged(l *aloftv1.Literals) bool {
	if w.damaged[l.GetRef().GetUri()] {
		return true
	}
	values, err := w.value(l)
	if err != nil {
		return false // sameLiterals reports it
	}
	encoded, err := proto.Marshal(values)
	if err != nil {
		return false
	}
	for uri := range w.damaged {
		if bytes.Contains(encoded, []byte(uri)) {
			return true
		}
	}
	return false
}

func (w *world) checkNotRunAgain(s *snapshot, node machine.NodeView) error {
	if k := node.Kind(); k != machine.KindTask && k != machine.KindWorkflow || node.SpecID() == failureNode {
		return nil
	}
	source, err := w.sourceOf(s, node.NodeRef)
	if err != nil || source == nil || !aloft.Succeeded(source.Phase) || w.refersToDamaged(source.Outputs) {
		return err
	}
	return fmt.Errorf("node %s runs, and it had succeeded in %s", node.ID(), s.run.planned.recovers)
}

// checkHandedOn is P4 for checkpoints: the first attempt of a node goes on from the last checkpoint that the recovered
// execution left.
func (w *world) checkHandedOn(s *snapshot, node machine.NodeView, a *aloftv1.AttemptScheduled) error {
	if a.GetAttempt() > 0 || node.SpecID() == failureNode || node.Kind() != machine.KindTask {
		return nil
	}
	source, err := w.sourceOf(s, node.NodeRef)
	if err != nil {
		return err
	}
	want := ""
	if source != nil {
		attempts, err := w.memory.ListAttempts(w.ctx, w.id(s.run.planned.recovers), source.ID, store.Query{Ascending: true})
		if err != nil {
			return err
		}
		for _, before := range attempts {
			if before.Attempt == 0 {
				want = before.Spec.GetCheckpoint()
			}
			if c := before.Usage.GetCheckpoint(); c != "" {
				want = c
			}
		}
	}
	record, err := w.memory.GetAttempt(w.ctx, aloft.AttemptID{Execution: s.record.ID, Node: node.ID()})
	if err != nil {
		return err
	}
	if got := record.Spec.GetCheckpoint(); got != want {
		return fmt.Errorf("the first attempt of node %s goes on from %q, and what was left is %q", node.ID(), got, want)
	}
	return nil
}

// hasRecoveries says whether there is a recovery to compare with a clean run.
func (w *world) hasRecoveries() bool {
	return slices.ContainsFunc(w.plan.executions, func(p plannedExecution) bool { return p.recovers != "" })
}

// compareRecovered is P4: an execution that recovers another and succeeds is, node by node, what it is where nothing fails,
// every file replaced by the digest of its content. Where all that had failed is mended it has to succeed.
func (w *world) compareRecovered(clean *world) error {
	for _, p := range w.plan.executions {
		if p.recovers == "" {
			continue
		}
		first := p
		for first.recovers != "" {
			first = w.planned(first.recovers)
		}
		got, gotByItself := w.endOf(p.name)
		want, wantByItself := clean.endOf(first.name)
		if got.phase != core.WorkflowExecution_SUCCEEDED {
			if p.fixed && gotByItself && wantByItself && want.phase == core.WorkflowExecution_SUCCEEDED {
				return fmt.Errorf("P4: execution %s ended %s, and a clean one succeeds", p.name, got.phase)
			}
			continue
		}
		if !wantByItself || want.phase != core.WorkflowExecution_SUCCEEDED {
			continue // the clean one reaches a limit of time, or has a failure that cannot be mended, of a cached task
		}
		if err := w.sameNodes(p.name, clean, first.name); err != nil {
			return fmt.Errorf("P4: execution %s: %w", p.name, err)
		}
		w.count(comparedRecovered)
	}
	return errors.Join(w.broken, clean.broken)
}

func (w *world) sameNodes(name string, clean *world, cleanName string) error {
	got, err := w.nodesOf(name)
	if err != nil {
		return err
	}
	want, err := clean.nodesOf(cleanName)
	if err != nil {
		return err
	}
	for path, n := range want {
		mine := got[path]
		if mine == nil {
			if above := got[above(path)]; n.Parent != "" && (above == nil || above.Phase == core.NodeExecution_RECOVERED) {
				continue // the sub-workflow was taken over as a whole, or one that contains it
			}
			return fmt.Errorf("node %s is missing", path)
		}
		if !aloft.Succeeded(mine.Phase) {
			return fmt.Errorf("node %s is %s", path, mine.Phase)
		}
		if w.damaged[mine.Outputs.GetRef().GetUri()] {
			continue
		}
		a, errA := w.withFileDigests(mine.Outputs)
		b, errB := clean.withFileDigests(n.Outputs)
		if err := errors.Join(errA, errB); err != nil {
			return fmt.Errorf("outputs of node %s: %w", path, err)
		}
		if !proto.Equal(a, b) {
			return fmt.Errorf("node %s has outputs %.200v, in a clean run %.200v", path, a, b)
		}
	}
	return nil
}

func above(path recovery.Path) recovery.Path {
	return path[:max(strings.LastIndexByte(string(path), '/'), 0)]
}

// withFileDigests is a value with every file replaced by the digest of its content.
func (w *world) withFileDigests(l *aloftv1.Literals) (*core.LiteralMap, error) {
	m, err := w.value(l)
	if err != nil {
		return nil, err
	}
	m = proto.CloneOf(m)
	literal.WalkMap(m, func(uri *string) { *uri = w.fileDigests[*uri] })
	return m, nil
}
