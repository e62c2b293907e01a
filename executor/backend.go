package executor

import (
	"context"
	"errors"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Backend runs attempts in one place: processes on this machine, pods in a cluster.
type Backend interface {
	Kind() string             // "process", "kube"
	Place() string            // instances of the same place can reach each other's attempts
	Capacity() admission.Room // all there is, not what is free

	// Services are what the back end needs to start jobs and to keep what they leave, by the names under which its errors
	// blame them (aloft.ServiceError), each with a probe: a cheap operation that works only while the service does.
	Services() map[string]func(context.Context) error

	// Start starts a job, or attaches to it where it was started before, by this process or an earlier one. It
	// returns once the start is durable or known to be impossible: a Failure is the attempt's outcome (the task can
	// never run like this), an error means that the back end cannot do its part now and Start will be called again. Where
	// it is certain that nothing of the job was started, now or before, the error wraps ErrNotStarted.
	Start(ctx context.Context, job *Job) (*aloftv1.Failure, error)

	// Stop asks a job to end, with time to clean up, and returns at once. The job's event tells the end. Repeating Stop and
	// stopping a job that has ended are no errors; aloft.ErrNotFound says that the job was never started, or is forgotten.
	Stop(ctx context.Context, job *Job, reason string) error

	// Watch calls report for every event of jobs that Start was called for, until ctx ends. An event may come several
	// times. A job of an earlier process is stopped and forgotten unless its attempt is expected: Start is being called
	// for the expected ones, or another instance of the place has them; the others were given up.
	Watch(ctx context.Context, expected []aloft.AttemptID, report func(Event)) error

	// Forget says that the job's outcome was adopted: what is kept for finding the job again may go. Repeating it is no error.
	Forget(ctx context.Context, job *Job) error
}

// ErrNotStarted says of an error of Start that nothing of the job runs: the node may get another attempt.
var ErrNotStarted = errors.New("nothing was started")

// Event is a step of a job. Exactly one of Started, Outcome and Held is set. Everything an outcome refers to is durable. A
// failure may name the service that it is about; whether that is away is for the executor to find out.
type Event struct {
	Job     *Job
	Started *aloftv1.AttemptStarted
	Outcome *aloftv1.Outcome
	Held    error // the job is over, and what it left cannot be kept now: keeping is tried again, the job is not
}

// Job is an attempt with all that a back end must know to run it.
type Job struct {
	Key       store.AttemptKey
	ID        aloft.AttemptID
	Spec      *aloftv1.AttemptSpec
	Template  *core.TaskTemplate // as registered, with the overrides of the node applied
	Inputs    *core.LiteralMap   // with canonical URIs
	Workflow  *core.Identifier
	Envs      map[string]string // of the execution, for every task of it
	RawOutput string            // of the execution: below which prefix of an object store its tasks write files; empty: in our own store

	Waits func(reason string) // tells users why Start takes its time; nil: they are not told
}

// RawOutputPrefix is where the attempt writes its files; empty: in our own store.
// Source: flyte-execution reference 2.5.
func (j *Job) RawOutputPrefix() string {
	if j.RawOutput == "" {
		return ""
	}
	return strings.TrimSuffix(j.RawOutput, "/") + "/" + j.ID.RawOutputKey()
}

// Outcome begins the outcome message of the job.
func (j *Job) Outcome() *aloftv1.Outcome {
	return &aloftv1.Outcome{Node: string(j.Key.Node), Attempt: j.Key.Attempt, Token: j.Key.Token}
}

// Started is the message that the job runs.
func (j *Job) Started(executor string, at int64) *aloftv1.AttemptStarted {
	return &aloftv1.AttemptStarted{Node: string(j.Key.Node), Attempt: j.Key.Attempt, Token: j.Key.Token, Executor: executor, StartedAt: at}
}
