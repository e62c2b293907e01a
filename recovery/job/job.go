// Package job carries out recoveries of many executions: it selects them, plans, and moves jobs until every item has ended.
//
// It stands beside launch, which creates the recovering executions, and before store, where jobs and items are rows.
// recovery.Batch, which is pure, decides what a job does next; this package reads, saves the decision, and then acts on it:
//
//	selection ─▶ job with its items (one transaction) ─▶ pass: observe · decide · save · create executions ─▶ pass …
//
// A server may die at any point. A decision is saved before it is carried out. The name of a recovering execution follows from
// the execution that it recovers, so that a second try, by any server and for any job, finds the first. A job has one owner at
// a time, by a lease. If the owner of an expired lease saves a job, the store refuses that by the job's version.
package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery"
	"github.com/aloft-dev/aloft/store"
)

// Store is the part of the store that jobs need.
type Store interface {
	store.Recoveries
	store.Wakes
	GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error)
	ListExecutions(ctx context.Context, q store.Query) ([]*store.Execution, error)
	ListNodes(ctx context.Context, id aloft.ExecutionID, parent aloft.NodeID, all bool, q store.Query) ([]*store.Node, error)
	GetWorkflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error)
	NodeValues(ctx context.Context, id aloft.ExecutionID, nodes []aloft.NodeID) ([]*store.Node, error)
}

// Results tells whether the outputs of a finished node are lost: catalog.Catalog.
type Results interface {
	Lost(ctx context.Context, outputs *aloftv1.Literals) (problem string, err error)
}

// Launcher creates recovering executions: launch.Launcher.
type Launcher interface {
	Recover(ctx context.Context, id aloft.ExecutionID, name string, parent *core.NodeExecutionIdentifier) (aloft.ExecutionID, error)
}

// Config of Jobs. Zero values of the last three take the default.
type Config struct {
	Store    Store
	Launcher Launcher
	Results  Results
	Owner    string // of the jobs that this server works on
	Logger   *slog.Logger

	Now      func() time.Time // default: time.Now
	Poll     time.Duration    // between two reads of the phases of recoveries; default: 250 ms
	LeaseTTL time.Duration    // of a job's lease; default: 10 s
}

// Jobs creates, plans and runs recovery jobs. Safe for concurrent use; Run may be called once.
type Jobs struct {
	Config
	held map[string]heldItems // by the name of the job; used by the goroutine of Run alone
}

// heldItems are the items of a job at the version that was read or saved last.
type heldItems struct {
	version int64
	items   []*aloftv1.RecoveryItem
}

// New returns Jobs that do not run yet.
func New(config Config) *Jobs {
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Poll = cmp.Or(config.Poll, 250*time.Millisecond)
	config.LeaseTTL = cmp.Or(config.LeaseTTL, 10*time.Second)
	return &Jobs{Config: config, held: map[string]heldItems{}}
}

// startsPerPass bounds the items that begin in one pass, so that progress is saved often.
const startsPerPass = 64

// idlePoll is the time between two looks for jobs without an owner, if no wake-up comes.
const idlePoll = 2 * time.Second

// Run moves the jobs of this server until ctx ends.
func (j *Jobs) Run(ctx context.Context) error {
	wake, cancel := j.Store.Subscribe(store.TopicRecovery)
	defer cancel()
	for ctx.Err() == nil {
		pause, err := j.Pass(ctx)
		if err != nil && ctx.Err() == nil {
			j.Logger.Warn("recovery jobs do not get on", "error", err)
			pause = idlePoll
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-wake:
		}
		timer.Stop()
	}
	return nil
}

// Pass moves each job of this server once, and says how long to wait before the next pass.
func (j *Jobs) Pass(ctx context.Context) (pause time.Duration, err error) {
	jobs, err := j.Store.AcquireRecoveryJobs(ctx, j.Owner, j.Now(), j.LeaseTTL)
	if err != nil {
		return idlePoll, fmt.Errorf("acquire recovery jobs: %w", err)
	}
	mine := map[string]bool{}
	pause = idlePoll
	var errs []error
	for _, job := range jobs {
		mine[job.GetName()] = true
		again, err := j.moveJob(ctx, job)
		if err != nil {
			delete(j.held, job.GetName())
			if !errors.Is(err, errOvertaken) {
				errs = append(errs, fmt.Errorf("recovery job %s: %w", job.GetName(), err))
				continue
			}
			again = j.Poll // another call has changed the job, which is read again
		}
		pause = min(pause, again)
	}
	maps.DeleteFunc(j.held, func(name string, _ heldItems) bool { return !mine[name] })
	return pause, errors.Join(errs...)
}

// errOvertaken says that a job was changed between reading and saving it. It is a sentinel of its own, because an error of a single
// item may wrap aloft.ErrConflict, too.
var errOvertaken = errors.New("the job was changed meanwhile")

// isAway says whether a call has to be repeated: a service could not do its part, or the server is ending.
func isAway(ctx context.Context, err error) bool {
	return errors.Is(err, aloft.ErrUnavailable) || ctx.Err() != nil
}

// moveJob is one pass over one job. It creates the recoveries of starting items, reads the phases of started ones, decides
// which items begin, and saves the job.
func (j *Jobs) moveJob(ctx context.Context, job *aloftv1.RecoveryJob) (again time.Duration, err error) {
	items, err := j.items(ctx, job)
	if err != nil {
		return 0, err
	}
	b := &recovery.Batch{Job: job, Items: items}
	var changed []*aloftv1.RecoveryItem
	before := proto.CloneOf(job)

	var running []aloft.ExecutionID
	var later error // of items for which a service is away: they stay as they are, and the others go on
	for _, i := range items {
		switch i.GetPhase() {
		case aloftv1.RecoveryItem_STARTING:
			refused, err := j.start(ctx, i)
			if err != nil {
				later = fmt.Errorf("start the recovery of %s: %w", aloft.ExecutionIDOf(i.GetExecution()), err)
				if ctx.Err() != nil {
					return 0, later
				}
				continue
			}
			b.Started(i, refused)
			changed = append(changed, i)
		case aloftv1.RecoveryItem_STARTED:
			running = append(running, aloft.ExecutionIDOf(i.GetExecution()))
		}
	}
	if len(running) > 0 {
		found, err := j.Store.RecoveriesOf(ctx, running)
		if err != nil {
			return 0, err
		}
		byID := make(map[aloft.ExecutionID]store.Recovered, len(found))
		for _, r := range found {
			byID[r.Recovery] = r
		}
		for _, i := range items {
			if r, known := byID[aloft.ExecutionIDOf(i.GetRecovery())]; known && b.Observe(i, r.Phase, r.Error) {
				changed = append(changed, i)
			}
		}
	}
	now := j.Now()
	b.Advance(now) // before Pass, so that the items behind a finished canary begin in this pass
	begin, at := b.Pass(now, startsPerPass)
	if len(begin) > 0 {
		for k, f := range j.historyOfEach(ctx, begin) {
			switch i := begin[k]; {
			case f.err == nil:
				b.Begin(i, f.History, now)
				changed = append(changed, i)
			case isAway(ctx, f.err):
				later = f.err
			default:
				b.Started(i, f.err.Error())
				changed = append(changed, i)
			}
		}
		b.Advance(now)
	}
	if before.UpdatedAt = job.GetUpdatedAt(); len(changed) > 0 || !proto.Equal(before, job) {
		if err := j.Store.SaveRecoveryJob(ctx, job, changed); errors.Is(err, aloft.ErrConflict) {
			return 0, fmt.Errorf("%w: %w", errOvertaken, err)
		} else if err != nil {
			return 0, err
		}
		if job.GetPhase() != before.GetPhase() {
			j.Logger.Info("recovery job", "job", job.GetName(), "phase", job.GetPhase().String(), "reason", job.GetReason())
		}
	}
	j.held[job.GetName()] = heldItems{job.GetVersion(), items}
	switch {
	case later != nil:
		return 0, later
	case len(begin) > 0:
		return 0, nil // the next pass creates their recoveries
	case !at.IsZero():
		return min(j.Poll, max(0, at.Sub(now))), nil
	case job.GetCounts().GetRunning() > 0:
		return j.Poll, nil
	}
	return idlePoll, nil
}

func (j *Jobs) items(ctx context.Context, job *aloftv1.RecoveryJob) ([]*aloftv1.RecoveryItem, error) {
	if h, ok := j.held[job.GetName()]; ok && h.version == job.GetVersion() {
		return h.items, nil
	}
	items, err := j.Store.RecoveryItems(ctx, job.GetName())
	if err != nil {
		return nil, fmt.Errorf("read its items: %w", err)
	}
	return items, nil
}

// start creates the recovery of an item, or finds that it exists. refused says why there will never be one.
func (j *Jobs) start(ctx context.Context, i *aloftv1.RecoveryItem) (refused string, err error) {
	of, as := aloft.ExecutionIDOf(i.GetExecution()), aloft.ExecutionIDOf(i.GetRecovery())
	_, err = j.Launcher.Recover(ctx, of, as.Name, nil)
	switch {
	case errors.Is(err, aloft.ErrExists):
		there, err := j.Store.GetExecution(ctx, as)
		if err != nil {
			return "", err
		}
		if m := there.Spec.GetMetadata(); m.GetMode() != admin.ExecutionMetadata_RECOVERED || aloft.ExecutionIDOf(m.GetReferenceExecution()) != of {
			return fmt.Sprintf("there is an execution %s that does not recover it", as.Name), nil
		}
		return "", nil
	case err == nil || isAway(ctx, err):
		return "", err
	}
	return err.Error(), nil
}

// itemHistory is the history of one item, or the error of reading it.
type itemHistory struct {
	recovery.History
	err error
}

// historyOfEach reads the histories of all items at once. If that fails it reads each by itself, so that an item whose history
// cannot be read does not stop the others.
func (j *Jobs) historyOfEach(ctx context.Context, items []*aloftv1.RecoveryItem) []itemHistory {
	each := make([]itemHistory, len(items))
	all, err := j.histories(ctx, items)
	for k := range items {
		switch {
		case err == nil:
			each[k].History = all[k]
		case isAway(ctx, err):
			each[k].err = err
		default:
			one, err := j.histories(ctx, items[k:k+1])
			if each[k].err = err; err == nil {
				each[k].History = one[0]
			}
		}
	}
	return each
}

// histories reads the histories of items.
func (j *Jobs) histories(ctx context.Context, items []*aloftv1.RecoveryItem) ([]recovery.History, error) {
	ids := make([]aloft.ExecutionID, len(items))
	place := make(map[aloft.ExecutionID]int, len(items))
	for k, i := range items {
		ids[k] = aloft.ExecutionIDOf(i.GetExecution())
		place[ids[k]] = k
	}
	all := make([]recovery.History, len(items))
	found, err := j.Store.RecoveriesOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, r := range found {
		f := &all[place[r.Execution]]
		f.Recoveries = append(f.Recoveries, recovery.ExecutionPhase{ID: r.Recovery, Phase: r.Phase})
	}
	for k, id := range ids {
		if all[k].Equal, err = j.Store.SucceededSince(ctx, id); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// change reads a job, changes it and saves it, and begins again if another call or server has saved it meanwhile.
func (j *Jobs) change(ctx context.Context, name string, change func(job *aloftv1.RecoveryJob, now time.Time) error) (*aloftv1.RecoveryJob, error) {
	for {
		job, err := j.Store.GetRecoveryJob(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := change(job, j.Now()); err != nil {
			return nil, err
		}
		err = j.Store.SaveRecoveryJob(ctx, job, nil)
		if !errors.Is(err, aloft.ErrConflict) {
			return job, err
		}
	}
}

// Pause keeps a job from starting further items. ErrNotFound, ErrPrecondition.
func (j *Jobs) Pause(ctx context.Context, name string) (*aloftv1.RecoveryJob, error) {
	return j.change(ctx, name, recovery.Pause)
}

// Resume lets a job go on. ErrNotFound, ErrPrecondition.
func (j *Jobs) Resume(ctx context.Context, name string) (*aloftv1.RecoveryJob, error) {
	return j.change(ctx, name, recovery.Resume)
}

// latestRecoveries replaces each execution whose recoveries have all failed by the latest of these recoveries, and does the
// same with that. Each execution is in the result once.
func (j *Jobs) latestRecoveries(ctx context.Context, selected []recovery.FailedExecution) ([]recovery.FailedExecution, error) {
	ask := make([]int, len(selected))
	for k := range ask {
		ask[k] = k
	}
	for len(ask) > 0 {
		ids := make([]aloft.ExecutionID, len(ask))
		for n, k := range ask {
			ids[n] = selected[k].ID
		}
		found, err := j.Store.RecoveriesOf(ctx, ids)
		if err != nil {
			return nil, err
		}
		of := map[aloft.ExecutionID][]store.Recovered{}
		for _, r := range found {
			of[r.Execution] = append(of[r.Execution], r)
		}
		var next []int
		for _, k := range ask {
			all := of[selected[k].ID]
			settled := slices.ContainsFunc(all, func(r store.Recovered) bool {
				return r.Phase == core.WorkflowExecution_SUCCEEDED || !aloft.Terminal(r.Phase)
			})
			if len(all) > 0 && !settled {
				selected[k] = recovery.FailedExecution{ID: all[0].Recovery, Error: all[0].Error}
				next = append(next, k)
			}
		}
		ask = next
	}
	seen := map[aloft.ExecutionID]bool{}
	return slices.DeleteFunc(selected, func(f recovery.FailedExecution) bool {
		again := seen[f.ID]
		seen[f.ID] = true
		return again
	}), nil
}
