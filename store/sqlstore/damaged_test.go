package sqlstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/storetest"
)

// filled is a store with two records of each kind, whose ids differ only in "a" and "b", and which have every message set.
func filled(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	ctx, at := t.Context(), time.Unix(1, 0).UTC()
	leases, err := s.AcquireShards(ctx, "engine", at, time.Hour)
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	values := &aloftv1.Literals{Ref: &aloftv1.LiteralRef{Digest: make([]byte, 32), Size: 1}, Value: &core.LiteralMap{Literals: map[string]*core.Literal{"x": {Hash: "x"}}}}
	failure := &core.ExecutionError{Code: "Bad", Message: "it is"}
	for _, name := range []string{"a", "b"} {
		task, workflow, plan := damagedVersion(core.ResourceType_TASK, name), damagedVersion(core.ResourceType_WORKFLOW, name), damagedVersion(core.ResourceType_LAUNCH_PLAN, name)
		description := &admin.DescriptionEntity{ShortDescription: "text"}
		must(
			s.CreateProject(ctx, &admin.Project{Id: name, Name: name, Labels: &admin.Labels{Values: map[string]string{"x": "y"}}}),
			s.CreateTask(ctx, taskOf(name)),
			s.CreateWorkflow(ctx, &store.Workflow{ID: workflow, Digest: []byte{1}, CreatedAt: at, Description: description,
				Compiled: &core.CompiledWorkflowClosure{Primary: &core.CompiledWorkflow{Template: &core.WorkflowTemplate{Id: workflow}}}}),
			s.CreateLaunchPlan(ctx, &store.LaunchPlan{ID: plan, Digest: []byte{1}, CreatedAt: at, Spec: &admin.LaunchPlanSpec{WorkflowId: workflow},
				Closure: &admin.LaunchPlanClosure{State: admin.LaunchPlanState_ACTIVE}}),
		)
		e := &store.Execution{ID: damagedID(name), Workflow: workflow, Task: task, CreatedAt: at, UpdatedAt: at, Inputs: values, UserInputs: values, Outputs: values,
			Error: failure, Phase: core.WorkflowExecution_RUNNING, Notifications: []*admin.Notification{{Phases: []core.WorkflowExecution_Phase{1}}},
			Spec: &admin.ExecutionSpec{LaunchPlan: plan, Metadata: &admin.ExecutionMetadata{Mode: admin.ExecutionMetadata_RECOVERED,
				ReferenceExecution: damagedID("of-" + name).Proto()}}}
		must(s.CreateExecution(ctx, e, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{Seed: name}}}))
		lookup := &aloftv1.CacheLookup{Reason: "none"}
		id := aloft.AttemptID{Execution: e.ID, Node: "n0"}
		step := &store.Step{Execution: e.Key, ID: e.ID, Seq: 1, CommitID: name, Lease: leases[e.Shard],
			Entry: &aloftv1.JournalEntry{Events: []*aloftv1.Event{{At: 1}}},
			Nodes: []*store.Node{{ID: "n0", Phase: core.NodeExecution_RUNNING, CreatedAt: at, UpdatedAt: at, Error: failure, Target: task,
				Metadata: &admin.TaskNodeMetadata{CheckpointUri: "x"}, Inputs: values, Outputs: values, Cache: lookup}},
			Attempts: []*store.Attempt{{AttemptKey: store.AttemptKey{Execution: e.Key, Node: "n0", Token: name}, ID: id, Phase: core.TaskExecution_QUEUED,
				CreatedAt: at, UpdatedAt: at, Error: failure, Outputs: values.Ref, Objects: []*aloftv1.ObjectDigest{{Uri: "x"}},
				Usage: &aloftv1.AttemptUsage{Checkpoint: "x"}, Spec: &aloftv1.AttemptSpec{Workflow: workflow, Task: task}}},
			Results: []*store.Result{{ResultID: damagedResult(name), ID: name, Outputs: values, Objects: []*aloftv1.ObjectDigest{{Uri: "x"}}, CreatedAt: at,
				Key: &aloftv1.CacheKey{CacheVersion: "1"}, Metadata: map[string]string{"x": "y"}, Dataset: map[string]string{"x": "y"}}},
			Change: &store.ExecutionChange{Phase: core.WorkflowExecution_RUNNING, StartedAt: at, UpdatedAt: at, Error: failure, Outputs: values},
		}
		must(s.Commit(ctx, []*store.Step{step})...)
		must(s.Append(ctx, e.ID, store.Message{Dedup: "wake", Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: "x"}}}}))
		job := &aloftv1.RecoveryJob{Name: name, Phase: aloftv1.RecoveryJob_RUNNING, Selection: &aloftv1.RecoverySelection{Project: "p", Domain: "d"}}
		must(s.CreateRecoveryJob(ctx, job, []*aloftv1.RecoveryItem{{Execution: e.ID.Proto()}, {Position: 1, Execution: e.ID.Proto()}}))
	}
	return s
}

func damagedID(name string) aloft.ExecutionID {
	return aloft.ExecutionID{Project: "p", Domain: "d", Name: name}
}

func damagedResult(name string) store.ResultID {
	return store.ResultID{Project: "p", Domain: "d", Name: "of " + name, Version: "v", Tag: "t"}
}

func damagedVersion(kind core.ResourceType, name string) *core.Identifier {
	return &core.Identifier{ResourceType: kind, Project: "p", Domain: "d", Name: name, Version: "v"}
}

func taskOf(name string) *store.Task {
	id := damagedVersion(core.ResourceType_TASK, name)
	return &store.Task{ID: id, Digest: []byte{1}, CreatedAt: time.Unix(1, 0).UTC(), Description: &admin.DescriptionEntity{ShortDescription: "text"},
		Compiled: &core.CompiledTask{Template: &core.TaskTemplate{Id: id, Type: "python-task"}}}
}

// digests are columns with bytes that are no messages.
var digests = []string{"tasks.digest", "workflows.digest", "launch_plans.digest", "execution_specs.inputs_digest"}

// messageColumns are all columns of all tables that hold messages.
func messageColumns(t *testing.T, s *Store) (columns []string) {
	t.Helper()
	if err := s.read(t.Context(), false, `SELECT m.name || '.' || c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND c.type = 'BLOB' ORDER BY 1`, nil, func(scan scan) error {
		var column string
		err := scan(&column)
		columns = append(columns, column)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(columns, func(c string) bool { return slices.Contains(digests, c) })
}

// firstOf is the condition for one row of each table.
var firstOf = map[string]string{
	"attempts": "execution = 1", "datasets": "name = 'of a'", "execution_specs": "execution = 1", "executions": "number = 1", "inbox": "number = 1",
	"journal": "execution = 1", "launch_plans": "name = 'a'", "nodes": "execution = 1", "projects": "id = 'a'",
	"recovery_items": "job = 1 AND position = 0", "recovery_jobs": "number = 1", "results": "id = 'a'", "tasks": "name = 'a'", "workflows": "name = 'a'",
}

// damage makes a message of the first row of a table one that cannot be understood.
func damage(t *testing.T, s *Store, column string) {
	t.Helper()
	table, name, _ := strings.Cut(column, ".")
	if err := s.write(t.Context(), 1, func(t *tx) error {
		n, err := t.exec("UPDATE " + table + " SET " + name + " = x'ff' WHERE " + firstOf[table])
		if err == nil && n != 1 {
			err = fmt.Errorf("%d rows have a message in column %s", n, column)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// A damaged row of any table, in any column, hides no other row: every list has all others, and no call on them is refused.
func TestADamagedRowHidesNoOther(t *testing.T) {
	t.Parallel()
	columns := messageColumns(t, filled(t))
	if len(columns) < 30 {
		t.Fatalf("the tables have message columns %v, want all", columns)
	}
	for _, column := range columns {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			s := filled(t)
			damage(t, s, column)
			ctx, at := t.Context(), time.Unix(1, 0).UTC()
			for what, names := range map[string]func() ([]string, error){
				"projects": func() ([]string, error) {
					return namesOf(func(p *admin.Project) string { return p.Id })(s.ListProjects(ctx, store.Query{Limit: 2}))
				},
				"tasks": func() ([]string, error) {
					return namesOf(func(v *store.Task) string { return v.ID.Name })(s.ListTasks(ctx, store.Query{}))
				},
				"workflows": func() ([]string, error) {
					return namesOf(func(v *store.Workflow) string { return v.ID.Name })(s.ListWorkflows(ctx, store.Query{}))
				},
				"launch plans": func() ([]string, error) {
					return namesOf(func(v *store.LaunchPlan) string { return v.ID.Name })(s.ListLaunchPlans(ctx, store.Query{}))
				},
				"named entities": func() ([]string, error) {
					return namesOf(func(e *admin.NamedEntity) string { return e.Id.Name })(s.ListNamedEntities(ctx, core.ResourceType_TASK, store.Query{}))
				},
				"executions": func() ([]string, error) {
					return namesOf(func(e *store.Execution) string { return e.ID.Name })(s.ListExecutions(ctx, store.Query{}))
				},
				"waiting attempts": func() ([]string, error) {
					return namesOf(func(a *store.Attempt) string { return a.Token })(s.Waiting(ctx, at, 0))
				},
				"messages": func() ([]string, error) {
					rows, err := s.Inbox(ctx, every(), 0, 0)
					var seen []string
					for _, r := range rows {
						seen = append(seen, map[store.Key]string{1: "a", 2: "b"}[r.Execution])
					}
					return seen, err
				},
				"results": func() ([]string, error) {
					return namesOf(func(r *store.Result) string { return r.ID })(s.ListResults(ctx, store.ResultQuery{}))
				},
				"found results": func() ([]string, error) {
					return namesOf(func(r *store.Result) string { return r.ID })(s.FindResults(ctx, []store.ResultID{damagedResult("a"), damagedResult("b")}))
				},
				"datasets": func() ([]string, error) {
					return namesOf(func(d *store.Dataset) string { return strings.TrimPrefix(d.Name, "of ") })(s.ListDatasets(ctx, store.ResultQuery{}))
				},
				"jobs": func() ([]string, error) {
					return namesOf((*aloftv1.RecoveryJob).GetName)(s.ListRecoveryJobs(ctx, "", "", 0))
				},
				"recoveries": func() ([]string, error) {
					found, err := s.RecoveriesOf(ctx, []aloft.ExecutionID{damagedID("of-a"), damagedID("of-b")})
					var seen []string
					for _, r := range found {
						seen = append(seen, r.Recovery.Name)
					}
					return seen, err
				},
			} {
				got, err := names()
				slices.Sort(got)
				if got = slices.Compact(got); err != nil || !slices.Equal(got, []string{"a", "b"}) {
					t.Errorf("%s are %v (%v), want a and b", what, got, err)
				}
			}
			if jobs, err := s.AcquireRecoveryJobs(ctx, "me", at, time.Minute); err != nil || !slices.ContainsFunc(jobs, func(j *aloftv1.RecoveryJob) bool { return j.GetName() == "b" }) {
				t.Errorf("the jobs to work on are %v (%v), want b among them", jobs, err)
			}
			for name, may := range map[string]bool{"a": true, "b": false} {
				for what, err := range readAll(t, s, name) {
					if err != nil && (!may || !errors.Is(err, aloft.ErrUnreadable)) {
						t.Errorf("%s of %s: %v", what, name, err)
					}
				}
			}
		})
	}
}

// readAll reads all records with one name by their ids.
func readAll(t *testing.T, s *Store, name string) map[string]error {
	t.Helper()
	ctx, id := t.Context(), damagedID(name)
	errs := map[string]error{}
	_, errs["project"] = s.GetProject(ctx, name)
	_, errs["task"] = s.GetTask(ctx, damagedVersion(core.ResourceType_TASK, name))
	_, errs["workflow"] = s.GetWorkflow(ctx, damagedVersion(core.ResourceType_WORKFLOW, name))
	_, errs["launch plan"] = s.GetLaunchPlan(ctx, damagedVersion(core.ResourceType_LAUNCH_PLAN, name))
	_, errs["active launch plan"] = s.GetActiveLaunchPlan(ctx, "p", "d", name)
	_, errs["execution"] = s.GetExecution(ctx, id)
	_, errs["nodes"] = s.ListNodes(ctx, id, "", true, store.Query{})
	_, errs["values"] = s.NodeValues(ctx, id, []aloft.NodeID{"n0"})
	_, errs["attempts"] = s.ListAttempts(ctx, id, "", store.Query{})
	_, errs["attempt"] = s.GetAttempt(ctx, aloft.AttemptID{Execution: id, Node: "n0"})
	key := map[string]store.Key{"a": 1, "b": 2}[name]
	_, _, errs["journal"] = storetest.Load(ctx, s, key)
	_, errs["inputs"] = s.NodeInputs(ctx, key, "n0")
	_, errs["outputs"] = s.NodeOutputs(ctx, key, "n0")
	_, errs["result"] = s.FindResult(ctx, damagedResult(name))
	_, errs["job"] = s.GetRecoveryJob(ctx, name)
	_, errs["items"] = s.RecoveryItems(ctx, name)
	return errs
}

func namesOf[R any](name func(R) string) func(rows []R, err error) ([]string, error) {
	return func(rows []R, err error) (all []string, _ error) {
		for _, r := range rows {
			all = append(all, name(r))
		}
		return all, err
	}
}

func every() []int {
	shards := make([]int, store.Shards)
	for i := range shards {
		shards[i] = i
	}
	return shards
}

// Registering the same version again writes a damaged record anew; another version under its id never does.
func TestADamagedVersionIsMendedByRegisteringItAgain(t *testing.T) {
	t.Parallel()
	s := filled(t)
	for _, column := range []string{"tasks.compiled", "workflows.compiled", "workflows.summary", "launch_plans.spec", "launch_plans.closure"} {
		damage(t, s, column)
	}
	ctx := t.Context()
	task, workflow, plan := damagedVersion(core.ResourceType_TASK, "a"), damagedVersion(core.ResourceType_WORKFLOW, "a"), damagedVersion(core.ResourceType_LAUNCH_PLAN, "a")
	create := func(digest byte) {
		t.Helper()
		of := taskOf("a")
		of.Digest = []byte{digest}
		for _, err := range []error{
			s.CreateTask(ctx, of),
			s.CreateWorkflow(ctx, &store.Workflow{ID: workflow, Digest: []byte{digest}, Compiled: &core.CompiledWorkflowClosure{Primary: &core.CompiledWorkflow{Template: &core.WorkflowTemplate{Id: workflow}}}}),
			s.CreateLaunchPlan(ctx, &store.LaunchPlan{ID: plan, Digest: []byte{digest}, Spec: &admin.LaunchPlanSpec{WorkflowId: workflow}, Closure: &admin.LaunchPlanClosure{}}),
		} {
			if !errors.Is(err, aloft.ErrExists) {
				t.Errorf("registering again: %v, want ErrExists", err)
			}
		}
	}
	read := func() (errs []error) {
		t1, err1 := s.GetTask(ctx, task)
		w1, err2 := s.GetWorkflow(ctx, workflow)
		l1, err3 := s.GetLaunchPlan(ctx, plan)
		if err1 == nil && !proto.Equal(t1.Compiled, taskOf("a").Compiled) || err2 == nil && w1.Compiled.GetPrimary().GetTemplate().GetId().GetName() != "a" || err3 == nil && l1.Spec.GetWorkflowId().GetName() != "a" {
			t.Errorf("read %v, %v, %v", t1, w1, l1)
		}
		return []error{err1, err2, err3}
	}
	create(2)
	for _, err := range read() {
		if !errors.Is(err, aloft.ErrUnreadable) || !strings.Contains(err.Error(), "Register the same version again") {
			t.Errorf("after another version was refused: %v, want ErrUnreadable and the way out", err)
		}
	}
	create(1)
	for _, err := range read() {
		if err != nil {
			t.Errorf("after the same version was registered: %v", err)
		}
	}
}

// A job that cannot be read says so, pauses and can be removed; an item that cannot be read has failed, and the others go on.
func TestADamagedRecoveryJobPausesAndCanBeRemoved(t *testing.T) {
	t.Parallel()
	s := filled(t)
	damage(t, s, "recovery_items.record")
	ctx := t.Context()
	items, err := s.RecoveryItems(ctx, "a")
	if err != nil || len(items) != 2 || items[0].GetPhase() != aloftv1.RecoveryItem_FAILED || !strings.Contains(items[0].GetReason(), "begin another job") || items[1].GetExecution() == nil {
		t.Errorf("the items are %v (%v)", items, err)
	}
	damage(t, s, "recovery_jobs.record")
	jobs, err := s.ListRecoveryJobs(ctx, "", "", 0)
	if err != nil || len(jobs) != 2 || jobs[1].GetPhase() != aloftv1.RecoveryJob_PAUSED || !strings.Contains(jobs[1].GetReason(), "aloft recover rm a") {
		t.Errorf("the jobs are %v (%v), want the second to say how it is removed", jobs, err)
	}
	if err := s.RemoveRecoveryJob(ctx, "b"); !errors.Is(err, aloft.ErrPrecondition) || !strings.Contains(err.Error(), "aloft recover pause b") {
		t.Errorf("removing a job that goes on: %v", err)
	}
	if err := s.RemoveRecoveryJob(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveRecoveryJob(ctx, "a"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("removing it again: %v", err)
	}
}
