package machine

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// maxSystemFailures is how often an attempt is replaced that failed through no fault of the user's, unless the policy says.
const maxSystemFailures = 3

// retryOrFail ends a failed attempt and schedules the next one, or fails the node when there is no next one.
//
// The budgets are Flyte's: failures of the system are counted apart from the user's and replaced maxSystemFailures times;
// of the others the node may have as many attempts as the user stated. Failures whose kind is unknown are the user's.
//
// A failure by a service that has a health is charged once for each outage of it: to the attempt that found the outage. A failure
// that falls into an outage which is known is not charged, and one that finds another outage, after the service had been well,
// gives back what the outages before were charged.
func (t *step) retryOrFail(x *attemptEnded, cause *core.ExecutionError, recoverable bool) error {
	i := x.body.GetNode()
	o := t.outages[i].since(x.body.GetFailure())
	system := uint32(t.nodes[i].systemFailures) - (t.outages[i].charged - o.charged)
	done, most, retries := x.body.GetAttempt()+1-system-o.free, t.spec(i).maxAttempts, t.spec(i).maxAttempts-1
	budget, used := aloftv1.AttemptEnded_USER, done
	if cause.GetKind() == core.ExecutionError_SYSTEM {
		limit := t.facts.Policy().systemRetries()
		done, most, retries = system, limit, limit
		budget, used = aloftv1.AttemptEnded_SYSTEM, system+1
	}
	stopping := !t.mayRetry(i)
	charge := &aloftv1.AttemptCharge{Budget: budget, RetriesUsed: min(used, retries), RetriesAllowed: retries, Reason: reasonOf(cause)}
	x.body.Charge = charge
	n := attemptPlan{memory: t.memory[t.nodes[i].attempt]}
	switch {
	case !recoverable:
		charge.Budget, charge.RetriesUsed, charge.RetriesAllowed = aloftv1.AttemptEnded_NONE, 0, 0
		charge.Reason += ", not recoverable: no other attempt would help"
	case stopping:
		charge.Budget, charge.RetriesUsed, charge.RetriesAllowed = aloftv1.AttemptEnded_NONE, 0, 0
		charge.Reason += ", but what contains it is ending"
	case spared(x.body.GetFailure()):
		budget = aloftv1.AttemptEnded_NONE
		charge.Budget, charge.RetriesUsed, charge.RetriesAllowed = budget, 0, 0
		charge.Reason = fmt.Sprintf("%s has been away since %s: not counted", x.body.GetFailure().GetService(),
			timeOf(x.body.GetFailure().GetServiceAwaySince()).UTC().Format(time.RFC3339))
		n = t.planRetry(i, cause, n.memory, system+o.free+1)
		charge.NextAt = max(n.notBefore, t.at)
	case done < most:
		if x.body.GetFailure().GetService() != "" {
			charge.Reason = "a failure of " + x.body.GetFailure().GetService()
		}
		n = t.planRetry(i, cause, n.memory, used)
		charge.NextAt = max(n.notBefore, t.at)
	case most > 1:
		charge.Reason += ", and its retries are used up"
	default:
		charge.Reason += ", and it has no retries"
	}
	if recoverable && !stopping {
		x.body.Budget = budget
	}
	if err := t.decide(&x.event); err != nil {
		return err
	}
	switch {
	case recoverable && stopping: // it would have had another attempt: it did not fail, it was not let go on
		return t.decide(nodeAborted(t.at, i, t.reason()))
	case charge.NextAt != 0:
		return t.schedule(i, n)
	case recoverable:
		cause = cut(&core.ExecutionError{
			Code:    CodeRetriesExhausted + cause.GetCode(),
			Message: fmt.Sprintf("[%d/%d] currentAttempt done. Last Error: %s::%s", done, most, cause.GetKind(), cause.GetMessage()),
			Kind:    cause.GetKind(), ErrorUri: cause.GetErrorUri(), Timestamp: cause.GetTimestamp(), Worker: cause.GetWorker(),
		})
	}
	return t.fail(i, cause)
}

// reasonOf says for which budget a failure is, and why.
func reasonOf(cause *core.ExecutionError) string {
	switch {
	case cause.GetCode() == CodeAttemptLost:
		return "nobody knows how it ended"
	case cause.GetKind() == core.ExecutionError_SYSTEM:
		return "a failure of the system (" + cause.GetCode() + ")"
	case cause.GetCode() == CodeTimeout || cause.GetCode() == CodeQueueTimeout:
		return "its time was over"
	}
	return "a failure of the task (" + cause.GetCode() + ")"
}

// attemptPlan is what sets an attempt apart from the one before.
type attemptPlan struct {
	notBefore  int64  // 0: at once
	memory     int64  // 0: as its node states
	checkpoint string // of an attempt of the execution that is recovered; stated with the first attempt
}

// planRetry asks the policies how long a retry waits and how much memory it gets. Attempts of the engine need neither.
func (t *step) planRetry(i uint32, cause *core.ExecutionError, memory int64, retry uint32) attemptPlan {
	spec, policy := t.spec(i), t.facts.Policy()
	n := attemptPlan{memory: memory}
	if spec.byEngine != "" {
		return n
	}
	name := spec.task.GetId().GetName()
	if pause := policy.pause(name, cause, retry, t.chance(i, t.attempts[t.nodes[i].attempt].number)); pause > 0 {
		n.notBefore = after(t.at, pause)
	}
	had := cmp.Or(memory, max(spec.stable.GetMemoryLimit(), spec.stable.GetMemory()))
	if more := policy.more(name, cause, had); more > had {
		n.memory = more
	}
	return n
}

// outage is what the failures of services with a health have cost a node.
type outage struct {
	charged uint32 // system failures of the node by services
	free    uint32 // attempts that are charged to neither budget

	// The last one that was charged.
	at      int64  // when, by the clock of the run
	service string // whose it was
	wellAt  int64  // when that had been well before, by the clock of those who ask services
}

// since is the outage with what still counts of it when a failure comes: what was charged is given back if the service was well
// since. That is told by the times at which it was well: the clock of the run may be ahead of theirs. Those of another service
// say only as much as the two clocks agree.
func (o outage) since(f *aloftv1.Failure) outage {
	well := o.at
	if f.GetService() == o.service {
		well = o.wellAt
	}
	if f.GetService() != "" && o.charged > 0 && f.GetServiceWellAt() > well {
		o.free, o.charged = o.free+o.charged, 0
	}
	return o
}

// spared says whether a failure fell into an outage that is known, and so is not charged.
func spared(f *aloftv1.Failure) bool {
	return f.GetService() != "" && f.GetServiceAwaySince() != 0 && f.GetRecoverable()
}

// chance is a number from 0 to 1 for the retry after an attempt: different for each, and the same for ever.
func (s *State) chance(i, attempt uint32) float64 {
	token := s.tokenOf(i, attempt)
	sum := sha256.Sum256(append([]byte("retry/"), token[:]...))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}
