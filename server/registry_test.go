package server

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func details[M any](t *testing.T, err error) []M {
	t.Helper()
	var found []M
	failure, ok := err.(*connect.Error) //nolint:errorlint // clients get exactly this
	if !ok {
		t.Fatalf("%v is no error of a call", err)
	}
	for _, d := range failure.Details() {
		value, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := any(value).(M); ok {
			found = append(found, m)
		}
	}
	return found
}

func TestRegisteringTheSameAgainIsAlreadyExists(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("same", 2)
	for range 4 { // flytekit repeats each failed call three times
		_, err := s.admin.CreateTask(t.Context(), echoTask("same"))
		s.wantCode(err, connect.CodeAlreadyExists, "identical structure")
		_, err = s.admin.CreateWorkflow(t.Context(), chain("same", "same", 2))
		s.wantCode(err, connect.CodeAlreadyExists, "identical structure")
		if d := details[*admin.CreateWorkflowFailureReason](t, err); len(d) != 1 || d[0].GetExistsIdenticalStructure().GetId().GetName() != "same" {
			t.Errorf("details are %v, want exists_identical_structure of the workflow", d)
		}
		_, err = s.admin.CreateLaunchPlan(t.Context(), launchPlan("same", "same"))
		s.wantCode(err, connect.CodeAlreadyExists, "identical structure")
	}
}

func TestTheSameIsFoundByContentAfterARestart(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	first := start(t, c)
	first.registerChain("same", 2)
	first.close()
	s := start(t, c) // with an empty cache of the registry
	_, err := s.admin.CreateTask(t.Context(), echoTask("same"))
	s.wantCode(err, connect.CodeAlreadyExists)
	_, err = s.admin.CreateWorkflow(t.Context(), chain("same", "same", 2))
	s.wantCode(err, connect.CodeAlreadyExists)
	_, err = s.admin.CreateLaunchPlan(t.Context(), launchPlan("same", "same"))
	s.wantCode(err, connect.CodeAlreadyExists)
}

func TestOtherContentUnderAVersionIsRefusedWithTheDifference(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("fixed", 2)
	task := echoTask("fixed")
	task.Spec.Template.Type = "core-sleep"
	_, err := s.admin.CreateTask(t.Context(), task)
	s.wantCode(err, connect.CodeInvalidArgument, "different structure", "new version", `"echo"`, `"core-sleep"`)
	_, err = s.admin.CreateWorkflow(t.Context(), chain("fixed", "fixed", 3))
	s.wantCode(err, connect.CodeInvalidArgument, "different structure", "n2")
	if d := details[*admin.CreateWorkflowFailureReason](t, err); len(d) != 1 || d[0].GetExistsDifferentStructure() == nil {
		t.Errorf("details are %v, want exists_different_structure", d)
	}
	plan := launchPlan("fixed", "fixed")
	plan.Spec.MaxParallelism = 7
	_, err = s.admin.CreateLaunchPlan(t.Context(), plan)
	s.wantCode(err, connect.CodeInvalidArgument, "different structure", "7")
	got, err := s.admin.GetTask(t.Context(), &admin.ObjectGetRequest{Id: id(core.ResourceType_TASK, "fixed")})
	if err != nil || got.GetClosure().GetCompiledTask().GetTemplate().GetType() != "echo" {
		t.Errorf("the version changed: %v, %v", got, err)
	}
}

func TestOfManyThatRegisterAtOnceOneCreates(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var mu sync.Mutex
	var created, existing int
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := s.admin.CreateTask(t.Context(), echoTask("race"))
			mu.Lock()
			defer mu.Unlock()
			switch code(err) {
			case 0:
				created++
			case connect.CodeAlreadyExists:
				existing++
			default:
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	if created != 1 || existing != 19 {
		t.Errorf("%d created and %d found it, want 1 and 19", created, existing)
	}
}

func TestTheIdOfATemplateIsThatOfTheRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	task := echoTask("right")
	task.Spec.Template.Id = id(core.ResourceType_TASK, "wrong")
	if _, err := s.admin.CreateTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	got, err := s.admin.GetTask(t.Context(), &admin.ObjectGetRequest{Id: id(core.ResourceType_UNSPECIFIED, "right")})
	if err != nil {
		t.Fatal(err)
	}
	if name := got.GetClosure().GetCompiledTask().GetTemplate().GetId().GetName(); name != "right" {
		t.Errorf("the template is named %q, want right", name)
	}
}

func TestWhatIsReferredToMustBeRegistered(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	_, err := s.admin.CreateWorkflow(t.Context(), chain("orphan", "missing", 1))
	s.wantCode(err, connect.CodeInvalidArgument, "failed to compile workflow", "missing")
	_, err = s.admin.CreateLaunchPlan(t.Context(), launchPlan("orphan", "missing"))
	s.wantCode(err, connect.CodeNotFound, "missing entity of type WORKFLOW", "missing")
	_, err = s.admin.CreateExecution(t.Context(), execute(id(core.ResourceType_LAUNCH_PLAN, "missing"), nil))
	s.wantCode(err, connect.CodeNotFound, "LAUNCH_PLAN")
	_, err = s.admin.CreateExecution(t.Context(), execute(id(core.ResourceType_TASK, "missing"), nil))
	s.wantCode(err, connect.CodeNotFound, "TASK")
	_, err = s.admin.GetWorkflow(t.Context(), &admin.ObjectGetRequest{Id: id(core.ResourceType_TASK, "x")})
	s.wantCode(err, connect.CodeInvalidArgument, "resource_type")
}

func TestProjectsAndDomainsAreChecked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	task := echoTask("t")
	task.Id = &core.Identifier{Project: "nowhere", Domain: "moon", Name: "t", Version: "v1"}
	_, err := s.admin.CreateTask(t.Context(), task)
	s.wantCode(err, connect.CodeInvalidArgument, "there is no project [nowhere]; there is flytesnacks", "domain [moon] is unrecognized by system")

	if _, err := s.admin.RegisterProject(t.Context(), &admin.ProjectRegisterRequest{Project: &admin.Project{Id: "mine", Name: "Mine"}}); err != nil {
		t.Fatal(err)
	}
	_, err = s.admin.RegisterProject(t.Context(), &admin.ProjectRegisterRequest{Project: &admin.Project{Id: "mine", Name: "Mine"}})
	s.wantCode(err, connect.CodeAlreadyExists)
	task.Id = &core.Identifier{Project: "mine", Domain: "staging", Name: "t", Version: "v1"}
	if _, err := s.admin.CreateTask(t.Context(), task); err != nil {
		t.Errorf("a task of a project that was just registered: %v", err)
	}

	if _, err := s.admin.UpdateProject(t.Context(), &admin.Project{Id: "mine", State: admin.Project_ARCHIVED}); err != nil {
		t.Fatal(err)
	}
	task.Id.Version = "v2"
	_, err = s.admin.CreateTask(t.Context(), task)
	s.wantCode(err, connect.CodeInvalidArgument, "archived")
	if d := details[*admin.InactiveProject](t, err); len(d) != 1 || d[0].GetId() != "mine" {
		t.Errorf("details are %v, want the inactive project", d)
	}
	projects, err := s.admin.ListProjects(t.Context(), &admin.ProjectListRequest{})
	if err != nil || len(projects.GetProjects()) != 1 || len(projects.GetProjects()[0].GetDomains()) != 3 {
		t.Errorf("projects are %v, %v, want flytesnacks with three domains", projects, err)
	}
	_, err = s.admin.GetProject(t.Context(), &admin.ProjectGetRequest{Id: "nowhere"})
	s.wantCode(err, connect.CodeNotFound, "there is no project [nowhere]; there is flytesnacks: not found")
	_, err = s.admin.GetProject(t.Context(), &admin.ProjectGetRequest{Id: "flyte"})
	s.wantCode(err, connect.CodeNotFound, "there is no project [flyte]; there is flytesnacks: not found")
	_, err = s.admin.UpdateProject(t.Context(), &admin.Project{Id: "nowhere"})
	s.wantCode(err, connect.CodeNotFound)
	_, err = s.admin.RegisterProject(t.Context(), &admin.ProjectRegisterRequest{Project: &admin.Project{Id: "Not A Name", Domains: []*admin.Domain{{Id: "x"}}}})
	s.wantCode(err, connect.CodeInvalidArgument, "project.id", "project.name", "project.domains")
}

func TestAtMostOneVersionOfALaunchPlanIsActive(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("plan", 1)
	second := launchPlan("plan", "plan")
	second.Id.Version = "v2"
	if _, err := s.admin.CreateLaunchPlan(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	name := &admin.ActiveLaunchPlanRequest{Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development", Name: "plan"}}
	_, err := s.admin.GetActiveLaunchPlan(t.Context(), name)
	s.wantCode(err, connect.CodeNotFound, "No active launch plan could be found")
	for _, version := range []string{"v1", "v2", "v2"} {
		plan := id(core.ResourceType_UNSPECIFIED, "plan") // flytectl leaves the kind out
		plan.Version = version
		if _, err := s.admin.UpdateLaunchPlan(t.Context(), &admin.LaunchPlanUpdateRequest{Id: plan, State: admin.LaunchPlanState_ACTIVE}); err != nil {
			t.Fatal(err)
		}
		got, err := s.admin.GetActiveLaunchPlan(t.Context(), name)
		if err != nil || got.GetId().GetVersion() != version || got.GetClosure().GetState() != admin.LaunchPlanState_ACTIVE {
			t.Errorf("active is %v, %v, want version %s", got.GetId(), err, version)
		}
	}
	active, err := s.admin.ListActiveLaunchPlans(t.Context(), &admin.ActiveLaunchPlanListRequest{Project: "flytesnacks", Domain: "development", Limit: 10})
	if err != nil || len(active.GetLaunchPlans()) != 1 {
		t.Errorf("active plans are %v, %v, want one", active, err)
	}
	first, err := s.admin.GetLaunchPlan(t.Context(), &admin.ObjectGetRequest{Id: id(core.ResourceType_LAUNCH_PLAN, "plan")})
	if err != nil || first.GetClosure().GetState() != admin.LaunchPlanState_INACTIVE {
		t.Errorf("version v1 is %v, %v, want INACTIVE", first.GetClosure().GetState(), err)
	}
	if !first.GetClosure().GetExpectedInputs().GetParameters()["x"].GetRequired() || first.GetClosure().GetCreatedAt() == nil {
		t.Errorf("the closure lacks the required input or its time: %v", first.GetClosure())
	}
}

func TestAPlanWithAScheduleCannotBeActivatedSilently(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("cron", 1)
	plan := launchPlan("cron.daily", "cron")
	plan.Spec.FixedInputs = &core.LiteralMap{Literals: map[string]*core.Literal{"x": integer(1)}}
	plan.Spec.EntityMetadata = &admin.LaunchPlanMetadata{Schedule: &admin.Schedule{
		ScheduleExpression: &admin.Schedule_CronSchedule{CronSchedule: &admin.CronSchedule{Schedule: "0 6 * * *"}},
	}}
	if _, err := s.admin.CreateLaunchPlan(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	_, err := s.admin.UpdateLaunchPlan(t.Context(), &admin.LaunchPlanUpdateRequest{Id: plan.GetId(), State: admin.LaunchPlanState_ACTIVE})
	s.wantCode(err, connect.CodeUnimplemented)
}

func TestListsPageByOffsetAndHideGeneratedNames(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range 5 {
		if _, err := s.admin.CreateTask(t.Context(), echoTask(fmt.Sprintf("t%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	s.wait(s.create(execute(id(core.ResourceType_TASK, "t0"), map[string]*core.Literal{"x": integer(1)})))
	where := &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}
	var names []string
	for token := ""; ; {
		page, err := s.admin.ListTasks(t.Context(), &admin.ResourceListRequest{Id: where, Limit: 2, Token: token, SortBy: &admin.Sort{Key: "name", Direction: admin.Sort_ASCENDING}})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page.GetTasks() {
			names = append(names, row.GetId().GetName())
		}
		if token = page.GetToken(); token == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "t0 t1 t2 t3 t4" {
		t.Errorf("pages hold %s, want t0 to t4 once each", got)
	}
	filtered, err := s.admin.ListTasks(t.Context(), &admin.ResourceListRequest{Id: where, Limit: 9, Filters: "value_in(name,t1;t3)+ne(version,v2)"})
	if err != nil || len(filtered.GetTasks()) != 2 {
		t.Errorf("filtered: %d tasks, %v, want 2", len(filtered.GetTasks()), err)
	}
	ids, err := s.admin.ListWorkflowIds(t.Context(), &admin.NamedEntityIdentifierListRequest{Project: "flytesnacks", Domain: "development", Limit: 9})
	if err != nil || len(ids.GetEntities()) != 0 {
		t.Errorf("names of workflows are %v, %v, want none: the one for the single task is ours", ids, err)
	}
	_, err = s.admin.ListTasks(t.Context(), &admin.ResourceListRequest{})
	s.wantCode(err, connect.CodeInvalidArgument, "missing project", "missing domain", "invalid value for limit")
	_, err = s.admin.ListTasks(t.Context(), &admin.ResourceListRequest{Id: where, Limit: 1, Token: "abc", Filters: "like(name,x)+broken"})
	s.wantCode(err, connect.CodeInvalidArgument, "invalid pagination token", "unrecognized filter function", "invalid value for filters")
	_, err = s.admin.ListTasks(t.Context(), &admin.ResourceListRequest{Id: where, Limit: 1, Filters: "eq(nonsense,1)"})
	s.wantCode(err, connect.CodeInvalidArgument, "nonsense")
	_, err = s.admin.ListTasks(t.Context(), &admin.ResourceListRequest{Id: where, Limit: 1, SortBy: &admin.Sort{Key: "nonsense"}})
	s.wantCode(err, connect.CodeInvalidArgument, "nonsense")
}
