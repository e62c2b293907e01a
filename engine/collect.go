package engine

import (
	"context"
	"fmt"
	"time"
)

// collect reads new messages of the inboxes and timers that are near, and makes ready the runs that can be stepped.
func (e *Engine) collect(ctx context.Context) error {
	now := e.clock.Now()
	shards := e.movingShards()
	e.mu.Lock()
	e.dropExpired(now)
	e.clockSearch.retain(func(shard int) bool { return e.leases.moving(shard, now) })
	rescan := intervalOver(now, &e.rescanAt, e.config.Poll)
	after := e.inboxes.beginCollection(rescan)
	held := len(e.runs)
	e.mu.Unlock()
	if len(shards) == 0 {
		return nil
	}

	if rescan {
		// Runs in memory have their timers in the heap; this finds the other executions before they are due.
		if err := e.collectDue(ctx, shards, now.Add(2*e.config.Poll), held+1000); err != nil {
			return err
		}
	}
	if more, err := e.searchFastClocks(ctx); err != nil {
		return err
	} else if more {
		e.wakeCollector()
	}
	for {
		rows, err := e.store.Inbox(ctx, shards, after, messagesPerRead)
		if err != nil {
			e.mu.Lock()
			e.rescanAt = time.Time{}
			e.mu.Unlock()
			return fmt.Errorf("read inbox: %w", err)
		}
		e.mu.Lock()
		for _, row := range rows {
			if e.leases.moving(row.Shard, now) {
				e.addMessage(row)
			}
			after = row.Seq
		}
		e.inboxes.cursor = after
		e.mu.Unlock()
		if len(rows) < messagesPerRead {
			break
		}
	}
	e.mu.Lock()
	e.fire(e.clock.Now())
	e.wakeParked()
	e.mu.Unlock()
	return nil
}

func (e *Engine) collectDue(ctx context.Context, shards []int, until time.Time, limit int) error {
	rows, err := e.store.Due(ctx, shards, until, limit)
	if err != nil {
		e.mu.Lock()
		e.rescanAt = time.Time{}
		e.mu.Unlock()
		return fmt.Errorf("read timers: %w", err)
	}
	now := e.clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, row := range rows {
		if !e.leases.moving(row.Shard, now) {
			continue
		}
		if _, have := e.runs[row.Execution]; have {
			continue
		}
		e.setTimer(e.runOf(row.Execution, row.Shard), row.DueAt)
	}
	return nil
}

// keepCollecting collects when a message was committed, when a timer is over or the room for messages has changed, and at each
// poll.
func (e *Engine) keepCollecting(ctx context.Context, wake <-chan struct{}) {
	for failures := 0; ; {
		if err := e.collect(ctx); err != nil && ctx.Err() == nil {
			if failures++; failures == 1 || failures%100 == 0 { // an outage of the database may last
				e.logger.Warn("messages were not collected", "tries", failures, "error", err)
			}
			if !sleep(ctx, e.config.Poll/4) {
				return
			}
			continue
		}
		failures = 0
		timer := time.NewTimer(max(0, e.WakeAt().Sub(e.clock.Now())))
		select {
		case <-ctx.Done():
		case <-wake:
		case <-e.collectorWake:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// wakeCollector makes the collector begin anew, with the timers and the room that there are now. It never blocks.
func (e *Engine) wakeCollector() {
	select {
	case e.collectorWake <- struct{}{}:
	default:
	}
}
