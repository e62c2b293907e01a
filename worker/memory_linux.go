package worker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func maxRSS(u *syscall.Rusage) int64 { return int64(u.Maxrss) << 10 } //nolint:unconvert // int32 on 32 bits

func newLimiter(log *slog.Logger, f folder) *limiter {
	l := &limiter{log: log}
	name := "aloft-" + shortHash(f.dir)[:12]
	unified, memory := ownGroups()
	for _, try := range []struct {
		parent string
		v2     bool
	}{{unified, true}, {memory, false}} {
		if try.parent == "" {
			continue
		}
		base := filepath.Join(try.parent, name)
		if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			continue
		}
		if try.v2 {
			// The controller must be handed down; that fails where processes (we) live in the parent and it is not the root.
			_ = os.WriteFile(filepath.Join(try.parent, "cgroup.subtree_control"), []byte("+memory"), 0o644)
			if err := os.WriteFile(filepath.Join(base, "cgroup.subtree_control"), []byte("+memory"), 0o644); err != nil {
				_ = os.Remove(base)
				continue
			}
		}
		l.base, l.v2 = base, try.v2
		probe := l.group("probe", 64<<20)
		works := probe.enforces()
		probe.remove()
		if works {
			return l
		}
		_ = os.Remove(base)
	}
	l.base = ""
	log.Info("no control group for memory can be used; limits are held by sampling")
	return l
}

// ownGroups is the folders of the groups that this process is in: version 2, and version 1's for memory.
func ownGroups() (unified, memory string) {
	own := map[string]string{}
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(b)) {
			if part := strings.SplitN(strings.TrimSpace(line), ":", 3); len(part) == 3 {
				for controller := range strings.SplitSeq(part[1], ",") {
					own[controller] = part[2]
				}
			}
		}
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		// 36 35 98:0 /root /mount/point options - type source superoptions
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		switch {
		case kind[0] == "cgroup2":
			dir := within(fields[4], fields[3], own[""])
			if b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err == nil && bytes.Contains(b, []byte("memory")) {
				unified = dir
			}
		case kind[0] == "cgroup" && strings.Contains(","+kind[2]+",", ",memory,"):
			memory = within(fields[4], fields[3], own["memory"])
		}
	}
	return unified, memory
}

// within is where a group is seen below a mount that shows the part of the hierarchy from root on.
func within(mount, root, group string) string {
	if rel, err := filepath.Rel(root, group); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.Join(mount, rel)
	}
	return mount
}

// group makes the group of an attempt; nil without a limit.
func (l *limiter) group(name string, limit int64) *group {
	if limit <= 0 {
		return nil
	}
	g := l.regroup(name, limit)
	if !g.enforces() {
		return g
	}
	dir := g.dirs[0]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.log.Warn("no control group for an attempt; its limit is held by sampling", "error", err)
		return &group{}
	}
	bytes := []byte(strconv.FormatInt(limit, 10))
	write := func(file string, value []byte) error { return os.WriteFile(filepath.Join(dir, file), value, 0o644) }
	var err error
	if l.v2 {
		err = write("memory.max", bytes)
		_ = write("memory.swap.max", []byte("0"))
		_ = write("memory.oom.group", []byte("1")) // a task that lost one of its processes should not go on without it
	} else {
		err = write("memory.limit_in_bytes", bytes)
		_ = write("memory.memsw.limit_in_bytes", bytes)
		_ = write("memory.swappiness", []byte("0"))
	}
	if err != nil {
		l.log.Warn("a control group takes no limit; it is held by sampling", "error", err)
		_ = os.Remove(dir)
		return &group{}
	}
	return g
}

// regroup is the group of an attempt that a supervisor before us started.
func (l *limiter) regroup(name string, limit int64) *group {
	switch {
	case limit <= 0:
		return nil
	case l.base == "":
		return &group{}
	case l.v2:
		return &group{dirs: []string{filepath.Join(l.base, name)}, memory: memoryFiles{"memory.events", "memory.peak"}}
	default:
		return &group{dirs: []string{filepath.Join(l.base, name)}, memory: memoryFiles{"memory.oom_control", "memory.max_usage_in_bytes"}}
	}
}

func (g *group) join(pid int) error {
	for _, dir := range g.paths() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

func (g *group) members() []int {
	var pids []int
	for _, dir := range g.paths() {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				if s, ok := readStat(pid); ok && s.state != 'Z' {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// usage is how many processes the kernel has killed for the limit, and the most memory that was used.
func (g *group) usage() (kills, peak int64) {
	if !g.enforces() {
		return 0, 0
	}
	if b, err := os.ReadFile(filepath.Join(g.dirs[0], g.memory.kills)); err == nil {
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
				kills, _ = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(g.dirs[0], g.memory.peak)); err == nil {
		peak, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	}
	return kills, peak
}

func (g *group) remove() {
	for _, dir := range g.paths() {
		for range 20 { // a group is busy for a moment after its last process was reaped
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			time.Sleep(2 * time.Millisecond) //nolint:forbidigo // the kernel tells nobody when a group is empty
		}
	}
}

// memoryOf is the memory of all processes of an attempt, pages that several share counted once in all.
func memoryOf(mark string, session int) int64 {
	var sum int64
	for _, pid := range processesOf(mark, session) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum
}
