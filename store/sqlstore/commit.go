package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// Commit writes steps, each a member of its own.
func (s *Store) Commit(ctx context.Context, steps []*store.Step) []error {
	errs := make([]error, len(steps))
	var members []member
	var which []int
	rows := 0
	states := new(prefetchedStates)
	for i, step := range steps {
		e, err := encodeStep(step)
		if err != nil {
			errs[i] = fmt.Errorf("commit %s: encode: %w", step.ID, err)
			continue
		}
		states.keys = append(states.keys, int64(step.Execution))
		members, which = append(members, func(t *tx) error { return e.commit(t, states) }), append(which, i)
		rows += 2 + len(step.Nodes) + len(step.Attempts) + len(step.Consumed) + len(step.Appends) + len(step.Results)
	}
	if len(members) == 0 {
		return errs
	}
	for n, err := range s.writer.submit(ctx, rows, members...) {
		if errors.Is(err, errTaken) {
			err = s.takenError(ctx, steps[which[n]])
		}
		errs[which[n]] = err
	}
	return errs
}

// encodedStep is a step whose records are values for statements already.
type encodedStep struct {
	*store.Step
	entry    driver.Value
	nodes    []driver.Value
	attempts []driver.Value
	change   []driver.Value // all but due_at, waiting (since), waits and the key; nil: none
	ended    bool           // the change ends the execution
	stops    []stoppedOutcome
	appends  []encodedAppend
	results  []driver.Value
	releases []encodedRelease
	wakes    []store.Topic
}

// stoppedOutcome is the message that an attempt was stopped: it is sent if, at the time of the commit, no executor has the
// attempt (store.StoppedUnstarted).
type stoppedOutcome struct {
	attempt        *store.Attempt
	dedup, message driver.Value
}

// encodedAppend is a message of Step.Appends.
type encodedAppend struct {
	to             aloft.ExecutionID
	dedup, message driver.Value
}

func encodeStep(step *store.Step) (*encodedStep, error) {
	e := &encodedStep{Step: step, wakes: []store.Topic{store.TopicExecution(step.ID)}}
	var entry, change encoder
	nodes := encoder{values: make([]driver.Value, 0, len(step.Nodes)*nodeColumns)}
	attempts := encoder{values: make([]driver.Value, 0, len(step.Attempts)*attemptColumns)}
	e.entry = entry.blob(step.Entry)
	for _, n := range step.Nodes {
		nodes.node(step.Execution, n)
	}
	wake := false
	for _, a := range step.Attempts {
		attempts.attempt(step.Execution, a)
		if a.Stop != "" && !aloft.Terminal(a.Phase) {
			m := store.StoppedUnstarted(a)
			e.stops = append(e.stops, stoppedOutcome{a, m.Dedup, entry.blob(m.Inbox)})
		}
		wake = wake || store.WakesExecutors(a)
	}
	if wake {
		e.wakes = append(e.wakes, store.TopicAttempts)
	}
	for _, m := range step.Appends {
		e.appends = append(e.appends, encodedAppend{m.ID, m.Message.Dedup, entry.blob(m.Message.Inbox)})
	}
	e.results = encodeResults(step.Results, &entry)
	for _, r := range step.Releases {
		e.releases = append(e.releases, entry.release(store.WaitForResult(r.ID), r.Owner, step.CommitID))
	}
	if c := step.Change; c != nil {
		e.ended = aloft.Terminal(c.Phase)
		change.add(int64(c.Phase), flag(e.ended), nanos(c.StartedAt), nanos(c.UpdatedAt), nanos(c.EndedAt), errorKind(c.Error), c.Error.GetCode(),
			change.blob(c.Error), change.blob(c.Outputs), c.AbortCause, c.AbortPrincipal)
		e.change = change.values
	}
	e.nodes, e.attempts = nodes.values, attempts.values
	return e, errors.Join(entry.err, nodes.err, attempts.err, change.err)
}

var writeJournal = newBulkInsert(4, "INSERT INTO journal (execution, seq, commit_id, entry)", "ON CONFLICT (execution, seq) DO NOTHING")

// storedState is what the database has of an execution and its shard before a commit, which is checked against it.
type storedState struct {
	key, shard, ended, dueAt, waits, epoch, lapsed, last int64
	waiting, owner                                       string
}

func (f *storedState) columns() []any {
	return []any{&f.key, &f.shard, &f.ended, &f.dueAt, &f.waiting, &f.waits, &f.owner, &f.epoch, &f.lapsed, &f.last}
}

// readStates also locks the shards: no lease can be taken away before the transaction ends.
var readStates = newInQuery([]int{1, 4, 16, 64}, `SELECT e.number, e.shard, e.ended, e.due_at, e.waiting, e.waits, s.owner, s.epoch, {lapsed},
	COALESCE((SELECT j.seq FROM journal j WHERE j.execution = e.number ORDER BY j.seq DESC LIMIT 1), 0)
	FROM executions e JOIN shards s ON s.shard = e.shard WHERE e.number IN `, ` {hold_shard}`)

// prefetchedStates are the stored states of all executions of a Commit call, read at once where this saves journeys (where inserts
// are merged).
type prefetchedStates struct {
	keys        []int64
	transaction int64 // the number of the transaction in which they were read
	states      map[int64]*storedState
}

// take returns the stored state of an execution; nil if there is no such execution. A prefetched state is returned once: after the
// writes of the step that took it, it is outdated.
func (p *prefetchedStates) take(t *tx, key int64) (*storedState, error) {
	if t.mergeInserts && p.transaction != t.number {
		p.transaction, p.states = t.number, make(map[int64]*storedState, len(p.keys))
		if err := readStates.each(t, p.keys, p.states); err != nil {
			return nil, err
		}
	}
	if f, ok := p.states[key]; ok && t.mergeInserts {
		delete(p.states, key)
		return f, nil
	}
	of := make(map[int64]*storedState, 1)
	err := readStates.each(t, []int64{key}, of)
	return of[key], err
}

// inQuery is a query with IN about several keys. It has one statement for each of a few sizes, so that all can be kept prepared.
type inQuery struct {
	sizes []int // smallest first, beginning with 1
	texts []string
}

func newInQuery(sizes []int, head, tail string) inQuery {
	q := inQuery{sizes: sizes}
	for _, size := range sizes {
		q.texts = append(q.texts, head+"("+strings.TrimSuffix(strings.Repeat("?,", size), ",")+")"+tail)
	}
	return q
}

// fit is the statement for n keys, or for as many of them as the largest statement has places. The caller fills places that are
// left with any of the keys again.
func (q inQuery) fit(n int) (text string, places int) {
	i := 0
	for i < len(q.sizes)-1 && q.sizes[i] < n {
		i++
	}
	return q.texts[i], q.sizes[i]
}

func (q inQuery) each(t *tx, keys []int64, of map[int64]*storedState) error {
	for len(keys) > 0 {
		text, size := q.fit(len(keys))
		n := min(size, len(keys))
		args := make([]driver.Value, size)
		for k := range args {
			args[k] = keys[min(k, n-1)]
		}
		keys = keys[n:]
		var f storedState
		if err := t.each(f.columns(), func() error { found := f; of[f.key] = &found; return nil }, text, args...); err != nil {
			return err
		}
	}
	return nil
}

// commit checks lease and sequence in the transaction that writes.
func (e *encodedStep) commit(t *tx, states *prefetchedStates) error {
	key := int64(e.Execution)
	f, err := states.take(t, key)
	if err != nil {
		return err
	}
	if f == nil {
		return missingKey(e.Execution)
	}
	last := f.last
	if e.Seq <= last {
		var commitID string
		if _, err := t.row([]any{&commitID}, "SELECT commit_id FROM journal WHERE execution = ? AND seq = ?", key, e.Seq); err != nil {
			return err
		}
		if commitID == e.CommitID {
			return nil // a repetition
		}
	}
	if f.owner != e.Lease.Owner || f.epoch != e.Lease.Epoch || int(f.shard) != e.Lease.Shard {
		return refuse("commit %s under lease %d of shard %d: %w", e.ID, e.Lease.Epoch, e.Lease.Shard, aloft.ErrFenced)
	}
	if f.lapsed != 0 {
		return refuse("commit %s: lease %d of shard %d has run out: %w", e.ID, e.Lease.Epoch, e.Lease.Shard, aloft.ErrFenced)
	}
	if e.Seq != last+1 {
		return refuse("commit %s as entry %d, the last one is %d: %w", e.ID, e.Seq, last, aloft.ErrConflict)
	}
	releases, err := e.releasedReservations(t)
	if err != nil {
		return err
	}
	if err := t.insertLater(writeJournal,
		[]driver.Value{key, e.Seq, e.CommitID, e.entry}, func(rows int64) error {
			if rows == 0 {
				// Another transaction was about to write this entry when we read the last one: perhaps an earlier try of this commit.
				return retryableRefusal{refuse("commit %s: another entry is %d: %w", e.ID, e.Seq, aloft.ErrConflict)}
			}
			return nil
		}); err != nil {
		return err
	}
	if err := e.consume(t); err != nil {
		return err
	}
	if err := t.insertLater(writeNodes, e.nodes, func(rows int64) error {
		if rows != int64(len(e.Nodes)) {
			return refuse("commit %s: a node that has ended cannot change its phase: %w", e.ID, aloft.ErrConflict)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := t.insertLater(writeAttempts, e.attempts, func(rows int64) error {
		if rows != int64(len(e.Attempts)) {
			return refuse("commit %s: an attempt that has ended, or whose token is another, cannot change: %w", e.ID, aloft.ErrConflict)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := e.send(t); err != nil {
		return err
	}
	if err := e.writeCatalog(t, releases); err != nil {
		return err
	}
	t.wake(e.wakes...)
	return e.update(t, f)
}

var consumeSizes = []int{64, 8, 1}

var consumeTexts = func() (texts []string) {
	for _, size := range consumeSizes {
		texts = append(texts, "DELETE FROM inbox WHERE execution = ? AND number IN ("+strings.TrimSuffix(strings.Repeat("?,", size), ",")+")")
	}
	return texts
}()

// consume deletes the messages that the step consumes.
func (e *encodedStep) consume(t *tx) error {
	rest := e.Consumed
	for i, size := range consumeSizes {
		for ; len(rest) >= size; rest = rest[size:] {
			args := append(make([]driver.Value, 0, 1+size), int64(e.Execution))
			for _, seq := range rest[:size] {
				args = append(args, seq)
			}
			if err := t.execLater(consumeTexts[i], args, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// send puts messages into inboxes: into the execution's own for attempts that are stopped before an executor has them, and those
// of Step.Appends. A message to an execution that is not there or has ended is dropped: that is no error of the sender.
func (e *encodedStep) send(t *tx) error {
	sent := func(rows int64) error {
		if rows > 0 {
			t.wake(store.TopicInbox)
		}
		return nil
	}
	for _, s := range e.stops {
		if err := t.execLater(`INSERT INTO inbox (execution, shard, dedup, message) SELECT a.execution, e.shard, ?, ? FROM attempts a
			JOIN executions e ON e.number = a.execution WHERE a.execution = ? AND a.node = ? AND a.attempt = ? AND a.executor IS NULL AND a.ended = 0
			ON CONFLICT (execution, dedup) DO NOTHING`,
			[]driver.Value{s.dedup, s.message, int64(e.Execution), string(s.attempt.Node), int64(s.attempt.Attempt)}, sent); err != nil {
			return err
		}
	}
	for _, a := range e.appends {
		if err := t.execLater(`INSERT INTO inbox (execution, shard, dedup, message) SELECT e.number, e.shard, ?, ? FROM executions e
			WHERE e.project = ? AND e.domain = ? AND e.name = ? AND e.ended = 0 {hold_execution} ON CONFLICT (execution, dedup) DO NOTHING`,
			[]driver.Value{a.dedup, a.message, a.to.Project, a.to.Domain, a.to.Name}, sent); err != nil {
			return err
		}
	}
	return nil
}

// unlessTerminated is the condition under which a step may end an execution by itself: the messages that it consumes are
// deleted before, so a request to terminate that is still in the inbox is one that the step does not know.
func unlessTerminated(c *store.ExecutionChange) string {
	if !c.EndsUnasked() {
		return ""
	}
	return " AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.execution = executions.number AND inbox.dedup = '" + store.TerminateDedup + "')"
}

// update writes the execution's own row, unless the row has these values already.
func (e *encodedStep) update(t *tx, f *storedState) error {
	ended := f.ended != 0 && e.change == nil || e.ended
	wantDue, wantWaits := nanos(e.DueAt), int64(e.Waits)
	if ended {
		wantDue, wantWaits = 0, 0
	}
	if ended && t.lockInboxSQL != "" {
		// No other transaction may append to an execution while it ends. This waits for those that are appending, and comes before
		// the update, for which an append would not wait.
		if err := t.execLater(t.lockInboxSQL, []driver.Value{int64(e.Execution)}, nil); err != nil {
			return err
		}
	}
	switch {
	case e.change != nil:
		args := append(append(make([]driver.Value, 0, len(e.change)+5), e.change...), wantDue, e.Waiting, nanos(e.WaitingSince), wantWaits, int64(e.Execution))
		if err := t.execLater(`UPDATE executions SET phase = ?, ended = ?, started_at = ?, updated_at = ?, ended_at = ?, error_kind = ?, error_code = ?,
			error = ?, outputs = COALESCE(?, outputs), abort_cause = ?, abort_principal = ?, due_at = ?, waiting = ?, waiting_since = ?, waits = ? WHERE number = ?`+unlessTerminated(e.Change),
			args, func(rows int64) error {
				if rows == 0 {
					return refuse("commit %s: its termination was acknowledged and it cannot become %s: %w", e.ID, e.Change.Phase, aloft.ErrConflict)
				}
				return nil
			}); err != nil {
			return err
		}
	case wantDue != f.dueAt || wantWaits != f.waits || e.Waiting != f.waiting:
		if err := t.execLater("UPDATE executions SET due_at = ?, waiting = ?, waiting_since = ?, waits = ? WHERE number = ?",
			[]driver.Value{wantDue, e.Waiting, nanos(e.WaitingSince), wantWaits, int64(e.Execution)}, nil); err != nil {
			return err
		}
	}
	if ended {
		// Nothing will ever read what is still in the inbox.
		if err := t.execLater("DELETE FROM inbox WHERE execution = ?", []driver.Value{int64(e.Execution)}, nil); err != nil {
			return err
		}
	}
	return nil
}
