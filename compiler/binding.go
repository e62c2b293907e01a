package compiler

import (
	"maps"
	"slices"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// maxErrors is the number of errors after which the compiler stops looking for more: many nodes can lack a thousand inputs each.
const maxErrors = 100_000

// maxErrorsOfInput is the same for a single list or map that is bound to an input.
const maxErrorsOfInput = 20

func (g *graph) checkBindings() {
	for _, n := range g.order {
		if len(g.errs) > maxErrors {
			return
		}
		g.checkInputs(n)
		n.inArms(g.checkInputs)
	}
	g.checkInputs(g.end)
	if g.failure != nil {
		g.checkInputs(g.failure)
	}
}

// checkInputs checks that every input of a node is bound once, to a value of its type. An optional input may stay unbound.
func (g *graph) checkInputs(n *node) {
	if n.unknown {
		return
	}
	if n.GetBranchNode() != nil {
		g.branchInputs(n)
		g.checkConditions(n)
	}
	id := n.GetId()
	bound := make(map[string]bool, len(n.GetInputs()))
	given := make(map[string]bool, len(n.GetInputs()))
	for _, b := range n.GetInputs() {
		name := b.GetVar()
		if given[name] {
			g.errs.add(ParameterBoundMoreThanOnce, id, "Input [%s] is bound more than once.", name)
			continue
		}
		given[name] = true
		variable, ok := n.inputs[name]
		if !ok {
			g.errs.add(VariableNameNotFound, id, "Variable [%s] not found on node [%s].", name, id)
			continue
		}
		c := bindingCheck{graph: g, node: n, input: name, errs: &g.errs, limit: len(g.errs) + maxErrorsOfInput}
		if bound[name] = c.binding(b.GetBinding(), variable.GetType(), 0); !bound[name] {
			g.errs.add(ParameterNotBound, id, "Parameter not bound [%s].", name)
		}
	}
	for _, name := range n.required {
		if !given[name] {
			g.errs.add(ParameterNotBound, id, "Parameter not bound [%s].", name)
		}
	}
}

// bindingCheck checks the binding of one input of a node. Its errors go to errs, which is not that of the graph while variants of a
// union are tried.
type bindingCheck struct {
	*graph
	node  *node
	input string
	errs  *Errors
	limit int // once errs has so many errors, further elements of a list or map are not checked
}

func (c bindingCheck) enough() bool { return len(*c.errs) >= c.limit }

func (c bindingCheck) add(code Code, format string, args ...any) {
	c.errs.add(code, c.node.GetId(), format, args...)
}

// binding checks a binding against the declared type. It returns false if the binding refers to nothing, so that the input
// counts as not bound. A value of the wrong type is reported, and the input counts as bound.
func (c bindingCheck) binding(data *core.BindingData, declared *core.LiteralType, depth int) bool {
	if depth > literal.MaxDepth {
		c.add(InvalidValue, "The binding of '%s' is nested deeper than %d levels.", c.input, literal.MaxDepth)
		return true
	}
	switch v := data.GetValue().(type) {
	case *core.BindingData_Scalar:
		c.constant(&core.Literal{Value: &core.Literal_Scalar{Scalar: v.Scalar}}, declared)
		return true
	case *core.BindingData_OffloadedMetadata:
		c.constant(&core.Literal{Value: &core.Literal_OffloadedMetadata{OffloadedMetadata: v.OffloadedMetadata}}, declared)
		return true
	case *core.BindingData_Promise:
		return c.promise(v.Promise, declared)
	case *core.BindingData_Collection:
		switch d := declared.GetType().(type) {
		case *core.LiteralType_CollectionType:
			ok := true
			for _, e := range v.Collection.GetBindings() {
				if c.enough() {
					break
				}
				ok = c.binding(e, d.CollectionType, depth+1) && ok
			}
			return ok
		case *core.LiteralType_UnionType:
			return c.union(data, d.UnionType, depth)
		}
		c.add(MismatchingBindings, "Input [%s] on node [%s] expects bindings of type [%s], but a list is bound to it.", c.input, c.node.GetId(), literal.PrintType(declared))
		return true
	case *core.BindingData_Map:
		switch d := declared.GetType().(type) {
		case *core.LiteralType_MapValueType:
			ok := true
			for _, key := range slices.Sorted(maps.Keys(v.Map.GetBindings())) {
				if c.enough() {
					break
				}
				ok = c.binding(v.Map.GetBindings()[key], d.MapValueType, depth+1) && ok
			}
			return ok
		case *core.LiteralType_UnionType:
			return c.union(data, d.UnionType, depth)
		}
		c.add(MismatchingBindings, "Input [%s] on node [%s] expects bindings of type [%s], but a map is bound to it.", c.input, c.node.GetId(), literal.PrintType(declared))
		return true
	}
	c.add(ValueRequired, "Value required [inputs[%s].binding].", c.input)
	return true
}

// union checks that exactly one variant of a union takes a list or map of bindings.
func (c bindingCheck) union(data *core.BindingData, union *core.UnionType, depth int) bool {
	fitting := 0
	for _, variant := range union.GetVariants() {
		var errs Errors
		trial := c
		trial.errs, trial.limit = &errs, 1
		if trial.binding(data, variant, depth+1) && len(errs) == 0 {
			fitting++
		}
	}
	declared := literal.PrintType(&core.LiteralType{Type: &core.LiteralType_UnionType{UnionType: union}})
	switch {
	case fitting == 0:
		c.add(IncompatibleBindingUnionValue, "Input [%s] on node [%s] is bound to a value that no variant of [%s] takes.", c.input, c.node.GetId(), declared)
	case fitting > 1:
		c.add(AmbiguousBindingUnionValue, "Input [%s] on node [%s] is bound to a value that several variants of [%s] take.", c.input, c.node.GetId(), declared)
	}
	return true
}

func (c bindingCheck) constant(l *core.Literal, declared *core.LiteralType) {
	t, err := literal.TypeOf(l)
	if err != nil {
		c.add(InvalidLiteralType, "The literal bound to the input variable '%s' has no type: %v.", c.name(c.node, c.input), err)
		return
	}
	if !literal.Castable(t, declared) {
		c.add(MismatchingTypes, "The literal %s has type [%s], but it's assigned to the input variable '%s' which has type [%s].",
			literal.PrintMax(l, 80), literal.PrintType(t), c.name(c.node, c.input), literal.PrintType(declared))
		return
	}
	if err := literal.CheckEnum(l, declared); err != nil {
		c.add(IllegalEnumValue, "The input variable '%s' %v.", c.name(c.node, c.input), err)
	}
}

// name is a variable's name in messages, with the name of its node if the client gave one.
func (bindingCheck) name(n *node, variable string) string {
	if name := n.GetMetadata().GetName(); name != "" {
		return name + "." + variable
	}
	return variable
}

func (c bindingCheck) promise(p *core.OutputReference, declared *core.LiteralType) bool {
	from, ok := c.nodes[p.GetNodeId()]
	if !ok {
		c.errs.add(NodeReferenceNotFound, p.GetNodeId(), "Referenced node [%s] not found.", p.GetNodeId())
		return false
	}
	if from.unknown {
		return true
	}
	variable, index, indexed := literal.SplitVariable(p.GetVar())
	if _, exact := from.outputs[p.GetVar()]; exact {
		variable, indexed = p.GetVar(), false
	}
	if output, ok := from.aliases[variable]; ok {
		variable = output
	}
	output, ok := from.outputs[variable]
	if !ok {
		c.errs.add(VariableNameNotFound, p.GetNodeId(), "Variable [%s] not found on node [%s].", p.GetVar(), p.GetNodeId())
		return false
	}
	t, path := output.GetType(), p.GetAttrPath()
	fits := true
	if indexed {
		// Only lists have elements; Flyte reports anything else as a type that does not match.
		element, ok := t.GetType().(*core.LiteralType_CollectionType)
		if fits = ok && index >= 0; fits {
			t = element.CollectionType
		}
	}
	t, known := c.attribute(p, t, path)
	if known && !(fits && literal.Castable(t, declared)) {
		c.add(MismatchingTypes, "The output variable '%s' has type [%s], but it's assigned to the input variable '%s' which has type type [%s].",
			c.name(from, p.GetVar()), literal.PrintType(t), c.name(c.node, c.input), literal.PrintType(declared))
	}
	return true
}

// attribute follows an attribute path through a type. It returns false if the type at its end is not known, because the path goes
// into a struct that does not describe its fields, or into a union, or into a type without attributes, which is reported.
func (c bindingCheck) attribute(p *core.OutputReference, t *core.LiteralType, path []*core.PromiseAttribute) (*core.LiteralType, bool) {
	wrong := func(i int, reason string) (*core.LiteralType, bool) {
		c.add(FieldNotFound, "Cannot resolve [%s] for the input variable '%s': %s.",
			literal.Reference(p.GetNodeId(), p.GetVar(), path[:i+1]), c.name(c.node, c.input), reason)
		return nil, false
	}
	for i, step := range path {
		name, isName := step.GetValue().(*core.PromiseAttribute_StringValue)
		switch v := t.GetType().(type) {
		case *core.LiteralType_CollectionType:
			if isName {
				return wrong(i, "a list has elements, not attributes")
			}
			t = v.CollectionType
		case *core.LiteralType_MapValueType:
			if !isName {
				return wrong(i, "a map has keys, not indices")
			}
			t = v.MapValueType
		case *core.LiteralType_UnionType:
			return nil, false
		case *core.LiteralType_Simple:
			if v.Simple != core.SimpleType_STRUCT {
				return wrong(i, "a value of type "+literal.PrintType(t)+" has no attributes")
			}
			fields := t.GetStructure().GetDataclassType()
			if len(fields) == 0 || !isName {
				return nil, false
			}
			field, ok := fields[name.StringValue]
			if !ok {
				return wrong(i, "the struct has no such field")
			}
			if field.GetType() == nil {
				return nil, false
			}
			t = field
		default:
			return wrong(i, "a value of type "+literal.PrintType(t)+" has no attributes")
		}
	}
	return t, true
}
