package server

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/config"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

// configOfCopy is the configuration of a server on a copy of a data folder.
func configOfCopy(t *testing.T, c config.Config) config.Config {
	t.Helper()
	other := testConfig(t.TempDir())
	other.Database = c.Database
	if output, err := exec.CommandContext(t.Context(), "cp", "-a", c.DataDir, other.DataDir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return other
}

// tryStart starts a server with a shorter maxSilence.
func tryStart(t *testing.T, c config.Config) (*Server, error) {
	t.Helper()
	s, err := Start(t.Context(), c, Options{maxSilence: 500 * time.Millisecond})
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

// sendHeartbeats sends heartbeats of a server, whose executor these tests do not run, until stop is called.
func sendHeartbeats(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = s.executor.Register(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it starts, want an error with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error is %q, want %q in it", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines: %q", err)
	}
}

func onPostgres(t *testing.T) config.Config {
	t.Helper()
	c := testConfig(t.TempDir())
	c.Database = postgrestest.Database(t)
	return c
}

func TestACopyOfADataFolderIsRefusedWhileItsServerRuns(t *testing.T) {
	t.Parallel()
	c := onPostgres(t)
	first, err := tryStart(t, c)
	if err != nil {
		t.Fatal(err)
	}
	other := configOfCopy(t, c)
	stop := sendHeartbeats(t, first)
	_, err = tryStart(t, other)
	stop()
	wantError(t, err, "it is a copy of one whose server runs on the same database", "delete "+filepath.Join(other.DataDir, "server.id"), "share the folder blob")
	if err := first.executor.Register(t.Context()); err != nil {
		t.Errorf("the first server is not what it was: %v", err)
	}
}

func TestAServerThatStoodStillWhileItsPlaceWasTakenIsFenced(t *testing.T) {
	t.Parallel()
	c := onPostgres(t)
	first, err := tryStart(t, c)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := identify(c.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	before, err := first.instance(t.Context(), identity)
	if err != nil || before.Nonce == "" {
		t.Fatalf("the instance is %+v (%v)", before, err)
	}
	if _, err := tryStart(t, configOfCopy(t, c)); err != nil { // the first server sends no heartbeats
		t.Fatal(err)
	}
	if err := first.executor.Register(t.Context()); !errors.Is(err, aloft.ErrFenced) {
		t.Errorf("a heartbeat of the first: %v, want ErrFenced", err)
	}
	err = first.store.Assign(t.Context(), identity, before.Nonce, []store.AttemptKey{{Execution: 1, Node: "n0"}}, time.Now())[0]
	if !errors.Is(err, aloft.ErrConflict) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("the first takes an attempt: %v", err)
	}
	// The two processes are different owners of leases: the leases of the first run out, or it gives up those above its share,
	// as soon as the second one asks for leases.
	for deadline := time.After(time.Minute); ; {
		leases, err := first.store.AcquireShards(t.Context(), leaseOwner(identity, before.Nonce), time.Now(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if len(leases) < store.Shards {
			return
		}
		select {
		case <-deadline:
			t.Fatal("the leases of the first are those of the one that took its place")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestAServerGoesOnAtOnceWhereOneOfItsOwnFolderWasKilled(t *testing.T) {
	t.Parallel()
	c := onPostgres(t)
	first, err := Start(t.Context(), c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	identity, _ := identify(c.DataDir)
	before, err := first.instance(t.Context(), identity)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// As if the server had been killed: its leases and its heartbeat are there, and fresh.
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: c.Database})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.AcquireShards(t.Context(), leaseOwner(identity, before.Nonce), time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	moved := c
	moved.DataDir = filepath.Join(filepath.Dir(c.DataDir), "moved") // a folder that is renamed stays the same
	if err := os.Rename(c.DataDir, moved.DataDir); err != nil {
		t.Fatal(err)
	}
	again := start(t, moved)
	again.registerChain("chain", 2)
	e := again.create(execute(id(core.ResourceType_LAUNCH_PLAN, "chain"), map[string]*core.Literal{"x": integer(40)}))
	if got := again.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
		t.Fatalf("ended %s, want SUCCEEDED", got)
	}
}

func TestServersWhoseBlobFoldersAreNotSharedAreRefused(t *testing.T) {
	t.Parallel()
	c := onPostgres(t)
	first, err := tryStart(t, c)
	if err != nil {
		t.Fatal(err)
	}
	apart := testConfig(t.TempDir())
	apart.Database = c.Database
	_, err = tryStart(t, apart)
	wantError(t, err, "open blob folder "+filepath.Join(apart.DataDir, "blob"), "it is empty", "servers that share a database share it")

	// A copy has the same id and is wrong, too. That can be told only while the other server runs.
	other := configOfCopy(t, c)
	if err := os.Remove(filepath.Join(other.DataDir, "server.id")); err != nil {
		t.Fatal(err)
	}
	stop := sendHeartbeats(t, first)
	// The first server's sign in the copy is that of an earlier process.
	sign := filepath.Join(other.DataDir, "blob", "servers", "x")
	identity, _ := identify(c.DataDir)
	sign = strings.TrimSuffix(sign, "x") + identity
	if err := errors.Join(os.Remove(sign), os.WriteFile(sign, []byte("before"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = tryStart(t, other)
	stop()
	wantError(t, err, "it is not the one of server "+identity, "share the folder blob")

	// A shared blob store is right.
	if err := errors.Join(os.RemoveAll(filepath.Join(other.DataDir, "blob")),
		os.Symlink(filepath.Join(c.DataDir, "blob"), filepath.Join(other.DataDir, "blob"))); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, other); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseAndABlobFolderThatDoNotBelongTogetherAreRefused(t *testing.T) {
	t.Parallel()
	fresh := func() config.Config {
		t.Helper()
		c := testConfig(t.TempDir())
		s, err := Start(t.Context(), c, Options{})
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := fresh(), fresh()
	at := func(c config.Config, name string) string { return filepath.Join(c.DataDir, name) }
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(c config.Config, parts ...string) (wayOut string) {
		t.Helper()
		_, err := Start(t.Context(), c, Options{})
		wantError(t, err, parts...)
		return err.Error()[strings.LastIndex(err.Error(), ": ")+2:]
	}
	sh := func(command string) {
		t.Helper()
		if output, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, output)
		}
	}
	goesOn := func(c config.Config) {
		t.Helper()
		s, err := Start(t.Context(), c, Options{})
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	// The blobs of another installation.
	must(os.Rename(at(a, "blob"), at(a, "own")), os.Rename(at(b, "blob"), at(a, "blob")))
	wayOut := refused(a, "it has the files of another installation", "than the database sqlite "+at(a, "aloft.db"))
	must(os.Rename(at(a, "blob"), at(b, "blob")), os.Rename(at(a, "own"), at(a, "blob")))
	goesOn(a)
	goesOn(b)
	must(os.RemoveAll(at(a, "blob")), os.Rename(at(b, "blob"), at(a, "blob")))
	sh(wayOut)
	goesOn(a)

	// The blobs were deleted.
	must(os.RemoveAll(at(a, "blob")))
	sh(refused(a, "open blob folder "+at(a, "blob"), "it is empty", "if it was deleted on purpose"))
	goesOn(a)

	// The database was deleted, or another one is named.
	for _, file := range []string{"aloft.db", "aloft.db-wal", "aloft.db-shm"} {
		_ = os.Remove(at(a, file))
	}
	sh(refused(a, "open the database sqlite "+at(a, "aloft.db"), "it is new", "to use the files with the new database"))
	goesOn(a)

	// Neither has an id: an installation of release 0.1.0. Or a start was interrupted after the first of the two had its id.
	ctx := t.Context()
	s, err := sqlstore.Open(ctx, sqlstore.Options{Path: at(b, "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	known, sealed, err := s.BlobStore(ctx)
	if err != nil || known == "" || !sealed {
		t.Fatalf("the blob store is %q, sealed %t (%v)", known, sealed, err)
	}
	must(s.Close())
	older := testConfig(t.TempDir())
	must(os.MkdirAll(at(older, "blob"), 0o700), os.WriteFile(at(older, "blob/object"), []byte("old"), 0o600))
	s, err = sqlstore.Open(ctx, sqlstore.Options{Path: at(older, "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	holds, err := s.SetBlobStore(ctx, "interrupted", false)
	if err != nil || holds != "interrupted" {
		t.Fatalf("the database has %q (%v)", holds, err)
	}
	must(s.Close())
	goesOn(older)
	if id, err := os.ReadFile(at(older, "blob/installation.id")); err != nil || strings.TrimSpace(string(id)) != "interrupted" {
		t.Errorf("the blob store has the id %q (%v)", id, err)
	}
	goesOn(older)
}
