package store

import (
	"context"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Registry keeps versions of tasks, workflows and launch plans. They never change; a launch plan's state may.
type Registry interface {
	// Create writes a version; ErrExists if its id is taken, by an equal version or by another. If the record that has the id
	// cannot be understood and the new version has its digest, the record is written again, and the answer is ErrExists.
	CreateTask(ctx context.Context, t *Task) error
	CreateWorkflow(ctx context.Context, w *Workflow) error
	CreateLaunchPlan(ctx context.Context, l *LaunchPlan) error

	// Get one version; ErrNotFound, ErrUnreadable.
	GetTask(ctx context.Context, id *core.Identifier) (*Task, error)
	GetWorkflow(ctx context.Context, id *core.Identifier) (*Workflow, error)
	GetLaunchPlan(ctx context.Context, id *core.Identifier) (*LaunchPlan, error)
	GetActiveLaunchPlan(ctx context.Context, project, domain, name string) (*LaunchPlan, error)

	// SetLaunchPlanState activates a version, and deactivates the one that was active, or deactivates it. ErrNotFound.
	SetLaunchPlanState(ctx context.Context, id *core.Identifier, state admin.LaunchPlanState, now time.Time) error

	// GetNamedEntity returns what all versions of a name have in common, ErrNotFound if there is none: a name exists from its
	// first version on. Until its metadata is updated it has no description and is active, or SYSTEM_GENERATED where all its
	// versions are generated. The kind is that of a task, workflow or launch plan, all others are ErrInvalid.
	GetNamedEntity(ctx context.Context, kind core.ResourceType, id *admin.NamedEntityIdentifier) (*admin.NamedEntity, error)

	// UpdateNamedEntity sets the state of a name, and its description unless the new one is empty. ErrNotFound. Nothing else
	// changes by it.
	UpdateNamedEntity(ctx context.Context, e *admin.NamedEntity) error

	CreateProject(ctx context.Context, p *admin.Project) error
	UpdateProject(ctx context.Context, p *admin.Project) error
	GetProject(ctx context.Context, id string) (*admin.Project, error)
}

// Task is a registered version of a task.
type Task struct {
	ID               *core.Identifier
	Digest           []byte // Flyte's structure digest
	Compiled         *core.CompiledTask
	Description      *admin.DescriptionEntity // nil: none
	ShortDescription string
	CreatedAt        time.Time
	Unreadable       error // ErrUnreadable, in lists: what of the record is damaged and left out; nil: nothing
}

// Workflow is a registered version of a workflow. Lists return it without Compiled's nodes and tasks.
type Workflow struct {
	ID               *core.Identifier
	Digest           []byte
	Compiled         *core.CompiledWorkflowClosure
	Description      *admin.DescriptionEntity
	ShortDescription string
	CreatedAt        time.Time
	Generated        bool  // made by the server for the execution of a single task
	Unreadable       error // as of a task
}

// LaunchPlan is a registered version of a launch plan.
type LaunchPlan struct {
	ID        *core.Identifier
	Digest    []byte
	Spec      *admin.LaunchPlanSpec
	Closure   *admin.LaunchPlanClosure // state and times are columns of their own and set on reading
	CreatedAt time.Time
	UpdatedAt time.Time
	Generated bool

	Unreadable error // as of a task
}

// WorkflowInterface is what lists of workflows keep of a closure: the primary template without its graph.
func WorkflowInterface(c *core.CompiledWorkflowClosure) *core.CompiledWorkflowClosure {
	t := c.GetPrimary().GetTemplate()
	return &core.CompiledWorkflowClosure{Primary: &core.CompiledWorkflow{Template: &core.WorkflowTemplate{
		Id: t.GetId(), Metadata: t.GetMetadata(), Interface: t.GetInterface(), MetadataDefaults: t.GetMetadataDefaults(),
	}}}
}

// NamedEntityText is how messages speak of a name.
func NamedEntityText(kind core.ResourceType, id *admin.NamedEntityIdentifier) string {
	return aloft.Kind(kind) + " " + id.GetProject() + "/" + id.GetDomain() + "/" + id.GetName()
}

// CheckNamedKind is ErrInvalid for kinds of which there are no named entities.
func CheckNamedKind(kind core.ResourceType) error {
	switch kind {
	case core.ResourceType_TASK, core.ResourceType_WORKFLOW, core.ResourceType_LAUNCH_PLAN:
		return nil
	}
	return fmt.Errorf("named entities of kind %s: only tasks, workflows and launch plans have names: %w", aloft.Kind(kind), aloft.ErrInvalid)
}
