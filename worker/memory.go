package worker

import (
	"log/slog"
	"os"
)

// group is the control group of one attempt with a memory limit. A nil group is an attempt without a limit; one without
// paths is watched by sampling.
type group struct {
	dirs   []string
	memory memoryFiles
}

// memoryFiles are the names that the two versions of control groups have for the same facts.
type memoryFiles struct {
	kills string // file with a line "oom_kill N"
	peak  string
}

func (g *group) paths() []string {
	if g == nil {
		return nil
	}
	return g.dirs
}

// enforces says whether the kernel holds the limit.
func (g *group) enforces() bool { return g != nil && len(g.dirs) > 0 }

// limiter makes control groups where the system lets us, and says once where not.
type limiter struct {
	log  *slog.Logger
	base string // folder in which we may make groups; empty: sampling
	v2   bool
}

// close removes our folder of groups, unless one is still in use.
func (l *limiter) close() {
	if l.base != "" {
		_ = os.Remove(l.base)
	}
}
