package engine

import (
	"container/list"
)

// memory bounds what the engine keeps of runs from one step to the next: their states and, of those that recover another
// execution, what that one had finished. All of it can be had again from the store, so what does not fit goes.
//
//	bytes = the sum of the bytes of the runs that are kept, but for the heavy one ≤ limit, after each step
//	bytes of a run = runBytes + State.Bytes + those of its source, as of the end of its last step; 0: it has no state
//
// When a step ends and the sum is above the limit, runs that nothing moves are dropped, the longest idle first: a message or
// a timer brings them back, by a fold of their journals. If all the others are about to be stepped, the run whose step has
// ended gives its state up, and not the next one: of runs that come round and round, those that are kept are stepped without
// a fold. A run that alone is above the limit is heavy. There is one at most, or each of its steps would fold a long
// journal again; another gives its state up, unless the heavy one is idle.
//
// This is what bounds the engine's memory, all in one place:
//
//	runs between steps            Config.CacheRuns, and one that is heavier
//	a run without a state         about runBytes: it has a message, a timer or waits until it may try again
//	a step                        Workers at once: the state, StepLimit events, their literals (MaxInlineLiterals each; large
//	                              ones are objects), bytesPerStep of messages, what is read ahead (valuesPerRead, maxReach)
//	a fold                        the state and one entry of the journal, which is read entry by entry
//	decided and not committed     bytesWaiting and rowsWaiting: workers pause above; a transaction has about rowsPerCommit
//	inboxes                       allInboxBytes, runInboxBytes: see inbox.go
//	timers, leases                with the runs; one lease for each shard
//	workflows, literals, keys     Config.CacheGraphs, Config.CacheLiterals, cachedKeys, and one of each that is heavier
//	fastClockSearch               one entry of a journal at a time, clocksPerRead executions
//
// What requests hold is bounded by package room, which knows nothing of the engine's work.
//
// Engine.mu guards it.
type memory struct {
	limit int64
	bytes int64
	heavy *run      // nil: none
	idle  list.List // of *run that nothing moves now, the longest idle first
}

// runBytes is what a run takes beside its state and its messages, about.
const runBytes = 1024

// size is what a run takes that is to be counted.
func (r *run) size() int64 {
	n := int64(runBytes)
	if r.state != nil {
		n += r.state.Bytes()
	}
	if r.source != nil {
		n += r.source.bytes
	}
	return n
}

// count notes what a run takes now; 0: it is not kept.
func (m *memory) count(r *run, bytes int64) {
	m.bytes += bytes - r.counted
	r.counted = bytes
}

// forget stops counting a run.
func (m *memory) forget(r *run) {
	if m.heavy == r {
		m.heavy = nil
	}
	m.count(r, 0)
	m.leaveIdle(r)
}

func (m *memory) leaveIdle(r *run) {
	if r.idle != nil {
		m.idle.Remove(r.idle)
		r.idle = nil
	}
}

// longestIdle is the run that has been idle longest; nil: none is.
func (m *memory) longestIdle() *run {
	if front := m.idle.Front(); front != nil {
		return front.Value.(*run) //nolint:forcetypeassert // the list holds nothing else
	}
	return nil
}

// keep counts a run whose step has ended, and lets go what is too much. idle says that nothing moves the run now.
func (e *Engine) keep(r *run, idle bool) {
	m := &e.memory
	m.forget(r)
	switch size := r.size(); {
	case r.state == nil && !idle: // it waits until it may try again, or folds its journal when it is stepped
	case size <= m.limit:
		m.count(r, size)
	default:
		if m.heavy != nil && m.heavy.idle != nil {
			e.evict(m.heavy)
		}
		if m.heavy == nil {
			m.heavy = r
		} else if r.unload(); idle {
			m.count(r, runBytes)
		}
	}
	if idle {
		r.idle = m.idle.PushBack(r)
	}
	for m.bytes > m.limit {
		longest := m.longestIdle()
		if longest == m.heavy && longest != nil {
			m.idle.MoveToBack(longest.idle) // it is not counted
			if longest = m.longestIdle(); longest == m.heavy {
				longest = nil
			}
		}
		if longest == nil {
			break
		}
		e.evict(longest)
	}
	if m.bytes > m.limit && !r.dropped && r != m.heavy {
		r.unload()
		m.count(r, 0)
	}
}

// evict lets an idle run go. Its timer goes too: collecting finds it in the store before it is due. One that is ahead would be
// found too late, and stays without its state.
func (e *Engine) evict(r *run) {
	if !r.isAhead() {
		e.drop(r)
		return
	}
	e.memory.forget(r)
	r.unload()
}

// unload gives up what can be had again from the store.
func (r *run) unload() { r.state, r.source = nil, nil }
