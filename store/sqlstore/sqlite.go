package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var sqliteDialect = dialect{
	name:  "sqlite",
	goose: goose.DialectSQLite3,
	begin: "BEGIN IMMEDIATE",
	words: map[string]string{
		"text":                "TEXT",
		"blob":                "BLOB",
		"serial":              "INTEGER PRIMARY KEY",
		"serial_for_ever":     "INTEGER PRIMARY KEY AUTOINCREMENT", // a number is not used again after its row was deleted
		"clustered":           "WITHOUT ROWID",
		"rows_follow_journal": "", // it checks foreign keys as it goes
		"place_specs": `CREATE TRIGGER execution_specs_place AFTER INSERT ON execution_specs WHEN NEW.project = '' BEGIN
			UPDATE execution_specs SET (project, domain, created_at) = (SELECT e.project, e.domain, e.created_at FROM executions e WHERE e.number = NEW.execution)
			WHERE execution = NEW.execution; END;`,
		"place_tags": `CREATE TRIGGER execution_tags_place AFTER INSERT ON execution_tags WHEN NEW.project = '' BEGIN
			UPDATE execution_tags SET (project, domain, created_at) = (SELECT e.project, e.domain, e.created_at FROM executions e WHERE e.number = NEW.execution)
			WHERE execution = NEW.execution; END;`,
		// There is one writer: no row needs a lock.
		"hold_shard": "", "hold_execution": "", "hold_instance": "", "hold_instance_weakly": "", "hold_reservation": "", "take": "", "lapsed": "0",
	},
	bytes:   func(b []byte) string { return "x'" + hex.EncodeToString(b) + "'" },
	fault:   sqliteFault,
	connect: connectSQLite,
	hints: map[fault]string{
		faultBusy:     "another program has it locked: close that program",
		faultFull:     "the disk is full: make room, it goes on by itself",
		faultReadOnly: "it cannot be opened for writing: check that the folder exists and that this user may write to it",
		faultDisk:     "the disk reports an error: check it",
		faultDamaged:  "the file is damaged or no database: put it back from a backup",
	},
}

// writeDSN and readDSN make connection strings of a path.
func writeDSN(path string) string { return sqliteDSN(path, "32768", "") }
func readDSN(path string) string  { return sqliteDSN(path, "8192", "query_only(1)") }

type sqliteConnector struct{ dsn string }

func (c sqliteConnector) Connect(context.Context) (driver.Conn, error) {
	return c.Driver().Open(c.dsn)
}
func (c sqliteConnector) Driver() driver.Driver { return &sqlite.Driver{} }

func openSQLite(dsn string) *sql.DB { return sql.OpenDB(sqliteConnector{dsn}) }

// sqliteDSN sets what every connection needs. The write-ahead log is synced at every commit; it is copied back every
// 16 MiB, which gathers many changes of the same page; readers never wait for the writer nor it for them.
func sqliteDSN(path, cacheKiB, more string) string {
	pragmas := []string{"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)", "foreign_keys(1)", "temp_store(memory)",
		"wal_autocheckpoint(" + strconv.Itoa(logPages) + ")", "journal_size_limit(67108864)", "case_sensitive_like(1)", "cache_size(-" + cacheKiB + ")"}
	if more != "" {
		pragmas = append(pragmas, more)
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + url.Values{"_pragma": pragmas}.Encode()
}

// logPages is after how many pages of 4 KiB the log is copied back and begins again.
const logPages = 4096

// prefillLog writes the log full of zeros, which SQLite takes for an empty one. A sync of a file that does not grow costs
// half of one that does, and without this the first commits of every start would be slow. It is only for speed, so an error
// changes nothing: then the log grows as it is written.
func prefillLog(path string) {
	name := path + "-wal"
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return // there is a log, which may have content
	}
	zeros := make([]byte, 64<<10)
	for written := 0; written < logPages*4096 && err == nil; written += len(zeros) {
		_, err = f.Write(zeros)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(name)
		return
	}
	go func() {
		_ = f.Sync()
		_ = f.Close()
	}()
}

func sqliteFault(err error) fault {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return faultOther
	}
	if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE { // the log's index has no room to grow
		return faultFull
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT:
		return faultConstraint
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return faultBusy
	case sqlite3.SQLITE_FULL:
		return faultFull
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return faultReadOnly
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM:
		return faultDisk
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return faultDamaged
	default:
		return faultOther
	}
}

// sqliteSession speaks to the driver without package database/sql between: the writer is one goroutine with one
// connection, and what a pool does for every statement would be a good part of its work.
type sqliteSession struct {
	dialect *dialect
	driver  driver.Conn
	stmts   map[string]driver.Stmt
	args    []driver.NamedValue
}

func connectSQLite(_ context.Context, d *dialect, dsn string) (session, error) {
	c, err := (&sqlite.Driver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	return &sqliteSession{dialect: d, driver: c, stmts: make(map[string]driver.Stmt)}, nil
}

func (s *sqliteSession) close() error {
	var errs []error
	for _, stmt := range s.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, s.driver.Close())...)
}

func (s *sqliteSession) prepare(query string) (driver.Stmt, error) {
	if stmt, ok := s.stmts[query]; ok {
		return stmt, nil
	}
	stmt, err := s.driver.Prepare(s.dialect.rebind(query))
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", query, err)
	}
	s.stmts[query] = stmt
	return stmt, nil
}

func (s *sqliteSession) namedValues(args []driver.Value) []driver.NamedValue {
	s.args = s.args[:0]
	for i, arg := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	return s.args
}

func (s *sqliteSession) exec(query string, args []driver.Value) (int64, error) {
	stmt, err := s.prepare(query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), s.namedValues(args))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// execLater runs the statement at once: there is no network on the way to the database.
func (s *sqliteSession) execLater(query string, args []driver.Value, check func(int64) error) error {
	n, err := s.exec(query, args)
	if err == nil && check != nil {
		err = check(n)
	}
	return err
}

func (s *sqliteSession) insertLater(m *bulkInsert, args []driver.Value, check func(rows int64) error) error {
	var written int64
	for i, size := range m.sizes {
		for n := size * m.columns; len(args) >= n && n > 0; args = args[n:] {
			rows, err := s.exec(m.texts[i], args[:n])
			if err != nil {
				return err
			}
			written += rows
		}
	}
	return check(written)
}

func (s *sqliteSession) insertMerged(*bulkInsert, []driver.Value, int64, func(int64) error) {
	panic("inserts are merged only where savepoints are skipped")
}

func (s *sqliteSession) flush() error { return nil }

func (s *sqliteSession) dropDeferred() {}

func (s *sqliteSession) query(query string, args []driver.Value, columns int, got func([]driver.Value) error) error {
	stmt, err := s.prepare(query)
	if err != nil {
		return err
	}
	rows, err := stmt.(driver.StmtQueryContext).QueryContext(context.Background(), s.namedValues(args))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	values := make([]driver.Value, columns)
	for {
		switch err := rows.Next(values); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := got(values); err != nil {
			return err
		}
	}
}
