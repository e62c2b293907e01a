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
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// facts answers what the machine asks within one step. The machine keeps references; the values that were made in this
// step are here until the projection writes them into their records.
type facts struct {
	ctx     context.Context
	engine  *Engine
	run     *run
	key     store.Key
	version int // of the journal: what may be written
	state   *machine.State
	inputs  *aloftv1.Literals // of the execution

	// What this step brought about, by digest: it is in no record yet.
	made map[string]*aloftv1.Literals

	kept map[store.ResultID]*store.Result // what is found when this step is committed: of others, and of this step

	// Outcomes with outputs among the step's messages, of which it is not known yet whether the state adopts them, and the
	// results of those that it has adopted: no catalog has them before the step is committed.
	reported []reported
	adopted  map[store.ResultID]*store.Result

	// What was read ahead in this step for nodes that begin next.
	prefetched   map[uint32]*prefetched
	prefetchedAt time.Time // when that had been read
	reach        int       // how many nodes it was for

	taken map[aloft.NodeID]*store.Node // read ahead of the execution that this one recovers, with values
}

func (f *facts) make(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error) {
	if len(m.GetLiterals()) == 0 {
		return nil, nil
	}
	l, err := f.engine.literals.WriteLiterals(ctx, m)
	if err != nil {
		return nil, err
	}
	f.keep(l, m)
	return l, nil
}

// keep remembers a value for this step and, beyond it, for as long as there is room. One that is heavier than the whole
// cache is left out, so that it does not drive out the heavy one that it was made from and others will be made from.
func (f *facts) keep(l *aloftv1.Literals, m *core.LiteralMap) {
	digest := string(l.GetRef().GetDigest())
	f.made[digest] = l
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
		return f.lookup(node, producer, variable)
	})
	var unresolved literal.UnresolvedInputs
	switch {
	case errors.As(err, &unresolved):
		return nil, refuse(unresolved.Code(), core.ExecutionError_USER, unresolved.Error()), nil
	case err != nil:
		return nil, nil, err
	}
	if cause := node.Handles(); cause != nil {
		describeError(inputs, cause, node.SpecID())
	}
	l, err := f.make(f.ctx, inputs)
	if errors.Is(err, aloft.ErrExhausted) { // the bindings name what is large many times
		return nil, refuse(literal.CodeBinding, core.ExecutionError_USER, "the inputs of node "+node.SpecID()+" are too large: "+err.Error()), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("keep them: %w", err)
	}
	return l.GetRef(), nil, nil
}

func (f *facts) lookup(node machine.NodeRef, producer, variable string) (*core.Literal, error) {
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
		return nil, refuse("BadTaskSpecification", core.ExecutionError_USER,
			fmt.Sprintf("a task of type echo needs as many outputs as inputs, node %s has %d inputs and %d outputs", node.SpecID(), len(from), len(to))), nil
	}
	outputs := make(map[string]*core.Literal, len(to))
	for i, name := range to {
		outputs[name] = inputs.GetLiterals()[from[i]]
	}
	l, err := f.make(f.ctx, &core.LiteralMap{Literals: outputs})
	if err != nil {
		return nil, nil, fmt.Errorf("keep its outputs: %w", err)
	}
	return l.GetRef(), nil, nil
}

// Duration gives the one input of a sleep.
func (f *facts) Duration(node machine.NodeRef) (time.Duration, *aloftv1.Failure, error) {
	inputs, err := f.nodeInputs(node)
	if err != nil {
		return 0, nil, err
	}
	if n := len(inputs.GetLiterals()); n != 1 {
		return 0, refuse("BadTaskSpecification", core.ExecutionError_USER,
			fmt.Sprintf("a task of type core-sleep needs one input, a duration; node %s has %d", node.SpecID(), n)), nil
	}
	for name, l := range inputs.GetLiterals() {
		d, ok := l.GetScalar().GetPrimitive().GetValue().(*core.Primitive_Duration)
		if !ok || !d.Duration.IsValid() {
			return 0, refuse("BadTaskSpecification", core.ExecutionError_USER,
				fmt.Sprintf("a task of type core-sleep needs a duration, input %q of node %s is none", name, node.SpecID())), nil
		}
		return max(d.Duration.AsDuration(), 0), nil, nil
	}
	panic("unreachable: there is one input")
}

func refuse(code string, kind core.ExecutionError_ErrorKind, message string) *aloftv1.Failure {
	return &aloftv1.Failure{Error: &core.ExecutionError{Code: code, Message: message, Kind: kind}}
}

// scopeInputs are the inputs of the graph that the node belongs to.
func (f *facts) scopeInputs(node machine.NodeRef) (*core.LiteralMap, error) {
	ref := node.ScopeInputs()
	parent, nested := node.Parent()
	if nested {
		return f.value(ref, func() (*aloftv1.Literals, error) { return f.engine.store.NodeInputs(f.ctx, f.key, parent.ID()) })
	}
	return f.value(ref, func() (*aloftv1.Literals, error) { return f.inputs, nil })
}

func (f *facts) nodeInputs(node machine.NodeRef) (*core.LiteralMap, error) {
	return f.value(node.Inputs(), func() (*aloftv1.Literals, error) { return f.engine.store.NodeInputs(f.ctx, f.key, node.ID()) })
}

func (f *facts) outputs(node machine.NodeRef) (*core.LiteralMap, error) {
	return f.value(node.Outputs(), func() (*aloftv1.Literals, error) { return f.outputsOf(node) })
}

// value finds what a reference refers to: made in this step, kept in memory, an object, or in the record that row reads.
func (f *facts) value(ref *aloftv1.LiteralRef, row func() (*aloftv1.Literals, error)) (*core.LiteralMap, error) {
	if len(ref.GetDigest()) == 0 {
		return nil, nil
	}
	digest := string(ref.GetDigest())
	if l := f.made[digest]; l.GetValue() != nil {
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

// record is the value of a reference in the form that records keep: with its map where that is small.
func (f *facts) record(ref *aloftv1.LiteralRef, row func() (*aloftv1.Literals, error)) (*aloftv1.Literals, error) {
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

// receive makes a message ready for the machine. The outputs of an outcome get the reference under which they are kept:
// nobody's word is taken for a digest that we can compute. Outputs that are not what their reference says are no result.
func (f *facts) receive(message *aloftv1.Inbox) (*aloftv1.Inbox, error) {
	received, err := f.checked(message)
	if outcome := received.GetOutcome(); outcome.GetOutputs() != nil {
		if node, ok := f.state.Awaits(aloft.NodeID(outcome.GetNode())); ok {
			f.reported = append(f.reported, reported{node, outcome})
		}
	}
	return received, err
}

// checked is a message whose outputs, if it has any, can be kept, or a failure in their place.
func (f *facts) checked(message *aloftv1.Inbox) (*aloftv1.Inbox, error) {
	outcome := message.GetOutcome()
	sent := outcome.GetOutputs()
	if sent == nil {
		return message, nil
	}
	if sent.GetValue() == nil {
		return message, nil // none, or an object, which its reader checks
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(sent.GetValue())
	if err != nil {
		// Text that is no UTF-8, for instance: the task's mistake, and ours is not to have an error of it.
		failure := refuse("InvalidOutputs", core.ExecutionError_USER, "the outputs cannot be encoded: "+err.Error())
		return replaceResult(outcome, &aloftv1.Outcome_Failure{Failure: failure}), nil //nolint:nilerr // it is a result
	}
	digest := sha256.Sum256(encoded)
	if said := sent.GetRef().GetDigest(); len(said) > 0 && !bytes.Equal(said, digest[:]) {
		failure := refuse("OutputsCorrupted", core.ExecutionError_SYSTEM,
			fmt.Sprintf("the reported outputs have digest sha256:%x, announced was sha256:%x: they were damaged on their way", digest, said))
		failure.Recoverable = true
		return replaceResult(outcome, &aloftv1.Outcome_Failure{Failure: failure}), nil
	}
	l, err := f.make(f.ctx, sent.GetValue())
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
