package sqlstore_test

import (
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
	"github.com/aloft-dev/aloft/store/storetest"
)

// Databases of every released schema are in testdata, as that release wrote them. With a new migration, record the schema it
// makes under a new name before the release: go test ./store/sqlstore -run Recorded -record 2
var recordSchema = flag.Int("record", 0, "write the databases of this schema to testdata (needs pg_dump)")

var recordedID = core.Identifier{Project: "flytesnacks", Domain: "development", Name: "wf", Version: "v1"}

func recordedVersion(t core.ResourceType) *core.Identifier {
	return &core.Identifier{ResourceType: t, Project: recordedID.Project, Domain: recordedID.Domain, Name: recordedID.Name, Version: recordedID.Version}
}

func recordedEntity(description string, state admin.NamedEntityState) *admin.NamedEntity {
	return &admin.NamedEntity{
		ResourceType: core.ResourceType_WORKFLOW, Id: &admin.NamedEntityIdentifier{Project: recordedID.Project, Domain: recordedID.Domain, Name: recordedID.Name},
		Metadata: &admin.NamedEntityMetadata{Description: description, State: state},
	}
}

// fillRecorded writes a row into every table.
func fillRecorded(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	leases := lease(t, s, "earlier release", now, 24*time.Hour)
	if err := errors.Join(
		s.CreateProject(t.Context(), &admin.Project{Id: "recorded", Name: "Recorded"}),
		s.CreateTask(t.Context(), &store.Task{ID: recordedVersion(core.ResourceType_TASK), Compiled: &core.CompiledTask{Template: &core.TaskTemplate{Type: "python-task"}}, CreatedAt: now}),
		s.CreateWorkflow(t.Context(), &store.Workflow{ID: recordedVersion(core.ResourceType_WORKFLOW), Compiled: &core.CompiledWorkflowClosure{}, CreatedAt: now}),
		s.CreateLaunchPlan(t.Context(), &store.LaunchPlan{ID: recordedVersion(core.ResourceType_LAUNCH_PLAN), Spec: &admin.LaunchPlanSpec{WorkflowId: recordedVersion(core.ResourceType_WORKFLOW)},
			Closure: &admin.LaunchPlanClosure{State: admin.LaunchPlanState_ACTIVE}, CreatedAt: now}),
		s.UpdateNamedEntity(t.Context(), recordedEntity("recorded", admin.NamedEntityState_NAMED_ENTITY_ARCHIVED)),
		s.Heartbeat(t.Context(), store.Instance{ID: "x", Kind: "process", Place: "here", Slots: 3, SeenAt: now, Expires: now.Add(time.Minute)}),
	); err != nil {
		t.Fatal(err)
	}
	ended := benchExecution("ended")
	ended.Spec.Tags, ended.Spec.Labels = []string{"nightly"}, &admin.Labels{Values: map[string]string{"team": "red"}}
	if err := s.CreateExecution(t.Context(), ended, benchCreate()); err != nil {
		t.Fatal(err)
	}
	running := mustCreate(t, s, "running")
	last := benchStep(ended, leases, 1)
	last.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_FAILED, EndedAt: now, UpdatedAt: now, Error: &core.ExecutionError{Code: "USER:Broken", Message: "it broke"}, Outputs: small()}
	step := benchStep(running, leases, 1)
	step.Nodes = []*store.Node{{ID: "n0", Phase: core.NodeExecution_RUNNING, CreatedAt: now, UpdatedAt: now, Inputs: small()}, {ID: "n1", Parent: "n0", Phase: core.NodeExecution_SUCCEEDED, Outputs: small()}}
	step.Attempts = []*store.Attempt{
		{AttemptKey: store.AttemptKey{Execution: running.Key, Node: "n0", Token: "token"}, Spec: &aloftv1.AttemptSpec{TaskType: "python-task"}, Phase: core.TaskExecution_QUEUED, CreatedAt: now, UpdatedAt: now},
	}
	step.DueAt = now.Add(time.Hour)
	for _, err := range s.Commit(t.Context(), []*store.Step{last, step}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	result := &store.Result{ResultID: store.ResultID{Project: "p", Domain: "d", Name: "flyte_task-t", Version: "1", Tag: "x"}, ID: "r1", Outputs: small(), CreatedAt: now}
	if _, err := s.PutResult(t.Context(), result, false); err != nil {
		t.Fatal(err)
	}
	if err := s.TagResult(t.Context(), "r1", "y"); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*store.Execution{running, ended} { // the second one waits
		mine := store.Reservation{ID: result.ResultID, Owner: e.ID.Name, Execution: e.Key, Node: "n0"}
		if e == ended {
			mine.Execution, mine.Owner = running.Key, "another"
		}
		if _, err := s.Reserve(t.Context(), mine, now); err != nil {
			t.Fatal(err)
		}
	}
	job := &aloftv1.RecoveryJob{Name: "job", Selection: &aloftv1.RecoverySelection{Project: "p", Domain: "d"}, Phase: aloftv1.RecoveryJob_RUNNING}
	if err := s.CreateRecoveryJob(t.Context(), job, []*aloftv1.RecoveryItem{{Execution: running.ID.Proto()}}); err != nil {
		t.Fatal(err)
	}
	if err := s.PutService(t.Context(), store.Service{Name: "the blob store", AwaySince: now, Reason: "recorded"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), running.ID, store.Message{Dedup: "signal", Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{Cause: "recorded"}}}}); err != nil {
		t.Fatal(err)
	}
}

// checkRecorded reads it all and goes on with what had not ended.
func checkRecorded(t *testing.T, s *sqlstore.Store, schema int) {
	t.Helper()
	ctx := t.Context()
	if p, err := s.GetProject(ctx, "recorded"); err != nil || p.Name != "Recorded" {
		t.Errorf("project: %v, %v", p, err)
	}
	if task, err := s.GetTask(ctx, recordedVersion(core.ResourceType_TASK)); err != nil || task.Compiled.GetTemplate().GetType() != "python-task" {
		t.Errorf("task: %v, %v", task, err)
	}
	if _, err := s.GetWorkflow(ctx, recordedVersion(core.ResourceType_WORKFLOW)); err != nil {
		t.Error(err)
	}
	if l, err := s.GetActiveLaunchPlan(ctx, recordedID.Project, recordedID.Domain, recordedID.Name); err != nil || l.Spec.GetWorkflowId().GetName() != "wf" {
		t.Errorf("launch plan: %v, %v", l, err)
	}
	if ended, err := s.GetExecution(ctx, benchExecution("ended").ID); err != nil || ended.Error.GetMessage() != "it broke" || ended.Outputs == nil {
		t.Errorf("the execution that had ended: %+v, %v", ended, err)
	}
	running, err := s.GetExecution(ctx, benchExecution("running").ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, journal, err := storetest.Load(ctx, s, running.Key); err != nil || len(journal) != 1 || len(journal[0].Entry.GetEvents()) != 1 {
		t.Errorf("journal: %v, %v", journal, err)
	}
	if waiting, err := s.Waiting(ctx, now.Add(time.Hour), 0); err != nil || len(waiting) != 1 || waiting[0].Spec.GetTaskType() != "python-task" {
		t.Errorf("attempts that wait: %v, %v", waiting, err)
	}
	if nodes, err := s.ListNodes(ctx, running.ID, "n0", false, store.Query{}); err != nil || len(nodes) != 1 || nodes[0].ID != "n1" {
		t.Errorf("nodes below n0: %v, %v", nodes, err)
	}
	if i, err := s.Instances(ctx); err != nil || len(i) != 1 || i[0].Slots != 3 {
		t.Errorf("instances: %v, %v", i, err)
	}
	entity := recordedEntity("", admin.NamedEntityState_NAMED_ENTITY_ACTIVE)
	if schema >= 8 { // earlier ones have no table for it
		entity = recordedEntity("recorded", admin.NamedEntityState_NAMED_ENTITY_ARCHIVED)
	}
	if e, err := s.GetNamedEntity(ctx, entity.GetResourceType(), entity.GetId()); err != nil || !proto.Equal(e, entity) {
		t.Errorf("named entity: %v, %v, want %v", e, err, entity)
	}
	if schema >= 9 {
		checkTags(t, s)
	}
	checkLater(t, s)
	all := make([]int, store.Shards)
	for i := range all {
		all[i] = i
	}
	rows, err := s.Inbox(ctx, all, 0, 0)
	if err != nil || len(rows) != 2 || rows[1].Inbox.GetTerminate().GetCause() != "recorded" {
		t.Fatalf("inbox: %v, %v", rows, err)
	}
	step := benchStep(running, lease(t, s, "earlier release", now, time.Hour), 2)
	step.Consumed = []int64{rows[0].Seq, rows[1].Seq}
	step.Nodes = []*store.Node{{ID: "n0", Phase: core.NodeExecution_SUCCEEDED, Outputs: small()}}
	if err := s.Commit(ctx, []*store.Step{step})[0]; err != nil {
		t.Errorf("going on with it: %v", err)
	}
	mustCreate(t, s, "new")
}

// checkTags finds an execution by its tags, which those of earlier schemas are not.
func checkTags(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	for field, value := range map[string]string{"admin_tag.name": "nightly", "execution_tag.value": "red"} {
		found, err := s.ListExecutions(t.Context(), store.Query{Filters: []store.Filter{{Field: field, Function: "eq", Values: []string{value}}}})
		if err != nil || len(found) != 1 || found[0].ID.Name != "ended" {
			t.Errorf("%s %s: found %v, %v, want the execution that has it", field, value, found, err)
		}
	}
}

// checkLater reads what schemas before the sixth do not have.
func checkLater(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	ctx := t.Context()
	services, err := s.Services(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(services) == 0 {
		return
	}
	if services[0].Reason != "recorded" {
		t.Errorf("services: %+v", services)
	}
	if r, err := s.FindResult(ctx, store.ResultID{Project: "p", Domain: "d", Name: "flyte_task-t", Version: "1", Tag: "y"}); err != nil || r.ID != "r1" || r.Outputs == nil {
		t.Errorf("cached result: %+v, %v", r, err)
	}
	if items, err := s.RecoveryItems(ctx, "job"); err != nil || len(items) != 1 {
		t.Errorf("recovery job: %v, %v", items, err)
	}
}

func TestRecordedDatabasesOfEveryReleaseAreMigrated(t *testing.T) {
	t.Parallel()
	if *recordSchema > 0 {
		record(t, *recordSchema)
	}
	files, err := filepath.Glob("testdata/schema-*")
	if err != nil || len(files) < 2 {
		t.Fatalf("testdata has %v (%v)", files, err)
	}
	for _, file := range files {
		var schema int
		if _, err := fmt.Sscanf(filepath.Base(file), "schema-%d", &schema); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			packed, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer packed.Close()
			unpacked, err := gzip.NewReader(packed)
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(unpacked)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, ".db.gz") {
				path := filepath.Join(t.TempDir(), "aloft.db")
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				checkRecorded(t, open(t, path), schema)
				return
			}
			url := postgrestest.Database(t)
			postgrestest.Exec(t, url, string(content))
			checkRecorded(t, openPostgres(t, url), schema)
		})
	}
}

// psqlWords are lines of pg_dump that only psql understands.
var psqlWords = regexp.MustCompile(`(?m)^\\.*\n`)

func record(t *testing.T, schema int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aloft.db")
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	fillRecorded(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pack(t, fmt.Sprintf("testdata/schema-%d.db.gz", schema), content)

	url := postgrestest.Database(t)
	if s, err = sqlstore.Open(t.Context(), sqlstore.Options{URL: url}); err != nil {
		t.Fatal(err)
	}
	fillRecorded(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	dump, err := exec.Command("pg_dump", "--inserts", "--no-owner", "--no-privileges", url).Output()
	if err != nil {
		t.Fatal(err)
	}
	pack(t, fmt.Sprintf("testdata/schema-%d.postgres.sql.gz", schema), psqlWords.ReplaceAll(dump, nil))
}

func pack(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // what was released is not recorded again
	if err != nil {
		t.Fatal(err)
	}
	w := gzip.NewWriter(f)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseOfANewerReleaseIsUsedOnlyIfThatOneSaysSo(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	postgrestest.Exec(t, url, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	postgrestest.Exec(t, url, "ALTER TABLE nodes ADD COLUMN later TEXT") // it has only added something
	next := openPostgres(t, url)
	mustCreate(t, next, "side by side")

	postgrestest.Exec(t, url, "UPDATE compatibility SET oldest = 9999")
	_, err = sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
	if !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(err.Error(), "written by a newer release (schema 9999") {
		t.Errorf("got %v", err)
	}
}
