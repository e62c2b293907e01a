package sqlstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// dialect is all that differs between databases. The SQL itself is written once; where a database needs its own word,
// the query has the name of that word in braces.
type dialect struct {
	name  string
	goose goose.Dialect
	begin string              // begins a transaction that will write
	words map[string]string   // by the name in braces
	bytes func([]byte) string // the literal of some bytes

	fault func(error) fault
	hints map[fault]string // what a user can do about a fault

	// connect makes the connection of the writer.
	connect func(ctx context.Context, d *dialect, dsn string) (session, error)

	// A shared database has writers in other processes: leases follow the clock of the database, and rows on which a decision
	// rests are locked.
	shared bool

	// clock is the time of leases and reservations in a shared database, as an expression in nanoseconds; empty: callers tell
	// the time.
	clock string

	// lockNameSQL locks a name until the transaction ends, and waits while another transaction has it locked; empty: there are
	// no other writers.
	lockNameSQL string

	// lockInboxSQL locks an execution against appends to its inbox, and waits for the transactions that are appending; empty:
	// there are no other writers.
	lockInboxSQL string

	// Placeholders are numbers, $1, and not ?.
	numbered bool

	// skipSavepoints runs the members of a transaction without savepoints, and retries the whole transaction with savepoints if
	// a member is refused after it has written: cheaper where every statement is a journey to the database (see writer).
	skipSavepoints bool
}

// fault is what an error of a database means for callers.
type fault int

const (
	faultOther      fault = iota
	faultConstraint       // the row is refused, nothing else is wrong
	faultBusy             // locked: try again
	faultFull             // no space
	faultReadOnly
	faultDisk    // reading or writing went wrong
	faultDamaged // the database file or its pages cannot be understood
	faultAway    // the server cannot be reached, or the connection is lost
	faultSignIn  // the server does not accept the user or the password
	faultMissing // there is no such database
	faultRights  // the user may not do that
)

var brace = regexp.MustCompile(`\{([a-z_]+)(?::([0-9a-f]+))?\}`)

// render replaces the words in braces in a migration or query.
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

// rebind is a query as the database reads it: with the dialect's words, placeholders and way to match text.
func (d *dialect) rebind(query string) string {
	if strings.Contains(query, "{") {
		text, err := d.render(query)
		if err != nil {
			panic(err) // queries are constants
		}
		query = text
	}
	if !d.numbered {
		return query
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		if strings.HasSuffix(before, " LIKE ") {
			b.WriteString(" ESCAPE ''") // a backslash is an ordinary letter, as in SQLite
		}
		query = after
	}
}
