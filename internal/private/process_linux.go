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

// Process makes this process one that others of the same user cannot look into: no trace, no memory, no environment by way
// of /proc, no core. What the environment holds (the password of a database) is erased from where /proc shows it, also to root;
// the program goes on having it. Children that execute a program are as they were.
//
// The kernel gives the files of /proc/PID to root then, so this process opens its own /proc/self/mem, environ and maps only as root.
// A child between fork and exec is like this process: its user namespace cannot be mapped from outside.
func Process() error {
	return errors.Join(eraseEnvironment(), dumpable(0))
}

func dumpable(value uintptr) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, value, 0, 0, 0); err != nil {
		return fmt.Errorf("close this process to others: %w", err)
	}
	return nil
}

// eraseEnvironment overwrites the environment as the kernel handed it over. Go has copied it when the process began.
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

// environment is where the kernel has put it: fields 50 and 51 of /proc/self/stat.
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
