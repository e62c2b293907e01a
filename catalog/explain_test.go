package catalog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/catalog"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// fit is a task train.fit(depth: int, data: str, seed: int) with cache version 1, and what one of its nodes is given.
type fit struct {
	task   *core.TaskTemplate
	node   *core.NodeMetadata
	inputs values
}

func newFit() *fit {
	variables := func(names ...string) *core.VariableMap {
		m := &core.VariableMap{Variables: map[string]*core.Variable{}}
		for _, name := range names {
			m.Variables[name] = variable(core.SimpleType_INTEGER)
		}
		return m
	}
	return &fit{
		task: &core.TaskTemplate{
			Id:        &core.Identifier{Project: "ml", Domain: "staging", Name: "train.fit", Version: "v1"},
			Metadata:  &core.TaskMetadata{Discoverable: true, DiscoveryVersion: "1"},
			Interface: &core.TypedInterface{Inputs: variables("depth", "data", "seed"), Outputs: variables("o0")},
		},
		inputs: values{"depth": integer(5), "data": textLiteral("a.csv"), "seed": integer(1)},
	}
}

func variable(simple core.SimpleType) *core.Variable {
	return &core.Variable{Type: &core.LiteralType{Type: &core.LiteralType_Simple{Simple: simple}}}
}

func (f *fit) key() *aloftv1.CacheKey { return catalog.Key(f.task, f.node, inputs(f.inputs)) }

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func result(id string, key *aloftv1.CacheKey, at time.Time) *store.Result {
	return &store.Result{ResultID: catalog.ID(key), ID: id, Key: key, CreatedAt: at, UsedAt: at}
}

// lines has a line for each difference: component, name, before, now, in words.
func lines(ds []*aloftv1.CacheDifference) string {
	var b strings.Builder
	for _, d := range ds {
		fmt.Fprintf(&b, "%s %s|%s|%s| %s\n", d.GetComponent(), d.GetName(), d.GetBefore(), d.GetNow(), d.GetText())
	}
	return b.String()
}

func TestAMissNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	gone := func(reason string) func(*store.Result) {
		return func(e *store.Result) { e.GoneAt, e.GoneReason = noon, reason }
	}
	ignore := func(names ...string) func(*fit) {
		return func(f *fit) { f.task.Metadata.CacheIgnoreInputVars = names }
	}
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name   string
		before func(*fit) // what was other when the earlier result was computed; nil: nothing
		now    func(*fit)
		entry  func(*store.Result)
		want   string
	}{
		{"cache version", nil, func(f *fit) { f.task.Metadata.DiscoveryVersion = "2" }, nil,
			`CACHE_VERSION |1|2| the cache version was "1" and is "2"`},
		{"cache version of the node", nil, func(f *fit) {
			f.node = &core.NodeMetadata{CacheVersionValue: &core.NodeMetadata_CacheVersion{CacheVersion: "3"}}
		}, nil, `CACHE_VERSION |1|3| the cache version was "1" and is "3"`},
		{"value of one input", nil, func(f *fit) { f.inputs["depth"] = integer(6) }, nil,
			`INPUT depth|5|6| input "depth" was 5 and is 6`},
		{"values of two inputs, by name", nil, func(f *fit) { f.inputs["seed"], f.inputs["data"] = integer(2), textLiteral("b.csv") }, nil,
			`INPUT data|"a.csv"|"b.csv"| input "data" was "a.csv" and is "b.csv"` + "\n" + `INPUT seed|1|2| input "seed" was 1 and is 2`},
		{"input added", nil, func(f *fit) {
			f.task.Interface.Inputs.Variables["fold"] = variable(core.SimpleType_INTEGER)
			f.inputs["fold"] = integer(3)
		}, nil, `INPUT_ADDED fold||3| input "fold" is new: 3`},
		{"input removed", nil, func(f *fit) {
			delete(f.task.Interface.Inputs.Variables, "seed")
			delete(f.inputs, "seed")
		}, nil, `INPUT_REMOVED seed|1|| input "seed" is there no more; it was 1`},
		{"input renamed", nil, func(f *fit) {
			delete(f.task.Interface.Inputs.Variables, "seed")
			delete(f.inputs, "seed")
			f.task.Interface.Inputs.Variables["zeed"] = variable(core.SimpleType_INTEGER)
			f.inputs["zeed"] = integer(1)
		}, nil, `INPUT_REMOVED seed|1|| input "seed" is there no more; it was 1` + "\n" + `INPUT_ADDED zeed||1| input "zeed" is new: 1`},
		{"input counts by hash now", nil, func(f *fit) { f.inputs["data"] = hashed(f.inputs["data"], "h") }, nil,
			`INPUT data|"a.csv"|"a.csv" with hash "h"| input "data" counted by content and now counts by hash (HashMethod); it was "a.csv" and is "a.csv" with hash "h"`},
		{"input counts by content now", func(f *fit) { f.inputs["data"] = hashed(f.inputs["data"], "h") }, nil, nil,
			`INPUT data|"a.csv" with hash "h"|"a.csv"| input "data" counted by hash (HashMethod) and now counts by content; it was "a.csv" with hash "h" and is "a.csv"`},
		{"another hash of an input", func(f *fit) { f.inputs["data"] = hashed(f.inputs["data"], "h1") },
			func(f *fit) { f.inputs["data"] = hashed(f.inputs["data"], "h2") }, nil,
			`INPUT data|"a.csv" with hash "h1"|"a.csv" with hash "h2"| input "data" was "a.csv" with hash "h1" and is "a.csv" with hash "h2"`},
		{"type of an input", nil, func(f *fit) {
			f.task.Interface.Inputs.Variables["depth"] = variable(core.SimpleType_FLOAT)
		}, nil, `INPUTS |*|*| the types of the inputs changed`},
		{"type of an output", nil, func(f *fit) {
			f.task.Interface.Outputs.Variables["o0"] = variable(core.SimpleType_FLOAT)
		}, nil, `OUTPUTS |*|*| the types of the outputs changed`},
		{"project", nil, func(f *fit) { f.task.Id.Project = "ops" }, nil, `PROJECT |ml|ops| the task's project was "ml" and is "ops"`},
		{"domain", nil, func(f *fit) { f.task.Id.Domain = "production" }, nil, `DOMAIN |staging|production| the task's domain was "staging" and is "production"`},
		{"task renamed", nil, func(f *fit) { f.task.Id.Name = "train.fit_model" }, nil,
			`TASK |train.fit|train.fit_model| the task's name was "train.fit" and is "train.fit_model"`},
		{"task moved", nil, func(f *fit) { f.task.Id.Name = "lib.models.fit" }, nil,
			`TASK |train.fit|lib.models.fit| the task was in module "train" and is in module "lib.models"`},
		{"task moved, and another value", nil, func(f *fit) { f.task.Id.Name, f.inputs["seed"] = "lib.fit", integer(2) }, nil,
			`TASK |train.fit|lib.fit| the task was in module "train" and is in module "lib"` + "\n" + `INPUT seed|1|2| input "seed" was 1 and is 2`},
		{"input ignored now", nil, ignore("seed"), nil,
			`IGNORED seed|counts|ignored| input "seed" counted and is ignored now (cache_ignore_input_vars)`},
		{"input ignored no more", ignore("seed"), nil, nil,
			`IGNORED seed|ignored|counts| input "seed" was ignored (cache_ignore_input_vars) and counts now`},
		{"ignored names that are no inputs", ignore("other"), func(f *fit) { f.inputs["seed"] = integer(2) }, nil,
			`INPUT seed|1|2| input "seed" was 1 and is 2`},
		{"removed", nil, nil, gone("removed by a user"), `GONE ||*| the result was there and is gone: removed by a user`},
		{"too old", nil, nil, gone("too old: computed more than 24h0m0s ago (cache-max-age)"),
			`GONE ||*| the result was there and is gone: too old: computed more than 24h0m0s ago (cache-max-age)`},
		{"no room", nil, nil, gone("no room"), `GONE ||*| the result was there and is gone: no room`},
		{"replaced", nil, nil, gone("replaced by a2"), `GONE ||*| the result was there and is gone: replaced by a2`},
		{"object missing", nil, nil, gone("its object aloft://blob/x is missing"), `GONE ||*| the result was there and is gone: its object aloft://blob/x is missing`},
		{"object damaged", nil, nil, gone("its object aloft://blob/x is not what was written: 1 bytes, was 2"),
			`GONE ||*| the result was there and is gone: its object aloft://blob/x is not what was written: 1 bytes, was 2`},
		{"gone, but the key differs, too", nil, func(f *fit) { f.inputs["depth"] = integer(6) }, gone("removed by a user"),
			`INPUT depth|5|6| input "depth" was 5 and is 6`},
		{"behind the end of a preview", func(f *fit) { f.inputs["data"] = textLiteral(long + "1") }, func(f *fit) { f.inputs["data"] = textLiteral(long + "2") }, nil,
			`INPUT data|*`},
		{"from outside, another cache version", nil, func(f *fit) { f.task.Metadata.DiscoveryVersion = "2-a" }, func(e *store.Result) { e.Key = nil },
			`CACHE_VERSION |1|2-a| the cache version was "1" and is "2-a"`},
		{"from outside, other inputs", nil, func(f *fit) { f.inputs["depth"] = integer(6) }, func(e *store.Result) { e.Key = nil },
			`INPUT |* the inputs differ; which ones is not known of a result from outside`},
		{"nothing", nil, nil, nil, ``},
	} {
		was, is := newFit(), newFit()
		if c.before != nil {
			c.before(was)
		}
		if c.now != nil {
			c.now(is)
		}
		e := result("a1", was.key(), noon)
		if c.entry != nil {
			c.entry(e)
		}
		nearest, ds := catalog.Nearest(is.key(), []*store.Result{e})
		if nearest != e {
			t.Errorf("%s: nearest is %v", c.name, nearest)
		}
		got, want := strings.Split(strings.TrimSuffix(lines(ds), "\n"), "\n"), strings.Split(c.want, "\n")
		if len(got) != len(want) {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), c.want)
			continue
		}
		for i := range want {
			if !matches(got[i], want[i]) {
				t.Errorf("%s:\n%s\nwant\n%s", c.name, got[i], want[i])
			}
		}
		for _, d := range ds {
			if d.GetBefore() == d.GetNow() {
				t.Errorf("%s: %v shows no difference", c.name, d)
			}
		}
	}
}

// matches compares two texts; * in want stands for any text.
func matches(got, want string) bool {
	parts := strings.Split(want, "*")
	if len(parts) == 1 {
		return got == want
	}
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	for _, p := range parts[1:] {
		_, rest, found := strings.Cut(got, p)
		if !found {
			return false
		}
		got = rest
	}
	return true
}

func TestTheNearestResultDiffersLeastAndIsTheLatestOfEquals(t *testing.T) {
	t.Parallel()
	with := func(id string, at int, change func(*fit)) *store.Result {
		f := newFit()
		change(f)
		return result(id, f.key(), noon.Add(time.Duration(at)*time.Minute))
	}
	elsewhere := with("elsewhere", 9, func(f *fit) { f.task.Id.Project = "ops" })
	version := with("version", 8, func(f *fit) { f.task.Metadata.DiscoveryVersion = "0" })
	early := with("early", 1, func(f *fit) { f.inputs["depth"] = integer(3) })
	late := with("late", 2, func(f *fit) { f.inputs["depth"] = integer(4) })
	two := with("two inputs", 7, func(f *fit) { f.inputs["depth"], f.inputs["seed"] = integer(4), integer(4) })
	same := with("gone", 0, func(*fit) {})
	same.GoneAt, same.GoneReason = noon, "removed by a user"
	stranger := with("stranger", 9, func(f *fit) { f.task.Id.Name, f.inputs["seed"] = "other.task", integer(9) })
	for _, c := range []struct {
		earlier []*store.Result
		want    *store.Result
		summary string
	}{
		{nil, nil, "never computed before"},
		{[]*store.Result{stranger}, nil, "never computed before"},
		{[]*store.Result{stranger, elsewhere}, elsewhere, `the task's project was "ops" and is "ml"`},
		{[]*store.Result{elsewhere, version}, version, `the cache version was "0" and is "1"`},
		{[]*store.Result{elsewhere, two, version}, version, `the cache version was "0" and is "1"`},
		{[]*store.Result{two, elsewhere}, two, `input "depth" was 4 and is 5, input "seed" was 4 and is 1`},
		{[]*store.Result{late, two, early}, late, `input "depth" was 4 and is 5`},
		{[]*store.Result{early, late}, late, `input "depth" was 4 and is 5`},
		{[]*store.Result{late, same, early}, same, "the result was there and is gone: removed by a user"},
	} {
		for range 2 {
			got, ds := catalog.Nearest(newFit().key(), c.earlier)
			if got != c.want || catalog.Summary(got, ds) != c.summary {
				t.Errorf("nearest %+v: %s; want %+v: %s", got, catalog.Summary(got, ds), c.want, c.summary)
			}
			c.earlier = slices.Clone(c.earlier)
			slices.Reverse(c.earlier)
		}
	}
}

func TestATaskWithoutInputsIsNotTakenForARenamedOne(t *testing.T) {
	t.Parallel()
	was, is := newFit(), newFit()
	was.inputs, is.inputs, is.task.Id.Name = nil, nil, "report.write"
	if e, _ := catalog.Nearest(is.key(), []*store.Result{result("a", was.key(), noon)}); e != nil {
		t.Errorf("nearest is %v", e.Key)
	}
}

func TestASummaryNamesThreeDifferencesAtMost(t *testing.T) {
	t.Parallel()
	was, is := newFit(), newFit()
	is.task.Metadata.DiscoveryVersion = "2"
	is.inputs = values{"depth": integer(6), "data": textLiteral("b.csv"), "seed": integer(2)}
	e := result("a", was.key(), noon)
	nearest, ds := catalog.Nearest(is.key(), []*store.Result{e})
	want := `the cache version was "1" and is "2", input "data" was "a.csv" and is "b.csv", and 2 more differences`
	if got := catalog.Summary(nearest, ds); got != want {
		t.Errorf("summary\n%s, want\n%s", got, want)
	}
	if got := catalog.Summary(e, nil); got != "there was none yet; the same was kept later" && !strings.Contains(got, "kept the same later") {
		t.Errorf("summary without differences: %s", got)
	}
}

func TestCandidatesAreFoundByWhatTheyHaveInCommon(t *testing.T) {
	t.Parallel()
	is := newFit()
	for _, c := range []struct {
		name   string
		change func(*fit)
		query  int // the first of Candidates that has it
	}{
		{"the same", func(*fit) {}, 0},
		{"another value and version", func(f *fit) { f.inputs["seed"], f.task.Metadata.DiscoveryVersion = integer(9), "0" }, 1},
		{"another project and value", func(f *fit) { f.task.Id.Project, f.inputs["seed"] = "ops", integer(9) }, 2},
		{"another name", func(f *fit) { f.task.Id.Name = "train.was" }, 3},
		{"another module and value", func(f *fit) { f.task.Id.Name, f.inputs["seed"] = "old.fit", integer(9) }, 4},
	} {
		f := newFit()
		c.change(f)
		e := result("a", f.key(), noon)
		got := slices.IndexFunc(catalog.Candidates(is.key()), func(q store.ResultQuery) bool { return q.Gone && selects(q, e) })
		if got != c.query {
			t.Errorf("%s: found by query %d, want %d", c.name, got, c.query)
		}
		if nearest, _ := catalog.Nearest(is.key(), []*store.Result{e}); nearest != e {
			t.Errorf("%s: a candidate that Nearest does not take", c.name)
		}
	}
}

// selects says whether a query selects a result, as a store decides it.
func selects(q store.ResultQuery, e *store.Result) bool {
	is := func(asked, have string) bool { return asked == "" || asked == have }
	return is(q.Project, e.Project) && is(q.Domain, e.Domain) && is(q.Name, e.Name) && is(q.Version, e.Version) && is(q.Tag, e.Tag) &&
		is(q.ID, e.ID) && (q.Gone || e.GoneAt.IsZero())
}

func TestExplainingLeavesItsArgumentsAlone(t *testing.T) {
	t.Parallel()
	was, is := newFit().key(), newFit()
	is.inputs["depth"] = integer(6)
	key, e := is.key(), result("a", was, noon)
	keyBefore, wasBefore := proto.CloneOf(key), proto.CloneOf(was)
	catalog.Nearest(key, []*store.Result{e})
	if !proto.Equal(key, keyBefore) || !proto.Equal(was, wasBefore) {
		t.Error("a key was changed")
	}
}

func BenchmarkNearestOf500(b *testing.B) {
	var earlier []*store.Result
	for i := range 500 {
		f := newFit()
		f.inputs["depth"] = integer(int64(i + 10))
		earlier = append(earlier, result(fmt.Sprint(i), f.key(), noon))
	}
	key := newFit().key()
	b.ReportAllocs()
	for b.Loop() {
		catalog.Nearest(key, earlier)
	}
}
