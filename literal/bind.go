package literal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// The codes with which a node fails when its inputs cannot be built from the outputs of its upstream nodes.
const (
	CodeAttribute  = "PromiseAttributeResolveError" // the attribute path does not fit the value
	CodeBinding    = "BindingResolutionFailure"     // the binding itself is wrong, or several inputs have different codes
	CodeNoVariable = "OutputsNotFoundError"         // the upstream node has no such output
)

// Unresolved says why one binding has no value. It is a failure of the user's: a retry does not help.
type Unresolved struct {
	Input    string // of the node
	NodeID   string // the upstream node of the promise; empty: the binding is no promise
	Variable string // the output of that node
	Path     []*core.PromiseAttribute
	Code     string
	Reason   string
}

func (u *Unresolved) Error() string {
	if u.NodeID == "" {
		return fmt.Sprintf("input %q: %s", u.Input, u.Reason)
	}
	return fmt.Sprintf("input %q: cannot resolve %s: %s", u.Input, Reference(u.NodeID, u.Variable, u.Path), u.Reason)
}

// UnresolvedInputs are all bindings of a node that have no value.
type UnresolvedInputs []*Unresolved

func (u UnresolvedInputs) Error() string {
	lines := make([]string, len(u))
	for i, e := range u {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

func (u UnresolvedInputs) Unwrap() error { return aloft.ErrInvalid }

// Code is the code with which the node fails.
func (u UnresolvedInputs) Code() string {
	code := u[0].Code
	for _, e := range u {
		if e.Code != code {
			return CodeBinding
		}
	}
	return code
}

// Reference renders a promise for messages: n0.o0[1].name.
func Reference(nodeID, variable string, path []*core.PromiseAttribute) string {
	var b strings.Builder
	b.WriteString(nodeID + "." + variable)
	for _, a := range path {
		switch v := a.GetValue().(type) {
		case *core.PromiseAttribute_StringValue:
			b.WriteString("." + v.StringValue)
		case *core.PromiseAttribute_IntValue:
			fmt.Fprintf(&b, "[%d]", v.IntValue)
		default:
			b.WriteString(".?")
		}
	}
	return b.String()
}

// Lookup gives an output of a node that has succeeded; nil if the node has no such output. An empty node id means the inputs of
// the workflow. An error means that the output cannot be read now: it ends Resolve, and the binding is not to blame.
type Lookup func(nodeID, variable string) (*core.Literal, error)

// Resolve builds the inputs of a node. The result shares memory with the bindings and with the values that lookup returned.
// declared are the inputs of the node's interface (for an end node the outputs of its workflow). An input that declared does not
// have, or has without a type, is bound without conversion.
//
// A binding can refer to one value many times, and a binding of the next node can do the same with the result, so that sizes
// would grow exponentially. So the bytes of all bound values are added up: above aloft.MaxMessageBytes the binding is
// unresolved, and so is one that is nested deeper than MaxDepth.
//
// If bindings have no value, the error is an UnresolvedInputs with all of them. Any other error is lookup's. A value that is bound
// to a union is not wrapped into a union literal: Flyte's engine does not do so either, and clients take both.
func Resolve(bindings []*core.Binding, declared *core.VariableMap, lookup Lookup) (*core.LiteralMap, error) {
	inputs := make(map[string]*core.Literal, len(bindings))
	var unresolved UnresolvedInputs
	r := resolver{lookup: lookup}
	for _, b := range bindings {
		r.input = b.GetVar()
		l, err := r.resolve(b.GetBinding(), declared.GetVariables()[b.GetVar()].GetType(), 0)
		if err == nil && (b.GetBinding().GetCollection() != nil || b.GetBinding().GetMap() != nil) && Deep(l) {
			err = r.wrong("%v", errDepth)
		}
		var u *Unresolved
		switch {
		case errors.As(err, &u):
			unresolved = append(unresolved, u)
		case err != nil:
			return nil, err
		default:
			inputs[b.GetVar()] = l
		}
	}
	if len(unresolved) > 0 {
		return nil, unresolved
	}
	return &core.LiteralMap{Literals: inputs}, nil
}

type resolver struct {
	input    string
	lookup   Lookup
	promises int
	size     int // of the values of all promises but the first, which was within the limits as an output
}

func (r *resolver) wrong(format string, args ...any) error {
	return &Unresolved{Input: r.input, Code: CodeBinding, Reason: fmt.Sprintf(format, args...)}
}

// resolve computes the value of a binding. declared is the type of the input, or of the element within it; nil: not known.
func (r *resolver) resolve(data *core.BindingData, declared *core.LiteralType, depth int) (*core.Literal, error) {
	if depth > MaxDepth {
		return nil, r.wrong("%v", errDepth)
	}
	switch v := data.GetValue().(type) {
	case *core.BindingData_Scalar:
		return &core.Literal{Value: &core.Literal_Scalar{Scalar: v.Scalar}}, nil
	case *core.BindingData_OffloadedMetadata:
		return &core.Literal{Value: &core.Literal_OffloadedMetadata{OffloadedMetadata: v.OffloadedMetadata}}, nil
	case *core.BindingData_Promise:
		return r.promise(v.Promise, declared)
	case *core.BindingData_Collection:
		list := &core.LiteralCollection{Literals: make([]*core.Literal, len(v.Collection.GetBindings()))}
		for i, b := range v.Collection.GetBindings() {
			l, err := r.resolve(b, declared.GetCollectionType(), depth+1)
			if err != nil {
				return nil, err
			}
			list.Literals[i] = l
		}
		return &core.Literal{Value: &core.Literal_Collection{Collection: list}}, nil
	case *core.BindingData_Map:
		m := &core.LiteralMap{Literals: make(map[string]*core.Literal, len(v.Map.GetBindings()))}
		for key, b := range v.Map.GetBindings() {
			l, err := r.resolve(b, declared.GetMapValueType(), depth+1)
			if err != nil {
				return nil, err
			}
			m.Literals[key] = l
		}
		return &core.Literal{Value: &core.Literal_Map{Map: m}}, nil
	}
	return nil, r.wrong("the binding has no value")
}

// SplitVariable splits the old notation for an element of a list output: "[3].o0" is element 3 of o0.
func SplitVariable(variable string) (name string, index int32, ok bool) {
	digits, name, ok := strings.Cut(strings.TrimPrefix(variable, "["), "].")
	if !ok || !strings.HasPrefix(variable, "[") {
		return variable, 0, false
	}
	i, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || i < 0 {
		return variable, 0, false
	}
	return name, int32(i), true
}

func (r *resolver) promise(p *core.OutputReference, declared *core.LiteralType) (*core.Literal, error) {
	u := &Unresolved{Input: r.input, NodeID: p.GetNodeId(), Variable: p.GetVar(), Path: p.GetAttrPath()}
	l, err := r.lookup(p.GetNodeId(), p.GetVar())
	if err != nil {
		return nil, fmt.Errorf("look up %s of node %s: %w", p.GetVar(), p.GetNodeId(), err)
	}
	path := p.GetAttrPath()
	if name, i, ok := SplitVariable(p.GetVar()); ok && l == nil {
		if l, err = r.lookup(p.GetNodeId(), name); err != nil {
			return nil, fmt.Errorf("look up %s of node %s: %w", name, p.GetNodeId(), err)
		}
		path = append([]*core.PromiseAttribute{{Value: &core.PromiseAttribute_IntValue{IntValue: i}}}, path...)
	}
	if l == nil {
		u.Code, u.Reason = CodeNoVariable, "the node has no such output"
		return nil, u
	}
	l, err = Attribute(l, path, declared)
	if err != nil {
		u.Code, u.Reason = CodeAttribute, err.Error()
		return nil, u
	}
	if r.promises++; r.promises > 1 && r.size <= aloft.MaxMessageBytes {
		r.size += proto.Size(l)
	}
	if r.size > aloft.MaxMessageBytes {
		return nil, r.wrong("with it the inputs have more than %d MiB: give large values as files", aloft.MaxMessageBytes>>20)
	}
	return l, nil
}

// Attribute follows an attribute path into a literal: list elements by index, map entries by key, fields of structs.
// A union is the value in it. A list inside a struct becomes a collection, a map stays a struct, everything else is a primitive.
//
// A scalar inside a msgpack struct becomes a primitive only if flytekit packs values of the declared type as they are. A date,
// a duration or a type with a transformer of its own is packed as a string or a number that only its transformer can read. Such
// a value stays msgpack, as all values do in Flyte. If declared is nil, the kind of the scalar decides.
func Attribute(l *core.Literal, path []*core.PromiseAttribute, declared *core.LiteralType) (*core.Literal, error) {
	for len(path) > 0 {
		step := path[0]
		switch v := l.GetValue().(type) {
		case *core.Literal_Collection:
			i, err := index(step, len(v.Collection.GetLiterals()))
			if err != nil {
				return nil, err
			}
			l, path = v.Collection.GetLiterals()[i], path[1:]
		case *core.Literal_Map:
			k, ok := step.GetValue().(*core.PromiseAttribute_StringValue)
			if !ok {
				return nil, errors.New("a map has keys, not indices")
			}
			e, ok := v.Map.GetLiterals()[k.StringValue]
			if !ok {
				return nil, fmt.Errorf("the map has no key %q", aloft.Excerpt(k.StringValue))
			}
			l, path = e, path[1:]
		case *core.Literal_Scalar:
			switch s := v.Scalar.GetValue().(type) {
			case *core.Scalar_Union:
				if s.Union.GetValue() == nil {
					return nil, errors.New("the union has no value")
				}
				l = s.Union.GetValue()
			case *core.Scalar_Binary:
				if s.Binary.GetTag() != MsgPackTag {
					return nil, fmt.Errorf("a binary value with tag %q has no attributes", aloft.Excerpt(s.Binary.GetTag()))
				}
				return packedAttribute(s.Binary.GetValue(), path, declared)
			case *core.Scalar_Generic:
				return structAttribute(structpb.NewStructValue(s.Generic), path)
			default:
				return nil, fmt.Errorf("%s has no attributes", describe(l))
			}
		case *core.Literal_OffloadedMetadata:
			return nil, errors.New("the value is offloaded and cannot be looked into")
		default:
			return nil, errors.New("the value is not set")
		}
	}
	return l, nil
}

func describe(l *core.Literal) string {
	t, err := TypeOf(l)
	if err != nil {
		return "the value"
	}
	return "a value of type " + PrintType(t)
}

func index(step *core.PromiseAttribute, n int) (int, error) {
	i, ok := step.GetValue().(*core.PromiseAttribute_IntValue)
	if !ok {
		return 0, fmt.Errorf("a list has indices, not a key like %q", aloft.Excerpt(step.GetStringValue()))
	}
	if i.IntValue < 0 || int(i.IntValue) >= n {
		return 0, fmt.Errorf("index %d is out of range: the list has %d elements", i.IntValue, n)
	}
	return int(i.IntValue), nil
}

func packedAttribute(data []byte, path []*core.PromiseAttribute, declared *core.LiteralType) (*core.Literal, error) {
	p := newPackedReader(data)
	for _, step := range path {
		kind, err := p.kind()
		if err != nil {
			return nil, err
		}
		switch kind {
		case packedList:
			n, err := p.d.DecodeArrayLen()
			if err != nil {
				return nil, fmt.Errorf("read msgpack: %w", err)
			}
			i, err := index(step, n)
			if err != nil {
				return nil, err
			}
			for range i {
				if err := p.skip(0); err != nil {
					return nil, err
				}
			}
		case packedMap:
			k, ok := step.GetValue().(*core.PromiseAttribute_StringValue)
			if !ok {
				return nil, errors.New("a struct has fields, not indices")
			}
			found, err := p.field(k.StringValue)
			if err != nil {
				return nil, err
			}
			if !found {
				return nil, fmt.Errorf("the struct has no field %q", aloft.Excerpt(k.StringValue))
			}
		default:
			return nil, errors.New("a plain value inside the struct has no attributes")
		}
	}
	return p.literal(declared)
}

// field moves to the value of a string key.
func (p *packedReader) field(name string) (bool, error) {
	n, err := p.d.DecodeMapLen()
	if err != nil {
		return false, fmt.Errorf("read msgpack: %w", err)
	}
	for range n {
		key, isString, err := p.key(0)
		if err != nil {
			return false, err
		}
		if isString && key == name {
			return true, nil
		}
		if err := p.skip(0); err != nil {
			return false, err
		}
	}
	return false, nil
}

// literal gives the next value as a literal of the declared type.
func (p *packedReader) literal(declared *core.LiteralType) (*core.Literal, error) {
	kind, err := p.kind()
	if err != nil {
		return nil, err
	}
	cut := func() (*core.Literal, error) {
		from := p.offset()
		if err := p.skip(0); err != nil {
			return nil, err
		}
		return packedLiteral(p.data[from:p.offset()]), nil
	}
	switch kind {
	case packedMap:
		return cut()
	case packedList:
		n, err := p.d.DecodeArrayLen()
		if err != nil {
			return nil, fmt.Errorf("read msgpack: %w", err)
		}
		list := &core.LiteralCollection{}
		for range n {
			e, err := cut()
			if err != nil {
				return nil, err
			}
			list.Literals = append(list.Literals, e)
		}
		return &core.Literal{Value: &core.Literal_Collection{Collection: list}}, nil
	}
	if !packedPlainly(declared) {
		return cut()
	}
	from := p.offset()
	v, err := p.scalar()
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case string:
		return primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: v}}), nil
	case int64:
		return primitive(&core.Primitive{Value: &core.Primitive_Integer{Integer: v}}), nil
	case uint64:
		if v <= 1<<63-1 {
			return primitive(&core.Primitive{Value: &core.Primitive_Integer{Integer: int64(v)}}), nil
		}
	case float64:
		return primitive(&core.Primitive{Value: &core.Primitive_FloatValue{FloatValue: v}}), nil
	case bool:
		return primitive(&core.Primitive{Value: &core.Primitive_Boolean{Boolean: v}}), nil
	}
	return packedLiteral(p.data[from:p.offset()]), nil
}

// packedPlainly says whether flytekit packs values of a type as they are: numbers, texts, booleans, names of enums. Of a union, one
// such variant is enough; an unknown type, nil, counts as packed plainly.
func packedPlainly(t *core.LiteralType) bool {
	switch t := t.GetType().(type) {
	case nil:
		return true
	case *core.LiteralType_Simple:
		switch t.Simple {
		case core.SimpleType_INTEGER, core.SimpleType_FLOAT, core.SimpleType_STRING, core.SimpleType_BOOLEAN:
			return true
		}
	case *core.LiteralType_EnumType:
		return true
	case *core.LiteralType_UnionType:
		return slices.ContainsFunc(t.UnionType.GetVariants(), packedPlainly)
	}
	return false
}

func packedLiteral(data []byte) *core.Literal {
	return scalarLiteral(&core.Scalar{Value: &core.Scalar_Binary{Binary: &core.Binary{Value: data, Tag: MsgPackTag}}})
}

func primitive(p *core.Primitive) *core.Literal {
	return scalarLiteral(&core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}})
}

func scalarLiteral(s *core.Scalar) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: s}}
}

func structAttribute(v *structpb.Value, path []*core.PromiseAttribute) (*core.Literal, error) {
	for _, step := range path {
		switch k := v.GetKind().(type) {
		case *structpb.Value_StructValue:
			name, ok := step.GetValue().(*core.PromiseAttribute_StringValue)
			if !ok {
				return nil, errors.New("a struct has fields, not indices")
			}
			if v, ok = k.StructValue.GetFields()[name.StringValue]; !ok {
				return nil, fmt.Errorf("the struct has no field %q", aloft.Excerpt(name.StringValue))
			}
		case *structpb.Value_ListValue:
			i, err := index(step, len(k.ListValue.GetValues()))
			if err != nil {
				return nil, err
			}
			v = k.ListValue.GetValues()[i]
		default:
			return nil, errors.New("a plain value inside the struct has no attributes")
		}
	}
	return structLiteral(v, 0)
}

func structLiteral(v *structpb.Value, depth int) (*core.Literal, error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	switch k := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		return scalarLiteral(&core.Scalar{Value: &core.Scalar_Generic{Generic: k.StructValue}}), nil
	case *structpb.Value_ListValue:
		list := &core.LiteralCollection{Literals: make([]*core.Literal, len(k.ListValue.GetValues()))}
		for i, e := range k.ListValue.GetValues() {
			l, err := structLiteral(e, depth+1)
			if err != nil {
				return nil, err
			}
			list.Literals[i] = l
		}
		return &core.Literal{Value: &core.Literal_Collection{Collection: list}}, nil
	case *structpb.Value_StringValue:
		return primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: k.StringValue}}), nil
	case *structpb.Value_NumberValue:
		return primitive(&core.Primitive{Value: &core.Primitive_FloatValue{FloatValue: k.NumberValue}}), nil
	case *structpb.Value_BoolValue:
		return primitive(&core.Primitive{Value: &core.Primitive_Boolean{Boolean: k.BoolValue}}), nil
	}
	return scalarLiteral(&core.Scalar{Value: &core.Scalar_NoneType{NoneType: &core.Void{}}}), nil
}
