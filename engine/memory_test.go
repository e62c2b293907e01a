package engine_test

import (
	"fmt"
	"testing"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Executions that are stepped in turn hold no more memory together than is allowed, however many there are and however large
// they become, and all of them end. Those that fit keep their state from turn to turn.
func TestRunsThatTakeTurnsAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	const runs, limit = 30, 200_000
	b := newBench(t)
	w := fanOut(100)
	b.register(w)
	var ids []aloft.ExecutionID
	for i := range runs {
		ids = append(ids, b.create(w, fmt.Sprintf("e%d", i), nil))
	}
	r := &readCounter{Store: b.store}
	e := b.engine("a", func(c *engine.Config) { c.Store, c.CacheRuns, c.StepLimit = r, limit, 20 })
	turns, most := 0, 0
	for more := true; more; turns++ {
		var err error
		if more, err = e.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		most = max(most, e.Held()["bytes of runs"])
		if most > limit {
			t.Fatalf("after turn %d the engine keeps %d bytes of runs, the limit is %d", turns, most, limit)
		}
	}
	for _, id := range ids {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	}
	if most < limit/2 || turns < 5 {
		t.Errorf("in %d turns the engine kept at most %d bytes: the test needs more than fits", turns, most)
	}
	if all := runs * turns; r.loads >= all*9/10 || r.loads <= runs {
		t.Errorf("%d executions had %d turns and %d folds: the test needs some that were kept, and some that were not", runs, turns, r.loads)
	}
}

// One execution that alone is above the limit keeps its state: each of its steps would fold its journal again.
func TestOneRunMayBeLargerThanTheLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := fanOut(200)
	b.register(w)
	first := b.create(w, "first", nil)
	r := &readCounter{Store: b.store}
	e := b.engine("a", func(c *engine.Config) { c.Store, c.CacheRuns, c.StepLimit = r, 1, 20 })
	b.settle(e)
	b.wantPhase(first, core.WorkflowExecution_SUCCEEDED)
	if r.loads != 1 {
		t.Errorf("the execution was folded %d times, want once", r.loads)
	}
	second, third := b.create(w, "second", nil), b.create(w, "third", nil)
	b.settle(e)
	b.wantPhase(second, core.WorkflowExecution_SUCCEEDED)
	b.wantPhase(third, core.WorkflowExecution_SUCCEEDED)
	if held := e.Held(); held["bytes of runs"] != 0 || held["runs"] != 0 {
		t.Errorf("after all have ended the engine holds %v", held)
	}
}
