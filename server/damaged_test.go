package server

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	_ "modernc.org/sqlite"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Rows of each kind are damaged between two starts of a server: calls about them say so, with the way out, and calls about
// other rows work as before.
func TestDamagedRowsCostThemselvesAlone(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	s := start(t, c)
	s.registerChain("good", 2)
	s.registerChain("bad", 2)
	asleep, other := s.sleeping(time.Hour), s.sleeping(2*time.Hour)
	s.close()

	db, err := sql.Open("sqlite", filepath.Join(c.DataDir, "aloft.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"UPDATE tasks SET compiled = x'ff' WHERE name = 'bad'",
		"UPDATE workflows SET compiled = x'ff', summary = x'ff' WHERE name = 'bad'",
		"UPDATE launch_plans SET spec = x'ff' WHERE name = 'bad'",
		"UPDATE execution_specs SET spec = x'ff' WHERE execution = (SELECT number FROM executions WHERE name = '" + asleep.GetName() + "')",
		"UPDATE executions SET due_at = 1 WHERE name = '" + asleep.GetName() + "'",
		"INSERT INTO recovery_jobs (name, project, domain, ended, version, owner, expires, record) VALUES ('broken', 'flytesnacks', 'development', 0, 1, '', 0, x'ff')",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	s = start(t, c)
	ctx, where := t.Context(), &admin.ResourceListRequest{Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}, Limit: 100}
	notes := map[string]string{}
	tasks, err := s.admin.ListTasks(ctx, where)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range tasks.GetTasks() {
		notes["task "+v.GetId().GetName()] = v.GetShortDescription()
	}
	workflows, err := s.admin.ListWorkflows(ctx, where)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range workflows.GetWorkflows() {
		notes["workflow "+v.GetId().GetName()] = v.GetShortDescription()
	}
	plans, err := s.admin.ListLaunchPlans(ctx, where)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range plans.GetLaunchPlans() {
		notes["plan "+v.GetId().GetName()] = v.GetSpec().GetAnnotations().GetValues()["aloft/spec"]
	}
	for _, kind := range []string{"task", "workflow", "plan"} {
		good, listed := notes[kind+" good"]
		if !listed || good != "" || !strings.Contains(notes[kind+" bad"], "Register the same version again") {
			t.Errorf("of %ss the list says %v", kind, notes)
		}
	}
	run := func(name string) (*core.WorkflowExecutionIdentifier, error) {
		e, err := s.admin.CreateExecution(ctx, execute(id(core.ResourceType_LAUNCH_PLAN, name), map[string]*core.Literal{"x": integer(1)}))
		return e.GetId(), err
	}
	succeeds := func(name string) {
		t.Helper()
		e, err := run(name)
		if err != nil {
			t.Fatalf("run %s: %v", name, err)
		}
		if phase := s.wait(e).GetClosure().GetPhase(); phase != core.WorkflowExecution_SUCCEEDED {
			t.Errorf("the run of %s ended %s", name, phase)
		}
	}
	succeeds("good")
	_, err = run("bad")
	s.wantCode(err, connect.CodeDataLoss, "Register the same version again")
	for what, again := range map[string]func() error{
		"task":     func() error { _, err := s.admin.CreateTask(ctx, echoTask("bad")); return err },
		"workflow": func() error { _, err := s.admin.CreateWorkflow(ctx, chain("bad", "good", 2)); return err },
	} {
		if err := again(); what == "task" {
			s.wantCode(err, connect.CodeAlreadyExists)
		} else { // it is another one
			s.wantCode(err, connect.CodeDataLoss)
		}
	}
	_, err = s.admin.CreateWorkflow(ctx, chain("bad", "bad", 2))
	s.wantCode(err, connect.CodeAlreadyExists)
	_, err = s.admin.CreateLaunchPlan(ctx, launchPlan("bad", "bad"))
	s.wantCode(err, connect.CodeAlreadyExists)
	succeeds("bad")

	// The execution that cannot be read waits, and says so in each call.
	info := aloftv1connect.NewServerServiceClient(s.http, "http://"+s.Address, connect.WithGRPC())
	s.until(asleep, "an execution that waits by name", func([]*store.Attempt) bool {
		answer, err := info.GetServerInfo(ctx, &aloftv1.GetServerInfoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if answer.GetCounts().GetWaiting() == 0 {
			return false
		}
		n, w := answer.GetCounts(), answer.GetWaits()
		if n.GetWaiting() != 1 || n.GetWaits() != 1 || n.GetStuck() != 0 || len(w) != 1 ||
			w[0].GetId().GetName() != asleep.GetName() || !strings.Contains(w[0].GetReason(), "aloft terminate ends it") {
			t.Errorf("the server counts %v and names %v", n, w)
		}
		return true
	})
	_, err = s.admin.GetExecution(ctx, &admin.WorkflowExecutionGetRequest{Id: asleep})
	s.wantCode(err, connect.CodeDataLoss, "aloft terminate -p flytesnacks -d development "+asleep.GetName()+" ends it")
	executions, err := s.admin.ListExecutions(ctx, where)
	if err != nil || len(executions.GetExecutions()) < 4 {
		t.Errorf("listed are %v (%v)", executions, err)
	}
	for _, e := range []*core.WorkflowExecutionIdentifier{asleep, other} {
		if _, err := s.admin.TerminateExecution(ctx, &admin.ExecutionTerminateRequest{Id: e, Cause: "enough"}); err != nil {
			t.Errorf("terminate %s: %v", e.GetName(), err)
		}
	}
	s.wait(other)
	s.until(asleep, "the end of all executions", func([]*store.Attempt) bool {
		counts, err := s.store.Counts(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return counts.Running == 0 && counts.Waits == 0
	})

	jobs := aloftv1connect.NewRecoveryServiceClient(s.http, "http://"+s.Address, connect.WithGRPC())
	list, err := jobs.ListRecoveryJobs(ctx, &aloftv1.ListRecoveryJobsRequest{})
	if err != nil || len(list.GetJobs()) != 1 || list.GetJobs()[0].GetPhase() != aloftv1.RecoveryJob_PAUSED {
		t.Fatalf("the recovery jobs are %v (%v)", list, err)
	}
	_, err = jobs.ResumeRecoveryJob(ctx, &aloftv1.ResumeRecoveryJobRequest{Name: "broken"})
	s.wantCode(err, connect.CodeDataLoss, "aloft recover rm broken")
	if _, err := jobs.RemoveRecoveryJob(ctx, &aloftv1.RemoveRecoveryJobRequest{Name: "broken"}); err != nil {
		t.Error(err)
	}
	_, err = jobs.GetRecoveryJob(ctx, &aloftv1.GetRecoveryJobRequest{Name: "broken"})
	s.wantCode(err, connect.CodeNotFound)
}
