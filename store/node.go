package store

import (
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Node is the record of one node execution.
type Node struct {
	Execution  aloft.ExecutionID // set when read
	ID         aloft.NodeID      // unique within the execution
	Parent     aloft.NodeID      // the node that contains it; empty: top level
	SpecNodeID string            // its id in its template
	Name       string            // metadata.name
	RetryGroup string            // the parent's attempt as text; empty: top level
	IsParent   bool              // it contains nodes
	IsDynamic  bool
	IsArray    bool
	Phase      core.NodeExecution_Phase
	CreatedAt  time.Time
	StartedAt  time.Time // zero: it never ran (skipped, cached)
	UpdatedAt  time.Time
	EndedAt    time.Time // zero: not yet
	Error      *core.ExecutionError
	Target     *core.Identifier        // the task or workflow it runs; nil: neither
	DeckURI    string                  // canonical; empty: none
	Inputs     *aloftv1.Literals       // written once; nil in a step: as it was
	Outputs    *aloftv1.Literals       // written once; nil in a step: as it was
	Metadata   *admin.TaskNodeMetadata // cache status, checkpoint; nil: none
	Cache      *aloftv1.CacheLookup    // the search for a cached result, and its outcome; nil: it is not cached; in a step: as it was
	Number     int64                   // set when read: grows with each node that is added to an execution; 0: the store has none
	Waiting    string                  // what it waits for outside of the execution (a reservation); empty: nothing
	Unreadable error                   // ErrUnreadable: what of the record is damaged and left out; nil: nothing
}
