package aloft

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"unicode"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// ExecutionID names one execution of a workflow: unique within its project and domain.
type ExecutionID struct {
	Project string
	Domain  string
	Name    string // 1 to MaxExecutionName characters, a letter first
}

// ExecutionIDOf is the id in a protocol message; the zero id for nil.
func ExecutionIDOf(id *core.WorkflowExecutionIdentifier) ExecutionID {
	return ExecutionID{Project: id.GetProject(), Domain: id.GetDomain(), Name: id.GetName()}
}

// Proto is the id as a protocol message.
func (e ExecutionID) Proto() *core.WorkflowExecutionIdentifier {
	return &core.WorkflowExecutionIdentifier{Project: e.Project, Domain: e.Domain, Name: e.Name}
}

// String is project/domain/name, for messages and logs.
func (e ExecutionID) String() string { return e.Project + "/" + e.Domain + "/" + e.Name }

// NodeID is the unique id of a node execution within its execution ("n0", "n0-0-dn1"): see UniqueNodeID.
type NodeID string

// The two nodes that every workflow has besides its user's nodes.
const (
	StartNode = "start-node"
	EndNode   = "end-node"
)

// maxNodeID is the length above which Flyte replaces a node id by a hash (event version 2).
const maxNodeID = 20

// UniqueNodeID is the id of a node execution. For a top-level node it is the id in the template, for a nested node it is built
// from the parent's unique id, the parent's attempt and the id in the template. This is Flyte's rule: reference
// flyte-execution, identities.
func UniqueNodeID(parent NodeID, parentAttempt uint32, node string) NodeID {
	if parent == "" {
		return NodeID(fit(maxNodeID, node))
	}
	return NodeID(fit(maxNodeID, string(parent)+"-"+strconv.FormatUint(uint64(parentAttempt), 10)+"-"+node))
}

// AttemptID names one attempt of a node. Attempt counts from 0.
type AttemptID struct {
	Execution ExecutionID
	Node      NodeID
	Attempt   uint32
}

// String is project/domain/execution/node/attempt.
func (a AttemptID) String() string {
	return a.Execution.String() + "/" + string(a.Node) + "/" + strconv.FormatUint(uint64(a.Attempt), 10)
}

// maxGeneratedName is the length that Kubernetes' additions leave for the name of a pod.
const maxGeneratedName = 50

// GeneratedName is Flyte's name for the pod of an attempt. It is not unique and only for display: attempts of executions with
// one name in two projects or domains share it, and a long name is replaced by a hash of 32 bits.
func (a AttemptID) GeneratedName() string {
	return fit(maxGeneratedName, fmt.Sprintf("%s-%s-%d", a.Execution.Name, a.Node, a.Attempt))
}

// UniqueName is the generated name with 80 bits of a hash of the whole id: no other attempt has it.
func (a AttemptID) UniqueName() string {
	sum := sha256.Sum256([]byte(a.String()))
	return segment(a.GeneratedName()) + "-" + nodeEncoding.EncodeToString(sum[:10])
}

const shardAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// RawOutputKey is the key below which an attempt writes its raw data: two characters that spread load, as in Flyte, and then
// the unique name, in place of Flyte's generated name.
func (a AttemptID) RawOutputKey() string {
	h := fnv.New32a()
	h.Write([]byte(a.GeneratedName()))
	i := h.Sum32() % uint32(len(shardAlphabet)*len(shardAlphabet))
	return string([]byte{shardAlphabet[i/36], shardAlphabet[i%36]}) + "/" + a.UniqueName()
}

// RunKey is the key below which the attempt's inputs, outputs, error, deck and logs are kept.
func (a AttemptID) RunKey() string {
	a.Node = NodeID(segment(string(a.Node)))
	return "run/" + a.String()
}

// segment is a name as one part of a path: the name itself, or a hash of a name that would be several parts or lead to another
// folder. Only workflows of earlier releases have such ids of nodes (package compiler).
func segment(name string) string {
	if name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) }) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "f" + nodeEncoding.EncodeToString(sum[:16])
}

// nodeEncoding has Flyte's alphabet for hashed ids, without digits that look like letters.
var nodeEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz123456").WithPadding(base32.NoPadding)

// fit returns a name of at most limit bytes as it is, and replaces a longer one by a letter and its hash.
func fit(limit int, name string) string {
	if len(name) <= limit {
		return name
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], h.Sum32())
	return "f" + nodeEncoding.EncodeToString(sum[:])
}

// Kind is the noun for a resource type in messages.
func Kind(t core.ResourceType) string {
	return strings.ToLower(strings.ReplaceAll(t.String(), "_", " "))
}
