package folder

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
)

// hangingDisk is a disk that does not answer one kind of call before thaw is closed.
type hangingDisk struct {
	osDisk
	thaw       chan struct{}
	open, sync bool
}

func (d hangingDisk) Open(root, key string) (*os.File, error) {
	if d.open {
		<-d.thaw
	}
	return d.osDisk.Open(root, key)
}

func (d hangingDisk) SyncDir(path string) error {
	if d.sync {
		<-d.thaw
	}
	return d.osDisk.SyncDir(path)
}

func TestCallsReturnWhileTheDiskHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(filepath.Join(dir, "blob"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), "a/b", strings.NewReader("x"), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		d := hangingDisk{thaw: make(chan struct{}), open: true, sync: true}
		s.disk = d
		for what, call := range map[string]func() error{
			"stat": func() error { _, err := s.Stat(context.Background(), "a/b"); return err },
			"get":  func() error { _, err := s.Get(context.Background(), "a/b", blob.Range{}); return err },
			"put": func() error {
				_, err := s.Put(context.Background(), "c/d", strings.NewReader("x"), blob.PutOptions{})
				return err
			},
			"delete":  func() error { return s.Delete(context.Background(), "c/e") },
			"private": func() error { return s.Private(context.Background(), "a/b", filepath.Join(dir, "copy")) },
			"adopt":   func() error { _, err := s.Adopt(context.Background(), "a"); return err },
		} {
			if err := call(); what != "delete" && (!errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(err.Error(), "has not answered for")) {
				t.Errorf("%s: %v", what, err)
			}
		}
		// Only some calls wait in the kernel; the others fail at once.
		before := runtime.NumGoroutine()
		for range 100 {
			if _, err := s.Stat(context.Background(), "a/b"); !errors.Is(err, aloft.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if more := runtime.NumGoroutine() - before; more > 50 {
			t.Errorf("100 calls left %d goroutines", more)
		}
		close(d.thaw)
		synctest.Wait()
		if err := s.guard.Err(); err != nil {
			t.Errorf("the disk answers again and it is said: %v", err)
		}
		if _, err := s.Put(t.Context(), "e/f", strings.NewReader("x"), blob.PutOptions{}); err != nil {
			t.Errorf("the disk answers again: %v", err)
		}
	})
}

// slowReader is a reader that takes an hour for each read.
type slowReader struct{ io.Reader }

func (s slowReader) Read(p []byte) (int, error) {
	time.Sleep(time.Hour) //nolint:forbidigo // by synctest's clock
	return s.Reader.Read(p)
}

func TestAClientThatSendsSlowlyIsNoDiskThatHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(filepath.Join(dir, "blob"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), "a/b", slowReader{strings.NewReader("x")}, blob.PutOptions{}); err != nil {
			t.Error(err)
		}
	})
}
