package store

import (
	"context"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Queries read records for the API. They never block writers and are bounded in time.
type Queries interface {
	GetExecution(ctx context.Context, id aloft.ExecutionID) (*Execution, error) // ErrNotFound
	GetNode(ctx context.Context, id aloft.ExecutionID, node aloft.NodeID) (*Node, error)
	GetAttempt(ctx context.Context, id aloft.AttemptID) (*Attempt, error) // with what can be understood of it (Unreadable)

	// Lists return records without inputs and outputs (of attempts: with the reference, without the objects). What Flyte
	// hides unless it is asked for (archived executions and projects) is the API's to leave out.
	ListExecutions(ctx context.Context, q Query) ([]*Execution, error)
	ListNodes(ctx context.Context, id aloft.ExecutionID, parent aloft.NodeID, all bool, q Query) ([]*Node, error) // all: parents and children alike
	ListAttempts(ctx context.Context, id aloft.ExecutionID, node aloft.NodeID, q Query) ([]*Attempt, error)       // node empty: of all nodes
	ListTasks(ctx context.Context, q Query) ([]*Task, error)
	ListWorkflows(ctx context.Context, q Query) ([]*Workflow, error)
	ListLaunchPlans(ctx context.Context, q Query) ([]*LaunchPlan, error)
	ListProjects(ctx context.Context, q Query) ([]*admin.Project, error)

	// ListNamedEntities returns the names of one kind, each once, with their metadata: by name unless another order is asked
	// for. A name is created with its first version and updated with its last one.
	ListNamedEntities(ctx context.Context, kind core.ResourceType, q Query) ([]*admin.NamedEntity, error)

	// NodeInputs is what an executor hands to a task. ErrNotFound.
	NodeInputs(ctx context.Context, execution Key, node aloft.NodeID) (*aloftv1.Literals, error)
	// NodeOutputs is what downstream nodes bind to. ErrNotFound.
	NodeOutputs(ctx context.Context, execution Key, node aloft.NodeID) (*aloftv1.Literals, error)

	// NodeValues returns whole records of several nodes of an execution, with inputs and outputs, in any order; what is not
	// there is left out. ErrNotFound if there is no such execution.
	NodeValues(ctx context.Context, id aloft.ExecutionID, nodes []aloft.NodeID) ([]*Node, error)

	// SetExecutionState archives an execution or brings it back. ErrNotFound.
	SetExecutionState(ctx context.Context, id aloft.ExecutionID, state admin.ExecutionState, principal string) error

	Counts(ctx context.Context) (Counts, error)

	// Waits returns executions that have not ended and have named external waits, the oldest first.
	Waits(ctx context.Context, limit int) ([]Wait, error)
}

// Query narrows, orders and pages a list. Project, Domain and Name are conditions where they are not empty.
type Query struct {
	Project, Domain, Name string
	Filters               []Filter
	SortBy                string // a column of Flyte's API; empty: created_at
	Ascending             bool   // else the newest first; records that are equal in SortBy are in the order in which they were written
	Limit                 int    // 0: all
	Offset                int
	After                 *Position // of executions by created_at: only those behind it in the order; nil: from the beginning
	Budget                *Budget   // bounds what is read; nil: no bound
}

// Position is where an execution is in the order of creation. A page that begins behind a position has neither a gap nor a row
// twice when rows before it come, go or change.
type Position struct {
	CreatedAt time.Time
	Key       Key
}

// PositionOf is the position of an execution.
func PositionOf(e *Execution) *Position { return &Position{e.CreatedAt, e.Key} }

// Budget is how many bytes of records a list may read. The list ends before the record that would exceed the budget, but has
// at least one record. If it ended so, Cut is set, and there are more records.
type Budget struct {
	Bytes int  // left; below 0 when the list was cut, or its only record is larger than the budget
	Read  int  // records
	Cut   bool // the list has ended before a record that there was no budget for
}

// Filter is one condition. Fields are Flyte's (flyte-api reference 2.1), "phase" or "workflow.name"; a field or function that
// the entity does not have is ErrInvalid.
//
// Filters are a conjunction, and of those on admin_tag and execution_tag all are about one tag of an execution (Flyte joins
// one). Only where eq gives a column a second text they go on about another tag, which the execution has as well: an
// execution with tags a and b is found by eq(admin_tag.name,a) and eq(admin_tag.name,b).
type Filter struct {
	Field    string
	Function string // eq, ne, gt, gte, lt, lte, contains, not_like, value_in, value_not_in
	Values   []string
}

// Counts are of the whole store.
type Counts struct {
	Executions int64
	Running    int64 // not ended
	Waiting    int64 // of these, with named external waits
	Waits      int64 // named external waits of all of them
}

// Wait says what an execution waits for outside of itself, by name: a service that is away, a result that another one
// computes, a record that cannot be understood.
type Wait struct {
	Execution aloft.ExecutionID
	Waits     int    // of the execution and its nodes
	Reason    string // of the execution as a whole, or of one of its nodes
}
