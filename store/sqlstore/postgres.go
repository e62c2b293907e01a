package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/aloft-dev/aloft"
)

// oldestPostgres is the oldest version that the tests run on.
const oldestPostgres = 15

var postgresDialect = dialect{
	name:  "postgres",
	goose: goose.DialectPostgres,
	begin: "BEGIN ISOLATION LEVEL READ COMMITTED",
	words: map[string]string{
		"text":            `TEXT COLLATE "C"`, // the order of text is that of its bytes, whatever the database's language
		"blob":            "BYTEA",
		"serial":          "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
		"serial_for_ever": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
		"clustered":       "",
		// What a decision rests on is held until the commit. An append holds the execution weakly, as a foreign key does: it
		// waits for nothing but the execution's end, which waits for it.
		"hold_shard":           "FOR SHARE OF s",
		"hold_execution":       "FOR KEY SHARE OF e",
		"hold_instance":        "FOR UPDATE",
		"hold_reservation":     "FOR UPDATE OF r",
		"hold_instance_weakly": "FOR KEY SHARE",
		"take":                 "FOR UPDATE SKIP LOCKED", // who commits just now under a lease that has run out is alive
		"lapsed":               "CASE WHEN s.expires <= " + postgresClock + " THEN 1 ELSE 0 END",
	},
	bytes:    func(b []byte) string { return `'\x` + hex.EncodeToString(b) + "'::BYTEA" },
	fault:    postgresFault,
	connect:  connectPostgres,
	shared:   true,
	clock:    postgresClock,
	lockName: "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))",
	atEnd:    "SELECT 1 FROM executions WHERE number = ? FOR UPDATE",
	numbered: true,
	optimist: true,
	hints: map[fault]string{
		faultBusy:     "others have what is needed locked: end the transactions that were left open in the database",
		faultFull:     "the disk of the database server is full: make room there, it goes on by itself",
		faultReadOnly: "the database server is a standby or read-only: name the primary",
		faultDisk:     "the disk or the memory of the database server reports an error: look at that server's log",
		faultDamaged:  "the database is damaged: put it back from a backup",
		faultAway:     "the database server cannot be reached: start it, or check host and port; it goes on by itself when the server is back",
		faultSignIn:   "the database server does not accept the user or the password: check both",
		faultMissing:  "the database server has no such database: create it, with createdb -E UTF8",
		faultRights:   "the user may not do this: make it the owner of the database",
	},
}

const postgresClock = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000000)::BIGINT"

// IsPostgres says whether a text is meant as the URL of a PostgreSQL database.
func IsPostgres(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// Redacted is a database's URL for people to read: without the password and without options.
func Redacted(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil || !IsPostgres(dsn) {
		return "postgres://…" // what cannot be read may be a password in the wrong place
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String()
}

// CheckURL says what is wrong with the URL of a database, without repeating it.
func CheckURL(dsn string) error {
	if !IsPostgres(dsn) {
		return errors.New("it does not begin with postgres://")
	}
	if _, err := pgx.ParseConfig(dsn); err != nil {
		return errors.New("it is not as postgres://user:password@host:5432/name?sslmode=require; letters such as @ and / in a password are written %40 and %2F")
	}
	return nil
}

// postgresConfig is how every connection is made. Sequential scans are avoided because plans are kept from when tables were
// small; with that, costs are no sign that compiling a query would pay.
func postgresConfig(dsn string, more map[string]string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", CheckURL(dsn), aloft.ErrInvalid)
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = awayFor
	}
	set := map[string]string{"application_name": "aloft", "enable_seqscan": "off", "jit": "off", "client_encoding": "UTF8", "timezone": "UTC"}
	maps.Copy(set, more)
	for name, value := range set {
		if _, given := c.RuntimeParams[name]; !given {
			c.RuntimeParams[name] = value
		}
	}
	return c, nil
}

// openPostgres makes the connections that read. They lose nothing when their own commits are not synced: all they ever
// commit is a wake-up.
func openPostgres(dsn string) (*sql.DB, error) {
	c, err := postgresConfig(dsn, map[string]string{
		"default_transaction_read_only": "on", "synchronous_commit": "off", "statement_timeout": strconv.Itoa(int((readFor + time.Second).Milliseconds())),
	})
	if err != nil {
		return nil, err
	}
	return stdlib.OpenDB(*c), nil
}

// migrationLock is the number of the advisory lock under which one server at a time changes the schema.
const migrationLock = 0x616c6f6674 // aloft

// prepare looks whether the server is one that we can use, and migrates. Of several that start at once one goes first.
func preparePostgres(ctx context.Context, dsn string, log *slog.Logger) error {
	c, err := postgresConfig(dsn, nil)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*c)
	defer func() { _ = db.Close() }()
	one, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = one.Close() }()
	var version int
	var encoding, sync string
	if err := one.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::INT, current_setting('server_encoding'), current_setting('fsync')").
		Scan(&version, &encoding, &sync); err != nil {
		return err
	}
	if version/10000 < oldestPostgres {
		return fmt.Errorf("the server is PostgreSQL %d and must be %d or newer: %w", version/10000, oldestPostgres, aloft.ErrPrecondition)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database has the encoding %s: make one with createdb -E UTF8 -T template0: %w", encoding, aloft.ErrPrecondition)
	}
	if sync == "off" {
		log.Warn("the database server runs with fsync off: what is committed is lost when its machine stops", "database", Redacted(dsn))
	}
	if _, err := one.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		return err
	}
	return migrate(ctx, &postgresDialect, db) // the lock goes with the connection
}

func postgresFault(err error) fault {
	var e *pgconn.PgError
	switch {
	case errors.Is(err, errConnectionLost):
		if errors.As(err, &e) {
			break
		}
		return faultAway
	case errors.As(err, &e):
	case errors.Is(err, context.Canceled):
		return faultOther
	default:
		var connecting *pgconn.ConnectError
		var network net.Error
		if errors.As(err, &connecting) || errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) ||
			errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err) {
			return faultAway
		}
		return faultOther
	}
	switch e.Code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock not available
		return faultBusy
	case "53100":
		return faultFull
	case "25006":
		return faultReadOnly
	case "53200", "58030":
		return faultDisk
	case "53300", "57P01", "57P02", "57P03", "57P05", "25P03": // too many connections, the server stops or starts, left idle for too long
		return faultAway
	case "3D000":
		return faultMissing
	case "42501":
		return faultRights
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "21", "22", "23": // cardinality, data, integrity
		return faultConstraint
	case "08":
		return faultAway
	case "28":
		return faultSignIn
	case "XX":
		return faultDamaged
	}
	return faultOther
}

var errConnectionLost = errors.New("connection lost")

// roundTripFor bounds the wait for any answer of the server to the writer.
const roundTripFor = 60 * time.Second

// postgresSession is the writer's connection. Statements that are left for later travel with the next one, so that a step is
// one or two journeys and not ten.
type postgresSession struct {
	dialect *dialect
	conn    *pgx.Conn
	texts   map[string]string
	waiting []waitingStatement
	tables  []*gathered
}

type gathered struct {
	many  *many
	args  []driver.Value
	want  int64
	check []func() error
}

type waitingStatement struct {
	query string
	args  []any
	check func(int64) error
}

func connectPostgres(ctx context.Context, d *dialect, dsn string) (session, error) {
	c, err := postgresConfig(dsn, map[string]string{
		// A process that was stopped in the middle of a transaction must not hold its locks for ever.
		"idle_in_transaction_session_timeout": "5000", "lock_timeout": "10000",
	})
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	// What was acknowledged is durable, also on a server that is set up otherwise.
	if _, err := conn.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return &postgresSession{dialect: d, conn: conn, texts: make(map[string]string)}, nil
}

func (s *postgresSession) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.conn.Close(ctx)
}

func (s *postgresSession) text(query string) string {
	text, ok := s.texts[query]
	if !ok {
		text = s.dialect.rebind(query)
		s.texts[query] = text
	}
	return text
}

// values makes of text what PostgreSQL accepts as text: it has no zero bytes and is valid UTF-8.
func values(args []driver.Value) []any {
	list := make([]any, len(args))
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			arg = validText(text)
		}
		list[i] = arg
	}
	return list
}

func validText(text string) string {
	if strings.IndexByte(text, 0) < 0 && utf8.ValidString(text) {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// send runs what was left for later and then, if there is one, a statement, in one journey.
func (s *postgresSession) send(query string, args []driver.Value, got func(pgx.BatchResults) error) error {
	waiting := append(s.spread(), s.waiting...)
	s.waiting = nil
	if err := s.conn.PgConn().Conn().SetDeadline(time.Now().Add(roundTripFor)); err != nil {
		return fmt.Errorf("%w: %w", errConnectionLost, err)
	}
	ctx := context.Background()
	batch := new(pgx.Batch)
	for _, w := range waiting {
		batch.Queue(w.query, w.args...)
	}
	if got != nil {
		batch.Queue(s.text(query), values(args)...)
	}
	results := s.conn.SendBatch(ctx, batch)
	var refused error
	err := func() error {
		for _, w := range waiting {
			tag, err := results.Exec()
			if err != nil {
				return late{err}
			}
			if w.check != nil && refused == nil {
				if err := w.check(tag.RowsAffected()); err != nil {
					refused = late{err}
				}
			}
		}
		if got == nil {
			return nil
		}
		return got(results)
	}()
	if closing := results.Close(); err == nil {
		err = closing
	}
	if err != nil && s.conn.IsClosed() {
		err = fmt.Errorf("%w: %w", errConnectionLost, err)
	}
	if err == nil {
		err = refused
	}
	return err
}

func (s *postgresSession) exec(query string, args []driver.Value) (rows int64, err error) {
	err = s.send(query, args, func(results pgx.BatchResults) error {
		tag, err := results.Exec()
		if err == nil && query == "COMMIT" && tag.String() != "COMMIT" {
			return errors.New("the transaction was rolled back")
		}
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}

func (s *postgresSession) later(query string, args []driver.Value, check func(int64) error) error {
	s.waiting = append(s.waiting, waitingStatement{s.text(query), values(args), check})
	return nil
}

func (s *postgresSession) gather(m *many, args []driver.Value, want int64, check func(int64) error) {
	i := slices.IndexFunc(s.tables, func(g *gathered) bool { return g.many == m })
	if i < 0 {
		i = len(s.tables)
		s.tables = append(s.tables, &gathered{many: m})
	}
	g := s.tables[i]
	g.args, g.want = append(g.args, args...), g.want+want
	g.check = append(g.check, func() error { return check(want) })
}

// spread makes statements of what was gathered.
func (s *postgresSession) spread() (statements []waitingStatement) {
	for _, g := range s.tables {
		var written int64
		args := g.args
		for i, size := range g.many.sizes {
			for n := size * g.many.columns; len(args) >= n && n > 0; args = args[n:] {
				last := len(args) == n
				statements = append(statements, waitingStatement{s.text(g.many.texts[i]), values(args[:n]), func(rows int64) error {
					if written += rows; !last {
						return nil
					}
					if written != g.want {
						return refuse("%d of %d rows were not written", g.want-written, g.want)
					}
					for _, check := range g.check {
						if err := check(); err != nil {
							return err
						}
					}
					return nil
				}})
			}
		}
	}
	s.tables = nil
	return statements
}

func (s *postgresSession) flush() error {
	if len(s.waiting)+len(s.tables) == 0 {
		return nil
	}
	return s.send("", nil, nil)
}

func (s *postgresSession) forget() { s.waiting, s.tables = nil, nil }

func (s *postgresSession) query(query string, args []driver.Value, columns int, got func([]driver.Value) error) error {
	row := make([]driver.Value, columns)
	return s.send(query, args, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				return err
			}
			for i := range row {
				row[i] = values[i]
			}
			if err := got(row); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}
