package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// namedEntities finds the named entities of a kind that a query selects, in the order of their first versions.
func (s *Store) namedEntities(kind core.ResourceType, q store.Query) ([]*admin.NamedEntity, error) {
	if err := store.CheckNamedKind(kind); err != nil {
		return nil, err
	}
	var found []*admin.NamedEntity
	seen := make(map[aloft.Key]*admin.NamedEntity)
	for _, v := range s.versions(kind, q) {
		w, l := s.workflows[v], s.launchPlans[v]
		generated := w != nil && w.Generated || l != nil && l.Generated
		v.Version = ""
		e := seen[v]
		if e == nil {
			e = &admin.NamedEntity{
				ResourceType: kind, Id: &admin.NamedEntityIdentifier{Project: v.Project, Domain: v.Domain, Name: v.Name},
				Metadata: &admin.NamedEntityMetadata{State: admin.NamedEntityState_SYSTEM_GENERATED},
			}
			seen[v], found = e, append(found, e)
		}
		if said := s.metadata[v]; said != nil {
			e.Metadata = clone(said)
		} else if !generated {
			e.Metadata.State = admin.NamedEntityState_NAMED_ENTITY_ACTIVE
		}
	}
	return found, nil
}

// ListNamedEntities lists the names of a kind, by name or in the order of their first versions.
func (s *Store) ListNamedEntities(_ context.Context, kind core.ResourceType, q store.Query) (entities []*admin.NamedEntity, err error) {
	err = s.do("ListNamedEntities", func() ([]store.Topic, error) {
		if err := checkQuery(q); err != nil {
			return nil, err
		}
		found, err := s.namedEntities(kind, q)
		if err != nil {
			return nil, err
		}
		if q.SortBy == "" {
			slices.SortStableFunc(found, func(a, b *admin.NamedEntity) int { return strings.Compare(a.Id.Name, b.Id.Name) })
		} else {
			found = inOrder(found, q)
		}
		entities = page(found, q)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return entities, nil
}

func (s *Store) namedEntity(kind core.ResourceType, id *admin.NamedEntityIdentifier) (*admin.NamedEntity, error) {
	found, err := s.namedEntities(kind, store.Query{Project: id.GetProject(), Domain: id.GetDomain(), Name: id.GetName()})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w", store.NamedEntityText(kind, id), aloft.ErrNotFound)
	}
	return found[0], nil
}

// GetNamedEntity returns one name with its metadata.
func (s *Store) GetNamedEntity(_ context.Context, kind core.ResourceType, id *admin.NamedEntityIdentifier) (e *admin.NamedEntity, err error) {
	err = s.do("GetNamedEntity", func() ([]store.Topic, error) {
		var err error
		e, err = s.namedEntity(kind, id)
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// UpdateNamedEntity sets the state of a name, and its description unless the new one is empty.
func (s *Store) UpdateNamedEntity(_ context.Context, e *admin.NamedEntity) error {
	return s.do("UpdateNamedEntity", func() ([]store.Topic, error) {
		there, err := s.namedEntity(e.GetResourceType(), e.GetId())
		if err != nil {
			return nil, err
		}
		v := aloft.Key{Kind: there.ResourceType, Project: there.Id.Project, Domain: there.Id.Domain, Name: there.Id.Name}
		description := cmp.Or(e.GetMetadata().GetDescription(), there.GetMetadata().GetDescription())
		s.metadata[v] = &admin.NamedEntityMetadata{Description: description, State: e.GetMetadata().GetState()}
		return nil, nil
	})
}
