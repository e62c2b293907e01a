package compiler_test

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func goodTask() *core.TaskTemplate {
	return &core.TaskTemplate{
		Type:      "python-task",
		Metadata:  &core.TaskMetadata{Runtime: &core.RuntimeMetadata{Version: "1.16.31"}},
		Interface: &core.TypedInterface{Inputs: variables("a", integer)},
		Target:    &core.TaskTemplate_Container{Container: &core.Container{Image: "i", Args: []string{"run"}}},
	}
}

func entries(kv ...any) (out []*core.Resources_ResourceEntry) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, &core.Resources_ResourceEntry{Name: kv[i].(core.Resources_ResourceName), Value: kv[i+1].(string)})
	}
	return out
}

func pod(t *testing.T, spec string) *core.TaskTemplate_K8SPod {
	t.Helper()
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(spec)); err != nil {
		t.Fatal(err)
	}
	return &core.TaskTemplate_K8SPod{K8SPod: &core.K8SPod{PodSpec: s}}
}

func TestATaskIsCompiledOrEveryMistakeIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*core.TaskTemplate)
		want   []string // parts of the messages, one per mistake
	}{
		{"good", func(*core.TaskTemplate) {}, nil},
		{"ten retries", func(t *core.TaskTemplate) { t.Metadata.Retries = &core.RetryStrategy{Retries: 10} }, nil},
		{"eleven retries", func(t *core.TaskTemplate) { t.Metadata.Retries = &core.RetryStrategy{Retries: 11} }, []string{"Invalid value [11] for template.metadata.retries"}},
		{"negative timeout", func(t *core.TaskTemplate) { t.Metadata.Timeout = durationpb.New(-1) }, []string{"template.metadata.timeout"}},
		{"timeout out of range", func(t *core.TaskTemplate) { t.Metadata.Timeout = &durationpb.Duration{Seconds: math.MaxInt64} }, []string{"template.metadata.timeout"}},
		{"empty", func(t *core.TaskTemplate) { t.Type, t.Metadata, t.Interface, t.Target = "", nil, nil, nil },
			[]string{"[template.interface]", "[template.metadata]", "[template.type]"}},
		{"runtime without version", func(t *core.TaskTemplate) { t.Metadata.Runtime.Version = "" }, []string{"runtime.version"}},
		{"cached without version", func(t *core.TaskTemplate) { t.Metadata.Discoverable = true }, []string{"discovery_version"}},
		{"cache version of 200 bytes", func(t *core.TaskTemplate) { t.Metadata.DiscoveryVersion = strings.Repeat("v", 200) }, nil},
		{"cache version of 10 kB", func(t *core.TaskTemplate) { t.Metadata.DiscoveryVersion = strings.Repeat("v", 10<<10) },
			[]string{"template.metadata.discovery_version: it has 10240 bytes, the limit is 200"}},
		{"cache version with NUL", func(t *core.TaskTemplate) { t.Metadata.DiscoveryVersion = "a\x00" }, []string{"discovery_version: it contains a NUL"}},
		{"no image", func(t *core.TaskTemplate) { t.GetContainer().Image = "" }, []string{"container.image"}},
		{"no command", func(t *core.TaskTemplate) { t.GetContainer().Args = nil }, []string{"container.command"}},
		{"no command, no inputs", func(t *core.TaskTemplate) { t.GetContainer().Args, t.Interface.Inputs = nil, nil }, nil},
		{"no container", func(t *core.TaskTemplate) { t.Target = nil }, nil},
		{"input without type", func(t *core.TaskTemplate) { t.Interface.Inputs.Variables["b"] = &core.Variable{} }, []string{"interface.inputs[b].type"}},
		{"amounts", func(t *core.TaskTemplate) {
			t.GetContainer().Resources = &core.Resources{
				Requests: entries(core.Resources_CPU, "500m", core.Resources_MEMORY, "1Gi", core.Resources_GPU, "1"),
				Limits:   entries(core.Resources_CPU, "0.5", core.Resources_MEMORY, "1025Mi", core.Resources_GPU, "1"),
			}
		}, nil},
		{"wrong amounts", func(t *core.TaskTemplate) {
			t.GetContainer().Resources = &core.Resources{
				Requests: entries(core.Resources_CPU, "2", core.Resources_MEMORY, "lots", core.Resources_GPU, "1", core.Resources_EPHEMERAL_STORAGE, "-1", core.Resources_UNKNOWN, "1"),
				Limits:   entries(core.Resources_CPU, "1e0", core.Resources_GPU, "2", core.Resources_STORAGE, "1e999999999"),
			}
		}, []string{"resources.limits[STORAGE]", "the resource is unknown", "the request is greater than the limit", "must equal their limit", "it is negative", "[lots]"}},
		{"part of a GPU", func(t *core.TaskTemplate) {
			t.GetContainer().Resources = &core.Resources{Limits: entries(core.Resources_GPU, "500m")}
		}, []string{"GPUs are whole"}},
	} {
		template := goodTask()
		c.change(template)
		got, err := compiler.CompileTask(id(core.ResourceType_UNSPECIFIED, "t"), template)
		if len(c.want) == 0 {
			if err != nil || got.GetTemplate().GetId().GetResourceType() != core.ResourceType_TASK {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
			continue
		}
		if n := strings.Count(codes(err), "@t"); n != len(c.want) {
			t.Errorf("%s: %d mistakes, want %d: %v", c.name, n, len(c.want), err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is not in %v", c.name, part, err)
			}
		}
	}
}

func TestPodsAreReadAsFarAsTheyMustBe(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		`{"containers":[{"name":"primary"},{"name":"side-car"}]}`: "",
		`{}`:                            "ValueRequired@t",
		`{"containers":1}`:              "InvalidValue@t",
		`{"containers":[{"name":"A"}]}`: "InvalidValue@t",
		`{"containers":[{}]}`:           "InvalidValue@t",
	} {
		template := goodTask()
		template.Target = pod(t, spec)
		if _, err := compiler.CompileTask(id(core.ResourceType_TASK, "t"), template); codes(err) != want {
			t.Errorf("%s: %v", spec, err)
		}
	}
}
