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

// tally is what the failed attempts of a task have cost so far. It knows of no node and no scope.
//
// There are two budgets, as in Flyte. The user's pays for failures of the task's own code (and those of an unknown kind): a task has
// attempts = retries + 1 by it. The system's pays for failures of the platform: an attempt is replaced so many times. Of attempt
// number n (from 0) that has just failed,
//
//	n + 1 = by the user's budget + system + outage.free
//
// so the attempts by the user's budget follow from the number and are not counted. Attempts in outage.free were paid for by neither:
// they fell into an outage that was known, or were charged for one that has ended since.
//
// Example: retries=1, system budget 3. Attempt 0 is lost with its machine (system = 1); attempt 1 raises (user's: 1 of 2); attempt 2
// finds the blob store away (system = 2, outage.charged = 1); attempts 3 and 4 find it away still (free = 2); the store comes back;
// attempt 5 finds the next outage: what the first was charged with is given back (free = 3, system = 1), and the new one is charged
// (system = 2); attempt 6 raises (user's: 2 of 2), and the node has failed.
type tally struct {
	system uint8 // attempts that the system's budget was charged with: outage.charged ≤ system
	outage outage
}

// budgets are how often a task may be tried. They are Flyte's: failures of the system are counted apart from the user's and the
// attempt is replaced so many times; by the other budget the task may have as many attempts as the user stated. Failures whose
// kind is unknown are the user's.
type budgets struct {
	attempts uint32 // by the user's budget
	replaced uint32 // by the system's
}

// failed is an attempt that failed, or that is lost: how it ended is unknown.
type failed struct {
	number      uint32
	cause       *core.ExecutionError
	recoverable bool
	failure     *aloftv1.Failure // nil: it is lost
	stopping    bool             // what contains it is ending: it may have no other attempt
}

// verdict is what follows from a failed attempt.
type verdict struct {
	budget  aloftv1.AttemptEnded_Budget
	charge  *aloftv1.AttemptCharge // NextAt is yet to be filled in where a retry follows
	retry   uint32                 // which retry follows, from 1, of those that pause for the same reason; 0: none
	aborted bool                   // a retry would follow if what contains the attempt were not ending: it did not fail, it was not let go on
	err     *core.ExecutionError   // what the task fails with, unless a retry follows or it is aborted
}

// judge decides whether another attempt follows a failed one, and which budget pays for it.
//
// A failure by a service that has a health is charged once for each outage of it: to the attempt that found the outage. A failure
// that falls into an outage which is known is not charged, and one that finds another outage, after the service had been well,
// gives back what the outages before were charged.
func (t tally) judge(f failed, b budgets) verdict {
	o := t.outage.since(f.failure)
	system := uint32(t.system) - (t.outage.charged - o.charged)
	done, most, retries := f.number+1-system-o.free, b.attempts, b.attempts-1
	budget, used := aloftv1.AttemptEnded_USER, done
	if f.cause.GetKind() == core.ExecutionError_SYSTEM {
		done, most, retries = system, b.replaced, b.replaced
		budget, used = aloftv1.AttemptEnded_SYSTEM, system+1
	}
	v := verdict{err: f.cause}
	uncharged := func(reason string) *aloftv1.AttemptCharge {
		return &aloftv1.AttemptCharge{Budget: aloftv1.AttemptEnded_NONE, Reason: reason}
	}
	switch {
	case !f.recoverable:
		v.charge = uncharged(reasonOf(f.cause) + ", not recoverable: no other attempt would help")
		return v
	case f.stopping:
		v.charge, v.aborted = uncharged(reasonOf(f.cause)+", but what contains it is ending"), true
		return v
	case spared(f.failure):
		v.budget, v.retry = aloftv1.AttemptEnded_NONE, system+o.free+1
		v.charge = uncharged(fmt.Sprintf("%s has been away since %s: not counted", f.failure.GetService(),
			timeOf(f.failure.GetServiceAwaySince()).UTC().Format(time.RFC3339)))
		return v
	}
	v.budget = budget
	v.charge = &aloftv1.AttemptCharge{Budget: budget, RetriesUsed: min(used, retries), RetriesAllowed: retries, Reason: reasonOf(f.cause)}
	switch {
	case done < most:
		v.retry = used
		if f.failure.GetService() != "" {
			v.charge.Reason = "a failure of " + f.failure.GetService()
		}
		return v
	case most > 1:
		v.charge.Reason += ", and its retries are used up"
	default:
		v.charge.Reason += ", and it has no retries"
	}
	v.err = cut(&core.ExecutionError{
		Code:    CodeRetriesExhausted + f.cause.GetCode(),
		Message: fmt.Sprintf("[%d/%d] currentAttempt done. Last Error: %s::%s", done, most, f.cause.GetKind(), f.cause.GetMessage()),
		Kind:    f.cause.GetKind(), ErrorUri: f.cause.GetErrorUri(), Timestamp: f.cause.GetTimestamp(), Worker: f.cause.GetWorker(),
	})
	return v
}

// after is the tally with an attempt that ended at that time.
func (t tally) after(at int64, f *aloftv1.Failure, budget aloftv1.AttemptEnded_Budget) tally {
	if f.GetService() != "" {
		o := t.outage.since(f)
		t.system -= uint8(t.outage.charged - o.charged)
		switch {
		case budget == aloftv1.AttemptEnded_SYSTEM:
			o.charged, o.at, o.service, o.wellAt = o.charged+1, at, f.GetService(), f.GetServiceWellAt()
		case spared(f):
			o.free++
		}
		t.outage = o
	}
	if budget == aloftv1.AttemptEnded_SYSTEM {
		t.system++
	}
	return t
}

// retryOrFail ends a failed attempt and schedules the next one, or fails the node when there is no next one.
func (t *step) retryOrFail(x *attemptEnded, cause *core.ExecutionError, recoverable bool) error {
	i := x.body.GetNode()
	v := t.tally(i).judge(
		failed{number: x.body.GetAttempt(), cause: cause, recoverable: recoverable, failure: x.body.GetFailure(), stopping: !t.mayRetry(i)},
		budgets{attempts: t.spec(i).maxAttempts, replaced: t.facts.Policy().systemRetries()},
	)
	plan := attemptPlan{memory: t.scopeOf(i).memories[t.node(i).attempt]}
	if v.retry > 0 {
		plan = t.planRetry(i, cause, plan.memory, v.retry)
		v.charge.NextAt = max(plan.notBefore, t.at)
	}
	x.body.Charge, x.body.Budget = v.charge, v.budget
	if err := t.decide(&x.event); err != nil {
		return err
	}
	switch {
	case v.aborted:
		return t.decide(nodeAborted(t.at, i, t.reason()))
	case v.retry > 0:
		return t.schedule(i, plan)
	}
	return t.fail(i, v.err)
}

// tally is that of a node.
func (s *State) tally(i uint32) tally {
	return tally{system: s.node(i).systemFailures, outage: s.scopeOf(i).outages[i]}
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
	if pause := policy.pause(name, cause, retry, t.chance(i, t.latest(i).number)); pause > 0 {
		n.notBefore = after(t.at, pause)
	}
	had := cmp.Or(memory, max(spec.stable.GetMemoryLimit(), spec.stable.GetMemory()))
	if more := policy.more(name, cause, had); more > had {
		n.memory = more
	}
	return n
}

// outage is what the failures of services with a health have cost a task.
type outage struct {
	charged uint32 // attempts that the system's budget was charged with for a service
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
