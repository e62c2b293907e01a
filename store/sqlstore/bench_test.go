package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func benchExecution(name string) *store.Execution {
	workflow := &core.Identifier{ResourceType: core.ResourceType_WORKFLOW, Project: "flytesnacks", Domain: "development", Name: "workflows.example.wf", Version: "0123456789abcdef"}
	return &store.Execution{
		ID:        aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name},
		Spec:      &admin.ExecutionSpec{LaunchPlan: &core.Identifier{ResourceType: core.ResourceType_LAUNCH_PLAN, Project: "flytesnacks", Domain: "development", Name: "workflows.example.wf", Version: "0123456789abcdef"}, Metadata: &admin.ExecutionMetadata{}},
		Workflow:  workflow,
		Inputs:    small(),
		CreatedAt: now, UpdatedAt: now, Phase: core.WorkflowExecution_QUEUED,
	}
}

func small() *aloftv1.Literals {
	return &aloftv1.Literals{Ref: &aloftv1.LiteralRef{Digest: make([]byte, 32), Size: 20}, Value: &core.LiteralMap{Literals: map[string]*core.Literal{
		"o0": {Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_Integer{Integer: 7}}}}}}}}}
}

func benchCreate() *aloftv1.Inbox {
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{Seed: "seed"}}}
}

// onBoth runs a benchmark on SQLite and, where there is one, on PostgreSQL, in the same run.
func onBoth(b *testing.B, run func(b *testing.B, s *sqlstore.Store, leases []store.Lease)) {
	b.Run("SQLite", func(b *testing.B) {
		s, leases := openBench(b, open(b, filepath.Join(b.TempDir(), "aloft.db")))
		run(b, s, leases)
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		s, leases := openBench(b, openPostgres(b, postgrestest.Database(b)))
		run(b, s, leases)
	})
}

func openBench(b *testing.B, s *sqlstore.Store) (*sqlstore.Store, []store.Lease) {
	b.Helper()
	leases, err := s.AcquireShards(b.Context(), "engine", now, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	return s, leases
}

func benchStep(e *store.Execution, leases []store.Lease, seq int64) *store.Step {
	return &store.Step{Execution: e.Key, ID: e.ID, Lease: leases[e.Shard], Seq: seq, CommitID: fmt.Sprint("commit-", seq),
		Entry: &aloftv1.JournalEntry{Events: []*aloftv1.Event{{At: now.UnixNano(), Kind: &aloftv1.Event_NodeRunning{NodeRunning: &aloftv1.NodeRunning{Node: uint32(seq)}}}}}}
}

func mustCommit(b *testing.B, s *sqlstore.Store, step *store.Step) {
	b.Helper()
	if err := s.Commit(b.Context(), []*store.Step{step})[0]; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFanOut writes 1,000 nodes and 1,000 attempts in a step, then the same again as succeeded.
func BenchmarkFanOut(b *testing.B) { onBoth(b, fanOut) }

func fanOut(b *testing.B, s *sqlstore.Store, leases []store.Lease) {
	const width = 1000
	b.ReportAllocs()
	records := 0
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		e := benchExecution(fmt.Sprint("e", i))
		if err := s.CreateExecution(b.Context(), e, benchCreate()); err != nil {
			b.Fatal(err)
		}
		first, second := benchStep(e, leases, 1), benchStep(e, leases, 2)
		spec := &aloftv1.AttemptSpec{Task: e.Workflow, TaskType: "python-task", SpecNodeId: "n0", NodeName: "a task", Workflow: e.Workflow, MilliCpu: 500, Memory: 1 << 28}
		for n := range width {
			id := aloft.NodeID(fmt.Sprint("n", n))
			node := store.Node{ID: id, SpecNodeID: string(id), Name: "a task", Phase: core.NodeExecution_QUEUED, CreatedAt: now, UpdatedAt: now, Target: e.Workflow}
			done := node
			node.Inputs = small()
			done.Outputs, done.Phase, done.StartedAt, done.EndedAt = small(), core.NodeExecution_SUCCEEDED, now, now
			attempt := store.Attempt{AttemptKey: store.AttemptKey{Execution: e.Key, Node: id, Token: "0123456789abcdef"}, Spec: spec, Phase: core.TaskExecution_QUEUED, CreatedAt: now, UpdatedAt: now}
			ended := attempt
			ended.Phase, ended.StartedAt, ended.EndedAt, ended.Outputs = core.TaskExecution_SUCCEEDED, now, now, done.Outputs.Ref
			ended.Usage = &aloftv1.AttemptUsage{PeakMemory: 1 << 27, Mode: "warm"}
			first.Nodes, first.Attempts = append(first.Nodes, &node), append(first.Attempts, &attempt)
			second.Nodes, second.Attempts = append(second.Nodes, &done), append(second.Attempts, &ended)
		}
		b.StartTimer()
		mustCommit(b, s, first)
		mustCommit(b, s, second)
		records += 4 * width
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkSmallCommit is the commit of a step of a chain: one node, one attempt, one message consumed.
func BenchmarkSmallCommit(b *testing.B) { onBoth(b, smallCommit) }

func smallCommit(b *testing.B, s *sqlstore.Store, leases []store.Lease) {
	e := benchExecution("e")
	if err := s.CreateExecution(b.Context(), e, benchCreate()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for seq := int64(1); b.Loop(); seq++ {
		step := benchStep(e, leases, seq)
		id := aloft.NodeID(fmt.Sprint("n", seq))
		step.Nodes = []*store.Node{{ID: id, Phase: core.NodeExecution_QUEUED, CreatedAt: now, UpdatedAt: now, Target: e.Workflow, Inputs: small()}}
		step.Attempts = []*store.Attempt{{AttemptKey: store.AttemptKey{Execution: e.Key, Node: id, Token: "0123456789abcdef"}, Phase: core.TaskExecution_QUEUED, CreatedAt: now, UpdatedAt: now}}
		step.Consumed = []int64{seq}
		step.DueAt = now.Add(time.Duration(seq))
		mustCommit(b, s, step)
	}
}

// BenchmarkCost commits steps of 1 and of 200 nodes in turns: whole, without their journal entry, and without the check of the
// lease. It reports what the journal and the check add.
func BenchmarkCost(b *testing.B) {
	for _, width := range []int{1, 200} {
		b.Run(fmt.Sprint("SQLite/nodes=", width), func(b *testing.B) {
			cost(b, width, func() *sqlstore.Store { return open(b, filepath.Join(b.TempDir(), "aloft.db")) })
		})
		b.Run(fmt.Sprint("PostgreSQL/nodes=", width), func(b *testing.B) {
			cost(b, width, func() *sqlstore.Store { return openPostgres(b, postgrestest.Database(b)) })
		})
	}
}

func cost(b *testing.B, width int, open func() *sqlstore.Store) {
	type variant struct {
		store  *sqlstore.Store
		leases []store.Lease
		made   *store.Execution
		took   []time.Duration
	}
	var all []*variant
	for _, lacks := range [][2]bool{{}, {true, false}, {false, true}} {
		s, leases := openBench(b, open())
		if lacks != [2]bool{} {
			s.Without(lacks[0], lacks[1])
		}
		all = append(all, &variant{store: s, leases: leases, made: mustCreate(b, s, "e")})
	}
	round := func(seq int64) {
		for _, v := range all {
			step := benchStep(v.made, v.leases, seq)
			for n := range width {
				id := aloft.NodeID(fmt.Sprintf("n%d-%d", seq, n))
				for range 4 { // about what a node's life takes
					step.Entry.Events = append(step.Entry.Events, step.Entry.GetEvents()[0])
				}
				step.Nodes = append(step.Nodes, &store.Node{ID: id, Phase: core.NodeExecution_SUCCEEDED, CreatedAt: now, UpdatedAt: now, Target: v.made.Workflow, Inputs: small(), Outputs: small()})
				step.Attempts = append(step.Attempts, &store.Attempt{AttemptKey: store.AttemptKey{Execution: v.made.Key, Node: id, Token: "0123456789abcdef"}, Phase: core.TaskExecution_SUCCEEDED, CreatedAt: now, UpdatedAt: now})
			}
			began := time.Now()
			mustCommit(b, v.store, step)
			v.took = append(v.took, time.Since(began))
		}
	}
	seq := int64(1)
	for ; seq <= 20; seq++ { // plans are made, files grow
		round(seq)
	}
	for _, v := range all {
		v.took = nil
	}
	for b.Loop() {
		round(seq)
		seq++
	}
	median := func(v *variant) float64 {
		slices.Sort(v.took)
		return float64(v.took[len(v.took)/2].Microseconds())
	}
	whole := median(all[0])
	b.ReportMetric(whole, "µs/commit")
	b.ReportMetric(whole-median(all[1]), "µs-journal")
	b.ReportMetric(whole-median(all[2]), "µs-fencing")
}

// BenchmarkGroupCommit commits steps of a chain of 64 executions at once, as an engine does: one transaction for all.
func BenchmarkGroupCommit(b *testing.B) { onBoth(b, groupCommit) }

func groupCommit(b *testing.B, s *sqlstore.Store, leases []store.Lease) {
	const executions = 64
	var made []*store.Execution
	for i := range executions {
		made = append(made, mustCreate(b, s, fmt.Sprint("e", i)))
	}
	b.ReportAllocs()
	for seq := int64(1); b.Loop(); seq++ {
		steps := make([]*store.Step, executions)
		for i, e := range made {
			step := benchStep(e, leases, seq)
			id := aloft.NodeID(fmt.Sprint("n", seq))
			step.Nodes = []*store.Node{{ID: id, Phase: core.NodeExecution_QUEUED, CreatedAt: now, UpdatedAt: now, Target: e.Workflow, Inputs: small()}}
			step.Attempts = []*store.Attempt{{AttemptKey: store.AttemptKey{Execution: e.Key, Node: id, Token: "0123456789abcdef"}, Phase: core.TaskExecution_QUEUED, CreatedAt: now, UpdatedAt: now}}
			step.Consumed = []int64{seq*executions + int64(i)}
			steps[i] = step
		}
		for _, err := range s.Commit(b.Context(), steps) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(executions)*float64(b.N)/b.Elapsed().Seconds(), "steps/s")
}

// BenchmarkCreateExecution creates from 64 goroutines.
func BenchmarkCreateExecution(b *testing.B) { onBoth(b, createExecution) }

func createExecution(b *testing.B, s *sqlstore.Store, _ []store.Lease) {
	var n atomic.Int64
	b.SetParallelism(64 / 2)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e := benchExecution(fmt.Sprint("e", n.Add(1)))
			if err := s.CreateExecution(b.Context(), e, benchCreate()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "executions/s")
}

// BenchmarkOpen opens a store that holds 10,000 finished executions.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "aloft.db")
	fill(b, path, 10_000)
	for b.Loop() {
		s, err := sqlstore.Open(b.Context(), sqlstore.Options{Path: path})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkListExecutions lists the latest 100 of 10,000 finished executions.
func BenchmarkListExecutions(b *testing.B) {
	path := filepath.Join(b.TempDir(), "aloft.db")
	fill(b, path, 10_000)
	s := open(b, path)
	for b.Loop() {
		list, err := s.ListExecutions(b.Context(), store.Query{Project: "flytesnacks", Domain: "development", Limit: 100})
		if err != nil || len(list) != 100 {
			b.Fatal(len(list), err)
		}
	}
}

func fill(b *testing.B, path string, executions int) {
	b.Helper()
	s, err := sqlstore.Open(b.Context(), sqlstore.Options{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	leases, err := s.AcquireShards(b.Context(), "engine", now, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	made := make(chan *store.Execution, executions)
	var group sync.WaitGroup
	for worker := range 64 {
		group.Go(func() {
			for i := worker; i < executions; i += 64 {
				e := benchExecution(fmt.Sprint("e", i))
				if err := s.CreateExecution(b.Context(), e, benchCreate()); err != nil {
					b.Error(err)
				}
				made <- e
			}
		})
	}
	group.Wait()
	close(made)
	var steps []*store.Step
	for e := range made {
		step := benchStep(e, leases, 1)
		step.Nodes = []*store.Node{{ID: "n0", Phase: core.NodeExecution_SUCCEEDED, Outputs: small()}}
		step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_SUCCEEDED, EndedAt: now, UpdatedAt: now, Outputs: small()}
		steps = append(steps, step)
	}
	for _, err := range s.Commit(b.Context(), steps) {
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
