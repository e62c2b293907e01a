package recovery

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// FailedExecution is an execution that has failed or was aborted, and may be recovered.
type FailedExecution struct {
	ID    aloft.ExecutionID
	Error *core.ExecutionError // nil: the execution was aborted
}

// Batch is a recovery job with all of its items, and its state machine. Its methods take facts and change the items and the
// job. Package recovery/job saves what has changed before it acts on it.
//
//	item: waiting ──▶ starting ──▶ started ──▶ succeeded │ failed
//	         └─▶ skipped     └─▶ failed (the recovery cannot be created)
//
//	job:  canary ──▶ running ──▶ ended          paused ⇄ canary or running
//
// While an item is starting, its recovery may exist or not: a server may have died in between. Starting it again finds the
// recovery by its name (RecoveryName), so an execution is recovered once. In all phases
//
//	waiting + running + succeeded + failed + skipped = number of items,   running = starting + started
//
// For example, a job with canary 3 of 100 items starts 3 items. When all three have ended and one has failed, the job pauses,
// with 97 waiting; Resume lets it run the rest.
type Batch struct {
	Job   *aloftv1.RecoveryJob
	Items []*aloftv1.RecoveryItem // by position
}

// Group finds the causes of failures, the cause with most executions first, and orders the executions so that the first ones have
// different causes: a canary should contain all causes.
func Group(all []FailedExecution) (causes []*aloftv1.RecoveryCause, items []*aloftv1.RecoveryItem) {
	byCause := map[Cause][]FailedExecution{}
	var order []Cause
	for _, f := range all {
		c := Cause{Message: "aborted"}
		if f.Error != nil {
			c = CauseOf(f.Error)
		}
		if byCause[c] == nil {
			order = append(order, c)
		}
		byCause[c] = append(byCause[c], f)
	}
	slices.SortStableFunc(order, func(a, b Cause) int { return len(byCause[b]) - len(byCause[a]) })
	for _, c := range order {
		causes = append(causes, &aloftv1.RecoveryCause{Code: c.Code, Message: c.Message, Executions: uint32(len(byCause[c])), Example: byCause[c][0].ID.Proto()})
	}
	for turn := 0; len(items) < len(all); turn++ {
		for i, c := range order {
			if turn < len(byCause[c]) {
				items = append(items, &aloftv1.RecoveryItem{Position: uint32(len(items)), Execution: byCause[c][turn].ID.Proto(), Cause: uint32(i)})
			}
		}
	}
	return causes, items
}

// NewBatch is the batch of a new job, whose name, selection, canary and rate are set.
func NewBatch(job *aloftv1.RecoveryJob, all []FailedExecution, now time.Time) *Batch {
	b := &Batch{Job: job}
	job.Causes, b.Items = Group(all)
	job.CreatedAt = timestamppb.New(now)
	job.Phase, job.CanaryOver = aloftv1.RecoveryJob_RUNNING, true
	if job.GetCanary() > 0 {
		job.Phase, job.CanaryOver = aloftv1.RecoveryJob_CANARY, false
	}
	b.Advance(now)
	return b
}

// RecoveryName is the name of the execution with which a batch recovers another one. It is the same for all jobs, so that two
// jobs, or two servers, never recover an execution twice.
func RecoveryName(of aloft.ExecutionID) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	digest := sha256.Sum256([]byte("recovery of " + of.String()))
	name := []byte{'r'}
	for _, b := range digest[:19] {
		name = append(name, alphabet[int(b)%len(alphabet)])
	}
	return string(name)
}

// Pass returns the waiting items that may begin now, in order and at most limit, and the time from which on the rate lets more
// begin (zero: more may begin only after an item has ended).
func (b *Batch) Pass(now time.Time, limit int) (begin []*aloftv1.RecoveryItem, again time.Time) {
	switch b.Job.GetPhase() {
	case aloftv1.RecoveryJob_CANARY:
		limit = min(limit, int(b.Job.GetCanary())-b.begun())
	case aloftv1.RecoveryJob_RUNNING:
	default:
		return nil, time.Time{}
	}
	allowed := math.MaxInt
	if rate := b.Job.GetRate(); rate > 0 {
		next := time.Unix(0, b.Job.GetNextStartAt())
		if now.Before(next) {
			return nil, next
		}
		allowed = 1 // one at a time, so that the rate holds over any time
		if rate > 1 {
			allowed = int(rate) // as many as in a second
		}
	}
	for _, i := range b.Items {
		if len(begin) >= min(limit, allowed) {
			break
		}
		if i.GetPhase() == aloftv1.RecoveryItem_WAITING {
			begin = append(begin, i)
		}
	}
	return begin, time.Time{}
}

// begun counts the items that have begun and were not skipped.
func (b *Batch) begun() int {
	n := 0
	for _, i := range b.Items {
		if i.GetPhase() != aloftv1.RecoveryItem_WAITING && i.GetPhase() != aloftv1.RecoveryItem_SKIPPED {
			n++
		}
	}
	return n
}

// History has the other executions that decide whether an item is skipped. It is read when the item may begin.
type History struct {
	Recoveries []ExecutionPhase  // executions that recover or have recovered the item's execution
	Equal      aloft.ExecutionID // a later execution of the same version with equal inputs that succeeded; zero: none
}

// ExecutionPhase is an execution and its phase.
type ExecutionPhase struct {
	ID    aloft.ExecutionID
	Phase core.WorkflowExecution_Phase
}

// Skip says why an execution is not recovered; empty: it is recovered.
func (f History) Skip() string {
	for _, r := range f.Recoveries {
		switch {
		case r.Phase == core.WorkflowExecution_SUCCEEDED:
			return fmt.Sprintf("execution %s has recovered it", r.ID.Name)
		case !aloft.Terminal(r.Phase):
			return fmt.Sprintf("execution %s is recovering it", r.ID.Name)
		}
	}
	if len(f.Recoveries) > 0 {
		return fmt.Sprintf("execution %s has tried to recover it meanwhile and ended %s: recover that one", f.Recoveries[0].ID.Name, f.Recoveries[0].Phase)
	}
	if f.Equal != (aloft.ExecutionID{}) {
		return fmt.Sprintf("execution %s has succeeded with equal inputs since", f.Equal.Name)
	}
	return ""
}

// Begin moves a waiting item to starting, with the name of its recovery, or to skipped. The recovery must not be created before
// that is saved.
func (b *Batch) Begin(i *aloftv1.RecoveryItem, history History, now time.Time) {
	if reason := history.Skip(); reason != "" {
		i.Phase, i.Reason = aloftv1.RecoveryItem_SKIPPED, reason
		return
	}
	of := aloft.ExecutionIDOf(i.GetExecution())
	i.Phase = aloftv1.RecoveryItem_STARTING
	i.Recovery = aloft.ExecutionID{Project: of.Project, Domain: of.Domain, Name: RecoveryName(of)}.Proto()
	if rate := b.Job.GetRate(); rate > 0 {
		b.Job.NextStartAt = max(b.Job.GetNextStartAt(), now.UnixNano()) + int64(float64(time.Second)/rate)
	}
}

// Started moves a starting item to started, because its recovery exists, or to failed: then refused says why there will never
// be one.
func (b *Batch) Started(i *aloftv1.RecoveryItem, refused string) {
	i.Phase, i.Reason = aloftv1.RecoveryItem_STARTED, refused
	if refused != "" {
		i.Phase = aloftv1.RecoveryItem_FAILED
	}
}

// Observe takes the phase of the recovery of a started item, and says whether that changed the item: only a terminal phase does.
func (b *Batch) Observe(i *aloftv1.RecoveryItem, phase core.WorkflowExecution_Phase, failure *core.ExecutionError) bool {
	if i.GetPhase() != aloftv1.RecoveryItem_STARTED || !aloft.Terminal(phase) {
		return false
	}
	if phase == core.WorkflowExecution_SUCCEEDED {
		i.Phase = aloftv1.RecoveryItem_SUCCEEDED
		return true
	}
	i.Phase, i.Reason = aloftv1.RecoveryItem_FAILED, phase.String()
	if failure != nil {
		c := CauseOf(failure)
		i.Reason = c.Code + ": " + c.Message
	}
	return true
}

// Advance counts the items by phase and moves the job: when all items of the canary have ended, the job runs or pauses; when
// all items have ended, the job ends.
func (b *Batch) Advance(now time.Time) {
	job := b.Job
	job.Counts = &aloftv1.RecoveryCounts{}
	for _, c := range job.GetCauses() {
		c.Counts = &aloftv1.RecoveryCounts{}
	}
	for _, i := range b.Items {
		countItem(job.GetCounts(), i)
		countItem(job.GetCauses()[i.GetCause()].GetCounts(), i)
	}
	job.UpdatedAt = timestamppb.New(now)
	n := job.GetCounts()
	if !job.GetCanaryOver() && n.GetRunning() == 0 && (b.begun() >= int(job.GetCanary()) || n.GetWaiting() == 0) {
		job.CanaryOver = true
		if n.GetFailed() > 0 && n.GetWaiting() > 0 {
			b.pause(fmt.Sprintf("%d of %d in the canary failed, the first with %s. Look at them; resume starts the other %d all the same",
				n.GetFailed(), n.GetFailed()+n.GetSucceeded(), b.firstFailure(), n.GetWaiting()))
		} else if job.GetPhase() == aloftv1.RecoveryJob_CANARY {
			job.Phase = aloftv1.RecoveryJob_RUNNING
		}
	}
	if n.GetWaiting()+n.GetRunning() == 0 && job.GetPhase() != aloftv1.RecoveryJob_ENDED {
		job.Phase, job.Reason, job.EndedAt = aloftv1.RecoveryJob_ENDED, "", timestamppb.New(now)
	}
}

func countItem(n *aloftv1.RecoveryCounts, i *aloftv1.RecoveryItem) {
	switch i.GetPhase() {
	case aloftv1.RecoveryItem_WAITING:
		n.Waiting++
	case aloftv1.RecoveryItem_STARTING, aloftv1.RecoveryItem_STARTED:
		n.Running++
	case aloftv1.RecoveryItem_SUCCEEDED:
		n.Succeeded++
	case aloftv1.RecoveryItem_FAILED:
		n.Failed++
	case aloftv1.RecoveryItem_SKIPPED:
		n.Skipped++
	}
}

func (b *Batch) firstFailure() string {
	for _, i := range b.Items {
		if i.GetPhase() == aloftv1.RecoveryItem_FAILED {
			return fmt.Sprintf("%s (execution %s)", i.GetReason(), i.GetRecovery().GetName())
		}
	}
	return "nothing"
}

func (b *Batch) pause(reason string) {
	b.Job.Phase, b.Job.Reason = aloftv1.RecoveryJob_PAUSED, reason
}

var errEnded = errors.New("the job has ended")

// Pause keeps a job from starting further items. A job that is paused already keeps its reason. ErrPrecondition if it has ended.
func Pause(job *aloftv1.RecoveryJob, now time.Time) error {
	switch job.GetPhase() {
	case aloftv1.RecoveryJob_ENDED:
		return fmt.Errorf("pause %s: %w: %w", job.GetName(), errEnded, aloft.ErrPrecondition)
	case aloftv1.RecoveryJob_PAUSED:
		return nil
	}
	job.Phase, job.Reason, job.UpdatedAt = aloftv1.RecoveryJob_PAUSED, "as asked", timestamppb.New(now)
	return nil
}

// Resume lets a paused job go on: in its canary, unless all items of the canary have ended. ErrPrecondition if the job has ended.
func Resume(job *aloftv1.RecoveryJob, now time.Time) error {
	switch job.GetPhase() {
	case aloftv1.RecoveryJob_ENDED:
		return fmt.Errorf("resume %s: %w: %w", job.GetName(), errEnded, aloft.ErrPrecondition)
	case aloftv1.RecoveryJob_PAUSED:
		job.Phase, job.Reason, job.UpdatedAt = aloftv1.RecoveryJob_RUNNING, "", timestamppb.New(now)
		if !job.GetCanaryOver() {
			job.Phase = aloftv1.RecoveryJob_CANARY
		}
	}
	return nil
}
