package machine

import (
	"crypto/sha256"
	"fmt"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// block is what a scope keeps of its nodes until it is over: then the node that the scope is in has its result, and GiveBack frees
// the block. References and attempts are found by their place in the block that has them.
type block struct {
	nodes    []node    // by their distance from the scope's first; nil: given back
	attempts []attempt // in the order in which they were scheduled
	refs     []ref     // number 0 is no reference
	recent   [4]uint32 // the references that were added last: equal ones in a row are kept once
	next     uint8     // which of recent is replaced next
	texted   int       // about how many bytes of texts are kept: see Bytes

	// What few nodes and attempts have. All are nil until one has it.
	decks    map[uint32]string           // of attempts
	memories map[uint32]int64            // of attempts that get another amount than their node states
	expired  map[uint32]*aloftv1.Failure // of attempts that are being stopped because their time is over: how they have failed
	outages  map[uint32]outage           // of nodes that services have failed
	offers   map[uint32]string           // of nodes that get the checkpoint of an attempt of the execution that is recovered
}

// ref is an aloftv1.LiteralRef in a third of the space.
type ref struct {
	digest [sha256.Size]byte
	size   int64
	uri    string
}

// latest is the last attempt of a node; nil: it has had none.
func (b *block) latest(n *node) *attempt {
	if n.attempt == noIndex {
		return nil
	}
	return &b.attempts[n.attempt]
}

// ref is a kept reference as a message, which the caller must not change; nil: none.
func (b *block) ref(i uint32) *aloftv1.LiteralRef {
	if i == 0 {
		return nil
	}
	r := &b.refs[i]
	return &aloftv1.LiteralRef{Uri: r.uri, Digest: r.digest[:], Size: r.size}
}

// intern keeps a reference and gives its number; 0: there is no map.
func (b *block) intern(r *aloftv1.LiteralRef) (uint32, error) {
	if len(r.GetDigest()) == 0 {
		return 0, nil
	}
	if len(r.GetDigest()) != sha256.Size {
		return 0, fmt.Errorf("a reference has a digest of %d bytes, not %d", len(r.GetDigest()), sha256.Size)
	}
	v := ref{digest: [sha256.Size]byte(r.GetDigest()), size: r.GetSize(), uri: r.GetUri()}
	for _, i := range b.recent {
		if i != 0 && b.refs[i] == v {
			return i, nil
		}
	}
	if b.refs == nil {
		b.refs = make([]ref, 1)
	}
	b.refs = append(b.refs, v)
	i := uint32(len(b.refs) - 1)
	b.recent[b.next] = i
	b.next = (b.next + 1) % uint8(len(b.recent))
	return i, nil
}

// set puts an entry into a map that may not have been made.
func set[V any](m *map[uint32]V, i uint32, v V) {
	if *m == nil {
		*m = make(map[uint32]V)
	}
	(*m)[i] = v
}

// GiveBack frees what the state keeps of the nodes in scopes that are over. Their records are asked for by the projection of the
// entry in which they ended, not afterwards: it is for the caller, who has projected all entries so far. What Step decides is the
// same with and without it.
func (s *State) GiveBack() {
	for _, number := range s.over {
		c := s.scopes[number]
		s.texted -= c.texted
		s.blockBytes -= c.block.bytes()
		c.block = block{}
	}
	s.over = s.over[:0]
}
