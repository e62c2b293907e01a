package literal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

func load(t testing.TB, path string, m proto.Message) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := prototext.Unmarshal(b, m); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	_, rest, _ := strings.Cut(string(b), "# digest: ")
	digest, _, _ := strings.Cut(rest, "\n")
	return digest
}

func scalar(p *core.Primitive) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}}}}
}
func intLit(i int64) *core.Literal {
	return scalar(&core.Primitive{Value: &core.Primitive_Integer{Integer: i}})
}
func floatLit(f float64) *core.Literal {
	return scalar(&core.Primitive{Value: &core.Primitive_FloatValue{FloatValue: f}})
}
func strLit(s string) *core.Literal {
	return scalar(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}})
}
func boolLit(b bool) *core.Literal {
	return scalar(&core.Primitive{Value: &core.Primitive_Boolean{Boolean: b}})
}
func listLit(l ...*core.Literal) *core.Literal {
	return &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: l}}}
}
func mapLit(m map[string]*core.Literal) *core.Literal {
	return &core.Literal{Value: &core.Literal_Map{Map: &core.LiteralMap{Literals: m}}}
}
func scalarLit(s *core.Scalar) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: s}}
}
func noneLit() *core.Literal {
	return scalarLit(&core.Scalar{Value: &core.Scalar_NoneType{NoneType: &core.Void{}}})
}
func unionLit(l *core.Literal, t *typ) *core.Literal {
	return scalarLit(&core.Scalar{Value: &core.Scalar_Union{Union: &core.Union{Value: l, Type: t}}})
}
func packedLit(data string) *core.Literal {
	return scalarLit(&core.Scalar{Value: &core.Scalar_Binary{Binary: &core.Binary{Value: []byte(data), Tag: "msgpack"}}})
}
func blobLit(uri string) *core.Literal {
	return scalarLit(&core.Scalar{Value: &core.Scalar_Blob{Blob: &core.Blob{Uri: uri, Metadata: &core.BlobMetadata{Type: &core.BlobType{}}}}})
}
func literals(kv ...any) *core.LiteralMap {
	m := &core.LiteralMap{Literals: map[string]*core.Literal{}}
	for i := 0; i < len(kv); i += 2 {
		m.Literals[kv[i].(string)] = kv[i+1].(*core.Literal)
	}
	return m
}

func TestInputHashEqualsFlytesCacheTag(t *testing.T) {
	t.Parallel()
	ab := func() *core.LiteralMap { return literals("a", listLit(intLit(2)), "b", intLit(2)) }
	hashed := ab()
	hashed.Literals["a"].Hash = "1"
	for _, c := range []struct {
		name   string
		inputs *core.LiteralMap
		ignore []string
		want   string
	}{
		{"all", ab(), nil, "VqvrKZVf7-IjXcc9-jbr4XgAWoXorDNOcqDnFa05bnA"},
		{"one ignored", ab(), []string{"b"}, "qaDW6lWiU68nl_y8u9-HxL8BV2bzmydxjFzGqTQcb28"},
		{"one with a hash, one ignored", hashed, []string{"b"}, "ze_HcV_1_jYiITMggpNw-trw6Pnwv_MJhABLIK1aMbo"},
		{"nil", nil, nil, "GKw-c0PwFokMUQ6T-TUmEWnZ4_VlQ2Qpgw-vCTT0-OQ"},
		{"empty", literals(), nil, "GKw-c0PwFokMUQ6T-TUmEWnZ4_VlQ2Qpgw-vCTT0-OQ"},
		{"integer", literals("x", intLit(5)), nil, "iU58wMQsXhKXrwp1KnBCDO0RLTx05xLawgT9r7ecjJg"},
		{"whole float", literals("x", floatLit(5)), nil, "SMXwWTxkBEIBcMY9Wrz8XBLj4J-XeziapGcLSNLOdOA"},
		{"string", literals("x", strLit("x")), nil, "ssmhXsGWtVTK4GbtEGLHTF01CteJzU0YOSV702RoEiw"},
		{"boolean", literals("x", boolLit(true)), nil, "p26rkHlFsDOy6IaWn0f4_MMatDvgu6x6FzQEL9JBmn4"},
		{"float", literals("x", floatLit(1.5)), nil, "8lQDD3hVO97v_KD4tbNy-ZFTIxYlqKPeb7TqhabQp8E"},
	} {
		if got := literal.HashInputs(c.inputs, c.ignore).Key(); got != c.want {
			t.Errorf("%s: hash %s, want %s", c.name, got, c.want)
		}
	}
	if hashed.Literals["a"].GetCollection() == nil {
		t.Error("HashInputs changed its argument")
	}
}

func TestHashInListsAndMapsReplacesContent(t *testing.T) {
	t.Parallel()
	with := func(i int64) *core.Literal { l := intLit(i); l.Hash = "h"; return l }
	if literal.HashInputs(literals("x", listLit(intLit(1), with(1))), nil) != literal.HashInputs(literals("x", listLit(intLit(1), with(2))), nil) {
		t.Error("the content of a list element with a hash counts")
	}
	if literal.HashInputs(literals("x", mapLit(map[string]*core.Literal{"k": with(1)})), nil) != literal.HashInputs(literals("x", mapLit(map[string]*core.Literal{"k": with(2)})), nil) {
		t.Error("the content of a map value with a hash counts")
	}
	if literal.HashInputs(literals("x", unionLit(with(1), integer)), nil) == literal.HashInputs(literals("x", unionLit(with(2), integer)), nil) {
		t.Error("the content of a union's value does not count, though Flyte does not look into unions")
	}
}

func TestSignatureHashEqualsFlytesAndIgnoresDescriptions(t *testing.T) {
	t.Parallel()
	var spec admin.TaskSpec
	load(t, "testdata/16_cached.1.TaskSpec.textproto", &spec)
	in, out := spec.GetTemplate().GetInterface().GetInputs(), spec.GetTemplate().GetInterface().GetOutputs()
	signature := func(h func(*core.VariableMap) literal.Hash) string { return h(in).Key()[:8] + "-" + h(out).Key()[:8] }
	if got, want := signature(literal.HashVariableMap), "OYZxr8kQ-N4Mg4RHc"; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
	if got, want := signature(func(m *core.VariableMap) literal.Hash { return literal.StructureDigest(m) }), "JasZHnZW-uT8OIjp-"; got != want {
		t.Errorf("signature with descriptions %s, want %s", got, want)
	}
	if got, want := literal.HashVariableMap(nil).Key()[:8], "GKw-c0Pw"; got != want {
		t.Errorf("signature of no variables %s, want %s", got, want)
	}
}

func TestStructureDigestEqualsTheReferenceCompilers(t *testing.T) {
	t.Parallel()
	paths, _ := filepath.Glob("testdata/*.CompiledWorkflowClosure.textproto")
	if len(paths) < 3 {
		t.Fatalf("only %d samples", len(paths))
	}
	for _, path := range paths {
		var closure core.CompiledWorkflowClosure
		want := load(t, path, &closure)
		if got := literal.StructureDigest(&closure).String(); got != want {
			t.Errorf("%s: digest %s, want %s", path, got, want)
		}
	}
}

func TestDigestTellsContentApartAndNotOrder(t *testing.T) {
	t.Parallel()
	digest := func(m *core.LiteralMap) string {
		d, err := literal.Digest(m)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	big := func() *core.LiteralMap {
		m := literals()
		for k := range strings.SplitSeq("abcdefghijklmnop", "") {
			m.Literals[k] = strLit(k)
		}
		return m
	}
	if first, second := digest(big()), digest(big()); first != second {
		t.Error("equal maps have different digests")
	}
	if digest(literals("a", intLit(1))) == digest(literals("a", intLit(2))) {
		t.Error("different maps have equal digests")
	}
	if got, want := digest(nil), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; got != want {
		t.Errorf("digest of nothing is %s, want %s", got, want)
	}
}

func BenchmarkHashInputs100k(b *testing.B) {
	l := &core.LiteralCollection{}
	for i := range 100_000 {
		l.Literals = append(l.Literals, intLit(int64(i)))
	}
	m := literals("xs", &core.Literal{Value: &core.Literal_Collection{Collection: l}})
	b.ReportAllocs()
	for b.Loop() {
		literal.HashInputs(m, nil)
	}
}
