package worker

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// watcher watches a running attempt. It ends the attempt when a stop comes, when the attempt takes more memory than its limit, and
// when the kernel has killed one of its processes for want of memory: the task itself may live on then and wait for that process
// for ever, as the parent of a pool does.
type watcher struct {
	s        *supervisor
	a        *attempt
	group    *group
	over     chan struct{} // closed by stop
	finished chan struct{} // closed when run has returned

	unkillable chan struct{} // closed when the process is still there KillTime after it was killed; that may last for ever

	// Written before finished is closed.
	peak         int64 // the most memory that a sample found
	exceeded     bool  // a sample was above the limit
	machineKills int64 // kills of the whole machine, as of the last look while the attempt ran
}

// lookAtKills is how often the kernel's counter of processes killed for want of memory is read. The kernel also sends a message (an
// event of a control group of version 1, a change of a file in version 2), but that comes before the kill or stands for several
// kills, and would need a look at the same counter.
const lookAtKills = 500 * time.Millisecond

func (s *supervisor) watch(a *attempt, p process, group *group) *watcher {
	w := &watcher{s: s, a: a, group: group, over: make(chan struct{}), finished: make(chan struct{}), unkillable: make(chan struct{})}
	if !group.countsMemory {
		w.machineKills = machineKills()
	}
	go w.run(p)
	return w
}

func (w *watcher) run(p process) {
	defer close(w.finished)
	look := time.NewTicker(lookAtKills)
	defer look.Stop()
	var sample <-chan time.Time
	if w.a.spec.MemoryLimit > 0 && !w.group.limited {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		sample = tick.C
	}
	stop := w.a.stop
	var kill, killed <-chan time.Time
	// end kills all processes of the attempt, once: then we only wait for their end, and KillTime counts from this kill.
	end := func() {
		if alive(p) {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		w.s.killAll(w.a, p.PID, w.group)
		killed = time.After(w.s.config.KillTime)
		stop, kill, sample = nil, nil, nil
	}
	for {
		select {
		case <-w.over:
			return
		case <-stop:
			stop = nil
			w.s.mu.Lock()
			grace := w.a.stopGrace
			w.s.mu.Unlock()
			if !alive(p) {
				break // the process has just ended; its number may be another process's now
			}
			if err := syscall.Kill(-p.PID, syscall.SIGTERM); errors.Is(err, syscall.ESRCH) {
				_ = syscall.Kill(p.PID, syscall.SIGTERM) // not yet the leader of its session
			}
			kill = time.After(grace)
		case <-kill:
			end()
		case <-killed:
			close(w.unkillable)
			return
		case <-look.C:
			if !w.group.countsMemory {
				w.machineKills = machineKills() // also after our own kill: a kill of the kernel after it has not ended the attempt
			} else if killed == nil && w.group.kills() > 0 {
				end()
			}
		case <-sample:
			used := w.group.memory()
			w.peak = max(w.peak, used)
			if used > w.a.spec.MemoryLimit {
				w.exceeded = true
				end()
			}
		}
	}
}

// stop ends the watch: the attempt's process is gone.
func (w *watcher) stop() {
	close(w.over)
	<-w.finished
}

// judge adds to the record whether memory was the cause of the end.
func (w *watcher) judge(record *ExitRecord) {
	f := memoryFacts{
		limit: w.a.spec.MemoryLimit, peak: max(w.group.peak(), w.peak), sampledAbove: w.exceeded,
		counted: w.group.countsMemory, killed: w.group.kills(),
	}
	if !f.counted {
		f.killed = machineKills() - w.machineKills
	}
	record.PeakMemory = max(record.PeakMemory, f.peak)
	f.charge(record)
}

// memoryFacts is what is known about an attempt and memory when it has ended.
type memoryFacts struct {
	limit        int64 // of the attempt, in bytes; 0: none
	peak         int64 // the most that all its processes used at once; 0: unknown
	sampledAbove bool  // a sample was above the limit, and we ended the attempt
	counted      bool  // killed counts the attempt's own processes; false: those of the whole machine in the last moments of the attempt
	killed       int64 // processes that the kernel has killed for want of memory
}

// charge writes into an exit record whether the attempt ended for want of memory, and whose fault that is. With OOM it is the
// task's: the task used more than its limit, or had stated no limit when the machine ran out of memory. A reason without OOM says
// that the task was killed because the machine ran out of memory, although the task was within its limit: not its fault. The
// record of an attempt that ended otherwise stays as it is.
//
// The rule is that of Kubernetes since 1.28 with control groups of version 2: when the kernel kills one process of a container for
// want of memory, the whole container ends. So an attempt that lost a process never succeeds, whichever process that was and
// whether or not we saw it in time. If the machine runs out of memory, a killed task without a limit is at fault, since the kernel
// chooses the process that uses most; to run it again as after a failure of the system would bring the machine down once more.
func (f memoryFacts) charge(record *ExitRecord) {
	// For an end that no supervisor saw, since the supervisor ended too, the kernel's kill is the best explanation.
	died := record.Signal == int(syscall.SIGKILL) || record.Code == 128+int(syscall.SIGKILL) || record.Lost
	which := "a process that it had started"
	if died {
		which = "its process"
	}
	// The last step up to a limit may be a huge page, or a batch of pages that the kernel counts at once.
	slack := max(f.limit/16, 4<<20)
	mine := f.counted && f.killed > 0
	switch {
	case f.sampledAbove:
		record.outOfMemory(fmt.Sprintf("it used more than its limit of %d MiB of memory", f.limit>>20))
	case mine && f.limit > 0 && (f.peak == 0 || f.peak >= f.limit-slack):
		record.outOfMemory(fmt.Sprintf("it used more than its limit of %d MiB of memory, and the kernel killed %s", f.limit>>20, which))
	case f.limit == 0 && (mine || f.killed > 0 && died):
		record.outOfMemory(fmt.Sprintf("the machine ran out of memory, and the kernel killed %s; it had no limit", which))
	case mine || f.killed > 0 && died:
		record.Reason = fmt.Sprintf("the machine ran out of memory, though it was within its limit of %d MiB", f.limit>>20)
		if !record.Lost {
			record.Code, record.Signal = 0, int(syscall.SIGKILL)
		}
	}
}
