package literal_test

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
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
func blob(format string, d core.BlobType_BlobDimensionality) *typ {
	return &typ{Type: &core.LiteralType_Blob{Blob: &core.BlobType{Format: format, Dimensionality: d}}}
}
func tagged(tag string, t *typ) *typ {
	return &typ{Type: t.Type, Metadata: t.Metadata, Structure: &core.TypeStructure{Tag: tag}}
}
func dataset(format string, columns ...any) *typ {
	d := &core.StructuredDatasetType{Format: format}
	for i := 0; i < len(columns); i += 2 {
		d.Columns = append(d.Columns, &core.StructuredDatasetType_DatasetColumn{Name: columns[i].(string), LiteralType: columns[i+1].(*typ)})
	}
	return &typ{Type: &core.LiteralType_StructuredDatasetType{StructuredDatasetType: d}}
}
func schema(names ...string) *typ {
	s := &core.SchemaType{}
	for _, n := range names {
		s.Columns = append(s.Columns, &core.SchemaType_SchemaColumn{Name: n, Type: core.SchemaType_SchemaColumn_INTEGER})
	}
	return &typ{Type: &core.LiteralType_Schema{Schema: s}}
}

var (
	integer  = simple(core.SimpleType_INTEGER)
	float    = simple(core.SimpleType_FLOAT)
	str      = simple(core.SimpleType_STRING)
	none     = simple(core.SimpleType_NONE)
	failure  = simple(core.SimpleType_ERROR)
	datetime = simple(core.SimpleType_DATETIME)
	duration = simple(core.SimpleType_DURATION)
	object   = simple(core.SimpleType_STRUCT)
	single   = core.BlobType_SINGLE
	multi    = core.BlobType_MULTIPART
)

// referencePairs are the pairs of types behind the names in testdata/castable.txt.
var referencePairs = map[string][2]*typ{
	"int->float":                           {integer, float},
	"float->int":                           {float, integer},
	"int->int":                             {integer, integer},
	"int->string":                          {integer, str},
	"enum->string":                         {enum("a"), str},
	"string->enum":                         {str, enum("a")},
	"enum a->enum a,b":                     {enum("a"), enum("a", "b")},
	"enum same":                            {enum("a", "b"), enum("a", "b")},
	"none->int":                            {none, integer},
	"none->union(int,none)":                {none, union(integer, none)},
	"none->[int]":                          {none, list(integer)},
	"[none]->[int]":                        {list(none), list(integer)},
	"{none}->{int}":                        {dict(none), dict(integer)},
	"none->sd":                             {none, dataset("")},
	"none->none":                           {none, none},
	"int->none":                            {integer, none},
	"int->union(int,string)":               {integer, union(integer, str)},
	"int->union(int,int) ambiguous":        {integer, union(integer, integer)},
	"int->union(float,string)":             {integer, union(float, str)},
	"union(int)->int":                      {union(integer), integer},
	"union(int,string)->int":               {union(integer, str), integer},
	"union(int,none)->int":                 {union(integer, none), integer},
	"union(int)->union(int,string)":        {union(integer), union(integer, str)},
	"union(int,float)->union(int,string)":  {union(integer, float), union(integer, str)},
	"union(int,string)->union(string,int)": {union(integer, str), union(str, integer)},
	"tag int a ->int":                      {tagged("a", integer), integer},
	"int -> tag int a":                     {integer, tagged("a", integer)},
	"tag a->tag b":                         {tagged("a", integer), tagged("b", integer)},
	"blob csv->blob csv":                   {blob("csv", single), blob("csv", single)},
	"blob csv->blob ''":                    {blob("csv", single), blob("", single)},
	"blob ''->blob csv":                    {blob("", single), blob("csv", single)},
	"blob csv->jpg":                        {blob("csv", single), blob("jpg", single)},
	"single->multipart":                    {blob("", single), blob("", multi)},
	"[int]->[union(int,string)]":           {list(integer), list(union(integer, str))},
	"[[none]]->[[int]]":                    {list(list(none)), list(list(integer))},
	"int->[int]":                           {integer, list(integer)},
	"[int]->{int}":                         {list(integer), dict(integer)},
	"sd(a,b)->sd(a)":                       {dataset("", "a", integer, "b", integer), dataset("", "a", integer)},
	"sd(a)->sd(a,b)":                       {dataset("", "a", integer), dataset("", "a", integer, "b", integer)},
	"sd()->sd(a)":                          {dataset(""), dataset("", "a", integer)},
	"sd parquet->csv":                      {dataset("parquet"), dataset("csv")},
	"sd parquet->''":                       {dataset("parquet"), dataset("")},
	"sd(a int)->sd(a float)":               {dataset("", "a", integer), dataset("", "a", float)},
	"schema(a)->sd(a)":                     {schema("a"), dataset("", "a", integer)},
	"schema->sd csv":                       {schema(), dataset("csv")},
	"sd csv->schema":                       {dataset("csv"), schema()},
	"sd(a int)->schema(a int)":             {dataset("", "a", integer), schema("a")},
	"schema(a,b)->schema(a)":               {schema("a", "b"), schema("a")},
	"schema(a)->schema(a,b)":               {schema("a"), schema("a", "b")},
	"struct nil meta->struct":              {object, withSchema(object, point)},
	"binary->struct":                       {simple(core.SimpleType_BINARY), object},
	"datetime->duration":                   {datetime, duration},
	"error->error":                         {failure, failure},
}

func TestCastsWhatTheReferenceCompilerCastsAndNothingElse(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("testdata/castable.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(file)), "\n")
	if len(lines) != len(referencePairs) {
		t.Errorf("%d lines in castable.txt, %d pairs known here", len(lines), len(referencePairs))
	}
	for _, line := range lines {
		fields := strings.Fields(line)
		name, want := strings.Join(fields[:len(fields)-1], " "), fields[len(fields)-1] == "true"
		pair, ok := referencePairs[name]
		if !ok {
			t.Errorf("castable.txt has %q, which this test does not know", name)
			continue
		}
		if got := literal.Castable(pair[0], pair[1]); got != want {
			t.Errorf("%s: castable is %v, want %v", name, got, want)
		}
	}
}

const (
	point       = `{"type":"object","title":"Point","properties":{"x":{"type":"integer"},"y":{"type":"integer"}},"required":["x","y"],"additionalProperties":false}`
	pointNumber = `{"type":"object","title":"P2","properties":{"x":{"type":"number"},"y":{"type":"number"}},"required":["x","y"]}`
	pointX      = `{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}`
	pointOpenX  = `{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]}`
	pointLoose  = `{"type":"object","properties":{"x":{"type":"integer"},"y":{"type":"string"}}}`
	pointText   = `{"type":"object","properties":{"x":{"type":"string"},"y":{"type":"integer"}},"required":["x","y"]}`
	nested      = `{"type":"object","properties":{"p":{"$ref":"#/definitions/P"}},"required":["p"],"definitions":{"P":` + point + `}}`
	nestedDefs  = `{"type":"object","properties":{"p":{"$ref":"#/$defs/Q"}},"required":["p"],"$defs":{"Q":` + point + `}}`
	nestedText  = `{"type":"object","properties":{"p":{"$ref":"#/$defs/Q"}},"required":["p"],"$defs":{"Q":` + pointText + `}}`
	recursive   = `{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"$ref":"#"},{"type":"null"}]}}}`
	lists       = `{"type":"object","properties":{"a":{"type":"array","items":{"type":"integer"}}}}`
	listsText   = `{"type":"object","properties":{"a":{"type":"array","items":{"type":"string"}}}}`
	optional    = `{"type":"object","properties":{"a":{"anyOf":[{"type":"integer"},{"type":"null"}]}}}`
	notOptional = `{"type":"object","properties":{"a":{"type":"integer"}}}`
	colors      = `{"type":"object","properties":{"a":{"enum":["red","blue"]}}}`
	red         = `{"type":"object","properties":{"a":{"const":"red"}}}`
)

func withSchema(t *typ, text string) *typ {
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(text)); err != nil {
		panic(err)
	}
	return &typ{Type: t.Type, Metadata: s, Structure: t.Structure}
}

func TestStructsCastWhenOneSchemaIsWithinTheOther(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, up, down string
		want           bool
	}{
		{"equal", point, point, true},
		{"integers are numbers", point, pointNumber, true},
		{"numbers are not integers", pointNumber, point, false},
		{"a required field is missing", pointX, point, false},
		{"a field too many where none may be", point, pointX, false},
		{"a field too many where more may be", point, pointOpenX, true},
		{"another field type", point, pointText, false},
		{"definitions under either name", nested, nestedDefs, true},
		{"different types behind definitions", nested, nestedText, false},
		{"schemas that refer to themselves", recursive, strings.Replace(recursive, "object", "object\",\"title\":\"other", 1), true},
		{"items", lists, listsText, false},
		{"an alternative takes it", notOptional, optional, true},
		{"one of the alternatives does not fit", optional, notOptional, false},
		{"a constant in an enumeration", red, colors, true},
		{"an enumeration in a constant", colors, red, false},
	} {
		if got := literal.Castable(withSchema(object, c.up), withSchema(object, c.down)); got != c.want {
			t.Errorf("%s: castable is %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUnionPicksTheVariantThatWasMeant(t *testing.T) {
	t.Parallel()
	file, folder := tagged("FlyteFile", blob("", single)), tagged("FlyteDirectory", blob("", multi))
	a, b := withSchema(tagged("Dataclass", object), point), withSchema(tagged("Dataclass", object), pointText)
	for _, c := range []struct {
		name     string
		up       *typ
		variants []*typ
		want     int
	}{
		{"none for an optional dataset", none, []*typ{dataset(""), none}, 1},
		{"a directory beside a file", union(folder), []*typ{file, folder}, 1},
		{"one of two dataclasses with one tag", union(b), []*typ{a, b}, 1},
		{"a file of unknown tag", blob("", single), []*typ{file, folder}, 0},
		{"a dataclass that two others take", withSchema(object, pointOpenX), []*typ{withSchema(tagged("Dataclass", object), pointOpenX), withSchema(tagged("Dataclass", object), pointLoose)}, 0},
		{"a dataclass without schema", object, []*typ{a, b}, -1},
		{"two variants that take it", integer, []*typ{tagged("a", integer), tagged("b", integer)}, -1},
		{"none that takes it", str, []*typ{integer, float}, -1},
	} {
		up := c.up
		if v := up.GetUnionType().GetVariants(); len(v) == 1 {
			up = v[0]
		}
		if got := literal.Variant(up, c.variants); got != c.want {
			t.Errorf("%s: variant %d, want %d", c.name, got, c.want)
		}
		if got := literal.Castable(c.up, union(c.variants...)); got != (c.want >= 0) {
			t.Errorf("%s: castable is %v", c.name, got)
		}
	}
}

func TestUnsetAndEndlessTypesCastToNothing(t *testing.T) {
	t.Parallel()
	deep := integer
	for range literal.MaxDepth + 2 {
		deep = list(deep)
	}
	for _, c := range [][2]*typ{{nil, nil}, {integer, nil}, {nil, integer}, {{}, {}}, {integer, {}}, {deep, deep}, {union(), union(integer)}} {
		if literal.Castable(c[0], c[1]) {
			t.Errorf("%s casts to %s", literal.PrintType(c[0]), literal.PrintType(c[1]))
		}
	}
	if err := literal.CheckType(deep); err == nil {
		t.Error("a type nested too deep passes")
	}
}

func TestSchemasThatReferToThemselvesManyTimesAreCompared(t *testing.T) {
	t.Parallel()
	// Every property refers to the whole schema again, in two ways, and the two sides differ at the very end: without a bound the
	// comparison would never end.
	side := func(last string) string {
		var b strings.Builder
		b.WriteString(`{"type":"object","properties":{`)
		for i := range 300 {
			b.WriteString(`"p` + strings.Repeat("x", i) + `":{"anyOf":[{"$ref":"#"},{"type":"array","items":{"$ref":"#"}}]},`)
		}
		b.WriteString(`"last":{"type":"` + last + `"}}}`)
		return b.String()
	}
	literal.Castable(withSchema(object, side("string")), withSchema(object, side("integer")))
	ring := `{"$ref":"#/a","a":{"$ref":"#/b"},"b":{"$ref":"#/a"}}`
	if !literal.Castable(withSchema(object, ring), withSchema(object, point)) {
		t.Error("a schema that says nothing but refers to itself is not taken for one that is not understood")
	}
}
