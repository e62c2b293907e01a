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

// project turns the events of a step into the records that change by them: one whole record for each node and each attempt that
// they touch, however many events it has. Inputs and outputs are attached in the step that decided them.
func project(f *facts, events []*aloftv1.Event, step *store.Step) error {
	state := f.state
	changes, execution := machine.Changes(events)
	step.Nodes = make([]*store.Node, 0, len(changes))
	for _, change := range endsLast(state, changes) {
		if err := f.projectNode(change, step); err != nil {
			return err
		}
	}
	if execution {
		execution := state.Execution()
		step.Change = executionChange(execution)
		step.ReleasesAll = state.Ended() && f.mayReserve()
		if execution.Outputs != nil {
			var err error
			step.Change.Outputs, err = f.recordValue(execution.Outputs, func() (*aloftv1.Literals, error) {
				return f.engine.store.NodeOutputs(f.ctx, f.key, aloft.EndNode)
			})
			if err != nil {
				return fmt.Errorf("outputs of the execution: %w", err)
			}
		}
	}
	return nil
}

// projectNode adds the records of a node and of its attempts.
func (f *facts) projectNode(change machine.Change, step *store.Step) error {
	node := f.state.Node(change.Node)
	record := nodeRecord(node)
	record.Cache = change.Cache
	if change.DeckURI != "" {
		record.DeckURI = change.DeckURI
	}
	var result *aloftv1.AttemptEnded // that may be used again from now on. The node succeeds in the same step: the machine decides that in one piece
	checkpoint := ""                 // what the next attempt, or a recovery, may go on from
	for _, c := range change.Attempts {
		attempt, ok := f.state.Attempt(machine.AttemptRef{Node: change.Node, Attempt: c.Attempt})
		if !ok {
			return fmt.Errorf("attempt %d of node %d is in an event and not in the state", c.Attempt, change.Node)
		}
		record := f.attemptRecord(attempt, c.Ended)
		step.Attempts = append(step.Attempts, record)
		if uri := record.Usage.GetCheckpoint(); uri != "" {
			checkpoint = uri
		} else if c.Attempt == 0 && checkpoint == "" {
			checkpoint = attempt.Spec.GetCheckpoint() // it is handed on until there is a later one
		}
		if _, ok := c.Ended.GetResult().(*aloftv1.AttemptEnded_Outputs); ok && f.engine.config.Catalog != nil && node.Cacheable() {
			result = c.Ended
		}
	}
	if checkpoint != "" {
		record.Metadata = &admin.TaskNodeMetadata{CheckpointUri: checkpoint}
	}
	var err error
	if change.Inputs != nil {
		if record.Inputs, err = f.recordValue(change.Inputs, func() (*aloftv1.Literals, error) { return f.engine.store.NodeInputs(f.ctx, f.key, node.ID()) }); err != nil {
			return fmt.Errorf("inputs of node %s: %w", node.ID(), err)
		}
	}
	if err := f.updateCatalog(node, result, record, step); err != nil {
		return fmt.Errorf("cache the result of node %s: %w", node.ID(), err)
	}
	if change.Outputs != nil {
		if record.Outputs, err = f.recordValue(change.Outputs, func() (*aloftv1.Literals, error) { return f.outputsOf(node.NodeRef) }); err != nil {
			return fmt.Errorf("outputs of node %s: %w", node.ID(), err)
		}
	}
	step.Nodes = append(step.Nodes, record)
	return nil
}

// endsLast is the order in which nodes are written, and in which nodes that were created at the same time are listed: that of
// the template, but with end nodes last, which stand there before the nodes that lead to them.
func endsLast(state *machine.State, changes []machine.Change) []machine.Change {
	var ends []machine.Change
	changes = slices.DeleteFunc(changes, func(c machine.Change) bool {
		end := state.Ref(c.Node).Kind() == machine.KindEnd
		if end {
			ends = append(ends, c)
		}
		return end
	})
	return append(changes, ends...)
}

// outputsOf reads the outputs of a node from the record in which they were first written. A node that has its outputs from
// another node may take them over in a later step, when they have left memory: its own record has them only once that is
// committed.
func (f *facts) outputsOf(node machine.NodeRef) (*aloftv1.Literals, error) {
	if f.state.Node(node.Index()).Phase == core.NodeExecution_RECOVERED { // also of a sub-workflow: no node inside of it ran
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
	case machine.KindWorkflow, machine.KindBranch: // its own record has them once it is committed, and then its scope is given back
		if end, there := node.End(); there {
			return f.outputsOf(end)
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
	record.NotBefore = f.run.clock.processTime(a.NotBefore)
	return record
}

// attemptRecord is the record of an attempt. Objects, environment and usage are in the event of its end (ended) alone: they are
// not kept in the state.
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
			// The usage is for people to look at: if it cannot be decoded, the result counts all the same.
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

// pausedAttempts are the records of attempts that are not to start yet. The times in the store may be those of another engine's
// clock, by which executors would wait too long.
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
