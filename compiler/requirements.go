package compiler

import (
	"cmp"
	"slices"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// Required are the ids of what must be registered before a workflow can be: sorted, each once.
type Required struct {
	Tasks        []*core.Identifier
	LaunchPlans  []*core.Identifier
	SubWorkflows []*core.Identifier // those that the specification does not bring along
}

// Requirements finds what a workflow and its sub-workflows refer to, in branches, maps and failure nodes too.
func Requirements(spec *admin.WorkflowSpec) Required {
	s := newScan()
	s.template(spec.GetTemplate())
	for _, sub := range spec.GetSubWorkflows() {
		s.template(sub)
	}
	for _, sub := range spec.GetSubWorkflows() {
		delete(s.workflows, aloft.KeyOf(sub.GetId()))
	}
	return Required{Tasks: sorted(s.tasks), LaunchPlans: sorted(s.launchPlans), SubWorkflows: sorted(s.workflows)}
}

type scan struct {
	tasks, launchPlans, workflows map[aloft.Key]*core.Identifier
}

func newScan() *scan {
	return &scan{map[aloft.Key]*core.Identifier{}, map[aloft.Key]*core.Identifier{}, map[aloft.Key]*core.Identifier{}}
}

func (s *scan) template(t *core.WorkflowTemplate) {
	for _, n := range t.GetNodes() {
		s.node(n, 0)
	}
	s.node(t.GetFailureNode(), 0)
}

func (s *scan) node(n *core.Node, depth int) {
	if depth > literal.MaxDepth {
		return // refused by the compiler
	}
	switch target := n.GetTarget().(type) {
	case *core.Node_TaskNode:
		note(s.tasks, target.TaskNode.GetReferenceId())
	case *core.Node_WorkflowNode:
		note(s.launchPlans, target.WorkflowNode.GetLaunchplanRef())
		note(s.workflows, target.WorkflowNode.GetSubWorkflowRef())
	case *core.Node_ArrayNode:
		s.node(target.ArrayNode.GetNode(), depth+1)
	case *core.Node_BranchNode:
		block := target.BranchNode.GetIfElse()
		s.node(block.GetCase().GetThenNode(), depth+1)
		for _, other := range block.GetOther() {
			s.node(other.GetThenNode(), depth+1)
		}
		s.node(block.GetElseNode(), depth+1)
	}
}

func note(ids map[aloft.Key]*core.Identifier, id *core.Identifier) {
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
