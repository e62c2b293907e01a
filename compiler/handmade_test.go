package compiler_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

type typ = core.LiteralType

func simple(s core.SimpleType) *typ { return &typ{Type: &core.LiteralType_Simple{Simple: s}} }
func list(t *typ) *typ              { return &typ{Type: &core.LiteralType_CollectionType{CollectionType: t}} }
func dict(t *typ) *typ              { return &typ{Type: &core.LiteralType_MapValueType{MapValueType: t}} }
func union(v ...*typ) *typ {
	return &typ{Type: &core.LiteralType_UnionType{UnionType: &core.UnionType{Variants: v}}}
}
func enum(v ...string) *typ {
	return &typ{Type: &core.LiteralType_EnumType{EnumType: &core.EnumType{Values: v}}}
}

var (
	integer  = simple(core.SimpleType_INTEGER)
	str      = simple(core.SimpleType_STRING)
	none     = simple(core.SimpleType_NONE)
	object   = simple(core.SimpleType_STRUCT)
	datetime = simple(core.SimpleType_DATETIME)
)

func id(kind core.ResourceType, name string) *core.Identifier {
	return &core.Identifier{ResourceType: kind, Project: "p", Domain: "d", Name: name, Version: "v"}
}

func variables(kv ...any) *core.VariableMap {
	m := &core.VariableMap{Variables: map[string]*core.Variable{}}
	for i := 0; i < len(kv); i += 2 {
		m.Variables[kv[i].(string)] = &core.Variable{Type: kv[i+1].(*typ)}
	}
	return m
}

func task(name string, in, out *core.VariableMap) *core.CompiledTask {
	return &core.CompiledTask{Template: &core.TaskTemplate{Id: id(core.ResourceType_TASK, name), Interface: &core.TypedInterface{Inputs: in, Outputs: out}}}
}

func taskNode(nodeID, name string, inputs []*core.Binding, upstream ...string) *core.Node {
	return &core.Node{Id: nodeID, Inputs: inputs, UpstreamNodeIds: upstream, Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{
		Reference: &core.TaskNode_ReferenceId{ReferenceId: id(core.ResourceType_TASK, name)},
	}}}
}

func subNode(nodeID, name string, inputs ...*core.Binding) *core.Node {
	return &core.Node{Id: nodeID, Inputs: inputs, Target: &core.Node_WorkflowNode{WorkflowNode: &core.WorkflowNode{
		Reference: &core.WorkflowNode_SubWorkflowRef{SubWorkflowRef: id(core.ResourceType_WORKFLOW, name)},
	}}}
}

func workflow(name string, in, out *core.VariableMap, outputs []*core.Binding, nodes ...*core.Node) *core.WorkflowTemplate {
	return &core.WorkflowTemplate{Id: id(core.ResourceType_WORKFLOW, name), Interface: &core.TypedInterface{Inputs: in, Outputs: out}, Nodes: nodes, Outputs: outputs}
}

func promise(node, variable string, path ...any) *core.BindingData {
	p := &core.OutputReference{NodeId: node, Var: variable}
	for _, step := range path {
		switch s := step.(type) {
		case string:
			p.AttrPath = append(p.AttrPath, &core.PromiseAttribute{Value: &core.PromiseAttribute_StringValue{StringValue: s}})
		case int:
			p.AttrPath = append(p.AttrPath, &core.PromiseAttribute{Value: &core.PromiseAttribute_IntValue{IntValue: int32(s)}})
		}
	}
	return &core.BindingData{Value: &core.BindingData_Promise{Promise: p}}
}

func constant(v any) *core.BindingData {
	p := &core.Primitive{}
	switch v := v.(type) {
	case int:
		p.Value = &core.Primitive_Integer{Integer: int64(v)}
	case string:
		p.Value = &core.Primitive_StringValue{StringValue: v}
	}
	return &core.BindingData{Value: &core.BindingData_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}}}}
}

func listOf(e ...*core.BindingData) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Collection{Collection: &core.BindingDataCollection{Bindings: e}}}
}

func mapOf(m map[string]*core.BindingData) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Map{Map: &core.BindingDataMap{Bindings: m}}}
}

func bind(kv ...any) (out []*core.Binding) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, &core.Binding{Var: kv[i].(string), Binding: kv[i+1].(*core.BindingData)})
	}
	return out
}

// handmadeTasks are the tasks of the hand-made graphs: t1 and t2 have no inputs and outputs, one takes an integer a and gives
// an integer o.
func handmadeTasks() []*core.CompiledTask {
	return []*core.CompiledTask{
		task("t1", nil, nil), task("t2", nil, nil),
		task("one", variables("a", integer), variables("o", integer)),
	}
}

func compile(t *core.WorkflowTemplate, subs ...*core.WorkflowTemplate) (*core.CompiledWorkflowClosure, error) {
	return compiler.CompileWorkflow(compiler.Request{Template: t, SubWorkflows: subs, Tasks: handmadeTasks()})
}

// plainWorkflow is a workflow with an integer input x and no outputs.
func plainWorkflow(nodes ...*core.Node) *core.WorkflowTemplate {
	return workflow("w", variables("x", integer), nil, nil, nodes...)
}

func handmade() map[string]*core.WorkflowTemplate {
	return map[string]*core.WorkflowTemplate{
		"dup":              plainWorkflow(taskNode("n0", "t1", nil), taskNode("n0", "t2", nil)),
		"cycle":            plainWorkflow(taskNode("n0", "t1", nil, "n1"), taskNode("n1", "t2", nil, "n0")),
		"self":             plainWorkflow(taskNode("n0", "t1", nil, "n0")),
		"unknown upstream": plainWorkflow(taskNode("n0", "t1", nil), taskNode("n1", "t2", nil, "zzz")),
		"cycle with start": plainWorkflow(taskNode("n0", "t1", nil, "n1"), taskNode("n1", "t2", nil, "n0", "start-node")),
		"unbound":          plainWorkflow(taskNode("n0", "one", nil)),
		"extra":            plainWorkflow(taskNode("n0", "one", bind("a", constant(1), "b", constant(1)))),
		"twice":            plainWorkflow(taskNode("n0", "one", bind("a", constant(1), "a", constant(2)))),
		"unk promise":      plainWorkflow(taskNode("n0", "one", bind("a", promise("nope", "o")))),
		"unk var":          plainWorkflow(taskNode("n0", "one", bind("a", promise("", "xx")))),
		"index var":        plainWorkflow(taskNode("n0", "one", bind("a", promise("", "[0].x")))),
		"no nodes":         workflow("w", nil, nil, nil),
		"passthrough":      workflow("w", variables("x", integer), variables("y", integer), bind("y", promise("", "x")), taskNode("n0", "t1", nil)),
		"reserved":         plainWorkflow(taskNode("start-node", "t1", nil)),
		"alias":            plainWorkflow(&core.Node{Id: "n0", OutputAliases: []*core.Alias{{Var: "o", Alias: "b"}}, Target: taskNode("", "t1", nil).Target}),
		"missing task":     plainWorkflow(taskNode("n0", "t9", nil)),
		"unbound output":   workflow("w", nil, variables("zz", integer), nil, taskNode("n0", "t1", nil)),
	}
}

// differsFromReference are graphs that the reference compiler accepts although they are wrong, or refuses in other words.
var differsFromReference = map[string]string{
	"dup":              "\tError 0: Code: DuplicateId, Node Id: n0, Description: Node id [n0] is used more than once: the ids of nodes are unique in their workflow.\n",
	"unknown upstream": "\tError 0: Code: NodeReferenceNotFound, Node Id: zzz, Description: Referenced node [zzz] not found: node [n1] names it in upstream_node_ids.\n",
	"reserved":         "\tError 0: Code: DuplicateId, Node Id: start-node, Description: Node id [start-node] is reserved: name the node otherwise.\n\tError 1: Code: NoNodesFound, Node Id: resource_type:WORKFLOW project:\"p\" domain:\"d\" name:\"w\" version:\"v\", Description: Can't find any nodes in workflow [resource_type:WORKFLOW project:\"p\" domain:\"d\" name:\"w\" version:\"v\"].\n",
	"cycle":            "\tError 0: Code: UnreachableNodes, Node Id: start-node, Description: The Workflow contain unreachable nodes [n0,n1]. They wait for each other: n0>n1>n0.\n",
	"self":             "\tError 0: Code: UnreachableNodes, Node Id: start-node, Description: The Workflow contain unreachable nodes [n0]. They wait for each other: n0>n0.\n",
	"index var":        "\tError 0: Code: MismatchingTypes, Node Id: n0, Description: The output variable '[0].x' has type [integer], but it's assigned to the input variable 'a' which has type type [integer].\n",
}

func TestWrongGraphsGetTheReferenceCompilersErrors(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/handmade.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split(strings.ReplaceAll(string(b), "  ", " "), "\n== ")[1:]
	graphs := handmade()
	if len(cases) != len(graphs) {
		t.Errorf("%d cases in handmade.txt, %d here", len(cases), len(graphs))
	}
	for _, text := range cases {
		at := max(strings.Index(text, " OK "), strings.Index(text, " ERR "))
		name, answer := text[:at], strings.TrimSpace(text[at:])
		graph, ok := graphs[name]
		if !ok {
			t.Errorf("handmade.txt has %q, which this test does not know", name)
			continue
		}
		closure, err := compile(graph)
		want, wrong := strings.CutPrefix(answer, "ERR ")
		if lines, ok := differsFromReference[name]; ok {
			_, lines, _ = strings.Cut("\n"+lines, "\n")
			wrong, want = true, "Collected Errors: "+string(rune('0'+strings.Count(lines, "\n")))+"\n"+strings.TrimSuffix(lines, "\n")
		}
		switch {
		case wrong && (err == nil || strings.TrimSpace(err.Error()) != want):
			t.Errorf("%s: got %v\nwant %s", name, err, want)
		case !wrong && err != nil:
			t.Errorf("%s: %v", name, err)
		case !wrong:
			if got := edges(closure.GetPrimary()); !strings.HasSuffix(answer, got) {
				t.Errorf("%s: got %s\nwant %s", name, got, answer)
			}
		}
	}
}

// edges writes connections in the form of handmade.txt.
func edges(w *core.CompiledWorkflow) string {
	var parts []string
	side := func(name string, ids map[string]*core.ConnectionSet_IdList) {
		for _, key := range slices.Sorted(keys(ids)) {
			part := name + `:{key:"` + key + `" value:{`
			for i, id := range ids[key].GetIds() {
				if i > 0 {
					part += " "
				}
				part += `ids:"` + id + `"`
			}
			parts = append(parts, part+"}}")
		}
	}
	side("downstream", w.GetConnections().GetDownstream())
	side("upstream", w.GetConnections().GetUpstream())
	return strings.Join(parts, " ")
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// codes are the codes of an error with their nodes.
func codes(err error) string {
	var errs compiler.Errors
	if !errors.As(err, &errs) {
		return ""
	}
	var out []string
	for _, e := range errs {
		out = append(out, string(e.Code)+"@"+e.NodeID)
	}
	return strings.Join(out, " ")
}

func TestBindingsAreCheckedAgainstTheDeclaredType(t *testing.T) {
	t.Parallel()
	point := &typ{Type: object.Type, Structure: &core.TypeStructure{DataclassType: map[string]*typ{"x": integer, "in": {Type: object.Type}}}}
	source := taskNode("s", "source", nil)
	sourceTask := task("source", nil, variables("i", integer))
	sourceTask.Template.Interface.Outputs = variables(
		"i", integer, "l", list(list(integer)), "m", dict(str), "p", point, "o", object, "u", union(list(integer), none), "e", enum("red"))
	for _, c := range []struct {
		name string
		data *core.BindingData
		typ  *typ
		want string
	}{
		{"integer", constant(1), integer, ""},
		{"no value", nil, integer, "ValueRequired@n"},
		{"text for an integer", constant("1"), integer, "MismatchingTypes@n"},
		{"scalar without value", &core.BindingData{Value: &core.BindingData_Scalar{}}, integer, "InvalidLiteralType@n"},
		{"enum value", constant("red"), enum("red"), ""},
		{"not an enum value", constant("green"), enum("red"), "IllegalEnumValue@n"},
		{"list", listOf(constant(1), promise("s", "i")), list(integer), ""},
		{"empty list", listOf(), list(integer), ""},
		{"list with a wrong element", listOf(constant(1), constant("x")), list(integer), "MismatchingTypes@n"},
		{"list for an integer", listOf(), integer, "MismatchingBindings@n"},
		{"map", mapOf(map[string]*core.BindingData{"k": constant("v")}), dict(str), ""},
		{"map for a list", mapOf(nil), list(str), "MismatchingBindings@n"},
		{"list for one variant", listOf(constant(1)), union(list(integer), list(str), none), ""},
		{"list for no variant", listOf(constant(1)), union(list(str), none), "IncompatibleBindingUnionValue@n"},
		{"empty list for two variants", listOf(), union(list(integer), list(str)), "AmbiguousBindingUnionValue@n"},
		{"map for a variant", mapOf(map[string]*core.BindingData{"k": constant(1)}), union(dict(integer), none), ""},
		{"promise for a variant", promise("s", "i"), union(integer, none), ""},
		{"promise of another type", promise("s", "i"), str, "MismatchingTypes@n"},
		{"enum for a text", promise("s", "e"), str, ""},
		{"element", promise("s", "l", 0, 1), integer, ""},
		{"element of another type", promise("s", "l", 0), integer, "MismatchingTypes@n"},
		{"old element", promise("s", "[0].l", 1), integer, ""},
		{"key of a list", promise("s", "l", "k"), integer, "FieldNotFound@n"},
		{"map value", promise("s", "m", "k"), str, ""},
		{"index of a map", promise("s", "m", 0), str, "FieldNotFound@n"},
		{"field", promise("s", "p", "x"), integer, ""},
		{"field of another type", promise("s", "p", "x"), str, "MismatchingTypes@n"},
		{"no such field", promise("s", "p", "y"), integer, "FieldNotFound@n"},
		{"field of a struct inside that says nothing", promise("s", "p", "in", "z", 0), integer, ""},
		{"field of a struct that says nothing", promise("s", "o", "any"), str, ""},
		{"element of an optional list", promise("s", "u", 0), integer, ""},
		{"field of an integer", promise("s", "i", "x"), integer, "FieldNotFound@n"},
		{"output of the end", promise("end-node", "y"), integer, "ParameterNotBound@n VariableNameNotFound@end-node CycleDetected@start-node"},
	} {
		target := task("target", variables("in", c.typ), nil)
		_, err := compiler.CompileWorkflow(compiler.Request{
			Template: plainWorkflow(source, taskNode("n", "target", bind("in", c.data))),
			Tasks:    []*core.CompiledTask{sourceTask, target},
		})
		if c.name == "output of the end" {
			if err == nil || !strings.Contains(err.Error(), "VariableNameNotFound") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if got := codes(err); got != c.want {
			t.Errorf("%s: got %q, want %q: %v", c.name, got, c.want, err)
		}
	}
}

func TestAnInputThatMayBeNoneMayStayUnbound(t *testing.T) {
	t.Parallel()
	request := func(declared *typ) compiler.Request {
		return compiler.Request{Template: plainWorkflow(taskNode("n", "t", nil)), Tasks: []*core.CompiledTask{task("t", variables("in", declared), nil)}}
	}
	if _, err := compiler.CompileWorkflow(request(union(integer, none))); err != nil {
		t.Error(err)
	}
	if _, err := compiler.CompileWorkflow(request(union(integer, str))); codes(err) != "ParameterNotBound@n" {
		t.Errorf("got %v", err)
	}
}

func TestSubWorkflowsAreCompiledOnceAndTheirErrorsNamed(t *testing.T) {
	t.Parallel()
	inner := workflow("inner", variables("x", integer), variables("o", integer), bind("o", promise("n0", "o")), taskNode("n0", "one", bind("a", promise("", "x"))))
	middle := workflow("middle", variables("x", integer), variables("o", integer), bind("o", promise("n1", "o")),
		subNode("n0", "inner", bind("x", promise("", "x"))...), subNode("n1", "inner", bind("x", promise("n0", "o"))...))
	outer := workflow("outer", variables("x", integer), nil, nil,
		subNode("n0", "middle", bind("x", promise("", "x"))...), subNode("n1", "inner", bind("x", promise("n0", "o"))...))
	closure, err := compile(outer, middle, inner, workflow("unused", nil, nil, nil, taskNode("n0", "t1", nil)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, sub := range closure.GetSubWorkflows() {
		names = append(names, sub.GetTemplate().GetId().GetName())
	}
	if got := strings.Join(names, " "); got != "inner middle" {
		t.Errorf("compiled sub-workflows: %s", got)
	}
	inner.Nodes[0].Inputs = nil
	_, err = compile(outer, middle, inner)
	var errs compiler.Errors
	if !errors.As(err, &errs) || len(errs) != 1 || errs[0].Workflow != "inner" || errs[0].NodeID != "n0" ||
		!strings.Contains(err.Error(), "Parameter not bound [a]. (in sub-workflow inner)") {
		t.Errorf("an error in a sub-workflow: %v", err)
	}
	_, err = compile(outer, middle)
	if got := codes(err); got != "WorkflowReferenceNotFound@start-node" {
		t.Errorf("a sub-workflow that is not given: %v", err)
	}
	if _, err = compile(outer, middle, inner, inner); !strings.Contains(codes(err), "DuplicateId@inner") {
		t.Errorf("a sub-workflow that is given twice: %v", err)
	}
	loop := workflow("loop", nil, nil, nil, subNode("n0", "back"))
	back := workflow("back", nil, nil, nil, subNode("n0", "loop"))
	if _, err = compile(workflow("w", nil, nil, nil, subNode("n0", "loop")), loop, back); codes(err) != "CycleDetected@loop" {
		t.Errorf("sub-workflows that call each other: %v", err)
	}
}

func TestSizeAndNestingAreBoundedWithAMessage(t *testing.T) {
	t.Parallel()
	many := plainWorkflow()
	for i := range aloft.MaxWorkflowNodes + 1 {
		many.Nodes = append(many.Nodes, taskNode("n"+strings.Repeat("0", i%3)+string(rune('a'+i%26))+itoa(i), "t1", nil))
	}
	if _, err := compile(many); codes(err) == "" || !strings.Contains(err.Error(), "more than 50000 nodes") {
		t.Errorf("too many nodes: %.200v", err)
	}
	// Each level calls the next twice: 2^40 nodes in 40 small templates.
	var subs []*core.WorkflowTemplate
	for i := range 40 {
		subs = append(subs, workflow("s"+itoa(i), nil, nil, nil, subNode("n0", "s"+itoa(i+1)), subNode("n1", "s"+itoa(i+1))))
	}
	subs = append(subs, workflow("s40", nil, nil, nil, taskNode("n0", "t1", nil)))
	if _, err := compile(workflow("w", nil, nil, nil, subNode("n0", "s0")), subs...); err == nil || !strings.Contains(err.Error(), "more than 50000 nodes") {
		t.Errorf("too many nodes in nested calls: %.300v", err)
	}
	subs = nil
	for i := range 200 {
		subs = append(subs, workflow("s"+itoa(i), nil, nil, nil, subNode("n0", "s"+itoa(i+1))))
	}
	subs = append(subs, workflow("s200", nil, nil, nil, taskNode("n0", "t1", nil)))
	if _, err := compile(workflow("w", nil, nil, nil, subNode("n0", "s0")), subs...); err == nil || !strings.Contains(err.Error(), "nested deeper than") {
		t.Errorf("too many levels of sub-workflows: %.300v", err)
	}
	data, declared := constant(1), integer
	for range 500 {
		data, declared = listOf(data), list(declared)
	}
	_, err := compiler.CompileWorkflow(compiler.Request{Template: plainWorkflow(taskNode("n", "t", bind("in", data))), Tasks: []*core.CompiledTask{task("t", variables("in", declared), nil)}})
	if err == nil || !strings.Contains(err.Error(), "nested deeper than") {
		t.Errorf("a binding nested too deep: %.300v", err)
	}
}

func itoa(i int) string {
	var digits []byte
	for ; i > 0 || len(digits) == 0; i /= 10 {
		digits = append(digits, byte('0'+i%10))
	}
	slices.Reverse(digits)
	return string(digits)
}

func TestRegisteringACompiledTemplateAgainGivesTheSame(t *testing.T) {
	t.Parallel()
	first, err := compile(plainWorkflow(taskNode("n0", "one", bind("a", promise("", "x")))))
	if err != nil {
		t.Fatal(err)
	}
	again, err := compile(first.GetPrimary().GetTemplate())
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(first, again) {
		t.Error(compiler.Difference(first, again))
	}
}

func TestFailureNodesRunATaskOnTheWorkflowsInputs(t *testing.T) {
	t.Parallel()
	with := func(f *core.Node) *core.WorkflowTemplate {
		w := plainWorkflow(taskNode("n0", "one", bind("a", constant(1))))
		w.FailureNode = f
		return w
	}
	closure, err := compile(with(taskNode("fn0", "one", bind("a", promise("", "x")))))
	if err != nil {
		t.Fatal(err)
	}
	if up := closure.GetPrimary().GetConnections().GetUpstream()["fn0"].GetIds(); !slices.Equal(up, []string{"start-node"}) {
		t.Errorf("upstream of the failure node: %v", up)
	}
	if down := closure.GetPrimary().GetConnections().GetDownstream()["start-node"].GetIds(); slices.Contains(down, "fn0") {
		t.Errorf("the failure node runs in the ordinary order: %v", down)
	}
	for name, c := range map[string]struct {
		node *core.Node
		want string
	}{
		"unbound":                 {taskNode("fn0", "one", nil), "ParameterNotBound@fn0"},
		"no id":                   {taskNode("", "t1", nil), "ValueRequired@"},
		"id of another node":      {taskNode("n0", "t1", nil), "DuplicateId@n0"},
		"no target":               {&core.Node{Id: "fn0"}, "ValueRequired@fn0"},
		"input from another node": {taskNode("fn0", "one", bind("a", promise("n0", "o"))), "Unsupported@fn0"},
		"gate":                    {&core.Node{Id: "fn0", Target: &core.Node_GateNode{GateNode: &core.GateNode{}}}, "Unsupported@fn0"},
	} {
		if _, err := compile(with(c.node)); codes(err) != c.want {
			t.Errorf("%s: got %q, want %q", name, codes(err), c.want)
		}
	}
}

func TestAWrongListOrManyUnboundInputsGiveABoundedNumberOfErrors(t *testing.T) {
	t.Parallel()
	long := listOf()
	for range 100_000 {
		long.GetCollection().Bindings = append(long.GetCollection().Bindings, constant("text"))
	}
	var variants []*typ
	for i := range 1_000 {
		variants = append(variants, list(enum(itoa(i))))
	}
	greedy := task("greedy", variables(), nil)
	for i := range 1_000 {
		greedy.Template.Interface.Inputs.Variables["in"+itoa(i)] = &core.Variable{Type: integer}
	}
	crowd := plainWorkflow()
	for i := range 20_000 {
		crowd.Nodes = append(crowd.Nodes, taskNode("n"+itoa(i), "greedy", nil))
	}
	for _, c := range []struct {
		name     string
		template *core.WorkflowTemplate
		most     int
	}{
		{"list", plainWorkflow(taskNode("n", "list", bind("in", long))), 20},
		{"list for a union", plainWorkflow(taskNode("n", "union", bind("in", long))), 1},
		{"many nodes that lack many inputs", crowd, 102_000},
	} {
		_, err := compiler.CompileWorkflow(compiler.Request{Template: c.template, Tasks: []*core.CompiledTask{
			greedy, task("list", variables("in", list(integer)), nil), task("union", variables("in", union(variants...)), nil),
		}})
		var errs compiler.Errors
		if !errors.As(err, &errs) || len(errs) > c.most || len(err.Error()) > 200_000 {
			t.Errorf("%s: %d errors, %d bytes", c.name, len(errs), len(err.Error()))
		}
	}
}

func TestAnIDOfANodeIsAPartOfAPath(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"..", ".", "../victim/n0", "a/b", "a\nb", "a b", "-a", "ä", "a\u202eb"} {
		_, err := compile(plainWorkflow(taskNode(id, "t1", nil)))
		if !errors.Is(err, aloft.ErrInvalid) || !strings.Contains(err.Error(), "other characters than letters") {
			t.Errorf("id %q: %v, want a refusal", id, err)
		}
	}
	for _, id := range []string{"n0", "train-model", "Train_model.2", "0"} {
		if _, err := compile(plainWorkflow(taskNode(id, "t1", nil))); err != nil {
			t.Errorf("id %q: %v", id, err)
		}
	}
}
