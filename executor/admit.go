package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/store"
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

// unassigned is an attempt that no executor has yet, with what admission needs to know of it.
type unassigned struct {
	*store.Attempt
	candidate admission.Candidate
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
	case len(e.unassigned) == 0:
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
	if len(e.unassigned) == 0 || (full || away) && !fresh {
		return again, nil
	}
	candidates := make([]admission.Candidate, len(e.unassigned))
	for i, w := range e.unassigned {
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
	chosen := make([]unassigned, len(choice.Start))
	keys := make([]store.AttemptKey, len(choice.Start))
	for i, index := range choice.Start {
		chosen[i], keys[i] = e.unassigned[index], e.unassigned[index].AttemptKey
		e.unassigned[index].Attempt = nil
	}
	e.unassigned = slices.DeleteFunc(e.unassigned, func(w unassigned) bool { return w.Attempt == nil })
	for i, err := range e.config.Store.Assign(ctx, e.config.Instance, e.config.Nonce, keys, now) {
		switch {
		case err == nil:
			e.take(ctx, background, chosen[i].Attempt, true)
		case errors.Is(err, aloft.ErrConflict): // somebody else has it, it has ended or is to be stopped
		default: // it may be ours or not: look at what is true
			e.unassigned, e.readDue, e.heldDue, again = nil, true, true, settle
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
	all, candidates := make([]unassigned, len(attempts)), make([]admission.Candidate, len(attempts))
	for i, a := range attempts {
		candidates[i] = e.candidate(a)
		all[i] = unassigned{a, candidates[i]}
	}
	e.more = len(all) > window
	if e.more {
		first := make([]unassigned, 0, window)
		for _, i := range admission.First(candidates, window) {
			first = append(first, all[i])
		}
		all = first
	}
	e.unassigned, e.readPace = all, 0
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
		if a := e.unassigned[i]; a.Waiting != reason && now.Sub(a.CreatedAt) >= explainAfter {
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
