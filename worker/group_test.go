//go:build linux

package worker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ways are the ways to hold the processes of an attempt together that this machine has. Control groups can be made by root, and by
// users to whom systemd delegates a part of them.
func ways(t *testing.T) (all []string) {
	t.Helper()
	for _, way := range []string{"v1", "v2"} {
		gs := newGroups(discard, folder{t.TempDir()}, way)
		if gs.base == "" {
			t.Logf("not tried: this machine lets us make no control groups of version %s", way[1:])
			continue
		}
		all = append(all, way)
		gs.close()
	}
	return append(all, "none")
}

// None of these processes is in the session of the attempt, has a parent in it, or has its variables.
func TestNothingThatAnAttemptStartedOutlivesIt(t *testing.T) {
	t.Parallel()
	for _, way := range ways(t) {
		b := newBench(t, "groups="+way)
		for _, end := range []string{"exit 0", "exit 3", "kill -9 $$", "sleep 1000"} {
			s := b.shell("")
			marker := "311." + strconv.Itoa(os.Getpid()) + strconv.FormatInt(b.number.Load(), 10)
			s.Argv = []string{"/bin/sh", "-c", fmt.Sprintf(`
				setsid env -i /bin/sleep %[1]s </dev/null >/dev/null 2>&1 &
				(setsid env -i /bin/sh -c '(/bin/sleep %[1]s &) ; exec /bin/sleep %[1]s' & ) </dev/null >/dev/null 2>&1
				(cd /; umask 0; setsid nohup env -i /bin/sh -c 'trap "" TERM HUP INT; while :; do /bin/sleep %[1]s; done' >/dev/null 2>&1 &)
				while [ $(pgrep -fc "^/bin/sleep %[1]s") -lt 4 ]; do sleep 0.01; done
				echo ready > ../ready; %[2]s`, marker, end)}
			b.start(s)
			if strings.HasPrefix(end, "sleep") {
				b.eventually("they run", func() bool { return exists(filepath.Join(filepath.Dir(s.WorkDir), "ready")) })
				if err := b.client.Stop(b.ctx(), s.AttemptID, time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			r := b.await(s.AttemptID, EventExited).Exit
			if !exists(filepath.Join(filepath.Dir(s.WorkDir), "ready")) {
				t.Fatalf("%s, %s: it never had its processes: %+v", way, end, r)
			}
			b.eventually(fmt.Sprintf("%s, %s: all of its processes are gone", way, end), func() bool { return running(marker) == 0 })
		}
	}
}

// running counts the processes with this argument.
func running(argument string) (n int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if words, err := os.ReadFile(line); err == nil && strings.Contains(string(words), "sleep\x00"+argument+"\x00") {
			n++
		}
	}
	return n
}

// A shell forks within the millisecond in which it could be moved into a group.
func TestAMemoryLimitHoldsForWhatACommandForksAtOnce(t *testing.T) {
	t.Parallel()
	for _, way := range ways(t) {
		b := newBench(t, "groups="+way)
		for _, script := range []string{"%s; exit $?", "(%s) & wait $!; exit $?", "exec /bin/sh -c '%s; exit $?'"} {
			s := b.shell(fmt.Sprintf(script, "tail -n 1 /dev/zero"))
			s.MemoryLimit = 48 << 20
			if r := b.run(s); !r.OOM || !strings.Contains(r.Reason, "48 MiB") || r.PeakMemory < 24<<20 {
				t.Errorf("%s, %s: got %+v, want it out of memory", way, script, r)
			}
		}
	}
}

// The kernel kills a process that the task waits for; the task itself would wait for ever, or even end well.
func TestAnAttemptWhoseProcessIsKilledForMemoryEnds(t *testing.T) {
	t.Parallel()
	for _, way := range ways(t) {
		b := newBench(t, "groups="+way)
		for _, script := range []string{"tail -n 1 /dev/zero & sleep 1000", "tail -n 1 /dev/zero; exit 0"} {
			s := b.shell(script)
			s.MemoryLimit = 48 << 20
			if r := b.run(s); !r.OOM || !strings.Contains(r.Reason, "limit of 48 MiB") {
				t.Errorf("%s, %s: got %+v, want it out of memory", way, script, r)
			}
		}
	}
}

// ownScore is the oom_score_adj of this process before any test has forked.
var ownScore = func() string {
	b, _ := os.ReadFile("/proc/self/oom_score_adj")
	return strings.TrimSpace(string(b))
}()

func TestAttemptsAreKilledForMemoryBeforeTheSupervisor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.shell(`cat /proc/self/oom_score_adj`)
	b.run(s)
	own := ownScore
	want := strconv.Itoa(victimScore)
	if n, _ := strconv.Atoi(own); n > victimScore {
		want = own
	}
	if got := strings.TrimSpace(b.read(s.Stdout)); got != want {
		t.Errorf("a process of an attempt has score %s, want %s", got, want)
	}
	if got := strings.TrimSpace(b.read(fmt.Sprintf("/proc/%d/oom_score_adj", b.client.Hello().PID))); got != own {
		t.Errorf("the supervisor has score %s, want %s", got, own)
	}
}

// A supervisor that is started in another control group finds the processes that a killed supervisor has left in its groups.
func TestGroupsOfAKilledSupervisorAreFoundAndCleaned(t *testing.T) {
	t.Parallel()
	for _, way := range ways(t) {
		b := newBench(t, "groups="+way)
		marker := "312." + strconv.Itoa(os.Getpid())
		script := fmt.Sprintf(`setsid env -i /bin/sleep %s </dev/null >/dev/null 2>&1 & echo > ../ready; read x < ../fifo; exit 0`, marker)
		goesOn, isLost := b.shell(script), b.shell(`exec sleep 1000`)
		fifo := filepath.Join(filepath.Dir(goesOn.WorkDir), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		b.start(goesOn)
		b.start(isLost)
		b.eventually("it runs", func() bool {
			return exists(filepath.Join(filepath.Dir(goesOn.WorkDir), "ready")) && running(marker) == 1
		})
		b.await(goesOn.AttemptID, EventStarted)
		lost := b.await(isLost.AttemptID, EventStarted).PID
		b.killSupervisor()
		b.await(goesOn.AttemptID, EventStarted)
		if err := syscall.Kill(lost, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.await(isLost.AttemptID, EventExited)
		if running(marker) != 1 {
			t.Errorf("%s: a process of an attempt that goes on was ended", way)
		}
		if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
			t.Fatal(err)
		}
		b.await(goesOn.AttemptID, EventExited)
		b.eventually(way+": what it left is gone", func() bool { return running(marker) == 0 })
	}
}

func TestWhatRunsInAGroupOfNoAttemptIsEnded(t *testing.T) {
	t.Parallel()
	for _, way := range ways(t) {
		if way == "none" {
			continue
		}
		f := folder{t.TempDir()}
		before := newGroups(discard, f, way)
		over, live := before.take(mark(shortHash("over")), 0, false), before.take(mark(shortHash("live")), 0, false)
		first, second := sleeper(t, over), sleeper(t, live)
		after := newGroups(discard, f, way)
		after.clean(f, []mark{live.mark})
		if status := wait(t, first); status.Signal() != syscall.SIGKILL {
			t.Errorf("%s: the attempt that is over: %v", way, status)
		}
		found := after.find(live.mark, 0, true)
		if len(found.members()) != 1 || found.dir != live.dir {
			t.Errorf("%s: got %+v with %v, want the group %s with one process", way, found, found.members(), live.dir)
		}
		found.kill(found.processes())
		wait(t, second)
		after.remove(found.dir)
		after.close()
		if exists(after.base) {
			t.Errorf("%s: %s is left", way, after.base)
		}
	}
}

// A pid may have been given to another process: a process that does not belong to the group is not killed.
func TestAProcessThatIsNotMeantIsNotKilled(t *testing.T) {
	t.Parallel()
	pid := sleeper(t, nil)
	g := &group{mark: mark(shortHash("another")), numbered: true}
	g.kill([]int{pid})
	if !alive(process{PID: pid, StartTime: startTime(pid)}) {
		t.Error("a stranger was killed")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	wait(t, pid)
}

// sleeper starts a child of this test in a group. The test waits for it itself: a reaper would wait for the children of all tests.
func sleeper(t *testing.T, g *group) int {
	t.Helper()
	pid, err := g.fork("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func wait(t *testing.T, pid int) (status syscall.WaitStatus) {
	t.Helper()
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if err == nil {
			return status
		}
		if err != syscall.EINTR {
			t.Fatal(err)
		}
	}
}

// A task of root that has frozen itself ends with a stop.
func TestAFrozenProcessIsEnded(t *testing.T) {
	t.Parallel()
	const freezer = "/sys/fs/cgroup/freezer"
	dir, err := os.MkdirTemp(freezer, "aloft-test-") //nolint:usetesting // a control group
	if err != nil {
		t.Skipf("this user freezes nothing: %v", err)
	}
	inner := filepath.Join(dir, "inner")
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		for _, group := range []string{inner, dir} {
			_ = os.Remove(group)
		}
	})
	b := newBench(t)
	s := b.shell(`sleep 1000 & mkdir $0/inner && echo $! > $0/inner/cgroup.procs && echo $$ > $0/cgroup.procs && echo FROZEN > $0/freezer.state; sleep 1000`)
	s.Argv = append(s.Argv, dir)
	b.start(s)
	b.eventually("it is frozen", func() bool {
		state, _ := os.ReadFile(filepath.Join(dir, "freezer.state"))
		return strings.TrimSpace(string(state)) == "FROZEN"
	})
	if err := b.client.Stop(b.ctx(), s.AttemptID, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if r := b.await(s.AttemptID, EventExited).Exit; !r.Stopped {
		t.Errorf("got %+v", r)
	}
	if left, _ := os.ReadFile(filepath.Join(inner, "cgroup.procs")); len(left) > 0 {
		t.Errorf("still there: %s", left)
	}
}

// A process that even SIGKILL does not end keeps neither its attempt nor a stop from ending.
func TestAnAttemptWhoseProcessCannotBeKilledIsOver(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/sys/fs/cgroup/freezer", "aloft-test-") //nolint:usetesting // a control group
	if err != nil {
		t.Skipf("this user freezes nothing: %v", err)
	}
	b := newBench(t, "killtime=10ms")
	state := filepath.Join(dir, "freezer.state")
	file, err := os.OpenFile(state, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	thawed := func() {
		_, _ = file.WriteString("THAWED")
		_ = syscall.Unmount(state, syscall.MNT_DETACH)
	}
	t.Cleanup(func() {
		thawed()
		b.eventually("its group is empty", func() bool { return os.Remove(dir) == nil })
		_ = file.Close()
	})
	s := b.shell(`echo $$ > $0/cgroup.procs && touch in; sleep 1000`)
	s.Argv = append(s.Argv, dir)
	b.start(s)
	b.eventually("it has begun", func() bool { return exists(filepath.Join(s.WorkDir, "in")) })
	if _, err := file.WriteString("FROZEN"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(os.DevNull, state, "", syscall.MS_BIND, ""); err != nil { // the supervisor thaws nothing
		t.Skipf("this user mounts nothing: %v", err)
	}
	if err := b.client.Stop(b.ctx(), s.AttemptID, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	r := b.await(s.AttemptID, EventExited).Exit
	if !r.Stopped || !strings.Contains(r.Reason, "was killed and is still there") {
		t.Errorf("got %+v", r)
	}
	if undead, err := b.client.Undead(b.ctx()); err != nil || len(undead) == 0 || undead[0].AttemptID != s.AttemptID {
		t.Errorf("of its processes it says %+v, %v", undead, err)
	}
	thawed()
	b.eventually("nothing is said of it any more", func() bool {
		undead, err := b.client.Undead(b.ctx())
		return err == nil && len(undead) == 0
	})
}

// A process from which the task has taken mark and session ends with the last attempt that runs.
func TestAProcessWithoutAMarkEndsWithTheLastAttempt(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip("there is no prlimit")
	}
	b := newBench(t, "groups=none")
	long := b.shell(`while [ ! -e stop ]; do sleep 0.02; done`)
	b.start(long)
	s := b.shell(`(prlimit --locks=unlimited env -i /usr/bin/setsid /bin/sh -c 'echo $$ > pid; exec sleep 1000' < /dev/null > /dev/null 2>&1 &); while [ ! -s pid ]; do sleep 0.02; done`)
	if r := b.run(s); r.Code != 0 {
		t.Fatalf("got %+v: %s", r, b.read(s.Stderr))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(b.read(filepath.Join(s.WorkDir, "pid"))))
	if err != nil {
		t.Fatal(err)
	}
	b.write(filepath.Join(long.WorkDir, "stop"), "")
	if r := b.await(long.AttemptID, EventExited).Exit; r.Code != 0 {
		t.Errorf("got %+v", r)
	}
	if st, ok := readStat(pid); ok && st.state != 'Z' && st.state != 'X' {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Errorf("%d still runs", pid)
	}
}
