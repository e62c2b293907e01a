package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
	"github.com/aloft-dev/aloft/store/storetest"
)

// statement is an SQL statement that a call has run.
type statement struct {
	query string
	args  []any
}

// recorded are the statements that a call runs, reads and writes, as it runs them.
func recorded(t *testing.T, s *Store, call func(context.Context, *Store) error) (ran []statement) {
	t.Helper()
	note := func(query string, args []any) {
		if verb, _, _ := strings.Cut(query, " "); slices.Contains([]string{"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}, strings.TrimSpace(verb)) {
			ran = append(ran, statement{query, args})
		}
	}
	watchWriter(t, s, note)
	err := call(context.WithValue(t.Context(), observerKey{}, note), s)
	watchWriter(t, s, nil)
	if err != nil && !errors.Is(err, aloft.ErrNotFound) && !errors.Is(err, aloft.ErrConflict) && !errors.Is(err, aloft.ErrPrecondition) {
		t.Fatal(err)
	}
	return ran
}

// watchWriter lets note see the statements of the writer; nil: no more.
func watchWriter(t *testing.T, s *Store, note func(string, []any)) {
	t.Helper()
	if err := s.write(t.Context(), 0, func(t *tx) error {
		if w, ok := t.conn.session.(*observedSession); ok {
			t.conn.session = w.session
		}
		if note != nil {
			t.conn.session = &observedSession{t.conn.session, note}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// observedSession is a session that notes the statements that it is given.
type observedSession struct {
	session
	note func(string, []any)
}

func (w *observedSession) tell(query string, args []driver.Value) {
	given := make([]any, len(args))
	for i, arg := range args {
		given[i] = arg
	}
	w.note(query, given)
}

func (w *observedSession) exec(query string, args []driver.Value) (int64, error) {
	w.tell(query, args)
	return w.session.exec(query, args)
}

func (w *observedSession) execLater(query string, args []driver.Value, check func(int64) error) error {
	w.tell(query, args)
	return w.session.execLater(query, args, check)
}

func (w *observedSession) insertLater(m *bulkInsert, args []driver.Value, check func(int64) error) error {
	w.tell(m.texts[len(m.texts)-1], args[:m.columns])
	return w.session.insertLater(m, args, check)
}

func (w *observedSession) insertMerged(m *bulkInsert, args []driver.Value, want int64, check func(int64) error) {
	w.tell(m.texts[len(m.texts)-1], args[:m.columns])
	w.session.insertMerged(m, args, want, check)
}

func (w *observedSession) query(query string, args []driver.Value, columns int, got func([]driver.Value) error) error {
	w.tell(query, args)
	return w.session.query(query, args, columns, got)
}

// hotCalls are calls that run all the time, or that people wait for. All of them find their rows by an index.
func hotCalls(one *store.Execution, leases []store.Lease) map[string]func(context.Context, *Store) error {
	shards := []int{0, 1, 2, 63}
	then := time.Unix(0, 7)
	task := &core.Identifier{ResourceType: core.ResourceType_TASK, Project: "p", Domain: "d", Name: "n", Version: "v"}
	result := store.ResultID{Project: "p", Domain: "d", Name: "n", Version: "v", Tag: "flyte_cached-1"}
	attempt := aloft.AttemptID{Execution: one.ID, Node: "n7"}
	key := store.AttemptKey{Execution: one.Key, Node: "n7", Token: "t"}
	page := store.Query{Project: "p", Domain: "d", Limit: 10}
	named := page
	named.Name = "n"
	return map[string]func(context.Context, *Store) error{
		"inbox":    func(ctx context.Context, s *Store) error { _, err := s.Inbox(ctx, shards, 5, 10); return err },
		"messages": func(ctx context.Context, s *Store) error { _, err := s.Messages(ctx, []int64{1, 2, 3}); return err },
		"due":      func(ctx context.Context, s *Store) error { _, err := s.Due(ctx, shards, then, 10); return err },
		"clocks":   func(ctx context.Context, s *Store) error { _, err := s.Clocks(ctx, shards, 3, 10); return err },
		"load":     func(ctx context.Context, s *Store) error { _, _, err := storetest.Load(ctx, s, one.Key); return err },
		"waiting":  func(ctx context.Context, s *Store) error { _, err := s.Waiting(ctx, then, 10); return err },
		"assigned": func(ctx context.Context, s *Store) error { _, err := s.Assigned(ctx, "x"); return err },
		"stuck":    func(ctx context.Context, s *Store) error { _, err := s.Stuck(ctx, 10); return err },
		"waits":    func(ctx context.Context, s *Store) error { _, err := s.Waits(ctx, 10); return err },
		"one":      func(ctx context.Context, s *Store) error { _, err := s.GetExecution(ctx, one.ID); return err },
		"node":     func(ctx context.Context, s *Store) error { _, err := s.GetNode(ctx, one.ID, "n7"); return err },
		"attempt":  func(ctx context.Context, s *Store) error { _, err := s.GetAttempt(ctx, attempt); return err },
		"values": func(ctx context.Context, s *Store) error {
			_, err := s.NodeValues(ctx, one.ID, []aloft.NodeID{"n7", "n8"})
			return err
		},
		"node inputs": func(ctx context.Context, s *Store) error { _, err := s.NodeInputs(ctx, one.Key, "n7"); return err },
		"nodes": func(ctx context.Context, s *Store) error {
			_, err := s.ListNodes(ctx, one.ID, "", false, store.Query{Limit: 10})
			return err
		},
		"attempts": func(ctx context.Context, s *Store) error {
			_, err := s.ListAttempts(ctx, one.ID, "n7", store.Query{Limit: 10})
			return err
		},
		"results": func(ctx context.Context, s *Store) error {
			_, err := s.FindResults(ctx, []store.ResultID{result})
			return err
		},
		"a result": func(ctx context.Context, s *Store) error { _, err := s.FindResult(ctx, result); return err },
		"results listed": func(ctx context.Context, s *Store) error {
			_, err := s.ListResults(ctx, store.ResultQuery{Project: "p", Domain: "d", Name: "n", Limit: 10})
			return err
		},
		"version":  func(ctx context.Context, s *Store) error { _, err := s.GetTask(ctx, task); return err },
		"versions": func(ctx context.Context, s *Store) error { _, err := s.ListWorkflows(ctx, named); return err },
		"tasks":    func(ctx context.Context, s *Store) error { _, err := s.ListTasks(ctx, named); return err },
		"plans":    func(ctx context.Context, s *Store) error { _, err := s.ListLaunchPlans(ctx, named); return err },
		"active plan": func(ctx context.Context, s *Store) error {
			_, err := s.GetActiveLaunchPlan(ctx, "p", "d", "n")
			return err
		},
		"a name": func(ctx context.Context, s *Store) error {
			_, err := s.GetNamedEntity(ctx, core.ResourceType_WORKFLOW, &admin.NamedEntityIdentifier{Project: "p", Domain: "d", Name: "n"})
			return err
		},
		"recovery job": func(ctx context.Context, s *Store) error { _, err := s.GetRecoveryJob(ctx, "j"); return err },
		"recoveries of": func(ctx context.Context, s *Store) error {
			_, err := s.RecoveriesOf(ctx, []aloft.ExecutionID{one.ID})
			return err
		},
		"since": func(ctx context.Context, s *Store) error { _, err := s.SucceededSince(ctx, one.ID); return err },
		"terminate": func(ctx context.Context, s *Store) error {
			return s.Append(ctx, one.ID, store.Message{Dedup: "x", Inbox: &aloftv1.Inbox{}})
		},
		"commit": func(ctx context.Context, s *Store) error {
			return errors.Join(s.Commit(ctx, []*store.Step{{Execution: one.Key, ID: one.ID, Lease: leases[one.Shard], Seq: 1, CommitID: "c", Entry: &aloftv1.JournalEntry{},
				Nodes:    []*store.Node{{ID: "n7", Phase: core.NodeExecution_QUEUED, CreatedAt: then, UpdatedAt: then}},
				Attempts: []*store.Attempt{{AttemptKey: key, Phase: core.TaskExecution_QUEUED, CreatedAt: then, UpdatedAt: then}}, Consumed: []int64{1}}})...)
		},
		"assign": func(ctx context.Context, s *Store) error {
			return errors.Join(s.Assign(ctx, "x", "nonce", []store.AttemptKey{key}, then)...)
		},
		"set waiting": func(ctx context.Context, s *Store) error {
			return s.SetWaiting(ctx, "x", []store.AttemptKey{key}, "why")
		},
		"shards": func(ctx context.Context, s *Store) error {
			_, err := s.AcquireShards(ctx, "engine", then, time.Hour)
			return err
		},
		"reserve": func(ctx context.Context, s *Store) error {
			_, err := s.Reserve(ctx, store.Reservation{ID: result, Owner: "o", Expires: then.Add(time.Hour), Heartbeat: time.Second}, then)
			return err
		},
		"release": func(ctx context.Context, s *Store) error { return s.Release(ctx, result, "o") },
		"used":    func(ctx context.Context, s *Store) error { return s.UsedResults(ctx, []string{"1", "2"}, then) },
	}
}

// populated has so many executions, one of them with as many nodes that run.
func populated(t *testing.T, s *Store, n int) (leases []store.Lease, one *store.Execution) {
	t.Helper()
	populate(t, s, n)
	leases, err := s.AcquireShards(t.Context(), "engine", time.Unix(0, 1), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	one = &store.Execution{ID: aloft.ExecutionID{Project: "p", Domain: "d", Name: "one"}, Spec: &admin.ExecutionSpec{}, CreatedAt: time.Unix(0, 1), UpdatedAt: time.Unix(0, 1)}
	if err := s.CreateExecution(t.Context(), one, &aloftv1.Inbox{}); err != nil {
		t.Fatal(err)
	}
	series := fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", n)
	if err := s.CreateWorkflow(t.Context(), &store.Workflow{ID: &core.Identifier{ResourceType: core.ResourceType_WORKFLOW, Project: "p", Domain: "d", Name: "n", Version: "v"}, Digest: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`INSERT INTO nodes (execution, node, flags, phase, ended, created_at, started_at, updated_at, ended_at) SELECT ` + fmt.Sprint(one.Key) + `, 'n' || i, 0, 2, 0, i, i, i, 0 FROM n`,
		`INSERT INTO attempts (execution, node, attempt, token, phase, by_engine, ended, lost, not_before, created_at, started_at, updated_at, ended_at) SELECT ` +
			fmt.Sprint(one.Key) + `, 'n' || i, 0, 't' || i, 2, 0, 0, 0, 0, i, 0, i, 0 FROM n`,
	} {
		if err := s.write(t.Context(), 1, func(t *tx) error { _, err := t.exec(series + statement); return err }); err != nil {
			t.Fatal(err)
		}
	}
	return leases, one
}

// sorts are the calls whose rows may be sorted, because the rows are few, or an index would cost more than the sorting.
var sorts = map[string]string{
	"nodes":         "those of one execution: an index would cost each node that is written",
	"attempts":      "those of one node",
	"recoveries of": "those of the executions that were asked for",
}

// harmlessScans removes from a plan the scans of rows that the statement has made itself, of executions and attempts that run or
// wait now, and of tables that have a few rows.
var harmlessScans = strings.NewReplacer("SCAN CONSTANT ROW", "", "CO-ROUTINE e; SEARCH workflows", "", "SCAN e; SEARCH m", "", "SCAN there", "",
	"SCAN e USING INDEX executions_open", "", "SCAN e USING COVERING INDEX executions_waits", "", "SCAN e USING INDEX executions_waits", "", "SCAN a USING INDEX attempts_waiting", "",
	"SCAN shards", "", "SCAN engines", "", "RIGHT; SCAN shards; USE TEMP B-TREE FOR ORDER BY", "")

// looksThrough is the step of a plan of SQLite's that looks through rows or sorts them; empty: none does.
func looksThrough(call, text string) string {
	for step := range strings.SplitSeq(harmlessScans.Replace(text), "; ") {
		if strings.Contains(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") && sorts[call] == "" {
			return step
		}
	}
	return ""
}

// TestHotCallsFollowAnIndex keeps calls that run all the time from growing with the size of the store. It explains the
// statements that the calls ran.
func TestHotCallsFollowAnIndex(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	leases, one := populated(t, s, 2000)
	for name, call := range hotCalls(one, leases) {
		t.Run(name, func(t *testing.T) {
			ran := recorded(t, s, call)
			if len(ran) == 0 {
				t.Fatal("it has run no statement")
			}
			for _, st := range ran {
				text := strings.Join(plan(t, s, "EXPLAIN QUERY PLAN "+st.query, st.args...), "; ")
				if bad := looksThrough(name, text); bad != "" {
					t.Errorf("the plan of %s\nis %s:\n%s", st.query, text, bad)
				}
			}
		})
	}
}

// seqScans are the tables that a plan of PostgreSQL's reads from end to end.
var seqScans = regexp.MustCompile(`Seq Scan on (\w+)`)

// TestPostgreSQLFollowsAnIndexInHotCallsToo also before it has counted what is there, and when it has.
func TestPostgreSQLFollowsAnIndexInHotCallsToo(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s, err := Open(t.Context(), Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	grow := []string{"executions", "execution_specs", "execution_tags", "nodes", "attempts", "results", "result_tags", "journal", "inbox", "tasks", "workflows", "launch_plans", "reservations"}
	for _, table := range grow {
		postgrestest.Exec(t, url, "ALTER TABLE "+table+" SET (autovacuum_enabled = false)")
	}
	leases, one := populated(t, s, 20_000)
	for _, counted := range []bool{false, true} {
		if counted {
			postgrestest.Exec(t, url, "ANALYZE executions, execution_specs, execution_tags, nodes, attempts")
		}
		for name, call := range hotCalls(one, leases) {
			for _, st := range recorded(t, s, call) {
				text := strings.Join(plan(t, s, "EXPLAIN "+st.query, st.args...), "\n")
				for _, read := range seqScans.FindAllStringSubmatch(text, -1) {
					if slices.Contains(grow, read[1]) {
						t.Errorf("%s, counted %t: the plan of %s\nreads all of %s:\n%s", name, counted, st.query, read[1], text)
					}
				}
			}
		}
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
		`INSERT INTO execution_tags (key, value, execution) SELECT 'other' || (number % 50), 'x', number FROM executions`,
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
	for _, places := range byTags.sizes { // FindResults takes the smallest that is enough
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

// tagFilters are lists by tags in an order that no index has: those in the order of creation are in TestListsWalkTheirIndex.
var tagFilters = map[string]store.Query{
	"one tag": {Project: "p", Domain: "d", Limit: 10, SortBy: "execution_name", Filters: []store.Filter{
		{Field: "admin_tag.name", Function: "eq", Values: []string{"a"}}, {Field: "state", Function: "eq", Values: []string{"0"}}}},
	"one of two": {Project: "p", Domain: "d", Limit: 10, SortBy: "execution_name", Filters: []store.Filter{{Field: "admin_tag.name", Function: "value_in", Values: []string{"a", "b"}}}},
	"two tags": {Project: "p", Domain: "d", Limit: 10, SortBy: "execution_name", Filters: []store.Filter{
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
		text := ""
		for _, st := range recorded(t, s, func(ctx context.Context, s *Store) error { _, err := s.ListExecutions(ctx, q); return err }) {
			text += strings.Join(plan(t, s, "EXPLAIN QUERY PLAN "+st.query, st.args...), "; ")
		}
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
			text := ""
			for _, st := range recorded(t, s, func(ctx context.Context, s *Store) error { _, err := s.ListExecutions(ctx, q); return err }) {
				text += strings.Join(plan(t, s, "EXPLAIN (ANALYZE, TIMING OFF) "+st.query, st.args...), "\n")
			}
			if !strings.Contains(text, "execution_tags_pkey") || !strings.Contains(text, "executions_pkey") || strings.Contains(text, "rows=20000 loops") {
				t.Errorf("%s, counted %t, is looked up so:\n%s", name, counted, text)
			}
		}
	}
}
