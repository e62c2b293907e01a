package literal

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// MsgPackTag marks a binary that holds a struct (a dataclass, a dict) as MessagePack.
const MsgPackTag = "msgpack"

// simpleTypes are the simple types, one shared message for each: most literals are simple, and lists of them are long.
var simpleTypes = func() (types [core.SimpleType_STRUCT + 1]*core.LiteralType) {
	for i := range types {
		types[i] = &core.LiteralType{Type: &core.LiteralType_Simple{Simple: core.SimpleType(i)}}
	}
	return types
}()

func simpleType(s core.SimpleType) *core.LiteralType { return simpleTypes[s] }

// TypeOf infers the type of a literal. The result shares memory with the literal and with other results and must not be changed.
func TypeOf(l *core.Literal) (*core.LiteralType, error) { return typeOf(l, 0) }

func typeOf(l *core.Literal, depth int) (*core.LiteralType, error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		return typeOfScalar(v.Scalar)
	case *core.Literal_Collection:
		element, err := typeOfAll(len(v.Collection.GetLiterals()), func(yield func(*core.Literal) bool) {
			for _, e := range v.Collection.GetLiterals() {
				if !yield(e) {
					return
				}
			}
		}, depth)
		if err != nil {
			return nil, err
		}
		return &core.LiteralType{Type: &core.LiteralType_CollectionType{CollectionType: element}}, nil
	case *core.Literal_Map:
		element, err := typeOfAll(len(v.Map.GetLiterals()), func(yield func(*core.Literal) bool) {
			for _, e := range v.Map.GetLiterals() {
				if !yield(e) {
					return
				}
			}
		}, depth)
		if err != nil {
			return nil, err
		}
		return &core.LiteralType{Type: &core.LiteralType_MapValueType{MapValueType: element}}, nil
	case *core.Literal_OffloadedMetadata:
		if t := v.OffloadedMetadata.GetInferredType(); t.GetType() != nil {
			return t, nil
		}
		return nil, errors.New("the offloaded literal states no type")
	}
	return nil, errors.New("the literal has no value")
}

var errDepth = fmt.Errorf("nested deeper than %d levels", MaxDepth)

// typeOfAll is the type of the elements of a list or map: NONE if it is empty, a union of the distinct types if they differ.
func typeOfAll(n int, elements func(func(*core.Literal) bool), depth int) (*core.LiteralType, error) {
	if n == 0 {
		return simpleType(core.SimpleType_NONE), nil
	}
	var first *core.LiteralType
	var firstKey string
	var distinct map[string]*core.LiteralType // by canonical bytes; nil as long as all elements have the same pointer
	var failure error
	elements(func(e *core.Literal) bool {
		t, err := typeOf(e, depth+1)
		if err != nil {
			failure = err
			return false
		}
		switch {
		case first == nil:
			first = t
			return true
		case t == first:
			return true
		}
		if distinct == nil {
			firstKey = typeKey(first)
			distinct = map[string]*core.LiteralType{firstKey: first}
		}
		if key := typeKey(t); key != firstKey {
			if _, ok := distinct[key]; !ok {
				distinct[key] = t
			}
		}
		return true
	})
	if failure != nil {
		return nil, failure
	}
	if len(distinct) <= 1 {
		return first, nil
	}
	keys := make([]string, 0, len(distinct))
	for key := range distinct {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	keys = withoutEmpty(keys, distinct)
	if len(keys) == 1 {
		return distinct[keys[0]], nil
	}
	union := &core.UnionType{Variants: make([]*core.LiteralType, len(keys))}
	for i, key := range keys {
		union.Variants[i] = distinct[key]
	}
	return &core.LiteralType{Type: &core.LiteralType_UnionType{UnionType: union}}, nil
}

// withoutEmpty drops the types of empty lists and maps if there is the type of one with elements: [[], [1]] is a list of lists of
// integers. Flyte finds two types there and refuses the value.
func withoutEmpty(keys []string, types map[string]*core.LiteralType) []string {
	if len(keys) > maxVariants {
		return keys
	}
	kept := keys[:0:0]
	for _, key := range keys {
		t := types[key]
		if !mentionsNone(t) || !slices.ContainsFunc(keys, func(other string) bool { return other != key && emptyOf(t, types[other]) }) {
			kept = append(kept, key)
		}
	}
	return kept
}

func mentionsNone(t *core.LiteralType) bool {
	for {
		switch v := t.GetType().(type) {
		case *core.LiteralType_CollectionType:
			t = v.CollectionType
		case *core.LiteralType_MapValueType:
			t = v.MapValueType
		default:
			return isNone(t)
		}
	}
}

// emptyOf says whether t is the type other but with an empty innermost list or map. The two must not be equal.
func emptyOf(t, other *core.LiteralType) bool {
	for {
		var inner, otherInner *core.LiteralType
		switch v := t.GetType().(type) {
		case *core.LiteralType_CollectionType:
			inner, otherInner = v.CollectionType, other.GetCollectionType()
		case *core.LiteralType_MapValueType:
			inner, otherInner = v.MapValueType, other.GetMapValueType()
		}
		if inner == nil || otherInner == nil {
			return false
		}
		if isNone(inner) {
			return true
		}
		t, other = inner, otherInner
	}
}

// typeKey is equal for equal types. A type that cannot be marshalled (text that is not UTF-8) equals no other.
func typeKey(t *core.LiteralType) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	if err != nil {
		return fmt.Sprintf("%p", t)
	}
	return string(b)
}

func typeOfScalar(s *core.Scalar) (*core.LiteralType, error) {
	switch v := s.GetValue().(type) {
	case *core.Scalar_Primitive:
		switch v.Primitive.GetValue().(type) {
		case *core.Primitive_Integer:
			return simpleType(core.SimpleType_INTEGER), nil
		case *core.Primitive_FloatValue:
			return simpleType(core.SimpleType_FLOAT), nil
		case *core.Primitive_StringValue:
			return simpleType(core.SimpleType_STRING), nil
		case *core.Primitive_Boolean:
			return simpleType(core.SimpleType_BOOLEAN), nil
		case *core.Primitive_Datetime:
			return simpleType(core.SimpleType_DATETIME), nil
		case *core.Primitive_Duration:
			return simpleType(core.SimpleType_DURATION), nil
		}
		return nil, errors.New("the primitive has no value")
	case *core.Scalar_NoneType:
		return simpleType(core.SimpleType_NONE), nil
	case *core.Scalar_Generic:
		return simpleType(core.SimpleType_STRUCT), nil
	case *core.Scalar_Binary:
		if v.Binary.GetTag() == MsgPackTag {
			return simpleType(core.SimpleType_STRUCT), nil
		}
		return simpleType(core.SimpleType_BINARY), nil
	case *core.Scalar_Error:
		return simpleType(core.SimpleType_ERROR), nil
	case *core.Scalar_Blob:
		t := v.Blob.GetMetadata().GetType()
		if t == nil {
			t = &core.BlobType{}
		}
		return &core.LiteralType{Type: &core.LiteralType_Blob{Blob: t}}, nil
	case *core.Scalar_Schema:
		t := v.Schema.GetType()
		if t == nil {
			t = &core.SchemaType{}
		}
		return &core.LiteralType{Type: &core.LiteralType_Schema{Schema: t}}, nil
	case *core.Scalar_StructuredDataset:
		t := v.StructuredDataset.GetMetadata().GetStructuredDatasetType()
		if t == nil {
			t = &core.StructuredDatasetType{}
		}
		return &core.LiteralType{Type: &core.LiteralType_StructuredDatasetType{StructuredDatasetType: t}}, nil
	case *core.Scalar_Union:
		if v.Union.GetType().GetType() == nil {
			return nil, errors.New("the union value does not say which variant it is")
		}
		return &core.LiteralType{Type: &core.LiteralType_UnionType{UnionType: &core.UnionType{Variants: []*core.LiteralType{v.Union.GetType()}}}}, nil
	}
	return nil, errors.New("the scalar has no value")
}

// CheckType says what is wrong with a declared type: a type within it is not set, or it is nested too deep.
func CheckType(t *core.LiteralType) error { return checkType(t, 0) }

// maxVariants bounds the variants of a declared union: each bound value is checked against each variant.
const maxVariants = 1_000

func checkType(t *core.LiteralType, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	switch v := t.GetType().(type) {
	case nil:
		return errors.New("the type is not set")
	case *core.LiteralType_Simple:
		if _, ok := core.SimpleType_name[int32(v.Simple)]; !ok {
			return fmt.Errorf("simple type %d is unknown", v.Simple)
		}
	case *core.LiteralType_CollectionType:
		return checkType(v.CollectionType, depth+1)
	case *core.LiteralType_MapValueType:
		return checkType(v.MapValueType, depth+1)
	case *core.LiteralType_UnionType:
		if len(v.UnionType.GetVariants()) == 0 {
			return errors.New("the union has no variants")
		}
		if n := len(v.UnionType.GetVariants()); n > maxVariants {
			return fmt.Errorf("the union has %d variants, more than %d", n, maxVariants)
		}
		for _, variant := range v.UnionType.GetVariants() {
			if err := checkType(variant, depth+1); err != nil {
				return err
			}
		}
	case *core.LiteralType_StructuredDatasetType:
		for _, c := range v.StructuredDatasetType.GetColumns() {
			if err := checkType(c.GetLiteralType(), depth+1); err != nil {
				return fmt.Errorf("column %q: %w", aloft.Excerpt(c.GetName()), err)
			}
		}
	}
	for field, f := range t.GetStructure().GetDataclassType() {
		if f.GetType() == nil {
			continue // a field of a Python type that flytekit cannot express
		}
		if err := checkType(f, depth+1); err != nil {
			return fmt.Errorf("field %q: %w", aloft.Excerpt(field), err)
		}
	}
	return nil
}

// Optional says whether a value of the type may be absent: a union with a NONE variant.
func Optional(t *core.LiteralType) bool {
	return slices.ContainsFunc(t.GetUnionType().GetVariants(), isNone)
}

func isNone(t *core.LiteralType) bool {
	v, ok := t.GetType().(*core.LiteralType_Simple)
	return ok && v.Simple == core.SimpleType_NONE
}
