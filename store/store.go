// Package store remembers: versions, executions with their journal and records, the inbox, attempts and leases.
//
// After launch, before engine; and again between engine and executor: packages that stand side by side meet here, one
// commits a row and another is woken and reads it. The package holds the contract and the records. Implementations are
// store/sqlstore (SQLite today) and store/memstore (for the simulator); both pass store/storetest.
//
//	api, launch ──Create, Append──▶ inbox ──┐
//	                                        ▼
//	engine: Acquire shards · Inbox · Load · Commit (journal + records + consumed inbox, one transaction)
//	                                        │
//	executor: Waiting · Assign · Assigned · Stopping · Report ──▶ inbox
//
// Contract, for every method:
//   - An error that wraps aloft.ErrUnavailable means nothing is known about the write: repeat it. All writes may be
//     repeated: a create finds its own row by the seed, an append its deduplication key, a commit its commit id.
//   - Returned records belong to the caller. Records that are handed in are not kept and not changed.
//   - A method that returns nil has made its write durable (synced), and subscribers have been woken after that.
//   - Time is always an argument of the caller; the store reads no clock but for leases on a shared database, and for when
//     an execution was archived.
//   - A limit of 0 means all.
package store

import (
	"context"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Store is everything. Packages declare the part that they need.
type Store interface {
	Registry
	Runs
	Attempts
	Health
	Queries
	Catalog
	Wakes
	Close() error
}

// Runs is what launch and engine need: executions, their inbox and their journal.
type Runs interface {
	// CreateExecution commits the row of a new execution and its first inbox message (deduplication key "create") at once.
	// It sets Key and Shard of the execution. ErrExists if (project, domain, name) is taken by another creation: one whose
	// message has another seed, or none.
	CreateExecution(ctx context.Context, e *Execution, create *aloftv1.Inbox) error

	// Append puts a message into the inbox of an execution. A message whose deduplication key is still in the inbox is
	// not put there again, which is no error. ErrNotFound if there is no such execution, ErrPrecondition if it has ended.
	Append(ctx context.Context, id aloft.ExecutionID, message Message) error

	// AcquireShards says that owner is there, for ttl, and renews the leases that it has. If it has less than its share (see
	// Share) of those who are there, it takes shards that are free or whose lease has run out until it has that. It returns
	// all that owner has now, in their order, each with the epoch under which it must commit: those above its share are marked
	// as surplus. The epoch grows each time a shard changes hands.
	AcquireShards(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]Lease, error)

	// YieldShards gives single shards back, so that others can take them at once. A lease that is another's by now is left alone.
	YieldShards(ctx context.Context, leases []Lease) error

	// ReleaseShards gives all of owner's shards back, at an orderly end: it is not there any more.
	ReleaseShards(ctx context.Context, owner string) error

	// Inbox returns messages of executions in the shards, oldest first, those with a larger sequence than after.
	// A transaction may become visible after one with a larger sequence: callers begin again from 0 now and then. A message
	// that cannot be understood says so itself (Unreadable).
	Inbox(ctx context.Context, shards []int, after int64, limit int) ([]InboxRow, error)

	// Messages returns whole messages that are there, in any order: those that Inbox gives without their content.
	Messages(ctx context.Context, seqs []int64) ([]InboxRow, error)

	// Due returns executions in the shards that have not ended and whose DueAt is not after until, soonest first.
	Due(ctx context.Context, shards []int, until time.Time, limit int) ([]DueRow, error)

	// Clocks returns what the executions in the shards that have not ended say about time, in the order of their keys, those
	// after a key.
	Clocks(ctx context.Context, shards []int, after Key, limit int) ([]ClockRow, error)

	// Load returns the execution, with what can be understood of it (Unreadable). ErrNotFound.
	Load(ctx context.Context, key Key) (*Execution, error)

	// Journal gives got the journal of an execution, entry by entry in their order: there may be more of them than fit into
	// memory. An entry that cannot be understood says so itself (Unreadable). It ends with an error of got, and returns that.
	Journal(ctx context.Context, key Key, got func(JournalRow) error) error

	// Commit writes steps of several executions in one transaction and returns one error (or nil) for each:
	//   - ErrFenced: the lease is not the step's any more;
	//   - ErrConflict: another entry has this sequence, or the step ends the execution as if its termination had not been
	//     acknowledged (the message is in the inbox and the step does not consume it): step again, with all messages;
	//   - TakenError, an ErrConflict: results of the step have tags that name other results by now;
	//   - ErrUnavailable (all alike): the outcome is unknown, repeat the same steps unchanged.
	// A step that is refused has no effect and does not hinder the others. A step whose commit id is already in the
	// journal at its sequence has been committed before: nil.
	// An attempt whose record says Stop while no executor has it is over by that: the same transaction puts
	// Outcome{stopped} for it into the inbox, and no executor can be assigned to it any more.
	//
	// What has ended stays as it ended: a node or attempt in a terminal phase can be written again but not change its
	// phase, and an attempt never changes its token; such a step is ErrConflict. A step names a node or attempt once. The
	// step that ends an execution also clears its timer and empties its inbox: nothing will ever read it.
	Commit(ctx context.Context, steps []*Step) []error

	// Stuck returns executions that nothing will ever move: not ended, no inbox message, no due time, no attempt that
	// waits or runs, no named external wait (Waits) of its own or of a node (promise P5). Always empty.
	Stuck(ctx context.Context, limit int) ([]aloft.ExecutionID, error)
}

// Attempts is what executors need.
type Attempts interface {
	// Heartbeat makes an executor instance known or says that it is still there. ErrFenced if another process is the
	// instance by now, unless Follows names it.
	Heartbeat(ctx context.Context, instance Instance) error

	// Instances returns the executor instances that have not been removed.
	Instances(ctx context.Context) ([]Instance, error)

	// RemoveInstance forgets an instance that has no attempts any more (ErrPrecondition if it has).
	RemoveInstance(ctx context.Context, executor string) error

	// Waiting returns attempts that are due at now, that no executor has and nobody asked to stop, in order of creation.
	Waiting(ctx context.Context, now time.Time, limit int) ([]*Attempt, error)

	// SetWaiting records why attempts wait ("" clears it). Only attempts are changed that this executor instance has and has
	// not started, or, where none is named, that no executor has.
	SetWaiting(ctx context.Context, executor string, attempts []AttemptKey, reason string) error

	// Assign gives attempts to an executor instance: each is claimed before anything is started. One error (or nil) for
	// each: ErrConflict if another instance has it, it has ended, it is to be stopped, or the instance is not known or
	// another process (any more: it has to say first that it is there). Assigning again what the same instance has is no error.
	Assign(ctx context.Context, executor, nonce string, attempts []AttemptKey, now time.Time) []error

	// Assigned returns the attempts that the instance has and that have not ended: what to find again after a restart.
	Assigned(ctx context.Context, executor string) ([]*Attempt, error)

	// Report puts a message of an executor (AttemptStarted or Outcome) into the inbox, under a deduplication key made
	// of its kind, node, attempt and token. Messages for attempts that have ended, whose token is not theirs or that
	// the executor does not have (any more: see Adopt) are dropped with ErrConflict: a zombie's result is never adopted.
	Report(ctx context.Context, executor string, reports []Report) []error

	// Adopt gives all attempts of an instance whose heartbeat has ended to another instance of the same place.
	Adopt(ctx context.Context, from, to string) (int, error)
}

// Wakes tells those who wait that something was committed. A wake-up may come for nothing and several may come as one;
// none is lost between Subscribe and cancel. With several processes on one store a wake-up may come late: callers also
// look by themselves now and then.
type Wakes interface {
	Subscribe(topic Topic) (wake <-chan struct{}, cancel func())
}

// Topic is what one can wait for.
type Topic string

const (
	TopicInbox    Topic = "inbox"    // an inbox got a message
	TopicAttempts Topic = "attempts" // an attempt was scheduled, is to be stopped, or has ended (there is room)
)

// TopicExecution wakes when records of this execution changed.
func TopicExecution(id aloft.ExecutionID) Topic { return Topic("execution/" + id.String()) }

// Key is the store's own number for an execution: short, never reused, never shown.
type Key int64

// Shards is the number of parts into which executions are divided among engines. It never changes.
const Shards = 64

// Share is how many shards each of so many engines has at most: all of them together have room for every shard.
func Share(engines int) int { return (Shards + engines - 1) / max(engines, 1) }

// Lease is the right to commit to the executions of a shard.
type Lease struct {
	Shard   int
	Owner   string
	Epoch   int64
	Expires time.Time
	Surplus bool // more than the owner's share: it finishes what it has begun there and gives the shard back
}

// Message is one message for an inbox.
type Message struct {
	Dedup string // unique within the execution while it has not been consumed
	Inbox *aloftv1.Inbox
}

// MaxListedMessage is up to how many bytes a message comes with a list of messages.
const MaxListedMessage = 16 << 10

// InboxRow is a message that waits in an inbox.
type InboxRow struct {
	Seq       int64
	Execution Key
	Shard     int
	Size      int            // of the message, in bytes
	Inbox     *aloftv1.Inbox // nil in a list: it is larger than MaxListedMessage

	Unreadable error // why the message cannot be understood, ErrUnreadable; Inbox is nil then
}

// DueRow is an execution with a timer.
type DueRow struct {
	Execution Key
	Shard     int
	DueAt     time.Time
}

// ClockRow is what an execution says about time.
type ClockRow struct {
	Execution Key
	Shard     int
	DueAt     time.Time // zero: no timer
	Waiting   bool      // it waits as a whole
	Latest    time.Time // of the last event in its last journal entry that has any; zero: there is none, or it cannot be read
}

// LatestOf is the time of the last event of a journal entry; zero: it has none.
func LatestOf(entry *aloftv1.JournalEntry) time.Time {
	events := entry.GetEvents()
	if len(events) == 0 {
		return time.Time{}
	}
	return time.Unix(0, events[len(events)-1].GetAt()).UTC()
}

// JournalRow is one committed entry.
type JournalRow struct {
	Seq   int64 // from 1, without holes
	Entry *aloftv1.JournalEntry

	Unreadable error // why the entry cannot be understood, ErrUnreadable; Entry is nil then
}

// Step is what one step of one execution commits: all of it or nothing.
type Step struct {
	Execution    Key
	ID           aloft.ExecutionID // for wake-ups and messages
	Lease        Lease
	Seq          int64  // the journal sequence it takes: the last one plus 1
	CommitID     string // random; makes a repeated commit recognisable
	Entry        *aloftv1.JournalEntry
	Consumed     []int64          // inbox rows that it used up
	Change       *ExecutionChange // nil: the execution's record stays as it is
	Nodes        []*Node          // whole records, inserted or replaced (nil Inputs, Outputs, Metadata: as they were)
	Attempts     []*Attempt       // whole records, inserted, or updated in what the engine owns (see Attempt; nil Objects, Usage, Environment: as they were)
	Appends      []Append         // messages to other executions
	Results      []*Result        // results that can be found from now on; no two with the same tag
	Overwrite    bool             // of Results: the tags name them, whatever they named before
	Releases     []Release        // reservations that the execution gives back; wakes those who wait
	ReleasesAll  bool             // of the execution: it ends, and a node that never began may have one
	DueAt        time.Time        // the execution's next timer; zero: none (every step says it anew)
	Waiting      string           // named external wait of the execution as a whole; empty: none (every step says it anew)
	WaitingSince time.Time        // since when; zero: it does not wait
	Waits        int              // named external waits of the execution as a whole and of its nodes (every step says it anew)
}

// Append is a message to another execution.
type Append struct {
	ID      aloft.ExecutionID
	Message Message
}

// ExecutionChange is what the engine may change in an execution's record.
type ExecutionChange struct {
	Phase          core.WorkflowExecution_Phase
	StartedAt      time.Time // zero: not yet
	EndedAt        time.Time // zero: not yet
	UpdatedAt      time.Time
	Error          *core.ExecutionError
	Outputs        *aloftv1.Literals // nil: as it was
	AbortCause     string
	AbortPrincipal string
}
