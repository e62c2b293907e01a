package server

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/config"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// anyNumber of slots: cores and memory are what bounds tasks.
const anyNumber = 1 << 20

// capacity is what tasks may use together: what is configured, else all of this machine, or of the container we are in.
func capacity(c config.Config) (admission.Room, error) {
	memory, err := config.ParseBytes(c.Memory)
	if err != nil {
		return admission.Room{}, fmt.Errorf("read capacity: memory %w", err)
	}
	room := admission.Room{MilliCPU: int64(c.CPU * 1000), Memory: memory, Slots: int64(c.Slots)}
	if room.MilliCPU == 0 {
		room.MilliCPU = int64(runtime.GOMAXPROCS(0)) * 1000
	}
	if room.Memory == 0 {
		room.Memory = machineMemory()
	}
	if room.Slots == 0 {
		room.Slots = anyNumber
	}
	return room, nil
}

// fallbackMemory is assumed where the machine does not say.
const fallbackMemory = 8 << 30

func machineMemory() int64 {
	memory := totalMemory()
	if memory == 0 {
		memory = fallbackMemory
	}
	for _, limit := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(limit)
		if n, perr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && n > 0 {
			memory = min(memory, n)
		}
	}
	return memory
}

func describeRoom(r admission.Room) string {
	text := fmt.Sprintf("%g cores, %.1f GiB", float64(r.MilliCPU)/1000, float64(r.Memory)/(1<<30))
	if r.Slots < anyNumber {
		text += fmt.Sprintf(", %d at once", r.Slots)
	}
	return text
}

// maxQueue is up to where waiting attempts are counted for people.
const maxQueue = 10_000

// queue counts the attempts that run and that wait for room.
func (s *Server) queue() (running, waiting int64) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	attempts, err := s.store.Waiting(ctx, time.Now(), maxQueue)
	if err != nil {
		s.log.Warn("waiting attempts could not be counted", "error", err)
	}
	return int64(len(s.executor.Running())), int64(len(attempts))
}

// environments are those that tasks have used so far.
func (s *Server) environments() []*aloftv1.EnvironmentInfo {
	var infos []*aloftv1.EnvironmentInfo
	for _, e := range s.resolver.Used() {
		infos = append(infos, &aloftv1.EnvironmentInfo{Interpreter: e.Interpreter, Kind: string(e.Kind), Reason: e.Reason,
			Platform: e.Platform, Digest: e.Digest, Packages: int64(len(e.Packages))})
	}
	return infos
}
