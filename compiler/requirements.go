package compiler

import (
	"cmp"
	"slices"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/nodes"
	"github.com/aloft-dev/aloft/literal"
)

// Required are the ids of the entities that must be registered before a workflow: sorted, each once.
type Required struct {
	Tasks        []*core.Identifier
	LaunchPlans  []*core.Identifier
	SubWorkflows []*core.Identifier // those that the specification does not bring along
}

// Requirements finds the entities to which a workflow and its sub-workflows refer, also in branches, maps and failure nodes.
func Requirements(spec *admin.WorkflowSpec) Required {
	s := newReferenceScan()
	s.template(spec.GetTemplate())
	for _, sub := range spec.GetSubWorkflows() {
		s.template(sub)
	}
	for _, sub := range spec.GetSubWorkflows() {
		delete(s.workflows, aloft.KeyOf(sub.GetId()))
	}
	return Required{Tasks: sorted(s.tasks), LaunchPlans: sorted(s.launchPlans), SubWorkflows: sorted(s.workflows)}
}

type referenceScan struct {
	tasks, launchPlans, workflows map[aloft.Key]*core.Identifier
}

func newReferenceScan() *referenceScan {
	return &referenceScan{map[aloft.Key]*core.Identifier{}, map[aloft.Key]*core.Identifier{}, map[aloft.Key]*core.Identifier{}}
}

func (s *referenceScan) template(t *core.WorkflowTemplate) {
	for _, n := range t.GetNodes() {
		s.node(n, 0)
	}
	s.node(t.GetFailureNode(), 0)
}

func (s *referenceScan) node(n *core.Node, depth int) {
	if depth > literal.MaxDepth {
		return // CompileWorkflow refuses such a workflow
	}
	switch target := n.GetTarget().(type) {
	case *core.Node_TaskNode:
		addID(s.tasks, target.TaskNode.GetReferenceId())
	case *core.Node_WorkflowNode:
		addID(s.launchPlans, target.WorkflowNode.GetLaunchplanRef())
		addID(s.workflows, target.WorkflowNode.GetSubWorkflowRef())
	case *core.Node_ArrayNode:
		s.node(target.ArrayNode.GetNode(), depth+1)
	case *core.Node_BranchNode:
		for _, arm := range nodes.Arms(target.BranchNode) {
			s.node(arm, depth+1)
		}
	}
}

func addID(ids map[aloft.Key]*core.Identifier, id *core.Identifier) {
	if id != nil {
		ids[aloft.KeyOf(id)] = id
	}
}

func sorted(ids map[aloft.Key]*core.Identifier) []*core.Identifier {
	out := make([]*core.Identifier, 0, len(ids))
	for _, id := range ids {
		out = append(out, id)
	}
	slices.SortFunc(out, compareIDs)
	return out
}

func compareIDs(a, b *core.Identifier) int {
	return cmp.Or(
		cmp.Compare(a.GetProject(), b.GetProject()), cmp.Compare(a.GetDomain(), b.GetDomain()),
		cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetVersion(), b.GetVersion()),
	)
}
