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

// Group commit: one transaction commits the steps of many executions. While the committer is in a transaction, workers decide
// further steps, which go together into the next one: the busier the engine is, the more steps share a transaction.
//
//	step ──submit──▶ uncommitted ──fillBatch──▶ unsettled ──commitBatch──▶ endStep
//	                                                ▲           │
//	                                                └──unknown──┘
//
// The run of a step is busy until endStep, so an execution has one step here at most, and each step follows from the state that
// the step before it left.
//
//	rows of a batch < rowsPerCommit + rows of its last step
//	rows decided and not committed < maxUncommittedRows + rows of the steps that workers were in; likewise bytes
//
// What the store says of each step of a batch, and what the engine does:
//
//	nil             committed: the run goes on from it (committed), and the messages that it consumed leave memory
//	ErrUnavailable  unknown, of the whole batch: the same steps are committed again, with the same commit ids and before all
//	                others, until the outcome is known. A step that was committed before is recognised by its id: nil
//	ErrFenced       another engine has the shard: its runs are dropped
//	TakenError      other executions committed results under the same cache keys first: the step is made again, from the
//	                journal, and its records name those results
//	ErrConflict     the journal has another entry with this sequence, or a message came with which the step would be another:
//	                the run is dropped, and folded from its journal with all its messages
//	other           the store will never take this step: the mistake of a programmer. The step is made again after a pause
//
// A step whose run was dropped, or whose lease is over, is taken out of the batch before it is committed (again), and its run
// is dropped. If it had been committed, the next engine that folds the journal finds its entry.
//
// Example: a batch has step 7 of execution A and step 3 of B. The connection breaks while the transaction commits. Both stay in
// unsettled; C's step waits in uncommitted. The batch is given to the store again. If the transaction had committed, entry 7 of
// A is there under this commit id, and so is entry 3 of B; if not, both are written now. Both runs go on, and C's step is in
// the next batch.

// submit hands a step to the committer, or ends it when there is nothing to commit.
func (e *Engine) submit(d *decidedStep) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.step == nil || d.run.dropped {
		e.endStep(d)
		return
	}
	e.uncommitted.push(d)
	e.uncommittedRows += stepRows(d.step)
	e.uncommittedBytes += stepBytes(d.step)
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

// settle commits all decided steps, batch by batch. An error means that the outcome of a batch is unknown: the next settle
// repeats that batch before all others.
func (e *Engine) settle(ctx context.Context) error {
	for {
		e.mu.Lock()
		e.fillBatch()
		batch := e.unsettled
		e.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		if err := e.commitBatch(ctx, batch); err != nil {
			return err
		}
	}
}

// fillBatch fills the batch, unless the last one is still unsettled, and takes out steps that may no longer be committed.
func (e *Engine) fillBatch() {
	if len(e.unsettled) == 0 {
		for rows := 0; rows < rowsPerCommit; {
			d, ok := e.uncommitted.pop()
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
		// If its commit was tried, the journal tells the next engine that reads it whether it succeeded.
		e.uncommittedRows -= stepRows(d.step)
		e.uncommittedBytes -= stepBytes(d.step)
		e.drop(d.run)
		e.endStep(d)
	}
	clear(e.unsettled[len(kept):])
	e.unsettled = kept
}

// commitBatch gives a batch to the store and takes in the outcome of each step.
func (e *Engine) commitBatch(ctx context.Context, batch []*decidedStep) error {
	steps := make([]*store.Step, len(batch))
	for i, d := range batch {
		steps[i] = d.step
	}
	results := e.store.Commit(ctx, steps)

	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.workable.Broadcast() // there is room again
	var unknown []*decidedStep
	var cause error
	for i, d := range batch {
		err := results[i]
		if errors.Is(err, aloft.ErrUnavailable) {
			unknown, cause = append(unknown, d), err
			continue
		}
		e.uncommittedRows -= stepRows(d.step)
		e.uncommittedBytes -= stepBytes(d.step)
		r := d.run
		var taken *store.TakenError
		switch {
		case err == nil:
			e.committed(d)
		case errors.Is(err, aloft.ErrFenced):
			// Another engine has the shard although by our clock the lease runs: the next renewal may bring it back.
			if e.leases.forget(d.step.Lease) {
				e.logger.Warn("a shard is another engine's before our lease has run out", "shard", r.shard)
				e.dropShard(r.shard)
			}
			e.drop(r)
		case errors.As(err, &taken):
			e.logger.Debug("the step's results were kept by others meanwhile", "execution", r.id.String(), "error", err)
			r.state = nil
			if r.othersResults == nil {
				r.othersResults = make(map[store.ResultID]*store.Result)
			}
			maps.Copy(r.othersResults, taken.By) // added to those of earlier refusals, which were about other results
			d.next = nextStep{more: true}
		case errors.Is(err, aloft.ErrConflict):
			e.logger.Debug("a step was overtaken", "execution", r.id.String(), "error", err)
			e.inboxes.rereadFrom(1) // it may have been overtaken by a message that became visible behind the cursor
			e.drop(r)
		default:
			// The store refuses the step and would refuse it again: our mistake, and not to be repeated at once.
			e.logger.Error("a step cannot be committed", "execution", r.id.String(), "error", err)
			r.state, d.next = nil, nextStep{} // the execution has not ended, even if the step says so
			if r.failures++; r.failures == 1 {
				r.failedAt = e.clock.Now()
			}
			r.retryAt = e.clock.Now().Add(pause(r.failures))
		}
		e.endStep(d)
	}
	e.unsettled = unknown
	if cause != nil {
		return fmt.Errorf("commit %d steps: %w", len(unknown), cause)
	}
	return nil
}

// committed moves a run on to its step that was committed.
func (e *Engine) committed(d *decidedStep) {
	r := d.run
	r.seq, r.othersResults = d.step.Seq, nil
	r.waitReason, r.waitingSince, r.namedWaits = d.step.Waiting, d.step.WaitingSince, d.step.Waits
	if r.waitReason != "" {
		r.namedWaits--
	}
	if r.retryAt.IsZero() {
		r.failures = 0
	}
	if len(d.step.Consumed) > 0 {
		e.inboxes.consume(&r.inbox, r.inbox.taken)
		r.inbox.taken = nil
	}
}

// endStep ends the step of a run.
func (e *Engine) endStep(d *decidedStep) {
	r := d.run
	if r.dropped {
		r.busy = false
		r.unload()
		return
	}
	if d.leaseLost {
		r.busy = false
		e.drop(r)
		return
	}
	if d.next.ended {
		// The last commit emptied its inbox; messages that came later are of no use to an execution that has ended.
		r.busy = false
		e.inboxes.end(&r.inbox)
		r.clock = runClock{}
		e.drop(r)
		return
	}
	if r.retryAt.IsZero() {
		r.more, r.due = d.next.more, d.next.due
	}
	e.readyOrIdle(r)
}

// keepCommitting commits what is finished as soon as the commit before has ended: the busier the engine is, the more
// executions share a transaction.
func (e *Engine) keepCommitting(ctx context.Context) {
	failures := 0
	for {
		e.mu.Lock()
		for e.uncommitted.len() == 0 && len(e.unsettled) == 0 && !e.stopping {
			e.committable.Wait()
		}
		stopping := e.stopping
		e.mu.Unlock()
		if stopping {
			// Steps that are decided and not committed are decided again by the engine that takes the shards next.
			return
		}
		err := e.settle(context.WithoutCancel(ctx)) // a commit that has begun is not cancelled
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
