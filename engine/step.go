package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/store"
)

// decidedStep is a step of a run between its decision and its commit (see commit.go).
type decidedStep struct {
	run       *run
	step      *store.Step // nil: there is nothing to commit
	next      nextStep
	leaseLost bool // the engine does not move its shard any more
}

// nextStep is when the run is to be stepped again if no message comes before.
type nextStep struct {
	more  bool      // at once
	due   time.Time // by the clock of the process; zero: no timer is set
	ended bool      // never
}

// The pauses between tries of a step that could not be done, and after how long the record of the execution says so.
const (
	firstPause       = 50 * time.Millisecond
	longestPause     = 30 * time.Second
	longestPark      = 5 * time.Minute // of a parked execution: it is woken before if its service is back
	tellWaitingAfter = 5 * time.Second
	longestReason    = 500
)

// keepBackFor is for how long after it has taken a shard an engine keeps back deadlines that had passed by then: meanwhile
// executors that start with it, or later, report attempts that had ended in time.
const keepBackFor = 10 * time.Second

// step makes one step of a run that this goroutine has: load, decide, project.
func (e *Engine) step(ctx context.Context, r *run) *decidedStep {
	e.mu.Lock()
	lease, mayMove := e.leases.shards[r.shard], !r.dropped && e.leases.moving(r.shard, e.clock.Now())
	e.mu.Unlock()
	if !mayMove {
		return &decidedStep{run: r, leaseLost: true}
	}
	messages, damaged, err := e.takeMessages(ctx, r)
	var d *decidedStep
	if err == nil {
		d, err = e.decide(ctx, r, messages, damaged, lease)
	}
	if errors.Is(err, aloft.ErrUnreadable) {
		r.unreadable = true
		var request *aloftv1.Inbox
		if i := slices.IndexFunc(messages, endsRun); i >= 0 {
			request = messages[i].Inbox
		}
		if request != nil || r.isAborting() {
			if d, failed := e.endUnread(ctx, r, request, lease.Lease); failed == nil {
				return d
			} else {
				err = errors.Join(err, failed)
			}
		}
	}
	if err != nil {
		return e.postpone(ctx, r, lease.Lease, err)
	}
	r.unreadable = false
	r.retryAt, r.awaitedService = time.Time{}, ""
	if d.step == nil { // else when the step is committed: the store may refuse it
		r.failures = 0
	}
	return d
}

func (e *Engine) decide(ctx context.Context, r *run, messages, damaged []store.InboxRow, lease lease) (d *decidedStep, err error) {
	loaded := r.state == nil
	if loaded {
		ended, err := e.load(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("load execution %s: %w", r.id, err)
		}
		if ended {
			return &decidedStep{run: r, next: nextStep{ended: true}}, nil
		}
		r.state.KeepBack(r.clock.runTime(lease.heldSince), r.clock.runTime(lease.heldSince.Add(keepBackFor)))
	}
	if len(damaged) > 0 {
		return nil, damaged[0].Unreadable // all other messages may depend on this one
	}
	f := &facts{ctx: ctx, engine: e, run: r, key: r.key, version: r.version, state: r.state, inputs: r.inputs, catalogResults: maps.Clone(r.othersResults), stepValues: make(map[string]*aloftv1.Literals)}
	inbox := make([]*aloftv1.Inbox, len(messages))
	for i, m := range messages {
		if inbox[i], err = f.receive(m.Inbox); err != nil {
			return nil, fmt.Errorf("receive message of execution %s: %w", r.id, err)
		}
	}
	now, limit := r.clock.runTime(e.clock.Now()), e.config.StepLimit
	if slices.ContainsFunc(messages, givesUp) {
		limit = 1 // the message is consumed, and nothing is decided that needs a fact
	}
	decision, err := r.state.Step(inbox, now, f, limit)
	if err != nil {
		return nil, err
	}
	next := nextStep{more: decision.More, due: r.clock.processTime(decision.DueAt), ended: decision.Ended}
	var paused []*store.Attempt
	if loaded && r.isAhead() {
		paused = pausedAttempts(f, now)
	}
	if len(decision.Events) == 0 && len(messages) == 0 && r.waitReason == "" && len(paused) == 0 {
		return &decidedStep{run: r, next: next}, nil
	}
	step := e.newStep(r, lease.Lease)
	step.Entry.Events = decision.Events
	for _, m := range messages {
		step.Consumed = append(step.Consumed, m.Seq)
	}
	if err := project(f, decision.Events, step); err != nil {
		return nil, fmt.Errorf("project execution %s: %w", r.id, err)
	}
	r.state.GiveBack()
	for _, a := range paused {
		if !slices.ContainsFunc(step.Attempts, func(b *store.Attempt) bool { return a.ID == b.ID }) {
			step.Attempts = append(step.Attempts, a)
		}
	}
	step.DueAt, step.Waits = decision.JournalDueAt, r.state.Waits()
	if decision.More {
		// The engine that holds the shard after a crash must find the execution at once.
		step.DueAt = now
	}
	return &decidedStep{run: r, step: step, next: next}, nil
}

func (e *Engine) newStep(r *run, lease store.Lease) *store.Step {
	e.mu.Lock()
	e.commits++
	n := e.commits
	e.mu.Unlock()
	return &store.Step{
		Execution: r.key,
		ID:        r.id,
		Lease:     lease,
		Seq:       r.seq + 1,
		CommitID:  e.nonce + "-" + strconv.FormatInt(n, 36),
		Entry:     &aloftv1.JournalEntry{},
	}
}

// load folds the journal, entry by entry. ended: the execution has ended, and its state is not needed any more.
func (e *Engine) load(ctx context.Context, r *run) (ended bool, err error) {
	record, err := e.store.Load(ctx, r.key)
	if errors.Is(err, aloft.ErrNotFound) {
		return true, nil // deleted
	}
	if err != nil {
		return false, err
	}
	r.id, r.inputs, r.waitReason, r.waitingSince, r.namedWaits = record.ID, record.Inputs, record.Waiting, record.WaitingSince, record.Waits
	if r.waitReason != "" {
		r.namedWaits = max(r.namedWaits-1, 0) // Waits counts waitReason, too, but for records of older releases
	}
	if aloft.Terminal(record.Phase) {
		return true, nil
	}
	r.aborting = record.Phase == core.WorkflowExecution_ABORTING
	r.version = record.JournalVersion
	if r.newer = record.JournalVersion > store.JournalVersion; r.newer {
		return false, fmt.Errorf("its journal has version %d, this release reads up to %d: run the newer release", record.JournalVersion, store.JournalVersion)
	}
	graph, wrong := e.graph(ctx, record.Workflow)
	if wrong == nil {
		wrong = record.Unreadable
	}
	state, latest, last := machine.New(record.ID, graph), time.Time{}, int64(0)
	// A journal that cannot be folded is read to its end, too: endUnread appends to it, at a time that is not before its last.
	if err := e.store.Journal(ctx, r.key, func(row store.JournalRow) error {
		next := last + 1
		if at := store.LatestOf(row.Entry); !at.IsZero() {
			latest = at
		}
		switch {
		case wrong != nil:
		case row.Unreadable != nil:
			wrong = row.Unreadable
		case row.Seq != next:
			wrong = fmt.Errorf("journal entry %d is missing: %w", next, aloft.ErrUnreadable)
		default:
			wrong = corruptJournal(state.Fold(row.Seq, row.Entry))
			state.GiveBack()
		}
		last = row.Seq
		return nil //nolint:nilerr // wrong is returned when it is known where the journal ends
	}); err != nil {
		return false, err
	}
	r.seq = last
	e.learnClock(r, latest)
	if wrong != nil {
		return false, wrong
	}
	r.state = state
	return false, nil
}

// corruptJournal marks an error of a fold as damage of the journal: it tells what cannot have happened.
func corruptJournal(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fold journal: %w: %w", aloft.ErrUnreadable, err)
}

// graph reads a workflow. A version never changes, so a graph that was read is good for ever.
func (e *Engine) graph(ctx context.Context, id *core.Identifier) (*machine.Graph, error) {
	key := aloft.KeyOf(id)
	if g, ok := e.graphs.Get(key); ok {
		return g, nil
	}
	w, err := e.store.GetWorkflow(ctx, id)
	if errors.Is(err, aloft.ErrNotFound) {
		err = fmt.Errorf("%w: %w", aloft.ErrUnreadable, err) // it was there when the execution was created
	}
	if err != nil {
		return nil, fmt.Errorf("read workflow %s: %w", key, err)
	}
	g, err := machine.NewGraph(w.Compiled)
	if err != nil {
		return nil, fmt.Errorf("read workflow %s: %w: %w", key, aloft.ErrUnreadable, err)
	}
	e.graphs.Put(key, g, weight.Decoded(int64(proto.Size(w.Compiled))))
	return g, nil
}

// postpone handles a failed step: it drops the state in memory, which may be half changed. The step alone is tried
// again, with growing pauses; once that has lasted, the record of the execution says what it waits for and since when. After
// MaxRetries it is parked: it asks seldom, and is woken when the service it waits for is back. Past MaxOutage it fails, by a
// message to itself.
func (e *Engine) postpone(ctx context.Context, r *run, lease store.Lease, cause error) *decidedStep {
	now := e.clock.Now()
	if r.failures++; r.failures == 1 {
		r.failedAt = now
		if !r.waitingSince.IsZero() && r.waitingSince.Before(now) { // it goes on waiting after a restart
			r.failedAt = r.waitingSince
		}
	}
	r.state = nil
	r.retryAt = now.Add(e.retryPause(r.failures))
	if ctx.Err() != nil {
		return &decidedStep{run: r}
	}
	parked, longEnough := r.failures > e.config.MaxRetries, now.Sub(r.failedAt) >= tellWaitingAfter
	if errors.Is(cause, aloft.ErrUnreadable) {
		parked, longEnough = true, true // the next try would fail in the same way
	} else {
		cause = aloft.Blame(aloft.ServiceDatabase, cause) // an error that names no service is the database's
	}
	// A store that is away for a moment fails the steps of all executions at once: the warnings of commits and leases do.
	if longEnough || r.failures == 1 && !errors.Is(cause, aloft.ErrUnavailable) {
		e.logger.Warn("an execution cannot go on and is tried again", "execution", r.id.String(), "tries", r.failures, "parked", parked, "error", cause)
	}
	// Without an id the record was never read, so that it cannot be written.
	if !longEnough && !parked || r.id == (aloft.ExecutionID{}) || r.newer {
		return &decidedStep{run: r}
	}
	service, reason := aloft.ServiceOf(cause)
	since := r.failedAt.UTC().Format(time.RFC3339)
	hint := ""
	if errors.Is(cause, aloft.ErrUnreadable) {
		hint = " (aloft terminate ends it)"
	}
	waiting := fmt.Sprintf("cannot go on since %s%s: %v", since, hint, cause)
	if service != "" {
		waiting = aloft.WaitingFor(service, since, reason)
		r.awaitedService = e.reportAway(ctx, service, reason)
	}
	if len(waiting) > longestReason {
		waiting = strings.ToValidUTF8(waiting[:longestReason], "") + "…"
	}
	giveUp := e.config.MaxOutage > 0 && parked && now.Sub(r.failedAt) >= e.config.MaxOutage
	if r.waitReason == waiting && !giveUp {
		return &decidedStep{run: r}
	}
	step := e.newStep(r, lease)
	step.Waiting, step.WaitingSince, step.Waits = waiting, r.failedAt, r.namedWaits+1
	step.DueAt = r.clock.runTime(r.retryAt)
	if giveUp {
		step.Appends = []store.Append{{ID: r.id, Message: store.Message{Dedup: "give up", Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_GiveUp{
			GiveUp: &aloftv1.GiveUp{Error: &core.ExecutionError{
				Code: machine.CodeOutage, Kind: core.ExecutionError_SYSTEM,
				Message: fmt.Sprintf("gave up after %s (max-outage is %s): %s", now.Sub(r.failedAt).Round(time.Second), e.config.MaxOutage, waiting),
			}},
		}}}}}
	}
	return &decidedStep{run: r, step: step}
}

// reportAway tells package health that a service failed, and returns the service if its return will wake the run. A run that
// waits for the database is not woken, it tries by itself.
func (e *Engine) reportAway(ctx context.Context, service, reason string) string {
	if e.config.Health == nil || service == aloft.ServiceDatabase {
		return ""
	}
	if s, _ := e.config.Health.Failed(ctx, service, reason); !s.Away() {
		return ""
	}
	return service
}

// retryPause is how long a run waits after so many failed steps in a row.
func (e *Engine) retryPause(failures int) time.Duration {
	parked := failures - e.config.MaxRetries
	if parked <= 0 {
		return pause(failures)
	}
	return min(longestPause<<min(parked-1, 10), longestPark)
}

// pause is how long to wait after so many failures in a row, before parking.
func pause(failures int) time.Duration {
	b := backoff.ExponentialBackOff{InitialInterval: firstPause, Multiplier: 2, MaxInterval: longestPause}
	b.Reset()
	d := firstPause
	for range min(failures, 16) {
		d = b.NextBackOff()
	}
	return d
}

// keepStepping steps ready runs, one at a time.
func (e *Engine) keepStepping(ctx context.Context) {
	for {
		e.mu.Lock()
		var r *run
		for r == nil && !e.stopping {
			var ok bool
			if e.uncommittedRows < maxUncommittedRows && e.uncommittedBytes < maxUncommittedBytes {
				if r, ok = e.nextReady(); ok {
					break
				}
			}
			e.workable.Wait()
		}
		stopping := e.stopping
		e.mu.Unlock()
		if stopping {
			return
		}
		e.submit(e.step(ctx, r))
	}
}
