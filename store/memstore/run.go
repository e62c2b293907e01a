package memstore

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func missingExecution(id aloft.ExecutionID) error {
	return fmt.Errorf("execution %s: %w", id, aloft.ErrNotFound)
}

func missingKey(key store.Key) error {
	return fmt.Errorf("execution with key %d: %w", key, aloft.ErrNotFound)
}

// CreateExecution makes the execution and its first inbox message.
func (s *Store) CreateExecution(_ context.Context, e *store.Execution, create *aloftv1.Inbox) error {
	return s.do("CreateExecution", func() ([]store.Topic, error) {
		if there := s.byID[e.ID]; there != nil {
			if !s.sameCreation(there, create) {
				return nil, fmt.Errorf("execution %s: %w", e.ID, aloft.ErrExists)
			}
			e.Key, e.Shard, e.JournalVersion = there.rec.Key, there.rec.Shard, there.rec.JournalVersion
			return nil, nil
		}
		made := &execution{
			rec:      *cloneExecution(e, true),
			ended:    aloft.Terminal(e.Phase),
			dedup:    make(map[string]int64),
			nodes:    make(map[aloft.NodeID]*store.Node),
			attempts: make(map[attemptName]*attempt),
		}
		made.rec.Key = store.Key(len(s.executions) + 1)
		made.rec.Shard = store.ShardOf(e.ID)
		if made.rec.JournalVersion == 0 {
			made.rec.JournalVersion = store.JournalVersion
		}
		s.executions = append(s.executions, made)
		s.byID[e.ID] = made
		s.put(made, store.Message{Dedup: store.CreateDedup, Inbox: create})
		e.Key, e.Shard, e.JournalVersion = made.rec.Key, made.rec.Shard, made.rec.JournalVersion
		return []store.Topic{store.TopicInbox}, nil
	})
}

// sameCreation says whether this very message has made the execution.
func (s *Store) sameCreation(e *execution, create *aloftv1.Inbox) bool {
	var unread *aloftv1.Inbox
	var journal []*aloftv1.JournalEntry
	for _, row := range s.inbox.rows {
		if row.exec == e && row.dedup == store.CreateDedup {
			unread = row.inbox
		}
	}
	for _, row := range e.journal {
		entry := new(aloftv1.JournalEntry)
		if proto.Unmarshal(row.entry, entry) != nil {
			return false
		}
		journal = append(journal, entry)
	}
	return store.SameCreation(create, unread, journal)
}

// put adds a message unless its deduplication key is there already.
func (s *Store) put(e *execution, message store.Message) bool {
	if _, there := e.dedup[message.Dedup]; there {
		return false
	}
	s.lastInbox++
	e.dedup[message.Dedup] = s.lastInbox
	s.inbox.add(inboxRow{seq: s.lastInbox, exec: e, dedup: message.Dedup, inbox: clone(message.Inbox)})
	return true
}

// Append puts a message into the inbox of an execution.
func (s *Store) Append(_ context.Context, id aloft.ExecutionID, message store.Message) error {
	return s.do("Append", func() ([]store.Topic, error) {
		e := s.byID[id]
		switch {
		case e == nil:
			return nil, missingExecution(id)
		case e.ended:
			return nil, fmt.Errorf("execution %s has ended (%s): %w", id, e.rec.Phase, aloft.ErrPrecondition)
		}
		s.put(e, message)
		return []store.Topic{store.TopicInbox}, nil
	})
}

// AcquireShards renews the leases of owner and takes shards that are free or whose lease has run out, up to owner's share.
func (s *Store) AcquireShards(_ context.Context, owner string, now time.Time, ttl time.Duration) (leases []store.Lease, err error) {
	err = s.do("AcquireShards", func() ([]store.Topic, error) {
		leases = nil
		s.engines[owner] = now.Add(ttl)
		there, has := 0, 0
		for _, until := range s.engines {
			if until.After(now) {
				there++
			}
		}
		for i := range s.leases {
			if lease := &s.leases[i]; lease.Owner == owner {
				lease.Expires = now.Add(ttl)
				has++
			}
		}
		share := store.Share(there)
		for i := range s.leases {
			lease := &s.leases[i]
			if lease.Owner != owner && has < share && (lease.Owner == "" || !lease.Expires.After(now)) {
				lease.Owner, lease.Expires = owner, now.Add(ttl)
				lease.Epoch++
				has++
			}
			if lease.Owner == owner {
				leases = append(leases, *lease)
			}
		}
		for i := range leases {
			leases[i].Surplus = i >= share
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return leases, nil
}

// YieldShards gives single shards back.
func (s *Store) YieldShards(_ context.Context, leases []store.Lease) error {
	return s.do("YieldShards", func() ([]store.Topic, error) {
		for _, given := range leases {
			if lease := &s.leases[given.Shard]; lease.Owner == given.Owner && lease.Epoch == given.Epoch {
				lease.Owner, lease.Expires = "", time.Time{}
			}
		}
		return nil, nil
	})
}

// ReleaseShards gives owner's shards back.
func (s *Store) ReleaseShards(_ context.Context, owner string) error {
	return s.do("ReleaseShards", func() ([]store.Topic, error) {
		for i := range s.leases {
			if lease := &s.leases[i]; lease.Owner == owner {
				lease.Owner, lease.Expires = "", time.Time{}
			}
		}
		delete(s.engines, owner)
		return nil, nil
	})
}

// shardSet is a set of shards.
func shardSet(shards []int) (in [store.Shards]bool) {
	for _, shard := range shards {
		if shard >= 0 && shard < store.Shards {
			in[shard] = true
		}
	}
	return in
}

// Inbox returns messages after a sequence, oldest first.
func (s *Store) Inbox(_ context.Context, shards []int, after int64, limit int) (rows []store.InboxRow, err error) {
	err = s.do("Inbox", func() ([]store.Topic, error) {
		rows = nil
		in := shardSet(shards)
		from, _ := slices.BinarySearchFunc(s.inbox.rows, after+1, func(r inboxRow, seq int64) int { return int(r.seq - seq) })
		for _, r := range s.inbox.rows[from:] {
			if limit > 0 && len(rows) == limit {
				break
			}
			if in[r.exec.rec.Shard] {
				rows = append(rows, r.read(store.MaxListedMessage))
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// read is the row as the store returns it, with the message if that is not larger than the limit.
func (r inboxRow) read(limit int) store.InboxRow {
	row := store.InboxRow{Seq: r.seq, Execution: r.exec.rec.Key, Shard: r.exec.rec.Shard, Size: proto.Size(r.inbox)}
	switch {
	case row.Size > limit: // if it is damaged, only reading it with its content shows that
	case r.damaged && r.dedup == store.TerminateDedup:
		row.Inbox = &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{}}}
	case r.damaged:
		row.Unreadable = fmt.Errorf("inbox message %d of execution %s: %w", r.seq, r.exec.rec.ID, aloft.ErrUnreadable)
	default:
		row.Inbox = clone(r.inbox)
	}
	return row
}

// Messages returns whole messages.
func (s *Store) Messages(_ context.Context, seqs []int64) (rows []store.InboxRow, err error) {
	err = s.do("Messages", func() ([]store.Topic, error) {
		rows = nil
		for _, r := range s.inbox.rows {
			if slices.Contains(seqs, r.seq) {
				rows = append(rows, r.read(math.MaxInt))
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Due returns executions whose timer is due, soonest first.
func (s *Store) Due(_ context.Context, shards []int, until time.Time, limit int) (rows []store.DueRow, err error) {
	err = s.do("Due", func() ([]store.Topic, error) {
		rows = nil
		in := shardSet(shards)
		for _, r := range s.due.rows {
			if r.at.After(until) || limit > 0 && len(rows) == limit {
				break
			}
			if shard := s.find(r.key).rec.Shard; in[shard] {
				rows = append(rows, store.DueRow{Execution: r.key, Shard: shard, DueAt: r.at})
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Clocks returns the latest times in the records of executions.
func (s *Store) Clocks(_ context.Context, shards []int, after store.Key, limit int) (rows []store.ClockRow, err error) {
	err = s.do("Clocks", func() ([]store.Topic, error) {
		rows = nil
		in := shardSet(shards)
		for _, e := range s.executions[min(int(after), len(s.executions)):] {
			if limit > 0 && len(rows) == limit {
				break
			}
			if e.ended || !in[e.rec.Shard] {
				continue
			}
			row := store.ClockRow{Execution: e.rec.Key, Shard: e.rec.Shard, DueAt: e.dueAt, Waiting: e.rec.Waiting != ""}
			for _, j := range slices.Backward(e.journal) {
				if len(j.entry) == 0 {
					continue
				}
				entry := new(aloftv1.JournalEntry)
				if proto.Unmarshal(j.entry, entry) == nil {
					row.Latest = store.LatestOf(entry)
				}
				break
			}
			rows = append(rows, row)
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Load returns the execution.
func (s *Store) Load(_ context.Context, key store.Key) (rec *store.Execution, err error) {
	err = s.do("Load", func() ([]store.Topic, error) {
		e := s.find(key)
		if e == nil {
			return nil, missingKey(key)
		}
		rec = cloneExecution(&e.rec, true)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// Journal calls got for each entry of an execution's journal.
func (s *Store) Journal(_ context.Context, key store.Key, got func(store.JournalRow) error) error {
	var id aloft.ExecutionID
	var journal []journalRow
	if err := s.do("Journal", func() ([]store.Topic, error) {
		if e := s.find(key); e != nil {
			id, journal = e.rec.ID, slices.Clone(e.journal)
		}
		return nil, nil
	}); err != nil {
		return err
	}
	for i, row := range journal {
		read := store.JournalRow{Seq: int64(i + 1), Entry: new(aloftv1.JournalEntry)}
		if err := proto.Unmarshal(row.entry, read.Entry); err != nil {
			read.Entry, read.Unreadable = nil, fmt.Errorf("journal entry %d of execution %s: %w: %w", read.Seq, id, aloft.ErrUnreadable, err)
		}
		if err := got(read); err != nil {
			return err
		}
	}
	return nil
}

// Entries is the number of entries in a journal, of any version.
func (s *Store) Entries(key store.Key) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.find(key).journal)
}

// DamageEntry makes an entry of a journal unreadable.
func (s *Store) DamageEntry(key store.Key, seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.find(key).journal[seq-1].entry = []byte{0xff}
}

// DamageMessages makes all messages unreadable that are in an inbox now.
func (s *Store) DamageMessages(key store.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.inbox.rows {
		if r := &s.inbox.rows[i]; r.exec.rec.Key == key {
			r.damaged = true
		}
	}
}

// Commit writes steps, each of them whole or not at all.
func (s *Store) Commit(_ context.Context, steps []*store.Step) []error {
	return s.doEach("Commit", len(steps), func(first int) (topics []store.Topic, errs []error) {
		errs = make([]error, first)
		for i, step := range steps[:first] {
			woken, err := s.commit(step)
			errs[i] = err
			topics = append(topics, woken...)
		}
		return topics, errs
	})
}

// commit checks everything before it changes anything.
func (s *Store) commit(step *store.Step) ([]store.Topic, error) {
	e := s.find(step.Execution)
	if e == nil {
		return nil, missingKey(step.Execution)
	}
	last := int64(len(e.journal))
	if step.Seq >= 1 && step.Seq <= last && e.journal[step.Seq-1].commitID == step.CommitID {
		return nil, nil // a repetition
	}
	if lease := s.leases[e.rec.Shard]; lease.Owner != step.Lease.Owner || lease.Epoch != step.Lease.Epoch || lease.Shard != step.Lease.Shard {
		return nil, fmt.Errorf("commit %s under lease %d of shard %d: %w", e.rec.ID, step.Lease.Epoch, step.Lease.Shard, aloft.ErrFenced)
	}
	if step.Seq != last+1 {
		return nil, fmt.Errorf("commit %s as entry %d, the last one is %d: %w", e.rec.ID, step.Seq, last, aloft.ErrConflict)
	}
	if seq, unread := e.dedup[store.TerminateDedup]; unread && step.Change.EndsUnasked() && !slices.Contains(step.Consumed, seq) {
		return nil, fmt.Errorf("commit %s: its termination was acknowledged and it cannot become %s: %w", e.rec.ID, step.Change.Phase, aloft.ErrConflict)
	}
	for _, n := range step.Nodes {
		if old := e.nodes[n.ID]; old != nil && aloft.Terminal(old.Phase) && old.Phase != n.Phase {
			return nil, fmt.Errorf("commit %s: node %s has ended %s and cannot become %s: %w", e.rec.ID, n.ID, old.Phase, n.Phase, aloft.ErrConflict)
		}
	}
	for _, a := range step.Attempts {
		old := e.attempts[attemptName{a.Node, a.Attempt}]
		switch {
		case old == nil:
		case old.rec.Token != a.Token:
			return nil, fmt.Errorf("commit %s: attempt %d of node %s is another one (its token differs): %w", e.rec.ID, a.Attempt, a.Node, aloft.ErrConflict)
		case aloft.Terminal(old.rec.Phase) && old.rec.Phase != a.Phase:
			return nil, fmt.Errorf("commit %s: attempt %d of node %s has ended %s and cannot become %s: %w", e.rec.ID, a.Attempt, a.Node, old.rec.Phase, a.Phase, aloft.ErrConflict)
		}
	}
	if taken := s.takenResults(step); len(taken) > 0 {
		return nil, fmt.Errorf("commit %s: %w", e.rec.ID, &store.TakenError{By: taken})
	}
	entry, err := proto.Marshal(step.Entry)
	if err != nil {
		return nil, fmt.Errorf("commit %s: write journal entry: %w", e.rec.ID, err)
	}

	e.journal = append(e.journal, journalRow{commitID: step.CommitID, entry: entry})
	topics := []store.Topic{store.TopicExecution(e.rec.ID)}
	for _, seq := range step.Consumed {
		s.consume(e, seq)
	}
	for _, n := range step.Nodes {
		e.putNode(n)
	}
	attempts, inbox := false, false
	for _, a := range step.Attempts {
		try := s.putAttempt(e, a)
		attempts = attempts || store.WakesExecutors(a)
		if a.Stop != "" && try.rec.Executor == "" && !aloft.Terminal(try.rec.Phase) {
			inbox = s.put(e, store.StoppedUnstarted(a)) || inbox
		}
	}
	for _, m := range step.Appends {
		// A message to an execution that is not there or has ended is dropped: that is no error of the sender.
		if to := s.byID[m.ID]; to != nil && !to.ended {
			inbox = s.put(to, m.Message) || inbox
		}
	}
	for _, r := range step.Results {
		if _, err := s.putResult(r, step.Overwrite); err != nil {
			panic(err) // takenResults has found none
		}
	}
	s.change(e, step)
	releases := step.Releases
	if step.ReleasesAll {
		releases = slices.Concat(releases, s.reservationsOf(step.Execution))
	}
	for _, r := range releases {
		inbox = s.release(r, step.CommitID) || inbox
	}
	if inbox {
		topics = append(topics, store.TopicInbox)
	}
	if attempts {
		topics = append(topics, store.TopicAttempts)
	}
	return topics, nil
}

func (s *Store) consume(e *execution, seq int64) {
	i, found := slices.BinarySearchFunc(s.inbox.rows, seq, func(r inboxRow, seq int64) int { return int(r.seq - seq) })
	if !found || s.inbox.rows[i].exec != e {
		return
	}
	row := s.inbox.rows[i]
	delete(e.dedup, row.dedup)
	s.inbox.remove(row)
}

// change updates the execution's own record.
func (s *Store) change(e *execution, step *store.Step) {
	if c := step.Change; c != nil {
		e.rec.Phase = c.Phase
		e.rec.StartedAt, e.rec.EndedAt, e.rec.UpdatedAt = c.StartedAt, c.EndedAt, c.UpdatedAt
		e.rec.Error = clone(c.Error)
		if c.Outputs != nil {
			e.rec.Outputs = clone(c.Outputs)
		}
		e.rec.AbortCause, e.rec.AbortPrincipal = c.AbortCause, c.AbortPrincipal
		e.ended = aloft.Terminal(c.Phase)
	}
	e.rec.Waiting, e.rec.WaitingSince, e.rec.Waits = step.Waiting, step.WaitingSince, step.Waits
	dueAt := step.DueAt
	if e.ended {
		// Nothing will ever read what is still in the inbox.
		dueAt, e.rec.Waits = time.Time{}, 0
		seqs := make([]int64, 0, len(e.dedup))
		for _, seq := range e.dedup {
			seqs = append(seqs, seq)
		}
		for _, seq := range seqs {
			s.consume(e, seq)
		}
	}
	if !dueAt.Equal(e.dueAt) {
		if !e.dueAt.IsZero() {
			s.due.remove(dueRow{e.dueAt, e.rec.Key})
		}
		if !dueAt.IsZero() {
			s.due.add(dueRow{dueAt, e.rec.Key})
		}
		e.dueAt = dueAt
	}
}

func (e *execution) putNode(n *store.Node) {
	made := cloneNode(n, true)
	made.Execution = e.rec.ID
	old := e.nodes[n.ID]
	if old == nil {
		e.order = append(e.order, n.ID)
	} else {
		if made.Inputs == nil {
			made.Inputs = old.Inputs
		}
		if made.Outputs == nil {
			made.Outputs = old.Outputs
		}
		if made.Metadata == nil {
			made.Metadata = old.Metadata
		}
		if made.Cache == nil {
			made.Cache = old.Cache
		}
		made.CreatedAt = old.CreatedAt
	}
	e.nodes[n.ID] = made
}

// putAttempt inserts an attempt, or updates in it what the engine owns.
func (s *Store) putAttempt(e *execution, a *store.Attempt) *attempt {
	name := attemptName{a.Node, a.Attempt}
	made := cloneAttempt(a, true)
	made.Execution = e.rec.Key
	made.ID = aloft.AttemptID{Execution: e.rec.ID, Node: a.Node, Attempt: a.Attempt}
	try := e.attempts[name]
	if try == nil {
		s.lastTry++
		try = &attempt{id: s.lastTry}
		e.attempts[name] = try
		e.tries = append(e.tries, try)
	} else {
		old := try.rec
		s.unlist(try)
		made.Executor, made.Waiting, made.ByEngine, made.CreatedAt, made.Spec = old.Executor, old.Waiting, old.ByEngine, old.CreatedAt, old.Spec
		if len(made.Objects) == 0 {
			made.Objects = old.Objects
		}
		if made.Usage == nil {
			made.Usage = old.Usage
		}
		if made.Environment == "" {
			made.Environment = old.Environment
		}
		if made.Phase == core.TaskExecution_QUEUED && made.Executor != "" {
			made.Phase = core.TaskExecution_INITIALIZING // the engine has not seen the start yet
		}
		if made.Phase != core.TaskExecution_QUEUED {
			made.Waiting = ""
		}
	}
	try.rec = *made
	s.listForExecutors(try)
	return try
}

// listForExecutors puts an attempt into the list that Waiting or Assigned returns, unlist takes it out.
func (s *Store) listForExecutors(try *attempt) {
	rec := &try.rec
	switch {
	case rec.ByEngine || aloft.Terminal(rec.Phase):
	case rec.Executor != "":
		if s.assigned[rec.Executor] == nil {
			o := byCreation()
			s.assigned[rec.Executor] = &o
		}
		s.assigned[rec.Executor].add(try)
	case rec.Stop == "":
		s.unassigned.add(try)
		try.listed = true
	}
}

func (s *Store) unlist(try *attempt) {
	if try.listed {
		s.unassigned.remove(try)
		try.listed = false
	}
	if o := s.assigned[try.rec.Executor]; o != nil {
		o.remove(try)
	}
}

// Stuck returns executions that nothing will ever move.
func (s *Store) Stuck(_ context.Context, limit int) (ids []aloft.ExecutionID, err error) {
	err = s.do("Stuck", func() ([]store.Topic, error) {
		ids = nil
		for _, e := range s.executions {
			if limit > 0 && len(ids) == limit {
				break
			}
			if e.ended || len(e.dedup) > 0 || !e.dueAt.IsZero() || e.rec.Waits > 0 {
				continue
			}
			if !slices.ContainsFunc(e.tries, func(a *attempt) bool { return !a.rec.ByEngine && !aloft.Terminal(a.rec.Phase) }) {
				ids = append(ids, e.rec.ID)
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}
