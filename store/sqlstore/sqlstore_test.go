package sqlstore_test

import (
	"path/filepath"
	"testing"

	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/storetest"
)

func open(t testing.TB, path string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: path})
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

func fresh(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "aloft.db")) }

func TestTheStoreInSQLiteKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, fresh)
}

func TestListsInSQLiteAreFilteredAndSorted(t *testing.T) {
	t.Parallel()
	storetest.RunFilters(t, fresh)
	storetest.RunRecoveries(t, fresh)
}

func TestWritesToSQLiteMayBeRepeated(t *testing.T) {
	t.Parallel()
	storetest.RunRepeated(t, func(t *testing.T, faults store.Faults) store.Store {
		return &storetest.Faulty{Store: fresh(t), Faults: faults}
	})
}
