package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/executor/executortest"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// takeAway moves the folder of the blobs away and puts a file in its place; giveBack undoes that.
func (w *world) takeAway(t *testing.T) (giveBack func()) {
	t.Helper()
	root := w.blob.Path("")
	if err := errors.Join(os.Rename(root, root+".away"), os.WriteFile(root, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Remove(root), os.Rename(root+".away", root)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEachServiceIsProbedByWhatItDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.open(t, noPython{}, w.blob)
	defer b.Close()
	probes := b.Services()
	for name, probe := range probes {
		if err := probe(t.Context()); err != nil {
			t.Errorf("%s is well and its probe says %v", name, err)
		}
	}
	giveBack := w.takeAway(t)
	if err := probes[aloft.ServiceBlob](t.Context()); err == nil {
		t.Error("there are no blobs and their probe works")
	}
	if err := probes[aloft.MachineOf(w.data)](t.Context()); err != nil {
		t.Errorf("there are no blobs and the machine says %v", err)
	}
	giveBack()
	if err := probes[aloft.ServiceBlob](t.Context()); err != nil {
		t.Errorf("they are back and their probe says %v", err)
	}
	for o, err := range w.blob.List(t.Context(), "health") {
		t.Errorf("a probe left %v, %v", o, err)
	}
	attempts := filepath.Join(w.data, "attempts")
	if err := errors.Join(os.RemoveAll(attempts), os.WriteFile(attempts, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := probes[aloft.MachineOf(w.data)](t.Context()); err == nil {
		t.Error("there is no folder for attempts and the machine says that it is well")
	}
}

func TestTheServiceThatKeepsAnAttemptFromStartingIsBlamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.open(t, noPython{}, w.blob)
	job := w.Job(t, "a", executortest.Succeed)
	blamed := func(want string) {
		t.Helper()
		failure, err := b.Start(t.Context(), job)
		if service, _ := aloft.ServiceOf(err); failure != nil || service != want || !errors.Is(err, executor.ErrNotStarted) || !errors.Is(err, aloft.ErrUnavailable) {
			t.Errorf("start: %v, %v, want an error that blames %s and says that nothing was started", failure, err, want)
		}
	}
	giveBack := w.takeAway(t)
	blamed(aloft.ServiceBlob)
	giveBack()
	attempts := filepath.Join(w.data, "attempts")
	if err := errors.Join(os.RemoveAll(attempts), os.WriteFile(attempts, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	blamed(aloft.MachineOf(w.data))
	if err := os.Remove(attempts); err != nil {
		t.Fatal(err)
	}
	if o := w.run(t, b, job); o.GetOutputs() == nil || w.Starts(t, job) != 1 {
		t.Errorf("outcome %v after %d starts", o, w.Starts(t, job))
	}
}

// The supervisor cannot write the logs of an attempt: that is not the task's fault, and it never ran.
func TestAProcessThatCannotBeStartedIsTheMachinesFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := w.Job(t, "a", executortest.Succeed)
	if err := os.MkdirAll(filepath.Join(w.blob.Path(blob.Key(job.ID.RunKey())), "stdout"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := w.run(t, w.open(t, noPython{}, w.blob), job)
	f := o.GetFailure()
	if f.GetError().GetKind() != core.ExecutionError_SYSTEM || !f.GetRecoverable() || f.GetService() != aloft.MachineOf(w.data) || o.GetStartedAt() != 0 {
		t.Errorf("outcome %v", o)
	}
	if !strings.Contains(f.GetError().GetMessage(), "capture logs") || w.Starts(t, job) != 0 {
		t.Errorf("after %d starts it says %q", w.Starts(t, job), f.GetError().GetMessage())
	}
}

// A program that is not there stays the task's own mistake.
func TestAProgramThatIsNotThereIsTheTasksFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := shell("a", "")
	job.Template.GetContainer().Command = []string{"/no/such/program"}
	f := w.run(t, w.open(t, noPython{}, w.blob), job).GetFailure()
	if f.GetError().GetKind() != core.ExecutionError_USER || f.GetService() != "" {
		t.Errorf("failure %v", f)
	}
}

// broken is a store that keeps nothing while it is set to.
type broken struct {
	blob.Local
	is atomic.Bool
}

func (b *broken) Adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	if b.is.Load() {
		return nil, fmt.Errorf("keep %s: %w: %w", prefix, aloft.ErrUnavailable, syscall.ENOSPC)
	}
	return b.Local.Adopt(ctx, prefix)
}

// The code has run and its outputs cannot be kept: keeping them is tried again, the code is not.
func TestOutputsThatCannotBeKeptWaitForTheBlobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	blobs := &broken{Local: w.blob}
	blobs.is.Store(true)
	b := w.open(t, noPython{}, blobs)
	job := w.Job(t, "a", executortest.Succeed)
	held, ended := make(chan error, 1000), make(chan *aloftv1.Outcome, 1)
	w.watch(t, b, func(e executor.Event) {
		switch {
		case e.Held != nil:
			held <- e.Held
		case e.Outcome != nil:
			ended <- e.Outcome
		}
	})
	if failure, err := b.Start(t.Context(), job); failure != nil || err != nil {
		t.Fatal(failure, err)
	}
	for range 3 {
		select {
		case err := <-held:
			if service, _ := aloft.ServiceOf(err); service != aloft.ServiceBlob {
				t.Errorf("it is kept back by %v, want the blob store to be blamed", err)
			}
		case o := <-ended:
			t.Fatalf("it ended with %v", o)
		case <-time.After(deadline):
			t.Fatal("nobody says that it is kept back")
		}
	}
	blobs.is.Store(false)
	select {
	case o := <-ended:
		if o.GetOutputs() == nil || w.Starts(t, job) != 1 {
			t.Errorf("outcome %v after %d starts", o, w.Starts(t, job))
		}
	case <-time.After(deadline):
		t.Fatal("it does not end although the blobs are back")
	}
}
