package machine

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// world is a random workflow and how its tasks behave: what attempt n of a node does is a function of the seed, whenever
// and however often it is told.
type world struct {
	flows       []flow
	parallelism uint32
	trouble     uint32 // percentage of attempts that do not succeed
	terminate   int    // after so many messages; 0: never
	seed        uint64
	sleep       map[string]time.Duration
	fails       map[string]*aloftv1.Failure
	arms        map[string]uint32
	policy      Policy
	recovers    bool // half of the nodes are taken over from another execution
	lean        bool // blocks are given back as soon as they may be
}

func drawWorld(t *rapid.T) *world {
	w := &world{
		parallelism: rapid.SampledFrom([]uint32{0, 1, 2, 5}).Draw(t, "parallelism"),
		trouble:     rapid.SampledFrom([]uint32{0, 0, 10, 50}).Draw(t, "trouble"),
		seed:        rapid.Uint64().Draw(t, "seed"),
		sleep:       map[string]time.Duration{},
		fails:       map[string]*aloftv1.Failure{},
		arms:        map[string]uint32{},
	}
	w.recovers = rapid.IntRange(0, 3).Draw(t, "recovers") == 0
	if rapid.Bool().Draw(t, "terminated") {
		w.terminate = rapid.IntRange(1, 12).Draw(t, "terminate after")
	}
	if w.trouble > 0 {
		limit := func(name string) time.Duration {
			return time.Duration(rapid.SampledFrom([]int{0, 0, 2, 8}).Draw(t, name)) * time.Second
		}
		w.policy = Policy{Timeout: limit("timeout"), QueueTimeout: limit("queue timeout"), ExecutionTimeout: 5 * limit("execution timeout")}
		if rapid.Bool().Draw(t, "pauses") {
			w.policy.Retries = []aloft.RetryPolicy{{Backoff: time.Second, Factor: 2, Max: 3 * time.Second, Jitter: 0.5}}
		}
	}
	levels := rapid.IntRange(1, 3).Draw(t, "levels")
	for level := range levels {
		f := flow{name: fmt.Sprintf("w%d", level), goOn: rapid.Bool().Draw(t, "goes on")}
		var node func(name string, nested int) flowNode
		earlier := func(n *flowNode) {
			for _, earlier := range f.nodes {
				if rapid.IntRange(0, 2).Draw(t, "edge") == 0 {
					n.after = append(n.after, earlier.id)
				}
			}
		}
		node = func(name string, nested int) flowNode {
			n := flowNode{id: fmt.Sprintf("%s%d", name, level), retries: rapid.Uint32Range(0, 2).Draw(t, "retries")}
			kinds := []string{"task", "task", "task", "sleep", "echo"}
			if nested < 2 {
				kinds = append(kinds, "branch")
			}
			for inner := level + 1; inner < levels; inner++ {
				kinds = append(kinds, fmt.Sprintf("w%d", inner))
			}
			if w.trouble > 0 {
				n.timeout = time.Duration(rapid.SampledFrom([]int{0, 0, 1, 4}).Draw(t, "timeout")) * time.Second
			}
			n.run = rapid.SampledFrom(kinds).Draw(t, "kind")
			if n.run == "branch" {
				arms := rapid.IntRange(1, 3).Draw(t, "arms")
				n.elseFails = arms == 1 || rapid.Bool().Draw(t, "else fails")
				for k := range arms {
					arm := node(fmt.Sprintf("%s-%c", n.id, 'p'+k), nested+1)
					if !strings.HasPrefix(name, "onfail") {
						earlier(&arm)
					}
					n.arms = append(n.arms, &arm)
				}
				w.arms[n.id] = rapid.Uint32Range(0, uint32(arms-1)).Draw(t, "arm")
			}
			n.cached = n.run != "branch" && n.run != "" && n.run[0] != 'w' && rapid.IntRange(0, 2).Draw(t, "cached") == 0
			if n.run == "sleep" {
				w.sleep[n.id] = time.Duration(rapid.IntRange(-1, 3).Draw(t, "seconds")) * time.Second
			}
			if w.trouble > 0 && rapid.IntRange(0, 30).Draw(t, "unresolvable") == 0 {
				w.fails[n.id] = failure(core.ExecutionError_USER, false, "BindingResolutionFailure", "no such thing")
			}
			if w.trouble > 0 && rapid.IntRange(0, 10).Draw(t, "broken") == 0 {
				w.fails[n.id+"!"] = failure(core.ExecutionError_USER, rapid.Bool().Draw(t, "recoverable"), "BadInput", "no duration")
			}
			return n
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
			n := node(fmt.Sprintf("%c", 'a'+i), 0)
			earlier(&n)
			f.nodes = append(f.nodes, n)
		}
		if rapid.IntRange(0, 2).Draw(t, "failure node") == 0 {
			n := node("onfail", 0)
			f.failure = &n
		}
		w.flows = append(w.flows, f)
	}
	return w
}

// cached is what the catalog says of a node at that time: a third are hits, a third are being computed by somebody else who
// sooner or later succeeds or fails.
func (w *world) cached(n NodeRef, at time.Time) CacheAnswer {
	h := fnv.New64a()
	fmt.Fprint(h, w.seed, "cached", n.ID())
	dice := h.Sum64()
	hit, miss := lookup(core.CatalogCacheStatus_CACHE_HIT), lookup(core.CatalogCacheStatus_CACHE_MISS)
	hit.Outputs = literals("outputs of " + string(n.ID()))
	switch {
	case dice%3 == 0:
		return hit
	case dice%3 == 1:
		return miss
	case at.Before(epoch.Add(time.Duration(dice>>8%20) * time.Second)):
		miss.WaitFor, miss.Reason = fmt.Sprint("result/", dice>>16%3), "somebody computes it"
		return miss
	case dice>>24%2 == 0:
		return hit
	}
	return miss
}

// source is what the execution that is recovered has of a node.
func (w *world) source(n NodeRef) Recovery {
	h := fnv.New64a()
	fmt.Fprint(h, w.seed, "source", n.ID())
	if dice := h.Sum64(); dice%2 == 0 {
		return Recovery{Checkpoint: "aloft://blob/checkpoint"}
	}
	return Recovery{Take: true, Outputs: literals("outputs of " + string(n.ID())), Source: n.ID()}
}

// outcome is how an attempt ends.
func (w *world) outcome(s *State, r AttemptRef) *aloftv1.Inbox {
	id, token := s.Ref(r.Node).ID(), s.token(r.Node, r.Attempt)
	h := fnv.New64a()
	fmt.Fprint(h, w.seed, id, r.Attempt)
	dice := h.Sum64()
	o := &aloftv1.Outcome{Node: string(id), Attempt: r.Attempt, Token: token, StartedAt: epoch.UnixNano(), EndedAt: epoch.UnixNano()}
	a, _ := s.Attempt(r)
	switch {
	case a.Stop != "" && dice%4 > 0:
		o.Result = &aloftv1.Outcome_Stopped{Stopped: "killed"}
	case uint32(dice%100) >= w.trouble:
		o.Result = succeeded(id)
	default:
		switch dice / 100 % 5 {
		case 0:
			o.Result = &aloftv1.Outcome_Lost{Lost: "gone"}
		case 1:
			o.Result = &aloftv1.Outcome_Failure{Failure: failure(core.ExecutionError_USER, false, "ValueError", "bad")}
		case 2:
			o.Result = &aloftv1.Outcome_Failure{Failure: failure(core.ExecutionError_SYSTEM, true, "Interrupted", "drained")}
		case 3:
			o.Result = &aloftv1.Outcome_Stopped{Stopped: "by hand"}
		default:
			o.Result = &aloftv1.Outcome_Failure{Failure: failure(core.ExecutionError_USER, true, "Again", "later")}
		}
		if dice%7 == 0 {
			o.StartedAt = 0
		}
	}
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: o}}
}

func (w *world) started(s *State, r AttemptRef) *aloftv1.Inbox {
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: &aloftv1.AttemptStarted{
		Node: string(s.Ref(r.Node).ID()), Attempt: r.Attempt, Token: s.token(r.Node, r.Attempt), StartedAt: epoch.UnixNano(),
	}}}
}

// play runs the world to its end. At rest (nothing left to decide) it delivers messages: starts and outcomes of some
// outstanding attempts in any order, some of them twice, old ones again. Which ones is drawn from the world's seed alone,
// so two plays that differ in limits hear the same. noise adds what must change nothing about that: crashes.
func (w *world) play(t *rapid.T, limit func() int, crash func() bool) *run {
	g, err := NewGraph(closure(w.flows...))
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, g: g, s: New(testID, g), lean: w.lean, facts: &facts{t: t, sleep: w.sleep, fails: w.fails, arms: w.arms, policy: w.policy}}
	at := epoch // of the step that asks
	r.facts.answer = func(n NodeRef) CacheAnswer { return w.cached(n, at) }
	r.facts.source = w.source
	o := newOracle(t, r)
	dice := rand.New(rand.NewPCG(w.seed, 1))
	now := epoch
	var old []*aloftv1.Inbox
	messages := []*aloftv1.Inbox{create(w.parallelism)}
	if w.recovers {
		messages[0].GetCreate().Recovers = &core.WorkflowExecutionIdentifier{Name: "source"}
	}
	told := 0
	for turn := 0; ; turn++ {
		if turn > 20_000 {
			t.Fatalf("no end after %d steps:\n%s", turn, phases(r.s))
		}
		at = now
		d := r.step(now, limit(), messages...)
		o.hear(d.Events)
		if crash() {
			r.checkFold()
			r.s = r.fold()
		}
		messages = nil
		if d.Ended {
			break
		}
		if d.More {
			continue
		}
		outstanding := r.s.Outstanding()
		dice.Shuffle(len(outstanding), func(i, j int) { outstanding[i], outstanding[j] = outstanding[j], outstanding[i] })
		switch {
		case len(outstanding) == 0 && d.DueAt.IsZero():
			t.Fatalf("stuck:\n%s", phases(r.s))
		case len(outstanding) == 0 || !d.DueAt.IsZero() && dice.IntN(3) == 0:
			now = d.DueAt
		default:
			for _, a := range outstanding[:1+dice.IntN(len(outstanding))] {
				if dice.IntN(2) == 0 {
					messages = append(messages, w.started(r.s, a))
				}
				if dice.IntN(4) > 0 {
					messages = append(messages, w.outcome(r.s, a))
				}
			}
			old = append(old, messages...)
			for len(old) > 0 && dice.IntN(2) == 0 {
				messages = append(messages, old[dice.IntN(len(old))])
			}
			if dice.IntN(3) == 0 {
				messages = append(messages, garbage(r.s, dice))
			}
			if dice.IntN(3) == 0 {
				messages = append(messages, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: fmt.Sprint("result/", dice.IntN(3))}}})
			}
			dice.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
			now = now.Add(time.Duration(dice.IntN(5)-2) * time.Second) // backwards too
		}
		if told++; told == w.terminate {
			messages = append(messages, terminate("enough"))
		}
	}
	r.checkFold()
	o.end(r.s)
	return r
}

// garbage is a message that nobody should send and that must change nothing.
func garbage(s *State, dice *rand.Rand) *aloftv1.Inbox {
	i := dice.Uint32N(uint32(s.Len()))
	a := AttemptRef{Node: i, Attempt: dice.Uint32N(3)}
	w := world{seed: dice.Uint64(), trouble: 100 * dice.Uint32N(2)}
	var m *aloftv1.Inbox
	if dice.IntN(2) == 0 {
		m = w.started(s, a)
		m.GetAttemptStarted().StartedAt = dice.Int64()
		m.GetAttemptStarted().Token = "guessed"
		return m
	}
	m = w.outcome(s, a)
	o := m.GetOutcome()
	o.StartedAt, o.EndedAt = dice.Int64()-dice.Int64(), dice.Int64()-dice.Int64()
	switch dice.IntN(3) {
	case 0:
		o.Node = "nowhere"
	case 1:
		o.Token = ""
	default:
		o.Attempt, o.Token = dice.Uint32()|1<<31, "guessed"
	}
	return m
}

func never() bool { return false }

func TestRandomRunsKeepWhatTheMachinePromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		limits := rand.New(rand.NewPCG(w.seed, 2))
		r := w.play(t, func() int { return 1 + limits.IntN(20) }, func() bool { return limits.IntN(10) == 0 })
		v := r.s.Execution()
		if w.trouble == 0 && w.terminate == 0 && v.Phase != core.WorkflowExecution_SUCCEEDED {
			t.Fatalf("nothing went wrong and the execution is %s", v.Phase)
		}
		if v.Phase == core.WorkflowExecution_FAILED && v.Error == nil {
			t.Fatal("the execution failed without an error")
		}
	})
}

func TestWhereStepsStopChangesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		limits := rand.New(rand.NewPCG(w.seed, 3))
		whole := w.play(t, func() int { return 0 }, never)
		parts := w.play(t, func() int { return 1 + limits.IntN(6) }, never)
		if a, b := phases(whole.s), phases(parts.s); a != b {
			t.Fatalf("whole steps end with\n%s\nparts with\n%s", a, b)
		}
		if !sameEvents(whole, parts) {
			t.Fatal("the events differ")
		}
	})
}

func sameEvents(a, b *run) bool {
	events := func(r *run) []*aloftv1.Event {
		var all []*aloftv1.Event
		for _, e := range r.journal {
			all = append(all, e.Events...)
		}
		return all
	}
	return slices.EqualFunc(events(a), events(b), func(a, b *aloftv1.Event) bool { return proto.Equal(a, b) })
}

func TestGivingBlocksBackChangesNoDecision(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		play := func() *run {
			limits := rand.New(rand.NewPCG(w.seed, 4))
			return w.play(t, func() int { return 1 + limits.IntN(6) }, func() bool { return limits.IntN(10) == 0 })
		}
		whole := play()
		w.lean = true
		lean := play()
		if !sameEvents(whole, lean) {
			t.Fatal("the events differ")
		}
		for i, c := range lean.s.scopes {
			if over := c.done && i > 0; over != (c.nodes == nil) {
				t.Fatalf("scope %q is over: %t, and has %d nodes", c.id, over, len(c.nodes))
			}
		}
		if len(whole.s.scopes) > 1 && lean.s.Bytes() >= whole.s.Bytes() {
			t.Fatalf("%d bytes of %d are left when %d scopes were given back", lean.s.Bytes(), whole.s.Bytes(), len(whole.s.scopes)-1)
		}
	})
}

func TestATerminatedRunEndsWhateverItsTasksDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.terminate = 1
		r := w.play(t, func() int { return 3 }, never)
		if v := r.s.Execution(); v.AbortCause == "" && v.Phase == core.WorkflowExecution_ABORTED {
			t.Fatal("aborted without a cause")
		}
	})
}

// oracle judges events by rules of its own, from what the graph says and nothing that the machine counts.
type oracle struct {
	t        *rapid.T
	run      *run
	phase    map[uint32]core.NodeExecution_Phase
	parked   map[uint32]bool
	attempts map[uint32]int  // how many were scheduled
	live     map[uint32]bool // the last one has not ended
	good     map[uint32]bool // the last one has ended well
	users    map[uint32]uint32
	systems  map[uint32]uint32
	expires  map[uint32]int64  // when the time of the last attempt is over; 0: never
	expired  map[uint32]bool   // it has been stopped for that
	stopped  map[uint32]bool   // it has been asked to stop
	arms     map[uint32]uint32 // of branches: the node of the arm that was taken
	running  int
	ended    bool
	aborting bool
}

func newOracle(t *rapid.T, r *run) *oracle {
	return &oracle{
		t: t, run: r, phase: map[uint32]core.NodeExecution_Phase{}, parked: map[uint32]bool{}, attempts: map[uint32]int{}, live: map[uint32]bool{},
		good: map[uint32]bool{}, users: map[uint32]uint32{}, systems: map[uint32]uint32{},
		arms: map[uint32]uint32{}, expires: map[uint32]int64{}, expired: map[uint32]bool{}, stopped: map[uint32]bool{},
	}
}

func (o *oracle) check(right bool, e *aloftv1.Event, rule string) {
	if !right {
		o.t.Fatalf("%v: %s", e, rule)
	}
}

func (o *oracle) hear(events []*aloftv1.Event) {
	for _, e := range events {
		o.check(!o.ended, e, "nothing follows the end")
		switch k := e.Kind.(type) {
		case *aloftv1.Event_TerminateRequested:
			o.check(!o.aborting, e, "a run is terminated once")
			o.aborting = true
		case *aloftv1.Event_ExecutionEnded:
			for i, live := range o.live {
				o.check(!live, e, fmt.Sprintf("node number %d has a live attempt", i))
			}
			for i, p := range o.phase {
				o.check(aloft.Terminal(p), e, fmt.Sprintf("node number %d is %s", i, p))
			}
			o.ended = true
		case *aloftv1.Event_NodeQueued:
			i := k.NodeQueued.Node
			o.begin(e, i)
			o.phase[i] = core.NodeExecution_QUEUED
			if o.run.s.Ref(i).Kind() == KindTask {
				o.running++
				limit := o.run.s.Create().GetMaxParallelism()
				o.check(limit == 0 || o.running <= int(limit), e, "no more task nodes than max_parallelism")
			}
		case *aloftv1.Event_ArmTaken:
			i := k.ArmTaken.Node
			n := o.run.s.Ref(i)
			_, before := o.arms[i]
			o.check(o.phase[i] == core.NodeExecution_RUNNING && !before && k.ArmTaken.Arm == o.run.facts.arms[n.SpecID()], e, "the arm that the conditions choose is taken once")
			for k := range uint32(o.run.s.Len()) {
				if p, ok := o.run.s.Ref(k).Parent(); ok && p.Index() == i {
					o.arms[i] = k
				}
			}
		case *aloftv1.Event_NodeCached:
			i := k.NodeCached.Node
			o.check(o.run.s.Ref(i).Cacheable(), e, "what is not cached is not found")
			if o.parked[i] {
				o.check(o.phase[i] == core.NodeExecution_QUEUED && o.attempts[i] == 0, e, "what is parked is queued and has no attempt")
			} else {
				o.begin(e, i)
			}
			o.finish(i, core.NodeExecution_SUCCEEDED)
		case *aloftv1.Event_NodeRecovered:
			i := k.NodeRecovered.Node
			o.check(o.run.s.Create().GetRecovers() != nil && o.run.s.Ref(i).Handles() == nil, e, "who handles a failure is not taken over")
			o.begin(e, i)
			o.finish(i, core.NodeExecution_RECOVERED)
		case *aloftv1.Event_NodeParked:
			i := k.NodeParked.Node
			o.check(o.phase[i] == core.NodeExecution_QUEUED && o.attempts[i] == 0 && !o.aborting, e, "what is parked is queued and has no attempt")
			o.parked[i] = true
		case *aloftv1.Event_NodeRunning:
			o.check(o.phase[k.NodeRunning.Node] == core.NodeExecution_QUEUED, e, "queued comes before running")
			o.phase[k.NodeRunning.Node] = core.NodeExecution_RUNNING
		case *aloftv1.Event_NodeSucceeded:
			i := k.NodeSucceeded.Node
			kind := o.run.s.Ref(i).Kind()
			if kind == KindStart {
				o.begin(e, i)
			} else {
				o.check(!aloft.Terminal(o.phase[i]) && o.phase[i] != 0, e, "a node ends once")
			}
			o.check(kind != KindTask || o.good[i], e, "a task succeeds by an attempt that did")
			o.finish(i, core.NodeExecution_SUCCEEDED)
		case *aloftv1.Event_NodeFailed:
			i := k.NodeFailed.Node
			o.check(!aloft.Terminal(o.phase[i]) && !o.live[i] && !o.good[i], e, "a node fails once, after its attempts")
			o.finish(i, core.NodeExecution_FAILED)
		case *aloftv1.Event_NodeSkipped:
			i := k.NodeSkipped.Node
			arm, taken := o.arms[i]
			o.check(o.phase[i] == 0 || taken && o.phase[i] == core.NodeExecution_RUNNING && o.phase[arm] == core.NodeExecution_SKIPPED, e, "what is skipped has not begun, or its arm was")
			o.finish(i, core.NodeExecution_SKIPPED)
		case *aloftv1.Event_NodeAborted:
			i := k.NodeAborted.Node
			o.check(!aloft.Terminal(o.phase[i]) && o.phase[i] != 0 && !o.live[i], e, "what is aborted has begun and has come to rest")
			o.finish(i, core.NodeExecution_ABORTED)
		case *aloftv1.Event_AttemptScheduled:
			i := k.AttemptScheduled.Node
			o.check(!o.live[i] && !o.good[i], e, "one attempt at a time")
			o.check(int(k.AttemptScheduled.Attempt) == o.attempts[i], e, "attempts are numbered from 0")
			o.check(!o.aborting, e, "no attempt after a terminate")
			o.attempts[i]++
			o.live[i] = true
			o.expires[i], o.expired[i], o.stopped[i] = k.AttemptScheduled.ExpiresAt, false, false
		case *aloftv1.Event_AttemptRunning:
			i := k.AttemptRunning.Node
			timeout, stated := o.run.facts.policy.Timeout, o.run.s.Ref(i).Template().GetMetadata().GetTimeout().AsDuration()
			if stated > 0 {
				timeout = stated
			}
			o.expires[i] = 0
			if timeout > 0 && !o.stopped[i] {
				o.expires[i] = e.At + int64(timeout)
			}
			o.check(k.AttemptRunning.ExpiresAt == o.expires[i], e, fmt.Sprintf("an attempt may run from now on for its timeout of %s", timeout))
		case *aloftv1.Event_AttemptStopRequested:
			i := k.AttemptStopRequested.Node
			o.check(o.live[i] && !o.stopped[i], e, "an attempt is asked to stop once")
			o.stopped[i] = true
			if k.AttemptStopRequested.Failure != nil {
				o.check(o.expires[i] != 0 && e.At >= o.expires[i], e, "nobody's time is cut short")
				o.expired[i] = true
			}
		case *aloftv1.Event_AttemptEnded:
			i := k.AttemptEnded.Node
			o.check(o.live[i], e, "an attempt ends once")
			o.live[i] = false
			_, o.good[i] = k.AttemptEnded.Result.(*aloftv1.AttemptEnded_Outputs)
			o.check(o.good[i] || !o.expired[i] || k.AttemptEnded.GetFailure() != nil, e, "what outlasts its time fails")
			if c := k.AttemptEnded.Charge; c != nil {
				o.check(c.RetriesUsed <= c.RetriesAllowed && (c.Budget == k.AttemptEnded.Budget) && c.Reason != "", e, "a failure says what it uses")
				o.check(c.NextAt == 0 || c.NextAt >= e.At, e, "the next attempt is not in the past")
			} else {
				o.check(o.good[i] || k.AttemptEnded.GetStopped() != "", e, "a failure says which budget it uses")
			}
			switch k.AttemptEnded.Budget {
			case aloftv1.AttemptEnded_USER:
				o.users[i]++
			case aloftv1.AttemptEnded_SYSTEM:
				o.systems[i]++
			}
			o.check(o.systems[i] <= 4 && o.users[i] <= o.run.s.spec(i).maxAttempts, e, "no more attempts than the budgets allow")
		}
	}
}

// begin: everything that the node depends on has succeeded.
func (o *oracle) begin(e *aloftv1.Event, i uint32) {
	o.check(o.phase[i] == 0, e, "a node begins once")
	n := o.run.s.Ref(i)
	for _, w := range append(n.Closure().SubWorkflows, n.Closure().Primary) {
		if w.Template != n.Workflow() {
			continue
		}
		for _, up := range w.Connections.Upstream[n.SpecID()].GetIds() {
			producer, ok := n.Sibling(up)
			o.check(ok && aloft.Succeeded(o.phase[producer.Index()]), e, "upstream "+up+" has not succeeded")
		}
	}
	if p, ok := n.Parent(); ok {
		o.check(o.phase[p.Index()] == core.NodeExecution_RUNNING, e, "what contains it does not run")
	}
}

func (o *oracle) finish(i uint32, phase core.NodeExecution_Phase) {
	if o.run.s.Ref(i).Kind() == KindTask && (o.phase[i] == core.NodeExecution_QUEUED || o.phase[i] == core.NodeExecution_RUNNING) {
		o.running--
	}
	o.phase[i] = phase
}

// end compares the records with what was heard.
func (o *oracle) end(s *State) {
	for i := range uint32(s.Len()) {
		if s.scopeOf(i).nodes == nil { // given back
			continue
		}
		if v := s.Node(i); v.Phase != o.phase[i] || int(v.Attempts) != o.attempts[i] {
			o.t.Fatalf("node %s is %s after %d attempts, heard of %s after %d", v.ID(), v.Phase, v.Attempts, o.phase[i], o.attempts[i])
		}
	}
}
