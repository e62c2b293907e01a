package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
)

// conn is the connection of the writer. It speaks to the driver without package database/sql between: the writer is one
// goroutine with one connection, and what a pool does for every statement would be a good part of its work.
type conn struct {
	dialect *dialect
	driver  driver.Conn
	stmts   map[string]driver.Stmt
	args    []driver.NamedValue
}

func connect(d *dialect, dsn string) (*conn, error) {
	c, err := d.driver.Open(dsn)
	if err != nil {
		return nil, err
	}
	return &conn{dialect: d, driver: c, stmts: make(map[string]driver.Stmt)}, nil
}

func (c *conn) close() error {
	var errs []error
	for _, stmt := range c.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, c.driver.Close())...)
}

func (c *conn) prepare(query string) (driver.Stmt, error) {
	if stmt, ok := c.stmts[query]; ok {
		return stmt, nil
	}
	stmt, err := c.driver.Prepare(c.dialect.rebind(query))
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", query, err)
	}
	c.stmts[query] = stmt
	return stmt, nil
}

func (c *conn) named(args []driver.Value) []driver.NamedValue {
	c.args = c.args[:0]
	for i, arg := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	return c.args
}

// exec runs a statement that is kept prepared and says how many rows it wrote.
func (c *conn) exec(query string, args ...driver.Value) (int64, error) {
	stmt, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), c.named(args))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// row reads at most one row into dest (int64, string and []byte; NULL leaves the zero value) and says if there was one.
func (c *conn) row(dest []any, query string, args ...driver.Value) (bool, error) {
	found := false
	err := c.each(dest, func() error { found = true; return nil }, query, args...)
	return found, err
}

// each reads all rows, one after the other, into dest.
func (c *conn) each(dest []any, got func() error, query string, args ...driver.Value) error {
	stmt, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := stmt.(driver.StmtQueryContext).QueryContext(context.Background(), c.named(args))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	values := make([]driver.Value, len(dest))
	for {
		switch err := rows.Next(values); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		for i, value := range values {
			if err := assign(dest[i], value); err != nil {
				return fmt.Errorf("column %d of %.60q: %w", i, query, err)
			}
		}
		if err := got(); err != nil {
			return err
		}
	}
}

func assign(dest any, value driver.Value) error {
	switch dest := dest.(type) {
	case *int64:
		*dest, _ = value.(int64)
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
}

func newMany(columns int, head, tail string) many {
	m := many{columns: columns, sizes: []int{64, 16, 4, 1}}
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
	for _, size := range m.sizes {
		m.texts = append(m.texts, head+" VALUES "+strings.TrimSuffix(strings.Repeat(row+",", size), ",")+" "+tail)
	}
	return m
}

// execMany writes rows, whose values follow one another in args, and says how many were written.
func (c *conn) execMany(m many, args []driver.Value) (written int64, err error) {
	for i, size := range m.sizes {
		for n := size * m.columns; len(args) >= n && n > 0; args = args[n:] {
			affected, err := c.exec(m.texts[i], args[:n]...)
			if err != nil {
				return written, err
			}
			written += affected
		}
	}
	return written, nil
}
