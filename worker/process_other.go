//go:build !linux

package worker

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// Without /proc a process is known by its number and the boot session alone, descendants that left the attempt's process
// group are not found, and each task runs in a fresh interpreter.

func syncData(file *os.File) error { return file.Sync() }

func becomeSubreaper() error { return nil }

func condition(int) string { return "its state is not known" }

func isStopped(int) bool { return false }

func startTime(int) uint64 { return 0 }

func alive(p process) bool {
	err := syscall.Kill(p.PID, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

func awaitGone(ctx context.Context, p process) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for alive(p) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func processesOf(mark, bool) []int { return nil }

// killSession ends the processes of an attempt that are in the process group it was started with.
func killSession(pid int) {
	if pid > 0 {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

func (r *reaper) strays() []process { return nil }

func killOnly(int, func(int) bool) error { return nil }
