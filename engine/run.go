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

// run is an execution in memory. It is in one place at a time: ready (queued), with a worker or the committer (busy), or
// idle until a message or a timer comes.
type run struct {
	key   store.Key
	shard int

	// Guarded by Engine.mu.
	inbox   inbox
	queued  bool
	busy    bool
	dropped bool      // forgotten while it was busy: what comes back of it is thrown away
	more    bool      // it can go on without a message
	due     time.Time // the machine's next timer by the clock of the process; zero: none
	timer   timer
	idle    *list.Element // nil: not idle
	counted int64         // bytes that it is counted for in memory

	// Belongs to whoever has it while it is busy.
	kept         map[store.ResultID]*store.Result // what others kept, and the step that was refused for it is to name
	state        *machine.State                   // nil: to be folded from the journal
	id           aloft.ExecutionID
	inputs       *aloftv1.Literals
	clock        runClock
	source       *source // the execution that it recovers; nil: not read, or it recovers none
	seq          int64   // of the last journal entry
	waiting      string
	waitingSince time.Time // of waiting, as the record has it
	waits        int       // of its nodes, by name, as the record has it
	version      int       // of its journal
	aborting     bool      // its record says so
	newer        bool      // it belongs to a later release: we may not write to it, whatever else goes wrong with it
	unreadable   bool      // something of it is damaged: it waits until it is terminated
	failures     int       // steps that we could not do, in a row
	failedAt     time.Time // the first of them
	retryAt      time.Time // zero: at once
	waitsFor     string    // the service that is away and whose return makes it ready; empty: none
}

// run returns the execution, made known if it was not. The caller holds mu, as for all methods here.
func (e *Engine) run(key store.Key, shard int) *run {
	r := e.runs[key]
	if r == nil {
		r = &run{key: key, shard: shard}
		e.runs[key] = r
	}
	return r
}

// push makes a run ready, unless it is or its next try is not due.
func (e *Engine) push(r *run) {
	if r.queued || r.busy || r.dropped || !r.retryAt.IsZero() {
		return
	}
	e.memory.leaveIdle(r)
	r.queued = true
	e.ready.push(r)
	e.workable.Signal()
}

// next takes the run that has been ready longest.
func (e *Engine) next() (*run, bool) {
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

// rest ends a run's step: the run is ready again if there is something to do, and idle if not. What the step took and did not
// consume is there for the next one.
func (e *Engine) rest(r *run) {
	r.busy = false
	r.inbox.giveBack()
	switch {
	case !r.retryAt.IsZero():
		e.inboxes.release(&r.inbox)
	case len(r.inbox.messages) == 0:
		e.rewind(r)
	}
	wakeAt := r.due
	if !r.retryAt.IsZero() {
		wakeAt = r.retryAt
	}
	e.setTimer(r, wakeAt)
	if !r.retryAt.IsZero() && r.waitsFor != "" {
		e.parked[r] = struct{}{}
	}
	ready := r.more || len(r.inbox.messages) > 0 || (!r.due.IsZero() && !r.due.After(e.clock.Now()))
	e.keep(r, !ready && r.retryAt.IsZero())
	if ready {
		e.push(r)
	}
}

// drop forgets a run. Its messages are still in the inbox and will be read again if its shard is ours.
func (e *Engine) drop(r *run) {
	if r.dropped {
		return
	}
	e.setTimer(r, time.Time{})
	e.memory.forget(r)
	delete(e.parked, r)
	if r.isAhead() {
		e.clockSearch.look(r.shard)
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

// wakeParked makes ready what waits for a service that is back.
func (e *Engine) wakeParked() {
	back := make(map[string]bool)
	all := slices.SortedFunc(maps.Keys(e.parked), func(a, b *run) int { return cmp.Compare(a.key, b.key) }) // the same order each time
	for _, r := range all {
		well, asked := back[r.waitsFor]
		if !asked {
			_, away := e.config.Health.Away(r.waitsFor)
			well = !away
			back[r.waitsFor] = well
		}
		if well {
			delete(e.parked, r)
			e.setTimer(r, time.Time{})
			r.retryAt = time.Time{}
			e.rewind(r)
			e.push(r)
		}
	}
}
