package worker

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// watching goes along with a running attempt: it ends it when a stop comes, when it takes more memory than it may, and when
// the kernel has killed one of its processes for want of memory. The task itself may live on then and wait for that
// process for ever, as the parent of a pool does.
type watching struct {
	s        *supervisor
	a        *attempt
	group    *group
	over     chan struct{}
	finished chan struct{}

	unkillable chan struct{} // closed when the process was killed and is still there, which the kernel may keep up for ever

	// Written before finished is closed.
	peak         int64
	exceeded     bool
	machineKills int64 // of the whole machine, when they were last looked at while the attempt ran
}

// lookAtKills is how often the kernel is asked whether it has killed something for want of memory. Its own message of that
// (an event of a control group of version 1, a change of a file in version 2) comes before the kill or coalesces, and would
// need a look at the same counter.
const lookAtKills = 500 * time.Millisecond

func (s *supervisor) watch(a *attempt, p process, group *group) *watching {
	w := &watching{s: s, a: a, group: group, over: make(chan struct{}), finished: make(chan struct{}), unkillable: make(chan struct{})}
	if !group.counts {
		w.machineKills = machineKills()
	}
	go w.run(p)
	return w
}

func (w *watching) run(p process) {
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
	// end kills all of the attempt, once: then it is only waited for, and KillTime counts from the first kill.
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
				break // it has just ended; its number may be another's
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
			if !w.group.counts {
				w.machineKills = machineKills() // also after the kill: what the kernel kills then has not ended the attempt
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
func (w *watching) stop() {
	close(w.over)
	<-w.finished
}

// judge adds to the record what memory had to do with the end.
func (w *watching) judge(record *ExitRecord) {
	f := memoryFacts{
		limit: w.a.spec.MemoryLimit, peak: max(w.group.peak(), w.peak), sampledAbove: w.exceeded,
		counted: w.group.counts, killed: w.group.kills(),
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
	sampledAbove bool  // we saw it above its limit, and ended it
	counted      bool  // killed is of the attempt's own processes; else of the whole machine, in the last moments of the attempt
	killed       int64 // processes that the kernel has killed for want of memory
}

// charge writes into the record of an attempt that has ended whom an end for want of memory is charged to. OOM: the task,
// which used more than it may, or had stated no limit when the machine ran out of memory. A reason without OOM says that the
// machine ran out of memory although the task was within its limit: that is not its fault, and it was killed. The record of
// an attempt that ended otherwise stays as it is.
//
// It follows what Kubernetes does since 1.28 with control groups of version 2: when the kernel kills one process of a
// container for want of memory, all of it ends. So an attempt that lost a process never ends well, whichever process it was
// and whether or not we saw it in time. The machine's memory is charged to the task without a limit that the kernel has
// chosen, since it chooses the one that uses most; to start it again as if the system had failed would take the machine
// once more.
func (f memoryFacts) charge(record *ExitRecord) {
	// Of an end that nobody saw, as the supervisor ended too, the kernel's kill is the best explanation.
	died := record.Signal == int(syscall.SIGKILL) || record.Code == 128+int(syscall.SIGKILL) || record.Lost
	which := "a process that it had started"
	if died {
		which = "its process"
	}
	// The last step up to a limit may be a huge page, or one that the kernel counts in batches.
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
