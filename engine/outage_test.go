package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/engine/machine"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/executor/executortest"
	"github.com/aloft-dev/aloft/health"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
)

// fakeHealth is the health of one service, which is away from its first failure until back.
type fakeHealth struct {
	mu     sync.Mutex
	away   store.Service
	failed int
}

func (h *fakeHealth) Failed(_ context.Context, service, reason string) (store.Service, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed++
	if !h.away.Away() {
		h.away = store.Service{Name: service, Reason: reason, AwaySince: time.Unix(1, 0)}
		return h.away, true
	}
	return h.away, false
}

func (h *fakeHealth) Away(services ...string) (store.Service, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range services {
		if h.away.Name == name && h.away.Away() {
			return h.away, true
		}
	}
	return store.Service{}, false
}

func (h *fakeHealth) back() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = store.Service{}
}

// run lets an engine go on by the hand clock, to each of its timers.
func (b *bench) run(e *engine.Engine, d time.Duration) {
	b.Helper()
	end := b.clock.Now().Add(d)
	for {
		b.settle(e)
		now := b.clock.Now()
		if stuck, err := b.store.Stuck(b.Context(), 0); err != nil || len(stuck) > 0 {
			b.Fatalf("stuck: %v, %v", stuck, err)
		}
		if !now.Before(end) {
			return
		}
		b.clock.advance(min(max(e.WakeAt().Sub(now), 10*time.Millisecond), end.Sub(now)))
	}
}

// benchWithoutBlobs is a bench with an execution whose only step needs blobs, which are away.
func benchWithoutBlobs(t *testing.T) (*bench, aloft.ExecutionID) {
	b := newBench(t)
	b.objects.limit = 3
	w := workflow{name: "echo", tasks: []*core.TaskTemplate{echoTask}, nodes: []*core.Node{taskNode("e", echoTask, map[string]*core.BindingData{"x": text("1")})}}
	b.register(w)
	id := b.create(w, "parks", nil)
	b.objects.err = fmt.Errorf("write object x: no space left: %w", aloft.ErrUnavailable)
	return b, id
}

func TestWhatWaitsSaysForWhatAndSinceWhenOverRestarts(t *testing.T) {
	t.Parallel()
	b, id := benchWithoutBlobs(t)
	want := aloft.WaitingFor(aloft.ServiceBlob, b.clock.Now().Format(time.RFC3339), b.objects.err.Error())
	since := b.clock.Now()
	for _, owner := range []string{"a", "b"} { // engine b goes on when the leases of a have run out
		b.run(b.engine(owner), 20*time.Minute)
		if e := b.execution(id); e.Waiting != want || !e.WaitingSince.Equal(since) {
			t.Errorf("with engine %s it is %q since %s, want %q since %s", owner, e.Waiting, e.WaitingSince, want, since)
		}
	}
	b.objects.err = nil
	b.run(b.engine("c"), time.Hour)
	if e := b.wantPhase(id, core.WorkflowExecution_SUCCEEDED); e.Waiting != "" || !e.WaitingSince.IsZero() {
		t.Errorf("it has ended and is %q since %s", e.Waiting, e.WaitingSince)
	}
}

func TestWhatIsParkedAsksSeldomAndGoesOnWhenItsServiceIsBack(t *testing.T) {
	t.Parallel()
	b, id := benchWithoutBlobs(t)
	h := &fakeHealth{}
	e := b.engine("a", func(c *engine.Config) { c.Health, c.MaxRetries = h, 4 })
	b.run(e, 2*time.Hour)
	if h.failed < 2*12 || h.failed > 2*12+10 {
		t.Errorf("in two hours it was tried %d times, want once in five minutes", h.failed)
	}
	b.wantPhase(id, core.WorkflowExecution_UNDEFINED)
	b.objects.err = nil
	h.back()
	b.run(e, time.Second)
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
}

func TestWhatIsParkedAndNotToldGoesOnByItself(t *testing.T) {
	t.Parallel()
	b, id := benchWithoutBlobs(t)
	e := b.engine("a")
	b.run(e, 2*time.Hour)
	b.objects.err = nil
	b.run(e, 5*time.Minute)
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
}

func TestPastItsLimitAnOutageFailsTheExecution(t *testing.T) {
	t.Parallel()
	b, id := benchWithoutBlobs(t)
	limit := func(c *engine.Config) { c.MaxOutage = 10 * time.Hour }
	b.run(b.engine("a", limit), 6*time.Hour)
	b.wantPhase(id, core.WorkflowExecution_UNDEFINED)
	b.run(b.engine("b", limit), 3*time.Hour+50*time.Minute) // a restart does not begin the outage anew
	b.wantPhase(id, core.WorkflowExecution_UNDEFINED)
	b.run(b.engine("c", limit), 30*time.Minute)
	e := b.wantPhase(id, core.WorkflowExecution_FAILED)
	if e.Error.GetKind() != core.ExecutionError_SYSTEM || e.Error.GetCode() != machine.CodeOutage {
		t.Errorf("it failed with %v", e.Error)
	}
	for _, part := range []string{"gave up after 10h", "max-outage is 10h0m0s", "the blob store", "no space left"} {
		if !strings.Contains(e.Error.GetMessage(), part) {
			t.Errorf("%q is missing in %q", part, e.Error.GetMessage())
		}
	}
}

func TestWhatIsParkedCanBeTerminatedAtOnce(t *testing.T) {
	t.Parallel()
	b, id := benchWithoutBlobs(t)
	e := b.engine("a")
	b.run(e, 2*time.Hour)
	terminate := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{Cause: "enough"}}}
	if err := b.store.Append(t.Context(), id, store.Message{Dedup: store.TerminateDedup, Inbox: terminate}); err != nil {
		t.Fatal(err)
	}
	b.run(e, 2*time.Second)
	b.wantPhase(id, core.WorkflowExecution_ABORTED)
}

// A day without the service that attempts need to start: hundreds of nodes, some of which run, some wait and some are created
// meanwhile. One failure is charged, each attempt that needs the service says so, and when it is back all executions succeed.
// Engine, executor and health are the real ones.
func TestAnOutageOfADayBurnsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const runs, width = 10, 20 // 200 nodes, and one that follows in each run
		s, place := memstore.New(), executortest.NewMemory()
		place.Room = admission.Room{MilliCPU: 100_000, Memory: 64 << 30, Slots: 40}
		var away atomic.Bool
		full := errors.New("no space left")
		place.Needs = map[string]func(context.Context) error{aloft.ServiceBlob: func(context.Context) error {
			if away.Load() {
				return full
			}
			return nil
		}}
		var refused atomic.Int64
		place.Fault = func(op string, _ *executor.Job) error {
			if op != "start" || !away.Load() {
				return nil
			}
			refused.Add(1)
			return errors.Join(&aloft.ServiceError{Service: aloft.ServiceBlob, Err: full}, executor.ErrNotStarted)
		}
		short := task("short", "python-task", nil, nil)
		short.Target = &core.TaskTemplate_Container{Container: &core.Container{Command: []string{"succeed"}}}
		w := workflow{name: "wide", tasks: []*core.TaskTemplate{short}}
		var all []string
		for i := range width {
			all = append(all, fmt.Sprintf("n%d", i))
			w.nodes = append(w.nodes, taskNode(all[i], short, nil))
		}
		w.nodes = append(w.nodes, taskNode("last", short, nil, all...))
		if err := s.CreateWorkflow(t.Context(), &store.Workflow{ID: identifier(core.ResourceType_WORKFLOW, w.name), Compiled: w.compiled()}); err != nil {
			t.Fatal(err)
		}

		logger := slog.New(slog.DiscardHandler)
		backend := place.Open(t)
		probes := map[string]health.Probe{}
		for name, probe := range backend.Services() {
			probes[name] = probe
		}
		monitor := health.New(health.Config{Store: s, Logger: logger, Probes: probes})
		x := executor.New(executor.Config{Instance: "x", Store: s, Backend: backend, Health: monitor, Logger: logger, TTL: 10 * time.Minute})
		e := engine.New(engine.Config{
			Store: s, Literals: &objects{limit: aloft.MaxInlineLiterals}, Owner: "e", Logger: logger, Health: monitor, Workers: 1,
			LeaseTTL: 10 * time.Minute, Poll: time.Minute, Grace: 10 * time.Minute, // the day passes sooner
			Policy: machine.Policy{SystemRetries: aloft.SystemRetries{Backoff: time.Second, MaxBackoff: 5 * time.Minute}},
		})
		ctx, cancel := context.WithCancel(t.Context())
		if err := x.Register(ctx); err != nil {
			t.Fatal(err)
		}
		var parts sync.WaitGroup
		for _, part := range []func(context.Context) error{monitor.Run, e.Run, x.Run} {
			parts.Go(func() {
				if err := part(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		pass := func(d time.Duration) {
			time.Sleep(d) //nolint:forbidigo // the time of the bubble
			synctest.Wait()
		}
		pass(time.Second)
		away.Store(true)
		began := time.Now()
		var ids []aloft.ExecutionID
		for i := range runs {
			ids = append(ids, createIn(t, s, &objects{}, w, fmt.Sprintf("e%d", i), nil, time.Now()))
		}
		pass(24 * time.Hour)

		if known, is := monitor.Away(aloft.ServiceBlob); !is || known.AwaySince.Sub(began) > time.Second {
			t.Errorf("it is away since %s and known is %+v", began, known)
		}
		waiting, err := s.Waiting(ctx, time.Now(), 0)
		if err != nil || len(waiting) != runs*width {
			t.Errorf("%d attempts wait (%v), want all of %d", len(waiting), err, runs*width)
		}
		for _, a := range waiting {
			if !strings.HasPrefix(a.Waiting, "waiting for the blob store since "+began.UTC().Format("2006-01-02T15:04")) || !strings.HasSuffix(a.Waiting, full.Error()) {
				t.Errorf("%s waits for %q", a.ID, a.Waiting)
				break
			}
		}
		if stuck, err := s.Stuck(ctx, 0); err != nil || len(stuck) > 0 {
			t.Errorf("stuck: %v, %v", stuck, err)
		}
		if n := refused.Load(); n > 40*15 {
			t.Errorf("in a day %d starts were tried in vain, want those of the 40 that were taken before it was known", n)
		}

		away.Store(false)
		pass(10 * time.Minute)
		charged, spared, ended := 0, 0, 0
		for _, id := range ids {
			rec, err := s.GetExecution(ctx, id)
			if err != nil || rec.Phase != core.WorkflowExecution_SUCCEEDED {
				t.Errorf("%s is %s (%v, %v)", id, rec.Phase, rec.Error, err)
			}
			attempts, err := s.ListAttempts(ctx, id, "", store.Query{})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range attempts {
				switch c := a.Usage.GetCharge(); {
				case a.Phase == core.TaskExecution_SUCCEEDED:
					ended++
				case c.GetBudget() == aloftv1.AttemptEnded_SYSTEM:
					charged++
				case c.GetBudget() == aloftv1.AttemptEnded_NONE && strings.Contains(c.GetReason(), "not counted"):
					spared++
				default:
					t.Errorf("%s is %s and charged %v", a.ID, a.Phase, c)
				}
			}
		}
		if charged != 1 || ended != runs*(width+1) || spared > 40 {
			t.Errorf("%d failures were charged, %d were not, %d attempts succeeded; want 1, at most 39 and %d", charged, spared, ended, runs*(width+1))
		}
		t.Logf("a day away: 1 failure charged, %d not, %d starts in vain", spared, refused.Load())
		cancel()
		parts.Wait()
	})
}

// Giving up goes before what the execution cannot do: neither an outcome in its inbox nor its failure node stands in the way.
func TestGivingUpGoesBeforeWhatCannotBeDone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{
		name: "handled", tasks: []*core.TaskTemplate{runTask},
		nodes:   []*core.Node{taskNode("a", runTask, map[string]*core.BindingData{"x": text("1")})},
		failure: taskNode("f", runTask, map[string]*core.BindingData{"x": text("2")}),
	}
	b.register(w)
	id := b.create(w, "handled", nil)
	e := b.engine("a", func(c *engine.Config) { c.MaxOutage = time.Hour })
	b.settle(e)
	a := b.unassigned()[0]
	b.assign("x", a)
	b.objects.limit, b.objects.err = 3, fmt.Errorf("write object x: no space left: %w", aloft.ErrUnavailable)
	b.report(a, succeeded(map[string]string{"o0": "more than three bytes"}))
	b.run(e, 2*time.Hour)
	if rec := b.wantPhase(id, core.WorkflowExecution_FAILING); rec.Error.GetCode() != machine.CodeOutage {
		t.Errorf("it is failing with %v", rec.Error)
	}
	b.objects.err = nil
	b.run(e, 10*time.Minute)
	f := b.unassigned()
	if len(f) != 1 || f[0].Node == a.Node {
		t.Fatalf("attempts that wait: %v, want that of the failure node", f)
	}
	b.assign("x", f[0])
	b.report(f[0], succeeded(nil))
	b.settle(e)
	if rec := b.wantPhase(id, core.WorkflowExecution_FAILED); rec.Error.GetCode() != machine.CodeOutage {
		t.Errorf("it failed with %v", rec.Error)
	}
}

func TestGivingUpNeedsNothingThatIsAway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := workflow{
		name: "handled", tasks: []*core.TaskTemplate{runTask},
		nodes:   []*core.Node{taskNode("a", runTask, map[string]*core.BindingData{"x": text("1")})},
		failure: taskNode("f", runTask, map[string]*core.BindingData{"x": text("2")}),
	}
	b.register(w)
	id := b.create(w, "handled", nil)
	b.objects.limit, b.objects.err = 3, fmt.Errorf("write object x: no space left: %w", aloft.ErrUnavailable)
	e := b.engine("a", func(c *engine.Config) { c.MaxOutage = time.Hour })
	b.run(e, 2*time.Hour)
	if rec := b.wantPhase(id, core.WorkflowExecution_FAILING); rec.Error.GetCode() != machine.CodeOutage {
		t.Errorf("it is failing with %v", rec.Error)
	}
	b.objects.err = nil
	b.run(e, 10*time.Minute)
	if f := b.unassigned(); len(f) != 1 || f[0].Node == "a" {
		t.Errorf("attempts that wait: %v, want that of the failure node", f)
	}
}
