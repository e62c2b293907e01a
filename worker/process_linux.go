package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// becomeSubreaper makes us the parent of the processes that our tasks, or a zygote that was killed, leave behind.
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

// stat are some fields of /proc/<pid>/stat.
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

// alive says whether this very process still runs. A process that waits to be reaped does not.
func alive(p process) bool {
	s, ok := readStat(p.PID)
	return ok && s.startTime == p.StartTime && s.state != 'Z' && s.state != 'X'
}

// condition is the state of a process by the kernel's word, for a sentence.
func condition(pid int) string {
	s, ok := readStat(pid)
	if !ok {
		return "gone"
	}
	return "state " + string(s.state)
}

// isStopped says whether a process was stopped by a signal.
func isStopped(pid int) bool {
	s, ok := readStat(pid)
	return ok && s.state == 'T'
}

// awaitGone returns when the process, which need not be our child, has ended.
func awaitGone(ctx context.Context, p process) error {
	const pidfdOpen, nonblock = 434, syscall.O_NONBLOCK
	fd, _, errno := syscall.RawSyscall(pidfdOpen, uintptr(p.PID), nonblock, 0)
	if errno == 0 {
		// alive is asked after the descriptor is open: in the other order the pid could go to another process in between.
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
	// Older kernels, and kernels whose poller does not take a pidfd.
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

// resourceLocks (RLIMIT_LOCKS) is the limit whose soft value is the number of a mark. Linux has enforced nothing by it since
// 2.4; each process has it, inherits it from its parent, keeps it when it executes a program, starts a session or clears its
// environment, and one call reads it from any process of the same user.
const resourceLocks = 10

// putOnSelf puts the mark's number on this process, for a child that we fork now; restore takes it off again.
func (m mark) putOnSelf() (restore func(), ok bool) {
	var own unix.Rlimit
	if m.number() == 0 || unix.Prlimit(0, resourceLocks, nil, &own) != nil {
		return func() {}, false
	}
	if unix.Prlimit(0, resourceLocks, &unix.Rlimit{Cur: m.number(), Max: own.Max}, nil) != nil {
		return func() {}, false
	}
	return func() { _ = unix.Prlimit(0, resourceLocks, &own, nil) }, true
}

// markProcess puts the number of the group's mark on a process that has no children yet.
func (g *group) markProcess(pid int) error {
	var own unix.Rlimit
	err := unix.Prlimit(pid, resourceLocks, nil, &own)
	if err == nil && g.mark.number() > 0 {
		err = unix.Prlimit(pid, resourceLocks, &unix.Rlimit{Cur: g.mark.number(), Max: own.Max}, nil)
	}
	if err != nil {
		g.numbered = false
		return fmt.Errorf("mark process: %w", err)
	}
	return nil
}

// numberOf is the number of the mark that a process has.
func numberOf(pid int) (uint64, bool) {
	var limit unix.Rlimit
	err := unix.Prlimit(pid, resourceLocks, nil, &limit)
	return limit.Cur, err == nil && limit.Cur != unix.RLIM_INFINITY
}

// isOn says whether a process has the mark: its number or, with text, its text in the environment with which the process started.
func (m mark) isOn(pid int, text bool) bool {
	if n, ok := numberOf(pid); ok && n > 0 && n == m.number() {
		return true
	}
	if !text {
		return false
	}
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(environ, []byte(markVariable+"="+string(m)))
}

// processesOf are all running processes that have the mark.
func processesOf(m mark, text bool) (found []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	self := os.Getpid()
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self || !m.isOn(pid, text) {
			continue
		}
		if s, ok := readStat(pid); ok && s.state != 'Z' && s.state != 'X' {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found
}

// killOnly ends a process if meant says so. By the time of the signal the pid may be another process's, so a descriptor holds the
// process while meant is asked.
func killOnly(pid int, meant func(pid int) bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before 5.3, or a filter of calls
		if !meant(pid) {
			return nil
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if !meant(pid) {
		return nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// killSession has nothing to do: on Linux the processes of an attempt are found in any session.
func killSession(int) {}

// strays are the running children of ours that are not watched: those that we did not start.
func (r *reaper) strays() (found []process) {
	self := strconv.Itoa(os.Getpid())
	b, err := os.ReadFile("/proc/self/task/" + self + "/children")
	if err != nil {
		return nil // the kernel was built without it
	}
	for field := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			continue
		}
		s, ok := readStat(pid)
		r.mu.Lock()
		_, watched := r.watched[pid]
		r.mu.Unlock()
		if ok && !watched && s.state != 'Z' && s.state != 'X' {
			found = append(found, process{PID: pid, StartTime: s.startTime})
		}
	}
	return found
}
