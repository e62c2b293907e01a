package engine

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// project turns what a step decided into the records that change by it: one whole record for each node and each attempt
// that it touched, however many events they had. Inputs and outputs are attached in the step that decided them.
func project(f *facts, events []*aloftv1.Event, step *store.Step) error {
	state := f.state
	newInputs := map[uint32]*aloftv1.LiteralRef{}
	newOutputs := map[uint32]*aloftv1.LiteralRef{}
	lookups := map[uint32]*aloftv1.CacheLookup{}
	results := map[uint32]*aloftv1.AttemptEnded{} // by nodes whose result may be used again from now on
	decks := map[uint32]string{}                  // taken over with the results they belong to
	ends := map[machine.AttemptRef]*aloftv1.AttemptEnded{}
	for _, e := range events {
		switch k := e.GetKind().(type) {
		case *aloftv1.Event_NodeQueued:
			newInputs[k.NodeQueued.GetNode()] = k.NodeQueued.GetInputs()
			lookups[k.NodeQueued.GetNode()] = k.NodeQueued.GetCache()
		case *aloftv1.Event_NodeCached:
			i := k.NodeCached.GetNode()
			if k.NodeCached.GetInputs() != nil { // else it was queued in this step or before
				newInputs[i] = k.NodeCached.GetInputs()
			}
			newOutputs[i], lookups[i] = k.NodeCached.GetOutputs(), k.NodeCached.GetCache()
		case *aloftv1.Event_NodeRecovered:
			i := k.NodeRecovered.GetNode()
			newInputs[i], newOutputs[i] = k.NodeRecovered.GetInputs(), k.NodeRecovered.GetOutputs()
			lookups[i], decks[i] = k.NodeRecovered.GetCache(), k.NodeRecovered.GetDeckUri()
		case *aloftv1.Event_NodeSucceeded:
			newOutputs[k.NodeSucceeded.GetNode()] = k.NodeSucceeded.GetOutputs()
		case *aloftv1.Event_AttemptEnded:
			// Its node succeeds in the same step: the machine decides that in one piece.
			ended := k.AttemptEnded
			ends[machine.AttemptRef{Node: ended.GetNode(), Attempt: ended.GetAttempt()}] = ended
			if _, ok := ended.GetResult().(*aloftv1.AttemptEnded_Outputs); ok && f.engine.config.Catalog != nil && state.Ref(ended.GetNode()).Cacheable() {
				results[ended.GetNode()] = ended
			}
		}
	}
	touched := machine.Touch(events)
	checkpoints := map[uint32]string{} // what whoever runs the node next may go on from

	step.Attempts = make([]*store.Attempt, 0, len(touched.Attempts))
	for _, r := range touched.Attempts {
		attempt, ok := state.Attempt(r)
		if !ok {
			return fmt.Errorf("attempt %d of node %d is in an event and not in the state", r.Attempt, r.Node)
		}
		record := f.attemptRecord(attempt, ends[r])
		step.Attempts = append(step.Attempts, record)
		if c := record.Usage.GetCheckpoint(); c != "" {
			checkpoints[r.Node] = c
		} else if r.Attempt == 0 && checkpoints[r.Node] == "" {
			checkpoints[r.Node] = attempt.Spec.GetCheckpoint() // it is handed on until there is a later one
		}
	}

	step.Nodes = make([]*store.Node, 0, len(touched.Nodes))
	for _, i := range endsLast(state, touched.Nodes) {
		node := state.Node(i)
		record := nodeRecord(node)
		record.Cache = lookups[i]
		if decks[i] != "" {
			record.DeckURI = decks[i]
		}
		if checkpoints[i] != "" {
			record.Metadata = &admin.TaskNodeMetadata{CheckpointUri: checkpoints[i]}
		}
		var err error
		if ref := newInputs[i]; ref != nil {
			if record.Inputs, err = f.record(ref, func() (*aloftv1.Literals, error) { return f.engine.store.NodeInputs(f.ctx, f.key, node.ID()) }); err != nil {
				return fmt.Errorf("inputs of node %s: %w", node.ID(), err)
			}
		}
		if err := f.cache(node, results[i], record, step); err != nil {
			return fmt.Errorf("cache the result of node %s: %w", node.ID(), err)
		}
		if ref := newOutputs[i]; ref != nil {
			if record.Outputs, err = f.record(ref, func() (*aloftv1.Literals, error) { return f.outputsOf(node.NodeRef) }); err != nil {
				return fmt.Errorf("outputs of node %s: %w", node.ID(), err)
			}
		}
		step.Nodes = append(step.Nodes, record)
	}

	if touched.Execution {
		execution := state.Execution()
		step.Change = executionChange(execution)
		step.ReleasesAll = state.Ended() && f.reserves()
		if execution.Outputs != nil {
			var err error
			step.Change.Outputs, err = f.record(execution.Outputs, func() (*aloftv1.Literals, error) {
				return f.engine.store.NodeOutputs(f.ctx, f.key, aloft.EndNode)
			})
			if err != nil {
				return fmt.Errorf("outputs of the execution: %w", err)
			}
		}
	}
	return nil
}

// endsLast is the order in which nodes are written, and in which those that were created at once are listed: that of the
// template, but for the ends of graphs, which stand there before what leads to them.
func endsLast(state *machine.State, nodes []uint32) []uint32 {
	var ends []uint32
	nodes = slices.DeleteFunc(nodes, func(i uint32) bool {
		end := state.Ref(i).Kind() == machine.KindEnd
		if end {
			ends = append(ends, i)
		}
		return end
	})
	return append(nodes, ends...)
}

// outputsOf reads outputs from the record in which they were first written. A node that takes them over from another may do
// so in a later step, when they have left memory, and its own record does not have them before that is committed.
func (f *facts) outputsOf(node machine.NodeRef) (*aloftv1.Literals, error) {
	if f.state.Node(node.Index()).Phase == core.NodeExecution_RECOVERED { // a sub-workflow, too: nothing ran inside
		return f.engine.store.NodeOutputs(f.ctx, f.key, node.ID())
	}
	switch node.Kind() {
	case machine.KindStart:
		if parent, nested := node.Parent(); nested {
			return f.engine.store.NodeInputs(f.ctx, f.key, parent.ID())
		}
		return f.inputs, nil
	case machine.KindEnd:
		return f.engine.store.NodeInputs(f.ctx, f.key, node.ID())
	case machine.KindWorkflow: // its own record has them once it is committed, and then its scope is given back
		if end, there := node.End(); there {
			return f.engine.store.NodeOutputs(f.ctx, f.key, end.ID())
		}
	case machine.KindTask:
	}
	return f.engine.store.NodeOutputs(f.ctx, f.key, node.ID())
}

func nodeRecord(n machine.NodeView) *store.Node {
	record := &store.Node{
		ID:         n.ID(),
		SpecNodeID: n.SpecID(),
		Name:       n.Name(),
		RetryGroup: n.RetryGroup(),
		IsParent:   n.IsParent(),
		Phase:      n.Phase,
		CreatedAt:  n.CreatedAt,
		StartedAt:  n.StartedAt,
		UpdatedAt:  n.UpdatedAt,
		EndedAt:    n.EndedAt,
		Error:      n.Error,
		Target:     n.Target(),
		DeckURI:    n.DeckURI,
		Waiting:    n.Waiting,
	}
	if parent, nested := n.Parent(); nested {
		record.Parent = parent.ID()
	}
	return record
}

// attemptRecord is the record of an attempt for the store. Executors compare when it may start with the clock of the process.
func (f *facts) attemptRecord(a machine.AttemptView, ended *aloftv1.AttemptEnded) *store.Attempt {
	record := attemptRecord(f.key, f.run.id, a, ended)
	record.NotBefore = f.run.clock.ours(a.NotBefore)
	return record
}

// attemptRecord takes what only the event of its end says from there: it is not kept in the state.
func attemptRecord(key store.Key, id aloft.ExecutionID, a machine.AttemptView, ended *aloftv1.AttemptEnded) *store.Attempt {
	node := a.Node.ID()
	record := &store.Attempt{
		AttemptKey: store.AttemptKey{Execution: key, Node: node, Attempt: a.Attempt, Token: a.Token},
		ID:         aloft.AttemptID{Execution: id, Node: node, Attempt: a.Attempt},
		Spec:       a.Spec,
		Phase:      a.Phase,
		ByEngine:   a.ByEngine,
		NotBefore:  a.NotBefore,
		Stop:       a.Stop,
		CreatedAt:  a.CreatedAt,
		StartedAt:  a.StartedAt,
		UpdatedAt:  a.UpdatedAt,
		EndedAt:    a.EndedAt,
		Error:      a.Error,
		Lost:       a.Lost,
		DeckURI:    a.DeckURI,
		Outputs:    a.Outputs,
	}
	if ended != nil {
		record.Objects = ended.GetObjects()
		record.Environment = ended.GetEnvironment()
		if len(ended.GetUsage()) > 0 {
			record.Usage = &aloftv1.AttemptUsage{}
			// What an attempt cost is for people to look at: not worth refusing its result.
			if proto.Unmarshal(ended.GetUsage(), record.Usage) != nil {
				record.Usage = nil
			}
		}
		if charge := ended.GetCharge(); charge != nil {
			if record.Usage == nil {
				record.Usage = &aloftv1.AttemptUsage{}
			}
			record.Usage.Charge = charge
		}
	}
	return record
}

// pausedAttempts are the records of attempts that are not to start yet. The times in the store may have been written by
// another clock than ours: executors would wait by it for too long.
func pausedAttempts(f *facts, now time.Time) []*store.Attempt {
	var paused []*store.Attempt
	for _, r := range f.state.Outstanding() {
		if a, ok := f.state.Attempt(r); ok && a.Phase == core.TaskExecution_QUEUED && a.NotBefore.After(now) {
			paused = append(paused, f.attemptRecord(a, nil))
		}
	}
	return paused
}

func executionChange(e machine.ExecutionView) *store.ExecutionChange {
	return &store.ExecutionChange{
		Phase:          e.Phase,
		StartedAt:      e.StartedAt,
		EndedAt:        e.EndedAt,
		UpdatedAt:      e.UpdatedAt,
		Error:          e.Error,
		AbortCause:     e.AbortCause,
		AbortPrincipal: e.AbortPrincipal,
	}
}
