package private

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process keeps other processes of the same user from looking into this process: they cannot trace it, read its memory or, in
// /proc, its environment, and it writes no core. The environment (with the password of a database) is also erased from the
// memory that /proc shows, even to root; the program keeps its own copy. It has no effect on children once they have executed a
// program.
//
// From then on the files of /proc/PID belong to root, so this process can open its own /proc/self/mem, environ and maps only as
// root. The same holds for a child between fork and exec: its user namespace cannot be mapped from outside.
func Process() error {
	return errors.Join(eraseEnvironment(), dumpable(0))
}

func dumpable(value uintptr) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, value, 0, 0, 0); err != nil {
		return fmt.Errorf("close this process to others: %w", err)
	}
	return nil
}

// eraseEnvironment overwrites the environment in the memory in which the kernel passed it. Go has copied it when the process began.
func eraseEnvironment() error {
	begin, end, err := environment()
	if err != nil {
		return fmt.Errorf("erase environment: %w", err)
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("erase environment: %w", err)
	}
	_, err = memory.WriteAt(make([]byte, end-begin), int64(begin)) //nolint:gosec // an address below the kernel's
	if err := errors.Join(err, memory.Close()); err != nil {
		return fmt.Errorf("erase environment: %w", err)
	}
	return nil
}

// environment is the range of addresses at which the kernel has put the environment: fields 50 and 51 of /proc/self/stat.
func environment() (begin, end uint64, err error) {
	content, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, 0, err
	}
	// The second field is the program's name in parentheses, which may hold any character.
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	const envStart, envEnd = 50 - 3, 51 - 3
	if len(fields) <= envEnd {
		return 0, 0, errors.New("/proc/self/stat does not say where it is")
	}
	begin, err1 := strconv.ParseUint(fields[envStart], 10, 63)
	end, err2 := strconv.ParseUint(fields[envEnd], 10, 63)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, err
	}
	if begin == 0 || end <= begin || end-begin > 16<<20 {
		return 0, 0, fmt.Errorf("/proc/self/stat says that it is from %d to %d", begin, end)
	}
	return begin, end, nil
}
