package api

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func attempt(project, name string) *core.TaskExecutionIdentifier {
	return &core.TaskExecutionIdentifier{NodeExecutionId: &core.NodeExecutionIdentifier{
		NodeId: "n0", ExecutionId: &core.WorkflowExecutionIdentifier{Project: project, Domain: "d", Name: name}}}
}

func TestAnExplanationIsOneSentence(t *testing.T) {
	t.Parallel()
	found := &core.CatalogMetadata{
		ArtifactTag:     &core.CatalogArtifactTag{ArtifactId: "r1"},
		SourceExecution: &core.CatalogMetadata_SourceTaskExecution{SourceTaskExecution: attempt("p", "a7")},
	}
	earlier := &aloftv1.CachedResult{Id: "r1", Source: attempt("p", "a7"), CreatedAt: timestamppb.New(noon.Add(-3 * time.Minute))}
	for _, c := range []struct {
		name    string
		node    store.Node
		nearest *aloftv1.CachedResult
		miss    string
		want    string
	}{
		{"hit", store.Node{Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_HIT, Found: found}}, earlier, "", "hit: computed by a7/n0, 3 min before"},
		{"hit of a client's", store.Node{Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_HIT,
			Found: &core.CatalogMetadata{ArtifactTag: &core.CatalogArtifactTag{ArtifactId: "r1"}}}}, nil, "", "hit: computed by a client (result r1)"},
		{"miss", store.Node{Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_POPULATED, Found: found}}, earlier, `input "x" was 5 and is 6, input "z" is new`,
			`miss: input "x" was 5 and is 6, input "z" is new (nearest earlier result: a7/n0, 3 min before)`},
		{"miss in another project", store.Node{Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_MISS}},
			&aloftv1.CachedResult{Source: attempt("other", "a7"), CreatedAt: timestamppb.New(noon.Add(-time.Hour * 50))}, `input "x" was 5 and is 6`,
			`miss: input "x" was 5 and is 6 (nearest earlier result: other/d/a7/n0, 2 days before)`},
		{"first", store.Node{Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_MISS}}, nil, "never computed before", "miss: never computed before"},
		{"not kept", store.Node{Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_PUT_FAILURE}}, nil, "never computed before", "miss: never computed before; what it computed could not be kept"},
		{"overwrites", store.Node{Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_SKIPPED}}, nil, "", "computed anew: the execution overwrites cached results"},
		{"waits", store.Node{Phase: core.NodeExecution_QUEUED, Waiting: "waits for the result that a7/n0 computes", Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_MISS}},
			nil, "never computed before", "miss: never computed before; waits for the result that a7/n0 computes"},
		{"plain", store.Node{Phase: core.NodeExecution_SUCCEEDED}, nil, "", "not cached: its task does not ask for it (cache=True)"},
		{"recovered", store.Node{Phase: core.NodeExecution_RECOVERED, Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_POPULATED, Found: found}}, nil, "",
			"recovered: the execution that this one recovers had computed it"},
		{"recovered hit", store.Node{Phase: core.NodeExecution_RECOVERED, Cache: &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_HIT, Found: found}}, nil, "",
			"recovered: the execution that this one recovers had taken it from the cache, computed by a7/n0"},
		{"new", store.Node{Phase: core.NodeExecution_QUEUED}, nil, "", "not looked for yet"},
	} {
		c.node.Execution, c.node.CreatedAt = aloft.ExecutionID{Project: "p", Domain: "d", Name: "b8"}, noon
		answer := &aloftv1.ExplainCacheResponse{Lookup: c.node.Cache, Nearest: c.nearest}
		if got := summary(&c.node, answer, c.miss); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestAKeyOfCacheServiceIsADatasetOnlyIfItIsWrittenAsOne(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]store.ResultID{
		"p/d/n/v/t":            {Project: "p", Domain: "d", Name: "n", Version: "v", Tag: "t"},
		"p/d/n%2Fm/v%25/t":     {Project: "p", Domain: "d", Name: "n/m", Version: "v%", Tag: "t"},
		"p/d/n/v":              {Name: keyDataset, Tag: "p/d/n/v"},
		"p/d//v/t":             {Name: keyDataset, Tag: "p/d//v/t"},
		"%70/d/n/v/t":          {Name: keyDataset, Tag: "%70/d/n/v/t"}, // "p" has one way to be written: two keys are never one
		"%zz/d/n/v/t":          {Name: keyDataset, Tag: "%zz/d/n/v/t"},
		"anything else at all": {Name: keyDataset, Tag: "anything else at all"},
	} {
		var problems field.Problems
		if got := cacheID(&problems, key); got != want || problems.Any() {
			t.Errorf("%s: got %+v (%v), want %+v", key, got, problems.Err(), want)
		}
	}
	for _, key := range []string{"", "a\x00", strings.Repeat("k", maxCacheKey+1)} {
		var problems field.Problems
		if cacheID(&problems, key); !problems.Any() {
			t.Errorf("a key of %d bytes was taken", len(key))
		}
	}
}

func TestAStatusSaysWhyAnAttemptIsNotStarted(t *testing.T) {
	t.Parallel()
	for phase, want := range map[core.TaskExecution_Phase]string{
		core.TaskExecution_QUEUED:       "its Python environment is being made",
		core.TaskExecution_INITIALIZING: "its Python environment is being made", // an executor has it
		core.TaskExecution_RUNNING:      "",
		core.TaskExecution_FAILED:       "",
	} {
		if got := attemptStatus(&store.Attempt{Phase: phase, Waiting: "its Python environment is being made"}).GetWaiting(); got != want {
			t.Errorf("%s: waits for %q, want %q", phase, got, want)
		}
	}
}
