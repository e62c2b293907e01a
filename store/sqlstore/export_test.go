package sqlstore

import (
	"context"
	"database/sql"
	"log/slog"
	"maps"
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

// Hold keeps the writer busy until release is called, so that what is submitted meanwhile waits together.
func (s *Store) Hold() (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	go s.write(context.Background(), 0, func(*tx) error { close(held); <-free; return nil })
	<-held
	return func() { close(free) }
}

// Waiting is how many jobs wait for the writer.
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
