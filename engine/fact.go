package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/nodes"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// facts answers what the machine asks within one step (machine.Facts). The machine keeps references to literal maps; the maps
// that are new in this step are here until the projection writes them into their records.
type facts struct {
	ctx     context.Context
	engine  *Engine
	run     *run
	key     store.Key
	version int // of the journal: what may be written
	state   *machine.State
	inputs  *aloftv1.Literals // of the execution

	// Literal maps that are new in this step, by digest: no record of this execution has them yet.
	stepValues map[string]*aloftv1.Literals

	catalogResults map[store.ResultID]*store.Result // in the catalog once this step is committed: run.othersResults and the step's own

	// Outcomes with outputs among the step's messages of which it is not known yet whether the state adopts them, and the
	// results of the outcomes that it has adopted: the catalog has them once the step is committed.
	reported []reportedOutcome
	adopted  map[store.ResultID]*store.Result

	// Cache lookups that were made in this step for nodes that begin next, by node number.
	prefetched    map[uint32]*prefetched
	prefetchedAt  time.Time // when the last of them were read
	prefetchCount int       // for how many nodes the last read was

	sourceNodes map[aloft.NodeID]*store.Node // of the execution that this one recovers, with values, read ahead
}

// writeValue writes a literal map where it is kept, and remembers it for this step; nil: the map is empty.
func (f *facts) writeValue(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error) {
	if len(m.GetLiterals()) == 0 {
		return nil, nil
	}
	l, err := f.engine.literals.WriteLiterals(ctx, m)
	if err != nil {
		return nil, err
	}
	f.cacheValue(l, m)
	return l, nil
}

// cacheValue keeps a literal map for this step and, while there is room, in the cache. A map that is larger than the whole
// cache stays out of it, or it would drive out the large map that it was made from and others will be made from.
func (f *facts) cacheValue(l *aloftv1.Literals, m *core.LiteralMap) {
	digest := string(l.GetRef().GetDigest())
	f.stepValues[digest] = l
	if bytes := weight.Decoded(l.GetRef().GetSize()); m != nil && bytes <= f.engine.config.CacheLiterals {
		f.engine.values.Put(digest, m, bytes)
	}
}

// Policy is what the configuration says.
func (f *facts) Policy() *machine.Policy { return &f.engine.config.Policy }

// Inputs resolves the bindings of a node.
func (f *facts) Inputs(node machine.NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error) {
	if a := f.prefetched[node.Index()]; a != nil {
		return a.inputs, nil, nil
	}
	bindings := node.Template().GetInputs()
	if node.Kind() == machine.KindEnd {
		bindings = node.Workflow().GetOutputs()
	}
	if len(bindings) == 0 {
		return nil, nil, nil
	}
	inputs, err := literal.Resolve(bindings, node.Interface().GetInputs(), func(producer, variable string) (*core.Literal, error) {
		return f.promisedLiteral(node, producer, variable)
	})
	var unresolved literal.UnresolvedInputs
	switch {
	case errors.As(err, &unresolved):
		return nil, newFailure(unresolved.Code(), core.ExecutionError_USER, unresolved.Error()), nil
	case err != nil:
		return nil, nil, err
	}
	if cause := node.Handles(); cause != nil {
		describeError(inputs, cause, node.SpecID())
	}
	l, err := f.writeValue(f.ctx, inputs)
	if errors.Is(err, aloft.ErrExhausted) { // the bindings name the same large value many times
		return nil, newFailure(literal.CodeBinding, core.ExecutionError_USER, "the inputs of node "+node.SpecID()+" are too large: "+err.Error()), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("keep them: %w", err)
	}
	return l.GetRef(), nil, nil
}

// promisedLiteral is the literal that a promise in the bindings of a node refers to; nil: there is none.
func (f *facts) promisedLiteral(node machine.NodeRef, producer, variable string) (*core.Literal, error) {
	if producer == "" || producer == aloft.StartNode {
		m, err := f.scopeInputs(node)
		return m.GetLiterals()[variable], err
	}
	upstream, ok := node.Sibling(producer)
	if !ok {
		return nil, nil
	}
	for _, alias := range upstream.Template().GetOutputAliases() {
		if alias.GetAlias() == variable {
			variable = alias.GetVar()
			break
		}
	}
	m, err := f.outputs(upstream)
	return m.GetLiterals()[variable], err
}

// describeError puts the error into the input "err" of a failure node: flytekit's FlyteError. Only a failure node that asks
// for it has the input.
func describeError(inputs *core.LiteralMap, cause *core.ExecutionError, node string) {
	if _, asks := inputs.GetLiterals()["err"]; !asks {
		return
	}
	inputs.Literals["err"] = &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Union{Union: &core.Union{
		Value: &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Error{
			Error: &core.Error{Message: cause.GetMessage(), FailedNodeId: node},
		}}}},
		Type: &core.LiteralType{
			Type:      &core.LiteralType_Simple{Simple: core.SimpleType_ERROR},
			Structure: &core.TypeStructure{Tag: "FlyteError"},
		},
	}}}}}
}

// Echo gives the inputs of a node under the names of its outputs, both sorted.
func (f *facts) Echo(node machine.NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error) {
	inputs, err := f.nodeInputs(node)
	if err != nil {
		return nil, nil, err
	}
	from := slices.Sorted(maps.Keys(inputs.GetLiterals()))
	to := slices.Sorted(maps.Keys(node.Interface().GetOutputs().GetVariables()))
	if len(from) != len(to) {
		return nil, newFailure("BadTaskSpecification", core.ExecutionError_USER,
			fmt.Sprintf("a task of type echo needs as many outputs as inputs, node %s has %d inputs and %d outputs", node.SpecID(), len(from), len(to))), nil
	}
	outputs := make(map[string]*core.Literal, len(to))
	for i, name := range to {
		outputs[name] = inputs.GetLiterals()[from[i]]
	}
	l, err := f.writeValue(f.ctx, &core.LiteralMap{Literals: outputs})
	if err != nil {
		return nil, nil, fmt.Errorf("keep its outputs: %w", err)
	}
	return l.GetRef(), nil, nil
}

// Arm is the arm of a branch node whose condition is the first that holds for the node's inputs: if, elif …, else. A branch of which
// none holds and whose else fails ends with that message. Source: flyte-execution reference 2.10.
func (f *facts) Arm(node machine.NodeRef) (uint32, *aloftv1.Failure, error) {
	inputs, err := f.nodeInputs(node)
	if err != nil {
		return 0, nil, err
	}
	branch := node.Template().GetBranchNode()
	cases := nodes.Cases(branch)
	for i, c := range cases {
		holds, err := literal.Holds(c.GetCondition(), inputs)
		if err != nil {
			return 0, newFailure("MalformedBranchUserError", core.ExecutionError_USER,
				fmt.Sprintf("condition %d of branch %s has no value: %v", i+1, node.SpecID(), err)), nil
		}
		if holds {
			return uint32(i), nil, nil
		}
	}
	if branch.GetIfElse().GetElseNode() == nil {
		return 0, newFailure("UserProvidedError", core.ExecutionError_USER, branch.GetIfElse().GetError().GetMessage()), nil
	}
	return uint32(len(cases)), nil, nil
}

// Duration gives the one input of a sleep.
func (f *facts) Duration(node machine.NodeRef) (time.Duration, *aloftv1.Failure, error) {
	inputs, err := f.nodeInputs(node)
	if err != nil {
		return 0, nil, err
	}
	if n := len(inputs.GetLiterals()); n != 1 {
		return 0, newFailure("BadTaskSpecification", core.ExecutionError_USER,
			fmt.Sprintf("a task of type core-sleep needs one input, a duration; node %s has %d", node.SpecID(), n)), nil
	}
	for name, l := range inputs.GetLiterals() {
		d, ok := l.GetScalar().GetPrimitive().GetValue().(*core.Primitive_Duration)
		if !ok || !d.Duration.IsValid() {
			return 0, newFailure("BadTaskSpecification", core.ExecutionError_USER,
				fmt.Sprintf("a task of type core-sleep needs a duration, input %q of node %s is none", name, node.SpecID())), nil
		}
		return max(d.Duration.AsDuration(), 0), nil, nil
	}
	panic("unreachable: there is one input")
}

// newFailure is a failure that is not recoverable unless its caller changes that.
func newFailure(code string, kind core.ExecutionError_ErrorKind, message string) *aloftv1.Failure {
	return &aloftv1.Failure{Error: &core.ExecutionError{Code: code, Message: message, Kind: kind}}
}

// scopeInputs are the inputs of the scope that the node belongs to.
func (f *facts) scopeInputs(node machine.NodeRef) (*core.LiteralMap, error) {
	ref := node.ScopeInputs()
	if caller, nested := node.Caller(); nested {
		return f.value(ref, func() (*aloftv1.Literals, error) { return f.engine.store.NodeInputs(f.ctx, f.key, caller.ID()) })
	}
	return f.value(ref, func() (*aloftv1.Literals, error) { return f.inputs, nil })
}

func (f *facts) nodeInputs(node machine.NodeRef) (*core.LiteralMap, error) {
	return f.value(node.Inputs(), func() (*aloftv1.Literals, error) { return f.engine.store.NodeInputs(f.ctx, f.key, node.ID()) })
}

func (f *facts) outputs(node machine.NodeRef) (*core.LiteralMap, error) {
	return f.value(node.Outputs(), func() (*aloftv1.Literals, error) { return f.outputsOf(node) })
}

// value returns the literal map of a reference: it is new in this step, in the cache, an object, or in the record that row
// reads.
func (f *facts) value(ref *aloftv1.LiteralRef, row func() (*aloftv1.Literals, error)) (*core.LiteralMap, error) {
	if len(ref.GetDigest()) == 0 {
		return nil, nil
	}
	digest := string(ref.GetDigest())
	if l := f.stepValues[digest]; l.GetValue() != nil {
		return l.GetValue(), nil
	}
	if m, ok := f.engine.values.Get(digest); ok {
		return m, nil
	}
	var m *core.LiteralMap
	if ref.GetUri() != "" {
		var err error
		if m, err = f.engine.literals.ReadLiterals(f.ctx, ref); err != nil {
			return nil, err
		}
	} else {
		l, err := row()
		if err != nil {
			return nil, fmt.Errorf("read literals from their record: %w", err)
		}
		if m = l.GetValue(); m == nil || !bytes.Equal(l.GetRef().GetDigest(), ref.GetDigest()) {
			return nil, fmt.Errorf("read literals from their record: got digest %x, recorded was %x: %w", l.GetRef().GetDigest(), ref.GetDigest(), aloft.ErrConflict)
		}
	}
	f.engine.values.Put(digest, m, weight.Decoded(ref.GetSize()))
	return m, nil
}

// recordValue is a reference with its literal map, as records have it; without the map where that is an object.
func (f *facts) recordValue(ref *aloftv1.LiteralRef, row func() (*aloftv1.Literals, error)) (*aloftv1.Literals, error) {
	if len(ref.GetDigest()) == 0 {
		return nil, nil
	}
	if ref.GetUri() != "" {
		return &aloftv1.Literals{Ref: ref}, nil
	}
	m, err := f.value(ref, row)
	if err != nil {
		return nil, err
	}
	return &aloftv1.Literals{Ref: ref, Value: m}, nil
}

// receive makes a message ready for the machine. The outputs of an outcome get the reference under which they are kept, with
// the digest that the engine computes. Outputs whose sender announced another digest are not adopted: the outcome is a failure.
func (f *facts) receive(message *aloftv1.Inbox) (*aloftv1.Inbox, error) {
	received, err := f.checkOutputs(message)
	if outcome := received.GetOutcome(); outcome.GetOutputs() != nil {
		if node, ok := f.state.Awaits(aloft.NodeID(outcome.GetNode())); ok {
			f.reported = append(f.reported, reportedOutcome{node, outcome})
		}
	}
	return received, err
}

// checkOutputs returns a message with its outputs, if it has any, written where they are kept, or a failure in their place.
func (f *facts) checkOutputs(message *aloftv1.Inbox) (*aloftv1.Inbox, error) {
	outcome := message.GetOutcome()
	sent := outcome.GetOutputs()
	if sent == nil {
		return message, nil
	}
	if sent.GetValue() == nil {
		return message, nil // no outputs, or an object, which its reader checks
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(sent.GetValue())
	if err != nil {
		// Text that is no UTF-8, for instance: the task's mistake, so a failure and not an error of the step.
		failure := newFailure("InvalidOutputs", core.ExecutionError_USER, "the outputs cannot be encoded: "+err.Error())
		return replaceResult(outcome, &aloftv1.Outcome_Failure{Failure: failure}), nil //nolint:nilerr // it is a result
	}
	digest := sha256.Sum256(encoded)
	if said := sent.GetRef().GetDigest(); len(said) > 0 && !bytes.Equal(said, digest[:]) {
		failure := newFailure("OutputsCorrupted", core.ExecutionError_SYSTEM,
			fmt.Sprintf("the reported outputs have digest sha256:%x, announced was sha256:%x: they were damaged on their way", digest, said))
		failure.Recoverable = true
		return replaceResult(outcome, &aloftv1.Outcome_Failure{Failure: failure}), nil
	}
	l, err := f.writeValue(f.ctx, sent.GetValue())
	if err != nil {
		return nil, fmt.Errorf("keep outputs of node %s: %w", outcome.GetNode(), err)
	}
	if l == nil {
		l = &aloftv1.Literals{}
	}
	return replaceResult(outcome, &aloftv1.Outcome_Outputs{Outputs: l}), nil
}

// replaceResult copies an outcome with another result: messages belong to the inbox and are not changed.
func replaceResult(o *aloftv1.Outcome, result any) *aloftv1.Inbox {
	copied := &aloftv1.Outcome{
		Node: o.GetNode(), Attempt: o.GetAttempt(), Token: o.GetToken(), StartedAt: o.GetStartedAt(), EndedAt: o.GetEndedAt(),
		DeckUri: o.GetDeckUri(), Objects: o.GetObjects(), Environment: o.GetEnvironment(), Usage: o.GetUsage(),
	}
	switch r := result.(type) {
	case *aloftv1.Outcome_Outputs:
		copied.Result = r
	case *aloftv1.Outcome_Failure:
		copied.Result = r
	}
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: copied}}
}
