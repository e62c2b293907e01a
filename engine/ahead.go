package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// ahead is the search for runs whose clock is ahead of ours (see clock.go): all live executions of the shards that were
// taken are looked at once, page by page in the order of their keys.
type ahead struct {
	shards map[int]bool // that are still to be looked at
	after  store.Key    // where the next page begins
	begun  int          // how often it has begun again
}

// keep leaves out the shards that are not ours to move: when one is again, it is looked at again.
func (a *ahead) keep(ours func(shard int) bool) {
	maps.DeleteFunc(a.shards, func(shard int, _ bool) bool { return !ours(shard) })
}

// clocksPerRead is how many executions are looked at before others have their turn.
const clocksPerRead = 1000

// look makes the search begin again, with another shard.
func (a *ahead) look(shard int) {
	if a.shards == nil {
		a.shards = make(map[int]bool)
	}
	a.shards[shard], a.after = true, 0
	a.begun++
}

// collectAhead looks at the next page and makes ready the runs in it whose clock is ahead: what waits by the times of their
// records would wait too long. It says whether there are more pages.
func (e *Engine) collectAhead(ctx context.Context) (more bool, err error) {
	e.mu.Lock()
	shards := slices.Sorted(maps.Keys(e.ahead.shards))
	after, begun := e.ahead.after, e.ahead.begun
	e.mu.Unlock()
	if len(shards) == 0 {
		return false, nil
	}
	rows, err := e.store.Clocks(ctx, shards, after, clocksPerRead)
	if err != nil {
		return false, fmt.Errorf("read the times of executions: %w", err)
	}
	now := e.clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, row := range rows {
		// What is parked is due within longestPark, if no clock was ahead; its last journal entry tells no time.
		parked := row.Waiting && row.DueAt.Sub(now) > longestPark
		if e.leases.moving(row.Shard, now) && (row.Latest.After(now) || parked) {
			r := e.run(row.Execution, row.Shard)
			if !r.busy {
				r.clock.floor(row.Latest, now)
			}
			e.push(r)
		}
		after = max(after, row.Execution)
	}
	if e.ahead.begun != begun {
		return true, nil // a shard was taken meanwhile
	}
	e.ahead.after = after
	if len(rows) < clocksPerRead {
		for _, shard := range shards {
			delete(e.ahead.shards, shard)
		}
		e.ahead.after = 0
	}
	return len(e.ahead.shards) > 0, nil
}

// isAhead says whether the store would find the run too late: then it stays in memory with its timer.
func (r *run) isAhead() bool { return r.clock.ahead > aheadMatters }

// aheadMatters is how far a run may be ahead without harm: by so much its own timers may be found late.
const aheadMatters = time.Second
