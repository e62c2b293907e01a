package server

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/config"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// shellTask runs a script as a process of this machine.
func shellTask(name, script string, metadata *core.TaskMetadata) *admin.TaskCreateRequest {
	return &admin.TaskCreateRequest{Id: id(core.ResourceType_TASK, name), Spec: &admin.TaskSpec{Template: &core.TaskTemplate{
		Id: id(core.ResourceType_TASK, name), Type: "container", Metadata: metadata, Interface: &core.TypedInterface{},
		Target: &core.TaskTemplate_Container{Container: &core.Container{Image: "none", Command: []string{"/bin/sh", "-c", script}}},
	}}}
}

// startRunning starts a server with an executor.
func startRunning(t *testing.T, c config.Config) *testServer {
	t.Helper()
	return startWith(t, c, []string{os.Args[0], "worker"})
}

// shell registers a script and runs it.
func (s *testServer) shell(name, script string, metadata *core.TaskMetadata) *core.WorkflowExecutionIdentifier {
	s.t.Helper()
	if _, err := s.admin.CreateTask(s.t.Context(), shellTask(name, script, metadata)); err != nil {
		s.t.Fatalf("create task: %v", err)
	}
	return s.create(execute(id(core.ResourceType_TASK, name), nil))
}

// until waits until the attempts of an execution are as wanted, without polling.
func (s *testServer) until(e *core.WorkflowExecutionIdentifier, what string, is func([]*store.Attempt) bool) []*store.Attempt {
	s.t.Helper()
	wake, cancel := s.store.Subscribe(store.TopicExecution(aloft.ExecutionIDOf(e)))
	defer cancel()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		attempts, err := s.store.ListAttempts(s.t.Context(), aloft.ExecutionIDOf(e), "", store.Query{Ascending: true})
		if err != nil {
			s.t.Fatal(err)
		}
		if is(attempts) {
			return attempts
		}
		select {
		case <-wake:
		case <-timeout.C:
			s.t.Fatalf("after a minute: not %s", what)
		}
	}
}

// hanging is a script that never ends, with two children, of which one has left its session. It writes their process ids to a file.
func hanging(file string) string {
	return `echo $$ >>` + file + `; sleep 1000 & echo $! >>` + file + `; setsid sleep 1000 & echo $! >>` + file + `; echo hangs >>` + file + `; wait; sleep 1000`
}

func alive(t *testing.T, file string) (pids, living []int) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.FieldsSeq(string(content)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			continue
		}
		pids = append(pids, pid)
		if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			living = append(living, pid)
		}
	}
	return pids, living
}

func TestATaskThatHangsIsEndedWithAllItsProcessesAndRetried(t *testing.T) {
	t.Parallel()
	s := startRunning(t, testConfig(t.TempDir()))
	file := filepath.Join(t.TempDir(), "pids")
	e := s.shell("hangs", hanging(file), &core.TaskMetadata{Timeout: durationpb.New(time.Second), Retries: &core.RetryStrategy{Retries: 1}})
	closure := s.wait(e).GetClosure()
	if got := closure.GetError(); closure.GetPhase() != core.WorkflowExecution_FAILED || got.GetCode() != "RetriesExhausted|TimeoutExpired" ||
		got.GetKind() != core.ExecutionError_USER || !strings.Contains(got.GetMessage(), "task execution timeout [1s] expired") {
		t.Errorf("the execution ended %s with %v", closure.GetPhase(), got)
	}
	attempts := s.until(e, "listed", func(a []*store.Attempt) bool { return len(a) > 0 })
	if len(attempts) != 2 {
		t.Fatalf("there were %d attempts, want 2", len(attempts))
	}
	for i, a := range attempts {
		c := a.Usage.GetCharge()
		if c.GetBudget() != aloftv1.AttemptEnded_USER || c.GetRetriesUsed() != 1 || c.GetRetriesAllowed() != 1 || (c.GetNextAt() != 0) != (i == 0) {
			t.Errorf("attempt %d says of its budget %v", a.Attempt, c)
		}
	}
	pids, living := alive(t, file)
	if len(pids) != 6 || len(living) != 0 {
		t.Errorf("of %d processes (want 6) these are alive: %v", len(pids), living)
	}
}

func TestADeadlineSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "pids")
	c := testConfig(dir)
	c.TaskTimeout = "2s" // the task states none
	running := c
	running.StopTasks = false
	first := startRunning(t, running)
	e := first.shell("hangs", hanging(file), &core.TaskMetadata{Retries: &core.RetryStrategy{}})
	first.until(e, "running", func(a []*store.Attempt) bool { return len(a) == 1 && a[0].Phase == core.TaskExecution_RUNNING })
	first.close()
	if _, living := alive(t, file); len(living) == 0 {
		t.Fatal("the task ended with its server")
	}
	c.TaskTimeout = "1000h" // the timeout that was decided when the attempt began holds
	second := startRunning(t, c)
	closure := second.wait(e).GetClosure()
	if got := closure.GetError().GetCode(); got != "RetriesExhausted|TimeoutExpired" {
		t.Errorf("the execution ended %s with %v", closure.GetPhase(), closure.GetError())
	}
	if _, living := alive(t, file); len(living) != 0 {
		t.Errorf("these processes are alive: %v", living)
	}
	attempts, err := second.store.ListAttempts(t.Context(), aloft.ExecutionIDOf(e), "", store.Query{})
	if err != nil || len(attempts) != 1 {
		t.Errorf("there were %d attempts (%v), want the one that was found again", len(attempts), err)
	}
}
