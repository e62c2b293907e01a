package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// branching is a workflow whose node n1 has the arms n0 and n2, echoes, and fails if x is none of 1 and 2.
func branching(name, task string) *admin.WorkflowCreateRequest {
	request := chain(name, task, 1)
	template := request.Spec.Template
	echo := template.Nodes[0]
	condition := func(x int64) *core.BooleanExpression {
		return &core.BooleanExpression{Expr: &core.BooleanExpression_Comparison{Comparison: &core.ComparisonExpression{
			LeftValue:  &core.Operand{Val: &core.Operand_Var{Var: ".x"}},
			RightValue: &core.Operand{Val: &core.Operand_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_Integer{Integer: x}}}},
		}}}
	}
	arm := func(id string) *core.Node {
		return &core.Node{Id: id, Metadata: &core.NodeMetadata{Name: "arm " + id}, Inputs: []*core.Binding{promise("x", "", "x")}, Target: echo.Target}
	}
	template.Nodes = append(template.Nodes, &core.Node{
		Id: "n1", Metadata: &core.NodeMetadata{Name: "branch"}, Inputs: []*core.Binding{promise(".x", "", "x")},
		Target: &core.Node_BranchNode{BranchNode: &core.BranchNode{IfElse: &core.IfElseBlock{
			Case:    &core.IfBlock{Condition: condition(1), ThenNode: arm("n0")},
			Other:   []*core.IfBlock{{Condition: condition(2), ThenNode: arm("n2")}},
			Default: &core.IfElseBlock_Error{Error: &core.Error{Message: "neither one nor two"}},
		}}},
	})
	return request
}

func TestABranchRunsBesideWhatTheReleaseBeforeRuns(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("plain", 1)
	_, err := s.admin.CreateWorkflow(t.Context(), branching("branching", "plain"))
	if err == nil {
		_, err = s.admin.CreateLaunchPlan(t.Context(), launchPlan("branching", "branching"))
	}
	if err != nil {
		t.Fatal(err)
	}
	runs := aloftv1connect.NewRunServiceClient(s.http, "http://"+s.Address, connect.WithGRPC())
	for x, want := range map[int64]struct {
		phase core.WorkflowExecution_Phase
		nodes string
	}{
		1: {core.WorkflowExecution_SUCCEEDED, "n0 SUCCEEDED, n1 SUCCEEDED, n1-0-n1-n0 SUCCEEDED, n1-0-n1-n2 SKIPPED"},
		2: {core.WorkflowExecution_SUCCEEDED, "n0 SUCCEEDED, n1 SUCCEEDED, n1-0-n1-n0 SKIPPED, n1-0-n1-n2 SUCCEEDED"},
		3: {core.WorkflowExecution_FAILED, "n1 FAILED, n1-0-n1-n0 SKIPPED, n1-0-n1-n2 SKIPPED"},
	} {
		execution := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "branching"), map[string]*core.Literal{"x": integer(x)}))
		if got := s.wait(execution).GetClosure().GetPhase(); got != want.phase {
			t.Errorf("x=%d: the execution is %s, want %s", x, got, want.phase)
		}
		nodes := map[string]string{}
		stream, err := runs.WatchExecution(t.Context(), &aloftv1.WatchExecutionRequest{Id: execution})
		if err != nil {
			t.Fatal(err)
		}
		for stream.Receive() {
			for _, n := range stream.Msg().GetNodes() {
				nodes[n.GetId()] = fmt.Sprintf("%s %s", n.GetId(), n.GetPhase())
			}
		}
		var got []string
		for _, id := range slices.Sorted(maps.Keys(nodes)) {
			got = append(got, nodes[id])
		}
		if strings.Join(got, ", ") != want.nodes {
			t.Errorf("x=%d: the nodes are %v, want %s", x, got, want.nodes)
		}
		// A server of the release before, which cannot read the event of a branch, leaves such executions alone and runs the others.
		if record, err := s.store.GetExecution(t.Context(), aloft.ExecutionIDOf(execution)); err != nil || record.JournalVersion != 3 {
			t.Errorf("the journal of a branch has version %d (%v)", record.JournalVersion, err)
		}
	}
	plain := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "plain"), map[string]*core.Literal{"x": integer(1)}))
	if record, err := s.store.GetExecution(t.Context(), aloft.ExecutionIDOf(plain)); err != nil || record.JournalVersion != 2 {
		t.Errorf("the journal of a plain execution has version %d (%v)", record.JournalVersion, err)
	}
}
