package engine_test

import (
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/engine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// registerAs makes a workflow known under any name and version.
func (b *bench) registerAs(w workflow, name, version string) *core.Identifier {
	b.Helper()
	compiled := w.compiled()
	id := compiled.GetPrimary().GetTemplate().GetId()
	id.Name, id.Version = name, version
	if err := b.store.CreateWorkflow(b.Context(), &store.Workflow{ID: id, Compiled: compiled}); err != nil {
		b.Fatal(err)
	}
	return id
}

func TestWorkflowsWhoseNamesAndVersionsReadAlikeAreNotConfused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ids := []*core.Identifier{b.registerAs(chain(1), "etl/load", "v1"), b.registerAs(chain(2), "etl", "load/v1")}
	e := b.engine("a")
	for i, id := range ids {
		run := b.create(workflow{}, []string{"first", "second"}[i], nil, func(e *store.Execution, c *aloftv1.Create) { e.Workflow, c.Workflow = id, id })
		b.settle(e)
		b.wantPhase(run, core.WorkflowExecution_SUCCEEDED)
		nodes := b.phases(run)
		if got := nodes[core.NodeExecution_SUCCEEDED]; got != i+1 {
			t.Errorf("workflow %s version %s ran %d nodes, want %d", id.GetName(), id.GetVersion(), got, i+1)
		}
	}
}

func TestAValueThatIsHeavierThanTheCacheIsReadOnceForAllWhoUseIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.objects.limit = 100
	w := wideWorkflow(40)
	b.register(w)
	b.heartbeat("x", "here", 1<<40)
	input := strings.Repeat("x", 200)
	e := b.engine("a", func(c *engine.Config) { c.CacheLiterals, c.StepLimit = 1000, 10 }) // each node has a step of its own
	b.create(w, "heavy", map[string]string{"x": input, "y": "not of the nodes"})
	b.settle(e)
	if got := len(b.unassigned()); got != 40 {
		t.Fatalf("%d attempts wait, want 40", got)
	}
	if b.objects.reads != 1 {
		t.Errorf("the input of 40 nodes was read %d times, want once", b.objects.reads)
	}
}
