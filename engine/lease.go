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
	until time.Time // by our clock, counted from before we asked
	timed bool      // its soonest timers were looked at
}

func (l lease) valid(now time.Time) bool { return l.held && now.Before(l.until) }

// renew takes what is free, renews what we have, and forgets the executions of shards that are not ours any more.
func (e *Engine) renew(ctx context.Context) error {
	asked := e.clock.Now()
	leases, err := e.store.AcquireShards(ctx, e.config.Owner, asked, e.config.LeaseTTL)
	if err != nil {
		e.mu.Lock()
		e.dropExpired(e.clock.Now())
		e.mu.Unlock()
		return fmt.Errorf("acquire shards: %w", err)
	}
	taken, untimed := 0, []int(nil)
	e.mu.Lock()
	var ours [store.Shards]bool
	for _, l := range leases {
		old := &e.leases[l.Shard]
		ours[l.Shard] = true
		if !old.held || old.Epoch != l.Epoch {
			if old.held {
				// Somebody had it in between: what we know of it may be old.
				e.dropShard(l.Shard)
			}
			*old = lease{}
			taken++
		}
		*old = lease{Lease: l, held: true, until: asked.Add(e.config.LeaseTTL), timed: old.timed}
		if !old.timed {
			untimed = append(untimed, l.Shard)
		}
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
	e.mu.Unlock()

	if lost > 0 {
		e.logger.Warn("another engine has taken shards", "shards", lost)
	}
	if taken > 0 {
		e.logger.Info("shards taken", "shards", taken)
	}
	if len(untimed) > 0 {
		return e.learnTime(ctx, untimed)
	}
	return nil
}

// learnTime loads the executions whose timers are soonest. That moves the clock to the latest time they have seen: with a
// clock that was set back their timers would otherwise not even be looked at.
func (e *Engine) learnTime(ctx context.Context, shards []int) error {
	rows, err := e.store.Due(ctx, shards, time.Unix(1<<33, 0), firstTimers)
	if err != nil {
		return fmt.Errorf("read the first timers: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, shard := range shards {
		e.leases[shard].timed = true // until it is lost, and with it this
	}
	for _, row := range rows {
		if e.leases[row.Shard].held {
			e.push(e.run(row.Execution, row.Shard))
		}
	}
	return nil
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
		if e.leases[shard].valid(now) {
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
