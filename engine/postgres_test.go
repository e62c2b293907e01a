package engine_test

import (
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

// On a shared database a message may become visible after one with a larger number was consumed.
func TestAMessageThatBecomesVisibleLateIsFound(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b := newBench(t)
	b.store = &countingStore{Store: s}
	w := fanOut(1)
	b.register(w)
	id := func(name string) aloft.ExecutionID {
		return aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
	}
	for _, name := range []string{"late", "early"} {
		createIn(t, b.store, b.objects, w, name, nil, b.clock.Now())
	}
	late, err := s.GetExecution(t.Context(), id("late"))
	if err != nil {
		t.Fatal(err)
	}
	postgrestest.Exec(t, url, "CREATE TABLE unseen AS SELECT * FROM inbox")
	postgrestest.Exec(t, url, "DELETE FROM unseen WHERE execution <> $1", int64(late.Key))
	postgrestest.Exec(t, url, "DELETE FROM inbox WHERE execution = $1", int64(late.Key))
	e := b.engine("engine")
	until := func(name string) {
		t.Helper()
		for range 50 {
			b.clock.advance(100 * time.Millisecond)
			if _, err := e.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			if rec, err := s.GetExecution(t.Context(), id(name)); err != nil {
				t.Fatal(err)
			} else if rec.Phase == core.WorkflowExecution_SUCCEEDED {
				return
			}
		}
		t.Fatalf("execution %s has not ended", name)
	}
	until("early")
	postgrestest.Exec(t, url, "INSERT INTO inbox OVERRIDING SYSTEM VALUE SELECT * FROM unseen")
	until("late")
}

// When the leases of a server that died have run out, by the database's clock, another server takes its shards.
func TestExecutionsOfAnEngineThatIsGoneAreTakenOver(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	w := fanOut(1)
	b := newBench(t)
	var engines []*engine.Engine
	for _, owner := range []string{"gone", "heir"} {
		s, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		b.store = &countingStore{Store: s}
		ttl := time.Hour
		if owner == "gone" {
			ttl = 300 * time.Millisecond
		}
		engines = append(engines, b.engine(owner, func(c *engine.Config) { c.LeaseTTL = ttl }))
	}
	b.register(w)
	if _, err := engines[0].Pass(t.Context()); err != nil { // the first server takes all shards, and dies
		t.Fatal(err)
	}
	id := createIn(t, b.store, b.objects, w, "e", nil, b.clock.Now())
	for {
		b.clock.advance(20 * time.Minute)
		if _, err := engines[1].Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		rec, err := b.store.GetExecution(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Phase == core.WorkflowExecution_SUCCEEDED {
			return
		}
	}
}
