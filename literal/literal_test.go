package literal_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// flytekitForms are the values of testdata/literal_forms.textproto with their declared types.
func flytekitForms(t testing.TB) map[string]struct {
	typ *typ
	lit *core.Literal
} {
	t.Helper()
	b, err := os.ReadFile("testdata/literal_forms.textproto")
	if err != nil {
		t.Fatal(err)
	}
	forms := make(map[string]struct {
		typ *typ
		lit *core.Literal
	})
	for _, part := range strings.Split(string(b), "# ---- ")[1:] {
		head, body, _ := strings.Cut(part, "\n")
		name, kind, _ := strings.Cut(head, ": core.")
		form := forms[name]
		switch kind {
		case "LiteralType":
			form.typ = &typ{}
			err = prototext.Unmarshal([]byte(body), form.typ)
			if form.typ.Type == nil { // two forms have only a description of their type
				form.typ = object
				if strings.HasPrefix(name, "List") {
					form.typ = list(object)
				}
			}
		case "Literal":
			form.lit = &core.Literal{}
			err = prototext.Unmarshal([]byte(body), form.lit)
		}
		if err != nil {
			t.Fatalf("%s: %v", head, err)
		}
		forms[name] = form
	}
	return forms
}

func TestEveryValueOfFlytekitFitsTheTypeItDeclares(t *testing.T) {
	t.Parallel()
	forms := flytekitForms(t)
	if len(forms) < 16 {
		t.Fatalf("only %d forms", len(forms))
	}
	for name, form := range forms {
		inferred, err := literal.TypeOf(form.lit)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !literal.Castable(inferred, form.typ) {
			t.Errorf("%s: %s is not castable to %s", name, literal.PrintType(inferred), literal.PrintType(form.typ))
		}
		if err := literal.CheckValue(form.lit, form.typ); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := literal.Validate(literals("x", form.lit)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrintsValuesAndTypesForPeople(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]string{
		"int 5":              {"5", "integer"},
		"float 5.0":          {"5.0", "float"},
		"bool":               {"true", "boolean"},
		"str":                {`"x"`, "string"},
		"datetime utc":       {"2024-01-02T03:04:05Z", "datetime"},
		"timedelta 90.5s":    {"90.5s", "duration"},
		"None":               {"none", "none"},
		"Optional[int]=None": {"none", "union<integer | none>"},
		`Union[int,str]="a"`: {`"a"`, "union<integer | string>"},
		"List[int]":          {"[1, 2]", "collection<integer>"},
		"List[int] empty":    {"[]", "collection<integer>"},
		"Dict[str,int]":      {"{k: 1}", "map<integer>"},
		"dict (untyped)":     {`{"k":[1,null]}`, "struct"},
		"enum":               {`"blue"`, "enum<red | blue>"},
		"dataclass":          {`{"x":1,"y":"y","inner":{"z":[1,2]}}`, "struct"},
		"List[dataclass]":    {`[{"z":[1]}]`, "collection<struct>"},
	} {
		form, ok := flytekitForms(t)[name]
		if !ok {
			t.Errorf("%s is not in literal_forms.textproto", name)
			continue
		}
		if got := literal.Print(form.lit); got != want[0] {
			t.Errorf("%s prints as %s, want %s", name, got, want[0])
		}
		if got := literal.PrintType(form.typ); got != want[1] {
			t.Errorf("type of %s prints as %s, want %s", name, got, want[1])
		}
	}
	for _, c := range []struct {
		t    *typ
		want string
	}{
		{blob("csv", multi), "blob<csv, multipart>"},
		{blob("", single), "blob"},
		{dataset("parquet", "a", integer, "b", list(str)), "structured dataset<parquet, a integer, b collection<string>>"},
		{dataset(""), "structured dataset"},
		{schema("a"), "schema<a integer>"},
		{withSchema(object, point), "struct<Point>"},
		{nil, "unset"},
	} {
		if got := literal.PrintType(c.t); got != c.want {
			t.Errorf("type prints as %s, want %s", got, c.want)
		}
	}
}

func TestPrintingAHugeValueStopsAtTheLimit(t *testing.T) {
	t.Parallel()
	l := &core.LiteralCollection{}
	for range 100_000 {
		l.Literals = append(l.Literals, strLit(strings.Repeat("ä", 100)))
	}
	got := literal.PrintMax(&core.Literal{Value: &core.Literal_Collection{Collection: l}}, 101)
	if len(got) > 120 || !strings.HasSuffix(got, "…") || !strings.HasPrefix(got, `["ää`) {
		t.Errorf("got %d bytes: %s", len(got), got)
	}
}

func TestTextOfAValueInACommandLine(t *testing.T) {
	t.Parallel()
	generic := &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNumberValue(1)}}
	for _, c := range []struct {
		l    *core.Literal
		want string // "" for none
	}{
		{intLit(-5), "-5"},
		{floatLit(1e6), "1000000"},
		{floatLit(0.1), "0.1"},
		{floatLit(1e300), "1e+300"},
		{floatLit(0), "0"},
		{strLit("a b"), "a b"},
		{boolLit(false), "false"},
		{scalar(&core.Primitive{Value: &core.Primitive_Duration{Duration: &durationpb.Duration{Seconds: 90, Nanos: 5}}}), "90.000000005s"},
		{scalar(&core.Primitive{Value: &core.Primitive_Duration{Duration: &durationpb.Duration{Seconds: -1, Nanos: -500000000}}}), "-1.5s"},
		{scalar(&core.Primitive{Value: &core.Primitive_Duration{Duration: &durationpb.Duration{Seconds: math.MinInt64}}}), "-9223372036854775808s"},
		{listLit(strLit("a"), strLit("b")), "[a,b]"},
		{mapLit(map[string]*core.Literal{"k": intLit(1), "j": strLit(`"`)}), `{"j":"\"","k":1}`},
		{mapLit(map[string]*core.Literal{"f": floatLit(math.NaN()), "u": unionLit(boolLit(true), none)}), `{"f":"NaN","u":true}`},
		{blobLit("aloft://blob/a"), "aloft://blob/a"},
		{unionLit(intLit(3), integer), "3"},
		{packedLit("\x81\xa1k\x92\x01\xc0"), `{"k":[1,null]}`},
		{scalarLit(&core.Scalar{Value: &core.Scalar_Generic{Generic: generic}}), `{"a":1}`},
		{noneLit(), ""},
		{listLit(noneLit()), ""},
		{&core.Literal{}, ""},
		{nil, ""},
	} {
		got, err := literal.Text(c.l, 0)
		if (err != nil) != (c.want == "") || got != c.want {
			t.Errorf("text of %s is %q (%v), want %q", literal.Print(c.l), got, err, c.want)
		}
	}
}

// Each level of quotes within quotes doubles the text: a literal of a kilobyte would have a text of gigabytes.
func TestTextsOfNestedLiteralsEndAtTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	l := strLit(`"`)
	for range literal.MaxDepth/2 - 1 {
		l = listLit(mapLit(map[string]*core.Literal{"k": l}))
	}
	if got, err := literal.Text(l, limit); !errors.Is(err, aloft.ErrExhausted) {
		t.Errorf("maps in lists in maps: %d bytes, %v; want ErrExhausted", len(got), err)
	}
	if got, err := literal.Text(listLit(strLit(strings.Repeat("x", limit-2))), limit); err != nil || len(got) != limit {
		t.Errorf("a list of exactly the limit: %d bytes, %v", len(got), err)
	}
	if got, err := literal.Text(listLit(strLit(strings.Repeat("x", limit-1))), limit); !errors.Is(err, aloft.ErrExhausted) {
		t.Errorf("a list of one byte more: %d bytes, %v; want ErrExhausted", len(got), err)
	}
	if got, err := literal.Text(strLit(strings.Repeat("x", 2*limit)), limit); err != nil || len(got) != 2*limit {
		t.Errorf("a string: %d bytes, %v; it is its own text", len(got), err)
	}
	if got, err := literal.Text(packedLit("\xdd\xff\xff\xff\xff"+strings.Repeat("\xc0", limit)), limit); !errors.Is(err, aloft.ErrExhausted) {
		t.Errorf("a packed list: %d bytes, %v; want ErrExhausted", len(got), err)
	}

	keys := "\xa1k" // "k", then {"k": null}, then {{"k": null}: null} …
	for range literal.MaxDepth - 1 {
		keys = "\x81" + keys + "\xc0"
	}
	if got := literal.PrintMax(packedLit(keys), 80); len(got) > 200 {
		t.Errorf("keys in keys are printed in %d bytes", len(got))
	}
	if got := literal.Print(packedLit(keys)); got != "128 bytes" {
		t.Errorf("keys in keys are printed as %.200s", got)
	}
	if got := literal.Print(packedLit("\x81\x92\x01\xa1k\xc0")); got != `{"[1,\"k\"]":null}` {
		t.Errorf("a pair as a key is printed as %s", got)
	}
}

func TestTypeOfMixedAndEmptyLists(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		l    *core.Literal
		want string
	}{
		{listLit(), "collection<none>"},
		{listLit(intLit(1), intLit(2)), "collection<integer>"},
		{listLit(intLit(1), strLit("a"), intLit(3)), "collection<union<integer | string>>"},
		{listLit(strLit("a"), intLit(1)), "collection<union<integer | string>>"},
		{listLit(blobLit("a"), blobLit("b")), "collection<blob>"},
		{listLit(listLit(), listLit(intLit(1))), "collection<collection<integer>>"},
		{mapLit(map[string]*core.Literal{"a": listLit(listLit()), "b": listLit(listLit(intLit(1))), "c": listLit()}), "map<collection<collection<integer>>>"},
		{listLit(listLit(), intLit(1)), "collection<union<integer | collection<none>>>"},
		{listLit(listLit(), mapLit(nil)), "collection<union<collection<none> | map<none>>>"},
		{mapLit(map[string]*core.Literal{"a": listLit(), "b": listLit()}), "map<collection<none>>"},
		{unionLit(noneLit(), none), "union<none>"},
	} {
		got, err := literal.TypeOf(c.l)
		if err != nil || literal.PrintType(got) != c.want {
			t.Errorf("type of %s is %s (%v), want %s", literal.Print(c.l), literal.PrintType(got), err, c.want)
		}
	}
	for _, l := range []*core.Literal{nil, {}, listLit(&core.Literal{}), scalarLit(&core.Scalar{}), scalar(&core.Primitive{}), unionLit(intLit(1), nil)} {
		if got, err := literal.TypeOf(l); err == nil {
			t.Errorf("type of %v is %v, want an error", l, got)
		}
	}
}

func TestInputsAreMergedFromGivenDefaultAndFixed(t *testing.T) {
	t.Parallel()
	got, err := literal.ResolveInputs(parameters(), literals("a", intLit(1)), literals("f", intLit(9)))
	if err != nil {
		t.Fatal(err)
	}
	want := literals("a", intLit(1), "b", strLit("def"), "c", noneLit(), "f", intLit(9))
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got, err := literal.ResolveInputs(nil, nil, nil); err != nil || len(got.GetLiterals()) != 0 {
		t.Errorf("no inputs at all: %v, %v", got, err)
	}
}

func parameters() *core.ParameterMap {
	variable := func(t *typ) *core.Variable { return &core.Variable{Type: t} }
	return &core.ParameterMap{Parameters: map[string]*core.Parameter{
		"a": {Var: variable(integer), Behavior: &core.Parameter_Required{Required: true}},
		"b": {Var: variable(str), Behavior: &core.Parameter_Default{Default: strLit("def")}},
		"c": {Var: variable(union(enum("red", "blue"), tagged("none", none))), Behavior: &core.Parameter_Default{Default: noneLit()}},
	}}
}

func TestEveryMistakeOfTheInputsIsToldAtOnce(t *testing.T) {
	t.Parallel()
	given := literals("b", intLit(3), "c", strLit("green"), "x", intLit(1), "f", intLit(2))
	_, err := literal.ResolveInputs(parameters(), given, literals("f", intLit(9)))
	var mistakes literal.Mistakes
	if !errors.As(err, &mistakes) || !errors.Is(err, aloft.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	want := literal.Mistakes{
		"invalid input f: the launch plan fixes its value, leave it out",
		"invalid input x: expected are a, b, c",
		"expected_inputs a missing: it has type integer and no default",
		"invalid b input wrong type. Expected string, but got integer: 3",
		`invalid c input has an unknown value "green": it is one of red, blue`,
	}
	if diff := cmp.Diff(want, mistakes); diff != "" {
		t.Error(diff)
	}
}

func TestEnumValuesAreCheckedAtAnyLevel(t *testing.T) {
	t.Parallel()
	color := enum("red", "blue")
	for _, c := range []struct {
		l    *core.Literal
		t    *typ
		want string
	}{
		{strLit("red"), color, ""},
		{listLit(strLit("red"), strLit("no")), list(color), `at index 1 has an unknown value "no": it is one of red, blue`},
		{mapLit(map[string]*core.Literal{"k": strLit("no")}), dict(color), `at key "k" has an unknown value "no": it is one of red, blue`},
		{unionLit(strLit("no"), color), union(color, none), `has an unknown value "no": it is one of red, blue`},
		{unionLit(noneLit(), none), union(color, none), ""},
		{unionLit(strLit("no"), tagged("str", str)), union(tagged("str", str), color), ""},
	} {
		got := ""
		if err := literal.CheckEnum(c.l, c.t); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s as %s: %q, want %q", literal.Print(c.l), literal.PrintType(c.t), got, c.want)
		}
	}
}

func TestValidateTellsWhatIsWrongAndWhere(t *testing.T) {
	t.Parallel()
	deep := intLit(1)
	for range literal.MaxDepth + 1 {
		deep = listLit(deep)
	}
	err := literal.Validate(literals(
		"", intLit(1),
		"a", &core.Literal{},
		"b", listLit(intLit(1), scalar(&core.Primitive{})),
		"c", scalar(&core.Primitive{Value: &core.Primitive_Datetime{Datetime: &timestamppb.Timestamp{Seconds: math.MaxInt64}}}),
		"d", mapLit(map[string]*core.Literal{"": intLit(1), "k": unionLit(nil, integer)}),
		"e", deep,
		"ok", listLit(noneLit(), blobLit("")),
	))
	var mistakes literal.Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatalf("got %v", err)
	}
	want := literal.Mistakes{
		"an input has no name",
		"missing value for a",
		"missing value for b[1]",
		"invalid value for c: the datetime is not between the years 1 and 9999",
		`missing value for d["k"]`,
		"e is nested deeper than 64 levels",
	}
	if diff := cmp.Diff(want, mistakes); diff != "" {
		t.Error(diff)
	}
}

func TestRewritingShowsEveryLocationAndNothingElse(t *testing.T) {
	t.Parallel()
	generic, err := structpb.NewStruct(map[string]any{"path": "aloft://blob/g", "n": 1.0, "l": []any{"aloft://blob/h"}})
	if err != nil {
		t.Fatal(err)
	}
	inputs := literals(
		"file", blobLit("aloft://blob/a"),
		"text", strLit("aloft://blob/t"),
		"refused", strLit("aloft://wrong"),
		"sentence", strLit("see aloft://blob/stays"),
		"list", listLit(blobLit("aloft://blob/b"), unionLit(blobLit("aloft://blob/c"), none)),
		"map", mapLit(map[string]*core.Literal{
			"s": scalarLit(&core.Scalar{Value: &core.Scalar_Schema{Schema: &core.Schema{Uri: "aloft://blob/d"}}}),
			"d": scalarLit(&core.Scalar{Value: &core.Scalar_StructuredDataset{StructuredDataset: &core.StructuredDataset{Uri: "aloft://blob/e"}}}),
		}),
		"off", &core.Literal{Value: &core.Literal_OffloadedMetadata{OffloadedMetadata: &core.LiteralOffloadedMetadata{Uri: "aloft://blob/f"}}},
		"generic", scalarLit(&core.Scalar{Value: &core.Scalar_Generic{Generic: generic}}),
		// {"path": "aloft://blob/i", "aloft://blob/key": [1, 300]}
		"packed", listLit(packedLit("\x82\xa4path\xaealoft://blob/i\xb0aloft://blob/key\x92\x01\xcd\x01\x2c")),
	)
	if err := literal.RewriteURIs(inputs, func(uri string) (string, error) {
		if rest, ok := strings.CutPrefix(uri, "aloft://blob/"); ok {
			return "/data/blob/with-a-longer-name-than-before/" + rest, nil
		}
		if strings.HasPrefix(uri, "aloft://wrong") {
			return "", errors.New("malformed")
		}
		return uri, nil
	}); err != nil {
		t.Fatal(err)
	}
	const at = "/data/blob/with-a-longer-name-than-before/"
	for name, want := range map[string]string{
		"file":     at + "a",
		"text":     `"` + at + `t"`,
		"refused":  `"aloft://wrong"`,
		"sentence": `"see aloft://blob/stays"`,
		"list":     "[" + at + "b, " + at + "c]",
		"map":      "{d: " + at + "e, s: " + at + "d}",
		"off":      at + "f",
		"generic":  `{"l":["` + at + `h"],"n":1,"path":"` + at + `g"}`,
		"packed":   `[{"path":"` + at + `i","aloft://blob/key":[1,300]}]`,
	} {
		if got := literal.Print(inputs.Literals[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	broken := literals("x", packedLit("\x92\x01"), "y", blobLit("aloft://blob/a"))
	if err := literal.RewriteURIs(broken, func(string) (string, error) { return "/a", nil }); err == nil || literal.Print(broken.Literals["y"]) != "/a" {
		t.Errorf("a struct that is cut off: error %v, the file beside it is at %s", err, literal.Print(broken.Literals["y"]))
	}
	wrong := literals("x", blobLit("aloft://wrong/1"), "y", blobLit("aloft://wrong/2"))
	err = literal.RewriteURIs(wrong, func(uri string) (string, error) { return "", fmt.Errorf("malformed %s", uri) })
	if err == nil || !strings.Contains(err.Error(), "wrong/1") || !strings.Contains(err.Error(), "wrong/2") {
		t.Errorf("two malformed locations give the error %v, which should name both", err)
	}
}

func TestOfSeveralReferencesToALocationTheStrongestCounts(t *testing.T) {
	t.Parallel()
	inStruct := func(uri string) *core.Literal {
		s, err := structpb.NewStruct(map[string]any{"l": []any{map[string]any{"path": uri}}})
		if err != nil {
			t.Fatal(err)
		}
		return scalarLit(&core.Scalar{Value: &core.Scalar_Generic{Generic: s}})
	}
	packed := func(uri string) *core.Literal {
		return packedLit("\x81\xa4path" + string([]byte{0xa0 + byte(len(uri))}) + uri)
	}
	inputs := literals(
		"a", listLit(strLit("at:text"), strLit("at:text-struct"), strLit("at:text-packed"), strLit("at:text-file"), strLit("no location")),
		"b", listLit(inStruct("at:struct"), inStruct("at:text-struct"), inStruct("at:struct-file"), packed("at:text-packed")),
		"c", mapLit(map[string]*core.Literal{"x": unionLit(blobLit("at:text-file"), none), "y": blobLit("at:struct-file"), "z": blobLit("at:file")}),
		"d", &core.Literal{Value: &core.Literal_OffloadedMetadata{OffloadedMetadata: &core.LiteralOffloadedMetadata{Uri: "at:offloaded"}}},
		"cut", packedLit("\x93\xa9at:before\xc1"),
	)
	before := proto.CloneOf(inputs)
	got := literal.References(inputs, func(text string) (string, bool) { return strings.CutPrefix(text, "at:") })
	want := map[string]literal.ReferenceKind{
		"text": literal.InText, "text-struct": literal.InStruct, "text-packed": literal.InStruct, "text-file": literal.Declared,
		"struct": literal.InStruct, "struct-file": literal.Declared, "file": literal.Declared, "offloaded": literal.Declared, "before": literal.InStruct,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
	if !proto.Equal(inputs, before) {
		t.Error("looking for references changed the inputs")
	}
}
