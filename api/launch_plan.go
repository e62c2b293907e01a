package api

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

func (s *adminService) CreateLaunchPlan(ctx context.Context, r *admin.LaunchPlanCreateRequest) (*admin.LaunchPlanCreateResponse, error) {
	if err := s.Registry.CreateLaunchPlan(ctx, r.GetId(), r.GetSpec()); err != nil {
		return nil, registryError(err)
	}
	return &admin.LaunchPlanCreateResponse{}, nil
}

// GetLaunchPlan reads the store and not the cache of the registry, where the state may be an old one.
func (s *adminService) GetLaunchPlan(ctx context.Context, r *admin.ObjectGetRequest) (*admin.LaunchPlan, error) {
	if err := checkGet(r.GetId(), core.ResourceType_LAUNCH_PLAN); err != nil {
		return nil, err
	}
	l, err := s.Store.GetLaunchPlan(ctx, r.GetId())
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, missingEntity("LAUNCH_PLAN", identifierText(r.GetId()))
	}
	if err != nil {
		return nil, err
	}
	return launchPlanMessage(l), nil
}

func (s *adminService) GetActiveLaunchPlan(ctx context.Context, r *admin.ActiveLaunchPlanRequest) (*admin.LaunchPlan, error) {
	var problems field.Problems
	problems.Text("project", r.GetId().GetProject())
	problems.Text("domain", r.GetId().GetDomain())
	problems.Text("name", r.GetId().GetName())
	if err := problems.Err(); err != nil {
		return nil, err
	}
	l, err := s.Store.GetActiveLaunchPlan(ctx, r.GetId().GetProject(), r.GetId().GetDomain(), r.GetId().GetName())
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, fmt.Errorf("No active launch plan could be found: %s:%s:%s: %w", //nolint:staticcheck // the text that clients know
			r.GetId().GetProject(), r.GetId().GetDomain(), r.GetId().GetName(), aloft.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return launchPlanMessage(l), nil
}

func (s *adminService) ListLaunchPlans(ctx context.Context, r *admin.ResourceListRequest) (*admin.LaunchPlanList, error) {
	q, err := parseResourceList(r)
	if err != nil {
		return nil, listError("launch plans", err)
	}
	return s.listLaunchPlans(ctx, q)
}

func (s *adminService) ListActiveLaunchPlans(ctx context.Context, r *admin.ActiveLaunchPlanListRequest) (*admin.LaunchPlanList, error) {
	var problems field.Problems
	problems.Text("project", r.GetProject())
	problems.Text("domain", r.GetDomain())
	q := parseList(&problems, r, "eq(state,1)", true)
	q.Project, q.Domain = r.GetProject(), r.GetDomain()
	if err := problems.Err(); err != nil {
		return nil, listError("launch plans", err)
	}
	return s.listLaunchPlans(ctx, q)
}

func (s *adminService) listLaunchPlans(ctx context.Context, q store.Query) (*admin.LaunchPlanList, error) {
	q = withBudget(ctx, q)
	rows, err := s.Store.ListLaunchPlans(ctx, q)
	if err != nil {
		return nil, listError("launch plans", err)
	}
	list := &admin.LaunchPlanList{}
	slim := func(m *admin.LaunchPlan, note string) {
		m.Spec = &admin.LaunchPlanSpec{WorkflowId: m.GetSpec().GetWorkflowId(), Annotations: &admin.Annotations{Values: map[string]string{"aloft/spec": note}}}
		m.Closure = &admin.LaunchPlanClosure{State: m.GetClosure().GetState(), CreatedAt: m.GetClosure().GetCreatedAt(), UpdatedAt: m.GetClosure().GetUpdatedAt()}
	}
	list.LaunchPlans, list.Token, err = fillPage(ctx, q, rows, func(row *store.LaunchPlan) (*admin.LaunchPlan, error) {
		m := launchPlanMessage(row)
		if row.Unreadable != nil {
			slim(m, row.Unreadable.Error())
		}
		return m, nil
	}, slim)
	return list, err
}

func (s *adminService) ListLaunchPlanIds(ctx context.Context, r *admin.NamedEntityIdentifierListRequest) (*admin.NamedEntityIdentifierList, error) {
	return s.listNames(ctx, core.ResourceType_LAUNCH_PLAN, r)
}

// UpdateLaunchPlan activates a version, of which there is at most one per name, or deactivates it.
func (s *adminService) UpdateLaunchPlan(ctx context.Context, r *admin.LaunchPlanUpdateRequest) (*admin.LaunchPlanUpdateResponse, error) {
	if err := checkGet(r.GetId(), core.ResourceType_LAUNCH_PLAN); err != nil {
		return nil, err
	}
	if _, ok := admin.LaunchPlanState_name[int32(r.GetState())]; !ok {
		return nil, fmt.Errorf("%w: invalid value for state: %d is neither ACTIVE nor INACTIVE", aloft.ErrInvalid, r.GetState())
	}
	if r.GetState() == admin.LaunchPlanState_ACTIVE {
		l, err := s.Registry.LaunchPlan(ctx, r.GetId())
		if err != nil {
			return nil, err
		}
		// An active plan whose schedule never fires would be a silent loss of runs.
		if scheduled(l.Spec) {
			return nil, fmt.Errorf("launch plan %s has a schedule, and schedules are %w: activate one without, or start executions from cron", r.GetId().GetName(), aloft.ErrUnimplemented)
		}
	}
	err := s.Store.SetLaunchPlanState(ctx, r.GetId(), r.GetState(), s.Now())
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, missingEntity("LAUNCH_PLAN", identifierText(r.GetId()))
	}
	if err != nil {
		return nil, fmt.Errorf("update launch plan %s: %w", r.GetId().GetName(), err)
	}
	return &admin.LaunchPlanUpdateResponse{}, nil
}

func scheduled(spec *admin.LaunchPlanSpec) bool {
	return spec.GetEntityMetadata().GetSchedule().GetScheduleExpression() != nil
}

func launchPlanMessage(l *store.LaunchPlan) *admin.LaunchPlan {
	closure := l.Closure
	if closure.GetCreatedAt() == nil {
		closure = proto.CloneOf(closure)
		closure.CreatedAt, closure.UpdatedAt = timestamppb.New(l.CreatedAt), timestamppb.New(l.UpdatedAt)
	}
	return &admin.LaunchPlan{Id: l.ID, Spec: l.Spec, Closure: closure}
}

func identifierText(id *core.Identifier) string {
	return fmt.Sprintf("project:%q domain:%q name:%q version:%q", id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion())
}
