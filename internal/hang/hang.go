// Package hang lets callers go that wait for a disk which does not answer.
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
// While a call that was left is silent, the disk counts as hung: the calls that come then are given a second instead of the
// limit, and of those at most a few wait in the kernel beside it. So a disk that hangs for an hour costs a bounded number of
// goroutines. Nothing is to be repaired when it answers: the calls that were left return, and all is as before.
//
// Package sqlstore and blob/folder use it for what their callers wait for, health for its probes. It relies on a call leaving
// alone what belongs to its caller once it was left.
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
	// Limit is for how long a call may show no progress, unless its guard says otherwise: longer than a disk takes that is
	// only busy.
	Limit = 30 * time.Second

	// brief is what a call gets while the disk counts as hung, and what a call gets to return after its ctx has ended.
	brief = time.Second

	// mostLeft is how many calls may be left at once, unless the guard says otherwise.
	mostLeft = 32

	// leastRate is how many bytes a second a disk writes at least.
	leastRate = 10 << 20
)

// Guard is for the calls of one disk, or of one service. The zero value is ready once it has a name.
type Guard struct {
	Name  string        // as errors name what does not answer: "the disk of /data"
	Limit time.Duration // 0: Limit
	Most  int           // of calls that were left: more are refused at once; 0: mostLeft

	mu   sync.Mutex
	left map[*call]struct{}
}

// call is one call under a guard.
type call struct {
	began   time.Time
	moved   atomic.Int64 // signs of life
	allowed atomic.Int64 // until when it may be silent beyond the limit, in nanoseconds since it began
	silent  atomic.Bool  // it has shown no progress for the limit

	// Guarded by Guard.mu.
	over  bool // it has returned
	alone bool // its caller has gone
}

type callKey struct{}

// Progress says that the call of this ctx gets on.
func Progress(ctx context.Context) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.moved.Add(1)
	}
}

// Syncing says that the call of this ctx begins to make so many bytes durable, which may take its time without a sign of life.
func Syncing(ctx context.Context, bytes int64) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	c.moved.Add(1)
	until := int64(time.Since(c.began)) + bytes/leastRate*int64(time.Second)
	for was := c.allowed.Load(); was < until && !c.allowed.CompareAndSwap(was, until); { // of several at once the longest counts
		was = c.allowed.Load()
	}
}

// Outside runs what the call of this ctx does meanwhile without the disk, such as reading from a client. It may take any time.
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

// Err says since when the disk does not answer; nil: as far as is known it does.
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

// Do makes a call and returns what it returns. When the call shows no progress for the limit the error is
// aloft.ErrUnavailable, when ctx ends and the call does not return soon it is that of ctx: then the call was left, its ctx
// has ended, and what it returns in the end, also with an error, is handed to drop if there is one. A panic of the call is one
// of its caller, unless that has gone.
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
		if !g.leave(c, early) { // it has just returned
			return answer(<-done)
		}
		if early {
			return value, ctx.Err()
		}
		return value, g.hung(time.Since(c.began))
	}
}

// leave lets the caller of a call go, unless the call has returned meanwhile. One that was left before its limit counts as
// silent when that is over.
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
