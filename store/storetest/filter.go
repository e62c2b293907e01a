package storetest

import (
	"fmt"
	"strings"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

var filterClaims = []func(*suite){
	executionsAreFilteredByWhatClientsKnow,
	executionsAreSortedAndPaged,
	executionsArePagedBehindARow,
	executionsAreFoundByTheirTagsAndLabels,
	executionsAreFilteredAndSortedByWhatTheyLaunched,
	aWrongQuerySaysEverythingThatIsWrong,
	recordsOfOneExecutionAreFiltered,
	recordsAreFilteredByWhatStandsInTheirMessages,
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

// Executions that are added or changed before the position where a page begins neither hide a row nor show one twice.
func executionsArePagedBehindARow(s *suite) {
	add := func(name string, second int) {
		e := execution(name)
		e.CreatedAt = at(second)
		s.ok(s.store.CreateExecution(s.ctx, e, create("x")))
	}
	for i := range 9 {
		add(fmt.Sprintf("e%d", i), 10+i/3)
	}
	earliest, latest := 0, 99
	for _, filtered := range [][]store.Filter{nil, filters("eq phase QUEUED"), filters("contains execution_name e")} {
		for _, ascending := range []bool{true, false} {
			q := store.Query{Project: "flytesnacks", Domain: "development", Limit: 2, Ascending: ascending, Filters: filtered}
			want := s.executions(store.Query{Project: q.Project, Domain: q.Domain, Ascending: ascending, Filters: filtered})
			var paged []string
			for {
				rows, err := s.store.ListExecutions(s.ctx, q)
				s.ok(err)
				if len(rows) == 0 {
					break
				}
				for _, e := range rows {
					paged = append(paged, e.ID.Name)
				}
				q.After = store.PositionOf(rows[len(rows)-1])
				earliest, latest = earliest-1, latest+1
				if ascending {
					add(fmt.Sprintf("early%d", -earliest), earliest)
				} else {
					add(fmt.Sprintf("late%d", latest), latest)
				}
			}
			s.equal(paged, want)
		}
	}
}

func executionsAreFoundByTheirTagsAndLabels(s *suite) {
	for i, tags := range [][]string{{"a", "b"}, {"a"}, {"b", "c", "b"}, nil, {"a", "b"}, {"team"}} {
		e := execution(fmt.Sprintf("e%d", i))
		e.CreatedAt, e.Spec.Tags = at(i), tags
		switch i {
		case 1:
			e.Spec.Labels = &admin.Labels{Values: map[string]string{"team": "red", "stage": "blue", "a": ""}}
		case 3:
			e.Spec.Labels = &admin.Labels{Values: map[string]string{"team": "blue", "stage": "red"}}
		case 4:
			e.ID.Project = "other"
		}
		s.ok(s.store.CreateExecution(s.ctx, e, create("x")))
		s.is(s.store.CreateExecution(s.ctx, e, create("another")), aloft.ErrExists) // and its tags are those of the first
	}
	for queries, want := range map[string]string{
		"eq admin_tag.name a":                                   "e0 e1 e4",
		"eq admin_tag.name zz":                                  "",
		"eq admin_tag.name c":                                   "e2",
		"eq admin_tag.name a, eq admin_tag.name b":              "e0 e4", // both
		"eq admin_tag.name a, eq execution_tag.key b":           "e0 e4", // two words for the same
		"eq admin_tag.name b, eq admin_tag.name zz":             "",
		"value_in admin_tag.name a;b":                           "e0 e1 e2 e4", // none twice
		"contains admin_tag.name ea":                            "e1 e3 e5",
		"eq admin_tag.name team":                                "e1 e3 e5", // keys of labels are found like tags, as in Flyte
		"eq execution_tag.key team":                             "e1 e3 e5",
		"eq execution_tag.value red":                            "e1 e3",
		"eq execution_tag.key team, eq execution_tag.value red": "e1", // of the same label
		"eq execution_tag.value red, eq execution_tag.key team": "e1",
		"eq execution_tag.key team, eq execution_tag.value blue, eq execution_tag.key stage, eq execution_tag.value red": "e3",
		"eq execution_tag.key team, eq execution_tag.value red, eq execution_tag.key stage, eq execution_tag.value red":  "",
		"eq execution_tag.key team, ne execution_tag.value red":                                                          "e3 e5",
		"value_in execution_tag.value red;blue":                                                                          "e1 e3",
		"ne admin_tag.name a":                                                                                            "e0 e1 e2 e3 e4 e5", // any other tag, as in Flyte
		"gte admin_tag.name c, lt admin_tag.name d":                                                                      "e2",
		"eq admin_tag.name a, eq execution_project other":                                                                "e4",
		"eq admin_tag.name a, eq execution_tag.execution_name e1":                                                        "e1",
		"eq admin_tag.name a, eq phase FAILED":                                                                           "",
	} {
		var fs []store.Filter
		for text := range strings.SplitSeq(queries, ", ") {
			f := filter(text)
			f.Values = strings.Split(f.Values[0], ";")
			fs = append(fs, f)
		}
		if got := strings.Join(s.executions(store.Query{Filters: fs, Ascending: true}), " "); got != want {
			s.Errorf("%s: got %q, want %q", queries, got, want)
		}
	}
	// Pages and orders are those of the executions.
	q := store.Query{Project: "flytesnacks", Domain: "development", Filters: filters("value_in admin_tag.name a b c"), Limit: 2}
	s.equal(s.executions(q), []string{"e2", "e1"})
	q.Offset = 2
	s.equal(s.executions(q), []string{"e0"})
}

func executionsAreFilteredAndSortedByWhatTheyLaunched(s *suite) {
	workflows := []string{"v2", "v1", "v3"} // as registered
	for i, version := range workflows {
		s.ok(s.store.CreateWorkflow(s.ctx, workflow("w", version, i)))
		s.ok(s.store.CreateLaunchPlan(s.ctx, launchPlan("l", version, i)))
	}
	s.ok(s.store.CreateTask(s.ctx, task("t", "v1", 0)))
	for i, version := range []string{"v1", "v2", "v3", "v1"} {
		e := execution(fmt.Sprintf("e%d", i))
		e.Workflow, e.Spec.LaunchPlan = identifier(core.ResourceType_WORKFLOW, "w", version), identifier(core.ResourceType_LAUNCH_PLAN, "l", version)
		s.ok(s.store.CreateExecution(s.ctx, e, create("x")))
	}
	e := execution("e4")
	e.Spec.LaunchPlan = identifier(core.ResourceType_TASK, "t", "v1")
	s.ok(s.store.CreateExecution(s.ctx, e, create("x")))

	s.equal(s.executions(store.Query{SortBy: "id", Ascending: true}), []string{"e0", "e1", "e2", "e3", "e4"})
	s.equal(s.executions(store.Query{SortBy: "execution.id", Limit: 2}), []string{"e4", "e3"})
	s.equal(s.executions(store.Query{SortBy: "workflow_id", Ascending: true}), []string{"e4", "e1", "e0", "e3", "e2"}) // its workflow is not registered
	s.equal(s.executions(store.Query{SortBy: "launch_plan_id"}), []string{"e2", "e3", "e0", "e1", "e4"})
	s.equal(s.executions(store.Query{SortBy: "task_id", Limit: 1}), []string{"e4"})
	s.equal(s.executions(store.Query{Filters: filters("eq task_id 0"), Ascending: true}), []string{"e0", "e1", "e2", "e3"})
	first, err := s.store.GetExecution(s.ctx, id("e0"))
	s.ok(err)
	s.equal(s.executions(store.Query{Filters: filters(fmt.Sprintf("eq id %d", first.Key))}), []string{"e0"})

	plans, err := s.store.ListLaunchPlans(s.ctx, store.Query{SortBy: "workflow_id"})
	s.ok(err)
	if len(plans) != 3 {
		s.Errorf("found %d launch plans, want 3", len(plans))
	}
}

func recordsAreFilteredByWhatStandsInTheirMessages(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	for i, failure := range []*core.ExecutionError{
		{Code: "USER:ValueError", Kind: core.ExecutionError_USER}, nil, {Code: "OOMKilled", Kind: core.ExecutionError_USER}, {Code: "USER:KeyError", Kind: core.ExecutionError_SYSTEM}, nil,
	} {
		n, a := node(fmt.Sprintf("n%d", i), core.NodeExecution_SUCCEEDED), attempt(e, fmt.Sprintf("n%d", i), 0)
		if n.Error = failure; failure != nil {
			n.Phase = core.NodeExecution_FAILED
		}
		if i == 1 {
			n.Cache = &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_HIT}
		}
		a.Spec.Task = identifier(core.ResourceType_TASK, fmt.Sprintf("t%d", i%2), fmt.Sprintf("v%d", i))
		step.Nodes, step.Attempts = append(step.Nodes, n), append(step.Attempts, a)
	}
	s.commit(step)
	for query, want := range map[string]string{
		"eq error_kind USER":                  "n0 n2",
		"eq node_execution.error_kind SYSTEM": "n3",
		"contains error_code Error":           "n0 n3",
		"not_like error_code USER:%":          "n1 n2 n4",
		"not_like error_code USER:_eyError":   "n0 n1 n2 n4",
		"value_in error_code OOMKilled x":     "n2",
		"value_not_in error_code OOMKilled x": "n0 n1 n3 n4",
		"gt error_code USER:":                 "n0 n3",
		"eq cache_status CACHE_HIT":           "n1",
		"eq cache_status CACHE_DISABLED":      "n0 n2 n3 n4",
		"eq execution.phase QUEUED":           "n0 n1 n2 n3 n4",
		"eq execution.error_code x":           "",
		"ne id 0":                             "n0 n1 n2 n3 n4",
	} {
		rows, err := s.store.ListNodes(s.ctx, e.ID, "", true, store.Query{Filters: filters(query), Ascending: true})
		s.ok(err)
		var got []string
		for _, n := range rows {
			got = append(got, string(n.ID))
		}
		if strings.Join(got, " ") != want {
			s.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	names := func(q store.Query) []string { return s.nodeNames(e, q) }
	s.equal(names(store.Query{SortBy: "error_code", Limit: 3}), []string{"n0", "n3", "n2"})
	s.equal(names(store.Query{SortBy: "error_code", Ascending: true, Limit: 3, Offset: 2}), []string{"n2", "n3", "n0"})
	s.equal(names(store.Query{SortBy: "error_code", Offset: 9}), []string(nil))
	s.equal(names(store.Query{Filters: filters("eq error_kind USER", "eq phase FAILED"), SortBy: "node_id", Limit: 1, Offset: 1}), []string{"n0"})
	s.equal(names(store.Query{Filters: filters("eq error_kind USER", "eq node_id n2")}), []string{"n2"})

	attempts := func(q store.Query) []string {
		s.Helper()
		rows, err := s.store.ListAttempts(s.ctx, e.ID, "", q)
		s.ok(err)
		return nodesOf(rows)
	}
	s.equal(attempts(store.Query{Filters: filters("eq name t1"), Ascending: true}), []string{"n1", "n3"})
	s.equal(attempts(store.Query{Filters: filters("eq task.name t0", "ne task_execution.version v0"), Ascending: true, Limit: 1}), []string{"n2"})
	s.equal(attempts(store.Query{Filters: filters("eq node_execution.phase FAILED"), Ascending: true}), []string{"n0", "n2", "n3"})
	s.equal(attempts(store.Query{SortBy: "version", Limit: 2}), []string{"n4", "n3"})
	for _, q := range []store.Query{
		{Filters: filters("like error_code x", "eq colour red")}, {Filters: filters("eq error_code")}, {SortBy: "error_code", Offset: -1}, {SortBy: "task.name"},
		{Filters: filters("eq task.name x")}, {Filters: filters("eq parent_id 1")},
	} {
		_, err := s.store.ListNodes(s.ctx, e.ID, "", true, q)
		s.is(err, aloft.ErrInvalid)
	}
	_, err := s.store.ListAttempts(s.ctx, e.ID, "", store.Query{SortBy: "task.name"})
	s.is(err, aloft.ErrInvalid)
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
	wrong(store.Query{Filters: filters("eq cluster x")}, "'execution.cluster' is invalid filter (Flyte's column 'cluster' has no counterpart here)")
	wrong(store.Query{Filters: filters("eq execution_tag.colour red")}, "'execution_tag.colour' is invalid filter")
	wrong(store.Query{Filters: filters("like admin_tag.name x")}, "unrecognized filter function: like")
	wrong(store.Query{SortBy: "admin_tag.name"}, "invalid sort key 'admin_tag.name'")
	wrong(store.Query{SortBy: "cluster"}, "invalid sort key 'cluster' (Flyte's column 'cluster' has no counterpart here)")
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
	nodes := func(q store.Query) []string { return s.nodeNames(e, q) }
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

// nodeNames lists the nodes of an execution.
func (s *suite) nodeNames(e *store.Execution, q store.Query) (names []string) {
	s.Helper()
	rows, err := s.store.ListNodes(s.ctx, e.ID, "", true, q)
	s.ok(err)
	for _, n := range rows {
		names = append(names, string(n.ID))
	}
	return names
}
