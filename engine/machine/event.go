package machine

import (
	"cmp"
	"slices"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// An event is three messages inside each other. Those that every node has are made in one piece: a run of many nodes is
// mostly the making of events.

func nodeQueued(at int64, i uint32, inputs *aloftv1.LiteralRef, cache *aloftv1.CacheLookup) *aloftv1.Event {
	x := &struct {
		event aloftv1.Event
		kind  aloftv1.Event_NodeQueued
		body  aloftv1.NodeQueued
	}{}
	x.event.At, x.event.Kind, x.kind.NodeQueued = at, &x.kind, &x.body
	x.body.Node, x.body.Inputs, x.body.Cache = i, inputs, cache
	return &x.event
}

func nodeRunning(at int64, i uint32, started int64) *aloftv1.Event {
	x := &struct {
		event aloftv1.Event
		kind  aloftv1.Event_NodeRunning
		body  aloftv1.NodeRunning
	}{}
	x.event.At, x.event.Kind, x.kind.NodeRunning = at, &x.kind, &x.body
	x.body.Node = i
	if started != at {
		x.body.StartedAt = started
	}
	return &x.event
}

func nodeSucceeded(at int64, i uint32, outputs *aloftv1.LiteralRef, deck string) *aloftv1.Event {
	x := &struct {
		event aloftv1.Event
		kind  aloftv1.Event_NodeSucceeded
		body  aloftv1.NodeSucceeded
	}{}
	x.event.At, x.event.Kind, x.kind.NodeSucceeded = at, &x.kind, &x.body
	x.body.Node, x.body.Outputs, x.body.DeckUri = i, outputs, deck
	return &x.event
}

func nodeCached(at int64, i uint32, inputs *aloftv1.LiteralRef, c CacheAnswer) *aloftv1.Event {
	x := &struct {
		event aloftv1.Event
		kind  aloftv1.Event_NodeCached
		body  aloftv1.NodeCached
	}{}
	x.event.At, x.event.Kind, x.kind.NodeCached = at, &x.kind, &x.body
	x.body.Node, x.body.Inputs, x.body.Outputs, x.body.Cache = i, inputs, c.Outputs, c.Lookup
	return &x.event
}

func newAttemptScheduled(at int64, i, number uint32, token string) (*aloftv1.Event, *aloftv1.AttemptScheduled) {
	x := &struct {
		event aloftv1.Event
		kind  aloftv1.Event_AttemptScheduled
		body  aloftv1.AttemptScheduled
	}{}
	x.event.At, x.event.Kind, x.kind.AttemptScheduled = at, &x.kind, &x.body
	x.body.Node, x.body.Attempt, x.body.Token = i, number, token
	return &x.event, &x.body
}

// attemptEnded is such an event with room for the commonest result.
type attemptEnded struct {
	event   aloftv1.Event
	kind    aloftv1.Event_AttemptEnded
	body    aloftv1.AttemptEnded
	success aloftv1.AttemptEnded_Outputs
	nothing aloftv1.LiteralRef // outputs of a task that has none
}

func newAttemptEnded(at int64, i, number uint32) *attemptEnded {
	x := &attemptEnded{}
	x.event.At, x.event.Kind, x.kind.AttemptEnded = at, &x.kind, &x.body
	x.body.Node, x.body.Attempt = i, number
	return x
}

func nodeFailed(at int64, i uint32, cause *core.ExecutionError) *aloftv1.Event {
	return &aloftv1.Event{At: at, Kind: &aloftv1.Event_NodeFailed{NodeFailed: &aloftv1.NodeFailed{Node: i, Error: cause}}}
}

func nodeSkipped(at int64, i uint32) *aloftv1.Event {
	return &aloftv1.Event{At: at, Kind: &aloftv1.Event_NodeSkipped{NodeSkipped: &aloftv1.NodeSkipped{Node: i}}}
}

func nodeAborted(at int64, i uint32, reason string) *aloftv1.Event {
	return &aloftv1.Event{At: at, Kind: &aloftv1.Event_NodeAborted{NodeAborted: &aloftv1.NodeAborted{Node: i, Reason: reason}}}
}

// AttemptRef names an attempt by the number of its node.
type AttemptRef struct {
	Node    uint32
	Attempt uint32
}

// subject is what an event is about.
type subject uint8

const (
	nothingKnown subject = iota // events of a later release
	theExecution
	aNode
	anAttempt
)

// subjectOf is what an event is about. The node is that of the attempt too.
func subjectOf(e *aloftv1.Event) (subject, AttemptRef) {
	node := func(i uint32) (subject, AttemptRef) { return aNode, AttemptRef{Node: i} }
	attempt := func(i, number uint32) (subject, AttemptRef) { return anAttempt, AttemptRef{Node: i, Attempt: number} }
	switch k := e.GetKind().(type) {
	case *aloftv1.Event_ExecutionStarted, *aloftv1.Event_TerminateRequested, *aloftv1.Event_ExecutionFailing, *aloftv1.Event_ExecutionEnded:
		return theExecution, AttemptRef{}
	case *aloftv1.Event_ScopeOpened:
		return node(k.ScopeOpened.GetNode())
	case *aloftv1.Event_ScopeFailing:
		return node(k.ScopeFailing.GetNode())
	case *aloftv1.Event_ArmTaken:
		return node(k.ArmTaken.GetNode())
	case *aloftv1.Event_NodeQueued:
		return node(k.NodeQueued.GetNode())
	case *aloftv1.Event_NodeRunning:
		return node(k.NodeRunning.GetNode())
	case *aloftv1.Event_NodeSucceeded:
		return node(k.NodeSucceeded.GetNode())
	case *aloftv1.Event_NodeFailed:
		return node(k.NodeFailed.GetNode())
	case *aloftv1.Event_NodeSkipped:
		return node(k.NodeSkipped.GetNode())
	case *aloftv1.Event_NodeAborted:
		return node(k.NodeAborted.GetNode())
	case *aloftv1.Event_NodeCached:
		return node(k.NodeCached.GetNode())
	case *aloftv1.Event_NodeRecovered:
		return node(k.NodeRecovered.GetNode())
	case *aloftv1.Event_NodeParked:
		return node(k.NodeParked.GetNode())
	case *aloftv1.Event_AttemptScheduled:
		return attempt(k.AttemptScheduled.GetNode(), k.AttemptScheduled.GetAttempt())
	case *aloftv1.Event_AttemptRunning:
		return attempt(k.AttemptRunning.GetNode(), k.AttemptRunning.GetAttempt())
	case *aloftv1.Event_AttemptStopRequested:
		return attempt(k.AttemptStopRequested.GetNode(), k.AttemptStopRequested.GetAttempt())
	case *aloftv1.Event_AttemptEnded:
		return attempt(k.AttemptEnded.GetNode(), k.AttemptEnded.GetAttempt())
	}
	return nothingKnown, AttemptRef{}
}

// Change is what the events of one entry did to one node: its record and those of the attempts are to be written. What the state
// keeps of them (State.Node, State.Attempt) is not repeated here.
type Change struct {
	Node     uint32
	Inputs   *aloftv1.LiteralRef  // that became known; nil: none, or they were before
	Outputs  *aloftv1.LiteralRef  // likewise
	Cache    *aloftv1.CacheLookup // what the catalog said; nil: it was not asked
	DeckURI  string               // taken over with the results of another execution
	Attempts []AttemptChange      // in order of their numbers, each once
}

// AttemptChange is what the events of one entry did to one attempt.
type AttemptChange struct {
	Attempt uint32
	Ended   *aloftv1.AttemptEnded // nil: it has not ended in this entry
}

// Changes are what events did to nodes, in order of their numbers, and whether they changed the execution's own record: its phase,
// times, error, outputs or abort cause.
func Changes(events []*aloftv1.Event) (nodes []Change, execution bool) {
	type about struct {
		AttemptRef
		event   int
		attempt bool
	}
	all := make([]about, 0, len(events))
	attempts := 0
	for i, e := range events {
		switch subject, r := subjectOf(e); subject {
		case theExecution:
			execution = true
		case aNode, anAttempt:
			all = append(all, about{r, i, subject == anAttempt})
			if subject == anAttempt {
				attempts++
			}
		case nothingKnown:
		}
	}
	slices.SortFunc(all, func(a, b about) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.event, b.event)) })
	nodes = make([]Change, 0, len(all)/2)
	room := make([]AttemptChange, 0, attempts) // one piece for all of them
	for i, x := range all {
		if i == 0 || all[i-1].Node != x.Node {
			nodes = append(nodes, Change{Node: x.Node})
		}
		c := &nodes[len(nodes)-1]
		if n := len(c.Attempts); x.attempt && (n == 0 || c.Attempts[n-1].Attempt != x.Attempt) { // one follows the other
			room = append(room, AttemptChange{Attempt: x.Attempt})
			c.Attempts = room[len(room)-n-1:]
		}
		c.add(events[x.event])
	}
	return nodes, execution
}

func (c *Change) add(e *aloftv1.Event) {
	switch k := e.GetKind().(type) {
	case *aloftv1.Event_NodeQueued:
		c.Inputs, c.Cache = k.NodeQueued.GetInputs(), k.NodeQueued.GetCache()
	case *aloftv1.Event_NodeCached:
		if k.NodeCached.GetInputs() != nil { // else it was queued in this entry or before
			c.Inputs = k.NodeCached.GetInputs()
		}
		c.Outputs, c.Cache = k.NodeCached.GetOutputs(), k.NodeCached.GetCache()
	case *aloftv1.Event_NodeRecovered:
		r := k.NodeRecovered
		c.Inputs, c.Outputs, c.Cache, c.DeckURI = r.GetInputs(), r.GetOutputs(), r.GetCache(), r.GetDeckUri()
	case *aloftv1.Event_NodeSucceeded:
		c.Outputs = k.NodeSucceeded.GetOutputs()
	case *aloftv1.Event_AttemptEnded:
		c.Attempts[len(c.Attempts)-1].Ended = k.AttemptEnded
	}
}
