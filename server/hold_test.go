package server

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

// follower is a client like flytekit: its user agent, one connection, a deadline of a minute while it waits.
type follower struct {
	t *testing.T
	service.AdminServiceClient
}

func (s *testServer) follower(userAgent string) *follower {
	s.t.Helper()
	conn, err := grpc.NewClient(s.Address, grpc.WithTransportCredentials(insecureCredentials), grpc.WithUserAgent(userAgent))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return &follower{s.t, service.NewAdminServiceClient(conn)}
}

const python = "grpc-python/1.74.0 grpc-c/48.0.0 (linux; chttp2)"

func (f *follower) start(d string) *core.WorkflowExecutionIdentifier {
	f.t.Helper()
	length, err := time.ParseDuration(d)
	if err != nil {
		f.t.Fatal(err)
	}
	_, _ = f.CreateTask(f.t.Context(), sleepTask("sleep"))
	answer, err := f.CreateExecution(f.t.Context(), execute(id(core.ResourceType_TASK, "sleep"), map[string]*core.Literal{"duration": sleepFor(length)}))
	if err != nil {
		f.t.Fatal(err)
	}
	return answer.GetId()
}

// ask calls GetExecution once, as flytekit's wait does, and returns the phase in the answer.
func (f *follower) ask(e *core.WorkflowExecutionIdentifier, deadline time.Duration) core.WorkflowExecution_Phase {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), deadline)
	defer cancel()
	got, err := f.GetExecution(ctx, &admin.WorkflowExecutionGetRequest{Id: e})
	if err != nil {
		f.t.Fatal(err)
	}
	return got.GetClosure().GetPhase()
}

func TestAClientThatWaitsIsAnsweredAtTheEnd(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	f := s.follower(python)
	e := f.start("300ms")
	if got := f.ask(e, time.Minute); got != core.WorkflowExecution_SUCCEEDED {
		t.Errorf("the one answer shows %s, want SUCCEEDED", got)
	}
}

func TestAClientThatDidNotCreateItIsHeldTheSecondTime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	e := s.follower(python).start("300ms")
	f := s.follower(python)
	if got := f.ask(e, time.Minute); got == core.WorkflowExecution_SUCCEEDED {
		t.Errorf("the first answer shows %s: it was held", got)
	}
	if got := f.ask(e, time.Minute); got != core.WorkflowExecution_SUCCEEDED {
		t.Errorf("the second answer shows %s, want SUCCEEDED", got)
	}
}

func TestNobodyElseIsHeld(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, c := range map[string]struct {
		userAgent string
		deadline  time.Duration
	}{
		"a client in Go":              {"grpc-go/1.73.0", time.Minute},
		"a question with little time": {python, 40 * time.Second},
	} {
		f := s.follower(c.userAgent)
		e := f.start("1h")
		for range 3 {
			if got := f.ask(e, c.deadline); got == core.WorkflowExecution_SUCCEEDED {
				t.Errorf("%s: %s", name, got) // that this is reached shows that the call was answered while the execution runs
			}
		}
	}
	f := s.follower(python) // without a deadline, as after a create
	got, err := f.GetExecution(t.Context(), &admin.WorkflowExecutionGetRequest{Id: f.start("1h")})
	if err != nil || got.GetClosure().GetPhase() == core.WorkflowExecution_SUCCEEDED {
		t.Errorf("without a deadline: %v, %v", got.GetClosure().GetPhase(), err)
	}
}

func TestAClientThatFollowsManyIsNotSlowed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	f := s.follower(python)
	a, b := f.start("1h"), f.start("1h")
	for range 3 { // each would take 25 s if it were held, and the test 150
		f.ask(a, time.Minute)
		f.ask(b, time.Minute)
	}
}

func TestAHeldCallIsAnsweredWhenTheClientTurnsToAnotherExecution(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	f := s.follower(python)
	a := f.start("1h")
	answered := make(chan core.WorkflowExecution_Phase)
	go func() { answered <- f.ask(a, time.Minute) }()
	for held := false; !held; { // until the call is at the server
		select {
		case got := <-answered:
			t.Fatalf("the call was answered at once: %s", got)
		default:
			held = s.api.Held() == 1
		}
	}
	f.start("1h")
	if got := <-answered; got == core.WorkflowExecution_SUCCEEDED {
		t.Errorf("answered %s", got)
	}
}

func TestAHeldCallIsAnsweredWhenAnotherExecutionHasEnded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	f := s.follower(python)
	s.wait(f.start("0s")) // an execution that has ended without the client's knowledge
	if got := f.ask(f.start("300ms"), time.Minute); got != core.WorkflowExecution_SUCCEEDED {
		t.Errorf("the answer shows %s, want SUCCEEDED: an execution that has ended is not followed", got)
	}
}

func TestAServerThatEndsAnswersHeldCalls(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	f := s.follower(python)
	a := f.start("1h")
	answered := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := f.GetExecution(ctx, &admin.WorkflowExecutionGetRequest{Id: a})
		answered <- err
	}()
	for s.api.Held() == 0 {
		select {
		case err := <-answered:
			t.Fatalf("the call was answered at once: %v", err)
		default:
		}
	}
	s.close()
	if err := <-answered; err != nil {
		t.Errorf("the held call ended in %v, want an answer", err)
	}
}

func TestThePythonClientWaitsForARunOfASecondNotForThirty(t *testing.T) {
	t.Parallel()
	interpreter := os.Getenv("ALOFT_TEST_PYTHON")
	if interpreter == "" {
		t.Skip("needs Python with flytekit: ALOFT_TEST_PYTHON")
	}
	s := newServer(t)
	if _, err := s.admin.CreateTask(t.Context(), sleepTask("sleep")); err != nil {
		t.Fatal(err)
	}
	// polls counts flytekit's calls of GetExecution: two after the create when the second is held, and flytekit never sleeps.
	script := exec.CommandContext(t.Context(), interpreter, "-c", `
import datetime, sys, time
from flytekit.configuration import Config, PlatformConfig
from flytekit.remote import FlyteRemote
import flytekit.remote.remote as module
sleeps = []
module.time.sleep = sleeps.append
r = FlyteRemote(Config(platform=PlatformConfig(endpoint=sys.argv[1], insecure=True)), default_project="flytesnacks", default_domain="development")
task = r.fetch_task(name="sleep", version="v1")
e = r.execute(task, inputs={"duration": datetime.timedelta(seconds=0.3)}, wait=True)
assert e.closure.phase == 4, e.closure.phase
assert not sleeps, sleeps
`, s.Address)
	if output, err := script.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}
