//go:build !linux

package worker

import (
	"log/slog"
	"syscall"
)

// Elsewhere than on Linux memory limits are not held: there is neither a control group nor a way to see what the processes
// of an attempt use without asking other programs.

func maxRSS(u *syscall.Rusage) int64 { return int64(u.Maxrss) }

func newLimiter(log *slog.Logger, _ folder) *limiter { return &limiter{log: log} }

func (l *limiter) group(string, int64) *group   { return nil }
func (l *limiter) regroup(string, int64) *group { return nil }

func (g *group) join(int) error        { return nil }
func (g *group) members() []int        { return nil }
func (g *group) usage() (int64, int64) { return 0, 0 }
func (g *group) remove()               {}

func memoryOf(string, int) int64 { return 0 }
