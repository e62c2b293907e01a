package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// keptResults is a catalog that lists results, the newest first, and counts how often it was asked.
type keptResults struct {
	store.Catalog
	results []*store.Result // the oldest first
	asked   int
}

func (k *keptResults) ListResults(_ context.Context, q store.ResultQuery) (found []*store.Result, _ error) {
	k.asked++
	for i := len(k.results) - 1; i >= 0 && len(found) < q.Limit; i-- {
		e := k.results[i]
		if (q.Project == "" || q.Project == e.Project) && (q.Domain == "" || q.Domain == e.Domain) && (q.Name == "" || q.Name == e.Name) &&
			(q.Version == "" || q.Version == e.Version) && (q.Tag == "" || q.Tag == e.Tag) && (q.Before.IsZero() || e.CreatedAt.Before(q.Before)) {
			found = append(found, e)
		}
	}
	return found, nil
}

// cachedNode is a node that computes a task's result for x and was created at a given second, and its result, created a second
// later.
func cachedNode(execution, task string, node, second, x int) (*store.Node, *store.Result) {
	key := &aloftv1.CacheKey{Project: "p", Domain: "d", Task: task, CacheVersion: "1", InputsHash: strings.Repeat("i", 11), OutputsHash: strings.Repeat("o", 11), Tag: fmt.Sprint("tag", x),
		Inputs: []*aloftv1.CacheInput{{Name: "x", Hash: fmt.Sprint(x), Preview: fmt.Sprint(x)}}}
	n := &store.Node{
		Execution: aloft.ExecutionID{Project: "p", Domain: "d", Name: execution}, ID: aloft.NodeID(fmt.Sprint("n", node)), Phase: core.NodeExecution_SUCCEEDED,
		CreatedAt: noon.Add(time.Duration(second) * time.Second), Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_POPULATED, Key: key},
	}
	r := &store.Result{
		ResultID: store.ResultID{Project: "p", Domain: "d", Name: "flyte_task-" + task, Version: "1-" + key.InputsHash + "-" + key.OutputsHash, Tag: key.Tag},
		ID:       fmt.Sprint(execution, node), Key: key, CreatedAt: n.CreatedAt.Add(time.Second),
	}
	r.Source.Execution, r.Source.Node = n.Execution, n.ID
	return n, r
}

func TestAStatusSaysOfAMissWhatItsExplanationSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                   string
		former, chain, at      int // results of former executions; nodes of this one, and how many of them are created at once
		want                   map[int]string
		unexplained, queriesUp int
	}{
		{"the first run of a chain", 0, 4, 1, map[int]string{0: "miss: never computed before", 1: `miss: input "x" was 0 and is 1`}, 0, 20},
		{"a later run", 30, 4, 1, map[int]string{0: `miss: input "x" was -1 and is 0`}, 0, 5},
		{"a map beside many results", maxCandidates + 10, 30, 30, map[int]string{29: `miss: input "x" was -1 and is 29`}, 0, 40},
		{"a chain longer than what is compared", maxCandidates, 300, 1, map[int]string{}, 300, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			kept := &keptResults{}
			for i := range c.former {
				_, r := cachedNode("former", "twice", i, -10_000, i-c.former)
				kept.results = append(kept.results, r)
			}
			var nodes []*store.Node
			for i := range c.chain {
				n, r := cachedNode("this", "twice", i, 2*(i/c.at), i)
				nodes, kept.results = append(nodes, n), append(kept.results, r)
			}
			notes := cacheNotes{store: kept, execution: nodes[0].Execution}
			notes.pass()
			said := map[int]string{}
			for i, n := range nodes {
				var err error
				if said[i], err = notes.of(t.Context(), n); err != nil {
					t.Fatal(err)
				}
			}
			if kept.asked > c.queriesUp {
				t.Errorf("the catalog was asked %d times, want up to %d", kept.asked, c.queriesUp)
			}
			unexplained := 0
			for i, n := range nodes {
				e, differences, err := nearest(t.Context(), kept, n)
				if err != nil {
					t.Fatal(err)
				}
				if want := "miss: " + missReason(n.Cache, e, differences); said[i] == "miss" {
					unexplained++
				} else if said[i] != want {
					t.Errorf("%s: a status says %q, its explanation %q", n.ID, said[i], want)
				}
			}
			if unexplained > c.unexplained {
				t.Errorf("%d nodes have no reason, want up to %d", unexplained, c.unexplained)
			}
			for i, want := range c.want {
				if said[i] != want {
					t.Errorf("n%d: %q, want %q", i, said[i], want)
				}
			}
		})
	}
}
