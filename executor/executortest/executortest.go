// Package executortest is what every back end of package executor must do, as a test suite, and a back end in memory for
// tests of what stands above.
//
// It comes with package executor: each back end's own tests call [Run] with the world in which it runs attempts. It relies
// on that world to say how often a job's own code began and whether it still runs; a world that lies fails nothing.
package executortest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// Does is what a job of the suite does.
type Does int

// What jobs do. Output is the name of the one output that those have which succeed.
const (
	Succeed    Does = iota // ends at once with its output
	Fail                   // ends at once with a failure of the user's
	Wait                   // runs until it is released, then succeeds; ends early when it is stopped
	Impossible             // can never be started
	Output     = "o0"
)

// World is one place with the back ends that come and go there.
type World interface {
	// Open gives another back end on the same place, as a server does when it starts. Where it is an io.Closer, Close is
	// the end of that server; what runs goes on.
	Open(t *testing.T) executor.Backend
	// Job makes a job of that name that was never started. Jobs of equal name are the same attempt.
	Job(t *testing.T, name string, does Does) *executor.Job
	// Release lets a waiting job go on to its end. It may be called before the job is started.
	Release(t *testing.T, job *executor.Job)
	// Starts is how often the job's own code has begun.
	Starts(t *testing.T, job *executor.Job) int
	// Alive says whether anything of the job runs.
	Alive(t *testing.T, job *executor.Job) bool
}

// deadline bounds what waits for a signal that a bug would withhold.
const deadline = 60 * time.Second

// Run runs the suite. Each test gets a world of its own.
func Run(t *testing.T, newWorld func(t *testing.T) World) {
	for name, test := range map[string]func(*testing.T, World){
		"AJobIsToldToRunAndThenHowItEnded":            succeeds,
		"AFailureOfTheTaskIsAnOutcome":                fails,
		"WhatCanNeverRunIsAFailureAndNotAnError":      impossible,
		"StartingTwiceStartsOnce":                     startsOnce,
		"StoppingEndsAJobAndMayBeRepeated":            stops,
		"WhatWasNeverStartedIsNotThereToStop":         stopsNothing,
		"ARunningJobIsFoundAgainAfterARestart":        foundRunning,
		"AJobThatEndedUnwatchedIsFoundAgain":          foundEnded,
		"AJobThatWasFoundAgainCanBeStopped":           foundAndStopped,
		"AnOutcomeComesAgainUntilItIsForgotten":       repeats,
		"JobsThatNobodyExpectsAreEndedWithoutAnEvent": orphans,
		"ForgettingTwiceAndWhatIsUnknownIsHarmless":   forgets,
		"ManyJobsEachGetTheirOwnOutcome":              many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t))
		})
	}
}

// server is one life of a back end: opened, watched, ended.
type server struct {
	t       *testing.T
	backend executor.Backend
	cancel  context.CancelFunc
	done    chan error

	mu     sync.Mutex
	events []executor.Event
	more   chan struct{} // closed and made anew with each event
}

func serve(t *testing.T, w World, expected ...aloft.AttemptID) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{t: t, backend: w.Open(t), cancel: cancel, done: make(chan error, 1), more: make(chan struct{})}
	go func() {
		s.done <- s.backend.Watch(ctx, expected, func(e executor.Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
			close(s.more)
			s.more = make(chan struct{})
		})
	}()
	t.Cleanup(s.end)
	return s
}

// end is the end of the server; what runs goes on. Ending twice is harmless.
func (s *server) end() {
	if s.backend == nil {
		return
	}
	s.cancel()
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("watch: %v", err)
		}
	case <-time.After(deadline):
		s.t.Error("Watch did not return when its context ended")
	}
	if closer, ok := s.backend.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			s.t.Errorf("close: %v", err)
		}
	}
	s.backend = nil
}

func (s *server) start(job *executor.Job) {
	s.t.Helper()
	failure, err := s.backend.Start(s.t.Context(), job)
	if failure != nil || err != nil {
		s.t.Fatalf("start %s: failure %v, error %v", job.ID, failure, err)
	}
}

func (s *server) stop(job *executor.Job) {
	s.t.Helper()
	if err := s.backend.Stop(s.t.Context(), job, "the test asks for it"); err != nil {
		s.t.Fatalf("stop %s: %v", job.ID, err)
	}
}

func (s *server) forget(job *executor.Job) {
	s.t.Helper()
	if err := s.backend.Forget(s.t.Context(), job); err != nil {
		s.t.Fatalf("forget %s: %v", job.ID, err)
	}
}

// await returns the first event of a job for which is holds.
func (s *server) await(job *executor.Job, what string, is func(executor.Event) bool) executor.Event {
	s.t.Helper()
	for timeout := time.After(deadline); ; {
		s.mu.Lock()
		more, seen := s.more, len(s.events)
		for _, e := range s.events {
			if e.Job.Key == job.Key && is(e) {
				s.mu.Unlock()
				return e
			}
		}
		s.mu.Unlock()
		select {
		case <-more:
		case <-timeout:
			s.t.Fatalf("%s: no event that %s among %d events", job.ID, what, seen)
		}
	}
}

func (s *server) started(job *executor.Job) {
	s.t.Helper()
	e := s.await(job, "it runs", func(e executor.Event) bool { return e.Started != nil })
	if got := e.Started; got.Node != string(job.Key.Node) || got.Attempt != job.Key.Attempt || got.Token != job.Key.Token || got.StartedAt == 0 {
		s.t.Errorf("%s: started %v: want its node, attempt and token, and a time", job.ID, got)
	}
}

func (s *server) outcome(job *executor.Job) *aloftv1.Outcome {
	s.t.Helper()
	e := s.await(job, "it ended", func(e executor.Event) bool { return e.Outcome != nil })
	if got := e.Outcome; got.Node != string(job.Key.Node) || got.Attempt != job.Key.Attempt || got.Token != job.Key.Token || got.EndedAt == 0 {
		s.t.Errorf("%s: outcome %v: want its node, attempt and token, and a time", job.ID, got)
	}
	return e.Outcome
}

func (s *server) succeeded(job *executor.Job) *aloftv1.Outcome {
	s.t.Helper()
	outcome := s.outcome(job)
	if _, ok := outcome.GetOutputs().GetValue().GetLiterals()[Output]; !ok {
		s.t.Fatalf("%s: outcome %v, want outputs with %s", job.ID, outcome, Output)
	}
	return outcome
}

func onlyStarts(t *testing.T, w World, job *executor.Job, want int) {
	t.Helper()
	if got := w.Starts(t, job); got != want {
		t.Errorf("%s: its code began %d times, want %d", job.ID, got, want)
	}
}

// gone waits until nothing of a job runs.
func gone(t *testing.T, w World, job *executor.Job) {
	t.Helper()
	for end := time.Now().Add(deadline); w.Alive(t, job); {
		if time.Now().After(end) {
			t.Fatalf("%s still runs", job.ID)
		}
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // a process tells nobody but its parent that it is gone
	}
}

func succeeds(t *testing.T, w World) {
	s, job := serve(t, w), w.Job(t, "a", Wait)
	s.start(job)
	s.started(job)
	w.Release(t, job)
	outcome := s.succeeded(job)
	if outcome.StartedAt == 0 || outcome.EndedAt < outcome.StartedAt {
		t.Errorf("ran from %d to %d", outcome.StartedAt, outcome.EndedAt)
	}
	onlyStarts(t, w, job, 1)
}

func fails(t *testing.T, w World) {
	s, job := serve(t, w), w.Job(t, "a", Fail)
	s.start(job)
	outcome := s.outcome(job)
	if failure := outcome.GetFailure().GetError(); failure.GetMessage() == "" || failure.GetCode() == "" {
		t.Errorf("outcome %v, want a failure with code and message", outcome)
	}
}

func impossible(t *testing.T, w World) {
	s, job := serve(t, w), w.Job(t, "a", Impossible)
	for range 2 {
		failure, err := s.backend.Start(t.Context(), job)
		if err != nil || failure.GetError().GetMessage() == "" || failure.GetError().GetCode() == "" {
			t.Fatalf("start: failure %v, error %v; want a failure with code and message", failure, err)
		}
		if failure.GetRecoverable() {
			t.Error("another attempt cannot succeed either")
		}
	}
	onlyStarts(t, w, job, 0)
}

func startsOnce(t *testing.T, w World) {
	s, job := serve(t, w), w.Job(t, "a", Wait)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { s.start(job) })
	}
	all.Wait()
	s.started(job)
	s.start(job)
	w.Release(t, job)
	s.succeeded(job)
	s.start(job) // it has ended and was not forgotten
	onlyStarts(t, w, job, 1)
}

func stops(t *testing.T, w World) {
	s, job := serve(t, w), w.Job(t, "a", Wait)
	s.start(job)
	s.started(job)
	s.stop(job)
	s.stop(job)
	if outcome := s.outcome(job); outcome.GetStopped() == "" {
		t.Errorf("outcome %v, want stopped with a reason", outcome)
	}
	gone(t, w, job)
	s.stop(job) // it has ended and was not forgotten
}

func stopsNothing(t *testing.T, w World) {
	s, job := serve(t, w), w.Job(t, "a", Wait)
	if err := s.backend.Stop(t.Context(), job, "the test asks for it"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("stop what was never started: %v, want ErrNotFound", err)
	}
}

func foundRunning(t *testing.T, w World) {
	first, job := serve(t, w), w.Job(t, "a", Wait)
	first.start(job)
	first.started(job)
	first.end()
	second := serve(t, w, job.ID)
	second.start(job)
	second.started(job)
	w.Release(t, job)
	second.succeeded(job)
	onlyStarts(t, w, job, 1)
}

func foundEnded(t *testing.T, w World) {
	first, job := serve(t, w), w.Job(t, "a", Wait)
	first.start(job)
	first.started(job)
	first.end()
	w.Release(t, job)
	gone(t, w, job)
	second := serve(t, w, job.ID)
	second.start(job)
	second.succeeded(job)
	onlyStarts(t, w, job, 1)
}

func foundAndStopped(t *testing.T, w World) {
	first, job := serve(t, w), w.Job(t, "a", Wait)
	first.start(job)
	first.started(job)
	first.end()
	second := serve(t, w, job.ID)
	second.stop(job) // before it is attached to
	second.start(job)
	if outcome := second.outcome(job); outcome.GetStopped() == "" {
		t.Errorf("outcome %v, want stopped with a reason", outcome)
	}
	gone(t, w, job)
	// Its process had begun. Its code may not have: it was stopped at once.
	if n := w.Starts(t, job); n > 1 {
		t.Errorf("%s: its code began %d times, want once at most", job.ID, n)
	}
}

func repeats(t *testing.T, w World) {
	first, job := serve(t, w), w.Job(t, "a", Succeed)
	first.start(job)
	before := first.succeeded(job)
	first.end()
	second := serve(t, w, job.ID)
	second.start(job)
	after := second.succeeded(job)
	if !proto.Equal(before.GetOutputs(), after.GetOutputs()) {
		t.Errorf("outputs %v, before the restart %v", after.GetOutputs(), before.GetOutputs())
	}
	if strings.Join(digests(before), " ") != strings.Join(digests(after), " ") {
		t.Errorf("objects %v, before the restart %v", digests(after), digests(before))
	}
	onlyStarts(t, w, job, 1)
	second.forget(job)
	if err := second.backend.Stop(t.Context(), job, "the test asks for it"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("stop what is forgotten: %v, want ErrNotFound", err)
	}
}

func digests(o *aloftv1.Outcome) (all []string) {
	for _, object := range o.Objects {
		all = append(all, object.Digest)
	}
	return all
}

func orphans(t *testing.T, w World) {
	first, kept, given, ended := serve(t, w), w.Job(t, "a", Wait), w.Job(t, "b", Wait), w.Job(t, "c", Succeed)
	for _, job := range []*executor.Job{kept, given, ended} {
		first.start(job)
	}
	first.started(kept)
	first.started(given)
	first.outcome(ended)
	first.end()
	second := serve(t, w, kept.ID)
	second.start(kept)
	gone(t, w, given)
	w.Release(t, kept)
	second.succeeded(kept)
	second.mu.Lock()
	defer second.mu.Unlock()
	for _, e := range second.events {
		if e.Job.Key != kept.Key {
			t.Errorf("an event of %s, which nobody started since the restart: %+v", e.Job.ID, e)
		}
	}
}

func forgets(t *testing.T, w World) {
	s, job := serve(t, w), w.Job(t, "a", Succeed)
	s.start(job)
	s.succeeded(job)
	s.forget(job)
	s.forget(job)
	s.forget(w.Job(t, "never", Succeed))
}

func many(t *testing.T, w World) {
	s := serve(t, w)
	var jobs []*executor.Job
	for i := range 24 {
		jobs = append(jobs, w.Job(t, "a"+string(rune('a'+i)), []Does{Succeed, Fail}[i%2]))
	}
	var all sync.WaitGroup
	for _, job := range jobs {
		all.Go(func() { s.start(job) })
	}
	all.Wait()
	for i, job := range jobs {
		if outcome := s.outcome(job); (outcome.GetFailure() != nil) != (i%2 == 1) {
			t.Errorf("%s: outcome %v", job.ID, outcome)
		}
		s.forget(job)
		onlyStarts(t, w, job, 1)
	}
}
