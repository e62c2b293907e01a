package api

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

func (s *adminService) CreateTask(ctx context.Context, r *admin.TaskCreateRequest) (*admin.TaskCreateResponse, error) {
	if err := s.Registry.CreateTask(ctx, r.GetId(), r.GetSpec()); err != nil {
		return nil, registryError(err)
	}
	return &admin.TaskCreateResponse{}, nil
}

func (s *adminService) GetTask(ctx context.Context, r *admin.ObjectGetRequest) (*admin.Task, error) {
	if err := checkGet(r.GetId(), core.ResourceType_TASK); err != nil {
		return nil, err
	}
	t, err := s.Registry.Task(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return taskMessage(t), nil
}

func (s *adminService) ListTasks(ctx context.Context, r *admin.ResourceListRequest) (*admin.TaskList, error) {
	q, err := parseResourceList(r)
	if err != nil {
		return nil, listError("tasks", err)
	}
	q = withBudget(ctx, q)
	rows, err := s.Store.ListTasks(ctx, q)
	if err != nil {
		return nil, listError("tasks", err)
	}
	list := &admin.TaskList{}
	slim := func(m *admin.Task, note string) {
		m.Closure = &admin.TaskClosure{CreatedAt: m.GetClosure().GetCreatedAt(), CompiledTask: &core.CompiledTask{Template: &core.TaskTemplate{
			Id: m.GetId(), Type: m.GetClosure().GetCompiledTask().GetTemplate().GetType()}}}
		m.ShortDescription = note
	}
	list.Tasks, list.Token, err = fillPage(ctx, q, rows, func(row *store.Task) (*admin.Task, error) {
		m := taskMessage(row)
		if row.Unreadable != nil {
			slim(m, row.Unreadable.Error())
		}
		return m, nil
	}, slim)
	return list, err
}

func (s *adminService) ListTaskIds(ctx context.Context, r *admin.NamedEntityIdentifierListRequest) (*admin.NamedEntityIdentifierList, error) {
	return s.listNames(ctx, core.ResourceType_TASK, r)
}

func taskMessage(t *store.Task) *admin.Task {
	return &admin.Task{
		Id:               t.ID,
		Closure:          &admin.TaskClosure{CompiledTask: t.Compiled, CreatedAt: timestamppb.New(t.CreatedAt)},
		ShortDescription: t.ShortDescription,
	}
}

// checkGet checks the id of a version. A resource type that is left out is set to kind, which the call implies.
func checkGet(id *core.Identifier, kind core.ResourceType) error {
	var problems field.Problems
	problems.Identifier("id", id, kind, true)
	if err := problems.Err(); err != nil {
		return err
	}
	id.ResourceType = kind
	return nil
}

// parseResourceList reads a request for a list of tasks, workflows, launch plans or executions.
func parseResourceList(r *admin.ResourceListRequest) (store.Query, error) {
	var problems field.Problems
	problems.Text("project", r.GetId().GetProject())
	problems.Text("domain", r.GetId().GetDomain())
	q := parseList(&problems, r, r.GetFilters(), true)
	q.Project, q.Domain, q.Name = r.GetId().GetProject(), r.GetId().GetDomain(), r.GetId().GetName()
	return q, problems.Err()
}
