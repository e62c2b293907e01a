package simulation

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/engine/machine"
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
	calm   bool // nothing goes wrong (any more)
	story  []string
	detail bool

	memory    *memstore.Store
	store     *checkedStore
	objects   *objects
	graphs    []*machine.Graph
	engines   []*slot
	executors []*fakeExecutor
	serial    int

	mono   time.Duration // since the beginning
	wall   time.Time     // what the wall clock showed then: jumps change it
	latest time.Time     // the latest time that any engine has had: when attempts are due

	burst   int  // so many calls of the store are about to be at risk
	inCheck bool // nothing fails while the world is looked at
	crash   *crash

	created    map[string]store.Key // acknowledged, by name
	terminated map[string]int       // acknowledged: journal entries at that time
	ended      map[store.Key]core.WorkflowExecution_Phase
	broken     error
}

// slot is a place where an engine runs, or not.
type slot struct {
	owner  string
	engine *engine.Engine // nil: crashed
	clock  *slotClock
	pause  time.Duration // it does nothing before
}

// slotClock is the clock of one process: the wall clock when it started, then monotonic. A suspended machine's stands still.
type slotClock struct {
	world *world
	start time.Time
	mono  time.Duration
	stood time.Duration
}

func (c *slotClock) Now() time.Time {
	now := c.start.Add(c.world.mono - c.mono - c.stood)
	if now.After(c.world.latest) {
		c.world.latest = now
	}
	return now
}

// crash ends an engine when it commits.
type crash struct {
	countdown int
	fault     store.Fault
	happened  bool
}

func newWorld(seed uint64, calm, detail bool) *world {
	w := &world{
		ctx: context.Background(), seed: seed, calm: calm, detail: detail,
		plan: newPlan(rand.New(rand.NewPCG(seed, 1))), random: rand.New(rand.NewPCG(seed, 2)),
		memory: memstore.New(), wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		created: map[string]store.Key{}, terminated: map[string]int{}, ended: map[store.Key]core.WorkflowExecution_Phase{},
	}
	w.latest = w.wall
	w.objects = &objects{world: w, byURI: map[string]*core.LiteralMap{}}
	w.store = &checkedStore{Store: w.memory, world: w}
	w.memory.Faults = w.fault
	for _, c := range w.plan.closures {
		g, err := machine.NewGraph(c)
		if err != nil {
			w.fail("the plan has a workflow that cannot run: %v", err)
			return w
		}
		w.graphs = append(w.graphs, g)
		if err := w.memory.CreateWorkflow(w.ctx, &store.Workflow{ID: c.GetPrimary().GetTemplate().GetId(), Compiled: c}); err != nil {
			w.fail("register: %v", err)
		}
	}
	slots, places := 1, 1
	if !calm {
		slots, places = 1+w.random.IntN(2), 1+w.random.IntN(2)
	}
	for i := range slots {
		w.engines = append(w.engines, &slot{owner: fmt.Sprintf("engine%d", i)})
	}
	for i := range 2 {
		w.executors = append(w.executors, &fakeExecutor{world: w, id: fmt.Sprintf("x%d", i), place: fmt.Sprintf("place%d", i%places), jobs: map[store.AttemptKey]*job{}})
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

// fault decides about each call of the store.
func (w *world) fault(op string) store.Fault {
	if w.inCheck || w.calm {
		return store.NoFault
	}
	if c := w.crash; c != nil && op == "Commit" {
		if c.countdown--; c.countdown < 0 && !c.happened {
			c.happened = true
			return c.fault
		}
	}
	if w.burst > 0 {
		w.burst--
		switch w.random.IntN(4) {
		case 0:
			return store.FailBefore
		case 1:
			return store.FailAfter
		}
	}
	return store.NoFault
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
	w.calm, w.burst, w.crash = true, 0, nil
	for i := range w.plan.executions {
		w.create(i)
	}
	idle := 0
	for range 5000 {
		if w.broken != nil {
			return w.broken
		}
		if w.over() {
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
			x.pass()
		}
		w.checkStuck()
		if more {
			continue
		}
		// Time moves to what comes next. Fine steps at first, for tasks; then to the next timer.
		if idle++; idle%8 == 0 {
			w.mono += 20 * time.Second
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
	case k < 40:
		w.pass(w.engines[r.IntN(len(w.engines))])
	case k < 65:
		w.executors[r.IntN(len(w.executors))].pass()
	case k < 75:
		d := []time.Duration{time.Millisecond, 50 * time.Millisecond, time.Second, 3 * time.Second, 20 * time.Second}[r.IntN(5)]
		w.mono += d
	case k < 82:
		w.create(r.IntN(len(w.plan.executions)))
	case k < 84:
		w.terminate()
	case k < 88:
		w.burst = r.IntN(20)
		w.tell("the store fails for %d calls", w.burst)
	case k < 93:
		w.crash = &crash{countdown: r.IntN(3), fault: []store.Fault{store.FailBefore, store.FailAfter}[r.IntN(2)]}
	case k < 94:
		s := w.engines[r.IntN(len(w.engines))]
		s.engine = nil
		w.tell("%s crashes", s.owner)
	case k < 96:
		s := w.engines[r.IntN(len(w.engines))]
		d := time.Duration(r.IntN(60)) * time.Second
		s.pause = w.mono + d
		if s.clock != nil && r.IntN(2) == 0 {
			s.clock.stood += d
		}
		w.tell("%s pauses for %s", s.owner, d)
	case k < 97:
		w.wall = w.wall.Add(time.Duration(r.IntN(7201)-3600) * time.Second)
		w.tell("the wall clock jumps to %s", w.now())
	case k < 99:
		x := w.executors[r.IntN(len(w.executors))]
		x.silentUntil = w.mono + time.Duration(r.IntN(90))*time.Second
		w.tell("%s falls silent until %s", x.id, x.silentUntil)
	default:
		x := w.executors[r.IntN(len(w.executors))]
		for _, key := range x.sorted() {
			if r.IntN(2) == 0 {
				delete(x.jobs, key)
			}
		}
		w.tell("%s loses half of its tasks", x.id)
	}
}

// pass is one pass of an engine, which may crash at its commit.
func (w *world) pass(s *slot) (more bool) {
	if w.mono < s.pause {
		return false
	}
	if s.engine == nil {
		s.clock = &slotClock{world: w, start: w.now(), mono: w.mono}
		s.engine = engine.New(engine.Config{
			Store: w.store, Literals: w.objects, Owner: s.owner, Clock: s.clock, Logger: slog.New(slog.DiscardHandler),
			StepLimit: 1 + w.random.IntN(30), CacheExecutions: 1 + w.random.IntN(4), CacheLiterals: int64(1 + w.random.IntN(4000)),
		})
		w.tell("%s starts", s.owner)
	}
	more, err := s.engine.Pass(w.ctx)
	if err != nil && (w.calm || !errors.Is(err, aloft.ErrUnavailable)) {
		w.fail("pass of %s: %v", s.owner, err)
	}
	if w.crash != nil && w.crash.happened {
		w.tell("%s crashes at a commit (%d)", s.owner, w.crash.fault)
		w.crash, s.engine = nil, nil
	}
	return more
}

// create asks for an execution until that is acknowledged.
func (w *world) create(i int) {
	p := w.plan.executions[i]
	if _, done := w.created[p.name]; done {
		return
	}
	inputs, err := w.objects.WriteLiterals(w.ctx, oneText("x", p.input))
	if err != nil {
		return
	}
	workflow := w.plan.closures[p.workflow].GetPrimary().GetTemplate().GetId()
	e := &store.Execution{
		ID: w.id(p.name), Spec: &admin.ExecutionSpec{}, Workflow: workflow, Inputs: inputs,
		CreatedAt: w.now(), UpdatedAt: w.now(), JournalVersion: store.JournalVersion,
	}
	err = w.memory.CreateExecution(w.ctx, e, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{
		Workflow: workflow, Inputs: inputs.GetRef(), MaxParallelism: p.maxParallelism, Seed: p.name,
	}}})
	switch {
	case err == nil:
		w.created[p.name] = e.Key
	case errors.Is(err, aloft.ErrExists):
		w.look(func() {
			if rec, err := w.memory.GetExecution(w.ctx, e.ID); err == nil {
				w.created[p.name] = rec.Key
			}
		})
	case !errors.Is(err, aloft.ErrUnavailable):
		w.fail("create %s: %v", p.name, err)
	}
	w.tell("create %s: %v", p.name, err)
}

func (w *world) terminate() {
	p := w.plan.executions[w.random.IntN(len(w.plan.executions))]
	key, created := w.created[p.name]
	if !created || !p.terminated {
		return
	}
	err := w.memory.Append(w.ctx, w.id(p.name), store.Message{Dedup: "terminate", Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{
		Terminate: &aloftv1.Terminate{Cause: "enough", Principal: "somebody"},
	}}})
	w.tell("terminate %s: %v", p.name, err)
	if err != nil {
		return
	}
	w.look(func() {
		_, journal, _ := w.memory.Load(w.ctx, key)
		if _, before := w.terminated[p.name]; !before {
			w.terminated[p.name] = len(journal)
		}
	})
}

func (w *world) id(name string) aloft.ExecutionID {
	return aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
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
	for name := range w.created {
		w.look(func() {
			e, err := w.memory.GetExecution(w.ctx, w.id(name))
			if err != nil {
				w.fail("P1: %s was acknowledged and is gone: %v", name, err)
				return
			}
			over = over && aloft.Terminal(e.Phase)
		})
	}
	return over
}

func (w *world) whatIsLeft() string {
	var b strings.Builder
	w.look(func() {
		for _, p := range w.plan.executions {
			e, err := w.memory.GetExecution(w.ctx, w.id(p.name))
			if err != nil || aloft.Terminal(e.Phase) {
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

// objects keeps large literal maps; it fails when the store does.
type objects struct {
	world *world
	byURI map[string]*core.LiteralMap
}

const inlineLimit = 48

func (o *objects) WriteLiterals(_ context.Context, m *core.LiteralMap) (*aloftv1.Literals, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(b)
	ref := &aloftv1.LiteralRef{Digest: digest[:], Size: int64(len(b))}
	if len(b) <= inlineLimit {
		return &aloftv1.Literals{Ref: ref, Value: m}, nil
	}
	fault := o.world.fault("WriteLiterals")
	if fault == store.FailBefore {
		return nil, fmt.Errorf("write object: %w", aloft.ErrUnavailable)
	}
	ref.Uri = "aloft://blob/literals/" + hex.EncodeToString(digest[:])
	o.byURI[ref.GetUri()] = proto.CloneOf(m)
	if fault == store.FailAfter {
		return nil, fmt.Errorf("write object: %w", aloft.ErrUnavailable)
	}
	return &aloftv1.Literals{Ref: ref}, nil
}

func (o *objects) ReadLiterals(_ context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error) {
	if o.world.fault("ReadLiterals") != store.NoFault {
		return nil, fmt.Errorf("read object: %w", aloft.ErrUnavailable)
	}
	m, ok := o.byURI[ref.GetUri()]
	if !ok {
		return nil, fmt.Errorf("read object %s: %w", ref.GetUri(), aloft.ErrNotFound)
	}
	return m, nil
}

// value is what a reference and its record say together; an error if that is nothing, or something else.
func (o *objects) value(l *aloftv1.Literals) (*core.LiteralMap, error) {
	m := l.GetValue()
	if uri := l.GetRef().GetUri(); uri != "" {
		if m = o.byURI[uri]; m == nil {
			return nil, fmt.Errorf("object %s does not exist", uri)
		}
	}
	if len(l.GetRef().GetDigest()) == 0 {
		return nil, nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	if digest := sha256.Sum256(b); !bytes.Equal(digest[:], l.GetRef().GetDigest()) {
		return nil, fmt.Errorf("the value %v does not have the digest of its reference", m)
	}
	return m, nil
}

// checkedStore has every execution checked that a commit has touched.
type checkedStore struct {
	*memstore.Store
	world *world
}

func (s *checkedStore) Commit(ctx context.Context, steps []*store.Step) []error {
	before := make(map[store.Key]int, len(steps))
	s.world.look(func() {
		for _, step := range steps {
			_, journal, _ := s.Load(ctx, step.Execution)
			before[step.Execution] = len(journal)
		}
	})
	results := s.Store.Commit(ctx, steps)
	s.world.look(func() {
		for i, step := range steps {
			s.world.tell("commit %s entry %d with %d events: %v", step.ID.Name, step.Seq, len(step.Entry.GetEvents()), results[i])
			if err := s.world.check(step.Execution); err != nil {
				s.world.fail("execution %s after entry %d (there were %d): %w", step.ID.Name, step.Seq, before[step.Execution], err)
			}
		}
	})
	return results
}

func cmpKeys(a, b store.AttemptKey) int {
	return cmp.Or(cmp.Compare(a.Execution, b.Execution), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Token, b.Token))
}
