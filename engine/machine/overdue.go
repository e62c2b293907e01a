package machine

import (
	"slices"
	"time"
)

// overdue are deadlines that passed while no engine had the execution: its server was down, or the clock was set ahead
// meanwhile. What executors have to tell of attempts that ended before may lie unread then, and goes before a deadline. So
// these deadlines are kept back for as long as executors need to tell it. They are no part of what is folded: the engine keeps
// them back when it has folded the state.
type overdue struct {
	until  int64   // when they fire after all; 0: none is kept back
	timers []timer // of attempts that executors have
	expiry bool    // the execution's own
}

// KeepBack keeps deadlines back that came before one time until another: those of attempts that executors have and, while
// there are any, that of the execution. A sleep ends by itself.
func (s *State) KeepBack(before, until time.Time) {
	if s.ended != 0 || len(s.outstanding) == 0 || !before.Before(until) {
		return
	}
	passed := before.UnixNano()
	var ours []timer
	for len(s.timers) > 0 && s.timers[0].at <= passed {
		t := s.timers[0]
		s.timers.pop()
		switch {
		case s.timer(t.node) != t.at: // it has another one since, or none
		case s.node(t.node).activity == inAttempt && !s.latest(t.node).byEngine:
			s.overdue.timers = append(s.overdue.timers, t)
		default:
			ours = append(ours, t)
		}
	}
	for _, t := range ours {
		s.timers.push(t)
	}
	s.dropPointless()
	s.overdue.expiry = s.expires != 0 && s.expires <= passed
	if len(s.overdue.timers) > 0 || s.overdue.expiry {
		s.overdue.until = until.UnixNano()
	}
}

// release lets the deadlines fire that were kept back, if it is time.
func (s *State) release(now int64) {
	if s.overdue.until == 0 || now < s.overdue.until {
		return
	}
	for _, t := range s.overdue.timers {
		s.timers.push(t)
	}
	s.overdue = overdue{}
	s.dropPointless()
}

// journalDueAt is the earliest timer as the journal has it, that of what is kept back included. Another engine, whose clock may
// be slower, goes by it: a moment that follows from no entry of the journal would be taken for one of its own clock.
func (s *State) journalDueAt() time.Time {
	due := s.dueAt()
	if s.overdue.until == 0 || due == 0 {
		return timeOf(due)
	}
	if s.overdue.expiry {
		due = min(due, s.expires)
	}
	for _, t := range s.overdue.timers {
		due = min(due, t.at)
	}
	return timeOf(due)
}

// forgetHeard drops the deadlines of attempts of which executors have told the end meanwhile.
func (s *State) forgetHeard() {
	if s.overdue.until == 0 {
		return
	}
	s.overdue.timers = slices.DeleteFunc(s.overdue.timers, func(t timer) bool { return s.timer(t.node) != t.at })
	s.overdue.expiry = s.overdue.expiry && len(s.outstanding) > 0
	if len(s.overdue.timers) == 0 && !s.overdue.expiry {
		s.overdue = overdue{}
	}
}
