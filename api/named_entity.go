package api

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/registry"
	"github.com/aloft-dev/aloft/store"
)

// ListNamedEntities lists names with their metadata. As in Flyte, generated names (of executions of single tasks) are left out only
// if the request has no filter at all; clients that filter ask for the state.
func (s *adminService) ListNamedEntities(ctx context.Context, r *admin.NamedEntityListRequest) (*admin.NamedEntityList, error) {
	var problems field.Problems
	checkNamedKind(&problems, r.GetResourceType())
	q := parseNames(&problems, r)
	if err := problems.Err(); err != nil {
		return nil, listError("named entities", err)
	}
	if len(q.Filters) == 0 {
		q.Filters = []store.Filter{notGenerated}
	}
	entities, err := s.Store.ListNamedEntities(ctx, r.GetResourceType(), q)
	if err != nil {
		return nil, listError("named entities", err)
	}
	return &admin.NamedEntityList{Entities: entities, Token: nextToken(q, len(entities))}, nil
}

// listNames lists names without metadata, and without generated ones.
func (s *adminService) listNames(ctx context.Context, kind core.ResourceType, r *admin.NamedEntityIdentifierListRequest) (*admin.NamedEntityIdentifierList, error) {
	var problems field.Problems
	q := parseNames(&problems, r)
	if err := problems.Err(); err != nil {
		return nil, listError("names", err)
	}
	q.Filters = append(q.Filters, notGenerated)
	entities, err := s.Store.ListNamedEntities(ctx, kind, q)
	if err != nil {
		return nil, listError("names", err)
	}
	list := &admin.NamedEntityIdentifierList{Token: nextToken(q, len(entities))}
	for _, e := range entities {
		list.Entities = append(list.Entities, e.GetId())
	}
	return list, nil
}

var notGenerated = store.Filter{Field: "name", Function: "not_like", Values: []string{registry.GeneratedPrefix + "%"}}

func (s *adminService) GetNamedEntity(ctx context.Context, r *admin.NamedEntityGetRequest) (*admin.NamedEntity, error) {
	var problems field.Problems
	checkNamed(&problems, r.GetResourceType(), r.GetId())
	if err := problems.Err(); err != nil {
		return nil, err
	}
	e, err := s.Store.GetNamedEntity(ctx, r.GetResourceType(), r.GetId())
	if err != nil {
		return nil, namedError(r.GetResourceType(), r.GetId(), err)
	}
	return e, nil
}

// UpdateNamedEntity always sets the state, and the description unless it is empty: flytectl sends only the fields that change,
// and its --archive must not remove the description. Clients hide an archived name; it can be launched as before.
func (s *adminService) UpdateNamedEntity(ctx context.Context, r *admin.NamedEntityUpdateRequest) (*admin.NamedEntityUpdateResponse, error) {
	var problems field.Problems
	checkNamed(&problems, r.GetResourceType(), r.GetId())
	checkMetadata(&problems, r.GetMetadata())
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("update named entity: %w", err)
	}
	e := &admin.NamedEntity{ResourceType: r.GetResourceType(), Id: r.GetId(), Metadata: r.GetMetadata()}
	if err := s.Store.UpdateNamedEntity(ctx, e); err != nil {
		return nil, namedError(r.GetResourceType(), r.GetId(), err)
	}
	return &admin.NamedEntityUpdateResponse{}, nil
}

// namesRequest is a request for a list of names.
type namesRequest interface {
	listRequest
	GetProject() string
	GetDomain() string
	GetFilters() string
}

func parseNames(problems *field.Problems, r namesRequest) store.Query {
	problems.Text("project", r.GetProject())
	problems.Text("domain", r.GetDomain())
	q := parseList(problems, r, r.GetFilters(), true)
	q.Project, q.Domain = r.GetProject(), r.GetDomain()
	return q
}

func checkNamed(problems *field.Problems, kind core.ResourceType, id *admin.NamedEntityIdentifier) {
	checkNamedKind(problems, kind)
	if id == nil {
		problems.Missing("id")
		return
	}
	problems.Text("project", id.GetProject())
	problems.Text("domain", id.GetDomain())
	problems.Text("name", id.GetName())
}

func checkNamedKind(problems *field.Problems, kind core.ResourceType) {
	switch kind {
	case core.ResourceType_TASK, core.ResourceType_WORKFLOW, core.ResourceType_LAUNCH_PLAN:
	case core.ResourceType_UNSPECIFIED:
		problems.Missing("resource_type")
	default:
		problems.Add("invalid value for resource_type: expected TASK, WORKFLOW or LAUNCH_PLAN, got %s", kind)
	}
}

const maxNamedDescription = 300

func checkMetadata(problems *field.Problems, m *admin.NamedEntityMetadata) {
	if m == nil {
		problems.Missing("metadata")
		return
	}
	problems.Characters(maxNamedDescription, "metadata.description", m.GetDescription())
	if strings.ContainsRune(m.GetDescription(), 0) {
		problems.Add("invalid value for metadata.description: it contains a NUL character")
	}
	if _, ok := admin.NamedEntityState_name[int32(m.GetState())]; !ok {
		problems.Add("invalid value for metadata.state: %d", m.GetState())
	}
}

// namedError explains ErrNotFound of a name, in Flyte's words.
func namedError(kind core.ResourceType, id *admin.NamedEntityIdentifier, err error) error {
	name := store.NamedEntityText(kind, id)
	if errors.Is(err, aloft.ErrNotFound) {
		return fmt.Errorf("%s: entry %w: no version of it is registered", name, aloft.ErrNotFound)
	}
	return fmt.Errorf("named entity %s: %w", name, err)
}
