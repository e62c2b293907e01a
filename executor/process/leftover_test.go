package process_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/weight/weighttest"
)

// A task that puts something else in the place of a file neither blocks the server nor becomes a failure of the system. All of
// these tasks run at once, so one that blocked a reader would also delay the others.
func TestWhateverATaskLeavesInPlaceOfItsFilesEndsIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script string
		want   string // kind/code
		says   string
	}{
		"a pipe as outputs":         {`mkfifo $OUT/outputs.pb`, "USER/OutputsUnreadable", "outputs.pb is a named pipe"},
		"a pipe as error":           {`mkfifo $OUT/error.pb`, "USER/ErrorFileBadFormat", "error.pb is a named pipe"},
		"a pipe as stderr":          {`rm $OUT/stderr; mkfifo $OUT/stderr; exit 3`, "USER/Error", "exit code 3"},
		"a pipe as futures":         {`mkfifo $OUT/futures.pb`, "USER/OutputsNotFound", "no outputs"},
		"a pipe as the deck":        {`mkfifo $OUT/deck.html; exit 3`, "USER/Error", "exit code 3"},
		"a pipe as the checkpoint":  {`mkfifo $OUT/_flytecheckpoints; exit 3`, "USER/Error", "exit code 3"},
		"a link as outputs":         {`ln -s /etc/passwd $OUT/outputs.pb`, "USER/OutputsUnreadable", "outputs.pb is a symbolic link"},
		"a link to itself as error": {`ln -s error.pb $OUT/error.pb`, "USER/ErrorFileBadFormat", "error.pb is a symbolic link"},
		"a device as outputs":       {`ln -s /dev/zero $OUT/outputs.pb`, "USER/OutputsUnreadable", "outputs.pb is a symbolic link"},
		"a folder as outputs":       {`mkdir $OUT/outputs.pb`, "USER/OutputsUnreadable", "outputs.pb is a folder"},
		"a monster as error":        {`truncate -s 4T $OUT/error.pb`, "USER/ErrorFileBadFormat", "error.pb has more than"},
		"a monster as stderr":       {`truncate -s 4T $OUT/stderr; exit 3`, "USER/Error", "exit code 3"},
		"a monster as a result":     {`mkdir -p $RAW; truncate -s 4T $RAW/f; cp $GOOD $OUT/outputs.pb`, "USER/OutputsUnreadable", "more than its whole disk"},
		"a pipe as a result":        {`mkdir -p $RAW; mkfifo $RAW/f; cp $GOOD $OUT/outputs.pb`, "USER/OutputsUnreadable", "f is not a file"},
		"the kernel's as a result":  {`mkdir -p $RAW; ln -s /proc/kmsg $RAW/f; cp $GOOD $OUT/outputs.pb`, "USER/OutputsUnreadable", "symbolic link"},
		"a deep folder as a result": {`mkdir -p $RAW; cd $RAW; n=$(printf '%0250d' 0); i=0; while [ $i -lt 20 ]; do mkdir $n; cd $n; i=$((i+1)); done; cp $GOOD $OUT/outputs.pb`,
			"USER/OutputsUnreadable", "cannot be kept"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			good := w.outputs(t, map[string]*core.Literal{"o": integer(1)})
			job := shell("a", "OUT={{.outputPrefix}} RAW={{.rawOutputDataPrefix}} GOOD="+good+"; "+test.script, "o")
			o := w.run(t, w.open(t, noPython{}, w.blob), job)
			e := o.GetFailure().GetError()
			if got := e.GetKind().String() + "/" + e.GetCode(); got != test.want || !strings.Contains(e.GetMessage(), test.says) {
				t.Errorf("got %s %.300q, want %s with %q", got, e.GetMessage(), test.want, test.says)
			}
		})
	}
}

// Outputs are weighed before they are decoded: ten megabytes would become a gigabyte, for each of several tasks at once, and again
// after the restart that follows.
func TestResultsThatWouldFillTheMemoryAreTheTasksFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	heavy := filepath.Join(w.dir, "heavy.pb")
	if err := os.WriteFile(heavy, weighttest.LiteralMap("o", 5_000_000), 0o600); err != nil {
		t.Fatal(err)
	}
	o := w.run(t, w.open(t, noPython{}, w.blob), shell("a", "cp "+heavy+" {{.outputPrefix}}/outputs.pb", "o"))
	if f := o.GetFailure(); f.GetRecoverable() || f.GetError().GetCode() != executor.CodeOutputTooLarge || !strings.Contains(f.GetError().GetMessage(), "256 MiB") {
		t.Errorf("got %v, want a failure that no retry repeats and that says the limit", o)
	}
}

// An output is the attempt's own file or an input: never a folder in which all attempts write, nor a path that no file can have.
func TestOutputsThatNameNoFileOfTheTaskAreItsFailure(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ path, says string }{ // / begins in the store
		"the folder of all attempts": {"/raw", "what other attempts wrote"},
		"a folder of many attempts":  {"/raw/ab", "what other attempts wrote"},
		"a name that no file has":    {"a\x00b", "is not there"},
		"a path that is too long":    {strings.Repeat("/"+strings.Repeat("x", 200), 30)[1:], "is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			uri := filepath.Join(w.dir, test.path)
			if key, ok := strings.CutPrefix(test.path, "/"); ok {
				uri = w.blob.Path(blob.Key(key))
				if err := os.MkdirAll(uri, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			o := w.run(t, w.open(t, noPython{}, w.blob), shell("a", "cp "+w.outputs(t, map[string]*core.Literal{"o": file(uri)})+" {{.outputPrefix}}/outputs.pb", "o"))
			if e := o.GetFailure().GetError(); e.GetCode() != executor.CodeOutputsUnreadable || !strings.Contains(e.GetMessage(), test.says) {
				t.Errorf("got %v, want a failure with %q", o, test.says)
			}
		})
	}
}

// A result that takes for ever to read keeps no execution from being terminated.
func TestAStopEndsTheReadingOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	store := &endlessAdoption{Local: w.blob, begun: make(chan struct{})}
	b := w.open(t, noPython{}, store)
	outcome := make(chan *aloftv1.Outcome, 1)
	w.watch(t, b, func(e executor.Event) {
		if e.Outcome != nil {
			outcome <- e.Outcome
		}
	})
	job := shell("a", "cp "+w.outputs(t, map[string]*core.Literal{"o": integer(1)})+" {{.outputPrefix}}/outputs.pb", "o")
	if failure, err := b.Start(t.Context(), job); err != nil || failure != nil {
		t.Fatal(failure, err)
	}
	<-store.begun
	if err := b.Stop(t.Context(), job, "terminated"); err != nil {
		t.Fatal(err)
	}
	select {
	case o := <-outcome:
		if o.GetStopped() == "" {
			t.Errorf("got %v, want it stopped", o)
		}
	case <-time.After(deadline):
		t.Fatal("it did not end")
	}
}

// endlessAdoption is a store that needs longer for what a task left than the test waits.
type endlessAdoption struct {
	blob.Local
	begun chan struct{}
	once  sync.Once
}

func (s *endlessAdoption) Adopt(ctx context.Context, _ blob.Key) ([]blob.Object, error) {
	s.once.Do(func() { close(s.begun) })
	<-ctx.Done()
	return nil, ctx.Err()
}
