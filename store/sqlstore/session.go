package sqlstore

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// postgresSession is the writer's connection. Deferred statements travel with the next one, so that a step is one or two
// journeys and not ten. It speaks the protocol's binary form itself: what a general driver does for every value was a third of
// the writer's work.
type postgresSession struct {
	dialect  *dialect
	conn     *pgconn.PgConn
	prepared map[string]*pgconn.StatementDescription // by the query as members write it
	layouts  map[*bulkInsert]*layout
	deferred []deferredStatement
	merged   []*mergedInsert
}

// deferredStatement is a statement that runs with a later one: a query, or rows for a table.
type deferredStatement struct {
	query  string
	insert *bulkInsert // nil: the query is the statement
	args   []driver.Value
	check  func(int64) error
}

// mergedInsert has the rows of several calls of insertMerged for one table.
type mergedInsert struct {
	insert *bulkInsert
	args   []driver.Value
	want   int64
	checks []func() error
}

// layout is how rows are sent: as an array of the table's own row type, which is one value for any number of rows.
type layout struct {
	statement *pgconn.StatementDescription
	rowType   uint32
	columns   []sentColumn // all columns of the table, in its order
}

// sentColumn is a column of a row that is sent.
type sentColumn struct {
	oid  uint32
	from int // the index of its value among those of a row; -1: it is NULL
}

func connectPostgres(ctx context.Context, d *dialect, dsn string) (session, error) {
	c, err := postgresConfig(dsn, map[string]string{
		// A process that was stopped in the middle of a transaction must not hold its locks for ever.
		"idle_in_transaction_session_timeout": "5000", "lock_timeout": "10000",
		// The statements are few, and their best plan does not depend on the values.
		"plan_cache_mode": "force_generic_plan",
	})
	if err != nil {
		return nil, err
	}
	conn, err := pgconn.ConnectConfig(ctx, &c.Config)
	if err != nil {
		return nil, err
	}
	// A write that was acknowledged is durable, also on a server whose default is otherwise.
	if _, err := conn.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'").ReadAll(); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	// A server that was built without lz4 keeps its own, slower compression.
	_, _ = conn.Exec(ctx, "SELECT set_config('default_toast_compression', 'lz4', false)").ReadAll()
	return &postgresSession{dialect: d, conn: conn, prepared: make(map[string]*pgconn.StatementDescription), layouts: make(map[*bulkInsert]*layout)}, nil
}

func (s *postgresSession) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.conn.Close(ctx)
}

func (s *postgresSession) prepare(query string) (*pgconn.StatementDescription, error) {
	if p := s.prepared[query]; p != nil {
		return p, nil
	}
	p, err := s.conn.Prepare(context.Background(), "s"+strconv.Itoa(len(s.prepared)), s.dialect.rebind(query), nil)
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", query, err)
	}
	s.prepared[query] = p
	return p, nil
}

// layout reads the columns of a table. Another server may change them: then a statement fails, and the next connection reads
// them again.
func (s *postgresSession) layout(m *bulkInsert) (*layout, error) {
	if l := s.layouts[m]; l != nil {
		return l, nil
	}
	result := s.conn.ExecParams(context.Background(), `SELECT a.attname, a.atttypid, c.reltype FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, [][]byte{[]byte(m.table)}, nil, nil, []int16{0}).Read()
	if result.Err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", m.table, result.Err)
	}
	l := &layout{}
	for _, row := range result.Rows {
		oid, err := strconv.ParseUint(string(row[1]), 10, 32)
		rowType, err2 := strconv.ParseUint(string(row[2]), 10, 32)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("read the columns of %s: %w", m.table, err)
		}
		l.rowType = uint32(rowType)
		l.columns = append(l.columns, sentColumn{uint32(oid), slices.Index(m.names, string(row[0]))})
	}
	var err error
	if l.statement, err = s.prepare(m.head + " SELECT " + strings.Join(m.names, ", ") + " FROM unnest(?::" + m.table + "[]) " + m.tail); err != nil {
		return nil, err
	}
	s.layouts[m] = l
	return l, nil
}

// rows is an array of rows as PostgreSQL reads it.
func (l *layout) rows(m *bulkInsert, args []driver.Value) ([]byte, error) {
	rows := len(args) / m.columns
	b := make([]byte, 0, rows*(8+12*len(l.columns))+size(args))
	for _, n := range []uint32{1, 0, l.rowType, uint32(rows), 1} { // dimensions, no row is NULL, type, length, first index
		b = binary.BigEndian.AppendUint32(b, n)
	}
	for ; len(args) > 0; args = args[m.columns:] {
		at := len(b)
		b = append(b, 0, 0, 0, 0) // its length
		b = binary.BigEndian.AppendUint32(b, uint32(len(l.columns)))
		for _, c := range l.columns {
			b = binary.BigEndian.AppendUint32(b, c.oid)
			if c.from < 0 || args[c.from] == nil {
				b = binary.BigEndian.AppendUint32(b, null)
				continue
			}
			start := len(b)
			b = append(b, 0, 0, 0, 0)
			var err error
			if b, err = appendValue(b, args[c.from], c.oid); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", m.names[c.from], m.table, err)
			}
			binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
		}
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	return b, nil
}

const null = 1<<32 - 1 // the length of a value that is NULL

// size is about how many bytes values take.
func size(args []driver.Value) (n int) {
	for _, arg := range args {
		switch arg := arg.(type) {
		case string:
			n += len(arg)
		case []byte:
			n += len(arg)
		default:
			n += 8
		}
	}
	return n
}

// appendValue appends a value in the binary form of a type.
func appendValue(b []byte, value driver.Value, oid uint32) ([]byte, error) {
	switch value := value.(type) {
	case int64:
		switch oid {
		case pgtype.Int8OID:
			return binary.BigEndian.AppendUint64(b, uint64(value)), nil
		case pgtype.Int4OID:
			return binary.BigEndian.AppendUint32(b, uint32(value)), nil
		}
	case string:
		if oid == pgtype.TextOID {
			return append(b, validText(value)...), nil
		}
	case []byte:
		if oid == pgtype.ByteaOID {
			return append(b, value...), nil
		}
	}
	return b, fmt.Errorf("cannot send %T as type %d", value, oid)
}

// readValue reads a value in the binary form of a type.
func readValue(b []byte, oid uint32) (driver.Value, error) {
	switch {
	case b == nil:
		return nil, nil
	case oid == pgtype.Int8OID && len(b) == 8:
		return int64(binary.BigEndian.Uint64(b)), nil
	case oid == pgtype.Int4OID && len(b) == 4:
		return int64(int32(binary.BigEndian.Uint32(b))), nil
	case oid == pgtype.TextOID:
		return string(b), nil
	case oid == pgtype.ByteaOID:
		return slices.Clone(b), nil
	}
	return nil, fmt.Errorf("cannot read %d bytes of type %d", len(b), oid)
}

// validText replaces what PostgreSQL does not accept as text: zero bytes and invalid UTF-8.
func validText(text string) string {
	if strings.IndexByte(text, 0) < 0 && utf8.ValidString(text) {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

var asBinary = []int16{1}

// queue puts a statement into a batch.
func (s *postgresSession) queue(batch *pgconn.Batch, w deferredStatement) error {
	if w.insert != nil {
		l, err := s.layout(w.insert)
		if err != nil {
			return err
		}
		rows, err := l.rows(w.insert, w.args)
		if err != nil {
			return err
		}
		batch.ExecStatement(l.statement, [][]byte{rows}, asBinary, asBinary)
		return nil
	}
	p, err := s.prepare(w.query)
	if err != nil {
		return err
	}
	if len(p.ParamOIDs) != len(w.args) {
		return fmt.Errorf("%d values for the %d placeholders of %.60q", len(w.args), len(p.ParamOIDs), w.query)
	}
	values := make([][]byte, len(w.args))
	for i, arg := range w.args {
		if arg == nil {
			continue
		}
		if values[i], err = appendValue([]byte{}, arg, p.ParamOIDs[i]); err != nil {
			return fmt.Errorf("value %d of %.60q: %w", i+1, w.query, err)
		}
	}
	batch.ExecStatement(p, values, asBinary, asBinary)
	return nil
}

// roundTripFor bounds the wait for any answer of the server to the writer.
const roundTripFor = 60 * time.Second

// send runs the deferred statements and then last, if it is not nil, in one journey. got, if not nil, gets the rows of last.
func (s *postgresSession) send(last *deferredStatement, got func(*pgconn.ResultReader) error) (tag pgconn.CommandTag, err error) {
	statements := append(s.mergedStatements(), s.deferred...)
	s.deferred = nil
	before := len(statements)
	if last != nil {
		statements = append(statements, *last)
	}
	if err := s.conn.Conn().SetDeadline(time.Now().Add(roundTripFor)); err != nil {
		return tag, fmt.Errorf("%w: %w", errConnectionLost, err)
	}
	batch := new(pgconn.Batch)
	for i, w := range statements {
		if err := s.queue(batch, w); err != nil {
			return tag, s.connectionError(deferredIf(err, i < before))
		}
	}
	var refused error
	results := s.conn.ExecBatch(context.Background(), batch)
	at := 0
	for ; err == nil && results.NextResult(); at++ {
		result := results.ResultReader()
		if at == before && got != nil {
			err = got(result)
		}
		var closing error
		if tag, closing = result.Close(); closing != nil {
			err = closing
			break
		}
		if check := statements[at].check; err == nil && check != nil && refused == nil {
			if refusal := check(tag.RowsAffected()); refusal != nil {
				refused = deferredError{refusal}
			}
		}
	}
	if closing := results.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return tag, s.connectionError(deferredIf(err, at < before))
	}
	return tag, refused
}

// deferredIf marks the error of a statement as a deferredError if the statement was deferred.
func deferredIf(err error, deferred bool) error {
	if deferred {
		return deferredError{err}
	}
	return err
}

// connectionError marks an error with errConnectionLost if the connection is closed.
func (s *postgresSession) connectionError(err error) error {
	if s.conn.IsClosed() {
		return fmt.Errorf("%w: %w", errConnectionLost, err)
	}
	return err
}

func (s *postgresSession) exec(query string, args []driver.Value) (int64, error) {
	tag, err := s.send(&deferredStatement{query: query, args: args}, nil)
	if err == nil && query == "COMMIT" && tag.String() != "COMMIT" {
		return 0, errors.New("the transaction was rolled back")
	}
	return tag.RowsAffected(), err
}

func (s *postgresSession) execLater(query string, args []driver.Value, check func(int64) error) error {
	s.deferred = append(s.deferred, deferredStatement{query: query, args: args, check: check})
	return nil
}

func (s *postgresSession) insertLater(m *bulkInsert, args []driver.Value, check func(int64) error) error {
	s.deferred = append(s.deferred, deferredStatement{insert: m, args: args, check: check})
	return nil
}

func (s *postgresSession) insertMerged(m *bulkInsert, args []driver.Value, want int64, check func(int64) error) {
	i := slices.IndexFunc(s.merged, func(g *mergedInsert) bool { return g.insert == m })
	if i < 0 {
		i = len(s.merged)
		s.merged = append(s.merged, &mergedInsert{insert: m})
	}
	g := s.merged[i]
	g.args, g.want = append(g.args, args...), g.want+want
	g.checks = append(g.checks, func() error { return check(want) })
}

// mergedStatements are the statements of the merged inserts, one for each table.
func (s *postgresSession) mergedStatements() (statements []deferredStatement) {
	for _, g := range s.merged {
		statements = append(statements, deferredStatement{insert: g.insert, args: g.args, check: func(written int64) error {
			if written != g.want {
				return refuse("%d of %d rows were not written", g.want-written, g.want)
			}
			for _, check := range g.checks {
				if err := check(); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	s.merged = nil
	return statements
}

func (s *postgresSession) flush() error {
	if len(s.deferred)+len(s.merged) == 0 {
		return nil
	}
	_, err := s.send(nil, nil)
	return err
}

func (s *postgresSession) dropDeferred() { s.deferred, s.merged = nil, nil }

func (s *postgresSession) query(query string, args []driver.Value, columns int, got func([]driver.Value) error) error {
	row := make([]driver.Value, columns)
	_, err := s.send(&deferredStatement{query: query, args: args}, func(result *pgconn.ResultReader) error {
		fields := result.FieldDescriptions()
		for result.NextRow() {
			for i, value := range result.Values()[:columns] {
				var err error
				if row[i], err = readValue(value, fields[i].DataTypeOID); err != nil {
					return fmt.Errorf("column %d of %.60q: %w", i, query, err)
				}
			}
			if err := got(row); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
