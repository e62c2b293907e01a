// Package nodes walks the nodes of a workflow template with those inside other nodes of it: the one place that knows where they are.
package nodes

import (
	"iter"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Workflows are the workflows of a closure: the primary one, then those inside it.
func Workflows(c *core.CompiledWorkflowClosure) []*core.CompiledWorkflow {
	return append([]*core.CompiledWorkflow{c.GetPrimary()}, c.GetSubWorkflows()...)
}

// All are the nodes of a template: its own, its failure node, and those in the arms of branches, each after the branch.
func All(t *core.WorkflowTemplate) iter.Seq[*core.Node] {
	return func(yield func(*core.Node) bool) {
		for _, n := range t.GetNodes() {
			if !walk(n, yield) {
				return
			}
		}
		if failure := t.GetFailureNode(); failure != nil {
			walk(failure, yield)
		}
	}
}

func walk(n *core.Node, yield func(*core.Node) bool) bool {
	if !yield(n) {
		return false
	}
	for _, inner := range Arms(n.GetBranchNode()) {
		if inner != nil && !walk(inner, yield) {
			return false
		}
	}
	return true
}

// Arms are the nodes of a branch's arms by their number in ArmTaken: if, elif …, else. The last one is nil where the branch fails
// instead, and any one that the branch does not have. There are none of what is no branch.
func Arms(b *core.BranchNode) []*core.Node {
	block := b.GetIfElse()
	if block == nil {
		return nil
	}
	var arms []*core.Node
	for _, c := range Cases(b) {
		arms = append(arms, c.GetThenNode())
	}
	return append(arms, block.GetElseNode())
}

// Cases are the arms of a branch that have a condition, in the order in which these are evaluated: if, elif …. One that the branch
// lacks is nil.
func Cases(b *core.BranchNode) []*core.IfBlock {
	return append([]*core.IfBlock{b.GetIfElse().GetCase()}, b.GetIfElse().GetOther()...)
}
