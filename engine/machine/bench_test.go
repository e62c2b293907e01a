package machine

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// quick answers at once and with the same values, so that a benchmark measures the machine alone.
type quick struct {
	wait   time.Duration
	inputs *aloftv1.LiteralRef
}

func (quick) Policy() *Policy { return &Policy{Timeout: 48 * time.Hour} }

func (quick) Cached(NodeRef, *aloftv1.LiteralRef) (CacheAnswer, error) { return CacheAnswer{}, nil }
func (quick) Recovered(NodeRef) (Recovery, error)                      { return Recovery{}, nil }

func (q quick) Inputs(NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error) {
	return q.inputs, nil, nil
}
func (q quick) Arm(NodeRef) (uint32, *aloftv1.Failure, error) { return 0, nil, nil }

func (q quick) Echo(NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error) {
	return q.inputs, nil, nil
}
func (q quick) Duration(NodeRef) (time.Duration, *aloftv1.Failure, error) { return q.wait, nil, nil }

func fan(n int, run string) flow {
	f := flow{name: "main"}
	for i := range n {
		f.nodes = append(f.nodes, flowNode{id: fmt.Sprintf("n%d", i), run: run})
	}
	return f
}

// drive steps an execution to its end and gives the number of events.
func drive(b testing.TB, s *State, parallelism uint32, f Facts) int {
	events, now := 0, epoch
	messages := []*aloftv1.Inbox{create(parallelism)}
	for !s.Ended() {
		d, err := s.Step(messages, now, f, 1000)
		if err != nil {
			b.Fatal(err)
		}
		messages = nil
		events += len(d.Events)
		if !d.More && !d.Ended {
			if d.DueAt.IsZero() {
				b.Fatal("stuck")
			}
			now = d.DueAt
		}
	}
	return events
}

func BenchmarkFanOut10000(b *testing.B) {
	for _, c := range []struct {
		name        string
		parallelism uint32
		wait        time.Duration
	}{{"sleepNothing", 0, 0}, {"sleepNothingParallelism25", 25, 0}, {"sleepASecond", 0, time.Second}, {"sleepASecondParallelism25", 25, time.Second}} {
		b.Run(c.name, func(b *testing.B) {
			const n = 10_000
			g := mustGraph(b, fan(n, "sleep"))
			f := quick{wait: c.wait, inputs: literals("inputs")}
			b.ReportAllocs()
			events := 0
			for b.Loop() {
				events += drive(b, New(testID, g), c.parallelism, f)
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "nodes/s")
		})
	}
}

func BenchmarkChain1000(b *testing.B) {
	var f flow
	for i := range 1000 {
		n := flowNode{id: fmt.Sprintf("n%d", i), run: "echo"}
		if i > 0 {
			n.after = []string{fmt.Sprintf("n%d", i-1)}
		}
		f.nodes = append(f.nodes, n)
	}
	f.name = "main"
	g := mustGraph(b, f)
	b.ReportAllocs()
	for b.Loop() {
		drive(b, New(testID, g), 0, quick{inputs: literals("inputs")})
	}
	b.ReportMetric(float64(1000*b.N)/b.Elapsed().Seconds(), "nodes/s")
}

func BenchmarkFold10000(b *testing.B) {
	g := mustGraph(b, fan(10_000, "echo"))
	s := New(testID, g)
	d, err := s.Step([]*aloftv1.Inbox{create(0)}, epoch, quick{inputs: literals("inputs")}, 0)
	if err != nil {
		b.Fatal(err)
	}
	journal := []*aloftv1.JournalEntry{{Events: d.Events}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Fold(testID, g, journal); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStateSize reports what a State holds per node once all events are gone, with one attempt each.
func BenchmarkStateSize(b *testing.B) {
	const n = 10_000
	g := mustGraph(b, fan(n, "sleep"))
	var before, after runtime.MemStats
	var s *State
	for b.Loop() {
		s = nil //nolint:ineffassign,wastedassign // lets the collector have it
		runtime.GC()
		runtime.ReadMemStats(&before)
		s = New(testID, g)
		drive(b, s, 0, quick{inputs: literals("inputs")})
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "bytes/node")
	runtime.KeepAlive(s)
}

// Decisions are few allocations: one per event and little besides.
func TestANodeCostsFewAllocations(t *testing.T) { //nolint:paralleltest // allocations are counted for the whole process
	const n = 1000
	g := mustGraph(t, fan(n, "sleep"))
	f := quick{inputs: literals("inputs")}
	if got := testing.AllocsPerRun(5, func() { drive(t, New(testID, g), 0, f) }) / n; got >= 10 {
		t.Errorf("a node that sleeps takes %.1f allocations, not fewer than 10", got)
	}
}

// What a message costs does not depend on how large the run is or how much of it is over.
func TestTheCostOfAStepDoesNotGrowWithTheRun(t *testing.T) { //nolint:paralleltest // allocations are counted for the whole process
	cost := func(n int) float64 {
		s := New(testID, mustGraph(t, fan(n, "task")))
		f := quick{inputs: literals("inputs")}
		if _, err := s.Step([]*aloftv1.Inbox{create(0)}, epoch, f, 0); err != nil {
			t.Fatal(err)
		}
		outstanding := s.Outstanding()
		next := 0
		return testing.AllocsPerRun(50, func() {
			r := outstanding[next]
			next++
			m := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: &aloftv1.Outcome{
				Node: string(s.Ref(r.Node).ID()), Token: s.token(r.Node, 0), StartedAt: 1, EndedAt: 2, Result: &aloftv1.Outcome_Lost{Lost: "gone"},
			}}}
			d, err := s.Step([]*aloftv1.Inbox{m}, epoch, f, 0)
			if err != nil || len(d.Events) != 3 {
				t.Fatal(len(d.Events), err)
			}
		})
	}
	if small, large := cost(100), cost(20_000); large > small+1 {
		t.Errorf("a step takes %.0f allocations in a run of 100 nodes and %.0f in one of 20,000", small, large)
	}
}

// Bytes is what bounds the states in memory: it must be of the size of what they take.
func TestBytesIsAboutWhatAStateTakes(t *testing.T) { //nolint:paralleltest // it measures the heap
	const n = 20_000
	g := mustGraph(t, fan(n, "sleep"))
	long := literals("inputs")
	long.Uri = "aloft://blob/" + strings.Repeat("x", 200)
	for name, inputs := range map[string]*aloftv1.LiteralRef{"short": literals("inputs"), "long": long} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := New(testID, g)
		drive(t, s, 0, quick{wait: time.Second, inputs: inputs})
		runtime.GC()
		runtime.ReadMemStats(&after)
		takes, says := int64(after.HeapAlloc-before.HeapAlloc), s.Bytes()
		t.Logf("%s texts: the state of %d nodes takes %d bytes and says %d", name, n, takes, says)
		if says < takes*2/3 || name == "short" && says > takes*2 { // equal texts are counted each time
			t.Errorf("%s texts: the state takes %d bytes and says %d", name, takes, says)
		}
		runtime.KeepAlive(s)
	}
}
