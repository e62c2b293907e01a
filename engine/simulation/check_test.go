package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// check holds one execution to the promises, as the store has it now.
func (w *world) check(key store.Key) error {
	record, journal, err := w.memory.Load(w.ctx, key)
	if err != nil {
		return err
	}
	if err := checkJournal(journal); err != nil {
		return err
	}
	entries := make([]*aloftv1.JournalEntry, len(journal))
	for i, row := range journal {
		if row.Seq != int64(i+1) {
			return fmt.Errorf("journal entry %d has sequence %d", i+1, row.Seq)
		}
		entries[i] = row.Entry
	}
	var graph *machine.Graph
	for i, c := range w.plan.closures {
		if proto.Equal(c.GetPrimary().GetTemplate().GetId(), record.Workflow) {
			graph = w.graphs[i]
		}
	}
	state, err := machine.Fold(record.ID, graph, entries)
	if err != nil {
		return fmt.Errorf("fold: %w", err)
	}
	if err := state.Check(); err != nil {
		return fmt.Errorf("P2 or P5: %w", err)
	}
	var errs []error
	errs = append(errs, w.checkExecution(record, state))
	count := 0
	for n := range state.Nodes() {
		count++
		if err := w.checkNode(record, n); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.ID(), err))
		}
		for _, a := range state.Attempts(n.Index()) {
			if err := w.checkAttempt(record.ID, a); err != nil {
				errs = append(errs, fmt.Errorf("attempt %d of node %s: %w", a.Attempt, n.ID(), err))
			}
		}
	}
	if records, err := w.memory.ListNodes(w.ctx, record.ID, "", true, store.Query{}); err != nil {
		errs = append(errs, err)
	} else if len(records) != count {
		errs = append(errs, fmt.Errorf("%d node records, the journal has %d", len(records), count))
	}
	return errors.Join(errs...)
}

// checkJournal reads the journal as text: what it says must be true without knowing the machine.
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
					// Results say whose they are: node/attempt/token.
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
	if phase, was := w.ended[record.Key]; was && phase != record.Phase {
		return fmt.Errorf("it ended %s and is %s now", phase, record.Phase)
	}
	if aloft.Terminal(record.Phase) {
		w.ended[record.Key] = record.Phase
	}
	if v.Phase != core.WorkflowExecution_UNDEFINED {
		err := same(
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
	err = same(
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

// sameLiterals: the reference of the journal is that of the record, and what it refers to is there (P2).
func (w *world) sameLiterals(what string, got *aloftv1.Literals, want *aloftv1.LiteralRef) error {
	if !bytes.Equal(got.GetRef().GetDigest(), want.GetDigest()) {
		return fmt.Errorf("P2: %s have digest %x, the journal says %x", what, got.GetRef().GetDigest(), want.GetDigest())
	}
	if _, err := w.objects.value(got); err != nil {
		return fmt.Errorf("P2: %s: %w", what, err)
	}
	return nil
}

func (w *world) checkAttempt(id aloft.ExecutionID, v machine.AttemptView) error {
	a, err := w.memory.GetAttempt(w.ctx, aloft.AttemptID{Execution: id, Node: v.Node.ID(), Attempt: v.Attempt})
	if err != nil {
		return err
	}
	phase := a.Phase
	if phase == core.TaskExecution_INITIALIZING {
		phase = core.TaskExecution_QUEUED // the executor's word for the same
	}
	err = same("phase", phase, v.Phase, "token", a.Token, v.Token, "stop", a.Stop, v.Stop, "lost", a.Lost, v.Lost,
		"start", a.StartedAt.UTC(), v.StartedAt.UTC(), "end", a.EndedAt.UTC(), v.EndedAt.UTC())
	if err != nil {
		return err
	}
	if !proto.Equal(a.Error, v.Error) {
		return fmt.Errorf("error is %v, the journal says %v", a.Error, v.Error)
	}
	return nil
}

// same compares triples of a name, what the record has and what the journal says.
func same(triples ...any) error {
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

// checkStuck is P5, after everything that happens.
func (w *world) checkStuck() {
	w.look(func() {
		if stuck, err := w.memory.Stuck(w.ctx, 0); err != nil || len(stuck) > 0 {
			w.fail("P5: stuck: %v (%v)", stuck, err)
		}
	})
}

// checkEnd is P1 for terminations.
func (w *world) checkEnd() {
	w.look(func() {
		for name, before := range w.terminated {
			_, journal, err := w.memory.Load(w.ctx, w.created[name])
			if err != nil {
				w.fail("P1: %v", err)
				continue
			}
			requested := false
			for _, row := range journal {
				for _, e := range row.Entry.GetEvents() {
					requested = requested || e.GetTerminateRequested() != nil
				}
			}
			// One step may have been on its way, and the one after it may have been the last.
			if !requested && len(journal) > before+2 {
				w.fail("P1: the termination of %s was acknowledged at entry %d and is not in its %d entries", name, before, len(journal))
			}
		}
	})
}

// result is how an execution ended, as far as it does not depend on what went wrong around it.
type result struct {
	phase   core.WorkflowExecution_Phase
	outputs *core.LiteralMap
	nodes   map[aloft.NodeID]core.NodeExecution_Phase // of one that succeeded
}

func (w *world) result(name string) (r result, own bool) {
	own = true
	w.look(func() {
		e, journal, err := w.memory.Load(w.ctx, w.created[name])
		if err != nil {
			w.fail("P1: %v", err)
			return
		}
		r.phase, r.nodes = e.Phase, map[aloft.NodeID]core.NodeExecution_Phase{}
		if r.outputs, err = w.objects.value(e.Outputs); err != nil {
			w.fail("outputs of %s: %v", name, err)
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
		// So many attempts may be lost that a node fails: then the world had its part in the result.
		system := map[uint32]int{}
		for _, row := range journal {
			for _, event := range row.Entry.GetEvents() {
				switch ended := event.GetAttemptEnded(); {
				case event.GetTerminateRequested() != nil:
					own = false
				case ended.GetLost() != "", ended.GetFailure().GetError().GetKind() == core.ExecutionError_SYSTEM:
					if system[ended.GetNode()]++; system[ended.GetNode()] > 3 {
						own = false
					}
				}
			}
		}
	})
	return r, own
}

// compare holds a world's results against those of the same plan without faults.
func (w *world) compare(undisturbed *world) error {
	for _, p := range w.plan.executions {
		got, own := w.result(p.name)
		want, _ := undisturbed.result(p.name)
		if !own {
			continue
		}
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
