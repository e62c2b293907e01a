package worker

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// watching goes along with a running attempt: it ends it when a stop comes or when it takes more memory than it may.
type watching struct {
	s        *supervisor
	a        *attempt
	group    *group
	over     chan struct{}
	finished chan struct{}

	// Written before finished is closed.
	peak     int64
	exceeded bool
}

func (s *supervisor) watch(a *attempt, p process, group *group) *watching {
	w := &watching{s: s, a: a, group: group, over: make(chan struct{}), finished: make(chan struct{})}
	go w.run(p)
	return w
}

func (w *watching) run(p process) {
	defer close(w.finished)
	var sample <-chan time.Time
	if w.a.spec.MemoryLimit > 0 && !w.group.enforces() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		sample = tick.C
	}
	stop := w.a.stop
	var kill <-chan time.Time
	for {
		select {
		case <-w.over:
			return
		case <-stop:
			stop = nil
			w.s.mu.Lock()
			grace := w.a.stopGrace
			w.s.mu.Unlock()
			if err := syscall.Kill(-p.PID, syscall.SIGTERM); errors.Is(err, syscall.ESRCH) {
				_ = syscall.Kill(p.PID, syscall.SIGTERM) // not yet the leader of its session
			}
			kill = time.After(grace)
		case <-kill:
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
			w.s.killAll(w.a, p.PID, w.group)
		case <-sample:
			used := memoryOf(w.a.mark, p.PID)
			w.peak = max(w.peak, used)
			if used > w.a.spec.MemoryLimit {
				w.exceeded = true
				_ = syscall.Kill(p.PID, syscall.SIGKILL)
				w.s.killAll(w.a, p.PID, w.group)
				return
			}
		}
	}
}

// stop ends the watch: the attempt's process is gone.
func (w *watching) stop() {
	close(w.over)
	<-w.finished
}

// judge adds to the record what memory had to do with the end.
func (w *watching) judge(record *ExitRecord) {
	kills, peak := w.group.usage()
	record.PeakMemory = max(record.PeakMemory, peak, w.peak)
	limit := w.a.spec.MemoryLimit
	switch {
	case w.exceeded, kills > 0 && record.Signal == int(syscall.SIGKILL), kills > 0 && record.Lost:
		record.OOM, record.Lost = true, false
		record.Reason = fmt.Sprintf("out of memory: it used more than its limit of %d MiB", limit>>20)
	case kills > 0:
		record.Reason = fmt.Sprintf("a process that it started was killed for the limit of %d MiB of memory", limit>>20)
	}
}
