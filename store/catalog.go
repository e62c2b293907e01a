package store

import (
	"context"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Catalog is what package catalog and the API need: results that may be used again, and who is computing one.
//
// A result is found by its dataset (project, domain, name and version) and a tag within it, as in Flyte's data catalog. The
// engine adds results and gives back reservations by Commit, together with the success they come from: a result that can be
// found is a result that was adopted, once.
type Catalog interface {
	// FindResult returns the result that the tag of a dataset names now. ErrNotFound: there is none; the error says nothing
	// about why. A result that is gone (GoneAt) is not found.
	FindResult(ctx context.Context, id ResultID) (*Result, error)

	// FindResults is FindResult for several ids at once: the results in the order of ids, nil where there is none. They have
	// what one needs to use them: ResultID, ID, Outputs, Objects, Source, Dataset (shared, not to be changed) and CreatedAt.
	FindResults(ctx context.Context, ids []ResultID) ([]*Result, error)

	// PutResult adds a result from outside of the engine. A tag that names a result already goes on naming that one, and
	// that one is returned, unless overwrite is set: then the tag names the new one and the old one is gone. So it is with
	// each of its further tags. A result without a tag (see TagResult) is found by its id alone. ErrExists: the id is taken.
	PutResult(ctx context.Context, e *Result, overwrite bool) (*Result, error)

	// GetResult returns a result by its id, with its outputs, gone or not. ErrNotFound.
	GetResult(ctx context.Context, id string) (*Result, error)

	// TagResult gives a result that is not gone another tag of its dataset; the first one it gets is its Tag. ErrNotFound: no
	// such result, or it is gone. ErrExists: the tag names a result already, be it this one.
	TagResult(ctx context.Context, id, tag string) error

	// CreateDataset states a dataset before it has a result. ErrExists: it was stated before, or has had a result.
	CreateDataset(ctx context.Context, d *Dataset) error

	// ListDatasets returns datasets, those that were stated and those that have had a result, the latest first. Of the
	// query, Project, Domain, Name, Version, Ascending, Limit and Offset count.
	ListDatasets(ctx context.Context, q ResultQuery) ([]*Dataset, error)

	// RemoveResults makes results gone for a reason; those that are gone stay as they are. Returns how many it changed.
	RemoveResults(ctx context.Context, ids []string, reason string, now time.Time) (int, error)

	// PinResults exempts results from limits of age and size, or ends that. Returns how many it changed.
	PinResults(ctx context.Context, ids []string, pinned bool) (int, error)

	// UsedResults notes that results were found at now. Advisory: it may be late or lost.
	UsedResults(ctx context.Context, ids []string, now time.Time) error

	// ListResults returns results, the latest first, without their outputs.
	ListResults(ctx context.Context, q ResultQuery) ([]*Result, error)

	// Reserve asks for the right to compute a result: the reservation that holds now is returned, which is r if it was free,
	// r's owner's already (it is extended), over (Expires is not after now), or its node or execution has ended. Otherwise
	// r.Execution, if it is set, is put among those that wait: its inbox gets Wake{on: WaitForResult(r.ID)} once, when
	// the reservation is given back.
	Reserve(ctx context.Context, r Reservation, now time.Time) (Reservation, error)

	// Release gives back a reservation of an owner, if it is that owner's, and wakes those who wait.
	Release(ctx context.Context, id ResultID, owner string) error
}

// ResultID is what a result is found by.
type ResultID struct {
	Project, Domain string // of the task
	Name            string // "flyte_task-<task name>"
	Version         string // "<cache version>-<inputs type>-<outputs type>"
	Tag             string // "flyte_cached-<hash of inputs>"
}

// Result is what a cached task returned, kept so that it is used again.
type Result struct {
	ResultID
	ID         string            // the artifact's id: unique for ever
	Outputs    *aloftv1.Literals // what the task returned
	Objects    []*aloftv1.ObjectDigest
	Key        *aloftv1.CacheKey // nil: from outside of the engine
	Source     aloft.AttemptID   // which attempt computed it; zero: from outside
	Tags       []string          // further tags that name it, sorted
	Partitions map[string]string // values of the dataset's partition keys
	Metadata   map[string]string // as the data catalog shows it
	Dataset    map[string]string // metadata of the dataset, kept where it was first stated
	CreatedAt  time.Time
	UsedAt     time.Time // when it was last found, or CreatedAt
	Size       int64     // bytes of its outputs and of the objects they refer to
	Pinned     bool      // limits do not make it go
	GoneAt     time.Time // zero: it can be found
	GoneReason string    // why it is gone: removed by whom, too old, replaced, its object is missing or another

	Unreadable error // ErrUnreadable: what of the record is damaged and left out: it must not be used; nil: nothing
}

// Dataset is what results with the same task, cache version and interface belong to.
type Dataset struct {
	Project, Domain, Name, Version string
	Metadata                       map[string]string
	PartitionKeys                  []string  // each of its results has a value for each of them
	CreatedAt                      time.Time // when it was stated, or got its first result
}

// ResultQuery narrows a list of results; empty fields are no condition.
type ResultQuery struct {
	Project, Domain, Name, Version, Tag string
	ID                                  string
	Execution                           *core.WorkflowExecutionIdentifier // that computed it
	Gone                                bool                              // those that are gone, too
	Before                              time.Time                         // created before
	Ascending                           bool                              // the earliest first
	Limit, Offset                       int
}

// Reservation is the right to compute a result.
type Reservation struct {
	ID        ResultID
	Owner     string        // who holds it
	Execution Key           // 0: somebody outside of the engine
	Node      aloft.NodeID  // whose node; it holds until that node or its execution has ended
	Heartbeat time.Duration // of somebody outside: how often they extend it
	Expires   time.Time     // zero: with the node's end
}

// Release is a reservation that is given back, if it is the owner's.
type Release struct {
	ID    ResultID
	Owner string
}

// WaitForResult is what a node is parked on until a reservation is given back.
func WaitForResult(id ResultID) string {
	return "result/" + id.Project + "/" + id.Domain + "/" + id.Name + "/" + id.Version + "/" + id.Tag
}

// ResultWake is the message that those get who wait on it for a result: see WaitForResult. Each occasion has a name of its own: whoever is about to
// consume the message of an earlier one has looked before this one.
func ResultWake(on, occasion string) Message {
	return Message{Dedup: "wake/" + on + "/" + occasion, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: on}}}}
}

// Dataset is the dataset of a result, without what was said of it.
func (id ResultID) Dataset() ResultID {
	id.Tag = ""
	return id
}

// TakenError refuses a step: others were quicker to make results findable under the same tags. The step is made again, and
// its records name those.
type TakenError struct {
	By map[ResultID]*Result // what is found now, without outputs
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("%d results of the step were computed and kept by others meanwhile: %s", len(e.By), aloft.ErrConflict)
}

// Unwrap makes it a conflict for callers that do not look closer.
func (e *TakenError) Unwrap() error { return aloft.ErrConflict }
