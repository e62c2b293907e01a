package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
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
	Nonce    string // of this process, made anew at each start
	Follows  string // the nonce of the process that was the instance before
	Store    Store
	Literals LiteralReader // literal maps that are too large for a row
	Backend  Backend
	Health   Health // nil: every service counts as well
	Logger   *slog.Logger
	Now      func() time.Time // nil: time.Now

	// DefaultMilliCPU is what an attempt that states no CPU counts for. 0: 500.
	DefaultMilliCPU int64
	// TTL is how long the instance counts as there after a heartbeat. 0: 15 s.
	TTL time.Duration
}

// Health is what the executor asks of package health.
type Health interface {
	// Failed says that a service could not do its part and returns what is known of it then, and whether this was the
	// failure that made it away: the one that is charged. Without a reason the service is asked whether it is well.
	Failed(ctx context.Context, service, reason string) (s store.Service, first bool)
	// Away returns the first of the services that is away.
	Away(services ...string) (s store.Service, away bool)
}

// Executor is one instance: a loop between the store and a back end.
type Executor struct {
	config Config
	jobs   *jobs
	needs  []string // names of the back end's services, sorted
	logger *slog.Logger
	now    func() time.Time

	reports     chan report
	roomChanged chan struct{}

	// What the loop alone uses.
	unassigned []unassigned  // the attempts of the queue that admission is to choose from, as of readAt
	more       bool          // the queue holds attempts that are not in unassigned
	readAt     time.Time     // when the queue was read
	readPace   time.Duration // the least time between two reads, so that reading a long queue stays a small part of the work
	readDue    bool          // the store has changed, or a service is well again, since readAt
	heldAt     time.Time     // when the instance's own attempts were read
	wasAway    bool          // a service that the back end needs was away at the last look
	heldDue    bool          // the store has changed since heldAt

	mu      sync.Mutex
	running map[store.AttemptKey]*run
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
		needs:       slices.Sorted(maps.Keys(config.Backend.Services())),
		logger:      config.Logger,
		now:         config.Now,
		running:     map[store.AttemptKey]*run{},
		reports:     make(chan report, 256),
		roomChanged: make(chan struct{}, 1),
	}
}

// Register makes the instance known. It comes before the engine starts, so that the engine does not take the attempts of an
// instance that is just starting again for lost.
func (e *Executor) Register(ctx context.Context) error {
	capacity, now := e.config.Backend.Capacity(), e.now()
	err := e.config.Store.Heartbeat(ctx, store.Instance{
		ID: e.config.Instance, Kind: e.config.Backend.Kind(), Place: e.config.Backend.Place(),
		MilliCPU: capacity.MilliCPU, Memory: capacity.Memory, Slots: capacity.Slots,
		SeenAt: now, Expires: now.Add(e.config.TTL), Nonce: e.config.Nonce, Follows: e.config.Follows,
	})
	if err != nil {
		return fmt.Errorf("register executor %s: %w", e.config.Instance, err)
	}
	return nil
}

// Run finds the instance's attempts again, then takes and runs attempts until ctx ends. Attempts that run are left running. It
// returns an error only when the back end gives up watching, or another process has taken the instance's place (ErrFenced).
func (e *Executor) Run(ctx context.Context) error {
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	wake, unsubscribe := e.config.Store.Subscribe(store.TopicAttempts)
	defer unsubscribe()
	healthier, unsubscribeHealth := e.config.Store.Subscribe(store.TopicHealth)
	defer unsubscribeHealth()
	var found []aloft.AttemptID
	var fenced error
	e.until(ctx, "find attempts again", func() (err error) {
		if err = e.Register(ctx); errors.Is(err, aloft.ErrFenced) {
			fenced = err
			return nil
		}
		if err == nil {
			found, err = e.findAgain(ctx, &background)
		}
		return err
	})
	if ctx.Err() != nil || fenced != nil {
		return fenced
	}
	replaced := make(chan error, 1)
	background.Go(func() { replaced <- e.heartbeat(ctx) })
	background.Go(func() { e.reportAll(ctx) })
	watched := make(chan error, 1)
	background.Go(func() { watched <- e.config.Backend.Watch(ctx, found, func(event Event) { e.handle(ctx, event) }) })

	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for failures := 0; ; {
		again, err := e.pass(ctx, &background)
		if err == nil {
			failures = 0
		} else if failures++; ctx.Err() == nil && (failures == 1 || failures%100 == 0) {
			e.logger.Warn("executor pass", "tries", failures, "error", err)
		}
		timer.Reset(again)
		select {
		case <-ctx.Done():
			return nil
		case err := <-watched:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch attempts: %w", err)
		case err := <-replaced:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-wake:
			e.readDue, e.heldDue = true, true
		case <-healthier:
			e.readDue = true
		case <-e.roomChanged:
		case <-timer.C:
		}
	}
}

// until repeats a call of the store or the back end until it succeeds or ctx ends.
func (e *Executor) until(ctx context.Context, what string, do func() error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, time.Second
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		wait := pause.NextBackOff()
		e.logger.Warn("executor tries again", "what", what, "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// pass looks once at the attempts that the instance has and at those that may start. It returns when to look again if no wake comes.
func (e *Executor) pass(ctx context.Context, background *sync.WaitGroup) (again time.Duration, err error) {
	if wait := due(e.heldAt, settle, lookAgain, e.heldDue); wait > 0 {
		again = wait
	} else if again, err = lookAgain, e.hold(ctx, background); err != nil {
		return lookAgain, err
	}
	wait, err := e.admit(ctx, background)
	return min(again, wait), err
}

// due says how long the next look can wait; 0: not at all. The next look comes pace after the last one if a wake has come, else
// after the longer of pace and quiet. The monotonic clock measures.
func due(last time.Time, pace, quiet time.Duration, woken bool) time.Duration {
	if !woken {
		pace = max(pace, quiet)
	}
	return max(pace-time.Since(last), 0)
}

// findAgain starts every attempt that the instance has: the back end attaches to those that it had started. It returns their
// ids, and those of attempts that other instances of the same place have, which the back end must not end.
func (e *Executor) findAgain(ctx context.Context, background *sync.WaitGroup) ([]aloft.AttemptID, error) {
	instances, err := e.config.Store.Instances(ctx)
	if err != nil {
		return nil, err
	}
	var ids []aloft.AttemptID
	for _, i := range instances {
		if i.Kind != e.config.Backend.Kind() || i.Place != e.config.Backend.Place() {
			continue
		}
		assigned, err := e.config.Store.Assigned(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		for _, a := range assigned {
			ids = append(ids, a.ID)
			if i.ID == e.config.Instance {
				e.take(ctx, background, a, false)
			}
		}
	}
	return ids, nil
}

// hold compares the attempts that the instance has in the store with those that it runs. It takes those that it does not run
// yet (the answer to an assignment was lost, or the attempt was that of an instance that is gone), stops those that are to be
// stopped or are not the instance's own any more, and forgets those whose outcome the engine has adopted. An outcome is not
// forgotten while it is still in the inbox: a restart would find an attempt without an end and start it again.
func (e *Executor) hold(ctx context.Context, background *sync.WaitGroup) error {
	e.mu.Lock()
	missing := make(map[store.AttemptKey]*run, len(e.running))
	durable := make(map[store.AttemptKey]durability, len(e.running))
	for key, r := range e.running {
		missing[key], durable[key] = r, r.durable
	}
	e.mu.Unlock()
	e.heldDue = false
	assigned, err := e.config.Store.Assigned(ctx, e.config.Instance)
	if err != nil {
		e.heldDue = true
		return fmt.Errorf("look for attempts to stop: %w", err)
	}
	e.heldAt = time.Now()
	for _, a := range assigned {
		r := missing[a.AttemptKey]
		delete(missing, a.AttemptKey)
		if r == nil {
			e.take(ctx, background, a, false)
		} else if a.Stop != "" {
			e.stop(r, a.Stop)
		}
	}
	var adopted []*run
	for key, r := range missing {
		if durable[key] != adoptable {
			a, err := e.config.Store.GetAttempt(ctx, r.attempt.ID)
			if err != nil && !errors.Is(err, aloft.ErrNotFound) {
				e.heldDue = true
				return fmt.Errorf("look what became of an attempt: %w", err)
			}
			if err == nil && a.AttemptKey == key && !aloft.Terminal(a.Phase) {
				e.letGo(r) // another instance of this place has the attempt now, with its processes
				continue
			}
		}
		if durable[key] == unknown {
			e.stop(r, "the attempt was given up")
			continue
		}
		e.mu.Lock()
		if !r.forgets {
			r.forgets = true
			adopted = append(adopted, r)
		}
		e.mu.Unlock()
	}
	if len(adopted) > 0 {
		background.Go(func() { e.forget(ctx, adopted) })
	}
	return nil
}

// letGo leaves an attempt to the instance that the store has assigned it to.
func (e *Executor) letGo(r *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.end()
	delete(e.running, r.attempt.AttemptKey)
}

// run is an attempt that this instance has, until the engine has adopted its outcome. The executor's lock guards it, but
// for stop.
type run struct {
	attempt *store.Attempt
	fresh   bool // no instance had the attempt before this one: nothing of it runs before we start it
	asks    admission.Candidate
	job     *Job          // nil: not read yet
	reason  string        // why the attempt is to be stopped; empty: it is not
	stop    chan struct{} // closed with reason
	left    chan struct{} // closed when tend has nothing to wait for any more
	told    *time.Timer   // reports that the attempt runs; nil: no start is known yet
	blocked string        // why the attempt cannot start although it has room: a record cannot be understood; empty: it can
	held    bool          // what the attempt left could not be kept for a while
	over    bool          // the outcome is known: the attempt takes no room any more
	durable durability    // of the outcome
	forgets bool          // Backend.Forget is being called for the attempt
}

// end notes that nothing is to be done for a run any more. The executor's lock is held.
func (r *run) end() {
	if r.over {
		return
	}
	r.over = true
	close(r.left)
	if r.told != nil {
		r.told.Stop()
	}
}

// forget lets the back end forget attempts. Where that fails, a later hold tries again.
func (e *Executor) forget(ctx context.Context, adopted []*run) {
	for _, r := range adopted {
		var err error
		if r.job != nil {
			err = e.config.Backend.Forget(ctx, r.job)
		}
		e.mu.Lock()
		if err == nil {
			delete(e.running, r.attempt.AttemptKey)
		}
		r.forgets = false
		e.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			e.logger.Warn("forget attempt", "attempt", r.attempt.ID.String(), "error", err)
		}
	}
}

// heartbeat registers the instance again and again, until ctx ends or another process has taken its place (ErrFenced).
func (e *Executor) heartbeat(ctx context.Context) error {
	ticker := time.NewTicker(e.config.TTL / 3)
	defer ticker.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			err := e.Register(ctx)
			if errors.Is(err, aloft.ErrFenced) {
				return err
			}
			if err == nil {
				failures = 0
			} else if failures++; ctx.Err() == nil && (failures == 1 || failures%100 == 0) {
				e.logger.Warn("heartbeat", "tries", failures, "error", err)
			}
		}
	}
}

// Running are the attempts that the instance runs now, sorted, for display.
func (e *Executor) Running() []aloft.AttemptID {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := make([]aloft.AttemptID, 0, len(e.running))
	for _, r := range e.running {
		if !r.over {
			ids = append(ids, r.attempt.ID)
		}
	}
	slices.SortFunc(ids, func(a, b aloft.AttemptID) int { return strings.Compare(a.String(), b.String()) })
	return ids
}
