package server

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/api"
	"github.com/aloft-dev/aloft/config"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/internal/room"
)

// anyNumber of slots: cores and memory are what bounds tasks.
const anyNumber = 1 << 20

// capacity is what tasks may use together: what is configured, else all of this machine, or of the container we are in.
func capacity(c config.Config) (admission.Room, error) {
	memory, err := config.ParseBytes(c.Memory)
	if err != nil {
		return admission.Room{}, fmt.Errorf("read capacity: memory %w", err)
	}
	all := admission.Room{MilliCPU: int64(c.CPU * 1000), Memory: memory, Slots: int64(c.Slots)}
	if all.MilliCPU == 0 {
		all.MilliCPU = int64(runtime.GOMAXPROCS(0)) * 1000
	}
	if all.Memory == 0 {
		all.Memory = machineMemory()
	}
	if all.Slots == 0 {
		all.Slots = anyNumber
	}
	return all, nil
}

// ownMemory is what the server takes at most beside requests: what runs, caches, and the garbage of both.
const ownMemory = 256 << 20

// requestRoom is what requests may take together. The garbage collector is told to keep to it, unless the environment says
// something else: it would let the heap become twice as large as what is used.
func requestRoom(c config.Config) *room.Pool {
	size, _ := config.ParseBytes(c.RequestMemory) // validated
	if size == 0 {
		size = max(64<<20, min(api.DefaultRoom, machineMemory()/8))
	}
	if os.Getenv("GOMEMLIMIT") == "" { //nolint:forbidigo // the Go runtime's own, which goes before ours
		debug.SetMemoryLimit(size + ownMemory)
	}
	return room.NewPool(size)
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
	attempts, err := s.store.Waiting(ctx, s.engine.Now(), maxQueue)
	if err != nil {
		s.log.Warn("waiting attempts could not be counted", "error", err)
	}
	return int64(len(s.executor.Running())), int64(len(attempts))
}

// python is the interpreter that tasks will get, or why the one that the server was given is of no use; both empty: there is
// none yet, and what a task asks for may be made.
func (s *Server) python(ctx context.Context) (interpreter, problem string) {
	e, err := s.resolver.Present(ctx)
	switch {
	case err == nil:
		return e.Interpreter, ""
	case s.config.Python != "":
		return "", err.Error()
	}
	return "", ""
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
