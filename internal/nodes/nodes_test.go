package nodes

import (
	"slices"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestNodesInsideOthersAreWalked(t *testing.T) {
	t.Parallel()
	branch := func(id string, arms ...*core.Node) *core.Node {
		block := &core.IfElseBlock{Case: &core.IfBlock{ThenNode: arms[0]}, Default: &core.IfElseBlock_ElseNode{ElseNode: arms[len(arms)-1]}}
		for _, arm := range arms[1 : len(arms)-1] {
			block.Other = append(block.Other, &core.IfBlock{ThenNode: arm})
		}
		return &core.Node{Id: id, Target: &core.Node_BranchNode{BranchNode: &core.BranchNode{IfElse: block}}}
	}
	node := func(id string) *core.Node { return &core.Node{Id: id} }
	template := &core.WorkflowTemplate{
		Nodes:       []*core.Node{node("a"), branch("b", node("c"), branch("d", node("e"), node("f")), node("g")), node("h")},
		FailureNode: branch("i", node("j"), nil),
	}
	var got []string
	for n := range All(template) {
		got = append(got, n.GetId())
	}
	if want := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for n := range All(template) {
		if n.GetId() == "e" {
			break
		}
	}
	if len(Arms(nil)) != 0 || len(Arms(template.GetFailureNode().GetBranchNode())) != 2 {
		t.Error("what is no branch has arms, or one without else has none for it")
	}
}
