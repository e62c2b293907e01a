package memstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// Services returns what is known of every service, by name.
func (s *Store) Services(context.Context) (services []store.Service, err error) {
	err = s.do("Services", func() ([]store.Topic, error) {
		services = slices.SortedFunc(maps.Values(s.services), func(a, b store.Service) int { return cmp.Compare(a.Name, b.Name) })
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return services, nil
}

// PutService writes a service if its row was not written since it was read.
func (s *Store) PutService(_ context.Context, v store.Service) error {
	return s.do("PutService", func() ([]store.Topic, error) {
		have := s.services[v.Name]
		v.Revision++
		if have.Revision != v.Revision-1 && have != v {
			return nil, fmt.Errorf("write health of %s: somebody else has: %w", v.Name, aloft.ErrConflict)
		}
		s.services[v.Name] = v
		return []store.Topic{store.TopicHealth}, nil
	})
}
