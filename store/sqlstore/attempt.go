package sqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Heartbeat registers an executor instance, or renews its registration.
func (s *Store) Heartbeat(ctx context.Context, i store.Instance) error {
	return s.write(ctx, 1, func(t *tx) error {
		n, err := t.exec(`INSERT INTO instances (id, kind, place, milli_cpu, memory, slots, seen_at, expires, nonce) VALUES (?,?,?,?,?,?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, place = excluded.place, milli_cpu = excluded.milli_cpu, memory = excluded.memory,
			slots = excluded.slots, seen_at = excluded.seen_at, expires = excluded.expires, nonce = excluded.nonce
			WHERE instances.nonce = excluded.nonce OR instances.nonce = ?`,
			i.ID, i.Kind, i.Place, i.MilliCPU, i.Memory, i.Slots, nanos(i.SeenAt), nanos(i.Expires), i.Nonce, i.Follows)
		if err == nil && n == 0 {
			return refuse("heartbeat of executor %s: another process is this executor by now: %w", i.ID, aloft.ErrFenced)
		}
		return err
	})
}

// Instances returns the instances, by id.
func (s *Store) Instances(ctx context.Context) ([]store.Instance, error) {
	var instances []store.Instance
	err := s.read(ctx, true, "SELECT id, kind, place, milli_cpu, memory, slots, seen_at, expires, nonce FROM instances ORDER BY id", nil, func(scan scan) error {
		var i store.Instance
		var seenAt, expires int64
		err := scan(&i.ID, &i.Kind, &i.Place, &i.MilliCPU, &i.Memory, &i.Slots, &seenAt, &expires, &i.Nonce)
		i.SeenAt, i.Expires = instant(seenAt), instant(expires)
		instances = append(instances, i)
		return err
	})
	if err != nil {
		return nil, err
	}
	return instances, nil
}

// RemoveInstance forgets an instance that has no attempts.
func (s *Store) RemoveInstance(ctx context.Context, executor string) error {
	return s.write(ctx, 1, func(t *tx) error {
		// Assign locks the instance weakly: either this transaction sees the attempts that were assigned, or Assign sees that the
		// instance is gone.
		var id string
		if _, err := t.row([]any{&id}, "SELECT id FROM instances WHERE id = ? {hold_instance}", executor); err != nil {
			return err
		}
		var has int64
		if _, err := t.row([]any{&has}, "SELECT COUNT(*) FROM attempts WHERE executor = ? AND ended = 0 AND executor IS NOT NULL", executor); err != nil {
			return err
		}
		if has > 0 {
			return refuse("remove executor %s: it has %d attempts: %w", executor, has, aloft.ErrPrecondition)
		}
		_, err := t.exec("DELETE FROM instances WHERE id = ?", executor)
		return err
	})
}

const selectAttempts = `SELECT e.project, e.domain, e.name, a.execution, a.node, a.attempt, a.token, a.phase, a.by_engine, a.lost, a.not_before,
	a.created_at, a.started_at, a.updated_at, a.ended_at, COALESCE(a.executor, ''), COALESCE(a.waiting, ''), COALESCE(a.stop, ''),
	COALESCE(a.deck_uri, ''), COALESCE(a.environment, ''), a.error, a.outputs, a.objects, a.usage, a.spec
	FROM attempts a JOIN executions e ON e.number = a.execution `

func (s *Store) attempts(ctx context.Context, budget *store.Budget, keep bool, rest string, args ...any) ([]*store.Attempt, error) {
	var attempts []*store.Attempt
	err := s.list(ctx, keep, selectAttempts+rest, args, budget, func(scan scan) error {
		a := new(store.Attempt)
		var phase, byEngine, lost, notBefore, createdAt, startedAt, updatedAt, endedAt int64
		var failure, outputs, objects, usage, spec []byte
		if err := scan(&a.ID.Execution.Project, &a.ID.Execution.Domain, &a.ID.Execution.Name, &a.Execution, &a.Node, &a.Attempt, &a.Token,
			&phase, &byEngine, &lost, &notBefore, &createdAt, &startedAt, &updatedAt, &endedAt, &a.Executor, &a.Waiting, &a.Stop, &a.DeckURI,
			&a.Environment, &failure, &outputs, &objects, &usage, &spec); err != nil {
			return err
		}
		a.ID.Node, a.ID.Attempt = a.Node, a.Attempt
		a.Phase, a.ByEngine, a.Lost = core.TaskExecution_Phase(phase), byEngine != 0, lost != 0
		a.NotBefore, a.CreatedAt, a.StartedAt = instant(notBefore), instant(createdAt), instant(startedAt)
		a.UpdatedAt, a.EndedAt = instant(updatedAt), instant(endedAt)
		var d decoder
		a.Error = into(&d, new(core.ExecutionError), failure)
		a.Outputs = into(&d, new(aloftv1.LiteralRef), outputs)
		a.Objects = into(&d, new(aloftv1.Outcome), objects).GetObjects()
		a.Usage = into(&d, new(aloftv1.AttemptUsage), usage)
		a.Spec = into(&d, new(aloftv1.AttemptSpec), spec)
		a.Error, a.Unreadable = d.rowFailure("task execution", a.ID, a.Error)
		attempts = append(attempts, a)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return attempts, nil
}

// Waiting returns attempts that can be assigned to an executor.
func (s *Store) Waiting(ctx context.Context, now time.Time, limit int) ([]*store.Attempt, error) {
	return s.attempts(ctx, nil, true, `WHERE a.ended = 0 AND a.by_engine = 0 AND a.executor IS NULL AND a.stop IS NULL AND a.not_before <= ?
		ORDER BY a.number LIMIT ?`, nanos(now), limitArg(limit))
}

// SetWaiting records why attempts wait.
func (s *Store) SetWaiting(ctx context.Context, executor string, attempts []store.AttemptKey, reason string) error {
	whose, args := "executor IS NULL", []driver.Value(nil)
	if executor != "" {
		whose, args = "executor = ? AND phase = 6", []driver.Value{executor}
	}
	return s.write(ctx, len(attempts), func(t *tx) error {
		for _, key := range attempts {
			n, err := t.exec(`UPDATE attempts SET waiting = ? WHERE execution = ? AND node = ? AND attempt = ? AND token = ?
				AND ended = 0 AND by_engine = 0 AND COALESCE(waiting, '') <> ? AND `+whose,
				append([]driver.Value{optional(reason), int64(key.Execution), string(key.Node), int64(key.Attempt), key.Token, reason}, args...)...)
			if err != nil {
				return err
			}
			if n > 0 {
				if err := s.wakeExecution(t, key.Execution); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// wakeExecution wakes the subscribers of an execution of which only the key is known.
func (s *Store) wakeExecution(t *tx, key store.Key) error {
	s.mu.RLock()
	id, ok := s.ids[key]
	s.mu.RUnlock()
	if !ok {
		if _, err := t.row([]any{&id.Project, &id.Domain, &id.Name}, "SELECT project, domain, name FROM executions WHERE number = ?", int64(key)); err != nil {
			return err
		}
		s.mu.Lock()
		if len(s.ids) >= 4096 {
			clear(s.ids)
		}
		s.ids[key] = id
		s.mu.Unlock()
	}
	if n := len(t.topics); n == 0 || t.topics[n-1] != store.TopicExecution(id) {
		t.wake(store.TopicExecution(id))
	}
	return nil
}

// attemptState reads why an attempt may not be assigned or reported on; over: its execution has ended.
func attemptState(t *tx, key store.AttemptKey) (ended, byEngine, over bool, executor string, found bool, err error) {
	var e, b, o int64
	found, err = t.row([]any{&e, &b, &o, &executor}, `SELECT a.ended, a.by_engine, e.ended, COALESCE(a.executor, '')
		FROM attempts a JOIN executions e ON e.number = a.execution WHERE a.execution = ? AND a.node = ? AND a.attempt = ? AND a.token = ?`,
		int64(key.Execution), string(key.Node), int64(key.Attempt), key.Token)
	return e != 0, b != 0, o != 0, executor, found, err
}

func conflict(verb string, key store.AttemptKey, why string) error {
	return fmt.Errorf("%s attempt %d of node %s: %s: %w", verb, key.Attempt, key.Node, why, aloft.ErrConflict)
}

// Assign assigns attempts to an executor instance.
func (s *Store) Assign(ctx context.Context, executor, nonce string, attempts []store.AttemptKey, now time.Time) []error {
	errs := make([]error, len(attempts))
	if err := s.write(ctx, len(attempts), func(t *tx) error {
		clear(errs)
		var id string
		known, err := t.row([]any{&id}, "SELECT id FROM instances WHERE id = ? AND nonce = ? {hold_instance_weakly}", executor, nonce)
		if err != nil {
			return err
		}
		for i, key := range attempts {
			if !known {
				errs[i] = conflict("assign", key, "executor "+executor+" is not known, or another process (any more)")
				continue
			}
			n, err := t.exec(`UPDATE attempts SET executor = ?, waiting = NULL, phase = 6, updated_at = ? WHERE execution = ? AND node = ? AND attempt = ?
				AND token = ? AND ended = 0 AND by_engine = 0 AND executor IS NULL AND stop IS NULL`,
				optional(executor), nanos(now), int64(key.Execution), string(key.Node), int64(key.Attempt), key.Token)
			if err != nil {
				return err
			}
			if n > 0 {
				if err := s.wakeExecution(t, key.Execution); err != nil {
					return err
				}
				continue
			}
			ended, byEngine, _, has, found, err := attemptState(t, key)
			switch {
			case err != nil:
				return err
			case !found:
				errs[i] = conflict("assign", key, "there is none with this token")
			case ended:
				errs[i] = conflict("assign", key, "it has ended")
			case byEngine:
				errs[i] = conflict("assign", key, "the engine runs it")
			case has == executor:
			case has != "":
				errs[i] = conflict("assign", key, "executor "+has+" has it")
			default:
				errs[i] = conflict("assign", key, "it is to be stopped")
			}
		}
		return nil
	}); err != nil {
		return sameError(len(attempts), err)
	}
	return errs
}

// sameError is an error for each of n members of a call.
func sameError(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Assigned returns the attempts that are assigned to the instance and have not ended.
func (s *Store) Assigned(ctx context.Context, executor string) ([]*store.Attempt, error) {
	return s.attempts(ctx, nil, true, "WHERE a.executor = ? AND a.ended = 0 AND a.executor IS NOT NULL ORDER BY a.number", executor)
}

// Report puts an executor's messages into the inbox.
func (s *Store) Report(ctx context.Context, executor string, reports []store.Report) []error {
	errs := make([]error, len(reports))
	type encoded struct {
		dedup, message driver.Value
		err            error
	}
	rows := make([]encoded, len(reports))
	for i, report := range reports {
		dedup, err := store.ReportDedup(report)
		var enc encoder
		rows[i] = encoded{dedup: dedup, message: enc.blob(report.Inbox), err: err}
		if err == nil {
			rows[i].err = enc.err
		}
	}
	if err := s.write(ctx, len(reports), func(t *tx) error {
		for i, report := range reports {
			if errs[i] = rows[i].err; errs[i] != nil {
				continue
			}
			key := report.Attempt
			n, err := t.exec(`INSERT INTO inbox (execution, shard, dedup, message) SELECT a.execution, e.shard, ?, ? FROM attempts a
				JOIN executions e ON e.number = a.execution WHERE a.execution = ? AND a.node = ? AND a.attempt = ? AND a.token = ?
				AND a.ended = 0 AND a.executor = ? AND e.ended = 0 {hold_execution} ON CONFLICT (execution, dedup) DO NOTHING`,
				rows[i].dedup, rows[i].message, int64(key.Execution), string(key.Node), int64(key.Attempt), key.Token, executor)
			if err != nil {
				return err
			}
			if n > 0 {
				t.topics = []store.Topic{store.TopicInbox}
				continue
			}
			ended, _, over, has, found, err := attemptState(t, key)
			switch {
			case err != nil:
				return err
			case !found:
				errs[i] = conflict("report", key, "there is none with this token")
			case ended || over:
				errs[i] = conflict("report", key, "it has ended")
			case has != executor:
				errs[i] = conflict("report", key, "executor "+executor+" does not have it")
			}
		}
		return nil
	}); err != nil {
		return sameError(len(reports), err)
	}
	return errs
}

// Adopt assigns the attempts of an instance that is gone to another instance of the same place.
func (s *Store) Adopt(ctx context.Context, from, to string) (int, error) {
	adopted := 0
	err := s.write(ctx, 1, func(t *tx) error {
		var old, mine string
		hadOld, err := t.row([]any{&old}, "SELECT place FROM instances WHERE id = ?", from)
		if err != nil {
			return err
		}
		hasMine, err := t.row([]any{&mine}, "SELECT place FROM instances WHERE id = ?", to)
		if err != nil {
			return err
		}
		if !hasMine || hadOld && old != mine {
			return refuse("adopt attempts of executor %s for %s: they are not known at the same place: %w", from, to, aloft.ErrPrecondition)
		}
		if from == to {
			return nil
		}
		var key int64
		var keys []store.Key
		if err := t.each([]any{&key}, func() error { keys = append(keys, store.Key(key)); return nil },
			"SELECT DISTINCT execution FROM attempts WHERE executor = ? AND ended = 0 AND executor IS NOT NULL", from); err != nil {
			return err
		}
		for _, key := range keys {
			if err := s.wakeExecution(t, key); err != nil {
				return err
			}
		}
		n, err := t.exec("UPDATE attempts SET executor = ? WHERE executor = ? AND ended = 0 AND executor IS NOT NULL", to, from)
		adopted = int(n)
		t.wake(store.TopicAttempts)
		return err
	})
	if err != nil {
		return 0, err
	}
	return adopted, nil
}
