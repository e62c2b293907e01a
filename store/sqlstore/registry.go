package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// versionName names a version in messages.
func versionName(kind core.ResourceType, id *core.Identifier) string {
	return aloft.Kind(kind) + " " + id.GetProject() + "/" + id.GetDomain() + "/" + id.GetName() + " version " + id.GetVersion()
}

func (e *encoder) version(id *core.Identifier) {
	e.add(id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion())
}

func bytes(b []byte) driver.Value {
	if b == nil {
		return nil
	}
	return b
}

// create inserts a row whose id must be new.
func (s *Store) create(ctx context.Context, name string, enc *encoder, query string) error {
	if enc.err != nil {
		return fmt.Errorf("create %s: %w", name, enc.err)
	}
	return s.write(ctx, 1, func(t *tx) error { return insertNew(t, name, enc, query) })
}

func insertNew(t *tx, name string, enc *encoder, query string) error {
	n, err := t.exec(query+" ON CONFLICT DO NOTHING", enc.values...)
	if err == nil && n == 0 {
		return refuse("%s: %w", name, aloft.ErrExists)
	}
	return err
}

// unreadableVersion is the error of a version that cannot be understood, with what to do about it.
func unreadableVersion(kind core.ResourceType, id *core.Identifier, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s is %w: %w. Register the same version again: that writes its record anew", versionName(kind, id), aloft.ErrUnreadable, err)
}

// messageColumn is a column that holds a message of a version, with its value in a new row.
type messageColumn struct {
	name    string
	message proto.Message
	value   driver.Value
}

// rewriteDamaged is called after a create. If the version is there (taken is ErrExists), one of its messages cannot be understood
// and the digests are equal, it writes the messages again: what was registered does not change by that. It returns taken.
func (s *Store) rewriteDamaged(ctx context.Context, taken error, table string, id *core.Identifier, digest []byte, parts ...messageColumn) error {
	if !errors.Is(taken, aloft.ErrExists) {
		return taken
	}
	names, found, dest := make([]string, len(parts)), make([][]byte, len(parts)), make([]any, len(parts))
	for i, c := range parts {
		names[i], dest[i] = c.name, &found[i]
	}
	damaged := false
	if err := s.read(ctx, true, "SELECT "+strings.Join(names, ", ")+" FROM "+table+" "+oneVersion, []any{id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion()},
		func(scan scan) error {
			err := scan(dest...)
			for i, c := range parts {
				damaged = damaged || unmarshal(found[i], c.message) != nil
			}
			return err
		}); err != nil {
		return err
	}
	if !damaged {
		return taken
	}
	var args []driver.Value
	for _, c := range parts {
		args = append(args, c.value)
	}
	args = append(args, id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion(), digest)
	if err := s.write(ctx, 1, func(t *tx) error {
		_, err := t.exec("UPDATE "+table+" SET "+strings.Join(names, " = ?, ")+" = ? "+oneVersion+" AND digest = ?", args...)
		return err
	}); err != nil {
		return err
	}
	return taken
}

// CreateTask writes a version of a task.
func (s *Store) CreateTask(ctx context.Context, t *store.Task) error {
	var enc encoder
	enc.version(t.ID)
	enc.add(t.Compiled.GetTemplate().GetType(), t.ShortDescription, bytes(t.Digest), nanos(t.CreatedAt), enc.blob(t.Description), enc.blob(orEmpty(t.Compiled)))
	err := s.create(ctx, versionName(core.ResourceType_TASK, t.ID), &enc,
		`INSERT INTO tasks (project, domain, name, version, type, short_description, digest, created_at, description, compiled) VALUES (?,?,?,?,?,?,?,?,?,?)`)
	return s.rewriteDamaged(ctx, err, "tasks", t.ID, t.Digest,
		messageColumn{"description", new(admin.DescriptionEntity), enc.values[8]}, messageColumn{"compiled", new(core.CompiledTask), enc.values[9]})
}

// orEmpty is the message for a column that is never NULL.
func orEmpty[M any](m *M) *M {
	if m == nil {
		return new(M)
	}
	return m
}

// CreateWorkflow writes a version of a workflow.
func (s *Store) CreateWorkflow(ctx context.Context, w *store.Workflow) error {
	var enc encoder
	enc.version(w.ID)
	enc.add(w.ShortDescription, flag(w.Generated), bytes(w.Digest), nanos(w.CreatedAt), enc.blob(w.Description),
		enc.blob(store.WorkflowInterface(w.Compiled)), enc.blob(orEmpty(w.Compiled)))
	err := s.create(ctx, versionName(core.ResourceType_WORKFLOW, w.ID), &enc, `INSERT INTO workflows (project, domain, name, version, short_description, generated,
		digest, created_at, description, summary, compiled) VALUES (?,?,?,?,?,?,?,?,?,?,?)`)
	return s.rewriteDamaged(ctx, err, "workflows", w.ID, w.Digest, messageColumn{"description", new(admin.DescriptionEntity), enc.values[8]},
		messageColumn{"summary", new(core.CompiledWorkflowClosure), enc.values[9]}, messageColumn{"compiled", new(core.CompiledWorkflowClosure), enc.values[10]})
}

// CreateLaunchPlan writes a version of a launch plan. If it is created active, the version that was active is deactivated.
func (s *Store) CreateLaunchPlan(ctx context.Context, l *store.LaunchPlan) error {
	schedule := "NONE"
	switch l.Spec.GetEntityMetadata().GetSchedule().GetScheduleExpression().(type) {
	case *admin.Schedule_CronExpression, *admin.Schedule_CronSchedule:
		schedule = "CRON"
	case *admin.Schedule_Rate:
		schedule = "RATE"
	}
	workflow, closure := l.Spec.GetWorkflowId(), orEmpty(l.Closure)
	updatedAt := l.UpdatedAt
	if updatedAt.IsZero() {
		updatedAt = l.CreatedAt
	}
	var enc encoder
	enc.version(l.ID)
	enc.add(int64(closure.GetState()), flag(l.Generated), schedule)
	enc.version(workflow)
	enc.add(bytes(l.Digest), nanos(l.CreatedAt), nanos(updatedAt), enc.blob(orEmpty(l.Spec)), enc.blob(closure))
	name := versionName(core.ResourceType_LAUNCH_PLAN, l.ID)
	if enc.err != nil {
		return fmt.Errorf("create %s: %w", name, enc.err)
	}
	err := s.write(ctx, 2, func(t *tx) error {
		if closure.GetState() == admin.LaunchPlanState_ACTIVE {
			if err := deactivate(t, l.ID, l.CreatedAt); err != nil {
				return err
			}
		}
		return insertNew(t, name, &enc, `INSERT INTO launch_plans (project, domain, name, version, state, generated, schedule_type, workflow_project,
			workflow_domain, workflow_name, workflow_version, digest, created_at, updated_at, spec, closure) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`)
	})
	return s.rewriteDamaged(ctx, err, "launch_plans", l.ID, l.Digest,
		messageColumn{"spec", new(admin.LaunchPlanSpec), enc.values[14]}, messageColumn{"closure", new(admin.LaunchPlanClosure), enc.values[15]})
}

// deactivate deactivates the active version of a name, before another one is activated.
func deactivate(t *tx, id *core.Identifier, now time.Time) error {
	// Two servers that activate versions of the name at once do so one after the other.
	if err := t.lock("launch plan " + id.GetProject() + "/" + id.GetDomain() + "/" + id.GetName()); err != nil {
		return err
	}
	_, err := t.exec("UPDATE launch_plans SET state = 0, updated_at = ? WHERE project = ? AND domain = ? AND name = ? AND state = 1",
		nanos(now), id.GetProject(), id.GetDomain(), id.GetName())
	return err
}

// SetLaunchPlanState activates or deactivates a version.
func (s *Store) SetLaunchPlanState(ctx context.Context, id *core.Identifier, state admin.LaunchPlanState, now time.Time) error {
	return s.write(ctx, 2, func(t *tx) error {
		var have int64
		found, err := t.row([]any{&have}, "SELECT state FROM launch_plans WHERE project = ? AND domain = ? AND name = ? AND version = ?",
			id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion())
		switch {
		case err != nil:
			return err
		case !found:
			return refuse("%s: %w", versionName(core.ResourceType_LAUNCH_PLAN, id), aloft.ErrNotFound)
		case have == int64(state):
			return nil
		case state == admin.LaunchPlanState_ACTIVE:
			if err := deactivate(t, id, now); err != nil {
				return err
			}
		}
		_, err = t.exec("UPDATE launch_plans SET state = ?, updated_at = ? WHERE project = ? AND domain = ? AND name = ? AND version = ?",
			int64(state), nanos(now), id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion())
		return err
	})
}

// descriptionOf is the description of a version. One that cannot be understood is left out: no execution needs it.
func descriptionOf(column []byte) *admin.DescriptionEntity {
	var d decoder
	return into(&d, new(admin.DescriptionEntity), column)
}

const selectTasks = `SELECT project, domain, name, version, short_description, digest, created_at, description, compiled FROM tasks t `

func (s *Store) tasks(ctx context.Context, budget *store.Budget, keep bool, rest string, args ...any) ([]*store.Task, error) {
	var tasks []*store.Task
	err := s.list(ctx, keep, selectTasks+rest, args, budget, func(scan scan) error {
		t := &store.Task{ID: &core.Identifier{ResourceType: core.ResourceType_TASK}}
		var createdAt int64
		var description, compiled []byte
		if err := scan(&t.ID.Project, &t.ID.Domain, &t.ID.Name, &t.ID.Version, &t.ShortDescription, &t.Digest, &createdAt, &description, &compiled); err != nil {
			return err
		}
		t.CreatedAt = instant(createdAt)
		var d decoder
		t.Description = descriptionOf(description)
		t.Compiled = into(&d, new(core.CompiledTask), compiled)
		tasks = append(tasks, t)
		t.Unreadable = unreadableVersion(core.ResourceType_TASK, t.ID, d.err)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tasks, nil
}

func selectWorkflows(closure string) string {
	return "SELECT project, domain, name, version, short_description, generated, digest, created_at, description, " + closure + " FROM workflows w "
}

func (s *Store) workflows(ctx context.Context, budget *store.Budget, keep bool, closure, rest string, args ...any) ([]*store.Workflow, error) {
	var workflows []*store.Workflow
	err := s.list(ctx, keep, selectWorkflows(closure)+rest, args, budget, func(scan scan) error {
		w := &store.Workflow{ID: &core.Identifier{ResourceType: core.ResourceType_WORKFLOW}}
		var generated, createdAt int64
		var description, compiled []byte
		if err := scan(&w.ID.Project, &w.ID.Domain, &w.ID.Name, &w.ID.Version, &w.ShortDescription, &generated, &w.Digest, &createdAt, &description, &compiled); err != nil {
			return err
		}
		w.Generated, w.CreatedAt = generated != 0, instant(createdAt)
		var d decoder
		w.Description = descriptionOf(description)
		w.Compiled = into(&d, new(core.CompiledWorkflowClosure), compiled)
		workflows = append(workflows, w)
		w.Unreadable = unreadableVersion(core.ResourceType_WORKFLOW, w.ID, d.err)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return workflows, nil
}

const selectLaunchPlans = `SELECT project, domain, name, version, state, generated, digest, created_at, updated_at, spec, closure FROM launch_plans l `

func (s *Store) launchPlans(ctx context.Context, budget *store.Budget, keep bool, rest string, args ...any) ([]*store.LaunchPlan, error) {
	var plans []*store.LaunchPlan
	err := s.list(ctx, keep, selectLaunchPlans+rest, args, budget, func(scan scan) error {
		l := &store.LaunchPlan{ID: &core.Identifier{ResourceType: core.ResourceType_LAUNCH_PLAN}}
		var state, generated, createdAt, updatedAt int64
		var spec, closure []byte
		if err := scan(&l.ID.Project, &l.ID.Domain, &l.ID.Name, &l.ID.Version, &state, &generated, &l.Digest, &createdAt, &updatedAt, &spec, &closure); err != nil {
			return err
		}
		l.Generated, l.CreatedAt, l.UpdatedAt = generated != 0, instant(createdAt), instant(updatedAt)
		var d decoder
		l.Spec = into(&d, new(admin.LaunchPlanSpec), spec)
		l.Closure = orEmpty(into(&d, new(admin.LaunchPlanClosure), closure))
		l.Closure.State = admin.LaunchPlanState(state)
		l.Closure.CreatedAt, l.Closure.UpdatedAt = timestamppb.New(l.CreatedAt), timestamppb.New(l.UpdatedAt)
		plans = append(plans, l)
		l.Unreadable = unreadableVersion(core.ResourceType_LAUNCH_PLAN, l.ID, d.err)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return plans, nil
}

const oneVersion = "WHERE project = ? AND domain = ? AND name = ? AND version = ?"

// onlyRow is the only row, or ErrNotFound.
func onlyRow[T any](rows []*T, err error, name string) (*T, error) {
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s: %w", name, aloft.ErrNotFound)
	}
	return rows[0], nil
}

// readable is a row, or the error why it cannot be understood.
func readable[T any](row *T, err error, unreadable func(*T) error) (*T, error) {
	if err != nil {
		return nil, err
	}
	if err := unreadable(row); err != nil {
		return nil, err
	}
	return row, nil
}

func unreadableTask(t *store.Task) error             { return t.Unreadable }
func unreadableWorkflow(w *store.Workflow) error     { return w.Unreadable }
func unreadableLaunchPlan(l *store.LaunchPlan) error { return l.Unreadable }

// GetTask returns one version.
func (s *Store) GetTask(ctx context.Context, id *core.Identifier) (*store.Task, error) {
	rows, err := s.tasks(ctx, nil, true, oneVersion, id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion())
	found, err := onlyRow(rows, err, versionName(core.ResourceType_TASK, id))
	return readable(found, err, unreadableTask)
}

// GetWorkflow returns one version.
func (s *Store) GetWorkflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error) {
	rows, err := s.workflows(ctx, nil, true, "compiled", oneVersion, id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion())
	found, err := onlyRow(rows, err, versionName(core.ResourceType_WORKFLOW, id))
	return readable(found, err, unreadableWorkflow)
}

// GetLaunchPlan returns one version.
func (s *Store) GetLaunchPlan(ctx context.Context, id *core.Identifier) (*store.LaunchPlan, error) {
	rows, err := s.launchPlans(ctx, nil, true, oneVersion, id.GetProject(), id.GetDomain(), id.GetName(), id.GetVersion())
	found, err := onlyRow(rows, err, versionName(core.ResourceType_LAUNCH_PLAN, id))
	return readable(found, err, unreadableLaunchPlan)
}

// GetActiveLaunchPlan returns the active version of a name.
func (s *Store) GetActiveLaunchPlan(ctx context.Context, project, domain, name string) (*store.LaunchPlan, error) {
	rows, err := s.launchPlans(ctx, nil, true, "WHERE project = ? AND domain = ? AND name = ? AND state = 1", project, domain, name)
	found, err := onlyRow(rows, err, "active launch plan "+project+"/"+domain+"/"+name)
	return readable(found, err, unreadableLaunchPlan)
}

// CreateProject registers a project.
func (s *Store) CreateProject(ctx context.Context, p *admin.Project) error {
	var enc encoder
	enc.add(p.Id, p.Name, p.Description, int64(p.State), enc.blob(p))
	return s.create(ctx, "project "+p.Id, &enc, "INSERT INTO projects (id, name, description, state, record) VALUES (?,?,?,?,?)")
}

// UpdateProject replaces a project.
func (s *Store) UpdateProject(ctx context.Context, p *admin.Project) error {
	var enc encoder
	enc.add(p.Name, p.Description, int64(p.State), enc.blob(p), p.Id)
	if enc.err != nil {
		return fmt.Errorf("update project %s: %w", p.Id, enc.err)
	}
	return s.write(ctx, 1, func(t *tx) error {
		n, err := t.exec("UPDATE projects SET name = ?, description = ?, state = ?, record = ? WHERE id = ?", enc.values...)
		if err == nil && n == 0 {
			return refuse("project %s: %w", p.Id, aloft.ErrNotFound)
		}
		return err
	})
}

func (s *Store) projects(ctx context.Context, keep bool, rest string, args ...any) ([]*admin.Project, error) {
	var projects []*admin.Project
	err := s.read(ctx, keep, "SELECT id, name, description, state, record FROM projects p "+rest, args, func(scan scan) error {
		known := new(admin.Project)
		var record []byte
		if err := scan(&known.Id, &known.Name, &known.Description, &known.State, &record); err != nil {
			return err
		}
		var d decoder
		p := into(&d, new(admin.Project), record)
		if p == nil { // its labels cannot be understood; all else is in columns
			p = known
			p.Description = strings.TrimSpace(p.Description + " (its labels cannot be read: update the project, with its labels)")
		}
		projects = append(projects, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return projects, nil
}

// GetProject returns one project.
func (s *Store) GetProject(ctx context.Context, id string) (*admin.Project, error) {
	rows, err := s.projects(ctx, true, "WHERE id = ?", id)
	return onlyRow(rows, err, "project "+id)
}
