package server

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func TestMoreThanTenRetriesAndNegativeTimeoutsAreRefusedAtRegistration(t *testing.T) {
	t.Parallel()
	s := startRunning(t, testConfig(t.TempDir()))
	for name, metadata := range map[string]*core.TaskMetadata{
		"retries": {Retries: &core.RetryStrategy{Retries: 11}},
		"timeout": {Timeout: durationpb.New(-time.Second)},
	} {
		_, err := s.admin.CreateTask(t.Context(), shellTask("bad-"+name, "true", metadata))
		s.wantCode(err, connect.CodeInvalidArgument, "template.metadata."+name)
	}
	if _, err := s.admin.CreateTask(t.Context(), echoTask("echo")); err != nil {
		t.Fatal(err)
	}
	both := chain("overridden", "echo", 2) // with_overrides
	both.Spec.Template.Nodes[0].Metadata.Retries = &core.RetryStrategy{Retries: 11}
	both.Spec.Template.Nodes[1].Metadata.Timeout = durationpb.New(-time.Second)
	_, err := s.admin.CreateWorkflow(t.Context(), both)
	s.wantCode(err, connect.CodeInvalidArgument, "metadata.retries", "metadata.timeout")
	e := s.shell("ten", "true", &core.TaskMetadata{Retries: &core.RetryStrategy{Retries: 10}, Timeout: durationpb.New(0)})
	if got := s.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
		t.Errorf("ten retries and no timeout: ended %s", got)
	}
}

func TestOverridesOfANodeWinAndPoliciesPauseItsRetries(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	c.RetryPolicies = []string{"task=other backoff=1000h", "task=fail* error=Error backoff=20ms jitter=0"}
	s := startRunning(t, c)
	if _, err := s.admin.CreateTask(t.Context(), shellTask("fails", "exit 3", &core.TaskMetadata{Retries: &core.RetryStrategy{Retries: 5}})); err != nil {
		t.Fatal(err)
	}
	w := chain("overridden", "fails", 1)
	w.Spec.Template.Interface, w.Spec.Template.Outputs, w.Spec.Template.Nodes[0].Inputs = &core.TypedInterface{}, nil, nil
	w.Spec.Template.Nodes[0].Metadata.Retries = &core.RetryStrategy{Retries: 1}
	if _, err := s.admin.CreateWorkflow(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.CreateLaunchPlan(t.Context(), launchPlan("overridden", "overridden")); err != nil {
		t.Fatal(err)
	}
	e := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "overridden"), nil))
	if got := s.wait(e).GetClosure().GetError().GetCode(); got != "RetriesExhausted|Error" {
		t.Errorf("it failed with %s", got)
	}
	attempts := s.until(e, "listed", func(a []*store.Attempt) bool { return len(a) > 0 })
	if len(attempts) != 2 {
		t.Fatalf("there were %d attempts, want 2", len(attempts))
	}
	if before, next := attempts[0], attempts[1]; next.NotBefore.Sub(next.CreatedAt) != 20*time.Millisecond || next.NotBefore.UnixNano() != before.Usage.GetCharge().GetNextAt() {
		t.Errorf("the second attempt was made at %s and starts at %s; the first one says %v", next.CreatedAt, next.NotBefore, before.Usage.GetCharge())
	}
}
