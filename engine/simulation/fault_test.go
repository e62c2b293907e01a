package simulation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// fault is something that goes wrong with the world by itself, between two things that are done in it.
type fault struct {
	name   string
	weight int
	strike func(w *world, r *rand.Rand)
}

// faults are all that there are. A world has some of them, so that a rare meeting of two is not hidden by all the others.
var faults = []fault{
	{"an engine crashes", 2, func(w *world, r *rand.Rand) {
		s := w.engines[r.IntN(len(w.engines))]
		s.engine = nil
		w.tell("%s crashes", s.name)
	}},
	{"an engine pauses", 2, func(w *world, r *rand.Rand) {
		s := w.engines[r.IntN(len(w.engines))]
		d := time.Duration(r.IntN(60)) * time.Second
		s.pause = w.mono + d
		w.tell("%s pauses for %s", s.name, d)
	}},
	{"an engine is suspended and its clock with it", 1, func(w *world, r *rand.Rand) {
		s := w.engines[r.IntN(len(w.engines))]
		d := time.Duration(r.IntN(60)) * time.Second
		s.pause = w.mono + d
		if s.clock != nil {
			s.clock.suspend()
			w.skewed = true
		}
		w.tell("%s is suspended for %s", s.name, d)
	}},
	{"the wall clock jumps", 2, func(w *world, r *rand.Rand) {
		w.wall = w.wall.Add(time.Duration(r.IntN(7201)-3600) * time.Second)
		w.tell("the wall clock jumps to %s", w.now())
	}},
	{"the store or the blobs fail for a while", 4, func(w *world, r *rand.Rand) {
		w.burst = 1 + r.IntN(20)
		w.tell("one of two of the next %d calls fails", w.burst)
	}},
	{"a call is the last of its process", 5, func(w *world, r *rand.Rand) {
		w.doom = &doom{countdown: r.IntN(6), commit: r.IntN(2) == 0, done: r.IntN(2) == 0}
	}},
	{"power is cut", 2, func(w *world, r *rand.Rand) {
		if r.IntN(2) == 0 { // in the middle of a call: the cut itself comes when the call has
			w.doom = &doom{countdown: r.IntN(6), commit: r.IntN(2) == 0, done: r.IntN(2) == 0, power: true}
			return
		}
		w.cutPower()
	}},
	{"calls that were given up arrive", 4, func(w *world, r *rand.Rand) {
		for range 1 + r.IntN(3) {
			w.arrive()
		}
	}},
	{"an executor falls silent", 2, func(w *world, r *rand.Rand) {
		x := w.executors[r.IntN(len(w.executors))]
		x.silentUntil = w.mono + time.Duration(r.IntN(90))*time.Second
		w.tell("%s falls silent until %s", x.name, x.silentUntil)
	}},
	{executorReplaced, 1, func(w *world, r *rand.Rand) {
		x := w.executors[r.IntN(len(w.executors))]
		was := x.name
		x.replace()
		w.tell("%s is gone for ever and %s in its place", was, x.name)
	}},
	{"tasks are forgotten and run again", 1, func(w *world, r *rand.Rand) {
		p := w.executors[r.IntN(len(w.executors))].place
		for _, key := range p.sorted() {
			if r.IntN(2) == 0 {
				delete(p.jobs, key)
			}
		}
		w.tell("%s forgets half of its tasks", p.name)
	}},
	{"tasks die without a record", 2, func(w *world, r *rand.Rand) {
		p := w.executors[r.IntN(len(w.executors))].place
		p.lose(func() bool { return r.IntN(3) == 0 }, "its process is gone and left no record")
		w.tell("%s loses a third of its tasks", p.name)
	}},
	{serviceAway, 1, (*world).outage},
	{"results are removed, or their objects deleted or changed", 4, (*world).damage},
}

// clocksDiffer has no moment of its own: see start.
const clocksDiffer = "engines start with clocks that are up to an hour off"

const executorReplaced = "an executor is replaced by one of another name"

// What befalls single calls has names, too: see draw.
const (
	callsFail      = "calls fail before they are done"
	callsUntold    = "calls are done and nobody is told"
	callsLate      = "calls arrive long after they were given up"
	callsHalfDone  = "members of a batch are done and others are not"
	callsUnsynced  = "objects are written and not synced"
	callsStall     = "a process stalls before a call, and the world goes on"
	callsMisreport = "outcomes are wrong, double, or come late"
)

var callFaults = []string{callsFail, callsUntold, callsLate, callsHalfDone, callsUnsynced, callsStall, callsMisreport}

// worldFaults are those of whole worlds.
var worldFaults = []string{clocksDiffer}

// drawFaults decides what a world has to fear: each fault in half of all worlds.
func (w *world) drawFaults(r *rand.Rand) {
	w.fears = map[string]bool{}
	for _, f := range faults {
		if w.fears[f.name] = r.IntN(2) == 0; w.fears[f.name] {
			w.weights += f.weight
		}
	}
	for _, name := range callFaults {
		w.fears[name] = r.IntN(2) == 0
	}
	for _, name := range worldFaults {
		w.fears[name] = r.IntN(4) == 0
	}
	w.risk = []int{0, 100, 30, 10}[r.IntN(4)]
}

// strike lets one of the world's faults happen.
func (w *world) strike(r *rand.Rand) {
	if w.weights == 0 {
		return
	}
	k := r.IntN(w.weights)
	for _, f := range faults {
		if !w.fears[f.name] {
			continue
		}
		if k -= f.weight; k < 0 {
			w.see(f.name)
			f.strike(w, r)
			return
		}
	}
}

// doom ends the process that makes a call, or the power of all of them.
type doom struct {
	countdown int
	commit    bool // counts commits only
	done      bool // the call still has its effect
	power     bool
}

// mishap is how a call ends.
type mishap int

const (
	goesWell mishap = iota
	fails           // nothing is done
	untold          // it is done, and its caller is told that it failed
	late            // it fails, and is done later or never: what a database had in its hands when a connection broke
	halfDone        // a batch of which only some members are done
	unsynced        // an object is there, and is not durable
)

// draw decides how a call of the running process ends. can lists what befalls such a call beside failing and being untold.
func (w *world) draw(op string, can ...mishap) mishap {
	if w.inCheck || w.calm {
		return goesWell
	}
	if w.away != "" {
		if serviceOf(op) == w.away {
			return fails
		}
		return goesWell
	}
	if w.current != nil && w.current.dead {
		return fails // its process is no more: nothing reaches anybody
	}
	if d := w.doom; d != nil && w.current != nil && (!d.commit || op == "Commit") {
		if d.countdown--; d.countdown < 0 {
			w.doom, w.current.dead = nil, true
			w.powerless = d.power
			w.tell("%s ends in the middle of %s (done: %t, power: %t)", w.current.name, op, d.done, d.power)
			if d.done {
				return untold
			}
			return fails
		}
	}
	risk := w.risk
	if op == "Commit" || op == "Put" {
		risk = (risk + 4) / 5 // they are few and matter most
	}
	switch {
	case w.burst > 0:
		if w.burst--; w.random.IntN(2) == 0 {
			return goesWell
		}
	case risk == 0 || w.random.IntN(risk) > 0:
		return goesWell
	}
	names := map[mishap]string{fails: callsFail, untold: callsUntold, late: callsLate, halfDone: callsHalfDone, unsynced: callsUnsynced}
	var possible []mishap
	for _, m := range append([]mishap{fails, untold}, can...) {
		if w.fears[names[m]] {
			possible = append(possible, m)
		}
	}
	if len(possible) == 0 {
		return goesWell
	}
	m := possible[w.random.IntN(len(possible))]
	w.see(names[m])
	w.tell("%s: %s", op, names[m])
	return m
}

// stall lets a process stand still between what it has read and what it writes, while the others go on.
func (w *world) stall(op string) {
	if w.inCheck || w.calm || w.away != "" || w.stalled || w.current == nil || w.current.dead || !w.fears[callsStall] || w.random.IntN(30) > 0 {
		return
	}
	who := w.current
	w.see(callsStall)
	w.tell("%s stalls before %s", who.name, op)
	w.stalled = true
	for range 1 + w.random.IntN(12) {
		w.mono += time.Duration(w.random.IntN(10)) * time.Second
		if s := w.engines[w.random.IntN(len(w.engines))]; &s.process != who {
			w.pass(s)
		}
		if x := w.executors[w.random.IntN(len(w.executors))]; &x.process != who {
			x.live()
		}
	}
	w.stalled = false
	who.dead = who.dead || w.powerless
	w.tell("%s goes on with %s", who.name, op)
}

func unavailable(op string) error { return fmt.Errorf("%s: injected: %w", op, aloft.ErrUnavailable) }

// fault decides about the calls of the store that are no writes.
func (w *world) fault(op string) store.Fault {
	return map[mishap]store.Fault{goesWell: store.NoFault, fails: store.FailBefore, untold: store.FailAfter}[w.draw(op)]
}

// arrive lets a call that was given up be done after all.
func (w *world) arrive() {
	if len(w.late) == 0 {
		return
	}
	// Each kind of call has the same chance: heartbeats are many.
	kinds := map[string][]int{}
	for i, call := range w.late {
		kinds[call.op] = append(kinds[call.op], i)
	}
	ops := slices.Sorted(maps.Keys(kinds))
	of := kinds[ops[w.random.IntN(len(ops))]]
	i := of[w.random.IntN(len(of))]
	call := w.late[i]
	w.late = slices.Delete(w.late, i, i+1)
	w.tell("%s arrives late", call.op)
	w.see("a late " + call.op)
	w.look(call.do)
}

type lateCall struct {
	op string
	do func()
}

// cutPower ends every process and takes what was not durable: calls on their way, objects that were not synced, tasks.
func (w *world) cutPower() {
	w.tell("power is cut")
	w.powerless = false
	w.late = nil
	w.blobs.Crash()
	for _, s := range w.engines {
		s.engine = nil
	}
	for _, x := range w.executors {
		x.forget()
		x.place.lose(func() bool { return true }, "the machine has lost its power")
	}
}

// see counts that something happened.
func (w *world) see(what string) { w.seen[what]++ }

func sortedKeys(m map[store.AttemptKey]*job) []store.AttemptKey {
	return slices.SortedFunc(maps.Keys(m), cmpKeys)
}
