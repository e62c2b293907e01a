package engine

import (
	"cmp"
	"container/heap"
	"time"
)

// timers makes runs ready at a time. There is one timer for each run at most, for the soonest of what the run waits for:
//
//   - the machine's next timer (store.Step.DueAt): an attempt that may begin or has lasted too long, a pause between
//     attempts, the end of the run's own time;
//   - of a run whose step could not be done, when it is tried again;
//   - of a run that is not in memory, its DueAt in the store, which the collector reads a little ahead (collectDue).
//
// All times are by the clock of the process: those of a run that is ahead were moved back (see clock.go). A timer that is
// over makes its run ready; the timer of a busy run is forgotten, because the next one is set when the step ends. Nothing is
// lost with a timer in memory: DueAt of the last commit is in the store, and the collector finds it at its next poll. So runs
// may leave memory while they wait.
//
// Timers take one word of a heap for each run in memory: what bounds runs bounds timers.
//
//	timers ≤ runs in memory
//
// Engine.mu guards it.
type timers struct{ soonest timerHeap }

// timer is a run's place among the timers.
type timer struct {
	at        time.Time // zero: it has none
	heapIndex int       // from 1; 0: it has none
}

// set gives a run a timer in place of the one it had; zero: none. soonest: no other timer is sooner.
func (t *timers) set(r *run, at time.Time) (soonest bool) {
	if r.timer.at.Equal(at) {
		return false
	}
	if r.timer.heapIndex > 0 {
		heap.Remove(&t.soonest, r.timer.heapIndex-1)
	}
	r.timer.at = at
	if at.IsZero() {
		return false
	}
	heap.Push(&t.soonest, r)
	return r.timer.heapIndex == 1
}

// next is the soonest timer; zero: there is none.
func (t *timers) next() time.Time {
	if len(t.soonest) == 0 {
		return time.Time{}
	}
	return t.soonest[0].timer.at
}

// takeExpired takes out a run whose timer is over; nil: there is none.
func (t *timers) takeExpired(now time.Time) *run {
	if len(t.soonest) == 0 || t.soonest[0].timer.at.After(now) {
		return nil
	}
	r := t.soonest[0]
	t.set(r, time.Time{})
	return r
}

func (t *timers) len() int { return len(t.soonest) }

// timerHeap is a heap of runs, the soonest first, and of equal ones the oldest execution.
type timerHeap []*run

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	return cmp.Or(h[i].timer.at.Compare(h[j].timer.at), cmp.Compare(h[i].key, h[j].key)) < 0
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timer.heapIndex, h[j].timer.heapIndex = i+1, j+1
}

func (h *timerHeap) Push(x any) {
	r := x.(*run) //nolint:forcetypeassert // package heap hands back what it was given
	*h = append(*h, r)
	r.timer.heapIndex = len(*h)
}

func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	r.timer.heapIndex = 0
	return r
}

// setTimer sets when a run is to be ready by itself; zero: never.
func (e *Engine) setTimer(r *run, at time.Time) {
	if e.timers.set(r, at) {
		e.wakeCollector()
	}
}

// fire makes ready the runs whose timers are over.
func (e *Engine) fire(now time.Time) {
	for r := e.timers.takeExpired(now); r != nil; r = e.timers.takeExpired(now) {
		if !r.busy {
			r.retryAt = time.Time{}
			e.rewind(r)
			e.makeReady(r)
		}
	}
}
