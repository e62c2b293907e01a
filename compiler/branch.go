package compiler

import (
	"maps"
	"slices"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/nodes"
	"github.com/aloft-dev/aloft/literal"
)

// branch looks at the arms of a branch node and gives it the outputs that all of them have. Its inputs, whose types are those of
// what is bound, follow when all nodes are known (branchInputs). Source: flyte-execution reference 1.3 and 1.4.
//
// The nodes of arms are named <branch>-<arm>: flytekit numbers them from n0 again, and a promise in an arm means the node of that id
// around the branch.
func (g *graph) branch(n *node, target *core.BranchNode) {
	block := target.GetIfElse()
	if block == nil {
		g.missing(n, "branch_node.if_else")
		return
	}
	if block.GetDefault() == nil {
		g.errs.add(BranchNodeHasNoDefault, n.GetId(), "Branch node [%s] has neither an else nor an else_fail.", n.GetId())
	}
	for i, c := range nodes.Cases(target) {
		if c.GetCondition().GetExpr() == nil {
			g.errs.add(BranchNodeHasNoCondition, n.GetId(), "Arm %d of branch node [%s] has no condition.", i+1, n.GetId())
		}
		if c.GetThenNode() == nil {
			g.errs.add(BranchNodeIDNotFound, n.GetId(), "Arm %d of branch node [%s] has no node.", i+1, n.GetId())
		}
	}
	for _, inner := range nodes.Arms(target) {
		if inner != nil {
			g.arm(n, inner)
		}
	}
	n.outputs = g.commonOutputs(n)
}

// arm takes over the node of an arm.
func (g *graph) arm(branch *node, inner *core.Node) {
	if inner.GetId() == "" {
		branch.unknown = true
		g.errs.add(ValueRequired, branch.GetId(), "Value required [id] of a node in an arm of node [%s].", branch.GetId())
		return
	}
	if prefix := branch.GetId() + "-"; !strings.HasPrefix(inner.GetId(), prefix) { // a compiled template may be registered again
		inner.Id = prefix + inner.GetId()
	}
	_, taken := g.nodes[inner.GetId()]
	if taken || g.arms[inner.GetId()] {
		g.errs.add(DuplicateID, inner.GetId(), "Node id [%s] is used more than once: the ids of nodes are unique in their workflow.", inner.GetId())
	}
	if g.arms == nil {
		g.arms = make(map[string]bool)
	}
	g.arms[inner.GetId()] = true
	arm := &node{Node: inner}
	branch.arms = append(branch.arms, arm)
	if g.count++; g.count > aloft.MaxWorkflowNodes {
		return // reported where the user's nodes are counted
	}
	g.target(arm)
	g.prepare(arm)
	branch.unknown = branch.unknown || arm.unknown
}

// commonOutputs are the outputs that all arms of a branch have, of equal types.
func (g *graph) commonOutputs(n *node) map[string]*core.Variable {
	if len(n.arms) == 0 {
		return nil
	}
	common := maps.Clone(n.arms[0].outputs)
	for _, arm := range n.arms[1:] {
		for _, name := range slices.Sorted(maps.Keys(common)) {
			other, ok := arm.outputs[name]
			if !ok {
				delete(common, name)
				continue
			}
			a, b := common[name].GetType(), other.GetType()
			if !n.unknown && !(literal.Castable(a, b) && literal.Castable(b, a)) {
				g.errs.add(MismatchingTypes, arm.GetId(), "Output [%s] of branch node [%s] has type [%s] in arm [%s] and type [%s] in arm [%s].",
					name, n.GetId(), literal.PrintType(a), n.arms[0].GetId(), literal.PrintType(b), arm.GetId())
			}
		}
	}
	return common
}

// inArms calls f with the nodes of a branch's arms, and of the branches in them.
func (n *node) inArms(f func(*node)) {
	for _, arm := range n.arms {
		f(arm)
		arm.inArms(f)
	}
}

// branchInputs gives a branch node the inputs that are bound to it, with the types of their values as far as they are known.
func (g *graph) branchInputs(n *node) {
	n.inputs = make(map[string]*core.Variable, len(n.GetInputs()))
	for _, b := range n.GetInputs() {
		var quiet Errors // what is wrong with the binding is told where it is checked
		c := bindingCheck{graph: g, node: n, input: b.GetVar(), errs: &quiet, limit: maxErrorsOfInput}
		n.inputs[b.GetVar()] = &core.Variable{Type: c.typeOf(b.GetBinding())}
	}
}

// typeOf is the type of what is bound; nil: it is not known.
func (c bindingCheck) typeOf(data *core.BindingData) *core.LiteralType {
	switch v := data.GetValue().(type) {
	case *core.BindingData_Scalar:
		t, err := literal.TypeOf(&core.Literal{Value: &core.Literal_Scalar{Scalar: v.Scalar}})
		if err != nil {
			return nil
		}
		return t
	case *core.BindingData_Promise:
		from, ok := c.nodes[v.Promise.GetNodeId()]
		if !ok {
			return nil
		}
		variable := v.Promise.GetVar()
		if output, ok := from.aliases[variable]; ok {
			variable = output
		}
		if from.outputs[variable].GetType() == nil {
			return nil
		}
		if t, known := c.attribute(v.Promise, from.outputs[variable].GetType(), v.Promise.GetAttrPath()); known {
			return t
		}
	}
	return nil
}

// checkConditions checks what the conditions of a branch node compare.
func (g *graph) checkConditions(n *node) {
	for _, c := range nodes.Cases(n.GetBranchNode()) {
		if c.GetCondition().GetExpr() != nil && !n.unknown {
			g.condition(n, c.GetCondition(), 0)
		}
	}
}

func (g *graph) condition(n *node, condition *core.BooleanExpression, depth int) {
	if depth > literal.MaxDepth {
		g.errs.add(InvalidValue, n.GetId(), "A condition of node [%s] is nested deeper than %d levels.", n.GetId(), literal.MaxDepth)
		return
	}
	switch e := condition.GetExpr().(type) {
	case *core.BooleanExpression_Conjunction:
		g.condition(n, e.Conjunction.GetLeftExpression(), depth+1)
		g.condition(n, e.Conjunction.GetRightExpression(), depth+1)
	case *core.BooleanExpression_Comparison:
		left, known := g.operand(n, "LeftValue", e.Comparison.GetLeftValue())
		right, knownToo := g.operand(n, "RightValue", e.Comparison.GetRightValue())
		if !known || !knownToo {
			return
		}
		if !literal.Comparable(left, right) {
			g.errs.add(MismatchingTypes, n.GetId(), "A condition of node [%s] compares a value of type [%s] with one of type [%s].",
				n.GetId(), literal.PrintType(left), literal.PrintType(right))
		}
	default:
		g.errs.add(ValueRequired, n.GetId(), "Value required [expr] in a condition of node [%s].", n.GetId())
	}
}

// operand is the type of an operand; known is false where it has none, which is reported, or where nothing can be said of it.
func (g *graph) operand(n *node, side string, o *core.Operand) (t *core.LiteralType, known bool) {
	var err error
	switch v := o.GetVal().(type) {
	case *core.Operand_Var:
		input, ok := n.inputs[v.Var]
		if !ok {
			g.errs.add(VariableNameNotFound, n.GetId(), "Variable [%s] not found on node [%s].", v.Var, n.GetId())
			return nil, false
		}
		return input.GetType(), input.GetType() != nil
	case *core.Operand_Primitive:
		t, err = literal.TypeOf(&core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: v.Primitive}}}})
	case *core.Operand_Scalar:
		t, err = literal.TypeOf(&core.Literal{Value: &core.Literal_Scalar{Scalar: v.Scalar}})
	default:
		g.errs.add(ValueRequired, n.GetId(), "Value required [%s.Val].", side)
		return nil, false
	}
	if err != nil {
		g.errs.add(InvalidLiteralType, n.GetId(), "A constant in a condition of node [%s] has no type: %v.", n.GetId(), err)
		return nil, false
	}
	return t, true
}
