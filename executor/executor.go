package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Store is what an executor needs of the store.
type Store interface {
	store.Attempts
	store.Wakes
	JobStore
}

// Config of an executor.
type Config struct {
	Instance string // unique for ever; the same after a restart in the same place, so that it finds its attempts again
	Store    Store
	Literals LiteralReader // literal maps that are too large for a row
	Backend  Backend
	Logger   *slog.Logger
	Now      func() time.Time // nil: time.Now

	// DefaultMilliCPU is what an attempt that states no CPU counts for. 0: 500.
	DefaultMilliCPU int64
	// TTL is how long the instance counts as there after a heartbeat. 0: 15 s.
	TTL time.Duration
}

// How much of the queue is looked at together, and how often it is read anew while something of it is known. Reading it
// for each attempt that ends would cost more than the attempts.
const (
	window       = 1000
	refreshAfter = 50 * time.Millisecond
	lookAgain    = time.Second
	explainAfter = time.Second // an attempt that waits longer has its reason written down
)

// Executor is one instance: a loop between the store and a back end.
type Executor struct {
	config Config
	jobs   *jobs
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	running map[store.AttemptKey]*run

	waiting     []*store.Attempt // what is known of the queue, oldest first
	readAt      time.Time
	reports     chan report
	roomChanged chan struct{}
}

// run is an attempt that this instance has.
type run struct {
	job      *Job
	asks     admission.Candidate
	stopping bool
}

type report struct {
	run     *run
	message store.Report
	ended   bool
}

// New makes an executor; Run runs it.
func New(config Config) *Executor {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.DefaultMilliCPU == 0 {
		config.DefaultMilliCPU = 500
	}
	if config.TTL == 0 {
		config.TTL = 15 * time.Second
	}
	return &Executor{
		config:      config,
		jobs:        newJobs(config.Store, config.Literals),
		logger:      config.Logger,
		now:         config.Now,
		running:     map[store.AttemptKey]*run{},
		reports:     make(chan report, 256),
		roomChanged: make(chan struct{}, 1),
	}
}

// Register makes the instance known. It comes before the engine starts, so that nobody takes the attempts of an
// instance that is just starting again for lost.
func (e *Executor) Register(ctx context.Context) error {
	capacity, now := e.config.Backend.Capacity(), e.now()
	err := e.config.Store.Heartbeat(ctx, store.Instance{
		ID: e.config.Instance, Kind: e.config.Backend.Kind(), Place: e.config.Backend.Place(),
		MilliCPU: capacity.MilliCPU, Memory: capacity.Memory, Slots: capacity.Slots,
		SeenAt: now, Expires: now.Add(e.config.TTL),
	})
	if err != nil {
		return fmt.Errorf("register executor %s: %w", e.config.Instance, err)
	}
	return nil
}

// Run finds again what the instance had, then takes and runs attempts until ctx ends. What runs is left running.
func (e *Executor) Run(ctx context.Context) error {
	if err := e.Register(ctx); err != nil {
		return err
	}
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	wake, unsubscribe := e.config.Store.Subscribe(store.TopicAttempts)
	defer unsubscribe()
	background.Go(func() { e.heartbeat(ctx) })
	background.Go(func() { e.reportAll(ctx) })
	found, err := e.findAgain(ctx)
	if err != nil {
		return err
	}
	watched := make(chan error, 1)
	background.Go(func() { watched <- e.config.Backend.Watch(ctx, found, func(event Event) { e.handle(ctx, event) }) })

	timer := time.NewTicker(lookAgain)
	defer timer.Stop()
	for {
		if err := e.Pass(ctx); err != nil && ctx.Err() == nil {
			e.logger.Warn("executor pass", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-watched:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch attempts: %w", err)
		case <-wake:
		case <-e.roomChanged:
		case <-timer.C:
		}
	}
}

// Pass looks once at what is to be stopped and what may start.
func (e *Executor) Pass(ctx context.Context) error {
	if err := e.stopWhatIsAskedFor(ctx); err != nil {
		return err
	}
	return e.admit(ctx)
}

// findAgain starts every attempt that the instance has: the back end attaches to those that it had started.
func (e *Executor) findAgain(ctx context.Context) ([]aloft.AttemptID, error) {
	assigned, err := e.config.Store.Assigned(ctx, e.config.Instance)
	if err != nil {
		return nil, fmt.Errorf("find attempts again: %w", err)
	}
	ids := make([]aloft.AttemptID, len(assigned))
	for i, a := range assigned {
		ids[i] = a.ID
		go e.start(ctx, a, e.add(a))
	}
	return ids, nil
}

func (e *Executor) stopWhatIsAskedFor(ctx context.Context) error {
	e.mu.Lock()
	idle := len(e.running) == 0
	e.mu.Unlock()
	if idle {
		return nil
	}
	assigned, err := e.config.Store.Assigned(ctx, e.config.Instance)
	if err != nil {
		return fmt.Errorf("look for attempts to stop: %w", err)
	}
	for _, a := range assigned {
		if a.Stop == "" {
			continue
		}
		e.mu.Lock()
		r := e.running[a.AttemptKey]
		due := r != nil && r.job != nil && !r.stopping
		if due {
			r.stopping = true
		}
		e.mu.Unlock()
		if !due {
			continue
		}
		if err := e.config.Backend.Stop(ctx, r.job, a.Stop); err != nil {
			e.mu.Lock()
			r.stopping = false
			e.mu.Unlock()
			return fmt.Errorf("stop attempt %s: %w", a.ID, err)
		}
	}
	return nil
}

// admit lets waiting attempts start for which there is room.
func (e *Executor) admit(ctx context.Context) error {
	capacity, now := e.config.Backend.Capacity(), e.now()
	running := e.candidates()
	if int64(len(running)) >= capacity.Slots && now.Sub(e.readAt) < lookAgain {
		return nil
	}
	age := now.Sub(e.readAt)
	fresh := len(e.waiting) == 0 || age >= lookAgain || age >= refreshAfter && len(e.waiting) < window
	if fresh {
		waiting, err := e.config.Store.Waiting(ctx, now, window)
		if err != nil {
			return fmt.Errorf("read waiting attempts: %w", err)
		}
		e.waiting, e.readAt = waiting, now
	}
	if len(e.waiting) == 0 {
		return nil
	}
	candidates := make([]admission.Candidate, len(e.waiting))
	for i, a := range e.waiting {
		candidates[i] = e.candidate(a)
	}
	choice := admission.Choose(candidates, running, capacity, now)
	if fresh {
		if err := e.explain(ctx, choice, now); err != nil {
			return err
		}
	}
	if len(choice.Start) == 0 {
		return nil
	}
	chosen := make([]*store.Attempt, len(choice.Start))
	keys := make([]store.AttemptKey, len(choice.Start))
	for i, index := range choice.Start {
		chosen[i], keys[i] = e.waiting[index], e.waiting[index].AttemptKey
	}
	taken := map[int]bool{}
	for _, index := range choice.Start {
		taken[index] = true
	}
	rest := e.waiting[:0:0]
	for i, a := range e.waiting {
		if !taken[i] {
			rest = append(rest, a)
		}
	}
	e.waiting = rest
	for i, err := range e.config.Store.Assign(ctx, e.config.Instance, keys, now) {
		a := chosen[i]
		switch {
		case err == nil:
			r := e.add(a)
			go e.start(ctx, a, r)
		case errors.Is(err, aloft.ErrConflict): // somebody else has it, it has ended or is to be stopped
		default:
			e.waiting = nil // read again what is true
			return fmt.Errorf("take attempt %s: %w", a.ID, err)
		}
	}
	return nil
}

// explain writes down why attempts wait, once for each reason, when they have waited long enough to be asked about.
func (e *Executor) explain(ctx context.Context, choice admission.Choice, now time.Time) error {
	byReason := map[string][]store.AttemptKey{}
	for i, reason := range choice.Reasons {
		if a := e.waiting[i]; a.Waiting != reason && now.Sub(a.CreatedAt) >= explainAfter {
			byReason[reason] = append(byReason[reason], a.AttemptKey)
			a.Waiting = reason
		}
	}
	for reason, keys := range byReason {
		if err := e.config.Store.SetWaiting(ctx, keys, reason); err != nil {
			return fmt.Errorf("write down what attempts wait for: %w", err)
		}
	}
	return nil
}

// start starts an attempt and tries again for as long as the back end cannot, or until the attempt is to be stopped.
func (e *Executor) start(ctx context.Context, a *store.Attempt, r *run) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 10*time.Second
	for {
		job, err := e.jobs.job(ctx, a)
		var failure *aloftv1.Failure
		if err == nil {
			e.mu.Lock()
			r.job = job
			e.mu.Unlock()
			failure, err = e.config.Backend.Start(ctx, job)
		} else if errors.Is(err, aloft.ErrInvalid) {
			job, err = &Job{Key: a.AttemptKey, ID: a.ID, Spec: a.Spec}, nil
			failure = NewFailure(core.ExecutionError_USER, false, CodeBadTaskFormat, err.Error())
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait := pause.NextBackOff()
			e.logger.Warn("start attempt", "attempt", a.ID.String(), "error", err, "again_in", wait)
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			continue
		case failure != nil:
			e.handle(ctx, Event{Job: job, Outcome: FailedToStart(job, failure, e.now())})
		}
		return
	}
}

// handle takes an event of the back end to the inbox.
func (e *Executor) handle(ctx context.Context, event Event) {
	e.mu.Lock()
	r := e.running[event.Job.Key]
	e.mu.Unlock()
	if r == nil {
		r = &run{job: event.Job}
	}
	inbox := &aloftv1.Inbox{}
	if event.Outcome != nil {
		inbox.Kind = &aloftv1.Inbox_Outcome{Outcome: event.Outcome}
	} else {
		inbox.Kind = &aloftv1.Inbox_AttemptStarted{AttemptStarted: event.Started}
		event.Started.Executor = e.config.Instance
	}
	select {
	case e.reports <- report{run: r, message: store.Report{Attempt: event.Job.Key, Inbox: inbox}, ended: event.Outcome != nil}:
	case <-ctx.Done():
	}
}

// reportAll commits reports, all that have come together, and repeats what could not be committed.
func (e *Executor) reportAll(ctx context.Context) {
	var pending []report
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 5*time.Second
	for {
		if len(pending) == 0 {
			select {
			case <-ctx.Done():
				return
			case r := <-e.reports:
				pending = append(pending, r)
			}
		}
		for more := true; more && len(pending) < 256; {
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
			switch {
			case err == nil || errors.Is(err, aloft.ErrConflict) || errors.Is(err, aloft.ErrNotFound) || errors.Is(err, aloft.ErrPrecondition):
				if pending[i].ended {
					e.ended(ctx, pending[i].run)
				}
			default:
				again = append(again, pending[i])
			}
		}
		pending = again
		if len(pending) > 0 {
			wait := pause.NextBackOff()
			e.logger.Warn("report outcomes", "waiting", len(pending), "again_in", wait)
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			continue
		}
		pause.Reset()
	}
}

// ended forgets an attempt whose outcome is in the inbox.
func (e *Executor) ended(ctx context.Context, r *run) {
	e.mu.Lock()
	delete(e.running, r.job.Key)
	e.mu.Unlock()
	if err := e.config.Backend.Forget(ctx, r.job); err != nil && ctx.Err() == nil {
		e.logger.Warn("forget attempt", "attempt", r.job.ID.String(), "error", err)
	}
	select {
	case e.roomChanged <- struct{}{}:
	default:
	}
}

func (e *Executor) heartbeat(ctx context.Context) {
	ticker := time.NewTicker(e.config.TTL / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := e.Register(ctx); err != nil && ctx.Err() == nil {
				e.logger.Warn("heartbeat", "error", err)
			}
		}
	}
}

func (e *Executor) add(a *store.Attempt) *run {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.running[a.AttemptKey]; r != nil {
		return r
	}
	r := &run{asks: e.candidate(a)}
	e.running[a.AttemptKey] = r
	return r
}

func (e *Executor) candidates() []admission.Candidate {
	e.mu.Lock()
	defer e.mu.Unlock()
	running := make([]admission.Candidate, 0, len(e.running))
	for _, r := range e.running {
		running = append(running, r.asks)
	}
	return running
}

func (e *Executor) candidate(a *store.Attempt) admission.Candidate {
	asks := admission.Room{MilliCPU: a.Spec.GetMilliCpu(), Memory: a.Spec.GetMemory(), GPU: a.Spec.GetGpu(), Slots: 1}
	if asks.MilliCPU == 0 {
		asks.MilliCPU = e.config.DefaultMilliCPU
	}
	return admission.Candidate{Project: a.ID.Execution.Project, Execution: a.ID.Execution.String(), Asks: asks, CreatedAt: a.CreatedAt}
}

// Running is what the instance has now, for display: generated names, sorted.
func (e *Executor) Running() []aloft.AttemptID {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := make([]aloft.AttemptID, 0, len(e.running))
	for _, r := range e.running {
		if r.job != nil {
			ids = append(ids, r.job.ID)
		}
	}
	slices.SortFunc(ids, func(a, b aloft.AttemptID) int { return strings.Compare(a.String(), b.String()) })
	return ids
}
