package engine

import (
	"container/list"
)

// memory bounds what the engine keeps of runs from one step to the next: their states and, of runs that recover another
// execution, what that one had finished (source). All of it can be read again from the store, so what does not fit is dropped.
//
//	bytes = the sum of the bytes of the runs that are kept, but for the heavy one ≤ limit, after each step
//	bytes of a run = runBytes + State.Bytes + those of its source, as of the end of its last step; 0: it has no state
//
// When a step ends and the sum is above the limit, idle runs are dropped, the longest idle first: a message or a timer brings
// them back, by a fold of their journals. If no run is idle, the run whose step has ended gives up its state, and no other run
// does: of runs that are stepped in turn, some keep their state from turn to turn and are stepped without a fold.
//
// A run that alone is above the limit is heavy. One heavy run keeps its state, or each of its steps would fold a long journal
// again. A second heavy run gives up its state, unless the first is idle, which is dropped then.
//
// This is what bounds the engine's memory, all in one place:
//
//	runs between steps            Config.CacheRuns, and one that is heavier
//	a run without a state         about runBytes: it has a message or a timer, or its step failed
//	a step                        Workers at once: the state, StepLimit events, their literals (MaxInlineLiterals each; large
//	                              ones are objects), bytesPerStep of messages, what is read ahead (valuesPerRead, maxPrefetch)
//	a fold                        the state and one entry of the journal, which is read entry by entry
//	decided and not committed     maxUncommittedBytes, maxUncommittedRows: workers pause above; a batch has about rowsPerCommit
//	inboxes                       allInboxBytes, runInboxBytes: see inbox.go
//	timers, leases                with the runs; one lease for each shard
//	workflows, literals, keys     Config.CacheGraphs, Config.CacheLiterals, signatureCacheBytes, and one of each that is heavier
//	fastClockSearch               one entry of a journal at a time, clocksPerRead executions
//
// What requests hold is bounded by package room, apart from the engine.
//
// Engine.mu guards it.
type memory struct {
	limit int64
	bytes int64
	heavy *run      // nil: none
	idle  list.List // of *run, the longest idle first
}

// runBytes is what a run takes beside its state and its messages, about.
const runBytes = 1024

// size is what a run takes beside its messages, about.
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

// longestIdle is the run that has been idle longest; nil: no run is idle.
func (m *memory) longestIdle() *run {
	if front := m.idle.Front(); front != nil {
		return front.Value.(*run) //nolint:forcetypeassert // the list holds nothing else
	}
	return nil
}

// keepInMemory counts a run whose step has ended, idle or not, and drops runs, or its state, while memory is above its limit.
func (e *Engine) keepInMemory(r *run, idle bool) {
	m := &e.memory
	m.forget(r)
	switch size := r.size(); {
	case r.state == nil && !idle: // its step failed, or the next one folds the journal
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

// evict drops an idle run, and its timer: the collector finds its DueAt in the store in time. A run that is ahead would be
// found too late (clock.go), and stays without its state.
func (e *Engine) evict(r *run) {
	if !r.isAhead() {
		e.drop(r)
		return
	}
	e.memory.forget(r)
	r.unload()
}

// unload gives up what can be read again from the store.
func (r *run) unload() { r.state, r.source = nil, nil }
