package machine

import (
	"iter"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Graph is a compiled workflow closure, indexed. It is immutable: all executions of a workflow version share one.
type Graph struct{}

// NewGraph indexes a closure. The error lists every node that cannot be run and wraps aloft.ErrUnimplemented (a kind of
// node that a later release brings) or aloft.ErrInvalid (the closure is not what a compiler makes), or both.
func NewGraph(c *core.CompiledWorkflowClosure) (*Graph, error) { panic("being written") }

// State is where an execution is: the fold of its journal. Only Apply changes it.
type State struct{}

// New is the state of an execution whose Create has not been consumed.
func New(id aloft.ExecutionID, g *Graph) *State { panic("being written") }

// Fold rebuilds the state from the journal. The state keeps no reference to the entries' messages but to errors.
func Fold(id aloft.ExecutionID, g *Graph, entries []*aloftv1.JournalEntry) (*State, error) {
	panic("being written")
}

// Apply folds one event. It refuses what cannot have happened, and leaves the state unusable then.
func (s *State) Apply(e *aloftv1.Event) error { panic("being written") }

// Step consumes messages in order (all of them, whatever the limit), fires what is due at now, and advances as far as
// it can, or until about limit events were decided (0: no limit). Each event is applied to s as it is decided: a caller
// whose commit is refused throws s away and folds again. So it does after a Go error: a fact could not be had, or s
// contradicts itself; nothing may be committed.
//
// now may go backwards: events never do.
func (s *State) Step(messages []*aloftv1.Inbox, now time.Time, facts Facts, limit int) (Decision, error) {
	panic("being written")
}

// Check returns the invariants that the state violates. It looks at every node: for tests and for the doctor.
func (s *State) Check() error { panic("being written") }

// Started says whether Create has been consumed; Ended whether the execution has ended.
func (s *State) Started() bool { panic("being written") }
func (s *State) Ended() bool   { panic("being written") }

// More says whether there is something to decide now without a message or a timer: Step with nothing.
func (s *State) More() bool { panic("being written") }

// DueAt is the earliest timer; zero: none.
func (s *State) DueAt() time.Time { panic("being written") }

// Create is the first message; nil until it has been consumed.
func (s *State) Create() *aloftv1.Create { panic("being written") }

// Execution is the execution's record.
func (s *State) Execution() ExecutionView { panic("being written") }

// Len is the number of nodes in all scopes opened so far, begun or not.
func (s *State) Len() int { panic("being written") }

// Ref is node number i; Node its record.
func (s *State) Ref(i uint32) NodeRef   { panic("being written") }
func (s *State) Node(i uint32) NodeView { panic("being written") }

// Nodes are the nodes that have a record, in order of their numbers.
func (s *State) Nodes() iter.Seq[NodeView] { panic("being written") }

// Attempt is one attempt of node i; Attempts all of them, in order.
func (s *State) Attempt(r AttemptRef) (AttemptView, bool) { panic("being written") }
func (s *State) Attempts(i uint32) []AttemptView          { panic("being written") }

// Outstanding are the attempts of executors that have not ended: what the outside must be doing.
func (s *State) Outstanding() []AttemptRef { panic("being written") }

// Touch lists what events changed, each once, in order of first mention.
func Touch(events []*aloftv1.Event) Touched { panic("being written") }

// Index is the node's number in events.
func (n NodeRef) Index() uint32 { panic("being written") }

// ID is the node's unique id within the execution.
func (n NodeRef) ID() aloft.NodeID { panic("being written") }

// SpecID is the node's id in its template, Name what its author called it (metadata.name).
func (n NodeRef) SpecID() string { panic("being written") }
func (n NodeRef) Name() string   { panic("being written") }
func (n NodeRef) Kind() Kind     { panic("being written") }

// Template is the node as compiled: not to be changed.
func (n NodeRef) Template() *core.Node { panic("being written") }

// Workflow is the workflow whose graph the node belongs to, Closure everything it was compiled with.
func (n NodeRef) Workflow() *core.WorkflowTemplate       { panic("being written") }
func (n NodeRef) Closure() *core.CompiledWorkflowClosure { panic("being written") }

// Task is the template of the task it runs; nil: it runs none.
func (n NodeRef) Task() *core.TaskTemplate { panic("being written") }

// Interface has the types of the node's inputs and outputs.
func (n NodeRef) Interface() *core.TypedInterface { panic("being written") }

// Target is the task or workflow it runs; nil: neither.
func (n NodeRef) Target() *core.Identifier { panic("being written") }

// Parent is the node whose graph it belongs to; false: top level.
func (n NodeRef) Parent() (NodeRef, bool) { panic("being written") }

// RetryGroup is the parent's attempt as text; empty: top level.
func (n NodeRef) RetryGroup() string { panic("being written") }

// IsParent says whether it contains nodes.
func (n NodeRef) IsParent() bool { panic("being written") }

// Sibling finds a node of the same scope by its id in the template: how a promise finds its producer.
func (n NodeRef) Sibling(specID string) (NodeRef, bool) { panic("being written") }

// ScopeInputs are the inputs of the graph it belongs to: the execution's, or the parent node's.
func (n NodeRef) ScopeInputs() *aloftv1.LiteralRef { panic("being written") }

// Inputs and Outputs refer to its values; nil: none, or not yet.
func (n NodeRef) Inputs() *aloftv1.LiteralRef  { panic("being written") }
func (n NodeRef) Outputs() *aloftv1.LiteralRef { panic("being written") }

// Handles is set for a failure node (on_failure): the error of its scope, which its input "err" describes.
func (n NodeRef) Handles() *core.ExecutionError { panic("being written") }
