package process_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"context"

	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// attempt makes of a job the same one as a later attempt.
func attempt(job *executor.Job, number uint32) *executor.Job {
	job.ID.Attempt, job.Key.Attempt = number, number
	job.Key.Token += strings.Repeat("+", int(number))
	return job
}

// adopting is a store that notes what was made durable.
type adopting struct {
	blob.Local
	mu   sync.Mutex
	keys map[blob.Key]bool
}

func (a *adopting) Adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	objects, err := a.Local.Adopt(ctx, prefix)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objects {
		a.keys[o.Key] = true
	}
	return objects, err
}

func TestAnAttemptGoesOnFromTheLastCheckpointThereIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disk := &adopting{Local: w.blob, keys: map[blob.Key]bool{}}
	b := w.open(t, noPython{}, disk)
	outcomes := make(chan *aloftv1.Outcome, 1)
	w.watch(t, b, func(e executor.Event) {
		if e.Outcome != nil {
			outcomes <- e.Outcome
		}
	})
	save := "mkdir -p {{.checkpointOutputPrefix}}; echo {{.perRetryUniqueKey}} > {{.checkpointOutputPrefix}}/_dst_cp; "
	for i, test := range []struct {
		script string
		from   string // number of the attempt whose checkpoint it finds; empty: none
	}{
		{save + "exit 1", ""},
		{"exit 1", "0"},
		{"mkdir -p {{.checkpointOutputPrefix}}; exit 1", "0"}, // it died before it wrote
		{save + "kill -9 $$", "0"},
		{"exit 0", "3"},
	} {
		// It may do with what it finds as it likes: the copy is its own.
		find := "d={{.prevCheckpointPrefix}}; cat $d/_dst_cp > {{.outputPrefix}}/prev; rm -rf $d; "
		job := attempt(shell("a", find+test.script), uint32(i))
		failure, err := b.Start(t.Context(), job)
		if err != nil || failure != nil {
			t.Fatal(failure, err)
		}
		<-outcomes
		want := ""
		if test.from != "" {
			of := job.ID
			number, err := strconv.Atoi(test.from)
			if err != nil {
				t.Fatal(err)
			}
			of.Attempt = uint32(number)
			want = executor.PerRetryKey(of.UniqueName())
		}
		if got := strings.TrimSpace(read(t, filepath.Join(w.blob.Path(blob.Key(job.ID.RunKey())), "prev"))); got != want {
			t.Errorf("attempt %d goes on from %q, want %q", i, got, want)
		}
	}
	for _, number := range []string{"0", "3"} {
		if key := blob.Key("run/p/d/e/a/" + number + "/_flytecheckpoints/_dst_cp"); !disk.keys[key] {
			t.Errorf("%s was not made durable, though its attempt failed; durable: %v", key, disk.keys)
		}
	}
}

func TestACheckpointIsThatOfItsOwnProject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.open(t, noPython{}, w.blob)
	other := shell("a", "")
	other.ID.Execution.Project = "another"
	dir := w.blob.Path(blob.Key(other.ID.RunKey() + "/_flytecheckpoints"))
	raw := w.blob.Path(blob.Key("raw/" + other.ID.RawOutputKey() + "/_flytecheckpoints"))
	for _, d := range []string{dir, raw} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "_dst_cp"), []byte("theirs"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	job := attempt(shell("a", "echo [{{.prevCheckpointPrefix}}] > {{.outputPrefix}}/prev"), 1)
	w.run(t, b, job)
	if got := strings.TrimSpace(read(t, filepath.Join(w.blob.Path(blob.Key(job.ID.RunKey())), "prev"))); got != "[]" {
		t.Errorf("it goes on from %s, want nothing", got)
	}
}
