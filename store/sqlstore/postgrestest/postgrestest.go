// Package postgrestest gives each test a PostgreSQL database of its own, on the server that ALOFT_TEST_POSTGRES names.
//
// Tests of every package that runs on the store call it before sqlstore.Open. It relies on a user that may create databases;
// where the variable is not set the test is skipped (`make test` starts a server and sets it), and where the server does not
// answer it fails.
package postgrestest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Variable names the URL of a server where databases can be made.
const Variable = "ALOFT_TEST_POSTGRES"

// Server is the URL of the server; the test is skipped if there is none.
func Server(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Variable) //nolint:forbidigo // a test finds its server so
	if server == "" {
		t.Skipf("%s is not set: `make test` starts a PostgreSQL server for it", Variable)
	}
	return server
}

// Database makes an empty database, which goes with the test, and returns its URL.
func Database(t testing.TB) string {
	t.Helper()
	server := Server(t)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s: %v", Variable, err)
	}
	name := "aloft_test_" + strings.ToLower(rand.Text())
	Exec(t, server, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8'")
	t.Cleanup(func() { Exec(t, server, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// Copy makes a database that is a copy of another and goes with the test. There must be no connection to the other one.
func Copy(t testing.TB, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	from, name := strings.TrimPrefix(u.Path, "/"), "aloft_test_"+strings.ToLower(rand.Text())
	Exec(t, Server(t), "CREATE DATABASE "+name+" TEMPLATE "+from)
	t.Cleanup(func() { Exec(t, Server(t), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// Exec runs a statement on a connection of its own.
func Exec(t testing.TB, database, statement string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own context is over in its clean-up
	defer cancel()
	conn := Connect(t, database)
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement, args...); err != nil {
		t.Fatalf("%.60s: %v", statement, err)
	}
}

// Connect makes a connection for a test that plays another program. The caller closes it.
func Connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(fmt.Errorf("connect to PostgreSQL: %w", err))
	}
	return conn
}
