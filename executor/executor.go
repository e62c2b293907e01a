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
	Nonce    string // of this process
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

// How long an attempt that cannot be started is kept: by a service that is away, and by one that says it is well. Then it is
// given back to wait where all can see it and any executor can take it.
const (
	patience     = 5 * time.Second
	wellPatience = 30 * time.Second
)

// How much of the queue is looked at, and how often. What is known of it is enough for most starts: reading it for each
// attempt that ends would cost more than the attempts.
const (
	window       = 1000                  // attempts among which admission chooses: the fair first ones of all that wait
	horizon      = 20_000                // attempts that are looked at to find those, in order of arrival
	settle       = 50 * time.Millisecond // between two looks while something of the queue is known, and before a start is told
	lookAgain    = time.Second           // without a wake-up: wake-ups of other processes come late, and times become due
	lookInOutage = 30 * time.Second      // while nothing may start
	explainAfter = time.Second           // an attempt that waits longer has its reason written down
)

// Executor is one instance: a loop between the store and a back end.
type Executor struct {
	config Config
	jobs   *jobs
	needs  []string // names of services
	logger *slog.Logger
	now    func() time.Time

	reports     chan report
	roomChanged chan struct{}

	// What the loop alone uses.
	waiting  []waiting     // what is known of the queue, fair first ones
	more     bool          // there are others than those
	readAt   time.Time     // when the queue was read
	readPace time.Duration // not sooner again than that, so that reading a long queue stays a small part of the work
	readDue  bool          // something was committed since
	heldAt   time.Time     // when the instance's own attempts were read
	wasAway  bool          // something that it needs was away when it looked last
	heldDue  bool          // something was committed since

	mu      sync.Mutex
	running map[store.AttemptKey]*run
}

// waiting is an attempt that nobody has yet.
type waiting struct {
	*store.Attempt
	candidate admission.Candidate
}

// run is an attempt that this instance has, until the engine has adopted its outcome. The executor's lock guards it, but
// for stop.
type run struct {
	attempt *store.Attempt
	fresh   bool // nobody had it before it was given to us: nothing of it runs before we start it
	asks    admission.Candidate
	job     *Job          // nil: not read yet
	reason  string        // why it is to be stopped; empty: it is not
	stop    chan struct{} // closed with reason
	left    chan struct{} // closed when its goroutine has nothing to wait for any more
	told    *time.Timer   // will report that it runs
	blocked string        // why it cannot be started although it has room: a record cannot be understood; empty: it can
	held    bool          // what it left could not be kept for a while
	over    bool          // its outcome is known: it takes no room any more
	durable durability    // of its outcome
	forgets bool          // the back end is being told to forget it
}

type durability int

const (
	unknown   durability = iota
	adoptable            // it is in the inbox
	refused              // the store wants none: the attempt has ended, or somebody else has it
)

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
		needs:       slices.Sorted(maps.Keys(config.Backend.Services())),
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
		SeenAt: now, Expires: now.Add(e.config.TTL), Nonce: e.config.Nonce, Follows: e.config.Follows,
	})
	if err != nil {
		return fmt.Errorf("register executor %s: %w", e.config.Instance, err)
	}
	return nil
}

// Run finds again what the instance had, then takes and runs attempts until ctx ends. What runs is left running. It
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

// until repeats what the store or the back end could not do, until it is done or ctx ends.
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

// pass looks once at what the instance has and at what may start. It returns when to look again without being woken.
func (e *Executor) pass(ctx context.Context, background *sync.WaitGroup) (again time.Duration, err error) {
	if wait := due(e.heldAt, settle, lookAgain, e.heldDue); wait > 0 {
		again = wait
	} else if again, err = lookAgain, e.hold(ctx, background); err != nil {
		return lookAgain, err
	}
	wait, err := e.admit(ctx, background)
	return min(again, wait), err
}

// due says how long a look can wait: not at all, until pace has passed since the last one, or, if nobody has told of
// anything, until quiet has. It asks the monotonic clock.
func due(last time.Time, pace, quiet time.Duration, woken bool) time.Duration {
	if !woken {
		pace = max(pace, quiet)
	}
	return max(pace-time.Since(last), 0)
}

// findAgain starts every attempt that the instance has: the back end attaches to those that it had started. It returns
// them and what other instances of the same place have, which is not the back end's to end.
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

// hold compares what the instance has in the store with what it runs: it takes what it was given without knowing (an
// assignment whose answer was lost, attempts of an instance that is gone), stops what is to be stopped and what is not its
// own any more, and forgets what the engine has adopted. Not before that: were an outcome forgotten while it is still in
// the inbox, a restart would find an attempt without an end and start it again.
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
				e.letGo(r) // another instance of this place has it now, and what runs with it
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

// letGo leaves a run to the instance that was given its attempt.
func (e *Executor) letGo(r *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.end()
	delete(e.running, r.attempt.AttemptKey)
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

// forget lets the back end forget attempts. What cannot be forgotten now is tried again at a later look.
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

// stop marks a run as to be stopped; its own goroutine does the rest.
func (e *Executor) stop(r *run, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.reason == "" {
		r.reason = reason
		close(r.stop)
	}
}

// admit lets waiting attempts start for which there is room.
func (e *Executor) admit(ctx context.Context, background *sync.WaitGroup) (again time.Duration, err error) {
	capacity, now := e.config.Backend.Capacity(), e.now()
	running := e.candidates()
	again = lookAgain
	full := int64(len(running)) >= capacity.Slots
	pace, woken := max(settle, e.readPace), e.readDue
	switch {
	case full:
		pace = max(pace, lookAgain) // what is new cannot start: this is to say why
	case len(e.waiting) == 0:
		pace, woken = 0, e.readDue || e.more
	}
	quiet := lookAgain
	_, away := e.away()
	if away {
		quiet = lookInOutage
	}
	woken = woken || e.wasAway && !away
	e.wasAway = away
	wait := due(e.readAt, pace, quiet, woken)
	fresh := wait == 0
	if fresh {
		if err := e.read(ctx, now); err != nil {
			return lookAgain, err
		}
	} else {
		again = wait
	}
	if len(e.waiting) == 0 || (full || away) && !fresh {
		return again, nil
	}
	candidates := make([]admission.Candidate, len(e.waiting))
	for i, w := range e.waiting {
		candidates[i] = w.candidate
	}
	choice := e.choose(candidates, running, capacity, now)
	if fresh {
		if err := e.explain(ctx, choice, now); err != nil {
			return again, err
		}
	}
	if len(choice.Start) == 0 {
		return again, nil
	}
	chosen := make([]waiting, len(choice.Start))
	keys := make([]store.AttemptKey, len(choice.Start))
	for i, index := range choice.Start {
		chosen[i], keys[i] = e.waiting[index], e.waiting[index].AttemptKey
		e.waiting[index].Attempt = nil
	}
	e.waiting = slices.DeleteFunc(e.waiting, func(w waiting) bool { return w.Attempt == nil })
	for i, err := range e.config.Store.Assign(ctx, e.config.Instance, e.config.Nonce, keys, now) {
		switch {
		case err == nil:
			e.take(ctx, background, chosen[i].Attempt, true)
		case errors.Is(err, aloft.ErrConflict): // somebody else has it, it has ended or is to be stopped
		default: // it may be ours or not: look at what is true
			e.waiting, e.readDue, e.heldDue, again = nil, true, true, settle
			e.logger.Warn("take attempt", "attempt", chosen[i].ID.String(), "error", err)
		}
	}
	return again, nil
}

// choose lets nothing start while a service is away that it would need.
func (e *Executor) choose(candidates, running []admission.Candidate, capacity admission.Room, now time.Time) admission.Choice {
	s, away := e.away()
	if !away {
		return admission.Choose(candidates, running, capacity, now)
	}
	choice := admission.Choice{Reasons: make(map[int]string, len(candidates))}
	reason := s.Waiting()
	for i := range candidates {
		choice.Reasons[i] = reason
	}
	return choice
}

func (e *Executor) away() (store.Service, bool) {
	if e.config.Health == nil {
		return store.Service{}, false
	}
	return e.config.Health.Away(e.needs...)
}

// read takes the fair first ones out of all that waits.
func (e *Executor) read(ctx context.Context, now time.Time) error {
	e.readDue = false
	began := time.Now()
	attempts, err := e.config.Store.Waiting(ctx, now, horizon)
	if err != nil {
		e.readDue = true
		return fmt.Errorf("read waiting attempts: %w", err)
	}
	all, candidates := make([]waiting, len(attempts)), make([]admission.Candidate, len(attempts))
	for i, a := range attempts {
		candidates[i] = e.candidate(a)
		all[i] = waiting{a, candidates[i]}
	}
	e.more = len(all) > window
	if e.more {
		first := make([]waiting, 0, window)
		for _, i := range admission.First(candidates, window) {
			first = append(first, all[i])
		}
		all = first
	}
	e.waiting, e.readPace = all, 0
	if e.more { // reading takes a twentieth of the time at most
		e.readPace = max(lookAgain, 20*time.Since(began))
	}
	e.readAt = time.Now()
	return nil
}

// explain writes down why attempts wait when they have waited long enough to be asked about, and when the reason changes.
func (e *Executor) explain(ctx context.Context, choice admission.Choice, now time.Time) error {
	byReason := map[string][]store.AttemptKey{}
	for i, reason := range choice.Reasons {
		if a := e.waiting[i]; a.Waiting != reason && now.Sub(a.CreatedAt) >= explainAfter {
			byReason[reason] = append(byReason[reason], a.AttemptKey)
			a.Waiting = reason
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		if err := e.config.Store.SetWaiting(ctx, "", byReason[reason], reason); err != nil {
			return fmt.Errorf("write down what attempts wait for: %w", err)
		}
	}
	return nil
}

// take runs an attempt that the store says is ours.
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

// tend starts an attempt, stops it when it is asked for, and tries again for as long as the back end cannot.
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
			if !started && e.giveBack(ctx, r, &t, err) {
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

// trouble is what keeps an attempt from being started.
type trouble struct {
	since   time.Time // zero: nothing
	charged bool      // this attempt found out that the service is away
}

// giveBack ends an attempt that a service has kept from being started for too long, if it is certain that it was not: its
// node gets another attempt, which waits in the queue with the reason.
func (e *Executor) giveBack(ctx context.Context, r *run, t *trouble, cause error) bool {
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

// excuse makes a failure the system's where a task ended without a word while something was away that it needs. No
// service is blamed for it: the task may be what broke it, and must not be repeated for ever.
func excuse(f *aloftv1.Failure, s store.Service) {
	if !mute(f) {
		return
	}
	during := "what it left could not be read for a while"
	if s.Away() {
		during = s.Waiting()
	}
	f.Recoverable, f.Error.Kind = true, core.ExecutionError_SYSTEM
	f.Error.Message += "\nIt ended without a word of its own in an outage (" + during + "): that is not held against the task."
}

// noRoomTexts are how systems say that a disk, its inodes or a quota is used up, in a traceback or on stderr.
var noRoomTexts = []string{"No space left on device", "Disk quota exceeded"}

// foundNoRoom says whether a task failed because a disk took nothing more. The task may have seen it before anything of ours
// did, and the room may be there again when we look.
func foundNoRoom(f *aloftv1.Failure) bool {
	return f.GetError().GetKind() == core.ExecutionError_USER && f.GetError().GetCode() != CodeOutOfMemory &&
		slices.ContainsFunc(noRoomTexts, func(text string) bool { return strings.Contains(f.GetError().GetMessage(), text) })
}

// excuseNoRoom makes a failure the system's. No service is blamed for it, as in excuse: the disk may be the task's own affair.
func excuseNoRoom(f *aloftv1.Failure) {
	f.Recoverable, f.Error.Kind = true, core.ExecutionError_SYSTEM
	f.Error.Message += "\nA disk had no room for more: that is not held against the task."
}

// mute says whether a task failed without a word of its own.
func mute(f *aloftv1.Failure) bool {
	code := f.GetError().GetCode()
	return f.GetError().GetKind() == core.ExecutionError_USER && (code == CodeExited || code == CodeOutputsNotFound)
}

// attribute says what a failure is charged for: the service that is away, once. One that is well is not blamed.
func attribute(f *aloftv1.Failure, s store.Service, charged bool) {
	f.Service, f.ServiceAwaySince, f.ServiceWellAt = "", 0, 0
	if !s.Away() {
		return
	}
	f.Service = s.Name
	if !charged {
		f.ServiceAwaySince = s.AwaySince.UnixNano()
	}
	if !s.WellAt.IsZero() {
		f.ServiceWellAt = s.WellAt.UnixNano()
	}
}

// step does what is to be done next for an attempt.
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
		if errors.Is(err, aloft.ErrNotFound) { // it never started, and now it never will
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

// endDamaged ends an attempt of whose record it cannot be understood what is to run: its node gets another one, which has a
// record of its own. Whether a process of it runs from before is known to the back end alone.
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

// block notes whether an attempt waits because a record that it needs cannot be understood, its workflow or its execution. It
// says so, and takes no room from others until that is mended.
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

func (e *Executor) askedToStop(r *run) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.reason
}

// handle hears an event of the back end: what it says of services is looked into, the rest goes to the inbox.
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
	if (mute(event.Outcome.GetFailure()) || noRoom) && e.config.Health != nil {
		for _, service := range e.needs { // was it one of them?
			e.config.Health.Failed(ctx, service, "")
		}
	}
	if noRoom {
		excuseNoRoom(event.Outcome.GetFailure())
	}
	e.tell(ctx, event)
}

// tell takes a start or an outcome to the inbox. That an attempt runs is told a moment later: most of those that are over
// by then need no message of their own for it, as their outcome says when they began.
func (e *Executor) tell(ctx context.Context, event Event) {
	e.mu.Lock()
	r := e.running[event.Job.Key]
	if r == nil || r.over {
		e.mu.Unlock()
		return
	}
	if s, away := e.away(); away || r.held {
		excuse(event.Outcome.GetFailure(), s)
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

// tellRoom lets the loop look whether more may start. It never blocks.
func (e *Executor) tellRoom() {
	select {
	case e.roomChanged <- struct{}{}:
	default:
	}
}

func (e *Executor) send(ctx context.Context, r *run, inbox *aloftv1.Inbox, ended bool) {
	select {
	case e.reports <- report{run: r, message: store.Report{Attempt: r.attempt.AttemptKey, Inbox: inbox}, ended: ended}:
	case <-ctx.Done():
	}
}

// reportAll commits reports, all that have come together, and repeats what could not be committed.
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

// reported notes what became of a report, and says whether it is to be repeated.
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

func (e *Executor) settled(r *report, d durability) {
	if !r.ended {
		return
	}
	e.mu.Lock()
	r.run.durable = d
	e.mu.Unlock()
}

// heartbeat says that we are there, until ctx ends or another process has taken our place.
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

func (e *Executor) candidates() []admission.Candidate {
	e.mu.Lock()
	defer e.mu.Unlock()
	running := make([]admission.Candidate, 0, len(e.running))
	for _, r := range e.running {
		if !r.over && r.blocked == "" {
			running = append(running, r.asks)
		}
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

// Running is what the instance has now, for display, sorted.
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
