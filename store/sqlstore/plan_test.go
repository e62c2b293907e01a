package sqlstore

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

// TestHotReadsFollowAnIndex keeps reads that run all the time from growing with the size of the store.
func TestHotReadsFollowAnIndex(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	tags, _ := byTags.fit(4)
	further, _ := byFurtherTags.fit(4)
	bound := strings.NewReplacer("?", "'a'")
	workflowNames, err := selectNamedEntities(core.ResourceType_WORKFLOW)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		query string
		want  string
	}{
		"inbox":       {bound.Replace("SELECT "+inboxColumns) + " FROM inbox WHERE number > 5 ORDER BY number LIMIT 10", "SEARCH inbox USING INTEGER PRIMARY KEY"},
		"due":         {"SELECT number, shard, due_at FROM executions WHERE due_at > 0 AND due_at <= 7 ORDER BY due_at, number LIMIT 10", "executions_due"},
		"clocks":      {bound.Replace(selectClocks) + " ORDER BY number LIMIT 10", "executions_open"},
		"last entry":  {"SELECT entry FROM journal WHERE execution = 1 AND LENGTH(entry) > 1 ORDER BY seq DESC LIMIT 1", "PRIMARY KEY"},
		"journal":     {bound.Replace(selectJournal), "PRIMARY KEY"},
		"waiting":     {selectAttempts + "WHERE a.ended = 0 AND a.by_engine = 0 AND a.executor IS NULL AND a.stop IS NULL AND a.not_before <= 7 ORDER BY a.number LIMIT 10", "attempts_waiting"},
		"assigned":    {selectAttempts + "WHERE a.executor = 'x' AND a.ended = 0 AND a.executor IS NOT NULL ORDER BY a.number", "attempts_executor"},
		"stuck":       {"SELECT project FROM executions e WHERE ended = 0 AND due_at = 0 AND waiting = '' ORDER BY number LIMIT 10", "executions_open"},
		"latest":      {listExecutions + "WHERE e.number > 0 AND e.project = 'p' AND e.domain = 'd' ORDER BY e.created_at DESC, e.number DESC LIMIT 10 OFFSET 0", "executions_created"},
		"one":         {oneExecution + "WHERE e.project = 'p' AND e.domain = 'd' AND e.name = 'n'", "sqlite_autoindex_executions"},
		"node":        {oneNode + "WHERE e.project = 'p' AND e.domain = 'd' AND e.name = 'n' AND n.node = 'x'", "sqlite_autoindex_nodes"},
		"results":     {bound.Replace(tags), "INDEX results_tag"},
		"of a task":   {"SELECT r.id" + fromResults + "WHERE r.number > 0 AND r.project = 'p' AND r.domain = 'd' AND r.name = 'n' ORDER BY r.number DESC LIMIT 10 OFFSET 0", "INDEX results_dataset"},
		"reserved":    {"SELECT result, owner FROM reservations WHERE execution = 7 ORDER BY result", "reservations_execution"},
		"by tag":      {bound.Replace(further), "sqlite_autoindex_result_tags"},
		"a name":      {bound.Replace(workflowNames + oneName), "sqlite_autoindex_workflows"},
		"active plan": {selectLaunchPlans + "WHERE project = 'p' AND domain = 'd' AND name = 'n' AND state = 1", "launch_plans_active"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Join(plan(t, s, "EXPLAIN QUERY PLAN "+test.query), "; ")
			if !strings.Contains(text, test.want) || strings.Contains(text, "TEMP B-TREE") {
				t.Errorf("the plan is %q, want %s and no sorting", text, test.want)
			}
		})
	}
}

// plan is what the database says that it will do, or did, for a query that begins with EXPLAIN.
func plan(t *testing.T, s *Store, query string, args ...any) (lines []string) {
	t.Helper()
	err := s.read(t.Context(), false, query, args, func(scan scan) error {
		var line string
		var err error
		if s.dialect == &postgresDialect {
			err = scan(&line)
		} else {
			var id, parent, unused int64
			err = scan(&id, &parent, &unused, &line)
		}
		lines = append(lines, line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// uncounted is a PostgreSQL store with 20,000 executions and results of which it has no statistics.
func uncounted(t *testing.T) (s *Store, url string) {
	t.Helper()
	url = postgrestest.Database(t)
	s, err := Open(t.Context(), Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, table := range []string{"executions", "execution_specs", "execution_tags", "results"} {
		postgrestest.Exec(t, url, "ALTER TABLE "+table+" SET (autovacuum_enabled = false)")
	}
	for _, statement := range []string{
		`INSERT INTO executions (shard, project, domain, name, journal_version, phase, ended, created_at, started_at, updated_at, ended_at, due_at, waiting,
			abort_cause, abort_principal, state, state_changed_at, state_principal, error_kind, error_code)
			SELECT n % 64, 'p', 'd', 'e' || n, 2, 4, 1, n, n, n, n, 0, '', '', '', 0, 0, '', '', '' FROM generate_series(1, 20000) n`,
		`INSERT INTO execution_specs (execution, mode, principal, launch_entity, launch_project, launch_domain, launch_name, launch_version,
			workflow_project, workflow_domain, workflow_name, workflow_version) SELECT number, 0, '', 'launch_plan', '', '', '', '', '', '', '', '' FROM executions`,
		`INSERT INTO execution_tags (key, value, execution) SELECT 'other' || number % 50, 'x', number FROM executions`,
		`INSERT INTO execution_tags (key, value, execution) SELECT k, v, number FROM executions, (VALUES ('a', ''), ('a', 'b'), ('b', '')) AS t (k, v) WHERE number % 2000 = 1`,
		`INSERT INTO results (id, project, domain, name, version, tag, created_at, used_at, size, pinned, gone_at, source_attempt)
			SELECT n::text, 'p', 'd', 'n', 'v', 'flyte_cached-' || n, 1, 1, 100, 0, 0, 0 FROM generate_series(1, 20000) n`,
	} {
		postgrestest.Exec(t, url, statement)
	}
	return s, url
}

// TestPostgreSQLFindsWhatItHasNotCountedByItsWholeKey: without statistics any index that has a part of a key's columns looks
// as good as the one that has all, and each lookup reads every result of the task, or every execution of the project.
func TestPostgreSQLFindsWhatItHasNotCountedByItsWholeKey(t *testing.T) {
	t.Parallel()
	s, _ := uncounted(t)
	lookup := func(index, query string, args ...any) {
		t.Helper()
		if text := strings.Join(plan(t, s, "EXPLAIN (ANALYZE, TIMING OFF) "+query, args...), "\n"); !strings.Contains(text, "using "+index) || strings.Contains(text, "Rows Removed") {
			t.Errorf("the plan is not to look it up in %s:\n%s", index, text)
		}
	}
	for _, places := range byTags.sizes {
		text, _ := byTags.fit(places)
		args := []any{"p", "d", "n", "v", "p", "d", "n", "v"}
		for n := range places {
			args = append(args, fmt.Sprintf("flyte_cached-%d", n+1))
		}
		lookup("results_tag", text, args...)
	}
	lookup("executions_project_domain_name_key", oneExecution+"WHERE e.project = ? AND e.domain = ? AND e.name = ?", "p", "d", "e7")
	lookup("executions_project_domain_name_key", "SELECT number FROM executions WHERE project = ? AND domain = ? AND name = ?", "p", "d", "e7")
}

// tagFilters are lists by tags as clients ask for them, in an order that has an index of its own.
var tagFilters = map[string]store.Query{
	"one tag": {Project: "p", Domain: "d", Limit: 10, Filters: []store.Filter{
		{Field: "admin_tag.name", Function: "eq", Values: []string{"a"}}, {Field: "state", Function: "eq", Values: []string{"0"}}}},
	"one of two": {Project: "p", Domain: "d", Limit: 10, Filters: []store.Filter{{Field: "admin_tag.name", Function: "value_in", Values: []string{"a", "b"}}}},
	"two tags": {Project: "p", Domain: "d", Limit: 10, Filters: []store.Filter{
		{Field: "admin_tag.name", Function: "eq", Values: []string{"a"}}, {Field: "admin_tag.name", Function: "eq", Values: []string{"b"}}}},
	"a label": {Limit: 10, SortBy: "execution_name", Filters: []store.Filter{
		{Field: "execution_tag.key", Function: "eq", Values: []string{"a"}}, {Field: "execution_tag.value", Function: "eq", Values: []string{"b"}}}},
}

// TestListsByTagReadTheExecutionsThatHaveIt and no others, however many there are in the project.
func TestListsByTagReadTheExecutionsThatHaveIt(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for name, q := range tagFilters {
		where, args, err := executionsWhere(q)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(plan(t, s, "EXPLAIN QUERY PLAN "+listExecutions+where, args...), "; ")
		if !strings.Contains(text, "SEARCH e USING INTEGER PRIMARY KEY") || !strings.Contains(text, "SEARCH g USING PRIMARY KEY (key=?") || strings.Contains(text, "SCAN") {
			t.Errorf("%s: the plan is %q, want the tags and then executions by their number", name, text)
		}
	}
}

// TestPostgreSQLListsByTagReadNoOtherExecutions also before it has counted them.
func TestPostgreSQLListsByTagReadNoOtherExecutions(t *testing.T) {
	t.Parallel()
	s, url := uncounted(t)
	for _, counted := range []bool{false, true} {
		if counted {
			postgrestest.Exec(t, url, "ANALYZE")
		}
		for name, q := range tagFilters {
			where, args, err := executionsWhere(q)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Join(plan(t, s, "EXPLAIN (ANALYZE, TIMING OFF) "+listExecutions+where, args...), "\n")
			if !strings.Contains(text, "execution_tags_pkey") || !strings.Contains(text, "executions_pkey") || strings.Contains(text, "rows=20000 loops") {
				t.Errorf("%s, counted %t, is looked up so:\n%s", name, counted, text)
			}
		}
	}
}
