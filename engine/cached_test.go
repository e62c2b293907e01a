package engine_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// caching makes an engine use results again; those that are large are in a folder.
func (b *bench) caching(c *engine.Config) {
	b.Helper()
	if b.blobs == nil {
		var err error
		if b.blobs, err = folder.Open(b.TempDir()); err != nil {
			b.Fatal(err)
		}
	}
	c.Literals = blob.Literals{Store: b.blobs}
	c.Catalog = &catalog.Catalog{Store: b.store, Blob: b.blobs, Log: c.Logger, Now: b.clock.Now}
}

// cachedBench has a workflow of one cached node n0, which executors run, and an engine that caches.
func cachedBench(t testing.TB, change ...func(*core.TaskMetadata)) (*bench, *engine.Engine, workflow) {
	t.Helper()
	b := newBench(t)
	task := proto.CloneOf(runTask)
	task.Metadata = &core.TaskMetadata{Discoverable: true, DiscoveryVersion: "1"}
	for _, f := range change {
		f(task.Metadata)
	}
	w := workflow{
		name: "cached", inputs: map[string]core.SimpleType{"x": core.SimpleType_STRING}, tasks: []*core.TaskTemplate{task},
		outputs: map[string]*core.BindingData{"o0": promise("n0", "o0")},
		nodes:   []*core.Node{taskNode("n0", task, map[string]*core.BindingData{"x": promise("", "x")})},
	}
	b.register(w)
	b.heartbeat("x", "here", 1<<40)
	return b, b.engine("e1", b.caching), w
}

// runs lets executor x run the one attempt that waits.
func (b *bench) runs(e *engine.Engine, outcome *aloftv1.Outcome) {
	b.Helper()
	b.settle(e)
	waiting := b.waiting()
	if len(waiting) != 1 {
		b.Fatalf("%d attempts wait, want one", len(waiting))
	}
	b.assign("x", waiting[0])
	b.report(waiting[0], outcome)
	b.rest(e)
}

// rest settles what one execution's commit tells others, too: a pass reads the inbox before it commits.
func (b *bench) rest(e *engine.Engine) {
	b.Helper()
	b.settle(e)
	b.settle(e)
}

func (b *bench) node(id aloft.ExecutionID) *store.Node {
	b.Helper()
	n, err := b.store.GetNode(b.Context(), id, "n0")
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func (b *bench) wantLookup(id aloft.ExecutionID, status core.CatalogCacheStatus, source string) {
	b.Helper()
	n := b.node(id)
	if got := n.Cache.GetStatus(); got != status {
		b.Fatalf("node n0 of %s is a %s (%s), want %s", id, got, n.Cache.GetReason(), status)
	}
	if got := n.Cache.GetFound().GetSourceTaskExecution().GetNodeExecutionId().GetExecutionId().GetName(); got != source {
		b.Fatalf("the result of %s comes from %q, want %q", id, got, source)
	}
}

func (b *bench) wantNoAttempts(id aloft.ExecutionID) {
	b.Helper()
	attempts, err := b.store.ListAttempts(b.Context(), id, "", store.Query{})
	if err != nil || len(attempts) != 0 {
		b.Fatalf("execution %s has %d attempts (%v), want none", id, len(attempts), err)
	}
}

func TestAResultIsUsedAgainWhereverTheSameIsAsked(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	first := b.create(w, "first", map[string]string{"x": "a"})
	b.settle(e)
	b.wantLookup(first, core.CatalogCacheStatus_CACHE_MISS, "")
	b.runs(e, succeeded(map[string]string{"o0": "computed"}))
	b.wantPhase(first, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(first, core.CatalogCacheStatus_CACHE_POPULATED, "first")

	// The same in another execution, and by an engine that remembers nothing.
	second := b.create(w, "second", map[string]string{"x": "a"})
	e2 := b.engine("e1", b.caching)
	b.settle(e2)
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(second, core.CatalogCacheStatus_CACHE_HIT, "first")
	b.wantNoAttempts(second)
	b.wantLiterals("outputs of second", b.execution(second).Outputs, map[string]string{"o0": "computed"})
	if n := b.node(second); n.Inputs == nil || n.Outputs == nil || !n.StartedAt.IsZero() || n.EndedAt.IsZero() {
		t.Errorf("the record of a cached node: %+v", n)
	}

	// In another workflow, behind a node that passes its input on.
	other := w
	other.name, other.tasks = "other", append([]*core.TaskTemplate{echoTask}, w.tasks...)
	other.nodes = []*core.Node{
		taskNode("before", echoTask, map[string]*core.BindingData{"x": promise("", "x")}),
		taskNode("n0", w.tasks[0], map[string]*core.BindingData{"x": promise("before", "o0")}),
	}
	b.register(other)
	third := b.create(other, "third", map[string]string{"x": "a"})
	b.settle(e2)
	b.wantPhase(third, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(third, core.CatalogCacheStatus_CACHE_HIT, "first")

	// Other inputs are something else.
	fourth := b.create(w, "fourth", map[string]string{"x": "b"})
	b.settle(e2)
	b.wantLookup(fourth, core.CatalogCacheStatus_CACHE_MISS, "")
}

func TestAFailureIsNoResult(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	first := b.create(w, "first", map[string]string{"x": "a"})
	b.runs(e, &aloftv1.Outcome{Result: &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{Error: &core.ExecutionError{Code: "X"}}}})
	b.wantPhase(first, core.WorkflowExecution_FAILED)
	second := b.create(w, "second", map[string]string{"x": "a"})
	b.runs(e, succeeded(map[string]string{"o0": "computed"}))
	b.wantLookup(second, core.CatalogCacheStatus_CACHE_POPULATED, "second")
}

func TestAnExecutionThatOverwritesComputesAndReplaces(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	b.create(w, "first", map[string]string{"x": "a"})
	b.runs(e, succeeded(map[string]string{"o0": "old"}))
	over := &store.Execution{
		ID: aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: "over"}, Workflow: identifier(core.ResourceType_WORKFLOW, w.name),
	}
	l, err := b.objects.WriteLiterals(t.Context(), texts(map[string]string{"x": "a"}))
	if err != nil {
		t.Fatal(err)
	}
	over.Inputs = l
	create := &aloftv1.Create{Workflow: over.Workflow, Seed: "over", Inputs: l.GetRef(), OverwriteCache: true}
	if err := b.store.CreateExecution(t.Context(), over, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: create}}); err != nil {
		t.Fatal(err)
	}
	b.settle(e)
	b.wantLookup(over.ID, core.CatalogCacheStatus_CACHE_SKIPPED, "")
	b.runs(e, succeeded(map[string]string{"o0": "new"}))
	third := b.create(w, "third", map[string]string{"x": "a"})
	b.settle(e)
	b.wantLookup(third, core.CatalogCacheStatus_CACHE_HIT, "over")
	b.wantLiterals("outputs of third", b.execution(third).Outputs, map[string]string{"o0": "new"})
}

func TestOneComputesAndTheOthersWaitForIt(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t, func(m *core.TaskMetadata) { m.CacheSerializable = true })
	first := b.create(w, "first", map[string]string{"x": "a"})
	b.settle(e)
	others := []aloft.ExecutionID{b.create(w, "second", map[string]string{"x": "a"}), b.create(w, "third", map[string]string{"x": "a"})}
	b.settle(e)
	for _, id := range others {
		if got, want := b.node(id).Waiting, "waits for the result that flytesnacks/development/first/n0 computes"; got != want {
			t.Errorf("execution %s waits for %q, want %q", id, got, want)
		}
		b.wantNoAttempts(id)
	}
	if stuck, err := b.store.Stuck(t.Context(), 0); err != nil || len(stuck) != 0 {
		t.Fatalf("stuck: %v, %v", stuck, err)
	}
	b.runs(e, succeeded(map[string]string{"o0": "computed"}))
	b.wantPhase(first, core.WorkflowExecution_SUCCEEDED)
	for _, id := range others {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
		b.wantLookup(id, core.CatalogCacheStatus_CACHE_HIT, "first")
		b.wantNoAttempts(id)
		if waits := b.node(id).Waiting; waits != "" {
			t.Errorf("it has ended and waits: %s", waits)
		}
	}
}

func TestWhoWaitsForAResultThatDoesNotComeComputesIt(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t, func(m *core.TaskMetadata) { m.CacheSerializable = true })
	first := b.create(w, "first", map[string]string{"x": "a"})
	b.settle(e)
	second := b.create(w, "second", map[string]string{"x": "a"})
	third := b.create(w, "third", map[string]string{"x": "a"})
	b.settle(e)
	// The first is terminated; one of the others takes its place, and dies with its engine before anything of it is committed.
	if err := b.store.Append(t.Context(), first, store.Message{Dedup: "terminate", Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{
		Terminate: &aloftv1.Terminate{Cause: "enough"}}}}); err != nil {
		t.Fatal(err)
	}
	b.rest(e)
	b.wantPhase(first, core.WorkflowExecution_ABORTED)
	again := b.engine("e1", b.caching)
	b.runs(again, succeeded(map[string]string{"o0": "computed"}))
	computed := 0
	for _, id := range []aloft.ExecutionID{second, third} {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
		if b.node(id).Cache.GetStatus() == core.CatalogCacheStatus_CACHE_POPULATED {
			computed++
		}
	}
	if computed != 1 {
		t.Errorf("%d executions computed the result, want one", computed)
	}
}

func TestALargeResultIsUsedAgain(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	large := strings.Repeat("long ", 20_000)
	b.create(w, "first", map[string]string{"x": "a"})
	b.runs(e, succeeded(map[string]string{"o0": large}))
	second := b.create(w, "second", map[string]string{"x": "a"})
	b.settle(b.engine("e1", b.caching))
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(second, core.CatalogCacheStatus_CACHE_HIT, "first")
	if uri := b.execution(second).Outputs.GetRef().GetUri(); uri == "" {
		t.Error("the outputs are in the row, want an object")
	}
}

func TestAnExecutionOfTheReleaseBeforeStaysReadableForIt(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	b.create(w, "first", map[string]string{"x": "a"})
	b.runs(e, succeeded(map[string]string{"o0": "computed"}))
	l, err := b.objects.WriteLiterals(t.Context(), texts(map[string]string{"x": "a"}))
	if err != nil {
		t.Fatal(err)
	}
	older := &store.Execution{
		ID: aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: "older"}, Workflow: identifier(core.ResourceType_WORKFLOW, w.name),
		Inputs: l, JournalVersion: 1,
	}
	create := &aloftv1.Create{Workflow: older.Workflow, Seed: "older", Inputs: l.GetRef()}
	if err := b.store.CreateExecution(t.Context(), older, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: create}}); err != nil {
		t.Fatal(err)
	}
	b.runs(e, succeeded(map[string]string{"o0": "again"}))
	b.wantPhase(older.ID, core.WorkflowExecution_SUCCEEDED)
	_, journal, err := b.store.Load(t.Context(), older.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range journal {
		for _, event := range row.Entry.GetEvents() {
			switch event.GetKind().(type) {
			case *aloftv1.Event_NodeCached, *aloftv1.Event_NodeRecovered, *aloftv1.Event_NodeParked:
				t.Errorf("the release before cannot read %v", event)
			}
		}
	}
}
