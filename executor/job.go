package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/lru"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/store"
)

// JobStore has the records from which a job is made.
type JobStore interface {
	GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error)
	GetAttempt(ctx context.Context, id aloft.AttemptID) (*store.Attempt, error)
	GetWorkflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error)
	NodeInputs(ctx context.Context, execution store.Key, node aloft.NodeID) (*aloftv1.Literals, error)
}

// LiteralReader reads literal maps that are kept as objects.
type LiteralReader interface {
	ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error)
}

// jobs makes jobs of attempts. Templates and settings never change, so those that were read are kept for the next attempts.
type jobs struct {
	store    JobStore
	literals LiteralReader

	loading sync.Mutex // held while a workflow is read: the many attempts with which a fan-out begins read it once

	templates *lru.Cache[aloft.Key, map[aloft.Key]*core.TaskTemplate] // by workflow, then by task
	settings  *lru.Cache[store.Key, settings]
}

// Bytes that each cache may hold.
const (
	cachedTemplates = 32 << 20
	cachedSettings  = 16 << 20
)

func newJobs(s JobStore, literals LiteralReader) *jobs {
	return &jobs{store: s, literals: literals,
		templates: lru.New[aloft.Key, map[aloft.Key]*core.TaskTemplate](cachedTemplates), settings: lru.New[store.Key, settings](cachedSettings)}
}

// job makes the job of an attempt. Errors that no later call will mend: aloft.ErrInvalid, lostInputsError.
func (j *jobs) job(ctx context.Context, a *store.Attempt) (*Job, error) {
	template, err := j.template(ctx, a.Spec.GetWorkflow(), a.Spec.GetTask())
	if err != nil {
		return nil, err
	}
	of, err := j.setting(ctx, a)
	if err != nil {
		return nil, err
	}
	literals, err := j.store.NodeInputs(ctx, a.Execution, a.Node)
	// An attempt is committed together with the record of its node: where there are no inputs, the task has none.
	switch {
	case errors.Is(err, aloft.ErrUnreadable):
		return nil, &lostInputsError{err}
	case err != nil && !errors.Is(err, aloft.ErrNotFound):
		return nil, fmt.Errorf("read inputs of attempt %s: %w", a.ID, err)
	}
	inputs := literals.GetValue()
	if literals.GetRef().GetUri() != "" && inputs == nil {
		if inputs, err = j.literals.ReadLiterals(ctx, literals.GetRef()); errors.Is(err, aloft.ErrNotFound) || errors.Is(err, aloft.ErrConflict) {
			return nil, &lostInputsError{err}
		} else if err != nil {
			return nil, fmt.Errorf("read inputs of attempt %s: %w", a.ID, err)
		}
	}
	if inputs == nil {
		inputs = &core.LiteralMap{}
	}
	return &Job{Key: a.AttemptKey, ID: a.ID, Spec: a.Spec, Template: overridden(template, a.Spec.GetOverrides()), Inputs: inputs,
		Workflow: a.Spec.GetWorkflow(), Envs: of.envs, RawOutput: of.rawOutput}, nil
}

// lostInputsError says that the object with an attempt's inputs is gone or damaged: asking again gives no other answer.
type lostInputsError struct{ err error }

func (e *lostInputsError) Error() string { return "its inputs: " + e.err.Error() }
func (e *lostInputsError) Unwrap() error { return e.err }

// template is the registered template of a task within a workflow.
func (j *jobs) template(ctx context.Context, workflow, task *core.Identifier) (*core.TaskTemplate, error) {
	templates, ok := j.templates.Get(aloft.KeyOf(workflow))
	if !ok {
		var err error
		if templates, err = j.load(ctx, workflow); err != nil {
			return nil, err
		}
	}
	t := templates[aloft.KeyOf(task)]
	if t == nil {
		return nil, fmt.Errorf("task %s is not part of workflow %s: %w", aloft.KeyOf(task), aloft.KeyOf(workflow), aloft.ErrInvalid)
	}
	return t, nil
}

// load reads the templates of a workflow.
func (j *jobs) load(ctx context.Context, workflow *core.Identifier) (map[aloft.Key]*core.TaskTemplate, error) {
	j.loading.Lock()
	defer j.loading.Unlock()
	key := aloft.KeyOf(workflow)
	if templates, ok := j.templates.Get(key); ok {
		return templates, nil
	}
	w, err := j.store.GetWorkflow(ctx, workflow)
	if err != nil {
		return nil, fmt.Errorf("read workflow %s: %w", key, err)
	}
	templates, size := map[aloft.Key]*core.TaskTemplate{}, 0
	for _, t := range w.Compiled.GetTasks() {
		templates[aloft.KeyOf(t.GetTemplate().GetId())] = t.GetTemplate()
		size += proto.Size(t)
	}
	j.templates.Put(key, templates, weight.Decoded(int64(size)))
	return templates, nil
}

// settings are those of an execution for all of its tasks.
type settings struct {
	envs      map[string]string
	rawOutput string
}

func (j *jobs) setting(ctx context.Context, a *store.Attempt) (settings, error) {
	if of, ok := j.settings.Get(a.Execution); ok {
		return of, nil
	}
	execution, err := j.store.GetExecution(ctx, a.ID.Execution)
	if err != nil {
		return settings{}, fmt.Errorf("read execution %s: %w", a.ID.Execution, err)
	}
	of := settings{envs: map[string]string{}, rawOutput: execution.Spec.GetRawOutputDataConfig().GetOutputLocationPrefix()}
	for _, kv := range execution.Spec.GetEnvs().GetValues() {
		of.envs[kv.GetKey()] = kv.GetValue()
	}
	j.settings.Put(a.Execution, of, weight.Decoded(int64(proto.Size(execution.Spec.GetEnvs())+len(of.rawOutput))))
	return of, nil
}

// overridden applies what a node changes in its task: image, resources, pod template. Source: flyte-execution reference 3.9.
func overridden(template *core.TaskTemplate, o *core.TaskNodeOverrides) *core.TaskTemplate {
	if o.GetContainerImage() == "" && o.GetResources() == nil && o.GetExtendedResources() == nil {
		return template
	}
	t := proto.CloneOf(template)
	if c := t.GetContainer(); c != nil {
		if o.GetContainerImage() != "" {
			c.Image = o.GetContainerImage()
		}
		if o.GetResources() != nil {
			c.Resources = o.GetResources()
		}
	}
	if o.GetExtendedResources() != nil {
		t.ExtendedResources = o.GetExtendedResources()
	}
	return t
}
