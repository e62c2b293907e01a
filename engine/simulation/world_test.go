package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/blobtest"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/engine/machine"
	"github.com/aloft-dev/aloft/health"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
)

// world is one simulation: see the package doc.
type world struct {
	ctx       context.Context
	seed      uint64
	random    *rand.Rand
	plan      *plan
	calm      bool          // there are no faults (any more)
	calmSince time.Duration // when it became calm
	story     []string
	detail    bool
	seen      map[string]int // how often each thing happened, by name

	memory            *memstore.Store
	store             *fragileStore
	blobs             *fragileBlobs
	literals          blob.Literals
	graphs            []*machine.Graph // of the plan's workflows
	engines           []*engineHost
	executors         []*fakeExecutor
	replacedExecutors []string // names of executors that never come back
	serial            int      // makes names of executors and messages unique

	elapsed   time.Duration // since the beginning
	wall      time.Time     // what the wall clock would have shown at the beginning: jumps change it
	firstWall time.Time     // wall as it was when the first engine started
	skewed    bool          // the clocks of the engines differ, or one has jumped

	enabledFaults map[string]bool // by name
	totalWeight   int             // of the enabled faults that happen between calls
	risk          int             // one of so many calls goes wrong; 0: none
	burst         int             // of this many calls to come one of two goes wrong
	crash         *pendingCrash
	stalled       bool // a process stands still
	powerIsCut    bool // the power was cut in the middle of a call: cutPower follows
	lateCalls     []lateCall
	current       *process // that makes the calls; nil: a client
	inCheck       bool     // no call fails: an invariant looks at the world

	registered      map[int]bool         // workflows of the plan, by index
	created         map[string]store.Key // executions whose creation was acknowledged, by name
	terminated      map[string]bool      // executions whose termination was acknowledged, by name
	runs            map[store.Key]*observedExecution
	knownLiterals   map[string]*core.LiteralMap // of objects that were read and had the right digest, by URI
	fileDigests     map[string]string           // of files that tasks wrote, by URI
	away            string                      // the service that is away now; empty: none
	outages         int                         // how many there were
	chargedFailures int                         // failures that were blamed on a service and charged
	nothingFails    bool                        // tasks whose failure can be mended do not fail
	mended          bool                        // a recovery of everything that had failed was created, with its faults mended
	undisturbed     bool                        // there were no faults from the beginning
	damaged         map[string]bool             // objects that were deleted or changed, by URI
	computations    computations
	epochs          [store.Shards]int64 // the newest one of each shard
	broken          error
}

// process is a process that can end at any time. After that its calls reach neither the store nor the blobs.
type process struct {
	name string
	dead bool
}

// engineHost is a host with the process of an engine, which may have crashed.
type engineHost struct {
	process
	engine      *engine.Engine // nil: crashed
	health      *health.Monitor
	clock       *hostClock
	pausedUntil time.Duration // the engine does nothing before
}

// hostClock is the clock of an engine's process: the wall clock when it started, then monotonic. It stands still while the host
// is suspended.
type hostClock struct {
	world       *world
	start       time.Time
	startedAt   time.Duration  // when the process started
	standsSince *time.Duration // since when the clock stands still; nil: it goes
	stoodFor    time.Duration  // how long the clock has stood still before
}

func (c *hostClock) Now() time.Time {
	now := c.world.elapsed
	if c.standsSince != nil {
		now = *c.standsSince
	}
	return c.start.Add(now - c.startedAt - c.stoodFor)
}

func (c *hostClock) suspend() {
	if c.standsSince == nil {
		now := c.world.elapsed
		c.standsSince = &now
	}
}

func (c *hostClock) resume() {
	if c.standsSince != nil {
		c.stoodFor += c.world.elapsed - *c.standsSince
		c.standsSince = nil
	}
}

func newWorld(seed uint64, calm, detail bool) *world {
	w := &world{
		ctx: context.Background(), seed: seed, calm: calm, undisturbed: calm, detail: detail, seen: map[string]int{},
		plan: newPlan(seed), random: rand.New(rand.NewPCG(seed, 2)),
		memory: memstore.New(), wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), registered: map[int]bool{},
		created: map[string]store.Key{}, terminated: map[string]bool{}, runs: map[store.Key]*observedExecution{}, knownLiterals: map[string]*core.LiteralMap{},
		fileDigests: map[string]string{}, damaged: map[string]bool{}, computations: newComputations(),
	}
	w.blobs = &fragileBlobs{Memory: blobtest.NewMemory(), world: w}
	w.literals = blob.Literals{Store: w.blobs}
	w.store = &fragileStore{Store: w.memory, world: w}
	w.memory.Faults = w.fault
	w.drawFaults(w.random)
	for _, c := range w.plan.closures {
		g, err := machine.NewGraph(c)
		if err != nil {
			w.fail("the plan has a workflow that cannot run: %v", err)
			return w
		}
		w.graphs = append(w.graphs, g)
	}
	w.register(0)
	hosts, places := 1, 1
	if !calm {
		hosts, places = 1+w.random.IntN(2), 1+w.random.IntN(2)
	}
	for i := range hosts {
		w.engines = append(w.engines, &engineHost{process: process{name: fmt.Sprintf("engine%d", i)}})
	}
	var all []*place
	for i := range places {
		all = append(all, &place{name: fmt.Sprintf("place%d", i), jobs: map[store.AttemptKey]*job{}})
	}
	for i := range 2 {
		w.executors = append(w.executors, newExecutor(w, i, all[i%places], w.engines[i%hosts]))
	}
	return w
}

func (w *world) now() time.Time { return w.wall.Add(w.elapsed) }

func (w *world) tell(format string, args ...any) {
	if w.detail {
		w.story = append(w.story, fmt.Sprintf("%10s ", w.elapsed)+fmt.Sprintf(format, args...))
	}
}

// fail notes that a promise is broken. The first one counts.
func (w *world) fail(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
		w.tell("BROKEN: %v", w.broken)
	}
}

// run lives through the plan, with faults for a while and then without (see the package doc).
func (w *world) run() error {
	turns := 150 + w.random.IntN(150)
	for range turns {
		if w.calm || w.broken != nil {
			break
		}
		w.act()
		w.checkStuck()
	}
	w.tell("calm from here")
	for len(w.lateCalls) > 0 && w.random.IntN(2) == 0 {
		w.doLateCall()
	}
	w.calm, w.calmSince, w.burst, w.crash, w.lateCalls = true, w.elapsed, 0, nil, nil
	for i := range w.plan.closures {
		w.register(i)
	}
	for i := range w.plan.executions {
		w.create(i)
	}
	idle := 0
	for range 5000 {
		if w.broken != nil {
			return w.broken
		}
		if w.allEnded() {
			if !w.undisturbed && !w.mended {
				w.mended = true
				w.recoverAll()
				continue
			}
			w.checkEnd()
			return w.broken
		}
		more := false
		for _, s := range w.engines {
			s.pausedUntil = 0
			more = w.pass(s) || more
		}
		for _, x := range w.executors {
			x.silentUntil = 0
			x.pass()
		}
		w.checkStuck()
		if more {
			continue
		}
		w.checkWaiters()
		// Small steps of time for tasks and larger ones for timers, but none so large that an engine counts as suspended
		// (Reap).
		if idle++; idle%4 == 0 {
			w.elapsed += 10 * time.Second
		} else {
			w.elapsed += time.Second
		}
	}
	w.fail("P5: not everything has ended: %s", w.whatIsLeft())
	return w.broken
}

// act lets one random thing happen.
func (w *world) act() {
	r := w.random
	switch k := r.IntN(100); {
	case k < 42:
		w.pass(w.engines[r.IntN(len(w.engines))])
	case k < 67:
		w.executors[r.IntN(len(w.executors))].pass()
	case k < 77:
		w.elapsed += []time.Duration{time.Millisecond, 50 * time.Millisecond, time.Second, 3 * time.Second, 20 * time.Second}[r.IntN(5)]
	case k < 84:
		w.create(r.IntN(len(w.plan.executions)))
	case k < 85:
		w.terminate(w.plan.executions[w.random.IntN(len(w.plan.executions))])
	case k < 87:
		w.planRecovery(r.IntN(len(w.plan.executions)), false)
	case k < 89:
		w.register(r.IntN(len(w.plan.closures)))
	default:
		w.strike(r)
	}
	if w.powerIsCut {
		w.cutPower()
	}
}

// asProcess makes calls of a process.
func (w *world) asProcess(p *process, f func()) {
	was := w.current
	p.dead, w.current = false, p
	f()
	w.current = was
}

// pass is one pass of an engine. Its process may die meanwhile.
func (w *world) pass(s *engineHost) (more bool) {
	if w.elapsed < s.pausedUntil {
		return false
	}
	if s.engine == nil {
		w.start(s)
	}
	s.clock.resume()
	w.asProcess(&s.process, func() {
		if _, err := s.health.Pass(w.ctx); err != nil && w.calm {
			w.fail("health of %s: %w", s.name, err)
		}
		var err error
		more, err = s.engine.Pass(w.ctx)
		if err != nil && (w.calm || !errors.Is(err, aloft.ErrUnavailable)) {
			w.fail("pass of %s: %w", s.name, err)
		}
	})
	if s.dead {
		s.engine = nil
	}
	return more
}

func (w *world) start(s *engineHost) {
	s.clock = &hostClock{world: w, start: w.now(), startedAt: w.elapsed}
	if w.enabledFaults[clocksDiffer] && !w.calm {
		w.count(clocksDiffer)
		s.clock.start = s.clock.start.Add(time.Duration(w.random.IntN(7201)-3600) * time.Second)
		w.skewed = true
	}
	if w.firstWall.IsZero() {
		w.firstWall = w.wall
	}
	w.skewed = w.skewed || !w.wall.Equal(w.firstWall)
	s.health = health.New(health.Config{
		Store: w.store, Logger: slog.New(slog.DiscardHandler), Probes: w.probes(), Now: s.clock.Now, Chance: w.random.Float64,
	})
	s.engine = engine.New(engine.Config{
		Health: s.health,
		Store:  w.store, Literals: w.literals, Catalog: &watchedCatalog{
			world: w, readAhead: map[string]time.Duration{}, Catalog: &catalog.Catalog{Store: w.store, Blob: w.blobs, Now: s.clock.Now},
		}, Owner: s.name, Clock: s.clock, Logger: slog.New(slog.DiscardHandler), Policy: w.plan.policy,
		StepLimit: 1 + w.random.IntN(30), CacheRuns: int64(1 + w.random.IntN(20_000)), CacheLiterals: int64(1 + w.random.IntN(4000)),
	})
	w.tell("%s starts", s.name)
}

// register registers a version of a workflow, or tries to change it if it is registered already.
func (w *world) register(i int) {
	closure := w.plan.closures[i]
	id := closure.GetPrimary().GetTemplate().GetId()
	if w.registered[i] {
		other := w.plan.closures[(i+1)%len(w.plan.closures)]
		err := w.memory.CreateWorkflow(w.ctx, &store.Workflow{ID: id, Compiled: other})
		if err == nil || !errors.Is(err, aloft.ErrExists) && !errors.Is(err, aloft.ErrUnavailable) {
			w.fail("P6: version %s of workflow %s could be registered again: %v", id.GetVersion(), id.GetName(), err)
		}
		return
	}
	err := w.memory.CreateWorkflow(w.ctx, &store.Workflow{ID: id, Compiled: closure})
	w.registered[i] = err == nil || errors.Is(err, aloft.ErrExists)
	w.tell("register %s %s: %v", id.GetName(), id.GetVersion(), err)
}

// create asks for an execution, unless its creation was acknowledged before.
func (w *world) create(i int) {
	p := w.plan.executions[i]
	if _, done := w.created[p.name]; done || !w.registered[p.workflow] {
		return
	}
	inputs, err := w.literals.WriteLiterals(w.ctx, oneText("x", p.input))
	if err != nil {
		return
	}
	workflow := w.plan.closures[p.workflow].GetPrimary().GetTemplate().GetId()
	e := &store.Execution{
		ID: w.id(p.name), Spec: &admin.ExecutionSpec{}, Workflow: workflow, Inputs: inputs,
		CreatedAt: w.now(), UpdatedAt: w.now(), JournalVersion: store.JournalVersion,
	}
	if p.newer {
		e.JournalVersion++
	}
	create := &aloftv1.Create{
		Workflow: workflow, Inputs: inputs.GetRef(), MaxParallelism: p.maxParallelism, Interruptible: p.interruptible, Seed: p.name,
		OverwriteCache: p.overwrites,
	}
	if p.recovers != "" {
		create.Recovers = w.id(p.recovers).Proto()
	}
	err = w.store.CreateExecution(w.ctx, e, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: create}})
	switch {
	case err == nil:
		w.created[p.name] = e.Key
	case !errors.Is(err, aloft.ErrUnavailable):
		w.fail("create %s: %v", p.name, err)
	}
	w.tell("create %s: %v", p.name, err)
}

func (w *world) terminate(p plannedExecution) {
	if _, created := w.created[p.name]; !created || !p.terminated {
		return
	}
	err := w.store.Append(w.ctx, w.id(p.name), store.Message{Dedup: store.TerminateDedup, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{
		Terminate: &aloftv1.Terminate{Cause: "enough", Principal: "somebody"},
	}}})
	w.tell("terminate %s: %v", p.name, err)
	if err != nil {
		return
	}
	w.terminated[p.name] = true
}

func (w *world) id(name string) aloft.ExecutionID {
	return aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
}

func (w *world) planned(name string) plannedExecution {
	for _, p := range w.plan.executions {
		if p.name == name {
			return p
		}
	}
	return plannedExecution{}
}

// withoutFaults calls f while no call fails.
func (w *world) withoutFaults(f func()) {
	was := w.inCheck
	w.inCheck = true
	f()
	w.inCheck = was
}

func (w *world) attempts(id aloft.ExecutionID, node aloft.NodeID) (all []*store.Attempt) {
	w.withoutFaults(func() {
		var err error
		if all, err = w.memory.ListAttempts(w.ctx, id, node, store.Query{}); err != nil {
			w.fail("list attempts of %s: %v", id, err)
		}
	})
	return all
}

func (w *world) allEnded() bool {
	all := true
	for _, p := range w.plan.executions {
		w.withoutFaults(func() {
			e, err := w.memory.GetExecution(w.ctx, w.id(p.name))
			if err != nil {
				w.fail("P1: %s was acknowledged and is gone: %w", p.name, err)
				return
			}
			all = all && (p.newer || aloft.Terminal(e.Phase))
		})
	}
	return all
}

func (w *world) whatIsLeft() string {
	var b strings.Builder
	w.withoutFaults(func() {
		for _, p := range w.plan.executions {
			e, err := w.memory.GetExecution(w.ctx, w.id(p.name))
			if err != nil || p.newer || aloft.Terminal(e.Phase) {
				continue
			}
			fmt.Fprintf(&b, "%s is %s (waiting %q):", p.name, e.Phase, e.Waiting)
			nodes, _ := w.memory.ListNodes(w.ctx, e.ID, "", true, store.Query{})
			for _, n := range nodes {
				if !aloft.Terminal(n.Phase) {
					fmt.Fprintf(&b, " %s %s", n.ID, n.Phase)
				}
			}
			for _, a := range w.attempts(e.ID, "") {
				if !aloft.Terminal(a.Phase) {
					fmt.Fprintf(&b, " %s/%d %s on %q stop %q;", a.Node, a.Attempt, a.Phase, a.Executor, a.Stop)
				}
			}
		}
	})
	return b.String()
}
