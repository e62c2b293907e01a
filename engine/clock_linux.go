package engine

import (
	"time"

	"golang.org/x/sys/unix"
)

// stopwatch counts the time that the machine was suspended too, which Go's own monotonic clock does not: a laptop that
// slept over night must not believe that it is still yesterday.
func stopwatch() func() time.Duration {
	boot := func() (time.Duration, bool) {
		var t unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
		return time.Duration(t.Nano()), err == nil
	}
	start, ok := boot()
	if !ok {
		begun := time.Now()
		return func() time.Duration { return time.Since(begun) }
	}
	return func() time.Duration {
		now, _ := boot()
		return now - start
	}
}
