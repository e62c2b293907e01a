//go:build linux

package worker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The supervisor waits for every child of its process, so tests run it as users do: as a process of its own, which is this test
// binary, started again with supervisorArg.
const supervisorArg = "run-supervisor"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], supervisorArg) {
		config := Config{Build: "test", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
		for _, arg := range os.Args[1:] {
			name, value, _ := strings.Cut(arg, "=")
			switch name {
			case "grace":
				config.Grace, _ = time.ParseDuration(value)
			case "killtime":
				config.KillTime, _ = time.ParseDuration(value)
			case "groups":
				config.ControlGroups = value
			case "build":
				config.Build = value
			}
		}
		config.DataDir = os.Args[len(os.Args)-1]
		if err := Main(context.Background(), config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var discard = slog.New(slog.DiscardHandler)

// deadline is how long tests wait for an event that a bug may keep from coming.
const deadline = 4 * time.Minute

// bench is one data folder with its supervisor and a client.
type bench struct {
	testing.TB
	dir    string
	client *Client
	config Config
	seen   map[string]chan Event // by attempt and kind
	lock   chan struct{}
	number atomic.Int64
}

func newBench(t testing.TB, args ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{TB: t, dir: dir, seen: map[string]chan Event{}, lock: make(chan struct{}, 1)}
	b.config = Config{
		DataDir: filepath.Join(dir, "data"), Build: "test",
		Executable: append([]string{os.Args[0], supervisorArg}, append([]string{"grace=30s"}, args...)...),
	}
	b.connect()
	t.Cleanup(func() {
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(b.config.DataDir, "worker", "log")); err == nil {
				t.Logf("supervisor's log:\n%s", log)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := b.client.Shutdown(ctx, 100*time.Millisecond); err != nil {
			t.Errorf("shut down: %v", err)
		}
		_ = b.client.Close()
	})
	return b
}

func (b *bench) connect() {
	b.Helper()
	client, err := Connect(b.ctx(), b.config)
	if err != nil {
		b.Fatalf("connect: %v", err)
	}
	b.client = client
	go func() {
		for e := range client.Events() {
			select {
			case b.of(e.AttemptID, e.Kind) <- e:
			default: // the same event came again, and no test waits for it
			}
		}
	}()
}

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) of(attemptID string, kind EventKind) chan Event {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	key := attemptID + " " + string(kind)
	if b.seen[key] == nil {
		b.seen[key] = make(chan Event, 16)
	}
	return b.seen[key]
}

// await returns the next event of this kind.
func (b *bench) await(attemptID string, kind EventKind) Event {
	b.Helper()
	select {
	case e := <-b.of(attemptID, kind):
		return e
	case <-time.After(deadline):
		b.Fatalf("%s: no event %q", attemptID, kind)
		return Event{}
	}
}

// eventually waits until something is true of which no event tells.
func (b *bench) eventually(what string, holds func() bool) {
	b.Helper()
	for end := time.Now().Add(deadline); !holds(); {
		if time.Now().After(end) {
			b.Fatalf("never came true: %s", what)
		}
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // changes of files and processes send no signal
	}
}

// spec is an attempt with folders of its own.
func (b *bench) spec(argv ...string) Spec {
	b.Helper()
	id := fmt.Sprintf("%s-%d", strings.NewReplacer("/", "-", "#", "-").Replace(b.Name()), b.number.Add(1))
	dir := filepath.Join(b.dir, "attempts", id)
	for _, sub := range []string{"work", "out"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	return Spec{
		AttemptID: id, Token: "token-" + id, Argv: argv, Env: map[string]string{"PATH": defaultPath},
		WorkDir: filepath.Join(dir, "work"), TempDir: filepath.Join(dir, "temp"), OutputDir: filepath.Join(dir, "out"),
		Stdout: filepath.Join(dir, "stdout"), Stderr: filepath.Join(dir, "stderr"), Grace: 5 * time.Second,
	}
}

func (b *bench) shell(script string) Spec { b.Helper(); return b.spec("/bin/sh", "-c", script) }

func (b *bench) start(s Spec) Status {
	b.Helper()
	status, err := b.client.Start(b.ctx(), s)
	if err != nil {
		b.Fatalf("start %s: %v", s.AttemptID, err)
	}
	return status
}

func (b *bench) run(s Spec) ExitRecord {
	b.Helper()
	b.start(s)
	return *b.await(s.AttemptID, EventExited).Exit
}

func (b *bench) read(path string) string {
	b.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return string(content)
}

// claimed are the attempts in the journal on disk that are not forgotten.
func (b *bench) claimed() (ids []string) {
	b.Helper()
	for _, s := range load(b, []byte(b.read(folder{filepath.Join(b.config.DataDir, "worker")}.journal()))) {
		ids = append(ids, s.claim.AttemptID)
	}
	return ids
}

func (b *bench) listed(attemptID string) *Status {
	b.Helper()
	all, err := b.client.List(b.ctx())
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range all {
		if s.AttemptID == attemptID {
			return &s
		}
	}
	return nil
}

func TestCommandRunsWithItsOwnEnvironmentFoldersAndLogs(t *testing.T) {
	t.Setenv("SERVER_SECRET", "hunter2")
	b := newBench(t)
	s := b.shell(`pwd; echo "tmp=$TMPDIR x=$X secret=$SERVER_SECRET"; touch "$TMPDIR/left"; echo err >&2; env | sort | cut -d= -f1 | tr '\n' ' '; exit 7`)
	s.Env["X"] = "a b\nc"
	r := b.run(s)
	if r.Code != 7 || r.Signal != 0 || r.Lost || r.OOM || r.Mode != ModeCold || r.Token != s.Token {
		t.Errorf("record: %+v", r)
	}
	want := fmt.Sprintf("%s\ntmp=%s x=a b\nc secret=\n", s.WorkDir, s.TempDir)
	names := []string{markVariable, "PATH", "PWD", "TMPDIR", "X"}
	slices.Sort(names)
	if got := b.read(s.Stdout); !strings.HasPrefix(got, want) || !strings.Contains(got, strings.Join(names[:2], " ")) || strings.Contains(got, "HOME ") {
		t.Errorf("stdout: got %q, want it to start with %q and name only %v", got, want, names)
	}
	if got := b.read(s.Stderr); got != "err\n" {
		t.Errorf("stderr: got %q", got)
	}
	if _, err := os.Stat(s.TempDir); !os.IsNotExist(err) {
		t.Errorf("temporary folder is still there: %v", err)
	}
	if r.CPUUser+r.CPUSystem <= 0 || r.PeakMemory <= 0 || r.EndedAt.Before(r.StartedAt) {
		t.Errorf("no use of resources in %+v", r)
	}
}

func TestSecondStartAttachesToTheFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.shell(`echo run >> ../count; read x < ../fifo; exit 3`)
	fifo := filepath.Join(filepath.Dir(s.WorkDir), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if first := b.start(s); first.Attached {
		t.Errorf("first start: got %+v, want it not attached", first)
	}
	pid := b.await(s.AttemptID, EventStarted).PID
	if second := b.start(s); !second.Attached || second.PID != pid || second.State != StateRunning {
		t.Errorf("second start: got %+v, want it attached to process %d", second, pid)
	}
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	b.await(s.AttemptID, EventExited)
	third := b.start(s)
	if !third.Attached || third.State != StateExited || third.Exit == nil || third.Exit.Code != 3 {
		t.Errorf("start after the end: got %+v, want the exit record with code 3", third)
	}
	if got := b.read(filepath.Join(filepath.Dir(s.WorkDir), "count")); got != "run\n" {
		t.Errorf("it ran %d times", strings.Count(got, "run"))
	}
}

func TestConcurrentStartsOfOneAttemptRunOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.shell(`echo run >> ../count`)
	ctx := b.ctx()
	answers := make(chan error, 32)
	for range 32 {
		go func() { _, err := b.client.Start(ctx, s); answers <- err }()
	}
	for range 32 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	b.await(s.AttemptID, EventExited)
	if got := b.read(filepath.Join(filepath.Dir(s.WorkDir), "count")); got != "run\n" {
		t.Errorf("it ran %d times", strings.Count(got, "run"))
	}
}

func TestSpecThatCanNeverRunIsRefusedWithAllReasons(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.client.Start(b.ctx(), Spec{AttemptID: "x", WorkDir: "relative", Mode: "hot", Env: map[string]string{"A=B": ""}})
	for _, want := range []string{"no command line", `work_dir "relative"`, `mode "hot"`, `"A=B"`, "invalid"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	if b.listed("x") != nil {
		t.Error("a refused attempt is listed")
	}
}

func TestCommandThatCannotBeStartedSaysWhy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("no-such-program-here")
	if r := b.run(s); r.Code != 127 || !strings.Contains(r.Reason, "no-such-program-here is not on PATH") || r.Lost {
		t.Errorf("unknown command: got %+v", r)
	}
	s = b.shell("true")
	s.WorkDir += "-missing"
	if r := b.run(s); r.Code == 0 || !strings.Contains(r.Reason, "working folder") {
		t.Errorf("missing working folder: got %+v", r)
	}
}

func TestStopIsGentleThenKillsEverythingTheAttemptStarted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	gentle := b.shell(`trap 'echo bye; exit 5' TERM; echo ready > ../ready; while :; do sleep 0.01; done`)
	b.start(gentle)
	b.eventually("trap is set", func() bool { return exists(filepath.Join(filepath.Dir(gentle.WorkDir), "ready")) })
	if err := b.client.Stop(b.ctx(), gentle.AttemptID, 0); err != nil {
		t.Fatal(err)
	}
	if r := b.await(gentle.AttemptID, EventExited).Exit; r.Code != 5 || !r.Stopped {
		t.Errorf("gentle: got %+v, want code 5, stopped", r)
	}
	if got := b.read(gentle.Stdout); got != "bye\n" {
		t.Errorf("gentle: stdout %q", got)
	}

	stubborn := b.shell(`trap '' TERM; setsid sh -c 'trap "" TERM; echo $$ > ../grandchild; while :; do sleep 1; done' & while :; do sleep 1; done`)
	pidFile := filepath.Join(filepath.Dir(stubborn.WorkDir), "grandchild")
	b.start(stubborn)
	b.eventually("grandchild runs", func() bool { return strings.HasSuffix(b.readIf(pidFile), "\n") })
	if err := b.client.Stop(b.ctx(), stubborn.AttemptID, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if r := b.await(stubborn.AttemptID, EventExited).Exit; r.Signal != int(syscall.SIGKILL) || !r.Stopped {
		t.Errorf("stubborn: got %+v, want signal 9, stopped", r)
	}
	b.gone(pidFile)
}

func (b *bench) readIf(path string) string { content, _ := os.ReadFile(path); return string(content) }

// gone checks that the process whose number is in a file does not run any more.
func (b *bench) gone(pidFile string) {
	b.Helper()
	var pid int
	if _, err := fmt.Sscan(b.readIf(pidFile), &pid); err != nil || pid <= 0 {
		b.Fatalf("no process number in %s: %v", pidFile, err)
	}
	// A killed process that has given its memory back belongs to no group any more, but may still need the processor to end.
	b.eventually(fmt.Sprintf("process %d runs no more", pid), func() bool {
		s, ok := readStat(pid)
		return !ok || s.state == 'Z'
	})
}

func TestWhatAnAttemptLeavesRunningIsKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.shell(`setsid sh -c 'echo $$ > ../grandchild; exec sleep 1000' </dev/null >/dev/null 2>&1 & while ! [ -s ../grandchild ]; do sleep 0.01; done; exit 0`)
	if r := b.run(s); r.Code != 0 || r.Signal != 0 {
		t.Errorf("got %+v", r)
	}
	b.gone(filepath.Join(filepath.Dir(s.WorkDir), "grandchild"))
}

func TestKilledTaskProcessIsTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.shell(`exec sleep 1000`)
	b.start(s)
	pid := b.await(s.AttemptID, EventStarted).PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := b.await(s.AttemptID, EventExited).Exit; r.Signal != 9 || r.OOM || r.Lost || r.Stopped {
		t.Errorf("got %+v, want signal 9 and nothing else", r)
	}
}

func TestRunningAttemptsSurviveTheServerAndExitsComeAgainUntilForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	running, ended := b.shell(`read x < ../fifo; exit 4`), b.shell(`exit 6`)
	fifo := filepath.Join(filepath.Dir(running.WorkDir), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(running)
	pid := b.await(running.AttemptID, EventStarted).PID
	b.run(ended)
	before := b.client.Hello()
	_ = b.client.Close()

	b.connect()
	if b.client.Hello().PID != before.PID {
		t.Fatalf("another supervisor: %+v, %+v", before, b.client.Hello())
	}
	if e := b.await(running.AttemptID, EventStarted); e.PID != pid {
		t.Errorf("running attempt: got %+v, want process %d", e, pid)
	}
	if e := b.await(ended.AttemptID, EventExited); e.Exit.Code != 6 || e.Token != ended.Token {
		t.Errorf("ended attempt: got %+v", e)
	}
	if err := b.client.Forget(b.ctx(), ended.AttemptID, "unknown"); err != nil {
		t.Fatal(err)
	}
	if got := b.listed(ended.AttemptID); got != nil {
		t.Errorf("forgotten attempt is listed: %+v", got)
	}
	if slices.Contains(b.claimed(), ended.AttemptID) {
		t.Error("forgotten attempt's claim is on disk")
	}
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if e := b.await(running.AttemptID, EventExited); e.Exit.Code != 4 {
		t.Errorf("adopted attempt: got %+v, want code 4", e.Exit)
	}
}

// killSupervisor kills the supervisor and waits until another one answers.
func (b *bench) killSupervisor() {
	b.Helper()
	old := b.client.Hello().PID
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		b.Fatal(err)
	}
	b.eventually("another supervisor", func() bool { return b.client.Hello().PID != old })
}

func TestKilledSupervisorLosesNoAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good, bad, over, killed := b.shell(`read x < ../fifo; printf '' > ../out/outputs.pb; exit 0`), b.shell(`read x < ../fifo; exit 9`),
		b.shell(`exit 6`), b.shell(`exec sleep 1000`)
	over.Environment.Digest, good.Environment.Digest = "sha256:of-over", "sha256:of-good"
	cut := b.shell(`read x < ../fifo; printf '\012\100abc' > ../out/outputs.pb; exit 0`)
	pids := map[string]int{}
	for _, s := range []Spec{good, bad, cut, killed} {
		if err := syscall.Mkfifo(filepath.Join(filepath.Dir(s.WorkDir), "fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.start(s)
		pids[s.AttemptID] = b.await(s.AttemptID, EventStarted).PID
	}
	if r := b.run(over); r.Environment != "sha256:of-over" {
		t.Errorf("it ran in environment %q", r.Environment)
	}
	b.killSupervisor()
	for _, s := range []Spec{good, bad, cut, killed} {
		if e := b.await(s.AttemptID, EventStarted); e.PID != pids[s.AttemptID] {
			t.Errorf("%s: got %+v, want process %d adopted", s.AttemptID, e, pids[s.AttemptID])
		}
		if got := b.start(s); !got.Attached || !got.Adopted {
			t.Errorf("start again: got %+v, want it attached and adopted", got)
		}
	}
	if e := b.await(over.AttemptID, EventExited); e.Exit.Code != 6 || e.Exit.Lost {
		t.Errorf("ended attempt: got %+v", e.Exit)
	}
	for _, s := range []Spec{good, bad, cut} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(s.WorkDir), "fifo"), []byte("go\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.await(good.AttemptID, EventExited).Exit; r.Lost || r.Code != 0 || !strings.Contains(r.Reason, "outputs.pb") || r.Environment != "sha256:of-good" {
		t.Errorf("with outputs: got %+v, want it not lost, and in its environment", r)
	}
	for _, s := range []Spec{bad, cut} {
		if r := b.await(s.AttemptID, EventExited).Exit; !r.Lost || r.Reason == "" {
			t.Errorf("without complete outputs: got %+v, want it lost", r)
		}
	}
	if err := b.client.Stop(b.ctx(), killed.AttemptID, 0); err != nil {
		t.Fatal(err)
	}
	if r := b.await(killed.AttemptID, EventExited).Exit; !r.Stopped {
		t.Errorf("stopped after adoption: got %+v", r)
	}
}

func TestAttemptThatEndedWithoutASupervisorIsJudgedByItsFiles(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	boot := bootID()
	_ = b.client.Shutdown(b.ctx(), 0)
	_ = b.client.Close()
	f, err := newFolder(b.config.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	j, _, err := openJournal(f)
	if err != nil {
		t.Fatal(err)
	}
	claimed := func(id, boot string, p *process) {
		out := filepath.Join(b.dir, id)
		if err := os.MkdirAll(out, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := j.claim(claim{Version: 1, AttemptID: id, Token: "t", Mark: shortHash(id), BootID: boot, OutputDir: out}); err != nil {
			t.Fatal(err)
		}
		if p != nil {
			if err := j.process(id, *p); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Our own pid with another start time: the pid was given to another process since.
	reused := &process{BootID: boot, PID: os.Getpid(), StartTime: 1}
	claimed("never-started", boot, nil)
	claimed("lost", boot, reused)
	claimed("machine-stopped", "another boot", &process{BootID: "another boot", PID: os.Getpid(), StartTime: startTime(os.Getpid())})
	claimed("with-error", boot, reused)
	if err := os.WriteFile(filepath.Join(b.dir, "with-error", "error.pb"), []byte{0x0a, 0}, 0o644); err != nil {
		t.Fatal(err)
	}
	claimed("with-code", boot, reused)
	if err := os.WriteFile(f.done("with-code"), []byte(`{"done": 41}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := j.file.WriteAt([]byte(`{"attempt_id":"cut-off","claim":{"attempt_id":"cut-`), j.size); err != nil {
		t.Fatal(err)
	}
	b.connect()
	for id, want := range map[string]string{
		"never-started": "before the attempt was started", "lost": "no result", "machine-stopped": "machine stopped",
	} {
		if r := b.await(id, EventExited).Exit; !r.Lost || !strings.Contains(r.Reason, want) {
			t.Errorf("%s: got %+v, want it lost because of %q", id, r, want)
		}
	}
	if r := b.await("with-error", EventExited).Exit; r.Lost || !strings.Contains(r.Reason, "error.pb") {
		t.Errorf("with-error: got %+v, want it not lost", r)
	}
	if r := b.await("with-code", EventExited).Exit; r.Lost || r.Code != 41 {
		t.Errorf("with-code: got %+v, want code 41", r)
	}
	if b.listed("cut-off") != nil {
		t.Error("a claim that was never synced is still there")
	}
	if err := b.client.Forget(b.ctx(), "with-code"); err != nil || exists(f.done("with-code")) {
		t.Errorf("forgotten, %v: its exit code is still there", err)
	}
}

func TestSupervisorEndsByItselfAndComesBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, "grace=50ms")
	s := b.shell("exit 8")
	b.run(s)
	first := b.client.Hello().PID
	_ = b.client.Close()
	b.eventually("the supervisor has ended", func() bool {
		stat, ok := readStat(first)
		return !ok || stat.state == 'Z'
	})
	b.connect()
	if b.client.Hello().PID == first {
		t.Error("the same supervisor")
	}
	if r := b.await(s.AttemptID, EventExited).Exit; r.Code != 8 {
		t.Errorf("exit record after a restart: %+v", r)
	}
}

func TestSupervisorStaysWhileATaskRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t, "grace=20ms")
	s := b.shell(`read x < ../fifo`)
	fifo := filepath.Join(filepath.Dir(s.WorkDir), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(s)
	b.await(s.AttemptID, EventStarted)
	first := b.client.Hello().PID
	_ = b.client.Close()
	time.Sleep(200 * time.Millisecond) //nolint:forbidigo // ten graces: what must not happen has no signal
	b.connect()
	if got := b.client.Hello().PID; got != first {
		t.Errorf("supervisor %d is there, want still %d", got, first)
	}
	_ = os.WriteFile(fifo, []byte("go\n"), 0)
	b.await(s.AttemptID, EventExited)
}

func TestManyConnectsStartOneSupervisor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_ = b.client.Shutdown(b.ctx(), 0)
	_ = b.client.Close()
	pids := make(chan int, 8)
	for range 8 {
		go func() {
			c, err := Connect(b.ctx(), b.config)
			if err != nil {
				t.Error(err)
				pids <- 0
				return
			}
			pids <- c.Hello().PID
			_ = c.Close()
		}()
	}
	all := map[int]bool{}
	for range 8 {
		all[<-pids] = true
	}
	b.connect()
	if len(all) != 1 {
		t.Errorf("got supervisors %v, want one", slices.Collect(maps.Keys(all)))
	}
	// The supervisors that were started in vain must have found this one and ended: otherwise one would take its place later.
	b.eventually("one supervisor is left", func() bool { return b.supervisors() == 1 })
}

// supervisors counts the processes that were started for the bench and have not ended.
func (b *bench) supervisors() (n int) {
	b.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range lines {
		if words, err := os.ReadFile(line); err == nil && bytes.Contains(words, []byte("\x00"+b.config.DataDir+"\x00")) {
			n++
		}
	}
	return n
}

func TestSupervisorOfAnotherBuildRetiresWhenIdleAndIsKeptWhenBusy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.shell(`read x < ../fifo; exit 2`)
	fifo := filepath.Join(filepath.Dir(s.WorkDir), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(s)
	b.await(s.AttemptID, EventStarted)
	_ = b.client.Close()
	b.config.Build = "newer"
	b.config.Executable = append(b.config.Executable, "build=newer")
	b.connect()
	if got := b.client.Hello().Build; got != "test" {
		t.Errorf("busy supervisor was replaced by build %s", got)
	}
	_ = os.WriteFile(fifo, []byte("go\n"), 0)
	if r := b.await(s.AttemptID, EventExited).Exit; r.Code != 2 {
		t.Errorf("got %+v", r)
	}
	_ = b.client.Close()
	b.eventually("the newer supervisor", func() bool { // the old supervisor may not have seen yet that our first connection has ended
		b.connect()
		if b.client.Hello().Build == "newer" {
			return true
		}
		_ = b.client.Close()
		return false
	})
}

func TestLongDataFolderGetsAShortSocket(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_ = b.client.Shutdown(b.ctx(), 0)
	_ = b.client.Close()
	b.config.DataDir = filepath.Join(b.dir, strings.Repeat("long-", 30))
	b.connect()
	if r := b.run(b.shell("exit 1")); r.Code != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestForgetBeforeTheEndLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.shell(`read x < ../fifo`)
	fifo := filepath.Join(filepath.Dir(s.WorkDir), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(s)
	b.await(s.AttemptID, EventStarted)
	if err := b.client.Forget(b.ctx(), s.AttemptID); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	b.eventually("the claim is gone", func() bool {
		return !slices.Contains(b.claimed(), s.AttemptID)
	})
	if got := b.listed(s.AttemptID); got != nil {
		t.Errorf("still listed: %+v", got)
	}
}

func TestAttemptIDsOfAnyKindAndLengthAreClaimed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, id := range []string{strings.Repeat("n", 1000), "../../escape", "with space/ä", "-"} {
		s := b.shell("exit 3")
		s.AttemptID = id
		if r := b.run(s); r.Code != 3 || r.AttemptID != id {
			t.Errorf("%q: got %+v", id, r)
		}
		if err := b.client.Forget(b.ctx(), id); err != nil {
			t.Error(err)
		}
	}
	if left := b.claimed(); len(left) != 0 {
		t.Errorf("claims left: %v", left)
	}
}

func TestOutOfMemoryIsToldApartFromOtherDeaths(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"groups=none"}} {
		b := newBench(t, args...)
		s := b.shell("")
		s.MemoryLimit = 64 << 20
		s.Argv = []string{"tail", "-n", "1", "/dev/zero"}
		if r := b.run(s); !r.OOM || r.Lost || !strings.Contains(r.Reason, "64 MiB") || r.PeakMemory < 32<<20 {
			t.Errorf("%v: above the limit: got %+v, want OOM", args, r)
		}
		within := b.shell(`kill -9 $$`)
		within.MemoryLimit = 64 << 20
		if r := b.run(within); r.OOM || r.Signal != 9 {
			t.Errorf("%v: killed within the limit: got %+v, want signal 9 without OOM", args, r)
		}
		code := b.shell(`exit 137`)
		code.MemoryLimit = 64 << 20
		if r := b.run(code); r.OOM || r.Code != 137 {
			t.Errorf("%v: exit code 137 within the limit: got %+v", args, r)
		}
	}
}
