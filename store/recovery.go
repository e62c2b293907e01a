package store

import (
	"context"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Recoveries is what package recovery/job needs: jobs with their items, and which executions recover which. The simulator has
// no jobs, so it is no part of Store; store/sqlstore has it, and storetest.RunRecoveries tests it.
//
// A server that saves a job names the version that it read, and is refused if there is a later one: of two servers that work on
// one job at once, only one can save it. The owner of a job makes nothing safer: it spares the other servers the work.
type Recoveries interface {
	// CreateRecoveryJob commits a job with its items. It sets the version. ErrExists if the name is taken.
	CreateRecoveryJob(ctx context.Context, job *aloftv1.RecoveryJob, items []*aloftv1.RecoveryItem) error

	// SaveRecoveryJob commits a changed job and its changed items, and sets the job's next version. ErrConflict if the job has
	// another version than the one that was read, ErrNotFound.
	SaveRecoveryJob(ctx context.Context, job *aloftv1.RecoveryJob, items []*aloftv1.RecoveryItem) error

	// AcquireRecoveryJobs makes owner the owner, for ttl from now, of each job that has not ended and that has no owner, has
	// this owner, or whose lease has run out. It returns these jobs in order of creation, without those that cannot be understood.
	AcquireRecoveryJobs(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]*aloftv1.RecoveryJob, error)

	// RemoveRecoveryJob forgets a job with its items; executions that it has started go on. ErrNotFound, ErrPrecondition if the
	// job has neither ended nor pauses. A job that cannot be understood can always be removed.
	RemoveRecoveryJob(ctx context.Context, name string) error

	GetRecoveryJob(ctx context.Context, name string) (*aloftv1.RecoveryJob, error) // ErrNotFound, ErrUnreadable
	// ListRecoveryJobs returns the latest first. Empty project and domain: any. A job that cannot be understood pauses, and its
	// reason says so.
	ListRecoveryJobs(ctx context.Context, project, domain string, limit int) ([]*aloftv1.RecoveryJob, error)
	// RecoveryItems returns all items of a job by position. ErrNotFound. An item that cannot be understood has failed, and its
	// reason says so.
	RecoveryItems(ctx context.Context, name string) ([]*aloftv1.RecoveryItem, error)

	// RecoveriesOf returns the executions that recover one of these, the latest first.
	RecoveriesOf(ctx context.Context, ids []aloft.ExecutionID) ([]Recovered, error)

	// SucceededSince finds an execution of the same workflow, in any version, with equal inputs, that was created after
	// this one and has succeeded: the latest; zero: none.
	SucceededSince(ctx context.Context, id aloft.ExecutionID) (aloft.ExecutionID, error)
}

// Recovered is an execution with one that recovers it.
type Recovered struct {
	Execution, Recovery aloft.ExecutionID
	Phase               core.WorkflowExecution_Phase // of Recovery
	Error               *core.ExecutionError         // of Recovery
}

// TopicRecovery wakes when a job was created or changed.
const TopicRecovery Topic = "recovery"
