package machine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// wait is what a parked node waits for.
type wait struct {
	on     string // what a Wake says when it may be there
	reason string // what that is, for people
	since  int64  // when the node was parked first
	until  int64  // when the node asks again without a Wake
}

// A parked node asks again by itself: after a second, and then whenever it has waited twice as long, but each five minutes
// at least. The first time is soon because what it waits for may have ended just before it was known to wait.
const (
	firstRecheck = time.Second
	lastRecheck  = 5 * time.Minute
)

func (t *step) park(i uint32, c CacheAnswer) error {
	since := t.at
	if w, parked := t.waits[i]; parked {
		since = w.since
	}
	pause := min(max(time.Duration(t.at-since), firstRecheck), lastRecheck)
	return t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_NodeParked{NodeParked: &aloftv1.NodeParked{
		Node: i, On: c.WaitFor, Reason: c.Reason, Until: after(t.at, pause),
	}}})
}

// wake resumes the nodes that are parked on what changed, in order of their numbers.
func (t *step) wake(m *aloftv1.Wake) error {
	for _, i := range slices.Sorted(maps.Keys(t.waiters[m.GetOn()])) {
		if !t.mayRetry(i) {
			continue // it is about to be aborted
		}
		if err := t.resume(i); err != nil {
			return err
		}
	}
	return nil
}

// resume asks again for what a parked node waits for, and lets the node go on if it is there.
func (t *step) resume(i uint32) error {
	c, err := t.cached(i, t.Ref(i).Inputs())
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
	n := s.node(i)
	if n.phase != uint8(core.NodeExecution_QUEUED) || n.attempt != noIndex || !s.mayRetry(i) {
		return fmt.Errorf("the node is %s, has had an attempt, or its scope is ending", s.Ref(i).phase())
	}
	if e.GetOn() == "" || e.GetUntil() <= at {
		return errors.New("it does not say on what, or until when")
	}
	w := wait{on: e.GetOn(), reason: e.GetReason(), since: at, until: e.GetUntil()}
	if before, again := s.waits[i]; again {
		w.since = before.since
		s.endWait(i)
	}
	s.waits[i] = w
	if s.waiters[w.on] == nil {
		s.waiters[w.on] = make(map[uint32]struct{})
	}
	s.waiters[w.on][i] = struct{}{}
	n.activity, n.updated = inWait, at
	s.timers.push(timer{at: w.until, node: i})
	return nil
}

// timer is when something is to be done about a node if no message comes before; 0: never.
func (s *State) timer(i uint32) int64 {
	c := s.scopeOf(i)
	if c.done {
		return 0
	}
	switch n := s.node(i); n.activity {
	case inAttempt:
		return c.latest(n).timer()
	case inWait:
		return s.waits[i].until
	case idle, inScope:
	}
	return 0
}

// endWait forgets what a parked node waits for.
func (s *State) endWait(i uint32) {
	on := s.waits[i].on
	delete(s.waits, i)
	delete(s.waiters[on], i)
	if len(s.waiters[on]) == 0 {
		delete(s.waiters, on)
	}
	s.node(i).activity = idle
}
