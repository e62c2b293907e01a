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
	"strconv"
	"strings"
	"time"

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
		// A foreign key is a query for each row that is inserted.
		"rows_follow_journal": "ALTER TABLE nodes DROP CONSTRAINT nodes_execution_fkey; ALTER TABLE attempts DROP CONSTRAINT attempts_execution_fkey;",
		"place_specs": `CREATE FUNCTION execution_specs_place() RETURNS trigger LANGUAGE plpgsql AS $place$ BEGIN
			SELECT e.project, e.domain, e.created_at INTO NEW.project, NEW.domain, NEW.created_at FROM executions e WHERE e.number = NEW.execution;
			RETURN NEW; END $place$;
			CREATE TRIGGER execution_specs_place BEFORE INSERT ON execution_specs FOR EACH ROW WHEN (NEW.project = '') EXECUTE FUNCTION execution_specs_place();`,
		"place_tags": `CREATE FUNCTION execution_tags_place() RETURNS trigger LANGUAGE plpgsql AS $place$ BEGIN
			SELECT e.project, e.domain, e.created_at INTO NEW.project, NEW.domain, NEW.created_at FROM executions e WHERE e.number = NEW.execution;
			RETURN NEW; END $place$;
			CREATE TRIGGER execution_tags_place BEFORE INSERT ON execution_tags FOR EACH ROW WHEN (NEW.project = '') EXECUTE FUNCTION execution_tags_place();`,
		// The rows on which a decision rests are locked until the transaction ends. An append locks the execution weakly, as a
		// foreign key does: the append waits only for a transaction that ends the execution, which in turn waits for the append.
		"hold_shard":           "FOR SHARE OF s",
		"hold_execution":       "FOR KEY SHARE OF e",
		"hold_instance":        "FOR UPDATE",
		"hold_reservation":     "FOR UPDATE OF r",
		"hold_instance_weakly": "FOR KEY SHARE",
		"take":                 "FOR UPDATE SKIP LOCKED", // a shard that is locked has an engine that is committing, and so is alive
		"lapsed":               "CASE WHEN s.expires <= " + postgresClock + " THEN 1 ELSE 0 END",
	},
	bytes:          func(b []byte) string { return `'\x` + hex.EncodeToString(b) + "'::BYTEA" },
	fault:          postgresFault,
	connect:        connectPostgres,
	shared:         true,
	clock:          postgresClock,
	lockNameSQL:    "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))",
	lockInboxSQL:   "SELECT 1 FROM executions WHERE number = ? FOR UPDATE",
	numbered:       true,
	skipSavepoints: true,
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
		return "postgres://…" // a text that is no URL may have a password in the wrong place
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

// postgresConfig is the configuration of every connection. Sequential scans are avoided because plans are kept from when tables
// were small. Without sequential scans the costs of plans mean little, and jit, which depends on them, is off.
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

// openPostgres makes the connections for reading. Their own commits need not be synced: they commit nothing but wake-ups.
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

// preparePostgres checks that the database server can be used, and migrates the database. Of several aloft servers that start at
// once one migrates at a time.
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
