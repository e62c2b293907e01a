package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// lease is the right to commit to the executions of a shard, and until when we believe in it.
type lease struct {
	store.Lease
	held  bool
	until time.Time // by the clock of the process, counted from before we asked
}

// valid says whether we may commit under it.
func (l lease) valid(now time.Time) bool { return l.held && now.Before(l.until) }

// moving says whether we may begin a step under it: not when it is about to be another engine's.
func (l lease) moving(now time.Time) bool { return l.valid(now) && !l.Surplus }

// renew says that we are there, takes our share of what is free, renews what we have, gives back what is more than our
// share, and forgets the executions of shards that are not ours any more.
func (e *Engine) renew(ctx context.Context) error {
	asked := e.clock.Now()
	leases, err := e.store.AcquireShards(ctx, e.config.Owner, asked, e.config.LeaseTTL)
	if err != nil {
		e.mu.Lock()
		e.dropExpired(e.clock.Now())
		e.mu.Unlock()
		return fmt.Errorf("acquire shards: %w", err)
	}
	taken := 0
	e.mu.Lock()
	var ours [store.Shards]bool
	for _, l := range leases {
		old := &e.leases[l.Shard]
		ours[l.Shard] = true
		switch {
		case old.held && old.Epoch != l.Epoch:
			e.dropShard(l.Shard) // another engine had it in between: what we know of it may be old
			e.ahead.look(l.Shard)
			taken++
		case !old.held:
			e.ahead.look(l.Shard)
			taken++
		case old.Surplus && !l.Surplus: // it stays with us after all: what came meanwhile has not been read
			e.ahead.look(l.Shard)
			taken++
		}
		*old = lease{Lease: l, held: true, until: asked.Add(e.config.LeaseTTL)}
	}
	lost := 0
	for shard := range e.leases {
		if e.leases[shard].held && !ours[shard] {
			e.dropShard(shard)
			e.leases[shard] = lease{}
			lost++
		}
	}
	if taken > 0 {
		e.rescanAt = time.Time{}
	}
	yielded := e.resting()
	e.mu.Unlock()

	if len(yielded) > 0 {
		if err := e.store.YieldShards(ctx, yielded); err != nil {
			return fmt.Errorf("give shards to other engines: %w", err) // the next renewal says whether they are still ours
		}
		e.logger.Info("shards given to other engines", "shards", len(yielded))
	}
	if lost > 0 {
		e.logger.Warn("another engine has taken shards", "shards", lost)
	}
	if taken > 0 {
		e.logger.Info("shards taken", "shards", taken)
	}
	return nil
}

// resting takes out the surplus shards of which nothing is being stepped or committed. The others finish that first.
func (e *Engine) resting() (yielded []store.Lease) {
	var busy [store.Shards]bool
	for _, r := range e.runs {
		busy[r.shard] = busy[r.shard] || r.busy
	}
	for shard := range e.leases {
		if l := &e.leases[shard]; l.held && l.Surplus && !busy[shard] {
			yielded = append(yielded, l.Lease)
			e.dropShard(shard)
			*l = lease{}
		}
	}
	return yielded
}

// leaving says whether surplus shards are still to be given back.
func (e *Engine) leaving() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for shard := range e.leases {
		if e.leases[shard].held && e.leases[shard].Surplus {
			return true
		}
	}
	return false
}

// dropExpired forgets what belongs to leases that have run out without being renewed.
func (e *Engine) dropExpired(now time.Time) {
	for shard := range e.leases {
		if l := &e.leases[shard]; l.held && !l.valid(now) {
			e.dropShard(shard)
			*l = lease{}
		}
	}
}

func (e *Engine) dropShard(shard int) {
	for _, r := range e.runs {
		if r.shard == shard {
			e.drop(r)
		}
	}
}

// shards are those whose executions we may move now.
func (e *Engine) shards() []int {
	now := e.clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	shards := make([]int, 0, store.Shards)
	for shard := range e.leases {
		if e.leases[shard].moving(now) {
			shards = append(shards, shard)
		}
	}
	return shards
}

func (e *Engine) keepLeases(ctx context.Context) {
	every := e.config.LeaseTTL / 3
	for {
		wait := every
		if err := e.renew(ctx); err != nil && ctx.Err() == nil {
			e.logger.Warn("leases were not renewed", "error", err)
			wait = every / 8
		} else if e.leaving() {
			wait = every / 32
		} else if len(e.shards()) < store.Shards {
			wait = every / 4 // another engine has the others: soon after it has died, its executions go on here
		}
		e.wakeCollector()
		if !sleep(ctx, wait) {
			return
		}
	}
}

// sleep waits, and says whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
