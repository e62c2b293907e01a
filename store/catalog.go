package store

import (
	"context"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Catalog is what package catalog and the API need: results that may be used again, and reservations of those to be computed.
//
// A result is found by its dataset (project, domain, name and version) and a tag within it, as in Flyte's data catalog. The
// engine adds results and gives back reservations by Commit, together with the success they come from: a result that can be
// found is a result that was adopted, once.
type Catalog interface {
	// FindResult returns the result that the tag of a dataset names now. ErrNotFound: there is none; the error says nothing
	// about why. A result that is gone (GoneAt) is not found.
	FindResult(ctx context.Context, id ResultID) (*Result, error)

	// FindResults is FindResult for several ids at once: the results in the order of ids, nil where there is none. Only the
	// fields that are needed to use a result are set: ResultID, ID, Outputs, Objects, Source, Dataset (shared, not to be
	// changed), CreatedAt and Unreadable.
	FindResults(ctx context.Context, ids []ResultID) ([]*Result, error)

	// PutResult adds a result from outside of the engine, under its tag and its further tags. If one of these tags names a
	// result already, that result is returned and nothing is written, unless overwrite is set: then the old result is gone and
	// the tag names the new one. A result without a tag (see TagResult) is found by its id alone. ErrExists: the id is taken.
	PutResult(ctx context.Context, e *Result, overwrite bool) (*Result, error)

	// GetResult returns a result by its id, with its outputs, gone or not. ErrNotFound.
	GetResult(ctx context.Context, id string) (*Result, error)

	// TagResult gives a result that is not gone another tag of its dataset; the first tag that a result gets is its Tag.
	// ErrNotFound: no such result, or it is gone. ErrExists: the tag names a result already, be it this one.
	TagResult(ctx context.Context, id, tag string) error

	// CreateDataset states a dataset before it has a result. ErrExists: it was stated before, or has had a result.
	CreateDataset(ctx context.Context, d *Dataset) error

	// ListDatasets returns the datasets that were stated or have had a result, the latest first. Of the
	// query, Project, Domain, Name, Version, Ascending, Limit and Offset count.
	ListDatasets(ctx context.Context, q ResultQuery) ([]*Dataset, error)

	// RemoveResults makes results gone for a reason; results that are gone already keep theirs. Returns how many it changed.
	RemoveResults(ctx context.Context, ids []string, reason string, now time.Time) (int, error)

	// PinResults exempts results from limits of age and size, or ends that. Returns how many it changed.
	PinResults(ctx context.Context, ids []string, pinned bool) (int, error)

	// UsedResults notes that results were found at now. Advisory: it may be late or lost.
	UsedResults(ctx context.Context, ids []string, now time.Time) error

	// ListResults returns results, the latest first, without their outputs.
	ListResults(ctx context.Context, q ResultQuery) ([]*Result, error)

	// Reserve asks for the right to compute a result (see Reservation) and returns the reservation that holds now. It is r if
	// the result was not reserved, was reserved by r.Owner (the reservation is extended), or if the old reservation is over.
	// Else it is another owner's, and r.Execution, if it is set, becomes a waiter.
	Reserve(ctx context.Context, r Reservation, now time.Time) (Reservation, error)

	// Release gives back the reservation of a result, if it is this owner's, and wakes its waiters.
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
	GoneReason string    // why it is gone: removed by whom, too old, replaced, its object is missing or not what was written

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
	Execution                           *core.WorkflowExecutionIdentifier // that computed the result
	Gone                                bool                              // results that are gone, too
	Before                              time.Time                         // created before
	Ascending                           bool                              // the earliest first
	Limit, Offset                       int
}

// Reservation is the right to compute a result while others wait for it (cache_serialize). The store keeps at most one for
// each result, and its waiters: executions, each once, that asked for it while another owner had it.
//
//	free ──Reserve──▶ held ──Release, Step.Releases, Step.ReleasesAll──▶ free, and the waiters are woken
//	                    │
//	                    ├──Reserve by its owner──▶ held, extended
//	                    ├──Reserve by another owner, while it is valid──▶ held, with one more waiter
//	                    └──Reserve by another owner, when it is over──▶ held by that owner
//
// Either a node of an execution holds it, or a client of the data catalog:
//
//	valid(now) = neither Node nor Execution has ended   where Execution ≠ 0
//	valid(now) = now < Expires                          where Execution = 0
//
// Giving it back is one transaction: each waiter that has not ended gets ResultWake into its inbox, and reservation and waiters
// are forgotten. A step gives it back in the transaction that makes the result findable, so that a woken execution finds it.
//
// Reserve is not part of a step. If the step that asked is not committed, the node keeps the reservation and asks again under
// the same owner; if the node never begins, the step that ends the execution gives the reservation back (ReleasesAll). The
// store notices by itself neither that a reservation has expired nor that its node has ended: waiters are not woken by that, and
// must ask again now and then.
//
// Example: node a/n0 reserves result R. Node b/n0 misses R, asks, becomes a waiter and is parked. The step that adopts what
// a/n0 returned commits its success, R and the release: b is woken and finds R. If a/n0 had failed, its step would have
// given the reservation back without R: b would have been woken, found nothing and held the reservation itself.
type Reservation struct {
	ID        ResultID
	Owner     string        // the node ("execution id/node") or the client that holds it
	Execution Key           // whose node holds it; 0: a client of the data catalog does
	Node      aloft.NodeID  // the node that holds it; empty: a client does
	Heartbeat time.Duration // how often a client extends it; 0: a node holds it
	Expires   time.Time     // when a client's is over; zero: a node holds it
}

// Release gives back the reservation of a result, if it is this owner's.
type Release struct {
	ID    ResultID
	Owner string
}

// WaitForResult names a result in waits and wakes: a node is parked on it until the reservation of the result is given back.
func WaitForResult(id ResultID) string {
	return "result/" + id.Project + "/" + id.Domain + "/" + id.Name + "/" + id.Version + "/" + id.Tag
}

// ResultWake is the message to the waiters of a result, which on names (see WaitForResult), when its reservation is given back.
// The occasion, such as the commit id of the step that gives it back, makes the deduplication key another one each time. An
// execution may have an earlier wake in its inbox that a step is about to consume, and this step may have asked before this
// occasion. With equal keys the new wake would be dropped, and the execution would wait until it asks again by itself.
func ResultWake(on, occasion string) Message {
	return Message{Dedup: "wake/" + on + "/" + occasion, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: on}}}}
}

// Dataset is the id without its tag: it names the result's dataset.
func (id ResultID) Dataset() ResultID {
	id.Tag = ""
	return id
}

// TakenError refuses a step whose results have tags that name other results by now. The engine decides the step again, and
// its records name these other results.
type TakenError struct {
	By map[ResultID]*Result // by the ids of the step's results: the results that are there, without outputs
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("%d results of the step were computed and kept by others meanwhile: %s", len(e.By), aloft.ErrConflict)
}

// Unwrap makes a TakenError a conflict for callers that do not tell conflicts apart.
func (e *TakenError) Unwrap() error { return aloft.ErrConflict }
