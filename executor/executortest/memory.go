package executortest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Memory is a place in memory. Its jobs do what the command in their template says: one word of succeed, fail, wait and
// impossible; no command means wait. They outlive its back ends, as they would a server.
type Memory struct {
	Room admission.Room // capacity of its back ends
	// Fault is asked before each call (start, stop, forget) of a back end; an error is the call's. Set it before use.
	Fault func(op string, job *executor.Job) error
	// Needs are the services of its back ends. Set it before use.
	Needs map[string]func(context.Context) error

	mu       sync.Mutex
	jobs     map[store.AttemptKey]*memoryJob
	starts   map[aloft.AttemptID]int
	released map[aloft.AttemptID]bool
	backends map[*memoryBackend]bool
}

type memoryJob struct {
	id      aloft.AttemptID
	started *aloftv1.AttemptStarted
	outcome *aloftv1.Outcome // nil: it runs
}

// NewMemory makes a place with room for eight jobs.
func NewMemory() *Memory {
	return &Memory{
		Room: admission.Room{MilliCPU: 8000, Memory: 8 << 30, Slots: 8},
		jobs: map[store.AttemptKey]*memoryJob{}, starts: map[aloft.AttemptID]int{}, released: map[aloft.AttemptID]bool{},
		backends: map[*memoryBackend]bool{},
	}
}

// Open makes a back end.
func (m *Memory) Open(*testing.T) executor.Backend {
	b := &memoryBackend{place: m, jobs: map[store.AttemptKey]*executor.Job{}, wake: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.backends[b] = true
	return b
}

// Job makes a job of the suite.
func (m *Memory) Job(_ *testing.T, name string, does Does) *executor.Job {
	id := aloft.AttemptID{Execution: aloft.ExecutionID{Project: "p", Domain: "d", Name: "e"}, Node: aloft.NodeID(name)}
	word := map[Does]string{Succeed: "succeed", Fail: "fail", Wait: "wait", Impossible: "impossible"}[does]
	return &executor.Job{
		Key: store.AttemptKey{Execution: 1, Node: id.Node, Token: "token-" + name}, ID: id, Spec: &aloftv1.AttemptSpec{},
		Template: &core.TaskTemplate{Target: &core.TaskTemplate_Container{Container: &core.Container{Command: []string{word}}}},
	}
}

// Release lets a waiting job end.
func (m *Memory) Release(_ *testing.T, job *executor.Job) { m.ReleaseID(job.ID) }

// ReleaseID is Release for who has no job.
func (m *Memory) ReleaseID(id aloft.AttemptID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.released[id] = true
	for key, j := range m.jobs {
		if j.outcome == nil && j.id == id {
			m.end(key, succeeded)
		}
	}
}

// Starts is how often a job began.
func (m *Memory) Starts(_ *testing.T, job *executor.Job) int { return m.StartsID(job.ID) }

// StartsID is Starts for who has no job.
func (m *Memory) StartsID(id aloft.AttemptID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts[id]
}

// Alive says whether a job runs.
func (m *Memory) Alive(_ *testing.T, job *executor.Job) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[job.Key]
	return j != nil && j.outcome == nil
}

// Known is how many jobs are there, running or ended, that were not forgotten.
func (m *Memory) Known() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.jobs)
}

// Running are the attempts that run, as execution/node, sorted.
func (m *Memory) Running() (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		if j.outcome == nil {
			ids = append(ids, j.id.Execution.Name+"/"+string(j.id.Node))
		}
	}
	slices.Sort(ids)
	return ids
}

func succeeded(o *aloftv1.Outcome) {
	o.Result = &aloftv1.Outcome_Outputs{Outputs: &aloftv1.Literals{Value: &core.LiteralMap{Literals: map[string]*core.Literal{
		Output: {Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_NoneType{NoneType: &core.Void{}}}}},
	}}}}
}

// end ends a job and tells all back ends that know it. The lock is held.
func (m *Memory) end(key store.AttemptKey, result func(*aloftv1.Outcome)) {
	j := m.jobs[key]
	j.outcome = &aloftv1.Outcome{Node: string(key.Node), Attempt: key.Attempt, Token: key.Token, StartedAt: j.started.StartedAt, EndedAt: time.Now().UnixNano()}
	result(j.outcome)
	for b := range m.backends {
		if job := b.jobs[key]; job != nil {
			b.tell(executor.Event{Job: job, Outcome: j.outcome})
		}
	}
}

// memoryBackend is one back end of a place. The place's lock guards it.
type memoryBackend struct {
	place *Memory
	jobs  map[store.AttemptKey]*executor.Job // that Start was called for
	queue []executor.Event
	wake  chan struct{}
}

func (b *memoryBackend) Kind() string             { return "memory" }
func (b *memoryBackend) Place() string            { return "memory" }
func (b *memoryBackend) Capacity() admission.Room { return b.place.Room }

func (b *memoryBackend) Services() map[string]func(context.Context) error { return b.place.Needs }

// Close is the end of the back end.
func (b *memoryBackend) Close() error {
	b.place.mu.Lock()
	defer b.place.mu.Unlock()
	delete(b.place.backends, b)
	return nil
}

func (b *memoryBackend) tell(e executor.Event) {
	b.queue = append(b.queue, e)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *memoryBackend) fault(op string, job *executor.Job) error {
	if b.place.Fault == nil {
		return nil
	}
	return b.place.Fault(op, job)
}

func (b *memoryBackend) Start(_ context.Context, job *executor.Job) (*aloftv1.Failure, error) {
	if err := b.fault("start", job); err != nil {
		return nil, err
	}
	word := "wait"
	if command := job.Template.GetContainer().GetCommand(); len(command) > 0 {
		word = command[0]
	}
	if word == "impossible" {
		return executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat, "it says that it is impossible"), nil
	}
	m := b.place
	m.mu.Lock()
	defer m.mu.Unlock()
	b.jobs[job.Key] = job
	if j := m.jobs[job.Key]; j != nil {
		b.tell(executor.Event{Job: job, Started: j.started})
		if j.outcome != nil {
			b.tell(executor.Event{Job: job, Outcome: j.outcome})
		}
		return nil, nil
	}
	j := &memoryJob{id: job.ID, started: job.Started("", time.Now().UnixNano())}
	m.jobs[job.Key] = j
	m.starts[job.ID]++
	b.tell(executor.Event{Job: job, Started: j.started})
	switch {
	case word == "fail":
		m.end(job.Key, func(o *aloftv1.Outcome) {
			o.Result = &aloftv1.Outcome_Failure{Failure: executor.NewFailure(core.ExecutionError_USER, true, executor.CodeExited, "it says that it fails")}
		})
	case word == "succeed" || m.released[job.ID]:
		m.end(job.Key, succeeded)
	}
	return nil, nil
}

func (b *memoryBackend) Stop(_ context.Context, job *executor.Job, reason string) error {
	if err := b.fault("stop", job); err != nil {
		return err
	}
	m := b.place
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[job.Key]
	switch {
	case j == nil:
		return fmt.Errorf("job %s: %w", job.ID, aloft.ErrNotFound)
	case j.outcome == nil:
		m.end(job.Key, func(o *aloftv1.Outcome) { o.Result = &aloftv1.Outcome_Stopped{Stopped: reason} })
	}
	return nil
}

func (b *memoryBackend) Watch(ctx context.Context, expected []aloft.AttemptID, report func(executor.Event)) error {
	m := b.place
	m.mu.Lock()
	for key, j := range m.jobs {
		if b.jobs[key] == nil && !slices.Contains(expected, j.id) {
			delete(m.jobs, key)
		}
	}
	m.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		m.mu.Lock()
		queue := b.queue
		b.queue = nil
		m.mu.Unlock()
		for _, e := range queue {
			report(e)
		}
	}
}

func (b *memoryBackend) Forget(_ context.Context, job *executor.Job) error {
	if err := b.fault("forget", job); err != nil {
		return err
	}
	m := b.place
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.jobs, job.Key)
	delete(b.jobs, job.Key)
	return nil
}
