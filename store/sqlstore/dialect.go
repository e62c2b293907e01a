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

// dialect is all that differs between databases. The SQL itself is written once; where a database needs a word of its
// own, the word stands in braces.
type dialect struct {
	name  string
	goose goose.Dialect
	begin string // begins a transaction that will write
	words map[string]string
	bytes func([]byte) string // a literal

	fault func(error) fault
	hints map[fault]string // what a user can do

	// connect makes the connection of the writer.
	connect func(ctx context.Context, d *dialect, dsn string) (session, error)

	// A shared database has writers in other processes. Leases follow its own clock then, and rows that a decision rests on are locked.
	shared bool

	// clock is the time of the leases in a shared database, as an expression in nanoseconds; empty: the callers tell the time.
	clock string

	// lockName waits until no other transaction has locked the same name; empty: there are no others.
	lockName string

	// atEnd waits until nobody appends to an execution any more; empty: there are no others.
	atEnd string

	// Placeholders are numbers, $1, and not ?.
	numbered bool

	// An optimist lets the members of a transaction go without a savepoint and does the whole once more, with savepoints,
	// if one is refused after it has written: where every statement is a journey, that is cheaper.
	optimist bool
}

// fault is what a database's error means for the one who called.
type fault int

const (
	faultOther      fault = iota
	faultConstraint       // the row is refused, nothing else is wrong
	faultBusy             // try again
	faultFull             // no space
	faultReadOnly
	faultDisk    // reading or writing went wrong
	faultDamaged // what is there cannot be understood
	faultAway    // the server cannot be reached, or the connection is lost
	faultSignIn  // it knows the user or the password not
	faultMissing // there is no such database
	faultRights  // the user may not do that
)

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

// rebind is a query as the database reads it: with its words, its placeholders and its way to match text.
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
