package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

func TestServersOnOneDatabaseGoOnWithEachOthersExecutions(t *testing.T) {
	t.Parallel()
	database := postgrestest.Database(t)
	shared := t.TempDir()
	var servers []*testServer
	for range 2 {
		c := testConfig(t.TempDir())
		c.Database = database
		if err := errors.Join(os.MkdirAll(c.DataDir, 0o700), os.Symlink(shared, filepath.Join(c.DataDir, "blob"))); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, start(t, c))
	}
	first, second := servers[0], servers[1]
	first.registerChain("chain", 3)
	run := func(at, watch *testServer) {
		t.Helper()
		e := at.create(execute(id(core.ResourceType_LAUNCH_PLAN, "chain"), map[string]*core.Literal{"x": integer(40)}))
		if got := watch.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
			t.Fatalf("ended %s, want SUCCEEDED", got)
		}
	}
	for range 3 {
		run(first, second)
		run(second, first)
	}
	first.close()
	run(second, second)
}

func TestADatabaseThatCannotBeReachedIsSaidInOneSentence(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	c.Database = "postgres://me:geheim@127.0.0.1:1/aloft?sslmode=disable"
	_, err := Start(t.Context(), c, Options{})
	if err == nil || !strings.Contains(err.Error(), "the database server cannot be reached: start it, or check host and port") ||
		!strings.Contains(err.Error(), "postgres://me@127.0.0.1:1/aloft") || strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
