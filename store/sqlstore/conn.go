package sqlstore

import (
	"database/sql/driver"
	"fmt"
	"strings"
)

// session is one connection of the writer, which is one goroutine, to a database. It replaces words in braces and the
// placeholders ? in a query by the database's own (dialect.rebind).
//
// A deferred statement need not run at once, because nothing depends on its result yet: where the database is reached over a
// network, it travels with a later statement.
type session interface {
	// exec runs a statement and says how many rows it wrote.
	exec(query string, args []driver.Value) (int64, error)

	// execLater is exec for a deferred statement. check gets the number of rows that it wrote. The error of the statement, or of
	// check, is returned by the call that the statement travelled with.
	execLater(query string, args []driver.Value, check func(rows int64) error) error

	// insertLater is execLater for the rows of an insert; args has the values of the first row, then of the second, and so on.
	insertLater(m *bulkInsert, args []driver.Value, check func(rows int64) error) error

	// insertMerged is insertLater for rows that are merged with the rows of other calls for the same table: one statement
	// for each table, in the order in which the tables first came, before all other deferred statements. check is called with
	// want if all rows of the table were written. Else it is not called, and the call that the statement travelled with returns
	// a refusal: which rows are missing is not known.
	insertMerged(m *bulkInsert, args []driver.Value, want int64, check func(rows int64) error)

	// flush runs the deferred statements.
	flush() error

	// dropDeferred forgets the deferred statements.
	dropDeferred()

	// query hands each row to got, which does not keep the slice.
	query(query string, args []driver.Value, columns int, got func([]driver.Value) error) error

	close() error
}

// deferredError marks an error of a deferred statement: it may be another member's than the one that runs.
type deferredError struct{ error }

func (l deferredError) Unwrap() error { return l.error }

// conn is a session with the methods by which members read and write.
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
		case int32: // a constant in a query
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

// bulkInsert is a statement that inserts several rows at once: fewer, larger statements make a wide step quick.
type bulkInsert struct {
	columns int
	sizes   []int    // numbers of rows, largest first, ending with 1
	texts   []string // one statement for each size

	// The parts of the statement: head, VALUES, tail.
	head, table, tail string
	names             []string // of the columns
}

// newBulkInsert takes the text before the values, INSERT INTO table (columns), and the text after them.
func newBulkInsert(columns int, head, tail string) *bulkInsert {
	m := &bulkInsert{columns: columns, sizes: []int{64, 16, 4, 1}, head: head, tail: tail}
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
