package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
)

// fakeServer is a server whose answers a test sets; it remembers the last request of each kind.
type fakeServer struct {
	aloftv1connect.UnimplementedRunServiceHandler
	aloftv1connect.UnimplementedResultServiceHandler
	aloftv1connect.UnimplementedRecoveryServiceHandler
	aloftv1connect.UnimplementedServerServiceHandler
	serviceconnect.UnimplementedAdminServiceHandler

	logs       []*aloftv1.GetLogsResponse
	status     *aloftv1.WatchExecutionResponse
	data       *admin.WorkflowExecutionGetDataResponse
	executions *admin.ExecutionList
	only       string   // the filters of which executions are the answer; empty: any
	workflows  []string // names of the registered workflows
	message    string   // the error of each execution
	gone       bool     // there is a cached result, which is gone

	askedLogs *aloftv1.GetLogsRequest
}

func (a *fakeServer) GetLogs(_ context.Context, r *aloftv1.GetLogsRequest, stream *connect.ServerStream[aloftv1.GetLogsResponse]) error {
	a.askedLogs = r
	for _, chunk := range a.logs {
		if err := stream.Send(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (a *fakeServer) WatchExecution(_ context.Context, r *aloftv1.WatchExecutionRequest, stream *connect.ServerStream[aloftv1.WatchExecutionResponse]) error {
	if a.status == nil {
		return connect.NewError(connect.CodeNotFound, errors.New("execution "+r.GetId().GetName()+": not found"))
	}
	return stream.Send(a.status)
}

func (a *fakeServer) GetExecution(_ context.Context, r *admin.WorkflowExecutionGetRequest) (*admin.Execution, error) {
	return &admin.Execution{Id: r.GetId(), Closure: &admin.ExecutionClosure{OutputResult: &admin.ExecutionClosure_Error{Error: &core.ExecutionError{Message: a.message}}}}, nil
}

func (a *fakeServer) GetExecutionData(context.Context, *admin.WorkflowExecutionGetDataRequest) (*admin.WorkflowExecutionGetDataResponse, error) {
	return a.data, nil
}

func (a *fakeServer) ListExecutions(_ context.Context, r *admin.ResourceListRequest) (*admin.ExecutionList, error) {
	if a.only != "" && r.GetFilters() != a.only {
		return &admin.ExecutionList{}, nil
	}
	return a.executions, nil
}

func (a *fakeServer) ListNamedEntities(_ context.Context, r *admin.NamedEntityListRequest) (*admin.NamedEntityList, error) {
	list := &admin.NamedEntityList{}
	for _, name := range a.workflows {
		list.Entities = append(list.Entities, &admin.NamedEntity{Id: &admin.NamedEntityIdentifier{Project: r.GetProject(), Domain: r.GetDomain(), Name: name}})
	}
	return list, nil
}

func (a *fakeServer) ListResults(_ context.Context, r *aloftv1.ListResultsRequest) (*aloftv1.ListResultsResponse, error) {
	answer := &aloftv1.ListResultsResponse{}
	if r.GetGone() && a.gone {
		answer.Results = []*aloftv1.CachedResult{{Id: "r", GoneReason: "replaced"}}
	}
	return answer, nil
}

func (a *fakeServer) GetProject(_ context.Context, r *admin.ProjectGetRequest) (*admin.Project, error) {
	if r.GetId() != "p" {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("there is no project ["+r.GetId()+"]; there is p: not found"))
	}
	return &admin.Project{Id: "p", Domains: []*admin.Domain{{Id: "d"}, {Id: "e"}}}, nil
}

// address starts the server and returns the address at which it listens.
func (a *fakeServer) address(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(aloftv1connect.NewRunServiceHandler(a))
	mux.Handle(aloftv1connect.NewResultServiceHandler(a))
	mux.Handle(aloftv1connect.NewRecoveryServiceHandler(a))
	mux.Handle(aloftv1connect.NewServerServiceHandler(a))
	mux.Handle(serviceconnect.NewAdminServiceHandler(a))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// runCommand runs a command line; code is the exit code, and stderr includes the error.
func runCommand(t *testing.T, server string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runCommandUntil(t.Context(), t, server, args...)
}

// runCommandUntil is runCommand for a command that is interrupted when the context ends.
func runCommandUntil(ctx context.Context, t *testing.T, server string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, said bytes.Buffer
	for _, command := range Commands(Defaults{Server: server, Project: "p", Domain: "d"}) {
		if command.Name() != args[0] {
			continue
		}
		command.SetArgs(args[1:])
		command.SetOut(&out)
		command.SetErr(&said)
		command.SilenceUsage, command.SilenceErrors = true, true
		if err := command.ExecuteContext(ctx); err != nil {
			said.WriteString(err.Error())
			code = 1
			if exit := new(ExitError); errors.As(err, &exit) {
				code = exit.Code
			}
		}
		return code, out.String(), said.String()
	}
	t.Fatalf("there is no command %s", args[0])
	return 0, "", ""
}

func TestAttemptsAreCountedAsAStatusShowsThem(t *testing.T) {
	t.Parallel()
	a := &fakeServer{
		logs: []*aloftv1.GetLogsResponse{{Node: "n0", Data: []byte("one\n")}, {Node: "n0", Attempt: 1, Data: []byte("two\n")}},
		status: &aloftv1.WatchExecutionResponse{Execution: &aloftv1.ExecutionStatus{Id: &core.WorkflowExecutionIdentifier{Name: "x"}}, Nodes: []*aloftv1.NodeStatus{
			{Id: "n0", Attempts: []*aloftv1.AttemptStatus{{Phase: core.TaskExecution_FAILED}, {Attempt: 1, Phase: core.TaskExecution_SUCCEEDED}}}}},
	}
	server := a.address(t)
	if _, out, _ := runCommand(t, server, "status", "x"); !strings.Contains(out, "attempt 2") {
		t.Errorf("a status says:\n%s", out)
	}
	if _, out, _ := runCommand(t, server, "logs", "x"); out != "n0 | one\nn0 (attempt 2) | two\n" {
		t.Errorf("logs:\n%s", out)
	}
	if a.askedLogs.Attempt != nil {
		t.Errorf("asked for attempt %d", a.askedLogs.GetAttempt())
	}
	if code, _, said := runCommand(t, server, "logs", "x", "--attempt", "2"); code != 0 || a.askedLogs.Attempt == nil || a.askedLogs.GetAttempt() != 1 {
		t.Errorf("asked for attempt %v (%s)", a.askedLogs.Attempt, said)
	}
}

func TestANumberThatMeansNothingIsRefused(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"logs x --attempt -1":        "counted from 1",
		"logs x --tail -1":           "number of lines",
		"get executions --limit 0":   "from 1 on",
		"get executions --limit -3":  "from 1 on",
		"get workflows --limit 0":    "from 1 on",
		"get tasks --limit 0":        "from 1 on",
		"get launch-plans --limit 0": "from 1 on",
		"cache ls --limit -3":        "from 1 on",
	} {
		if code, out, said := runCommand(t, "nowhere.invalid:1", strings.Fields(line)...); code != 2 || !strings.Contains(said, want) {
			t.Errorf("%s: exit code %d, %q %q, want %q", line, code, out, said, want)
		}
	}
}

func TestASilentRunSaysThatNothingWasWritten(t *testing.T) {
	t.Parallel()
	for _, logs := range [][]*aloftv1.GetLogsResponse{
		nil,
		{{Node: "n0", Data: []byte("\n")}}, // the empty line that flytekit writes
		{{Node: "n0"}, {Node: "n0", Data: []byte("  ")}},
	} {
		server := (&fakeServer{logs: logs}).address(t)
		if code, out, said := runCommand(t, server, "logs", "x"); code != 0 || out != "" || said != "nothing was written\n" {
			t.Errorf("%v: exit code %d, %q, %q", logs, code, out, said)
		}
		if _, _, said := runCommand(t, server, "logs", "x", "-o", "json"); said != "" {
			t.Errorf("%v: for machines: %q", logs, said)
		}
	}
}

func TestALineOfALogIsAnObjectForMachines(t *testing.T) {
	t.Parallel()
	server := (&fakeServer{logs: []*aloftv1.GetLogsResponse{
		{Node: "n0", Data: []byte("one <a>\ntw")}, {Node: "n0", Attempt: 1, Stream: aloftv1.GetLogsResponse_STDERR, Data: []byte("\xffbad\xfe\x1b[2J\n")},
		{Node: "n0", Data: []byte("o\n\nlast")},
	}}).address(t)
	want := `{"node":"n0","attempt":1,"stream":"stdout","text":"one <a>"}
{"node":"n0","attempt":2,"stream":"stderr","text":"�bad�\u001b[2J"}
{"node":"n0","attempt":1,"stream":"stdout","text":"two"}
{"node":"n0","attempt":1,"stream":"stdout","text":""}
{"node":"n0","attempt":1,"stream":"stdout","text":"last"}
`
	if code, out, said := runCommand(t, server, "logs", "x", "-o", "json"); code != 0 || out != want || said != "" {
		t.Errorf("exit code %d, %s\n%swant\n%s", code, said, out, want)
	}
}

func TestTheAddressOfAPageNamesItsServer(t *testing.T) {
	t.Parallel()
	execution := func(name string) *aloftv1.WatchExecutionResponse {
		return &aloftv1.WatchExecutionResponse{Execution: &aloftv1.ExecutionStatus{Id: &core.WorkflowExecutionIdentifier{Name: name}}}
	}
	here, there := (&fakeServer{status: execution("here")}).address(t), (&fakeServer{status: execution("there")}).address(t)
	page := "/console/projects/p/domains/d/executions/x"
	for argument, want := range map[string]string{
		"x":                             "here",
		"p/d/x":                         "here",
		page:                            "here",
		there + page:                    "there",
		there + page + "/?tab=nodes#n0": "there",
		strings.TrimPrefix(there, "http://") + page: "there",
	} {
		if code, out, said := runCommand(t, here, "status", argument); code != 0 || !strings.Contains(out, "/"+want+" ") {
			t.Errorf("%s: exit code %d, %q %q, want what %s answers", argument, code, out, said, want)
		}
	}
	for _, argument := range []string{there + "/console/projects/p", "a/b", "p//x", ""} {
		if code, out, said := runCommand(t, here, "status", argument); code != 2 {
			t.Errorf("%q: exit code %d, %q %q", argument, code, out, said)
		}
	}
	if code, _, said := runCommand(t, here, "recover", "x", there+page); code != 2 || !strings.Contains(said, "by themselves") {
		t.Errorf("executions of two servers: exit code %d, %q", code, said)
	}
}

func TestAWorkflowIsFoundByTheNameThatListsShow(t *testing.T) {
	t.Parallel()
	shown := &admin.Execution{Id: &core.WorkflowExecutionIdentifier{Name: "x"}, Closure: &admin.ExecutionClosure{WorkflowId: &core.Identifier{Name: ".flytegen.bad.fails"}}}
	a := &fakeServer{workflows: []string{"bad.chain", "bad.fails"}, executions: &admin.ExecutionList{Executions: []*admin.Execution{shown}}, only: "eq(workflow.name,.flytegen.bad.fails)"}
	server := a.address(t)
	if code, out, said := runCommand(t, server, "get", "executions", "--workflow", "bad.fails"); code != 0 || !strings.Contains(out, "x     bad.fails") {
		t.Errorf("exit code %d, %q %q", code, out, said)
	}
	if code, _, said := runCommand(t, server, "get", "executions", "--workflow", "bad.fails", "--phase", "failed"); code != 0 || !strings.HasPrefix(said, "no executions") {
		t.Errorf("that has no such execution: exit code %d, %q", code, said)
	}
	for given, meant := range map[string]string{"chain": "bad.chain", "bad.chian": "bad.chain"} {
		if code, _, said := runCommand(t, server, "get", "executions", "--workflow", given); code != 1 || !strings.Contains(said, "did you mean "+meant+"?") {
			t.Errorf("%s: exit code %d, %q", given, code, said)
		}
	}
	a.executions.Token, a.only = "more", ""
	if _, _, said := runCommand(t, server, "get", "executions"); said != "the newest 1 are shown: --limit for more\n" {
		t.Errorf("of a list that goes on it says %q", said)
	}
}

func TestAListShowsTheCauseAlsoOfAnErrorThatTheListHasCut(t *testing.T) {
	t.Parallel()
	failed := func(message string) *admin.Execution {
		return &admin.Execution{Closure: &admin.ExecutionClosure{OutputResult: &admin.ExecutionClosure_Error{Error: &core.ExecutionError{Message: message}}}}
	}
	const whole = "Trace:\n\n    Traceback (most recent call last):\n    x\n\nMessage:\n\n    TypeTransformerFailedError: Error converting input 'df':\n    Literal value: scalar {\n    }\n    Exception: no such column"
	a := &fakeServer{message: whole, executions: &admin.ExecutionList{Executions: []*admin.Execution{
		failed(("TypeTransformerFailedError: Error converting input 'df':\n    Literal value: " + strings.Repeat("x", 100))[:listedError]), failed("ValueError: bad"), failed("KeyError:"),
	}}}
	server := a.address(t)
	code, out, said := runCommand(t, server, "get", "executions")
	if code != 0 || !strings.Contains(out, "input df: no such column\n") || !strings.Contains(out, "ValueError: bad\n") || !strings.Contains(out, "KeyError\n") {
		t.Errorf("exit code %d, %s\n%s", code, said, out)
	}
	for range fewItems {
		a.executions.Executions = append(a.executions.Executions, failed("E: "+strings.Repeat("x", listedError-3)))
	}
	if _, out, _ = runCommand(t, server, "get", "executions"); strings.Count(out, "input df: no such column\n") != fewItems || strings.Count(out, "xxx…\n") != 1 {
		t.Errorf("of many: %s", out)
	}
}

func TestWhatIsNotThereIsSaidInOneWay(t *testing.T) {
	t.Parallel()
	server := (&fakeServer{executions: &admin.ExecutionList{}}).address(t)
	noProject, noDomain := "there is no project [nope]; there is p", "there is no domain [nope] in project p; there is d, e"
	for line, want := range map[string]string{
		"get executions -p nope":  noProject,
		"get executions -d nope":  noDomain,
		"status x -p nope":        noProject,
		"status x -d nope":        noDomain,
		"status nope/d/x":         noProject,
		"status p/nope/x -p nope": noDomain,
		"status x":                "execution x: not found at " + server,
		"status x -o json":        "execution x: not found at " + server,
	} {
		if code, out, said := runCommand(t, server, strings.Fields(line)...); code != 1 || said != want {
			t.Errorf("%s: exit code %d, %q %q, want %q", line, code, out, said, want)
		}
	}
	if code, _, said := runCommand(t, server, "cache", "ls", "--task", "nope"); code != 0 || !strings.HasPrefix(said, "no cached results of task nope in") {
		t.Errorf("cache ls: exit code %d, %q", code, said)
	}
}

func TestAnEmptyListSaysWhatWasAskedForAndWhereTheRestIs(t *testing.T) {
	t.Parallel()
	const place = " in project p, domain d\n"
	here := (&fakeServer{executions: &admin.ExecutionList{}, workflows: []string{"m.square"}}).address(t)
	gone := (&fakeServer{gone: true}).address(t)
	for _, c := range []struct{ server, line, want string }{
		{here, "get executions", "no executions" + place},
		{here, "get executions --phase running", "no executions with phase running" + place},
		{here, "get executions --phase failed,timed_out --workflow m.square", "no executions with phase failed or timed_out of workflow m.square" + place},
		{here, "cache ls", "no cached results" + place},
		{here, "cache ls --task m.square", "no cached results of task m.square" + place},
		{here, "cache ls --task m.squar", "no cached results of task m.squar" + place + "did you mean --task m.square?\n"},
		{here, "cache ls --task square --gone", "no cached results of task square" + place + "did you mean --task m.square?\n"},
		{gone, "cache ls --execution x", "no cached results that execution x computed" + place + "there were some, which are gone: --gone shows them, and why\n"},
	} {
		if code, out, said := runCommand(t, c.server, strings.Fields(c.line)...); code != 0 || out != "" || said != c.want {
			t.Errorf("%s: exit code %d, %q %q, want %q", c.line, code, out, said, c.want)
		}
	}
	if _, out, _ := runCommand(t, gone, "cache", "ls", "--gone"); !strings.Contains(out, "replaced") && !strings.Contains(out, "\nr ") {
		t.Errorf("with --gone: %q", out)
	}
}

func TestWhatListensAndIsNotAloftIsSaidToBeNone(t *testing.T) {
	t.Parallel()
	old, err := net.Listen("tcp", "localhost:0") // speaks HTTP/1 alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = old.Close() })
	go func() {
		for {
			connection, err := old.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				_, _ = io.WriteString(connection, "HTTP/1.0 505 HTTP Version Not Supported\r\nContent-Type: text/html\r\n\r\nno")
				_, _ = io.Copy(io.Discard, connection)
			}()
		}
	}()
	other := httptest.NewUnstartedServer(http.NotFoundHandler())
	other.Config.Protocols = new(http.Protocols)
	other.Config.Protocols.SetUnencryptedHTTP2(true)
	other.Start()
	t.Cleanup(other.Close)
	flyte, mux := httptest.NewUnstartedServer(nil), http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "12")
		w.Header().Set("Grpc-Message", "unknown service aloft.v1.RunService")
	})
	flyte.Config.Handler, flyte.Config.Protocols = mux, other.Config.Protocols
	flyte.Start()
	t.Cleanup(flyte.Close)
	aloft := (&fakeServer{}).address(t)
	for server, want := range map[string]string{
		"http://" + old.Addr().String(): "is not aloft (",
		other.URL:                       "is not aloft (",
		flyte.URL:                       "a server of Flyte's services and not aloft",
		strings.Replace(aloft, "http://", "https://", 1): "speaks no TLS",
		"localhost:1":          "no server answers at localhost:1",
		"nohost.invalid:30080": `there is no host "nohost.invalid"`,
	} {
		for _, line := range []string{"status x", "status x --follow", "logs x", "get executions", "status x -o json"} {
			if server == flyte.URL && line == "get executions" {
				continue // a service of Flyte's
			}
			code, out, said := runCommand(t, server, strings.Fields(line)...)
			if code != 1 || !strings.Contains(said, want) || out != "" {
				t.Errorf("%s at %s: exit code %d, %q %q, want %q", line, server, code, out, said, want)
			}
		}
	}
}

func TestExecutionsAreListedByThePhasesThatListsShow(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"failed":            "value_in(phase,FAILED)",
		"failed,timed-out":  "value_in(phase,FAILED;TIMED_OUT)",
		"aborted,TIMED_OUT": "value_in(phase,ABORTED;TIMED_OUT)",
		"queued":            "value_in(phase,QUEUED;UNDEFINED)", // UNDEFINED is shown as QUEUED
	} {
		a := &fakeServer{only: want, executions: &admin.ExecutionList{Executions: []*admin.Execution{{Id: &core.WorkflowExecutionIdentifier{Name: "x"}}}}}
		if code, out, said := runCommand(t, a.address(t), "get", "executions", "--phase", given); code != 0 || !strings.Contains(out, "\nx ") {
			t.Errorf("--phase %s: exit code %d, %q %q, want the filter %s", given, code, out, said, want)
		}
	}
}
