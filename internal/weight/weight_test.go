package weight

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/weight/weighttest"
)

// manyLiterals is an execution whose input is a collection of n empty literals.
func manyLiterals(n int) []byte { return weighttest.Within(5, weighttest.LiteralMap("x", n)) }

// TestAWeightIsAboutWhatAMessageTakes: the room that is taken for a message must be enough and not far too much.
func TestAWeightIsAboutWhatAMessageTakes(t *testing.T) { //nolint:paralleltest // the test measures the heap
	texts := make([]string, 20_000)
	for i := range texts {
		texts[i] = strings.Repeat("t", 20)
	}
	inputs := &core.LiteralMap{Literals: map[string]*core.Literal{}}
	for i := range 20_000 {
		inputs.Literals[texts[i][:10]+string(rune(i+0x4e00))] = &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{
			Primitive: &core.Primitive{Value: &core.Primitive_Integer{Integer: int64(i)}}}}}}
	}
	nodes := &core.WorkflowTemplate{}
	for range 5_000 {
		nodes.Nodes = append(nodes.Nodes, &core.Node{Id: "n1234", Metadata: &core.NodeMetadata{Name: "a name"}, UpstreamNodeIds: []string{"n1", "n2"},
			Inputs: []*core.Binding{{Var: "x", Binding: &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{NodeId: "n1", Var: "o0"}}}}},
			Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: &core.Identifier{Project: "p", Domain: "d", Name: "name", Version: "v"}}}}})
	}
	encode := func(m proto.Message) []byte {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, test := range map[string]struct {
		data []byte
		into proto.Message
	}{
		"empty literals":         {manyLiterals(300_000), new(admin.ExecutionCreateRequest)},
		"a map of integers":      {encode(&admin.ExecutionCreateRequest{Inputs: inputs}), new(admin.ExecutionCreateRequest)},
		"texts":                  {encode(&admin.ExecutionCreateRequest{Spec: &admin.ExecutionSpec{Tags: texts}}), new(admin.ExecutionCreateRequest)},
		"nodes":                  {encode(&admin.WorkflowCreateRequest{Spec: &admin.WorkflowSpec{Template: nodes}}), new(admin.WorkflowCreateRequest)},
		"one text of a mebibyte": {encode(&admin.ExecutionCreateRequest{Name: strings.Repeat("n", 1<<20)}), new(admin.ExecutionCreateRequest)},
	} {
		weight, err := Protobuf(test.into.ProtoReflect().Descriptor(), test.data)
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := proto.Unmarshal(test.data, test.into); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		took := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		runtime.KeepAlive(test.into)
		t.Logf("%s: %d bytes take %d, weight %d", name, len(test.data), took, weight)
		if weight < took*8/10 || weight > took*4 {
			t.Errorf("%s: %d bytes weigh %d and take %d when they are decoded", name, len(test.data), weight, took)
		}
		text, err := protojson.Marshal(test.into)
		if err != nil {
			t.Fatal(err)
		}
		weight, err = JSON(text)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: JSON of %d bytes, weight %d", name, len(text), weight)
		if weight < took*8/10 {
			t.Errorf("%s: JSON of %d bytes weighs %d and takes %d when it is decoded", name, len(text), weight, took)
		}
	}
}

func TestWhatWouldTakeTooMuchIsRefusedBeforeItIsDecoded(t *testing.T) {
	t.Parallel()
	request := new(admin.ExecutionCreateRequest).ProtoReflect().Descriptor()
	if _, err := Protobuf(request, manyLiterals(2_500_000)); !errors.Is(err, aloft.ErrExhausted) || !strings.Contains(err.Error(), "256 MiB") {
		t.Errorf("2,500,000 literals: %v", err)
	}
	if _, err := JSON([]byte(`{"custom": {"x": [` + strings.Repeat("{},", 1_400_000) + `{}]}}`)); !errors.Is(err, aloft.ErrExhausted) {
		t.Errorf("1,400,000 objects: %v", err)
	}
	if _, err := JSON([]byte(`{"text": "` + strings.Repeat(`\"{,[`, 1_000_000) + `"}`)); err != nil {
		t.Errorf("brackets in a text are not counted: %v", err)
	}
}

func FuzzWeight(f *testing.F) {
	f.Add(manyLiterals(3))
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(admin.ExecutionCreateRequest)
		if weight, err := Protobuf(m.ProtoReflect().Descriptor(), data); err == nil && weight < 0 {
			t.Errorf("weight %d", weight)
		}
		_, _ = JSON(data)
	})
}

// Fields that weigh nothing are counted as elements, so that other goroutines run now and then.
func TestFieldsThatWeighNothingAreCounted(t *testing.T) {
	t.Parallel()
	desc := (&core.RetryStrategy{}).ProtoReflect().Descriptor() // 5: retries
	s := scale{limit: aloft.MaxDecodedBytes}
	s.message(desc, []byte(strings.Repeat("\x28\x01", 1000)), 0)
	if s.elements != 1000 || s.weight != 0 {
		t.Errorf("%d elements with a weight of %d, want 1000 that weigh nothing", s.elements, s.weight)
	}
}

// A value of another wire type than the field's is kept as it came.
func TestAFieldOfAnotherKindIsUnknown(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Repeat("\x0a\x00", 1)) // LiteralMap.literals as it is
	data = append(data, strings.Repeat("\x08\x01", 1000)...)
	got, err := Protobuf((&core.LiteralMap{}).ProtoReflect().Descriptor(), data)
	if err != nil {
		t.Fatal(err)
	}
	m := &core.LiteralMap{}
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	if kept := int64(len(m.ProtoReflect().GetUnknown())); got < kept || kept != 2000 {
		t.Errorf("weight %d of a message that keeps %d unknown bytes", got, kept)
	}
}

// TestNestingIsCountedAsTheDecoderCounts compares Deeper with the decoder, for lists and for maps.
func TestNestingIsCountedAsTheDecoderCounts(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(*core.Literal) *core.Literal{
		"lists": func(l *core.Literal) *core.Literal {
			return &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{l}}}}
		},
		"maps": func(l *core.Literal) *core.Literal {
			return &core.Literal{Value: &core.Literal_Map{Map: &core.LiteralMap{Literals: map[string]*core.Literal{"k": l}}}}
		},
	} {
		nested := &core.Literal{}
		for range 20 {
			nested = wrap(nested)
		}
		m := &core.LiteralMap{Literals: map[string]*core.Literal{"deep": nested}}
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for limit := 1; limit < 100; limit++ {
			err := proto.UnmarshalOptions{RecursionLimit: limit}.Unmarshal(data, &core.LiteralMap{})
			key, deeper := Deeper(m.ProtoReflect().Descriptor(), data, limit)
			if deeper != (err != nil) {
				t.Errorf("%s, limit %d: deeper is %v, the decoder says %v", name, limit, deeper, err)
			}
			if deeper && limit > 1 && key != "deep" {
				t.Errorf("%s, limit %d: the key is %q", name, limit, key)
			}
		}
	}
}
