package compiler_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

func lit(v any) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: constant(v).GetScalar()}}
}

func parameter(t *typ, def *core.Literal) *core.Parameter {
	p := &core.Parameter{Var: &core.Variable{Type: t}, Behavior: &core.Parameter_Required{Required: true}}
	if def != nil {
		p.Behavior = &core.Parameter_Default{Default: def}
	}
	return p
}

func launchPlanInterface() *core.TypedInterface {
	return &core.TypedInterface{Inputs: variables("a", integer, "b", str, "c", integer, "t", datetime), Outputs: variables("o", integer)}
}

func TestExpectedInputsAreThoseThatAreNotFixed(t *testing.T) {
	t.Parallel()
	spec := &admin.LaunchPlanSpec{
		WorkflowId:    id(core.ResourceType_WORKFLOW, "w"),
		DefaultInputs: &core.ParameterMap{Parameters: map[string]*core.Parameter{"b": parameter(str, lit("x")), "a": parameter(integer, nil)}},
		FixedInputs:   &core.LiteralMap{Literals: map[string]*core.Literal{"c": lit(1)}},
	}
	before := proto.CloneOf(spec)
	got, err := compiler.CompileLaunchPlan(spec, launchPlanInterface())
	if err != nil {
		t.Fatal(err)
	}
	expected := &core.ParameterMap{Parameters: map[string]*core.Parameter{
		"a": parameter(integer, nil), "b": parameter(str, lit("x")), "t": parameter(datetime, nil),
	}}
	want := &admin.LaunchPlan{Spec: proto.CloneOf(spec), Closure: &admin.LaunchPlanClosure{ExpectedInputs: expected, ExpectedOutputs: variables("o", integer)}}
	want.Spec.DefaultInputs = expected
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if !proto.Equal(before, spec) {
		t.Error("compiling changed the spec")
	}
}

func TestEveryMistakeOfALaunchPlanIsTold(t *testing.T) {
	t.Parallel()
	spec := &admin.LaunchPlanSpec{
		DefaultInputs: &core.ParameterMap{Parameters: map[string]*core.Parameter{
			"a": parameter(integer, lit("text")), "b": parameter(integer, lit(1)), "zz": parameter(str, nil), "c": {Var: &core.Variable{Type: integer}},
			"t": {},
		}},
		FixedInputs: &core.LiteralMap{Literals: map[string]*core.Literal{"yy": lit(1), "c": lit("text")}},
		EntityMetadata: &admin.LaunchPlanMetadata{
			Notifications: []*admin.Notification{{}, {
				Type:   &admin.Notification_Email{Email: &admin.EmailNotification{}},
				Phases: []core.WorkflowExecution_Phase{core.WorkflowExecution_RUNNING},
			}},
			Schedule: &admin.Schedule{KickoffTimeInputArg: "a", ScheduleExpression: &admin.Schedule_CronSchedule{CronSchedule: &admin.CronSchedule{Schedule: "* * *"}}},
		},
		MaxParallelism: -1,
	}
	_, err := compiler.CompileLaunchPlan(spec, launchPlanInterface())
	var got literal.Mistakes
	if !errors.As(err, &got) || !errors.Is(err, aloft.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	want := literal.Mistakes{
		"invalid default_input a wrong type. Expected integer, but got string: \"text\"",
		"invalid default_input b wrong type. Expected string, but got integer",
		"invalid default_input c: it has neither a default nor required=true",
		"missing type of default_input t: the type is not set",
		"unexpected default_input zz: the workflow has no such input",
		"invalid fixed_input c wrong type. Expected integer, but got string: \"text\"",
		"unexpected fixed_input yy: the workflow has no such input",
		`invalid cron schedule "* * *": it has five fields (minute hour day month weekday) or is one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually, @every <duration>`,
		"invalid kickoff_time_input_arg a: it has type integer, not datetime",
		"invalid schedule: input t has no default, and nobody is there to give it",
		"missing type of notifications[0]: email, pager_duty or slack",
		"missing recipients of notifications[1]",
		"invalid value for phases of notifications[1]: RUNNING is not one of SUCCEEDED, FAILED, ABORTED, TIMED_OUT",
		"invalid value for max_parallelism: it is not negative, 0 is the server's default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSchedulesAreReadInAllTheirForms(t *testing.T) {
	t.Parallel()
	for schedule, ok := range map[string]bool{
		"*/5 * * * *": true, "0 9 * * MON-FRI": true, "@daily": true, "@every 1h30m": true, " 0 0 1 1 ? ": true,
		"": false, "@never": false, "@every x": false, "@every -1h": false, "* * * * * *": false, "a b c d $": false,
	} {
		for _, s := range []*admin.Schedule{
			{ScheduleExpression: &admin.Schedule_CronExpression{CronExpression: schedule}},
			{ScheduleExpression: &admin.Schedule_CronSchedule{CronSchedule: &admin.CronSchedule{Schedule: schedule}}},
		} {
			_, err := compiler.CompileLaunchPlan(&admin.LaunchPlanSpec{EntityMetadata: &admin.LaunchPlanMetadata{Schedule: s}}, nil)
			if (err == nil) != ok {
				t.Errorf("%q: %v", schedule, err)
			}
		}
	}
	rate := func(n uint32) error {
		_, err := compiler.CompileLaunchPlan(&admin.LaunchPlanSpec{EntityMetadata: &admin.LaunchPlanMetadata{Schedule: &admin.Schedule{
			ScheduleExpression: &admin.Schedule_Rate{Rate: &admin.FixedRate{Value: n, Unit: admin.FixedRateUnit_HOUR}},
		}}}, nil)
		return err
	}
	if rate(1) != nil || rate(0) == nil {
		t.Errorf("rates: %v, %v", rate(1), rate(0))
	}
}

func TestLaunchPlansOfFlytekitCompile(t *testing.T) {
	t.Parallel()
	interfaces := make(map[string]*core.TypedInterface)
	for _, path := range samples(t, "WorkflowSpec") {
		var spec admin.WorkflowSpec
		load(t, path, &spec)
		for _, w := range append(spec.GetSubWorkflows(), spec.GetTemplate()) {
			interfaces[w.GetId().GetName()] = w.GetInterface()
		}
	}
	compiled := 0
	for _, path := range samples(t, "LaunchPlan") {
		var sent admin.LaunchPlan
		load(t, path, &sent)
		i, ok := interfaces[sent.GetSpec().GetWorkflowId().GetName()]
		if !ok {
			continue // the samples do not show its workflow
		}
		compiled++
		got, err := compiler.CompileLaunchPlan(sent.GetSpec(), i)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		// flytekit computes the same inputs before it sends a launch plan.
		if diff := compiler.Difference(sent.GetSpec().GetDefaultInputs(), got.GetClosure().GetExpectedInputs()); diff != "" {
			t.Errorf("%s: flytekit's expected inputs → ours\n%s", path, diff)
		}
	}
	if compiled < 3 {
		t.Errorf("only %d launch plans were compiled", compiled)
	}
}

func TestDifferenceNamesPathsAndIsBounded(t *testing.T) {
	t.Parallel()
	node := func(nodeID, name string) *core.Node {
		return &core.Node{Id: nodeID, Metadata: &core.NodeMetadata{Name: name}}
	}
	before := &core.WorkflowTemplate{Id: id(core.ResourceType_WORKFLOW, "w"), Nodes: []*core.Node{node("n0", "a"), node("n1", "b")}}
	after := &core.WorkflowTemplate{Id: id(core.ResourceType_WORKFLOW, "v"), Nodes: []*core.Node{node("new", "c"), node("n0", "a"), node("n1", "changed")}}
	want := `id.name: "w" → "v"` + "\n" + `nodes[n1].metadata.name: "b" → "changed"` + "\n" + `nodes[new]: absent → {"id":"new","metadata":{"name":"c"}}`
	if got := compiler.Difference(before, after); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := compiler.Difference(before, proto.CloneOf(before)); got != "" {
		t.Errorf("equal messages differ: %s", got)
	}
	swapped := proto.CloneOf(before)
	swapped.Nodes[0], swapped.Nodes[1] = swapped.Nodes[1], swapped.Nodes[0]
	if got, want := compiler.Difference(before, swapped), `nodes: ["n0","n1"] → ["n1","n0"]`; got != want {
		t.Errorf("another order: got %s, want %s", got, want)
	}
	container := func(args ...string) *core.Container { return &core.Container{Args: args} }
	if got, want := compiler.Difference(container("a", "b"), container("a", "c", "d")), "args[1]: \"b\" → \"c\"\nargs[2]: absent → \"d\""; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	long := strings.Repeat("x", 1000)
	if got := compiler.Difference(container(long+"1"), container(long+"2")); got == "" || len(got) > 600 {
		t.Errorf("a difference at the end of a long text: %d bytes", len(got))
	}
	if got := compiler.Difference(container(make([]string, 50_000)...), container("")); len(got) > 10_000 || !strings.Contains(got, "and 49899 more differences") {
		t.Errorf("%d bytes: %.300s", len(got), got)
	}
}
