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

// ExplainCache says what became of the search for a node's result. ErrNotFound names the nodes that there are, ErrInvalid
// those that are meant by one name.
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
		// What was looked for and found was so in the execution that it is taken from: here nothing was.
	} else if computed(n.Cache) {
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
				n.Cache.Key = found.Key // that of a hit is kept with its result alone
			}
		case !errors.Is(err, aloft.ErrNotFound):
			return nil, fmt.Errorf("explain cache of %s/%s: %w", n.Execution, n.ID, err)
		}
	}
	answer.Summary = summary(n, answer, miss)
	return answer, nil
}

// computed says whether a node was looked for and not found.
func computed(l *aloftv1.CacheLookup) bool {
	switch l.GetStatus() {
	case core.CatalogCacheStatus_CACHE_MISS, core.CatalogCacheStatus_CACHE_POPULATED, core.CatalogCacheStatus_CACHE_PUT_FAILURE, core.CatalogCacheStatus_CACHE_EVICTED:
		return true
	}
	return false
}

// explainMany is how many results a key is compared with: the latest of those that have something in common with it.
const explainMany = 500

// resultLister is what finds results: a catalog, or the lists of one pass over many nodes.
type resultLister interface {
	ListResults(context.Context, store.ResultQuery) ([]*store.Result, error)
}

// nearest is the earlier result that differs least from a node's key, and how. A node's own result is not earlier, even
// if a clock says so.
func nearest(ctx context.Context, results resultLister, n *store.Node) (*store.Result, []*aloftv1.CacheDifference, error) {
	for _, q := range catalog.Candidates(n.Cache.GetKey()) {
		q.Before, q.Limit = n.CreatedAt, explainMany
		found, err := results.ListResults(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		own := func(e *store.Result) bool { return e.Source.Execution == n.Execution && e.Source.Node == n.ID }
		if slices.ContainsFunc(found, own) {
			found = slices.DeleteFunc(slices.Clone(found), own) // a list may be another node's too
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
			text += ", " + span1(n.CreatedAt.Sub(at.AsTime())) + " before"
		}
	case computed(lookup):
		text = "miss: " + miss
		if nearest := answer.GetNearest(); nearest != nil {
			text += fmt.Sprintf(" (nearest earlier result: %s, %s before)", sourceName(n.Execution, nearest.GetSource(), nearest.GetId()), span1(n.CreatedAt.Sub(nearest.GetCreatedAt().AsTime())))
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

// cacheNote is what a status says of a node in a few words; empty: nothing.
func cacheNote(from aloft.ExecutionID, lookup *aloftv1.CacheLookup, miss string) string {
	switch status := lookup.GetStatus(); {
	case lookup == nil:
		return ""
	case status == core.CatalogCacheStatus_CACHE_HIT:
		return "cached from " + foundName(from, lookup.GetFound())
	case computed(lookup):
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

// cacheNotes makes the notes of the nodes of one execution. The reason of a miss is the one that ExplainCache gives, or none.
type cacheNotes struct {
	store     store.Catalog
	execution aloft.ExecutionID
	made      map[aloft.NodeID]string // of nodes that were computed: what differed does not change
	lists     *resultLists            // of this pass; nil: nothing was looked for
	spent     int                     // results that were listed, in all passes
}

// maxNoted is how many results the nodes of one execution are compared with, in all. Nodes beyond say that they were a miss
// and not why, which `aloft cache explain` says of each.
const maxNoted = 100_000

// pass begins with nodes that were just read: results that are listed from now on are all that were there before them.
func (c *cacheNotes) pass() {
	c.lists = nil
}

func (c *cacheNotes) of(ctx context.Context, n *store.Node) (string, error) {
	if n.Phase == core.NodeExecution_RECOVERED && n.Cache.GetStatus() != core.CatalogCacheStatus_CACHE_HIT {
		return "", nil // what it was compared with was so in the execution that it is taken from
	}
	if !computed(n.Cache) {
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

// resultLists answers what many nodes of the same tasks ask with few queries: a list that is whole answers for all times,
// and the list of a task also for one key; a list that is cut answers for nodes that were created at the same time.
type resultLists struct {
	store store.Catalog
	lists map[store.ResultQuery][]*store.Result
	cost  int // results that were listed, and queryCost for each query
}

// queryCost is how many results could be looked at while a query finds nothing.
const queryCost = 20

// ListResults gives a list that is not to be changed.
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

// missReason says why there was nothing: what differs, or, where nothing does, what the search met.
func missReason(lookup *aloftv1.CacheLookup, nearest *store.Result, differences []*aloftv1.CacheDifference) string {
	if lookup.GetReason() != "" && len(differences) == 0 {
		return lookup.GetReason()
	}
	return catalog.Summary(nearest, differences)
}

// foundName names what a hit was computed by.
func foundName(from aloft.ExecutionID, found *core.CatalogMetadata) string {
	return sourceName(from, found.GetSourceTaskExecution(), found.GetArtifactTag().GetArtifactId())
}

// sourceName is EXECUTION/NODE, with project and domain if they are not those of the one who asks; a result from outside has its id.
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

// span1 is a duration in one unit, which is enough to know what is meant.
func span1(d time.Duration) string {
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
