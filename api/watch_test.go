package api

import (
	"slices"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
)

// TestAWatcherMissesNothingWhateverTheTimesOfTheRecords: while the cursor was the time of the last change, a change that was
// decided before another one and committed after it was never sent, and neither was the waiting reason of an older attempt.
func TestAWatcherMissesNothingWhateverTheTimesOfTheRecords(t *testing.T) {
	t.Parallel()
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: t.TempDir() + "/aloft.db"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	e := &store.Execution{ID: aloft.ExecutionID{Project: "p", Domain: "d", Name: "e"}, Phase: core.WorkflowExecution_RUNNING, CreatedAt: at(1), UpdatedAt: at(1), Spec: &admin.ExecutionSpec{}}
	if err := s.CreateExecution(t.Context(), e, &aloftv1.Inbox{}); err != nil {
		t.Fatal(err)
	}
	leases, err := s.AcquireShards(t.Context(), "engine", at(1), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	seq := int64(0)
	commit := func(nodes []*store.Node, attempts ...*store.Attempt) {
		t.Helper()
		seq++
		step := &store.Step{Execution: e.Key, ID: e.ID, Seq: seq, CommitID: string(rune('a' + seq)), Entry: &aloftv1.JournalEntry{}, Nodes: nodes, Attempts: attempts}
		step.Lease = leases[slices.IndexFunc(leases, func(l store.Lease) bool { return l.Shard == e.Shard })]
		if err := s.Commit(t.Context(), []*store.Step{step})[0]; err != nil {
			t.Fatal(err)
		}
	}
	node := func(id aloft.NodeID, phase core.NodeExecution_Phase, second int64) *store.Node {
		return &store.Node{ID: id, SpecNodeID: string(id), Phase: phase, CreatedAt: at(1), UpdatedAt: at(second)}
	}
	attempt := func(id aloft.NodeID, second int64) *store.Attempt {
		return &store.Attempt{AttemptKey: store.AttemptKey{Execution: e.Key, Node: id, Token: "t" + string(id)}, Phase: core.TaskExecution_QUEUED, CreatedAt: at(second), UpdatedAt: at(second), Spec: &aloftv1.AttemptSpec{}}
	}
	w := &watch{Runs: &Runs{Store: s}, id: e.ID, open: map[aloft.NodeID]string{}}
	changes := func(what string, want ...string) []*aloftv1.NodeStatus {
		t.Helper()
		seen, err := w.look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range seen.changed {
			got = append(got, n.GetId())
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got changes of %v, want %v", what, got, want)
		}
		w.last, w.open, w.sent = seen.last, seen.open, true
		return seen.changed
	}

	commit([]*store.Node{node("n0", core.NodeExecution_QUEUED, 2), node("n1", core.NodeExecution_RUNNING, 8)}, attempt("n0", 2), attempt("n1", 8))
	changes("the tree", "n0", "n1")
	changes("nothing")

	if err := s.SetWaiting(t.Context(), "", []store.AttemptKey{attempt("n0", 2).AttemptKey}, "no room"); err != nil {
		t.Fatal(err)
	}
	if got := changes("why the older attempt waits", "n0"); len(got) != 1 || got[0].GetAttempts()[0].GetWaiting() != "no room" {
		t.Errorf("it waits, as the watcher hears: %v", got)
	}

	// The engine decides at 9 s that n1 has succeeded; an executor takes n0 at 10 s and commits first.
	if err := s.Heartbeat(t.Context(), store.Instance{ID: "x", Nonce: "n", Kind: "process", SeenAt: at(9), Expires: at(1000)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Assign(t.Context(), "x", "n", []store.AttemptKey{attempt("n0", 2).AttemptKey}, at(10))[0]; err != nil {
		t.Fatal(err)
	}
	changes("an executor took the attempt", "n0")
	over := attempt("n1", 9)
	over.Phase = core.TaskExecution_SUCCEEDED
	commit([]*store.Node{node("n1", core.NodeExecution_SUCCEEDED, 9)}, over)
	if got := changes("what was decided before and committed after", "n1"); len(got) != 1 || got[0].GetPhase() != core.NodeExecution_SUCCEEDED || len(got[0].GetAttempts()) != 1 {
		t.Errorf("it has ended, as the watcher hears: %v", got)
	}

	commit([]*store.Node{node("n2", core.NodeExecution_SKIPPED, 3)}) // began and ended between two looks, long ago by its times
	changes("a node that is new and has ended", "n2")
	if _, err := s.Adopt(t.Context(), "x", "x"); err != nil {
		t.Fatal(err)
	}
	changes("nothing more")
}
