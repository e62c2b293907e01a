package memstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
	"github.com/aloft-dev/aloft/store/storetest"
)

func TestTheStoreInMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Store { return memstore.New() })
}

func TestWritesToMemoryMayBeRepeated(t *testing.T) {
	t.Parallel()
	storetest.RunRepeated(t, func(_ *testing.T, faults store.Faults) store.Store {
		s := memstore.New()
		s.Faults = faults
		return s
	})
}

func BenchmarkCommit(b *testing.B) {
	s := memstore.New()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e := &store.Execution{ID: aloft.ExecutionID{Project: "p", Domain: "d", Name: "e"}}
	if err := s.CreateExecution(b.Context(), e, &aloftv1.Inbox{}); err != nil {
		b.Fatal(err)
	}
	leases, err := s.AcquireShards(b.Context(), "engine", now, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for seq := int64(1); b.Loop(); seq++ {
		id := aloft.NodeID(fmt.Sprint("n", seq))
		step := &store.Step{Execution: e.Key, ID: e.ID, Lease: leases[e.Shard], Seq: seq, CommitID: string(id), Entry: &aloftv1.JournalEntry{},
			Nodes: []*store.Node{{ID: id}}, Attempts: []*store.Attempt{{AttemptKey: store.AttemptKey{Node: id}, Phase: core.TaskExecution_SUCCEEDED}}}
		if err := s.Commit(b.Context(), []*store.Step{step})[0]; err != nil {
			b.Fatal(err)
		}
	}
}
