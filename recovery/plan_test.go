package recovery_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery"
	"github.com/aloft-dev/aloft/store"
)

func identifier(kind core.ResourceType, name, version string) *core.Identifier {
	return &core.Identifier{ResourceType: kind, Project: "flytesnacks", Domain: "development", Name: name, Version: version}
}

func taskNode(id, version string) *core.Node {
	return &core.Node{Id: id, Metadata: &core.NodeMetadata{Name: id}, Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{
		Reference: &core.TaskNode_ReferenceId{ReferenceId: identifier(core.ResourceType_TASK, "t", version)}}}}
}

func workflowNode(id string) *core.Node {
	return &core.Node{Id: id, Metadata: &core.NodeMetadata{Name: id}, Target: &core.Node_WorkflowNode{WorkflowNode: &core.WorkflowNode{
		Reference: &core.WorkflowNode_SubWorkflowRef{SubWorkflowRef: identifier(core.ResourceType_WORKFLOW, "sub", "v1")}}}}
}

// kind is a kind of node. A new kind gets a row in kinds and then has to pass every case below.
type kind struct {
	name     string
	node     *core.Node
	target   *core.Identifier // in the node's record
	contains bool
}

var kinds = []kind{
	{"task", taskNode("n0", "v1"), identifier(core.ResourceType_TASK, "t", "v1"), false},
	{"sub-workflow", workflowNode("n0"), identifier(core.ResourceType_WORKFLOW, "sub", "v1"), true},
	{"launch plan", &core.Node{Id: "n0", Target: &core.Node_WorkflowNode{WorkflowNode: &core.WorkflowNode{
		Reference: &core.WorkflowNode_LaunchplanRef{LaunchplanRef: identifier(core.ResourceType_LAUNCH_PLAN, "lp", "v1")}}}},
		identifier(core.ResourceType_LAUNCH_PLAN, "lp", "v1"), false},
	{"branch", &core.Node{Id: "n0", Target: &core.Node_BranchNode{BranchNode: &core.BranchNode{}}}, nil, true},
	{"map", &core.Node{Id: "n0", Target: &core.Node_ArrayNode{ArrayNode: &core.ArrayNode{}}}, nil, true},
	{"gate", &core.Node{Id: "n0", Target: &core.Node_GateNode{GateNode: &core.GateNode{}}}, nil, false},
}

func TestEveryKindOfNodeIsTakenOverOrRunsByTheSameRules(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		record := func(id string, phase core.NodeExecution_Phase, change ...func(*store.Node)) *store.Node {
			n := &store.Node{ID: aloft.NodeID(id), SpecNodeID: "n0", Phase: phase, Target: k.target}
			for _, f := range change {
				f(n)
			}
			return n
		}
		parent := &store.Node{ID: "p", SpecNodeID: "p", Phase: core.NodeExecution_FAILED, IsParent: true}
		inside := func(group string) func(*store.Node) {
			return func(n *store.Node) { n.Parent, n.RetryGroup = "p", group }
		}
		checkpoint := func(n *store.Node) {
			n.Metadata = &admin.TaskNodeMetadata{CheckpointUri: "aloft://saved/" + string(n.ID)}
		}
		for _, c := range []struct {
			name       string
			records    []*store.Node
			path       recovery.Path
			take       aloft.NodeID // empty: the node runs, or is entered
			reason     string
			checkpoint string // of a node that contains no nodes
		}{
			{name: "succeeded", records: []*store.Node{record("n0", core.NodeExecution_SUCCEEDED)}, take: "n0", reason: "it had succeeded"},
			{name: "recovered before", records: []*store.Node{record("n0", core.NodeExecution_RECOVERED)}, take: "n0", reason: "it had been recovered"},
			{name: "failed", records: []*store.Node{record("n0", core.NodeExecution_FAILED, func(n *store.Node) { n.Error = &core.ExecutionError{Code: "USER:Oops"} })}, reason: "it had failed: USER:Oops"},
			{name: "aborted", records: []*store.Node{record("n0", core.NodeExecution_ABORTED)}, reason: "it had been aborted"},
			{name: "skipped", records: []*store.Node{record("n0", core.NodeExecution_SKIPPED)}, reason: "it had been skipped"},
			{name: "timed out", records: []*store.Node{record("n0", core.NodeExecution_TIMED_OUT)}, reason: "it had timed out"},
			{name: "running when its run ended", records: []*store.Node{record("n0", core.NodeExecution_RUNNING)}, reason: "it had not finished"},
			{name: "not begun", reason: "it had not begun"},
			{name: "of the same id elsewhere", records: []*store.Node{parent, record("p-0-n0", core.NodeExecution_SUCCEEDED, inside("0"))}, reason: "it had not begun"},
			{name: "inside of another", records: []*store.Node{record("p-0-n0", core.NodeExecution_SUCCEEDED, inside("0")), parent}, path: "p/n0", take: "p-0-n0", reason: "it had succeeded"},
			{name: "inside of one that was retried", records: []*store.Node{parent, record("p-1-n0", core.NodeExecution_SUCCEEDED, inside("1"))}, path: "p/n0", take: "p-1-n0", reason: "it had succeeded"},
			{name: "finished in an earlier attempt of its parent only", path: "p/n0", take: "p-0-n0", reason: "it had succeeded",
				records: []*store.Node{parent, record("p-1-n0", core.NodeExecution_FAILED, inside("1")), record("p-0-n0", core.NodeExecution_SUCCEEDED, inside("0"))}},
			{name: "finished in two attempts of its parent", path: "p/n0", take: "p-10-n0", reason: "it had succeeded",
				records: []*store.Node{parent, record("p-9-n0", core.NodeExecution_SUCCEEDED, inside("9")), record("p-10-n0", core.NodeExecution_SUCCEEDED, inside("10"))}},
			{name: "failed with a checkpoint", records: []*store.Node{record("n0", core.NodeExecution_FAILED, checkpoint)}, reason: "it had failed", checkpoint: "aloft://saved/n0"},
			{name: "failed twice, the later time without a checkpoint", path: "p/n0", reason: "it had failed", checkpoint: "aloft://saved/p-0-n0",
				records: []*store.Node{parent, record("p-0-n0", core.NodeExecution_FAILED, inside("0"), checkpoint), record("p-1-n0", core.NodeExecution_FAILED, inside("1"))}},
		} {
			t.Run(k.name+" "+c.name, func(t *testing.T) {
				t.Parallel()
				path := c.path
				if path == "" {
					path = "n0"
				}
				d := recovery.NewRun(c.records).Decide(path, k.node)
				if d.Take != (c.take != "") || d.Take && d.Source.ID != c.take {
					t.Errorf("taken over: %t from %q, want %q", d.Take, d.Source.ID, c.take)
				}
				if want := k.contains && c.take == ""; d.Enter != want {
					t.Errorf("entered: %t, want %t", d.Enter, want)
				}
				if !strings.HasPrefix(d.Reason, c.reason) {
					t.Errorf("the reason is %q, want %q", d.Reason, c.reason)
				}
				if k.contains {
					c.checkpoint = "" // the nodes inside have checkpoints of their own
				}
				if d.Checkpoint != c.checkpoint {
					t.Errorf("the checkpoint is %q, want %q", d.Checkpoint, c.checkpoint)
				}
			})
		}
	}
}

func TestWhatRunsAnotherVersionIsNotTakenOver(t *testing.T) {
	t.Parallel()
	run := recovery.NewRun([]*store.Node{{ID: "n0", SpecNodeID: "n0", Phase: core.NodeExecution_SUCCEEDED, Target: identifier(core.ResourceType_TASK, "t", "v1")}})
	if d := run.Decide("n0", taskNode("n0", "v2")); d.Take || !strings.Contains(d.Reason, "it ran t v1 there and is to run t v2") {
		t.Errorf("taken over: %t, %s", d.Take, d.Reason)
	}
}

func TestWhatBeginsOrEndsAGraphIsNeverTakenOver(t *testing.T) {
	t.Parallel()
	run := recovery.NewRun([]*store.Node{{ID: aloft.StartNode, SpecNodeID: aloft.StartNode, Phase: core.NodeExecution_SUCCEEDED}})
	if d := run.Decide(aloft.StartNode, &core.Node{Id: aloft.StartNode}); d.Take || d.Reason == "" {
		t.Errorf("the start node: %+v", d)
	}
}

func TestAPlanTakesFinishedSubWorkflowsAsAWholeAndEntersTheOthers(t *testing.T) {
	t.Parallel()
	graph := func(name string, nodes ...*core.Node) *core.CompiledWorkflow {
		all := append([]*core.Node{{Id: aloft.StartNode}}, nodes...)
		return &core.CompiledWorkflow{Template: &core.WorkflowTemplate{Id: identifier(core.ResourceType_WORKFLOW, name, "v1"), Nodes: append(all, &core.Node{Id: aloft.EndNode})}}
	}
	target := &core.CompiledWorkflowClosure{
		Primary:      graph("main", taskNode("n0", "v1"), workflowNode("n1"), workflowNode("n2"), workflowNode("n3")),
		SubWorkflows: []*core.CompiledWorkflow{graph("sub", taskNode("n0", "v1"), taskNode("n1", "v1"))},
	}
	node := func(id, parent, spec string, phase core.NodeExecution_Phase) *store.Node {
		return &store.Node{ID: aloft.NodeID(id), Parent: aloft.NodeID(parent), SpecNodeID: spec, RetryGroup: "0", Phase: phase}
	}
	run := recovery.NewRun([]*store.Node{
		node("n0", "", "n0", core.NodeExecution_SUCCEEDED),
		node("n1", "", "n1", core.NodeExecution_SUCCEEDED), node("n1-0-n0", "n1", "n0", core.NodeExecution_SUCCEEDED), node("n1-0-n1", "n1", "n1", core.NodeExecution_SUCCEEDED),
		node("n2", "", "n2", core.NodeExecution_FAILED), node("n2-0-n0", "n2", "n0", core.NodeExecution_SUCCEEDED), node("n2-0-n1", "n2", "n1", core.NodeExecution_FAILED),
	})
	const gone = "its object aloft://blob/x is missing"
	for _, c := range []struct {
		lost   map[aloft.NodeID]string
		want   string
		reused int
	}{
		{nil, "n0 true, n1 true, n2/n0 true, n2/n1 false, n3/n0 false, n3/n1 false", 3},
		// A node whose outputs are lost runs again. A node that contains nodes is entered.
		{map[aloft.NodeID]string{"n0": gone, "n2-0-n0": gone, "n1": gone, "n1-0-n1": gone},
			"n0 false, n1/n0 true, n1/n1 false, n2/n0 false, n2/n1 false, n3/n0 false, n3/n1 false", 1},
	} {
		plan := recovery.NewPlan(run, target, c.lost)
		var got []string
		for _, s := range plan.Steps {
			got = append(got, fmt.Sprintf("%s %t", s.Path, s.Take))
			if s.Path == "n0" && c.lost != nil && s.Reason != "it had succeeded, but "+gone {
				t.Errorf("the reason why n0 runs is %q", s.Reason)
			}
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("the plan is %s, want %s", s, c.want)
		}
		if plan.Reused() != c.reused || plan.Runs() != len(plan.Steps)-c.reused {
			t.Errorf("%d nodes are reused and %d run, want %d and the rest", plan.Reused(), plan.Runs(), c.reused)
		}
	}
}

func TestAPlanEntersTheArmThatHadRun(t *testing.T) {
	t.Parallel()
	branch := func(id string, arms ...*core.Node) *core.Node {
		return &core.Node{Id: id, Metadata: &core.NodeMetadata{Name: id}, Target: &core.Node_BranchNode{BranchNode: &core.BranchNode{IfElse: &core.IfElseBlock{
			Case: &core.IfBlock{ThenNode: arms[0]}, Default: &core.IfElseBlock_ElseNode{ElseNode: arms[1]},
		}}}}
	}
	target := &core.CompiledWorkflowClosure{Primary: &core.CompiledWorkflow{Template: &core.WorkflowTemplate{Nodes: []*core.Node{
		branch("b", taskNode("b-n0", "v1"), branch("b-n1", taskNode("b-n1-n0", "v1"), taskNode("b-n1-n1", "v1"))),
		branch("c", taskNode("c-n0", "v1"), taskNode("c-n1", "v1")), branch("d", taskNode("d-n0", "v1"), taskNode("d-n1", "v1")),
	}}}}
	node := func(id, parent, spec string, phase core.NodeExecution_Phase) *store.Node {
		return &store.Node{ID: aloft.NodeID(id), Parent: aloft.NodeID(parent), SpecNodeID: spec, RetryGroup: "0", Phase: phase}
	}
	run := recovery.NewRun([]*store.Node{
		node("b", "", "b", core.NodeExecution_FAILED), node("b-0-b-n1", "b", "b-n1", core.NodeExecution_FAILED), node("x", "b-0-b-n1", "b-n1-n1", core.NodeExecution_SUCCEEDED),
		node("c", "", "c", core.NodeExecution_SUCCEEDED), node("c-0-c-n1", "c", "c-n1", core.NodeExecution_SUCCEEDED),
	})
	var got []string
	for _, s := range recovery.NewPlan(run, target, nil).Steps {
		got = append(got, fmt.Sprintf("%s %t", s.Path, s.Take))
	}
	if s := strings.Join(got, ", "); s != "b/b-n1/b-n1-n1 true, c true, d false" {
		t.Errorf("the plan is %s", s)
	}
}
