package engine

import (
	"cmp"
	"container/list"
	"maps"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
)

// run is an execution in memory. It is in one state at a time:
//
//	ready    queued: it is in Engine.ready until a worker takes it
//	busy     a worker steps it, or the step is decided and not committed
//	failed   retryAt is set: its last step could not be done, and is tried again at that time, when the service that it
//	         waits for is back (parked), or when a message comes that ends the execution
//	idle     nothing is to be done before a message or a timer comes: it may leave memory (memory.go)
//	dropped  it is not in Engine.runs any more: if it was busy, what comes back from the worker is thrown away
//
//	ready ──nextReady──▶ busy ──readyOrIdle──▶ ready, failed or idle
//	idle, failed ──a message, a timer, a service──▶ ready
//	any ──drop──▶ dropped    (the execution has ended, the lease is lost, the store refuses a step, memory is full)
//
// A run has no state (the machine's) before its first step and after a step that failed or was refused: the next one folds
// the journal.
type run struct {
	key   store.Key
	shard int

	// Guarded by Engine.mu.
	inbox   inbox
	queued  bool
	busy    bool
	dropped bool
	more    bool      // the last step left something to decide: the next one needs no message
	due     time.Time // the machine's next timer by the clock of the process; zero: none
	timer   timer
	idle    *list.Element // of memory.idle; nil: not idle
	counted int64         // its part of memory.bytes

	// Of a busy run, these belong to the worker or the committer that has it.
	othersResults  map[store.ResultID]*store.Result // that others committed first: the step that was refused is made again with them
	state          *machine.State                   // nil: to be folded from the journal
	id             aloft.ExecutionID
	inputs         *aloftv1.Literals
	clock          runClock
	source         *source   // the execution that it recovers; nil: not read, or it recovers none
	seq            int64     // of the last journal entry
	waitReason     string    // what the execution as a whole waits for, as the record has it; empty: nothing
	waitingSince   time.Time // of waitReason, as the record has it
	namedWaits     int       // named external waits of its nodes, as the record has them
	version        int       // of its journal
	aborting       bool      // its record has this phase
	newer          bool      // its journal is of a later release: this engine never writes to it, not even that a step failed
	unreadable     bool      // something of it is damaged: it waits until it is terminated
	failures       int       // steps that could not be done, in a row
	failedAt       time.Time // when the first of them failed
	retryAt        time.Time // when the step is tried again; zero: the last step did not fail
	awaitedService string    // the service that is away, whose return makes the run ready; empty: none
}

// runOf returns the run of an execution, which is made if there is none. The caller holds mu, as for all methods here.
func (e *Engine) runOf(key store.Key, shard int) *run {
	r := e.runs[key]
	if r == nil {
		r = &run{key: key, shard: shard}
		e.runs[key] = r
	}
	return r
}

// makeReady queues a run for the workers, unless it is ready, busy or dropped, or its failed step is not due to be tried again.
func (e *Engine) makeReady(r *run) {
	if r.queued || r.busy || r.dropped || !r.retryAt.IsZero() {
		return
	}
	e.memory.leaveIdle(r)
	r.queued = true
	e.ready.push(r)
	e.workable.Signal()
}

// nextReady takes the run that has been ready longest.
func (e *Engine) nextReady() (*run, bool) {
	for {
		r, ok := e.ready.pop()
		if !ok {
			return nil, false
		}
		r.queued = false
		if r.dropped {
			continue
		}
		r.busy = true
		delete(e.parked, r)
		return r, true
	}
}

// readyOrIdle ends a run's step: the run is ready again if there is something to do, and failed or idle if not. Messages that
// the step took and did not consume are there for the next one.
func (e *Engine) readyOrIdle(r *run) {
	r.busy = false
	r.inbox.giveBack()
	switch {
	case !r.retryAt.IsZero():
		e.inboxes.leaveAllButFirst(&r.inbox)
	case len(r.inbox.messages) == 0:
		e.rewind(r)
	}
	wakeAt := r.due
	if !r.retryAt.IsZero() {
		wakeAt = r.retryAt
	}
	e.setTimer(r, wakeAt)
	if !r.retryAt.IsZero() && r.awaitedService != "" {
		e.parked[r] = struct{}{}
	}
	ready := r.more || len(r.inbox.messages) > 0 || (!r.due.IsZero() && !r.due.After(e.clock.Now()))
	e.keepInMemory(r, !ready && r.retryAt.IsZero())
	if ready {
		e.makeReady(r)
	}
}

// drop forgets a run. Its messages are still in the store, and are read again if the engine holds the shard.
func (e *Engine) drop(r *run) {
	if r.dropped {
		return
	}
	e.setTimer(r, time.Time{})
	e.memory.forget(r)
	delete(e.parked, r)
	if r.isAhead() {
		e.clockSearch.addShard(r.shard)
	}
	r.dropped = true
	delete(e.runs, r.key)
	if e.inboxes.drop(&r.inbox) {
		e.wakeCollector()
	}
	if !r.busy {
		r.unload()
	}
}

// wakeParked makes ready the runs that wait for a service that is back.
func (e *Engine) wakeParked() {
	isBack := make(map[string]bool)
	all := slices.SortedFunc(maps.Keys(e.parked), func(a, b *run) int { return cmp.Compare(a.key, b.key) }) // the same order each time
	for _, r := range all {
		well, asked := isBack[r.awaitedService]
		if !asked {
			_, away := e.config.Health.Away(r.awaitedService)
			well = !away
			isBack[r.awaitedService] = well
		}
		if well {
			delete(e.parked, r)
			e.setTimer(r, time.Time{})
			r.retryAt = time.Time{}
			e.rewind(r)
			e.makeReady(r)
		}
	}
}
