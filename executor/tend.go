package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// How long an attempt that cannot be started stays with this instance. Then it goes back to the queue, where its reason is seen
// and any executor can take it.
const (
	patience     = 5 * time.Second  // if the service at fault is away
	wellPatience = 30 * time.Second // if the service at fault is well, as its probe says
)

// take runs an attempt that the store has assigned to this instance.
func (e *Executor) take(ctx context.Context, background *sync.WaitGroup, a *store.Attempt, fresh bool) {
	r := &run{attempt: a, fresh: fresh, asks: e.candidate(a), stop: make(chan struct{}), left: make(chan struct{})}
	e.mu.Lock()
	if e.running[a.AttemptKey] != nil {
		e.mu.Unlock()
		return
	}
	e.running[a.AttemptKey] = r
	e.mu.Unlock()
	if a.Stop != "" {
		e.stop(r, a.Stop)
	}
	background.Go(func() { e.tend(ctx, r) })
}

// tend starts an attempt, stops it when that is asked for, and tries both again for as long as the back end cannot do them.
func (e *Executor) tend(ctx context.Context, r *run) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 10*time.Second
	started, stopped := false, false
	var t trouble
	for {
		err := e.step(ctx, r, &started, &stopped)
		var (
			again <-chan time.Time
			stop  = r.stop
		)
		switch {
		case ctx.Err() != nil || started && stopped:
			return
		case err != nil:
			if !started && e.requeue(ctx, r, &t, err) {
				return
			}
			wait := pause.NextBackOff()
			e.logger.Warn("tend attempt", "attempt", r.attempt.ID.String(), "error", err, "again_in", wait)
			again = time.After(wait)
			if e.askedToStop(r) != "" {
				stop = nil
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-r.left:
			return
		case <-again:
		case <-stop:
		}
	}
}

// trouble is what requeue remembers of an attempt that cannot be started.
type trouble struct {
	since   time.Time // of the first failed start that blamed a service; zero: there was none
	charged bool      // this attempt found out that the service is away
}

// requeue ends an attempt that a service has kept from starting for too long, and says whether it did. It ends no attempt that
// may have started. The node gets another attempt, which waits in the queue with the reason.
func (e *Executor) requeue(ctx context.Context, r *run, t *trouble, cause error) bool {
	service, reason := aloft.ServiceOf(cause)
	if service == "" || e.config.Health == nil {
		return false
	}
	now := e.now()
	if t.since.IsZero() {
		t.since = now
	}
	s, first := e.config.Health.Failed(ctx, service, reason)
	t.charged = t.charged || first
	limit := wellPatience
	if s.Away() {
		limit = patience
	}
	certain := errors.Is(cause, ErrNotStarted) || r.fresh && r.job == nil
	if !certain || now.Sub(t.since) < limit || ctx.Err() != nil || e.askedToStop(r) != "" {
		return false
	}
	job := r.job
	if job == nil {
		job = &Job{Key: r.attempt.AttemptKey, ID: r.attempt.ID, Spec: r.attempt.Spec}
	}
	failure := NewFailure(core.ExecutionError_SYSTEM, true, CodeServiceAway, fmt.Sprintf("the attempt was not started: %v", cause))
	attribute(failure, s, t.charged)
	e.tell(ctx, Event{Job: job, Outcome: FailedToStart(job, failure, now)})
	return true
}

// step makes the calls that an attempt needs next: it reads the job, stops it if that is asked for, and starts it.
func (e *Executor) step(ctx context.Context, r *run, started, stopped *bool) error {
	if r.job == nil {
		if r.attempt.Spec == nil && r.attempt.Unreadable != nil {
			if err := e.endDamaged(ctx, r); err != nil {
				return err
			}
			*started, *stopped = true, true
			return nil
		}
		job, err := e.jobs.job(ctx, r.attempt)
		var lost *lostInputsError
		unusable := errors.Is(err, aloft.ErrInvalid) || errors.As(err, &lost)
		e.block(ctx, r, err)
		if err != nil && !unusable {
			return err
		}
		if unusable {
			job = &Job{Key: r.attempt.AttemptKey, ID: r.attempt.ID, Spec: r.attempt.Spec}
		}
		e.mu.Lock()
		r.job = job
		e.mu.Unlock()
		if unusable {
			*started = true
			failure := NewFailure(core.ExecutionError_USER, false, CodeBadTaskFormat, err.Error())
			if lost != nil {
				failure = LostInput(job, []string{err.Error()})
			}
			e.handle(ctx, Event{Job: job, Outcome: FailedToStart(job, failure, e.now())})
			return nil
		}
	}
	if reason := e.askedToStop(r); reason != "" && !*stopped {
		err := e.config.Backend.Stop(ctx, r.job, reason)
		if errors.Is(err, aloft.ErrNotFound) { // the attempt never started, and now never will
			outcome := r.job.Outcome()
			outcome.EndedAt, outcome.Result = e.now().UnixNano(), &aloftv1.Outcome_Stopped{Stopped: reason}
			e.handle(ctx, Event{Job: r.job, Outcome: outcome})
			return nil
		}
		if err != nil {
			return fmt.Errorf("stop: %w", err)
		}
		*stopped = true
	}
	if !*started {
		r.job.Waits = func(reason string) {
			if err := e.config.Store.SetWaiting(ctx, e.config.Instance, []store.AttemptKey{r.job.Key}, reason); err != nil {
				e.logger.Debug("write down what an attempt waits for", "attempt", r.job.ID.String(), "error", err)
			}
		}
		failure, err := e.config.Backend.Start(ctx, r.job)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("start: %w", err)
		case failure != nil:
			e.handle(ctx, Event{Job: r.job, Outcome: FailedToStart(r.job, failure, e.now())})
		}
		*started = true
	}
	return nil
}

// endDamaged ends an attempt whose damaged record does not tell what is to run. The node gets another attempt, with a record of
// its own. The back end is asked to stop the attempt first, since only the back end knows whether a process of it runs.
func (e *Executor) endDamaged(ctx context.Context, r *run) error {
	job := &Job{Key: r.attempt.AttemptKey, ID: r.attempt.ID}
	if err := e.config.Backend.Stop(ctx, job, "its record is damaged"); err != nil && !errors.Is(err, aloft.ErrNotFound) {
		return fmt.Errorf("stop: %w", err)
	}
	e.mu.Lock()
	r.job = job
	e.mu.Unlock()
	outcome := job.Outcome()
	outcome.EndedAt, outcome.Result = e.now().UnixNano(), &aloftv1.Outcome_Lost{Lost: r.attempt.Unreadable.Error()}
	e.handle(ctx, Event{Job: job, Outcome: outcome})
	return nil
}

// block notes that an attempt cannot start because the record of its workflow or execution cannot be understood (err), or that it
// can again. A blocked attempt shows the reason, and takes no room from others until the record is mended.
func (e *Executor) block(ctx context.Context, r *run, err error) {
	reason := ""
	if errors.Is(err, aloft.ErrUnreadable) {
		reason = err.Error()
	}
	e.mu.Lock()
	changed := r.blocked != reason
	r.blocked = reason
	e.mu.Unlock()
	if !changed {
		return
	}
	if err := e.config.Store.SetWaiting(ctx, e.config.Instance, []store.AttemptKey{r.attempt.AttemptKey}, reason); err != nil {
		e.logger.Debug("write down what an attempt waits for", "attempt", r.attempt.ID.String(), "error", err)
	}
	e.tellRoom()
}

// stop marks a run as to be stopped; tend does the rest.
func (e *Executor) stop(r *run, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.reason == "" {
		r.reason = reason
		close(r.stop)
	}
}

// askedToStop is why a run is to be stopped; empty: it is not.
func (e *Executor) askedToStop(r *run) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.reason
}
