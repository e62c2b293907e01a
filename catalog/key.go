package catalog

import (
	"slices"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// Flyte's names, by which other programs that read the data catalog find results.
const (
	datasetPrefix = "flyte_task-"
	tagPrefix     = "flyte_cached-"
	typeHash      = 8 // characters of the hash of a type that count
)

// maxPreview is how many bytes of a value a key keeps for people. The location of a file fits: two locations often differ only
// at the end.
const maxPreview = 160

// Signature is the part of a key that does not depend on the values of inputs. It is made once for a node of a workflow, and any
// number of goroutines may use it.
type Signature struct {
	key     *aloftv1.CacheKey // without inputs and tag
	ignored []string
}

// NewSignature takes what counts from a task and from the node that runs it: with_overrides(cache_version=…) of the node
// comes before the task. node may be nil.
//
// The task's version, code, image and resources do not count, nor does where the execution runs. So it is in Flyte.
func NewSignature(task *core.TaskTemplate, node *core.NodeMetadata) *Signature {
	version := task.GetMetadata().GetDiscoveryVersion()
	if v, ok := node.GetCacheVersionValue().(*core.NodeMetadata_CacheVersion); ok {
		version = v.CacheVersion
	}
	ignored := slices.Clone(task.GetMetadata().GetCacheIgnoreInputVars())
	slices.Sort(ignored)
	ignored = slices.Compact(ignored)
	return &Signature{ignored: ignored, key: &aloftv1.CacheKey{
		Project: task.GetId().GetProject(), Domain: task.GetId().GetDomain(), Task: task.GetId().GetName(), CacheVersion: version,
		InputsHash:  literal.HashVariableMap(task.GetInterface().GetInputs()).Key()[:typeHash],
		OutputsHash: literal.HashVariableMap(task.GetInterface().GetOutputs()).Key()[:typeHash],
		Ignored:     ignored,
	}}
}

// Key is the key for some inputs, without previews: a hit needs none, since the result that is found has them (see Preview).
// The key shares the list of ignored names with other keys of the signature.
func (s *Signature) Key(inputs *core.LiteralMap) *aloftv1.CacheKey {
	each, hash := literal.HashEachInput(inputs, s.ignored)
	k := &aloftv1.CacheKey{
		Project: s.key.GetProject(), Domain: s.key.GetDomain(), Task: s.key.GetTask(), CacheVersion: s.key.GetCacheVersion(),
		InputsHash: s.key.GetInputsHash(), OutputsHash: s.key.GetOutputsHash(), Ignored: s.ignored, Tag: tagPrefix + hash.Key(),
	}
	if len(each) > 0 {
		parts := make([]aloftv1.CacheInput, len(each)) // one allocation for all
		k.Inputs = make([]*aloftv1.CacheInput, len(each))
		for i, in := range each {
			parts[i].Name, parts[i].Hash, parts[i].ByHash = in.Name, in.Hash.Key(), in.ByHash
			k.Inputs[i] = &parts[i]
		}
	}
	return k
}

// Preview adds to a key the beginning of each input's value. Only the key of a miss needs that, to be compared with other keys.
// inputs are those that the key was made of.
func Preview(key *aloftv1.CacheKey, inputs *core.LiteralMap) {
	for _, in := range key.GetInputs() {
		l := inputs.GetLiterals()[in.GetName()]
		in.Preview = literal.PrintMax(l, maxPreview)
		if h := l.GetHash(); h != "" {
			// The hash counts in place of the value, and may be all that changed.
			in.Preview += " with hash " + literal.PrintMax(textLiteral(h), maxPreview)
		}
	}
}

func textLiteral(s string) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{
		Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}}}}}}
}

// Key is the key of a task's result for these inputs, with previews. A caller that makes many keys for one node uses a Signature.
func Key(task *core.TaskTemplate, node *core.NodeMetadata, inputs *core.LiteralMap) *aloftv1.CacheKey {
	k := NewSignature(task, node).Key(inputs)
	k.Ignored = slices.Clone(k.GetIgnored())
	Preview(k, inputs)
	return k
}

// ID is the id by which the store finds the result of a key.
func ID(key *aloftv1.CacheKey) store.ResultID {
	return store.ResultID{
		Project: key.GetProject(), Domain: key.GetDomain(),
		Name:    datasetPrefix + key.GetTask(),
		Version: key.GetCacheVersion() + "-" + key.GetInputsHash() + "-" + key.GetOutputsHash(),
		Tag:     key.GetTag(),
	}
}

// Serialized says whether one node at a time may compute a result, while other nodes wait for it (cache_serialize): as the node
// says, or else its task.
func Serialized(task *core.TaskTemplate, node *core.NodeMetadata) bool {
	if v, ok := node.GetCacheSerializableValue().(*core.NodeMetadata_CacheSerializable); ok {
		return v.CacheSerializable
	}
	return task.GetMetadata().GetCacheSerializable()
}
