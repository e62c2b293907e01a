// Package sqlstore is the store on an SQL database: after launch, before engine, and between engine and executor.
//
// It relies on a database file that nobody else writes. All writes go through one goroutine that takes everything that
// waits into one transaction (group commit), gives each member a savepoint so that a bad one is refused alone, syncs once,
// wakes subscribers and answers:
//
//	caller ─ encode ─▶ job ─┐
//	caller ─ encode ─▶ job ─┼─▶ writer: BEGIN · member · member · … · COMMIT (one sync) ─▶ wake-ups ─▶ answers
//	caller ─ encode ─▶ job ─┘
//
// Callers encode their records themselves, so that the writer only executes prepared statements of many rows. Reads have
// their own connections, never wait for the writer nor it for them, and are bounded in time.
//
// A full disk, a read-only one and every other fault of the database become errors that wrap aloft.ErrUnavailable and
// say what to do. Nothing is half written then, and the writer connects again by itself with the next job.
//
// The SQL is written once. What differs between databases is one value, dialect.
package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// readFor bounds every read: nobody may hold a snapshot, and with it the log's space, for longer.
const readFor = 30 * time.Second

// readers is how many reads run at once. More would share the same few cores.
const readers = 8

// Options say where the store is.
type Options struct {
	Path   string       // the database file; made if it is not there
	Logger *slog.Logger // nil: says nothing
}

// Store is the store in one database file. Open makes one.
type Store struct {
	store.Hub
	dialect *dialect
	path    string
	lock    *os.File
	writer  *writer
	db      *sql.DB // reads only

	mu    sync.RWMutex
	stmts map[string]*sql.Stmt            // prepared reads
	ids   map[store.Key]aloft.ExecutionID // of whom wake-ups speak
}

var _ store.Store = (*Store)(nil)

// Open opens or makes the database and brings its schema up to date. A second Open of the same file, also by another
// process, is ErrPrecondition. Leases that an earlier process left are free again: it cannot be running.
func Open(ctx context.Context, o Options) (*Store, error) {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{dialect: &sqliteDialect, path: o.Path, stmts: make(map[string]*sql.Stmt), ids: make(map[store.Key]aloft.ExecutionID)}
	var err error
	if s.lock, err = lockFile(o.Path + ".lock"); err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Path, err)
	}
	if err := s.prepareFile(ctx); err != nil {
		_ = s.lock.Close()
		return nil, unavailable(opening, o.Path, s.dialect, err)
	}
	s.db = openDB(s.dialect, s.dialect.readDSN(o.Path))
	s.db.SetMaxOpenConns(readers)
	s.db.SetMaxIdleConns(readers)
	s.writer = newWriter(s.dialect, o.Path, &s.Hub, log)
	if err := s.freeShards(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepareFile migrates over a connection of its own, which is gone before the writer's comes.
func (s *Store) prepareFile(ctx context.Context) error {
	db := openDB(s.dialect, s.dialect.writeDSN(s.path))
	db.SetMaxOpenConns(1)
	if err := errors.Join(migrate(ctx, s.dialect, db), db.Close()); err != nil {
		return err
	}
	if s.dialect.prefill != nil {
		s.dialect.prefill(s.path)
	}
	return nil
}

// lockFile excludes other processes; the operating system gives the lock back however this one ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: check that the folder exists and that this user may write to it: %w", err, aloft.ErrUnavailable)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another server has it open: stop that one, or give this one another data folder: %w", aloft.ErrPrecondition)
		}
		return nil, fmt.Errorf("lock %s: %w: %w", path, err, aloft.ErrUnavailable)
	}
	return f, nil
}

type connector struct {
	driver driver.Driver
	dsn    string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.driver }

func openDB(d *dialect, dsn string) *sql.DB { return sql.OpenDB(connector{d.driver, dsn}) }

// Close writes what waits and gives the file back.
func (s *Store) Close() error {
	s.writer.close()
	return errors.Join(s.db.Close(), s.lock.Close())
}

// write is one call with one member.
func (s *Store) write(ctx context.Context, rows int, do member) error {
	return s.writer.submit(ctx, rows, do)[0]
}

// prepared returns a read that is kept prepared. Only for queries of which there are few.
func (s *Store) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	s.mu.RLock()
	stmt := s.stmts[query]
	s.mu.RUnlock()
	if stmt != nil {
		return stmt, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt := s.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := s.db.PrepareContext(ctx, s.dialect.rebind(query)) //nolint:sqlclosecheck // kept until the store is closed
	if err != nil {
		return nil, err
	}
	s.stmts[query] = stmt
	return stmt, nil
}

// scan reads the columns of the current row.
type scan func(dest ...any) error

// read runs a query and hands each row to got. A lock is waited for here: callers never see one.
func (s *Store) read(ctx context.Context, keep bool, query string, args []any, got func(scan) error) error {
	ctx, cancel := context.WithTimeout(ctx, readFor)
	defer cancel()
	for {
		started, err := s.readOnce(ctx, keep, query, args, got)
		switch {
		case err == nil:
			return nil
		case !started && s.dialect.fault(err) == faultBusy && ctx.Err() == nil:
			continue // the driver has waited already
		case errors.Is(err, errRow):
			return err
		case ctx.Err() != nil:
			err = ctx.Err()
		}
		return unavailable("read from", s.path, s.dialect, err)
	}
}

// errRow marks an error that is about what was read, not about reading.
var errRow = errors.New("unreadable row")

func (s *Store) readOnce(ctx context.Context, keep bool, query string, args []any, got func(scan) error) (started bool, err error) {
	var rows *sql.Rows
	if keep {
		var stmt *sql.Stmt
		if stmt, err = s.prepared(ctx, query); err != nil { //nolint:sqlclosecheck // kept until the store is closed
			return false, err
		}
		rows, err = stmt.QueryContext(ctx, args...)
	} else {
		rows, err = s.db.QueryContext(ctx, s.dialect.rebind(query), args...)
	}
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		started = true
		if err := got(rows.Scan); err != nil {
			return true, err
		}
	}
	return started, rows.Err()
}
