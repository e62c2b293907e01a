// Package nodes walks the nodes of a workflow template with those inside other nodes of it: the one place that knows where they are.
package nodes

import (
	"iter"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

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
	arms := []*core.Node{block.GetCase().GetThenNode()}
	for _, other := range block.GetOther() {
		arms = append(arms, other.GetThenNode())
	}
	return append(arms, block.GetElseNode())
}
