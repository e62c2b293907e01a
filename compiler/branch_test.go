package compiler_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func variable(name string) *core.Operand { return &core.Operand{Val: &core.Operand_Var{Var: name}} }

func primitive(v any) *core.Operand {
	return &core.Operand{Val: &core.Operand_Primitive{Primitive: constant(v).GetScalar().GetPrimitive()}}
}

func isEqual(left, right *core.Operand) *core.BooleanExpression {
	return &core.BooleanExpression{Expr: &core.BooleanExpression_Comparison{Comparison: &core.ComparisonExpression{LeftValue: left, RightValue: right}}}
}

// branchNode has two arms, n0 and n1, that run task one.
func branchNode(id string, change func(*core.IfElseBlock), inputs ...*core.Binding) *core.Node {
	arm := func(id string) *core.Node { return taskNode(id, "one", bind("a", promise("", "x"))) }
	block := &core.IfElseBlock{
		Case:    &core.IfBlock{Condition: isEqual(variable(".x"), primitive(1)), ThenNode: arm("n0")},
		Default: &core.IfElseBlock_ElseNode{ElseNode: arm("n1")},
	}
	if change != nil {
		change(block)
	}
	if inputs == nil {
		inputs = bind(".x", promise("", "x"))
	}
	return &core.Node{Id: id, Inputs: inputs, Target: &core.Node_BranchNode{BranchNode: &core.BranchNode{IfElse: block}}}
}

func branching(nodes ...*core.Node) *core.WorkflowTemplate {
	return workflow("w", variables("x", integer, "s", str), nil, nil, nodes...)
}

func TestBranchMistakesHaveTheCodesOfTheReference(t *testing.T) {
	t.Parallel()
	deep := isEqual(variable(".x"), primitive(1))
	for range 100 {
		deep = &core.BooleanExpression{Expr: &core.BooleanExpression_Conjunction{Conjunction: &core.ConjunctionExpression{LeftExpression: deep, RightExpression: isEqual(variable(".x"), primitive(1))}}}
	}
	for name, c := range map[string]struct {
		template *core.WorkflowTemplate
		want     string // code@node, all of them
	}{
		"nothing":    {branching(&core.Node{Id: "b", Target: &core.Node_BranchNode{BranchNode: &core.BranchNode{}}}), "ValueRequired@b"},
		"no default": {branching(branchNode("b", func(b *core.IfElseBlock) { b.Default = nil })), "BranchNodeHasNoDefault@b"},
		"no condition, no node": {branching(branchNode("b", func(b *core.IfElseBlock) {
			b.Case.Condition = nil
			b.Other = []*core.IfBlock{{Condition: isEqual(variable(".x"), primitive(2))}}
		})), "BranchNodeHasNoCondition@b BranchNodeIdNotFound@b"},
		"an arm without an id":          {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.ThenNode.Id = "" })), "ValueRequired@b"},
		"two arms of one id":            {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.ThenNode.Id = "n1" })), "DuplicateId@b-n1"},
		"an arm with the id of a node":  {branching(branchNode("b", nil), taskNode("b-n0", "t1", nil)), "DuplicateId@b-n0"},
		"an operand that is not bound":  {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.Condition = isEqual(variable("y"), primitive(1)) })), "VariableNameNotFound@b"},
		"an operand without a value":    {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.Condition = isEqual(variable(".x"), &core.Operand{}) })), "ValueRequired@b"},
		"types that do not compare":     {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.Condition = isEqual(variable(".x"), primitive("a")) })), "MismatchingTypes@b"},
		"a condition without end":       {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.Condition = deep })), "InvalidValue@b"},
		"an input from nowhere":         {branching(branchNode("b", nil, bind(".x", promise("gone", "o"))...)), "NodeReferenceNotFound@gone ParameterNotBound@b"},
		"an arm that lacks an input":    {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.ThenNode.Inputs = nil })), "ParameterNotBound@b-n0"},
		"an arm with a wrong type":      {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.ThenNode.Inputs = bind("a", promise("", "s")) })), "MismatchingTypes@b-n0"},
		"an arm that waits for nowhere": {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.ThenNode.UpstreamNodeIds = []string{"gone"} })), "NodeReferenceNotFound@gone"},
		"an arm that waits for its branch": {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.ThenNode.Inputs = bind("a", promise("c", "o")) }),
			taskNode("c", "one", bind("a", promise("b", "o")))), "CycleDetected@start-node"},
		"an output that not all arms have": {workflow("w", variables("x", integer), variables("o", integer), bind("o", promise("b", "o")),
			branchNode("b", func(b *core.IfElseBlock) { b.Default = &core.IfElseBlock_ElseNode{ElseNode: taskNode("n1", "t1", nil)} })), "ParameterNotBound@end-node VariableNameNotFound@b"},
		"a task that is not there": {branching(branchNode("b", func(b *core.IfElseBlock) { b.Case.ThenNode = taskNode("n0", "gone", nil) })), "TaskReferenceNotFound@start-node"},
		"mistakes of inner arms": {branching(branchNode("b", func(b *core.IfElseBlock) {
			b.Case.ThenNode = branchNode("n0", func(b *core.IfElseBlock) { b.Case.ThenNode.Inputs, b.Default = nil, nil })
		})), "BranchNodeHasNoDefault@b-n0 ParameterNotBound@b-n0-n0"},
	} {
		_, err := compile(c.template)
		var errs compiler.Errors
		if !errors.As(err, &errs) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		var got []string
		for _, e := range errs {
			got = append(got, fmt.Sprintf("%s@%s", e.Code, e.NodeID))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: got %s, want %s\n%v", name, s, c.want, err)
		}
	}
}

func TestABranchIsCompiledAsTheReferenceDoesIt(t *testing.T) {
	t.Parallel()
	nested := branchNode("b", func(b *core.IfElseBlock) {
		b.Case.ThenNode = branchNode("n0", func(b *core.IfElseBlock) { b.Case.ThenNode.Inputs = bind("a", promise("p", "o")) })
	})
	template := workflow("w", variables("x", integer), variables("o", integer), bind("o", promise("b", "o")),
		taskNode("p", "one", bind("a", promise("", "x"))), nested)
	before := proto.CloneOf(template)
	closure, err := compile(template)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, template) {
		t.Error("compiling changed the template")
	}
	up, down := closure.Primary.Connections.Upstream, closure.Primary.Connections.Downstream
	for id, want := range map[string]string{"p": "start-node", "b": "start-node", "b-n0": "start-node", "b-n0-n0": "p", "b-n0-n1": "start-node", "b-n1": "start-node", "end-node": "b p"} {
		if got := strings.Join(up[id].GetIds(), " "); got != want {
			t.Errorf("upstream of %s is %q, want %q", id, got, want)
		}
	}
	for id, want := range map[string]string{"start-node": "b p", "p": "end-node", "b": "end-node", "b-n0": "", "b-n0-n0": ""} {
		if got := strings.Join(down[id].GetIds(), " "); got != want {
			t.Errorf("downstream of %s is %q, want %q", id, got, want)
		}
	}
	again, err := compile(closure.Primary.Template)
	if err != nil || !proto.Equal(again, closure) {
		t.Errorf("a compiled template that is registered again becomes another (%v):\n%s", err, compiler.Difference(closure, again))
	}
}
