package sqlstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

// populate writes so many executions as clients would make them in years: a tenth has failed, half of the first half are of
// a workflow that did not run since, a few run.
func populate(t testing.TB, s *Store, n int) {
	t.Helper()
	series := fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", n)
	phase := fmt.Sprintf("CASE WHEN i > %d THEN 2 WHEN i %% 10 = 0 THEN 6 ELSE 4 END", n-20)
	statements := []string{
		series + fmt.Sprintf(`INSERT INTO executions (shard, project, domain, name, journal_version, phase, ended, created_at, started_at, updated_at, ended_at, due_at,
			waiting, abort_cause, abort_principal, state, state_changed_at, state_principal, error_kind, error_code)
			SELECT i %% 64, 'p', CASE WHEN i %% 7 = 3 THEN 'other' ELSE 'd' END, 'e' || i, 2, %[1]s, CASE WHEN i > %[2]d THEN 0 ELSE 1 END,
			(i / 3) * 1000, (i / 3) * 1000 + 1, (i / 3) * 1000 + i %% 900, CASE WHEN i > %[2]d THEN 0 ELSE (i / 3) * 1000 + i %% 900 END, 0,
			'', CASE WHEN i %% 50 = 7 THEN 'asked' ELSE '' END, '', CASE WHEN i %% 1000 = 500 THEN 1 ELSE 0 END, 0, '', CASE WHEN i %% 10 = 0 THEN 'USER' ELSE '' END, CASE WHEN i %% 10 = 0 THEN 'E' || (i %% 3) ELSE '' END FROM n`, phase, n-20),
		`INSERT INTO execution_specs (execution, mode, principal, launch_entity, launch_project, launch_domain, launch_name, launch_version,
			workflow_project, workflow_domain, workflow_name, workflow_version, spec) SELECT number, number % 3, CASE WHEN number % 4 = 0 THEN 'u' || (number % 20) ELSE '' END,
			CASE WHEN number % 11 = 0 THEN 'task' ELSE 'launch_plan' END, 'p', 'd', 'l' || (number % 30), 'v' || (number % 200), 'p', 'd',
			CASE WHEN number < ` + strconv.Itoa(n/2) + ` AND number % 2 = 0 THEN 'old' ELSE 'wf' || (number % 40) END, 'v' || (number % 200), NULL FROM executions`,
		`INSERT INTO execution_tags (key, value, execution) SELECT 'nightly', '', number FROM executions WHERE number % 2 = 0`,
		`INSERT INTO execution_tags (key, value, execution) SELECT 'env', CASE WHEN number % 2 = 0 THEN 'prod' ELSE 'dev' END, number FROM executions WHERE number % 3 = 0`,
		`INSERT INTO execution_tags (key, value, execution) SELECT 'rare', '', number FROM executions WHERE number % 500 = 1`,
	}
	for _, statement := range statements {
		if err := s.write(t.Context(), 1, func(t *tx) error { _, err := t.exec(statement); return err }); err != nil {
			t.Fatal(err)
		}
	}
}

func filtered(function, field string, values ...string) store.Filter {
	return store.Filter{Function: function, Field: field, Values: values}
}

var active = filtered("eq", "state", "0")

func at(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

// lists are filters as clients send them, for n executions, each with the index that its walk uses, or a part of the plan's text.
func lists(n int) map[string]struct {
	filters []store.Filter
	index   string
	none    bool // no execution fits
} {
	end := int64(n/3) * 1000
	return map[string]struct {
		filters []store.Filter
		index   string
		none    bool
	}{
		"the newest":           {nil, "executions_created", false},
		"failed":               {[]store.Filter{filtered("eq", "phase", "FAILED")}, "executions_phase", false},
		"aborted, none":        {[]store.Filter{filtered("eq", "phase", "ABORTED")}, "executions_phase", true},
		"running":              {[]store.Filter{filtered("eq", "phase", "RUNNING")}, "executions_phase", false},
		"two phases":           {[]store.Filter{filtered("value_in", "phase", "RUNNING", "FAILED")}, "executions_phase", false},
		"not succeeded":        {[]store.Filter{filtered("ne", "phase", "SUCCEEDED")}, "executions_phase", false},
		"a workflow":           {[]store.Filter{filtered("eq", "workflow.name", "wf3")}, "execution_specs_workflow", false},
		"an old workflow":      {[]store.Filter{filtered("eq", "workflow.name", "old")}, "execution_specs_workflow", false},
		"no workflow":          {[]store.Filter{filtered("eq", "workflow.name", "none")}, "execution_specs_workflow", true},
		"workflows":            {[]store.Filter{filtered("value_in", "workflow.name", "wf3", "wf4", "none")}, "execution_specs_workflow", false},
		"part of a workflow":   {[]store.Filter{filtered("contains", "workflow.name", "ol")}, "execution_specs_workflow", false},
		"a version":            {[]store.Filter{filtered("eq", "workflow.version", "v17")}, "execution_specs_workflow_version", false},
		"a launch plan":        {[]store.Filter{filtered("eq", "launch_plan.name", "l3")}, "execution_specs_launch", false},
		"no launch plan":       {[]store.Filter{filtered("eq", "launch_plan.name", "none")}, "execution_specs_launch", true},
		"a plan's version":     {[]store.Filter{filtered("eq", "launch_plan.version", "none")}, "execution_specs_launch_version", true},
		"a user":               {[]store.Filter{filtered("eq", "user", "u8")}, "execution_specs_principal", false},
		"no user":              {[]store.Filter{filtered("eq", "user", "none")}, "execution_specs_principal", true},
		"a mode":               {[]store.Filter{filtered("eq", "mode", "1")}, "execution_specs_mode", false},
		"no mode":              {[]store.Filter{filtered("eq", "mode", "9")}, "execution_specs_mode", true},
		"an error":             {[]store.Filter{filtered("eq", "error_code", "E1")}, "executions_error", false},
		"no error":             {[]store.Filter{filtered("eq", "error_code", "none")}, "executions_error", true},
		"a tag":                {[]store.Filter{filtered("eq", "admin_tag.name", "nightly")}, "execution_tags_key", false},
		"a rare tag":           {[]store.Filter{filtered("eq", "admin_tag.name", "rare")}, "execution_tags_key", false},
		"no tag":               {[]store.Filter{filtered("eq", "admin_tag.name", "none")}, "execution_tags_key", true},
		"another tag":          {[]store.Filter{filtered("ne", "admin_tag.name", "x")}, "execution_tags_key", false},
		"a label":              {[]store.Filter{filtered("eq", "execution_tag.key", "env"), filtered("eq", "execution_tag.value", "prod")}, "execution_tags_value", false},
		"no label":             {[]store.Filter{filtered("eq", "execution_tag.key", "env"), filtered("eq", "execution_tag.value", "none")}, "execution_tags_value", true},
		"two tags":             {[]store.Filter{filtered("eq", "admin_tag.name", "nightly"), filtered("eq", "admin_tag.name", "rare")}, "execution_tags_key", true},
		"a name":               {[]store.Filter{filtered("eq", "execution_name", "e77")}, "executions", false},
		"names":                {[]store.Filter{filtered("value_in", "execution_name", "e77", "e78", "none")}, "executions", false},
		"created in":           {[]store.Filter{filtered("gte", "created_at", at(end/2)), filtered("lt", "created_at", at(end/2+50_000))}, "executions_created", false},
		"created later":        {[]store.Filter{filtered("gt", "created_at", at(2*end))}, "executions_created", true},
		"started after":        {[]store.Filter{filtered("gt", "started_at", at(end-20_000))}, "executions_started", false},
		"started before":       {[]store.Filter{filtered("lt", "started_at", at(20_000))}, "executions_started", false},
		"changed later":        {[]store.Filter{filtered("gt", "updated_at", at(2*end))}, "executions_updated", true},
		"changed since":        {[]store.Filter{filtered("gte", "updated_at", at(end-20_000))}, "executions_updated", false},
		"lasted longer":        {[]store.Filter{filtered("gt", "duration", "100")}, "executions_lasted", true},
		"failed of a workflow": {[]store.Filter{filtered("eq", "phase", "FAILED"), filtered("eq", "workflow.name", "wf3")}, "executions", true},
		"a rare, failed tag":   {[]store.Filter{filtered("eq", "phase", "FAILED"), filtered("eq", "admin_tag.name", "rare")}, "executions", true},
		"a cause":              {[]store.Filter{filtered("contains", "abort_cause", "ask")}, "executions_aborted", false},
		"no cause":             {[]store.Filter{filtered("eq", "abort_cause", "none")}, "executions_aborted", true},
		"archived":             {[]store.Filter{filtered("eq", "state", "1")}, "executions_created", true},
	}
}

func names(recs []*store.Execution) (names []string) {
	for _, e := range recs {
		names = append(names, e.ID.Name)
	}
	return names
}

// byScan is a list as the database makes it of one statement.
func byScan(t *testing.T, s *Store, q store.Query) (recs []*store.Execution) {
	t.Helper()
	where, args, err := executionsWhere(q)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.read(t.Context(), false, listExecutions+where, args, func(scan scan) error {
		rec, err := scanExecution(scan)
		recs = append(recs, rec)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return recs
}

// TestListsByPositionsAreThoseOfOneStatement compares each kind of list, and mixtures of two, with what the database makes of
// one statement: pages by offset and by position, both ways round.
func TestListsByPositionsAreThoseOfOneStatement(t *testing.T) {
	t.Parallel()
	const n = 2500
	onBothDatabases(t, func(t *testing.T, s *Store) {
		populate(t, s, n)
		all := lists(n)
		kinds := slices.Sorted(func(yield func(string) bool) {
			for kind := range all {
				if !yield(kind) {
					return
				}
			}
		})
		check := func(kind string, filters []store.Filter, page store.Query) (rows int) {
			t.Helper()
			q := page
			q.Project, q.Domain, q.Filters = "p", "d", filters
			if s.newWalkedList(q) == nil {
				t.Fatalf("%s is not read by positions", kind)
			}
			got, err := s.ListExecutions(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			want := names(byScan(t, s, q))
			if !slices.Equal(names(got), want) {
				t.Errorf("%s: got %v, want %v", kind, names(got), want)
			}
			if len(got) == 0 {
				return 0
			}
			q.Offset, q.After = 0, store.PositionOf(got[len(got)-1])
			behind, err := s.ListExecutions(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if want := names(byScan(t, s, q)); !slices.Equal(names(behind), want) {
				t.Errorf("%s, the page behind: got %v, want %v", kind, names(behind), want)
			}
			return len(got)
		}
		pages := []store.Query{{Limit: 7}, {Limit: 7, Ascending: true}, {Limit: 50, Offset: 5}, {Limit: 90, Offset: 300, Ascending: true}}
		random := rand.New(rand.NewPCG(1, 2))
		for _, kind := range kinds {
			for i, page := range pages {
				if rows := check(kind, append([]store.Filter{active}, all[kind].filters...), page); i == 0 && (rows > 0) == all[kind].none {
					t.Errorf("%s has %d rows: then it compares nothing, or is not the miss that it is meant to be", kind, rows)
				}
			}
			other := kinds[random.IntN(len(kinds))]
			if !strings.Contains(kind+other, "tag") && !strings.Contains(kind+other, "label") { // conditions on tags are about one
				for _, page := range pages {
					check(kind+" and "+other, slices.Concat([]store.Filter{active}, all[kind].filters, all[other].filters), page)
				}
			}
		}
		// Each execution that is looked at is on these lists: they are read without a check.
		for kind, filters := range map[string][]store.Filter{
			"everything":           nil,
			"everything in phases": {filtered("value_in", "phase", "RUNNING", "FAILED", "SUCCEEDED")},
		} {
			for _, page := range append(pages, store.Query{Limit: 50, Offset: sliceRows - 25}, store.Query{Limit: 50, Offset: sliceRows + 1, Ascending: true}) {
				if check(kind, filters, page) != page.Limit {
					t.Errorf("%s has less than %d rows from %d on: then the page is not behind a slice", kind, page.Limit, page.Offset)
				}
			}
		}
	})
}

func onBothDatabases(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Helper()
	for _, name := range []string{"SQLite", "PostgreSQL"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := Options{Path: filepath.Join(t.TempDir(), "aloft.db")}
			if name == "PostgreSQL" {
				options = Options{URL: postgrestest.Database(t)}
			}
			s, err := Open(t.Context(), options)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			test(t, s)
		})
	}
}

// listing asks for a page.
func listing(filters []store.Filter) func(context.Context, *Store) error {
	return func(ctx context.Context, s *Store) error {
		_, err := s.ListExecutions(ctx, store.Query{Project: "p", Domain: "d", Limit: 20, Filters: append([]store.Filter{active}, filters...)})
		return err
	}
}

// TestListsWalkTheirIndex: with each kind of filter, each statement of a page searches an index, sorts nothing but the rows of
// the page, and looks at one slice.
func TestListsWalkTheirIndex(t *testing.T) {
	t.Parallel()
	const n = 6000 // more than a slice, and than is counted
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	populate(t, s, n)
	for kind, list := range lists(n) {
		ran := recorded(t, s, listing(list.filters))
		var plans []string
		looked := 0
		for _, st := range ran {
			text := strings.Join(plan(t, s, "EXPLAIN QUERY PLAN "+st.query, st.args...), "; ")
			plans = append(plans, text)
			if strings.Contains(st.query, "LIMIT 1 OFFSET") {
				looked++
			}
			scans := strings.ReplaceAll(text, "SCAN e USING INDEX executions_open", "") // what runs
			scans = strings.ReplaceAll(scans, "SCAN executions USING COVERING INDEX executions_open", "")
			for _, own := range []string{"SCAN v", "SCAN counted", "SCAN (subquery", "SCAN CONSTANT"} { // of what the statement itself has made
				scans = strings.ReplaceAll(scans, own, "")
			}
			if strings.Contains(scans, "SCAN") || strings.Contains(text, "TEMP B-TREE") && !strings.HasPrefix(st.query, listExecutions) {
				t.Errorf("%s: the plan of %s is %s", kind, st.query, text)
			}
		}
		if !strings.Contains(strings.Join(plans, "\n"), list.index) {
			t.Errorf("%s does not use %s:\n%s", kind, list.index, strings.Join(plans, "\n"))
		}
		if looked > 1 && kind != "archived" && len(list.filters) == 1 && list.filters[0].Function == "eq" {
			t.Errorf("%s: %d slices were looked at, want one", kind, looked)
		}
	}
}

// TestPostgreSQLWalksTheIndexToo also before it has counted what is there.
func TestPostgreSQLWalksTheIndexToo(t *testing.T) {
	t.Parallel()
	const n = 20_000
	url := postgrestest.Database(t)
	s, err := Open(t.Context(), Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, table := range []string{"executions", "execution_specs", "execution_tags"} {
		postgrestest.Exec(t, url, "ALTER TABLE "+table+" SET (autovacuum_enabled = false)")
	}
	populate(t, s, n)
	for _, counted := range []bool{false, true} {
		if counted {
			postgrestest.Exec(t, url, "ANALYZE")
		}
		for kind, list := range lists(n) {
			for _, st := range recorded(t, s, listing(list.filters)) {
				if text := strings.Join(plan(t, s, "EXPLAIN "+st.query, st.args...), "\n"); strings.Contains(text, "Seq Scan on execution") {
					t.Errorf("%s, counted %t: the plan of %s is\n%s", kind, counted, st.query, text)
				}
			}
		}
	}
}

// TestLargePagesAreReadInTurn: clients that ask for large pages must not keep all processors busy.
func TestLargePagesAreReadInTurn(t *testing.T) {
	t.Parallel()
	s := openIn(t, t.TempDir())
	populate(t, s, 600)
	for len(s.pages) < cap(s.pages) {
		s.pages <- struct{}{} // the turns of other pages
	}
	list := func(ctx context.Context, limit int) (int, error) {
		recs, err := s.ListExecutions(ctx, store.Query{Project: "p", Domain: "d", SortBy: "created_at", Limit: limit})
		return len(recs), err
	}
	if n, err := list(t.Context(), usualPage); n != usualPage || err != nil {
		t.Errorf("a usual page while others read large ones: %d executions, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n, err := list(ctx, 3*usualPage); err == nil {
		t.Errorf("a large page while others have all turns: %d executions", n)
	}
	<-s.pages
	if n, err := list(t.Context(), 3*usualPage); n != 3*usualPage || err != nil || len(s.pages) != cap(s.pages)-1 {
		t.Errorf("a large page in its turn: %d executions, %v, %d turns taken", n, err, len(s.pages))
	}
}

// TestListsThatLookAtManyRowsTakeTurns: a list that is complete after its first slice does not wait for a turn.
func TestListsThatLookAtManyRowsTakeTurns(t *testing.T) {
	t.Parallel()
	s := openIn(t, t.TempDir())
	populate(t, s, 2*sliceRows)
	for len(s.scans) < cap(s.scans) {
		s.scans <- struct{}{} // the turns of other lists
	}
	list := func(ctx context.Context, offset int, filters ...store.Filter) error {
		_, err := s.ListExecutions(ctx, store.Query{Project: "p", Domain: "d", SortBy: "created_at", Limit: 10, Offset: offset, Filters: filters})
		return err
	}
	if err := list(t.Context(), 0, filtered("contains", "execution_name", "e")); err != nil {
		t.Errorf("a list of what is there while others look at many rows: %v", err)
	}
	if err := list(t.Context(), sliceRows-10); err != nil {
		t.Errorf("a page of the first slice while others look at many rows: %v", err)
	}
	many := map[string]func(context.Context) error{
		"a list that finds nothing": func(ctx context.Context) error {
			return list(ctx, 0, filtered("contains", "execution_name", "nothing"))
		},
		"a page far behind, without filters": func(ctx context.Context) error { return list(ctx, sliceRows) },
	}
	for kind, list := range many {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := list(ctx); err == nil {
			t.Errorf("%s looks at many rows while others have all turns", kind)
		}
		cancel()
	}
	<-s.scans
	for kind, list := range many {
		if err := list(t.Context()); err != nil || len(s.scans) != cap(s.scans)-1 {
			t.Errorf("%s in its turn: %v, %d turns taken", kind, err, len(s.scans))
		}
	}
}
