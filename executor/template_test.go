package executor

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func primitive(p *core.Primitive) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}}}}
}

func TestCommandLinesAreFilledAsFlyteDoes(t *testing.T) {
	t.Parallel()
	text := primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: "a b"}})
	integer := primitive(&core.Primitive{Value: &core.Primitive_Integer{Integer: 42}})
	v := Variables{
		Input: "/run/inputs.pb", InputPrefix: "/run", OutputPrefix: "/out", RawOutputPrefix: "/raw", Checkpoint: "/raw/_flytecheckpoints",
		PerRetryKey: "e_n0_0", Namespace: "p-d", TaskTemplatePath: func() (string, error) { return "/run/task.pb", nil },
		Inputs: &core.LiteralMap{Literals: map[string]*core.Literal{
			"text": text, "integer": integer, "Upper": integer,
			"boolean":  primitive(&core.Primitive{Value: &core.Primitive_Boolean{Boolean: true}}),
			"float":    primitive(&core.Primitive{Value: &core.Primitive_FloatValue{FloatValue: 0.5}}),
			"time":     primitive(&core.Primitive{Value: &core.Primitive_Datetime{Datetime: &timestamppb.Timestamp{Seconds: 1}}}),
			"duration": primitive(&core.Primitive{Value: &core.Primitive_Duration{Duration: &durationpb.Duration{Seconds: 90}}}),
			"blob":     {Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Blob{Blob: &core.Blob{Uri: "/data/x"}}}}},
			"list":     {Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{integer, text}}}},
		}},
	}
	for arg, want := range map[string]string{
		"plain":                             "plain",
		"{{.input}}":                        "/run/inputs.pb",
		"{{ .Input }}":                      "/run/inputs.pb",
		"{{$input}}":                        "/run/inputs.pb",
		"{{ $INPUT }}":                      "/run/inputs.pb",
		"{{.inputPrefix}}":                  "/run",
		"{{.outputPrefix}}":                 "/out",
		"--to={{.outputPrefix}}/x":          "--to=/out/x",
		"{{.input}}:{{.outputPrefix}}":      "/run/inputs.pb:/out",
		"{{.rawOutputDataPrefix}}":          "/raw",
		"{{.checkpointOutputPrefix}}":       "/raw/_flytecheckpoints",
		"{{.prevCheckpointPrefix}}":         `""`,
		"{{.perRetryUniqueKey}}":            "e_n0_0",
		"{{.namespace}}":                    "p-d",
		"{{.taskTemplatePath}}":             "/run/task.pb",
		"{{.inputs.text}}":                  "a b",
		"{{.Inputs.integer}}":               "42",
		"{{.inputs.Upper}}":                 "42",
		"{{.inputs.boolean}}":               "true",
		"{{.inputs.float}}":                 "0.5",
		"{{.inputs.time}}":                  "1970-01-01T00:00:01Z",
		"{{.inputs.blob}}":                  "/data/x",
		"{{.inputs.list}}":                  "[42,a b]",
		"{{.unknown}} {{ range }} {{.a.b}}": "{{.unknown}} {{ range }} {{.a.b}}", // another program's templates
		"{{input}} {.input}":                "{{input}} {.input}",
	} {
		if got, err := v.Render([]string{arg}); err != nil || got[0] != want {
			t.Errorf("%s became %q, %v; want %q", arg, got, err, want)
		}
	}
	v.PrevCheckpoint = "/raw/before"
	if got, err := v.Render([]string{"{{.prevCheckpointPrefix}}"}); err != nil || got[0] != "/raw/before" {
		t.Errorf("previous checkpoint %q, %v", got, err)
	}
}

func TestAllMistakesOfACommandLineAreToldAtOnce(t *testing.T) {
	t.Parallel()
	v := Variables{
		TaskTemplatePath: func() (string, error) { return "", errors.New("disk full") },
		Inputs:           &core.LiteralMap{},
	}
	_, err := v.Render([]string{"ok", "{{.inputs.absent}}", "{{.remote_package_path}}", "{{ .dest_dir }}", "{{.taskTemplatePath}}"})
	if err == nil {
		t.Fatal("want an error")
	}
	for _, want := range []string{"argument 2", `no input "absent"`, "argument 3", "argument 4", "register with pyflyte", "argument 5", "disk full"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// A command line that no process can be started with is not built: one of a kilobyte can stand for gigabytes.
func TestACommandLineThatIsTooLongIsNotBuilt(t *testing.T) { //nolint:paralleltest // it measures the heap
	nested := primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: `"`}})
	for range 25 {
		nested = &core.Literal{Value: &core.Literal_Map{Map: &core.LiteralMap{Literals: map[string]*core.Literal{
			"k": {Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{nested}}}}}}}}
	}
	templates := 0
	v := Variables{
		Input: "/run/inputs.pb",
		TaskTemplatePath: func() (string, error) {
			templates++
			return "/run/task.pb", nil
		},
		Inputs: &core.LiteralMap{Literals: map[string]*core.Literal{
			"empty":  primitive(&core.Primitive{Value: &core.Primitive_StringValue{}}),
			"long":   primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: strings.Repeat("x", 1<<20)}}),
			"most":   primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: strings.Repeat("x", aloft.MaxArgument-1)}}),
			"nested": nested,
		}},
	}
	for name, test := range map[string]struct {
		args []string
		want []string // of the error
	}{
		"many times an input": {
			[]string{"echo", strings.Repeat("{{.inputs.long}}", 80)},
			[]string{"argument 2 would be 83886080 bytes long, the limit is 131071", "the command line would be 83886102 bytes long, the limit is 2097152"},
		},
		"a byte too much":     {[]string{"{{.inputs.most}}x"}, []string{"argument 1 would be 131072 bytes long, the limit is 131071"}},
		"many long arguments": {slices.Repeat([]string{"{{.inputs.most}}"}, 16), []string{"the command line would be 2097280 bytes long"}},
		"many short ones":     {slices.Repeat([]string{""}, 1<<18), []string{"the command line would be 2359296 bytes long"}},
		"a text that doubles": {[]string{"{{.inputs.nested}}"}, []string{"argument 1 would be more than 131072 bytes long", "the limit is 131071"}},
		"many mistakes":       {slices.Repeat([]string{"{{.inputs.absent}}"}, 100), []string{"argument 20, {{.inputs.absent}}: the task has no input", "and 80 more"}},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := v.Render(test.args)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %v", name, want, err)
			}
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
			t.Errorf("%s took %d MiB", name, took>>20)
		}
	}
	got, err := v.Render([]string{"{{.inputs.most}}", strings.Repeat("{{.inputs.empty}}", 100_000) + strings.Repeat("{{.taskTemplatePath}}", 100)})
	if err != nil || len(got[0]) != aloft.MaxArgument-1 || got[1] != strings.Repeat("/run/task.pb", 100) {
		t.Errorf("a command line within the limits became %.100q, %v", got, err)
	}
	if templates != 1 {
		t.Errorf("the template was written %d times", templates)
	}
}

// A template that cannot be written now is no mistake of the command line: the attempt begins once it can be.
func TestWhatACommandLineCannotHaveNowIsNoMistakeOfIt(t *testing.T) {
	t.Parallel()
	full := fmt.Errorf("write the task's template: %w: the disk is full", aloft.ErrUnavailable)
	v := Variables{TaskTemplatePath: func() (string, error) { return "", full }}
	if _, err := v.Render([]string{"{{.taskTemplatePath}}", "{{.inputs.absent}}"}); !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("the error is %v, want ErrUnavailable with its reason", err)
	}
}

func TestATaskIsToldItsServerItsPageAndItsImage(t *testing.T) {
	t.Parallel()
	job := &Job{
		ID:       aloft.AttemptID{Execution: aloft.ExecutionID{Project: "p", Domain: "d", Name: "e"}, Node: "n0"},
		Template: &core.TaskTemplate{Target: &core.TaskTemplate_Container{Container: &core.Container{Image: "localhost:30000/x:jY7Ams_AS4TdUR4XVLpLpg"}}},
		Envs:     map[string]string{"FLYTE_PLATFORM_INSECURE": "false"},
	}
	got := Environment(job, Platform{Endpoint: "localhost:30081", URL: "https://aloft.example.com"})
	for name, want := range map[string]string{
		"FLYTE_PLATFORM_URL": "localhost:30081", "FLYTE_PLATFORM_INSECURE": "false", "_F_IMG_ID": "jY7Ams_AS4TdUR4XVLpLpg",
		"FLYTE_EXECUTION_URL": "https://aloft.example.com/console/projects/p/domains/d/executions/e/nodeId/n0/nodes",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	for _, image := range []string{"python:3.11", "cr.flyte.org/flyteorg/flytekit:py3.11-1.16.31", "x@sha256:jY7Ams_AS4TdUR4XVLpLpg0"} {
		job.Template.GetContainer().Image = image
		if id, ok := Environment(job, Platform{})["_F_IMG_ID"]; ok {
			t.Errorf("image %s has the id %q of a specification", image, id)
		}
	}
}

func TestTheEnvironmentIsTheTemplatesThenFlytesThenTheExecutions(t *testing.T) {
	t.Parallel()
	job := &Job{
		ID: aloft.AttemptID{Execution: aloft.ExecutionID{Project: "p", Domain: "d", Name: "e"}, Node: "n0", Attempt: 2},
		Template: &core.TaskTemplate{
			Id: &core.Identifier{Project: "tp", Domain: "td", Name: "tn", Version: "tv"},
			Target: &core.TaskTemplate_Container{Container: &core.Container{Env: []*core.KeyValuePair{
				{Key: "A", Value: "template"}, {Key: "B", Value: "template"}, {Key: "B", Value: "template, later"}, {Key: "FLYTE_ATTEMPT_NUMBER", Value: "template"},
				{Key: "C", Value: "template"},
			}}},
		},
		Workflow: &core.Identifier{Project: "wp", Domain: "wd", Name: "wn", Version: "wv"},
		Envs:     map[string]string{"C": "execution", "FLYTE_INTERNAL_TASK_NAME": "execution"},
	}
	want := map[string]string{
		"A": "template", "B": "template, later", "C": "execution",
		"FLYTE_INTERNAL_EXECUTION_WORKFLOW": "wp:wd:wn", "FLYTE_INTERNAL_EXECUTION_ID": "e", "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
		"FLYTE_INTERNAL_EXECUTION_DOMAIN": "d", "FLYTE_ATTEMPT_NUMBER": "2", "FLYTE_INTERNAL_TASK_PROJECT": "tp", "FLYTE_INTERNAL_TASK_DOMAIN": "td",
		"FLYTE_INTERNAL_TASK_NAME": "execution", "FLYTE_INTERNAL_TASK_VERSION": "tv",
	}
	if got := Environment(job, Platform{}); !maps.Equal(got, want) {
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got[name] != want[name] {
				t.Errorf("%s is %q, want %q", name, got[name], want[name])
			}
		}
		t.Errorf("got %v", got)
	}
}

func TestAPerRetryKeyIsAnIdentifier(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"e-n0-0": "e_n0_0", "9e--n0": "ae_n0", "-9-e": "ae", "_x": "_x", "é1": "a"} {
		if got := PerRetryKey(name); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
}
