//go:build !linux

package engine

import "time"

// stopwatch is Go's monotonic clock.
func stopwatch() func() time.Duration {
	begun := time.Now()
	return func() time.Duration { return time.Since(begun) }
}
