package machine

import (
	"errors"
	"fmt"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// Kind is what a node does.
type Kind uint8

const (
	KindStart    Kind = iota + 1 // start-node: its outputs are the inputs of its scope
	KindEnd                      // end-node: its inputs are the outputs of its scope
	KindTask                     // one task
	KindWorkflow                 // a sub-workflow: a graph of its own
	KindBranch                   // a conditional: one of its arms
)

// abilities are what the nodes of a kind can do, and so which events they can have. A kind is one row of the table below, one
// arm of each switch over kinds (start, by package machine; the record, by package engine), and, where it does what no other
// kind does, the file of its name.
type abilities struct {
	queue   bool // it is queued with its inputs, and fails if they cannot be resolved; else it succeeds at once
	run     bool // it takes time, and is aborted if what contains it ends meanwhile
	room    bool // it is one of those that max_parallelism counts: from when it is queued until it ends, also while it is parked
	attempt bool // it has attempts
	scope   bool // it opens a scope
	arms    bool // its scope is that of an arm
	wait    bool // it can be parked
	cache   bool // the catalog can have its results
	recover bool // an execution that is recovered can have them
}

var kinds = [...]abilities{
	KindStart:    {},
	KindEnd:      {queue: true},
	KindTask:     {queue: true, run: true, room: true, attempt: true, wait: true, cache: true, recover: true},
	KindWorkflow: {queue: true, run: true, scope: true, recover: true},
	KindBranch:   {queue: true, run: true, scope: true, arms: true, recover: true},
}

// can is what nodes of the kind can do.
func (k Kind) can() *abilities { return &kinds[k] }

// expect refuses an event of a node that does not exist, or whose kind cannot have it. What the event is about is handed in.
func (s *State) expect(e *aloftv1.Event, subject subject, i uint32) error {
	if subject != aNode && subject != anAttempt {
		return nil
	}
	if uint64(i) >= uint64(len(s.homes)) {
		return fmt.Errorf("there are %d nodes", len(s.homes))
	}
	if s.scopeOf(i).done {
		return errors.New("the scope of the node is over")
	}
	kind := s.spec(i).kind
	can, expected := kind.can(), true
	switch e.GetKind().(type) {
	case *aloftv1.Event_NodeSucceeded:
	case *aloftv1.Event_NodeQueued, *aloftv1.Event_NodeFailed, *aloftv1.Event_NodeSkipped:
		expected = can.queue
	case *aloftv1.Event_NodeRunning, *aloftv1.Event_NodeAborted:
		expected = can.run
	case *aloftv1.Event_ScopeOpened:
		expected = can.scope && !can.arms
	case *aloftv1.Event_ArmTaken:
		expected = can.arms
	case *aloftv1.Event_ScopeFailing:
		expected = can.scope
	case *aloftv1.Event_NodeParked:
		expected = can.wait
	case *aloftv1.Event_NodeCached:
		expected = can.cache
	case *aloftv1.Event_NodeRecovered:
		expected = can.recover
	default:
		expected = subject == anAttempt && can.attempt
	}
	if !expected {
		return fmt.Errorf("a node of kind %d has no such event", kind)
	}
	return nil
}
