package machine

import (
	"errors"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// State is where an execution is: the fold of its journal. Only Apply changes it. It is not safe for concurrent use.
//
// It is laid out for runs of many nodes: flat slices of small structs that refer to each other by number, and everything
// that a step must find (what is ready, due, to be stopped, at rest) in queues that Apply keeps. No step looks at all
// nodes, so its cost does not grow with the size or the age of the run.
type State struct {
	id    aloft.ExecutionID
	graph *Graph

	create     *aloftv1.Create // nil: not started
	phase      core.WorkflowExecution_Phase
	last       int64 // time of the latest event; times are Unix nanoseconds, 0 means not yet
	started    int64
	changed    int64 // when something in the execution's own record changed
	ended      int64
	expires    int64 // when it fails if it has not ended; 0: never
	err        *core.ExecutionError
	outputs    uint32
	terminated bool
	cause      string
	principal  string

	scopes     []*scope                       // number 0 is the root
	homes      []uint32                       // the number of each node's scope
	over       []uint32                       // scopes that are over, whose blocks have not been given back
	blockBytes int                            // of the blocks of all scopes
	texts      []string                       // reasons of stops, each once
	texted     int                            // about how many bytes of texts are kept: see Bytes
	waits      map[uint32]wait                // of parked nodes
	waiters    map[string]map[uint32]struct{} // parked nodes, by what they wait on
	renamed    map[uint32]aloft.NodeID        // nodes whose unique id is not Flyte's: see distinctID
	ids        map[uint64]struct{}            // hashes of the unique ids of nested nodes

	outstanding    map[aloft.NodeID]uint32 // nodes with an attempt of an executor that has not ended
	engineAttempts int                     // attempts that the engine runs itself and that have not ended
	tasks          uint32                  // task nodes that are active: what max_parallelism limits
	runnables      uint32                  // nodes that are runnable, in scopes that still run

	// What is to be decided. Entries that have become pointless are dropped when they come to the front.
	ready    queue // nodes that may begin and need no room
	runnable queue // nodes that may begin when there is room for one more
	skips    queue // nodes to be skipped
	stops    queue // nodes whose attempt is to be stopped
	rested   queue // scopes in which nothing is active and nothing waits
	timers   timerHeap
	overdue  overdue
}

// New is the state of an execution whose Create has not been consumed.
func New(id aloft.ExecutionID, g *Graph) *State {
	return &State{
		id: id, graph: g,
		outstanding: make(map[aloft.NodeID]uint32),
		waits:       make(map[uint32]wait),
		waiters:     make(map[string]map[uint32]struct{}),
		renamed:     make(map[uint32]aloft.NodeID),
		ids:         make(map[uint64]struct{}),
	}
}

// Fold rebuilds the state from the journal.
func Fold(id aloft.ExecutionID, g *Graph, entries []*aloftv1.JournalEntry) (*State, error) {
	s := New(id, g)
	for i, entry := range entries {
		if err := s.Fold(int64(i+1), entry); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Fold takes the next entry of the journal in.
func (s *State) Fold(seq int64, entry *aloftv1.JournalEntry) error {
	for _, e := range entry.GetEvents() {
		if err := s.Apply(e); err != nil {
			return fmt.Errorf("fold journal entry %d of execution %s: %w", seq, s.id, err)
		}
	}
	return nil
}

// Apply folds one event. It refuses what cannot have happened, and leaves the state unusable then. The state keeps the
// event's Create and errors, nothing else of it: they are not to be changed afterwards.
func (s *State) Apply(e *aloftv1.Event) error {
	subject, r := subjectOf(e)
	var c *scope
	bytes := 0
	if len(s.scopes) > 0 {
		c = s.scopes[0]
		if uint64(r.Node) < uint64(len(s.homes)) {
			c = s.scopeOf(r.Node)
		}
		bytes = c.block.bytes()
	}
	if err := s.apply(e, subject, r.Node); err != nil {
		return fmt.Errorf("apply %s: %w", describe(e), err)
	}
	n := texts(e)
	s.texted += n
	if c != nil {
		c.texted += n
		s.blockBytes += c.block.bytes() - bytes
	}
	s.dropPointless()
	return nil
}

func (s *State) apply(e *aloftv1.Event, subject subject, i uint32) error {
	at := e.GetAt()
	switch {
	case at <= 0:
		return errors.New("it has no time")
	case at < s.last:
		return fmt.Errorf("its time %d is before that of the last event, %d", at, s.last)
	case s.ended != 0:
		return errors.New("the execution has ended")
	}
	s.last = at

	switch k := e.GetKind().(type) {
	case *aloftv1.Event_ExecutionStarted:
		return s.executionStarted(at, k.ExecutionStarted)
	case *aloftv1.Event_TerminateRequested:
		return s.terminateRequested(at, k.TerminateRequested)
	case *aloftv1.Event_ExecutionEnded:
		return s.executionEnded(at, k.ExecutionEnded)
	}
	if s.create == nil {
		return errors.New("the execution has not started")
	}
	if err := s.expect(e, subject, i); err != nil {
		return err
	}
	switch k := e.GetKind().(type) {
	case *aloftv1.Event_ExecutionFailing:
		if s.terminated {
			return errors.New("the execution is being terminated")
		}
		s.phase, s.err, s.changed = core.WorkflowExecution_FAILING, k.ExecutionFailing.GetError(), at
		return s.scopeFailing(0, k.ExecutionFailing.GetError())
	case *aloftv1.Event_ScopeOpened:
		return s.scopeOpened(at, k.ScopeOpened)
	case *aloftv1.Event_ArmTaken:
		return s.armTaken(at, k.ArmTaken)
	case *aloftv1.Event_ScopeFailing:
		child := s.node(k.ScopeFailing.GetNode()).child
		if child == noIndex {
			return errors.New("the node has no scope")
		}
		return s.scopeFailing(child, k.ScopeFailing.GetError())
	case *aloftv1.Event_NodeQueued:
		return s.nodeQueued(at, k.NodeQueued)
	case *aloftv1.Event_NodeRunning:
		return s.nodeRunning(at, k.NodeRunning)
	case *aloftv1.Event_NodeSucceeded:
		return s.nodeSucceeded(at, k.NodeSucceeded)
	case *aloftv1.Event_NodeFailed:
		return s.nodeFailed(at, k.NodeFailed)
	case *aloftv1.Event_NodeSkipped:
		return s.nodeSkipped(at, k.NodeSkipped)
	case *aloftv1.Event_NodeAborted:
		return s.nodeAborted(at, k.NodeAborted)
	case *aloftv1.Event_NodeCached:
		return s.nodeCached(at, k.NodeCached)
	case *aloftv1.Event_NodeRecovered:
		return s.nodeRecovered(at, k.NodeRecovered)
	case *aloftv1.Event_NodeParked:
		return s.nodeParked(at, k.NodeParked)
	case *aloftv1.Event_AttemptScheduled:
		return s.attemptScheduled(at, k.AttemptScheduled)
	case *aloftv1.Event_AttemptRunning:
		return s.attemptRunning(at, k.AttemptRunning)
	case *aloftv1.Event_AttemptStopRequested:
		return s.attemptStopRequested(at, k.AttemptStopRequested)
	case *aloftv1.Event_AttemptEnded:
		return s.attemptEnded(at, k.AttemptEnded)
	}
	return errors.New("this release does not know such events")
}

// dropPointless drops what has become pointless from the fronts of the queues, so that what is there is what is to be done.
func (s *State) dropPointless() {
	for !s.ready.empty() && !s.mayBegin(s.ready.front()) {
		s.ready.pop()
	}
	for !s.runnable.empty() && !s.mayBegin(s.runnable.front()) {
		s.runnable.pop()
	}
	for !s.skips.empty() {
		i := s.skips.front()
		if s.scopeOf(i).runs() && s.node(i).phase == uint8(core.NodeExecution_UNDEFINED) {
			break
		}
		s.skips.pop()
	}
	for !s.stops.empty() {
		i := s.stops.front()
		if c := s.scopeOf(i); !c.done {
			n := s.node(i)
			if n.activity == inWait || n.activity == inAttempt && c.latest(n).stop == 0 {
				break
			}
		}
		s.stops.pop()
	}
	for !s.rested.empty() {
		if c := s.scopes[s.rested.front()]; !c.done && c.active == 0 && c.pending == 0 {
			break
		}
		s.rested.pop()
	}
	// A node has one timer after the other: those before its present one are in here, too.
	for len(s.timers) > 0 && s.timer(s.timers[0].node) != s.timers[0].at {
		s.timers.pop()
	}
}

// describe names an event for messages: its kind and the node it is about.
func describe(e *aloftv1.Event) string {
	m := e.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return "an event without a kind"
	}
	body := m.Get(field).Message()
	if n := body.Descriptor().Fields().ByName("node"); n != nil {
		return fmt.Sprintf("%s to node number %d", field.Name(), body.Get(n).Uint())
	}
	return string(field.Name())
}

// Started says whether Create has been consumed.
func (s *State) Started() bool { return s.create != nil }

// Ended says whether the execution has ended.
func (s *State) Ended() bool { return s.ended != 0 }

// More says whether there is something to decide now without a message or a timer: Step with nothing.
func (s *State) More() bool {
	return s.ended == 0 && (!s.stops.empty() || !s.skips.empty() || !s.rested.empty() || !s.ready.empty() || !s.runnable.empty() && s.room())
}

// Waits is how many nodes wait for something outside of the execution that has a name.
func (s *State) Waits() int {
	if s.ended != 0 {
		return 0
	}
	return len(s.waits)
}

// DueAt is the earliest timer; zero: none.
func (s *State) DueAt() time.Time {
	return timeOf(s.dueAt())
}

func (s *State) dueAt() int64 {
	if s.ended != 0 {
		return 0
	}
	due := s.expiry()
	if len(s.timers) > 0 && (due == 0 || s.timers[0].at < due) {
		due = s.timers[0].at
	}
	if o := &s.overdue; len(o.timers) > 0 && (due == 0 || o.until < due) {
		due = o.until
	}
	return due
}

// scopeOf is the scope of a node.
func (s *State) scopeOf(i uint32) *scope { return s.scopes[s.homes[i]] }

// node is node number i. Its scope must not have been given back.
func (s *State) node(i uint32) *node {
	c := s.scopeOf(i)
	return &c.nodes[i-c.first]
}

// latest is the last attempt of a node; nil: it has had none.
func (s *State) latest(i uint32) *attempt {
	c := s.scopeOf(i)
	return c.latest(&c.nodes[i-c.first])
}

// spec is what the graph knows of a node.
func (s *State) spec(i uint32) *nodeSpec {
	c := s.scopeOf(i)
	return &c.body.nodes[i-c.first]
}

// text keeps a text once and gives its number.
func (s *State) text(t string) uint32 {
	for i, known := range s.texts { // one or two in any execution: reasons to stop
		if known == t {
			return uint32(i)
		}
	}
	s.texts = append(s.texts, t)
	return uint32(len(s.texts) - 1)
}
