package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a PostgreSQL server that belongs to one test, which may kill it. It has a socket and no port, and no password.
type Cluster struct {
	URL string // of its database, encoding UTF8

	t    testing.TB
	dir  string
	bin  string
	user *syscall.Credential // nil: the user of the test. Root may not run PostgreSQL: for root it is the user nobody
}

const nobody = 65534

// Start makes a server and starts it; the server ends with the test. The test is skipped where Server skips it.
func Start(t testing.TB) *Cluster {
	t.Helper()
	Server(t)
	c := &Cluster{t: t, bin: programs(t)}
	var err error
	if c.dir, err = os.MkdirTemp("", "aloft-postgres-"); err != nil { //nolint:usetesting // a socket's path must be short, and the user nobody must be able to open it
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		_ = os.RemoveAll(c.dir)
	})
	if os.Getuid() == 0 {
		c.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(c.dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := c.run("initdb", "-D", c.data(), "-U", "aloft", "-A", "trust", "-N", "--no-instructions", "-E", "UTF8", "--locale=C"); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	c.URL = "postgres:///postgres?host=" + c.dir + "&user=aloft"
	c.Restart()
	return c
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// Restart starts the server that was killed and returns when it answers, after it has replayed its log.
func (c *Cluster) Restart() {
	c.t.Helper()
	var out []byte
	var err error
	for range 20 { // processes of the killed server may take a moment to end
		// Commits survive the processes without syncing, because the machine goes on.
		out, err = c.run("pg_ctl", "-D", c.data(), "-w", "-s", "-l", filepath.Join(c.dir, "log"), "-o",
			"-c listen_addresses='' -k "+c.dir+" -c fsync=off -c full_page_writes=off -c shared_buffers=32MB -c max_connections=100", "start")
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		var conn *pgx.Conn
		if conn, err = pgx.Connect(ctx, c.URL); err == nil {
			err = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return
		}
	}
	c.t.Fatalf("start PostgreSQL: %v\n%s", err, out)
}

// Kill ends the server and all its processes with SIGKILL, in the middle of their work.
func (c *Cluster) Kill() {
	content, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return // it does not run
	}
	first, _, _ := strings.Cut(string(content), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		return
	}
	pids := []int{postmaster}
	// Stopped first, it starts no others meanwhile.
	_ = syscall.Kill(postmaster, syscall.SIGSTOP)
	out, _ := exec.CommandContext(context.Background(), "ps", "-e", "-o", "pid=,ppid=").Output()
	for line := range strings.Lines(string(out)) {
		var pid, parent int
		if _, err := fmt.Sscan(line, &pid, &parent); err == nil && parent == postmaster {
			pids = append(pids, pid)
		}
	}
	for _, pid := range slices.Backward(pids) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (c *Cluster) run(program string, args ...string) ([]byte, error) {
	command := exec.CommandContext(context.Background(), filepath.Join(c.bin, program), args...) // also in a clean-up, when the test's own is over
	command.Dir = c.dir
	command.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	// Into a file: the server that pg_ctl starts would keep a pipe open.
	log, err := os.CreateTemp("", "aloft-postgres-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = errors.Join(log.Close(), os.Remove(log.Name())) }()
	command.Stdout, command.Stderr = log, log
	err = command.Run()
	out, _ := os.ReadFile(log.Name())
	return out, err
}

// programs is the folder of the newest PostgreSQL that is installed.
func programs(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		t.Fatal("there is a PostgreSQL server for tests and no initdb to make another: `make postgres` installs one")
	}
	return filepath.Dir(initdb)
}

func version(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}
