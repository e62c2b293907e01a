package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/storetest"
)

// withCatalog gives an engine a catalog, whose large results are in a folder.
func (b *bench) withCatalog(c *engine.Config) {
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

// cachedBench has a workflow of one cached node n0, which executors run, and an engine with a catalog.
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
	return b, b.engine("e1", b.withCatalog), w
}

// runAttempt lets executor x run the one unassigned attempt.
func (b *bench) runAttempt(e *engine.Engine, outcome *aloftv1.Outcome) {
	b.Helper()
	b.settle(e)
	waiting := b.unassigned()
	if len(waiting) != 1 {
		b.Fatalf("%d attempts wait, want one", len(waiting))
	}
	b.assign("x", waiting[0])
	b.report(waiting[0], outcome)
	b.settleTwice(e)
}

// settleTwice also settles executions that are woken by the commits of others: a pass reads the inbox before it commits.
func (b *bench) settleTwice(e *engine.Engine) {
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
	b.runAttempt(e, succeeded(map[string]string{"o0": "computed"}))
	b.wantPhase(first, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(first, core.CatalogCacheStatus_CACHE_POPULATED, "first")

	// The same in another execution, and by an engine with nothing in memory.
	second := b.create(w, "second", map[string]string{"x": "a"})
	e2 := b.engine("e1", b.withCatalog)
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

	// Other inputs have another result.
	fourth := b.create(w, "fourth", map[string]string{"x": "b"})
	b.settle(e2)
	b.wantLookup(fourth, core.CatalogCacheStatus_CACHE_MISS, "")
}

func TestOfTwoThatComputeTheSameTheSecondNamesTheResultOfTheFirst(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	first := b.create(w, "first", map[string]string{"x": "a"})
	second := b.create(w, "second", map[string]string{"x": "a"})
	b.settle(e)
	b.wantLookup(first, core.CatalogCacheStatus_CACHE_MISS, "")
	b.wantLookup(second, core.CatalogCacheStatus_CACHE_MISS, "")
	for _, a := range b.unassigned() {
		b.assign("x", a)
		b.report(a, succeeded(map[string]string{"o0": "computed"}))
	}
	b.settleTwice(e)
	kept := map[string]int{}
	for _, id := range []aloft.ExecutionID{first, second} {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
		b.wantLiterals("outputs", b.execution(id).Outputs, map[string]string{"o0": "computed"})
		lookup := b.node(id).Cache
		artifact := lookup.GetFound().GetArtifactTag().GetArtifactId()
		found, err := b.store.GetResult(t.Context(), artifact)
		if err != nil || lookup.GetStatus() != core.CatalogCacheStatus_CACHE_POPULATED {
			t.Fatalf("the record of %s says %v: %v", id.Name, lookup, err)
		}
		kept[artifact]++
		if own := found.Source.Execution == id; own == strings.Contains(lookup.GetReason(), "this result is not") {
			t.Errorf("the record of %s names the result of %s for the reason %q", id.Name, found.Source.Execution.Name, lookup.GetReason())
		}
	}
	if len(kept) != 1 {
		t.Errorf("the records name %v, want one result", kept)
	}
}

// chainOf makes the workflow a chain of its first task, each node's input the output of the one before it.
func chainOf(w *workflow, length int) {
	w.name, w.nodes = "chained", nil
	from := promise("", "x")
	for i := range length {
		node := fmt.Sprintf("n%d", i)
		w.nodes = append(w.nodes, taskNode(node, w.tasks[0], map[string]*core.BindingData{"x": from}))
		from = promise(node, "o0")
	}
	w.outputs = map[string]*core.BindingData{"o0": from}
}

// removingStore removes the results of other executions for which a step is refused, before the step is made again.
type removingStore struct {
	store.Store
	now     func() time.Time
	removed int
}

func (s *removingStore) Commit(ctx context.Context, steps []*store.Step) []error {
	errs := s.Store.Commit(ctx, steps)
	for _, err := range errs {
		var taken *store.TakenError
		if !errors.As(err, &taken) {
			continue
		}
		for _, result := range taken.By {
			if n, err := s.RemoveResults(ctx, []string{result.ID}, "wrong", s.now()); n == 1 && err == nil {
				s.removed++
			}
		}
	}
	return errs
}

func TestAResultThatGoesBeforeTheStepThatItRefusedIsMadeAgainIsNotUsed(t *testing.T) {
	t.Parallel()
	b, _, w := cachedBench(t)
	s := &removingStore{Store: b.store, now: b.clock.Now}
	e := b.engine("e0", b.withCatalog, func(c *engine.Config) { c.Store = s })
	chainOf(&w, 2)
	b.register(w)
	ids := []aloft.ExecutionID{b.create(w, "first", map[string]string{"x": "a"}), b.create(w, "second", map[string]string{"x": "a"})}
	b.settle(e)
	for _, a := range b.unassigned() {
		b.assign("x", a)
		b.report(a, succeeded(map[string]string{"o0": "a"}))
	}
	b.settleTwice(e)
	if s.removed != 1 {
		t.Fatalf("%d results were removed, want one", s.removed)
	}
	kept := 0
	for _, id := range ids {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
		n, err := b.store.GetNode(t.Context(), id, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if source := n.Cache.GetFound().GetSourceTaskExecution().GetNodeExecutionId().GetExecutionId().GetName(); source != id.Name {
			t.Errorf("node n1 of %s took its result from %q, want its own", id, source)
		}
		if found, err := b.store.GetResult(t.Context(), n.Cache.GetFound().GetArtifactTag().GetArtifactId()); err == nil && found.GoneAt.IsZero() {
			kept++
		}
	}
	if kept != 1 {
		t.Errorf("%d of the two results can be found, want one: that which was not removed", kept)
	}
}

// A chain of one task whose output is its input: the result of the first node's outcome is found in the very step that adopts
// it.
func TestAResultIsFoundByWhatBeginsInTheStepThatAdoptsIt(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	chainOf(&w, 3)
	b.register(w)
	id := b.create(w, "chain", map[string]string{"x": "a"})
	b.runAttempt(e, succeeded(map[string]string{"o0": "a"}))
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(id, core.CatalogCacheStatus_CACHE_POPULATED, "chain")
	for _, node := range []aloft.NodeID{"n1", "n2"} {
		n, err := b.store.GetNode(t.Context(), id, node)
		if err != nil {
			t.Fatal(err)
		}
		if n.Cache.GetStatus() != core.CatalogCacheStatus_CACHE_HIT {
			t.Errorf("node %s is a %s (%s), want a hit", node, n.Cache.GetStatus(), n.Cache.GetReason())
		}
		if source := n.Cache.GetFound().GetSourceTaskExecution().GetNodeExecutionId().GetNodeId(); source != "n0" {
			t.Errorf("the result of node %s comes from %q, want n0", node, source)
		}
	}
	attempts, err := b.store.ListAttempts(t.Context(), id, "", store.Query{})
	if err != nil || len(attempts) != 1 {
		t.Errorf("%d attempts ran (%v), want one", len(attempts), err)
	}
	again := b.create(w, "again", map[string]string{"x": "a"})
	b.settle(e)
	b.wantPhase(again, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(again, core.CatalogCacheStatus_CACHE_HIT, "chain")
}

func TestAFailureIsNoResult(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	first := b.create(w, "first", map[string]string{"x": "a"})
	b.runAttempt(e, &aloftv1.Outcome{Result: &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{Error: &core.ExecutionError{Code: "X"}}}})
	b.wantPhase(first, core.WorkflowExecution_FAILED)
	second := b.create(w, "second", map[string]string{"x": "a"})
	b.runAttempt(e, succeeded(map[string]string{"o0": "computed"}))
	b.wantLookup(second, core.CatalogCacheStatus_CACHE_POPULATED, "second")
}

func TestAnExecutionThatOverwritesComputesAndReplaces(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	b.create(w, "first", map[string]string{"x": "a"})
	b.runAttempt(e, succeeded(map[string]string{"o0": "old"}))
	over := b.create(w, "over", map[string]string{"x": "a"}, func(_ *store.Execution, c *aloftv1.Create) { c.OverwriteCache = true })
	b.settle(e)
	b.wantLookup(over, core.CatalogCacheStatus_CACHE_SKIPPED, "")
	b.runAttempt(e, succeeded(map[string]string{"o0": "new"}))
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
	b.runAttempt(e, succeeded(map[string]string{"o0": "computed"}))
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
	// The first execution is terminated; another one takes its place, and dies with its engine before a step of it is
	// committed.
	if err := b.store.Append(t.Context(), first, store.Message{Dedup: store.TerminateDedup, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{
		Terminate: &aloftv1.Terminate{Cause: "enough"}}}}); err != nil {
		t.Fatal(err)
	}
	b.settleTwice(e)
	b.wantPhase(first, core.WorkflowExecution_ABORTED)
	again := b.engine("e1", b.withCatalog)
	b.runAttempt(again, succeeded(map[string]string{"o0": "computed"}))
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
	b.runAttempt(e, succeeded(map[string]string{"o0": large}))
	second := b.create(w, "second", map[string]string{"x": "a"})
	b.settle(b.engine("e1", b.withCatalog))
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantLookup(second, core.CatalogCacheStatus_CACHE_HIT, "first")
	if uri := b.execution(second).Outputs.GetRef().GetUri(); uri == "" {
		t.Error("the outputs are in the row, want an object")
	}
}

// watchedCatalog notes which results were read ahead, and calls a test while a result is checked.
type watchedCatalog struct {
	engine.Catalog
	reads [][]store.ResultID
	found [][]*store.Result
	use   func(*store.Result)
}

func (w *watchedCatalog) Ahead(ctx context.Context, ids []store.ResultID) ([]*store.Result, error) {
	found, err := w.Catalog.Ahead(ctx, ids)
	w.reads, w.found = append(w.reads, ids), append(w.found, found)
	return found, err
}

func (w *watchedCatalog) Use(ctx context.Context, e *store.Result) (string, error) {
	if w.use != nil {
		w.use(e)
	}
	return w.Catalog.Use(ctx, e)
}

// knownBench has a workflow of n nodes, none of which needs another, whose results are known from execution "first".
func knownBench(t *testing.T, n int, value func(i int) string) (b *bench, w workflow, known *watchedCatalog, engineOf func(...func(*engine.Config)) *engine.Engine) {
	t.Helper()
	b = newBench(t)
	task := proto.CloneOf(echoTask)
	task.Metadata = &core.TaskMetadata{Discoverable: true, DiscoveryVersion: "1"}
	w = workflow{name: "known", tasks: []*core.TaskTemplate{task}}
	for i := range n {
		w.nodes = append(w.nodes, taskNode(fmt.Sprintf("n%d", i), task, map[string]*core.BindingData{"x": text(value(i))}))
	}
	b.register(w)
	b.create(w, "first", nil)
	b.settle(b.engine("a", b.withCatalog))
	known = &watchedCatalog{}
	return b, w, known, func(change ...func(*engine.Config)) *engine.Engine {
		return b.engine("a", append([]func(*engine.Config){b.withCatalog, func(c *engine.Config) {
			known.Catalog, c.Catalog = c.Catalog, known
		}}, change...)...)
	}
}

func (b *bench) lookup(id aloft.ExecutionID, node aloft.NodeID) *aloftv1.CacheLookup {
	b.Helper()
	n, err := b.store.GetNode(b.Context(), id, node)
	if err != nil {
		b.Fatal(err)
	}
	return n.Cache
}

func shortValue(i int) string { return fmt.Sprint("value ", i) }

// wantHits checks that all nodes were hits but node but, which was computed.
func (b *bench) wantHits(id aloft.ExecutionID, n int, but string) {
	b.Helper()
	for i := range n {
		node, want := aloft.NodeID(fmt.Sprintf("n%d", i)), core.CatalogCacheStatus_CACHE_HIT
		if string(node) == but {
			want = core.CatalogCacheStatus_CACHE_POPULATED
		}
		if l := b.lookup(id, node); l.GetStatus() != want {
			b.Errorf("node %s is a %s (%s), want %s", node, l.GetStatus(), l.GetReason(), want)
		}
	}
}

func TestResultsOfSeveralNodesAreLookedForAtOnce(t *testing.T) {
	t.Parallel()
	b, w, known, engineOf := knownBench(t, 200, shortValue)
	second := b.create(w, "second", nil)
	b.settle(engineOf())
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantNoAttempts(second)
	b.wantHits(second, 200, "")
	asked := map[store.ResultID]int{}
	var sizes []int
	for _, ids := range known.reads {
		sizes = append(sizes, len(ids))
		for _, id := range ids {
			asked[id]++
		}
	}
	// Twice as many each time: a step that begins one node reads little in vain.
	if want := []int{1, 2, 4, 8, 16, 32, 64, 64, 9}; !slices.Equal(sizes, want) || len(asked) != 200 {
		t.Errorf("reads of %v results, %d different ones; want %v and 200", sizes, len(asked), want)
	}
}

func TestARoomForOneReadsLittleAhead(t *testing.T) {
	t.Parallel()
	b, _, _ := cachedBench(t)
	task := proto.CloneOf(runTask)
	task.Metadata = &core.TaskMetadata{Discoverable: true, DiscoveryVersion: "1"}
	w := echoes(50, task)
	b.register(w)
	known := &watchedCatalog{}
	e := b.engine("e1", b.withCatalog, func(c *engine.Config) { known.Catalog, c.Catalog = c.Catalog, known })
	id := b.create(w, "narrow", nil, func(_ *store.Execution, c *aloftv1.Create) { c.MaxParallelism = 1 })
	for range 50 {
		b.runAttempt(e, succeeded(map[string]string{"o0": "computed"}))
	}
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	read := 0
	for _, ids := range known.reads {
		read += len(ids)
	}
	if read != 50 {
		t.Errorf("50 nodes that began one after the other took reads of %d results, want 50", read)
	}
}

func TestAResultThatGoesWhileOthersAreLookedAtIsNotUsed(t *testing.T) {
	t.Parallel()
	b, w, known, engineOf := knownBench(t, 60, shortValue)
	uses := 0
	known.use = func(*store.Result) {
		if uses++; uses != 40 { // of n39; the result of n45 was read with that of n39
			return
		}
		id := known.lastRead("n45").ID
		if n, err := b.store.RemoveResults(t.Context(), []string{id}, "wrong", b.clock.Now()); n != 1 || err != nil {
			t.Fatalf("removed %d, %v", n, err)
		}
		b.clock.advance(time.Second) // the check took long
	}
	second := b.create(w, "second", nil)
	b.settle(engineOf())
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantHits(second, 60, "n45")
}

func TestLittleIsReadAheadWhereEachResultTakesLong(t *testing.T) {
	t.Parallel()
	b, w, known, engineOf := knownBench(t, 60, shortValue)
	known.use = func(*store.Result) { b.clock.advance(101 * time.Millisecond) }
	second := b.create(w, "second", nil)
	b.settle(engineOf())
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantHits(second, 60, "")
	read := 0
	for _, ids := range known.reads {
		read += len(ids)
	}
	if read > 2*60 {
		t.Errorf("60 nodes took reads of %d results, want at most two for each", read)
	}
}

// lastRead is the result of a node as it was last read.
func (w *watchedCatalog) lastRead(node aloft.NodeID) (last *store.Result) {
	for _, read := range w.found {
		for _, e := range read {
			if e != nil && e.Source.Node == node {
				last = e
			}
		}
	}
	return last
}

func TestNothingThatWasReadAheadOutlivesItsStep(t *testing.T) {
	t.Parallel()
	b, w, known, engineOf := knownBench(t, 40, shortValue)
	second := b.create(w, "second", nil)
	e := engineOf(func(c *engine.Config) { c.StepLimit = 10 })
	if _, err := e.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The first step read results of more nodes than it began.
	gone := known.lastRead("n11")
	if _, err := b.store.GetNode(t.Context(), second, "n11"); gone == nil || !errors.Is(err, aloft.ErrNotFound) {
		t.Fatalf("of n11 was read %v, and it has begun or not: %v", gone, err)
	}
	if n, err := b.store.RemoveResults(t.Context(), []string{gone.ID}, "wrong", b.clock.Now()); n != 1 || err != nil {
		t.Fatalf("removed %d, %v", n, err)
	}
	b.settle(e)
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantHits(second, 40, "n11")
}

func TestEachOfTheResultsReadAheadIsLookedAt(t *testing.T) {
	t.Parallel()
	b, w, known, engineOf := knownBench(t, 8, func(i int) string { return strings.Repeat(shortValue(i), 20_000) })
	known.use = func(e *store.Result) {
		if e.Source.Node != "n3" {
			return
		}
		key, err := blob.ParseURI(known.lastRead("n5").Outputs.GetRef().GetUri())
		if err != nil {
			t.Fatal(err)
		}
		if err := b.blobs.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	second := b.create(w, "second", nil)
	b.settle(engineOf())
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantHits(second, 8, "n5")
	if reason := b.lookup(second, "n5").GetReason(); !strings.Contains(reason, "is missing") {
		t.Errorf("the reason is %q", reason)
	}
}

func TestAnExecutionOfTheReleaseBeforeStaysReadableForIt(t *testing.T) {
	t.Parallel()
	b, e, w := cachedBench(t)
	b.create(w, "first", map[string]string{"x": "a"})
	b.runAttempt(e, succeeded(map[string]string{"o0": "computed"}))
	older := b.create(w, "older", map[string]string{"x": "a"}, func(e *store.Execution, _ *aloftv1.Create) { e.JournalVersion = 1 })
	b.runAttempt(e, succeeded(map[string]string{"o0": "again"}))
	b.wantPhase(older, core.WorkflowExecution_SUCCEEDED)
	_, journal, err := storetest.Load(t.Context(), b.store, b.execution(older).Key)
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

// The key of a result is computed from the inputs of its node. If they are gone, other nodes cannot find the result.
func TestAResultWhoseInputsAreGoneCountsAndIsNotKept(t *testing.T) {
	t.Parallel()
	b, _, w := cachedBench(t)
	b.objects.limit = 1000
	caching := func(c *engine.Config) {
		literals := c.Literals
		b.withCatalog(c)
		c.Literals = literals
	}
	id := b.create(w, "first", map[string]string{"x": strings.Repeat("x", 2*b.objects.limit)})
	b.settle(b.engine("e1", caching))
	a := b.unassigned()[0]
	b.assign("x", a)
	clear(b.objects.byURI)
	b.report(a, succeeded(map[string]string{"o0": "1"}))
	b.settleTwice(b.engine("e1", caching)) // another process: the inputs are not in memory
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	if got := b.node(id).Cache; got.GetStatus() != core.CatalogCacheStatus_CACHE_PUT_FAILURE || !strings.Contains(got.GetReason(), "is gone") {
		t.Errorf("of its cache it says %s, %q", got.GetStatus(), got.GetReason())
	}
}
