package literal

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Holds evaluates a condition of a branch node over the node's inputs, which are named as the operands name them. The error says
// why the condition has no value: it is the user's, and no other evaluation would differ.
//
// Source: flyte-execution reference 2.10. Unlike Flyte an integer is compared with a float by its value, None is equal to None
// alone, and times and durations are compared with their fractions of seconds.
func Holds(condition *core.BooleanExpression, inputs *core.LiteralMap) (bool, error) {
	return holds(condition, inputs, 0)
}

func holds(condition *core.BooleanExpression, inputs *core.LiteralMap, depth int) (bool, error) {
	if depth > MaxDepth {
		return false, errDepth
	}
	switch e := condition.GetExpr().(type) {
	case *core.BooleanExpression_Conjunction:
		// Both sides, also where one would do: a mistake is not to depend on the values of the other side.
		left, errLeft := holds(e.Conjunction.GetLeftExpression(), inputs, depth+1)
		right, errRight := holds(e.Conjunction.GetRightExpression(), inputs, depth+1)
		if errLeft != nil || errRight != nil {
			return false, cmp.Or(errLeft, errRight)
		}
		switch e.Conjunction.GetOperator() {
		case core.ConjunctionExpression_AND:
			return left && right, nil
		case core.ConjunctionExpression_OR:
			return left || right, nil
		}
		return false, fmt.Errorf("conditions are joined by operator %d, which this release does not know", e.Conjunction.GetOperator())
	case *core.BooleanExpression_Comparison:
		left, err := comparand(e.Comparison.GetLeftValue(), inputs)
		if err != nil {
			return false, err
		}
		right, err := comparand(e.Comparison.GetRightValue(), inputs)
		if err != nil {
			return false, err
		}
		return compare(left, right, e.Comparison.GetOperator())
	}
	return false, errors.New("it is neither a comparison nor a conjunction")
}

// operand is a value that can be compared, with the name by which messages call it.
type operand struct {
	value any // int64, float64, bool, string, time.Time, time.Duration; nil: None
	name  string
}

// comparand is the value of an operand.
func comparand(o *core.Operand, inputs *core.LiteralMap) (operand, error) {
	var l *core.Literal
	name := "the constant"
	switch v := o.GetVal().(type) {
	case *core.Operand_Primitive:
		l = primitive(v.Primitive)
	case *core.Operand_Scalar:
		l = scalarLiteral(v.Scalar)
	case *core.Operand_Var:
		name = strings.TrimPrefix(v.Var, ".")
		var ok bool
		if l, ok = inputs.GetLiterals()[v.Var]; !ok {
			return operand{}, fmt.Errorf("%s has no value", name)
		}
	default:
		return operand{}, errors.New("an operand has no value")
	}
	for range MaxDepth {
		union := l.GetScalar().GetUnion()
		if union == nil {
			break
		}
		l = union.GetValue()
	}
	if l.GetScalar().GetNoneType() != nil {
		return operand{name: name}, nil
	}
	out := operand{name: name}
	switch v := l.GetScalar().GetPrimitive().GetValue().(type) {
	case *core.Primitive_Integer:
		out.value = v.Integer
	case *core.Primitive_FloatValue:
		out.value = v.FloatValue
	case *core.Primitive_Boolean:
		out.value = v.Boolean
	case *core.Primitive_StringValue:
		out.value = v.StringValue
	case *core.Primitive_Datetime:
		out.value = v.Datetime.AsTime()
	case *core.Primitive_Duration:
		out.value = v.Duration.AsDuration()
	default:
		return operand{}, fmt.Errorf("%s is %s: conditions compare numbers, texts, booleans, times, durations and None", name, describe(l))
	}
	return out, nil
}

func compare(a, b operand, operator core.ComparisonExpression_Operator) (bool, error) {
	switch operator {
	case core.ComparisonExpression_EQ, core.ComparisonExpression_NEQ:
	case core.ComparisonExpression_GT, core.ComparisonExpression_GTE, core.ComparisonExpression_LT, core.ComparisonExpression_LTE:
		for _, o := range []operand{a, b} {
			switch o.value.(type) {
			case nil:
				return false, fmt.Errorf("%s is None, which is neither less nor greater than anything", o.name)
			case bool:
				return false, fmt.Errorf("%s is a boolean, which is neither less nor greater than anything", o.name)
			}
		}
	default:
		return false, fmt.Errorf("values are compared by operator %d, which this release does not know", operator)
	}
	order, ordered, err := orderOf(a, b)
	if err != nil {
		return false, err
	}
	switch operator {
	case core.ComparisonExpression_NEQ:
		return !ordered || order != 0, nil
	case core.ComparisonExpression_GT:
		return ordered && order > 0, nil
	case core.ComparisonExpression_GTE:
		return ordered && order >= 0, nil
	case core.ComparisonExpression_LT:
		return ordered && order < 0, nil
	case core.ComparisonExpression_LTE:
		return ordered && order <= 0, nil
	case core.ComparisonExpression_EQ:
	}
	return ordered && order == 0, nil
}

// orderOf compares two values; ordered is false where neither is less and they are not equal: NaN, and None with anything else.
func orderOf(a, b operand) (order int, ordered bool, err error) {
	if a.value == nil || b.value == nil {
		return 0, a.value == nil && b.value == nil, nil
	}
	number := func(value any) *big.Float {
		switch v := value.(type) {
		case int64:
			return new(big.Float).SetInt64(v)
		case float64:
			return new(big.Float).SetFloat64(v)
		}
		return nil
	}
	nan := func(value any) bool { f, ok := value.(float64); return ok && math.IsNaN(f) }
	switch x := a.value.(type) {
	case int64, float64:
		switch b.value.(type) {
		case int64, float64:
			if nan(a.value) || nan(b.value) {
				return 0, false, nil
			}
			return number(a.value).Cmp(number(b.value)), true, nil
		}
	case bool:
		if y, ok := b.value.(bool); ok {
			return map[bool]int{true: 0, false: 1}[x == y], true, nil
		}
	case string:
		if y, ok := b.value.(string); ok {
			return cmp.Compare(x, y), true, nil
		}
	case time.Time:
		if y, ok := b.value.(time.Time); ok {
			return x.Compare(y), true, nil
		}
	case time.Duration:
		if y, ok := b.value.(time.Duration); ok {
			return cmp.Compare(x, y), true, nil
		}
	}
	return 0, false, fmt.Errorf("%s is %s and %s is %s: they cannot be compared", a.name, a.kind(), b.name, b.kind())
}

func (o operand) kind() string {
	switch o.value.(type) {
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case string:
		return "a text"
	case time.Time:
		return "a time"
	case time.Duration:
		return "a duration"
	}
	return "None"
}

// Comparable says whether values of two types can be compared in a condition, as Holds does it. A type that is not known can.
func Comparable(a, b *core.LiteralType) bool {
	kinds := func(t *core.LiteralType) map[string]bool {
		all := map[string]bool{}
		comparableKinds(t, all, 0)
		return all
	}
	if a == nil || b == nil {
		return true
	}
	left, right := kinds(a), kinds(b)
	for kind := range left {
		if right[kind] {
			return true
		}
	}
	return left["none"] && len(right) > 0 || right["none"] && len(left) > 0
}

// comparableKinds are the kinds of values of a type that conditions can compare.
func comparableKinds(t *core.LiteralType, kinds map[string]bool, depth int) {
	if depth > MaxDepth {
		return
	}
	for _, v := range t.GetUnionType().GetVariants() {
		comparableKinds(v, kinds, depth+1)
	}
	if t.GetEnumType() != nil {
		kinds["text"] = true
	}
	if _, simple := t.GetType().(*core.LiteralType_Simple); !simple {
		return
	}
	switch t.GetSimple() {
	case core.SimpleType_NONE:
		kinds["none"] = true
	case core.SimpleType_INTEGER, core.SimpleType_FLOAT:
		kinds["number"] = true
	case core.SimpleType_BOOLEAN:
		kinds["boolean"] = true
	case core.SimpleType_STRING:
		kinds["text"] = true
	case core.SimpleType_DATETIME:
		kinds["time"] = true
	case core.SimpleType_DURATION:
		kinds["duration"] = true
	}
}
