package worker

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// ending is how a process ended. usage is nil where only the status is known.
type ending struct {
	status syscall.WaitStatus
	usage  *syscall.Rusage
}

// reaper waits for all children of this process: those that it started, and those that became ours because we are the
// subreaper. Nothing else in a supervisor may wait for a child, so os/exec is not used in it.
type reaper struct {
	mu      sync.Mutex
	watched map[int]chan ending
	unasked map[int]ending // ended before anybody asked; bounded, oldest dropped
	order   []int
}

const maxUnasked = 4096

func newReaper() *reaper {
	r := &reaper{watched: map[int]chan ending{}, unasked: map[int]ending{}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			r.reap()
		}
	}()
	return r
}

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
		if _, again := r.unasked[pid]; !again {
			r.order = append(r.order, pid)
		}
		r.unasked[pid] = e
		if len(r.order) > maxUnasked {
			delete(r.unasked, r.order[0])
			r.order = r.order[1:]
		}
	}
}

// start runs a program as our child, in the group of its attempt; nil: it belongs to none. The lock keeps its end from being
// reaped before we know its number.
func (r *reaper) start(path string, argv []string, attr *syscall.ProcAttr, in *group) (int, <-chan ending, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := in.fork(path, argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", path, err)
	}
	r.forget(pid) // of an earlier process with this number
	ended := make(chan ending, 1)
	r.watched[pid] = ended
	return pid, ended, nil
}

// inherit watches a child that became ours when its parent died.
func (r *reaper) inherit(pid int) <-chan ending {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := make(chan ending, 1)
	if e, ok := r.unasked[pid]; ok {
		r.forget(pid)
		ended <- e
	} else {
		r.watched[pid] = ended
	}
	return ended
}

func (r *reaper) leave(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watched, pid)
}

func (r *reaper) forget(pid int) {
	if _, ok := r.unasked[pid]; !ok {
		return
	}
	delete(r.unasked, pid)
	for i, p := range r.order {
		if p == pid {
			r.order = append(r.order[:i], r.order[i+1:]...)
			return
		}
	}
}
