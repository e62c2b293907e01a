package memstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func cloneTask(t *store.Task) *store.Task {
	c := *t
	c.ID, c.Compiled, c.Description, c.Digest = clone(t.ID), clone(t.Compiled), clone(t.Description), slices.Clone(t.Digest)
	return &c
}

func cloneWorkflow(w *store.Workflow) *store.Workflow {
	c := *w
	c.ID, c.Compiled, c.Description, c.Digest = clone(w.ID), clone(w.Compiled), clone(w.Description), slices.Clone(w.Digest)
	return &c
}

func cloneLaunchPlan(l *store.LaunchPlan) *store.LaunchPlan {
	c := *l
	c.ID, c.Spec, c.Closure, c.Digest = clone(l.ID), clone(l.Spec), clone(l.Closure), slices.Clone(l.Digest)
	if c.Closure == nil {
		c.Closure = &admin.LaunchPlanClosure{}
	}
	c.Closure.CreatedAt, c.Closure.UpdatedAt = timestamppb.New(c.CreatedAt), timestamppb.New(c.UpdatedAt)
	return &c
}

// register writes a version that must be new.
func register[T any](s *Store, op string, v aloft.Key, into map[aloft.Key]T, rec T) error {
	return s.do(op, func() ([]store.Topic, error) {
		if _, there := into[v]; there {
			return nil, fmt.Errorf("%s: %w", v, aloft.ErrExists)
		}
		into[v] = rec
		s.registered = append(s.registered, v)
		return nil, nil
	})
}

func get[T any](s *Store, op string, v aloft.Key, from map[aloft.Key]*T, clone func(*T) *T) (rec *T, err error) {
	err = s.do(op, func() ([]store.Topic, error) {
		found := from[v]
		if found == nil {
			return nil, fmt.Errorf("%s: %w", v, aloft.ErrNotFound)
		}
		rec = clone(found)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// CreateTask writes a version of a task.
func (s *Store) CreateTask(_ context.Context, t *store.Task) error {
	return register(s, "CreateTask", aloft.KeyOf(t.ID).Of(core.ResourceType_TASK), s.tasks, cloneTask(t))
}

// CreateWorkflow writes a version of a workflow.
func (s *Store) CreateWorkflow(_ context.Context, w *store.Workflow) error {
	return register(s, "CreateWorkflow", aloft.KeyOf(w.ID).Of(core.ResourceType_WORKFLOW), s.workflows, cloneWorkflow(w))
}

// CreateLaunchPlan writes a version of a launch plan. If it is created active, the version that was active is deactivated.
func (s *Store) CreateLaunchPlan(_ context.Context, l *store.LaunchPlan) error {
	v := aloft.KeyOf(l.ID).Of(core.ResourceType_LAUNCH_PLAN)
	return s.do("CreateLaunchPlan", func() ([]store.Topic, error) {
		if _, there := s.launchPlans[v]; there {
			return nil, fmt.Errorf("%s: %w", v, aloft.ErrExists)
		}
		made := cloneLaunchPlan(l)
		if made.Closure.State == admin.LaunchPlanState_ACTIVE {
			s.deactivate(v, l.CreatedAt)
		}
		s.launchPlans[v] = made
		s.registered = append(s.registered, v)
		return nil, nil
	})
}

func (s *Store) active(v aloft.Key) *store.LaunchPlan {
	for other, l := range s.launchPlans {
		other.Version = v.Version
		if other == v && l.Closure.State == admin.LaunchPlanState_ACTIVE {
			return l
		}
	}
	return nil
}

func (s *Store) deactivate(v aloft.Key, now time.Time) {
	if l := s.active(v); l != nil {
		l.Closure.State, l.UpdatedAt = admin.LaunchPlanState_INACTIVE, now
	}
}

// GetTask returns one version.
func (s *Store) GetTask(_ context.Context, id *core.Identifier) (*store.Task, error) {
	return get(s, "GetTask", aloft.KeyOf(id).Of(core.ResourceType_TASK), s.tasks, cloneTask)
}

// GetWorkflow returns one version.
func (s *Store) GetWorkflow(_ context.Context, id *core.Identifier) (*store.Workflow, error) {
	return get(s, "GetWorkflow", aloft.KeyOf(id).Of(core.ResourceType_WORKFLOW), s.workflows, cloneWorkflow)
}

// GetLaunchPlan returns one version.
func (s *Store) GetLaunchPlan(_ context.Context, id *core.Identifier) (*store.LaunchPlan, error) {
	return get(s, "GetLaunchPlan", aloft.KeyOf(id).Of(core.ResourceType_LAUNCH_PLAN), s.launchPlans, cloneLaunchPlan)
}

// GetActiveLaunchPlan returns the active version of a name.
func (s *Store) GetActiveLaunchPlan(_ context.Context, project, domain, name string) (rec *store.LaunchPlan, err error) {
	err = s.do("GetActiveLaunchPlan", func() ([]store.Topic, error) {
		l := s.active(aloft.Key{Kind: core.ResourceType_LAUNCH_PLAN, Project: project, Domain: domain, Name: name})
		if l == nil {
			return nil, fmt.Errorf("active launch plan %s/%s/%s: %w", project, domain, name, aloft.ErrNotFound)
		}
		rec = cloneLaunchPlan(l)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// SetLaunchPlanState activates or deactivates a version.
func (s *Store) SetLaunchPlanState(_ context.Context, id *core.Identifier, state admin.LaunchPlanState, now time.Time) error {
	v := aloft.KeyOf(id).Of(core.ResourceType_LAUNCH_PLAN)
	return s.do("SetLaunchPlanState", func() ([]store.Topic, error) {
		l := s.launchPlans[v]
		switch {
		case l == nil:
			return nil, fmt.Errorf("%s: %w", v, aloft.ErrNotFound)
		case l.Closure.State == state:
			return nil, nil
		case state == admin.LaunchPlanState_ACTIVE:
			s.deactivate(v, now)
		}
		l.Closure.State, l.UpdatedAt = state, now
		return nil, nil
	})
}

// CreateProject registers a project.
func (s *Store) CreateProject(_ context.Context, p *admin.Project) error {
	return s.do("CreateProject", func() ([]store.Topic, error) {
		if s.projects[p.Id] != nil {
			return nil, fmt.Errorf("project %s: %w", p.Id, aloft.ErrExists)
		}
		s.projects[p.Id] = clone(p)
		return nil, nil
	})
}

// UpdateProject replaces a project.
func (s *Store) UpdateProject(_ context.Context, p *admin.Project) error {
	return s.do("UpdateProject", func() ([]store.Topic, error) {
		if s.projects[p.Id] == nil {
			return nil, fmt.Errorf("project %s: %w", p.Id, aloft.ErrNotFound)
		}
		s.projects[p.Id] = clone(p)
		return nil, nil
	})
}

// GetProject returns one project.
func (s *Store) GetProject(_ context.Context, id string) (p *admin.Project, err error) {
	err = s.do("GetProject", func() ([]store.Topic, error) {
		found := s.projects[id]
		if found == nil {
			return nil, fmt.Errorf("project %s: %w", id, aloft.ErrNotFound)
		}
		p = clone(found)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}
