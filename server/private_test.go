package server

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// TestTheDataFolderIsReadableByItsOwnerAlone is attack 18: an existing folder with mode 0755 kept that mode, and the database had
// 0644 in any folder.
func TestTheDataFolderIsReadableByItsOwnerAlone(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	for _, path := range []string{c.DataDir, filepath.Join(c.DataDir, "blob"), filepath.Join(c.DataDir, "attempts")} {
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, ".signing-1"), []byte("a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := func(registered bool) int {
		var log bytes.Buffer
		s, err := Start(t.Context(), c, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ts := &testServer{Server: s, t: t, http: cleartext()}
		ts.admin = ts.adminClient(ts.http)
		if !registered {
			ts.registerChain("private", 2)
		}
		ts.wait(ts.create(execute(id(core.ResourceType_LAUNCH_PLAN, "private"), map[string]*core.Literal{"x": integer(3)})))
		seen := map[string]bool{}
		err = filepath.WalkDir(c.DataDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %04o while the server runs", path, info.Mode().Perm())
			}
			seen[d.Name()] = true
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"aloft.db", "aloft.db-wal", "aloft.db-shm", "signing.key"} {
			if !seen[name] {
				t.Errorf("%s is not there: the test looks at the wrong folder", name)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return strings.Count(log.String(), "other users could read the data folder")
	}
	if n := told(false); n != 1 {
		t.Errorf("that the folder was tightened is said %d times, want once", n)
	}
	if n := told(true); n != 0 {
		t.Errorf("at the second start it is said again")
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, ".signing-1")); err == nil {
		t.Error("what a killed process left of a signing key is still there")
	}
}
