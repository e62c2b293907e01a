package machine

import (
	"errors"
	"fmt"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// What was computed before is not computed again: results that the catalog has, and those of the execution that this one
// recovers. Either is asked once, when a node's turn has come, and the answer is written into the event that used it.
//
//	recovered ◀── begins ──▶ hit ──▶ succeeded
//	                 │
//	                 ├──▶ miss ──▶ queued ──▶ first attempt
//	                 └──▶ computed by another node ──▶ queued, parked ──(woken, or by its time)──▶ looks again

// CacheAnswer is what the catalog says of a node.
type CacheAnswer struct {
	Lookup  *aloftv1.CacheLookup // nil: the node is not cached after all
	Outputs *aloftv1.LiteralRef  // on a hit; nil: a result without outputs
	WaitFor string               // what a Wake will say when the one who computes the result has ended; empty: it is ours to compute
	Reason  string               // who that is, for people
}

func (c *CacheAnswer) hit() bool {
	return c.Lookup.GetStatus() == core.CatalogCacheStatus_CACHE_HIT
}

// Recovery is what an execution that is recovered has of a node.
type Recovery struct {
	Take       bool                 // the node had finished: its results are taken over
	Inputs     *aloftv1.LiteralRef  // the rest up to Source is set if so
	Outputs    *aloftv1.LiteralRef  // nil: none
	DeckURI    string               // canonical; empty: none
	Cache      *aloftv1.CacheLookup // as the node had it; nil: it was not cached
	Source     aloft.NodeID         // the node there
	Checkpoint string               // of its last attempt, if it had not finished and left one
}

// recover takes over what the execution that this one recovers has of a node. An end-node is not taken
// over: its outputs follow from those of the nodes before it. Nor is a failure node, which handles each failure anew.
func (t *step) recover(i uint32) (taken bool, err error) {
	if !t.recoverable(i) {
		return false, nil
	}
	r, err := t.facts.Recovered(t.Ref(i))
	if err != nil {
		return false, fmt.Errorf("recover node %s: %w", t.nodeID(i), err)
	}
	if !r.Take {
		return false, nil
	}
	return true, t.decide(&aloftv1.Event{At: t.at, Kind: &aloftv1.Event_NodeRecovered{NodeRecovered: &aloftv1.NodeRecovered{
		Node: i, Inputs: r.Inputs, Outputs: r.Outputs, DeckUri: r.DeckURI, Cache: r.Cache, Source: string(r.Source),
	}}})
}

// checkpoint is where the first attempt of a node may go on from.
func (t *step) checkpoint(i uint32) (string, error) {
	if !t.recoverable(i) {
		return "", nil
	}
	r, err := t.facts.Recovered(t.Ref(i))
	if err != nil {
		return "", fmt.Errorf("find the checkpoint of node %s: %w", t.nodeID(i), err)
	}
	return r.Checkpoint, nil
}

func (t *step) cached(i uint32, inputs *aloftv1.LiteralRef) (CacheAnswer, error) {
	c, err := t.facts.Cached(t.Ref(i), inputs)
	if err != nil {
		return c, fmt.Errorf("look up the result of node %s: %w", t.nodeID(i), err)
	}
	return c, nil
}

// recoverable says whether a node can be taken over from another execution.
func (s *State) recoverable(i uint32) bool {
	spec, c := s.spec(i), s.scopeOf(i)
	return s.create.GetRecovers() != nil && spec.kind.can().recover && i-c.first != c.body.failure
}

func (s *State) nodeCached(at int64, e *aloftv1.NodeCached) error {
	i := e.GetNode()
	if c := (CacheAnswer{Lookup: e.GetCache()}); !s.spec(i).cacheable || !c.hit() {
		return errors.New("its result is not to be used again, or was not found")
	}
	if s.node(i).activity == inWait {
		if !s.mayRetry(i) {
			return errors.New("its scope is ending")
		}
	} else if err := s.beginWith(i, at, e.GetInputs()); err != nil {
		return err
	}
	return s.succeed(i, at, core.NodeExecution_SUCCEEDED, e.GetOutputs())
}

func (s *State) nodeRecovered(at int64, e *aloftv1.NodeRecovered) error {
	i := e.GetNode()
	if !s.recoverable(i) {
		return errors.New("the execution recovers no other, or the node handles a failure")
	}
	if err := s.beginWith(i, at, e.GetInputs()); err != nil {
		return err
	}
	return s.succeed(i, at, core.NodeExecution_RECOVERED, e.GetOutputs())
}

// beginWith begins a node that ends with the same event: it needs no room.
func (s *State) beginWith(i uint32, at int64, inputs *aloftv1.LiteralRef) error {
	if err := s.begin(i, at); err != nil {
		return err
	}
	var err error
	s.node(i).inputs, err = s.scopeOf(i).intern(inputs)
	return err
}
