package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/aloft-dev/aloft/store"
)

// fastClockSearch is the search for runs that are ahead of the clock of the process (see clock.go). It reads the times of all
// live executions of the shards that were taken, once, page by page in the order of their keys.
type fastClockSearch struct {
	shards   map[int]bool // that are still to be searched
	after    store.Key    // where the next page begins
	restarts int          // how often the search has begun again
}

// retain leaves out the shards that the engine does not move: when it takes such a shard again, it is searched again.
func (s *fastClockSearch) retain(ours func(shard int) bool) {
	maps.DeleteFunc(s.shards, func(shard int, _ bool) bool { return !ours(shard) })
}

// clocksPerRead is how many executions a page of the search has: messages and timers are collected between two pages.
const clocksPerRead = 1000

// addShard makes the search begin again, with one more shard.
func (s *fastClockSearch) addShard(shard int) {
	if s.shards == nil {
		s.shards = make(map[int]bool)
	}
	s.shards[shard], s.after = true, 0
	s.restarts++
}

// searchFastClocks reads the next page and makes ready the executions in it that are ahead: by the times in their records they
// would wait too long. more: there are further pages.
func (e *Engine) searchFastClocks(ctx context.Context) (more bool, err error) {
	e.mu.Lock()
	shards := slices.Sorted(maps.Keys(e.clockSearch.shards))
	after, restarts := e.clockSearch.after, e.clockSearch.restarts
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
		// A parked execution is due within longestPark if no clock was ahead. Latest does not tell: the entry that parked it
		// has no event.
		parked := row.Waiting && row.DueAt.Sub(now) > longestPark
		if e.leases.moving(row.Shard, now) && (row.Latest.After(now) || parked) {
			r := e.runOf(row.Execution, row.Shard)
			if !r.busy {
				r.clock.advanceTo(row.Latest, now)
			}
			e.makeReady(r)
		}
		after = max(after, row.Execution)
	}
	if e.clockSearch.restarts != restarts {
		return true, nil // a shard was taken meanwhile
	}
	e.clockSearch.after = after
	if len(rows) < clocksPerRead {
		for _, shard := range shards {
			delete(e.clockSearch.shards, shard)
		}
		e.clockSearch.after = 0
	}
	return len(e.clockSearch.shards) > 0, nil
}
