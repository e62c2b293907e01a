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

// Failed is an execution that may be recovered.
type Failed struct {
	ID    aloft.ExecutionID
	Error *core.ExecutionError // nil: it was aborted
}

// Batch is a job with all of its items, and its state machine: facts in, changed items out. Whoever carries it out saves what
// changed before it acts on it.
//
//	item: waiting ──▶ starting ──▶ started ──▶ succeeded │ failed
//	         └─▶ skipped     └─▶ failed (it cannot be created)
//
//	job:  canary ──▶ running ──▶ ended          paused ⇄ either
type Batch struct {
	Job   *aloftv1.RecoveryJob
	Items []*aloftv1.RecoveryItem // by position
}

// Group finds the causes of failures, those with most executions first, and orders the executions so that the first ones have
// different causes: a canary is to be of all kinds.
func Group(all []Failed) (causes []*aloftv1.RecoveryCause, items []*aloftv1.RecoveryItem) {
	byCause := map[Cause][]Failed{}
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

// NewBatch is a job that has not begun. The job has its name and what was asked for.
func NewBatch(job *aloftv1.RecoveryJob, all []Failed, now time.Time) *Batch {
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

// RecoveryName is the name of the execution with which a batch recovers another: the same for all jobs, so that no two of
// them, and no two servers, ever recover it twice.
func RecoveryName(of aloft.ExecutionID) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	digest := sha256.Sum256([]byte("recovery of " + of.String()))
	name := []byte{'r'}
	for _, b := range digest[:19] {
		name = append(name, alphabet[int(b)%len(alphabet)])
	}
	return string(name)
}

// Pass is what may be begun now: waiting items, in order, and when there may be more although nothing else happens (zero: not
// before something has ended). Limit bounds their number.
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
		allowed = 1 // one at a time: then the rate holds over any time
		if rate > 1 {
			allowed = int(rate) // or a second's worth
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

// begun counts what was not skipped.
func (b *Batch) begun() int {
	n := 0
	for _, i := range b.Items {
		if i.GetPhase() != aloftv1.RecoveryItem_WAITING && i.GetPhase() != aloftv1.RecoveryItem_SKIPPED {
			n++
		}
	}
	return n
}

// Facts are what is known of an execution when its turn comes.
type Facts struct {
	Recoveries []Known           // executions that recover it
	Equal      aloft.ExecutionID // one that did the same with equal inputs later, and succeeded; zero: none
}

// Known is an execution and its phase.
type Known struct {
	ID    aloft.ExecutionID
	Phase core.WorkflowExecution_Phase
}

// Skip says why an execution is not recovered; empty: it is.
func (f Facts) Skip() string {
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

// Begin decides a waiting item: it is starting under its one name, or skipped. Nothing is done before that is saved.
func (b *Batch) Begin(i *aloftv1.RecoveryItem, facts Facts, now time.Time) {
	if reason := facts.Skip(); reason != "" {
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

// Started notes that the recovering execution of a starting item exists, or why it never will.
func (b *Batch) Started(i *aloftv1.RecoveryItem, refused string) {
	i.Phase, i.Reason = aloftv1.RecoveryItem_STARTED, refused
	if refused != "" {
		i.Phase = aloftv1.RecoveryItem_FAILED
	}
}

// Observe notes the phase of the execution of a started item and says whether that changed the item.
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

// Advance counts, and moves the job: the canary is judged when all of it has ended, the job ends with its last item.
func (b *Batch) Advance(now time.Time) {
	job := b.Job
	job.Counts = &aloftv1.RecoveryCounts{}
	for _, c := range job.GetCauses() {
		c.Counts = &aloftv1.RecoveryCounts{}
	}
	for _, i := range b.Items {
		count(job.GetCounts(), i)
		count(job.GetCauses()[i.GetCause()].GetCounts(), i)
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

func count(n *aloftv1.RecoveryCounts, i *aloftv1.RecoveryItem) {
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

// Pause stops new starts. A job that pauses already keeps its reason. ErrPrecondition if it has ended.
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

// Resume lets a job go on where it paused: in its canary, unless that has been judged. ErrPrecondition if it has ended.
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
