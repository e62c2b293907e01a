package machine

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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

	scopes   []scope // number 0 is the root
	nodes    []node
	attempts []attempt
	refs     []ref
	recent   [4]uint32 // the references that were added last: equal ones in a row are kept once
	next     uint8     // which of recent is replaced next
	texts    []string  // reasons of stops, each once
	texted   int       // about how many bytes of texts are kept: see Bytes
	decks    map[uint32]string
	expired  map[uint32]*aloftv1.Failure // attempts that are being stopped because their time is over: how they have failed
	memory   map[uint32]int64            // attempts that get another amount than their node states
	outages  map[uint32]outage           // nodes that services have failed
	parked   map[uint32]parking          // nodes that wait for something outside of the execution
	offers   map[uint32]string           // nodes that get the checkpoint of an attempt of the execution that is recovered
	renamed  map[uint32]aloft.NodeID     // nodes whose unique id is not Flyte's: see distinctID
	ids      map[uint64]struct{}         // hashes of the unique ids of nested nodes

	outstanding map[aloft.NodeID]uint32 // nodes with an attempt of an executor that has not ended
	timers      int                     // attempts of our own that have not ended
	tasks       uint32                  // task nodes that are active: what max_parallelism limits
	waiting     uint32                  // task nodes that could begin if there were room

	// What is to be decided. Entries that have become pointless are dropped when they come to the front.
	ready   queue // nodes that may begin
	held    queue // task nodes that may begin when there is room for one more
	skips   queue // nodes to be skipped
	stops   queue // nodes whose attempt is to be stopped
	rested  queue // scopes in which nothing is active and nothing waits
	due     timerHeap
	looks   timerHeap // of parked nodes
	overdue overdue
}

// outage is what the failures of services with a health have cost a node.
type outage struct {
	charged uint32 // system failures of the node by services
	free    uint32 // attempts that are charged to nobody

	// The last one that was charged.
	at      int64  // when, by the clock of the run
	service string // whose it was
	wellAt  int64  // when that had been well before, by the clock of those who ask services
}

// before is what counts when a failure comes: nothing of what was charged if the service was well since. That is told by the
// times at which it was well: the clock of the run may be ahead of theirs. Those of another service say only as much as the
// two clocks agree.
func (o outage) before(f *aloftv1.Failure) outage {
	since := o.at
	if f.GetService() == o.service {
		since = o.wellAt
	}
	if f.GetService() != "" && o.charged > 0 && f.GetServiceWellAt() > since {
		o.free, o.charged = o.free+o.charged, 0
	}
	return o
}

// spared says whether a failure fell into an outage that is known: nobody is charged for it.
func spared(f *aloftv1.Failure) bool {
	return f.GetService() != "" && f.GetServiceAwaySince() != 0 && f.GetRecoverable()
}

// parking is what a queued node waits for.
type parking struct {
	on     string // by which it is woken
	reason string
	since  int64
	until  int64 // when it looks again unasked
}

// scope is one run of one graph: of the execution, or of the sub-workflow inside a node.
//
//	running ──▶ failing (of itself: what runs is stopped) ──▶ handling (the failure node runs) ──▶ done
//	running, failing, handling ──▶ stopped (because what contains it fails or is terminated) ──▶ done
//	running ──▶ done
type scope struct {
	workflow   *workflow
	id         aloft.NodeID // unique id of the node that contains it; empty: the root
	node       uint32       // its number; none: the root
	attempt    uint32       // the attempt of that node
	first      uint32       // number of the first node
	head, tail uint32       // the active nodes, linked, in the order in which they began
	active     uint32       // how many
	waiting    uint32       // nodes that are ready, held or to be skipped
	held       uint32       // those that are held: task nodes
	err        *core.ExecutionError
	failing    bool
	handling   bool
	stopped    bool
	done       bool
}

// node is one node of a scope. Its template is found by its distance from the scope's first node.
type node struct {
	created, started, updated, ended int64
	err                              *core.ExecutionError
	scope                            uint32
	missing                          uint32 // upstream nodes that have not succeeded
	attempt                          uint32 // the latest attempt; none: it has had none
	child                            uint32 // the scope inside it; none: none yet
	inputs, outputs                  uint32 // references
	next, prev                       uint32 // neighbours in the scope's list of active nodes
	phase                            uint8
	systemFailures                   uint8
	skip                             bool // an upstream node failed or was skipped
}

// attempt is one try of a task node.
type attempt struct {
	created, started, updated, ended int64
	due                              int64 // by engine: when it is over; else not before
	timeout                          int64 // how long it may run; 0: any time
	expires                          int64 // when it is ended: queued, if it has not begun by then; running, if it is not over; 0: never
	err                              *core.ExecutionError
	node                             uint32
	prev                             uint32 // the one before it; none: it is the first
	number                           uint32
	outputs                          uint32
	stop                             uint32 // why it is to be stopped, plus 1; 0: it is not
	phase                            uint8
	last                             bool // no other follows if the system fails it
	byEngine                         bool
	lost                             bool
}

// ref is an aloftv1.LiteralRef in a third of the space.
type ref struct {
	digest [sha256.Size]byte
	size   int64
	uri    string
}

// New is the state of an execution whose Create has not been consumed.
func New(id aloft.ExecutionID, g *Graph) *State {
	return &State{
		id: id, graph: g,
		outstanding: make(map[aloft.NodeID]uint32),
		decks:       make(map[uint32]string),
		expired:     make(map[uint32]*aloftv1.Failure),
		memory:      make(map[uint32]int64),
		outages:     make(map[uint32]outage),
		parked:      make(map[uint32]parking),
		offers:      make(map[uint32]string),
		renamed:     make(map[uint32]aloft.NodeID),
		ids:         make(map[uint64]struct{}),
		recent:      [4]uint32{},
		refs:        make([]ref, 1), // number 0 is no reference
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

// Check returns the invariants that the state violates. It looks at every node: for tests and for the doctor.
func (s *State) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var outstanding, timers int
	var tasks, held uint32
	active := make([]uint32, len(s.scopes))
	waiting := make([]uint32, len(s.scopes))
	misses := make([]uint32, len(s.nodes)) // upstream nodes that have not succeeded, counted again
	for i := range s.nodes {
		if !aloft.Succeeded(core.NodeExecution_Phase(s.nodes[i].phase)) {
			for _, d := range s.spec(uint32(i)).downstream {
				misses[s.scopes[s.nodes[i].scope].first+d]++
			}
		}
	}
	for i := range s.nodes {
		n, r := &s.nodes[i], s.Ref(uint32(i))
		c, spec := &s.scopes[n.scope], s.spec(uint32(i))
		phase := core.NodeExecution_Phase(n.phase)
		// P2: what has begun has only succeeded upstreams.
		missing := misses[i]
		if missing != n.missing {
			bad("node %s misses %d upstream nodes and counts %d", r.ID(), missing, n.missing)
		}
		if missing > 0 && phase != core.NodeExecution_UNDEFINED && phase != core.NodeExecution_SKIPPED {
			bad("node %s is %s before its upstream nodes have succeeded", r.ID(), phase)
		}
		live := 0
		for a := n.attempt; a != none; a = s.attempts[a].prev {
			if s.attempts[a].ended != 0 {
				continue
			}
			live++
			if s.attempts[a].byEngine {
				timers++
			} else if outstanding++; s.outstanding[r.ID()] != uint32(i) {
				bad("node %s has an attempt that nobody knows of", r.ID())
			}
		}
		isActive := phase == core.NodeExecution_QUEUED || phase == core.NodeExecution_RUNNING
		if _, parked := s.parked[uint32(i)]; parked {
			live++
		}
		if spec.kind == KindTask && isActive != (live == 1) {
			bad("node %s is %s with %d live attempts", r.ID(), phase, live)
		}
		if isActive {
			active[n.scope]++
			if spec.kind == KindTask {
				tasks++
			}
			if spec.kind == KindWorkflow && n.child == none {
				bad("node %s is %s without a scope", r.ID(), phase)
			}
		}
		if phase == core.NodeExecution_UNDEFINED && (n.skip && c.runs() || s.mayBegin(uint32(i))) {
			waiting[n.scope]++
		}
		if spec.kind == KindTask && s.mayBegin(uint32(i)) {
			held++
		}
		if aloft.Terminal(phase) != (n.ended != 0) {
			bad("node %s is %s and its end is %d", r.ID(), phase, n.ended)
		}
		if n.child != none && aloft.Terminal(phase) != s.scopes[n.child].done {
			bad("node %s is %s and its scope does not agree", r.ID(), phase)
		}
	}
	for i := range s.scopes {
		c := &s.scopes[i]
		if c.active != active[i] || !c.done && c.waiting != waiting[i] {
			bad("scope %q counts %d active and %d waiting nodes and has %d and %d", c.id, c.active, c.waiting, active[i], waiting[i])
		}
	}
	if outstanding != len(s.outstanding) || timers != s.timers || tasks != s.tasks {
		bad("counted %d attempts, %d timers, %d tasks; found %d, %d, %d", len(s.outstanding), s.timers, s.tasks, outstanding, timers, tasks)
	}
	if s.ended == 0 && held != s.waiting {
		bad("counted %d task nodes that wait for room; found %d", s.waiting, held)
	}
	switch {
	case s.ended != 0 && (outstanding > 0 || timers > 0 || tasks > 0):
		bad("the execution has ended with %d attempts and %d timers left", outstanding, timers)
	case s.ended == 0 && s.create != nil && outstanding == 0 && timers == 0 && len(s.parked) == 0 && !s.More():
		bad("the execution is stuck: nothing is outstanding and nothing is left to decide")
	}
	return errors.Join(errs...)
}

// Started says whether Create has been consumed.
func (s *State) Started() bool { return s.create != nil }

// Ended says whether the execution has ended.
func (s *State) Ended() bool { return s.ended != 0 }

// More says whether there is something to decide now without a message or a timer: Step with nothing.
func (s *State) More() bool {
	return s.ended == 0 && (!s.stops.empty() || !s.skips.empty() || !s.rested.empty() || !s.ready.empty() || !s.held.empty() && s.room())
}

// Waits is how many nodes wait for something outside of the execution that has a name.
func (s *State) Waits() int {
	if s.ended != 0 {
		return 0
	}
	return len(s.parked)
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
	for _, h := range []timerHeap{s.due, s.looks} {
		if len(h) > 0 && (due == 0 || h[0].at < due) {
			due = h[0].at
		}
	}
	if o := &s.overdue; len(o.timers) > 0 && (due == 0 || o.until < due) {
		due = o.until
	}
	return due
}

// expiry is when the execution fails for having lasted too long; 0: never, or it is over or ending already.
func (s *State) expiry() int64 {
	if s.create == nil || !s.scopes[0].runs() {
		return 0
	}
	if s.overdue.expiry {
		return s.overdue.until
	}
	return s.expires
}

// timer is when something is to be done about an attempt if nothing is heard of it; 0: never.
func (a *attempt) timer() int64 {
	switch {
	case a.ended != 0 || a.stop != 0:
		return 0
	case a.byEngine && (a.expires == 0 || a.due <= a.expires):
		return a.due
	}
	return a.expires
}

// room says whether one more task node may run.
func (s *State) room() bool {
	limit := s.create.GetMaxParallelism()
	return limit == 0 || s.tasks < limit
}

// spec is what the graph knows of a node.
func (s *State) spec(i uint32) *nodeSpec {
	c := &s.scopes[s.nodes[i].scope]
	return &c.workflow.nodes[i-c.first]
}

// runs says whether new nodes of the scope may begin, the failure node apart.
func (c *scope) runs() bool { return !c.failing && !c.stopped && !c.done }

// mayBegin says whether a node has everything that it waits for, but for room.
func (s *State) mayBegin(i uint32) bool {
	n := &s.nodes[i]
	c := &s.scopes[n.scope]
	if n.phase != uint8(core.NodeExecution_UNDEFINED) || n.missing > 0 || n.skip {
		return false
	}
	if i-c.first == c.workflow.failure {
		return c.handling && !c.stopped && !c.done
	}
	return c.runs()
}

// mayRetry says whether an active node may have another attempt.
func (s *State) mayRetry(i uint32) bool {
	c := &s.scopes[s.nodes[i].scope]
	if i-c.first == c.workflow.failure {
		return !c.stopped
	}
	return c.runs()
}

// succeeded says whether the scope's end-node has: then so have all others.
func (s *State) succeeded(c *scope) bool {
	return s.nodes[c.first+c.workflow.end].phase == uint8(core.NodeExecution_SUCCEEDED)
}

// nodeID is the unique id of a node.
func (s *State) nodeID(i uint32) aloft.NodeID {
	c := &s.scopes[s.nodes[i].scope]
	if c.node == none {
		return s.graph.ids[i-c.first]
	}
	if id, ok := s.renamed[i]; ok {
		return id
	}
	return aloft.UniqueNodeID(c.id, c.attempt, c.workflow.nodes[i-c.first].node.GetId())
}

// token is what an executor must show to have an outcome accepted. It follows from the execution's random seed.
func (s *State) token(i, attempt uint32) string {
	t := s.tokenOf(i, attempt)
	return string(t[:])
}

// tokenOf is the token without a place of its own in memory, for comparisons.
func (s *State) tokenOf(i, attempt uint32) (t [32]byte) {
	buf := make([]byte, 0, 128)
	buf = append(append(buf, s.create.GetSeed()...), 0)
	buf = append(append(buf, s.nodeID(i)...), 0)
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(buf, attempt))
	hex.Encode(t[:], sum[:16])
	return t
}

// intern keeps a reference and gives its number; 0: there is no map.
func (s *State) intern(r *aloftv1.LiteralRef) (uint32, error) {
	if len(r.GetDigest()) == 0 {
		return 0, nil
	}
	if len(r.GetDigest()) != sha256.Size {
		return 0, fmt.Errorf("a reference has a digest of %d bytes, not %d", len(r.GetDigest()), sha256.Size)
	}
	v := ref{digest: [sha256.Size]byte(r.GetDigest()), size: r.GetSize(), uri: r.GetUri()}
	for _, i := range s.recent {
		if i != 0 && s.refs[i] == v {
			return i, nil
		}
	}
	s.refs = append(s.refs, v)
	i := uint32(len(s.refs) - 1)
	s.recent[s.next] = i
	s.next = (s.next + 1) % uint8(len(s.recent))
	return i, nil
}

// ref is a kept reference as a message, which the caller must not change; nil: none.
func (s *State) ref(i uint32) *aloftv1.LiteralRef {
	if i == 0 {
		return nil
	}
	r := &s.refs[i]
	return &aloftv1.LiteralRef{Uri: r.uri, Digest: r.digest[:], Size: r.size}
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

// queue is first in, first out. Both ends are cheap and what was taken out is given back now and then.
type queue struct {
	items []uint32
	taken int
}

func (q *queue) push(i uint32) { q.items = append(q.items, i) }
func (q *queue) empty() bool   { return q.taken == len(q.items) }
func (q *queue) front() uint32 { return q.items[q.taken] }

func (q *queue) pop() {
	q.taken++
	switch {
	case q.taken == len(q.items):
		q.items, q.taken = q.items[:0], 0
	case q.taken >= 1024 && q.taken > len(q.items)/2:
		q.items, q.taken = q.items[:copy(q.items, q.items[q.taken:])], 0
	}
}

// timerHeap has the soonest timer first; of equal ones that of the older attempt, or node.
type timerHeap []timer

type timer struct {
	at int64
	of uint32 // an attempt; of looks: a node
}

func (a timer) before(b timer) bool { return a.at < b.at || a.at == b.at && a.of < b.of }

func (h *timerHeap) push(t timer) {
	*h = append(*h, t)
	for i := len(*h) - 1; i > 0; {
		up := (i - 1) / 2
		if !(*h)[i].before((*h)[up]) {
			return
		}
		(*h)[i], (*h)[up] = (*h)[up], (*h)[i]
		i = up
	}
}

func (h *timerHeap) pop() {
	last := len(*h) - 1
	(*h)[0] = (*h)[last]
	*h = (*h)[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if (*h)[child].before((*h)[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		(*h)[i], (*h)[least] = (*h)[least], (*h)[i]
		i = least
	}
}
