package sqlstore_test

import (
	"testing"

	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
	"github.com/aloft-dev/aloft/store/storetest"
)

func openPostgres(t testing.TB, url string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// migrated makes databases with the schema in them, which are copies of one.
func migrated(t testing.TB) (fresh func(t testing.TB) string) {
	t.Helper()
	template := postgrestest.Database(t)
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: template})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(t testing.TB) string { return postgrestest.Copy(t, template) }
}

// trusting is a store in which, as the suite expects, leases follow the clock of the callers.
func trusting(t testing.TB, url string) store.Store {
	t.Helper()
	s, err := sqlstore.OpenTrusting(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestTheStoreInPostgreSQLKeepsTheContract(t *testing.T) {
	t.Parallel()
	fresh := migrated(t)
	open := func(t *testing.T) store.Store { return trusting(t, fresh(t)) }
	t.Run("store", func(t *testing.T) { storetest.Run(t, open) })
	t.Run("lists", func(t *testing.T) { storetest.RunFilters(t, open) })
	t.Run("recovery", func(t *testing.T) { storetest.RunRecoveries(t, open) })
	t.Run("repeated", func(t *testing.T) {
		storetest.RunRepeated(t, func(t *testing.T, faults store.Faults) store.Store {
			return &storetest.Faulty{Store: open(t), Faults: faults}
		})
	})
}
