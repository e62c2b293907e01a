// Package storetest is what every store must do: the contract of package store as tests.
//
// Implementations call Run from a test of their own. It relies on nothing but the contract, so what it cannot see through
// the interface (durability, counts of transactions, SQL) is tested beside each implementation.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Open makes an empty store for one test, and closes it at the end of the test.
type Open func(t *testing.T) store.Store

// Run tests a store against the contract. Each claim gets a store of its own.
func Run(t *testing.T, open Open) {
	for _, claim := range claims {
		t.Run(name(claim), func(t *testing.T) {
			t.Parallel()
			claim(&suite{T: t, store: open(t), ctx: t.Context(), owner: "engine"})
		})
	}
}

// RunFilters tests the lists of a store that knows filters and orders.
func RunFilters(t *testing.T, open Open) {
	for _, claim := range filterClaims {
		t.Run(name(claim), func(t *testing.T) {
			t.Parallel()
			claim(&suite{T: t, store: open(t), ctx: t.Context(), owner: "engine"})
		})
	}
}

// name is the name of a claim's function.
func name(f func(*suite)) string { return nameOf(f) }

func nameOf(f any) string {
	full := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
	return full[strings.LastIndex(full, ".")+1:]
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// at is a moment some seconds after the start.
func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// suite is one test with its store, and with short methods for what tests do often.
type suite struct {
	*testing.T
	store  store.Store
	ctx    context.Context
	owner  string
	leases map[int]store.Lease
	last   map[store.Key]int64
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) is(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("got error %v, want %v", err, want)
	}
}

func (s *suite) equal(got, want any) {
	s.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(store.Node{}, "Number")); diff != "" {
		s.Fatalf("(-want +got):\n%s", diff)
	}
}

func id(name string) aloft.ExecutionID {
	return aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
}

func literals(text string) *aloftv1.Literals {
	return &aloftv1.Literals{
		Ref: &aloftv1.LiteralRef{Digest: []byte(text), Size: int64(len(text))},
		Value: &core.LiteralMap{Literals: map[string]*core.Literal{"o0": {Value: &core.Literal_Scalar{Scalar: &core.Scalar{
			Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: text}}}}}}}},
	}
}

func identifier(t core.ResourceType, name, version string) *core.Identifier {
	return &core.Identifier{ResourceType: t, Project: "flytesnacks", Domain: "development", Name: name, Version: version}
}

// execution is a new execution with a value in every field that its creator sets.
func execution(name string) *store.Execution {
	return &store.Execution{
		ID: id(name),
		Spec: &admin.ExecutionSpec{
			LaunchPlan: identifier(core.ResourceType_LAUNCH_PLAN, "wf", "v1"),
			Metadata:   &admin.ExecutionMetadata{Principal: "ada", Mode: admin.ExecutionMetadata_RELAUNCH},
		},
		Workflow:       identifier(core.ResourceType_WORKFLOW, "wf", "v1"),
		Inputs:         literals("all inputs"),
		UserInputs:     literals("given inputs"),
		Notifications:  []*admin.Notification{{Phases: []core.WorkflowExecution_Phase{core.WorkflowExecution_FAILED}}},
		Phase:          core.WorkflowExecution_QUEUED,
		CreatedAt:      at(0),
		UpdatedAt:      at(0),
		JournalVersion: store.JournalVersion,
	}
}

func create(name string) *aloftv1.Inbox {
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{Workflow: identifier(core.ResourceType_WORKFLOW, "wf", "v1"), Seed: name}}}
}

func terminate(cause string) store.Message {
	return store.Message{Dedup: store.TerminateDedup, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{Cause: cause}}}}
}

// make creates an execution.
func (s *suite) make(name string) *store.Execution {
	s.Helper()
	e := execution(name)
	s.ok(s.store.CreateExecution(s.ctx, e, create(name)))
	if e.Key == 0 || e.Shard != store.ShardOf(e.ID) {
		s.Fatalf("created with key %d in shard %d, want a key and shard %d", e.Key, e.Shard, store.ShardOf(e.ID))
	}
	return e
}

// acquire takes all shards for the suite's engine.
func (s *suite) acquire(now time.Time) {
	s.Helper()
	leases, err := s.store.AcquireShards(s.ctx, s.owner, now, time.Minute)
	s.ok(err)
	s.leases = make(map[int]store.Lease)
	for _, lease := range leases {
		s.leases[lease.Shard] = lease
	}
}

// step is the next step of an execution under the engine's lease.
func (s *suite) step(e *store.Execution) *store.Step {
	s.Helper()
	if s.leases == nil {
		s.acquire(at(0))
	}
	if s.last == nil {
		s.last = make(map[store.Key]int64)
	}
	seq := s.last[e.Key] + 1
	return &store.Step{
		Execution: e.Key, ID: e.ID, Lease: s.leases[e.Shard], Seq: seq, CommitID: fmt.Sprintf("%s-%d", e.ID.Name, seq),
		Entry: entry(seq),
	}
}

func entry(n int64) *aloftv1.JournalEntry {
	return &aloftv1.JournalEntry{Events: []*aloftv1.Event{{At: n, Kind: &aloftv1.Event_NodeSkipped{NodeSkipped: &aloftv1.NodeSkipped{Node: uint32(n)}}}}}
}

// commit commits one step that must be accepted.
func (s *suite) commit(step *store.Step) {
	s.Helper()
	s.ok(s.store.Commit(s.ctx, []*store.Step{step})[0])
	s.last[step.Execution]++
}

func (s *suite) refused(step *store.Step, want error) {
	s.Helper()
	s.is(s.store.Commit(s.ctx, []*store.Step{step})[0], want)
}

func shards() []int {
	all := make([]int, store.Shards)
	for i := range all {
		all[i] = i
	}
	return all
}

// inbox is all unread messages.
func (s *suite) inbox() []store.InboxRow {
	s.Helper()
	rows, err := s.store.Inbox(s.ctx, shards(), 0, 0)
	s.ok(err)
	return rows
}

// consumeAll are the sequences of all inbox rows of the execution.
func (s *suite) consumeAll(e *store.Execution) []int64 {
	s.Helper()
	var seqs []int64
	for _, row := range s.inbox() {
		if row.Execution == e.Key {
			seqs = append(seqs, row.Seq)
		}
	}
	return seqs
}

func node(name string, phase core.NodeExecution_Phase) *store.Node {
	return &store.Node{ID: aloft.NodeID(name), SpecNodeID: name, Name: name + " name", Phase: phase, CreatedAt: at(1), UpdatedAt: at(1),
		Target: identifier(core.ResourceType_TASK, "t", "v1")}
}

func attempt(e *store.Execution, name string, number uint32) *store.Attempt {
	return &store.Attempt{
		AttemptKey: store.AttemptKey{Execution: e.Key, Node: aloft.NodeID(name), Attempt: number, Token: fmt.Sprintf("token-%s-%d", name, number)},
		ID:         aloft.AttemptID{Execution: e.ID, Node: aloft.NodeID(name), Attempt: number},
		Spec:       &aloftv1.AttemptSpec{Task: identifier(core.ResourceType_TASK, "t", "v1"), TaskType: "python-task", MilliCpu: 500},
		Phase:      core.TaskExecution_QUEUED, CreatedAt: at(1), UpdatedAt: at(1),
	}
}

// schedule commits attempts of nodes that are queued.
func (s *suite) schedule(e *store.Execution, names ...string) []*store.Attempt {
	s.Helper()
	step := s.step(e)
	step.Consumed = s.consumeAll(e)
	for _, name := range names {
		step.Nodes = append(step.Nodes, node(name, core.NodeExecution_QUEUED))
		step.Attempts = append(step.Attempts, attempt(e, name, 0))
	}
	s.commit(step)
	return step.Attempts
}

func keys(attempts []*store.Attempt) []store.AttemptKey {
	var keys []store.AttemptKey
	for _, a := range attempts {
		keys = append(keys, a.AttemptKey)
	}
	return keys
}

func nodesOf(attempts []*store.Attempt) []string {
	var names []string
	for _, a := range attempts {
		names = append(names, string(a.Node))
	}
	return names
}

func (s *suite) assign(executor string, attempts ...*store.Attempt) { //nolint:unparam // the executor is part of the story
	s.Helper()
	s.known(executor)
	for _, err := range s.store.Assign(s.ctx, executor, "", keys(attempts), at(2)) {
		s.ok(err)
	}
}

// known registers an executor instance unless it is registered.
func (s *suite) known(executor string) {
	s.Helper()
	instances, err := s.store.Instances(s.ctx)
	s.ok(err)
	if !slices.ContainsFunc(instances, func(i store.Instance) bool { return i.ID == executor }) {
		s.heartbeat(executor, "here", at(0))
	}
}

func outcome(a *store.Attempt) store.Report {
	return store.Report{Attempt: a.AttemptKey, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: &aloftv1.Outcome{
		Node: string(a.Node), Attempt: a.Attempt, Token: a.Token, EndedAt: at(5).UnixNano(), Result: &aloftv1.Outcome_Outputs{Outputs: literals("out")}}}}}
}

func started(a *store.Attempt) store.Report {
	return store.Report{Attempt: a.AttemptKey, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: &aloftv1.AttemptStarted{
		Node: string(a.Node), Attempt: a.Attempt, Token: a.Token, StartedAt: at(3).UnixNano()}}}}
}

func (s *suite) attempt(a *store.Attempt) *store.Attempt {
	s.Helper()
	got, err := s.store.GetAttempt(s.ctx, a.ID)
	s.ok(err)
	return got
}

func woken(wake <-chan struct{}) bool {
	select {
	case <-wake:
		return true
	default:
		return false
	}
}

// end commits the end of an execution.
func (s *suite) end(e *store.Execution, phase core.WorkflowExecution_Phase) {
	s.Helper()
	step := s.step(e)
	step.Consumed = s.consumeAll(e)
	step.Change = &store.ExecutionChange{Phase: phase, StartedAt: at(1), EndedAt: at(9), UpdatedAt: at(9)}
	s.commit(step)
}
