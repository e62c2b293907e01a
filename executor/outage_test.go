package executor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/health"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// disk is a service that is full or not. It refuses attempts, and its probe fails, while it is; with spite it refuses them
// although its probe works.
type disk struct {
	mu          sync.Mutex
	full, spite bool
	unsure      bool // whether something was started when it refused
	refused     int
}

const theDisk = "the disk"

func (d *disk) set(spite bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.spite = false, spite
}

func (d *disk) probe(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errors.New("no space left")
	}
	return nil
}

func (d *disk) fault(op string, job *executor.Job) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if op != "start" || !d.full && !d.spite {
		return nil
	}
	d.refused++
	err := error(&aloft.ServiceError{Service: theDisk, Err: errors.New("no space left")})
	if d.unsure {
		return err
	}
	return errors.Join(err, executor.ErrNotStarted)
}

// withDisk runs an executor whose back end needs a disk.
func (b *bench) withDisk(d *disk) {
	b.place.Fault, b.place.Needs = d.fault, map[string]func(context.Context) error{theDisk: d.probe}
	logger := slog.New(slog.DiscardHandler)
	backend := b.place.Open(b.T)
	probes := map[string]health.Probe{}
	for name, probe := range backend.Services() {
		probes[name] = probe
	}
	monitor := health.New(health.Config{Store: b.store, Logger: logger, Probes: probes})
	e := executor.New(executor.Config{Instance: "one", Store: b.store, Backend: backend, Health: monitor, Logger: logger})
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = monitor.Run(ctx) })
	all.Go(func() {
		if err := e.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() { cancel(); all.Wait() })
}

// failures are those of the attempts that have ended.
func (b *bench) failures() (all []*aloftv1.Failure) {
	b.adopt()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, outcomes := range b.adopted {
		for _, o := range outcomes {
			if f := o.GetFailure(); f != nil {
				all = append(all, f)
			}
		}
	}
	return all
}

// waits are the reasons for which attempts wait, with how many do.
func (b *bench) waits() map[string]int {
	b.Helper()
	attempts, err := b.store.Waiting(b.Context(), time.Now(), 0)
	if err != nil {
		b.Fatal(err)
	}
	reasons := map[string]int{}
	for _, a := range attempts {
		reasons[a.Waiting]++
	}
	return reasons
}

func TestWhatAServiceKeepsFromStartingIsGivenBackAndOneIsCharged(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		d := &disk{full: true}
		b.withDisk(d)
		b.attempts("succeed", "e/a", "e/b", "e/c")
		settle()
		pass(3 * time.Second)
		late := b.attempts("succeed", "later/a", "later/b")
		began := time.Now()
		pass(20 * time.Second)
		charged := 0
		failures := b.failures()
		for _, f := range failures {
			if f.GetService() != theDisk || f.GetError().GetKind() != core.ExecutionError_SYSTEM || !f.GetRecoverable() || !strings.Contains(f.GetError().GetMessage(), "no space left") {
				t.Errorf("given back with %v", f)
			}
			if f.GetServiceAwaySince() == 0 {
				charged++
			} else if f.GetServiceAwaySince() > began.UnixNano() {
				t.Errorf("the outage it fell into begins at %d, after the failure", f.GetServiceAwaySince())
			}
		}
		if len(failures) != 3 || charged != 1 {
			t.Errorf("%d of %d failures are charged, want 1 of 3", charged, len(failures))
		}
		var since time.Time
		services, _ := b.store.Services(b.Context())
		if len(services) == 1 {
			since = services[0].AwaySince
		}
		want := aloft.WaitingFor(theDisk, since.UTC().Format(time.RFC3339), "no space left")
		if got := b.waits(); len(got) != 1 || got[want] != 2 {
			t.Errorf("what came later waits for %v, want %q twice", got, want)
		}
		if d.refused > 40 {
			t.Errorf("three attempts were tried %d times", d.refused)
		}
		d.set(false)
		pass(2 * time.Minute)
		b.adopt()
		for _, id := range late {
			if n := b.place.StartsID(id); n != 1 {
				t.Errorf("%s was started %d times, want once", id, n)
			}
		}
	})
}

// One attempt may have a folder that nobody can use. The others must not suffer, and it must not be tried for ever.
func TestAnAttemptThatAloneCannotBeStartedStopsNobody(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		d := &disk{spite: true}
		b.withDisk(d)
		late := b.attempts("succeed", "e/a")
		pass(2 * time.Second)
		d.set(false)
		good := b.attempts("succeed", "f/a")
		settle()
		pass(time.Second)
		if n := b.place.StartsID(good[0]); n != 1 {
			t.Errorf("another attempt was started %d times, want once", n)
		}
		pass(20 * time.Second) // the longest pause between two tries, so that the folder's next time does not strike it again
		if n := b.place.StartsID(late[0]); n != 1 {
			t.Errorf("the attempt that could not be started for a while was started %d times, want once", n)
		}
		d.set(true)
		bad := b.attempts("succeed", "g/a")
		pass(time.Minute)
		failures := b.failures()
		if len(failures) != 1 || failures[0].GetService() != "" || failures[0].GetError().GetKind() != core.ExecutionError_SYSTEM || !failures[0].GetRecoverable() {
			t.Errorf("%s ended with %v, want one failure of the system that no service is blamed for", bad[0], failures)
		}
		if services, _ := b.store.Services(b.Context()); len(services) != 0 {
			t.Errorf("services: %v", services)
		}
	})
}

// Were it given back, another attempt could run beside it.
func TestWhatMayHaveBeenStartedIsNotGivenBack(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		d := &disk{full: true, unsure: true}
		b.withDisk(d)
		id := b.attempts("succeed", "e/a")[0]
		pass(time.Hour)
		if failures := b.failures(); len(failures) != 0 {
			t.Errorf("failures: %v", failures)
		}
		d.set(false)
		pass(time.Minute)
		b.adopt()
		b.wantOutcome(id, 1, succeeded)
	})
}

func TestAShortOutageIsWaitedForInPlace(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		d := &disk{full: true}
		b.withDisk(d)
		ids := b.attempts("succeed", "e/a", "e/b")
		pass(2 * time.Second)
		d.set(false)
		pass(10 * time.Second)
		if failures := b.failures(); len(failures) != 0 {
			t.Errorf("failures: %v", failures)
		}
		for _, id := range ids {
			if n := b.place.StartsID(id); n != 1 {
				t.Errorf("%s was started %d times, want once", id, n)
			}
		}
	})
}

// held is a back end that tells what its test says.
type held struct {
	executor.Backend
	events chan executor.Event
}

func (h held) Watch(ctx context.Context, expected []aloft.AttemptID, report func(executor.Event)) error {
	go func() {
		for e := range h.events {
			report(e)
		}
	}()
	return h.Backend.Watch(ctx, expected, report)
}

func TestATaskThatDiesWithoutAWordInAnOutageIsExcused(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		h := held{b.place.Open(b.T), make(chan executor.Event)}
		e := executor.New(executor.Config{Instance: "one", Store: b.store, Backend: h, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		ids := b.attempts("wait", "e/mute", "e/speaks", "e/undisturbed")
		settle()
		for _, id := range ids {
			a, err := b.store.GetAttempt(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			job := &executor.Job{Key: a.AttemptKey, ID: a.ID, Spec: a.Spec}
			code := executor.CodeExited
			if id.Node == "speaks" {
				code = "ValueError"
			}
			if id.Node != "undisturbed" {
				h.events <- executor.Event{Job: job, Held: fmt.Errorf("read what it left: %w", aloft.ErrUnavailable)}
			}
			h.events <- executor.Event{Job: job, Outcome: executor.FailedToStart(job, executor.NewFailure(core.ExecutionError_USER, false, code, "exit code 1"), time.Now())}
		}
		settle()
		pass(time.Second)
		b.adopt()
		for _, id := range ids {
			want := core.ExecutionError_USER
			if id.Node == "mute" {
				want = core.ExecutionError_SYSTEM
			}
			outcomes := b.adopted[id]
			if len(outcomes) != 1 || outcomes[0].GetFailure().GetError().GetKind() != want || outcomes[0].GetFailure().GetService() != "" {
				t.Errorf("%s ended with %v, want a failure of kind %s", id.Node, outcomes, want)
			}
		}
		close(h.events)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

var _ store.Health = store.Store(nil)
