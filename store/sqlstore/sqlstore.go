// Package sqlstore is the store on an SQL database: after launch, before engine, and between engine and executor.
//
// It relies on a database file that no other process writes, or on a PostgreSQL database that servers share. All writes
// of a process go through one goroutine, the writer (group commit; its design is told with the type): it takes all jobs that
// are queued into one transaction, in which a member may be refused alone, syncs once, wakes subscribers and answers:
//
//	caller ─ encode ─▶ job ─┐
//	caller ─ encode ─▶ job ─┼─▶ writer: BEGIN · member · member · … · COMMIT (one sync) ─▶ wake-ups ─▶ answers
//	caller ─ encode ─▶ job ─┘
//
// Callers encode their records themselves, so that the writer only executes prepared statements of many rows. Reads have
// their own connections, never wait for the writer nor it for them, and are bounded in time.
//
// A full disk, a read-only one and every other fault of the database become errors that wrap aloft.ErrUnavailable and
// say what to do. Nothing is half written then, and the writer connects again by itself with the next job. A disk that does
// not answer (internal/hang) is such a fault, too: calls return while their read or write waits in the kernel, and the
// outcome of a write that was under way is unknown, as after a lost connection.
//
// On PostgreSQL other servers can change rows between any two statements, so a transaction locks the rows on which its decision
// rests until it ends: a commit locks its shard, so that the lease cannot be taken away before the commit; the end of an
// execution locks its inbox, so that no message is put there after it. Leases run by the database's clock. Wake-ups go to the
// other servers by LISTEN and NOTIFY. A connection that is lost before COMMIT was sent is made again, and callers do not notice;
// one that is lost during COMMIT leaves an unknown outcome, ErrUnavailable, and the same steps may be committed again.
//
// The SQL is written once. What differs between databases is one value of type dialect.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/hang"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/store"
)

// readFor bounds every read: no reader may hold a snapshot, and with it the space of the log, for longer.
const readFor = 30 * time.Second

// readers is how many reads run at once. More would share the same few cores.
const readers = 8

// Options say where the store is.
type Options struct {
	Path   string       // the database file; made if it is not there
	URL    string       // a PostgreSQL database, postgres://…, which several servers may share; then there is no Path
	Logger *slog.Logger // nil: says nothing
}

// Store is the store in one database. Open makes one.
type Store struct {
	store.Hub
	dialect *dialect
	path    string   // the file, or the URL without password and options
	lock    *os.File // nil: the database is shared
	writer  *writer
	db      *sql.DB // reads only
	wire    *wire   // carries wake-ups to the other servers; nil: there are none
	age     *age    // of a database file; nil: the database is shared

	guard *hang.Guard // of the disk of a file; nil: the database is shared, and its connections have deadlines

	scans chan struct{} // the turns of lists that look at many rows
	pages chan struct{} // the turns of large pages; half of the processors stay free for small ones

	mu    sync.RWMutex
	stmts map[string]*sql.Stmt            // prepared reads
	ids   map[store.Key]aloft.ExecutionID // of executions that wakeExecution woke
}

var _ store.Store = (*Store)(nil)

// Open opens the database and brings its schema up to date; a file is made if it is not there. A second Open of the same
// file, also by another process, is ErrPrecondition, and leases that an earlier process left in it are free again: it cannot
// be running. A PostgreSQL database is shared: leases in it run out by its own clock.
func Open(ctx context.Context, o Options) (*Store, error) {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{stmts: make(map[string]*sql.Stmt), ids: make(map[store.Key]aloft.ExecutionID)}
	var err error
	if o.URL != "" {
		err = s.openShared(ctx, &postgresDialect, o.URL, log)
	} else {
		err = s.openFile(ctx, o.Path, log)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) openFile(ctx context.Context, path string, log *slog.Logger) (err error) {
	s.dialect, s.path = &sqliteDialect, path
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return fmt.Errorf("open store %s: %w", path, err)
	}
	// SQLite gives its other files the mode of this file, and would make this file readable for all users.
	if f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600); err == nil { // SQLite reports the error, if it has one
		_ = f.Close()
	}
	// Migrations have their own connection, which is closed before the writer opens one.
	db := openSQLite(writeDSN(path))
	db.SetMaxOpenConns(1)
	if err := errors.Join(migrate(ctx, s.dialect, db), db.Close()); err != nil {
		_ = s.lock.Close()
		return unavailable(opening, path, s.dialect, err)
	}
	prefillLog(path)
	// A read that is only slow ends by readFor, before the guard takes it for one that hangs.
	s.guard = &hang.Guard{Name: "the disk of " + path, Limit: readFor + 2*time.Second}
	s.start(openSQLite(readDSN(path)), writeDSN(path), writeFor, s.Wake, log)
	known, err := s.checkAge(ctx)
	if err == nil {
		err = s.freeShards(ctx)
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	s.age = s.keepAge(known, log)
	return nil
}

func (s *Store) openShared(ctx context.Context, d *dialect, dsn string, log *slog.Logger) error {
	s.dialect, s.path = d, Redacted(dsn)
	if err := preparePostgres(ctx, dsn, log); err != nil {
		if errors.Is(err, aloft.ErrPrecondition) || errors.Is(err, aloft.ErrInvalid) {
			return fmt.Errorf("%s %s: %w", opening, s.path, err)
		}
		return unavailable(opening, s.path, d, err)
	}
	db, err := openPostgres(dsn)
	if err != nil {
		return unavailable(opening, s.path, d, err)
	}
	if s.wire, err = newWire(ctx, &s.Hub, dsn, db, log); err != nil {
		return unavailable(opening, s.path, d, errors.Join(err, db.Close()))
	}
	s.start(db, dsn, 0, s.wire.tell, log)
	return nil
}

func (s *Store) start(db *sql.DB, dsn string, patience time.Duration, wakeFunc func(...store.Topic), log *slog.Logger) {
	s.db, s.scans, s.pages = db, make(chan struct{}, scansAtOnce), make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
	s.db.SetMaxOpenConns(readers)
	s.db.SetMaxIdleConns(readers)
	s.writer = newWriter(s.dialect, dsn, s.path, patience, wakeFunc, log)
}

// lockFile excludes other processes; the operating system gives the lock back however this process ends.
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

// Close writes the jobs that are queued and closes the database.
func (s *Store) Close() error {
	if s.age != nil {
		s.age.close()
	}
	err := s.writer.close()
	if s.wire != nil {
		s.wire.close()
	}
	err = errors.Join(err, s.closeReaders())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

func (s *Store) closeReaders() error {
	if s.guard == nil {
		return s.db.Close()
	}
	_, err := hang.Do(context.Background(), s.guard, func(context.Context) (struct{}, error) { return struct{}{}, s.db.Close() }, nil)
	return err
}

// Probe returns the fault of the database: a disk that does not answer, or that of the last transaction. It asks the database
// nothing: leases are renewed by writes each few seconds.
func (s *Store) Probe(context.Context) error {
	if s.guard != nil {
		if err := s.guard.Err(); err != nil {
			return err
		}
	}
	if err := s.writer.standstill(); err != nil {
		return err
	}
	if last := s.writer.lastErr.Load(); last != nil {
		return *last
	}
	return nil
}

// write submits a job with one member.
func (s *Store) write(ctx context.Context, rows int, do member) error {
	return s.writer.submit(ctx, rows, do)[0]
}

// prepared returns the prepared statement of a read, which is kept until the store is closed: only for queries with few texts.
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

// read runs a query and hands each row to got; keep keeps the statement prepared. It waits for locks of other programs, and
// returns when the disk hangs.
func (s *Store) read(ctx context.Context, keep bool, query string, args []any, got func(scan) error) error {
	if s.guard == nil {
		return s.readWithRetry(ctx, keep, query, args, got)
	}
	// When read has returned, got must not run any more: it writes to variables of the caller.
	var mu sync.Mutex
	left := false
	_, err := hang.Do(ctx, s.guard, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.readWithRetry(ctx, keep, query, args, func(next scan) error {
			mu.Lock()
			defer mu.Unlock()
			if left {
				return context.Canceled
			}
			return got(next)
		})
	}, nil)
	mu.Lock()
	defer mu.Unlock()
	left = true
	if err != nil && err == ctx.Err() { //nolint:errorlint // only the bare error: that of a read that ended says more
		return unavailable("read from", s.path, s.dialect, err)
	}
	return err
}

func (s *Store) readWithRetry(ctx context.Context, keep bool, query string, args []any, got func(scan) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, readFor)
	defer cancel()
	for {
		started, err := s.readOnce(ctx, keep, query, args, got)
		switch {
		case err == nil:
			return nil
		case !started && s.dialect.fault(err) == faultBusy && ctx.Err() == nil:
			continue // the driver has waited already
		case !started && s.dialect.fault(err) == faultAway && ctx.Err() == nil && time.Since(began) < awayFor:
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		case errors.Is(err, aloft.ErrUnreadable), errors.Is(err, errBudget), errors.Is(err, aloft.ErrExhausted):
			return err
		case ctx.Err() != nil:
			err = ctx.Err()
		}
		return unavailable("read from", s.path, s.dialect, err)
	}
}

const claimStep = 32 << 10 // bytes of rows for which room is taken at once

// claimRoom is a scan that takes room for the rows of a request, as much as their messages take when they are decoded. It does
// not wait for room: the connection would be held meanwhile.
func claimRoom(claim *room.Claim, next scan) scan {
	if claim == nil {
		return next
	}
	var size int64
	return func(dest ...any) error {
		if err := next(dest...); err != nil {
			return err
		}
		for _, d := range dest {
			if b, ok := d.(*[]byte); ok {
				size += int64(len(*b))
			}
		}
		if size < claimStep {
			return nil
		}
		err := claim.TryTake(weight.Row * size)
		size = 0
		return err
	}
}

// errBudget ends a list whose next row would exceed its budget.
var errBudget = errors.New("the budget of the list is used up")

// list is read within a budget. got must add no record when scan returns an error.
func (s *Store) list(ctx context.Context, keep bool, query string, args []any, budget *store.Budget, got func(scan) error) error {
	if budget == nil {
		return s.read(ctx, keep, query, args, got)
	}
	err := s.read(ctx, keep, query, args, func(next scan) error {
		return got(func(dest ...any) error {
			if err := next(dest...); err != nil {
				return err
			}
			for _, d := range dest {
				if b, ok := d.(*[]byte); ok {
					budget.Bytes -= len(*b)
				}
			}
			if budget.Bytes < 0 && budget.Read > 0 {
				budget.Cut = true
				return errBudget
			}
			budget.Read++
			return nil
		})
	})
	if errors.Is(err, errBudget) {
		return nil
	}
	return err
}

// observerKey is the key of a context value by which a test sees each read: a func(query string, args []any).
type observerKey struct{}

func (s *Store) readOnce(ctx context.Context, keep bool, query string, args []any, got func(scan) error) (started bool, err error) {
	if observe, ok := ctx.Value(observerKey{}).(func(string, []any)); ok {
		observe(query, args)
	}
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
	scan := claimRoom(room.Of(ctx), rows.Scan)
	for rows.Next() {
		started = true
		if err := got(scan); err != nil {
			return true, err
		}
	}
	return started, rows.Err()
}
