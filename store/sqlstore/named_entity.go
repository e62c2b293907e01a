package sqlstore

import (
	"context"
	"fmt"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// The metadata of a name, with the defaults of one that was never updated: no description, and active, or SYSTEM_GENERATED, which
// is 2, if all its versions are generated.
const (
	namedDescription = "COALESCE(m.description, '')"
	namedState       = "COALESCE(m.state, 2 * e.generated)"
)

// versionTable is the table with the versions of a kind.
func versionTable(kind core.ResourceType) (string, error) {
	table := map[core.ResourceType]string{
		core.ResourceType_TASK: "tasks", core.ResourceType_WORKFLOW: "workflows", core.ResourceType_LAUNCH_PLAN: "launch_plans",
	}[kind]
	return table, store.CheckNamedKind(kind)
}

func selectNamedEntities(kind core.ResourceType) (string, error) {
	table, err := versionTable(kind)
	if err != nil {
		return "", err
	}
	generated := "MIN(generated)"
	if kind == core.ResourceType_TASK {
		generated = "0"
	}
	return fmt.Sprintf("SELECT e.project, e.domain, e.name, "+namedDescription+", "+namedState+` FROM (SELECT %d AS resource_type, project, domain, name,
		MIN(created_at) AS created_at, MAX(created_at) AS updated_at, MIN(number) AS number, %s AS generated FROM %s WHERE number > 0 GROUP BY project, domain, name) e
		LEFT JOIN named_entities m ON m.kind = e.resource_type AND m.project = e.project AND m.domain = e.domain AND m.name = e.name `, kind, generated, table), nil
}

func (s *Store) namedEntities(ctx context.Context, keep bool, kind core.ResourceType, rest string, args ...any) ([]*admin.NamedEntity, error) {
	query, err := selectNamedEntities(kind)
	if err != nil {
		return nil, err
	}
	var entities []*admin.NamedEntity
	err = s.read(ctx, keep, query+rest, args, func(scan scan) error {
		e := &admin.NamedEntity{ResourceType: kind, Id: &admin.NamedEntityIdentifier{}, Metadata: &admin.NamedEntityMetadata{}}
		entities = append(entities, e)
		return scan(&e.Id.Project, &e.Id.Domain, &e.Id.Name, &e.Metadata.Description, &e.Metadata.State)
	})
	if err != nil {
		return nil, err
	}
	return entities, nil
}

// ListNamedEntities lists the names of a kind, by name unless another order is asked for.
func (s *Store) ListNamedEntities(ctx context.Context, kind core.ResourceType, q store.Query) ([]*admin.NamedEntity, error) {
	if q.SortBy == "" {
		q.SortBy, q.Ascending = "name", true
	}
	where, args, err := namedEntity.where(q)
	if err != nil {
		return nil, err
	}
	return s.namedEntities(ctx, len(q.Filters) == 0, kind, where, args...)
}

// oneName finds a name by the columns that its versions are grouped by, so that no version of another name is read.
const oneName = "WHERE e.project = ? AND e.domain = ? AND e.name = ?"

// GetNamedEntity returns one name with its metadata.
func (s *Store) GetNamedEntity(ctx context.Context, kind core.ResourceType, id *admin.NamedEntityIdentifier) (*admin.NamedEntity, error) {
	rows, err := s.namedEntities(ctx, true, kind, oneName, id.GetProject(), id.GetDomain(), id.GetName())
	return onlyRow(rows, err, store.NamedEntityText(kind, id))
}

// UpdateNamedEntity sets the state of a name, and its description unless the new one is empty.
func (s *Store) UpdateNamedEntity(ctx context.Context, e *admin.NamedEntity) error {
	table, err := versionTable(e.GetResourceType())
	if err != nil {
		return err
	}
	id, metadata := e.GetId(), e.GetMetadata()
	return s.write(ctx, 1, func(t *tx) error {
		var one int64
		found, err := t.row([]any{&one}, "SELECT 1 FROM "+table+" WHERE project = ? AND domain = ? AND name = ? LIMIT 1", id.GetProject(), id.GetDomain(), id.GetName())
		if err != nil {
			return err
		}
		if !found { // versions are never deleted: a name that was found stays
			return refuse("%s: %w", store.NamedEntityText(e.GetResourceType(), id), aloft.ErrNotFound)
		}
		_, err = t.exec(`INSERT INTO named_entities (kind, project, domain, name, description, state) VALUES (?,?,?,?,?,?)
			ON CONFLICT (kind, project, domain, name) DO UPDATE SET state = excluded.state,
			description = CASE WHEN excluded.description = '' THEN named_entities.description ELSE excluded.description END`,
			int64(e.GetResourceType()), id.GetProject(), id.GetDomain(), id.GetName(), metadata.GetDescription(), int64(metadata.GetState()))
		return err
	})
}
