package server

import (
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestASingleTaskRunsInAWorkflowOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if _, err := s.admin.CreateTask(t.Context(), echoTask("pkg.mod.t1")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 { // the workflow around a single task is made once, although 8 clients need it at the same time
		all.Go(func() {
			if _, err := s.admin.CreateExecution(t.Context(), execute(id(core.ResourceType_TASK, "pkg.mod.t1"), map[string]*core.Literal{"x": integer(1)})); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	e := s.wait(s.create(execute(id(core.ResourceType_TASK, "pkg.mod.t1"), map[string]*core.Literal{"x": integer(7)})))
	if got := e.GetSpec().GetLaunchPlan(); got.GetResourceType() != core.ResourceType_TASK || got.GetName() != "pkg.mod.t1" {
		t.Errorf("spec.launch_plan is %v, want the task", got)
	}
	if got := e.GetClosure().GetWorkflowId().GetName(); got != ".flytegen.pkg.mod.t1" {
		t.Errorf("workflow is %s, want .flytegen.pkg.mod.t1", got)
	}
	nodes, err := s.admin.ListNodeExecutions(t.Context(), &admin.NodeExecutionListRequest{WorkflowExecutionId: e.GetId(), Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, n := range nodes.GetNodeExecutions() {
		ids = append(ids, n.GetId().GetNodeId())
	}
	if len(ids) != 3 || !strings.Contains(strings.Join(ids, " "), "pkgmodt1") {
		t.Errorf("nodes are %v, want start-node, pkgmodt1 and end-node", ids)
	}
}

func TestAllMistakesOfACreateAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("checked", 1)
	request := execute(id(core.ResourceType_LAUNCH_PLAN, "checked"), map[string]*core.Literal{"y": integer(1)})
	request.Name = "1-wrong"
	request.Spec.Labels = &admin.Labels{Values: map[string]string{"two words": "x"}}
	request.Spec.RawOutputDataConfig = &admin.RawOutputDataConfig{OutputLocationPrefix: "/home/me/files"}
	_, err := s.admin.CreateExecution(t.Context(), request)
	s.wantCode(err, connect.CodeInvalidArgument, `"1-wrong" must begin with a letter`, `"two words"`, `"/home/me/files" is not a place in an object store`, "invalid input y", "expected_inputs x missing")

	request = execute(id(core.ResourceType_LAUNCH_PLAN, "checked"), map[string]*core.Literal{"x": primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: "no"}})})
	_, err = s.admin.CreateExecution(t.Context(), request)
	s.wantCode(err, connect.CodeInvalidArgument, "invalid x input wrong type")
	_, err = s.admin.CreateExecution(t.Context(), execute(id(core.ResourceType_WORKFLOW, "checked"), nil))
	s.wantCode(err, connect.CodeInvalidArgument, "spec.launch_plan")
	_, err = s.admin.CreateExecution(t.Context(), &admin.ExecutionCreateRequest{})
	s.wantCode(err, connect.CodeInvalidArgument, "missing project", "missing domain", "missing spec", "missing spec.launch_plan")
}

func TestANameIsTakenOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("named", 1)
	request := func() *admin.ExecutionCreateRequest {
		r := execute(id(core.ResourceType_LAUNCH_PLAN, "named"), map[string]*core.Literal{"x": integer(1)})
		r.Name = "Mine-1"
		return r
	}
	if got := s.create(request()).GetName(); got != "Mine-1" {
		t.Errorf("the name became %q", got)
	}
	_, err := s.admin.CreateExecution(t.Context(), request())
	s.wantCode(err, connect.CodeAlreadyExists)
	generated := execute(id(core.ResourceType_LAUNCH_PLAN, "named"), map[string]*core.Literal{"x": integer(1)})
	if name := s.create(generated).GetName(); len(name) != 20 || name[0] != 'a' {
		t.Errorf("generated name %q is not 20 characters after an a", name)
	}
}

func TestSettingsComeFromTheRequestThenThePlanThenTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("merged", 1)
	plan := launchPlan("merged.plan", "merged")
	plan.Spec.MaxParallelism = 3
	plan.Spec.Labels = &admin.Labels{Values: map[string]string{"team": "ml"}}
	plan.Spec.DefaultInputs = &core.ParameterMap{Parameters: map[string]*core.Parameter{"x": {
		Var: &core.Variable{Type: simple(core.SimpleType_INTEGER)}, Behavior: &core.Parameter_Default{Default: integer(5)},
	}}}
	if _, err := s.admin.CreateLaunchPlan(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	x := map[string]*core.Literal{"x": integer(1)}
	spec := func(plan string, parallelism int32, inputs map[string]*core.Literal) *admin.ExecutionSpec {
		r := execute(id(core.ResourceType_LAUNCH_PLAN, plan), inputs)
		r.Spec.MaxParallelism = parallelism
		r.Spec.Labels = &admin.Labels{} // flytekit sends it empty, which means absent
		r.Spec.Metadata = &admin.ExecutionMetadata{Principal: "placeholder"}
		return s.get(s.create(r)).GetSpec()
	}
	for _, c := range []struct {
		plan       string
		asks, want int32
	}{{"merged", 0, 25}, {"merged.plan", 0, 3}, {"merged.plan", 8, 8}, {"merged.plan", -1, -1}} {
		if got := spec(c.plan, c.asks, x).GetMaxParallelism(); got != c.want {
			t.Errorf("plan %s asked for %d: max_parallelism is %d, want %d", c.plan, c.asks, got, c.want)
		}
	}
	got := spec("merged.plan", 0, nil)
	if got.GetLabels().GetValues()["team"] != "ml" {
		t.Errorf("labels are %v, want those of the plan", got.GetLabels())
	}
	if got.GetMetadata().GetPrincipal() != "" || got.GetMetadata().GetSystemMetadata().GetNamespace() != "flytesnacks-development" {
		t.Errorf("metadata are %v, want no principal and our namespace", got.GetMetadata())
	}
}

func TestARelaunchUsesWhatTheUserGave(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("again", 1)
	first := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "again"), map[string]*core.Literal{"x": integer(11)}))
	answer, err := s.admin.RelaunchExecution(t.Context(), &admin.ExecutionRelaunchRequest{Id: first, Name: "second"})
	if err != nil {
		t.Fatal(err)
	}
	e := s.wait(answer.GetId())
	if m := e.GetSpec().GetMetadata(); m.GetMode() != admin.ExecutionMetadata_RELAUNCH || m.GetReferenceExecution().GetName() != first.GetName() {
		t.Errorf("metadata are %v, want a relaunch of %s", m, first.GetName())
	}
	data, err := s.admin.GetExecutionData(t.Context(), &admin.WorkflowExecutionGetDataRequest{Id: e.GetId()})
	if err != nil || data.GetFullOutputs().GetLiterals()["y"].GetScalar().GetPrimitive().GetInteger() != 11 {
		t.Errorf("outputs are %v, %v, want y=11", data.GetFullOutputs(), err)
	}
	_, err = s.admin.RelaunchExecution(t.Context(), &admin.ExecutionRelaunchRequest{Id: &core.WorkflowExecutionIdentifier{Project: "p", Domain: "d", Name: "n"}})
	s.wantCode(err, connect.CodeNotFound)
}

func TestATerminatedExecutionIsAbortedWithItsCauseAndOnlyOnce(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	e := s.sleeping(time.Hour)
	for range 4 {
		_, err := s.admin.TerminateExecution(t.Context(), &admin.ExecutionTerminateRequest{Id: e, Cause: "enough"})
		if err != nil && code(err) != connect.CodeFailedPrecondition {
			t.Fatal(err)
		}
	}
	got := s.wait(e)
	if got.GetClosure().GetPhase() != core.WorkflowExecution_ABORTED || got.GetClosure().GetAbortMetadata().GetCause() != "enough" {
		t.Errorf("ended %s with %v, want ABORTED with the cause", got.GetClosure().GetPhase(), got.GetClosure().GetAbortMetadata())
	}
	_, err := s.admin.TerminateExecution(t.Context(), &admin.ExecutionTerminateRequest{Id: e})
	s.wantCode(err, connect.CodeFailedPrecondition, "terminal state ABORTED")
	if d := details[*admin.EventFailureReason](t, err); len(d) != 1 || d[0].GetAlreadyInTerminalState().GetCurrentPhase() != "ABORTED" {
		t.Errorf("details are %v, want already_in_terminal_state ABORTED", d)
	}
	_, err = s.admin.TerminateExecution(t.Context(), &admin.ExecutionTerminateRequest{Id: &core.WorkflowExecutionIdentifier{Project: "p", Domain: "d", Name: "n"}})
	s.wantCode(err, connect.CodeNotFound, "missing entity of type execution")
}

func TestAnArchivedExecutionIsListedOnlyOnRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("old", 1)
	e := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "old"), map[string]*core.Literal{"x": integer(1)}))
	s.wait(e)
	if _, err := s.admin.UpdateExecution(t.Context(), &admin.ExecutionUpdateRequest{Id: e, State: admin.ExecutionState_EXECUTION_ARCHIVED}); err != nil {
		t.Fatal(err)
	}
	for filters, want := range map[string]int{"": 0, "eq(state,1)": 1, "eq(phase,SUCCEEDED)": 0, "eq(phase,SUCCEEDED)+value_in(state,0;1)": 1} {
		list, err := s.admin.ListExecutions(t.Context(), &admin.ResourceListRequest{
			Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}, Limit: 10, Filters: filters,
		})
		if err != nil || len(list.GetExecutions()) != want {
			t.Errorf("filters %q: %d executions, %v, want %d", filters, len(list.GetExecutions()), err, want)
		}
	}
	if got := s.get(e).GetClosure().GetStateChangeDetails().GetState(); got != admin.ExecutionState_EXECUTION_ARCHIVED {
		t.Errorf("state is %s, want archived", got)
	}
}

func TestExecutionsAreListedByTheirTagsAndLabels(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("tagged", 1)
	for _, of := range []struct {
		name   string
		tags   []string
		labels map[string]string
	}{{"e1", []string{"a", "b", "a"}, map[string]string{"team": "red"}}, {"e2", []string{"b"}, map[string]string{"team": "blue", "b": ""}}, {"e3", nil, nil}} {
		request := execute(id(core.ResourceType_LAUNCH_PLAN, "tagged"), map[string]*core.Literal{"x": integer(1)})
		request.Name, request.Spec.Tags, request.Spec.Labels = of.name, of.tags, &admin.Labels{Values: of.labels}
		s.wait(s.create(request))
	}
	list := func(filters string, sort *admin.Sort) (names []string, err error) {
		list, err := s.admin.ListExecutions(t.Context(), &admin.ResourceListRequest{
			Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}, Limit: 10, Filters: filters, SortBy: sort,
		})
		for _, e := range list.GetExecutions() {
			names = append(names, e.GetId().GetName())
		}
		return names, err
	}
	for filters, want := range map[string]string{
		"eq(admin_tag.name,a)":                                       "e1",
		"value_in(admin_tag.name,a;b)":                               "e2 e1",
		"eq(admin_tag.name,a)+eq(admin_tag.name,b)":                  "e1",
		"eq(admin_tag.name,zz)":                                      "",
		"eq(execution_tag.key,team)+eq(execution_tag.value,blue)":    "e2",
		"eq(execution_tag.key,team)+eq(phase,SUCCEEDED)":             "e2 e1",
		"eq(execution_tag.key,b)+eq(execution_tag.value,blue)":       "",
		"eq(execution.execution_name,e1)+contains(admin_tag.name,b)": "e1",
	} {
		if names, err := list(filters, nil); err != nil || strings.Join(names, " ") != want {
			t.Errorf("%s: got %v, %v, want %s", filters, names, err, want)
		}
	}
	if names, err := list("", &admin.Sort{Key: "id", Direction: admin.Sort_ASCENDING}); err != nil || strings.Join(names, " ") != "e1 e2 e3" {
		t.Errorf("by id: got %v, %v", names, err)
	}
	_, err := list("eq(execution_admin_tag.name,a)", nil)
	s.wantCode(err, connect.CodeInvalidArgument, "'execution_admin_tag' entity is not allowed in filters")
	_, err = list("eq(cluster,a)", &admin.Sort{Key: "cluster"})
	s.wantCode(err, connect.CodeInvalidArgument, "invalid sort key 'cluster' (Flyte's column 'cluster' has no counterpart here)", "'execution.cluster' is invalid filter")
	long := execute(id(core.ResourceType_LAUNCH_PLAN, "tagged"), map[string]*core.Literal{"x": integer(1)})
	long.Spec.Tags = []string{strings.Repeat("ä", 255), strings.Repeat("b", 256)}
	_, err = s.admin.CreateExecution(t.Context(), long)
	s.wantCode(err, connect.CodeInvalidArgument, `bbb…" has 256 characters, the limit is 255`)
}

// flytectl states no order, takes one page and sorts it by a time that several nodes share.
func TestNodesAreListedInTheOrderTheyWereCreatedUnlessAnotherIsAskedFor(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("order", 4)
	e := s.wait(s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "order"), map[string]*core.Literal{"x": integer(1)})))
	for _, test := range []struct {
		sort *admin.Sort
		want string
	}{
		{nil, "start-node n0 n1 n2 n3 end-node"},
		{&admin.Sort{}, "start-node n0 n1 n2 n3 end-node"},
		{&admin.Sort{Key: "created_at", Direction: admin.Sort_ASCENDING}, "start-node n0 n1 n2 n3 end-node"},
		{&admin.Sort{Key: "created_at"}, "end-node n3 n2 n1 n0 start-node"},
		{&admin.Sort{Key: "node_id", Direction: admin.Sort_ASCENDING}, "end-node n0 n1 n2 n3 start-node"},
	} {
		var ids []string
		request := &admin.NodeExecutionListRequest{WorkflowExecutionId: e.GetId(), Limit: 4, SortBy: test.sort}
		for more := true; more; more = request.Token != "" {
			page, err := s.admin.ListNodeExecutions(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range page.GetNodeExecutions() {
				ids = append(ids, n.GetId().GetNodeId())
			}
			request.Token = page.GetToken()
		}
		if got := strings.Join(ids, " "); got != test.want {
			t.Errorf("sorted by %v: got %s, want %s", test.sort, got, test.want)
		}
	}
}

func TestNodesAndAttemptsAreListedWithTheirData(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("nodes", 2)
	e := s.wait(s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "nodes"), map[string]*core.Literal{"x": integer(4)})))
	node := &core.NodeExecutionIdentifier{NodeId: "n1", ExecutionId: e.GetId()}
	n, err := s.admin.GetNodeExecution(t.Context(), &admin.NodeExecutionGetRequest{Id: node})
	if err != nil || n.GetClosure().GetPhase() != core.NodeExecution_SUCCEEDED || n.GetMetadata().GetSpecNodeId() != "n1" {
		t.Errorf("node is %v, %v", n, err)
	}
	data, err := s.admin.GetNodeExecutionData(t.Context(), &admin.NodeExecutionGetDataRequest{Id: node})
	if err != nil {
		t.Fatal(err)
	}
	if data.GetDynamicWorkflow() != nil {
		t.Error("dynamic_workflow is set: clients take the node for a dynamic one")
	}
	if got := data.GetFullOutputs().GetLiterals()["o0"].GetScalar().GetPrimitive().GetInteger(); got != 4 {
		t.Errorf("output o0 is %d, want 4", got)
	}
	byURL, err := s.proxy.GetData(t.Context(), &serviceGetData{FlyteUrl: data.GetFlyteUrls().GetOutputs() + "/o0"})
	if err != nil || byURL.GetLiteral().GetScalar().GetPrimitive().GetInteger() != 4 {
		t.Errorf("the value at its flyte URL is %v, %v, want 4", byURL, err)
	}
	tasks, err := s.admin.ListTaskExecutions(t.Context(), &admin.TaskExecutionListRequest{NodeExecutionId: node, Limit: 10})
	if err != nil || len(tasks.GetTaskExecutions()) != 1 {
		t.Fatalf("attempts are %v, %v, want one", tasks, err)
	}
	attempt := tasks.GetTaskExecutions()[0]
	if attempt.GetClosure().GetPhase() != core.TaskExecution_SUCCEEDED || attempt.GetId().GetTaskId().GetName() != "nodes" {
		t.Errorf("attempt is %v", attempt)
	}
	attemptData, err := s.admin.GetTaskExecutionData(t.Context(), &admin.TaskExecutionGetDataRequest{Id: attempt.GetId()})
	if err != nil || attemptData.GetFullInputs().GetLiterals()["x"].GetScalar().GetPrimitive().GetInteger() != 4 {
		t.Errorf("data of the attempt are %v, %v", attemptData, err)
	}
	_, err = s.admin.GetNodeExecution(t.Context(), &admin.NodeExecutionGetRequest{Id: &core.NodeExecutionIdentifier{NodeId: "n9", ExecutionId: e.GetId()}})
	s.wantCode(err, connect.CodeNotFound, "missing entity of type node execution")
	none, err := s.admin.ListNodeExecutions(t.Context(), &admin.NodeExecutionListRequest{
		WorkflowExecutionId: &core.WorkflowExecutionIdentifier{Project: "p", Domain: "d", Name: "n"}, Limit: 10})
	if err != nil || len(none.GetNodeExecutions()) != 0 {
		t.Errorf("nodes of an execution that is not there are %v, %v, want none", none, err)
	}
	_, err = s.proxy.CreateDownloadLink(t.Context(), &serviceDownloadLink{ArtifactType: artifactDeck, Source: &serviceLinkOfNode{NodeExecutionId: node}})
	s.wantCode(err, connect.CodeNotFound, "deck")
}

func TestLargeInputsAreKeptAsObjectsAndComeBack(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	task := echoTask("large")
	text := variables("x", core.SimpleType_STRING)
	task.Spec.Template.Interface = &core.TypedInterface{Inputs: text, Outputs: variables("o0", core.SimpleType_STRING)}
	if _, err := s.admin.CreateTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{aloft.MaxInlineLiterals + 1, aloft.MaxInlineData + 1} {
		value := strings.Repeat("x", size)
		e := s.wait(s.create(execute(id(core.ResourceType_TASK, "large"), map[string]*core.Literal{
			"x": primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: value}}),
		})))
		if e.GetClosure().GetPhase() != core.WorkflowExecution_SUCCEEDED {
			t.Fatalf("%d bytes: ended %v", size, e.GetClosure())
		}
		data, err := s.admin.GetExecutionData(t.Context(), &admin.WorkflowExecutionGetDataRequest{Id: e.GetId()})
		if err != nil {
			t.Fatal(err)
		}
		outputs := data.GetFullOutputs()
		if size > aloft.MaxInlineData {
			if len(outputs.GetLiterals()) != 0 || data.GetOutputs().GetBytes() == 0 {
				t.Fatalf("%d bytes are inline, want a link", size)
			}
			outputs = s.download(data.GetOutputs().GetUrl())
		}
		if got := outputs.GetLiterals()["o0"].GetScalar().GetPrimitive().GetStringValue(); got != value {
			t.Errorf("%d bytes: got %d bytes back", size, len(got))
		}
	}
}

// A task that this server cannot run is registered all the same, together with the tasks beside it; an execution of it is refused.
func TestARunThatCannotSucceedIsRefusedByName(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	c.TaskEnv = []string{"_FSEC_ALL_KNOW=v"}
	s := start(t, c)
	task := func(name string, change func(*core.TaskTemplate)) *core.Identifier {
		t.Helper()
		r := echoTask(name)
		r.Spec.Template.Type = "python-task"
		r.Spec.Template.Target = &core.TaskTemplate_Container{Container: &core.Container{Image: "x", Args: []string{"true"}}}
		change(r.Spec.Template)
		if _, err := s.admin.CreateTask(t.Context(), r); err != nil {
			t.Fatalf("register %s: %v", name, err)
		}
		return id(core.ResourceType_TASK, name)
	}
	run := func(task *core.Identifier, variables ...string) error {
		r := execute(task, map[string]*core.Literal{"x": integer(1)})
		for _, name := range variables {
			if r.Spec.Envs == nil {
				r.Spec.Envs = &admin.Envs{}
			}
			r.Spec.Envs.Values = append(r.Spec.Envs.Values, &core.KeyValuePair{Key: name, Value: "v"})
		}
		_, err := s.admin.CreateExecution(t.Context(), r)
		return err
	}
	secrets := func(t *core.TaskTemplate) {
		t.SecurityContext = &core.SecurityContext{Secrets: []*core.Secret{
			{Group: "db", Key: "password"}, {Group: "db", GroupVersion: "v2", Key: "user"}, {Key: "token", EnvVar: "TOKEN"}, {Group: "stated", Key: "s"},
		}}
		t.GetContainer().Env = []*core.KeyValuePair{{Key: "_FSEC_STATED_S", Value: "v"}}
	}
	asking := task("asking", secrets)
	s.wantCode(run(asking), connect.CodeInvalidArgument,
		"task asking needs the secret db/password", "--env _FSEC_DB_PASSWORD=", "_FSEC_DB_V2_USER", "the secret token", "_FSEC_TOKEN")
	err := run(asking, "_FSEC_DB_PASSWORD", "TOKEN")
	s.wantCode(err, connect.CodeInvalidArgument, "_FSEC_DB_V2_USER")
	if strings.Contains(err.Error(), "db/password") || strings.Contains(err.Error(), "stated") || strings.Contains(err.Error(), "token") {
		t.Errorf("a secret that is given is missed: %v", err)
	}
	if err := run(asking, "_FSEC_DB_PASSWORD", "TOKEN", "_FSEC_DB_V2_USER"); err != nil {
		t.Errorf("with all secrets: %v", err)
	}
	if err := run(task("given", func(t *core.TaskTemplate) {
		t.SecurityContext = &core.SecurityContext{Secrets: []*core.Secret{{Group: "all", Key: "know"}}}
	})); err != nil {
		t.Errorf("with a secret that the server gives all tasks: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*core.TaskTemplate)
		want   string
	}{
		"pod": {func(t *core.TaskTemplate) {
			t.Target = &core.TaskTemplate_K8SPod{K8SPod: &core.K8SPod{PodSpec: &structpb.Struct{Fields: map[string]*structpb.Value{"containers": structpb.NewListValue(&structpb.ListValue{})}}}}
		}, "task pod brings a pod"},
		"train": {func(t *core.TaskTemplate) {
			gpu := []*core.Resources_ResourceEntry{{Name: core.Resources_GPU, Value: "2"}}
			t.GetContainer().Resources = &core.Resources{Requests: gpu, Limits: gpu}
		}, "task train asks for 2 GPU, and no machine of this server has one to give"},
		"query":     {func(t *core.TaskTemplate) { t.Target = &core.TaskTemplate_Sql{Sql: &core.Sql{Statement: "select 1"}} }, "task query is SQL"},
		"connector": {func(t *core.TaskTemplate) { t.Target, t.Type = nil, "bigquery_query_job_task" }, `task connector of type "bigquery_query_job_task" has no container`},
		"collected": {func(t *core.TaskTemplate) {
			t.GetContainer().DataConfig = &core.DataLoadingConfig{Enabled: true, OutputPath: "/var/outputs"}
		}, "task collected is a raw container whose outputs are to be collected from /var/outputs"},
	} {
		s.wantCode(run(task(name, c.change)), connect.CodeInvalidArgument, c.want)
	}
}
