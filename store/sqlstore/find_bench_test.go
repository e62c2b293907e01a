package sqlstore

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// BenchmarkLists lists pages of 100,000 executions; it reports the processor time that this process uses for a page.
func BenchmarkLists(b *testing.B) {
	const n = 100_000
	s, err := Open(b.Context(), Options{Path: filepath.Join(b.TempDir(), "aloft.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	populate(b, s, n)
	all := lists(n)
	for kind, filters := range map[string][]store.Filter{
		"part of a name": {filtered("contains", "execution_name", "none")}, "not the user": {filtered("ne", "user", "")},
		"not a plan": {filtered("contains", "launch_plan.name", "none")},
	} {
		l := all[kind]
		l.filters = filters
		all[kind] = l
	}
	var kinds []string
	for kind := range all {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			q := store.Query{Project: "p", Domain: "d", Limit: 100, Filters: append([]store.Filter{active}, all[kind].filters...)}
			before, rows := processor(b), 0
			for b.Loop() {
				found, err := s.ListExecutions(b.Context(), q)
				if err != nil {
					b.Fatal(err)
				}
				rows = len(found)
			}
			b.ReportMetric(float64((processor(b)-before).Microseconds())/float64(b.N)/1000, "cpu-ms/page")
			b.ReportMetric(float64(rows), "rows")
		})
	}
}

func processor(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkVersions asks for the newest of 20,000 versions of a task, as `fetch_task` without a version does, and for names.
func BenchmarkVersions(b *testing.B) {
	s, err := Open(b.Context(), Options{Path: filepath.Join(b.TempDir(), "aloft.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.write(b.Context(), 1, func(t *tx) error {
		_, err := t.exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
			INSERT INTO tasks (project, domain, name, version, type, short_description, digest, created_at, compiled)
			SELECT 'p', 'd', 'n' || (i % 2), 'v' || i, 'python-task', hex(zeroblob(2000)), zeroblob(32), i, x'' FROM n`)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"newest": func() error {
			_, err := s.ListTasks(b.Context(), store.Query{Project: "p", Domain: "d", Name: "n1", Limit: 1})
			return err
		},
		"page": func() error {
			_, err := s.ListTasks(b.Context(), store.Query{Project: "p", Domain: "d", Limit: 100})
			return err
		},
		"names": func() error {
			_, err := s.ListNamedEntities(b.Context(), core.ResourceType_TASK, store.Query{Project: "p", Domain: "d", Limit: 100})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			before := processor(b)
			for b.Loop() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((processor(b)-before).Microseconds())/float64(b.N)/1000, "cpu-ms/page")
		})
	}
}
