package sqlstore

import (
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// dialect is all that differs between databases. The SQL itself is written once.
type dialect struct {
	name   string
	goose  goose.Dialect
	driver driver.Driver
	begin  string // begins a transaction that will write
	words  map[string]string
	bytes  func([]byte) string // a literal
	rebind func(query string) string
	fault  func(error) fault

	prefill func(path string) // makes room before the first write; nil: nothing to do

	// writeDSN and readDSN make connection strings of a path.
	writeDSN, readDSN func(path string) string
}

// fault is what a database's error means for the one who called.
type fault int

const (
	faultNone       fault = iota
	faultConstraint       // the row is refused, nothing else is wrong
	faultBusy             // try again
	faultFull             // no space
	faultReadOnly
	faultDisk    // reading or writing went wrong
	faultDamaged // what is there cannot be understood
	faultOther
)

var sqliteDialect = dialect{
	name:   "sqlite",
	goose:  goose.DialectSQLite3,
	driver: &sqlite.Driver{},
	begin:  "BEGIN IMMEDIATE",
	words: map[string]string{
		"blob":            "BLOB",
		"serial":          "INTEGER PRIMARY KEY",
		"serial_for_ever": "INTEGER PRIMARY KEY AUTOINCREMENT", // a number is not used again after its row was deleted
		"clustered":       "WITHOUT ROWID",
	},
	bytes:    func(b []byte) string { return "x'" + hex.EncodeToString(b) + "'" },
	rebind:   func(query string) string { return query },
	fault:    sqliteFault,
	prefill:  prefillLog,
	writeDSN: func(path string) string { return sqliteDSN(path, "32768", "") },
	readDSN:  func(path string) string { return sqliteDSN(path, "8192", "query_only(1)") },
}

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
// half of one that does, and without this the first commits of every start would be the slow ones. It is only for speed,
// so an error changes nothing: the log grows as it is written.
func prefillLog(path string) {
	name := path + "-wal"
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return // there is one, with something in it
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

var brace = regexp.MustCompile(`\{([a-z_]+)(?::([0-9a-f]+))?\}`)

// render fills what stands in braces in a migration.
func (d *dialect) render(text string) (string, error) {
	var errs []error
	text = brace.ReplaceAllStringFunc(text, func(found string) string {
		m := brace.FindStringSubmatch(found)
		if m[1] == "bytes" {
			b, err := hex.DecodeString(m[2])
			errs = append(errs, err)
			return d.bytes(b)
		}
		word, ok := d.words[m[1]]
		if !ok {
			errs = append(errs, fmt.Errorf("%s is no word of the dialect %s", found, d.name))
		}
		return word
	})
	return strings.TrimSpace(text), errors.Join(errs...)
}
