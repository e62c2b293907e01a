package server

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery"
)

func (g *gatedWorkflow) recovery() aloftv1connect.RecoveryServiceClient {
	return aloftv1connect.NewRecoveryServiceClient(g.http, "http://"+g.Address, connect.WithGRPC())
}

// failures starts executions of each cause and waits until they have failed.
func (g *gatedWorkflow) failures(causes ...string) []*core.WorkflowExecutionIdentifier {
	g.t.Helper()
	all := make([]*core.WorkflowExecutionIdentifier, len(causes))
	for n, cause := range causes {
		all[n] = g.start(cause, int64(n))
	}
	for _, e := range all {
		g.wantEnd(e, core.WorkflowExecution_FAILED)
	}
	return all
}

// job watches a job until it is as wanted.
func (g *gatedWorkflow) job(name string, is func(*aloftv1.RecoveryJob) bool) *aloftv1.RecoveryJob {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	stream, err := g.recovery().WatchRecoveryJob(ctx, &aloftv1.WatchRecoveryJobRequest{Name: name})
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	var last *aloftv1.RecoveryJob
	for stream.Receive() {
		if last = stream.Msg(); is(last) {
			return last
		}
	}
	g.t.Fatalf("the job became %v (%v)", last, stream.Err())
	return nil
}

func over(job *aloftv1.RecoveryJob) bool {
	return job.GetPhase() == aloftv1.RecoveryJob_ENDED || job.GetPhase() == aloftv1.RecoveryJob_PAUSED
}

func everything() *aloftv1.RecoverySelection {
	return &aloftv1.RecoverySelection{Project: "flytesnacks", Domain: "development"}
}

func (g *gatedWorkflow) begin(r *aloftv1.CreateRecoveryJobRequest) *aloftv1.RecoveryJob {
	g.t.Helper()
	job, err := g.recovery().CreateRecoveryJob(g.t.Context(), r)
	if err != nil {
		g.t.Fatal(err)
	}
	return job
}

func TestABatchIsPlannedPausesAfterItsCanaryAndRecoversNothingTwice(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	c.StopTasks = false
	g := newGated(startRunning(t, c), t.TempDir())
	failed := g.failures("disk", "net", "disk", "net", "disk")

	plan, err := g.recovery().PlanRecovery(t.Context(), &aloftv1.PlanRecoveryRequest{Selection: everything(), Nodes: true})
	if err != nil {
		t.Fatal(err)
	}
	causes := map[string]uint32{}
	for _, c := range plan.GetCauses() {
		causes[c.GetMessage()[max(0, len(c.GetMessage())-14):]] = c.GetExecutions()
	}
	if len(plan.GetExecutions()) != 5 || len(causes) != 2 {
		t.Errorf("the plan has %d executions of causes %v", len(plan.GetExecutions()), plan.GetCauses())
	}
	for _, e := range plan.GetExecutions() {
		if e.GetReused() != 1 || e.GetRuns() != 1 || len(e.GetNodes()) != 2 || !e.GetNodes()[0].GetReused() || e.GetNodes()[0].GetSource() != "n0" {
			t.Errorf("the plan of %s is %v", e.GetExecution().GetName(), e)
		}
	}
	if jobs, err := g.recovery().ListRecoveryJobs(t.Context(), &aloftv1.ListRecoveryJobsRequest{}); err != nil || len(jobs.GetJobs()) != 0 {
		t.Errorf("a plan made jobs: %v, %v", jobs, err)
	}

	// Two of two causes, of which one is fixed.
	g.fix("disk")
	first := g.job(g.begin(&aloftv1.CreateRecoveryJobRequest{Selection: everything(), Canary: 2, Name: "first"}).GetName(), over)
	if n := first.GetCounts(); first.GetPhase() != aloftv1.RecoveryJob_PAUSED || n.GetSucceeded() != 1 || n.GetFailed() != 1 || n.GetWaiting() != 3 || !strings.Contains(first.GetReason(), "net is broken") {
		t.Fatalf("after the canary the job is %v", first)
	}
	// The fixed cause alone.
	selection := everything()
	selection.Error = "disk is broken"
	second := g.job(g.begin(&aloftv1.CreateRecoveryJobRequest{Selection: selection, Canary: 1, Rate: 1000, Name: "second"}).GetName(), over)
	if n := second.GetCounts(); second.GetPhase() != aloftv1.RecoveryJob_ENDED || n.GetSucceeded() != 2 || n.GetSkipped() != 1 || n.GetFailed() != 0 {
		t.Fatalf("the second job is %v", second)
	}
	// The first one goes on: two of its items have been recovered meanwhile.
	g.fix("net")
	if _, err := g.recovery().ResumeRecoveryJob(t.Context(), &aloftv1.ResumeRecoveryJobRequest{Name: "first"}); err != nil {
		t.Fatal(err)
	}
	first = g.job("first", over)
	if n := first.GetCounts(); first.GetPhase() != aloftv1.RecoveryJob_ENDED || n.GetSucceeded() != 2 || n.GetFailed() != 1 || n.GetSkipped() != 2 {
		t.Errorf("the first job ended as %v", first)
	}
	// The failed recovery of the canary is recovered in place of the execution that it recovered; all others are done.
	third := g.job(g.begin(&aloftv1.CreateRecoveryJobRequest{Selection: everything(), Name: "third"}).GetName(), over)
	if n := third.GetCounts(); n.GetSucceeded() != 1 || n.GetSkipped() != 4 || n.GetFailed() != 0 {
		t.Errorf("the third job ended as %v", third)
	}
	tries := map[string]int{}
	for n := range failed {
		tries[g.ran(int64(n))]++
	}
	if want := (map[string]int{"first second second": 4, "first second second second": 1}); !maps.Equal(tries, want) {
		t.Errorf("the tasks ran %v, want %v", tries, want)
	}
	items, err := g.recovery().GetRecoveryJob(t.Context(), &aloftv1.GetRecoveryJobRequest{Name: "third"})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items.GetItems() {
		if i.GetPhase() == aloftv1.RecoveryItem_SKIPPED && !strings.Contains(i.GetReason(), "has recovered it") {
			t.Errorf("%s was skipped because %q", i.GetExecution().GetName(), i.GetReason())
		}
	}
}

func TestWhatSucceededWithEqualInputsSinceIsSkipped(t *testing.T) {
	t.Parallel()
	g := newGated(startRunning(t, testConfig(t.TempDir())), t.TempDir())
	failed := g.failures("disk", "disk")
	g.fix("disk")
	g.wantEnd(g.start("disk", 1), core.WorkflowExecution_SUCCEEDED)
	job := g.job(g.begin(&aloftv1.CreateRecoveryJobRequest{Selection: &aloftv1.RecoverySelection{Executions: failed}}).GetName(), over)
	if n := job.GetCounts(); n.GetSucceeded() != 1 || n.GetSkipped() != 1 {
		t.Errorf("the job ended as %v", job)
	}
}

func TestAPausedJobStartsNothingAndARestartedServerGoesOn(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	c.StopTasks = false
	g := newGated(startRunning(t, c), t.TempDir())
	g.failures("disk", "disk", "disk", "disk", "disk", "disk")
	g.fix("disk")
	job := g.begin(&aloftv1.CreateRecoveryJobRequest{Selection: everything(), Rate: 0.001}) // one execution, and the next in a quarter of an hour
	job = g.job(job.GetName(), func(j *aloftv1.RecoveryJob) bool { return j.GetCounts().GetSucceeded() == 1 })
	if n := job.GetCounts(); n.GetWaiting() != 5 {
		t.Fatalf("at one in 1,000 s the job is %v", job)
	}
	paused, err := g.recovery().PauseRecoveryJob(t.Context(), &aloftv1.PauseRecoveryJobRequest{Name: job.GetName()})
	if err != nil || paused.GetPhase() != aloftv1.RecoveryJob_PAUSED {
		t.Fatalf("pause: %v, %v", paused, err)
	}
	g.close()
	again := &gatedWorkflow{startRunning(t, c), g.dir, g.plan}
	got, err := again.recovery().GetRecoveryJob(t.Context(), &aloftv1.GetRecoveryJobRequest{Name: job.GetName()})
	if err != nil || got.GetJob().GetPhase() != aloftv1.RecoveryJob_PAUSED || got.GetJob().GetCounts().GetSucceeded() != 1 || len(got.GetItems()) != 6 {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	rest := again.begin(&aloftv1.CreateRecoveryJobRequest{Selection: everything()}) // a new job need not wait for the paused one
	if n := again.job(rest.GetName(), over).GetCounts(); n.GetSucceeded() != 5 || n.GetSkipped() != 1 {
		t.Errorf("the rest ended as %v", n)
	}
}

func TestMistakesOfASelectionAreSaidAtOnce(t *testing.T) {
	t.Parallel()
	g := newGated(startRunning(t, testConfig(t.TempDir())), t.TempDir())
	g.fix("nothing")
	succeeded := g.start("nothing", 1)
	g.wantEnd(succeeded, core.WorkflowExecution_SUCCEEDED)
	running := g.sleeping(1 << 40)
	for name, c := range map[string]struct {
		selection *aloftv1.RecoverySelection
		rate      float64
		code      connect.Code
		texts     []string
	}{
		"nothing": {nil, 0, connect.CodeInvalidArgument, []string{"missing project", "missing domain"}},
		"both": {&aloftv1.RecoverySelection{Executions: []*core.WorkflowExecutionIdentifier{succeeded}, Workflow: "w", Error: "(", Phases: []core.WorkflowExecution_Phase{core.WorkflowExecution_RUNNING}}, 0,
			connect.CodeInvalidArgument, []string{"not both", "error", "RUNNING cannot be recovered"}},
		"ended or running": {&aloftv1.RecoverySelection{Executions: []*core.WorkflowExecutionIdentifier{succeeded, running}}, 0,
			connect.CodeFailedPrecondition, []string{"nothing to recover", "has not ended"}},
		"unknown":      {&aloftv1.RecoverySelection{Executions: []*core.WorkflowExecutionIdentifier{aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: "missing"}.Proto()}}, 0, connect.CodeNotFound, []string{"missing"}},
		"none match":   {everything(), 0, connect.CodeFailedPrecondition, []string{"no execution is selected"}},
		"a wrong rate": {everything(), -1, connect.CodeInvalidArgument, []string{"rate"}},
	} {
		_, err := g.recovery().CreateRecoveryJob(t.Context(), &aloftv1.CreateRecoveryJobRequest{Selection: c.selection, Rate: c.rate})
		if code(err) != c.code {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
		for _, text := range c.texts {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: got %v, want %q", name, err, text)
			}
		}
	}
	for _, call := range []func() error{
		func() error {
			_, err := g.recovery().GetRecoveryJob(t.Context(), &aloftv1.GetRecoveryJobRequest{Name: "missing"})
			return err
		},
		func() error {
			_, err := g.recovery().PauseRecoveryJob(t.Context(), &aloftv1.PauseRecoveryJobRequest{Name: "missing"})
			return err
		},
		func() error {
			_, err := g.recovery().ResumeRecoveryJob(t.Context(), &aloftv1.ResumeRecoveryJobRequest{Name: "missing"})
			return err
		},
	} {
		g.wantCode(call(), connect.CodeNotFound, "recovery job missing")
	}
	if _, err := g.admin.TerminateExecution(t.Context(), &admin.ExecutionTerminateRequest{Id: running}); err != nil {
		t.Fatal(err)
	}
}

// An execution that a job has started is terminated just as it succeeds: if the termination was acknowledged it ends as
// ABORTED, and the job says so.
func TestAnAcknowledgedTerminationOfARecoveryEndsInAborted(t *testing.T) {
	t.Parallel()
	g := newGated(startRunning(t, testConfig(t.TempDir())), t.TempDir())
	failed := g.failures("disk", "disk", "disk", "disk", "disk", "disk")
	g.fix("disk")
	job := g.begin(&aloftv1.CreateRecoveryJobRequest{Selection: everything()})
	accepted := map[string]bool{}
	for _, e := range failed {
		name := recovery.RecoveryName(aloft.ExecutionIDOf(e))
		id := &core.WorkflowExecutionIdentifier{Project: e.GetProject(), Domain: e.GetDomain(), Name: name}
		for { // from the moment that it exists on, at several moments of its life
			_, err := g.admin.TerminateExecution(t.Context(), &admin.ExecutionTerminateRequest{Id: id, Cause: "enough"})
			code := connect.CodeOf(err)
			if err != nil && code != connect.CodeNotFound && code != connect.CodeFailedPrecondition {
				t.Fatal(err)
			}
			if err != nil && code == connect.CodeNotFound {
				time.Sleep(time.Millisecond) //nolint:forbidigo // until the job has created it
				continue
			}
			accepted[name] = err == nil
			break
		}
	}
	g.job(job.GetName(), over)
	answer, err := g.recovery().GetRecoveryJob(t.Context(), &aloftv1.GetRecoveryJobRequest{Name: job.GetName()})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range answer.GetItems() {
		phase, item := core.WorkflowExecution_SUCCEEDED, aloftv1.RecoveryItem_SUCCEEDED
		if accepted[i.GetRecovery().GetName()] {
			phase, item = core.WorkflowExecution_ABORTED, aloftv1.RecoveryItem_FAILED
		}
		g.wantEnd(i.GetRecovery(), phase)
		if i.GetPhase() != item {
			t.Errorf("the recovery %s is %s (%s), want %s", i.GetRecovery().GetName(), i.GetPhase(), i.GetReason(), item)
		}
	}
}
