package sqlstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
)

func TestADatabaseThatIsOlderThanItselfIsRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	path := filepath.Join(dir, "aloft.db")
	s, err := Open(ctx, Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string) {
		t.Helper()
		e := &store.Execution{ID: aloft.ExecutionID{Project: "p", Domain: "d", Name: name}}
		if err := s.CreateExecution(ctx, e, &aloftv1.Inbox{}); err != nil {
			t.Fatal(err)
		}
	}
	// copyAs is what is on disk when the process is killed now.
	copyAs := func(name string, change func(wal []byte) []byte) string {
		t.Helper()
		to := filepath.Join(dir, name+".db")
		for _, end := range []string{"", "-wal", ".age"} {
			content, err := os.ReadFile(path + end)
			if err == nil && end == "-wal" {
				content = change(content)
			}
			if err == nil && content != nil {
				err = os.WriteFile(to+end, content, 0o600)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		return to
	}
	as := func(wal []byte) []byte { return wal }
	gone := func([]byte) []byte { return nil }
	flipped := func(wal []byte) []byte { wal[32+24+100] ^= 1; return wal } // in the first page

	s.age.close() // the test runs the passes
	create("a")
	_ = s.age.pass(ctx)
	create("b")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.age.pass(ctx))
	opens := func(path string) {
		t.Helper()
		again, err := Open(ctx, Options{Path: path})
		must(err)
		n, err := again.lastExecution(ctx)
		must(errors.Join(err, again.Close()))
		if n != 2 {
			t.Errorf("%s has %d executions, want 2", path, n)
		}
	}
	opens(copyAs("whole", as))
	for name, change := range map[string]func([]byte) []byte{"gone": gone, "flipped": flipped} {
		damaged := copyAs(name, change)
		_, err := Open(ctx, Options{Path: damaged})
		if !errors.Is(err, aloft.ErrPrecondition) || !strings.Contains(err.Error(), "older than it was") || !strings.Contains(err.Error(), "had come to number 2") || !strings.Contains(err.Error(), "rm "+damaged+".age") {
			t.Fatalf("a database whose log is %s: %v", name, err)
		}
		must(os.Remove(damaged + ".age")) // as the message says
		again, err := Open(ctx, Options{Path: damaged})
		must(err)
		must(again.Close())
	}

	// After a pass without a commit since the one before, the log is copied back, and its loss costs nothing. Not again at once.
	must(s.age.pass(ctx))
	opens(copyAs("copied-back", gone))
	create("c")
	must(s.age.pass(ctx))
	must(s.age.pass(ctx))
	if _, err := Open(ctx, Options{Path: copyAs("soon", gone)}); !errors.Is(err, aloft.ErrPrecondition) {
		t.Errorf("the log was copied back twice in a minute: %v", err)
	}
	s.age.nowFunc = func() time.Time { return time.Now().Add(checkpointEvery) }
	must(s.age.pass(ctx))
	again, err := Open(ctx, Options{Path: copyAs("later", gone)})
	must(err)
	must(again.Close())
	must(s.Close())
}
