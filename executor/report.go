package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// durability says how far the outcome of an attempt has come.
type durability int

const (
	unknown   durability = iota // there is no outcome yet, or the store has not answered
	adoptable                   // the outcome is in the inbox
	refused                     // the store takes no outcome: the attempt has ended, or another instance has it
)

// report is a message about an attempt on its way to the inbox.
type report struct {
	run     *run
	message store.Report
	ended   bool // the message is an outcome
}

// handle takes an event of the back end. Services that it blames, or may have suffered from, are reported to package health;
// starts and outcomes go to the inbox.
func (e *Executor) handle(ctx context.Context, event Event) {
	if event.Held != nil {
		e.mu.Lock()
		if r := e.running[event.Job.Key]; r != nil {
			r.held = true
		}
		e.mu.Unlock()
		if service, reason := aloft.ServiceOf(event.Held); service != "" && e.config.Health != nil {
			e.config.Health.Failed(ctx, service, reason)
		}
		return
	}
	if f := event.Outcome.GetFailure(); f.GetService() != "" {
		if e.config.Health == nil {
			attribute(f, store.Service{}, false)
		} else {
			s, first := e.config.Health.Failed(ctx, f.GetService(), f.GetError().GetMessage())
			attribute(f, s, first)
		}
	}
	noRoom := foundNoRoom(event.Outcome.GetFailure())
	if (silent(event.Outcome.GetFailure()) || noRoom) && e.config.Health != nil {
		for _, service := range e.needs { // each may be the cause: its probe tells whether it is away
			e.config.Health.Failed(ctx, service, "")
		}
	}
	if noRoom {
		reclassifyNoRoom(event.Outcome.GetFailure())
	}
	e.tell(ctx, event)
}

// tell sends a start or an outcome to the inbox. A start is sent after the time settle: most attempts are over by then and need
// no such message, since their outcome says when they began.
func (e *Executor) tell(ctx context.Context, event Event) {
	e.mu.Lock()
	r := e.running[event.Job.Key]
	if r == nil || r.over {
		e.mu.Unlock()
		return
	}
	if s, away := e.away(); away || r.held {
		reclassify(event.Outcome.GetFailure(), s)
	}
	if event.Outcome == nil {
		if r.told == nil {
			event.Started.Executor = e.config.Instance
			inbox := &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: event.Started}}
			r.told = time.AfterFunc(settle, func() { e.send(ctx, r, inbox, false) })
		}
		e.mu.Unlock()
		return
	}
	r.end()
	e.mu.Unlock()
	e.send(ctx, r, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: event.Outcome}}, true)
	e.tellRoom()
}

// tellRoom wakes the loop, since room was given back. It never blocks.
func (e *Executor) tellRoom() {
	select {
	case e.roomChanged <- struct{}{}:
	default:
	}
}

// send hands a message to reportAll.
func (e *Executor) send(ctx context.Context, r *run, inbox *aloftv1.Inbox, ended bool) {
	select {
	case e.reports <- report{run: r, message: store.Report{Attempt: r.attempt.AttemptKey, Inbox: inbox}, ended: ended}:
	case <-ctx.Done():
	}
}

// reportAll commits reports, in one call all that have come meanwhile, and repeats those that could not be committed.
func (e *Executor) reportAll(ctx context.Context) {
	var pending []report
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, time.Second
	for {
		if len(pending) == 0 {
			select {
			case <-ctx.Done():
				return
			case r := <-e.reports:
				pending = append(pending, r)
			}
		}
		for more := true; more && len(pending) < cap(e.reports); {
			select {
			case r := <-e.reports:
				pending = append(pending, r)
			default:
				more = false
			}
		}
		messages := make([]store.Report, len(pending))
		for i, r := range pending {
			messages[i] = r.message
		}
		results := e.config.Store.Report(ctx, e.config.Instance, messages)
		var again []report
		for i, err := range results {
			if e.reported(&pending[i], err) {
				again = append(again, pending[i])
			}
		}
		pending = again
		if len(pending) == 0 {
			pause.Reset()
			continue
		}
		wait := pause.NextBackOff()
		if ctx.Err() == nil {
			e.logger.Warn("report outcomes", "waiting", len(pending), "error", errors.Join(results...), "again_in", wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// reported takes the store's answer to a report, and says whether the report is to be sent again.
func (e *Executor) reported(r *report, err error) (again bool) {
	switch {
	case err == nil:
		e.settled(r, adoptable)
		return false
	case errors.Is(err, aloft.ErrConflict), errors.Is(err, aloft.ErrNotFound), errors.Is(err, aloft.ErrPrecondition):
		e.settled(r, refused)
		return false
	case errors.Is(err, aloft.ErrInvalid) || errors.Is(err, aloft.ErrExhausted):
		// The store will never take this message. An attempt without an end would be worse than one with this end.
		outcome := r.message.Inbox.GetOutcome()
		if outcome == nil {
			return false
		}
		refused := &aloftv1.Outcome{Node: outcome.Node, Attempt: outcome.Attempt, Token: outcome.Token, StartedAt: outcome.StartedAt, EndedAt: outcome.EndedAt}
		refused.Result = &aloftv1.Outcome_Failure{Failure: NewFailure(core.ExecutionError_SYSTEM, false, CodeOutcomeRefused, fmt.Sprintf("the outcome of the attempt cannot be stored: %v", err))}
		r.message.Inbox = &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: refused}}
		return true
	default:
		return true
	}
}

// settled notes the durability of an outcome.
func (e *Executor) settled(r *report, d durability) {
	if !r.ended {
		return
	}
	e.mu.Lock()
	r.run.durable = d
	e.mu.Unlock()
}
