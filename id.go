package aloft

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// ExecutionID names one execution of a workflow: unique within its project and domain.
type ExecutionID struct {
	Project string
	Domain  string
	Name    string // 1 to MaxExecutionName characters, a letter first
}

// ExecutionIDOf takes the id out of its protocol message; a nil message gives the zero id.
func ExecutionIDOf(id *core.WorkflowExecutionIdentifier) ExecutionID {
	return ExecutionID{Project: id.GetProject(), Domain: id.GetDomain(), Name: id.GetName()}
}

// Proto gives the id as the protocol has it.
func (e ExecutionID) Proto() *core.WorkflowExecutionIdentifier {
	return &core.WorkflowExecutionIdentifier{Project: e.Project, Domain: e.Domain, Name: e.Name}
}

// String is project/domain/name, for messages and logs.
func (e ExecutionID) String() string { return e.Project + "/" + e.Domain + "/" + e.Name }

// NodeID is the unique id of a node execution within its execution ("n0", "n0-0-dn1"): see UniqueNodeID.
type NodeID string

// The two nodes that every workflow has besides the user's own.
const (
	StartNode = "start-node"
	EndNode   = "end-node"
)

// maxNodeID is the length from which Flyte replaces a node id by a hash (event version 2).
const maxNodeID = 20

// UniqueNodeID is the id of a node execution: that of a top-level node is its id in the template, that of a nested one
// is built from its parent's unique id and the parent's attempt. Flyte's rule: reference flyte-execution, identities.
func UniqueNodeID(parent NodeID, parentAttempt uint32, node string) NodeID {
	if parent == "" {
		return NodeID(fit(maxNodeID, node))
	}
	return NodeID(fit(maxNodeID, string(parent)+"-"+strconv.FormatUint(uint64(parentAttempt), 10)+"-"+node))
}

// AttemptID names one numbered try of a node. Attempt counts from 0.
type AttemptID struct {
	Execution ExecutionID
	Node      NodeID
	Attempt   uint32
}

// String is project/domain/execution/node/attempt, also the tail of the attempt's key in the blob store.
func (a AttemptID) String() string {
	return a.Execution.String() + "/" + string(a.Node) + "/" + strconv.FormatUint(uint64(a.Attempt), 10)
}

// maxGeneratedName is what a Kubernetes pod name may hold besides its own additions.
const maxGeneratedName = 50

// GeneratedName is Flyte's name for what runs an attempt (its pod, its raw output, its checkpoints).
func (a AttemptID) GeneratedName() string {
	return fit(maxGeneratedName, fmt.Sprintf("%s-%s-%d", a.Execution.Name, a.Node, a.Attempt))
}

const shardAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// RawOutputKey is the key below which an attempt writes its raw data: two characters that spread load, then the generated name.
func (a AttemptID) RawOutputKey() string {
	name := a.GeneratedName()
	h := fnv.New32a()
	h.Write([]byte(name))
	i := h.Sum32() % uint32(len(shardAlphabet)*len(shardAlphabet))
	return string([]byte{shardAlphabet[i/36], shardAlphabet[i%36]}) + "/" + name
}

// RunKey is the key below which the attempt's inputs, outputs, error, deck and logs are kept.
func (a AttemptID) RunKey() string { return "run/" + a.String() }

// nodeEncoding is Flyte's alphabet for hashed ids: no digit that could be read as a letter.
var nodeEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz123456").WithPadding(base32.NoPadding)

// fit keeps a name that is short enough and replaces a longer one by a letter and its hash.
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

// Kind is the noun that users know a resource type by, for messages.
func Kind(t core.ResourceType) string {
	return strings.ToLower(strings.ReplaceAll(t.String(), "_", " "))
}
