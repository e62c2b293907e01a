package simulation

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// watchedCatalog is the catalog of an engine. It checks each result at the moment at which the engine gets it.
type watchedCatalog struct {
	*catalog.Catalog
	world     *world
	readAhead map[string]time.Duration // when results were read ahead, by id
}

// readAheadLasts is for how long an engine uses what it read ahead.
const readAheadLasts = 100 * time.Millisecond

func (c *watchedCatalog) Ahead(ctx context.Context, ids []store.ResultID) ([]*store.Result, error) {
	found, err := c.Catalog.Ahead(ctx, ids)
	for _, e := range found {
		if e != nil {
			c.readAhead[e.ID] = c.world.elapsed
		}
	}
	return found, err
}

func (c *watchedCatalog) Use(ctx context.Context, e *store.Result) (string, error) {
	reason, err := c.Catalog.Use(ctx, e)
	if reason != "" && err == nil {
		c.world.withoutFaults(func() {
			if now, err := c.world.memory.GetResult(ctx, e.ID); err != nil || now.GoneAt.IsZero() {
				c.world.fail("P9: result %s is damaged (%s) and stays (%v)", e.ID, reason, err)
			}
		})
	}
	_, given := c.readAhead[e.ID]
	if reason != "" || err != nil {
		e = nil
	}
	c.checkFound(e, reason, given)
	return reason, err
}

func (c *watchedCatalog) FindOrReserve(ctx context.Context, r store.Reservation) (*store.Result, store.Reservation, string, error) {
	e, held, reason, err := c.Catalog.FindOrReserve(ctx, r)
	c.checkFound(e, reason, true)
	if e == nil && err == nil && held.Owner != r.Owner {
		c.world.count(waitsForResult)
	}
	return e, held, reason, err
}

// What happens to results.
const (
	resultUsed        = "a result is used again"
	resultRepaired    = "a result is found to be damaged"
	resultOverwritten = "a result is computed to overwrite another"
	resultTaken       = "a node names the result of another, which was quicker"
	waitsForResult    = "a node waits for who computes its result"
)

// checkFound is P9 at the moment of the hit: the result was adopted and is not gone, and all objects that it refers to are
// there and as they were written. given: the result came from the catalog, not from the step that uses it.
func (c *watchedCatalog) checkFound(e *store.Result, reason string, given bool) {
	w := c.world
	if reason != "" {
		w.count(resultRepaired)
	}
	if e == nil {
		return
	}
	w.withoutFaults(func() {
		now, err := w.memory.GetResult(w.ctx, e.ID)
		switch {
		case errors.Is(err, aloft.ErrNotFound) && !given:
			// The step that uses the result also adopts it: checkHit checks it when the step is committed.
		case err != nil:
			w.fail("P9: result %s was found and is not there: %w", e.ID, err)
		case !now.GoneAt.IsZero() && (c.readAhead[e.ID] == 0 || w.elapsed-c.readAhead[e.ID] > readAheadLasts):
			w.fail("P9: result %s was found and is gone: %s", e.ID, now.GoneReason)
		case now.ResultID != e.ResultID || !proto.Equal(now.Outputs, e.Outputs):
			w.fail("P9: result %s was found as %v with %v and is %v with %v", e.ID, e.ResultID, e.Outputs, now.ResultID, now.Outputs)
		}
		objects := slices.Clone(e.Objects)
		if ref := e.Outputs.GetRef(); ref.GetUri() != "" {
			objects = append(objects, &aloftv1.ObjectDigest{Uri: ref.GetUri(), Digest: "sha256:" + hex.EncodeToString(ref.GetDigest())})
		}
		for _, o := range objects {
			if got := w.digest(o.GetUri()); got != o.GetDigest() {
				w.fail("P9: result %s was found, its object %s has digest %q and was written with %q", e.ID, o.GetUri(), got, o.GetDigest())
			}
		}
	})
}

// digest is the digest of an object's content now; empty: there is no such object.
func (w *world) digest(uri string) string {
	key, err := blob.ParseURI(uri)
	if err != nil {
		return ""
	}
	content, err := blob.ReadAll(w.ctx, w.blobs, key, 1<<30)
	if err != nil {
		return ""
	}
	d := blob.NewDigest()
	d.Write(content)
	return d.Attributes().SHA256
}

// checkCached compares the new entries of a journal with the results that they take over.
func (w *world) checkCached(s *snapshot) error {
	for _, row := range s.journal[s.run.entries:] {
		for _, event := range row.Entry.GetEvents() {
			hit := event.GetNodeCached()
			if hit == nil {
				continue
			}
			w.count(resultUsed)
			node := s.state.Node(hit.GetNode())
			if err := w.checkHit(s, node, hit); err != nil {
				return fmt.Errorf("node %s: %w", node.ID(), err)
			}
		}
	}
	return nil
}

func (w *world) checkHit(s *snapshot, node machine.NodeView, hit *aloftv1.NodeCached) error {
	task := node.Task().GetId()
	if !node.Cacheable() || !isCached(task.GetName()) || s.run.planned.overwrites {
		return fmt.Errorf("task %s takes over a result (overwrites: %t)", task.GetName(), s.run.planned.overwrites)
	}
	id := hit.GetCache().GetFound().GetArtifactTag().GetArtifactId()
	e, err := w.memory.GetResult(w.ctx, id)
	if err != nil {
		return err
	}
	source, err := w.memory.GetAttempt(w.ctx, e.Source)
	if err != nil {
		return err
	}
	if source.Phase != core.TaskExecution_SUCCEEDED || !proto.Equal(source.Outputs, hit.GetOutputs()) || !proto.Equal(e.Outputs.GetRef(), hit.GetOutputs()) {
		return fmt.Errorf("it took over %v by result %s of %v, which ended %s with %v", hit.GetOutputs(), id, e.Source, source.Phase, source.Outputs)
	}
	record, err := w.memory.GetNode(w.ctx, s.record.ID, node.ID())
	if err != nil {
		return err
	}
	if w.damaged[record.Inputs.GetRef().GetUri()] || w.damaged[record.Outputs.GetRef().GetUri()] {
		return nil // damaged since the hit
	}
	inputs, err := w.value(record.Inputs)
	if err != nil {
		return err
	}
	outputs, err := w.value(record.Outputs)
	if err != nil {
		return err
	}
	if got, want := textOf(outputs, "o0"), textOf(taskOutputs(inputs, task), "o0"); got != want {
		return fmt.Errorf("it took over %.80q by result %s and would have computed %.80q", got, id, want)
	}
	return nil
}

// computations notes which nodes computed which results when, by the number of the commit.
type computations struct {
	commits   int
	begun     map[store.AttemptKey]int         // of nodes: the commit that scheduled the first attempt
	succeeded map[store.ResultID][]computation // of results that one node at a time computes
	owedWakes map[string]time.Duration         // nodes that wait for a node that has ended: when that was first seen
}

type computation struct {
	node     store.AttemptKey
	from, to int
}

func newComputations() computations {
	return computations{begun: map[store.AttemptKey]int{}, succeeded: map[store.ResultID][]computation{}, owedWakes: map[string]time.Duration{}}
}

// checkResults is P9 for the results of a step. If the step was refused, they are not in the catalog. If it was accepted, they
// are found, and no other node computed the same meanwhile if its task is a serialTask.
func (w *world) checkResults(step *store.Step, accepted bool, s *snapshot) {
	c := &w.computations
	c.commits++
	if !accepted {
		for _, r := range step.Results {
			if a, err := w.memory.GetAttempt(w.ctx, r.Source); err == nil && a.Phase == core.TaskExecution_SUCCEEDED {
				continue // another commit has adopted the result
			}
			if _, err := w.memory.GetResult(w.ctx, r.ID); err == nil {
				w.fail("P9: result %s of %v is there, and the commit that adopts it was refused", r.ID, r.Source)
			}
		}
		return
	}
	made := map[aloft.NodeID]bool{}
	for _, e := range step.Entry.GetEvents() {
		if a := e.GetAttemptScheduled(); a != nil && a.GetAttempt() == 0 {
			c.begun[store.AttemptKey{Execution: step.Execution, Node: s.state.Ref(a.GetNode()).ID()}] = c.commits
		}
		if a := e.GetAttemptEnded(); a.GetOutputs() != nil && s.state.Ref(a.GetNode()).Cacheable() {
			made[s.state.Ref(a.GetNode()).ID()] = true
		}
	}
	named, overwrites := 0, s.run.planned.overwrites
	for _, n := range step.Nodes {
		if !made[n.ID] || n.Cache.GetStatus() != core.CatalogCacheStatus_CACHE_POPULATED {
			continue
		}
		named++
		found, err := w.memory.GetResult(w.ctx, n.Cache.GetFound().GetArtifactTag().GetArtifactId())
		if err != nil {
			w.fail("P9: node %s of %s says that a result was kept, and there is none: %w", n.ID, step.ID, err)
			continue
		}
		if overwrites && !w.planned(found.Source.Execution.Name).overwrites {
			w.fail("P9: node %s of %s overwrites what is there, and names %s of %v", n.ID, step.ID, found.ID, found.Source)
		}
		if found.Source.Execution != step.ID || found.Source.Node != n.ID {
			w.count(resultTaken)
		}
	}
	if len(made) != named {
		w.fail("P9: %d attempts of tasks whose results are used again have succeeded and the records of %d nodes name one", len(made), named)
	}
	for _, r := range step.Results {
		found, err := w.memory.FindResult(w.ctx, r.ResultID)
		switch {
		case err != nil:
			w.fail("P9: the result of %v was adopted and is not found: %w", r.Source, err)
			continue
		case overwrites && !w.planned(found.Source.Execution.Name).overwrites: // another execution that overwrites may share the batch
			w.fail("P9: the execution of %v overwrites what is there, and %s of %v is still there", r.Source, found.ID, found.Source)
		case overwrites:
			w.count(resultOverwritten)
		}
		if !strings.HasPrefix(r.Name, catalogName+serialTask) || overwrites {
			continue
		}
		node := store.AttemptKey{Execution: step.Execution, Node: r.Source.Node}
		mine := computation{node, c.begun[node], c.commits}
		for _, other := range c.succeeded[r.ResultID] {
			if other.node != node && other.from < mine.to && mine.from < other.to {
				w.fail("P9: %v and %v computed %v at the same time, from commit %d to %d and from %d to %d",
					other.node, node, r.ResultID, other.from, other.to, mine.from, mine.to)
			}
		}
		c.succeeded[r.ResultID] = append(c.succeeded[r.ResultID], mine)
	}
}

const catalogName = "flyte_task-" // how the data catalog calls tasks

// checkWaiters is P5 for nodes that wait for a result: once the node that computed it has ended they are woken, and need not
// find that out by themselves. It holds while there are no faults. An execution that also waits for a service goes on when that
// is back, after longestLook at the latest.
func (w *world) checkWaiters() {
	w.withoutFaults(func() {
		for _, p := range w.plan.executions {
			e, err := w.memory.GetExecution(w.ctx, w.id(p.name))
			if err != nil || aloft.Terminal(e.Phase) {
				continue
			}
			soon := 45 * time.Second // engines may have to wait for leases
			if e.Waiting != "" {
				soon += longestLook
			}
			nodes, err := w.memory.ListNodes(w.ctx, e.ID, "", true, store.Query{})
			if err != nil {
				w.fail("list nodes of %s: %w", p.name, err)
			}
			named := 0
			if e.Waiting != "" {
				named++
			}
			for _, n := range nodes {
				if n.Waiting != "" && !aloft.Terminal(n.Phase) {
					named++
				}
			}
			if e.Waits != named {
				w.fail("P5: the record of %s counts %d named waits, there are %d", p.name, e.Waits, named)
			}
			for _, n := range nodes {
				waits := p.name + "/" + string(n.ID)
				owner, found := strings.CutPrefix(n.Waiting, "waits for the result that ")
				if !found || n.Phase != core.NodeExecution_QUEUED || !w.ended(strings.TrimSuffix(owner, " computes")) {
					delete(w.computations.owedWakes, waits+owner)
					continue
				}
				since, known := w.computations.owedWakes[waits+owner]
				if !known {
					w.computations.owedWakes[waits+owner] = w.elapsed
				} else if w.elapsed-since > soon {
					w.fail("P5: node %s %s for %s, and that has ended", waits, n.Waiting, w.elapsed-since)
				}
			}
		}
	})
}

// ended says whether the node that owns a reservation has ended, or its execution.
func (w *world) ended(owner string) bool {
	parts := strings.Split(owner, "/")
	if len(parts) != 4 {
		w.fail("nobody is called %s", owner)
		return false
	}
	e, err := w.memory.GetExecution(w.ctx, w.id(parts[2]))
	if err != nil || aloft.Terminal(e.Phase) {
		return true
	}
	n, err := w.memory.GetNode(w.ctx, e.ID, aloft.NodeID(parts[3]))
	return err == nil && aloft.Terminal(n.Phase)
}

// damage removes a result, or deletes or changes an object that it refers to. Large outputs are damaged only while no execution
// runs that could be about to read them, and if no recovery could take them over: there is no promise for objects that are
// deleted while they are used.
func (w *world) damage(r *rand.Rand) {
	var results []*store.Result
	w.withoutFaults(func() { results, _ = w.memory.ListResults(w.ctx, store.ResultQuery{}) })
	if len(results) == 0 {
		return
	}
	// Few results have an object to damage.
	withObject := slices.DeleteFunc(slices.Clone(results), func(e *store.Result) bool {
		return e.Size < longText && e.Name != catalogName+cachedTask+runFile && e.Name != catalogName+serialTask+runFile
	})
	if len(withObject) > 0 && r.IntN(4) > 0 {
		results = withObject
	}
	w.withoutFaults(func() {
		e, err := w.memory.GetResult(w.ctx, results[r.IntN(len(results))].ID)
		if err != nil {
			w.fail("P9: %w", err)
			return
		}
		uri := e.Outputs.GetRef().GetUri()
		if uri != "" && w.inUse(uri) {
			uri = ""
		}
		if len(e.Objects) > 0 {
			uri = e.Objects[0].GetUri()
		}
		key, err := blob.ParseURI(uri)
		if err != nil || r.IntN(6) == 0 {
			_, _ = w.memory.RemoveResults(w.ctx, []string{e.ID}, "somebody removed it", w.now())
			w.tell("result %s of %v is removed", e.ID, e.Source)
			return
		}
		if _, err := w.blobs.Stat(w.ctx, key); err != nil {
			return // the object was deleted before
		}
		delete(w.knownLiterals, uri)
		w.damaged[uri] = true
		if r.IntN(2) == 0 {
			_ = w.blobs.Delete(w.ctx, key)
			w.tell("object %s of result %s is deleted", uri, e.ID)
			return
		}
		w.blobs.Corrupt(key)
		w.tell("object %s of result %s is changed", uri, e.ID)
	})
}

// inUse says whether an execution that has not succeeded, or its recovery, may read an object.
func (w *world) inUse(uri string) bool {
	for _, p := range w.plan.executions {
		e, err := w.memory.GetExecution(w.ctx, w.id(p.name))
		switch {
		case err != nil || p.newer:
			continue
		case !aloft.Terminal(e.Phase):
			return true
		case e.Phase == core.WorkflowExecution_SUCCEEDED:
			continue
		}
		nodes, err := w.memory.ListNodes(w.ctx, e.ID, "", true, store.Query{})
		if err != nil {
			return true
		}
		for _, listed := range nodes {
			n, err := w.memory.GetNode(w.ctx, e.ID, listed.ID)
			if err != nil || n.Inputs.GetRef().GetUri() == uri || n.Outputs.GetRef().GetUri() == uri {
				return true
			}
		}
	}
	return false
}
