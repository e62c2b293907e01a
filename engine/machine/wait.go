package machine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// parking is what a queued node waits for.
type parking struct {
	on     string // by which it is woken
	reason string
	since  int64
	until  int64 // when it looks again unasked
}

// A parked node looks again by itself: after a second, and then whenever it has waited twice as long, but each five
// minutes at least. The first look is soon because what it waits for may have ended just before it was known to wait.
const (
	firstLook = time.Second
	lastLook  = 5 * time.Minute
)

func (t *step) park(i uint32, c CacheAnswer) error {
	since := t.at
	if p, parked := t.parked[i]; parked {
		since = p.since
	}
	pause := min(max(time.Duration(t.at-since), firstLook), lastLook)
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_NodeParked{NodeParked: &aloftv1.NodeParked{
		Node: i, On: c.WaitFor, Reason: c.Reason, Until: after(t.at, pause),
	}}})
}

// wake lets every node look again that is parked on what changed.
func (t *step) wake(m *aloftv1.Wake) error {
	var woken []uint32
	for i, p := range t.parked {
		if p.on == m.GetOn() {
			woken = append(woken, i)
		}
	}
	slices.Sort(woken)
	for _, i := range woken {
		if !t.mayRetry(i) {
			continue // it is about to be aborted
		}
		if err := t.look(i); err != nil {
			return err
		}
	}
	return nil
}

// look asks again for what a parked node waits for.
func (t *step) look(i uint32) error {
	c, err := t.cached(i, t.ref(t.nodes[i].inputs))
	switch {
	case err != nil:
		return err
	case c.hit():
		return t.decide(nodeCached(t.at, i, nil, c))
	case c.WaitFor != "":
		return t.park(i, c)
	}
	return t.begin(i)
}

func (s *State) nodeParked(at int64, e *aloftv1.NodeParked) error {
	i := e.GetNode()
	n := &s.nodes[i]
	if n.phase != uint8(core.NodeExecution_QUEUED) || n.attempt != none || !s.mayRetry(i) {
		return fmt.Errorf("the node is %s, has had an attempt, or its scope is ending", s.Ref(i).phase())
	}
	if e.GetOn() == "" || e.GetUntil() <= at {
		return errors.New("it does not say on what, or until when")
	}
	p := parking{on: e.GetOn(), reason: e.GetReason(), since: at, until: e.GetUntil()}
	if before, again := s.parked[i]; again {
		p.since = before.since
	}
	s.parked[i] = p
	n.activity, n.updated = inWait, at
	s.looks.push(timer{at: p.until, of: i})
	return nil
}
