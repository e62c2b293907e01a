// Package store remembers: versions, executions with their journal and records, the inbox, attempts and leases.
//
// After launch, before engine; and again between engine and executor: packages that stand side by side meet here, one
// commits a row and another is woken and reads it. The package holds the contract and the records. Implementations are
// store/sqlstore (SQLite, PostgreSQL) and store/memstore (for the simulator); both pass store/storetest.
//
//	api, launch ──Create, Append──▶ inbox ──┐
//	                                        ▼
//	engine: Acquire shards · Inbox · Load · Commit (journal + records + consumed inbox, one transaction)
//	                                        │
//	executor: Waiting · Assign · Assigned · Report ──▶ inbox
//
// Three concepts are told with their types: the inbox (InboxRow), leases and epochs (Lease), reservations (Reservation).
//
// Contract, for every method:
//   - An error that wraps aloft.ErrUnavailable means that the outcome of the write is unknown: repeat it. All writes may be
//     repeated: a create finds its own row by the seed, an append its deduplication key, a commit its commit id.
//   - Returned records belong to the caller. Records that are handed in are not kept and not changed.
//   - A method that returns nil has made its write durable (synced), and subscribers have been woken after that.
//   - Time is always an argument of the caller; the store reads a clock only for leases and reservations in a shared database,
//     and for the time at which an execution was archived.
//   - A limit of 0 means all.
package store

import (
	"context"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Store is the whole contract. Packages declare the part of it that they need.
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

	// AcquireShards counts the engine owner as present for ttl, and renews its leases. If owner has less than its share of the
	// shards (see Share, of the engines that are present), it takes shards that are free or whose lease has run out, up to its
	// share. It returns all leases of owner in the order of their shards; those above its share are marked as surplus.
	AcquireShards(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]Lease, error)

	// YieldShards gives single shards back, so that other engines can take them at once. A lease whose shard has another owner
	// or epoch by now is left alone.
	YieldShards(ctx context.Context, leases []Lease) error

	// ReleaseShards gives all shards of the engine owner back, at its orderly end: it does not count as present any more.
	ReleaseShards(ctx context.Context, owner string) error

	// Inbox returns the rows of executions in the shards whose sequence is larger than after, oldest first. A row may become
	// visible after one with a larger sequence: callers begin again from 0 now and then.
	Inbox(ctx context.Context, shards []int, after int64, limit int) ([]InboxRow, error)

	// Messages returns the rows with these sequences, as far as they are in the store, in any order, all of them with their
	// content: Inbox returns large messages without it.
	Messages(ctx context.Context, seqs []int64) ([]InboxRow, error)

	// Due returns executions in the shards that have not ended and whose DueAt is not after until, soonest first.
	Due(ctx context.Context, shards []int, until time.Time, limit int) ([]DueRow, error)

	// Clocks returns the latest times in the records of the executions in the shards that have not ended and whose keys are
	// larger than after, in the order of their keys.
	Clocks(ctx context.Context, shards []int, after Key, limit int) ([]ClockRow, error)

	// Load returns the execution, with what can be understood of it (Unreadable). ErrNotFound.
	Load(ctx context.Context, key Key) (*Execution, error)

	// Journal calls got for each entry of an execution's journal in order: the entries may not fit into memory together. An
	// entry that cannot be understood is handed out too (Unreadable). An error of got ends the reading and is returned.
	Journal(ctx context.Context, key Key, got func(JournalRow) error) error

	// Commit writes steps of several executions in one transaction and returns one error (or nil) for each:
	//   - ErrFenced: the shard of the execution is not under the step's lease any more;
	//   - ErrConflict: another entry has this sequence, or the step ends the execution as if its termination had not been
	//     acknowledged (the message is in the inbox and the step does not consume it): step again, with all messages;
	//   - TakenError, an ErrConflict: results of the step have tags that name other results by now;
	//   - ErrUnavailable (all alike): the outcome is unknown, repeat the same steps unchanged.
	// A step that is refused has no effect and does not hinder the other steps. A step whose commit id is already in the
	// journal at its sequence has been committed before: nil.
	// An attempt whose record says Stop and that has no executor is over with the commit: the same transaction puts
	// Outcome{stopped} for it into the inbox, and it cannot be assigned to an executor any more.
	//
	// A terminal phase is the last one: a node or attempt that has ended can be written again but not change its
	// phase, and an attempt never changes its token; such a step is ErrConflict. A step names a node or attempt once. The
	// step that ends an execution also clears its timer and empties its inbox: nothing will ever read it.
	Commit(ctx context.Context, steps []*Step) []error

	// Stuck returns executions that nothing will ever move: not ended, no inbox message, no due time, no attempt of an
	// executor that has not ended, no named external wait (Waits) of its own or of a node (promise P5). Always empty.
	Stuck(ctx context.Context, limit int) ([]aloft.ExecutionID, error)
}

// Attempts is what executors need.
type Attempts interface {
	// Heartbeat registers an executor instance, or renews its registration. ErrFenced if another process runs the instance by
	// now (Nonce), unless Follows names that process.
	Heartbeat(ctx context.Context, instance Instance) error

	// Instances returns the executor instances that have not been removed.
	Instances(ctx context.Context) ([]Instance, error)

	// RemoveInstance forgets an instance that has no attempts any more (ErrPrecondition if it has).
	RemoveInstance(ctx context.Context, executor string) error

	// Waiting returns attempts that are due at now, have no executor and are not to be stopped, in order of creation.
	Waiting(ctx context.Context, now time.Time, limit int) ([]*Attempt, error)

	// SetWaiting records why attempts wait ("" clears it). It changes only attempts that are assigned to this executor instance
	// and not started, or, if executor is empty, attempts that are not assigned.
	SetWaiting(ctx context.Context, executor string, attempts []AttemptKey, reason string) error

	// Assign assigns attempts to an executor instance, which must not start an attempt before. One error (or nil) for each:
	// ErrConflict if the attempt is another instance's, has ended or is to be stopped, or if the instance is not registered
	// under this nonce (any more: see Heartbeat). Assigning again what the same instance has is no error.
	Assign(ctx context.Context, executor, nonce string, attempts []AttemptKey, now time.Time) []error

	// Assigned returns the attempts that are assigned to the instance and have not ended: what to find again after a restart.
	Assigned(ctx context.Context, executor string) ([]*Attempt, error)

	// Report puts a message of an executor (AttemptStarted or Outcome) into the inbox, under a deduplication key made
	// of its kind, node, attempt and token. ErrConflict, and the message is dropped, if the attempt has ended, has another
	// token or is not assigned to this executor (any more: see Adopt): the result of a zombie is never adopted.
	Report(ctx context.Context, executor string, reports []Report) []error

	// Adopt assigns all attempts of an instance whose heartbeat has ended to another instance of the same place.
	Adopt(ctx context.Context, from, to string) (int, error)
}

// Wakes tells subscribers that something was committed. A wake-up may come for nothing and several may come as one;
// none is lost between Subscribe and cancel. With several processes on one store a wake-up may come late: subscribers also
// look at the store without one now and then.
type Wakes interface {
	Subscribe(topic Topic) (wake <-chan struct{}, cancel func())
}

// Topic is what a subscriber can wait for.
type Topic string

const (
	TopicInbox    Topic = "inbox"    // an inbox got a message
	TopicAttempts Topic = "attempts" // an attempt was scheduled, is to be stopped, or has ended (an executor has room again)
)

// TopicExecution wakes when records of this execution changed.
func TopicExecution(id aloft.ExecutionID) Topic { return Topic("execution/" + id.String()) }

// Key is the store's own number for an execution: short, never reused, never shown.
type Key int64

// Shards is the number of parts into which executions are divided among engines. It never changes.
const Shards = 64

// Share is how many shards each of so many engines has at most: engines × Share(engines) ≥ Shards.
func Share(engines int) int { return (Shards + engines - 1) / max(engines, 1) }

// Lease is the right to commit to the executions of a shard. The store keeps one for each of the 64 shards; an engine's view
// of its leases, and an example, are told in engine/lease.go.
//
//	free       Owner is empty
//	held       AcquireShards gave the shard to Owner, or renewed its lease, and Expires > now
//	run out    Expires ≤ now: Owner may still renew the lease, or another engine takes the shard
//
// Only AcquireShards takes a shard, one that is free or has run out, and it adds 1 to Epoch when it does. A shard that is
// given back keeps its epoch. So an epoch has one owner, for ever, and
//
//	epoch and owner of a committed step = epoch and owner of its shard in the transaction of the commit
//
// holds by the epoch alone: a commit under an older epoch is refused (ErrFenced), however late it comes and however wrong clocks
// are. In a database that several servers share, a commit under a lease that has run out is refused, too.
//
// When an engine is killed or cut off, its leases run out and the engines that are present take its shards. A database file has
// one server: when it is opened all shards are free, because their owner cannot be running any more.
type Lease struct {
	Shard   int
	Owner   string
	Epoch   int64
	Expires time.Time
	Surplus bool // more than the owner's share: the engine finishes what it has begun there and gives the shard back
}

// Message is one message for an inbox.
type Message struct {
	Dedup string // deduplication key: unique within the execution while the message has not been consumed
	Inbox *aloftv1.Inbox
}

// MaxListedMessage is the size in bytes up to which Inbox returns a message with its content.
const MaxListedMessage = 16 << 10

// InboxRow is a message in the inbox of an execution. The inbox is the one way in: a message that reaches an execution from
// outside is a row first, and has an effect only by a step that consumes it.
//
//	CreateExecution, Append, Report, Step.Appends, Release ──▶ unread ──Commit of a step with Seq in Consumed──▶ gone
//
// A row is deleted in the transaction that writes the step's journal entry: a message that was acknowledged is in the inbox, or
// it has had its effect. The step that ends an execution deletes all rows of the execution.
//
// At most one unread row of an execution has a given deduplication key. A message whose key is there is dropped, and the caller
// is told that all is well: a caller that does not know whether its message arrived sends it again. The keys are
//
//	create                    the first message (CreateDedup)
//	terminate                 a request to end the execution (TerminateDedup)
//	started/…, outcome/…      a report of an executor, by node, attempt and token (ReportDedup)
//	wake/result/…/occasion    a reservation was given back (ResultWake)
//	give up                   from the engine itself: the execution was parked for longer than the configuration allows
//
// A key is free again once its row was consumed. A message that is sent again after that is a new row, and the step that
// consumes this row must find that the message changes nothing.
//
// Seq grows in the order in which rows were inserted, over all executions. In a shared database a row may become visible after
// one with a larger Seq: a reader that remembers a position reads again from 0 now and then.
type InboxRow struct {
	Seq       int64
	Execution Key
	Shard     int
	Size      int            // of the message, in bytes
	Inbox     *aloftv1.Inbox // nil: Unreadable is set, or the message is larger than MaxListedMessage and the row comes from Inbox

	Unreadable error // why the message cannot be understood, ErrUnreadable
}

// DueRow is an execution with a timer.
type DueRow struct {
	Execution Key
	Shard     int
	DueAt     time.Time
}

// ClockRow is what the record and the journal of an execution say about time.
type ClockRow struct {
	Execution Key
	Shard     int
	DueAt     time.Time // zero: no timer
	Waiting   bool      // the execution waits as a whole
	Latest    time.Time // of the last event in its last journal entry that has events; zero: there is none, or it cannot be read
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
	Consumed     []int64          // sequences of the inbox rows that it consumes
	Change       *ExecutionChange // nil: the execution's record stays as it is
	Nodes        []*Node          // whole records, inserted or replaced (nil Inputs, Outputs, Metadata: as they were)
	Attempts     []*Attempt       // whole records, inserted, or updated in what the engine owns (see Attempt; nil Objects, Usage, Environment: as they were)
	Appends      []Append         // messages to executions, other ones or this one
	Results      []*Result        // results that can be found from now on; no two with the same tag
	Overwrite    bool             // of Results: their tags name them, also those that name other results now
	Releases     []Release        // reservations that the execution gives back; their waiters are woken
	ReleasesAll  bool             // gives back all of its reservations: it ends, and a node that never began may have one
	DueAt        time.Time        // the execution's next timer; zero: none (every step says it anew)
	Waiting      string           // named external wait of the execution as a whole; empty: none (every step says it anew)
	WaitingSince time.Time        // since when the execution as a whole waits; zero: it does not
	Waits        int              // named external waits of the execution as a whole and of its nodes (every step says it anew)
}

// Append is a message to an execution.
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
