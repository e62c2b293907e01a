package compiler

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// CompileLaunchPlan checks a launch plan against the interface of its workflow and computes its expected inputs: every input
// that is not fixed, with the launch plan's default, or required if it has none. It writes them into the closure and, as Flyte
// does, into the spec's default inputs. The result has no id; its state is INACTIVE.
//
// The error is a literal.Mistakes. The caller has to know that the workflow exists.
func CompileLaunchPlan(spec *admin.LaunchPlanSpec, workflow *core.TypedInterface) (*admin.LaunchPlan, error) {
	var mistakes literal.Mistakes
	wrong := func(format string, args ...any) { mistakes = append(mistakes, aloft.Messagef(format, args...)) }
	if spec == nil {
		return nil, literal.Mistakes{"missing spec"}
	}
	variables := workflow.GetInputs().GetVariables()
	defaults, fixed := spec.GetDefaultInputs().GetParameters(), spec.GetFixedInputs().GetLiterals()
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		variable, ok := variables[name]
		if !ok {
			wrong("unexpected default_input %s: the workflow has no such input", name)
			continue
		}
		checkParameter(wrong, name, defaults[name], variable)
	}
	for _, name := range slices.Sorted(maps.Keys(fixed)) {
		variable, ok := variables[name]
		if !ok {
			wrong("unexpected fixed_input %s: the workflow has no such input", name)
			continue
		}
		if err := literal.Validate(&core.LiteralMap{Literals: map[string]*core.Literal{name: fixed[name]}}); err != nil {
			wrong("invalid fixed_input %s: %v", name, err)
			continue
		}
		if err := literal.CheckValue(fixed[name], variable.GetType()); err != nil {
			wrong("invalid fixed_input %s %v", name, err)
		}
	}
	expected := &core.ParameterMap{Parameters: make(map[string]*core.Parameter, len(variables))}
	for name, variable := range variables {
		if _, ok := fixed[name]; ok {
			continue
		}
		if given, ok := defaults[name]; ok {
			expected.Parameters[name] = given
			continue
		}
		expected.Parameters[name] = &core.Parameter{Var: variable, Behavior: &core.Parameter_Required{Required: true}}
	}
	m := spec.GetEntityMetadata()
	if m.GetLaunchConditions() != nil {
		wrong("entity_metadata.launch_conditions are not supported: start the launch plan by a schedule or a call")
	}
	checkSchedule(wrong, m.GetSchedule(), expected.Parameters, fixed)
	CheckNotifications(wrong, m.GetNotifications())
	if spec.GetMaxParallelism() < 0 {
		wrong("invalid value for max_parallelism: it is not negative, 0 is the server's default")
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	compiled := proto.CloneOf(spec)
	compiled.DefaultInputs = proto.CloneOf(expected)
	outputs := workflow.GetOutputs()
	if outputs == nil {
		outputs = &core.VariableMap{}
	}
	return &admin.LaunchPlan{
		Spec:    compiled,
		Closure: &admin.LaunchPlanClosure{ExpectedInputs: proto.CloneOf(expected), ExpectedOutputs: proto.CloneOf(outputs)},
	}, nil
}

func checkParameter(wrong func(string, ...any), name string, p *core.Parameter, variable *core.Variable) {
	declared := p.GetVar().GetType()
	if err := literal.CheckType(declared); err != nil {
		wrong("missing type of default_input %s: %v", name, err)
		return
	}
	if !literal.Castable(declared, variable.GetType()) {
		wrong("invalid default_input %s wrong type. Expected %s, but got %s", name, literal.PrintType(variable.GetType()), literal.PrintType(declared))
		return
	}
	switch behavior := p.GetBehavior().(type) {
	case *core.Parameter_Required:
		if !behavior.Required {
			wrong("invalid default_input %s: it has neither a default nor required=true", name)
		}
	case *core.Parameter_Default:
		if err := literal.Validate(&core.LiteralMap{Literals: map[string]*core.Literal{name: behavior.Default}}); err != nil {
			wrong("invalid default_input %s: %v", name, err)
		} else if err := literal.CheckValue(behavior.Default, declared); err != nil {
			wrong("invalid default_input %s %v", name, err)
		}
	case *core.Parameter_ArtifactId, *core.Parameter_ArtifactQuery:
		wrong("invalid default_input %s: artifacts are not supported, give a value or make it required", name)
	default:
		wrong("invalid default_input %s: it has neither a default nor required=true", name)
	}
}

// CheckNotifications reports, through wrong, notifications without a recipient, or with phases in which no execution ends. It is
// also used for the notifications of an execution's spec.
func CheckNotifications(wrong func(string, ...any), notifications []*admin.Notification) {
	for i, n := range notifications {
		at := "notifications[" + strconv.Itoa(i) + "]"
		var recipients []string
		switch kind := n.GetType().(type) {
		case *admin.Notification_Email:
			recipients = kind.Email.GetRecipientsEmail()
		case *admin.Notification_PagerDuty:
			recipients = kind.PagerDuty.GetRecipientsEmail()
		case *admin.Notification_Slack:
			recipients = kind.Slack.GetRecipientsEmail()
		default:
			wrong("missing type of %s: email, pager_duty or slack", at)
			continue
		}
		if len(recipients) == 0 {
			wrong("missing recipients of %s", at)
		}
		if len(n.GetPhases()) == 0 {
			wrong("missing phases of %s", at)
		}
		for _, phase := range n.GetPhases() {
			switch phase {
			case core.WorkflowExecution_SUCCEEDED, core.WorkflowExecution_FAILED, core.WorkflowExecution_ABORTED, core.WorkflowExecution_TIMED_OUT:
			default:
				wrong("invalid value for phases of %s: %s is not one of SUCCEEDED, FAILED, ABORTED, TIMED_OUT", at, phase)
			}
		}
	}
}

// checkSchedule checks the form of a schedule, and that a scheduled start, for which no user gives inputs, has all inputs.
func checkSchedule(wrong func(string, ...any), s *admin.Schedule, expected map[string]*core.Parameter, fixed map[string]*core.Literal) {
	switch expression := s.GetScheduleExpression().(type) {
	case *admin.Schedule_CronExpression:
		checkCron(wrong, expression.CronExpression)
	case *admin.Schedule_CronSchedule:
		checkCron(wrong, expression.CronSchedule.GetSchedule())
	case *admin.Schedule_Rate:
		if expression.Rate.GetValue() == 0 {
			wrong("invalid value for schedule.rate: every 0 units is not a rate")
		}
		if _, ok := admin.FixedRateUnit_name[int32(expression.Rate.GetUnit())]; !ok {
			wrong("invalid value for schedule.rate: the unit is MINUTE, HOUR or DAY")
		}
	default:
		return // no schedule: flytekit sends an empty one
	}
	kickoff := s.GetKickoffTimeInputArg()
	if kickoff != "" {
		parameter, ok := expected[kickoff]
		_, isFixed := fixed[kickoff]
		switch {
		case isFixed:
			wrong("invalid kickoff_time_input_arg %s: the launch plan fixes its value", kickoff)
		case !ok:
			wrong("invalid kickoff_time_input_arg %s: the workflow has no such input", kickoff)
		case parameter.GetVar().GetType().GetSimple() != core.SimpleType_DATETIME:
			wrong("invalid kickoff_time_input_arg %s: it has type %s, not datetime", kickoff, literal.PrintType(parameter.GetVar().GetType()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(expected)) {
		if _, ok := expected[name].GetBehavior().(*core.Parameter_Default); !ok && name != kickoff {
			wrong("invalid schedule: input %s has no default, and nobody is there to give it", name)
		}
	}
}

var cronNames = []string{"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}

// checkCron checks the form of a cron expression only.
func checkCron(wrong func(string, ...any), text string) {
	text = strings.TrimSpace(text)
	if every, ok := strings.CutPrefix(text, "@every "); ok {
		if d, err := time.ParseDuration(every); err != nil || d <= 0 {
			wrong("invalid cron schedule %q: @every takes a duration like 1h30m", aloft.Excerpt(text))
		}
		return
	}
	if slices.Contains(cronNames, text) {
		return
	}
	fields := strings.Fields(text)
	bad := func(f string) bool {
		return strings.Trim(f, "0123456789*/,-?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != ""
	}
	if len(fields) != 5 || slices.ContainsFunc(fields, bad) {
		wrong("invalid cron schedule %q: it has five fields (minute hour day month weekday) or is one of %s, @every <duration>", aloft.Excerpt(text), strings.Join(cronNames, ", "))
	}
}
