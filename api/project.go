package api

import (
	"context"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/internal/legible"
	"github.com/aloft-dev/aloft/store"
)

func (s *adminService) RegisterProject(ctx context.Context, r *admin.ProjectRegisterRequest) (*admin.ProjectRegisterResponse, error) {
	if err := s.Registry.RegisterProject(ctx, r.GetProject()); err != nil {
		return nil, err
	}
	return &admin.ProjectRegisterResponse{}, nil
}

func (s *adminService) UpdateProject(ctx context.Context, r *admin.Project) (*admin.ProjectUpdateResponse, error) {
	if err := s.Registry.UpdateProject(ctx, r); err != nil {
		return nil, err
	}
	return &admin.ProjectUpdateResponse{}, nil
}

func (s *adminService) GetProject(ctx context.Context, r *admin.ProjectGetRequest) (*admin.Project, error) {
	var problems field.Problems
	problems.Need("id", r.GetId())
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return s.Registry.Project(ctx, r.GetId())
}

// ListProjects lists active projects in the order of their ids, unless the request has a filter or an order. Limit 0 means all.
func (s *adminService) ListProjects(ctx context.Context, r *admin.ProjectListRequest) (*admin.Projects, error) {
	var problems field.Problems
	q := parseList(&problems, r, r.GetFilters(), false)
	if err := problems.Err(); err != nil {
		return nil, listError("projects", err)
	}
	if len(q.Filters) == 0 {
		q.Filters = []store.Filter{{Field: "state", Function: "eq", Values: []string{"0"}}}
	}
	if q.SortBy == "" {
		q.SortBy, q.Ascending = "identifier", true
	}
	rows, err := s.Store.ListProjects(ctx, q)
	if err != nil {
		return nil, listError("projects", err)
	}
	for _, row := range rows {
		legible.Known(row)
		row.Domains = s.Registry.AllDomains()
	}
	return &admin.Projects{Projects: rows, Token: nextToken(q, len(rows))}, nil
}

func (s *adminService) GetDomains(context.Context, *admin.GetDomainRequest) (*admin.GetDomainsResponse, error) {
	return &admin.GetDomainsResponse{Domains: s.Registry.AllDomains()}, nil
}
