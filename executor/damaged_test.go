package executor_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
)

// damagedStore gives records as a database does in which some are damaged.
type damagedStore struct {
	*memstore.Store
	node     aloft.NodeID // whose attempts have no spec that can be understood
	workflow atomic.Bool  // no workflow can be understood
}

func (s *damagedStore) spoil(all []*store.Attempt, err error) ([]*store.Attempt, error) {
	for _, a := range all {
		if a.Node == s.node {
			a.Spec, a.Unreadable = nil, fmt.Errorf("task execution %s: %w", a.ID, aloft.ErrUnreadable)
		}
	}
	return all, err
}

func (s *damagedStore) Waiting(ctx context.Context, now time.Time, limit int) ([]*store.Attempt, error) {
	return s.spoil(s.Store.Waiting(ctx, now, limit))
}

func (s *damagedStore) Assigned(ctx context.Context, executor string) ([]*store.Attempt, error) {
	return s.spoil(s.Store.Assigned(ctx, executor))
}

func (s *damagedStore) GetWorkflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error) {
	if s.workflow.Load() {
		return nil, fmt.Errorf("workflow %s is %w. Register the same version again", id.GetName(), aloft.ErrUnreadable)
	}
	return s.Store.GetWorkflow(ctx, id)
}

func (b *bench) runOn(s executor.Store, instance string, slots int64) {
	b.place.Room.Slots = slots
	backend := b.place.Open(b.T)
	e := executor.New(executor.Config{Instance: instance, Store: s, Backend: backend, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("executor %s: %v", instance, err)
		}
		_ = backend.(interface{ Close() error }).Close()
	})
}

// An attempt of which it cannot be understood what is to run is given back, so that its node gets another: whether it has
// just been taken or was there after a restart.
func TestAnAttemptWhoseRecordIsDamagedIsReplaced(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} {
		inBubble(t, func(b *bench) {
			if before {
				kill := b.run("x")
				b.attempts("wait", "e/damaged")
				pass(2 * time.Second)
				kill()
			} else {
				b.attempts("wait", "e/damaged")
			}
			good := b.attempts("succeed", "e/good")[0]
			b.runOn(&damagedStore{Store: b.store, node: "damaged"}, "x", 2)
			pass(10 * time.Second)
			b.adopt()
			damaged := aloft.AttemptID{Execution: good.Execution, Node: "damaged"}
			if got := b.adopted[damaged]; len(got) == 0 || !strings.Contains(got[0].GetLost(), "unreadable") {
				t.Errorf("taken before: %t: the damaged attempt ended with %v, want that it is lost", before, got)
			}
			if got := b.adopted[good]; len(got) != 1 || got[0].GetOutputs() == nil {
				t.Errorf("taken before: %t: the other attempt ended with %v", before, got)
			}
		})
	}
}

// Attempts of a workflow that cannot be read say so, take no room from others, and go on when it is mended.
func TestAttemptsOfADamagedWorkflowWaitWithoutRoom(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		s := &damagedStore{Store: b.store}
		s.workflow.Store(true)
		ids := b.attempts("succeed", "e/1", "e/2", "e/3")
		b.runOn(s, "x", 1)
		pass(time.Minute)
		b.adopt()
		for _, id := range ids {
			a, err := b.store.GetAttempt(b.Context(), id)
			if err != nil || a.Executor != "x" || !strings.Contains(a.Waiting, "Register the same version again") {
				t.Errorf("attempt %s is with executor %q and waits for %q (%v)", id, a.Executor, a.Waiting, err)
			}
		}
		s.workflow.Store(false)
		pass(time.Minute)
		b.adopt()
		for _, id := range ids {
			if got := b.adopted[id]; len(got) != 1 || got[0].GetOutputs() == nil {
				t.Errorf("attempt %s ended with %v after its workflow was mended", id, got)
			}
		}
	})
}
