package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// decided is a step that waits for its commit.
type decided struct {
	run  *run
	step *store.Step // nil: there is nothing to commit
	next turn
	lost bool // it is not ours to move any more
}

// turn is what a step says about the next one.
type turn struct {
	more  bool
	due   time.Time
	ended bool
}

// The pauses between tries of a step that we could not do, and after how long the execution says that it waits.
const (
	firstPause    = 50 * time.Millisecond
	longestPause  = 30 * time.Second
	waitingLasts  = 5 * time.Second
	longestReason = 500
)

// step makes one step of a run that is busy with this goroutine: load, decide, project.
func (e *Engine) step(ctx context.Context, r *run) *decided {
	e.mu.Lock()
	n := min(len(r.messages), messagesPerStep)
	r.taken, r.messages = r.messages[:n:n], r.messages[n:]
	messages := r.taken
	lease, dropped := e.leases[r.shard], r.dropped
	e.mu.Unlock()
	if dropped || !lease.moving(e.clock.Now()) {
		return &decided{run: r, lost: true}
	}
	d, err := e.decide(ctx, r, messages, lease.Lease)
	if err != nil {
		return e.postpone(ctx, r, lease.Lease, err)
	}
	r.failures, r.retryAt = 0, time.Time{}
	return d
}

func (e *Engine) decide(ctx context.Context, r *run, messages []store.InboxRow, lease store.Lease) (d *decided, err error) {
	if r.state == nil {
		ended, err := e.load(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("load execution %s: %w", r.id, err)
		}
		if ended {
			return &decided{run: r, next: turn{ended: true}}, nil
		}
	}
	f := &facts{ctx: ctx, engine: e, key: r.key, state: r.state, inputs: r.inputs, made: make(map[string]*aloftv1.Literals)}
	inbox := make([]*aloftv1.Inbox, len(messages))
	for i, m := range messages {
		if inbox[i], err = f.receive(m.Inbox); err != nil {
			return nil, fmt.Errorf("receive message of execution %s: %w", r.id, err)
		}
	}
	now := e.clock.Now()
	decision, err := r.state.Step(inbox, now, f, e.config.StepLimit)
	if err != nil {
		return nil, err
	}
	next := turn{more: decision.More, due: decision.DueAt, ended: decision.Ended}
	if len(decision.Events) == 0 && len(messages) == 0 && r.waiting == "" {
		return &decided{run: r, next: next}, nil
	}
	step := e.newStep(r, lease)
	step.Entry.Events = decision.Events
	for _, m := range messages {
		step.Consumed = append(step.Consumed, m.Seq)
	}
	if err := project(f, decision.Events, step); err != nil {
		return nil, fmt.Errorf("project execution %s: %w", r.id, err)
	}
	step.DueAt = decision.DueAt
	if decision.More {
		// Whoever owns it after a crash must find it.
		step.DueAt = now
	}
	return &decided{run: r, step: step, next: next}, nil
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

// errNewer: the execution belongs to a later release, and we may not write to it.
var errNewer = errors.New("run the newer release")

// load folds the journal. It says whether the execution has ended: then nobody needs its state.
func (e *Engine) load(ctx context.Context, r *run) (ended bool, err error) {
	record, journal, err := e.store.Load(ctx, r.key)
	if errors.Is(err, aloft.ErrNotFound) {
		return true, nil // deleted
	}
	if err != nil {
		return false, err
	}
	r.id, r.inputs, r.waiting = record.ID, record.Inputs, record.Waiting
	r.seq = int64(len(journal))
	if aloft.Terminal(record.Phase) {
		return true, nil
	}
	if record.JournalVersion > store.JournalVersion {
		return false, fmt.Errorf("its journal has version %d, this release reads up to %d: %w", record.JournalVersion, store.JournalVersion, errNewer)
	}
	e.clock.seen(latest(journal))
	graph, err := e.graph(ctx, record.Workflow)
	if err != nil {
		return false, err
	}
	entries := make([]*aloftv1.JournalEntry, len(journal))
	for i, row := range journal {
		entries[i] = row.Entry
	}
	state, err := machine.Fold(record.ID, graph, entries)
	if err != nil {
		return false, fmt.Errorf("fold journal: %w", err)
	}
	r.state = state
	return false, nil
}

// graph reads a workflow. Versions never change, so one that was read is good for ever.
func (e *Engine) graph(ctx context.Context, id *core.Identifier) (*machine.Graph, error) {
	key := id.GetProject() + "/" + id.GetDomain() + "/" + id.GetName() + "/" + id.GetVersion()
	if g, ok := e.graphs.get(key); ok {
		return g, nil
	}
	w, err := e.store.GetWorkflow(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read workflow %s: %w", key, err)
	}
	g, err := machine.NewGraph(w.Compiled)
	if err != nil {
		return nil, fmt.Errorf("read workflow %s: %w", key, err)
	}
	e.graphs.put(key, g, int64(proto.Size(w.Compiled))*literalOverhead)
	return g, nil
}

// postpone is what becomes of a step that we could not do. The state may be half changed and goes. Once it has lasted, the
// record of the execution says what it waits for.
func (e *Engine) postpone(ctx context.Context, r *run, lease store.Lease, cause error) *decided {
	now := e.clock.Now()
	if r.failures++; r.failures == 1 {
		r.failedAt = now
	}
	r.state = nil
	r.retryAt = now.Add(pause(r.failures))
	if ctx.Err() != nil {
		return &decided{run: r}
	}
	lasts := now.Sub(r.failedAt) >= waitingLasts
	// A store that is away for a moment stops everybody at once, and says so itself.
	if lasts || r.failures == 1 && !errors.Is(cause, aloft.ErrUnavailable) {
		e.logger.Warn("an execution cannot go on and is tried again", "execution", r.id.String(), "tries", r.failures, "error", cause)
	}
	reason := cause.Error()
	if len(reason) > longestReason {
		reason = reason[:longestReason] + "…"
	}
	// Without an id it was never read, and the store has other worries.
	if !lasts || r.waiting == reason || r.id == (aloft.ExecutionID{}) || errors.Is(cause, errNewer) {
		return &decided{run: r}
	}
	step := e.newStep(r, lease)
	step.Waiting = reason
	step.DueAt = r.retryAt
	return &decided{run: r, step: step}
}

// pause is how long to wait after so many failures in a row.
func pause(failures int) time.Duration {
	b := backoff.ExponentialBackOff{InitialInterval: firstPause, Multiplier: 2, MaxInterval: longestPause}
	b.Reset()
	d := firstPause
	for range min(failures, 16) {
		d = b.NextBackOff()
	}
	return d
}

// keepStepping steps whatever is ready, one execution at a time.
func (e *Engine) keepStepping(ctx context.Context) {
	for {
		e.mu.Lock()
		var r *run
		for r == nil && !e.stopping {
			var ok bool
			if e.rows < rowsWaiting {
				if r, ok = e.next(); ok {
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
		e.finish(e.step(ctx, r))
	}
}
