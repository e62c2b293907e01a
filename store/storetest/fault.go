package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Faulty is a store whose calls by launch, engine and executors fail as Faults says: for sweeps that fail each call once
// before, once after and once in the middle of its work. Calls that are not named here, such as lists for the API, never fail.
type Faulty struct {
	store.Store
	Faults store.Faults
}

func try[T any](f store.Faults, op string, call func() (T, error)) (result T, err error) {
	err = f.Do(op, func() (err error) { result, err = call(); return err })
	if err != nil {
		var none T
		return none, err
	}
	return result, nil
}

func (f *Faulty) CreateExecution(ctx context.Context, e *store.Execution, create *aloftv1.Inbox) error {
	return f.Faults.Do("CreateExecution", func() error { return f.Store.CreateExecution(ctx, e, create) })
}

func (f *Faulty) Append(ctx context.Context, id aloft.ExecutionID, message store.Message) error {
	return f.Faults.Do("Append", func() error { return f.Store.Append(ctx, id, message) })
}

func (f *Faulty) AcquireShards(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]store.Lease, error) {
	return try(f.Faults, "AcquireShards", func() ([]store.Lease, error) { return f.Store.AcquireShards(ctx, owner, now, ttl) })
}

func (f *Faulty) YieldShards(ctx context.Context, leases []store.Lease) error {
	return f.Faults.Do("YieldShards", func() error { return f.Store.YieldShards(ctx, leases) })
}

func (f *Faulty) ReleaseShards(ctx context.Context, owner string) error {
	return f.Faults.Do("ReleaseShards", func() error { return f.Store.ReleaseShards(ctx, owner) })
}

func (f *Faulty) Inbox(ctx context.Context, shards []int, after int64, limit int) ([]store.InboxRow, error) {
	return try(f.Faults, "Inbox", func() ([]store.InboxRow, error) { return f.Store.Inbox(ctx, shards, after, limit) })
}

func (f *Faulty) Messages(ctx context.Context, seqs []int64) ([]store.InboxRow, error) {
	return try(f.Faults, "Messages", func() ([]store.InboxRow, error) { return f.Store.Messages(ctx, seqs) })
}

func (f *Faulty) Due(ctx context.Context, shards []int, until time.Time, limit int) ([]store.DueRow, error) {
	return try(f.Faults, "Due", func() ([]store.DueRow, error) { return f.Store.Due(ctx, shards, until, limit) })
}

func (f *Faulty) Clocks(ctx context.Context, shards []int, after store.Key, limit int) ([]store.ClockRow, error) {
	return try(f.Faults, "Clocks", func() ([]store.ClockRow, error) { return f.Store.Clocks(ctx, shards, after, limit) })
}

func (f *Faulty) Load(ctx context.Context, key store.Key) (*store.Execution, error) {
	return try(f.Faults, "Load", func() (*store.Execution, error) { return f.Store.Load(ctx, key) })
}

func (f *Faulty) Journal(ctx context.Context, key store.Key, got func(store.JournalRow) error) error {
	return f.Faults.Do("Journal", func() error { return f.Store.Journal(ctx, key, got) })
}

func (f *Faulty) Commit(ctx context.Context, steps []*store.Step) []error {
	return f.Faults.DoEach("Commit", len(steps), func(first int) []error { return f.Store.Commit(ctx, steps[:first]) })
}

func (f *Faulty) Heartbeat(ctx context.Context, instance store.Instance) error {
	return f.Faults.Do("Heartbeat", func() error { return f.Store.Heartbeat(ctx, instance) })
}

func (f *Faulty) Instances(ctx context.Context) ([]store.Instance, error) {
	return try(f.Faults, "Instances", func() ([]store.Instance, error) { return f.Store.Instances(ctx) })
}

func (f *Faulty) RemoveInstance(ctx context.Context, executor string) error {
	return f.Faults.Do("RemoveInstance", func() error { return f.Store.RemoveInstance(ctx, executor) })
}

func (f *Faulty) Waiting(ctx context.Context, now time.Time, limit int) ([]*store.Attempt, error) {
	return try(f.Faults, "Waiting", func() ([]*store.Attempt, error) { return f.Store.Waiting(ctx, now, limit) })
}

func (f *Faulty) SetWaiting(ctx context.Context, executor string, attempts []store.AttemptKey, reason string) error {
	return f.Faults.Do("SetWaiting", func() error { return f.Store.SetWaiting(ctx, executor, attempts, reason) })
}

func (f *Faulty) Assign(ctx context.Context, executor, nonce string, attempts []store.AttemptKey, now time.Time) []error {
	return f.Faults.DoEach("Assign", len(attempts), func(first int) []error { return f.Store.Assign(ctx, executor, nonce, attempts[:first], now) })
}

func (f *Faulty) Assigned(ctx context.Context, executor string) ([]*store.Attempt, error) {
	return try(f.Faults, "Assigned", func() ([]*store.Attempt, error) { return f.Store.Assigned(ctx, executor) })
}

func (f *Faulty) Report(ctx context.Context, executor string, reports []store.Report) []error {
	return f.Faults.DoEach("Report", len(reports), func(first int) []error { return f.Store.Report(ctx, executor, reports[:first]) })
}

func (f *Faulty) Adopt(ctx context.Context, from, to string) (int, error) {
	return try(f.Faults, "Adopt", func() (int, error) { return f.Store.Adopt(ctx, from, to) })
}

func (f *Faulty) GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error) {
	return try(f.Faults, "GetExecution", func() (*store.Execution, error) { return f.Store.GetExecution(ctx, id) })
}

func (f *Faulty) GetWorkflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error) {
	return try(f.Faults, "GetWorkflow", func() (*store.Workflow, error) { return f.Store.GetWorkflow(ctx, id) })
}

func (f *Faulty) FindResult(ctx context.Context, id store.ResultID) (*store.Result, error) {
	return try(f.Faults, "FindResult", func() (*store.Result, error) { return f.Store.FindResult(ctx, id) })
}

func (f *Faulty) FindResults(ctx context.Context, ids []store.ResultID) ([]*store.Result, error) {
	return try(f.Faults, "FindResults", func() ([]*store.Result, error) { return f.Store.FindResults(ctx, ids) })
}

func (f *Faulty) RemoveResults(ctx context.Context, ids []string, reason string, now time.Time) (int, error) {
	return try(f.Faults, "RemoveResults", func() (int, error) { return f.Store.RemoveResults(ctx, ids, reason, now) })
}

func (f *Faulty) UsedResults(ctx context.Context, ids []string, now time.Time) error {
	return f.Faults.Do("UsedResults", func() error { return f.Store.UsedResults(ctx, ids, now) })
}

func (f *Faulty) ListResults(ctx context.Context, q store.ResultQuery) ([]*store.Result, error) {
	return try(f.Faults, "ListResults", func() ([]*store.Result, error) { return f.Store.ListResults(ctx, q) })
}

func (f *Faulty) Reserve(ctx context.Context, r store.Reservation, now time.Time) (store.Reservation, error) {
	return try(f.Faults, "Reserve", func() (store.Reservation, error) { return f.Store.Reserve(ctx, r, now) })
}

func (f *Faulty) Release(ctx context.Context, id store.ResultID, owner string) error {
	return f.Faults.Do("Release", func() error { return f.Store.Release(ctx, id, owner) })
}

func (f *Faulty) NodeInputs(ctx context.Context, key store.Key, node aloft.NodeID) (*aloftv1.Literals, error) {
	return try(f.Faults, "NodeInputs", func() (*aloftv1.Literals, error) { return f.Store.NodeInputs(ctx, key, node) })
}

func (f *Faulty) NodeOutputs(ctx context.Context, key store.Key, node aloft.NodeID) (*aloftv1.Literals, error) {
	return try(f.Faults, "NodeOutputs", func() (*aloftv1.Literals, error) { return f.Store.NodeOutputs(ctx, key, node) })
}

func (f *Faulty) SetExecutionState(ctx context.Context, id aloft.ExecutionID, state admin.ExecutionState, principal string) error {
	return f.Faults.Do("SetExecutionState", func() error { return f.Store.SetExecutionState(ctx, id, state, principal) })
}

// RunRepeated tests the promise that every write may be repeated when its outcome was unknown: each write fails once, before or
// after it did its work, and is called again. faulty makes a store that asks the hook.
func RunRepeated(t *testing.T, faulty func(t *testing.T, faults store.Faults) store.Store) {
	for name, fault := range map[string]store.Fault{"nothing was done": store.FailBefore, "it was done": store.FailAfter} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := store.NoFault
			hook := func(string) store.Fault {
				now := next
				next = store.NoFault
				return now
			}
			s := &suite{T: t, store: faulty(t, hook), ctx: t.Context(), owner: "engine"}
			repeatedWritesAreDoneOnce(s, func(call func() error) error {
				next = fault
				if err := call(); !errors.Is(err, aloft.ErrUnavailable) {
					t.Fatalf("with an injected fault: %v", err)
				}
				return call()
			})
		})
	}
}

func repeatedWritesAreDoneOnce(s *suite, twice func(func() error) error) {
	e := execution("e1")
	s.ok(twice(func() error { return s.store.CreateExecution(s.ctx, e, create("e1")) }))
	e, err := s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	s.ok(twice(func() error { return s.store.Append(s.ctx, e.ID, terminate("x")) }))
	s.ok(twice(func() error {
		leases, err := s.store.AcquireShards(s.ctx, s.owner, at(0), time.Minute)
		s.leases = make(map[int]store.Lease)
		for _, lease := range leases {
			s.leases[lease.Shard] = lease
		}
		return err
	}))
	a := attempt(e, "n0", 0)
	step := s.step(e)
	step.Nodes, step.Attempts = []*store.Node{node("n0", core.NodeExecution_QUEUED)}, []*store.Attempt{a}
	s.ok(twice(func() error { return s.store.Commit(s.ctx, []*store.Step{step})[0] }))
	s.ok(twice(func() error { return s.store.SetWaiting(s.ctx, "", []store.AttemptKey{a.AttemptKey}, "no room") }))
	s.known("x")
	s.ok(twice(func() error { return s.store.Assign(s.ctx, "x", "", []store.AttemptKey{a.AttemptKey}, at(2))[0] }))
	s.ok(twice(func() error { return s.store.Report(s.ctx, "x", []store.Report{outcome(a)})[0] }))

	s.ok(twice(func() error { return s.store.YieldShards(s.ctx, []store.Lease{s.leases[e.Shard]}) }))
	s.ok(twice(func() error { return s.store.ReleaseShards(s.ctx, s.owner) }))

	_, journal, err := Load(s.ctx, s.store, e.Key)
	s.ok(err)
	if rows := s.inbox(); len(rows) != 3 || len(journal) != 1 {
		s.Errorf("the inbox has %d messages and the journal %d entries, want 3 and 1", len(rows), len(journal))
	}
	if got := s.attempt(a); got.Executor != "x" {
		s.Errorf("the attempt is %+v", got)
	}
}
