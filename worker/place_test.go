//go:build linux

package worker

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAnAttemptIsLostWhenItsDataFolderIsMoved(t *testing.T) {
	t.Parallel()
	for name, serverFirst := range map[string]bool{"the server is there at once": true, "the supervisor sees it by itself": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			fails := b.shell(`while [ -e "$DATA" ]; do sleep 0.01; done; exit 3`) // as a task does that writes to the path it was given
			fails.Env["DATA"] = b.config.DataDir
			goesOn := b.shell("exec sleep 600")
			b.start(fails)
			b.start(goesOn)
			b.await(fails.AttemptID, EventStarted)
			pid := b.await(goesOn.AttemptID, EventStarted).PID
			_ = b.client.Close() // the server ends

			old := b.config.DataDir
			b.config.DataDir = filepath.Join(b.dir, "moved")
			if err := os.Rename(old, b.config.DataDir); err != nil {
				t.Fatal(err)
			}
			if !serverFirst {
				b.eventually("a supervisor whose folder was moved away ends its tasks", func() bool { return syscall.Kill(pid, 0) != nil })
			}
			b.connect()
			for _, s := range []Spec{fails, goesOn} {
				if exit := b.await(s.AttemptID, EventExited).Exit; !exit.Lost || exit.Reason != movedReason {
					t.Errorf("the attempt ended with %+v, want it lost as the folder was moved", exit)
				}
			}
			if b.client.Hello().DataDir != b.config.DataDir {
				t.Errorf("the supervisor has %s, want %s", b.client.Hello().DataDir, b.config.DataDir)
			}
			if syscall.Kill(pid, 0) == nil {
				t.Error("a process of a lost attempt runs on")
			}
			if r := b.run(b.shell("exit 0")); r.Lost || r.Code != 0 {
				t.Errorf("a task of the new place ended with %+v", r)
			}
			if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the old path is there again: %v", err)
			}
		})
	}
}

func TestACopyOfADataFolderLeavesTheTasksOfTheOriginalAlone(t *testing.T) {
	t.Parallel()
	for name, long := range map[string]string{"short": "", "with a recorded socket": strings.Repeat("long", 30)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			original := b.config
			if long != "" {
				if err := b.client.Shutdown(b.ctx(), 0); err != nil {
					t.Fatal(err)
				}
				_ = b.client.Close()
				b.config.DataDir = filepath.Join(b.dir, long, "data")
				original = b.config
				if err := os.MkdirAll(original.DataDir, 0o700); err != nil {
					t.Fatal(err)
				}
				b.connect()
			}
			s := b.shell(`read x < "$PIPE"; touch "$TMPDIR/still-there" && exit 7`)
			pipe := filepath.Join(b.dir, "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			s.Env["PIPE"] = pipe
			b.start(s)
			b.await(s.AttemptID, EventStarted)

			copied := original
			copied.DataDir = filepath.Join(b.dir, "copy"+long)
			if output, err := exec.CommandContext(t.Context(), "cp", "-a", original.DataDir, copied.DataDir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, output)
			}
			other, err := Connect(b.ctx(), copied)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			defer func() { _ = other.Shutdown(b.ctx(), 0) }()
			if other.Hello().PID == b.client.Hello().PID {
				t.Fatal("the copy has the supervisor of the original")
			}
			for end := time.Now().Add(deadline); ; {
				all, err := other.List(b.ctx())
				if err != nil || len(all) != 1 || time.Now().After(end) {
					t.Fatalf("the copy has %+v (%v), want the attempt, lost", all, err)
				}
				if exit := all[0].Exit; exit != nil {
					if !exit.Lost || exit.Reason != movedReason {
						t.Errorf("in the copy it ended with %+v, want it lost", exit)
					}
					break
				}
			}
			if err := os.WriteFile(pipe, []byte("go\n"), 0); err != nil {
				t.Fatal(err)
			}
			if exit := b.await(s.AttemptID, EventExited).Exit; exit.Lost || exit.Code != 7 {
				t.Errorf("in the original it ended with %+v, want its own code", exit)
			}
		})
	}
}
