package literal

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Validate reports literals that are no valid input of any type: without a value, with an empty key, with a time or duration out of
// the protocol's range, or nested deeper than MaxDepth. The error is a Mistakes.
func Validate(m *core.LiteralMap) error {
	var mistakes Mistakes
	for _, name := range slices.Sorted(maps.Keys(m.GetLiterals())) {
		if name == "" {
			mistakes.add("an input has no name")
		}
		validate(&mistakes, name, m.GetLiterals()[name], 0)
	}
	return mistakes.err()
}

// maxMistakes is how many mistakes of one kind are reported: a million wrong elements of a list have one cause.
const maxMistakes = 100

func validate(mistakes *Mistakes, where string, l *core.Literal, depth int) {
	if len(*mistakes) >= maxMistakes {
		return
	}
	if depth > MaxDepth {
		mistakes.add("%s is %v", strings.SplitN(where, "[", 2)[0], errDepth)
		return
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		switch s := v.Scalar.GetValue().(type) {
		case nil:
			mistakes.add("missing value for %s", where)
		case *core.Scalar_Primitive:
			switch p := s.Primitive.GetValue().(type) {
			case nil:
				mistakes.add("missing value for %s", where)
			case *core.Primitive_Datetime:
				if err := p.Datetime.CheckValid(); err != nil {
					mistakes.add("invalid value for %s: the datetime is not between the years 1 and 9999", where)
				}
			case *core.Primitive_Duration:
				if err := p.Duration.CheckValid(); err != nil {
					mistakes.add("invalid value for %s: the duration is out of range (about 10,000 years) or its seconds and nanoseconds differ in sign", where)
				}
			}
		case *core.Scalar_Union:
			if s.Union.GetType().GetType() == nil {
				mistakes.add("missing type of the union value for %s", where)
			}
			validate(mistakes, where, s.Union.GetValue(), depth+1)
		}
	case *core.Literal_Collection:
		for i, e := range v.Collection.GetLiterals() {
			if depth == MaxDepth || !alwaysValid(e) {
				validate(mistakes, fmt.Sprintf("%s[%d]", where, i), e, depth+1)
			}
		}
	case *core.Literal_Map:
		for _, key := range slices.Sorted(maps.Keys(v.Map.GetLiterals())) {
			validate(mistakes, where+"["+strconv.Quote(aloft.Excerpt(key))+"]", v.Map.GetLiterals()[key], depth+1)
		}
	case *core.Literal_OffloadedMetadata:
		if v.OffloadedMetadata.GetUri() == "" {
			mistakes.add("missing uri of the offloaded value for %s", where)
		}
	default:
		mistakes.add("missing value for %s", where)
	}
}

// alwaysValid says whether a literal is of a kind that is always valid. In long lists of such values no paths need be made for
// messages.
func alwaysValid(l *core.Literal) bool {
	switch l.GetScalar().GetPrimitive().GetValue().(type) {
	case *core.Primitive_Integer, *core.Primitive_FloatValue, *core.Primitive_StringValue, *core.Primitive_Boolean:
		return true
	}
	return false
}

// ResolveInputs computes the inputs of an execution: the given ones, defaults for those that are not given, and the fixed inputs of
// the launch plan. The error is a Mistakes with all mistakes, whose sentences begin as Flyte's do: "invalid input k",
// "expected_inputs k missing", "invalid k input wrong type".
//
// Unlike Flyte it checks the values of enums, so that the user gets the error from the command that launches the execution.
func ResolveInputs(expected *core.ParameterMap, given, fixed *core.LiteralMap) (*core.LiteralMap, error) {
	var mistakes Mistakes
	parameters := expected.GetParameters()
	inputs := make(map[string]*core.Literal, len(parameters)+len(fixed.GetLiterals()))
	for _, name := range slices.Sorted(maps.Keys(given.GetLiterals())) {
		if _, ok := parameters[name]; ok {
			continue
		}
		switch _, isFixed := fixed.GetLiterals()[name]; {
		case isFixed:
			mistakes.add("invalid input %s: the launch plan fixes its value, leave it out", name)
		case len(parameters) == 0:
			mistakes.add("invalid input %s: no inputs are expected", name)
		default:
			mistakes.add("invalid input %s: expected are %s", name, names(parameters))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		parameter := parameters[name]
		l, ok := given.GetLiterals()[name]
		if !ok {
			def, ok := parameter.GetBehavior().(*core.Parameter_Default)
			if !ok {
				mistakes.add("expected_inputs %s missing: it has type %s and no default", name, printShort(parameter.GetVar().GetType()))
				continue
			}
			inputs[name] = def.Default
			continue
		}
		if err := CheckValue(l, parameter.GetVar().GetType()); err != nil {
			mistakes.add("invalid %s input %v", name, err)
			continue
		}
		inputs[name] = l
	}
	for _, name := range slices.Sorted(maps.Keys(fixed.GetLiterals())) {
		if _, ok := parameters[name]; ok {
			mistakes.add("invalid input %s: the launch plan both fixes it and expects it", name)
		}
		inputs[name] = fixed.GetLiterals()[name]
	}
	if err := mistakes.err(); err != nil {
		return nil, err
	}
	return &core.LiteralMap{Literals: inputs}, nil
}

func printShort(t *core.LiteralType) string {
	p := &printer{limit: maxMessageText}
	p.typ(t, 0)
	return p.text()
}

func names[V any](m map[string]V) string {
	all := slices.Sorted(maps.Keys(m))
	if len(all) > 20 {
		return strings.Join(all[:20], ", ") + fmt.Sprintf(" and %d more", len(all)-20)
	}
	return strings.Join(all, ", ")
}

// CheckValue says why a literal is no value of a declared type: its type does not fit, or it is not in an enum.
func CheckValue(l *core.Literal, declared *core.LiteralType) error {
	t, err := TypeOf(l)
	if err != nil {
		return fmt.Errorf("has no type: %w", err)
	}
	if !Castable(t, declared) {
		return fmt.Errorf("wrong type. Expected %s, but got %s: %s", printShort(declared), printShort(t), PrintMax(l, 80))
	}
	return CheckEnum(l, declared)
}

// CheckEnum says which text in a literal is no value of its declared enum. The types must fit already.
func CheckEnum(l *core.Literal, declared *core.LiteralType) error { return checkEnum(l, declared, 0) }

func checkEnum(l *core.Literal, declared *core.LiteralType, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	if u := l.GetScalar().GetUnion(); u != nil {
		return checkEnum(u.GetValue(), variantOf(u.GetType(), declared), depth+1)
	}
	switch d := declared.GetType().(type) {
	case *core.LiteralType_EnumType:
		s, ok := l.GetScalar().GetPrimitive().GetValue().(*core.Primitive_StringValue)
		if ok && !slices.Contains(d.EnumType.GetValues(), s.StringValue) {
			return fmt.Errorf("has an unknown value %q: it is one of %s", aloft.Excerpt(s.StringValue), strings.Join(d.EnumType.GetValues(), ", "))
		}
	case *core.LiteralType_UnionType:
		t, err := TypeOf(l)
		if err != nil {
			return err
		}
		return checkEnum(l, variantOf(t, declared), depth+1)
	case *core.LiteralType_CollectionType:
		if !mentionsEnum(d.CollectionType, 0) {
			return nil
		}
		for i, e := range l.GetCollection().GetLiterals() {
			if err := checkEnum(e, d.CollectionType, depth+1); err != nil {
				return fmt.Errorf("at index %d %w", i, err)
			}
		}
	case *core.LiteralType_MapValueType:
		if !mentionsEnum(d.MapValueType, 0) {
			return nil
		}
		for _, key := range slices.Sorted(maps.Keys(l.GetMap().GetLiterals())) {
			if err := checkEnum(l.GetMap().GetLiterals()[key], d.MapValueType, depth+1); err != nil {
				return fmt.Errorf("at key %q %w", aloft.Excerpt(key), err)
			}
		}
	}
	return nil
}

// variantOf is the variant of a declared union that accepts a type; the declared type itself if it is no union.
func variantOf(t, declared *core.LiteralType) *core.LiteralType {
	variants := declared.GetUnionType().GetVariants()
	if len(variants) == 0 {
		return declared
	}
	if i := Variant(t, variants); i >= 0 {
		return variants[i]
	}
	return nil
}

func mentionsEnum(t *core.LiteralType, depth int) bool {
	if depth > MaxDepth {
		return false
	}
	switch v := t.GetType().(type) {
	case *core.LiteralType_EnumType:
		return true
	case *core.LiteralType_CollectionType:
		return mentionsEnum(v.CollectionType, depth+1)
	case *core.LiteralType_MapValueType:
		return mentionsEnum(v.MapValueType, depth+1)
	case *core.LiteralType_UnionType:
		return slices.ContainsFunc(v.UnionType.GetVariants(), func(t *core.LiteralType) bool { return mentionsEnum(t, depth+1) })
	}
	return false
}
