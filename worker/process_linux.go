package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// becomeSubreaper makes us the parent of what our tasks, or a zygote that was killed, leave behind.
func becomeSubreaper() error {
	const setChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setChildSubreaper, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("become child subreaper: %w", errno)
	}
	return nil
}

// syncData makes the content of a file durable whose size does not change.
func syncData(file *os.File) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	held := conn.Control(func(fd uintptr) {
		for err = syscall.Fdatasync(int(fd)); errors.Is(err, syscall.EINTR); {
			err = syscall.Fdatasync(int(fd))
		}
	})
	return errors.Join(held, err)
}

// stat is what /proc/<pid>/stat says.
type stat struct {
	state     byte
	parent    int
	session   int
	startTime uint64 // clock ticks since boot; with the boot id and the pid it names a process for ever
}

func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	// The second field is the program's name in parentheses, which may itself hold any of these characters.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, false
	}
	var s stat
	s.state = fields[0][0]
	s.parent, _ = strconv.Atoi(fields[1])
	s.session, _ = strconv.Atoi(fields[3])
	s.startTime, err = strconv.ParseUint(fields[19], 10, 64)
	return s, err == nil
}

func startTime(pid int) uint64 {
	s, _ := readStat(pid)
	return s.startTime
}

// alive says whether this very process still runs; one that waits to be reaped does not.
func alive(p process) bool {
	s, ok := readStat(p.PID)
	return ok && s.startTime == p.StartTime && s.state != 'Z' && s.state != 'X'
}

// awaitGone returns when the process, which need not be our child, has ended.
func awaitGone(ctx context.Context, p process) error {
	const pidfdOpen, nonblock = 434, syscall.O_NONBLOCK
	fd, _, errno := syscall.RawSyscall(pidfdOpen, uintptr(p.PID), nonblock, 0)
	if errno == 0 {
		// Opened after the question who it is would be a race; so the question comes after.
		file := os.NewFile(fd, "pidfd")
		defer file.Close()
		if !alive(p) {
			return nil
		}
		if conn, err := file.SyscallConn(); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = file.Close() })
			defer stop()
			err = conn.Read(func(uintptr) bool { return !alive(p) })
			if err == nil || ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	// Older kernels, and those whose poller does not take a pidfd.
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

// processesOf is all processes that carry the mark in the environment they were started with, or belong to the session.
func processesOf(mark string, session int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	self := os.Getpid()
	needle := []byte(markVariable + "=" + mark)
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == self {
			continue
		}
		s, ok := readStat(pid)
		if !ok || s.state == 'Z' || s.state == 'X' {
			continue
		}
		if session > 0 && s.session == session {
			found = append(found, pid)
			continue
		}
		if environ, err := os.ReadFile("/proc/" + entry.Name() + "/environ"); err == nil && bytes.Contains(environ, needle) {
			found = append(found, pid)
		}
	}
	return found
}
