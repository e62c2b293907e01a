package api

import (
	"context"

	"connectrpc.com/connect"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/recovery/job"
	"github.com/aloft-dev/aloft/store"
)

// Recoveries serves aloft.v1.RecoveryService: recoveries of many executions.
type Recoveries struct {
	Jobs *job.Jobs
}

// PlanRecovery says what a recovery job would do, without creating it.
func (r *Recoveries) PlanRecovery(ctx context.Context, request *aloftv1.PlanRecoveryRequest) (*aloftv1.PlanRecoveryResponse, error) {
	return r.Jobs.Plan(ctx, request.GetSelection(), request.GetNodes())
}

// CreateRecoveryJob creates a recovery job, which the server then carries out.
func (r *Recoveries) CreateRecoveryJob(ctx context.Context, request *aloftv1.CreateRecoveryJobRequest) (*aloftv1.RecoveryJob, error) {
	return r.Jobs.Create(ctx, request)
}

// GetRecoveryJob returns a job with all of its items.
func (r *Recoveries) GetRecoveryJob(ctx context.Context, request *aloftv1.GetRecoveryJobRequest) (*aloftv1.GetRecoveryJobResponse, error) {
	found, err := r.Jobs.Store.GetRecoveryJob(ctx, request.GetName())
	if err != nil {
		return nil, err
	}
	items, err := r.Jobs.Store.RecoveryItems(ctx, request.GetName())
	if err != nil {
		return nil, err
	}
	return &aloftv1.GetRecoveryJobResponse{Job: found, Items: items}, nil
}

// defaultJobs is how many jobs are listed where no limit is given.
const defaultJobs = 100

// ListRecoveryJobs lists the jobs of a project and domain, the latest first.
func (r *Recoveries) ListRecoveryJobs(ctx context.Context, request *aloftv1.ListRecoveryJobsRequest) (*aloftv1.ListRecoveryJobsResponse, error) {
	limit := int(request.GetLimit())
	if limit == 0 {
		limit = defaultJobs
	}
	jobs, err := r.Jobs.Store.ListRecoveryJobs(ctx, request.GetProject(), request.GetDomain(), limit)
	if err != nil {
		return nil, err
	}
	return &aloftv1.ListRecoveryJobsResponse{Jobs: jobs}, nil
}

// WatchRecoveryJob sends the job whenever it has changed, until it has ended.
func (r *Recoveries) WatchRecoveryJob(ctx context.Context, request *aloftv1.WatchRecoveryJobRequest, stream *connect.ServerStream[aloftv1.RecoveryJob]) error {
	wake, cancel := r.Jobs.Store.Subscribe(store.TopicRecovery)
	defer cancel()
	for sent := int64(0); ; {
		found, err := r.sendJob(ctx, request.GetName(), sent, stream)
		if err != nil {
			return err
		}
		sent = found.GetVersion()
		if found.GetPhase() == aloftv1.RecoveryJob_ENDED {
			return nil
		}
		if err := pause(ctx, wake, watchAtMost, watchAtLeast); err != nil {
			return err
		}
	}
}

// sendJob reads a job, and sends it unless its version is the one that was sent last. It gives back the room that it took.
func (r *Recoveries) sendJob(ctx context.Context, name string, sent int64, stream *connect.ServerStream[aloftv1.RecoveryJob]) (found *aloftv1.RecoveryJob, err error) {
	defer room.Part(ctx)()
	if err := room.Again(ctx, func() error {
		found, err = r.Jobs.Store.GetRecoveryJob(ctx, name)
		return err
	}); err != nil || found.GetVersion() == sent {
		return found, err
	}
	if err := roomForAnswer(ctx, found); err != nil {
		return nil, err
	}
	return found, stream.Send(found)
}

// PauseRecoveryJob keeps a job from starting further recoveries.
func (r *Recoveries) PauseRecoveryJob(ctx context.Context, request *aloftv1.PauseRecoveryJobRequest) (*aloftv1.RecoveryJob, error) {
	return r.Jobs.Pause(ctx, request.GetName())
}

// ResumeRecoveryJob lets a paused job go on.
func (r *Recoveries) ResumeRecoveryJob(ctx context.Context, request *aloftv1.ResumeRecoveryJobRequest) (*aloftv1.RecoveryJob, error) {
	return r.Jobs.Resume(ctx, request.GetName())
}

// RemoveRecoveryJob deletes a job and its items. The executions that it created stay.
func (r *Recoveries) RemoveRecoveryJob(ctx context.Context, request *aloftv1.RemoveRecoveryJobRequest) (*aloftv1.RemoveRecoveryJobResponse, error) {
	return &aloftv1.RemoveRecoveryJobResponse{}, r.Jobs.Store.RemoveRecoveryJob(ctx, request.GetName())
}
