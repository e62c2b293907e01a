package sqlstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
)

func mustCreate(t testing.TB, s *sqlstore.Store, name string) *store.Execution {
	t.Helper()
	e := benchExecution(name)
	if err := s.CreateExecution(t.Context(), e, benchCreate()); err != nil {
		t.Fatal(err)
	}
	return e
}

func mustAcquire(t testing.TB, s *sqlstore.Store, owner string) []store.Lease {
	t.Helper()
	leases, err := s.AcquireShards(t.Context(), owner, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

func TestWhatWaitsForTheWriterBecomesOneTransaction(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "aloft.db"))
	leases := mustAcquire(t, s, "engine")
	var made []*store.Execution
	for i := range 20 {
		made = append(made, mustCreate(t, s, fmt.Sprint("e", i)))
	}
	release := s.Hold()
	before := s.Transactions()
	var group sync.WaitGroup
	errs := make([]error, len(made))
	for i, e := range made {
		step := benchStep(e, leases, 1)
		if i%4 == 0 {
			step.Lease.Epoch++ // refused
		}
		group.Go(func() { errs[i] = s.Commit(t.Context(), []*store.Step{step})[0] })
	}
	for s.WaitingJobs() < len(made) {
		runtime.Gosched()
	}
	release()
	group.Wait()
	if n := s.Transactions() - before; n != 1 {
		t.Errorf("%d commits that waited together were %d transactions, want 1", len(made), n)
	}
	for i, err := range errs {
		if refused := i%4 == 0; refused != errors.Is(err, aloft.ErrFenced) || !refused && err != nil {
			t.Errorf("commit %d: %v", i, err)
		}
	}
}

func TestACallerWhoLeavesTheQueueLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "aloft.db"))
	release := s.Hold()
	ctx, cancel := contextWithCancel(t)
	done := make(chan error)
	go func() { done <- s.CreateExecution(ctx, benchExecution("e"), benchCreate()) }()
	for s.WaitingJobs() < 1 {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("got %v, want that it is unknown", err)
	}
	release()
	mustCreate(t, s, "other") // a job that was queued behind the abandoned one
	if _, err := s.GetExecution(t.Context(), benchExecution("e").ID); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("the write of a caller who had gone: %v", err)
	}
}

func TestAFullDiskIsSaidAndTheStoreGoesOnWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "aloft.db"))
	leases := mustAcquire(t, s, "engine")
	e := mustCreate(t, s, "e")
	if err := s.Room(2); err != nil {
		t.Fatal(err)
	}
	big := benchStep(e, leases, 1)
	for i := range 50 {
		big.Nodes = append(big.Nodes, &store.Node{ID: aloft.NodeID(fmt.Sprint("n", i)), Phase: core.NodeExecution_RUNNING, DeckURI: strings.Repeat("x", 4000)})
	}
	for range 2 {
		err := s.Commit(t.Context(), []*store.Step{big})[0]
		if !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(err.Error(), "the disk is full: make room") {
			t.Fatalf("got %v, want that the disk is full and what to do", err)
		}
	}
	if nodes, err := s.ListNodes(t.Context(), e.ID, "", true, store.Query{}); err != nil || len(nodes) != 0 {
		t.Errorf("%d nodes are half written (%v)", len(nodes), err)
	}
	if err := s.Room(-1); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), []*store.Step{big})[0]; err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if nodes, err := s.ListNodes(t.Context(), e.ID, "", true, store.Query{}); err != nil || len(nodes) != 50 {
		t.Errorf("got %d nodes (%v), want 50", len(nodes), err)
	}
}

func TestASecondServerOnTheSameFileIsToldSo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "aloft.db")
	open(t, path)
	_, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: path})
	if !errors.Is(err, aloft.ErrPrecondition) || !strings.Contains(err.Error(), "another server has it open") {
		t.Errorf("got %v", err)
	}
}

func TestWhatCannotBeOpenedSaysTheWayOut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make func(path string) error
		want string
	}{
		"no folder": {func(path string) error { return os.Remove(filepath.Dir(path)) }, "check that the folder exists"},
		"not a database": {func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600)
		}, "damaged or no database"},
		"a folder": {func(path string) error { return os.Mkdir(path, 0o700) }, "check that the folder exists and that this user may write to it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "data", "aloft.db")
			if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), test.make(path)); err != nil {
				t.Fatal(err)
			}
			_, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: path})
			if !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestLeasesOfAnEarlierProcessAreFreeAfterOpening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "aloft.db")
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	old := mustAcquire(t, s, "before")
	e := mustCreate(t, s, "e")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), e.ID, store.Message{Dedup: "x", Inbox: &aloftv1.Inbox{}}); !errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("writing to a closed store: %v", err)
	}
	s = open(t, path)
	taken := mustAcquire(t, s, "after")
	if len(taken) != store.Shards || taken[0].Epoch <= old[0].Epoch {
		t.Errorf("got %d shards, the first under epoch %d after %d", len(taken), taken[0].Epoch, old[0].Epoch)
	}
	if err := s.Commit(t.Context(), []*store.Step{benchStep(e, old, 1)})[0]; !errors.Is(err, aloft.ErrFenced) {
		t.Errorf("a commit under the old lease: %v", err)
	}
}

func TestAReadSeesWhatWasCommittedWhileAnotherReadIsOpen(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "aloft.db"))
	leases := mustAcquire(t, s, "engine")
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			e := benchExecution(fmt.Sprint("e", worker))
			if err := s.CreateExecution(t.Context(), e, benchCreate()); err != nil {
				t.Error(err)
				return
			}
			for seq := int64(1); seq <= 50; seq++ {
				step := benchStep(e, leases, seq)
				id := aloft.NodeID(fmt.Sprint("n", seq))
				step.Nodes = []*store.Node{{ID: id, Phase: core.NodeExecution_SUCCEEDED, Outputs: small()}}
				if err := s.Commit(t.Context(), []*store.Step{step})[0]; err != nil {
					t.Error(err)
				}
				if _, err := s.NodeOutputs(t.Context(), e.Key, id); err != nil {
					t.Error(err)
				}
				if nodes, err := s.ListNodes(t.Context(), e.ID, "", true, store.Query{}); err != nil || int64(len(nodes)) != seq {
					t.Errorf("after %d commits: %d nodes (%v)", seq, len(nodes), err)
				}
			}
		})
	}
	group.Wait()
}
