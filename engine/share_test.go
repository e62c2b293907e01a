package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// sharedStore knows which engine has which shard, and counts steps that were refused.
type sharedStore struct {
	store.Store
	owners  [store.Shards]string
	refused int
}

func (s *sharedStore) AcquireShards(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]store.Lease, error) {
	leases, err := s.Store.AcquireShards(ctx, owner, now, ttl)
	for _, l := range leases {
		s.owners[l.Shard] = owner
	}
	return leases, err
}

func (s *sharedStore) Commit(ctx context.Context, steps []*store.Step) []error {
	errs := s.Store.Commit(ctx, steps)
	for _, err := range errs {
		if err != nil && !errors.Is(err, aloft.ErrUnavailable) {
			s.refused++
		}
	}
	return errs
}

func (s *sharedStore) shardsOf(owner string) (n int) {
	for _, o := range s.owners {
		if o == owner {
			n++
		}
	}
	return n
}

func TestEnginesShareTheShardsAndNoStepIsLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := &sharedStore{Store: b.memory}
	w := fanOut(40)
	b.register(w)
	var ids []aloft.ExecutionID
	more := func(n int) {
		for range n {
			ids = append(ids, b.create(w, fmt.Sprintf("e%d", len(ids)), nil))
		}
	}
	engines := map[string]*engine.Engine{}
	join := func(name string) {
		engines[name] = b.engine(name, func(c *engine.Config) { c.Store, c.StepLimit = s, 5 })
	}
	turns := func(n int) { // each engine makes n passes, while executions run and new ones come
		t.Helper()
		for range n {
			for _, name := range []string{"a", "b", "c"} {
				if e := engines[name]; e != nil {
					if _, err := e.Pass(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			b.clock.advance(time.Second)
			more(2)
		}
	}
	wantShards := func(want map[string]int) {
		t.Helper()
		for name, n := range want {
			if got := s.shardsOf(name); got != n {
				t.Errorf("%s has %d shards, want %d", name, got, n)
			}
		}
	}
	more(200)
	join("a")
	turns(2)
	wantShards(map[string]int{"a": 64})
	join("b")
	turns(10)
	wantShards(map[string]int{"a": 32, "b": 32})
	join("c")
	turns(10)
	wantShards(map[string]int{"a": 22, "b": 22, "c": 20})
	if s.refused != 0 {
		t.Errorf("%d steps were refused although every shard changed hands in an orderly way", s.refused)
	}
	delete(engines, "a") // the engine is killed
	turns(20)
	wantShards(map[string]int{"b": 32, "c": 32})
	for range 100 {
		b.settle(engines["b"])
		b.settle(engines["c"])
		b.clock.advance(time.Second)
	}
	for _, id := range ids {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	}
	if s.refused != 0 {
		t.Errorf("%d steps were refused", s.refused)
	}
}

// A commit whose outcome is unknown is finished before its shard goes to another engine.
func TestAShardIsGivenBackWhenItsCommitIsFinished(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := &sharedStore{Store: b.memory}
	change := func(c *engine.Config) { c.Store = s }
	w := fanOut(3)
	b.register(w)
	leaver := b.engine("leaver", change)
	b.settle(leaver)
	b.settle(b.engine("comer", change)) // the second engine joins
	var ids []aloft.ExecutionID
	for i := range 100 {
		ids = append(ids, b.create(w, fmt.Sprintf("e%d", i), nil))
	}
	away := true
	b.memory.Faults = func(op string) store.Fault {
		if op == "Commit" && away {
			return store.FailAfter
		}
		return store.NoFault
	}
	for range 4 {
		_, _ = leaver.Pass(t.Context())
		b.clock.advance(time.Second)
	}
	leases, err := b.memory.AcquireShards(t.Context(), "comer", b.clock.Now(), time.Second)
	if err != nil || len(leases) >= store.Share(2) {
		t.Fatalf("the other engine has %d shards (%v) while a commit to them is open", len(leases), err)
	}
	away = false
	b.settle(leaver)
	leases, err = b.memory.AcquireShards(t.Context(), "comer", b.clock.Now(), time.Second)
	if err != nil || len(leases) != store.Share(2) {
		t.Errorf("the other engine has %d shards (%v), want %d", len(leases), err, store.Share(2))
	}
	for _, id := range ids {
		b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
	}
}

// The store counts a lease from when the engine asked for it: the lease ends LeaseTTL after that, however long the answer took.
// After its end no step begins, and steps that were decided before are not committed.
func TestALeaseIsCountedFromBeforeItWasAskedFor(t *testing.T) {
	t.Parallel()
	const ttl, answer = 10 * time.Second, 4 * time.Second
	for name, test := range map[string]struct {
		slow      string        // the call of the store that takes long beside AcquireShards
		takes     time.Duration // how long that call takes
		committed bool
	}{
		"the messages are read just before the end": {"Inbox", ttl - answer - 1, true},
		"the messages are read at the end":          {"Inbox", ttl - answer, false},
		"a step is decided just before the end":     {"Load", ttl - answer - 1, true},
		"a step is decided at the end":              {"Load", ttl - answer, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			w := fanOut(1)
			b.register(w)
			id := b.create(w, "e", nil)
			calls := map[string]int{}
			b.memory.Faults = func(op string) store.Fault {
				if calls[op]++; calls[op] == 1 {
					b.clock.advance(map[string]time.Duration{"AcquireShards": answer, test.slow: test.takes}[op])
				}
				return store.NoFault
			}
			e := b.engine("a", func(c *engine.Config) { c.LeaseTTL = ttl })
			if _, err := e.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			if committed := b.store.commits > 0; committed != test.committed {
				t.Errorf("%s after the lease was asked for, the step is committed: %t", answer+test.takes, committed)
			}
			if begun := calls["Load"] > 0; begun != (test.committed || test.slow == "Load") {
				t.Errorf("%s after the lease was asked for, a step has begun: %t", answer+test.takes, begun)
			}
			b.settle(e) // the lease is renewed
			b.wantPhase(id, core.WorkflowExecution_SUCCEEDED)
		})
	}
}
