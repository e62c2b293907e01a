package engine

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/nodes"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/store"
)

// signature is the part of a node's cache keys that does not depend on its inputs.
func (e *Engine) signature(node machine.NodeRef) *catalog.Signature {
	template := node.Template()
	if s, ok := e.signatures.Get(template); ok {
		return s
	}
	s := catalog.NewSignature(node.Task(), template.GetMetadata())
	e.signatures.Put(template, s, weight.Decoded(int64(proto.Size(template))))
	return s
}

// cachedSince is the first version of the journal that has cached nodes.
const cachedSince = 2

// Cached looks for the result of a node. Where one node at a time computes a result (serialized), a miss also asks for the
// reservation.
func (f *facts) Cached(node machine.NodeRef, inputs *aloftv1.LiteralRef) (machine.CacheAnswer, error) {
	if f.engine.config.Catalog == nil || f.version < cachedSince {
		return machine.CacheAnswer{}, nil
	}
	fetched, err := f.prefetch(node, inputs)
	if err != nil {
		return machine.CacheAnswer{}, err
	}
	key, found := fetched.key, fetched.found
	if f.state.Create().GetOverwriteCache() {
		catalog.Preview(key, fetched.values)
		return machine.CacheAnswer{Lookup: &aloftv1.CacheLookup{
			Status: core.CatalogCacheStatus_CACHE_SKIPPED, Key: key, Reason: "the execution overwrites what was cached",
		}}, nil
	}
	lookup := &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_MISS, Key: key}
	answer := machine.CacheAnswer{Lookup: lookup}
	if found != nil {
		if lookup.Reason, err = f.engine.config.Catalog.Use(f.ctx, found); lookup.Reason != "" {
			found = nil
		}
	}
	if err == nil && found == nil && f.serialized(node) {
		mine := store.Reservation{ID: catalog.ID(key), Owner: f.reservationOwner(node.ID()), Execution: f.key, Node: node.ID()}
		var held store.Reservation
		var reason string
		found, held, reason, err = f.engine.config.Catalog.FindOrReserve(f.ctx, mine)
		lookup.Reason = cmp.Or(reason, lookup.Reason)
		switch {
		case err != nil || found != nil:
		case held.Owner == mine.Owner:
			lookup.Reservation = core.CatalogReservation_RESERVATION_ACQUIRED
		default:
			lookup.Reservation = core.CatalogReservation_RESERVATION_EXISTS
			answer.WaitFor, answer.Reason = store.WaitForResult(mine.ID), "waits for the result that "+held.Owner+" computes"
		}
	}
	if err != nil {
		return machine.CacheAnswer{}, aloft.Blame(aloft.ServiceCatalog, err)
	}
	if found != nil {
		lookup.Reason = missingOutput(found, node.Interface())
	}
	if found == nil || lookup.Reason != "" {
		catalog.Preview(key, fetched.values)
		return answer, nil
	}
	if found.Source != (aloft.AttemptID{}) {
		lookup.Key = nil // the stored result has this key already; dropping it saves memory when there are many hits
	}
	lookup.Status, lookup.Found = core.CatalogCacheStatus_CACHE_HIT, catalog.Metadata(found)
	if len(found.Outputs.GetRef().GetDigest()) > 0 {
		f.cacheValue(found.Outputs, found.Outputs.GetValue())
		answer.Outputs = found.Outputs.GetRef()
	}
	return answer, nil
}

// prefetched is the cache key of a node and what the catalog has for it.
type prefetched struct {
	inputs *aloftv1.LiteralRef
	values *core.LiteralMap
	key    *aloftv1.CacheKey
	found  *store.Result // as the catalog had it; nil: it had none
}

const (
	maxPrefetch = 64 // nodes whose results are read at once

	// A prefetched result that is older is read again: the check of large objects (Catalog.Use) may have taken long.
	prefetchLasts = 100 * time.Millisecond
)

// prefetch returns the cache key of a node and what the catalog has for it, with one read for this node and those that begin
// next: a node whose result is known costs little beside its part of that read. The first read of a step is for one node and
// each further one for twice as many, so that hardly more is read in vain than is used. Nothing prefetched outlives the step.
func (f *facts) prefetch(node machine.NodeRef, inputs *aloftv1.LiteralRef) (*prefetched, error) {
	if a := f.prefetched[node.Index()]; a != nil {
		delete(f.prefetched, node.Index()) // a second question about this node is answered by a new read
		if f.engine.clock.Now().Sub(f.prefetchedAt) <= prefetchLasts {
			return a, nil
		}
		f.prefetchCount = 0 // each node takes long: results that are read far ahead get too old
	}
	a, err := f.withKey(node, inputs)
	if err != nil || f.state.Create().GetOverwriteCache() {
		return a, err
	}
	f.prefetched, f.prefetchCount = make(map[uint32]*prefetched), min(max(2*f.prefetchCount, 1), maxPrefetch)
	all, ids := []*prefetched{a}, []store.ResultID{catalog.ID(a.key)}
	count := f.prefetchCount
	if f.state.Create().GetRecovers() != nil {
		count = 0 // most nodes are taken over from the source, without a lookup
	}
	for next := range f.state.Next(count) {
		if next.Index() == node.Index() || !next.Cacheable() || next.Handles() != nil {
			continue
		}
		// A failure or an error of its inputs is returned when the machine asks for them.
		inputs, failure, err := f.Inputs(next)
		if failure != nil || err != nil {
			continue
		}
		b, err := f.withKey(next, inputs)
		if err != nil {
			continue
		}
		f.prefetched[next.Index()] = b
		all, ids = append(all, b), append(ids, catalog.ID(b.key))
	}
	if err := f.findAdopted(); err != nil {
		return nil, err
	}
	// The last of the reads, so that its results are as fresh as can be when they are used.
	found, err := f.engine.config.Catalog.Ahead(f.ctx, ids)
	if err != nil {
		f.prefetched = nil
		return nil, aloft.Blame(aloft.ServiceCatalog, err)
	}
	f.prefetchedAt = f.engine.clock.Now()
	for i, e := range found {
		if e == nil {
			delete(f.catalogResults, ids[i]) // the other execution's result was removed since: the step adds its own
		}
		all[i].found = cmp.Or(e, f.adopted[ids[i]])
	}
	return a, nil
}

// findAdopted moves outcomes that the state has adopted in this step from reported to adopted, where nodes that begin later in
// the step find their results: of a chain of the same task on the same input the second node is a hit. What the commit of the
// step puts into the catalog follows from its events (addResult).
func (f *facts) findAdopted() error {
	rest := f.reported[:0]
	for _, r := range f.reported {
		node := f.state.Node(r.node.Index())
		adopted := node.Phase == core.NodeExecution_SUCCEEDED && node.Attempts == r.outcome.GetAttempt()+1 &&
			bytes.Equal(node.Outputs.GetDigest(), r.outcome.GetOutputs().GetRef().GetDigest())
		if !adopted {
			rest = append(rest, r)
			continue
		}
		if !node.Cacheable() {
			continue
		}
		inputs, err := f.nodeInputs(r.node)
		if isLost(err) {
			continue
		}
		if err != nil {
			return err
		}
		key := f.engine.signature(r.node).Key(inputs)
		id := catalog.ID(key)
		if f.adopted[id] != nil {
			continue // of results with the same key in one step the first is used
		}
		attempt := aloft.AttemptID{Execution: f.run.id, Node: node.ID(), Attempt: r.outcome.GetAttempt()}
		if f.adopted == nil {
			f.adopted = make(map[store.ResultID]*store.Result)
		}
		f.adopted[id] = newResult(r.node, key, attempt, r.outcome.GetOutputs(), r.outcome.GetObjects(), r.outcome.GetEndedAt())
	}
	f.reported = rest
	return nil
}

// reportedOutcome is an outcome with outputs, and the node of its attempt.
type reportedOutcome struct {
	node    machine.NodeRef
	outcome *aloftv1.Outcome
}

// isLost says whether a value is missing where it was kept, or damaged: another read would fail in the same way.
func isLost(err error) bool {
	return errors.Is(err, aloft.ErrNotFound) || errors.Is(err, aloft.ErrConflict) || errors.Is(err, aloft.ErrUnreadable)
}

// newResult is the result of an attempt that is adopted.
func newResult(node machine.NodeRef, key *aloftv1.CacheKey, attempt aloft.AttemptID, outputs *aloftv1.Literals, objects []*aloftv1.ObjectDigest, endedAt int64) *store.Result {
	result := &store.Result{
		ResultID: catalog.ID(key), ID: resultID(attempt), Outputs: outputs, Objects: objects, Key: key,
		Source: attempt, Metadata: catalog.SourceMetadata(attempt), Dataset: catalog.DatasetMetadata(node.Task().GetId().GetVersion()),
		CreatedAt: time.Unix(0, endedAt).UTC(), Size: outputs.GetRef().GetSize(),
	}
	for _, o := range objects {
		result.Size += o.GetSize()
	}
	return result
}

// withKey computes the cache key of a node from its inputs; the lookup is still to be made.
func (f *facts) withKey(node machine.NodeRef, inputs *aloftv1.LiteralRef) (*prefetched, error) {
	values, err := f.value(inputs, func() (*aloftv1.Literals, error) { return f.engine.store.NodeInputs(f.ctx, f.key, node.ID()) })
	if err != nil {
		return nil, err
	}
	return &prefetched{inputs: inputs, values: values, key: f.engine.signature(node).Key(values)}, nil
}

// missingOutput says that a result lacks an output of the interface; empty: it has all. A client of the data catalog may have
// put anything there.
func missingOutput(e *store.Result, of *core.TypedInterface) string {
	if e.Outputs.GetRef().GetUri() != "" {
		return "" // an object is too large to be read for this
	}
	for name := range of.GetOutputs().GetVariables() {
		if e.Outputs.GetValue().GetLiterals()[name] == nil {
			return fmt.Sprintf("the result that was found, %s, has no output %q", e.ID, name)
		}
	}
	return ""
}

// serialized says whether one node at a time computes the node's result.
func (f *facts) serialized(node machine.NodeRef) bool {
	return f.engine.config.Catalog != nil && node.Cacheable() && catalog.Serialized(node.Task(), node.Template().GetMetadata())
}

// mayReserve says whether a node of the execution, begun or not, may have a reservation: a reservation that was made in a step
// whose commit failed stays, and its node may never begin.
func (f *facts) mayReserve() bool {
	if f.engine.config.Catalog == nil || f.state.Len() == 0 {
		return false
	}
	closure := f.state.Ref(0).Closure()
	for _, t := range closure.GetTasks() {
		if catalog.Serialized(t.GetTemplate(), nil) {
			return true
		}
	}
	for _, w := range nodes.Workflows(closure) {
		for n := range nodes.All(w.GetTemplate()) {
			if catalog.Serialized(nil, n.GetMetadata()) {
				return true
			}
		}
	}
	return false
}

// reservationOwner is the name of a node of this execution in its reservations.
func (f *facts) reservationOwner(node aloft.NodeID) string {
	return f.state.Execution().ID.String() + "/" + string(node)
}

// updateCatalog adds to a step what its commit changes in the catalog for a node: the result of the attempt that the node adopts
// (ended; nil: of none), and the end of the node's reservation.
func (f *facts) updateCatalog(node machine.NodeView, ended *aloftv1.AttemptEnded, record *store.Node, step *store.Step) error {
	reserved := aloft.Terminal(node.Phase) && f.serialized(node.NodeRef)
	if node.Inputs == nil && len(node.Interface().GetInputs().GetVariables()) > 0 {
		reserved = false // its inputs could not be resolved, so it never asked for a reservation
	}
	if ended == nil && !reserved {
		return nil
	}
	inputs, err := f.nodeInputs(node.NodeRef)
	if isLost(err) {
		// The node has the outputs of the attempt all the same. Its reservation ends with the execution.
		if ended != nil {
			record.Cache = &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_PUT_FAILURE, Reason: "what the node was given is gone: " + err.Error()}
		}
		return nil
	}
	if err != nil {
		return err
	}
	key := f.engine.signature(node.NodeRef).Key(inputs)
	if reserved {
		step.Releases = append(step.Releases, store.Release{ID: catalog.ID(key), Owner: f.reservationOwner(node.ID())})
	}
	if ended == nil {
		return nil
	}
	catalog.Preview(key, inputs)
	return f.addResult(node, key, ended, record, step)
}

// addResult puts the result of an attempt into the catalog by the commit that adopts it.
func (f *facts) addResult(node machine.NodeView, key *aloftv1.CacheKey, ended *aloftv1.AttemptEnded, record *store.Node, step *store.Step) error {
	outputs, err := f.recordValue(node.Outputs, func() (*aloftv1.Literals, error) { return f.outputsOf(node.NodeRef) })
	if err != nil {
		return err
	}
	attempt := aloft.AttemptID{Execution: step.ID, Node: node.ID(), Attempt: ended.GetAttempt()}
	found := newResult(node.NodeRef, key, attempt, outputs, ended.GetObjects(), ended.GetEndedAt())
	lookup := &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_POPULATED, Key: key}
	if record.Cache != nil { // the node was queued in this very step
		lookup.Reason, lookup.Reservation = record.Cache.GetReason(), record.Cache.GetReservation()
	}
	first := f.catalogResults[found.ResultID]
	if used := f.adopted[found.ResultID]; first == nil && used != nil && used.ID != found.ID {
		first = used // by a node that began in this step
	}
	if first != nil {
		found = first
		by := "another client"
		if first.Source != (aloft.AttemptID{}) {
			by = fmt.Sprintf("node %s of execution %s", first.Source.Node, first.Source.Execution)
		}
		lookup.Reason = "the same was kept by " + by + " meanwhile, and this result is not"
	} else {
		if f.catalogResults == nil {
			f.catalogResults = make(map[store.ResultID]*store.Result)
		}
		f.catalogResults[found.ResultID] = found
		step.Results = append(step.Results, found)
		step.Overwrite = f.state.Create().GetOverwriteCache()
	}
	lookup.Found = catalog.Metadata(found)
	record.Cache = lookup
	return nil
}

// resultID is the same each time it is asked for, so that a repeated step makes the same result. It has the form of a UUID,
// which clients of a data catalog expect.
func resultID(a aloft.AttemptID) string {
	sum := sha256.Sum256([]byte("result/" + a.String()))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
