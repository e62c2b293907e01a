package machine

import (
	"cmp"
	"math"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Policy is what the people who run a server want of every execution. It is a fact: what follows from it is written into
// the events that it leads to, so that a change of it reaches attempts and executions that begin afterwards, and no others.
type Policy struct {
	Timeout          time.Duration // for attempts of tasks that state none; 0: none
	QueueTimeout     time.Duration // from when an attempt may start until it runs; 0: none
	ExecutionTimeout time.Duration // from an execution's start to its end; 0: none
	Retries          []aloft.RetryPolicy
	SystemRetries    aloft.SystemRetries // where Retries says nothing of a failure of the system
}

// systemRetries is how often a node's attempts are replaced that the system failed.
func (p *Policy) systemRetries() uint32 { return cmp.Or(p.SystemRetries.Max, maxSystemFailures) }

// timeout is how long an attempt of a node may run. A sleep is bounded by what its author says alone: it ends by itself.
func (p *Policy) timeout(spec *nodeSpec) time.Duration {
	if spec.timeout > 0 || spec.byEngine != "" {
		return spec.timeout
	}
	return p.Timeout
}

// pause is how long the retry of a task waits: as the first policy says that is about the failure and about pauses.
func (p *Policy) pause(task string, cause *core.ExecutionError, retry uint32, chance float64) time.Duration {
	for _, r := range p.Retries {
		if r.Backoff > 0 && r.Matches(task, cause.GetKind().String(), cause.GetCode()) {
			return r.Pause(retry, chance)
		}
	}
	if cause.GetKind() == core.ExecutionError_SYSTEM {
		return p.SystemRetries.Pause(retry, chance)
	}
	return 0
}

// more is the memory for the attempt after one that died with so many bytes: as the first policy says that is about the
// failure and about memory.
func (p *Policy) more(task string, cause *core.ExecutionError, bytes int64) int64 {
	if cause.GetCode() != CodeOutOfMemory {
		return bytes
	}
	for _, r := range p.Retries {
		if r.Memory > 0 && r.Matches(task, cause.GetKind().String(), cause.GetCode()) {
			return r.More(bytes)
		}
	}
	return bytes
}

// after is a time plus a duration, and the end of time where that is later.
func after(at int64, d time.Duration) int64 { return at + min(int64(d), math.MaxInt64-at) }
