package registry

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// CreateLaunchPlan registers a version of a launch plan, inactive. Its workflow must be registered. A *Conflict if the id
// is taken.
func (r *Registry) CreateLaunchPlan(ctx context.Context, id *core.Identifier, spec *admin.LaunchPlanSpec) error {
	var problems field.Problems
	problems.Include(r.checkCreate(ctx, id, core.ResourceType_LAUNCH_PLAN, spec))
	if spec != nil {
		problems.Identifier("spec.workflow_id", spec.GetWorkflowId(), core.ResourceType_WORKFLOW, true)
		problems.Labels(spec.GetLabels())
		problems.Spec("spec", withoutInputs(spec))
		problems.RawOutput("spec.raw_output_data_config", spec.GetRawOutputDataConfig())
		if policy := spec.GetConcurrencyPolicy(); policy.GetBehavior() != admin.ConcurrencyLimitBehavior_CONCURRENCY_LIMIT_BEHAVIOR_UNSPECIFIED {
			problems.Include(fmt.Errorf("spec.concurrency_policy: %w", aloft.ErrUnimplemented))
		}
	}
	if err := problems.Err(); err != nil {
		return fmt.Errorf("create launch plan: %w", err)
	}
	hash, err := r.checkRemembered(id, spec)
	if err != nil {
		return err
	}
	spec.WorkflowId.ResourceType = core.ResourceType_WORKFLOW
	w, err := r.Workflow(ctx, spec.GetWorkflowId())
	if err != nil {
		return fmt.Errorf("create launch plan %s: %w", id.GetName(), err)
	}
	l, err := r.compileLaunchPlan(id, spec, w)
	if err != nil {
		return fmt.Errorf("create launch plan %s: %w", id.GetName(), err)
	}
	err = r.Store.CreateLaunchPlan(ctx, l)
	if errors.Is(err, aloft.ErrExists) {
		old, err := r.LaunchPlan(ctx, id)
		if err != nil {
			return err
		}
		if string(old.Digest) != string(l.Digest) {
			return &Conflict{ID: id, Difference: cutDifference(compiler.Difference(old.Spec, l.Spec))}
		}
		r.remember(core.ResourceType_LAUNCH_PLAN, id, hash)
		return &Conflict{ID: id, Identical: true}
	}
	if err != nil {
		return fmt.Errorf("create launch plan %s: %w", id.GetName(), err)
	}
	r.remember(core.ResourceType_LAUNCH_PLAN, id, hash)
	return nil
}

func (r *Registry) compileLaunchPlan(id *core.Identifier, spec *admin.LaunchPlanSpec, w *store.Workflow) (*store.LaunchPlan, error) {
	compiled, err := compiler.CompileLaunchPlan(spec, w.Compiled.GetPrimary().GetTemplate().GetInterface())
	if err != nil {
		return nil, err
	}
	// The digest leaves out the state and the times, which the server sets and changes.
	compiled.Id = id
	digest := literal.StructureDigest(compiled)
	now := r.Now()
	compiled.Closure.CreatedAt, compiled.Closure.UpdatedAt = timestamppb.New(now), timestamppb.New(now)
	return &store.LaunchPlan{ID: id, Digest: digest[:], Spec: compiled.GetSpec(), Closure: compiled.GetClosure(), CreatedAt: now, UpdatedAt: now}, nil
}

// withoutInputs is a launch plan's spec without its inputs, which have a larger limit.
func withoutInputs(spec *admin.LaunchPlanSpec) *admin.LaunchPlanSpec {
	return &admin.LaunchPlanSpec{
		EntityMetadata: spec.GetEntityMetadata(), Labels: spec.GetLabels(), Annotations: spec.GetAnnotations(), Auth: spec.GetAuth(),
		AuthRole: spec.GetAuthRole(), SecurityContext: spec.GetSecurityContext(), RawOutputDataConfig: spec.GetRawOutputDataConfig(), Envs: spec.GetEnvs(),
	}
}
