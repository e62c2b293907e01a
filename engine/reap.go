package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
)

// Reap looks for executor instances that are gone. Their attempts go to another instance that can reach the same place;
// where there is none, and none comes within the grace, the attempts are reported lost through the inbox, as their
// executor would have done, and the machine replaces them. Doing it twice, or in two engines at once, is harmless.
//
// How long the next heartbeat of an instance has been missing is counted by the engine's own clock from when it first saw the
// last one (heartbeat.noticed). So neither a clock that was set nor a machine that was suspended, the engine's included, makes
// an instance look dead. Nor does a database that can be read and not written: while the engine cannot renew its own leases,
// executors cannot write heartbeats either, and the count begins anew.
func (e *Engine) Reap(ctx context.Context) error {
	instances, err := e.store.Instances(ctx)
	if err != nil {
		return fmt.Errorf("read executor instances: %w", err)
	}
	now := e.clock.Now()
	e.mu.Lock()
	leasesUnrenewed := !e.unrenewed.IsZero() && now.Sub(e.unrenewed) > e.config.LeaseTTL/2
	e.mu.Unlock()
	recount := leasesUnrenewed || now.Sub(e.reapedAt) > e.config.Grace
	e.reapedAt = now
	heartbeats := make(map[string]heartbeat, len(instances))
	for _, i := range instances {
		h, ok := e.heartbeats[i.ID]
		if !ok || recount || !h.seenAt.Equal(i.SeenAt) || !h.expires.Equal(i.Expires) {
			h = heartbeat{seenAt: i.SeenAt, expires: i.Expires, noticed: now}
		}
		heartbeats[i.ID] = h
	}
	e.heartbeats = heartbeats
	var errs []error
	for _, gone := range instances {
		missing := heartbeats[gone.ID].overdue(now)
		if missing < 0 {
			continue
		}
		heir := slices.IndexFunc(instances, func(i store.Instance) bool {
			return i.Kind == gone.Kind && i.Place == gone.Place && heartbeats[i.ID].overdue(now) < 0
		})
		switch {
		case heir >= 0:
			err = e.handOver(ctx, gone, instances[heir])
		case missing >= e.config.Grace:
			err = e.reportLost(ctx, gone, now)
		default:
			continue
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// heartbeat is the last heartbeat of an executor instance.
type heartbeat struct {
	seenAt, expires time.Time // by the clock of the instance
	noticed         time.Time // when this engine first saw it, by the engine's clock
}

// overdue is for how long the next heartbeat has been missing; negative: it is not due.
func (h heartbeat) overdue(now time.Time) time.Duration {
	return now.Sub(h.noticed) - h.expires.Sub(h.seenAt)
}

// handOver gives the attempts of an instance that is gone to another instance.
func (e *Engine) handOver(ctx context.Context, gone, heir store.Instance) error {
	n, err := e.store.Adopt(ctx, gone.ID, heir.ID)
	if err != nil {
		return fmt.Errorf("give attempts of executor %s to %s: %w", gone.ID, heir.ID, err)
	}
	if n > 0 {
		e.logger.Info("an executor is gone, another has its attempts", "executor", gone.ID, "heir", heir.ID, "attempts", n)
	}
	return e.removeInstance(ctx, gone)
}

// reportLost reports the attempts of an instance that is gone as lost.
func (e *Engine) reportLost(ctx context.Context, gone store.Instance, now time.Time) error {
	attempts, err := e.store.Assigned(ctx, gone.ID)
	if err != nil {
		return fmt.Errorf("read attempts of executor %s: %w", gone.ID, err)
	}
	reports := make([]store.Report, len(attempts))
	for i, a := range attempts {
		reports[i] = store.Report{Attempt: a.AttemptKey, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: &aloftv1.Outcome{
			Node: string(a.Node), Attempt: a.Attempt, Token: a.Token, EndedAt: now.UnixNano(),
			Result: &aloftv1.Outcome_Lost{Lost: fmt.Sprintf("executor %s has not been heard of since %s", gone.ID, gone.SeenAt.Format(time.RFC3339))},
		}}}}
	}
	for _, err := range e.store.Report(ctx, gone.ID, reports) {
		if err != nil && !errors.Is(err, aloft.ErrConflict) { // ErrConflict: the attempt has ended meanwhile
			return fmt.Errorf("report lost attempts of executor %s: %w", gone.ID, err)
		}
	}
	if len(attempts) > 0 {
		e.logger.Warn("an executor is gone and its attempts are lost", "executor", gone.ID, "attempts", len(attempts))
	}
	return e.removeInstance(ctx, gone)
}

// removeInstance removes an instance once nothing is assigned to it.
func (e *Engine) removeInstance(ctx context.Context, gone store.Instance) error {
	err := e.store.RemoveInstance(ctx, gone.ID)
	if err != nil && !errors.Is(err, aloft.ErrPrecondition) && !errors.Is(err, aloft.ErrNotFound) {
		return fmt.Errorf("remove executor %s: %w", gone.ID, err)
	}
	return nil
}

func (e *Engine) keepReaping(ctx context.Context) {
	for sleep(ctx, e.config.Grace/3) {
		if err := e.Reap(ctx); err != nil && ctx.Err() == nil {
			e.logger.Warn("executors that are gone were not looked for", "error", err)
		}
	}
}
