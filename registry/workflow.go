package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// CreateWorkflow compiles and registers a version of a workflow, whose tasks must be registered already. A *Conflict if
// the id is taken.
func (r *Registry) CreateWorkflow(ctx context.Context, id *core.Identifier, spec *admin.WorkflowSpec) error {
	if err := r.checkCreate(ctx, id, core.ResourceType_WORKFLOW, spec); err != nil {
		return fmt.Errorf("create workflow: %w", err)
	}
	hash, err := r.checkRemembered(id, spec)
	if err != nil {
		return err
	}
	w, err := r.compile(ctx, id, spec)
	if err != nil {
		return err
	}
	w.Description = describe(id, spec.GetDescription())
	w.ShortDescription = spec.GetDescription().GetShortDescription()
	err = r.Store.CreateWorkflow(ctx, w)
	if errors.Is(err, aloft.ErrExists) {
		old, err := r.Workflow(ctx, id)
		if err != nil {
			return err
		}
		if string(old.Digest) != string(w.Digest) {
			return &Conflict{ID: id, Difference: cutDifference(compiler.Difference(old.Compiled, w.Compiled))}
		}
		r.remember(core.ResourceType_WORKFLOW, id, hash)
		return &Conflict{ID: id, Identical: true}
	}
	if err != nil {
		return fmt.Errorf("create workflow %s: %w", id.GetName(), err)
	}
	r.remember(core.ResourceType_WORKFLOW, id, hash)
	return nil
}

func (r *Registry) compile(ctx context.Context, id *core.Identifier, spec *admin.WorkflowSpec) (*store.Workflow, error) {
	failed := func(err error) error {
		return fmt.Errorf("failed to compile workflow for [%s:%s:%s:%s]: %w", id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion(), err)
	}
	spec, err := r.withSubWorkflows(ctx, spec)
	if err != nil {
		return nil, failed(err)
	}
	required := compiler.Requirements(spec)
	var tasks []*core.CompiledTask
	for _, taskID := range required.Tasks {
		t, err := r.Task(ctx, taskID)
		if errors.Is(err, aloft.ErrNotFound) {
			continue // the compiler reports it, together with all other entities that are missing
		}
		if err != nil {
			return nil, failed(err)
		}
		tasks = append(tasks, t.Compiled)
	}
	compiled, err := compiler.CompileWorkflow(compiler.Request{
		ID: id, Template: spec.GetTemplate(), SubWorkflows: spec.GetSubWorkflows(), Tasks: tasks,
	})
	if err != nil {
		return nil, failed(err)
	}
	digest := literal.StructureDigest(compiled)
	return &store.Workflow{ID: id, Digest: digest[:], Compiled: compiled, CreatedAt: r.Now()}, nil
}

// withSubWorkflows adds the sub-workflows that a specification calls and does not bring along, as they are registered: flytekit
// forgets those in the arms of a conditional that is an arm itself. Those that are not registered the compiler reports.
func (r *Registry) withSubWorkflows(ctx context.Context, spec *admin.WorkflowSpec) (*admin.WorkflowSpec, error) {
	looked := map[aloft.Key]bool{}
	for {
		added := false
		for _, id := range compiler.Requirements(spec).SubWorkflows {
			if looked[aloft.KeyOf(id)] {
				continue
			}
			looked[aloft.KeyOf(id)] = true
			w, err := r.Workflow(ctx, id)
			if errors.Is(err, aloft.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if !added {
				spec = &admin.WorkflowSpec{Template: spec.GetTemplate(), SubWorkflows: slices.Clone(spec.GetSubWorkflows()), Description: spec.GetDescription()}
				added = true
			}
			spec.SubWorkflows = append(spec.SubWorkflows, w.Compiled.GetPrimary().GetTemplate())
		}
		if !added {
			return spec, nil
		}
	}
}
