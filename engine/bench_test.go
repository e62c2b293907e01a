package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

// durableEngine is an engine that runs on a durable store and a folder of objects.
type durableEngine struct {
	testing.TB
	store    *countingStore
	literals blob.Literals
}

// onBoth runs a benchmark on SQLite and, where there is one, on PostgreSQL, in the same run.
func onBoth(b *testing.B, run func(*testing.B, sqlstore.Options)) {
	b.Run("SQLite", func(b *testing.B) { run(b, sqlstore.Options{Path: filepath.Join(b.TempDir(), "aloft.db")}) })
	b.Run("PostgreSQL", func(b *testing.B) { run(b, sqlstore.Options{URL: postgrestest.Database(b)}) })
}

func startDurableEngine(b *testing.B, o sqlstore.Options) *durableEngine {
	b.Helper()
	dir := b.TempDir()
	s, err := sqlstore.Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	objects, err := folder.Open(filepath.Join(dir, "blob"))
	if err != nil {
		b.Fatal(err)
	}
	r := &durableEngine{TB: b, store: &countingStore{Store: s}, literals: blob.Literals{Store: objects}}
	e := engine.New(engine.Config{
		Store: r.store, Literals: r.literals, Owner: "bench", Logger: slog.New(slog.DiscardHandler),
		Catalog: &catalog.Catalog{Store: r.store, Blob: objects},
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := e.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() {
		stop()
		running.Wait()
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

func (r *durableEngine) register(w workflow) {
	r.Helper()
	if err := r.store.CreateWorkflow(r.Context(), &store.Workflow{ID: identifier(core.ResourceType_WORKFLOW, w.name), Compiled: w.compiled(), CreatedAt: time.Now()}); err != nil {
		r.Fatal(err)
	}
}

// run creates an execution and waits for its end.
func (r *durableEngine) run(w workflow, name string) {
	r.Helper()
	id := aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
	wake, cancel := r.store.Subscribe(store.TopicExecution(id))
	defer cancel()
	createIn(r, r.store, r.literals, w, name, nil, time.Now())
	for {
		<-wake
		e, err := r.store.GetExecution(r.Context(), id)
		if err != nil {
			r.Fatal(err)
		}
		if aloft.Terminal(e.Phase) {
			if e.Phase != core.WorkflowExecution_SUCCEEDED {
				r.Fatalf("execution %s ended %s: %v", name, e.Phase, e.Error)
			}
			return
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs the workflow b.N times and reports time, processor time and commits for each of its nodes.
func measure(b *testing.B, w workflow, nodes int) {
	onBoth(b, func(b *testing.B, o sqlstore.Options) { measureOn(b, o, w, nodes) })
}

func measureOn(b *testing.B, o sqlstore.Options, w workflow, nodes int) *durableEngine {
	b.Helper()
	r := startDurableEngine(b, o)
	r.register(w)
	r.run(w, "warm")
	before, commits := cpu(), r.store.commits
	b.ResetTimer()
	for i := range b.N {
		r.run(w, fmt.Sprintf("e%d", i))
	}
	b.StopTimer()
	n := float64(b.N * nodes)
	b.ReportMetric(n/b.Elapsed().Seconds(), "nodes/s")
	b.ReportMetric(float64((cpu()-before).Microseconds())/n/1000, "cpu-ms/node")
	b.ReportMetric(float64(r.store.commits-commits)/float64(b.N), "commits/run")
	return r
}

func BenchmarkOneNode(b *testing.B)     { measure(b, fanOut(1), 1) }
func BenchmarkChain100(b *testing.B)    { measure(b, chain(100), 100) }
func BenchmarkFanOut1000(b *testing.B)  { measure(b, fanOut(1000), 1000) }
func BenchmarkFanOut10000(b *testing.B) { measure(b, fanOut(10_000), 10_000) }

// BenchmarkEcho is what BenchmarkCached is compared with: the same nodes, each of which runs.
func BenchmarkEcho(b *testing.B) { measure(b, echoes(10_000, echoTask), 10_000) }

// BenchmarkCached has 10,000 nodes with different inputs, the results of all of which are known.
func BenchmarkCached(b *testing.B) {
	cached := proto.CloneOf(echoTask)
	cached.Id.Name = "cached"
	cached.Metadata = &core.TaskMetadata{Discoverable: true, DiscoveryVersion: "1"}
	onBoth(b, func(b *testing.B, o sqlstore.Options) {
		r := measureOn(b, o, echoes(10_000, cached), 10_000)
		last := aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: fmt.Sprintf("e%d", b.N-1)}
		ran, err := r.store.ListAttempts(b.Context(), last, "", store.Query{})
		if err != nil || len(ran) > 0 {
			b.Fatalf("%d nodes ran although their results were known (%v)", len(ran), err)
		}
	})
}

// BenchmarkSwarm has 64 clients that create workflows of one node.
func BenchmarkSwarm(b *testing.B) { onBoth(b, swarm) }

func swarm(b *testing.B, o sqlstore.Options) {
	r := startDurableEngine(b, o)
	w := fanOut(1)
	r.register(w)
	r.run(w, "warm")
	commits := r.store.commits
	var clients sync.WaitGroup
	next := make(chan int)
	b.ResetTimer()
	for range 64 {
		clients.Go(func() {
			for i := range next {
				r.run(w, fmt.Sprintf("e%d", i))
			}
		})
	}
	for i := range b.N {
		next <- i
	}
	close(next)
	clients.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "executions/s")
	b.ReportMetric(float64(r.store.commits-commits)/float64(b.N), "commits/execution")
}

// BenchmarkMemory runs 200,000 nodes, twenty executions one after another, and reports by how much the heap grew after the
// first.
func BenchmarkMemory(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for range b.N {
		r := startDurableEngine(b, sqlstore.Options{Path: filepath.Join(b.TempDir(), "aloft.db")})
		w := fanOut(10_000)
		r.register(w)
		r.run(w, "e0")
		first := heap()
		for i := 1; i < 20; i++ {
			r.run(w, fmt.Sprintf("e%d", i))
		}
		last := heap()
		b.ReportMetric(first, "heap-after-10k-bytes")
		b.ReportMetric(last, "heap-after-200k-bytes")
	}
}
