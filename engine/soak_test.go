package engine_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

var waves = flag.Int("waves", 20, "how often the soak test runs a hundred executions: each is some 50 rows")

// P8: what the engine holds follows what runs, not what has run. Errors of the store leave nothing behind in memory either.
// That a node's life is a few rows is an invariant of the simulation.
func TestNothingIsLeftOfWhatHasEnded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	run := task("run", "python-task", nil, map[string]core.SimpleType{"o": core.SimpleType_STRING})
	w := workflow{name: "soak", tasks: []*core.TaskTemplate{sleepTask, run}, nodes: []*core.Node{
		sleepNode("s", time.Second), taskNode("r", run, nil), taskNode("q", run, nil, "r", "s"),
	}}
	b.register(w)
	calls := 0
	b.memory.Faults = func(string) store.Fault {
		if calls++; calls%41 == 0 {
			return store.FailAfter
		}
		return store.NoFault
	}
	e := b.engine("a", func(c *engine.Config) { c.CacheRuns = 150_000 })
	pass := func() {
		for more := true; more; {
			more, _ = e.Pass(t.Context()) // an error is a failure of the store, as injected
		}
	}
	done := 0
	for wave := range *waves {
		b.withoutFaults(func() {
			for i := range 100 {
				b.create(w, fmt.Sprintf("e%d-%d", wave, i), nil)
			}
		})
		for range 20 {
			pass()
			b.withoutFaults(func() {
				b.heartbeat("x", "here", time.Minute)
				for _, a := range b.unassigned() {
					b.assign("x", a)
					b.report(a, succeeded(map[string]string{"o": "fine"}))
				}
			})
			b.clock.advance(time.Second)
		}
		pass()
		b.withoutFaults(func() {
			for i := range 100 {
				b.wantPhase(aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: fmt.Sprintf("e%d-%d", wave, i)}, core.WorkflowExecution_SUCCEEDED)
				done++
			}
		})
		for what, n := range e.Held() {
			if n > 0 {
				t.Fatalf("after %d executions, all of which have ended, the engine holds %d %s", done, n, what)
			}
		}
	}
}

// withoutFaults calls f while the store has no faults.
func (b *bench) withoutFaults(f func()) {
	faults := b.memory.Faults
	b.memory.Faults = nil
	f()
	b.memory.Faults = faults
}
