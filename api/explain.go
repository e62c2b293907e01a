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
		nearest, differences, err := nearest(ctx, s.Store, n.Cache.GetKey(), n.CreatedAt, n.Execution, n.ID)
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

// How many results a key is compared with, the latest of those that have something in common with it.
const (
	explainMany = 500
	explainFew  = 50 // in a status, for each of many nodes
)

// nearest is the earlier result that differs least from a node's key, and how. A node's own result is not earlier, whatever
// the clock says that it was computed by.
func nearest(ctx context.Context, catalogue store.Catalog, key *aloftv1.CacheKey, before time.Time, id aloft.ExecutionID, node aloft.NodeID) (*store.Result, []*aloftv1.CacheDifference, error) {
	for _, q := range catalog.Candidates(key) {
		q.Before, q.Limit = before, explainMany
		found, err := catalogue.ListResults(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		found = slices.DeleteFunc(found, func(e *store.Result) bool { return e.Source.Execution == id && e.Source.Node == node })
		if e, differences := catalog.Nearest(key, found); e != nil {
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

// cacheNotes makes the notes of the nodes of one execution. It reads the results of a task once, those from before the
// execution, so that a map of thousands of nodes costs one query.
type cacheNotes struct {
	store     store.Catalog
	execution aloft.ExecutionID
	before    time.Time // when the execution was created
	byTask    map[aloft.Key][]*store.Result
	made      map[string]string // of nodes that were computed: what differed does not change
	wide      int               // nodes for which was looked beyond their task
}

// How many nodes of an execution are compared with earlier results. `aloft cache explain` does it for each.
const (
	maxMissNotes = 1000
	maxWideNotes = 20
)

func (c *cacheNotes) of(ctx context.Context, node string, phase core.NodeExecution_Phase, lookup *aloftv1.CacheLookup) (string, error) {
	if phase == core.NodeExecution_RECOVERED && lookup.GetStatus() != core.CatalogCacheStatus_CACHE_HIT {
		return "", nil // what it was compared with was so in the execution that it is taken from
	}
	if !computed(lookup) {
		return cacheNote(c.execution, lookup, ""), nil
	}
	if note, ok := c.made[node]; ok {
		return note, nil
	}
	if len(c.made) >= maxMissNotes {
		return "miss", nil
	}
	key := lookup.GetKey()
	id := catalog.ID(key)
	task := aloft.Key{Project: id.Project, Domain: id.Domain, Name: id.Name}
	earlier, ok := c.byTask[task]
	if !ok {
		var err error
		if earlier, err = c.store.ListResults(ctx, store.ResultQuery{
			Project: id.Project, Domain: id.Domain, Name: id.Name, Gone: true, Before: c.before, Limit: explainFew,
		}); err != nil {
			return "", fmt.Errorf("list results of %s: %w", task, err)
		}
		if c.byTask == nil {
			c.byTask, c.made = map[aloft.Key][]*store.Result{}, map[string]string{}
		}
		c.byTask[task] = earlier
	}
	e, differences := catalog.Nearest(key, earlier)
	if e == nil && c.wide < maxWideNotes {
		c.wide++
		var err error
		if e, differences, err = nearest(ctx, c.store, key, c.before, c.execution, aloft.NodeID(node)); err != nil {
			return "", fmt.Errorf("list results like those of %s: %w", task, err)
		}
	} else if e == nil {
		return "miss", nil
	}
	note := cacheNote(c.execution, lookup, missReason(lookup, e, differences))
	c.made[node] = note
	return note, nil
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
