package simulation

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/storetest"
)

// observedExecution is what was seen of one execution up to its latest commit.
type observedExecution struct {
	planned   plannedExecution
	phase     core.WorkflowExecution_Phase  // in which it ended; 0: it has not ended
	entries   int                           // of its journal
	rows      int                           // of nodes and attempts, that were written
	looks     int                           // how often its nodes were parked to wait for a result: the pause grows each time
	source    map[recovery.Path]*store.Node // nodes of the execution that it recovers; nil: not read yet
	services  map[aloft.NodeID]bool         // nodes with an attempt that failed by a service
	deadlines map[string]deadline
	ownStart  time.Time // what its run's clock would have shown at the beginning of the world; zero: not known yet
}

// deadline is a timer that a journal entry has set.
type deadline struct {
	committed time.Duration // when the entry was committed, since the beginning of the world
	lasts     time.Duration
}

// invariants hold of every execution after each of its commits. Each names the promise that it can falsify.
var invariants = []struct {
	promise string
	holds   func(w *world, s *snapshot) error
}{
	{"P1: what was acknowledged as terminated ends ABORTED and in no other way", func(w *world, s *snapshot) error {
		if w.terminated[s.run.planned.name] && aloft.Terminal(s.record.Phase) && s.record.Phase != core.WorkflowExecution_ABORTED {
			return fmt.Errorf("it ended %s", s.record.Phase)
		}
		return nil
	}},
	{"P2: the state that the journal folds to contradicts nothing", func(_ *world, s *snapshot) error { return s.state.Check() }},
	{"P2, P3: a node succeeds once, by the result of its own attempt", func(_ *world, s *snapshot) error { return checkJournal(s.journal) }},
	{"P2: the record of the execution is what the journal says", func(w *world, s *snapshot) error { return w.checkExecution(s.record, s.state) }},
	{"P2: the records of nodes and attempts are what the journal says, and their values are durable", (*world).checkRecords},
	{"P4: a task fails when its budget is spent and not before, and has the memory that it needs", (*world).checkBudgets},
	{"nobody runs more tasks at once than was asked for", checkParallelism},
	{"P4: what had succeeded is taken over, and nothing else", (*world).checkRecovered},
	{"P4: a branch takes the first arm whose condition holds", (*world).checkArms},
	{"P6: what runs is the version that was launched", (*world).checkVersion},
	{"P7: nobody touches an execution of a later release", func(w *world, s *snapshot) error {
		if s.run.planned.newer && w.memory.Entries(s.record.Key) > 0 {
			return fmt.Errorf("it has a journal of %d entries", len(s.journal))
		}
		return nil
	}},
	{"P8: a node's life is a few rows", (*world).checkRows},
	{"P9: a node takes over what an attempt returned that was asked for the same", (*world).checkCached},
	{"P10: time passes as it does, whatever clocks show", (*world).checkTime},
}

// snapshot is one execution as the store has it now.
type snapshot struct {
	record  *store.Execution
	journal []store.JournalRow
	state   *machine.State // the journal folded
	run     *observedExecution
}

// committed notes what the commit of a step did, and checks its execution.
func (w *world) committed(step *store.Step, err error) {
	if w.detail {
		w.tell("commit %s entry %d with %d events: %v%s", step.ID.Name, step.Seq, len(step.Entry.GetEvents()), err, eventKinds(step.Entry.GetEvents()))
	}
	w.withoutFaults(func() {
		record, journal, err := storetest.Load(w.ctx, w.memory, step.Execution)
		if err != nil {
			w.fail("P1: load execution %s: %w", step.ID.Name, err)
			return
		}
		run := w.runs[record.Key]
		if run == nil {
			run = &observedExecution{deadlines: map[string]deadline{}, services: map[aloft.NodeID]bool{}}
			run.planned = w.planned(record.ID.Name)
			w.runs[record.Key] = run
		}
		if len(journal) > run.entries {
			run.rows += len(step.Nodes) + len(step.Attempts)
			for _, e := range step.Entry.GetEvents() {
				if e.GetNodeParked() != nil {
					run.looks++
				}
				w.checkCharge(e.GetAttemptEnded())
			}
			if newest := w.epochs[step.Lease.Shard]; step.Lease.Epoch < newest {
				w.fail("P3: a commit under epoch %d of shard %d was accepted, the shard was taken under %d", step.Lease.Epoch, step.Lease.Shard, newest)
			}
		}
		s := &snapshot{record: record, journal: journal, run: run}
		for _, a := range step.Attempts {
			if a.Error.GetCode() == codeServiceAway {
				run.services[a.Node] = true
			}
		}
		if err := w.check(s); err != nil {
			w.fail("execution %s after entry %d (there were %d): %w", record.ID.Name, len(journal), run.entries, err)
		}
		if s.state != nil {
			w.checkResults(step, len(journal) > run.entries, s)
		}
		run.entries = len(journal)
	})
}

// eventKinds names events for the story.
func eventKinds(events []*aloftv1.Event) string {
	var b strings.Builder
	for _, e := range events {
		m := e.ProtoReflect()
		fmt.Fprintf(&b, " %s", m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")).Name())
	}
	return b.String()
}

func (w *world) check(s *snapshot) error {
	entries := make([]*aloftv1.JournalEntry, len(s.journal))
	for i, row := range s.journal {
		if row.Seq != int64(i+1) {
			return fmt.Errorf("P2: journal entry %d has sequence %d", i+1, row.Seq)
		}
		entries[i] = row.Entry
	}
	var err error
	if s.state, err = machine.Fold(s.record.ID, w.graphs[s.run.planned.workflow], entries); err != nil {
		return fmt.Errorf("P2: fold: %w", err)
	}
	for _, invariant := range invariants {
		if err := invariant.holds(w, s); err != nil {
			return fmt.Errorf("%s: %w", invariant.promise, err)
		}
	}
	return nil
}

func (w *world) checkRecords(s *snapshot) error {
	var errs []error
	count := 0
	for n := range s.state.Nodes() {
		count++
		if err := w.checkNode(s.record, n); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.ID(), err))
		}
		for _, a := range s.state.Attempts(n.Index()) {
			if err := w.checkAttempt(s.record.ID, a); err != nil {
				errs = append(errs, fmt.Errorf("attempt %d of node %s: %w", a.Attempt, n.ID(), err))
			}
		}
	}
	if records, err := w.memory.ListNodes(w.ctx, s.record.ID, "", true, store.Query{}); err != nil {
		errs = append(errs, err)
	} else if len(records) != count {
		errs = append(errs, fmt.Errorf("%d node records, the journal has %d", len(records), count))
	}
	return errors.Join(errs...)
}

// checkBudgets counts the failures of each task node anew: by its attempts, and by what a task of that name does.
func (w *world) checkBudgets(s *snapshot) error {
	grows := slices.ContainsFunc(w.plan.policy.Retries, func(p aloft.RetryPolicy) bool { return p.Memory > 0 })
	for n := range s.state.Nodes() {
		if n.Kind() != machine.KindTask {
			continue
		}
		if s.run.services[n.ID()] {
			continue // failures by a service are counted for the whole world: see checkCharge
		}
		user, system, recoverable := 0, 0, true
		attempts := s.state.Attempts(n.Index())
		for i, a := range attempts {
			starved := a.Error.GetCode() == machine.CodeOutOfMemory
			switch {
			case a.Phase != core.TaskExecution_FAILED:
			case a.Lost || a.Error.GetKind() == core.ExecutionError_SYSTEM:
				system++
			default:
				user++
				recoverable = recoverable && (behaviourOf(n.Task().GetId().GetName()) != runFail || a.Error.GetCode() != "Raised")
			}
			if i+1 == len(attempts) {
				break
			}
			if had, has := a.Spec.GetMemory(), attempts[i+1].Spec.GetMemory(); has < had || starved && grows && has == had && had < hungryNeeds {
				return fmt.Errorf("attempt %d of node %s gets %d bytes of memory after one with %d that ended %s", i+1, n.ID(), has, had, a.Error.GetCode())
			}
		}
		allowed := int(n.Template().GetMetadata().GetRetries().GetRetries()) + 1
		spent := user == allowed || system == 4 || !recoverable
		if user > allowed || system > 4 || n.Phase == core.NodeExecution_FAILED && !spent {
			return fmt.Errorf("node %s is %s after %d failures of its own of %d allowed and %d of the system of 4", n.ID(), n.Phase, user, allowed, system)
		}
	}
	return nil
}

func checkParallelism(_ *world, s *snapshot) error {
	active, most := uint32(0), s.run.planned.maxParallelism
	for n := range s.state.Nodes() {
		if n.Kind() == machine.KindTask && (n.Phase == core.NodeExecution_QUEUED || n.Phase == core.NodeExecution_RUNNING) {
			active++
		}
	}
	if most > 0 && active > most {
		return fmt.Errorf("%d task nodes are active, max_parallelism is %d", active, most)
	}
	return nil
}

// checkVersion compares what was launched, what is registered under that name and what attempts were told to run.
func (w *world) checkVersion(s *snapshot) error {
	launched := w.plan.closures[s.run.planned.workflow]
	id := launched.GetPrimary().GetTemplate().GetId()
	if !proto.Equal(s.record.Workflow, id) {
		return fmt.Errorf("it was launched with %v and has %v", id, s.record.Workflow)
	}
	for _, e := range s.journal[s.run.entries:] {
		for _, e := range e.Entry.GetEvents() {
			scheduled := e.GetAttemptScheduled()
			if scheduled == nil {
				continue
			}
			node := s.state.Ref(scheduled.GetNode())
			a, err := w.memory.GetAttempt(w.ctx, aloft.AttemptID{Execution: s.record.ID, Node: node.ID(), Attempt: scheduled.GetAttempt()})
			if err != nil {
				return err
			}
			if version := a.Spec.GetTask().GetVersion(); version != id.GetVersion() {
				return fmt.Errorf("node %s was told to run version %s of its task, launched was %s", a.Node, version, id.GetVersion())
			}
		}
	}
	if !s.state.Ended() {
		return nil
	}
	registered, err := w.memory.GetWorkflow(w.ctx, id)
	if err != nil {
		return fmt.Errorf("workflow %s %s: %w", id.GetName(), id.GetVersion(), err)
	}
	if !proto.Equal(registered.Compiled, launched) {
		return fmt.Errorf("workflow %s %s is not what was registered", id.GetName(), id.GetVersion())
	}
	return nil
}

// checkRows is P8: a node has a row for each of queued, running and ended, and each attempt a row for each of scheduled,
// running, to be stopped and ended, the last of which is written with its node.
func (w *world) checkRows(s *snapshot) error {
	nodes, attempts := 0, 0
	for n := range s.state.Nodes() {
		nodes++
		attempts += int(n.Attempts)
	}
	if most := 3*nodes + 6*attempts + s.run.looks; s.run.rows > most {
		return fmt.Errorf("%d rows were written for %d nodes with %d attempts, more than %d", s.run.rows, nodes, attempts, most)
	}
	return nil
}

// checkTime compares the new entries of a journal with the true time. While all engines have the same clock, nothing happens
// before its time. When there are no faults any more, nothing happens long after its time: at most, an engine whose clock was
// set back begins to wait anew.
func (w *world) checkTime(s *snapshot) error {
	now := w.firstWall.Add(w.elapsed)
	errs := w.checkClocks(s)
	wait := func(what string, from, until int64) {
		if until != 0 {
			s.run.deadlines[what] = deadline{committed: w.elapsed, lasts: time.Duration(until - from)}
		}
	}
	over := func(what string) {
		d, ok := s.run.deadlines[what]
		if latest := max(d.committed, w.calmSince) + 2*d.lasts + 2*time.Minute + time.Duration(w.outages)*longestLook; ok && w.calm && w.elapsed > latest {
			errs = append(errs, fmt.Errorf("%s was to last %s and is over after %s", what, d.lasts, w.elapsed-d.committed))
		}
	}
	for _, row := range s.journal[s.run.entries:] {
		for _, e := range row.Entry.GetEvents() {
			if at := time.Unix(0, e.GetAt()); !w.skewed && at.After(now) {
				errs = append(errs, fmt.Errorf("%v happens %s early", e, at.Sub(now)))
			}
			switch k := e.GetKind().(type) {
			case *aloftv1.Event_ExecutionStarted:
				wait("the execution", e.GetAt(), k.ExecutionStarted.GetExpiresAt())
			case *aloftv1.Event_AttemptScheduled:
				what := fmt.Sprintf("attempt %d of node %d", k.AttemptScheduled.GetAttempt(), k.AttemptScheduled.GetNode())
				wait(what, e.GetAt(), k.AttemptScheduled.GetExpiresAt())
				wait(what, e.GetAt(), k.AttemptScheduled.GetDueAt())
			case *aloftv1.Event_AttemptRunning:
				wait(fmt.Sprintf("attempt %d of node %d", k.AttemptRunning.GetAttempt(), k.AttemptRunning.GetNode()), e.GetAt(), k.AttemptRunning.GetExpiresAt())
			case *aloftv1.Event_AttemptStopRequested:
				if k.AttemptStopRequested.GetFailure() != nil {
					over(fmt.Sprintf("attempt %d of node %d", k.AttemptStopRequested.GetAttempt(), k.AttemptStopRequested.GetNode()))
				}
			case *aloftv1.Event_AttemptEnded:
				if k.AttemptEnded.GetEnvironment() == "" && k.AttemptEnded.GetOutputs() != nil { // a sleep
					over(fmt.Sprintf("attempt %d of node %d", k.AttemptEnded.GetAttempt(), k.AttemptEnded.GetNode()))
				}
			case *aloftv1.Event_ExecutionFailing:
				if k.ExecutionFailing.GetError().GetCode() == machine.CodeExecutionTimeout {
					over("the execution")
				}
			}
		}
	}
	return errors.Join(errs...)
}

// checkClocks compares the new entries of a journal with the clock of the engine that wrote them: no event has a time that
// neither that engine's clock nor the run's own, which goes on from its latest entry, has reached. The clocks of other runs do
// not count.
func (w *world) checkClocks(s *snapshot) (errs []error) {
	run := s.run
	for _, row := range s.journal[run.entries:] {
		events := row.Entry.GetEvents()
		if len(events) == 0 {
			continue
		}
		at := store.LatestOf(row.Entry)
		if run.ownStart.IsZero() {
			run.ownStart = at.Add(-w.elapsed)
		}
		own := run.ownStart.Add(w.elapsed)
		if writer := w.writer(); writer != nil && at.After(own) && at.After(writer.clock.Now()) {
			errs = append(errs, fmt.Errorf("%v happens at %s, the run's own clock is at %s and that of %s at %s", events[len(events)-1], at, own, writer.name, writer.clock.Now()))
		}
		if began := at.Add(-w.elapsed); began.After(run.ownStart) {
			run.ownStart = began
		}
	}
	return errs
}

// writer is the engine that makes calls now; nil: no engine does.
func (w *world) writer() *engineHost {
	for _, s := range w.engines {
		if &s.process == w.current {
			return s
		}
	}
	return nil
}

// checkJournal checks the events of a journal by themselves, without the machine.
func checkJournal(journal []store.JournalRow) error {
	type attempt struct {
		node, attempt uint32
	}
	tokens := map[attempt]string{}
	over := map[attempt]bool{}
	succeeded := map[uint32]bool{}
	ids := map[uint32]string{}
	last := int64(0)
	ended := false
	for _, row := range journal {
		for _, e := range row.Entry.GetEvents() {
			if ended {
				return fmt.Errorf("P2: an event after the end: %v", e)
			}
			if e.GetAt() < last {
				return fmt.Errorf("P10: time goes back from %d to %d", last, e.GetAt())
			}
			last = e.GetAt()
			switch k := e.GetKind().(type) {
			case *aloftv1.Event_ExecutionEnded:
				ended = true
			case *aloftv1.Event_AttemptScheduled:
				s := k.AttemptScheduled
				tokens[attempt{s.GetNode(), s.GetAttempt()}] = s.GetToken()
			case *aloftv1.Event_AttemptEnded:
				a := k.AttemptEnded
				key := attempt{a.GetNode(), a.GetAttempt()}
				if over[key] {
					return fmt.Errorf("P3: attempt %v ends twice", key)
				}
				over[key] = true
				if a.GetEnvironment() == "zombie" {
					return fmt.Errorf("P3: the result of a zombie was adopted by %v", key)
				}
				if a.GetEnvironment() != "" {
					// Outcomes of the simulator's executors say which attempt they are of: node/attempt/token.
					if suffix := origin("", a.GetAttempt(), tokens[key]); !bytes.HasSuffix([]byte(a.GetEnvironment()), []byte(suffix)) {
						return fmt.Errorf("P3: %v has adopted the result of %s", key, a.GetEnvironment())
					}
					node := a.GetEnvironment()
					if ids[a.GetNode()] == "" {
						ids[a.GetNode()] = node[:len(node)-len(origin("", a.GetAttempt(), tokens[key]))]
					}
					if ids[a.GetNode()] != node[:len(node)-len(origin("", a.GetAttempt(), tokens[key]))] {
						return fmt.Errorf("P3: node %d has adopted results of two nodes, %s and %s", a.GetNode(), ids[a.GetNode()], node)
					}
				}
			case *aloftv1.Event_NodeSucceeded:
				if succeeded[k.NodeSucceeded.GetNode()] {
					return fmt.Errorf("P2: node %d succeeds twice", k.NodeSucceeded.GetNode())
				}
				succeeded[k.NodeSucceeded.GetNode()] = true
			}
		}
	}
	return nil
}

func (w *world) checkExecution(record *store.Execution, state *machine.State) error {
	v := state.Execution()
	run := w.runs[record.Key]
	if run.phase != 0 && run.phase != record.Phase {
		return fmt.Errorf("it ended %s and is %s now", run.phase, record.Phase)
	}
	if aloft.Terminal(record.Phase) {
		run.phase = record.Phase
	}
	if v.Phase != core.WorkflowExecution_UNDEFINED {
		err := sameFields(
			"phase", record.Phase, v.Phase, "abort cause", record.AbortCause, v.AbortCause, "abort principal", record.AbortPrincipal, v.AbortPrincipal,
			"start", record.StartedAt.UTC(), v.StartedAt.UTC(), "end", record.EndedAt.UTC(), v.EndedAt.UTC(), "update", record.UpdatedAt.UTC(), v.UpdatedAt.UTC(),
		)
		if err != nil {
			return err
		}
	}
	if !proto.Equal(record.Error, v.Error) {
		return fmt.Errorf("error is %v, the journal says %v", record.Error, v.Error)
	}
	return w.sameLiterals("outputs", record.Outputs, v.Outputs)
}

func (w *world) checkNode(record *store.Execution, v machine.NodeView) error {
	n, err := w.memory.GetNode(w.ctx, record.ID, v.ID())
	if err != nil {
		return err
	}
	parent := aloft.NodeID("")
	if p, nested := v.Parent(); nested {
		parent = p.ID()
	}
	err = sameFields(
		"phase", n.Phase, v.Phase, "parent", n.Parent, parent, "template id", n.SpecNodeID, v.SpecID(),
		"creation", n.CreatedAt.UTC(), v.CreatedAt.UTC(), "start", n.StartedAt.UTC(), v.StartedAt.UTC(),
		"end", n.EndedAt.UTC(), v.EndedAt.UTC(), "update", n.UpdatedAt.UTC(), v.UpdatedAt.UTC(),
	)
	if err != nil {
		return err
	}
	if !proto.Equal(n.Error, v.Error) {
		return fmt.Errorf("error is %v, the journal says %v", n.Error, v.Error)
	}
	return errors.Join(w.sameLiterals("inputs", n.Inputs, v.Inputs), w.sameLiterals("outputs", n.Outputs, v.Outputs))
}

// sameLiterals is P2 for values: the record has the reference of the journal, and its literal map is there.
func (w *world) sameLiterals(what string, got *aloftv1.Literals, want *aloftv1.LiteralRef) error {
	if !bytes.Equal(got.GetRef().GetDigest(), want.GetDigest()) {
		return fmt.Errorf("P2: %s have digest %x, the journal says %x", what, got.GetRef().GetDigest(), want.GetDigest())
	}
	if _, err := w.value(got); err != nil && !w.damaged[got.GetRef().GetUri()] {
		return fmt.Errorf("P2: %s: %w", what, err)
	}
	return nil
}

// value is the literal map of a record; an error if it is missing, has another digest than its reference, or is not durable.
func (w *world) value(l *aloftv1.Literals) (*core.LiteralMap, error) {
	if len(l.GetRef().GetDigest()) == 0 {
		return nil, nil
	}
	if uri := l.GetRef().GetUri(); uri != "" {
		key, err := blob.ParseURI(uri)
		if err != nil {
			return nil, err
		}
		if !w.blobs.Durable(key) {
			return nil, fmt.Errorf("object %s is gone, or would be without power", key)
		}
		if m := w.knownLiterals[uri]; m != nil {
			return m, nil
		}
		m, err := w.literals.ReadLiterals(w.ctx, l.GetRef())
		w.knownLiterals[uri] = m
		return m, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(l.GetValue())
	if err != nil {
		return nil, err
	}
	if digest := sha256.Sum256(b); !bytes.Equal(digest[:], l.GetRef().GetDigest()) {
		return nil, fmt.Errorf("the value %v does not have the digest of its reference", l.GetValue())
	}
	return l.GetValue(), nil
}

func (w *world) checkAttempt(id aloft.ExecutionID, v machine.AttemptView) error {
	a, err := w.memory.GetAttempt(w.ctx, aloft.AttemptID{Execution: id, Node: v.Node.ID(), Attempt: v.Attempt})
	if err != nil {
		return err
	}
	phase := a.Phase
	if phase == core.TaskExecution_INITIALIZING {
		phase = core.TaskExecution_QUEUED // the executor's phase of an attempt that it prepares
	}
	if !proto.Equal(a.Spec, v.Spec) {
		return fmt.Errorf("it is to run %v, the journal says %v", a.Spec, v.Spec)
	}
	err = sameFields("phase", phase, v.Phase, "token", a.Token, v.Token, "stop", a.Stop, v.Stop, "lost", a.Lost, v.Lost,
		"start", a.StartedAt.UTC(), v.StartedAt.UTC(), "end", a.EndedAt.UTC(), v.EndedAt.UTC())
	if err != nil {
		return err
	}
	if !proto.Equal(a.Error, v.Error) {
		return fmt.Errorf("error is %v, the journal says %v", a.Error, v.Error)
	}
	return nil
}

// sameFields compares triples of a name, what the record has and what the journal says.
func sameFields(triples ...any) error {
	var errs []error
	for i := 0; i < len(triples); i += 3 {
		got, want := triples[i+1], triples[i+2]
		if t, ok := got.(time.Time); ok && t.IsZero() && want.(time.Time).IsZero() {
			continue
		}
		if got != want {
			errs = append(errs, fmt.Errorf("%s of the record is %v, the journal says %v", triples[i], got, want))
		}
	}
	return errors.Join(errs...)
}

// checkStuck is P5: the store knows for every execution what will move it, and the executor of each attempt exists.
func (w *world) checkStuck() {
	w.withoutFaults(func() {
		if stuck, err := w.memory.Stuck(w.ctx, 0); err != nil || len(stuck) > 0 {
			w.fail("P5: stuck: %v (%v)", stuck, err)
		}
		known := map[string]bool{}
		instances, err := w.memory.Instances(w.ctx)
		if err != nil {
			w.fail("P5: %w", err)
		}
		for _, i := range instances {
			known[i.ID] = true
		}
		for _, name := range w.replacedExecutors {
			if known[name] {
				continue // an engine will find that it is overdue
			}
			if left, err := w.memory.Assigned(w.ctx, name); err != nil || len(left) > 0 {
				w.fail("P5: %d attempts are with executor %s, of which nobody knows (%v)", len(left), name, err)
			}
		}
	})
}

// checkEnd is P1 for terminations, at the end of the world.
func (w *world) checkEnd() {
	w.withoutFaults(func() {
		for name := range w.terminated {
			e, _, err := storetest.Load(w.ctx, w.memory, w.created[name])
			if err != nil {
				w.fail("P1: %v", err)
			} else if !w.planned(name).newer && e.Phase != core.WorkflowExecution_ABORTED {
				w.fail("P1: the termination of %s was acknowledged and it is %s", name, e.Phase)
			}
		}
	})
}

// executionEnd is how an execution ended, as far as that does not depend on faults.
type executionEnd struct {
	phase   core.WorkflowExecution_Phase
	outputs *core.LiteralMap
	nodes   map[aloft.NodeID]core.NodeExecution_Phase // of an execution that succeeded
}

func (w *world) endOf(name string) (r executionEnd, byItself bool) {
	w.withoutFaults(func() {
		e, journal, err := storetest.Load(w.ctx, w.memory, w.created[name])
		if err != nil {
			w.fail("P1: %v", err)
			return
		}
		r.phase, r.nodes = e.Phase, map[aloft.NodeID]core.NodeExecution_Phase{}
		if r.outputs, err = w.value(e.Outputs); err != nil && !w.damaged[e.Outputs.GetRef().GetUri()] {
			w.fail("P2: outputs of %s: %w", name, err)
		}
		if e.Phase == core.WorkflowExecution_SUCCEEDED {
			nodes, err := w.memory.ListNodes(w.ctx, e.ID, "", true, store.Query{})
			if err != nil {
				w.fail("list nodes of %s: %v", name, err)
			}
			for _, n := range nodes {
				r.nodes[n.ID] = n.Phase
			}
		}
		byItself = w.endedByItself(journal) && !w.damaged[e.Outputs.GetRef().GetUri()]
	})
	return r, byItself
}

// endedByItself says whether the faults of the world had no part in how an execution ended. They had when it was terminated,
// when so many attempts were lost that a node failed, and when a limit of time was reached that the execution keeps without
// faults.
func (w *world) endedByItself(journal []store.JournalRow) bool {
	system, late := map[uint32]int{}, map[uint32]int{}
	for _, row := range journal {
		for _, event := range row.Entry.GetEvents() {
			ended := event.GetAttemptEnded()
			cause := ended.GetFailure().GetError()
			switch {
			case event.GetTerminateRequested() != nil,
				event.GetExecutionFailing().GetError().GetCode() == machine.CodeExecutionTimeout,
				cause.GetCode() == machine.CodeQueueTimeout:
				return false
			case ended.GetFailure().GetService() != "" && ended.GetBudget() != aloftv1.AttemptEnded_SYSTEM:
				// Not charged. The one failure that an outage costs counts as any other: checkCharge sees that it is one.
			case ended.GetLost() != "", cause.GetKind() == core.ExecutionError_SYSTEM:
				if system[ended.GetNode()]++; system[ended.GetNode()] > 3 {
					return false
				}
			case cause.GetCode() == machine.CodeTimeout:
				if late[ended.GetNode()]++; late[ended.GetNode()] > 1 { // the first is planned: the task hangs once
					return false
				}
			}
		}
	}
	return true
}

// compare compares the ends of a world's executions with those of the same plan without faults.
func (w *world) compare(undisturbed *world) error {
	for _, p := range w.plan.executions {
		if p.newer || p.recovers != "" {
			continue
		}
		got, gotByItself := w.endOf(p.name)
		want, wantByItself := undisturbed.endOf(p.name)
		if !gotByItself || !wantByItself {
			continue
		}
		w.seen["compared "+want.phase.String()]++
		if got.phase != want.phase {
			return fmt.Errorf("execution %s ended %s, undisturbed it ends %s", p.name, got.phase, want.phase)
		}
		if !proto.Equal(got.outputs, want.outputs) {
			return fmt.Errorf("execution %s has outputs %v, undisturbed %v", p.name, got.outputs, want.outputs)
		}
		if len(got.nodes) != len(want.nodes) {
			return fmt.Errorf("execution %s has nodes %v, undisturbed %v", p.name, got.nodes, want.nodes)
		}
		for id, phase := range want.nodes {
			if got.nodes[id] != phase {
				return fmt.Errorf("execution %s: node %s ended %s, undisturbed %s", p.name, id, got.nodes[id], phase)
			}
		}
	}
	return errors.Join(w.broken, undisturbed.broken)
}
