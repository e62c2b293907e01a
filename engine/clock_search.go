package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/aloft-dev/aloft/store"
)

// fastClockSearch is the search for runs whose clock is ahead of ours (see clock.go): all live executions of the shards that
// were taken are looked at once, page by page in the order of their keys.
type fastClockSearch struct {
	shards map[int]bool // that are still to be looked at
	after  store.Key    // where the next page begins
	begun  int          // how often it has begun again
}

// keep leaves out the shards that are not ours to move: when one is again, it is looked at again.
func (s *fastClockSearch) keep(ours func(shard int) bool) {
	maps.DeleteFunc(s.shards, func(shard int, _ bool) bool { return !ours(shard) })
}

// clocksPerRead is how many executions a page of the search has: messages and timers are collected between two pages.
const clocksPerRead = 1000

// look makes the search begin again, with another shard.
func (s *fastClockSearch) look(shard int) {
	if s.shards == nil {
		s.shards = make(map[int]bool)
	}
	s.shards[shard], s.after = true, 0
	s.begun++
}

// searchFastClocks looks at the next page and makes ready the runs in it whose clock is ahead: what waits by the times of their
// records would wait too long. It says whether there are more pages.
func (e *Engine) searchFastClocks(ctx context.Context) (more bool, err error) {
	e.mu.Lock()
	shards := slices.Sorted(maps.Keys(e.clockSearch.shards))
	after, begun := e.clockSearch.after, e.clockSearch.begun
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
	if e.clockSearch.begun != begun {
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
