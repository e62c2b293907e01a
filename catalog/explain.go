package catalog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
)

// Candidates are the queries for the results that a miss is compared with, in the order in which to run them: the first query
// that returns a result which Nearest accepts is enough. The caller adds Before, the time of the search, and limits.
func Candidates(key *aloftv1.CacheKey) []store.ResultQuery {
	id := ID(key)
	return []store.ResultQuery{
		// A result with the same key, of any age: it is gone.
		{Project: id.Project, Domain: id.Domain, Name: id.Name, Version: id.Version, Tag: id.Tag, Gone: true},
		// The same task.
		{Project: id.Project, Domain: id.Domain, Name: id.Name, Gone: true},
		// The same task in another project or domain.
		{Name: id.Name, Gone: true},
		// The task was renamed, or moved to another module: with the same inputs, and then with other inputs.
		{Version: id.Version, Tag: id.Tag, Gone: true},
		{Project: id.Project, Domain: id.Domain, Version: id.Version, Gone: true},
	}
}

// Nearest is the earlier result whose key differs least from a key (by the sum of weights, then by the number of differences; of
// equals the latest), with these differences in the order in which they matter. nil: none of the results is of the same task,
// also under another name (related). A result without a difference was not there at the time of the search, but is now.
//
// An input whose value was cut in its preview shows a part of its hash as well where the previews are equal.
func Nearest(key *aloftv1.CacheKey, earlier []*store.Result) (*store.Result, []*aloftv1.CacheDifference) {
	var nearest *store.Result
	var least, buffer []difference
	weight := 0
	for _, e := range earlier {
		was := keyOf(e)
		if !related(was, key) {
			continue
		}
		buffer = compare(buffer[:0], was, key, e)
		w := 0
		for _, d := range buffer {
			w += weights[d.component]
		}
		closer := nearest == nil || w < weight
		if nearest != nil && w == weight {
			closer = len(buffer) < len(least) || len(buffer) == len(least) && e.CreatedAt.After(nearest.CreatedAt)
		}
		if closer {
			nearest, weight = e, w
			least, buffer = buffer, least
		}
	}
	if nearest == nil {
		return nil, nil
	}
	messages := make([]*aloftv1.CacheDifference, 0, len(least))
	for _, d := range least {
		messages = append(messages, &aloftv1.CacheDifference{Component: d.component, Name: d.name, Before: d.before, Now: d.now, Text: d.text()})
	}
	return nearest, messages
}

// maxSummary is how many differences a summary names.
const maxSummary = 3

// Summary says in one line why there was no result: what Nearest gave, in words.
func Summary(nearest *store.Result, differences []*aloftv1.CacheDifference) string {
	switch {
	case nearest == nil:
		return "never computed before"
	case len(differences) == 0:
		if of := nearest.Source; of != (aloft.AttemptID{}) {
			return fmt.Sprintf("there was none yet; node %s of execution %s kept the same later", of.Node, of.Execution.Name)
		}
		return "there was none yet; the same was kept later"
	}
	var texts []string
	for i, d := range differences {
		if rest := len(differences) - i; i == maxSummary-1 && rest > 1 {
			texts = append(texts, fmt.Sprintf("and %d more differences", rest))
			break
		}
		texts = append(texts, d.GetText())
	}
	return strings.Join(texts, ", ")
}

// weights say how far a difference takes a result away. A result of another value of an input is nearer than one of a task in
// another project or with another name; a result that is gone has the very key that was looked for.
var weights = map[aloftv1.CacheDifference_Component]int{
	aloftv1.CacheDifference_GONE:          1,
	aloftv1.CacheDifference_INPUT:         2,
	aloftv1.CacheDifference_INPUT_ADDED:   3,
	aloftv1.CacheDifference_INPUT_REMOVED: 3,
	aloftv1.CacheDifference_IGNORED:       3,
	aloftv1.CacheDifference_CACHE_VERSION: 4,
	aloftv1.CacheDifference_INPUTS:        6,
	aloftv1.CacheDifference_OUTPUTS:       6,
	aloftv1.CacheDifference_DOMAIN:        50,
	aloftv1.CacheDifference_PROJECT:       60,
	aloftv1.CacheDifference_TASK:          70,
}

type difference struct {
	component   aloftv1.CacheDifference_Component
	name        string
	before, now string
	method      string // of INPUT: how it counts changed, beside or instead of its value; empty: it did not
}

// Words for how something counts.
const (
	counts  = "counts"
	ignored = "ignored"

	nowByHash    = "counted by content and now counts by hash (HashMethod)"
	nowByContent = "counted by hash (HashMethod) and now counts by content"
)

// compare appends what differs between an earlier key and this one.
func compare(ds []difference, was, is *aloftv1.CacheKey, e *store.Result) []difference {
	differ := func(component aloftv1.CacheDifference_Component, before, now string) {
		if before != now {
			ds = append(ds, difference{component: component, before: before, now: now})
		}
	}
	differ(aloftv1.CacheDifference_PROJECT, was.GetProject(), is.GetProject())
	differ(aloftv1.CacheDifference_DOMAIN, was.GetDomain(), is.GetDomain())
	differ(aloftv1.CacheDifference_TASK, was.GetTask(), is.GetTask())
	differ(aloftv1.CacheDifference_CACHE_VERSION, was.GetCacheVersion(), is.GetCacheVersion())
	types := len(ds)
	differ(aloftv1.CacheDifference_INPUTS, was.GetInputsHash(), is.GetInputsHash())
	inputsType := len(ds) > types
	differ(aloftv1.CacheDifference_OUTPUTS, was.GetOutputsHash(), is.GetOutputsHash())

	names := len(ds)
	switch {
	case was.GetTag() == is.GetTag():
		// The inputs that count are the same.
	case e.Key == nil:
		ds = append(ds, difference{component: aloftv1.CacheDifference_INPUT, before: was.GetTag(), now: is.GetTag()})
	default:
		ds = compareInputs(ds, was, is)
	}
	if inputsType && slices.ContainsFunc(ds[names:], func(d difference) bool {
		return d.component == aloftv1.CacheDifference_INPUT_ADDED || d.component == aloftv1.CacheDifference_INPUT_REMOVED
	}) {
		// An input that is new or removed changes the type of the inputs, too: this is one difference, not two.
		ds = slices.Delete(ds, types, types+1)
	}
	if len(ds) == 0 && !e.GoneAt.IsZero() {
		ds = append(ds, difference{component: aloftv1.CacheDifference_GONE, now: e.GoneReason})
	}
	return ds
}

// compareInputs goes through two lists that are sorted by name, twice: differences of inputs that only one list has come first.
func compareInputs(ds []difference, was, is *aloftv1.CacheKey) []difference {
	merge := func(visit func(before, now *aloftv1.CacheInput)) {
		b, n := was.GetInputs(), is.GetInputs()
		for len(b) > 0 || len(n) > 0 {
			switch {
			case len(n) == 0 || len(b) > 0 && b[0].GetName() < n[0].GetName():
				visit(b[0], nil)
				b = b[1:]
			case len(b) == 0 || n[0].GetName() < b[0].GetName():
				visit(nil, n[0])
				n = n[1:]
			default:
				visit(b[0], n[0])
				b, n = b[1:], n[1:]
			}
		}
	}
	merge(func(before, now *aloftv1.CacheInput) {
		switch {
		case now == nil && slices.Contains(is.GetIgnored(), before.GetName()):
			ds = append(ds, difference{component: aloftv1.CacheDifference_IGNORED, name: before.GetName(), before: counts, now: ignored})
		case now == nil:
			ds = append(ds, difference{component: aloftv1.CacheDifference_INPUT_REMOVED, name: before.GetName(), before: before.GetPreview()})
		case before == nil && slices.Contains(was.GetIgnored(), now.GetName()):
			ds = append(ds, difference{component: aloftv1.CacheDifference_IGNORED, name: now.GetName(), before: ignored, now: counts})
		case before == nil:
			ds = append(ds, difference{component: aloftv1.CacheDifference_INPUT_ADDED, name: now.GetName(), now: now.GetPreview()})
		}
	})
	merge(func(before, now *aloftv1.CacheInput) {
		if before == nil || now == nil || before.GetHash() == now.GetHash() {
			return
		}
		d := difference{component: aloftv1.CacheDifference_INPUT, name: now.GetName(), before: before.GetPreview(), now: now.GetPreview()}
		switch {
		case now.GetByHash() && !before.GetByHash():
			d.method = nowByHash
		case before.GetByHash() && !now.GetByHash():
			d.method = nowByContent
		case d.before == d.now:
			// The values differ behind the end of the preview, or in a part that the preview does not show.
			d.before += " (" + short(before.GetHash()) + ")"
			d.now += " (" + short(now.GetHash()) + ")"
		}
		ds = append(ds, d)
	})
	return ds
}

func short(hash string) string { return hash[:min(len(hash), 8)] }

func (d difference) text() string {
	change := func(what string) string {
		return fmt.Sprintf("%s was %s and is %s", what, strconv.Quote(d.before), strconv.Quote(d.now))
	}
	name := strconv.Quote(d.name)
	switch d.component {
	case aloftv1.CacheDifference_PROJECT:
		return change("the task's project")
	case aloftv1.CacheDifference_DOMAIN:
		return change("the task's domain")
	case aloftv1.CacheDifference_TASK:
		if before, now := lastPart(d.before), lastPart(d.now); before == now {
			module := func(task, last string) string {
				return strconv.Quote(strings.TrimSuffix(strings.TrimSuffix(task, last), "."))
			}
			return "the task was in module " + module(d.before, before) + " and is in module " + module(d.now, now)
		}
		return change("the task's name")
	case aloftv1.CacheDifference_CACHE_VERSION:
		return change("the cache version")
	case aloftv1.CacheDifference_INPUTS:
		return "the types of the inputs changed"
	case aloftv1.CacheDifference_OUTPUTS:
		return "the types of the outputs changed"
	case aloftv1.CacheDifference_IGNORED:
		if d.now == ignored {
			return "input " + name + " counted and is ignored now (cache_ignore_input_vars)"
		}
		return "input " + name + " was ignored (cache_ignore_input_vars) and counts now"
	case aloftv1.CacheDifference_INPUT_ADDED:
		return "input " + name + " is new: " + d.now
	case aloftv1.CacheDifference_INPUT_REMOVED:
		return "input " + name + " is there no more; it was " + d.before
	case aloftv1.CacheDifference_INPUT:
		switch {
		case d.name == "":
			return "the inputs differ; which ones is not known of a result from outside"
		case d.method == "":
			return "input " + name + " was " + d.before + " and is " + d.now
		case d.before == d.now:
			return "input " + name + " " + d.method
		}
		return "input " + name + " " + d.method + "; it was " + d.before + " and is " + d.now
	case aloftv1.CacheDifference_GONE:
		if d.now == "" {
			return "the result was there and is gone"
		}
		return "the result was there and is gone: " + d.now
	}
	return ""
}

// related says whether an earlier result may be of the same task: the last part of the task's name is the same, or all parts of
// the key but project, domain and name are. Tasks without inputs often have these parts in common: there they prove nothing.
func related(was, is *aloftv1.CacheKey) bool {
	if lastPart(was.GetTask()) == lastPart(is.GetTask()) {
		return true
	}
	return len(is.GetInputs()) > 0 && was.GetTag() == is.GetTag() && was.GetCacheVersion() == is.GetCacheVersion() &&
		was.GetInputsHash() == is.GetInputsHash() && was.GetOutputsHash() == is.GetOutputsHash()
}

// lastPart is the name of the function in the name of a task.
func lastPart(task string) string { return task[strings.LastIndexByte(task, '.')+1:] }

// keyOf is the key of a result. That of a result from outside of the engine has only the parts that its dataset shows.
func keyOf(e *store.Result) *aloftv1.CacheKey {
	if e.Key != nil {
		return e.Key
	}
	k := &aloftv1.CacheKey{
		Project: e.Project, Domain: e.Domain, Task: strings.TrimPrefix(e.Name, datasetPrefix), CacheVersion: e.Version, Tag: e.Tag,
	}
	// "<cache version>-<I>-<O>", where all three may have a '-' in them.
	const types = 1 + typeHash + 1 + typeHash
	if n := len(e.Version) - types; n >= 0 && e.Version[n] == '-' && e.Version[n+1+typeHash] == '-' {
		k.CacheVersion, k.InputsHash, k.OutputsHash = e.Version[:n], e.Version[n+1:n+1+typeHash], e.Version[n+2+typeHash:]
	}
	return k
}
