package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// leases is what an engine holds of the 64 shards, into which executions are divided by their ids. A lease is the right to
// write the journals of one shard's executions: no two engines ever write one journal at the same time.
//
// In the store a shard has an owner, a time at which the lease runs out, and an epoch, which grows by one each time the
// shard gets another owner:
//
//	free ──AcquireShards──▶ owned ──AcquireShards (each third of LeaseTTL)──▶ owned, for another LeaseTTL
//	                          │
//	                          ├──YieldShards, ReleaseShards──▶ free
//	                          └──the lease runs out──▶ another engine's, epoch + 1
//
// Two clocks decide, on purpose. The store compares times by one clock (of the machine or, where servers share a database,
// of the database), and only to give a shard to another engine. The engine counts LeaseTTL by its own monotonic clock from
// before it asked, so that it stops relying on a lease before the store can give the shard away:
//
//	until (here) ≤ expires (in the store), both as moments of real time
//
// Neither clock is needed for safety, only so that engines do not work in vain. The epoch is needed: a step names the epoch
// under which it was decided, and the transaction that would commit it refuses the step (ErrFenced) unless the shard has that
// epoch.
//
//	epoch of a committed step = epoch of its shard in that transaction
//
// Of each shard, the engine is in one of these states:
//
//	not held    none of its executions is in memory
//	moving      executions are read, stepped and committed
//	surplus     another engine came, and this one has more than its share: no step begins, steps that were begun are
//	            committed, then the shard is given back, so that the other engine need not wait until the lease has run out
//	expired     the lease was not renewed in time: the shard's runs are dropped, and their decided steps are not committed
//
// Example: engine A holds shard 7 under epoch 3, decides a step and is suspended before it commits. Its lease runs out; B takes
// the shard under epoch 4, folds the journal and goes on. A wakes up and commits under epoch 3: refused. It forgets the
// execution. If A's commit had come before B took the shard, B would have found A's entry in the journal.
//
// A lease that was given back and taken again by the same engine has another epoch, too: what the engine knew of the shard
// may be old, and is dropped. Executors and recovery jobs have no epoch, but other fences for the same purpose: an executor's
// process names its nonce (store.Attempts), and the server that saves a recovery job names the version that it read
// (store.Recoveries).
//
// The 64 leases always take the same few bytes. Engine.mu guards them.
type leases struct {
	shards [store.Shards]lease
}

// lease is the right to commit steps of the executions of a shard, and until when the engine relies on it.
type lease struct {
	store.Lease
	held      bool
	heldSince time.Time // when the engine got it under this epoch, by the clock of the process
	until     time.Time // by the same clock: LeaseTTL after the moment before the engine asked for it
}

func (l *lease) valid(now time.Time) bool { return l.held && now.Before(l.until) }

// moving says whether a step of the shard's executions may begin.
func (l *leases) moving(shard int, now time.Time) bool {
	return l.shards[shard].valid(now) && !l.shards[shard].Surplus
}

// movingShards are the shards whose executions may be stepped.
func (l *leases) movingShards(now time.Time) []int {
	shards := make([]int, 0, store.Shards)
	for shard := range l.shards {
		if l.moving(shard, now) {
			shards = append(shards, shard)
		}
	}
	return shards
}

// covers says whether a step that was decided under a lease may be committed.
func (l *leases) covers(under store.Lease, now time.Time) bool {
	have := &l.shards[under.Shard]
	return have.valid(now) && have.Epoch == under.Epoch
}

// renew takes in the leases that the store says are ours. The shards in gained are new: nothing is known of them yet. What is
// known of the shards in stale is out of date, because another engine has them or had them in between.
func (l *leases) renew(ours []store.Lease, asked, until time.Time) (gained, stale []int) {
	var kept [store.Shards]bool
	for _, o := range ours {
		old := &l.shards[o.Shard]
		kept[o.Shard] = true
		heldSince := old.heldSince
		if !old.held || old.Epoch != o.Epoch {
			heldSince = asked
		}
		if old.held && old.Epoch != o.Epoch {
			stale = append(stale, o.Shard)
		}
		// A surplus shard that stays after all has not been read meanwhile.
		if !old.held || old.Epoch != o.Epoch || old.Surplus && !o.Surplus {
			gained = append(gained, o.Shard)
		}
		*old = lease{Lease: o, held: true, heldSince: heldSince, until: until}
	}
	for shard := range l.shards {
		if l.shards[shard].held && !kept[shard] {
			stale = append(stale, shard)
			l.shards[shard] = lease{}
		}
	}
	return gained, stale
}

// expire gives up the leases that have run out without being renewed, and returns their shards.
func (l *leases) expire(now time.Time) (expired []int) {
	for shard := range l.shards {
		if have := &l.shards[shard]; have.held && !have.valid(now) {
			expired = append(expired, shard)
			*have = lease{}
		}
	}
	return expired
}

// forget gives a lease up if it is the one that is held now.
func (l *leases) forget(under store.Lease) bool {
	have := &l.shards[under.Shard]
	if !have.held || have.Epoch != under.Epoch {
		return false
	}
	*have = lease{}
	return true
}

// surplus are the leases that are to be given back.
func (l *leases) surplus() (surplus []store.Lease) {
	for shard := range l.shards {
		if have := &l.shards[shard]; have.held && have.Surplus {
			surplus = append(surplus, have.Lease)
		}
	}
	return surplus
}

// renew registers the engine, takes its share of the free shards, renews its leases, gives back the shards above its share, and
// forgets the executions of shards that are not its own any more.
func (e *Engine) renew(ctx context.Context) error {
	asked := e.clock.Now()
	e.mu.Lock()
	if e.unrenewed.IsZero() {
		e.unrenewed = asked
	}
	e.mu.Unlock()
	ours, err := e.store.AcquireShards(ctx, e.config.Owner, asked, e.config.LeaseTTL)
	if err != nil {
		e.mu.Lock()
		e.dropExpired(e.clock.Now())
		e.mu.Unlock()
		return fmt.Errorf("acquire shards: %w", err)
	}
	e.mu.Lock()
	e.unrenewed = time.Time{}
	gained, stale := e.leases.renew(ours, asked, asked.Add(e.config.LeaseTTL))
	for _, shard := range stale {
		e.dropShard(shard)
	}
	for _, shard := range gained {
		e.clockSearch.addShard(shard)
	}
	if len(gained) > 0 {
		e.rescanAt = time.Time{}
	}
	lost := 0
	for _, shard := range stale {
		if !e.leases.shards[shard].held {
			lost++
		}
	}
	yielded := e.yield()
	e.mu.Unlock()

	if len(yielded) > 0 {
		if err := e.store.YieldShards(ctx, yielded); err != nil {
			return fmt.Errorf("give shards to other engines: %w", err) // the next renewal tells whether they are still ours
		}
		e.logger.Info("shards given to other engines", "shards", len(yielded))
	}
	if lost > 0 {
		e.logger.Warn("another engine has taken shards", "shards", lost)
	}
	if len(gained) > 0 {
		e.logger.Info("shards taken", "shards", len(gained))
	}
	return nil
}

// yield takes out the surplus shards none of whose runs is busy. The other surplus shards finish their steps first.
func (e *Engine) yield() (yielded []store.Lease) {
	surplus := e.leases.surplus()
	if len(surplus) == 0 {
		return nil
	}
	var busy [store.Shards]bool
	for _, r := range e.runs {
		busy[r.shard] = busy[r.shard] || r.busy
	}
	for _, l := range surplus {
		if !busy[l.Shard] {
			yielded = append(yielded, l)
			e.dropShard(l.Shard)
			e.leases.forget(l)
		}
	}
	return yielded
}

// hasSurplus says whether surplus shards are still to be given back.
func (e *Engine) hasSurplus() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.leases.surplus()) > 0
}

// dropExpired forgets the runs whose leases have run out without being renewed.
func (e *Engine) dropExpired(now time.Time) {
	for _, shard := range e.leases.expire(now) {
		e.dropShard(shard)
	}
}

func (e *Engine) dropShard(shard int) {
	for _, r := range e.runs {
		if r.shard == shard {
			e.drop(r)
		}
	}
}

// movingShards are the shards whose executions may be stepped now.
func (e *Engine) movingShards() []int {
	now := e.clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leases.movingShards(now)
}

func (e *Engine) keepLeases(ctx context.Context) {
	every := e.config.LeaseTTL / 3
	failures := 0
	for {
		wait, err := every, e.renew(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			if failures++; failures == 1 || failures%100 == 0 {
				e.logger.Warn("leases were not renewed", "tries", failures, "error", err)
			}
			wait = every / 8
		case e.hasSurplus():
			wait = every / 32
		case len(e.movingShards()) < store.Shards:
			wait = every / 4 // another engine has the other shards: soon after it has died, its executions go on here
		}
		if err == nil {
			failures = 0
		}
		e.wakeCollector()
		if !sleep(ctx, wait) {
			return
		}
	}
}

// sleep waits. It returns false as soon as ctx ends.
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
