package machine

import (
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// NodeRef is one node of one execution: its place in the graph and where it is in the run. It is a handle, cheap to
// copy, and valid for as long as its State.
type NodeRef struct {
	state *State
	index uint32
}

// NodeView is what the record of a node execution says, by value.
type NodeView struct {
	NodeRef
	Phase     core.NodeExecution_Phase // UNDEFINED: it has not begun and has no record
	CreatedAt time.Time                // its first event
	StartedAt time.Time                // zero: it never ran
	UpdatedAt time.Time                // its last event
	EndedAt   time.Time                // zero: not yet
	Error     *core.ExecutionError     // failed or aborted; nil otherwise
	Inputs    *aloftv1.LiteralRef      // nil: none, or not resolved yet
	Outputs   *aloftv1.LiteralRef      // nil: none, or not yet
	DeckURI   string                   // canonical; empty: none
	Attempts  uint32                   // how many it has had, numbered from 0
}

// AttemptView is what the record of an attempt says, by value. Digests of objects, environment and usage are in the
// AttemptEnded event alone: the state has no use for them.
type AttemptView struct {
	Node      NodeRef
	Attempt   uint32 // from 0
	Token     string
	Spec      *aloftv1.AttemptSpec // shared by all executions of the graph: not to be changed
	Phase     core.TaskExecution_Phase
	ByEngine  bool      // the machine runs it itself
	DueAt     time.Time // by engine: when it is over; zero otherwise
	NotBefore time.Time // zero: at once
	Stop      string    // why it is to be stopped; empty: it is not
	CreatedAt time.Time
	StartedAt time.Time // zero: it never ran
	UpdatedAt time.Time
	EndedAt   time.Time // zero: not yet
	Error     *core.ExecutionError
	Lost      bool // nobody knows how it ended
	DeckURI   string
	Outputs   *aloftv1.LiteralRef
}

// ExecutionView is what the record of the execution says, by value.
type ExecutionView struct {
	ID             aloft.ExecutionID
	Phase          core.WorkflowExecution_Phase // UNDEFINED until Create has been consumed
	StartedAt      time.Time                    // zero: not yet
	UpdatedAt      time.Time                    // the last event of any kind
	EndedAt        time.Time                    // zero: not yet
	Error          *core.ExecutionError         // why it fails or has failed
	Outputs        *aloftv1.LiteralRef          // once succeeded
	AbortCause     string                       // set once terminated
	AbortPrincipal string
	Outstanding    int // attempts of executors that have not ended
	Held           int // task nodes that could start but for the limit of parallelism: they have no record yet
}

// AttemptRef names an attempt by the number of its node.
type AttemptRef struct {
	Node    uint32
	Attempt uint32
}

// Touched is what a list of events changed.
type Touched struct {
	Execution bool // its phase, times, error, outputs or abort cause
	Nodes     []uint32
	Attempts  []AttemptRef
}
