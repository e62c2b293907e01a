package engine

import (
	"log/slog"
	"sync"
	"time"
)

// Clock tells the time of one process: it starts as the wall clock and goes on monotonically, whatever happens to the
// wall clock meanwhile, so that no deadline comes early or late because somebody set the clock.
type Clock interface{ Now() time.Time }

// NewClock is the clock of this process.
func NewClock() Clock { return monotonic{start: time.Now(), elapsed: stopwatch()} }

type monotonic struct {
	start   time.Time
	elapsed func() time.Duration
}

// Now has no monotonic reading of its own: times are compared as what they will be when they are read from the store.
func (m monotonic) Now() time.Time { return m.start.Round(0).Add(m.elapsed()).UTC() }

// flooredClock never tells a time before the latest one met in the store: after a restart with a clock that was set
// back, timers go on from where they were instead of waiting for the clock to catch up (promise P10).
type flooredClock struct {
	clock  Clock
	logger *slog.Logger

	mu     sync.Mutex
	offset time.Duration
}

func (c *flooredClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock.Now().Add(c.offset)
}

// seen moves the clock forward to a time that was read from the store.
func (c *flooredClock) seen(t time.Time) {
	c.mu.Lock()
	behind := t.Sub(c.clock.Now().Add(c.offset))
	if behind > 0 {
		c.offset += behind
	}
	c.mu.Unlock()
	if behind > time.Second {
		c.logger.Warn("the clock is behind what was recorded before: going on from the recorded time", "behind", behind)
	}
}
