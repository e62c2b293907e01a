package machine

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"github.com/aloft-dev/aloft"
)

// nodeID is the unique id of a node.
func (s *State) nodeID(i uint32) aloft.NodeID {
	c := s.scopeOf(i)
	if c.node == noIndex {
		return s.graph.ids[i-c.first]
	}
	if id, ok := s.renamed[i]; ok {
		return id
	}
	return aloft.UniqueNodeID(c.id, c.attempt, c.body.nodes[i-c.first].node.GetId())
}

// distinctID is Flyte's unique id of a node, unless another node of the execution has it already: long ids are replaced by
// 32-bit hashes, of which two are equal in one of a hundred executions with nine thousand nodes, and records and results
// are told apart by nothing else. Then, and only then, a number is added; changed says so.
func distinctID(parent aloft.NodeID, attempt uint32, node string, taken func(aloft.NodeID) bool) (id aloft.NodeID, changed bool) {
	id = aloft.UniqueNodeID(parent, attempt, node)
	for k := 1; taken(id); k++ {
		id, changed = aloft.UniqueNodeID(parent, attempt, node+"-"+strconv.Itoa(k)), true
	}
	return id, changed
}

// hash tells unique ids apart (64-bit FNV-1a). Two ids with one hash cost one of them its plain name, nothing more.
func hash(id aloft.NodeID) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return h
}

// token is what an executor must show to have an outcome accepted. It follows from the execution's random seed.
func (s *State) token(i, attempt uint32) string {
	t := s.tokenOf(i, attempt)
	return string(t[:])
}

// tokenOf is the token without a place of its own in memory, for comparisons.
func (s *State) tokenOf(i, attempt uint32) (t [32]byte) {
	buf := make([]byte, 0, 128)
	buf = append(append(buf, s.create.GetSeed()...), 0)
	buf = append(append(buf, s.nodeID(i)...), 0)
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(buf, attempt))
	hex.Encode(t[:], sum[:16])
	return t
}
