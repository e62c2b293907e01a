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

// unlimitedSlots is the number of slots if none is configured: cores and memory limit tasks then.
const unlimitedSlots = 1 << 20

// capacity is what all tasks may use together: what is configured, else all of this machine, or of the server's container.
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
		all.Slots = unlimitedSlots
	}
	return all, nil
}

// ownMemory is the memory that the server takes at most besides requests: running executions, caches, and garbage.
const ownMemory = 256 << 20

// requestRoom is the room of all requests together. It also sets the memory limit of the Go runtime to that plus ownMemory, unless
// GOMEMLIMIT is set: without a limit the garbage collector lets the heap become twice as large as what is in use.
func requestRoom(c config.Config) *room.Pool {
	size, _ := config.ParseBytes(c.RequestMemory) // validated
	if size == 0 {
		size = max(64<<20, min(api.DefaultRoom, machineMemory()/8))
	}
	if os.Getenv("GOMEMLIMIT") == "" { //nolint:forbidigo // a variable of the Go runtime, which takes precedence
		debug.SetMemoryLimit(size + ownMemory)
	}
	return room.NewPool(size)
}

// fallbackMemory is assumed where the memory of the machine cannot be read.
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
	if r.Slots < unlimitedSlots {
		text += fmt.Sprintf(", %d at once", r.Slots)
	}
	return text
}

// maxQueue is up to how many waiting attempts are counted.
const maxQueue = 10_000

// queue counts the attempts that this server's executor runs, and the attempts that wait for room of any executor.
func (s *Server) queue() (running, waiting int64) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	attempts, err := s.store.Waiting(ctx, s.engine.Now(), maxQueue)
	if err != nil {
		s.log.Warn("waiting attempts could not be counted", "error", err)
	}
	return int64(len(s.executor.Running())), int64(len(attempts))
}

// python is the interpreter that tasks will get, or the problem of the configured interpreter; both empty: there is none yet,
// and an environment may be made when a task needs one.
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

// environments are the environments that tasks have used so far.
func (s *Server) environments() []*aloftv1.EnvironmentInfo {
	var infos []*aloftv1.EnvironmentInfo
	for _, e := range s.resolver.Used() {
		infos = append(infos, &aloftv1.EnvironmentInfo{Interpreter: e.Interpreter, Kind: string(e.Kind), Reason: e.Reason,
			Platform: e.Platform, Digest: e.Digest, Packages: int64(len(e.Packages))})
	}
	return infos
}
