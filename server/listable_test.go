package server

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// TestARowThatSomeClientsCannotReadTakesNoListFromAnybody has rows that an earlier release accepted and this one would refuse, and
// values that flytekit sends.
func TestARowThatSomeClientsCannotReadTakesNoListFromAnybody(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("wf", 1)
	s.wait(s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "wf"), map[string]*core.Literal{"x": integer(1)})))
	values := &structpb.Struct{Fields: map[string]*structpb.Value{"nan": structpb.NewNumberValue(math.NaN()), "nothing": {}}}
	if _, err := s.admin.CreateTask(t.Context(), customTask("values", values)); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	old := aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: "old"}
	for what, err := range map[string]error{
		"task": s.store.CreateTask(t.Context(), &store.Task{ID: id(core.ResourceType_TASK, "old"), Digest: []byte{1}, CreatedAt: now,
			Compiled: &core.CompiledTask{Template: customTask("old", deepStruct(4990)).GetSpec().GetTemplate()}}),
		"execution": s.store.CreateExecution(t.Context(), &store.Execution{ID: old, Workflow: id(core.ResourceType_WORKFLOW, "wf"),
			Spec:  withGroups(&admin.ExecutionSpec{LaunchPlan: id(core.ResourceType_LAUNCH_PLAN, "wf")}, 200),
			Phase: core.WorkflowExecution_FAILED, CreatedAt: now, UpdatedAt: now, StateChangedAt: now, JournalVersion: store.JournalVersion,
			Error: &core.ExecutionError{Code: "Old", Timestamp: &timestamppb.Timestamp{Seconds: math.MaxInt64}}}, &aloftv1.Inbox{}),
		"project": s.store.CreateProject(t.Context(), &admin.Project{Id: "old", Name: "old", Labels: withGroups(&admin.Labels{}, 200)}),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	rest := s.checkLists()
	for noun, texts := range map[string][]string{
		"tasks":      {`"nan":"NaN"`, `"nothing":null`, `"name":"old"`, "leftoutofthislist"},
		"executions": {`"code":"Old"`, "9999-12-31T23:59:59Z"},
		"projects":   {`"id":"old"`},
	} {
		for _, text := range texts {
			if !strings.Contains(rest[noun], text) {
				t.Errorf("REST gives %s without %s: %.2000s", noun, text, rest[noun])
			}
		}
	}
	got, err := s.admin.GetTask(t.Context(), &admin.ObjectGetRequest{Id: id(core.ResourceType_TASK, "values")})
	if err != nil || !math.IsNaN(got.GetClosure().GetCompiledTask().GetTemplate().GetCustom().GetFields()["nan"].GetNumberValue()) {
		t.Errorf("by its id it is as it was registered: %v, %v", got, err)
	}
	for _, path := range []string{"tasks/flytesnacks/development/values/v1", "tasks/flytesnacks/development/old/v1", "executions/flytesnacks/development/old"} {
		if answer, content := s.do(http.MethodGet, "/api/v1/"+path, nil, nil); answer.StatusCode != http.StatusOK {
			t.Errorf("REST %s: %s %.200s", path, answer.Status, content)
		}
	}
	for _, kind := range []string{"application/json", "application/json; charset=utf-8"} {
		answer, content := s.do(http.MethodPost, "/flyteidl.service.AdminService/GetTask", http.Header{"Content-Type": {kind}},
			[]byte(`{"id": {"resourceType": "TASK", "project": "flytesnacks", "domain": "development", "name": "values", "version": "v1", "another": 1}}`))
		if answer.StatusCode != http.StatusOK || !strings.Contains(strings.ReplaceAll(string(content), " ", ""), `"nan":"NaN"`) {
			t.Errorf("Connect with %s: %s %.300s", kind, answer.Status, content)
		}
	}
}
