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

// fault is something that goes wrong between two actions of the world.
type fault struct {
	name   string
	weight int
	strike func(w *world, r *rand.Rand)
}

// faults are all faults between calls. A world has some of them, so that the others do not hide a rare meeting of two.
var faults = []fault{
	{"an engine crashes", 2, func(w *world, r *rand.Rand) {
		s := w.engines[r.IntN(len(w.engines))]
		s.engine = nil
		w.tell("%s crashes", s.name)
	}},
	{"an engine pauses", 2, func(w *world, r *rand.Rand) {
		s := w.engines[r.IntN(len(w.engines))]
		d := time.Duration(r.IntN(60)) * time.Second
		s.pausedUntil = w.elapsed + d
		w.tell("%s pauses for %s", s.name, d)
	}},
	{"an engine is suspended and its clock with it", 1, func(w *world, r *rand.Rand) {
		s := w.engines[r.IntN(len(w.engines))]
		d := time.Duration(r.IntN(60)) * time.Second
		s.pausedUntil = w.elapsed + d
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
		w.crash = &pendingCrash{countdown: r.IntN(6), commitsOnly: r.IntN(2) == 0, callIsDone: r.IntN(2) == 0}
	}},
	{"power is cut", 2, func(w *world, r *rand.Rand) {
		if r.IntN(2) == 0 { // in the middle of a call to come
			w.crash = &pendingCrash{countdown: r.IntN(6), commitsOnly: r.IntN(2) == 0, callIsDone: r.IntN(2) == 0, powerCut: true}
			return
		}
		w.cutPower()
	}},
	{"calls that were given up arrive", 4, func(w *world, r *rand.Rand) {
		for range 1 + r.IntN(3) {
			w.doLateCall()
		}
	}},
	{"an executor falls silent", 2, func(w *world, r *rand.Rand) {
		x := w.executors[r.IntN(len(w.executors))]
		x.silentUntil = w.elapsed + time.Duration(r.IntN(90))*time.Second
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

// clocksDiffer does not happen at a moment: start applies it to each engine.
const clocksDiffer = "engines start with clocks that are up to an hour off"

const executorReplaced = "an executor is replaced by one of another name"

// Faults of single calls: see drawMishap.
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

// worldFaults are faults that a whole world has, or not.
var worldFaults = []string{clocksDiffer}

// drawFaults decides which faults a world has: each fault is in half of all worlds.
func (w *world) drawFaults(r *rand.Rand) {
	w.enabledFaults = map[string]bool{}
	for _, f := range faults {
		if w.enabledFaults[f.name] = r.IntN(2) == 0; w.enabledFaults[f.name] {
			w.totalWeight += f.weight
		}
	}
	for _, name := range callFaults {
		w.enabledFaults[name] = r.IntN(2) == 0
	}
	for _, name := range worldFaults {
		w.enabledFaults[name] = r.IntN(4) == 0
	}
	w.risk = []int{0, 100, 30, 10}[r.IntN(4)]
}

// strike lets one of the world's faults happen.
func (w *world) strike(r *rand.Rand) {
	if w.totalWeight == 0 {
		return
	}
	k := r.IntN(w.totalWeight)
	for _, f := range faults {
		if !w.enabledFaults[f.name] {
			continue
		}
		if k -= f.weight; k < 0 {
			w.count(f.name)
			f.strike(w, r)
			return
		}
	}
}

// pendingCrash ends the process that makes the call at which countdown is over, in the middle of that call.
type pendingCrash struct {
	countdown   int
	commitsOnly bool // only commits count down
	callIsDone  bool // the call has its effect all the same
	powerCut    bool
}

// mishap is how a call ends.
type mishap int

const (
	goesWell mishap = iota
	fails           // the call is not done
	untold          // the call is done, and its caller is told that it failed
	late            // the call fails, and is done later or never, as by a database whose connection broke
	halfDone        // only some members of a batch are done
	unsynced        // the object is there, and is not durable
)

// drawMishap decides how a call of the running process ends. can lists what may befall such a call beside fails and untold.
func (w *world) drawMishap(op string, can ...mishap) mishap {
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
		return fails // its process has ended
	}
	if d := w.crash; d != nil && w.current != nil && (!d.commitsOnly || op == "Commit") {
		if d.countdown--; d.countdown < 0 {
			w.crash, w.current.dead = nil, true
			w.powerIsCut = d.powerCut
			w.tell("%s ends in the middle of %s (done: %t, power: %t)", w.current.name, op, d.callIsDone, d.powerCut)
			if d.callIsDone {
				return untold
			}
			return fails
		}
	}
	risk := w.risk
	if op == "Commit" || op == "Put" {
		risk = (risk + 4) / 5 // these calls are few and matter most
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
		if w.enabledFaults[names[m]] {
			possible = append(possible, m)
		}
	}
	if len(possible) == 0 {
		return goesWell
	}
	m := possible[w.random.IntN(len(possible))]
	w.count(names[m])
	w.tell("%s: %s", op, names[m])
	return m
}

// stall lets a process stand still between its reads and its write, while the other processes go on.
func (w *world) stall(op string) {
	if w.inCheck || w.calm || w.away != "" || w.stalled || w.current == nil || w.current.dead || !w.enabledFaults[callsStall] || w.random.IntN(30) > 0 {
		return
	}
	who := w.current
	w.count(callsStall)
	w.tell("%s stalls before %s", who.name, op)
	w.stalled = true
	for range 1 + w.random.IntN(12) {
		w.elapsed += time.Duration(w.random.IntN(10)) * time.Second
		if s := w.engines[w.random.IntN(len(w.engines))]; &s.process != who {
			w.pass(s)
		}
		if x := w.executors[w.random.IntN(len(w.executors))]; &x.process != who {
			x.pass()
		}
	}
	w.stalled = false
	who.dead = who.dead || w.powerIsCut
	w.tell("%s goes on with %s", who.name, op)
}

func unavailable(op string) error { return fmt.Errorf("%s: injected: %w", op, aloft.ErrUnavailable) }

// fault decides how the calls of the store end that fragileStore passes on.
func (w *world) fault(op string) store.Fault {
	return map[mishap]store.Fault{goesWell: store.NoFault, fails: store.FailBefore, untold: store.FailAfter}[w.drawMishap(op)]
}

// doLateCall does a call that had failed for its caller before.
func (w *world) doLateCall() {
	if len(w.lateCalls) == 0 {
		return
	}
	// Each kind of call has the same chance, although most are heartbeats.
	kinds := map[string][]int{}
	for i, call := range w.lateCalls {
		kinds[call.op] = append(kinds[call.op], i)
	}
	ops := slices.Sorted(maps.Keys(kinds))
	of := kinds[ops[w.random.IntN(len(ops))]]
	i := of[w.random.IntN(len(of))]
	call := w.lateCalls[i]
	w.lateCalls = slices.Delete(w.lateCalls, i, i+1)
	w.tell("%s arrives late", call.op)
	w.count("a late " + call.op)
	w.withoutFaults(call.do)
}

type lateCall struct {
	op string
	do func()
}

// cutPower ends every process. Late calls, objects that were not synced and tasks are lost.
func (w *world) cutPower() {
	w.tell("power is cut")
	w.powerIsCut = false
	w.lateCalls = nil
	w.blobs.Crash()
	for _, s := range w.engines {
		s.engine = nil
	}
	for _, x := range w.executors {
		x.forget()
		x.place.lose(func() bool { return true }, "the machine has lost its power")
	}
}

// count counts that something happened.
func (w *world) count(what string) { w.seen[what]++ }

func sortedKeys(m map[store.AttemptKey]*job) []store.AttemptKey {
	return slices.SortedFunc(maps.Keys(m), cmpKeys)
}
