package server

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/cacheservice"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
)

// registerCached registers a workflow of one cached task that gives its integer back.
func (s *catalogServer) registerCached(name string) {
	s.t.Helper()
	task := echoTask(name)
	task.Spec.Template.Metadata = &core.TaskMetadata{Discoverable: true, DiscoveryVersion: "1"}
	_, err := s.admin.CreateTask(s.t.Context(), task)
	s.ok(err)
	_, err = s.admin.CreateWorkflow(s.t.Context(), chain(name, name, 1))
	s.ok(err)
	_, err = s.admin.CreateLaunchPlan(s.t.Context(), launchPlan(name, name))
	s.ok(err)
}

// runCached runs an execution, which must succeed: its output, and the explanation of its node's lookup.
func (s *catalogServer) runCached(name string, x int64) (e *core.WorkflowExecutionIdentifier, y int64, explained *aloftv1.ExplainCacheResponse) {
	s.t.Helper()
	e = s.create(execute(id(core.ResourceType_LAUNCH_PLAN, name), map[string]*core.Literal{"x": integer(x)}))
	if phase := s.wait(e).GetClosure().GetPhase(); phase != core.WorkflowExecution_SUCCEEDED {
		s.t.Fatalf("%s ended %s", name, phase)
	}
	data, err := s.admin.GetExecutionData(s.t.Context(), &admin.WorkflowExecutionGetDataRequest{Id: e})
	s.ok(err)
	explained, err = s.result.ExplainCache(s.t.Context(), &aloftv1.ExplainCacheRequest{Id: e, Node: "n0"})
	s.ok(err)
	return e, data.GetFullOutputs().GetLiterals()["y"].GetScalar().GetPrimitive().GetInteger(), explained
}

func TestWhatTheEngineCachedIsReadByCatalogAndCacheServiceAndWhatIsPutThereIsFound(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	s.registerCached("shared")
	first, y, why := s.runCached("shared", 5)
	if y != 5 || why.GetSummary() != "miss: never computed before" {
		t.Fatalf("the first run gave %d: %s", y, why.GetSummary())
	}
	_, y, why = s.runCached("shared", 5)
	if want := "hit: computed by " + first.GetName() + "/n0"; y != 5 || !strings.HasPrefix(why.GetSummary(), want) {
		t.Fatalf("the second run gave %d: %s, want %s", y, why.GetSummary(), want)
	}

	// The same result, in each of the services.
	key := why.GetLookup().GetKey()
	d := &datacatalog.DatasetID{Project: "flytesnacks", Domain: "development", Name: "flyte_task-shared",
		Version: key.GetCacheVersion() + "-" + key.GetInputsHash() + "-" + key.GetOutputsHash()}
	a, err := s.byTag(d, key.GetTag())
	s.ok(err)
	if found := why.GetLookup().GetFound().GetArtifactTag().GetArtifactId(); value(a) != 5 || a.GetId() != found || a.GetMetadata().GetKeyMap()["execution-name"] != first.GetName() {
		t.Errorf("the artifact is %v, want %s of %s", a, found, first.GetName())
	}
	answer, err := s.catalog.GetDataset(t.Context(), &datacatalog.GetDatasetRequest{Dataset: d})
	s.ok(err)
	if !proto.Equal(answer.GetDataset().GetId(), d) {
		t.Errorf("the dataset is %v", answer)
	}
	cacheKey := strings.Join([]string{d.GetProject(), d.GetDomain(), d.GetName(), d.GetVersion(), key.GetTag()}, "/")
	cached, err := s.cache.Get(t.Context(), &cacheservice.GetCacheRequest{Key: cacheKey})
	s.ok(err)
	if n := cached.GetOutput().GetOutputLiterals().GetLiterals()["o0"].GetScalar().GetPrimitive().GetInteger(); n != 5 || cached.GetOutput().GetMetadata().GetSourceIdentifier().GetName() != "shared" {
		t.Errorf("in CacheService it is %v", cached)
	}

	// The engine finds a result that a client adds.
	_, err = s.catalog.UpdateArtifact(t.Context(), &datacatalog.UpdateArtifactRequest{
		Dataset: d, QueryHandle: &datacatalog.UpdateArtifactRequest_ArtifactId{ArtifactId: a.GetId()}, Data: artifact("", d, 99).GetData()})
	s.ok(err)
	if _, y, why = s.runCached("shared", 5); y != 99 || !strings.Contains(why.GetSummary(), "hit: computed by a client") {
		t.Errorf("after an update the run gave %d: %s", y, why.GetSummary())
	}
	_, err = s.cache.Delete(t.Context(), &cacheservice.DeleteCacheRequest{Key: cacheKey})
	s.ok(err)
	if _, y, why = s.runCached("shared", 5); y != 5 || !strings.Contains(why.GetSummary(), "removed through CacheService") {
		t.Errorf("after a removal the run gave %d: %s", y, why.GetSummary())
	}
	_, err = s.cache.Put(t.Context(), &cacheservice.PutCacheRequest{Key: cacheKey, Overwrite: true, Output: &cacheservice.CachedOutput{
		Output: &cacheservice.CachedOutput_OutputLiterals{OutputLiterals: &core.LiteralMap{Literals: map[string]*core.Literal{"o0": integer(77)}}}}})
	s.ok(err)
	if _, y, why = s.runCached("shared", 5); y != 77 {
		t.Errorf("after a put the run gave %d: %s", y, why.GetSummary())
	}
}

func TestAStatusSaysOfEachNodeWhyItWasComputedOrNot(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	s.registerCached("told")
	first, _, _ := s.runCached("told", 5)
	hit, _, _ := s.runCached("told", 5)
	miss, _, why := s.runCached("told", 6)
	if d := why.GetDifferences(); len(d) != 1 || d[0].GetComponent() != aloftv1.CacheDifference_INPUT || d[0].GetName() != "x" || d[0].GetBefore() != "5" || d[0].GetNow() != "6" {
		t.Errorf("differences are %v, want input x with both values", d)
	}
	runs := aloftv1connect.NewRunServiceClient(s.http, "http://"+s.Address, connect.WithGRPC())
	for name, want := range map[string]string{
		first.GetName(): "miss: never computed before",
		hit.GetName():   "cached from " + first.GetName() + "/n0",
		miss.GetName():  `miss: input "x" was 5 and is 6`,
	} {
		stream, err := runs.WatchExecution(t.Context(), &aloftv1.WatchExecutionRequest{
			Id: &core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: name}, Once: true})
		s.ok(err)
		if !stream.Receive() || len(stream.Msg().GetNodes()) != 1 {
			t.Fatalf("watch: %v, %v", stream.Msg(), stream.Err())
		}
		if n := stream.Msg().GetNodes()[0]; n.GetCacheNote() != want || n.GetCache() == nil || n.GetCache().GetKey() != nil {
			t.Errorf("of %s it says %q, want %q; the lookup is %v", name, n.GetCacheNote(), want, n.GetCache())
		}
		s.ok(stream.Close())
		if _, page := s.do(http.MethodGet, "/console/projects/flytesnacks/domains/development/executions/"+name, http.Header{}, nil); !strings.Contains(string(page), strings.ReplaceAll(want, `"`, "&#34;")) {
			t.Errorf("the page of %s does not say %q", name, want)
		}
	}
}
