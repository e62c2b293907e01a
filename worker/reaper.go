package worker

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// ending is how a process ended. usage is nil if only the status is known.
type ending struct {
	status syscall.WaitStatus
	usage  *syscall.Rusage
}

// reaper waits for all children of this process: those that we started, and those that became our children because we are the
// subreaper. No other code of a supervisor may wait for a child, so os/exec is not used there.
type reaper struct {
	mu        sync.Mutex
	watched   map[int]chan ending // by pid: children whose end is waited for
	unwatched map[int]ending      // by pid: children that ended while not in watched; at most maxUnwatched, the oldest is dropped
	order     []int               // the keys of unwatched, oldest first
}

const maxUnwatched = 4096

func newReaper() *reaper {
	r := &reaper{watched: map[int]chan ending{}, unwatched: map[int]ending{}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			r.reap()
		}
	}()
	return r
}

// reap takes the ends of all children that have ended.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var e ending
		e.usage = new(syscall.Rusage)
		pid, err := syscall.Wait4(-1, &e.status, syscall.WNOHANG, e.usage)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if to, ok := r.watched[pid]; ok {
			delete(r.watched, pid)
			to <- e
			continue
		}
		if _, again := r.unwatched[pid]; !again {
			r.order = append(r.order, pid)
		}
		r.unwatched[pid] = e
		if len(r.order) > maxUnwatched {
			delete(r.unwatched, r.order[0])
			r.order = r.order[1:]
		}
	}
}

// start runs a program as our child, in the group of its attempt; nil: it belongs to no attempt. The lock keeps the child from
// being reaped before we know its pid.
func (r *reaper) start(path string, argv []string, attr *syscall.ProcAttr, in *group) (int, <-chan ending, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := in.fork(path, argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", path, err)
	}
	r.forget(pid) // an earlier process may have had this pid
	ended := make(chan ending, 1)
	r.watched[pid] = ended
	return pid, ended, nil
}

// inherit waits for a process that became our child when its parent ended, or will.
func (r *reaper) inherit(pid int) <-chan ending {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := make(chan ending, 1)
	if e, ok := r.unwatched[pid]; ok {
		r.forget(pid)
		ended <- e
	} else {
		r.watched[pid] = ended
	}
	return ended
}

// unwatch ends the wait for a process.
func (r *reaper) unwatch(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watched, pid)
}

// forget drops the end of an earlier process with this pid.
func (r *reaper) forget(pid int) {
	if _, ok := r.unwatched[pid]; !ok {
		return
	}
	delete(r.unwatched, pid)
	for i, p := range r.order {
		if p == pid {
			r.order = append(r.order[:i], r.order[i+1:]...)
			return
		}
	}
}
