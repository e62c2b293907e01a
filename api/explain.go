package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/catalog"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// ExplainCache says whether a result was found for a node, and if not, how the nearest earlier result differs. ErrNotFound lists
// the nodes of the execution; ErrInvalid lists the nodes that share the name.
func (s *Results) ExplainCache(ctx context.Context, r *aloftv1.ExplainCacheRequest) (*aloftv1.ExplainCacheResponse, error) {
	var problems field.Problems
	problems.Execution(r.GetId())
	problems.Need("node", r.GetNode())
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("explain cache: %w", err)
	}
	n, err := findNode(ctx, s.Store, aloft.ExecutionIDOf(r.GetId()), r.GetNode())
	if err != nil {
		return nil, err
	}
	miss := ""
	answer := &aloftv1.ExplainCacheResponse{Node: string(n.ID), Lookup: n.Cache, Waiting: n.Waiting}
	if n.Phase == core.NodeExecution_RECOVERED {
		// The lookup is that of the execution from which the node was taken over: this execution made none.
	} else if cacheMissed(n.Cache) {
		nearest, differences, err := nearest(ctx, s.Store, n)
		if err != nil {
			return nil, fmt.Errorf("explain cache of %s/%s: %w", n.Execution, n.ID, err)
		}
		answer.Nearest, answer.Differences = cachedResult(nearest), differences
		miss = missReason(n.Cache, nearest, differences)
	} else if id := n.Cache.GetFound().GetArtifactTag().GetArtifactId(); id != "" {
		switch found, err := s.Store.GetResult(ctx, id); {
		case err == nil:
			answer.Nearest = cachedResult(found)
			if n.Cache.GetKey() == nil {
				n.Cache.Key = found.Key // the record of a hit has no key: its result has the same
			}
		case !errors.Is(err, aloft.ErrNotFound):
			return nil, fmt.Errorf("explain cache of %s/%s: %w", n.Execution, n.ID, err)
		}
	}
	answer.Summary = summary(n, answer, miss)
	return answer, nil
}

// cacheMissed says whether a lookup found no result, so that the node was computed.
func cacheMissed(l *aloftv1.CacheLookup) bool {
	switch l.GetStatus() {
	case core.CatalogCacheStatus_CACHE_MISS, core.CatalogCacheStatus_CACHE_POPULATED, core.CatalogCacheStatus_CACHE_PUT_FAILURE, core.CatalogCacheStatus_CACHE_EVICTED:
		return true
	}
	return false
}

// maxCandidates is how many results a key is compared with at most: the latest of each query of catalog.Candidates.
const maxCandidates = 500

// resultLister lists results: a catalog, or the resultLists of one pass over many nodes.
type resultLister interface {
	ListResults(context.Context, store.ResultQuery) ([]*store.Result, error)
}

// nearest is the earlier result that differs least from a node's key, and the differences. The node's own result does not count,
// although by the clock of another server it may seem earlier than the node.
func nearest(ctx context.Context, results resultLister, n *store.Node) (*store.Result, []*aloftv1.CacheDifference, error) {
	for _, q := range catalog.Candidates(n.Cache.GetKey()) {
		q.Before, q.Limit = n.CreatedAt, maxCandidates
		found, err := results.ListResults(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		own := func(e *store.Result) bool { return e.Source.Execution == n.Execution && e.Source.Node == n.ID }
		if slices.ContainsFunc(found, own) {
			found = slices.DeleteFunc(slices.Clone(found), own) // resultLists may give the same list for another node
		}
		if e, differences := catalog.Nearest(n.Cache.GetKey(), found); e != nil {
			return e, differences, nil
		}
	}
	return nil, nil, nil
}

// summary is an explanation in one line.
func summary(n *store.Node, answer *aloftv1.ExplainCacheResponse, miss string) string {
	lookup := answer.GetLookup()
	var text string
	switch status := lookup.GetStatus(); {
	case n.Phase == core.NodeExecution_RECOVERED && status == core.CatalogCacheStatus_CACHE_HIT:
		text = "recovered: the execution that this one recovers had taken it from the cache, computed by " + foundName(n.Execution, lookup.GetFound())
	case n.Phase == core.NodeExecution_RECOVERED:
		text = "recovered: the execution that this one recovers had computed it"
	case lookup == nil && (aloft.Terminal(n.Phase) || !n.StartedAt.IsZero()):
		text = "not cached: its task does not ask for it (cache=True)"
	case lookup == nil:
		text = "not looked for yet"
	case status == core.CatalogCacheStatus_CACHE_HIT:
		text = "hit: computed by " + foundName(n.Execution, lookup.GetFound())
		if at := answer.GetNearest().GetCreatedAt(); at != nil {
			text += ", " + roundedSpan(n.CreatedAt.Sub(at.AsTime())) + " before"
		}
	case cacheMissed(lookup):
		text = "miss: " + miss
		if nearest := answer.GetNearest(); nearest != nil {
			text += fmt.Sprintf(" (nearest earlier result: %s, %s before)", sourceName(n.Execution, nearest.GetSource(), nearest.GetId()), roundedSpan(n.CreatedAt.Sub(nearest.GetCreatedAt().AsTime())))
		}
		if status == core.CatalogCacheStatus_CACHE_PUT_FAILURE {
			text += "; what it computed could not be kept"
		}
	default:
		text = cacheNote(n.Execution, lookup, "")
	}
	if n.Waiting != "" && !aloft.Terminal(n.Phase) {
		text += "; " + n.Waiting
	}
	return text
}

// cacheNote says in a few words how a node's lookup ended; empty: there was no lookup. miss is the reason of a miss.
func cacheNote(from aloft.ExecutionID, lookup *aloftv1.CacheLookup, miss string) string {
	switch status := lookup.GetStatus(); {
	case lookup == nil:
		return ""
	case status == core.CatalogCacheStatus_CACHE_HIT:
		return "cached from " + foundName(from, lookup.GetFound())
	case cacheMissed(lookup):
		return "miss: " + miss
	case status == core.CatalogCacheStatus_CACHE_SKIPPED:
		return withReason("computed anew: the execution overwrites cached results", lookup.GetReason())
	case status == core.CatalogCacheStatus_CACHE_LOOKUP_FAILURE:
		return withReason("not looked for: the catalog could not answer", lookup.GetReason())
	}
	return withReason("not cached", lookup.GetReason())
}

func withReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + reason
}

// cacheNotes makes the cache notes of the nodes of one execution, in passes, each over the nodes of one read. The reason of a
// miss is that of ExplainCache, or is left out once maxNoted is reached: 0 ≤ spent < maxNoted + the cost of one node.
type cacheNotes struct {
	store     store.Catalog
	execution aloft.ExecutionID
	made      map[aloft.NodeID]string // finished notes of nodes that were computed: a later pass would find the same
	lists     *resultLists            // of this pass; nil: no result was listed yet
	spent     int                     // cost of all lists, in all passes (resultLists.cost)
}

// maxNoted is how many results the nodes of one execution are compared with, in all. After that the notes say "miss" without a
// reason; `aloft cache explain` gives the reason for a single node.
const maxNoted = 100_000

// pass begins a pass over nodes that were just read. It drops the lists of the pass before: they may lack results that are earlier
// than the newest of these nodes.
func (c *cacheNotes) pass() {
	c.lists = nil
}

// of is the note of a node.
func (c *cacheNotes) of(ctx context.Context, n *store.Node) (string, error) {
	if n.Phase == core.NodeExecution_RECOVERED && n.Cache.GetStatus() != core.CatalogCacheStatus_CACHE_HIT {
		return "", nil // the lookup is that of the execution from which the node was taken over
	}
	if !cacheMissed(n.Cache) {
		return cacheNote(c.execution, n.Cache, ""), nil
	}
	if note, ok := c.made[n.ID]; ok {
		return note, nil
	}
	if c.spent >= maxNoted {
		return "miss", nil
	}
	if c.lists == nil {
		c.lists = &resultLists{store: c.store, lists: map[store.ResultQuery][]*store.Result{}}
	}
	before := c.lists.cost
	e, differences, err := nearest(ctx, c.lists, n)
	if err != nil {
		return "", fmt.Errorf("list results like that of %s/%s: %w", n.Execution, n.ID, err)
	}
	c.spent += c.lists.cost - before
	note := cacheNote(c.execution, n.Cache, missReason(n.Cache, e, differences))
	if c.made == nil {
		c.made = map[aloft.NodeID]string{}
	}
	c.made[n.ID] = note
	return note, nil
}

// resultLists lists results for many nodes of the same tasks with few queries. A list that is complete (shorter than its limit)
// serves for all values of Before, and the complete list of a task also for one of its versions or tags. A list that reached
// its limit serves only the same query again, as of nodes that were created at the same time.
type resultLists struct {
	store store.Catalog
	lists map[store.ResultQuery][]*store.Result
	cost  int // results that were given, plus queryCost for each query of the store
}

// queryCost is what a query costs that finds nothing, counted in results that could be compared in that time.
const queryCost = 20

// ListResults implements resultLister. The list must not be changed.
func (l *resultLists) ListResults(ctx context.Context, q store.ResultQuery) ([]*store.Result, error) {
	whole := q
	whole.Before = time.Time{}
	ofTask := whole
	ofTask.Version, ofTask.Tag = "", ""
	found, ok := l.lists[ofTask]
	if !ok || q.Name == "" || len(found) >= q.Limit {
		var err error
		if found, err = l.list(ctx, whole); err == nil && len(found) >= q.Limit {
			found, err = l.list(ctx, q)
		}
		if err != nil {
			return nil, err
		}
	}
	l.cost += len(found)
	other := func(e *store.Result) bool {
		return !e.CreatedAt.Before(q.Before) || q.Version != "" && e.Version != q.Version || q.Tag != "" && e.Tag != q.Tag && !slices.Contains(e.Tags, q.Tag)
	}
	if !slices.ContainsFunc(found, other) {
		return found, nil
	}
	return slices.DeleteFunc(slices.Clone(found), other), nil
}

func (l *resultLists) list(ctx context.Context, q store.ResultQuery) ([]*store.Result, error) {
	if found, ok := l.lists[q]; ok {
		return found, nil
	}
	found, err := l.store.ListResults(ctx, q)
	if err != nil {
		return nil, err
	}
	l.cost += queryCost
	l.lists[q] = found
	return found, nil
}

// missReason says why no result was found: how the nearest one differs, or, without a difference, the reason of the lookup.
func missReason(lookup *aloftv1.CacheLookup, nearest *store.Result, differences []*aloftv1.CacheDifference) string {
	if lookup.GetReason() != "" && len(differences) == 0 {
		return lookup.GetReason()
	}
	return catalog.Summary(nearest, differences)
}

// foundName is the node that computed the result of a hit.
func foundName(from aloft.ExecutionID, found *core.CatalogMetadata) string {
	return sourceName(from, found.GetSourceTaskExecution(), found.GetArtifactTag().GetArtifactId())
}

// sourceName is EXECUTION/NODE of the node that computed a result, with project and domain if they are not those of from. A result
// that a client added is named by its id.
func sourceName(from aloft.ExecutionID, source *core.TaskExecutionIdentifier, id string) string {
	node := source.GetNodeExecutionId()
	if node == nil {
		return "a client (result " + id + ")"
	}
	execution := aloft.ExecutionIDOf(node.GetExecutionId())
	if execution.Project == from.Project && execution.Domain == from.Domain {
		return execution.Name + "/" + node.GetNodeId()
	}
	return execution.String() + "/" + node.GetNodeId()
}

// roundedSpan is a duration in one unit, rounded down.
func roundedSpan(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than 1 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
