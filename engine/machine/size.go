package machine

import (
	"reflect"

	"google.golang.org/protobuf/proto"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

var (
	nodeBytes    = sizeOf[node]()
	attemptBytes = sizeOf[attempt]()
	scopeBytes   = sizeOf[scope]()
	refBytes     = sizeOf[ref]()
	outageBytes  = sizeOf[outage]()
	waitBytes    = sizeOf[wait]()
	timerBytes   = sizeOf[timer]()
	textBytes    = sizeOf[string]()
)

func sizeOf[T any]() int { return int(reflect.TypeFor[T]().Size()) }

// Bytes that a map takes for each entry beside key and value, about, and that a state takes which has nothing.
const (
	mapEntryBytes = 24
	emptyMapBytes = 48
	emptyBytes    = 2048
)

// Bytes is about how much memory the state takes. The call costs as much for a large run as for a small one.
func (s *State) Bytes() int64 {
	n := emptyBytes + s.texted +
		s.blockBytes + len(s.scopes)*scopeBytes + 4*(cap(s.homes)+cap(s.over)) +
		4*(cap(s.ready.items)+cap(s.runnable.items)+cap(s.skips.items)+cap(s.stops.items)+cap(s.rested.items)) +
		cap(s.timers)*timerBytes +
		len(s.waits)*(2*mapEntryBytes+waitBytes) + len(s.waiters)*(mapEntryBytes+emptyMapBytes) +
		(len(s.renamed)+len(s.outstanding))*(mapEntryBytes+2*textBytes) +
		len(s.ids)*(mapEntryBytes+8)
	return int64(n)
}

// bytes is about how much memory the block takes.
func (b *block) bytes() int {
	return cap(b.nodes)*nodeBytes + cap(b.attempts)*attemptBytes + cap(b.refs)*refBytes +
		len(b.outages)*(mapEntryBytes+outageBytes) + (len(b.decks)+len(b.offers))*(mapEntryBytes+2*textBytes) +
		(len(b.memories)+len(b.expired))*(mapEntryBytes+8)
}

// texts is about how many bytes of texts and messages of an event the state keeps.
func texts(e *aloftv1.Event) int {
	switch k := e.GetKind().(type) {
	case *aloftv1.Event_NodeQueued:
		return len(k.NodeQueued.GetInputs().GetUri())
	case *aloftv1.Event_NodeSucceeded:
		return len(k.NodeSucceeded.GetOutputs().GetUri())
	case *aloftv1.Event_NodeCached:
		return len(k.NodeCached.GetInputs().GetUri()) + len(k.NodeCached.GetOutputs().GetUri())
	case *aloftv1.Event_NodeRecovered:
		r := k.NodeRecovered
		return len(r.GetInputs().GetUri()) + len(r.GetOutputs().GetUri()) + len(r.GetDeckUri())
	case *aloftv1.Event_NodeParked:
		return len(k.NodeParked.GetOn()) + len(k.NodeParked.GetReason())
	case *aloftv1.Event_AttemptScheduled:
		return len(k.AttemptScheduled.GetCheckpoint())
	case *aloftv1.Event_AttemptEnded:
		n := len(k.AttemptEnded.GetOutputs().GetUri()) + len(k.AttemptEnded.GetDeckUri()) + len(k.AttemptEnded.GetLost())
		if f := k.AttemptEnded.GetFailure(); f != nil {
			n += proto.Size(f)
		}
		return n
	case *aloftv1.Event_NodeFailed, *aloftv1.Event_ScopeFailing, *aloftv1.Event_ExecutionFailing, *aloftv1.Event_ExecutionStarted, *aloftv1.Event_ExecutionEnded,
		*aloftv1.Event_AttemptStopRequested, *aloftv1.Event_TerminateRequested:
		return proto.Size(e)
	}
	return 0
}
