package api

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/registry"
	"github.com/aloft-dev/aloft/store"
)

func (s *adminService) CreateWorkflow(ctx context.Context, r *admin.WorkflowCreateRequest) (*admin.WorkflowCreateResponse, error) {
	if err := s.Registry.CreateWorkflow(ctx, r.GetId(), r.GetSpec()); err != nil {
		return nil, registryError(err)
	}
	return &admin.WorkflowCreateResponse{}, nil
}

func (s *adminService) GetWorkflow(ctx context.Context, r *admin.ObjectGetRequest) (*admin.Workflow, error) {
	if err := checkGet(r.GetId(), core.ResourceType_WORKFLOW); err != nil {
		return nil, err
	}
	w, err := s.Registry.Workflow(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return workflowMessage(w), nil
}

// ListWorkflows lists workflows without nodes and tasks: a page with all of them would be too large for clients.
func (s *adminService) ListWorkflows(ctx context.Context, r *admin.ResourceListRequest) (*admin.WorkflowList, error) {
	q, err := parseResourceList(r)
	if err != nil {
		return nil, listError("workflows", err)
	}
	q = withBudget(ctx, q)
	rows, err := s.Store.ListWorkflows(ctx, q)
	if err != nil {
		return nil, listError("workflows", err)
	}
	list := &admin.WorkflowList{}
	list.Workflows, list.Token, err = fillPage(ctx, q, rows, func(row *store.Workflow) (*admin.Workflow, error) {
		slim := *row
		slim.Compiled = &core.CompiledWorkflowClosure{Primary: &core.CompiledWorkflow{Template: &core.WorkflowTemplate{
			Interface: row.Compiled.GetPrimary().GetTemplate().GetInterface(),
		}}}
		if row.Unreadable != nil {
			slim.ShortDescription = row.Unreadable.Error()
		}
		return workflowMessage(&slim), nil
	}, func(m *admin.Workflow, note string) {
		m.Closure, m.ShortDescription = &admin.WorkflowClosure{CreatedAt: m.GetClosure().GetCreatedAt()}, note
	})
	return list, err
}

func (s *adminService) ListWorkflowIds(ctx context.Context, r *admin.NamedEntityIdentifierListRequest) (*admin.NamedEntityIdentifierList, error) {
	return s.listNames(ctx, core.ResourceType_WORKFLOW, r)
}

func workflowMessage(w *store.Workflow) *admin.Workflow {
	return &admin.Workflow{
		Id:               w.ID,
		Closure:          &admin.WorkflowClosure{CompiledWorkflow: w.Compiled, CreatedAt: timestamppb.New(w.CreatedAt)},
		ShortDescription: w.ShortDescription,
	}
}

// registryError adds the detail that programs read: flytectl and schedulers look at the detail of an error and not at its text.
func registryError(err error) error {
	var conflict *registry.Conflict
	var inactive *registry.InactiveProject
	switch {
	case errors.As(err, &inactive):
		return withDetail(err, &admin.InactiveProject{Id: inactive.ID})
	case errors.As(err, &conflict) && conflict.ID.GetResourceType() == core.ResourceType_WORKFLOW && conflict.Identical:
		return withDetail(err, &admin.CreateWorkflowFailureReason{Reason: &admin.CreateWorkflowFailureReason_ExistsIdenticalStructure{
			ExistsIdenticalStructure: &admin.WorkflowErrorExistsIdenticalStructure{Id: conflict.ID},
		}})
	case errors.As(err, &conflict) && conflict.ID.GetResourceType() == core.ResourceType_WORKFLOW:
		return withDetail(err, &admin.CreateWorkflowFailureReason{Reason: &admin.CreateWorkflowFailureReason_ExistsDifferentStructure{
			ExistsDifferentStructure: &admin.WorkflowErrorExistsDifferentStructure{Id: conflict.ID},
		}})
	}
	return err
}
