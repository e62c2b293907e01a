package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// takeMessages chooses the messages of a run's next step, and reads those of which the collector has only the size. If one of
// these cannot be understood, it is a damaged message from then on, as a small one is when it is listed, and the messages are
// chosen again: with a damaged message, a request to terminate goes first.
func (e *Engine) takeMessages(ctx context.Context, r *run) (messages, damaged []store.InboxRow, err error) {
	for {
		e.mu.Lock()
		r.inbox.take(r.unreadable || r.failures > 0)
		messages, damaged = r.inbox.taken, slices.Clone(r.inbox.damaged)
		e.mu.Unlock()
		whole, found, err := e.readLarge(ctx, messages)
		if err != nil {
			return messages, damaged, err
		}
		if len(found) == 0 {
			return whole, damaged, nil
		}
		e.mu.Lock()
		r.inbox.markDamaged(found)
		r.inbox.giveBack()
		e.mu.Unlock()
	}
}

// readLarge reads those of the messages of which the collector has only the size. damaged cannot be understood.
func (e *Engine) readLarge(ctx context.Context, messages []store.InboxRow) (whole, damaged []store.InboxRow, err error) {
	var seqs []int64
	for _, m := range messages {
		if m.Inbox == nil {
			seqs = append(seqs, m.Seq)
		}
	}
	if len(seqs) == 0 {
		return messages, nil, nil
	}
	rows, err := e.store.Messages(ctx, seqs)
	if err != nil {
		return nil, nil, fmt.Errorf("read messages: %w", err)
	}
	for _, m := range messages {
		if m.Inbox != nil {
			whole = append(whole, m)
			continue
		}
		at := slices.IndexFunc(rows, func(r store.InboxRow) bool { return r.Seq == m.Seq })
		switch {
		case at < 0:
			return nil, nil, fmt.Errorf("inbox message %d is not there any more: %w", m.Seq, aloft.ErrConflict)
		case rows[at].Unreadable != nil:
			m.Unreadable = rows[at].Unreadable
			damaged = append(damaged, m)
		default:
			whole = append(whole, rows[at])
		}
	}
	return whole, damaged, nil
}

// isAborting says whether a run has consumed a request to terminate.
func (r *run) isAborting() bool {
	return r.aborting || r.state != nil && r.state.Execution().Phase == core.WorkflowExecution_ABORTING
}

// endUnread ends an execution that cannot go on because something of it is damaged: its journal, its workflow, a message.
// message is a request to terminate, which was acknowledged, or to give up; nil: a request to terminate was consumed before.
// The end waits for no attempt: the damaged message may be its outcome, which no executor would report again. The records of
// nodes and attempts that can be read end with the execution, and executors stop the attempts.
func (e *Engine) endUnread(ctx context.Context, r *run, message *aloftv1.Inbox, lease store.Lease) (*decidedStep, error) {
	if r.id == (aloft.ExecutionID{}) || r.newer {
		return nil, fmt.Errorf("it cannot be ended: %w", aloft.ErrUnreadable)
	}
	record, err := e.store.Load(ctx, r.key)
	if err != nil {
		return nil, fmt.Errorf("end execution %s: %w", r.id, err)
	}
	nodes, err := e.store.ListNodes(ctx, r.id, "", true, store.Query{Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("end nodes of execution %s: %w", r.id, err)
	}
	attempts, err := e.store.ListAttempts(ctx, r.id, "", store.Query{Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("end attempts of execution %s: %w", r.id, err)
	}
	now := r.clock.runTime(e.clock.Now())
	step := e.newStep(r, lease)
	terminate := message.GetTerminate()
	if message == nil {
		terminate = &aloftv1.Terminate{Cause: record.AbortCause, Principal: record.AbortPrincipal}
	}
	cause := terminate.GetCause()
	change := &store.ExecutionChange{Phase: core.WorkflowExecution_ABORTED, StartedAt: record.StartedAt, EndedAt: now, UpdatedAt: now}
	ended := &aloftv1.ExecutionEnded{Phase: change.Phase}
	if giveUp := message.GetGiveUp(); giveUp != nil {
		change.Phase, change.Error, cause = core.WorkflowExecution_FAILED, giveUp.GetError(), giveUp.GetError().GetMessage()
		ended.Phase, ended.Error = change.Phase, change.Error
	} else {
		change.AbortCause, change.AbortPrincipal = terminate.GetCause(), terminate.GetPrincipal()
		if message != nil {
			step.Entry.Events = append(step.Entry.Events, &aloftv1.Event{At: now.UnixNano(), Kind: &aloftv1.Event_TerminateRequested{
				TerminateRequested: &aloftv1.TerminateRequested{Cause: terminate.GetCause(), Principal: terminate.GetPrincipal()},
			}})
		}
	}
	step.Entry.Events = append(step.Entry.Events, &aloftv1.Event{At: now.UnixNano(), Kind: &aloftv1.Event_ExecutionEnded{ExecutionEnded: ended}})
	step.Change, step.ReleasesAll = change, true
	for _, m := range r.inbox.taken {
		step.Consumed = append(step.Consumed, m.Seq)
	}
	stopped := &core.ExecutionError{Code: "Aborted", Kind: core.ExecutionError_SYSTEM, Message: "the execution ended: " + cause}
	for _, n := range nodes {
		if aloft.Terminal(n.Phase) {
			continue
		}
		n.Phase, n.UpdatedAt, n.EndedAt, n.Error, n.Waiting = core.NodeExecution_ABORTED, now, now, stopped, ""
		step.Nodes = append(step.Nodes, n)
	}
	for _, a := range attempts {
		if aloft.Terminal(a.Phase) {
			continue
		}
		a.Phase, a.UpdatedAt, a.EndedAt, a.Error, a.Stop = core.TaskExecution_ABORTED, now, now, stopped, stopped.GetMessage()
		step.Attempts = append(step.Attempts, a)
	}
	e.logger.Warn("an execution that cannot be read was ended", "execution", r.id.String(), "phase", change.Phase.String())
	return &decidedStep{run: r, step: step, next: nextStep{ended: true}}, nil
}
