package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/engine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
	"github.com/aloft-dev/aloft/store/storetest"
)

// handClock is moved by the test.
type handClock struct {
	mu  sync.Mutex
	now time.Time
}

func newHandClock() *handClock {
	return &handClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// objects keeps literal maps above limit bytes outside of rows.
type objects struct {
	limit int
	mu    sync.Mutex
	byURI map[string]*core.LiteralMap
	err   error // of every call, while it is set
	reads int
}

func (o *objects) WriteLiterals(_ context.Context, m *core.LiteralMap) (*aloftv1.Literals, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(b)
	ref := &aloftv1.LiteralRef{Digest: digest[:], Size: int64(len(b))}
	if len(b) <= o.limit {
		return &aloftv1.Literals{Ref: ref, Value: m}, nil
	}
	if o.err != nil {
		return nil, o.err
	}
	ref.Uri = "aloft://blob/literals/" + hex.EncodeToString(digest[:])
	o.byURI[ref.GetUri()] = m
	return &aloftv1.Literals{Ref: ref}, nil
}

func (o *objects) ReadLiterals(_ context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, o.err
	}
	o.reads++
	m, ok := o.byURI[ref.GetUri()]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", ref.GetUri(), aloft.ErrNotFound)
	}
	return m, nil
}

// countingStore counts commits, and the steps and rows in them.
type countingStore struct {
	store.Store
	mu      sync.Mutex
	commits int
	steps   int
	rows    int
}

func (c *countingStore) Commit(ctx context.Context, steps []*store.Step) []error {
	c.mu.Lock()
	c.commits++
	c.steps += len(steps)
	for _, s := range steps {
		c.rows += len(s.Nodes) + len(s.Attempts)
	}
	c.mu.Unlock()
	return c.Store.Commit(ctx, steps)
}

// bench is the fixture of a test: a store, a clock and engines on them.
type bench struct {
	testing.TB
	memory  *memstore.Store
	store   *countingStore
	clock   *handClock
	objects *objects
	blobs   *folder.Store // nil until an engine has a catalog
}

func newBench(t testing.TB) *bench {
	t.Helper()
	m := memstore.New()
	return &bench{TB: t, memory: m, store: &countingStore{Store: m}, clock: newHandClock(), objects: &objects{limit: aloft.MaxInlineLiterals, byURI: map[string]*core.LiteralMap{}}}
}

func (b *bench) engine(owner string, change ...func(*engine.Config)) *engine.Engine {
	c := engine.Config{Store: b.store, Literals: b.objects, Owner: owner, Clock: b.clock, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	return engine.New(c)
}

func (b *bench) register(w workflow, subs ...workflow) {
	b.Helper()
	err := b.store.CreateWorkflow(b.Context(), &store.Workflow{ID: identifier(core.ResourceType_WORKFLOW, w.name), Compiled: w.compiled(subs...)})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) create(w workflow, name string, inputs map[string]string, changes ...func(*store.Execution, *aloftv1.Create)) aloft.ExecutionID {
	b.Helper()
	return createIn(b, b.store, b.objects, w, name, inputs, b.clock.Now(), changes...)
}

func createIn(t testing.TB, s store.Store, literals engine.Literals, w workflow, name string, inputs map[string]string, now time.Time,
	changes ...func(*store.Execution, *aloftv1.Create),
) aloft.ExecutionID {
	t.Helper()
	id := aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
	e := &store.Execution{
		ID: id, Spec: &admin.ExecutionSpec{}, Workflow: identifier(core.ResourceType_WORKFLOW, w.name),
		CreatedAt: now, UpdatedAt: now, JournalVersion: store.JournalVersion,
	}
	create := &aloftv1.Create{Workflow: e.Workflow, Seed: name}
	if len(inputs) > 0 {
		l, err := literals.WriteLiterals(t.Context(), texts(inputs))
		if err != nil {
			t.Fatal(err)
		}
		e.Inputs, create.Inputs = l, l.GetRef()
	}
	for _, change := range changes {
		change(e, create)
	}
	if err := s.CreateExecution(t.Context(), e, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: create}}); err != nil {
		t.Fatal(err)
	}
	return id
}

// settle makes passes until there is nothing to do now.
func (b *bench) settle(e *engine.Engine) {
	b.Helper()
	for range 1000 {
		more, err := e.Pass(b.Context())
		if err != nil {
			b.Fatalf("pass: %v", err)
		}
		if !more {
			return
		}
	}
	b.Fatal("the engine never comes to rest")
}

func (b *bench) execution(id aloft.ExecutionID) *store.Execution {
	b.Helper()
	e, err := b.store.GetExecution(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

func (b *bench) wantPhase(id aloft.ExecutionID, want core.WorkflowExecution_Phase) *store.Execution {
	b.Helper()
	e := b.execution(id)
	if e.Phase != want {
		b.Fatalf("execution %s is %s (error %v, waiting %q), want %s", id, e.Phase, e.Error, e.Waiting, want)
	}
	return e
}

func (b *bench) unassigned() []*store.Attempt {
	b.Helper()
	attempts, err := b.store.Waiting(b.Context(), b.clock.Now(), 0)
	if err != nil {
		b.Fatal(err)
	}
	return attempts
}

func (b *bench) assign(executor string, a *store.Attempt) {
	b.Helper()
	instances, err := b.store.Instances(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if !slices.ContainsFunc(instances, func(i store.Instance) bool { return i.ID == executor }) {
		b.heartbeat(executor, "here", 1000*time.Hour)
	}
	if err := errors.Join(b.store.Assign(b.Context(), executor, "", []store.AttemptKey{a.AttemptKey}, b.clock.Now())...); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) report(a *store.Attempt, outcome *aloftv1.Outcome) {
	b.Helper()
	outcome.Node, outcome.Attempt, outcome.Token = string(a.Node), a.Attempt, a.Token
	r := store.Report{Attempt: a.AttemptKey, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: outcome}}}
	if err := errors.Join(b.store.Report(b.Context(), "x", []store.Report{r})...); err != nil {
		b.Fatal(err)
	}
}

func succeeded(values map[string]string) *aloftv1.Outcome {
	return &aloftv1.Outcome{Result: &aloftv1.Outcome_Outputs{Outputs: &aloftv1.Literals{Value: texts(values)}}}
}

func (b *bench) heartbeat(id, place string, ttl time.Duration) {
	b.Helper()
	now := b.clock.Now()
	if err := b.store.Heartbeat(b.Context(), store.Instance{ID: id, Kind: "process", Place: place, SeenAt: now, Expires: now.Add(ttl)}); err != nil {
		b.Fatal(err)
	}
}

func TestOneNodeIsOneCommit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := fanOut(1)
	b.register(w)
	id := b.create(w, "one", nil)
	b.settle(b.engine("a"))
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	if b.store.commits != 1 {
		t.Errorf("a run of one node took %d commits, want 1", b.store.commits)
	}
}

func TestChainThatNeedsNobodyIsOneCommit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := chain(100)
	b.register(w)
	id := b.create(w, "chain", nil)
	b.settle(b.engine("a"))
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	if b.store.commits != 1 {
		t.Errorf("a chain of 100 took %d commits, want 1", b.store.commits)
	}
	// A node and its attempt, once each; start-node and end-node.
	if want := 2*100 + 2; b.store.rows != want {
		t.Errorf("a chain of 100 wrote %d records, want %d", b.store.rows, want)
	}
}

func TestLongStepsYieldSoThatOthersHaveTheirTurn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	long, short := fanOut(1000), fanOut(1)
	b.register(long)
	b.register(short)
	first := b.create(long, "long", nil)
	second := b.create(short, "short", nil)
	e := b.engine("a", func(c *engine.Config) { c.StepLimit = 50 })
	for range 2 {
		if _, err := e.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantPhase(first, core.WorkflowExecution_RUNNING)
	if stuck, _ := b.store.Stuck(t.Context(), 0); len(stuck) > 0 {
		t.Fatalf("executions that yielded would be lost in a crash: %v", stuck)
	}
	// The next engine goes on from there.
	b.settle(b.engine("a"))
	b.wantPhase(first, core.WorkflowExecution_SUCCEEDED)
}

func TestManyExecutionsShareACommit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := fanOut(3)
	b.register(w)
	for i := range 200 {
		b.create(w, fmt.Sprintf("e%d", i), nil)
	}
	b.settle(b.engine("a"))
	if b.store.steps != 200 || b.store.commits != 1 {
		t.Errorf("200 executions took %d steps in %d commits, want 200 in 1", b.store.steps, b.store.commits)
	}
}

func TestValuesFlowThroughNestedWorkflowsAndRecords(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{aloft.MaxInlineLiterals, 3} { // in rows, and all of them as objects
		t.Run(fmt.Sprintf("limit=%d", limit), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.objects.limit = limit
			inner := workflow{
				name: "inner", inputs: map[string]core.SimpleType{"y": core.SimpleType_STRING}, tasks: []*core.TaskTemplate{echoTask},
				nodes:   []*core.Node{taskNode("e", echoTask, map[string]*core.BindingData{"x": promise(aloft.StartNode, "y")})},
				outputs: map[string]*core.BindingData{"z": promise("e", "o0")},
			}
			outer := workflow{
				name: "outer", inputs: map[string]core.SimpleType{"in": core.SimpleType_STRING}, tasks: []*core.TaskTemplate{runTask},
				nodes: []*core.Node{
					taskNode("first", runTask, map[string]*core.BindingData{"x": promise(aloft.StartNode, "in")}),
					workflowNode("sub", inner, map[string]*core.BindingData{"y": promise("first", "o0")}),
				},
				outputs: map[string]*core.BindingData{"out": promise("sub", "z"), "in": promise(aloft.StartNode, "in")},
			}
			b.register(outer, inner)
			id := b.create(outer, "nested", map[string]string{"in": "hello"})
			e := b.engine("a")
			b.settle(e)
			waiting := b.unassigned()
			if len(waiting) != 1 {
				t.Fatalf("%d attempts wait, want 1", len(waiting))
			}
			b.assign("x", waiting[0])
			b.report(waiting[0], succeeded(map[string]string{"o0": "world"}))
			b.settle(b.engine("a")) // another process: nothing is in memory
			record := b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
			b.wantLiterals("outputs of the execution", record.Outputs, map[string]string{"out": "world", "in": "hello"})

			for _, want := range []struct {
				node            aloft.NodeID
				inputs, outputs map[string]string
			}{
				{"start-node", nil, map[string]string{"in": "hello"}},
				{"first", map[string]string{"x": "hello"}, map[string]string{"o0": "world"}},
				{"sub", map[string]string{"y": "world"}, map[string]string{"z": "world"}},
				{"sub-0-start-node", nil, map[string]string{"y": "world"}},
				{"sub-0-e", map[string]string{"x": "world"}, map[string]string{"o0": "world"}},
				{"sub-0-end-node", map[string]string{"z": "world"}, map[string]string{"z": "world"}},
			} {
				n, err := b.store.GetNode(t.Context(), id, want.node)
				if err != nil {
					t.Errorf("node %s: %v", want.node, err)
					continue
				}
				if n.Phase != core.NodeExecution_SUCCEEDED {
					t.Errorf("node %s is %s", want.node, n.Phase)
				}
				b.wantLiterals("inputs of "+string(want.node), n.Inputs, want.inputs)
				b.wantLiterals("outputs of "+string(want.node), n.Outputs, want.outputs)
			}
		})
	}
}

func (b *bench) wantLiterals(what string, got *aloftv1.Literals, want map[string]string) {
	b.Helper()
	m := got.GetValue()
	if uri := got.GetRef().GetUri(); uri != "" {
		m = b.objects.byURI[uri]
	}
	if len(want) == 0 {
		if len(m.GetLiterals()) > 0 {
			b.Errorf("%s: got %v, want none", what, m)
		}
		return
	}
	if !proto.Equal(m, texts(want)) {
		b.Errorf("%s: got %v, want %v", what, m, want)
	}
}

func TestSleepEndsWhenItsTimeHasComeAlsoAfterLeavingMemory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "sleeps", tasks: []*core.TaskTemplate{sleepTask}, nodes: []*core.Node{sleepNode("s", time.Hour)}}
	b.register(w)
	var ids []aloft.ExecutionID
	for i := range 5 {
		ids = append(ids, b.create(w, fmt.Sprintf("e%d", i), nil))
	}
	e := b.engine("a", func(c *engine.Config) { c.CacheRuns = 1 })
	b.settle(e)
	for _, id := range ids {
		b.wantPhase(id, core.WorkflowExecution_RUNNING)
	}
	b.clock.advance(59 * time.Minute)
	b.settle(e)
	b.wantPhase(ids[0], core.WorkflowExecution_RUNNING)
	b.clock.advance(time.Minute)
	b.settle(e)
	for _, id := range ids {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	}
}

func TestClockThatWasSetBackAcrossARestartDelaysNoTimer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "sleeps", tasks: []*core.TaskTemplate{sleepTask}, nodes: []*core.Node{sleepNode("s", time.Minute)}}
	b.register(w)
	id := b.create(w, "back", nil)
	b.settle(b.engine("a"))
	b.clock.advance(-time.Hour)
	e := b.engine("a")
	b.settle(e)
	b.clock.advance(time.Minute)
	b.settle(e)
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
}

// The search for runs that are ahead, by which a shard's new owner learns how late it is, is repeated until it is done.
func TestClockThatWasSetBackDelaysNoTimerAlsoWhenTheStoreFailsMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "sleeps", tasks: []*core.TaskTemplate{sleepTask}, nodes: []*core.Node{sleepNode("s", time.Minute)}}
	b.register(w)
	id := b.create(w, "back", nil)
	b.settle(b.engine("a"))
	b.clock.advance(-time.Hour)
	failed := false
	b.memory.Faults = func(op string) store.Fault {
		if op == "Clocks" && !failed {
			failed = true
			return store.FailBefore
		}
		return store.NoFault
	}
	e := b.engine("a")
	if _, err := e.Pass(t.Context()); err == nil || !failed {
		t.Fatalf("the pass should have failed, error %v", err)
	}
	b.settle(e)
	b.clock.advance(time.Minute)
	b.settle(e)
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
}

// Each execution has a clock of its own.
func TestClockThatWasSetBackLearnsFromEachOfTheFirstTimers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "sleeps", tasks: []*core.TaskTemplate{sleepTask}, nodes: []*core.Node{sleepNode("s", time.Hour)}}
	b.register(w)
	first := b.create(w, "first", nil)
	b.settle(b.engine("a"))
	b.clock.advance(30 * time.Minute)
	second := b.create(w, "second", nil)
	b.settle(b.engine("a"))
	b.clock.advance(-2 * time.Hour)
	b.run(b.engine("a"), time.Hour+10*time.Second)
	b.wantPhase(first, core.WorkflowExecution_SUCCEEDED)
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
}

func TestATaskThatHangsEndsByTheDefaultWhateverBecomesOfTheClock(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "hangs", tasks: []*core.TaskTemplate{runTask}, nodes: []*core.Node{
		taskNode("a", runTask, map[string]*core.BindingData{"x": text("")}), taskNode("b", runTask, map[string]*core.BindingData{"x": text("")}),
	}}
	b.register(w)
	id := b.create(w, "hangs", nil)
	e := b.engine("a")
	b.settle(e)
	attempts := b.unassigned()
	started := func(a *store.Attempt) {
		b.Helper()
		b.assign("x", a)
		inbox := &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: &aloftv1.AttemptStarted{
			Node: string(a.Node), Token: a.Token, StartedAt: b.clock.Now().Add(-time.Hour).UnixNano(), // by a clock that is behind
		}}}
		if err := errors.Join(b.store.Report(t.Context(), "x", []store.Report{{Attempt: a.AttemptKey, Inbox: inbox}})...); err != nil {
			t.Fatal(err)
		}
		b.settle(e)
	}
	stop := func() string {
		a, err := b.store.GetAttempt(t.Context(), attempts[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		return a.Stop
	}
	started(attempts[0])
	b.clock.advance(10 * time.Hour)
	started(attempts[1])
	// The server starts again with a clock that is behind: the run goes on from the latest time in its journal.
	b.clock.advance(-5 * time.Hour)
	e = b.engine("a")
	b.settle(e)
	b.clock.advance(38*time.Hour - time.Minute)
	b.settle(e)
	if reason := stop(); reason != "" {
		t.Fatalf("after 47:59 hours it is stopped: %s", reason)
	}
	b.clock.advance(time.Minute)
	b.settle(e)
	if reason := stop(); reason != "task execution timeout [48h0m0s] expired" {
		t.Fatalf("after 48 hours it is stopped for %q", reason)
	}
	b.report(attempts[0], &aloftv1.Outcome{Result: &aloftv1.Outcome_Stopped{Stopped: "killed"}})
	b.settle(e)
	b.report(attempts[1], &aloftv1.Outcome{Result: &aloftv1.Outcome_Stopped{Stopped: "killed"}})
	b.settle(e)
	if got := b.wantPhase(id, core.WorkflowExecution_FAILED).Error.GetCode(); got != "RetriesExhausted|TimeoutExpired" {
		t.Errorf("it failed with %s", got)
	}
	charge := func(a *store.Attempt) *aloftv1.AttemptCharge {
		got, err := b.store.GetAttempt(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got.Usage.GetCharge()
	}
	if c := charge(attempts[0]); c.GetBudget() != aloftv1.AttemptEnded_USER || c.GetReason() != "its time was over, and it has no retries" || c.GetNextAt() != 0 {
		t.Errorf("its record says of budgets %v", c)
	}
	if c := charge(attempts[1]); c != nil {
		t.Errorf("the attempt that was stopped for the other one paid %v", c)
	}
}

func TestStepsUnderALeaseThatSomebodyElseHoldsHaveNoEffect(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{name: "two", tasks: []*core.TaskTemplate{runTask}, nodes: []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": text("1")})}}
	b.register(w)
	id := b.create(w, "fenced", nil)
	stopped := newHandClock() // a machine that was suspended: its clock did not go on
	old := b.engine("old", func(c *engine.Config) { c.Clock = stopped })
	b.settle(old)
	b.clock.advance(time.Minute)
	other := b.engine("other")
	b.settle(other)
	a := b.unassigned()[0]
	b.assign("x", a)
	b.report(a, succeeded(map[string]string{"o0": "done"}))
	b.settle(other)
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	late := b.create(w, "late", nil)
	b.settle(other)
	before := b.execution(late).UpdatedAt
	for range 3 { // the old engine still relies on its lease
		_, _ = old.Pass(t.Context())
	}
	if got := b.execution(late).UpdatedAt; !got.Equal(before) {
		t.Error("an engine without a lease moved an execution")
	}
	if n := len(b.unassigned()); n != 1 {
		t.Errorf("%d attempts wait, want 1", n)
	}
}

func TestCommitOfUnknownOutcomeIsRepeatedUnchanged(t *testing.T) {
	t.Parallel()
	for _, fault := range []store.Fault{store.FailBefore, store.FailAfter} {
		b := newBench(t)
		w := fanOut(2)
		b.register(w)
		id := b.create(w, "unknown", nil)
		failures := 3
		b.memory.Faults = func(op string) store.Fault {
			if op == "Commit" && failures > 0 {
				failures--
				return fault
			}
			return store.NoFault
		}
		e := b.engine("a")
		for range 10 {
			if _, err := e.Pass(t.Context()); err != nil && !errors.Is(err, aloft.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		record := b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
		if _, journal, _ := storetest.Load(t.Context(), b.store, record.Key); len(journal) != 1 {
			t.Errorf("%d journal entries, want 1", len(journal))
		}
	}
}

func TestWhatWeCannotDoIsTriedAgainAndSaidWhenItLasts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.objects.limit = 3
	b.objects.err = fmt.Errorf("the disk is full: %w", aloft.ErrUnavailable)
	w := workflow{name: "echo", tasks: []*core.TaskTemplate{echoTask}, nodes: []*core.Node{taskNode("e", echoTask, map[string]*core.BindingData{"x": text("1")})}}
	b.register(w)
	id := b.create(w, "full", nil)
	e := b.engine("a")
	for range 20 {
		b.settle(e)
		b.clock.advance(time.Second)
	}
	if got := b.execution(id).Waiting; !strings.Contains(got, "the disk is full") {
		t.Errorf("waiting is %q, want the cause", got)
	}
	b.objects.err = nil
	for range 60 {
		b.settle(e)
		b.clock.advance(time.Second)
	}
	record := b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	if record.Waiting != "" {
		t.Errorf("it still says that it waits: %q", record.Waiting)
	}
}

func TestExecutionOfALaterReleaseIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := fanOut(1)
	b.register(w)
	id := b.create(w, "later", nil, func(e *store.Execution, _ *aloftv1.Create) { e.JournalVersion = store.JournalVersion + 1 })
	here := b.engine("a")
	for round := range 30 {
		b.memory.Faults = func(op string) store.Fault {
			if op == "Load" && round > 10 && round < 20 { // not even while the engine waits for a store that is away
				return store.FailBefore
			}
			return store.NoFault
		}
		b.settle(here)
		b.clock.advance(time.Second)
	}
	if _, journal, err := storetest.Load(t.Context(), b.store, b.execution(id).Key); err != nil || len(journal) != 0 {
		t.Errorf("%d entries were written (%v), want none", len(journal), err)
	}
}

func TestOutputsThatAreNotWhatTheirDigestSaysAreNoResult(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{
		name: "damaged", tasks: []*core.TaskTemplate{runTask}, outputs: map[string]*core.BindingData{"o": promise("r", "o0")},
		nodes: []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": text("1")})},
	}
	b.register(w)
	id := b.create(w, "damaged", nil)
	e := b.engine("a")
	b.settle(e)
	first := b.unassigned()[0]
	b.assign("x", first)
	damaged := succeeded(map[string]string{"o0": "wrong"})
	damaged.GetOutputs().Ref = &aloftv1.LiteralRef{Digest: make([]byte, sha256.Size)}
	b.report(first, damaged)
	b.settle(e)
	again := b.unassigned()
	if len(again) != 1 || again[0].Attempt != 1 {
		t.Fatalf("attempts that wait: %v, want a second try", again)
	}
	b.assign("x", again[0])
	b.report(again[0], succeeded(map[string]string{"o0": "right"}))
	b.settle(e)
	b.wantLiterals("outputs", b.wantPhase(id, core.WorkflowExecution_SUCCEEDED).Outputs, map[string]string{"o": "right"})
}

func TestAttemptsOfAnExecutorThatIsGone(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*bench, *engine.Engine, aloft.ExecutionID) {
		t.Helper()
		b := newBench(t)
		w := workflow{name: "gone", tasks: []*core.TaskTemplate{runTask}, nodes: []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": text("1")})}}
		b.register(w)
		id := b.create(w, "gone", nil)
		e := b.engine("a")
		b.heartbeat("first", "here", 15*time.Second)
		b.settle(e)
		b.assign("first", b.unassigned()[0])
		return b, e, id
	}
	pass := func(b *bench, e *engine.Engine, d time.Duration) {
		for range int(d / time.Second) {
			b.clock.advance(time.Second)
			b.settle(e)
		}
	}
	t.Run("another instance of the place takes them over", func(t *testing.T) {
		t.Parallel()
		b, e, _ := start(t)
		pass(b, e, 10*time.Second)
		b.heartbeat("elsewhere", "there", time.Hour)
		b.heartbeat("second", "here", time.Hour)
		pass(b, e, 10*time.Second)
		got, err := b.store.Assigned(t.Context(), "second")
		if err != nil || len(got) != 1 {
			t.Fatalf("the second instance has %v (%v), want the attempt of the first", got, err)
		}
		if instances, _ := b.store.Instances(t.Context()); len(instances) != 2 {
			t.Errorf("instances: %v, want that the first is forgotten", instances)
		}
	})
	t.Run("nobody can reach them: they are lost and replaced", func(t *testing.T) {
		t.Parallel()
		b, e, id := start(t)
		b.heartbeat("elsewhere", "there", time.Hour)
		pass(b, e, 29*time.Second)
		if n := len(b.unassigned()); n != 0 {
			t.Fatalf("%d attempts wait within the grace", n)
		}
		pass(b, e, 6*time.Second)
		waiting := b.unassigned()
		if len(waiting) != 1 || waiting[0].Attempt != 1 {
			t.Fatalf("attempts that wait: %v, want a replacement", waiting)
		}
		old, err := b.store.GetAttempt(t.Context(), aloft.AttemptID{Execution: id, Node: "r"})
		if err != nil || !old.Lost {
			t.Errorf("the first attempt is %+v (%v), want lost", old, err)
		}
	})
	t.Run("the machine was suspended: that is no reason", func(t *testing.T) {
		t.Parallel()
		b, e, _ := start(t)
		pass(b, e, time.Second)
		b.clock.advance(8 * time.Hour)
		pass(b, e, 10*time.Second)
		b.heartbeat("first", "here", time.Hour)
		pass(b, e, time.Minute)
		if got, _ := b.store.Assigned(t.Context(), "first"); len(got) != 1 {
			t.Errorf("the instance has %v, want its attempt", got)
		}
	})
	t.Run("the database can be read and not written: that is no reason", func(t *testing.T) {
		t.Parallel()
		b, e, _ := start(t)
		pass(b, e, time.Second)
		b.memory.Faults = func(op string) store.Fault {
			if op == "AcquireShards" || op == "Heartbeat" {
				return store.FailBefore
			}
			return store.NoFault
		}
		for range 120 {
			b.clock.advance(time.Second)
			_, _ = e.Pass(t.Context()) // its leases run out
			if err := e.Reap(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b.memory.Faults = nil
		b.heartbeat("first", "here", time.Hour)
		pass(b, e, time.Minute)
		if got, _ := b.store.Assigned(t.Context(), "first"); len(got) != 1 {
			t.Errorf("the instance has %v, want its attempt", got)
		}
	})
	t.Run("its clock is behind ours and the engine is new: that is no reason", func(t *testing.T) {
		t.Parallel()
		b, _, _ := start(t)
		b.clock.advance(8 * time.Hour)
		e := b.engine("a")
		for range 60 {
			b.clock.advance(-8 * time.Hour)
			b.heartbeat("first", "here", 15*time.Second)
			b.clock.advance(8 * time.Hour)
			pass(b, e, time.Second)
		}
		if got, _ := b.store.Assigned(t.Context(), "first"); len(got) != 1 {
			t.Errorf("the instance has %v, want its attempt", got)
		}
	})
}

func TestFailureNodeIsToldTheError(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cleanup := task("cleanup", "python-task", map[string]core.SimpleType{"err": core.SimpleType_ERROR}, nil)
	none := &core.BindingData{Value: &core.BindingData_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_NoneType{NoneType: &core.Void{}}}}}
	w := workflow{
		name: "cleanup", tasks: []*core.TaskTemplate{runTask, cleanup},
		nodes:   []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": text("1")})},
		failure: taskNode("efn", cleanup, map[string]*core.BindingData{"err": none}),
	}
	b.register(w)
	id := b.create(w, "cleanup", nil)
	e := b.engine("a")
	b.settle(e)
	a := b.unassigned()[0]
	b.assign("x", a)
	b.report(a, &aloftv1.Outcome{Result: &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{
		Error: &core.ExecutionError{Code: "ValueError", Message: "no such thing", Kind: core.ExecutionError_USER},
	}}})
	b.settle(e)
	efn := b.unassigned()
	if len(efn) != 1 || efn[0].Node != "efn" {
		t.Fatalf("attempts that wait: %v, want the failure node's", efn)
	}
	inputs, err := b.store.NodeInputs(t.Context(), efn[0].Execution, "efn")
	if err != nil {
		t.Fatal(err)
	}
	if got := inputs.GetValue().GetLiterals()["err"].GetScalar().GetUnion().GetValue().GetScalar().GetError().GetMessage(); !strings.Contains(got, "no such thing") {
		t.Errorf("err is %v, want the message of the failure", inputs.GetValue())
	}
	b.assign("x", efn[0])
	b.report(efn[0], succeeded(nil))
	b.settle(e)
	b.wantPhase(id, core.WorkflowExecution_FAILED)
}

func TestRunMovesExecutionsAndGivesItsShardsBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := fanOut(20)
	b.register(w)
	ctx, stop := context.WithCancel(t.Context())
	e := b.engine("a", func(c *engine.Config) { c.Clock = nil; c.StepLimit = 30 })
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var ids []aloft.ExecutionID
	for i := range 50 {
		ids = append(ids, b.create(w, fmt.Sprintf("e%d", i), nil))
	}
	for _, id := range ids {
		wake, cancel := b.store.Subscribe(store.TopicExecution(id))
		for b.execution(id).Phase != core.WorkflowExecution_SUCCEEDED {
			<-wake
		}
		cancel()
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	leases, err := b.store.AcquireShards(t.Context(), "next", time.Now(), time.Second)
	if err != nil || len(leases) != store.Shards {
		t.Errorf("the next engine gets %d shards (%v), want all at once", len(leases), err)
	}
}
