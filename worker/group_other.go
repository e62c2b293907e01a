//go:build !linux

package worker

import (
	"errors"
	"log/slog"
	"syscall"
	"time"
)

// On systems other than Linux there are neither control groups nor marks to look for: an attempt is its process group, and memory
// limits are not enforced.

func maxRSS(u *syscall.Rusage) int64 { return int64(u.Maxrss) }

func newGroups(log *slog.Logger, _ folder, _ string) *groups { return &groups{log: log} }

func (gs *groups) take(m mark, _ int64, _ bool) *group { return &group{mark: m} }
func (gs *groups) find(m mark, _ int64, _ bool) *group { return &group{mark: m} }
func (gs *groups) release(*group)                      {}
func (gs *groups) clean(folder, []mark)                {}
func (gs *groups) close()                              {}

func (g *group) joins() []string       { return nil }
func (g *group) markProcess(int) error { return nil }
func (g *group) members() []int        { return nil }
func (g *group) processes() []int      { return nil }
func (g *group) orphaned(int) bool     { return false }
func (g *group) kill([]int)            {}
func (g *group) kills() int64          { return 0 }
func (g *group) peak() int64           { return 0 }
func (g *group) memory() int64         { return 0 }

func (g *group) fork(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	return syscall.ForkExec(path, argv, attr)
}

// mounts are Linux's.
type mounts struct {
	ReadOnly []string `json:"read_only"`
	Writable []string `json:"writable,omitempty"`
}

func mountable(folder) error { return errors.New("it needs Linux") }

func machineKills() int64 { return 0 }

func pause(round int) {
	time.Sleep(time.Duration(min(round+1, 20)) * time.Millisecond) //nolint:forbidigo // the end of a process that is not our child sends no signal
}
