package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

var _ store.Recoveries = (*Store)(nil)

// recoveredName is the name of the execution that e recovers; NULL: none.
func recoveredName(e *store.Execution) driver.Value {
	if m := e.Spec.GetMetadata(); m.GetMode() == admin.ExecutionMetadata_RECOVERED {
		return optional(m.GetReferenceExecution().GetName())
	}
	return nil
}

// inputsDigest is the value by which executions with equal inputs are found.
func inputsDigest(e *store.Execution) driver.Value {
	if digest := e.Inputs.GetRef().GetDigest(); len(digest) > 0 {
		return digest
	}
	return empty
}

func missingJob(name string) error {
	return refuse("recovery job %s: %w", aloft.Excerpt(name), aloft.ErrNotFound)
}

func jobEnded(job *aloftv1.RecoveryJob) int64 {
	return flag(job.GetPhase() == aloftv1.RecoveryJob_ENDED)
}

var writeRecoveryItems = newBulkInsert(3, "INSERT INTO recovery_items (job, position, record)",
	"ON CONFLICT (job, position) DO UPDATE SET record = excluded.record")

func (e *encoder) items(items []*aloftv1.RecoveryItem) {
	for _, i := range items {
		e.add(nil, int64(i.GetPosition()), e.blob(i))
	}
}

// withJobNumber puts the number of the job into encoded items.
func withJobNumber(number int64, items []driver.Value) []driver.Value {
	for i := 0; i < len(items); i += 3 {
		items[i] = number
	}
	return items
}

// CreateRecoveryJob commits a job with its items.
func (s *Store) CreateRecoveryJob(ctx context.Context, job *aloftv1.RecoveryJob, items []*aloftv1.RecoveryItem) error {
	var enc, rows encoder
	enc.add(job.GetName(), job.GetSelection().GetProject(), job.GetSelection().GetDomain(), jobEnded(job), enc.blob(job))
	rows.items(items)
	if enc.err != nil || rows.err != nil {
		return fmt.Errorf("create recovery job %s: %w", job.GetName(), firstError(enc.err, rows.err))
	}
	err := s.write(ctx, 1+len(items), func(t *tx) error {
		if err := t.openSavepoint(); err != nil {
			return err
		}
		var number int64
		made, err := t.row([]any{&number}, `INSERT INTO recovery_jobs (name, project, domain, ended, version, owner, expires, record)
			VALUES (?,?,?,?,1,'',0,?) ON CONFLICT (name) DO NOTHING RETURNING number`, enc.values...)
		if err != nil {
			return err
		}
		if !made {
			return refuse("recovery job %s: %w", job.GetName(), aloft.ErrExists)
		}
		t.wake(store.TopicRecovery)
		return t.insertLater(writeRecoveryItems, withJobNumber(number, rows.values), func(int64) error { return nil })
	})
	if err == nil {
		job.Version = 1
	}
	return err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// SaveRecoveryJob commits a changed job and its changed items.
func (s *Store) SaveRecoveryJob(ctx context.Context, job *aloftv1.RecoveryJob, items []*aloftv1.RecoveryItem) error {
	var enc, rows encoder
	enc.add(jobEnded(job), enc.blob(job), job.GetName(), job.GetVersion())
	rows.items(items)
	if enc.err != nil || rows.err != nil {
		return fmt.Errorf("save recovery job %s: %w", job.GetName(), firstError(enc.err, rows.err))
	}
	err := s.write(ctx, 1+len(items), func(t *tx) error {
		if err := t.openSavepoint(); err != nil {
			return err
		}
		var number, version int64
		changed, err := t.row([]any{&number}, "UPDATE recovery_jobs SET version = version + 1, ended = ?, record = ? WHERE name = ? AND version = ? RETURNING number", enc.values...)
		if err != nil {
			return err
		}
		if !changed {
			found, err := t.row([]any{&version}, "SELECT version FROM recovery_jobs WHERE name = ?", job.GetName())
			switch {
			case err != nil:
				return err
			case !found:
				return missingJob(job.GetName())
			}
			return refuse("recovery job %s has version %d, this is version %d: %w", job.GetName(), version, job.GetVersion(), aloft.ErrConflict)
		}
		t.wake(store.TopicRecovery)
		return t.insertLater(writeRecoveryItems, withJobNumber(number, rows.values), func(int64) error { return nil })
	})
	if err == nil {
		job.Version++
	}
	return err
}

const selectJobs = "SELECT name, project, domain, ended, record, version FROM recovery_jobs "

func (s *Store) jobs(ctx context.Context, rest string, args ...any) ([]jobRow, error) {
	var jobs []jobRow
	err := s.read(ctx, true, selectJobs+rest, args, func(scan scan) error {
		var row jobRow
		var project, domain string
		var record []byte
		var ended, version int64
		if err := scan(&row.name, &project, &domain, &ended, &record, &version); err != nil {
			return err
		}
		job, err := readJob(row.name, record)
		if err != nil {
			row.unreadable = err
			phase := aloftv1.RecoveryJob_PAUSED
			if ended != 0 {
				phase = aloftv1.RecoveryJob_ENDED
			}
			job = &aloftv1.RecoveryJob{Name: row.name, Phase: phase, Reason: err.Error(),
				Selection: &aloftv1.RecoverySelection{Project: project, Domain: domain}}
		}
		row.RecoveryJob, job.Version = job, version
		jobs = append(jobs, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return jobs, nil
}

// jobRow is a job. Of one that cannot be understood, RecoveryJob has what the columns say.
type jobRow struct {
	*aloftv1.RecoveryJob
	name       string
	unreadable error
}

func readJob(name string, record []byte) (*aloftv1.RecoveryJob, error) {
	job := new(aloftv1.RecoveryJob)
	if err := unmarshal(record, job); err != nil {
		return nil, fmt.Errorf("recovery job %s: %w: %w. What it has started goes on; to recover the rest, begin another job, and remove this one (aloft recover rm %s)",
			name, aloft.ErrUnreadable, err, name)
	}
	return job, nil
}

// AcquireRecoveryJobs takes the jobs that are free or whose lease has run out. If all jobs have ended, it writes nothing.
func (s *Store) AcquireRecoveryJobs(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]*aloftv1.RecoveryJob, error) {
	open, err := s.jobs(ctx, "WHERE ended = 0 ORDER BY number LIMIT 1")
	if err != nil || len(open) == 0 {
		return nil, err
	}
	if err := s.write(ctx, 1, func(t *tx) error {
		now := nanos(now)
		if s.dialect.clock != "" {
			if _, err := t.row([]any{&now}, "SELECT "+s.dialect.clock); err != nil {
				return err
			}
		}
		renew := now + int64(ttl)/2 // a lease of which more than half is left is good as it is
		if ttl < 0 {
			renew = math.MaxInt64
		}
		_, err := t.exec("UPDATE recovery_jobs SET owner = ?, expires = ? WHERE ended = 0 AND (owner = ? AND expires <= ? OR owner = '' OR expires <= ?)",
			owner, now+int64(ttl), owner, renew, now)
		return err
	}); err != nil {
		return nil, err
	}
	mine, err := s.jobs(ctx, "WHERE ended = 0 AND owner = ? ORDER BY number", owner)
	if err != nil {
		return nil, err
	}
	mine = slices.DeleteFunc(mine, func(row jobRow) bool { return row.unreadable != nil })
	return jobsOf(mine), nil
}

func jobsOf(rows []jobRow) []*aloftv1.RecoveryJob {
	var jobs []*aloftv1.RecoveryJob
	for _, row := range rows {
		jobs = append(jobs, row.RecoveryJob)
	}
	return jobs
}

// RemoveRecoveryJob forgets a job.
func (s *Store) RemoveRecoveryJob(ctx context.Context, name string) error {
	return s.write(ctx, 2, func(t *tx) error {
		if err := t.openSavepoint(); err != nil {
			return err
		}
		var number int64
		var record []byte
		found, err := t.row([]any{&number, &record}, "SELECT number, record FROM recovery_jobs WHERE name = ?", name)
		if err != nil {
			return err
		}
		if !found {
			return missingJob(name)
		}
		job, unreadable := readJob(name, record)
		if phase := job.GetPhase(); unreadable == nil && phase != aloftv1.RecoveryJob_ENDED && phase != aloftv1.RecoveryJob_PAUSED {
			return refuse("recovery job %s goes on: pause it first (aloft recover pause %s): %w", name, name, aloft.ErrPrecondition)
		}
		t.wake(store.TopicRecovery)
		if _, err := t.exec("DELETE FROM recovery_items WHERE job = ?", number); err != nil {
			return err
		}
		_, err = t.exec("DELETE FROM recovery_jobs WHERE number = ?", number)
		return err
	})
}

// GetRecoveryJob returns one job.
func (s *Store) GetRecoveryJob(ctx context.Context, name string) (*aloftv1.RecoveryJob, error) {
	jobs, err := s.jobs(ctx, "WHERE name = ?", name)
	if err == nil && len(jobs) == 0 {
		err = withoutRefusal(missingJob(name))
	}
	if err != nil {
		return nil, err
	}
	return jobs[0].RecoveryJob, jobs[0].unreadable
}

// ListRecoveryJobs returns the latest first.
func (s *Store) ListRecoveryJobs(ctx context.Context, project, domain string, limit int) ([]*aloftv1.RecoveryJob, error) {
	jobs, err := s.jobs(ctx, "WHERE (? = '' OR project = ?) AND (? = '' OR domain = ?) ORDER BY number DESC LIMIT ?", project, project, domain, domain, limitArg(limit))
	return jobsOf(jobs), err
}

// RecoveryItems returns all items of a job by position.
func (s *Store) RecoveryItems(ctx context.Context, name string) ([]*aloftv1.RecoveryItem, error) {
	if _, err := s.GetRecoveryJob(ctx, name); err != nil && !errors.Is(err, aloft.ErrUnreadable) {
		return nil, err
	}
	var items []*aloftv1.RecoveryItem
	err := s.read(ctx, true, "SELECT i.position, i.record FROM recovery_items i JOIN recovery_jobs j ON j.number = i.job WHERE j.name = ? ORDER BY i.position", []any{name}, func(scan scan) error {
		var position int64
		var record []byte
		if err := scan(&position, &record); err != nil {
			return err
		}
		item := new(aloftv1.RecoveryItem)
		if err := unmarshal(record, item); err != nil {
			item = &aloftv1.RecoveryItem{Position: uint32(position), Phase: aloftv1.RecoveryItem_FAILED, Reason: fmt.Sprintf(
				"item %d of the job is %v: %v. Which execution it was for is not known: begin another job for those that have failed", position, aloft.ErrUnreadable, err)}
		}
		items = append(items, item)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return items, nil
}

var recoveriesOf = `SELECT e.project, e.domain, e.name, x.recovers, e.phase, e.error FROM execution_specs x JOIN executions e ON e.number = x.execution
	WHERE x.recovers IN (` + strings.TrimSuffix(strings.Repeat("?,", valuesAtOnce), ",") + ") ORDER BY e.number DESC"

// RecoveriesOf returns the executions that recover one of these, the latest first.
func (s *Store) RecoveriesOf(ctx context.Context, ids []aloft.ExecutionID) ([]store.Recovered, error) {
	wanted := make(map[aloft.ExecutionID]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	var all []store.Recovered
	for some := range slices.Chunk(ids, valuesAtOnce) {
		args := make([]any, valuesAtOnce)
		for i := range args {
			args[i] = some[min(i, len(some)-1)].Name
		}
		if err := s.read(ctx, true, recoveriesOf, args, func(scan scan) error {
			var r store.Recovered
			var phase int64
			var failure []byte
			if err := scan(&r.Recovery.Project, &r.Recovery.Domain, &r.Recovery.Name, &r.Execution.Name, &phase, &failure); err != nil {
				return err
			}
			var d decoder
			r.Phase = core.WorkflowExecution_Phase(phase)
			r.Error, _ = d.rowFailure("execution", r.Recovery, into(&d, new(core.ExecutionError), failure))
			r.Execution.Project, r.Execution.Domain = r.Recovery.Project, r.Recovery.Domain
			if wanted[r.Execution] { // another project or domain may have an execution of the same name
				all = append(all, r)
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// SucceededSince finds a later execution of the same workflow with equal inputs that succeeded.
func (s *Store) SucceededSince(ctx context.Context, id aloft.ExecutionID) (found aloft.ExecutionID, err error) {
	err = s.read(ctx, true, `SELECT e.project, e.domain, e.name FROM executions o JOIN execution_specs x ON x.execution = o.number
		JOIN execution_specs y ON y.workflow_name = x.workflow_name AND y.inputs_digest = x.inputs_digest
			AND y.workflow_project = x.workflow_project AND y.workflow_domain = x.workflow_domain
		JOIN executions e ON e.number = y.execution
		WHERE o.project = ? AND o.domain = ? AND o.name = ? AND x.inputs_digest IS NOT NULL AND y.inputs_digest IS NOT NULL
			AND y.execution > o.number AND e.phase = ? ORDER BY y.execution DESC LIMIT 1`,
		[]any{id.Project, id.Domain, id.Name, int64(core.WorkflowExecution_SUCCEEDED)},
		func(scan scan) error { return scan(&found.Project, &found.Domain, &found.Name) })
	return found, err
}
