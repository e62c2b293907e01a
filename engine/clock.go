package engine

import "time"

// Three clocks meet in the engine (promise P10):
//
//   - The clock of the process (Clock). It starts as the wall clock, or as the clock of the database where several servers
//     share one, and goes on monotonically. Leases, pauses between tries, heartbeats of executors and the timer heap follow
//     it. Nothing that is read from the store ever moves it.
//   - The clock of a run (runClock), by which the machine decides: every event of a journal, every deadline of the run and
//     the execution's DueAt in the store are its times. It is the clock of the process moved ahead by a constant, so that it
//     never tells a time before the latest one in that run's journal:
//
//     run = process + ahead,  ahead ≥ 0,  run ≥ latest event of the journal
//
//     After a restart with a clock that was set back, or after a server whose clock was fast, the timers of the run go on
//     from where they were; the timers of other runs do not change.
//   - The clocks of executors and clients: the times that they send are clamped by the machine.
//
// ahead is zero for almost every run, and known only once the journal was read. The store cannot find a run that is
// ahead by its DueAt: by the clock of the process that time comes too late. So an engine that takes a shard looks once at the
// last journal entry of each live execution there (fastClockSearch), and keeps the runs that are ahead in memory, each with its
// timer, until they end or the shard goes to another engine. Example: a server whose clock is an hour ahead commits an
// attempt with a time limit of 30 min at what it takes for 13:00, and dies. Another server takes the shard at 12:00: the run is
// ahead by an hour, its timer of 13:30 is in the heap at 12:30, and a run that began on the second server at 12:00 with
// the same limit ends at 12:30, too.

// Clock tells the time of one process: it starts as the wall clock and goes on monotonically. No deadline comes early or late
// because the wall clock was set.
type Clock interface{ Now() time.Time }

// NewClock is the clock of this process, beginning now at a time: the wall clock's or, where servers share a database, the
// database's, so that all servers agree.
func NewClock(start time.Time) Clock { return monotonic{start: start, elapsed: stopwatch()} }

type monotonic struct {
	start   time.Time
	elapsed func() time.Duration
}

// Now has no monotonic reading of its own: times are compared as what they will be when they are read from the store.
func (m monotonic) Now() time.Time { return m.start.Round(0).Add(m.elapsed()).UTC() }

// runClock is the clock of one run.
type runClock struct{ ahead time.Duration }

// runTime is the time of the run when that of the process is now.
func (c runClock) runTime(now time.Time) time.Time { return now.Add(c.ahead) }

// processTime is the time of the process when that of the run is t; zero stays zero.
func (c runClock) processTime(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(-c.ahead)
}

// learnClock moves the clock of a run ahead to the latest time in its journal, which was just read.
func (e *Engine) learnClock(r *run, latest time.Time) {
	was := r.clock
	r.clock.advanceTo(latest, e.clock.Now())
	if r.isAhead() && r.clock != was {
		e.logger.Info("the journal of an execution is ahead of our clock: it goes on from its own time", "execution", r.id.String(), "ahead", r.clock.ahead)
	}
}

// advanceTo moves the clock ahead, if need be, so that it is not before the latest time in the journal.
func (c *runClock) advanceTo(latest, now time.Time) { c.ahead = max(c.ahead, latest.Sub(now)) }

// isAhead says whether the store would find the run too late: then it stays in memory with its timer.
func (r *run) isAhead() bool { return r.clock.ahead > toleratedAhead }

// toleratedAhead is how far a run may be ahead without harm: by so much its timers may be found late.
const toleratedAhead = time.Second
