package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/internal/near"
	"github.com/aloft-dev/aloft/store"
)

// InactiveProject is the error of a call that would add something to an archived project.
type InactiveProject struct{ ID string }

func (e *InactiveProject) Error() string {
	return fmt.Sprintf("project [%s] is archived: activate it first, or use another one", e.ID)
}

// Unwrap is aloft.ErrInvalid.
func (e *InactiveProject) Unwrap() error { return aloft.ErrInvalid }

// projectCache remembers for projectCacheTime whether a project may be used. Every create needs to know, and another server on
// the same database may change it.
type projectCache struct {
	mu    sync.Mutex
	known map[string]knownProject
}

type knownProject struct {
	err error // nil: the project is active
	at  time.Time
}

// projectCacheTime is how long a change that another server made to a project may go unnoticed.
const projectCacheTime = time.Second

// CheckProject refuses unknown projects, archived projects, and unknown domains.
func (r *Registry) CheckProject(ctx context.Context, project, domain string) error {
	var problems field.Problems
	if err := r.checkActive(ctx, project); err != nil {
		if !errors.Is(err, aloft.ErrInvalid) {
			return err
		}
		problems.Include(err)
	}
	if !slices.Contains(r.Domains, domain) {
		problems.Add("domain [%s] is unrecognized by system: it is one of %s", domain, strings.Join(r.Domains, ", "))
	}
	return problems.Err()
}

func (r *Registry) checkActive(ctx context.Context, project string) error {
	now := r.Now()
	r.projects.mu.Lock()
	known, ok := r.projects.known[project]
	r.projects.mu.Unlock()
	if age := now.Sub(known.at); ok && age >= 0 && age < projectCacheTime {
		return known.err
	}
	p, err := r.Store.GetProject(ctx, project)
	switch {
	case errors.Is(err, aloft.ErrNotFound):
		// Not remembered: the project may be registered before the next call.
		return fmt.Errorf("%w: %s; `flytectl create project` makes one", aloft.ErrInvalid, r.missingProject(ctx, project))
	case err != nil:
		return fmt.Errorf("read project %s: %w", project, err)
	case p.GetState() == admin.Project_ARCHIVED || p.GetState() == admin.Project_SYSTEM_ARCHIVED:
		err = &InactiveProject{ID: project}
	}
	r.projects.mu.Lock()
	defer r.projects.mu.Unlock()
	if r.projects.known == nil || len(r.projects.known) > 10_000 {
		r.projects.known = map[string]knownProject{}
	}
	r.projects.known[project] = knownProject{err, now}
	return err
}

// Seed registers a project unless it is registered already.
func (r *Registry) Seed(ctx context.Context, id string) error {
	err := r.RegisterProject(ctx, &admin.Project{Id: id, Name: id, Description: id})
	if err != nil && !errors.Is(err, aloft.ErrExists) {
		return fmt.Errorf("seed project %s: %w", id, err)
	}
	return nil
}

const (
	maxProjectName        = 64
	maxProjectDescription = 300
)

// missingProject is the message that a project does not exist, with the projects that do: all if they are few, else the one with a
// similar name, or the latest.
func (r *Registry) missingProject(ctx context.Context, id string) string {
	const shown = 5
	text := fmt.Sprintf("there is no project [%s]", aloft.Excerpt(id))
	projects, err := r.Store.ListProjects(ctx, store.Query{Limit: 1000})
	if err != nil {
		return text // the message without the other projects
	}
	var names []string
	for _, p := range projects {
		if p.GetState() == admin.Project_ACTIVE {
			names = append(names, p.GetId())
		}
	}
	found := near.Name(id, names)
	switch {
	case len(names) == 0:
		return text
	case len(names) > 1 && found != "":
		return text + "; did you mean " + found + "?"
	case len(names) > shown:
		names = append(names[:shown], "…")
	}
	return text + "; there is " + strings.Join(names, ", ")
}

// RegisterProject adds a project. ErrExists if its id is taken.
func (r *Registry) RegisterProject(ctx context.Context, p *admin.Project) error {
	var problems field.Problems
	if p == nil {
		problems.Missing("project")
	} else {
		if p.GetId() != "" && !field.DNSLabel(p.GetId()) {
			problems.Add("invalid value for project.id: %q must be lower-case letters, digits and '-', at most 63, with a letter or digit at both ends", aloft.Excerpt(p.GetId()))
		}
		problems.Need("project.id", p.GetId())
		problems.Need("project.name", p.GetName())
		checkProject(&problems, p)
	}
	if err := problems.Err(); err != nil {
		return fmt.Errorf("register project: %w", err)
	}
	p = &admin.Project{Id: p.GetId(), Name: p.GetName(), Description: p.GetDescription(), Labels: p.GetLabels(), State: p.GetState()}
	if err := r.Store.CreateProject(ctx, p); err != nil {
		if errors.Is(err, aloft.ErrExists) {
			return fmt.Errorf("project [%s]: %w", p.GetId(), aloft.ErrExists)
		}
		return fmt.Errorf("register project %s: %w", p.GetId(), err)
	}
	return nil
}

// UpdateProject overwrites the fields that are not empty in change, and always the state. ErrNotFound.
func (r *Registry) UpdateProject(ctx context.Context, change *admin.Project) error {
	var problems field.Problems
	problems.Need("id", change.GetId())
	checkProject(&problems, change)
	if err := problems.Err(); err != nil {
		return fmt.Errorf("update project: %w", err)
	}
	p, err := r.Project(ctx, change.GetId())
	if err != nil {
		return err
	}
	p = proto.CloneOf(p)
	p.Domains = nil
	if change.GetName() != "" {
		p.Name = change.GetName()
	}
	if change.GetDescription() != "" {
		p.Description = change.GetDescription()
	}
	if len(change.GetLabels().GetValues()) > 0 {
		p.Labels = change.GetLabels()
	}
	p.State = change.GetState()
	if err := r.Store.UpdateProject(ctx, p); err != nil {
		return fmt.Errorf("update project %s: %w", p.GetId(), err)
	}
	r.projects.mu.Lock()
	defer r.projects.mu.Unlock()
	delete(r.projects.known, p.GetId())
	return nil
}

func checkProject(problems *field.Problems, p *admin.Project) {
	problems.Characters(maxProjectName, "project.name", p.GetName())
	problems.Characters(maxProjectDescription, "project.description", p.GetDescription())
	if len(p.GetDomains()) > 0 {
		problems.Add("invalid value for project.domains: domains belong to the server's configuration and are the same for all projects, leave them out")
	}
	if _, ok := admin.Project_ProjectState_name[int32(p.GetState())]; !ok {
		problems.Add("invalid value for project.state: %d", p.GetState())
	}
	problems.Labels(p.GetLabels())
	problems.Legible("project", p)
}

// Project returns a project with its domains. ErrNotFound.
func (r *Registry) Project(ctx context.Context, id string) (*admin.Project, error) {
	p, err := r.Store.GetProject(ctx, id)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", r.missingProject(ctx, id), aloft.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read project %s: %w", id, err)
	}
	p.Domains = r.AllDomains()
	return p, nil
}

// AllDomains are the domains of the configuration as messages.
func (r *Registry) AllDomains() []*admin.Domain {
	domains := make([]*admin.Domain, len(r.Domains))
	for i, id := range r.Domains {
		domains[i] = &admin.Domain{Id: id, Name: id}
	}
	return domains
}
