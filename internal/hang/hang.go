// Package hang ends the waiting of callers for a disk that does not answer.
//
// A call of the file system has no deadline: on a frozen disk, or a network file system whose server is gone, it waits in the
// kernel until the disk answers again, and cannot be ended. So such a call runs on a goroutine of its own, and its caller waits
// for it no longer than it would for any other service:
//
//	caller ── Do ──▶ call ──(answer)──▶ caller
//	           │
//	           ├──(silent for the limit)──▶ caller: aloft.ErrUnavailable     call: left, its result is dropped
//	           └──(the caller's ctx ends)─▶ caller: the error of ctx         call: likewise
//
// A call is left when its caller stops waiting for it. While a left call is silent, the disk counts as hung: further calls get a
// second instead of the limit, and at most Guard.Most of them are left in the kernel, so that a disk that hangs for an hour costs a
// bounded number of goroutines. When the disk answers, the left calls return, and the disk counts as well again without any repair.
//
// Packages sqlstore and blob/folder use it for the calls that their callers wait for, package health for its probes. It relies on a
// left call not touching anything that belongs to its caller.
package hang

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aloft-dev/aloft"
)

const (
	// Limit is how long a call may show no progress, if Guard.Limit is 0. It is longer than a disk takes that is only busy.
	Limit = 30 * time.Second

	// brief is the limit of a call while the disk counts as hung, and the time that a call has to return after its ctx has ended.
	brief = time.Second

	// mostLeft is how many calls may be left at once, if Guard.Most is 0.
	mostLeft = 32

	// leastRate is the lowest rate, in bytes a second, at which a healthy disk writes.
	leastRate = 10 << 20
)

// Guard guards the calls of one disk, or of one service. The zero value is ready once it has a name.
type Guard struct {
	Name  string        // of the disk or service in errors: "the disk of /data"
	Limit time.Duration // how long a call may show no progress; 0: Limit
	Most  int           // how many calls may be left at once: while so many are, further calls are refused; 0: mostLeft

	mu   sync.Mutex
	left map[*call]struct{}
}

// call is one call under a guard.
type call struct {
	began   time.Time
	moved   atomic.Int64 // calls of Progress, Syncing and Outside
	allowed atomic.Int64 // until when the call may be silent although the limit has passed, in nanoseconds since it began
	silent  atomic.Bool  // the call was left and has shown no progress for the limit

	// Guarded by Guard.mu.
	over  bool // the call has returned
	alone bool // the call was left
}

type callKey struct{}

// Progress says that the call of this ctx has made progress.
func Progress(ctx context.Context) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.moved.Add(1)
	}
}

// Syncing says that the call of this ctx begins to sync a number of bytes to disk, which takes time without progress: the call
// may be silent for as long as that takes at leastRate.
func Syncing(ctx context.Context, bytes int64) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	c.moved.Add(1)
	until := int64(time.Since(c.began)) + bytes/leastRate*int64(time.Second)
	for was := c.allowed.Load(); was < until && !c.allowed.CompareAndSwap(was, until); { // if several goroutines of the call sync, the longest time counts
		was = c.allowed.Load()
	}
}

// Outside runs a part of the call of this ctx that does not use the disk, such as reading from a client. It may take any time.
func Outside(ctx context.Context, do func()) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		do()
		return
	}
	c.allowed.Store(math.MaxInt64)
	do()
	c.moved.Add(1)
	c.allowed.Store(0)
}

// Err is the error of a disk that counts as hung, with the time since when it has not answered; nil: it does not count as hung.
func (g *Guard) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err()
}

func (g *Guard) err() error {
	var first *call
	for c := range g.left {
		if c.silent.Load() && (first == nil || c.began.Before(first.began)) {
			first = c
		}
	}
	if first == nil {
		return nil
	}
	return g.hung(time.Since(first.began))
}

func (g *Guard) hung(silent time.Duration) error {
	return fmt.Errorf("%w: %s has not answered for %s: check it, and the network if it is a network file system; all goes on by itself when it answers",
		aloft.ErrUnavailable, g.Name, silent.Round(time.Second))
}

func (g *Guard) limit() time.Duration {
	if g.Limit > 0 {
		return g.Limit
	}
	return Limit
}

// Do makes a call and returns its result. If the call shows no progress for the limit, the error is aloft.ErrUnavailable; if
// ctx ends and the call does not return soon, it is that of ctx. In both cases the call was left and its ctx ended: when it
// returns in the end, its value, also with an error, is handed to drop if drop is not nil. A panic of the call becomes a panic
// of Do, unless the call was left.
func Do[T any](ctx context.Context, g *Guard, do func(ctx context.Context) (T, error), drop func(T)) (value T, err error) {
	type result struct {
		value    T
		err      error
		returned bool
		panicked any
		stack    []byte
	}
	limit := g.limit()
	g.mu.Lock()
	most := g.Most
	if most == 0 {
		most = mostLeft
	}
	if hung := g.err(); hung != nil {
		if len(g.left) >= most {
			g.mu.Unlock()
			return value, hung
		}
		limit = min(limit, brief)
	}
	g.mu.Unlock()

	c := &call{began: time.Now()}
	inner, cancel := context.WithCancel(context.WithValue(ctx, callKey{}, c))
	defer cancel()
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if !r.returned {
				r.panicked, r.stack = recover(), debug.Stack()
			}
			g.mu.Lock()
			c.over = true
			delete(g.left, c)
			alone := c.alone
			g.mu.Unlock()
			if alone && drop != nil {
				drop(r.value)
			}
			done <- r
		}()
		r.value, r.err = do(inner)
		r.returned = true
	}()
	answer := func(r result) (T, error) {
		switch {
		case r.panicked != nil:
			panic(fmt.Sprintf("%v\n\n%s", r.panicked, r.stack))
		case !r.returned:
			runtime.Goexit()
		}
		return r.value, r.err
	}

	timer := time.NewTimer(limit)
	defer timer.Stop()
	gone, early, seen := ctx.Done(), false, int64(0)
	for {
		select {
		case r := <-done:
			return answer(r)
		case <-gone:
			gone, early = nil, true
			timer.Reset(min(limit, brief))
			continue
		case <-timer.C:
		}
		if moved := c.moved.Load(); !early && (moved != seen || time.Since(c.began) < time.Duration(c.allowed.Load())) {
			seen = moved
			timer.Reset(limit)
			continue
		}
		if !g.leave(c, early) { // the call has just returned
			return answer(<-done)
		}
		if early {
			return value, ctx.Err()
		}
		return value, g.hung(time.Since(c.began))
	}
}

// leave marks a call as left, unless it has returned meanwhile. A call that was left early, before its limit, counts as silent
// only when the limit has passed.
func (g *Guard) leave(c *call, early bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.over {
		return false
	}
	if g.left == nil {
		g.left = map[*call]struct{}{}
	}
	g.left[c], c.alone = struct{}{}, true
	if early {
		time.AfterFunc(g.limit(), func() { c.silent.Store(true) })
	} else {
		c.silent.Store(true)
	}
	return true
}
