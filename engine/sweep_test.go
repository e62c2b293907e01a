package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
	"github.com/aloft-dev/aloft/store/storetest"
)

// TestEachCallFailsOnceInEachModeAndTheRunEndsAlike makes the same run again and again: executions with a nested workflow,
// tasks of the engine and of an executor, a task whose result two executions share, a retry and a termination. Each time one
// call of the store or of the blobs, by client, engine or executor, fails: before it was done, after it was done, or with half
// of its members done. The run must end as the undisturbed one, with as many attempts: nothing is lost and nothing done again.
func TestEachCallFailsOnceInEachModeAndTheRunEndsAlike(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		sweep(t, sqlstore.Options{Path: filepath.Join(t.TempDir(), "aloft.db")})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		sweep(t, sqlstore.Options{URL: postgrestest.Database(t)})
	})
}

func sweep(t *testing.T, o sqlstore.Options) {
	s, err := sqlstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	inner := workflow{
		name: "inner", inputs: map[string]core.SimpleType{"y": core.SimpleType_STRING}, tasks: []*core.TaskTemplate{runTask},
		nodes:   []*core.Node{taskNode("r", runTask, map[string]*core.BindingData{"x": promise(aloft.StartNode, "y")})},
		outputs: map[string]*core.BindingData{"z": promise("r", "o0")},
	}
	retried := task("retried", "python-task", map[string]core.SimpleType{"x": core.SimpleType_STRING}, map[string]core.SimpleType{"o0": core.SimpleType_STRING})
	retried.Metadata.Retries = &core.RetryStrategy{Retries: 1}
	cached := task("cached", "python-task", map[string]core.SimpleType{"x": core.SimpleType_STRING}, map[string]core.SimpleType{"o0": core.SimpleType_STRING})
	cached.Metadata = &core.TaskMetadata{Discoverable: true, DiscoveryVersion: "1", CacheSerializable: true}
	w := workflow{
		name: "swept", inputs: map[string]core.SimpleType{"in": core.SimpleType_STRING, "key": core.SimpleType_STRING},
		tasks: []*core.TaskTemplate{echoTask, retried, sleepTask, cached},
		nodes: []*core.Node{
			taskNode("echo", echoTask, map[string]*core.BindingData{"x": promise(aloft.StartNode, "in")}),
			taskNode("retried", retried, map[string]*core.BindingData{"x": promise("echo", "o0")}),
			workflowNode("sub", inner, map[string]*core.BindingData{"y": promise("echo", "o0")}),
			sleepNode("sleep", time.Second, "retried"),
			taskNode("cached", cached, map[string]*core.BindingData{"x": promise(aloft.StartNode, "key")}),
		},
		outputs: map[string]*core.BindingData{"out": promise("sub", "z"), "again": promise("retried", "o0")},
	}
	if err := s.CreateWorkflow(t.Context(), &store.Workflow{ID: identifier(core.ResourceType_WORKFLOW, w.name), Compiled: w.compiled(inner)}); err != nil {
		t.Fatal(err)
	}
	blobs, err := folder.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	clean := &sweepRun{TB: t, store: s, blobs: blobs, workflow: w, name: "clean"}
	want := clean.run(t)
	for _, sign := range []string{"SUCCEEDED", "ABORTED", "retried/1 SUCCEEDED", "nothing else"} {
		if !strings.Contains(want+"nothing else", sign) {
			t.Fatalf("the undisturbed run has no %q:\n%s", sign, want)
		}
	}
	every := 1
	if testing.Short() {
		every = 7
	}
	struck := map[string]int{}
	for _, mode := range []struct {
		name  string
		fault store.Fault
	}{{"before", store.FailBefore}, {"after", store.FailAfter}, {"partly", store.FailPartly}} {
		for at := 0; at < len(clean.calls); at += every {
			r := &sweepRun{TB: t, store: s, blobs: blobs, workflow: w, name: fmt.Sprintf("%s%d", mode.name, at), fault: mode.fault, at: at}
			if got := r.run(t); got != want {
				t.Fatalf("call %d (%s) failed %s, and the run ended\n%s\nwithout that\n%s", at, r.struck, mode.name, got, want)
			}
			struck[r.struck]++
		}
	}
	t.Logf("%d calls, each in three modes: %v", len(clean.calls), struck)
	for _, op := range []string{"CreateExecution", "Append", "AcquireShards", "ReleaseShards", "Inbox", "Due", "Load", "GetWorkflow", "Commit", "Heartbeat",
		"Instances", "Waiting", "Assign", "Assigned", "Report", "NodeOutputs", "FindResult", "Reserve", "WriteLiterals", "ReadLiterals"} {
		if every == 1 && struck[op] == 0 {
			t.Errorf("%s was never struck", op)
		}
	}
	if stuck, err := s.Stuck(t.Context(), 0); err != nil || len(stuck) > 0 {
		t.Errorf("stuck executions: %v (%v)", stuck, err)
	}
}

// sweepRun is one run of the sweep.
type sweepRun struct {
	testing.TB
	store    *sqlstore.Store
	blobs    *folder.Store
	workflow workflow
	name     string // begins the names of its executions
	fault    store.Fault
	at       int // the number of the call that fails

	calls  []string
	struck string
	clock  *handClock
	values *faultyLiterals
	ended  map[store.AttemptKey]bool
}

// strike says how a call goes. Every call asks it.
func (r *sweepRun) strike(op string) store.Fault {
	r.calls = append(r.calls, op)
	if r.fault == store.NoFault || len(r.calls)-1 != r.at {
		return store.NoFault
	}
	r.struck = op
	return r.fault
}

// faultyLiterals are literals that fail as the store does.
type faultyLiterals struct {
	*objects
	faults store.Faults
}

func (l *faultyLiterals) WriteLiterals(ctx context.Context, m *core.LiteralMap) (ref *aloftv1.Literals, err error) {
	err = l.faults.Do("WriteLiterals", func() (err error) { ref, err = l.objects.WriteLiterals(ctx, m); return err })
	return ref, err
}

func (l *faultyLiterals) ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (m *core.LiteralMap, err error) {
	err = l.faults.Do("ReadLiterals", func() (err error) { m, err = l.objects.ReadLiterals(ctx, ref); return err })
	return m, err
}

// untilKnown repeats a call as long as its outcome is unknown.
func (r *sweepRun) untilKnown(call func() error) error {
	for {
		if err := call(); !errors.Is(err, aloft.ErrUnavailable) {
			return err
		}
	}
}

// run makes the run and returns its summary.
func (r *sweepRun) run(t *testing.T) string {
	t.Helper()
	r.clock, r.ended = newHandClock(), map[store.AttemptKey]bool{}
	faulty := &storetest.Faulty{Store: r.store, Faults: r.strike}
	r.values = &faultyLiterals{objects: &objects{limit: 64, byURI: map[string]*core.LiteralMap{}}, faults: r.strike}
	results := &catalog.Catalog{Store: faulty, Blob: r.blobs, Now: r.clock.Now}
	e := engine.New(engine.Config{Store: faulty, Literals: r.values, Owner: r.name, Clock: r.clock, Catalog: results, Logger: slog.New(slog.DiscardHandler), CacheLiterals: 1})
	ids := []aloft.ExecutionID{r.create(faulty, "a"), r.create(faulty, "b"), r.create(faulty, "terminated")}
	allEnded := func() bool {
		for _, id := range ids {
			if rec, err := r.store.GetExecution(t.Context(), id); err != nil || !aloft.Terminal(rec.Phase) {
				return false
			}
		}
		return true
	}
	terminated := false
	for range 300 {
		if allEnded() {
			break
		}
		if _, err := e.Pass(t.Context()); err != nil && !errors.Is(err, aloft.ErrUnavailable) {
			t.Fatalf("pass: %v", err)
		}
		if rec, err := r.store.GetExecution(t.Context(), ids[2]); err == nil && rec.Phase == core.WorkflowExecution_RUNNING && !terminated {
			terminated = true
			if err := r.untilKnown(func() error {
				return faulty.Append(t.Context(), ids[2], store.Message{Dedup: store.TerminateDedup, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{Cause: "enough"}}}})
			}); err != nil {
				t.Fatal(err)
			}
		}
		r.execute(faulty)
		r.clock.advance(250 * time.Millisecond)
	}
	if err := r.untilKnown(func() error { return faulty.ReleaseShards(t.Context(), r.name) }); err != nil {
		t.Fatal(err)
	}
	if err := r.store.RemoveInstance(t.Context(), "x-"+r.name); err != nil {
		t.Fatal(err)
	}
	return r.summary(ids)
}

func (r *sweepRun) create(s store.Store, which string) aloft.ExecutionID {
	id := aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: r.name + "-" + which}
	key := r.name // two executions of the run have the same, and share a result
	if which == "terminated" {
		key = id.Name
	}
	inputs, err := r.values.objects.WriteLiterals(r.Context(), texts(map[string]string{"in": "hello " + which, "key": key}))
	if err != nil {
		r.Fatal(err)
	}
	now := r.clock.Now()
	record := &store.Execution{ID: id, Spec: &admin.ExecutionSpec{}, Workflow: identifier(core.ResourceType_WORKFLOW, r.workflow.name), Inputs: inputs, CreatedAt: now, UpdatedAt: now}
	create := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{Workflow: record.Workflow, Inputs: inputs.GetRef(), Seed: which}}}
	if err := r.untilKnown(func() error { return s.CreateExecution(r.Context(), record, create) }); err != nil {
		r.Fatal(err)
	}
	return id
}

// execute is one pass of an executor. What the store does not take now is tried again in the next one.
func (r *sweepRun) execute(s store.Store) {
	ctx, now, self := r.Context(), r.clock.Now(), "x-"+r.name
	if s.Heartbeat(ctx, store.Instance{ID: self, Kind: "process", Place: r.name, SeenAt: now, Expires: now.Add(time.Minute)}) != nil {
		return
	}
	waiting, err := s.Waiting(ctx, now, 0)
	if err != nil {
		return
	}
	var keys []store.AttemptKey
	for _, a := range waiting {
		keys = append(keys, a.AttemptKey)
	}
	if len(keys) > 0 {
		_ = s.Assign(ctx, self, "", keys, now)
	}
	assigned, err := s.Assigned(ctx, self)
	if err != nil {
		return
	}
	var reports []store.Report
	for _, a := range assigned {
		if a.ID.Execution.Name == r.name+"-terminated" && a.Stop == "" {
			continue // its task runs until it is stopped
		}
		outcome := &aloftv1.Outcome{Node: string(a.Node), Attempt: a.Attempt, Token: a.Token, StartedAt: now.UnixNano(), EndedAt: now.UnixNano()}
		switch {
		case a.Stop != "":
			outcome.Result = &aloftv1.Outcome_Stopped{Stopped: a.Stop}
		case a.Node == "retried" && a.Attempt == 0:
			outcome.Result = &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{Error: &core.ExecutionError{Code: "USER:Again", Message: "not yet", Kind: core.ExecutionError_USER}, Recoverable: true}}
		case a.Node == "cached":
			outputs, err := r.values.WriteLiterals(ctx, texts(map[string]string{"o0": "computed once"}))
			if err != nil {
				continue
			}
			outcome.Result = &aloftv1.Outcome_Outputs{Outputs: outputs}
		default:
			outputs, err := r.values.WriteLiterals(ctx, texts(map[string]string{"o0": fmt.Sprintf("%s of %s, %s", a.Node, a.ID.Execution.Name[len(r.name):], strings.Repeat("at length ", int(a.Attempt)*9))}))
			if err != nil {
				continue
			}
			outcome.Result = &aloftv1.Outcome_Outputs{Outputs: outputs}
		}
		reports = append(reports, store.Report{Attempt: a.AttemptKey, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: outcome}}})
	}
	if len(reports) > 0 {
		_ = s.Report(ctx, self, reports)
	}
}

// summary is how everything ended in the run, without its name and its times.
func (r *sweepRun) summary(ids []aloft.ExecutionID) string {
	r.Helper()
	var lines []string
	for _, id := range ids {
		rec, err := r.store.GetExecution(r.Context(), id)
		if err != nil {
			r.Fatal(err)
		}
		which := strings.TrimPrefix(id.Name, r.name+"-")
		lines = append(lines, fmt.Sprintf("%s %s %x", which, rec.Phase, rec.Outputs.GetRef().GetDigest()))
		nodes, err := r.store.ListNodes(r.Context(), id, "", true, store.Query{})
		if err != nil {
			r.Fatal(err)
		}
		for _, n := range nodes {
			outputs, err := r.store.NodeOutputs(r.Context(), rec.Key, n.ID)
			if err != nil && !errors.Is(err, aloft.ErrNotFound) {
				r.Fatal(err)
			}
			if n.ID == aloft.StartNode {
				outputs = nil // the input key differs from run to run
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %x", which, n.ID, n.Phase, outputs.GetRef().GetDigest()))
		}
		attempts, err := r.store.ListAttempts(r.Context(), id, "", store.Query{})
		if err != nil {
			r.Fatal(err)
		}
		for _, a := range attempts {
			who := which
			if a.Node == "cached" && which != "terminated" {
				who = "one of them" // the first of the two executions computes for both
			}
			lines = append(lines, fmt.Sprintf("%s %s/%d %s", who, a.Node, a.Attempt, a.Phase))
		}
		_, journal, err := storetest.Load(r.Context(), r.store, rec.Key)
		if err != nil {
			r.Fatal(err)
		}
		succeeded := map[uint32]bool{}
		for _, row := range journal {
			for _, event := range row.Entry.GetEvents() {
				if k := event.GetNodeSucceeded(); k != nil {
					if succeeded[k.GetNode()] {
						lines = append(lines, fmt.Sprintf("%s: node %d has succeeded twice", which, k.GetNode()))
					}
					succeeded[k.GetNode()] = true
				}
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
