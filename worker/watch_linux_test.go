package worker

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The kernel may kill a process for want of memory after the grace of a stop is over and all of the attempt was killed.
func TestTheTimeAfterWhichAnAttemptIsUnkillableCountsFromTheFirstKill(t *testing.T) {
	t.Parallel()
	child := exec.CommandContext(t.Context(), "sleep", "60")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	pid := child.Process.Pid
	events := filepath.Join(t.TempDir(), "memory.events") // the one file of a control group that this test needs
	count := func(kills string) {
		if err := os.WriteFile(events, []byte("oom_kill "+kills+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	count("0")
	synctest.Test(t, func(t *testing.T) {
		s := &supervisor{log: slog.New(slog.DiscardHandler), config: Config{KillTime: 30 * time.Second}}
		a := newAttempt(Spec{AttemptID: "a", MemoryLimit: 1 << 40}, "a mark that no process has")
		a.stopGrace = 10 * time.Second
		p := process{BootID: bootID(), PID: pid, StartTime: startTime(pid)}
		w := s.watch(a, p, &group{mark: a.mark, dir: filepath.Dir(events), version: 2, countsMemory: true, limited: true})
		began := time.Now()
		close(a.stop)
		time.AfterFunc(a.stopGrace+time.Millisecond, func() { count("1") })
		<-w.unkillable
		if got, want := time.Since(began), a.stopGrace+s.config.KillTime; got != want {
			t.Errorf("it is unkillable after %v, want %v: the grace, and the time since the kill", got, want)
		}
		w.stop()
	})
}
