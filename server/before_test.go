package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

// releaseBefore is a server of the release before: the test binary of this package at the commit that last changed the file
// VERSION. It is built once, below .cache. Where there is no history the test is skipped, but not in CI.
func releaseBefore(t *testing.T) string {
	t.Helper()
	if named := os.Getenv(beforeVariable); named != "" {
		return named
	}
	commit, err := releaseCommit(t.Context())
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("the release before cannot be built: %v", err)
		}
		t.Skipf("the release before cannot be built: %v", err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, ".cache", "release", commit)
	binary := filepath.Join(dir, "server.test")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	unpack := exec.CommandContext(t.Context(), "sh", "-c", `git archive "$0" | tar -x -C "$1"`, commit, source)
	unpack.Dir = root
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack release %s: %v\n%s", commit, err, out)
	}
	made := filepath.Join(dir, fmt.Sprintf("server.test.%d", os.Getpid())) // two tests may build it at once
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-o", made, "./server")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build release %s: %v\n%s", commit, err, out)
	}
	if err := os.Rename(made, binary); err != nil {
		t.Fatal(err)
	}
	return binary
}

// releaseCommit is the commit that last changed the file VERSION.
func releaseCommit(ctx context.Context) (string, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", ".."}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	shallow, err := git("rev-parse", "--is-shallow-repository")
	if err != nil {
		return "", fmt.Errorf("ask git for the history: %w", err)
	}
	if shallow != "false" {
		return "", errors.New("the repository has no whole history: clone it without --depth")
	}
	commit, err := git("log", "-1", "--format=%H", "--", "VERSION")
	if err != nil {
		return "", fmt.Errorf("find the release: %w", err)
	}
	if commit == "" {
		return "", errors.New("no commit changed the file VERSION")
	}
	return commit, nil
}

// Releases may run side by side on one database (P7): each creates executions and finishes those that the other has begun,
// while the servers of both are killed in turn.
func TestThisReleaseAndTheOneBeforeShareADatabase(t *testing.T) {
	t.Parallel()
	postgrestest.Server(t)
	c := startCluster(t, os.Args[0], releaseBefore(t))
	plans := c.register()
	c.load(plans)
	defer func() { c.stop.Store(true); c.clients.Wait() }()
	c.afterEnds(10)
	for n := range 6 {
		m := c.members[n%2]
		c.kill(m)
		c.afterEnds(5) // of the other server alone
		c.start(m)
		for c.shards(m) == 0 { // it takes part again
			c.afterEnds(1)
		}
		c.afterEnds(5)
	}
	c.drain()
	t.Logf("%d executions", len(c.names))
}
