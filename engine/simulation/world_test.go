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

// world is one simulation.
type world struct {
	ctx    context.Context
	seed   uint64
	random *rand.Rand
	plan   *plan
	calm   bool          // nothing goes wrong (any more)
	since  time.Duration // when it became calm
	story  []string
	detail bool
	seen   map[string]int // what happened how often

	memory    *memstore.Store
	store     *fragileStore
	blobs     *fragileBlobs
	literals  blob.Literals
	graphs    []*machine.Graph // of the plan's workflows
	engines   []*slot
	executors []*fakeExecutor
	gone      []string // names of executors that will never come back
	serial    int

	mono   time.Duration // since the beginning
	wall   time.Time     // what the wall clock showed then: jumps change it
	first  time.Time     // what the wall clock showed at the beginning when the first engine started
	skewed bool          // not all engines have the same idea of the time

	fears     map[string]bool // the faults that this world has, by name
	weights   int             // of those that happen between calls
	risk      int             // one of so many calls goes wrong; 0: none
	burst     int             // of so many calls half go wrong
	doom      *doom
	stalled   bool // a process stands still
	powerless bool // the power was cut in the middle of a call
	late      []lateCall
	current   *process // that makes the calls; nil: people
	inCheck   bool     // nothing fails while the world is looked at

	registered  map[int]bool         // workflows of the plan, by number
	created     map[string]store.Key // acknowledged, by name
	terminated  map[string]bool      // acknowledged
	runs        map[store.Key]*observed
	read        map[string]*core.LiteralMap // objects that were found to be what they are called, by URI
	contents    map[string]string           // digests of the files of tasks, by URI
	away        string                      // the service that is away now; empty: none
	outages     int                         // that there were
	charged     int                         // failures by a service that were charged
	fortune     bool                        // nothing fails of what people can mend
	mended      bool                        // everything that had failed was recovered
	undisturbed bool                        // it was calm from the beginning
	damaged     map[string]bool             // objects that were deleted or changed, by URI
	computing   computing
	epochs      [store.Shards]int64 // the newest of each shard
	broken      error
}

// process is what an operating system ends at any time. After that nothing of what it does reaches anybody.
type process struct {
	name string
	dead bool
}

// slot is a place where an engine runs, or not.
type slot struct {
	process
	engine *engine.Engine // nil: crashed
	health *health.Monitor
	clock  *slotClock
	pause  time.Duration // it does nothing before
}

// slotClock is the clock of one process: the wall clock when it started, then monotonic. A suspended machine's stands still.
type slotClock struct {
	world  *world
	start  time.Time
	mono   time.Duration  // when that was
	stands *time.Duration // since when it stands still; nil: it goes
	stood  time.Duration  // how long it has stood still before
}

func (c *slotClock) Now() time.Time {
	now := c.world.mono
	if c.stands != nil {
		now = *c.stands
	}
	return c.start.Add(now - c.mono - c.stood)
}

func (c *slotClock) suspend() {
	if c.stands == nil {
		now := c.world.mono
		c.stands = &now
	}
}

func (c *slotClock) resume() {
	if c.stands != nil {
		c.stood += c.world.mono - *c.stands
		c.stands = nil
	}
}

func newWorld(seed uint64, calm, detail bool) *world {
	w := &world{
		ctx: context.Background(), seed: seed, calm: calm, undisturbed: calm, detail: detail, seen: map[string]int{},
		plan: newPlan(rand.New(rand.NewPCG(seed, 1))), random: rand.New(rand.NewPCG(seed, 2)),
		memory: memstore.New(), wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), registered: map[int]bool{},
		created: map[string]store.Key{}, terminated: map[string]bool{}, runs: map[store.Key]*observed{}, read: map[string]*core.LiteralMap{},
		contents: map[string]string{}, damaged: map[string]bool{}, computing: newComputing(),
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
	slots, places := 1, 1
	if !calm {
		slots, places = 1+w.random.IntN(2), 1+w.random.IntN(2)
	}
	for i := range slots {
		w.engines = append(w.engines, &slot{process: process{name: fmt.Sprintf("engine%d", i)}})
	}
	var all []*place
	for i := range places {
		all = append(all, &place{name: fmt.Sprintf("place%d", i), jobs: map[store.AttemptKey]*job{}})
	}
	for i := range 2 {
		w.executors = append(w.executors, newExecutor(w, i, all[i%places], w.engines[i%slots]))
	}
	return w
}

func (w *world) now() time.Time { return w.wall.Add(w.mono) }

func (w *world) tell(format string, args ...any) {
	if w.detail {
		w.story = append(w.story, fmt.Sprintf("%10s ", w.mono)+fmt.Sprintf(format, args...))
	}
}

// fail keeps the first thing that went against a promise.
func (w *world) fail(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
		w.tell("BROKEN: %v", w.broken)
	}
}

// run lives through the plan, with faults for a while and then without.
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
	for len(w.late) > 0 && w.random.IntN(2) == 0 {
		w.arrive()
	}
	w.calm, w.since, w.burst, w.doom, w.late = true, w.mono, 0, nil, nil
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
		if w.over() {
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
			s.pause = 0
			more = w.pass(s) || more
		}
		for _, x := range w.executors {
			x.silentUntil = 0
			x.live()
		}
		w.checkStuck()
		if more {
			continue
		}
		w.checkWaiters()
		// Fine steps for tasks and larger ones for timers, but none for which an engine thinks that it was suspended.
		if idle++; idle%4 == 0 {
			w.mono += 10 * time.Second
		} else {
			w.mono += time.Second
		}
	}
	w.fail("P5: not everything has ended: %s", w.whatIsLeft())
	return w.broken
}

// act is one random thing that happens.
func (w *world) act() {
	r := w.random
	switch k := r.IntN(100); {
	case k < 42:
		w.pass(w.engines[r.IntN(len(w.engines))])
	case k < 67:
		w.executors[r.IntN(len(w.executors))].live()
	case k < 77:
		w.mono += []time.Duration{time.Millisecond, 50 * time.Millisecond, time.Second, 3 * time.Second, 20 * time.Second}[r.IntN(5)]
	case k < 84:
		w.create(r.IntN(len(w.plan.executions)))
	case k < 85:
		w.terminate(w.plan.executions[w.random.IntN(len(w.plan.executions))])
	case k < 87:
		w.recover(r.IntN(len(w.plan.executions)), false)
	case k < 89:
		w.register(r.IntN(len(w.plan.closures)))
	default:
		w.strike(r)
	}
	if w.powerless {
		w.cutPower()
	}
}

// as lets a process make calls.
func (w *world) as(p *process, f func()) {
	was := w.current
	p.dead, w.current = false, p
	f()
	w.current = was
}

// pass is one pass of an engine, which may be its last.
func (w *world) pass(s *slot) (more bool) {
	if w.mono < s.pause {
		return false
	}
	if s.engine == nil {
		w.start(s)
	}
	s.clock.resume()
	w.as(&s.process, func() {
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

func (w *world) start(s *slot) {
	s.clock = &slotClock{world: w, start: w.now(), mono: w.mono}
	if w.fears[clocksDiffer] && !w.calm {
		w.see(clocksDiffer)
		s.clock.start = s.clock.start.Add(time.Duration(w.random.IntN(7201)-3600) * time.Second)
		w.skewed = true
	}
	if w.first.IsZero() {
		w.first = w.wall
	}
	w.skewed = w.skewed || !w.wall.Equal(w.first)
	s.health = health.New(health.Config{
		Store: w.store, Logger: slog.New(slog.DiscardHandler), Probes: w.probes(), Now: s.clock.Now, Chance: w.random.Float64,
	})
	s.engine = engine.New(engine.Config{
		Health: s.health,
		Store:  w.store, Literals: w.literals, Catalog: &watchedCatalog{
			world: w, ahead: map[string]time.Duration{}, Catalog: &catalog.Catalog{Store: w.store, Blob: w.blobs, Now: s.clock.Now},
		}, Owner: s.name, Clock: s.clock, Logger: slog.New(slog.DiscardHandler), Policy: w.plan.policy,
		StepLimit: 1 + w.random.IntN(30), CacheRuns: int64(1 + w.random.IntN(20_000)), CacheLiterals: int64(1 + w.random.IntN(4000)),
	})
	w.tell("%s starts", s.name)
}

// register makes a version of a workflow known, or tries to change one that is known already.
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

// create asks for an execution until that is acknowledged.
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

func (w *world) terminate(p planned) {
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

func (w *world) planned(name string) planned {
	for _, p := range w.plan.executions {
		if p.name == name {
			return p
		}
	}
	return planned{}
}

// look lets nothing fail meanwhile.
func (w *world) look(f func()) {
	was := w.inCheck
	w.inCheck = true
	f()
	w.inCheck = was
}

func (w *world) attempts(id aloft.ExecutionID, node aloft.NodeID) (all []*store.Attempt) {
	w.look(func() {
		var err error
		if all, err = w.memory.ListAttempts(w.ctx, id, node, store.Query{}); err != nil {
			w.fail("list attempts of %s: %v", id, err)
		}
	})
	return all
}

func (w *world) over() bool {
	over := true
	for _, p := range w.plan.executions {
		w.look(func() {
			e, err := w.memory.GetExecution(w.ctx, w.id(p.name))
			if err != nil {
				w.fail("P1: %s was acknowledged and is gone: %w", p.name, err)
				return
			}
			over = over && (p.newer || aloft.Terminal(e.Phase))
		})
	}
	return over
}

func (w *world) whatIsLeft() string {
	var b strings.Builder
	w.look(func() {
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
