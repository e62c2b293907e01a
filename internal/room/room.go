// Package room bounds how many bytes requests hold together, for messages that are received, decoded, read for an answer, encoded
// and sent. Package api makes a Claim for each request and puts it into the request's context; store/sqlstore and api take
// room for the rows that they read. Work without a claim in its context, such as the engine's, is not counted.
//
// A Pool has two parts. The first bytes of each claim, up to Allowance, come from the small part, so that small requests never
// wait behind large ones; all further bytes come from the large part. In each part
//
//	0 ≤ taken ≤ size
//
// and waiting claims are served in the order in which they came, so that small claims do not overtake a large one for ever. A
// claim waits at most Patience in all, however often it waits; then its request is refused with aloft.ErrExhausted and gives back
// all of its room. A call that lasts, such as WatchExecution, does its work in Parts: each Part may wait for Patience anew.
//
// A goroutine that holds something that others need, such as a connection to the database, must not wait for room meanwhile, or
// the two could wait for each other. It takes room with TryTake and, if there is none, returns a *Shortage and gives the connection
// back; Again, which called it, waits for the room and calls it again.
//
// For example, a list reads rows of 3 MiB while other requests hold all of the large part. The store's TryTake fails with a
// Shortage, and the store frees its connection. Again reserves the bytes when another request ends, and runs the query once
// more, which takes the reserved room without waiting.
package room

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
)

const (
	// Allowance is how many bytes of a claim come from the small part.
	Allowance = 64 << 10
	// Patience is how long a claim waits in all.
	Patience = 5 * time.Second

	smallShare = 8 // the small part is 1/smallShare of the pool
)

// Pool is the room for all requests of a process. The zero value has no room.
type Pool struct {
	size         int64
	patience     time.Duration
	small, large part
}

// NewPool returns a pool of size bytes.
func NewPool(size int64) *Pool { return NewPatientPool(size, Patience) }

// NewPatientPool returns a pool with another patience than Patience.
func NewPatientPool(size int64, patience time.Duration) *Pool {
	p := &Pool{size: size, patience: patience}
	p.small.size, p.large.size = size/smallShare, size-size/smallShare
	return p
}

// Largest is how many bytes of the large part one claim can have.
func (p *Pool) Largest() int64 { return p.large.size }

// Taken is how many bytes are taken now.
func (p *Pool) Taken() int64 { return p.small.used() + p.large.used() }

// part is a weighted semaphore whose waiters are served in order.
type part struct {
	mu          sync.Mutex
	size, taken int64
	waiters     list.List // of *waiter
}

type waiter struct {
	n     int64
	ready chan struct{}
}

func (p *part) used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

func (p *part) try(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeFree(n)
}

// takeFree takes n bytes if they are free and no claim waits. The caller holds mu.
func (p *part) takeFree(n int64) bool {
	if p.waiters.Len() > 0 || p.taken+n > p.size {
		return false
	}
	p.taken += n
	return true
}

// take waits until there is room. False if the context or the patience ends before.
func (p *part) take(ctx context.Context, n int64, patience time.Duration) bool {
	p.mu.Lock()
	if p.takeFree(n) {
		p.mu.Unlock()
		return true
	}
	w := &waiter{n, make(chan struct{})}
	element := p.waiters.PushBack(w)
	p.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.ready:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.ready: // served just now
		return true
	default:
	}
	p.waiters.Remove(element)
	p.serve() // waiters behind this one may need less
	return false
}

func (p *part) give(n int64) {
	p.mu.Lock()
	p.taken -= n
	p.serve()
	p.mu.Unlock()
}

// serve lets waiters in, first come first served. The caller holds mu.
func (p *part) serve() {
	for e := p.waiters.Front(); e != nil; e = p.waiters.Front() {
		w := e.Value.(*waiter) //nolint:forcetypeassert // nothing else is put there
		if p.taken+w.n > p.size {
			return
		}
		p.taken += w.n
		close(w.ready)
		p.waiters.Remove(e)
	}
}

// Claim is the room of one request. Safe for concurrent use.
type Claim struct {
	pool         *Pool
	mu           sync.Mutex
	small, large int64         // taken from the parts; small ≤ Allowance
	used         int64         // 0 ≤ used ≤ small + large; the rest is reserved by Again for the next takes
	left         time.Duration // how long the claim may still wait
}

// Claim returns a claim that has nothing yet.
func (p *Pool) Claim() *Claim { return &Claim{pool: p, left: p.patience} }

// tooLarge is the error of a request that needs more than the large part has at all.
func (c *Claim) tooLarge(n int64) error {
	return fmt.Errorf("%w: the request needs %d MiB of memory, and a request may have %d MiB: ask for less at once, or raise request-memory of the server",
		aloft.ErrExhausted, n>>20, c.pool.Largest()>>20)
}

// Shortage is the error of a claim for which there is no room now.
type Shortage struct {
	Need   int64         // bytes that the whole claim needs
	waits  time.Duration // patience of the pool, for the message
	waited bool          // the claim has waited in vain; otherwise it was TryTake
}

func (s *Shortage) Error() string {
	return fmt.Sprintf("%v: other requests hold the memory that the server has for requests, and there was no room for %d KiB within %v: try again later",
		aloft.ErrExhausted, (s.Need+1023)>>10, s.waits)
}

// Unwrap is aloft.ErrExhausted.
func (s *Shortage) Unwrap() error { return aloft.ErrExhausted }

// split divides n further bytes between the two parts. Reserved bytes are used first.
func (c *Claim) split(n int64) (small, large int64) {
	if spare := c.small + c.large - c.used; spare > 0 {
		n -= min(n, spare)
	}
	small = min(n, Allowance-c.small)
	return small, n - small
}

// Take takes n bytes and waits for them if need be. ErrExhausted if the patience of the claim ends, or the error of ctx.
func (c *Claim) Take(ctx context.Context, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.take(ctx, n, c.left)
}

// TryTake takes n bytes if there is room now. Otherwise the error is a *Shortage.
func (c *Claim) TryTake(n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.take(nil, n, 0) //nolint:staticcheck // nothing waits
}

// take waits at most for patience, both parts together. The caller holds mu.
func (c *Claim) take(ctx context.Context, n int64, patience time.Duration) error {
	if n <= 0 {
		return nil
	}
	small, large := c.split(n)
	if c.large+large > c.pool.large.size {
		return c.tooLarge(c.small + c.large + large)
	}
	get := func(p *part, n int64) bool {
		if n == 0 || p.try(n) {
			return true
		}
		if patience <= 0 {
			return false
		}
		began := time.Now()
		got := p.take(ctx, n, patience)
		waited := time.Since(began)
		patience -= waited
		c.left -= waited
		return got
	}
	if !get(&c.pool.small, small) {
		return c.short(ctx, n)
	}
	if !get(&c.pool.large, large) {
		if small > 0 {
			c.pool.small.give(small)
		}
		return c.short(ctx, n)
	}
	c.small, c.large, c.used = c.small+small, c.large+large, c.used+n
	return nil
}

func (c *Claim) short(ctx context.Context, n int64) error {
	if ctx != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return &Shortage{Need: c.used + n, waits: c.pool.patience, waited: ctx != nil}
}

// Enter waits for one of the places of a channel, within the patience of the claim: false, without an error, if that ends. A
// request that has a place must not wait for room, or it would wait for requests that have room and wait for a place.
func (c *Claim) Enter(ctx context.Context, places chan<- struct{}) (entered bool, err error) {
	select {
	case places <- struct{}{}:
		return true, nil
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left <= 0 {
		return false, nil
	}
	began := time.Now()
	defer func() { c.left -= time.Since(began) }()
	timer := time.NewTimer(c.left)
	defer timer.Stop()
	select {
	case places <- struct{}{}:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Give gives n bytes back that the request does not hold any more.
func (c *Claim) Give(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.used)
	c.used -= n
	large := min(n, c.large)
	c.give(n-large, large)
}

func (c *Claim) give(small, large int64) {
	if small > 0 {
		c.small -= small
		c.pool.small.give(small)
	}
	if large > 0 {
		c.large -= large
		c.pool.large.give(large)
	}
}

// Release gives all bytes of the claim back.
func (c *Claim) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.back(0)
}

// back gives back all but the first used bytes of the claim, reserved ones included. The caller holds mu.
func (c *Claim) back(used int64) {
	n := c.small + c.large - used
	c.used = used
	large := min(n, c.large)
	c.give(n-large, large)
}

type claimKey struct{}

// With puts a claim into a context.
func With(ctx context.Context, c *Claim) context.Context {
	return context.WithValue(ctx, claimKey{}, c)
}

// Of returns the claim of a context, nil if it has none.
func Of(ctx context.Context) *Claim {
	c, _ := ctx.Value(claimKey{}).(*Claim)
	return c
}

// Take is Claim.Take of the claim in ctx.
func Take(ctx context.Context, n int64) error {
	if c := Of(ctx); c != nil {
		return c.Take(ctx, n)
	}
	return nil
}

// Part begins a part of a call that lasts, such as one look of WatchExecution. The claim of ctx may wait for Patience anew, and
// release gives back the bytes that it has taken since. A part may be within another one, and within Again.
func Part(ctx context.Context) (release func()) {
	c := Of(ctx)
	if c == nil {
		return func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.used
	c.left = c.pool.patience
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.back(before)
	}
}

// Again runs a read that takes room with TryTake. If the read fails with a Shortage, Again waits for the room, which it
// reserves in the claim of ctx, and runs the read once more. The read must have no effect but its result.
func Again(ctx context.Context, read func() error) error {
	c := Of(ctx)
	if c == nil {
		return read()
	}
	c.mu.Lock()
	before := c.used
	c.mu.Unlock()
	var until time.Time // end of the patience since the first shortage, so that a read that needs more each time ends, too
	for {
		err := read()
		var s *Shortage
		if !errors.As(err, &s) || s.waited {
			return err
		}
		if until.IsZero() {
			until = time.Now().Add(c.pool.patience)
		}
		if err := c.reserve(ctx, before, s.Need-before, time.Until(until)); err != nil {
			return err
		}
	}
}

// reserve gives back all but the first before bytes of the claim, and then waits for n bytes, which the next takes will use.
func (c *Claim) reserve(ctx context.Context, before, n int64, patience time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.back(before)
	if err := c.take(ctx, n, min(patience, c.left)); err != nil {
		return err
	}
	c.used = before
	return nil
}
