package engine_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// sourceReads counts how often nodes of a recovered execution are read.
type sourceReads struct {
	engine.Store
	values, nodes int
	most          int // how many nodes were listed at once at most
}

func (r *sourceReads) ListNodes(ctx context.Context, id aloft.ExecutionID, parent aloft.NodeID, all bool, q store.Query) ([]*store.Node, error) {
	r.nodes++
	nodes, err := r.Store.ListNodes(ctx, id, parent, all, q)
	r.most = max(r.most, len(nodes))
	return nodes, err
}

func (r *sourceReads) NodeValues(ctx context.Context, id aloft.ExecutionID, nodes []aloft.NodeID) ([]*store.Node, error) {
	r.values++
	return r.Store.NodeValues(ctx, id, nodes)
}

// createRecovery creates an execution that recovers another one.
func (b *bench) createRecovery(old aloft.ExecutionID, name string) aloft.ExecutionID {
	b.Helper()
	was := b.execution(old)
	return b.create(workflow{name: was.Workflow.GetName()}, name, nil, func(e *store.Execution, c *aloftv1.Create) {
		e.Inputs, c.Inputs, c.Recovers = was.Inputs, was.Inputs.GetRef(), old.Proto()
		e.Spec.Metadata = &admin.ExecutionMetadata{Mode: admin.ExecutionMetadata_RECOVERED, ReferenceExecution: old.Proto()}
	})
}

func userFailure() *aloftv1.Outcome {
	return &aloftv1.Outcome{Result: &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{Error: &core.ExecutionError{Code: "USER:Broken", Message: "it broke", Kind: core.ExecutionError_USER}}}}
}

// reportAttempts reports an outcome for each unassigned attempt until there is none, and returns the nodes that ran, sorted.
func (b *bench) reportAttempts(e *engine.Engine, of func(a *store.Attempt) *aloftv1.Outcome) []string {
	b.Helper()
	var ran []string
	for b.settle(e); len(b.unassigned()) > 0; b.settle(e) {
		for _, a := range b.unassigned() {
			ran = append(ran, string(a.Node))
			b.assign("x", a)
			b.report(a, of(a))
		}
	}
	slices.Sort(ran)
	return ran
}

func (b *bench) phases(id aloft.ExecutionID) map[core.NodeExecution_Phase]int {
	b.Helper()
	nodes, err := b.store.ListNodes(b.Context(), id, "", true, store.Query{})
	if err != nil {
		b.Fatal(err)
	}
	phases := map[core.NodeExecution_Phase]int{}
	for _, n := range nodes {
		if n.SpecNodeID != aloft.StartNode && n.SpecNodeID != aloft.EndNode {
			phases[n.Phase]++
		}
	}
	return phases
}

// wideWorkflow has n nodes that need no other node, and one that needs the first two.
func wideWorkflow(n int) workflow {
	w := workflow{name: "wide", tasks: []*core.TaskTemplate{runTask}, policy: core.WorkflowMetadata_FAIL_AFTER_EXECUTABLE_NODES_COMPLETE,
		inputs: map[string]core.SimpleType{"x": core.SimpleType_STRING}, outputs: map[string]*core.BindingData{"o": promise("last", "o0")}}
	for i := range n {
		w.nodes = append(w.nodes, taskNode(fmt.Sprintf("n%d", i), runTask, map[string]*core.BindingData{"x": promise("", "x")}))
	}
	w.nodes = append(w.nodes, taskNode("last", runTask, map[string]*core.BindingData{"x": promise("n1", "o0")}, "n0"))
	return w
}

func TestARecoveryRunsWhatFailedAndReadsTheRestInBulk(t *testing.T) {
	t.Parallel()
	const n = 600
	b := newBench(t)
	w := wideWorkflow(n)
	b.register(w)
	counting := &sourceReads{Store: b.store}
	e := b.engine("engine", func(c *engine.Config) { c.Store = counting })
	b.heartbeat("x", "here", 1<<40)
	first := b.create(w, "first", map[string]string{"x": "in"})
	ran := b.reportAttempts(e, func(a *store.Attempt) *aloftv1.Outcome {
		if a.Node == "n0" || a.Node == "n300" {
			return userFailure()
		}
		return succeeded(map[string]string{"o0": "of " + string(a.Node)})
	})
	if len(ran) != n {
		t.Fatalf("%d nodes ran at first, want %d: the one that joins them cannot", len(ran), n)
	}
	b.wantPhase(first, core.WorkflowExecution_FAILED)

	second := b.createRecovery(first, "second")
	ran = b.reportAttempts(e, func(a *store.Attempt) *aloftv1.Outcome {
		return succeeded(map[string]string{"o0": "again " + string(a.Node)})
	})
	if got := fmt.Sprint(ran); got != "[last n0 n300]" {
		t.Errorf("the recovery ran %s, want what failed and what waited for it", got)
	}
	if counting.nodes != 1 || counting.values > 8 {
		t.Errorf("the nodes were listed %d times and their values read %d times, want 1 and at most one for each 256 of a step", counting.nodes, counting.values)
	}
	done := b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantLiterals("outputs", done.Outputs, map[string]string{"o": "again last"})
	if got, want := b.phases(second), (map[core.NodeExecution_Phase]int{core.NodeExecution_RECOVERED: n - 2, core.NodeExecution_SUCCEEDED: 3}); !maps.Equal(got, want) {
		t.Errorf("phases are %v, want %v", got, want)
	}
	for _, node := range []aloft.NodeID{"n1", "n599"} {
		got, err := b.store.GetNode(t.Context(), second, node)
		if err != nil {
			t.Fatal(err)
		}
		b.wantLiterals("inputs of "+string(node), got.Inputs, map[string]string{"x": "in"})
		b.wantLiterals("outputs of "+string(node), got.Outputs, map[string]string{"o0": "of " + string(node)})
	}
	joined, err := b.store.GetNode(t.Context(), second, "last")
	if err != nil {
		t.Fatal(err)
	}
	b.wantLiterals("what was bound to a recovered node", joined.Inputs, map[string]string{"x": "of n1"})
}

func TestTheNodesOfARecoveredExecutionAreListedInPagesAndOnce(t *testing.T) {
	t.Parallel()
	const n = 12_000 // more than one page
	b := newBench(t)
	w := workflow{name: "sleeps", tasks: []*core.TaskTemplate{sleepTask, runTask}, policy: core.WorkflowMetadata_FAIL_AFTER_EXECUTABLE_NODES_COMPLETE}
	for i := range n {
		w.nodes = append(w.nodes, sleepNode(fmt.Sprintf("n%d", i), 0))
	}
	w.nodes = append(w.nodes, taskNode("fails", runTask, map[string]*core.BindingData{"x": text("x")}))
	b.register(w)
	counting := &sourceReads{Store: b.store}
	e := b.engine("engine", func(c *engine.Config) { c.Store = counting })
	first := b.create(w, "first", nil)
	b.reportAttempts(e, func(*store.Attempt) *aloftv1.Outcome { return userFailure() })
	second := b.createRecovery(first, "second")
	b.reportAttempts(e, func(*store.Attempt) *aloftv1.Outcome { return succeeded(map[string]string{"o0": "mended"}) })
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	if got := b.phases(second)[core.NodeExecution_RECOVERED]; got != n {
		t.Errorf("%d nodes were recovered, want %d", got, n)
	}
	if counting.nodes != 2 || counting.most > 10_000 {
		t.Errorf("the nodes were listed %d times, up to %d at once, want 2 pages of at most 10,000", counting.nodes, counting.most)
	}
}

func TestRecoveriesFollowOneAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := wideWorkflow(4)
	b.register(w)
	b.heartbeat("x", "here", 1<<40)
	id := b.create(w, "run0", map[string]string{"x": "in"})
	// Each run gets one node further than the one before it, and a new engine has nothing in memory.
	for i, want := range []string{"[n0 n1 n2 n3]", "[last n1 n2 n3]", "[last n2 n3]", "[last n3]"} {
		ran := b.reportAttempts(b.engine("engine"), func(a *store.Attempt) *aloftv1.Outcome {
			if i < 3 && string(a.Node) != fmt.Sprintf("n%d", i) {
				return userFailure()
			}
			return succeeded(map[string]string{"o0": string(a.Node)})
		})
		if fmt.Sprint(ran) != want {
			t.Errorf("run %d ran %s, want %s", i, ran, want)
		}
		if i < 3 {
			id = b.createRecovery(id, fmt.Sprintf("run%d", i+1))
		}
	}
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
}

func TestASubWorkflowIsRecoveredAsAWholeOrEntered(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sub := workflow{name: "sub", inputs: map[string]core.SimpleType{"x": core.SimpleType_STRING}, tasks: []*core.TaskTemplate{runTask}, outputs: map[string]*core.BindingData{"o": promise("n1", "o0")},
		nodes: []*core.Node{
			taskNode("n0", runTask, map[string]*core.BindingData{"x": promise("", "x")}),
			taskNode("n1", runTask, map[string]*core.BindingData{"x": promise("n0", "o0")}),
		}}
	w := workflow{name: "main", policy: core.WorkflowMetadata_FAIL_AFTER_EXECUTABLE_NODES_COMPLETE,
		outputs: map[string]*core.BindingData{"a": promise("whole", "o"), "b": promise("partly", "o")},
		nodes: []*core.Node{
			workflowNode("whole", sub, map[string]*core.BindingData{"x": text("w")}),
			workflowNode("partly", sub, map[string]*core.BindingData{"x": text("p")}),
		}}
	b.register(w, sub)
	b.heartbeat("x", "here", 1<<40)
	first := b.create(w, "first", nil)
	b.reportAttempts(b.engine("engine"), func(a *store.Attempt) *aloftv1.Outcome {
		if a.Node == "partly-0-n1" {
			return userFailure()
		}
		return succeeded(map[string]string{"o0": "of " + string(a.Node)})
	})
	b.wantPhase(first, core.WorkflowExecution_FAILED)

	second := b.createRecovery(first, "second")
	ran := b.reportAttempts(b.engine("engine"), func(a *store.Attempt) *aloftv1.Outcome {
		return succeeded(map[string]string{"o0": "again " + string(a.Node)})
	})
	if got := fmt.Sprint(ran); got != "[partly-0-n1]" {
		t.Errorf("the recovery ran %s, want [partly-0-n1]", got)
	}
	done := b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantLiterals("outputs", done.Outputs, map[string]string{"a": "of whole-0-n1", "b": "again partly-0-n1"})
	// whole and partly/n0 are recovered; partly and partly/n1 succeeded; inside of whole nothing is.
	if got, want := b.phases(second), (map[core.NodeExecution_Phase]int{core.NodeExecution_RECOVERED: 2, core.NodeExecution_SUCCEEDED: 2}); !maps.Equal(got, want) {
		t.Errorf("phases are %v, want %v", got, want)
	}
}

func TestTheCheckpointOfAFailedNodeIsHandedOverUntilThereIsALaterOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "saves", tasks: []*core.TaskTemplate{runTask}, nodes: []*core.Node{taskNode("n0", runTask, map[string]*core.BindingData{"x": text("x")})}}
	b.register(w)
	b.heartbeat("x", "here", 1<<40)
	id := b.create(w, "run0", nil)
	saving := func(uri string) *aloftv1.Outcome {
		o := userFailure()
		o.Usage, _ = proto.Marshal(&aloftv1.AttemptUsage{Checkpoint: uri})
		return o
	}
	for i, c := range []struct{ offered, left, recorded string }{
		{"", "aloft://run/0/cp", "aloft://run/0/cp"},
		{"aloft://run/0/cp", "", "aloft://run/0/cp"}, // the attempt failed before it saved anything
		{"aloft://run/0/cp", "aloft://run/2/cp", "aloft://run/2/cp"},
		{"aloft://run/2/cp", "", "aloft://run/2/cp"},
	} {
		offered := "not run"
		b.reportAttempts(b.engine("engine"), func(a *store.Attempt) *aloftv1.Outcome {
			offered = a.Spec.GetCheckpoint()
			return saving(c.left)
		})
		if offered != c.offered {
			t.Errorf("run %d was offered %q, want %q", i, offered, c.offered)
		}
		n, err := b.store.GetNode(t.Context(), id, "n0")
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Metadata.GetCheckpointUri(); got != c.recorded {
			t.Errorf("run %d: its node says %q, want %q", i, got, c.recorded)
		}
		id = b.createRecovery(id, fmt.Sprintf("run%d", i+1))
	}
}

// losingCatalog is a catalog without results that calls outputs of one value lost.
type losingCatalog struct {
	engine.Catalog
	lost string
}

func (l *losingCatalog) Lost(_ context.Context, outputs *aloftv1.Literals) (string, error) {
	if outputs.GetValue().GetLiterals()["o0"].GetScalar().GetPrimitive().GetStringValue() == l.lost {
		return "its object aloft://blob/x is missing", nil
	}
	return "", nil
}

func TestAFinishedNodeWhoseOutputsAreLostRunsAgainInARecovery(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := wideWorkflow(3)
	b.register(w)
	e := b.engine("engine", func(c *engine.Config) { c.Catalog = &losingCatalog{lost: "of n1"} })
	b.heartbeat("x", "here", 1<<40)
	first := b.create(w, "first", map[string]string{"x": "in"})
	b.reportAttempts(e, func(a *store.Attempt) *aloftv1.Outcome {
		if a.Node == "last" {
			return userFailure()
		}
		return succeeded(map[string]string{"o0": "of " + string(a.Node)})
	})
	b.wantPhase(first, core.WorkflowExecution_FAILED)
	second := b.createRecovery(first, "second")
	ran := b.reportAttempts(e, func(a *store.Attempt) *aloftv1.Outcome {
		return succeeded(map[string]string{"o0": "again " + string(a.Node)})
	})
	if got := fmt.Sprint(ran); got != "[last n1]" {
		t.Errorf("the recovery ran %s, want what failed and what had been lost", got)
	}
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
}
