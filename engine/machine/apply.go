package machine

import (
	"errors"
	"fmt"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Codes of errors that the machine itself gives.
const (
	CodeNodeAborted      = "NodeAborted"       // a node that was active when what contains it failed or was terminated
	CodeTaskAborted      = "Task Aborted"      // its attempt; with the blank, as in Flyte
	CodeRetriesExhausted = "RetriesExhausted|" // before the code of the last attempt's error
	CodeAttemptLost      = "AttemptLost"       // nobody knows how the attempt ended
	CodeUnknown          = "Unknown"           // a failure that does not say what it is
)

// Apply folds one event. It refuses what cannot have happened, and leaves the state unusable then. The state keeps the
// event's Create and errors, nothing else of it: they are not to be changed afterwards.
func (s *State) Apply(e *aloftv1.Event) error {
	if err := s.apply(e); err != nil {
		return fmt.Errorf("apply %s: %w", describe(e), err)
	}
	s.texted += texts(e)
	s.settle()
	return nil
}

func (s *State) apply(e *aloftv1.Event) error {
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
	switch k := e.GetKind().(type) {
	case *aloftv1.Event_ExecutionFailing:
		if s.terminated {
			return errors.New("the execution is being terminated")
		}
		s.phase, s.err, s.changed = core.WorkflowExecution_FAILING, k.ExecutionFailing.GetError(), at
		return s.scopeFailing(0, k.ExecutionFailing.GetError())
	case *aloftv1.Event_ScopeOpened:
		return s.scopeOpened(at, k.ScopeOpened)
	case *aloftv1.Event_ScopeFailing:
		i := k.ScopeFailing.GetNode()
		if err := s.expectNode(i, KindWorkflow); err != nil {
			return err
		}
		if s.nodes[i].child == none {
			return errors.New("the node has no scope")
		}
		return s.scopeFailing(s.nodes[i].child, k.ScopeFailing.GetError())
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

// ---- the execution

func (s *State) executionStarted(at int64, e *aloftv1.ExecutionStarted) error {
	if s.create != nil {
		return errors.New("the execution has started before")
	}
	if s.terminated {
		return errors.New("the execution is being terminated")
	}
	if e.GetCreate() == nil {
		return errors.New("it does not say what to run")
	}
	s.create, s.phase, s.started, s.changed = e.GetCreate(), core.WorkflowExecution_RUNNING, at, at
	s.expires = e.GetExpiresAt()
	s.openScope(s.graph.root, none, 0)
	return nil
}

func (s *State) terminateRequested(at int64, e *aloftv1.TerminateRequested) error {
	if s.terminated {
		return errors.New("the execution is being terminated already")
	}
	s.terminated, s.cause, s.principal = true, e.GetCause(), e.GetPrincipal()
	s.phase, s.changed = core.WorkflowExecution_ABORTING, at
	if s.create != nil {
		s.scopes[0].stopped = true
		s.halt(0)
		s.rest(0)
	}
	return nil
}

func (s *State) executionEnded(at int64, e *aloftv1.ExecutionEnded) error {
	if len(s.outstanding) > 0 || s.timers > 0 {
		return fmt.Errorf("%d attempts and %d timers have not ended", len(s.outstanding), s.timers)
	}
	var failing, succeeded bool
	if s.create != nil {
		c := &s.scopes[0]
		if c.active > 0 || c.waiting > 0 {
			return fmt.Errorf("%d nodes are active and %d wait", c.active, c.waiting)
		}
		failing, succeeded = c.failing, s.succeeded(c)
		c.done = true
	}
	var right bool
	switch e.GetPhase() {
	case core.WorkflowExecution_SUCCEEDED:
		right = succeeded && !failing && !s.terminated
	case core.WorkflowExecution_FAILED:
		right = failing && !s.terminated && e.GetError() != nil
	case core.WorkflowExecution_ABORTED:
		right = s.terminated
	}
	if !right {
		return fmt.Errorf("it cannot be %s (succeeded %t, failing %t, terminated %t)", e.GetPhase(), succeeded, failing, s.terminated)
	}
	outputs, err := s.intern(e.GetOutputs())
	if err != nil {
		return err
	}
	s.phase, s.outputs, s.changed, s.ended = e.GetPhase(), outputs, at, at
	if e.GetError() != nil {
		s.err = e.GetError()
	}
	return nil
}

// ---- scopes

func (s *State) openScope(w *workflow, parent, attempt uint32) {
	c := scope{
		workflow: w, node: parent, attempt: attempt,
		first: uint32(len(s.nodes)), head: none, tail: none,
	}
	number := uint32(len(s.scopes))
	if parent != none {
		c.id = s.nodeID(parent)
		s.nodes[parent].child = number
	}
	s.scopes = append(s.scopes, c)
	for i := range w.nodes {
		s.nodes = append(s.nodes, node{
			scope: number, missing: w.nodes[i].upstream,
			attempt: none, child: none, next: none, prev: none,
		})
		if parent == none {
			continue // the graph has made their ids distinct
		}
		id, changed := distinctID(c.id, attempt, w.nodes[i].node.GetId(), func(id aloft.NodeID) bool {
			_, taken := s.ids[hash(id)]
			_, rooted := s.graph.taken[id]
			return taken || rooted
		})
		s.ids[hash(id)] = struct{}{}
		if changed {
			s.renamed[c.first+uint32(i)] = id
		}
	}
	for i := range w.nodes {
		if s.mayBegin(c.first + uint32(i)) { // start-node
			s.makeReady(c.first + uint32(i))
		}
	}
}

func (s *State) scopeOpened(at int64, e *aloftv1.ScopeOpened) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindWorkflow); err != nil {
		return err
	}
	n := &s.nodes[i]
	if n.phase != uint8(core.NodeExecution_RUNNING) || n.child != none {
		return fmt.Errorf("the node is %s or has a scope", s.Ref(i).phase())
	}
	n.updated = at
	s.openScope(s.spec(i).sub, i, e.GetAttempt())
	return nil
}

func (s *State) scopeFailing(number uint32, cause *core.ExecutionError) error {
	c := &s.scopes[number]
	if c.failing || c.stopped || c.done {
		return errors.New("the scope is over or ending")
	}
	if cause == nil {
		return errors.New("it has no error")
	}
	c.failing, c.err = true, cause
	s.halt(number)
	s.rest(number)
	return nil
}

// halt marks for stopping all that is active in a scope and in the scopes inside it, and forgets what has not begun.
func (s *State) halt(number uint32) {
	c := &s.scopes[number]
	s.waiting -= c.held
	c.waiting, c.held = 0, 0
	for i := c.head; i != none; i = s.nodes[i].next {
		n := &s.nodes[i]
		if n.child != none {
			s.scopes[n.child].stopped = true
			s.halt(n.child)
			s.rest(n.child)
		} else if _, parked := s.parked[i]; parked || n.attempt != none {
			s.stops.push(i)
		}
	}
}

// rest notes that a scope has come to rest, unless it has not: the failure node runs then, once.
func (s *State) rest(number uint32) {
	c := &s.scopes[number]
	switch {
	case c.done || c.active > 0 || c.waiting > 0:
	case c.failing && !c.stopped && !c.handling && c.workflow.failure != none:
		c.handling = true
		s.makeReady(c.first + c.workflow.failure)
	default:
		s.rested.push(number)
	}
}

// ---- nodes

func (s *State) expectNode(i uint32, kinds ...Kind) error {
	if uint64(i) >= uint64(len(s.nodes)) {
		return fmt.Errorf("there are %d nodes", len(s.nodes))
	}
	for _, k := range kinds {
		if s.spec(i).kind == k {
			return nil
		}
	}
	return fmt.Errorf("a node of kind %d has no such event", s.spec(i).kind)
}

// makeReady puts a node that may begin in line.
func (s *State) makeReady(i uint32) {
	c := &s.scopes[s.nodes[i].scope]
	c.waiting++
	if s.spec(i).kind == KindTask {
		c.held++
		s.waiting++
		s.held.push(i)
	} else {
		s.ready.push(i)
	}
}

// begin takes a node out of the line: this is its first event.
func (s *State) begin(i uint32, at int64) error {
	if !s.mayBegin(i) {
		n := &s.nodes[i]
		return fmt.Errorf("the node is %s, waits for %d upstream nodes, or its scope is ending", s.Ref(i).phase(), n.missing)
	}
	s.leave(i)
	s.nodes[i].created = at
	return nil
}

func (s *State) leave(i uint32) {
	c := &s.scopes[s.nodes[i].scope]
	c.waiting--
	if s.spec(i).kind == KindTask {
		c.held--
		s.waiting--
	}
}

func (s *State) nodeQueued(at int64, e *aloftv1.NodeQueued) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindEnd, KindTask, KindWorkflow); err != nil {
		return err
	}
	isTask := s.spec(i).kind == KindTask
	if isTask && !s.room() {
		return fmt.Errorf("%d task nodes run already", s.tasks)
	}
	if err := s.begin(i, at); err != nil {
		return err
	}
	inputs, err := s.intern(e.GetInputs())
	if err != nil {
		return err
	}
	n := &s.nodes[i]
	n.phase, n.inputs, n.updated = uint8(core.NodeExecution_QUEUED), inputs, at
	c := &s.scopes[n.scope]
	n.prev, n.next = c.tail, none
	if c.tail == none {
		c.head = i
	} else {
		s.nodes[c.tail].next = i
	}
	c.tail = i
	c.active++
	if isTask {
		s.tasks++
	}
	return nil
}

func (s *State) nodeRunning(at int64, e *aloftv1.NodeRunning) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindTask, KindWorkflow); err != nil {
		return err
	}
	n := &s.nodes[i]
	if n.phase != uint8(core.NodeExecution_QUEUED) {
		return fmt.Errorf("the node is %s", s.Ref(i).phase())
	}
	n.phase, n.started, n.updated = uint8(core.NodeExecution_RUNNING), at, at
	if e.GetStartedAt() != 0 {
		n.started = e.GetStartedAt()
	}
	return nil
}

// end closes a node. A node that was active leaves its scope's list.
func (s *State) end(i uint32, at int64, phase core.NodeExecution_Phase, cause *core.ExecutionError) {
	n := &s.nodes[i]
	if n.isActive() {
		c := &s.scopes[n.scope]
		if n.prev == none {
			c.head = n.next
		} else {
			s.nodes[n.prev].next = n.next
		}
		if n.next == none {
			c.tail = n.prev
		} else {
			s.nodes[n.next].prev = n.prev
		}
		n.next, n.prev = none, none
		c.active--
		if s.spec(i).kind == KindTask {
			s.tasks--
		}
	}
	if n.child != none {
		s.scopes[n.child].done = true
	}
	n.phase, n.err, n.updated, n.ended = uint8(phase), cause, at, at
	delete(s.parked, i)
}

// isActive says whether the node has begun and not ended.
func (n *node) isActive() bool {
	return n.phase == uint8(core.NodeExecution_QUEUED) || n.phase == uint8(core.NodeExecution_RUNNING)
}

// expectOver refuses the end of a node in which something still goes on.
func (s *State) expectOver(i uint32) error {
	n := &s.nodes[i]
	if !n.isActive() {
		return fmt.Errorf("the node is %s", s.Ref(i).phase())
	}
	if n.attempt != none && s.attempts[n.attempt].ended == 0 {
		return fmt.Errorf("attempt %d has not ended", s.attempts[n.attempt].number)
	}
	if n.child != none {
		if c := &s.scopes[n.child]; c.active > 0 || c.waiting > 0 {
			return fmt.Errorf("%d nodes inside are active and %d wait", c.active, c.waiting)
		}
	}
	return nil
}

func (s *State) nodeSucceeded(at int64, e *aloftv1.NodeSucceeded) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindStart, KindEnd, KindTask, KindWorkflow); err != nil {
		return err
	}
	n, spec := &s.nodes[i], s.spec(i)
	if spec.kind == KindStart {
		if err := s.begin(i, at); err != nil {
			return err
		}
	} else if err := s.expectOver(i); err != nil {
		return err
	}
	switch {
	case spec.kind == KindTask && (n.attempt == none || s.attempts[n.attempt].phase != uint8(core.TaskExecution_SUCCEEDED)):
		return errors.New("its last attempt has not succeeded")
	case spec.kind == KindWorkflow && (n.child == none || s.scopes[n.child].failing || !s.succeeded(&s.scopes[n.child])):
		return errors.New("the graph inside has not succeeded")
	}
	return s.succeed(i, at, core.NodeExecution_SUCCEEDED, e.GetOutputs())
}

// succeed ends a node with outputs and lets begin what waited for it alone.
func (s *State) succeed(i uint32, at int64, phase core.NodeExecution_Phase, ref *aloftv1.LiteralRef) error {
	outputs, err := s.intern(ref)
	if err != nil {
		return err
	}
	n := &s.nodes[i]
	n.outputs = outputs
	s.end(i, at, phase, nil)
	first := s.scopes[n.scope].first
	for _, d := range s.spec(i).downstream {
		if s.nodes[first+d].missing--; s.mayBegin(first + d) {
			s.makeReady(first + d)
		}
	}
	s.rest(n.scope)
	return nil
}

func (s *State) nodeFailed(at int64, e *aloftv1.NodeFailed) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindEnd, KindTask, KindWorkflow); err != nil {
		return err
	}
	if e.GetError() == nil {
		return errors.New("it has no error")
	}
	n := &s.nodes[i]
	if n.phase == uint8(core.NodeExecution_UNDEFINED) { // its inputs could not be resolved
		if err := s.begin(i, at); err != nil {
			return err
		}
	} else if err := s.expectOver(i); err != nil {
		return err
	}
	if n.attempt != none && s.attempts[n.attempt].phase == uint8(core.TaskExecution_SUCCEEDED) {
		return errors.New("its last attempt has succeeded")
	}
	s.end(i, at, core.NodeExecution_FAILED, e.GetError())
	if c := &s.scopes[n.scope]; c.err == nil { // when the failure node fails there is one
		c.err = e.GetError()
	}
	s.skipDownstream(i)
	s.rest(n.scope)
	return nil
}

func (s *State) nodeSkipped(at int64, e *aloftv1.NodeSkipped) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindEnd, KindTask, KindWorkflow); err != nil {
		return err
	}
	n := &s.nodes[i]
	if n.phase != uint8(core.NodeExecution_UNDEFINED) || !n.skip || !s.scopes[n.scope].runs() {
		return fmt.Errorf("the node is %s, nothing before it failed, or its scope is ending", s.Ref(i).phase())
	}
	s.scopes[n.scope].waiting--
	n.created = at
	s.end(i, at, core.NodeExecution_SKIPPED, nil)
	s.skipDownstream(i)
	s.rest(n.scope)
	return nil
}

// skipDownstream marks what can never start, where the policy is to go on with the rest.
func (s *State) skipDownstream(i uint32) {
	c := &s.scopes[s.nodes[i].scope]
	if !s.graph.goOn || !c.runs() {
		return
	}
	for _, d := range s.spec(i).downstream {
		if n := &s.nodes[c.first+d]; !n.skip {
			n.skip = true
			c.waiting++
			s.skips.push(c.first + d)
		}
	}
}

func (s *State) nodeAborted(at int64, e *aloftv1.NodeAborted) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindTask, KindWorkflow); err != nil {
		return err
	}
	if err := s.expectOver(i); err != nil {
		return err
	}
	if c := &s.scopes[s.nodes[i].scope]; !c.failing && !c.stopped {
		return errors.New("its scope is not ending")
	}
	s.end(i, at, core.NodeExecution_ABORTED, &core.ExecutionError{Code: CodeNodeAborted, Message: e.GetReason()})
	s.rest(s.nodes[i].scope)
	return nil
}

// ---- attempts

func (s *State) attemptScheduled(at int64, e *aloftv1.AttemptScheduled) error {
	i := e.GetNode()
	if err := s.expectNode(i, KindTask); err != nil {
		return err
	}
	n, spec := &s.nodes[i], s.spec(i)
	if !n.isActive() || !s.mayRetry(i) {
		return fmt.Errorf("the node is %s, or its scope is ending", s.Ref(i).phase())
	}
	var number uint32
	if n.attempt != none {
		last := &s.attempts[n.attempt]
		if last.ended == 0 || last.phase == uint8(core.TaskExecution_SUCCEEDED) {
			return fmt.Errorf("attempt %d is %s", last.number, core.TaskExecution_Phase(last.phase))
		}
		number = last.number + 1
	}
	if e.GetAttempt() != number {
		return fmt.Errorf("the next attempt is %d", number)
	}
	if e.GetByEngine() != (spec.byEngine != "") {
		return fmt.Errorf("tasks of type %q are run by somebody else", spec.task.GetType())
	}
	if t := s.tokenOf(i, number); e.GetToken() != string(t[:]) {
		return errors.New("its token does not follow from the seed")
	}
	a := attempt{
		created: at, updated: at, due: e.GetNotBefore(),
		node: i, prev: n.attempt, number: number,
		phase: uint8(core.TaskExecution_QUEUED), byEngine: e.GetByEngine(),
		timeout: e.GetTimeout(), expires: e.GetExpiresAt(), last: e.GetLast(),
	}
	n.attempt, n.updated = uint32(len(s.attempts)), at
	if e.GetMemory() > 0 {
		s.memory[n.attempt] = e.GetMemory()
	}
	if e.GetCheckpoint() != "" {
		s.offers[i] = e.GetCheckpoint()
	}
	delete(s.parked, i)
	if a.byEngine {
		a.phase, a.started, a.due = uint8(core.TaskExecution_RUNNING), at, e.GetDueAt()
		s.timers++
	} else {
		s.outstanding[s.nodeID(i)] = i
	}
	if at := a.timer(); at != 0 || a.byEngine {
		s.due.push(timer{at: at, of: n.attempt})
	}
	s.attempts = append(s.attempts, a)
	return nil
}

// current is the attempt that an event means: the last one of its node, which must not have ended.
func (s *State) current(i, number uint32) (*attempt, error) {
	if err := s.expectNode(i, KindTask); err != nil {
		return nil, err
	}
	n := &s.nodes[i]
	if n.attempt == none || s.attempts[n.attempt].number != number || s.attempts[n.attempt].ended != 0 {
		return nil, errors.New("it is not the current attempt, or has ended")
	}
	return &s.attempts[n.attempt], nil
}

func (s *State) attemptRunning(at int64, e *aloftv1.AttemptRunning) error {
	a, err := s.current(e.GetNode(), e.GetAttempt())
	if err != nil {
		return err
	}
	if a.phase != uint8(core.TaskExecution_QUEUED) {
		return fmt.Errorf("it is %s", core.TaskExecution_Phase(a.phase))
	}
	a.phase, a.started, a.updated = uint8(core.TaskExecution_RUNNING), at, at
	if e.GetStartedAt() != 0 {
		a.started = e.GetStartedAt()
	}
	a.expires = e.GetExpiresAt()
	if at := a.timer(); at != 0 {
		s.due.push(timer{at: at, of: s.nodes[a.node].attempt})
	}
	return nil
}

func (s *State) attemptStopRequested(at int64, e *aloftv1.AttemptStopRequested) error {
	a, err := s.current(e.GetNode(), e.GetAttempt())
	if err != nil {
		return err
	}
	expired := e.GetFailure() != nil
	if a.byEngine || a.stop != 0 || e.GetReason() == "" || !expired && s.mayRetry(a.node) {
		return errors.New("it has been asked to stop, needs not be asked, or there is no reason")
	}
	if expired {
		if e.GetFailure().GetError() == nil || a.expires == 0 || at < a.expires {
			return fmt.Errorf("its time is not over before %d, or there is no error", a.expires)
		}
		s.expired[s.nodes[a.node].attempt] = e.GetFailure()
	}
	a.stop, a.updated = s.text(e.GetReason())+1, at
	return nil
}

func (s *State) attemptEnded(at int64, e *aloftv1.AttemptEnded) error {
	i := e.GetNode()
	a, err := s.current(i, e.GetAttempt())
	if err != nil {
		return err
	}
	phase := core.TaskExecution_FAILED
	switch r := e.GetResult().(type) {
	case *aloftv1.AttemptEnded_Outputs:
		phase = core.TaskExecution_SUCCEEDED
		if a.outputs, err = s.intern(r.Outputs); err != nil {
			return err
		}
	case *aloftv1.AttemptEnded_Failure:
		if a.err = r.Failure.GetError(); a.err == nil {
			return errors.New("it has no error")
		}
	case *aloftv1.AttemptEnded_Lost:
		a.lost, a.err = true, lostError(r.Lost)
	case *aloftv1.AttemptEnded_Stopped:
		phase = core.TaskExecution_ABORTED
		a.err = &core.ExecutionError{Code: CodeTaskAborted, Message: r.Stopped}
	default:
		return errors.New("it has no result")
	}
	a.phase, a.updated, a.ended = uint8(phase), at, at
	if e.GetStartedAt() != 0 {
		a.started = e.GetStartedAt()
	}
	if e.GetEndedAt() != 0 {
		a.ended = e.GetEndedAt()
	}
	if e.GetDeckUri() != "" {
		s.decks[s.nodes[i].attempt] = e.GetDeckUri()
	}
	if f := e.GetFailure(); f.GetService() != "" {
		o := s.outages[i].before(f)
		s.nodes[i].systemFailures -= uint8(s.outages[i].charged - o.charged)
		switch {
		case e.GetBudget() == aloftv1.AttemptEnded_SYSTEM:
			o.charged, o.at, o.service, o.wellAt = o.charged+1, at, f.GetService(), f.GetServiceWellAt()
		case spared(f):
			o.free++
		}
		s.outages[i] = o
	}
	if e.GetBudget() == aloftv1.AttemptEnded_SYSTEM {
		s.nodes[i].systemFailures++
	}
	s.nodes[i].updated = at
	delete(s.expired, s.nodes[i].attempt)
	if a.byEngine {
		s.timers--
	} else {
		delete(s.outstanding, s.nodeID(i))
	}
	return nil
}

// lostError is what is known of an attempt of which nothing is known.
func lostError(reason string) *core.ExecutionError {
	return &core.ExecutionError{Code: CodeAttemptLost, Message: reason, Kind: core.ExecutionError_SYSTEM}
}

// settle drops what has become pointless from the fronts of the queues, so that what is there is what is to be done.
func (s *State) settle() {
	for !s.ready.empty() && !s.mayBegin(s.ready.front()) {
		s.ready.pop()
	}
	for !s.held.empty() && !s.mayBegin(s.held.front()) {
		s.held.pop()
	}
	for !s.skips.empty() {
		n := &s.nodes[s.skips.front()]
		if n.phase == uint8(core.NodeExecution_UNDEFINED) && s.scopes[n.scope].runs() {
			break
		}
		s.skips.pop()
	}
	for !s.stops.empty() {
		i := s.stops.front()
		if _, parked := s.parked[i]; parked {
			break
		}
		if at := s.nodes[i].attempt; at != none && s.attempts[at].ended == 0 && s.attempts[at].stop == 0 {
			break
		}
		s.stops.pop()
	}
	for !s.rested.empty() {
		if c := &s.scopes[s.rested.front()]; !c.done && c.active == 0 && c.waiting == 0 {
			break
		}
		s.rested.pop()
	}
	// An attempt has one timer after the other: those before its present one are in here, too.
	for len(s.due) > 0 && s.attempts[s.due[0].of].timer() != s.due[0].at {
		s.due.pop()
	}
	for len(s.looks) > 0 && s.parked[s.looks[0].of].until != s.looks[0].at {
		s.looks.pop()
	}
}

// hash tells unique ids apart (64-bit FNV-1a). Two ids with one hash cost one of them its plain name, nothing more.
func hash(id aloft.NodeID) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return h
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
