package literal_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

func path(steps ...any) (out []*core.PromiseAttribute) {
	for _, s := range steps {
		switch s := s.(type) {
		case string:
			out = append(out, &core.PromiseAttribute{Value: &core.PromiseAttribute_StringValue{StringValue: s}})
		case int:
			out = append(out, &core.PromiseAttribute{Value: &core.PromiseAttribute_IntValue{IntValue: int32(s)}})
		}
	}
	return out
}

func promise(node, variable string, steps ...any) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{NodeId: node, Var: variable, AttrPath: path(steps...)}}}
}

func constant(l *core.Literal) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Scalar{Scalar: l.GetScalar()}}
}

func bind(kv ...any) (out []*core.Binding) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, &core.Binding{Var: kv[i].(string), Binding: kv[i+1].(*core.BindingData)})
	}
	return out
}

func TestResolveBuildsEveryFormOfBinding(t *testing.T) {
	t.Parallel()
	outputs := map[string]*core.Literal{
		"n0.o0": intLit(1),
		"n1.o0": listLit(strLit("a"), mapLit(map[string]*core.Literal{"k": unionLit(listLit(intLit(7)), list(integer))})),
	}
	lookup := func(node, variable string) (*core.Literal, error) { return outputs[node+"."+variable], nil }
	got, err := literal.Resolve(bind(
		"scalar", constant(strLit("x")),
		"promise", promise("n0", "o0"),
		"element", promise("n1", "o0", 0),
		"deep", promise("n1", "o0", 1, "k", 0),
		"old element", promise("n1", "[1].o0", "k", 0),
		"list", &core.BindingData{Value: &core.BindingData_Collection{Collection: &core.BindingDataCollection{Bindings: []*core.BindingData{constant(intLit(0)), promise("n0", "o0")}}}},
		"map", &core.BindingData{Value: &core.BindingData_Map{Map: &core.BindingDataMap{Bindings: map[string]*core.BindingData{"p": promise("n0", "o0")}}}},
		"empty", &core.BindingData{Value: &core.BindingData_Collection{Collection: &core.BindingDataCollection{}}},
		"union", &core.BindingData{Value: promise("n0", "o0").GetValue(), Union: &core.UnionInfo{TargetType: union(integer, none)}},
	), nil, lookup)
	if err != nil {
		t.Fatal(err)
	}
	want := literals(
		"scalar", strLit("x"), "promise", intLit(1), "element", strLit("a"), "deep", intLit(7), "old element", intLit(7),
		"list", listLit(intLit(0), intLit(1)), "map", mapLit(map[string]*core.Literal{"p": intLit(1)}), "empty", listLit(), "union", intLit(1),
	)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestAttributesOfStructs(t *testing.T) {
	t.Parallel()
	// {"x": 1, "big": 2**64-1, "inner": {"z": [1, "two", {}]}, "f": 1.5, "no": nil, "b": true, 7: 1}
	packed := packedLit("\x87\xa1x\x01\xa3big\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa5inner\x81\xa1z\x93\x01\xa3two\x80\xa1f\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xa2no\xc0\xa1b\xc3\x07\x01")
	s, err := structpb.NewStruct(map[string]any{"x": 1, "inner": map[string]any{"z": []any{1, "two", map[string]any{}}}, "no": nil})
	if err != nil {
		t.Fatal(err)
	}
	generic := scalarLit(&core.Scalar{Value: &core.Scalar_Generic{Generic: s}})
	genericOf := func(m map[string]any) *core.Literal {
		s, _ := structpb.NewStruct(m)
		return scalarLit(&core.Scalar{Value: &core.Scalar_Generic{Generic: s}})
	}
	for _, c := range []struct {
		name string
		l    *core.Literal
		path []*core.PromiseAttribute
		want *core.Literal

		declared *core.LiteralType
	}{
		{"msgpack integer", packed, path("x"), intLit(1), nil},
		{"msgpack float", packed, path("f"), floatLit(1.5), nil},
		{"msgpack boolean", packed, path("b"), boolLit(true), nil},
		{"msgpack string", packed, path("inner", "z", 1), strLit("two"), nil},
		{"msgpack map stays msgpack", packed, path("inner"), packedLit("\x81\xa1z\x93\x01\xa3two\x80"), nil},
		{"msgpack nil stays msgpack", packed, path("no"), packedLit("\xc0"), nil},
		{"msgpack integer beyond 63 bits stays msgpack", packed, path("big"), packedLit("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), nil},
		{"msgpack list", packed, path("inner", "z"), listLit(packedLit("\x01"), packedLit("\xa3two"), packedLit("\x80")), nil},
		{"generic number is a float", generic, path("x"), floatLit(1), nil},
		{"generic list", generic, path("inner", "z"), listLit(floatLit(1), strLit("two"), genericOf(nil)), nil},
		{"generic struct", generic, path("inner"), genericOf(map[string]any{"z": []any{1, "two", map[string]any{}}}), nil},
		{"generic null", generic, path("no"), noneLit(), nil},
		{"through a union", unionLit(packed, object), path("x"), intLit(1), nil},
		{"no path", packed, nil, packed, nil},
		{"a number for an integer", packed, path("x"), intLit(1), integer},
		{"a text for a union with a text", packed, path("inner", "z", 1), strLit("two"), union(none, str)},
		{"a text for an enum", packed, path("inner", "z", 1), strLit("two"), enum("one", "two")},
		{"a text for a date stays msgpack", packed, path("inner", "z", 1), packedLit("\xa3two"), simple(core.SimpleType_DATETIME)},
		{"a number for a duration stays msgpack", packed, path("f"), packedLit("\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"), simple(core.SimpleType_DURATION)},
		{"a text for an optional date stays msgpack", packed, path("inner", "z", 1), packedLit("\xa3two"), union(simple(core.SimpleType_DATETIME), none)},
		{"a text for a type with its own transformer stays msgpack", packed, path("inner", "z", 1), packedLit("\xa3two"), object},
	} {
		got, err := literal.Attribute(c.l, c.path, c.declared)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	for _, c := range []struct {
		l    *core.Literal
		path []*core.PromiseAttribute
		want string
	}{
		{packed, path("y"), `the struct has no field "y"`},
		{packed, path("inner", "z", 3), "index 3 is out of range: the list has 3 elements"},
		{packed, path(0), "a struct has fields, not indices"},
		{packed, path("x", "y"), "a plain value inside the struct has no attributes"},
		{generic, path("y"), `the struct has no field "y"`},
		{generic, path("inner", "z", -1), "index -1 is out of range: the list has 3 elements"},
		{listLit(intLit(1)), path("k"), `a list has indices, not a key like "k"`},
		{listLit(intLit(1)), path(1), "index 1 is out of range: the list has 1 elements"},
		{mapLit(nil), path("k"), `the map has no key "k"`},
		{intLit(1), path("k"), "a value of type integer has no attributes"},
		{packedLit("\x92\x01"), path(1), "the msgpack value is cut off"},
		{packedLit("\xdf\xff\xff\xff\xff"), path("k"), "the msgpack value is cut off"},
	} {
		if got, err := literal.Attribute(c.l, c.path, nil); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, %v, want %q", literal.Reference("", "", c.path), got, err, c.want)
		}
	}
}

func TestResolveTellsAllUnresolvedInputsButPassesLookupsErrorOn(t *testing.T) {
	t.Parallel()
	gone := errors.New("disk gone")
	lookup := func(node, variable string) (*core.Literal, error) {
		switch node {
		case "n0":
			return listLit(intLit(1)), nil
		case "broken":
			return nil, gone
		}
		return nil, nil
	}
	_, err := literal.Resolve(bind("a", promise("n0", "o0", 4), "b", promise("n0", "o0", 0), "c", promise("n9", "o1")), nil, lookup)
	var unresolved literal.UnresolvedInputs
	if !errors.As(err, &unresolved) || len(unresolved) != 2 || unresolved.Code() != literal.CodeBinding {
		t.Fatalf("got %v", err)
	}
	want := `input "a": cannot resolve n0.o0[4]: index 4 is out of range: the list has 1 elements` + "\n" +
		`input "c": cannot resolve n9.o1: the node has no such output`
	if err.Error() != want {
		t.Errorf("got %s\nwant %s", err, want)
	}
	_, err = literal.Resolve(bind("a", promise("n0", "o0", 4)), nil, lookup)
	if !errors.As(err, &unresolved) || unresolved.Code() != literal.CodeAttribute {
		t.Errorf("a wrong attribute alone has code %v", err)
	}
	_, err = literal.Resolve(bind("a", promise("n0", "o0", 4), "b", promise("broken", "o0")), nil, lookup)
	if !errors.Is(err, gone) || errors.As(err, &unresolved) {
		t.Errorf("a lookup that cannot answer gives %v", err)
	}
}

// A list that refers to a value many times, a list that refers to that list many times, and so on, would exceed the memory
// after a few nodes.
func TestWhatIsBoundIsBounded(t *testing.T) {
	t.Parallel()
	several := func(n int) *core.BindingData {
		list := &core.BindingDataCollection{}
		for range n {
			list.Bindings = append(list.Bindings, &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{NodeId: "n0", Var: "o0"}}})
		}
		return &core.BindingData{Value: &core.BindingData_Collection{Collection: list}}
	}
	deepest := intLit(1)
	for range literal.MaxDepth {
		deepest = listLit(deepest)
	}
	for name, c := range map[string]struct {
		value *core.Literal
		times int
		want  string // in the error; empty: none
	}{
		"a large value once":         {strLit(strings.Repeat("x", 60<<20)), 1, ""},
		"values within the limit":    {strLit(strings.Repeat("x", 1<<20)), 60, ""},
		"a value a hundred times":    {strLit(strings.Repeat("x", 1<<20)), 100, "more than 64 MiB"},
		"lists that are nested deep": {deepest, 1, "nested deeper than 64 levels"},
		"lists within the limit":     {deepest.GetCollection().GetLiterals()[0], 1, ""},
	} {
		_, err := literal.Resolve([]*core.Binding{{Var: "x", Binding: several(c.times)}}, nil, func(string, string) (*core.Literal, error) { return c.value, nil })
		var unresolved literal.UnresolvedInputs
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &unresolved) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
