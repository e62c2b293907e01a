package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/store"
)

// finish hands a step to the committer, or ends it when there is nothing to commit.
func (e *Engine) finish(d *decided) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.step == nil || d.run.dropped {
		e.conclude(d)
		return
	}
	e.finished.push(d)
	e.rows += stepRows(d.step)
	e.bytes += stepBytes(d.step)
	e.committable.Signal()
}

// stepRows is about how many rows a step writes.
func stepRows(s *store.Step) int {
	return 1 + len(s.Nodes) + len(s.Attempts) + len(s.Consumed) + len(s.Appends)
}

// What a record takes in memory beside its literals and texts, about.
const recordBytes = 1024

// stepBytes is about what a step takes in memory until it is committed.
func stepBytes(s *store.Step) int64 {
	n := int64(recordBytes * stepRows(s))
	value := func(l *aloftv1.Literals) {
		if l.GetValue() != nil {
			n += weight.Decoded(l.GetRef().GetSize())
		}
	}
	for _, r := range s.Nodes {
		value(r.Inputs)
		value(r.Outputs)
		n += int64(len(r.Error.GetMessage()))
	}
	for _, r := range s.Attempts {
		n += int64(len(r.Error.GetMessage()) + 128*len(r.Objects))
	}
	for _, r := range s.Results {
		n += int64(128 * len(r.Objects))
	}
	return n
}

// settle commits everything that is finished, in one transaction or, when it is very much, in several. An error means that
// the outcome of one is unknown: settle again repeats it before anything else.
func (e *Engine) settle(ctx context.Context) error {
	for {
		e.mu.Lock()
		e.gather()
		batch := e.unsettled
		e.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		if err := e.commit(ctx, batch); err != nil {
			return err
		}
	}
}

// gather fills the batch, unless the last one is unsettled, and takes out what we may not commit any more.
func (e *Engine) gather() {
	if len(e.unsettled) == 0 {
		for rows := 0; rows < rowsPerCommit; {
			d, ok := e.finished.pop()
			if !ok {
				break
			}
			rows += stepRows(d.step)
			e.unsettled = append(e.unsettled, d)
		}
	}
	now := e.clock.Now()
	kept := e.unsettled[:0]
	for _, d := range e.unsettled {
		if !d.run.dropped && e.leases.covers(d.step.Lease, now) {
			kept = append(kept, d)
			continue
		}
		// Its outcome, if it was tried, is what the journal says to the next who reads it.
		e.rows -= stepRows(d.step)
		e.bytes -= stepBytes(d.step)
		e.drop(d.run)
		e.conclude(d)
	}
	clear(e.unsettled[len(kept):])
	e.unsettled = kept
}

// commit gives a batch to the store and takes in what became of each step.
func (e *Engine) commit(ctx context.Context, batch []*decided) error {
	steps := make([]*store.Step, len(batch))
	for i, d := range batch {
		steps[i] = d.step
	}
	results := e.store.Commit(ctx, steps)

	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.workable.Broadcast() // there is room again
	var unknown []*decided
	var cause error
	for i, d := range batch {
		err := results[i]
		if errors.Is(err, aloft.ErrUnavailable) {
			unknown, cause = append(unknown, d), err
			continue
		}
		e.rows -= stepRows(d.step)
		e.bytes -= stepBytes(d.step)
		r := d.run
		var taken *store.TakenError
		switch {
		case err == nil:
			e.committed(d)
		case errors.Is(err, aloft.ErrFenced):
			// Somebody else has the shard although our clock gives us time: it is theirs until we have asked again.
			if e.leases.giveUp(d.step.Lease) {
				e.logger.Warn("a shard is another engine's before our lease has run out", "shard", r.shard)
				e.dropShard(r.shard)
			}
			e.drop(r)
		case errors.As(err, &taken):
			e.logger.Debug("the step's results were kept by others meanwhile", "execution", r.id.String(), "error", err)
			r.state = nil
			if r.kept == nil {
				r.kept = make(map[store.ResultID]*store.Result)
			}
			maps.Copy(r.kept, taken.By) // with those of refusals before: the next may be about others
			d.next = nextStep{more: true}
		case errors.Is(err, aloft.ErrConflict):
			e.logger.Debug("a step was overtaken", "execution", r.id.String(), "error", err)
			e.inboxes.rereadFrom(1) // what overtook it may be a message that became visible behind the cursor
			e.drop(r)
		default:
			// The store cannot have it, and would not have it the next time: our mistake, and not to be repeated at once.
			e.logger.Error("a step cannot be committed", "execution", r.id.String(), "error", err)
			r.state, d.next = nil, nextStep{} // nor has the execution ended if the step says so
			if r.failures++; r.failures == 1 {
				r.failedAt = e.clock.Now()
			}
			r.retryAt = e.clock.Now().Add(pause(r.failures))
		}
		e.conclude(d)
	}
	e.unsettled = unknown
	if cause != nil {
		return fmt.Errorf("commit %d steps: %w", len(unknown), cause)
	}
	return nil
}

// committed is what a step that is in the store means for its run.
func (e *Engine) committed(d *decided) {
	r := d.run
	r.seq, r.kept = d.step.Seq, nil
	r.waiting, r.waitingSince, r.waits = d.step.Waiting, d.step.WaitingSince, d.step.Waits
	if r.waiting != "" {
		r.waits--
	}
	if r.retryAt.IsZero() {
		r.failures = 0
	}
	if len(d.step.Consumed) > 0 {
		e.inboxes.consume(&r.inbox, r.inbox.taken)
		r.inbox.taken = nil
	}
}

// conclude ends the step of a run.
func (e *Engine) conclude(d *decided) {
	r := d.run
	if r.dropped {
		r.busy = false
		r.unload()
		return
	}
	if d.lost {
		r.busy = false
		e.drop(r)
		return
	}
	if d.next.ended {
		// What may still be in its inbox went with its last commit, or is of no use to what has ended.
		r.busy = false
		e.inboxes.end(&r.inbox)
		r.clock = runClock{}
		e.drop(r)
		return
	}
	if r.retryAt.IsZero() {
		r.more, r.due = d.next.more, d.next.due
	}
	e.rest(r)
}

// keepCommitting commits what is finished as soon as the commit before has ended: the busier the engine is, the more
// executions share a transaction.
func (e *Engine) keepCommitting(ctx context.Context) {
	failures := 0
	for {
		e.mu.Lock()
		for e.finished.len() == 0 && len(e.unsettled) == 0 && !e.stopping {
			e.committable.Wait()
		}
		stopping := e.stopping
		e.mu.Unlock()
		if stopping {
			// What is decided and not committed is decided again by whoever comes next.
			return
		}
		err := e.settle(context.WithoutCancel(ctx)) // a commit that has begun is let finish
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if failures++; failures == 1 || failures%10 == 0 {
			e.logger.Warn("the store does not say what became of a commit: it is repeated", "tries", failures, "error", err)
		}
		if !sleep(ctx, min(pause(failures), time.Second)) {
			return
		}
	}
}
