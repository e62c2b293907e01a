package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func missingExecution(id aloft.ExecutionID) error {
	return refuse("execution %s: %w", id, aloft.ErrNotFound)
}

func missingKey(key store.Key) error {
	return refuse("execution with key %d: %w", key, aloft.ErrNotFound)
}

// withoutRefusal is the error in a refusal, for calls that are no members of a transaction.
func withoutRefusal(err error) error {
	if r, ok := errors.AsType[refusal](err); ok {
		return r.error
	}
	return err
}

// CreateExecution commits the execution and its first inbox message.
func (s *Store) CreateExecution(ctx context.Context, e *store.Execution, create *aloftv1.Inbox) error {
	shard, version := store.ShardOf(e.ID), e.JournalVersion
	if version == 0 {
		version = store.JournalVersion
	}
	var hot, cold, message encoder
	hot.add(int64(shard), e.ID.Project, e.ID.Domain, e.ID.Name, int64(version), int64(e.Phase), flag(aloft.Terminal(e.Phase)), nanos(e.CreatedAt),
		nanos(e.StartedAt), nanos(e.UpdatedAt), nanos(e.EndedAt), e.Waiting, e.AbortCause, e.AbortPrincipal, int64(e.State),
		nanos(e.StateChangedAt), e.StatePrincipal, errorKind(e.Error), e.Error.GetCode(), hot.blob(e.Error), hot.blob(e.Outputs))
	launch, entity := e.Spec.GetLaunchPlan(), "launch_plan"
	if launch.GetResourceType() == core.ResourceType_TASK {
		entity = "task"
	}
	var notifications driver.Value
	if len(e.Notifications) > 0 {
		notifications = cold.blob(&admin.NotificationList{Notifications: e.Notifications})
	}
	cold.add(nil, int64(e.Spec.GetMetadata().GetMode()), e.Spec.GetMetadata().GetPrincipal(), entity,
		launch.GetProject(), launch.GetDomain(), launch.GetName(), launch.GetVersion(),
		e.Workflow.GetProject(), e.Workflow.GetDomain(), e.Workflow.GetName(), e.Workflow.GetVersion(),
		cold.blob(e.Workflow), cold.blob(e.Task), notifications, cold.blob(e.Spec), cold.blob(e.Inputs), cold.blob(e.UserInputs),
		recoveredName(e), inputsDigest(e), e.ID.Project, e.ID.Domain, nanos(e.CreatedAt))
	first := message.blob(create)
	if err := errors.Join(hot.err, cold.err, message.err); err != nil {
		return fmt.Errorf("create execution %s: %w", e.ID, err)
	}

	var key int64
	tags := store.TagsOf(e.Spec)
	err := s.write(ctx, 3+len(tags), func(t *tx) error {
		if err := t.openSavepoint(); err != nil {
			return err
		}
		made, err := t.row([]any{&key}, `INSERT INTO executions (shard, project, domain, name, journal_version, phase, ended, created_at, started_at,
			updated_at, ended_at, due_at, waiting, abort_cause, abort_principal, state, state_changed_at, state_principal, error_kind, error_code,
			error, outputs) VALUES (?,?,?,?,?,?,?,?,?,?,?,0,?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT (project, domain, name) DO NOTHING RETURNING number`, hot.values...)
		if err != nil {
			return err
		}
		if !made {
			return t.sameCreation(e, create, &key)
		}
		cold.values[0] = key
		if err := t.execLater(`INSERT INTO execution_specs (execution, mode, principal, launch_entity, launch_project, launch_domain, launch_name,
			launch_version, workflow_project, workflow_domain, workflow_name, workflow_version, workflow, task, notifications, spec, inputs,
			user_inputs, recovers, inputs_digest, project, domain, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`, cold.values, nil); err != nil {
			return err
		}
		for _, tag := range tags {
			if err := t.execLater("INSERT INTO execution_tags (key, value, execution, project, domain, created_at) VALUES (?,?,?,?,?,?) ON CONFLICT DO NOTHING",
				[]driver.Value{tag.Key, tag.Value, key, e.ID.Project, e.ID.Domain, nanos(e.CreatedAt)}, nil); err != nil {
				return err
			}
		}
		t.wake(store.TopicInbox)
		return t.execLater("INSERT INTO inbox (execution, shard, dedup, message) VALUES (?,?,?,?)", []driver.Value{key, int64(shard), store.CreateDedup, first}, nil)
	})
	if err != nil {
		return err
	}
	e.Key, e.Shard, e.JournalVersion = store.Key(key), shard, version
	return nil
}

// sameCreation finds the execution that has the name: ErrExists unless this very creation made it (store.SameCreation).
func (t *tx) sameCreation(e *store.Execution, create *aloftv1.Inbox, key *int64) error {
	var message, row []byte
	if _, err := t.row([]any{key, &message}, `SELECT e.number, (SELECT message FROM inbox WHERE execution = e.number AND dedup = ?)
		FROM executions e WHERE e.project = ? AND e.domain = ? AND e.name = ?`, store.CreateDedup, e.ID.Project, e.ID.Domain, e.ID.Name); err != nil {
		return err
	}
	unread := new(aloftv1.Inbox)
	unreadable := unmarshal(message, unread) // an execution that cannot be read was not made by this creation a moment ago
	var journal []*aloftv1.JournalEntry
	if err := t.each([]any{&row}, func() error {
		entry := new(aloftv1.JournalEntry)
		unreadable = errors.Join(unreadable, unmarshal(row, entry))
		journal = append(journal, entry)
		return nil
	}, "SELECT entry FROM journal WHERE execution = ? ORDER BY seq LIMIT 100", *key); err != nil {
		return err
	}
	if unreadable != nil || !store.SameCreation(create, unread, journal) {
		return refuse("execution %s: %w", e.ID, aloft.ErrExists)
	}
	return nil
}

func errorKind(e *core.ExecutionError) string {
	if e == nil {
		return ""
	}
	return e.GetKind().String()
}

// Append puts a message into the inbox of an execution.
func (s *Store) Append(ctx context.Context, id aloft.ExecutionID, message store.Message) error {
	var enc encoder
	body := enc.blob(message.Inbox)
	if enc.err != nil {
		return fmt.Errorf("append to %s: %w", id, enc.err)
	}
	return s.write(ctx, 1, func(t *tx) error {
		var key, shard, ended, phase int64
		found, err := t.row([]any{&key, &shard, &ended, &phase},
			"SELECT e.number, e.shard, e.ended, e.phase FROM executions e WHERE e.project = ? AND e.domain = ? AND e.name = ? {hold_execution}", id.Project, id.Domain, id.Name)
		switch {
		case err != nil:
			return err
		case !found:
			return missingExecution(id)
		case ended != 0:
			return refuse("execution %s has ended (%s): %w", id, core.WorkflowExecution_Phase(phase), aloft.ErrPrecondition)
		}
		_, err = t.exec("INSERT INTO inbox (execution, shard, dedup, message) VALUES (?,?,?,?) ON CONFLICT (execution, dedup) DO NOTHING",
			key, shard, message.Dedup, body)
		t.wake(store.TopicInbox)
		return err
	})
}

// AcquireShards renews the leases of owner and takes shards that are free or whose lease has run out, up to owner's share.
func (s *Store) AcquireShards(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]store.Lease, error) {
	var leases []store.Lease
	err := s.write(ctx, store.Shards, func(t *tx) error {
		leases = nil
		now := nanos(now)
		if s.dialect.clock != "" {
			if _, err := t.row([]any{&now}, "SELECT "+s.dialect.clock); err != nil {
				return err
			}
		}
		until := now + int64(ttl)
		if err := errors.Join(
			t.execLater("UPDATE shards SET expires = ? WHERE owner = ?", []driver.Value{until, owner}, nil),
			t.execLater("INSERT INTO engines (id, expires) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET expires = excluded.expires", []driver.Value{owner, until}, nil),
			t.execLater("DELETE FROM engines WHERE id IN (SELECT id FROM engines WHERE expires <= ? {take})", []driver.Value{now}, nil),
		); err != nil {
			return err
		}
		// An engine of an earlier release has no row in engines, only leases.
		var there, has int64
		if _, err := t.row([]any{&there, &has}, `SELECT (SELECT COUNT(*) FROM (SELECT id FROM engines WHERE expires > ?
			UNION SELECT owner FROM shards WHERE owner <> '' AND expires > ?) AS there), (SELECT COUNT(*) FROM shards WHERE owner = ?)`, now, now, owner); err != nil {
			return err
		}
		share := store.Share(int(there))
		if free := int64(share) - has; free > 0 {
			if err := t.execLater(`UPDATE shards SET epoch = epoch + 1, owner = ?, expires = ?
				WHERE shard IN (SELECT shard FROM shards WHERE owner <> ? AND (owner = '' OR expires <= ?) ORDER BY shard LIMIT ? {take})`,
				[]driver.Value{owner, until, owner, now, free}, nil); err != nil {
				return err
			}
		}
		var shard, epoch, expires int64
		return t.each([]any{&shard, &epoch, &expires}, func() error {
			leases = append(leases, store.Lease{Shard: int(shard), Owner: owner, Epoch: epoch, Expires: instant(expires), Surplus: len(leases) >= share})
			return nil
		}, "SELECT shard, epoch, expires FROM shards WHERE owner = ? ORDER BY shard", owner)
	})
	if err != nil {
		return nil, err
	}
	return leases, nil
}

// YieldShards gives single shards back.
func (s *Store) YieldShards(ctx context.Context, leases []store.Lease) error {
	return s.write(ctx, len(leases), func(t *tx) error {
		for _, l := range leases {
			if err := t.execLater("UPDATE shards SET owner = '', expires = 0 WHERE shard = ? AND owner = ? AND epoch = ?",
				[]driver.Value{int64(l.Shard), l.Owner, l.Epoch}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReleaseShards gives owner's shards back.
func (s *Store) ReleaseShards(ctx context.Context, owner string) error {
	return s.write(ctx, store.Shards, func(t *tx) error {
		return errors.Join(
			t.execLater("UPDATE shards SET owner = '', expires = 0 WHERE owner = ?", []driver.Value{owner}, nil),
			t.execLater("DELETE FROM engines WHERE id = ?", []driver.Value{owner}, nil),
		)
	})
}

// freeShards frees all shards of a database file that was just opened: the process that had their leases does not run any more.
func (s *Store) freeShards(ctx context.Context) error {
	return s.write(ctx, store.Shards, func(t *tx) error {
		return errors.Join(
			t.execLater("UPDATE shards SET owner = '', expires = 0 WHERE owner <> ''", nil, nil),
			t.execLater("DELETE FROM engines", nil, nil),
		)
	})
}

// shardCondition is the condition for rows of these shards: none if they are all shards, as on one machine.
func shardCondition(shards []int) (condition string, all bool) {
	in := make(map[int]bool)
	var list []string
	for _, shard := range shards {
		if !in[shard] && shard >= 0 && shard < store.Shards {
			in[shard] = true
			list = append(list, strconv.Itoa(shard))
		}
	}
	if len(list) == store.Shards {
		return "", true
	}
	if len(list) == 0 {
		return " AND 1 = 0", false
	}
	return " AND shard IN (" + strings.Join(list, ",") + ")", false
}

// limitArg is the argument of LIMIT.
func limitArg(limit int) int64 {
	if limit <= 0 {
		return 1<<62 - 1
	}
	return int64(limit)
}

// inboxColumns are the columns of an inbox row; the content of a message only if it is not larger than the argument.
const inboxColumns = "number, execution, shard, LENGTH(message), dedup = '" + store.TerminateDedup + "', CASE WHEN LENGTH(message) <= ? THEN message END"

// Inbox returns messages after a sequence, oldest first.
func (s *Store) Inbox(ctx context.Context, shards []int, after int64, limit int) ([]store.InboxRow, error) {
	condition, all := shardCondition(shards)
	return s.messages(ctx, all, "WHERE number > ?"+condition+" ORDER BY number LIMIT ?", int64(store.MaxListedMessage), after, limitArg(limit))
}

// Messages returns whole messages.
func (s *Store) Messages(ctx context.Context, seqs []int64) ([]store.InboxRow, error) {
	var rows []store.InboxRow
	for some := range slices.Chunk(seqs, messagesAtOnce) {
		args := []any{int64(math.MaxInt32)}
		for i := range messagesAtOnce {
			args = append(args, some[min(i, len(some)-1)]) // places that are left get the last sequence again
		}
		found, err := s.messages(ctx, true, whichMessages, args...)
		if err != nil {
			return nil, err
		}
		rows = append(rows, found...)
	}
	return rows, nil
}

// messagesAtOnce is how many messages one query names: the query is prepared once, for this number.
const messagesAtOnce = 16

var whichMessages = "WHERE number IN (" + strings.TrimSuffix(strings.Repeat("?,", messagesAtOnce), ",") + ")"

func (s *Store) messages(ctx context.Context, keep bool, where string, args ...any) (rows []store.InboxRow, err error) {
	err = s.read(ctx, keep, "SELECT "+inboxColumns+" FROM inbox "+where, args, func(scan scan) error {
		var row store.InboxRow
		var terminate bool
		var message []byte
		if err := scan(&row.Seq, &row.Execution, &row.Shard, &row.Size, &terminate, &message); err != nil {
			return err
		}
		if message != nil {
			row.Inbox = new(aloftv1.Inbox)
			switch err := unmarshal(message, row.Inbox); {
			case err != nil && terminate: // its deduplication key says enough
				row.Inbox = &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{}}}
			case err != nil:
				row.Inbox = nil
				row.Unreadable = fmt.Errorf("inbox message %d of execution with key %d: %w: %w", row.Seq, row.Execution, aloft.ErrUnreadable, err)
			}
		}
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Due returns executions whose timer is due, soonest first.
func (s *Store) Due(ctx context.Context, shards []int, until time.Time, limit int) ([]store.DueRow, error) {
	var rows []store.DueRow
	condition, all := shardCondition(shards)
	err := s.read(ctx, all, "SELECT number, shard, due_at FROM executions WHERE due_at > 0 AND due_at <= ?"+condition+" ORDER BY due_at, number LIMIT ?",
		[]any{nanos(until), limitArg(limit)}, func(scan scan) error {
			var row store.DueRow
			var dueAt int64
			if err := scan(&row.Execution, &row.Shard, &dueAt); err != nil {
				return err
			}
			row.DueAt = instant(dueAt)
			rows = append(rows, row)
			return nil
		})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

const selectClocks = `SELECT number, shard, due_at, CASE WHEN waiting = '' THEN 0 ELSE 1 END,
	(SELECT entry FROM journal WHERE execution = number AND LENGTH(entry) > 1 ORDER BY seq DESC LIMIT 1) FROM executions WHERE ended = 0 AND number > ?`

// Clocks returns the latest times in the records of executions.
func (s *Store) Clocks(ctx context.Context, shards []int, after store.Key, limit int) ([]store.ClockRow, error) {
	var rows []store.ClockRow
	condition, all := shardCondition(shards)
	err := s.read(ctx, all, selectClocks+condition+" ORDER BY number LIMIT ?", []any{int64(after), limitArg(limit)},
		func(scan scan) error {
			var row store.ClockRow
			var dueAt, waiting int64
			var entry []byte
			if err := scan(&row.Execution, &row.Shard, &dueAt, &waiting, &entry); err != nil {
				return err
			}
			row.DueAt, row.Waiting = instant(dueAt), waiting != 0
			if last := new(aloftv1.JournalEntry); unmarshal(entry, last) == nil {
				row.Latest = store.LatestOf(last)
			}
			rows = append(rows, row)
			return nil
		})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Now is the time by the clock that all servers of the database share: the database's own, or that of the machine if it is a file.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if s.dialect.clock == "" {
		return time.Now(), nil
	}
	var now int64
	if err := s.read(ctx, true, "SELECT "+s.dialect.clock, nil, func(scan scan) error { return scan(&now) }); err != nil {
		return time.Time{}, fmt.Errorf("read the database's clock: %w", err)
	}
	return instant(now), nil
}

// Load returns the execution.
func (s *Store) Load(ctx context.Context, key store.Key) (*store.Execution, error) {
	rec, err := s.execution(ctx, "e.number = ?", int64(key))
	if err == nil && rec == nil {
		err = withoutRefusal(missingKey(key))
	}
	return rec, err
}

// Journal calls got for each entry of an execution's journal.
func (s *Store) Journal(ctx context.Context, key store.Key, got func(store.JournalRow) error) error {
	for last, page := int64(0), entriesPerRead; page == entriesPerRead; {
		page = 0
		var stopped error
		err := s.read(ctx, true, selectJournal, []any{int64(key), last, entriesPerRead}, func(scan scan) error {
			var row store.JournalRow
			var entry []byte
			if err := scan(&row.Seq, &entry); err != nil {
				return err
			}
			row.Entry = new(aloftv1.JournalEntry)
			if err := unmarshal(entry, row.Entry); err != nil {
				row.Entry = nil
				row.Unreadable = fmt.Errorf("journal entry %d of execution with key %d: %w: %w", row.Seq, key, aloft.ErrUnreadable, err)
			}
			last, page = row.Seq, page+1
			stopped = got(row)
			return stopped
		})
		if stopped != nil {
			return stopped
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const selectJournal = "SELECT seq, entry FROM journal WHERE execution = ? AND seq > ? ORDER BY seq LIMIT ?"

// entriesPerRead is how many entries of a journal are read at once: each read is bounded in time, a journal is not.
const entriesPerRead = 1000

// Stuck returns executions that nothing will ever move.
func (s *Store) Stuck(ctx context.Context, limit int) ([]aloft.ExecutionID, error) {
	var ids []aloft.ExecutionID
	// The release before, which may run beside this one, does not write waits, only waiting.
	err := s.read(ctx, true, `SELECT project, domain, name FROM executions e WHERE ended = 0 AND due_at = 0 AND waits = 0 AND waiting = ''
		AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.execution = e.number)
		AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.execution = e.number AND a.ended = 0 AND a.by_engine = 0)
		ORDER BY number LIMIT ?`, []any{limitArg(limit)}, func(scan scan) error {
		var id aloft.ExecutionID
		err := scan(&id.Project, &id.Domain, &id.Name)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}
