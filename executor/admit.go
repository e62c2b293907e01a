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

// How much of the queue is looked at, and how often. What the last read found is enough for most starts: reading the queue for
// each attempt that ends would cost more than the attempts.
const (
	window       = 1000                  // attempts among which admission chooses (admission.First of those within the horizon)
	horizon      = 20_000                // attempts that are read to find the window, in order of arrival
	settle       = 50 * time.Millisecond // the least time between two reads of a queue that is not empty, and from a start to its report
	lookAgain    = time.Second           // between two looks without a wake: wakes of other processes come late, and times become due
	lookInOutage = 30 * time.Second      // the same while a service that the back end needs is away
	explainAfter = time.Second           // an attempt that waits longer has its reason written down
)

// unassigned is an attempt that no executor has yet, with the view that admission has of it. Attempt is nil once it was chosen.
type unassigned struct {
	*store.Attempt
	candidate admission.Candidate
}

// admit takes attempts from the queue for which there is room, and starts them.
func (e *Executor) admit(ctx context.Context, background *sync.WaitGroup) (again time.Duration, err error) {
	capacity, now := e.config.Backend.Capacity(), e.now()
	running := e.candidates()
	again = lookAgain
	full := int64(len(running)) >= capacity.Slots
	pace, woken := max(settle, e.readPace), e.readDue
	switch {
	case full:
		pace = max(pace, lookAgain) // no new attempt can start: the queue is read only to write down why
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
		case errors.Is(err, aloft.ErrConflict): // another instance has the attempt, or it has ended or is to be stopped
		default: // the attempt may be ours or not: read the queue and our attempts again
			e.unassigned, e.readDue, e.heldDue, again = nil, true, true, settle
			e.logger.Warn("take attempt", "attempt", chosen[i].ID.String(), "error", err)
		}
	}
	return again, nil
}

// choose is admission.Choose, but lets nothing start while a service that the back end needs is away.
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

// away is a service that the back end needs and that is away, if there is one.
func (e *Executor) away() (store.Service, bool) {
	if e.config.Health == nil {
		return store.Service{}, false
	}
	return e.config.Health.Away(e.needs...)
}

// read reads the queue, and keeps of a long one the window from which admission chooses fairly.
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
	if e.more { // no more than a twentieth of the time goes into reading
		e.readPace = max(lookAgain, 20*time.Since(began))
	}
	e.readAt = time.Now()
	return nil
}

// explain writes the waiting reasons of attempts that have waited for explainAfter, and those that have changed since.
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

// candidates are the attempts that take room of the instance now.
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
