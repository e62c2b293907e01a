package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/api"
	"github.com/aloft-dev/aloft/config"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/worker"
)

// The test binary is also the supervisor of the servers under test.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "worker" && os.Args[2] == "--data-dir" {
		if err := worker.Main(context.Background(), worker.Config{DataDir: os.Args[3], Build: "v0.0.1"}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		if err := serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testServer is a server with clients. Each test has its own.
type testServer struct {
	*Server
	t     *testing.T
	http  *http.Client
	admin serviceconnect.AdminServiceClient
	proxy serviceconnect.DataProxyServiceClient
}

func testConfig(dir string) config.Config {
	c := config.Default(dir)
	c.DataDir, c.Listen, c.StopTasks = dir+"/data", "localhost:0", true
	return c
}

// start starts a server without an executor: its tasks are those that the engine runs by itself.
func start(t *testing.T, c config.Config) *testServer {
	t.Helper()
	return startWith(t, c, nil)
}

func startWith(t *testing.T, c config.Config, supervisor []string) *testServer {
	t.Helper()
	s, err := Start(t.Context(), c, Options{
		Version: api.Version{Version: "v0.0.1", Build: "abc"},
		Worker:  supervisor,
		Logger:  slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	ts := &testServer{Server: s, t: t, http: cleartext()}
	ts.admin, ts.proxy = ts.adminClient(ts.http), serviceconnect.NewDataProxyServiceClient(ts.http, "http://"+s.Address, connect.WithGRPC())
	t.Cleanup(ts.close)
	return ts
}

func newServer(t *testing.T) *testServer {
	t.Helper()
	return start(t, testConfig(t.TempDir()))
}

func (s *testServer) close() {
	s.http.CloseIdleConnections()
	if s.Server != nil {
		if err := s.Close(); err != nil {
			s.t.Errorf("close: %v", err)
		}
		s.Server = nil
	}
}

func (s *testServer) adminClient(h *http.Client, options ...connect.ClientOption) serviceconnect.AdminServiceClient {
	return serviceconnect.NewAdminServiceClient(h, "http://"+s.Address, append([]connect.ClientOption{connect.WithGRPC()}, options...)...)
}

// cleartext speaks HTTP/2 as gRPC clients do, on one connection of its own.
func cleartext() *http.Client {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: protocols}}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("server: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func id(kind core.ResourceType, name string) *core.Identifier {
	return &core.Identifier{ResourceType: kind, Project: "flytesnacks", Domain: "development", Name: name, Version: "v1"}
}

func code(err error) connect.Code {
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

func (s *testServer) wantCode(err error, want connect.Code, texts ...string) {
	s.t.Helper()
	if code(err) != want {
		s.t.Fatalf("got code %v (%v), want %v", code(err), err, want)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			s.t.Errorf("the message does not say %q: %v", text, err)
		}
	}
}

func simple(t core.SimpleType) *core.LiteralType {
	return &core.LiteralType{Type: &core.LiteralType_Simple{Simple: t}}
}

func primitive(p *core.Primitive) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}}}}
}

func integer(n int64) *core.Literal {
	return primitive(&core.Primitive{Value: &core.Primitive_Integer{Integer: n}})
}

func variables(name string, t core.SimpleType) *core.VariableMap {
	return &core.VariableMap{Variables: map[string]*core.Variable{name: {Type: simple(t)}}}
}

// echoTask gives its integer back; the engine runs it by itself.
func echoTask(name string) *admin.TaskCreateRequest {
	return &admin.TaskCreateRequest{Id: id(core.ResourceType_TASK, name), Spec: &admin.TaskSpec{Template: &core.TaskTemplate{
		Id: id(core.ResourceType_TASK, name), Type: "echo", Metadata: &core.TaskMetadata{},
		Interface: &core.TypedInterface{Inputs: variables("x", core.SimpleType_INTEGER), Outputs: variables("o0", core.SimpleType_INTEGER)},
	}}}
}

// sleepTask lasts as long as its input says; the engine runs it by itself.
func sleepTask(name string) *admin.TaskCreateRequest {
	return &admin.TaskCreateRequest{Id: id(core.ResourceType_TASK, name), Spec: &admin.TaskSpec{Template: &core.TaskTemplate{
		Id: id(core.ResourceType_TASK, name), Type: "core-sleep", Metadata: &core.TaskMetadata{},
		Interface: &core.TypedInterface{Inputs: variables("duration", core.SimpleType_DURATION)},
	}}}
}

// chain is a workflow of n echo tasks, each with the output of the one before as its input.
func chain(name, task string, n int) *admin.WorkflowCreateRequest {
	template := &core.WorkflowTemplate{
		Id: id(core.ResourceType_WORKFLOW, name), Metadata: &core.WorkflowMetadata{},
		Interface: &core.TypedInterface{Inputs: variables("x", core.SimpleType_INTEGER), Outputs: variables("y", core.SimpleType_INTEGER)},
	}
	from, output := "", "x"
	for i := range n {
		node := fmt.Sprintf("n%d", i)
		template.Nodes = append(template.Nodes, &core.Node{
			Id: node, Metadata: &core.NodeMetadata{Name: task}, Inputs: []*core.Binding{promise("x", from, output)},
			Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: id(core.ResourceType_TASK, task)}}},
		})
		from, output = node, "o0"
	}
	template.Outputs = []*core.Binding{promise("y", from, output)}
	return &admin.WorkflowCreateRequest{Id: template.Id, Spec: &admin.WorkflowSpec{Template: template}}
}

func promise(variable, node, output string) *core.Binding {
	return &core.Binding{Var: variable, Binding: &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{NodeId: node, Var: output}}}}
}

func launchPlan(name, workflow string) *admin.LaunchPlanCreateRequest {
	return &admin.LaunchPlanCreateRequest{Id: id(core.ResourceType_LAUNCH_PLAN, name), Spec: &admin.LaunchPlanSpec{WorkflowId: id(core.ResourceType_WORKFLOW, workflow)}}
}

// registerChain registers a chain under one name for task, workflow and launch plan.
func (s *testServer) registerChain(name string, n int) {
	s.t.Helper()
	_, err := s.admin.CreateTask(s.t.Context(), echoTask(name))
	if err == nil {
		_, err = s.admin.CreateWorkflow(s.t.Context(), chain(name, name, n))
	}
	if err == nil {
		_, err = s.admin.CreateLaunchPlan(s.t.Context(), launchPlan(name, name))
	}
	if err != nil {
		s.t.Fatalf("register %s: %v", name, err)
	}
}

func execute(plan *core.Identifier, inputs map[string]*core.Literal) *admin.ExecutionCreateRequest {
	return &admin.ExecutionCreateRequest{
		Project: "flytesnacks", Domain: "development",
		Spec: &admin.ExecutionSpec{LaunchPlan: plan}, Inputs: &core.LiteralMap{Literals: inputs},
	}
}

func (s *testServer) create(request *admin.ExecutionCreateRequest) *core.WorkflowExecutionIdentifier {
	s.t.Helper()
	answer, err := s.admin.CreateExecution(s.t.Context(), request)
	if err != nil {
		s.t.Fatalf("create execution: %v", err)
	}
	return answer.GetId()
}

func (s *testServer) get(e *core.WorkflowExecutionIdentifier) *admin.Execution {
	s.t.Helper()
	answer, err := s.admin.GetExecution(s.t.Context(), &admin.WorkflowExecutionGetRequest{Id: e})
	if err != nil {
		s.t.Fatalf("get execution: %v", err)
	}
	return answer
}

// wait returns the execution when it has ended. It waits for wake-ups and does not poll.
func (s *testServer) wait(e *core.WorkflowExecutionIdentifier) *admin.Execution {
	s.t.Helper()
	wake, cancel := s.store.Subscribe(store.TopicExecution(aloft.ExecutionIDOf(e)))
	defer cancel()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		got := s.get(e)
		if aloft.Terminal(got.GetClosure().GetPhase()) {
			return got
		}
		select {
		case <-wake:
		case <-timeout.C:
			s.t.Fatalf("execution %s is %s after a minute", e.GetName(), got.GetClosure().GetPhase())
		}
	}
}

// sleeping starts an execution of a single task that lasts for d.
func (s *testServer) sleeping(d time.Duration) *core.WorkflowExecutionIdentifier {
	s.t.Helper()
	if _, err := s.admin.CreateTask(s.t.Context(), sleepTask("sleep")); err != nil && code(err) != connect.CodeAlreadyExists {
		s.t.Fatalf("create task: %v", err)
	}
	return s.create(execute(id(core.ResourceType_TASK, "sleep"), map[string]*core.Literal{"duration": sleepFor(d)}))
}

func sleepFor(d time.Duration) *core.Literal {
	return primitive(&core.Primitive{Value: &core.Primitive_Duration{Duration: durationpb.New(d)}})
}

func TestAChainRunsToItsOutputs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("chain", 3)
	for i := range 3 {
		e := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "chain"), map[string]*core.Literal{"x": integer(int64(40 + i))}))
		if got := s.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
			t.Fatalf("execution %d ended %s, want SUCCEEDED", i, got)
		}
		data, err := s.admin.GetExecutionData(t.Context(), &admin.WorkflowExecutionGetDataRequest{Id: e})
		if err != nil {
			t.Fatal(err)
		}
		if got := data.GetFullOutputs().GetLiterals()["y"].GetScalar().GetPrimitive().GetInteger(); got != int64(40+i) {
			t.Errorf("output y is %d, want %d", got, 40+i)
		}
		if got := data.GetFullInputs().GetLiterals()["x"].GetScalar().GetPrimitive().GetInteger(); got != int64(40+i) {
			t.Errorf("input x is %d, want %d", got, 40+i)
		}
		if data.GetInputs() == nil || data.GetOutputs() == nil {
			t.Errorf("the deprecated links are absent, clients read them: %v", data)
		}
	}
}

func TestASleepEndsByItself(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for range 3 {
		e := s.sleeping(0)
		if got := s.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
			t.Fatalf("ended %s, want SUCCEEDED", got)
		}
	}
}
