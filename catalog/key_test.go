package catalog_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/catalog"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

func scalar(p *core.Primitive) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}}}}
}

func integer(i int64) *core.Literal {
	return scalar(&core.Primitive{Value: &core.Primitive_Integer{Integer: i}})
}

func textLiteral(s string) *core.Literal {
	return scalar(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}})
}

func hashed(l *core.Literal, hash string) *core.Literal {
	l = proto.CloneOf(l)
	l.Hash = hash
	return l
}

type values = map[string]*core.Literal

func inputs(v values) *core.LiteralMap { return &core.LiteralMap{Literals: v} }

// cachedTask is what a real client registered for a task with cache=True.
func cachedTask(t testing.TB) *core.TaskTemplate {
	t.Helper()
	b, err := os.ReadFile("../literal/testdata/16_cached.1.TaskSpec.textproto")
	if err != nil {
		t.Fatal(err)
	}
	var spec admin.TaskSpec
	if err := prototext.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	return spec.GetTemplate()
}

func TestAResultIsFoundByWhatFlyteFindsItBy(t *testing.T) {
	t.Parallel()
	task := cachedTask(t)
	task.Metadata.DiscoveryVersion, task.Metadata.CacheIgnoreInputVars = "1.0", nil
	overridden := &core.NodeMetadata{CacheVersionValue: &core.NodeMetadata_CacheVersion{CacheVersion: "2-rc"}}
	list := &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{integer(2)}}}}
	two := inputs(values{"a": list, "b": integer(2)})
	byHash := inputs(values{"a": hashed(list, "1"), "b": integer(2)})
	for _, c := range []struct {
		name         string
		inputs       *core.LiteralMap
		node         *core.NodeMetadata
		ignored      []string
		version, tag string
	}{
		{"one input", inputs(values{"x": integer(5)}), nil, nil, "1.0", "iU58wMQsXhKXrwp1KnBCDO0RLTx05xLawgT9r7ecjJg"},
		{"no inputs", nil, nil, nil, "1.0", "GKw-c0PwFokMUQ6T-TUmEWnZ4_VlQ2Qpgw-vCTT0-OQ"},
		{"no inputs that count", two, nil, []string{"b", "a"}, "1.0", "GKw-c0PwFokMUQ6T-TUmEWnZ4_VlQ2Qpgw-vCTT0-OQ"},
		{"two inputs", two, nil, nil, "1.0", "VqvrKZVf7-IjXcc9-jbr4XgAWoXorDNOcqDnFa05bnA"},
		{"one of two ignored", two, nil, []string{"b"}, "1.0", "qaDW6lWiU68nl_y8u9-HxL8BV2bzmydxjFzGqTQcb28"},
		{"one by hash", byHash, nil, []string{"b"}, "1.0", "ze_HcV_1_jYiITMggpNw-trw6Pnwv_MJhABLIK1aMbo"},
		{"the node's cache version", inputs(values{"x": textLiteral("x")}), overridden, nil, "2-rc", "ssmhXsGWtVTK4GbtEGLHTF01CteJzU0YOSV702RoEiw"},
	} {
		task := proto.CloneOf(task)
		task.Metadata.CacheIgnoreInputVars = c.ignored
		key := catalog.Key(task, c.node, c.inputs)
		want := store.ResultID{
			Project: task.GetId().GetProject(), Domain: task.GetId().GetDomain(), Name: "flyte_task-" + task.GetId().GetName(),
			Version: c.version + "-OYZxr8kQ-N4Mg4RHc", Tag: "flyte_cached-" + c.tag,
		}
		if got := catalog.ID(key); got != want {
			t.Errorf("%s: found by\n%+v, want\n%+v", c.name, got, want)
		}
		if !slices.IsSorted(key.GetIgnored()) || len(key.GetIgnored()) != len(c.ignored) {
			t.Errorf("%s: ignored inputs %q, want %q, sorted", c.name, key.GetIgnored(), c.ignored)
		}
		if !slices.Equal(task.GetMetadata().GetCacheIgnoreInputVars(), c.ignored) {
			t.Errorf("%s: the task was changed", c.name)
		}
	}
}

func TestAKeyTellsWhatEachInputContributes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 5000)
	m := inputs(values{"n": integer(5), "by_hash": hashed(integer(7), "h1"), "long": textLiteral(long), "skipped": integer(1)})
	task := &core.TaskTemplate{Metadata: &core.TaskMetadata{CacheIgnoreInputVars: []string{"skipped"}}}
	key := catalog.Key(task, nil, m)
	var names []string
	in := map[string]*aloftv1.CacheInput{}
	for _, i := range key.GetInputs() {
		names = append(names, i.GetName())
		in[i.GetName()] = i
	}
	if want := []string{"by_hash", "long", "n"}; !slices.Equal(names, want) {
		t.Fatalf("inputs %q, want %q", names, want)
	}
	if got, want := in["n"].GetHash(), literal.StructureDigest(integer(5)).Key(); got != want {
		t.Errorf("hash of an input %s, want %s", got, want)
	}
	if got, want := in["by_hash"].GetHash(), literal.StructureDigest(&core.Literal{Hash: "h1"}).Key(); got != want || !in["by_hash"].GetByHash() || in["n"].GetByHash() {
		t.Errorf("input with a hash: %v; input without: %v", in["by_hash"], in["n"])
	}
	if got := in["n"].GetPreview(); got != "5" {
		t.Errorf("preview %q, want 5", got)
	}
	if got, want := in["by_hash"].GetPreview(), `7 with hash "h1"`; got != want {
		t.Errorf("preview %q, want %q", got, want)
	}
	if got := in["long"].GetPreview(); len(got) > 200 || !strings.HasPrefix(got, `"aaa`) {
		t.Errorf("preview of a long text has %d bytes: %q", len(got), got)
	}
	plain := catalog.NewSignature(task, nil).Key(m)
	catalog.Preview(plain, m)
	if !proto.Equal(plain, key) {
		t.Errorf("signature's key %v, want %v", plain, key)
	}
}

func TestTheNodeSaysWhetherItsResultIsComputedByOneAtATime(t *testing.T) {
	t.Parallel()
	says := func(b bool) *core.NodeMetadata {
		return &core.NodeMetadata{CacheSerializableValue: &core.NodeMetadata_CacheSerializable{CacheSerializable: b}}
	}
	for _, c := range []struct {
		task bool
		node *core.NodeMetadata
		want bool
	}{
		{false, nil, false}, {true, nil, true}, {true, &core.NodeMetadata{}, true}, {true, says(false), false}, {false, says(true), true},
	} {
		task := &core.TaskTemplate{Metadata: &core.TaskMetadata{CacheSerializable: c.task}}
		if got := catalog.Serialized(task, c.node); got != c.want {
			t.Errorf("task %v, node %v: %v, want %v", c.task, c.node, got, c.want)
		}
	}
}

func BenchmarkKey(b *testing.B) {
	task := cachedTask(b)
	m := inputs(values{"a": integer(1), "b": textLiteral("some text"), "c": integer(3)})
	signature := catalog.NewSignature(task, nil)
	b.Run("signature", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			signature.Key(m)
		}
	})
	b.Run("with previews", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			catalog.Preview(signature.Key(m), m)
		}
	})
	b.Run("from the task", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			catalog.Key(task, nil, m)
		}
	})
}
