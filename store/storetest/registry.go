package storetest

import (
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func task(name, version string, seconds int) *store.Task {
	id := identifier(core.ResourceType_TASK, name, version)
	return &store.Task{
		ID: id, Digest: []byte{1, 2, 3}, ShortDescription: "about " + name, CreatedAt: at(seconds),
		Compiled:    &core.CompiledTask{Template: &core.TaskTemplate{Id: id, Type: "python-task"}},
		Description: &admin.DescriptionEntity{ShortDescription: "about " + name},
	}
}

func workflow(name, version string, seconds int) *store.Workflow {
	id := identifier(core.ResourceType_WORKFLOW, name, version)
	return &store.Workflow{
		ID: id, Digest: []byte{4}, CreatedAt: at(seconds),
		Compiled: &core.CompiledWorkflowClosure{
			Primary: &core.CompiledWorkflow{Template: &core.WorkflowTemplate{Id: id, Interface: &core.TypedInterface{}, Nodes: []*core.Node{{Id: "n0"}}}},
			Tasks:   []*core.CompiledTask{{Template: &core.TaskTemplate{Type: "python-task"}}},
		},
	}
}

func launchPlan(name, version string, seconds int) *store.LaunchPlan {
	return &store.LaunchPlan{
		ID: identifier(core.ResourceType_LAUNCH_PLAN, name, version), Digest: []byte{5}, CreatedAt: at(seconds), UpdatedAt: at(seconds),
		Spec:    &admin.LaunchPlanSpec{WorkflowId: identifier(core.ResourceType_WORKFLOW, "wf of "+name, version)},
		Closure: &admin.LaunchPlanClosure{ExpectedInputs: &core.ParameterMap{}},
	}
}

func versionsAreWrittenOnceAndReadBack(s *suite) {
	t, w, l := task("t", "v1", 1), workflow("w", "v1", 2), launchPlan("l", "v1", 3)
	s.ok(s.store.CreateTask(s.ctx, t))
	s.ok(s.store.CreateWorkflow(s.ctx, w))
	s.ok(s.store.CreateLaunchPlan(s.ctx, l))
	other := task("t", "v1", 9)
	other.ShortDescription = "another"
	s.is(s.store.CreateTask(s.ctx, other), aloft.ErrExists)
	s.is(s.store.CreateWorkflow(s.ctx, w), aloft.ErrExists)
	s.is(s.store.CreateLaunchPlan(s.ctx, l), aloft.ErrExists)

	gotTask, err := s.store.GetTask(s.ctx, t.ID)
	s.ok(err)
	s.equal(gotTask, t)
	gotWorkflow, err := s.store.GetWorkflow(s.ctx, w.ID)
	s.ok(err)
	s.equal(gotWorkflow, w)
	gotPlan, err := s.store.GetLaunchPlan(s.ctx, l.ID)
	s.ok(err)
	l.Closure.CreatedAt, l.Closure.UpdatedAt = timestamppb.New(at(3)), timestamppb.New(at(3))
	s.equal(gotPlan, l)

	_, err = s.store.GetTask(s.ctx, identifier(core.ResourceType_TASK, "t", "v2"))
	s.is(err, aloft.ErrNotFound)
	_, err = s.store.GetWorkflow(s.ctx, identifier(core.ResourceType_WORKFLOW, "t", "v1"))
	s.is(err, aloft.ErrNotFound)
	_, err = s.store.GetLaunchPlan(s.ctx, identifier(core.ResourceType_LAUNCH_PLAN, "l", "v2"))
	s.is(err, aloft.ErrNotFound)

	workflows, err := s.store.ListWorkflows(s.ctx, store.Query{Project: "flytesnacks", Limit: 5})
	s.ok(err)
	if len(workflows) != 1 || workflows[0].Compiled.GetPrimary().GetTemplate().GetInterface() == nil ||
		workflows[0].Compiled.GetPrimary().GetTemplate().GetNodes() != nil || workflows[0].Compiled.GetTasks() != nil {
		s.Errorf("listed %v, want the interface without the graph", workflows)
	}
}

func oneLaunchPlanOfANameIsActive(s *suite) {
	for i := range 3 {
		s.ok(s.store.CreateLaunchPlan(s.ctx, launchPlan("l", fmt.Sprintf("v%d", i), i)))
	}
	born := launchPlan("other", "v0", 0)
	born.Closure.State = admin.LaunchPlanState_ACTIVE
	s.ok(s.store.CreateLaunchPlan(s.ctx, born))
	active := func(want string) {
		s.Helper()
		l, err := s.store.GetActiveLaunchPlan(s.ctx, "flytesnacks", "development", "l")
		if want == "" {
			s.is(err, aloft.ErrNotFound)
			return
		}
		s.ok(err)
		if l.ID.GetVersion() != want || l.Closure.GetState() != admin.LaunchPlanState_ACTIVE {
			s.Fatalf("active is %v, want %s", l, want)
		}
	}
	set := func(version string, state admin.LaunchPlanState, seconds int) {
		s.Helper()
		s.ok(s.store.SetLaunchPlanState(s.ctx, identifier(core.ResourceType_LAUNCH_PLAN, "l", version), state, at(seconds)))
	}
	active("")
	set("v0", admin.LaunchPlanState_ACTIVE, 10)
	active("v0")
	set("v2", admin.LaunchPlanState_ACTIVE, 20)
	active("v2")
	old, err := s.store.GetLaunchPlan(s.ctx, identifier(core.ResourceType_LAUNCH_PLAN, "l", "v0"))
	s.ok(err)
	if old.Closure.GetState() != admin.LaunchPlanState_INACTIVE || !old.UpdatedAt.Equal(at(20)) || !old.CreatedAt.Equal(at(0)) {
		s.Errorf("the one that was active is %v", old)
	}
	set("v2", admin.LaunchPlanState_ACTIVE, 25) // no change
	set("v1", admin.LaunchPlanState_INACTIVE, 25)
	active("v2")
	set("v2", admin.LaunchPlanState_INACTIVE, 30)
	active("")
	l, err := s.store.GetActiveLaunchPlan(s.ctx, "flytesnacks", "development", "other")
	s.ok(err)
	s.equal(l.ID, born.ID)
	s.is(s.store.SetLaunchPlanState(s.ctx, identifier(core.ResourceType_LAUNCH_PLAN, "l", "v9"), admin.LaunchPlanState_ACTIVE, at(1)), aloft.ErrNotFound)
}

func projectsAreCreatedChangedAndListed(s *suite) {
	p := &admin.Project{Id: "a", Name: "A", Description: "first", Labels: &admin.Labels{Values: map[string]string{"k": "v"}}}
	s.ok(s.store.CreateProject(s.ctx, p))
	s.is(s.store.CreateProject(s.ctx, p), aloft.ErrExists)
	p.Description, p.State = "second", admin.Project_ARCHIVED
	s.ok(s.store.UpdateProject(s.ctx, p))
	got, err := s.store.GetProject(s.ctx, "a")
	s.ok(err)
	s.equal(got, p)
	s.is(s.store.UpdateProject(s.ctx, &admin.Project{Id: "b"}), aloft.ErrNotFound)
	_, err = s.store.GetProject(s.ctx, "b")
	s.is(err, aloft.ErrNotFound)
	list, err := s.store.ListProjects(s.ctx, store.Query{})
	s.ok(err)
	s.equal(list, []*admin.Project{p, {Id: "flytesnacks", Name: "flytesnacks"}})
}
