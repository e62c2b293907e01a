package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// readCounter counts what an engine reads of executions.
type readCounter struct {
	store.Store
	loads, rows int
}

func (r *readCounter) Load(ctx context.Context, key store.Key) (*store.Execution, error) {
	r.loads++
	return r.Store.Load(ctx, key)
}

func (r *readCounter) Inbox(ctx context.Context, shards []int, after int64, limit int) ([]store.InboxRow, error) {
	rows, err := r.Store.Inbox(ctx, shards, after, limit)
	r.rows += len(rows)
	return rows, err
}

func (r *readCounter) Clocks(ctx context.Context, shards []int, after store.Key, limit int) ([]store.ClockRow, error) {
	rows, err := r.Store.Clocks(ctx, shards, after, limit)
	r.rows += len(rows)
	return rows, err
}

func (r *readCounter) Due(ctx context.Context, shards []int, until time.Time, limit int) ([]store.DueRow, error) {
	rows, err := r.Store.Due(ctx, shards, until, limit)
	r.rows += len(rows)
	return rows, err
}

// A server is ready at once however much it has run: of finished executions it reads nothing.
func TestRestartReadsNothingOfFinishedExecutions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	done, sleeps := fanOut(1), workflow{name: "sleeps", tasks: []*core.TaskTemplate{sleepTask}, nodes: []*core.Node{sleepNode("s", time.Hour)}}
	b.register(done)
	b.register(sleeps)
	last := b.create(done, "last", nil)
	for i := range 1000 {
		b.create(done, fmt.Sprintf("e%d", i), nil)
	}
	asleep := b.create(sleeps, "asleep", nil)
	b.settle(b.engine("a"))
	b.wantPhase(last, core.WorkflowExecution_SUCCEEDED)
	b.wantPhase(asleep, core.WorkflowExecution_RUNNING)

	r := &readCounter{Store: b.store}
	b.settle(b.engine("a", func(c *engine.Config) { c.Store = r }))
	if r.loads != 0 {
		t.Errorf("after a restart the engine loads %d executions, want none before there is something to do", r.loads)
	}
	if r.rows > 2 {
		t.Errorf("after a restart the engine reads %d messages and timers, want those of the 1 execution that has not ended", r.rows)
	}
}
