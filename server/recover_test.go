package server

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// gatedWorkflow is a workflow of two nodes that run processes: both note that they ran, and the second one fails until its cause is
// fixed. The notes are in dir.
type gatedWorkflow struct {
	*testServer
	dir  string
	plan *core.Identifier
}

func text(s string) *core.Literal {
	return primitive(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}})
}

func newGated(s *testServer, dir string) *gatedWorkflow {
	s.t.Helper()
	inputs := &core.VariableMap{Variables: map[string]*core.Variable{"cause": {Type: simple(core.SimpleType_STRING)}, "number": {Type: simple(core.SimpleType_INTEGER)}}}
	task := func(name, script string) {
		request := shellTask(name, "cd "+dir+"; "+script, nil)
		template := request.GetSpec().GetTemplate()
		template.Metadata, template.Interface = &core.TaskMetadata{}, &core.TypedInterface{Inputs: inputs}
		template.GetContainer().Command = append(template.GetContainer().GetCommand(), "{{.inputs.cause}}", "{{.inputs.number}}")
		if _, err := s.admin.CreateTask(s.t.Context(), request); err != nil {
			s.t.Fatal(err)
		}
	}
	task("gated.first", "echo first >> ran-$1")
	task("gated.second", `echo second >> ran-$1; test -e fixed-$0 || { echo "row $1: $0 is broken" >&2; exit 3; }`)
	bound := []*core.Binding{promise("cause", "", "cause"), promise("number", "", "number")}
	node := func(id_, name string, after ...string) *core.Node {
		return &core.Node{Id: id_, Metadata: &core.NodeMetadata{Name: name}, Inputs: bound, UpstreamNodeIds: after,
			Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: id(core.ResourceType_TASK, name)}}}}
	}
	w := &core.WorkflowTemplate{Id: id(core.ResourceType_WORKFLOW, "gated"), Metadata: &core.WorkflowMetadata{}, Interface: &core.TypedInterface{Inputs: inputs},
		Nodes: []*core.Node{node("n0", "gated.first"), node("n1", "gated.second", "n0")}}
	if _, err := s.admin.CreateWorkflow(s.t.Context(), &admin.WorkflowCreateRequest{Id: w.Id, Spec: &admin.WorkflowSpec{Template: w}}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.admin.CreateLaunchPlan(s.t.Context(), launchPlan("gated", "gated")); err != nil {
		s.t.Fatal(err)
	}
	return &gatedWorkflow{s, dir, id(core.ResourceType_LAUNCH_PLAN, "gated")}
}

func (g *gatedWorkflow) inputs(cause string, number int64) map[string]*core.Literal {
	return map[string]*core.Literal{"cause": text(cause), "number": integer(number)}
}

func (g *gatedWorkflow) start(cause string, number int64) *core.WorkflowExecutionIdentifier {
	g.t.Helper()
	return g.create(execute(g.plan, g.inputs(cause, number)))
}

func (g *gatedWorkflow) fix(cause string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, "fixed-"+cause), nil, 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// ran lists the tasks that ran for a number, in order.
func (g *gatedWorkflow) ran(number int64) string {
	g.t.Helper()
	content, err := os.ReadFile(filepath.Join(g.dir, fmt.Sprintf("ran-%d", number)))
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(content)), " ")
}

func (g *gatedWorkflow) recover(e *core.WorkflowExecutionIdentifier, name string) (*core.WorkflowExecutionIdentifier, error) {
	answer, err := g.admin.RecoverExecution(g.t.Context(), &admin.ExecutionRecoverRequest{Id: e, Name: name})
	return answer.GetId(), err
}

func (g *gatedWorkflow) wantEnd(e *core.WorkflowExecutionIdentifier, want core.WorkflowExecution_Phase) *admin.Execution {
	g.t.Helper()
	got := g.wait(e)
	if got.GetClosure().GetPhase() != want {
		g.t.Fatalf("execution %s ended %s: %v, want %s", e.GetName(), got.GetClosure().GetPhase(), got.GetClosure().GetError(), want)
	}
	return got
}

func TestARecoveryRunsOnlyWhatFailed(t *testing.T) {
	t.Parallel()
	g := newGated(startRunning(t, testConfig(t.TempDir())), t.TempDir())
	request := execute(g.plan, g.inputs("disk", 1))
	request.Spec.OverwriteCache = true
	first := g.create(request)
	g.wantEnd(first, core.WorkflowExecution_FAILED)

	second, err := g.recover(first, "second-try") // its cause is not fixed
	if err != nil {
		t.Fatal(err)
	}
	e := g.wantEnd(second, core.WorkflowExecution_FAILED)
	if m := e.GetSpec().GetMetadata(); second.GetName() != "second-try" || m.GetMode() != admin.ExecutionMetadata_RECOVERED || m.GetReferenceExecution().GetName() != first.GetName() {
		t.Errorf("execution %s has metadata %v", second.GetName(), m)
	}
	if !e.GetSpec().GetOverwriteCache() {
		t.Error("overwrite_cache is lost")
	}
	g.fix("disk")
	third, err := g.recover(second, "")
	if err != nil {
		t.Fatal(err)
	}
	g.wantEnd(third, core.WorkflowExecution_SUCCEEDED)
	if got := g.ran(1); got != "first second second second" {
		t.Errorf("in three runs ran %q, want the first task once and the second one thrice", got)
	}
	nodes, err := g.admin.ListNodeExecutions(t.Context(), &admin.NodeExecutionListRequest{WorkflowExecutionId: third, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	phases := map[string]core.NodeExecution_Phase{}
	for _, n := range nodes.GetNodeExecutions() {
		phases[n.GetId().GetNodeId()] = n.GetClosure().GetPhase()
	}
	if phases["n0"] != core.NodeExecution_RECOVERED || phases["n1"] != core.NodeExecution_SUCCEEDED {
		t.Errorf("phases are %v", phases)
	}
	attempts, err := g.store.ListAttempts(t.Context(), aloft.ExecutionIDOf(third), "", store.Query{})
	if err != nil || len(attempts) != 1 {
		t.Errorf("it has %d attempts (%v), want 1", len(attempts), err)
	}
	if _, page := g.do("GET", "/console/projects/flytesnacks/domains/development/executions/"+third.GetName(), nil, nil); !strings.Contains(string(page), second.GetName()+"</a>, nodes taken over: 1") {
		t.Errorf("its page does not say what it recovers:\n%s", page)
	}
}

// If a node failed because of a lost input (InputLost), its recovery must find the input lost, too, or each recovery would fail
// likewise.
func TestARecoveryComputesAFolderAgainThatLostFiles(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string][]string{"one file": {"a"}, "all files": {"a", "b"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, dir := testConfig(t.TempDir()), t.TempDir()
			s := startRunning(t, c)
			folder := &core.VariableMap{Variables: map[string]*core.Variable{"o": {Type: &core.LiteralType{Type: &core.LiteralType_Blob{
				Blob: &core.BlobType{Dimensionality: core.BlobType_MULTIPART},
			}}}}}
			task := func(name, script string, of *core.TypedInterface) *core.Node {
				request := shellTask(name, "set -e; cd "+dir+"; "+script, &core.TaskMetadata{})
				request.Spec.Template.Interface = of
				if _, err := s.admin.CreateTask(t.Context(), request); err != nil {
					t.Fatal(err)
				}
				return &core.Node{Id: name, Metadata: &core.NodeMetadata{}, Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{
					Reference: &core.TaskNode_ReferenceId{ReferenceId: id(core.ResourceType_TASK, name)},
				}}}
			}
			makes := task("makes", "d={{.rawOutputDataPrefix}}; mkdir -p $d/o; echo 1 > $d/o/a; echo 2 > $d/o/b; cp $(basename $d).pb {{.outputPrefix}}/outputs.pb",
				&core.TypedInterface{Outputs: folder})
			waits := task("waits", "until test -e go; do sleep 0.1; done", &core.TypedInterface{})
			waits.UpstreamNodeIds = []string{"makes"}
			uses := task("uses", "cat {{.inputs.o}}/a {{.inputs.o}}/b", &core.TypedInterface{Inputs: folder})
			uses.UpstreamNodeIds, uses.Inputs = []string{"waits"}, []*core.Binding{promise("o", "makes", "o")}
			w := &core.WorkflowTemplate{Id: id(core.ResourceType_WORKFLOW, "w"), Metadata: &core.WorkflowMetadata{}, Interface: &core.TypedInterface{}, Nodes: []*core.Node{makes, waits, uses}}
			if _, err := s.admin.CreateWorkflow(t.Context(), &admin.WorkflowCreateRequest{Id: w.Id, Spec: &admin.WorkflowSpec{Template: w}}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.admin.CreateLaunchPlan(t.Context(), launchPlan("w", "w")); err != nil {
				t.Fatal(err)
			}
			// made is the folder of an execution; the literal that refers to it is prepared for the task.
			made := func(execution string) string {
				attempt := aloft.AttemptID{Execution: aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: execution}, Node: "makes"}
				path := filepath.Join(c.DataDir, "blob", "raw", attempt.RawOutputKey(), "o")
				returned, err := proto.Marshal(&core.LiteralMap{Literals: map[string]*core.Literal{"o": {Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Blob{
					Blob: &core.Blob{Uri: path, Metadata: &core.BlobMetadata{Type: folder.GetVariables()["o"].GetType().GetBlob()}},
				}}}}}})
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, attempt.UniqueName()+".pb"), returned, 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
				return path
			}
			path := made("first")
			made("second")

			request := execute(id(core.ResourceType_LAUNCH_PLAN, "w"), nil)
			request.Name = "first"
			first := s.create(request)
			s.until(first, "waiting", func(attempts []*store.Attempt) bool {
				return slices.ContainsFunc(attempts, func(a *store.Attempt) bool { return a.ID.Node == "waits" })
			})
			for _, file := range lost {
				if err := os.Remove(filepath.Join(path, file)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if e := s.wait(first).GetClosure(); e.GetError().GetCode() != executor.CodeInputLost {
				t.Fatalf("the run ended %s: %v, want %s", e.GetPhase(), e.GetError(), executor.CodeInputLost)
			}
			answer, err := s.admin.RecoverExecution(t.Context(), &admin.ExecutionRecoverRequest{Id: first, Name: "second"})
			if err != nil {
				t.Fatal(err)
			}
			if e := s.wait(answer.GetId()).GetClosure(); e.GetPhase() != core.WorkflowExecution_SUCCEEDED {
				t.Errorf("the recovery ended %s: %v", e.GetPhase(), e.GetError())
			}
		})
	}
}

func TestWhatCannotBeRecoveredIsSaidWithTheWayOut(t *testing.T) {
	t.Parallel()
	g := newGated(startRunning(t, testConfig(t.TempDir())), t.TempDir())
	g.fix("nothing")
	failed, succeeded := g.start("disk", 1), g.start("nothing", 2)
	g.wantEnd(failed, core.WorkflowExecution_FAILED)
	g.wantEnd(succeeded, core.WorkflowExecution_SUCCEEDED)
	running := g.sleeping(1 << 40)
	missing := &core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: "missing"}
	g.registerChain("another", 1)

	for name, c := range map[string]struct {
		of   *core.WorkflowExecutionIdentifier
		name string
		code connect.Code
		text string
	}{
		"succeeded":     {succeeded, "", connect.CodeFailedPrecondition, "nothing to recover: relaunch"},
		"running":       {running, "", connect.CodeFailedPrecondition, "has not ended: wait for its end, or terminate it"},
		"unknown":       {missing, "", connect.CodeNotFound, "missing"},
		"without an id": {nil, "", connect.CodeInvalidArgument, "missing id"},
		"wrong name":    {failed, "1-wrong", connect.CodeInvalidArgument, "must begin with a letter"},
		"taken name":    {failed, succeeded.GetName(), connect.CodeAlreadyExists, ""},
	} {
		_, err := g.recover(c.of, c.name)
		if code(err) != c.code || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s: got %v, want %s with %q", name, err, c.code, c.text)
		}
	}

	request := func(of *core.WorkflowExecutionIdentifier, change func(*admin.ExecutionCreateRequest)) error {
		r := execute(g.plan, g.inputs("disk", 1))
		r.Spec.Metadata = &admin.ExecutionMetadata{Mode: admin.ExecutionMetadata_RECOVERED, ReferenceExecution: of}
		change(r)
		_, err := g.admin.CreateExecution(t.Context(), r)
		return err
	}
	same := func(*admin.ExecutionCreateRequest) {}
	for name, c := range map[string]struct {
		err  error
		code connect.Code
		text string
	}{
		"the same":          {request(failed, same), 0, ""},
		"no inputs":         {request(failed, func(r *admin.ExecutionCreateRequest) { r.Inputs = nil }), 0, ""},
		"no reference":      {request(nil, same), connect.CodeInvalidArgument, "spec.metadata.reference_execution"},
		"unknown":           {request(missing, same), connect.CodeNotFound, "missing"},
		"succeeded":         {request(succeeded, same), connect.CodeFailedPrecondition, "nothing to recover"},
		"other inputs":      {request(failed, func(r *admin.ExecutionCreateRequest) { r.Inputs.Literals["number"] = integer(7) }), connect.CodeInvalidArgument, "number differ"},
		"another project's": {request(failed, func(r *admin.ExecutionCreateRequest) { r.Domain = "production" }), connect.CodeInvalidArgument, "recover it there"},
		"another workflow": {request(failed, func(r *admin.ExecutionCreateRequest) {
			r.Spec.LaunchPlan = id(core.ResourceType_LAUNCH_PLAN, "another")
			r.Inputs.Literals = map[string]*core.Literal{"x": integer(1)}
		}), connect.CodeInvalidArgument, "ran gated"},
		"an unknown version": {request(failed, func(r *admin.ExecutionCreateRequest) {
			r.Spec.LaunchPlan = &core.Identifier{ResourceType: core.ResourceType_LAUNCH_PLAN, Project: "flytesnacks", Domain: "development", Name: "gated", Version: "other"}
		}), connect.CodeNotFound, "gated"},
	} {
		if c.code == 0 && c.err != nil || c.code != 0 && code(c.err) != c.code || !strings.Contains(fmt.Sprint(c.err), c.text) {
			t.Errorf("create, %s: got %v, want %s with %q", name, c.err, c.code, c.text)
		}
	}
}

// flytectl's `create execution --recover` makes this call by gRPC, the console's button makes it by REST.
func TestAnExecutionIsRecoveredByREST(t *testing.T) {
	t.Parallel()
	g := newGated(startRunning(t, testConfig(t.TempDir())), t.TempDir())
	failed := g.start("disk", 1)
	g.wantEnd(failed, core.WorkflowExecution_FAILED)
	g.fix("disk")
	body := fmt.Sprintf(`{"id":{"project":"flytesnacks","domain":"development","name":%q},"name":"by-rest"}`, failed.GetName())
	status, answer := g.do("POST", "/api/v1/executions/recover", http.Header{"Content-Type": {"application/json"}}, []byte(body))
	if status.StatusCode != http.StatusOK || !strings.Contains(string(answer), "by-rest") {
		t.Fatalf("got %s: %s", status.Status, answer)
	}
	g.wantEnd(&core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: "by-rest"}, core.WorkflowExecution_SUCCEEDED)
	if got := g.ran(1); got != "first second second" {
		t.Errorf("ran %q", got)
	}
}

func TestAnAbortedExecutionIsRecovered(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	e := s.sleeping(1 << 40)
	if _, err := s.admin.TerminateExecution(t.Context(), &admin.ExecutionTerminateRequest{Id: e}); err != nil {
		t.Fatal(err)
	}
	s.wait(e)
	answer, err := s.admin.RecoverExecution(t.Context(), &admin.ExecutionRecoverRequest{Id: e})
	if err != nil {
		t.Fatal(err)
	}
	if m := s.get(answer.GetId()).GetSpec(); m.GetLaunchPlan().GetResourceType() != core.ResourceType_TASK || m.GetMetadata().GetMode() != admin.ExecutionMetadata_RECOVERED {
		t.Errorf("its spec is %v", m)
	}
}
