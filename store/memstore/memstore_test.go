package memstore_test

import (
	"testing"

	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
	"github.com/aloft-dev/aloft/store/storetest"
)

func TestTheStoreInMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store { return memstore.New() })
}
