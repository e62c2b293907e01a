package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

func cloneResult(e *store.Result, whole bool) *store.Result {
	c := *e
	c.Outputs, c.Objects = nil, nil
	if whole {
		c.Outputs, c.Objects = clone(e.Outputs), cloneAll(e.Objects)
	}
	c.Key = clone(e.Key)
	c.Tags, c.Partitions = slices.Clone(e.Tags), maps.Clone(e.Partitions)
	c.Metadata, c.Dataset = maps.Clone(e.Metadata), maps.Clone(e.Dataset)
	return &c
}

func missingResult(name string) error {
	return fmt.Errorf("result %s: %w", name, aloft.ErrNotFound)
}

// FindResult returns the result that a tag names.
func (s *Store) FindResult(_ context.Context, id store.ResultID) (e *store.Result, err error) {
	err = s.do("FindResult", func() ([]store.Topic, error) {
		found := s.tags[id]
		if found == nil || id.Tag == "" {
			return nil, missingResult(store.WaitForResult(id))
		}
		e = cloneResult(found, true)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// FindResults returns the results that several tags name.
func (s *Store) FindResults(_ context.Context, ids []store.ResultID) (all []*store.Result, err error) {
	err = s.do("FindResults", func() ([]store.Topic, error) {
		all = make([]*store.Result, len(ids))
		for i, id := range ids {
			if found := s.tags[id]; found != nil && id.Tag != "" {
				c := cloneResult(found, true)
				all[i] = &store.Result{
					ResultID: c.ResultID, ID: c.ID, Outputs: c.Outputs, Objects: c.Objects, Source: c.Source, Dataset: c.Dataset, CreatedAt: c.CreatedAt,
				}
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// GetResult returns a result by its id.
func (s *Store) GetResult(_ context.Context, id string) (e *store.Result, err error) {
	err = s.do("GetResult", func() ([]store.Topic, error) {
		found := s.results[id]
		if found == nil {
			return nil, missingResult(id)
		}
		e = cloneResult(found, true)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// PutResult adds a result.
func (s *Store) PutResult(_ context.Context, e *store.Result, overwrite bool) (now *store.Result, err error) {
	err = s.do("PutResult", func() ([]store.Topic, error) {
		found, err := s.putResult(e, overwrite)
		if err != nil {
			return nil, err
		}
		now = cloneResult(found, true)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return now, nil
}

// tagIDs are the ids of a result by each of its tags, the first tag first.
func tagIDs(e *store.Result) (ids []store.ResultID) {
	if e.Tag != "" {
		ids = append(ids, e.ResultID)
	}
	for _, tag := range e.Tags {
		id := e.ResultID
		id.Tag = tag
		ids = append(ids, id)
	}
	return ids
}

func (s *Store) putResult(e *store.Result, overwrite bool) (*store.Result, error) {
	if old := s.results[e.ID]; old != nil {
		if old.ResultID == e.ResultID && old.Source == e.Source && e.Source != (aloft.AttemptID{}) {
			return old, nil // a repetition
		}
		return nil, fmt.Errorf("result %s: %w", e.ID, aloft.ErrExists)
	}
	for _, id := range tagIDs(e) {
		old := s.tags[id]
		switch {
		case old == nil:
		case !overwrite:
			return old, nil
		default:
			s.removeResult(old, "replaced by "+e.ID, e.CreatedAt)
		}
	}
	made := cloneResult(e, true)
	if made.UsedAt.IsZero() {
		made.UsedAt = made.CreatedAt
	}
	s.results[made.ID] = made
	s.resultsInOrder = append(s.resultsInOrder, made)
	for _, id := range tagIDs(made) {
		s.tags[id] = made
	}
	if s.dataset(made.ResultID) == nil {
		s.datasets = append(s.datasets, &store.Dataset{
			Project: made.Project, Domain: made.Domain, Name: made.Name, Version: made.Version,
			Metadata: maps.Clone(made.Dataset), CreatedAt: made.CreatedAt,
		})
	}
	return made, nil
}

// takenResults are the results that are in the place of those of a step.
func (s *Store) takenResults(step *store.Step) map[store.ResultID]*store.Result {
	taken := make(map[store.ResultID]*store.Result)
	for _, r := range step.Results {
		if old := s.results[r.ID]; old != nil {
			taken[r.ResultID] = cloneResult(old, false)
		} else if old := s.tags[r.ResultID]; old != nil && !step.Overwrite {
			taken[r.ResultID] = cloneResult(old, false)
		}
	}
	return taken
}

func (s *Store) dataset(id store.ResultID) *store.Dataset {
	for _, d := range s.datasets {
		if d.Project == id.Project && d.Domain == id.Domain && d.Name == id.Name && d.Version == id.Version {
			return d
		}
	}
	return nil
}

func (s *Store) removeResult(e *store.Result, reason string, now time.Time) {
	for _, id := range tagIDs(e) {
		delete(s.tags, id)
	}
	e.Tags, e.GoneAt, e.GoneReason = nil, now, reason
}

// TagResult gives a result another tag.
func (s *Store) TagResult(_ context.Context, id, tag string) error {
	return s.do("TagResult", func() ([]store.Topic, error) {
		e := s.results[id]
		if e == nil || !e.GoneAt.IsZero() {
			return nil, missingResult(id)
		}
		name := e.ResultID
		name.Tag = tag
		if s.tags[name] != nil {
			return nil, fmt.Errorf("tag %s: %w", tag, aloft.ErrExists)
		}
		if e.Tag == "" {
			e.Tag = tag
		} else {
			e.Tags = append(e.Tags, tag)
			slices.Sort(e.Tags)
		}
		s.tags[name] = e
		return nil, nil
	})
}

// CreateDataset states a dataset.
func (s *Store) CreateDataset(_ context.Context, d *store.Dataset) error {
	return s.do("CreateDataset", func() ([]store.Topic, error) {
		if s.dataset(store.ResultID{Project: d.Project, Domain: d.Domain, Name: d.Name, Version: d.Version}) != nil {
			return nil, fmt.Errorf("dataset %s/%s/%s/%s: %w", d.Project, d.Domain, d.Name, d.Version, aloft.ErrExists)
		}
		s.datasets = append(s.datasets, cloneDataset(d))
		return nil, nil
	})
}

func cloneDataset(d *store.Dataset) *store.Dataset {
	c := *d
	c.Metadata, c.PartitionKeys = maps.Clone(d.Metadata), slices.Clone(d.PartitionKeys)
	return &c
}

// matchesQuery says whether a query selects a result, or a dataset, as far as its id decides that.
func matchesQuery(q store.ResultQuery, id store.ResultID) bool {
	return (q.Project == "" || q.Project == id.Project) && (q.Domain == "" || q.Domain == id.Domain) &&
		(q.Name == "" || q.Name == id.Name) && (q.Version == "" || q.Version == id.Version)
}

// ListDatasets lists datasets.
func (s *Store) ListDatasets(_ context.Context, q store.ResultQuery) (all []*store.Dataset, err error) {
	err = s.do("ListDatasets", func() ([]store.Topic, error) {
		all = nil
		for _, d := range s.datasets {
			if matchesQuery(q, store.ResultID{Project: d.Project, Domain: d.Domain, Name: d.Name, Version: d.Version}) {
				all = append(all, cloneDataset(d))
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return page(inOrder(all, store.Query{Ascending: q.Ascending}), store.Query{Limit: q.Limit, Offset: q.Offset}), nil
}

// RemoveResults makes results gone.
func (s *Store) RemoveResults(_ context.Context, ids []string, reason string, now time.Time) (n int, err error) {
	err = s.do("RemoveResults", func() ([]store.Topic, error) {
		n = 0
		for _, id := range ids {
			if e := s.results[id]; e != nil && e.GoneAt.IsZero() {
				s.removeResult(e, reason, now)
				n++
			}
		}
		return nil, nil
	})
	return n, err
}

// PinResults exempts results from limits, or ends that.
func (s *Store) PinResults(_ context.Context, ids []string, pinned bool) (n int, err error) {
	err = s.do("PinResults", func() ([]store.Topic, error) {
		n = 0
		for _, id := range ids {
			if e := s.results[id]; e != nil && e.GoneAt.IsZero() && e.Pinned != pinned {
				e.Pinned = pinned
				n++
			}
		}
		return nil, nil
	})
	return n, err
}

// UsedResults notes that results were found.
func (s *Store) UsedResults(_ context.Context, ids []string, now time.Time) error {
	return s.do("UsedResults", func() ([]store.Topic, error) {
		for _, id := range ids {
			if e := s.results[id]; e != nil && e.UsedAt.Before(now) {
				e.UsedAt = now
			}
		}
		return nil, nil
	})
}

// ListResults lists results without their outputs.
func (s *Store) ListResults(_ context.Context, q store.ResultQuery) (all []*store.Result, err error) {
	err = s.do("ListResults", func() ([]store.Topic, error) {
		all = nil
		for _, e := range s.resultsInOrder {
			if !matchesQuery(q, e.ResultID) || q.ID != "" && q.ID != e.ID || !q.Gone && !e.GoneAt.IsZero() || !q.Before.IsZero() && !e.CreatedAt.Before(q.Before) {
				continue
			}
			if q.Tag != "" && q.Tag != e.Tag && !slices.Contains(e.Tags, q.Tag) {
				continue
			}
			if q.Execution != nil && e.Source.Execution != aloft.ExecutionIDOf(q.Execution) {
				continue
			}
			all = append(all, cloneResult(e, false))
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return page(inOrder(all, store.Query{Ascending: q.Ascending}), store.Query{Limit: q.Limit, Offset: q.Offset}), nil
}

// Reserve asks for the right to compute a result.
func (s *Store) Reserve(_ context.Context, r store.Reservation, now time.Time) (holds store.Reservation, err error) {
	err = s.do("Reserve", func() ([]store.Topic, error) {
		old, held := s.reservations[r.ID]
		if held && old.Owner != r.Owner && s.valid(old, now) {
			holds = old
			if r.Execution != 0 && !slices.Contains(s.waiters[r.ID], r.Execution) {
				s.waiters[r.ID] = append(s.waiters[r.ID], r.Execution)
			}
			return nil, nil
		}
		s.reservations[r.ID], holds = r, r
		return nil, nil
	})
	return holds, err
}

// valid says whether a reservation holds: see store.Reservation.
func (s *Store) valid(r store.Reservation, now time.Time) bool {
	if r.Execution == 0 {
		return r.Expires.After(now)
	}
	e := s.find(r.Execution)
	if e == nil || e.ended {
		return false
	}
	n := e.nodes[r.Node]
	return n == nil || !aloft.Terminal(n.Phase)
}

// Release gives a reservation back.
func (s *Store) Release(_ context.Context, id store.ResultID, owner string) error {
	return s.do("Release", func() ([]store.Topic, error) {
		if s.release(store.Release{ID: id, Owner: owner}, fmt.Sprint(s.lastInbox)) {
			return []store.Topic{store.TopicInbox}, nil
		}
		return nil, nil
	})
}

// reservationsOf are the reservations that nodes of an execution hold.
func (s *Store) reservationsOf(of store.Key) (all []store.Release) {
	for id, r := range s.reservations {
		if r.Execution == of {
			all = append(all, store.Release{ID: id, Owner: r.Owner})
		}
	}
	slices.SortFunc(all, func(a, b store.Release) int {
		return strings.Compare(store.WaitForResult(a.ID), store.WaitForResult(b.ID))
	})
	return all
}

// release gives a reservation back and says whether an execution was woken.
func (s *Store) release(r store.Release, occasion string) (woken bool) {
	if s.reservations[r.ID].Owner != r.Owner {
		return false
	}
	delete(s.reservations, r.ID)
	for _, key := range s.waiters[r.ID] {
		if e := s.find(key); e != nil && !e.ended {
			woken = s.put(e, store.ResultWake(store.WaitForResult(r.ID), occasion)) || woken
		}
	}
	delete(s.waiters, r.ID)
	return woken
}
