//go:build linux

package process_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/executor/process"
	"github.com/aloft-dev/aloft/worker"
)

// Neither a folder that takes long to remove nor a file that cannot be removed keeps an attempt from being forgotten.
func TestWhatCannotBeRemovedAtOnceIsRemovedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var warnings atomic.Int64
	b := &backend{}
	b.Backend = process.New(process.Config{
		DataDir: w.data, Blob: w.blob, Environments: noPython{}, Code: process.Bundles{Cache: w.code},
		Connect: func(ctx context.Context) (client *worker.Client, err error) {
			b.client, err = w.connect(ctx)
			return b.client, err
		},
		Logger: slog.New(slog.NewTextHandler(counter{&warnings}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	immutable := exec.CommandContext(t.Context(), "sh", "-c", "touch $0 && chattr +i $0 && chattr -i $0", w.file("probe")).Run() == nil
	script := "for dir in $TMPDIR $PWD; do mkdir $dir/many; cd $dir/many; seq 3000 | xargs touch; done"
	if immutable {
		script += "; cd ..; mkdir kept; touch kept/file; chattr +i kept/file"
	}
	job := shell("a", script)
	if o := w.run(t, b, job); o.GetFailure() != nil {
		t.Fatal(o)
	}
	attempts := filepath.Join(w.data, "attempts")
	t.Cleanup(func() { _ = exec.CommandContext(context.Background(), "chattr", "-R", "-i", attempts).Run() })
	if err := b.Forget(t.Context(), job); err != nil {
		t.Errorf("forget: %v", err)
	}
	want := 0
	if immutable {
		want = 1
	}
	folders := func() []string {
		found, err := filepath.Glob(filepath.Join(attempts, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	left := func() (files int) {
		_ = filepath.WalkDir(attempts, func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files++
			}
			return nil
		})
		return files
	}
	// The error is known at the end of a try only, when all else is gone already.
	for end := time.Now().Add(deadline); left() > want || len(folders()) > want || len(b.Remains(t.Context())) < want; {
		if time.Now().After(end) {
			t.Fatalf("%d files are left: %v; it says %q", left(), folders(), b.Remains(t.Context()))
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // nothing tells when a folder is gone
	}
	remains := b.Remains(t.Context())
	if len(remains) != want || want > 0 && !strings.Contains(remains[0], "cannot be removed: ") {
		t.Errorf("%d folders remain, it says %q", want, remains)
	}
	if left() != want || warnings.Load() > int64(want) {
		t.Errorf("got %d files and %d warnings, want %d of both", left(), warnings.Load(), want)
	}
}

// counter counts the lines of a log.
type counter struct{ lines *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.lines.Add(1)
	return len(p), nil
}
