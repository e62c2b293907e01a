package server

import (
	"math"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/legible"
)

// deepStruct has a number of lists in it, one in the other.
func deepStruct(lists int) *structpb.Struct {
	v := structpb.NewBoolValue(true)
	for range lists {
		v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{"x": v}}
}

// withGroups puts unknown groups, one in the other, into a message.
func withGroups[M proto.Message](m M, n int) M {
	var b []byte
	for range n {
		b = protowire.AppendTag(b, 99, protowire.StartGroupType)
	}
	for range n {
		b = protowire.AppendTag(b, 99, protowire.EndGroupType)
	}
	m.ProtoReflect().SetUnknown(b)
	return m
}

func customTask(name string, custom *structpb.Struct) *admin.TaskCreateRequest {
	task := echoTask(name)
	task.Spec.Template.Custom = custom
	return task
}

// TestWhatClientsCouldNotReadIsRefused: Python reads 100 levels of messages.
func TestWhatClientsCouldNotReadIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("wf", 1)
	jobs := aloftv1connect.NewRecoveryServiceClient(s.http, "http://"+s.Address, connect.WithGRPC())
	plan := id(core.ResourceType_LAUNCH_PLAN, "wf")
	task := func(change func(*core.TaskTemplate)) error {
		r := echoTask("refused")
		change(r.Spec.Template)
		_, err := s.admin.CreateTask(t.Context(), r)
		return err
	}
	execution := func(change func(*admin.ExecutionSpec)) error {
		r := execute(plan, map[string]*core.Literal{"x": integer(1)})
		change(r.Spec)
		_, err := s.admin.CreateExecution(t.Context(), r)
		return err
	}
	long := &timestamppb.Timestamp{Seconds: math.MaxInt64}
	const deep = "nested deeper than 90 levels"
	for name, c := range map[string]struct {
		err  error
		text string
	}{
		"custom 4990 deep": {task(func(m *core.TaskTemplate) { m.Custom = deepStruct(4990) }), deep},
		"custom 92 deep":   {task(func(m *core.TaskTemplate) { m.Custom = deepStruct(44) }), deep}, // template, custom, entry, Value, 2 for each list
		"a type's metadata": {task(func(m *core.TaskTemplate) {
			m.Interface.Inputs.Variables["x"].Type.Metadata = deepStruct(60)
		}), deep},
		"a type's annotation": {task(func(m *core.TaskTemplate) {
			m.Interface.Inputs.Variables["x"].Type.Annotation = &core.TypeAnnotation{Annotations: deepStruct(60)}
		}), deep},
		"unknown groups in a task": {task(func(m *core.TaskTemplate) { withGroups(m.GetMetadata(), 200) }), deep},
		"unknown groups in a workflow": {func() error {
			r := chain("refused", "wf", 1)
			withGroups(r.Spec.Template.Nodes[0], 200)
			_, err := s.admin.CreateWorkflow(t.Context(), r)
			return err
		}(), deep},
		"unknown groups in a launch plan": {func() error {
			r := launchPlan("refused", "wf")
			r.Spec.Labels = withGroups(&admin.Labels{}, 200)
			_, err := s.admin.CreateLaunchPlan(t.Context(), r)
			return err
		}(), deep},
		"a default 60 deep": {func() error {
			r := launchPlan("refused", "wf")
			l := integer(1)
			for range 60 {
				l = &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{l}}}}
			}
			r.Spec.FixedInputs = &core.LiteralMap{Literals: map[string]*core.Literal{"x": l}}
			_, err := s.admin.CreateLaunchPlan(t.Context(), r)
			return err
		}(), deep},
		"unknown groups in an execution": {execution(func(m *admin.ExecutionSpec) { withGroups(m, 200) }), deep},
		"a duration in an execution": {execution(func(m *admin.ExecutionSpec) {
			m.QualityOfService = &core.QualityOfService{Designation: &core.QualityOfService_Spec{Spec: &core.QualityOfServiceSpec{
				QueueingBudget: &durationpb.Duration{Seconds: math.MaxInt64}}}}
		}), "spec.quality_of_service.spec.queueing_budget"},
		"a time in an execution": {execution(func(m *admin.ExecutionSpec) { m.Metadata = &admin.ExecutionMetadata{ScheduledAt: long} }), "spec.metadata.scheduled_at"},
		"unknown groups in a project": {func() error {
			_, err := s.admin.RegisterProject(t.Context(), &admin.ProjectRegisterRequest{Project: &admin.Project{
				Id: "refused", Name: "refused", Labels: withGroups(&admin.Labels{}, 200)}})
			return err
		}(), deep},
		"unknown groups in the labels of a project that is there": {func() error {
			_, err := s.admin.UpdateProject(t.Context(), &admin.Project{Id: "flytesnacks", Labels: withGroups(&admin.Labels{Values: map[string]string{"a": "b"}}, 200)})
			return err
		}(), deep},
		"unknown groups in a recovery job": {func() error {
			_, err := jobs.CreateRecoveryJob(t.Context(), &aloftv1.CreateRecoveryJobRequest{Selection: withGroups(&aloftv1.RecoverySelection{Project: "flytesnacks", Domain: "development"}, 200)})
			return err
		}(), deep},
	} {
		if code(c.err) != connect.CodeInvalidArgument || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: %v, want InvalidArgument with %q", name, c.err, c.text)
		}
	}
	if _, err := s.admin.CreateTask(t.Context(), customTask("deep", deepStruct(43))); err != nil {
		t.Errorf("a task that is nested 90 levels deep: %v", err)
	}
	known := echoTask("known")
	withGroups(known.GetId(), 200)
	if _, err := s.admin.CreateTask(t.Context(), known); err != nil {
		t.Errorf("a task whose id has unknown fields: %v", err)
	}
	s.checkLists()
}

// checkLists checks that all clients can read each list, and returns the lists as REST gives them.
func (s *testServer) checkLists() (rest map[string]string) {
	s.t.Helper()
	all := &admin.ResourceListRequest{Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}, Limit: 100}
	tasks, err1 := s.admin.ListTasks(s.t.Context(), all)
	workflows, err2 := s.admin.ListWorkflows(s.t.Context(), all)
	plans, err3 := s.admin.ListLaunchPlans(s.t.Context(), all)
	executions, err4 := s.admin.ListExecutions(s.t.Context(), all)
	projects, err5 := s.admin.ListProjects(s.t.Context(), &admin.ProjectListRequest{})
	for i, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil {
			s.t.Errorf("list %d: %v", i+1, err)
		}
	}
	for _, list := range []proto.Message{tasks, workflows, plans, executions, projects} {
		data, err := proto.Marshal(list)
		if err != nil {
			s.t.Fatal(err)
		}
		if seen := legible.Look(list.ProtoReflect().Descriptor(), data); seen.Depth > legible.MaxDepth || !seen.Formed {
			s.t.Errorf("%s: %+v", list.ProtoReflect().Descriptor().Name(), seen)
		}
	}
	rest = map[string]string{}
	for _, path := range []string{"tasks/flytesnacks/development?limit=100", "workflows/flytesnacks/development?limit=100",
		"launch_plans/flytesnacks/development?limit=100", "executions/flytesnacks/development?limit=100", "projects"} {
		answer, content := s.do(http.MethodGet, "/api/v1/"+path, nil, nil)
		if answer.StatusCode != http.StatusOK {
			s.t.Errorf("REST %s: %s %.200s", path, answer.Status, content)
		}
		noun, _, _ := strings.Cut(path, "/")
		rest[noun] = strings.ReplaceAll(string(content), " ", "")
	}
	return rest
}
