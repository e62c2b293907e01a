package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"maps"
	"slices"
	"strconv"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// OpenTrusting opens a PostgreSQL database in which leases follow the clock of the callers.
func OpenTrusting(ctx context.Context, url string) (*Store, error) {
	d := postgresDialect
	d.clock, d.words = "", maps.Clone(d.words)
	d.words["lapsed"] = "0"
	s := &Store{stmts: make(map[string]*sql.Stmt), ids: make(map[store.Key]aloft.ExecutionID)}
	if err := s.openShared(ctx, &d, url, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	return s, nil
}

// Transactions is how many transactions have written something.
func (s *Store) Transactions() int64 { return s.writer.commits.Load() }

// Hold keeps the writer busy until release is called, so that jobs that are submitted meanwhile are queued together.
func (s *Store) Hold() (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	go s.write(context.Background(), 0, func(*tx) error { close(held); <-free; return nil })
	<-held
	return func() { close(free) }
}

// WaitingJobs is how many jobs are queued.
func (s *Store) WaitingJobs() int { return len(s.writer.jobs) }

// Room limits the database to so many pages more than it has, as a full disk does; negative: no limit.
func (s *Store) Room(pages int64) error {
	return s.write(context.Background(), 0, func(t *tx) error {
		var count, limit int64
		if _, err := t.row([]any{&count}, "PRAGMA page_count"); err != nil {
			return err
		}
		if pages < 0 {
			pages = 1 << 30
		}
		s.writer.dsn = writeDSN(s.path) + "&_pragma=max_page_count(" + itoa(count+pages) + ")"
		_, err := t.row([]any{&limit}, "PRAGMA max_page_count = "+itoa(count+pages))
		return err
	})
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Without makes the store leave the journal or the check of the leases out of its commits, to measure what they cost.
func (s *Store) Without(journal, fence bool) {
	_ = s.write(context.Background(), 0, func(t *tx) error {
		t.conn.session = &partialSession{t.conn.session, journal, fence, make(map[int64]int64)}
		return nil
	})
}

// partialSession leaves the journal entry, or the check of the lease, out of commits.
type partialSession struct {
	session
	journal, fence bool
	last           map[int64]int64 // entries of executions that have no journal
}

func (l *partialSession) insertLater(m *bulkInsert, args []driver.Value, check func(int64) error) error {
	if l.journal && m == writeJournal {
		return check(int64(len(args) / m.columns))
	}
	return l.session.insertLater(m, args, check)
}

func (l *partialSession) insertMerged(m *bulkInsert, args []driver.Value, want int64, check func(int64) error) {
	if l.journal && m == writeJournal {
		_ = check(want)
		return
	}
	l.session.insertMerged(m, args, want, check)
}

// readStatesUnfenced reads the stored states of executions without their leases.
var readStatesUnfenced = newInQuery(readStates.sizes, `SELECT e.number, e.shard, e.ended, e.due_at, e.waiting, e.waits, 0, 0, 0,
	COALESCE((SELECT j.seq FROM journal j WHERE j.execution = e.number ORDER BY j.seq DESC LIMIT 1), 0) FROM executions e WHERE e.number IN `, "")

// query answers readStates with the lease and the last entry that the commit expects.
func (l *partialSession) query(query string, args []driver.Value, columns int, got func([]driver.Value) error) error {
	i := slices.Index(readStates.texts, query)
	if i < 0 {
		return l.session.query(query, args, columns, got)
	}
	if l.fence {
		query = readStatesUnfenced.texts[i]
	}
	return l.session.query(query, args, columns, func(row []driver.Value) error {
		if l.fence {
			row[6], row[7] = "engine", int64(1)
		}
		if l.journal {
			execution := row[0].(int64)
			row[9] = l.last[execution]
			l.last[execution]++
		}
		return got(row)
	})
}
