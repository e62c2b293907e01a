package sqlstore

import (
	"database/sql/driver"
	"fmt"
	"strings"
)

// session is one connection of the writer, which is one goroutine, to a database. What is said in a query's braces and
// with ? it puts into the database's words itself.
type session interface {
	// exec runs a statement and says how many rows it wrote.
	exec(query string, args []driver.Value) (int64, error)

	// later is exec for a statement on whose result nothing depends at once: it may travel with the next one. check gets
	// the number of rows; its error, as the statement's own, is returned by the call that the statement travelled with.
	later(query string, args []driver.Value, check func(rows int64) error) error

	// laterMany is later for rows, whose values follow one another in args; check gets the number of those that were written.
	laterMany(m *many, args []driver.Value, check func(rows int64) error) error

	// gather is laterMany for rows that are written by statements of many rows each: they are put together with those of other
	// calls, and all of them, by the tables in their order, run before anything else that is left for later. check is called
	// with want, or not at all: then the call that they travelled with returns a refusal.
	gather(m *many, args []driver.Value, want int64, check func(rows int64) error)

	// flush runs what is left for later.
	flush() error

	// forget drops what is left for later.
	forget()

	// query hands each row to got, which does not keep the slice.
	query(query string, args []driver.Value, columns int, got func([]driver.Value) error) error

	close() error
}

// late marks an error of a statement that was left for later: it may be another member's than the one that runs.
type late struct{ error }

func (l late) Unwrap() error { return l.error }

// conn is a session with the words that members use.
type conn struct{ session }

// exec runs a statement and says how many rows it wrote.
func (c *conn) exec(query string, args ...driver.Value) (int64, error) {
	return c.session.exec(query, args)
}

// row reads at most one row into dest (int64, string and []byte; NULL leaves the zero value) and says if there was one.
func (c *conn) row(dest []any, query string, args ...driver.Value) (bool, error) {
	found := false
	err := c.each(dest, func() error { found = true; return nil }, query, args...)
	return found, err
}

// each reads all rows, one after the other, into dest.
func (c *conn) each(dest []any, got func() error, query string, args ...driver.Value) error {
	return c.query(query, args, len(dest), func(values []driver.Value) error {
		for i, value := range values {
			if err := assign(dest[i], value); err != nil {
				return fmt.Errorf("column %d of %.60q: %w", i, query, err)
			}
		}
		return got()
	})
}

func assign(dest any, value driver.Value) error {
	switch dest := dest.(type) {
	case *int64:
		switch value := value.(type) {
		case int64:
			*dest = value
		case int32: // a constant of ours
			*dest = int64(value)
		default:
			*dest = 0
		}
	case *string:
		*dest, _ = value.(string)
	case *[]byte:
		*dest, _ = value.([]byte)
	default:
		return fmt.Errorf("cannot read into %T", dest)
	}
	return nil
}

// many is a statement that writes several rows at once: fewer, larger statements are what makes a wide step quick.
type many struct {
	columns int
	sizes   []int    // numbers of rows, largest first, ending with 1
	texts   []string // one statement for each size

	// The same in parts.
	head, table, tail string
	names             []string // of the columns
}

// newMany takes what comes before the values, INSERT INTO table (columns), and after them.
func newMany(columns int, head, tail string) *many {
	m := &many{columns: columns, sizes: []int{64, 16, 4, 1}, head: head, tail: tail}
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
	for _, size := range m.sizes {
		m.texts = append(m.texts, head+" VALUES "+strings.TrimSuffix(strings.Repeat(row+",", size), ",")+" "+tail)
	}
	table, names, _ := strings.Cut(strings.TrimPrefix(head, "INSERT INTO "), "(")
	m.table = strings.TrimSpace(table)
	for name := range strings.SplitSeq(strings.TrimSuffix(names, ")"), ",") {
		m.names = append(m.names, strings.TrimSpace(name))
	}
	return m
}
