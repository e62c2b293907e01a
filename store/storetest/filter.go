package storetest

import (
	"fmt"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

var filterClaims = []func(*suite){
	executionsAreFilteredByWhatClientsKnow,
	executionsAreSortedAndPaged,
	aWrongQuerySaysEverythingThatIsWrong,
	recordsOfOneExecutionAreFiltered,
	versionsAreFiltered,
	namedEntitiesAreFilteredAndSorted,
}

// filter reads a condition as tests write it: function, field and values apart by blanks.
func filter(text string) store.Filter {
	words := strings.Fields(text)
	return store.Filter{Function: words[0], Field: words[1], Values: words[2:]}
}

func filters(texts ...string) (fs []store.Filter) {
	for _, text := range texts {
		fs = append(fs, filter(text))
	}
	return fs
}

func (s *suite) executions(q store.Query) (names []string) {
	s.Helper()
	rows, err := s.store.ListExecutions(s.ctx, q)
	s.ok(err)
	for _, e := range rows {
		if e.Inputs != nil || e.UserInputs != nil || e.Outputs != nil || e.Spec == nil || e.Workflow == nil {
			s.Fatalf("listed %+v, want no inputs and outputs but all else", e)
		}
		names = append(names, e.ID.Name)
	}
	return names
}

func executionsAreFilteredByWhatClientsKnow(s *suite) {
	for i := range 6 {
		e := execution(fmt.Sprintf("e%d", i))
		e.CreatedAt = at(i)
		e.Workflow = identifier(core.ResourceType_WORKFLOW, fmt.Sprintf("my.WF%d", i%2), fmt.Sprintf("v%d", i))
		if i == 5 {
			e.Spec.LaunchPlan = identifier(core.ResourceType_TASK, "t", "v1")
			e.Spec.Metadata.Mode = admin.ExecutionMetadata_MANUAL
			e.ID.Domain = "production"
		}
		s.ok(s.store.CreateExecution(s.ctx, e, create("x")))
		if i < 3 {
			step := s.step(e)
			step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_FAILED, StartedAt: at(10), EndedAt: at(10 + 10*i), UpdatedAt: at(20),
				Error: &core.ExecutionError{Code: fmt.Sprintf("Code%d", i), Kind: core.ExecutionError_USER}}
			s.commit(step)
		}
	}
	s.ok(s.store.SetExecutionState(s.ctx, id("e4"), admin.ExecutionState_EXECUTION_ARCHIVED, "ada"))
	for query, want := range map[string]string{
		"eq phase FAILED":                                   "e0 e1 e2",
		"ne phase FAILED":                                   "e3 e4 e5",
		"value_in phase FAILED;QUEUED":                      "e0 e1 e2 e3 e4 e5",
		"value_not_in phase FAILED;SUCCEEDED":               "e3 e4 e5",
		"contains phase AIL":                                "e0 e1 e2",
		"eq phase NONSENSE":                                 "",
		"eq execution_name e3":                              "e3",
		"eq execution.execution_name e3":                    "e3",
		"value_in execution_name e1;e5":                     "e1 e5",
		"contains execution_name e":                         "e0 e1 e2 e3 e4 e5",
		"contains execution_name E":                         "", // as PostgreSQL has it
		"not_like execution_name %3":                        "e0 e1 e2 e4 e5",
		"eq execution_domain production":                    "e5",
		"eq workflow.name my.WF1":                           "e1 e3 e5",
		"contains workflow.name WF1":                        "e1 e3 e5",
		"eq workflow.version v2":                            "e2",
		"eq launch_plan.name wf":                            "e0 e1 e2 e3 e4",
		"eq task.name t":                                    "e5",
		"eq launch_entity task":                             "e5",
		"eq mode 0":                                         "e5",
		"eq state 1":                                        "e4",
		"eq user ada":                                       "e0 e1 e2 e3 e4 e5",
		"eq error_code Code1":                               "e1",
		"eq error_kind USER":                                "e0 e1 e2",
		"gte duration 10":                                   "e1 e2",
		"gt duration 10s":                                   "e2",
		"gte created_at 2026-01-02T03:04:08Z":               "e3 e4 e5",
		"lt execution_created_at 2026-01-02T03:04:06+00:00": "e0",
		"gt started_at 2026-01-01":                          "e0 e1 e2",
		"lte updated_at 2026-01-02T03:04:06.5":              "e3 e4 e5",
		"eq execution_name e'OR'1'='1":                      "",
	} {
		f := filter(query)
		if strings.HasPrefix(f.Function, "value") {
			f.Values = strings.Split(f.Values[0], ";")
		}
		got := strings.Join(s.executions(store.Query{Filters: []store.Filter{f}, Ascending: true}), " ")
		if got != want {
			s.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	q := store.Query{Project: "flytesnacks", Domain: "development", Filters: filters("eq phase FAILED", "contains workflow.name WF0")}
	s.equal(s.executions(q), []string{"e2", "e0"})
	s.equal(s.executions(store.Query{Project: "flytesnacks", Domain: "development", Name: "e4"}), []string{"e4"})
}

func executionsAreSortedAndPaged(s *suite) {
	var want []string
	for i := range 9 {
		e := execution(fmt.Sprintf("e%d", i))
		e.CreatedAt = at(i / 3) // equal times: pages must not overlap all the same
		s.ok(s.store.CreateExecution(s.ctx, e, create("x")))
		want = append(want, e.ID.Name)
	}
	here := store.Query{Project: "flytesnacks", Domain: "development", Ascending: true}
	s.equal(s.executions(here), want)
	var paged []string
	here.Limit, here.SortBy = 2, "execution_created_at"
	for ; here.Offset < 12; here.Offset += 2 {
		paged = append(paged, s.executions(here)...)
	}
	s.equal(paged, want)
	s.equal(s.executions(store.Query{Limit: 2}), []string{"e8", "e7"})
	s.equal(s.executions(store.Query{Limit: 2, SortBy: "execution_name", Ascending: true}), []string{"e0", "e1"})
	s.equal(s.executions(store.Query{Limit: 2, SortBy: "execution.execution_name"}), []string{"e8", "e7"})
	s.equal(s.executions(store.Query{Project: "other"}), []string(nil))
}

func aWrongQuerySaysEverythingThatIsWrong(s *suite) {
	wrong := func(q store.Query, want ...string) {
		s.Helper()
		_, err := s.store.ListExecutions(s.ctx, q)
		s.is(err, aloft.ErrInvalid)
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				s.Errorf("got %q, want %q in it", err, text)
			}
		}
	}
	wrong(store.Query{Filters: filters("eq name foo")}, "'execution.name' is invalid filter")
	wrong(store.Query{Filters: filters("eq workflow.colour red")}, "'workflow.colour' is invalid filter")
	wrong(store.Query{Filters: filters("eq signal.signal_id x")}, "'signal' entity is not allowed in filters")
	wrong(store.Query{Filters: filters("like phase X")}, "unrecognized filter function: like")
	wrong(store.Query{Filters: filters("eq duration soon")}, "not a duration")
	wrong(store.Query{Filters: filters("gt created_at yesterday")}, "not a time")
	wrong(store.Query{Filters: filters("eq mode x")}, "not a whole number")
	wrong(store.Query{Filters: filters("contains mode 1")}, "is no text")
	wrong(store.Query{Filters: filters("eq phase")}, "has 0 values")
	wrong(store.Query{SortBy: "workflow.name"}, "invalid sort key 'workflow.name'")
	wrong(store.Query{SortBy: "e.number; DROP TABLE executions"}, "invalid sort key")
	wrong(store.Query{Offset: -1}, "negative")
	wrong(store.Query{SortBy: "colour", Filters: filters("eq name foo", "like phase X")}, "colour", "execution.name", "like")
}

func recordsOfOneExecutionAreFiltered(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	for i, phase := range []core.NodeExecution_Phase{core.NodeExecution_SUCCEEDED, core.NodeExecution_FAILED, core.NodeExecution_SUCCEEDED} {
		n := node(fmt.Sprintf("n%d", i), phase)
		n.CreatedAt = at(10 - i)
		a := attempt(e, string(n.ID), uint32(i))
		a.CreatedAt = at(10 - i)
		if i == 1 {
			a.Phase = core.TaskExecution_FAILED
		}
		step.Nodes, step.Attempts = append(step.Nodes, n), append(step.Attempts, a)
	}
	s.commit(step)
	nodes := func(q store.Query) (names []string) {
		s.Helper()
		rows, err := s.store.ListNodes(s.ctx, e.ID, "", true, q)
		s.ok(err)
		for _, n := range rows {
			names = append(names, string(n.ID))
		}
		return names
	}
	s.equal(nodes(store.Query{Filters: filters("eq phase SUCCEEDED")}), []string{"n0", "n2"})
	s.equal(nodes(store.Query{Filters: filters("eq node_execution.phase SUCCEEDED"), Ascending: true}), []string{"n2", "n0"})
	s.equal(nodes(store.Query{Filters: filters("eq node_id n1", "eq execution.execution_name e1")}), []string{"n1"})
	s.equal(nodes(store.Query{SortBy: "node_id", Ascending: true, Limit: 2}), []string{"n0", "n1"})
	_, err := s.store.ListNodes(s.ctx, e.ID, "", true, store.Query{Filters: filters("eq colour red")})
	s.is(err, aloft.ErrInvalid)

	attempts := func(q store.Query) []string {
		s.Helper()
		rows, err := s.store.ListAttempts(s.ctx, e.ID, "", q)
		s.ok(err)
		return nodesOf(rows)
	}
	s.equal(attempts(store.Query{Filters: filters("eq phase FAILED")}), []string{"n1"})
	s.equal(attempts(store.Query{SortBy: "retry_attempt", Limit: 2}), []string{"n2", "n1"})
	s.equal(attempts(store.Query{Filters: filters("gte retry_attempt 1"), SortBy: "task_execution_created_at", Ascending: true}), []string{"n2", "n1"})
}

func versionsAreFiltered(s *suite) {
	for i := range 4 {
		version := fmt.Sprintf("v%d", i)
		s.ok(s.store.CreateTask(s.ctx, task("t"+version, version, i)))
		s.ok(s.store.CreateWorkflow(s.ctx, workflow("w", version, i)))
		l := launchPlan("l", version, i)
		if i == 3 {
			l.Spec.EntityMetadata = &admin.LaunchPlanMetadata{Schedule: &admin.Schedule{ScheduleExpression: &admin.Schedule_Rate{Rate: &admin.FixedRate{Value: 1}}}}
		}
		s.ok(s.store.CreateLaunchPlan(s.ctx, l))
	}
	s.ok(s.store.SetLaunchPlanState(s.ctx, identifier(core.ResourceType_LAUNCH_PLAN, "l", "v2"), admin.LaunchPlanState_ACTIVE, at(9)))
	versions := func(ids ...*core.Identifier) (versions []string) {
		for _, id := range ids {
			versions = append(versions, id.GetVersion())
		}
		return versions
	}
	tasks := func(q store.Query) []string {
		s.Helper()
		rows, err := s.store.ListTasks(s.ctx, q)
		s.ok(err)
		var ids []*core.Identifier
		for _, t := range rows {
			ids = append(ids, t.ID)
		}
		return versions(ids...)
	}
	workflows := func(q store.Query) []string {
		s.Helper()
		rows, err := s.store.ListWorkflows(s.ctx, q)
		s.ok(err)
		var ids []*core.Identifier
		for _, w := range rows {
			ids = append(ids, w.ID)
		}
		return versions(ids...)
	}
	plans := func(q store.Query) []string {
		s.Helper()
		rows, err := s.store.ListLaunchPlans(s.ctx, q)
		s.ok(err)
		var ids []*core.Identifier
		for _, l := range rows {
			ids = append(ids, l.ID)
		}
		return versions(ids...)
	}
	s.equal(tasks(store.Query{}), []string{"v3", "v2", "v1", "v0"})
	s.equal(tasks(store.Query{Name: "tv1"}), []string{"v1"})
	s.equal(tasks(store.Query{Filters: filters("value_in task.version v0 v2"), SortBy: "version", Ascending: true}), []string{"v0", "v2"})
	s.equal(workflows(store.Query{Name: "w", Limit: 1, Offset: 1}), []string{"v2"})
	s.equal(workflows(store.Query{Filters: filters("lte created_at 2026-01-02T03:04:06.1Z")}), []string{"v1", "v0"})
	s.equal(plans(store.Query{Filters: filters("eq state 1")}), []string{"v2"})
	s.equal(plans(store.Query{Filters: filters("eq schedule_type RATE")}), []string{"v3"})
	s.equal(plans(store.Query{Filters: filters("eq workflow.version v1", "contains workflow.name wf")}), []string{"v1"})
	s.equal(plans(store.Query{SortBy: "updated_at", Limit: 1}), []string{"v2"})

	projects, err := s.store.ListProjects(s.ctx, store.Query{Filters: filters("eq identifier flytesnacks", "eq state 0")})
	s.ok(err)
	if len(projects) != 1 {
		s.Errorf("found %v, want flytesnacks", projects)
	}
}
