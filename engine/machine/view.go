package machine

import (
	"iter"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// NodeRef is one node of one execution: its place in the graph and where it is in the run. It is a handle, cheap to
// copy, and valid for as long as its State.
type NodeRef struct {
	state *State
	index uint32
}

// NodeView is what the record of a node execution says, by value.
type NodeView struct {
	NodeRef
	Phase     core.NodeExecution_Phase // UNDEFINED: it has not begun and has no record
	CreatedAt time.Time                // its first event
	StartedAt time.Time                // zero: it never ran
	UpdatedAt time.Time                // its last event
	EndedAt   time.Time                // zero: not yet
	Error     *core.ExecutionError     // failed or aborted; nil otherwise
	Inputs    *aloftv1.LiteralRef      // nil: none, or not resolved yet
	Outputs   *aloftv1.LiteralRef      // nil: none, or not yet
	DeckURI   string                   // canonical; empty: none
	Attempts  uint32                   // how many it has had, numbered from 0
	Waiting   string                   // what it waits for outside of the execution; empty: nothing
}

// AttemptView is what the record of an attempt says, by value. Digests of objects, environment and usage are in the
// AttemptEnded event alone: the state has no use for them.
type AttemptView struct {
	Node      NodeRef
	Attempt   uint32 // from 0
	Token     string
	Spec      *aloftv1.AttemptSpec // shared by all executions of the graph: not to be changed
	Phase     core.TaskExecution_Phase
	ByEngine  bool          // the machine runs it itself
	DueAt     time.Time     // by engine: when it is over; zero otherwise
	NotBefore time.Time     // zero: at once
	Timeout   time.Duration // how long it may run; 0: any time
	ExpiresAt time.Time     // when it is ended if it has not begun (queued) or is not over (running); zero: never
	Stop      string        // why it is to be stopped; empty: it is not
	CreatedAt time.Time
	StartedAt time.Time // zero: it never ran
	UpdatedAt time.Time
	EndedAt   time.Time // zero: not yet
	Error     *core.ExecutionError
	Lost      bool // how it ended is unknown
	DeckURI   string
	Outputs   *aloftv1.LiteralRef
}

// ExecutionView is what the record of the execution says, by value.
type ExecutionView struct {
	ID             aloft.ExecutionID
	Phase          core.WorkflowExecution_Phase // UNDEFINED until Create has been consumed
	StartedAt      time.Time                    // zero: not yet
	UpdatedAt      time.Time                    // the last event that changed this record
	EndedAt        time.Time                    // zero: not yet
	Error          *core.ExecutionError         // why it fails or has failed
	Outputs        *aloftv1.LiteralRef          // once succeeded
	AbortCause     string                       // set once terminated
	AbortPrincipal string
	Outstanding    int // attempts of executors that have not ended
	Runnable       int // nodes that could begin but for max_parallelism: they have no record yet
}

// Create is the first message; nil until it has been consumed.
func (s *State) Create() *aloftv1.Create { return s.create }

// Execution is the execution's record.
func (s *State) Execution() ExecutionView {
	v := ExecutionView{
		ID: s.id, Phase: s.phase,
		StartedAt: timeOf(s.started), UpdatedAt: timeOf(s.changed), EndedAt: timeOf(s.ended),
		Error:      s.err,
		AbortCause: s.cause, AbortPrincipal: s.principal,
		Outstanding: len(s.outstanding),
	}
	if s.outputs != 0 {
		v.Outputs = s.scopes[0].ref(s.outputs)
	}
	if s.ended == 0 && !s.room() {
		v.Runnable = int(s.runnables)
	}
	return v
}

// Len is the number of nodes in all scopes opened so far, begun or not.
func (s *State) Len() int { return len(s.homes) }

// Ref is node number i, which is below Len.
func (s *State) Ref(i uint32) NodeRef { return NodeRef{state: s, index: i} }

// Node is the record of node number i, which is below Len; without a phase if it was given back.
func (s *State) Node(i uint32) NodeView {
	c := s.scopeOf(i)
	if c.nodes == nil {
		return NodeView{NodeRef: s.Ref(i)}
	}
	n := s.node(i)
	v := NodeView{
		NodeRef: s.Ref(i), Phase: core.NodeExecution_Phase(n.phase),
		CreatedAt: timeOf(n.created), StartedAt: timeOf(n.started), UpdatedAt: timeOf(n.updated), EndedAt: timeOf(n.ended),
		Error: n.err, Inputs: c.ref(n.inputs), Outputs: c.ref(n.outputs),
	}
	if last := c.latest(n); last != nil {
		v.Attempts = last.number + 1
		v.DeckURI = c.decks[n.attempt]
	}
	v.Waiting = s.waits[i].reason
	return v
}

// Awaits is the node with that id whose attempt of an executor has not ended; false: there is none.
func (s *State) Awaits(id aloft.NodeID) (NodeRef, bool) {
	i, ok := s.outstanding[id]
	return NodeRef{state: s, index: i}, ok
}

// Next are the task nodes among the next n in line, the first one first: what a Step that has come to the first of them
// will most likely ask about. It is no promise: there may be no room for them, and what happens before may end their scope.
func (s *State) Next(n int) iter.Seq[NodeRef] {
	return func(yield func(NodeRef) bool) {
		line := s.runnable.items[s.runnable.taken:]
		for _, i := range line[:min(n, len(line))] {
			if s.mayBegin(i) && !yield(s.Ref(i)) {
				return
			}
		}
	}
}

// Nodes are the nodes that have a record and were not given back, in order of their numbers.
func (s *State) Nodes() iter.Seq[NodeView] {
	return func(yield func(NodeView) bool) {
		for _, c := range s.scopes {
			for k := range c.nodes {
				if c.nodes[k].created != 0 && !yield(s.Node(c.first+uint32(k))) {
					return
				}
			}
		}
	}
}

// Attempt is the record of one attempt; false: there is none, or it was given back.
func (s *State) Attempt(r AttemptRef) (AttemptView, bool) {
	if uint64(r.Node) >= uint64(len(s.homes)) {
		return AttemptView{}, false
	}
	c := s.scopeOf(r.Node)
	if c.nodes == nil {
		return AttemptView{}, false
	}
	for a := s.node(r.Node).attempt; a != noIndex; a = c.attempts[a].prev { // a handful at most
		if c.attempts[a].number == r.Attempt {
			return s.attempt(c, a), true
		}
	}
	return AttemptView{}, false
}

// Attempts are the records of all attempts of node number i, in order; none if it was given back.
func (s *State) Attempts(i uint32) []AttemptView {
	var all []AttemptView
	c := s.scopeOf(i)
	if c.nodes == nil {
		return nil
	}
	for a := s.node(i).attempt; a != noIndex; a = c.attempts[a].prev {
		all = append(all, s.attempt(c, a))
	}
	slices.Reverse(all)
	return all
}

// Outstanding are the attempts of executors that have not ended, in order: what the outside must be doing.
func (s *State) Outstanding() []AttemptRef {
	nodes := make([]uint32, 0, len(s.outstanding))
	for _, i := range s.outstanding {
		nodes = append(nodes, i)
	}
	slices.Sort(nodes)
	all := make([]AttemptRef, len(nodes))
	for k, i := range nodes {
		all[k] = AttemptRef{Node: i, Attempt: s.latest(i).number}
	}
	return all
}

func (s *State) attempt(c *scope, index uint32) AttemptView {
	a := &c.attempts[index]
	v := AttemptView{
		Node: s.Ref(a.node), Attempt: a.number, Token: s.token(a.node, a.number), Spec: s.attemptSpec(c, index),
		Phase: core.TaskExecution_Phase(a.phase), ByEngine: a.byEngine,
		CreatedAt: timeOf(a.created), StartedAt: timeOf(a.started), UpdatedAt: timeOf(a.updated), EndedAt: timeOf(a.ended),
		Timeout: time.Duration(a.timeout), ExpiresAt: timeOf(a.expires),
		Error: a.err, Lost: a.lost, DeckURI: c.decks[index], Outputs: c.ref(a.outputs),
	}
	if a.byEngine {
		v.DueAt = timeOf(a.due)
	} else {
		v.NotBefore = timeOf(a.due)
	}
	if a.stop != 0 {
		v.Stop = s.texts[a.stop-1]
	}
	return v
}

// attemptSpec says on what the attempt runs: on what may be taken away if that was allowed, but for the last time that, by
// the policy when it was scheduled, the system may fail.
func (s *State) attemptSpec(c *scope, index uint32) *aloftv1.AttemptSpec {
	a := &c.attempts[index]
	spec := s.spec(a.node)
	interruptible := s.create.GetInterruptible() || s.graph.root.template.GetMetadataDefaults().GetInterruptible()
	if spec.interruptible != nil {
		interruptible = *spec.interruptible
	}
	of := spec.stable
	if interruptible && !a.last {
		of = spec.spot
	}
	memory, checkpoint := c.memories[index], c.offers[a.node]
	if memory == 0 && checkpoint == "" {
		return of
	}
	of = proto.CloneOf(of)
	of.Checkpoint = checkpoint
	if memory != 0 {
		of.Memory, of.MemoryLimit = memory, memory
	}
	return of
}

// Index is the node's number in events.
func (n NodeRef) Index() uint32 { return n.index }

// ID is the node's unique id within the execution.
func (n NodeRef) ID() aloft.NodeID { return n.state.nodeID(n.index) }

// SpecID is the node's id in its template.
func (n NodeRef) SpecID() string { return n.spec().node.GetId() }

// Name is what its author called it (metadata.name).
func (n NodeRef) Name() string { return n.spec().node.GetMetadata().GetName() }

// Kind is what it does.
func (n NodeRef) Kind() Kind { return n.spec().kind }

// Template is the node as compiled: not to be changed.
func (n NodeRef) Template() *core.Node { return n.spec().node }

// Workflow is the workflow whose graph the node belongs to.
func (n NodeRef) Workflow() *core.WorkflowTemplate { return n.scope().body.template }

// Closure is everything that the execution's workflow was compiled with.
func (n NodeRef) Closure() *core.CompiledWorkflowClosure { return n.state.graph.closure }

// Task is the template of the task it runs; nil: it runs none.
func (n NodeRef) Task() *core.TaskTemplate { return n.spec().task }

// Interface has the types of the node's inputs and outputs.
func (n NodeRef) Interface() *core.TypedInterface { return n.spec().iface }

// Target is the task or workflow it runs; nil: neither.
func (n NodeRef) Target() *core.Identifier { return n.spec().target }

// Parent is the node whose graph it belongs to; false: top level.
func (n NodeRef) Parent() (NodeRef, bool) {
	if c := n.scope(); c.node != noIndex {
		return n.state.Ref(c.node), true
	}
	return NodeRef{}, false
}

// RetryGroup is the parent's attempt as text; empty: top level.
func (n NodeRef) RetryGroup() string {
	if c := n.scope(); c.node != noIndex {
		return strconv.FormatUint(uint64(c.attempt), 10)
	}
	return ""
}

// Cacheable says whether its results may be used again: as the node says, or else its task.
func (n NodeRef) Cacheable() bool { return n.spec().cacheable }

// IsParent says whether it contains nodes.
func (n NodeRef) IsParent() bool { return n.spec().kind.can().scope }

// Sibling finds a node by its id in the template as a promise does: in the same scope, or for the node of an arm in the scope around
// the branch.
func (n NodeRef) Sibling(specID string) (NodeRef, bool) {
	c := n.state.around(n.scope())
	i, ok := c.body.byID[specID]
	if !ok {
		return NodeRef{}, false
	}
	return n.state.Ref(c.first + i), true
}

// End is the end-node of the scope inside the node; false: there is none, or it was given back.
func (n NodeRef) End() (NodeRef, bool) {
	c := n.scope()
	if c.nodes == nil {
		return NodeRef{}, false
	}
	child := c.nodes[n.index-c.first].child
	if child == noIndex || n.state.scopes[child].nodes == nil {
		return NodeRef{}, false
	}
	inside := n.state.scopes[child]
	return n.state.Ref(inside.first + inside.body.end), true
}

// Caller is the node that runs the workflow which the node belongs to: its inputs are that workflow's; false: the execution does.
func (n NodeRef) Caller() (NodeRef, bool) {
	if c := n.state.around(n.scope()); c.node != noIndex {
		return n.state.Ref(c.node), true
	}
	return NodeRef{}, false
}

// ScopeInputs are the inputs of the workflow that the node belongs to: the execution's, or those of its caller.
func (n NodeRef) ScopeInputs() *aloftv1.LiteralRef {
	if caller, nested := n.Caller(); nested {
		return caller.Inputs()
	}
	return n.state.create.GetInputs()
}

// Inputs refers to its resolved inputs; nil: none, not yet, or given back. Not to be changed.
func (n NodeRef) Inputs() *aloftv1.LiteralRef {
	c := n.scope()
	if c.nodes == nil {
		return nil
	}
	return c.ref(c.nodes[n.index-c.first].inputs)
}

// Outputs refers to its outputs; nil: none, not yet, or given back. Not to be changed.
func (n NodeRef) Outputs() *aloftv1.LiteralRef {
	c := n.scope()
	if c.nodes == nil {
		return nil
	}
	return c.ref(c.nodes[n.index-c.first].outputs)
}

// Handles is set for a failure node (on_failure): the error of its scope, which its input "err" describes.
func (n NodeRef) Handles() *core.ExecutionError {
	if c := n.scope(); n.index-c.first == c.body.failure {
		return c.err
	}
	return nil
}

func (n NodeRef) spec() *nodeSpec { return n.state.spec(n.index) }

func (n NodeRef) scope() *scope { return n.state.scopeOf(n.index) }

func (n NodeRef) phase() core.NodeExecution_Phase {
	return core.NodeExecution_Phase(n.state.node(n.index).phase)
}

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
