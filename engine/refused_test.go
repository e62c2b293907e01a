package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// refusingStore refuses steps that end executions, while refuses is set.
type refusingStore struct {
	store.Store
	refuses bool
	tries   int
}

func (r *refusingStore) Commit(ctx context.Context, steps []*store.Step) []error {
	errs := make([]error, len(steps))
	for i, s := range steps {
		if r.refuses && s.Change != nil && aloft.Terminal(s.Change.Phase) {
			r.tries++
			errs[i] = fmt.Errorf("the schema refuses it: %w", aloft.ErrInvalid)
			continue
		}
		errs[i] = r.Store.Commit(ctx, steps[i:i+1])[0]
	}
	return errs
}

// A step that ends its execution and is refused: the execution has not ended.
func TestAnEndThatTheStoreRefusesIsTriedAgainWithPauses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := &refusingStore{Store: b.memory, refuses: true}
	b.store.Store = r
	w := workflow{name: "echo", tasks: []*core.TaskTemplate{echoTask}, nodes: []*core.Node{taskNode("e", echoTask, map[string]*core.BindingData{"x": text("1")})}}
	b.register(w)
	id := b.create(w, "refused", nil)
	e := b.engine("a")
	b.run(e, time.Hour)
	if r.tries < 60 || r.tries > 300 {
		t.Errorf("within an hour it was tried %d times, want twice a minute", r.tries)
	}
	r.refuses = false
	b.run(e, time.Minute)
	b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
}
