package legible

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func sightOf(t *testing.T, m proto.Message) Sight {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return Look(m.ProtoReflect().Descriptor(), data)
}

// lists is a Value within n lists, dicts a Value within n dicts.
func lists(n int) *structpb.Value {
	v := structpb.NewBoolValue(true)
	for range n {
		v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
	}
	return v
}

func dicts(n int) *structpb.Value {
	v := structpb.NewBoolValue(true)
	for range n {
		v = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"k": v}})
	}
	return v
}

func unknownGroups(n int) []byte {
	var b []byte
	for range n {
		b = protowire.AppendTag(b, 99, protowire.StartGroupType)
	}
	for range n {
		b = protowire.AppendTag(b, 99, protowire.EndGroupType)
	}
	return b
}

// TestDepthIsCountedAsPythonDoes has the numbers of protobuf 7.36.2 (upb), which reads a Value in 50 lists, a Value in 33 dicts and
// 100 unknown groups, and refuses one more level of each.
func TestDepthIsCountedAsPythonDoes(t *testing.T) {
	t.Parallel()
	grouped := func(n int) proto.Message {
		v := structpb.NewBoolValue(true)
		v.ProtoReflect().SetUnknown(unknownGroups(n))
		return v
	}
	for name, c := range map[string]struct {
		m    proto.Message
		want int
	}{
		"nothing in it":     {structpb.NewBoolValue(true), 0},
		"50 lists":          {lists(50), 100},
		"51 lists":          {lists(51), 101},
		"4990 lists":        {lists(4990), 101}, // no further
		"33 dicts":          {dicts(33), 99},
		"34 dicts":          {dicts(34), 101},
		"100 groups":        {grouped(100), 100},
		"101 groups":        {grouped(101), 101},
		"groups in a field": {&admin.Execution{Spec: &admin.ExecutionSpec{LaunchPlan: withUnknown(&core.Identifier{}, unknownGroups(200))}}, 202},
	} {
		if got := sightOf(t, c.m).Depth; got != c.want {
			t.Errorf("%s: depth %d, want %d", name, got, c.want)
		}
	}
}

func withUnknown[M proto.Message](m M, unknown []byte) M {
	m.ProtoReflect().SetUnknown(unknown)
	return m
}

func TestWhatHasNoFormInJSONIsSeenAndMended(t *testing.T) {
	t.Parallel()
	known, err := anypb.New(&core.ExecutionError{Timestamp: &timestamppb.Timestamp{Seconds: math.MaxInt64}})
	if err != nil {
		t.Fatal(err)
	}
	custom := func(v *structpb.Value) proto.Message {
		return &admin.Task{Closure: &admin.TaskClosure{CompiledTask: &core.CompiledTask{Template: &core.TaskTemplate{
			Custom: &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})}}}}}}
	}
	failed := func(at *timestamppb.Timestamp) proto.Message {
		return &admin.ExecutionList{Executions: []*admin.Execution{{Closure: &admin.ExecutionClosure{
			OutputResult: &admin.ExecutionClosure_Error{Error: &core.ExecutionError{Timestamp: at}}}}}}
	}
	for name, c := range map[string]struct {
		m          proto.Message
		time, want string // path of a time; what the JSON has then
	}{
		"NaN":                       {custom(structpb.NewNumberValue(math.NaN())), "", `["NaN"]`},
		"infinity":                  {custom(structpb.NewNumberValue(math.Inf(-1))), "", `["-Infinity"]`},
		"a Value that holds none":   {custom(&structpb.Value{}), "", `[null]`},
		"the year 292,277,026,596":  {failed(&timestamppb.Timestamp{Seconds: math.MaxInt64}), "executions.closure.error.timestamp", `9999-12-31T23:59:59Z`},
		"a time before the year 1":  {failed(&timestamppb.Timestamp{Seconds: math.MinInt64, Nanos: -5}), "executions.closure.error.timestamp", `0001-01-01T00:00:00Z`},
		"a duration of two signs":   {&admin.ExecutionClosure{Duration: &durationpb.Duration{Seconds: 3, Nanos: -1}}, "duration", `"3s"`},
		"a duration without end":    {&admin.ExecutionClosure{Duration: &durationpb.Duration{Seconds: math.MaxInt64}}, "duration", `"315576000000s"`},
		"an Any of an unknown type": {&admin.LaunchPlanMetadata{LaunchConditions: &anypb.Any{TypeUrl: "x/of.nothing", Value: []byte{1}}}, "", `{}`},
		"an Any of other content":   {&admin.LaunchPlanMetadata{LaunchConditions: &anypb.Any{TypeUrl: known.GetTypeUrl(), Value: []byte{255}}}, "", `{}`},
		"a time in an Any":          {&admin.LaunchPlanMetadata{LaunchConditions: known}, "", `9999`},
	} {
		if _, err := protojson.Marshal(c.m); err == nil {
			t.Errorf("%s: it has a form in JSON", name)
		}
		if seen := sightOf(t, c.m); seen.Formed || seen.Time != c.time {
			t.Errorf("%s: seen %+v, want the time %q", name, seen, c.time)
		}
		Mend(c.m)
		got, err := protojson.Marshal(c.m)
		if err != nil || !strings.Contains(strings.ReplaceAll(string(got), " ", ""), c.want) {
			t.Errorf("%s: JSON %s (%v), want %s in it", name, got, err, c.want)
		}
	}
}

func TestWhatIsWellIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	value, err := structpb.NewStruct(map[string]any{"a": []any{1.5, nil, "NaN", map[string]any{}, false}, "b": map[string]any{"c": 0}})
	if err != nil {
		t.Fatal(err)
	}
	m := &admin.Task{Closure: &admin.TaskClosure{CreatedAt: timestamppb.Now(), CompiledTask: &core.CompiledTask{Template: &core.TaskTemplate{
		Custom: value, Metadata: &core.TaskMetadata{Timeout: durationpb.New(-1500)}}}}}
	seen := sightOf(t, m)
	if !seen.Formed || seen.Time != "" || seen.Depth != 9 { // closure, compiled_task, template, custom, entry, Value, ListValue, Value, Struct
		t.Errorf("seen %+v", seen)
	}
	mended := proto.CloneOf(m)
	Mend(mended)
	if !proto.Equal(m, mended) {
		t.Errorf("%v became %v", m, mended)
	}
}

// FuzzLook: protojson writes each message that Look calls formed, and each message that was mended.
func FuzzLook(f *testing.F) {
	f.Add(unknownGroups(3))
	f.Add([]byte{0x0a, 0xff})
	data, _ := proto.Marshal(&core.TaskTemplate{Custom: dicts(2).GetStructValue(), Metadata: &core.TaskMetadata{Timeout: durationpb.New(1)}})
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(core.TaskTemplate)
		if proto.Unmarshal(data, m) != nil {
			return
		}
		seen := sightOf(t, m)
		if _, err := protojson.Marshal(m); err != nil && seen.Formed && seen.Depth <= MaxDepth {
			t.Errorf("%+v: %v", seen, err)
		}
		Mend(m)
		if _, err := protojson.Marshal(m); err != nil {
			t.Errorf("mended: %v", err)
		}
	})
}

func BenchmarkLook(b *testing.B) {
	b.ReportAllocs()
	id := &core.Identifier{ResourceType: core.ResourceType_LAUNCH_PLAN, Project: "flytesnacks", Domain: "development", Name: "package.module.workflow", Version: "0123456789abcdef"}
	m := &admin.Execution{Id: &core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: "abcdefghijklmnopqrst"},
		Spec: &admin.ExecutionSpec{LaunchPlan: id, Metadata: &admin.ExecutionMetadata{SystemMetadata: &admin.SystemMetadata{Namespace: "n"}}, Labels: &admin.Labels{Values: map[string]string{"a": "b"}}},
		Closure: &admin.ExecutionClosure{CreatedAt: timestamppb.Now(), UpdatedAt: timestamppb.Now(), StartedAt: timestamppb.Now(), Duration: durationpb.New(1), WorkflowId: id,
			StateChangeDetails: &admin.ExecutionStateChangeDetails{OccurredAt: timestamppb.Now()}}}
	var data []byte
	for b.Loop() {
		data, _ = proto.MarshalOptions{}.MarshalAppend(data[:0], m)
		if seen := Look(m.ProtoReflect().Descriptor(), data); seen.Depth > 10 {
			b.Fatal(seen)
		}
	}
}
