package literal

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func operandOf(value any) *core.Operand {
	if name, ok := value.(string); ok && strings.HasPrefix(name, "$") {
		return &core.Operand{Val: &core.Operand_Var{Var: name[1:]}}
	}
	if value == nil {
		return &core.Operand{Val: &core.Operand_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_NoneType{NoneType: &core.Void{}}}}}
	}
	return &core.Operand{Val: &core.Operand_Primitive{Primitive: literalOf(value).GetScalar().GetPrimitive()}}
}

func literalOf(value any) *core.Literal {
	p := &core.Primitive{}
	switch v := value.(type) {
	case int:
		p.Value = &core.Primitive_Integer{Integer: int64(v)}
	case float64:
		p.Value = &core.Primitive_FloatValue{FloatValue: v}
	case bool:
		p.Value = &core.Primitive_Boolean{Boolean: v}
	case string:
		p.Value = &core.Primitive_StringValue{StringValue: v}
	case time.Time:
		p.Value = &core.Primitive_Datetime{Datetime: timestamppb.New(v)}
	case time.Duration:
		p.Value = &core.Primitive_Duration{Duration: durationpb.New(v)}
	case nil:
		return scalarLiteral(&core.Scalar{Value: &core.Scalar_NoneType{NoneType: &core.Void{}}})
	}
	return primitive(p)
}

func comparison(left any, operator core.ComparisonExpression_Operator, right any) *core.BooleanExpression {
	return &core.BooleanExpression{Expr: &core.BooleanExpression_Comparison{Comparison: &core.ComparisonExpression{
		Operator: operator, LeftValue: operandOf(left), RightValue: operandOf(right),
	}}}
}

func TestAConditionComparesByValue(t *testing.T) {
	t.Parallel()
	const eq, neq, gt, gte, lt, lte = core.ComparisonExpression_EQ, core.ComparisonExpression_NEQ, core.ComparisonExpression_GT,
		core.ComparisonExpression_GTE, core.ComparisonExpression_LT, core.ComparisonExpression_LTE
	at := time.Unix(1_700_000_000, 0)
	optional := func(value any) *core.Literal {
		return scalarLiteral(&core.Scalar{Value: &core.Scalar_Union{Union: &core.Union{Value: literalOf(value)}}})
	}
	inputs := &core.LiteralMap{Literals: map[string]*core.Literal{
		".x": literalOf(7), "n0.o0": literalOf("b"), "some": optional(7), "none": optional(nil),
		"list": {Value: &core.Literal_Collection{Collection: &core.LiteralCollection{}}},
	}}
	for _, c := range []struct {
		left     any
		operator core.ComparisonExpression_Operator
		right    any
		want     string // true, false, or a part of the error
	}{
		{"$.x", eq, 7, "true"}, {"$.x", neq, 7, "false"}, {"$.x", gt, 6, "true"}, {"$.x", gte, 7, "true"}, {"$.x", lt, 7, "false"}, {"$.x", lte, 7, "true"},
		{7, eq, 7.0, "true"}, {7, lt, 7.5, "true"}, {math.MaxInt64, eq, float64(math.MaxInt64), "false"}, {0.1, gt, 0, "true"},
		{math.NaN(), eq, math.NaN(), "false"}, {math.NaN(), neq, math.NaN(), "true"}, {math.NaN(), lte, 1, "false"}, {math.Inf(1), gt, math.MaxInt64, "true"},
		{true, eq, true, "true"}, {true, neq, false, "true"}, {true, gt, false, "the constant is a boolean"},
		{"$n0.o0", gt, "a", "true"}, {"$n0.o0", lt, "a", "false"}, {"", eq, "", "true"},
		{at, lt, at.Add(time.Millisecond), "true"}, {at, eq, at.In(time.FixedZone("x", 3600)), "true"},
		{time.Second, gte, time.Second - 1, "true"},
		{"$some", eq, 7, "true"}, {"$some", eq, nil, "false"}, {"$some", neq, nil, "true"}, {"$none", eq, nil, "true"}, {"$none", eq, 7, "false"},
		{"$none", neq, 7, "true"}, {"$none", gt, 7, "none is None, which is neither less nor greater"},
		{"$.x", eq, "7", "x is an integer and the constant is a text: they cannot be compared"}, {"$n0.o0", eq, true, "n0.o0 is a text"},
		{"$gone", eq, 7, "gone has no value"}, {"$list", eq, 7, "conditions compare numbers"}, {7, 9, 7, "operator 9"},
	} {
		got, err := Holds(comparison(c.left, c.operator, c.right), inputs)
		switch {
		case err != nil && (c.want == "true" || c.want == "false" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%v %s %v: %v, want %s", c.left, c.operator, c.right, err, c.want)
		case err == nil && c.want != map[bool]string{true: "true", false: "false"}[got]:
			t.Errorf("%v %s %v is %t, want %s", c.left, c.operator, c.right, got, c.want)
		}
	}
}

func TestConditionsAreJoined(t *testing.T) {
	t.Parallel()
	yes, no, bad := comparison(1, core.ComparisonExpression_EQ, 1), comparison(1, core.ComparisonExpression_EQ, 2), comparison("$gone", core.ComparisonExpression_EQ, 1)
	join := func(operator core.ConjunctionExpression_LogicalOperator, left, right *core.BooleanExpression) *core.BooleanExpression {
		return &core.BooleanExpression{Expr: &core.BooleanExpression_Conjunction{Conjunction: &core.ConjunctionExpression{
			Operator: operator, LeftExpression: left, RightExpression: right,
		}}}
	}
	const and, or = core.ConjunctionExpression_AND, core.ConjunctionExpression_OR
	for name, c := range map[string]struct {
		condition *core.BooleanExpression
		want      bool
		fails     string
	}{
		"and": {join(and, yes, yes), true, ""}, "and not": {join(and, yes, no), false, ""}, "or": {join(or, no, yes), true, ""}, "or not": {join(or, no, no), false, ""},
		"nested":                      {join(or, join(and, yes, no), join(and, yes, yes)), true, ""},
		"a mistake on a decided side": {join(or, yes, bad), false, "gone has no value"},
		"an unknown operator":         {join(7, yes, yes), false, "operator 7"},
		"nothing":                     {&core.BooleanExpression{}, false, "neither"},
	} {
		got, err := Holds(c.condition, nil)
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %t, %v; want %t, %q", name, got, err, c.want, c.fails)
		}
	}
	deep := yes
	for range 2 * MaxDepth {
		deep = join(and, deep, yes)
	}
	if _, err := Holds(deep, nil); err == nil {
		t.Error("a condition without end of nesting was evaluated")
	}
}

func TestWhatCanBeComparedIsKnownFromTypes(t *testing.T) {
	t.Parallel()
	simple := func(s core.SimpleType) *core.LiteralType {
		return &core.LiteralType{Type: &core.LiteralType_Simple{Simple: s}}
	}
	union := func(variants ...*core.LiteralType) *core.LiteralType {
		return &core.LiteralType{Type: &core.LiteralType_UnionType{UnionType: &core.UnionType{Variants: variants}}}
	}
	integer, float, text, none := simple(core.SimpleType_INTEGER), simple(core.SimpleType_FLOAT), simple(core.SimpleType_STRING), simple(core.SimpleType_NONE)
	list := &core.LiteralType{Type: &core.LiteralType_CollectionType{CollectionType: integer}}
	enum := &core.LiteralType{Type: &core.LiteralType_EnumType{EnumType: &core.EnumType{Values: []string{"a"}}}}
	for name, c := range map[string]struct {
		a, b *core.LiteralType
		want bool
	}{
		"equal": {integer, integer, true}, "numbers": {integer, float, true}, "a number and a text": {integer, text, false}, "an enum and a text": {enum, text, true},
		"an optional and its value": {union(integer, none), integer, true}, "an optional and none": {union(integer, none), none, true},
		"an optional and another": {union(text, none), integer, true}, "a value and none": {integer, none, true},
		"a list": {list, integer, false}, "a list and none": {list, none, false}, "not known": {nil, text, true}, "two optionals": {union(text, none), union(integer, none), true},
	} {
		if got := Comparable(c.a, c.b); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
