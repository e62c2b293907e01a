package cli

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
)

// brokenServer is a server whose process is killed, or whose client is interrupted, in the middle of each answer.
type brokenServer struct {
	aloftv1connect.UnimplementedRecoveryServiceHandler
	aloftv1connect.UnimplementedRunServiceHandler
	serviceconnect.UnimplementedAdminServiceHandler
	kill func()
}

func (e *brokenServer) CreateRecoveryJob(context.Context, *aloftv1.CreateRecoveryJobRequest) (*aloftv1.RecoveryJob, error) {
	return &aloftv1.RecoveryJob{Name: "recovery-x"}, nil
}

func (e *brokenServer) WatchRecoveryJob(ctx context.Context, _ *aloftv1.WatchRecoveryJobRequest, stream *connect.ServerStream[aloftv1.RecoveryJob]) error {
	_ = stream.Send(&aloftv1.RecoveryJob{Name: "recovery-x"})
	return e.end(ctx)
}

func (e *brokenServer) WatchExecution(ctx context.Context, r *aloftv1.WatchExecutionRequest, stream *connect.ServerStream[aloftv1.WatchExecutionResponse]) error {
	_ = stream.Send(&aloftv1.WatchExecutionResponse{Execution: &aloftv1.ExecutionStatus{Id: r.GetId()}})
	return e.end(ctx)
}

func (e *brokenServer) GetLogs(ctx context.Context, _ *aloftv1.GetLogsRequest, stream *connect.ServerStream[aloftv1.GetLogsResponse]) error {
	_ = stream.Send(&aloftv1.GetLogsResponse{Data: []byte("a line")})
	return e.end(ctx)
}

func (e *brokenServer) TerminateExecution(ctx context.Context, _ *admin.ExecutionTerminateRequest) (*admin.ExecutionTerminateResponse, error) {
	return nil, e.end(ctx)
}

func (e *brokenServer) end(ctx context.Context) error {
	go e.kill()
	<-ctx.Done()
	return ctx.Err()
}

func (e *brokenServer) start(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(aloftv1connect.NewRecoveryServiceHandler(e))
	mux.Handle(aloftv1connect.NewRunServiceHandler(e))
	mux.Handle(serviceconnect.NewAdminServiceHandler(e))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

func TestAServerThatGoesAwayInTheMiddleIsSaidAndHowToGoOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"recover":           {[]string{"recover", "one"}, "went away before the end. The job goes on when the server does: aloft recover show recovery-x"},
		"status":            {[]string{"status", "one", "--follow"}, "went away before the end. The execution goes on when the server does: aloft status p/d/one --follow"},
		"status for others": {[]string{"status", "one", "--follow", "-o", "json"}, "went away before the end. The execution goes on"},
		"logs":              {[]string{"logs", "one", "n0", "--follow"}, "went away before the end. The tasks go on, and their logs are kept: aloft logs one n0"},
		"terminate":         {[]string{"terminate", "one"}, "was lost before it had answered; whether it did what was asked is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &brokenServer{}
			server := e.start(t)
			e.kill = server.CloseClientConnections
			said := run(t, c.args, server.URL)
			if !strings.Contains(said, c.want) || strings.Contains(said, "envelope") {
				t.Errorf("it says:\n%s\nwant %q", said, c.want)
			}
		})
	}
}

func TestCtrlCSaysWhatGoesOnAndHowToLookAgain(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"recover one":                  "interrupted. The job goes on: aloft recover show recovery-x",
		"recover one -o json":          "interrupted. The job goes on: aloft recover show recovery-x",
		"status one --follow":          "interrupted. The execution goes on: aloft status p/d/one --follow",
		"status one --follow -o json":  "interrupted. The execution goes on: aloft status p/d/one --follow",
		"logs one n0 --follow":         "interrupted. The tasks go on, and their logs are kept: aloft logs one n0 --follow",
		"logs one n0 --follow -o json": "interrupted. The tasks go on",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			code, _, said := runCommandUntil(ctx, t, (&brokenServer{kill: cancel}).start(t).URL, strings.Fields(line)...)
			if code != 130 || !strings.Contains(said, want) {
				t.Errorf("exit code %d, %q, want %q", code, said, want)
			}
		})
	}
}

func TestHowToLookAgainNamesAServerThatIsNotTheUsualOne(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	url := (&brokenServer{kill: cancel}).start(t).URL
	if _, _, said := runCommandUntil(ctx, t, "localhost:1", "status", "one", "--follow", "--server", url); !strings.HasSuffix(said, ": aloft status p/d/one --follow --server "+url) {
		t.Errorf("it says %q", said)
	}
}

func TestCtrlCEndsWhatCanSayWhatGoesOn(t *testing.T) { //nolint:paralleltest // the test interrupts its own process
	ctx, stop := interruptible(t.Context())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
}

// run is the output of a command, with its error.
func run(t *testing.T, args []string, server string) string {
	t.Helper()
	var said bytes.Buffer
	for _, command := range Commands(Defaults{Server: server, Project: "p", Domain: "d"}) {
		if command.Name() != args[0] {
			continue
		}
		command.SetArgs(args[1:])
		command.SetOut(&said)
		command.SetErr(&said)
		command.SilenceUsage = true
		if err := command.ExecuteContext(t.Context()); err != nil {
			said.WriteString(err.Error())
		} else {
			t.Errorf("%v: no error", args)
		}
	}
	return said.String()
}
