package server

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/cacheservice"
	"github.com/aloft-dev/aloft/idl/flyteidl/cacheservice/cacheserviceconnect"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog/datacatalogconnect"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

// catalogServer is a server with clients of all services that show cached results.
type catalogServer struct {
	*testServer
	catalog datacatalogconnect.DataCatalogClient
	cache   cacheserviceconnect.CacheServiceClient
	result  aloftv1connect.ResultServiceClient
}

func newCatalog(t *testing.T) *catalogServer {
	t.Helper()
	s := newServer(t)
	base := "http://" + s.Address
	return &catalogServer{
		testServer: s,
		catalog:    datacatalogconnect.NewDataCatalogClient(s.http, base, connect.WithGRPC()),
		cache:      cacheserviceconnect.NewCacheServiceClient(s.http, base, connect.WithGRPC()),
		result:     aloftv1connect.NewResultServiceClient(s.http, base, connect.WithGRPC()),
	}
}

func (s *catalogServer) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func dataset(name string) *datacatalog.DatasetID {
	return &datacatalog.DatasetID{Project: "flytesnacks", Domain: "development", Name: name, Version: "1-abc-def"}
}

func (s *catalogServer) createDataset(name string, partitionKeys ...string) *datacatalog.DatasetID {
	s.t.Helper()
	_, err := s.catalog.CreateDataset(s.t.Context(), &datacatalog.CreateDatasetRequest{Dataset: &datacatalog.Dataset{
		Id: dataset(name), PartitionKeys: partitionKeys, Metadata: &datacatalog.Metadata{KeyMap: map[string]string{"task-version": "v1"}},
	}})
	s.ok(err)
	return dataset(name)
}

func artifact(id string, d *datacatalog.DatasetID, value int64) *datacatalog.Artifact {
	return &datacatalog.Artifact{Id: id, Dataset: d, Data: []*datacatalog.ArtifactData{{Name: "o0", Value: integer(value)}}}
}

func (s *catalogServer) createArtifact(a *datacatalog.Artifact) {
	s.t.Helper()
	_, err := s.catalog.CreateArtifact(s.t.Context(), &datacatalog.CreateArtifactRequest{Artifact: a})
	s.ok(err)
}

func (s *catalogServer) tag(d *datacatalog.DatasetID, artifact, name string) error {
	_, err := s.catalog.AddTag(s.t.Context(), &datacatalog.AddTagRequest{Tag: &datacatalog.Tag{Name: name, ArtifactId: artifact, Dataset: d}})
	return err
}

func (s *catalogServer) byTag(d *datacatalog.DatasetID, name string) (*datacatalog.Artifact, error) {
	answer, err := s.catalog.GetArtifact(s.t.Context(), &datacatalog.GetArtifactRequest{Dataset: d, QueryHandle: &datacatalog.GetArtifactRequest_TagName{TagName: name}})
	return answer.GetArtifact(), err
}

func (s *catalogServer) byID(d *datacatalog.DatasetID, id string) (*datacatalog.Artifact, error) {
	answer, err := s.catalog.GetArtifact(s.t.Context(), &datacatalog.GetArtifactRequest{Dataset: d, QueryHandle: &datacatalog.GetArtifactRequest_ArtifactId{ArtifactId: id}})
	return answer.GetArtifact(), err
}

// value is the integer in an artifact's one output.
func value(a *datacatalog.Artifact) int64 {
	if len(a.GetData()) != 1 {
		return -1
	}
	return a.GetData()[0].GetValue().GetScalar().GetPrimitive().GetInteger()
}

func TestAnArtifactIsWrittenAsFlytesEngineDoesAndReadByIDAndTag(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	d := s.createDataset("flyte_task-one", "day")
	_, err := s.catalog.CreateDataset(t.Context(), &datacatalog.CreateDatasetRequest{Dataset: &datacatalog.Dataset{Id: d}})
	s.wantCode(err, connect.CodeAlreadyExists, "flyte_task-one")
	got, err := s.catalog.GetDataset(t.Context(), &datacatalog.GetDatasetRequest{Dataset: d})
	s.ok(err)
	if want := []string{"day"}; !slices.Equal(got.GetDataset().GetPartitionKeys(), want) || got.GetDataset().GetMetadata().GetKeyMap()["task-version"] != "v1" {
		t.Errorf("the dataset is %v", got)
	}

	a := artifact("a1", d, 7)
	a.Partitions = []*datacatalog.Partition{{Key: "day", Value: "monday"}}
	a.Metadata = &datacatalog.Metadata{KeyMap: map[string]string{"execution-name": "e1"}}
	s.createArtifact(a)
	if _, err := s.byTag(d, "t1"); code(err) != connect.CodeNotFound {
		t.Errorf("a tag that nobody gave: %v", err)
	}
	s.ok(s.tag(d, "a1", "t1"))
	s.wantCode(s.tag(d, "a1", "t1"), connect.CodeAlreadyExists, "t1")
	s.ok(s.tag(d, "a1", "t2"))
	for _, read := range []func() (*datacatalog.Artifact, error){
		func() (*datacatalog.Artifact, error) { return s.byTag(d, "t1") },
		func() (*datacatalog.Artifact, error) { return s.byTag(d, "t2") },
		func() (*datacatalog.Artifact, error) { return s.byID(d, "a1") },
	} {
		a, err := read()
		s.ok(err)
		var tags []string
		for _, tag := range a.GetTags() {
			tags = append(tags, tag.GetName())
		}
		if a.GetId() != "a1" || value(a) != 7 || !slices.Equal(tags, []string{"t1", "t2"}) || a.GetPartitions()[0].GetValue() != "monday" ||
			a.GetMetadata().GetKeyMap()["execution-name"] != "e1" || a.GetCreatedAt().AsTime().IsZero() || a.GetDataset().GetName() != d.GetName() {
			t.Errorf("the artifact is %v", a)
		}
	}

	// Another engine was slower: its artifact stays without a name.
	a = artifact("a2", d, 8)
	a.Partitions = []*datacatalog.Partition{{Key: "day", Value: "tuesday"}}
	s.createArtifact(a)
	s.wantCode(s.tag(d, "a2", "t1"), connect.CodeAlreadyExists)
	if a, err := s.byTag(d, "t1"); err != nil || value(a) != 7 {
		t.Errorf("the tag names %v, %v, want what it named first", a, err)
	}
	_, err = s.catalog.CreateArtifact(t.Context(), &datacatalog.CreateArtifactRequest{Artifact: a})
	s.wantCode(err, connect.CodeAlreadyExists, "a2")
}

func TestAnUpdateReplacesWhatAllTagsOfAnArtifactName(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	d := s.createDataset("flyte_task-update")
	s.createArtifact(artifact("a1", d, 7))
	s.ok(s.tag(d, "a1", "t1"))
	s.ok(s.tag(d, "a1", "t2"))
	answer, err := s.catalog.UpdateArtifact(t.Context(), &datacatalog.UpdateArtifactRequest{
		Dataset: d, QueryHandle: &datacatalog.UpdateArtifactRequest_TagName{TagName: "t2"}, Data: artifact("", d, 9).GetData(),
	})
	s.ok(err)
	for _, tag := range []string{"t1", "t2"} {
		if a, err := s.byTag(d, tag); err != nil || value(a) != 9 || a.GetId() != answer.GetArtifactId() {
			t.Errorf("tag %s names %v, %v", tag, a, err)
		}
	}
	_, err = s.byID(d, "a1")
	s.wantCode(err, connect.CodeNotFound, "gone since", "replaced")
	_, err = s.catalog.UpdateArtifact(t.Context(), &datacatalog.UpdateArtifactRequest{
		Dataset: d, QueryHandle: &datacatalog.UpdateArtifactRequest_ArtifactId{ArtifactId: "a1"}, Data: artifact("", d, 9).GetData(),
	})
	s.wantCode(err, connect.CodeNotFound)
	s.createArtifact(artifact("a3", d, 1)) // without a tag
	answer, err = s.catalog.UpdateArtifact(t.Context(), &datacatalog.UpdateArtifactRequest{
		Dataset: d, QueryHandle: &datacatalog.UpdateArtifactRequest_ArtifactId{ArtifactId: "a3"}, Data: artifact("", d, 2).GetData(),
	})
	s.ok(err)
	if a, err := s.byID(d, answer.GetArtifactId()); err != nil || value(a) != 2 {
		t.Errorf("updated by its id: %v, %v", a, err)
	}
	_, err = s.byID(d, "a3")
	s.wantCode(err, connect.CodeNotFound, "replaced by")
}

func (s *catalogServer) list(d *datacatalog.DatasetID, page *datacatalog.PaginationOptions, filters ...*datacatalog.SinglePropertyFilter) ([]string, string) {
	s.t.Helper()
	answer, err := s.catalog.ListArtifacts(s.t.Context(), &datacatalog.ListArtifactsRequest{
		Dataset: d, Pagination: page, Filter: &datacatalog.FilterExpression{Filters: filters},
	})
	s.ok(err)
	var ids []string
	for _, a := range answer.GetArtifacts() {
		ids = append(ids, a.GetId())
		if len(a.GetData()) != 1 {
			s.t.Errorf("artifact %s is listed without its data", a.GetId())
		}
	}
	return ids, answer.GetNextToken()
}

func TestArtifactsAndDatasetsAreListedByFiltersAndPages(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	d := s.createDataset("flyte_task-listed", "day")
	other := s.createDataset("flyte_task-other")
	s.createArtifact(artifact("elsewhere", other, 0))
	var all []string
	for i := range 5 {
		a := artifact(string(rune('a'+i)), d, int64(i))
		a.Partitions = []*datacatalog.Partition{{Key: "day", Value: []string{"odd", "even"}[i%2]}}
		a.Tags = []*datacatalog.Tag{{Name: "tag-" + a.GetId()}}
		s.createArtifact(a)
		all = append(all, a.GetId())
	}
	ascending := func(limit uint32, token string) *datacatalog.PaginationOptions {
		return &datacatalog.PaginationOptions{Limit: limit, Token: token, SortOrder: datacatalog.PaginationOptions_ASCENDING}
	}
	var paged []string
	for token := ""; ; {
		ids, next := s.list(d, ascending(2, token))
		paged = append(paged, ids...)
		if token = next; token == "" {
			break
		}
	}
	if !slices.Equal(paged, all) {
		t.Errorf("by pages: %v, want %v", paged, all)
	}
	newest, _ := s.list(d, nil)
	slices.Reverse(newest)
	if !slices.Equal(newest, all) {
		t.Errorf("without an order the newest is not first")
	}
	partition := func(value string) *datacatalog.SinglePropertyFilter {
		return &datacatalog.SinglePropertyFilter{PropertyFilter: &datacatalog.SinglePropertyFilter_PartitionFilter{PartitionFilter: &datacatalog.PartitionPropertyFilter{
			Property: &datacatalog.PartitionPropertyFilter_KeyVal{KeyVal: &datacatalog.KeyValuePair{Key: "day", Value: value}}}}}
	}
	tagged := &datacatalog.SinglePropertyFilter{PropertyFilter: &datacatalog.SinglePropertyFilter_TagFilter{TagFilter: &datacatalog.TagPropertyFilter{
		Property: &datacatalog.TagPropertyFilter_TagName{TagName: "tag-d"}}}}
	named := &datacatalog.SinglePropertyFilter{PropertyFilter: &datacatalog.SinglePropertyFilter_ArtifactFilter{ArtifactFilter: &datacatalog.ArtifactPropertyFilter{
		Property: &datacatalog.ArtifactPropertyFilter_ArtifactId{ArtifactId: "c"}}}}
	for _, c := range []struct {
		name    string
		filters []*datacatalog.SinglePropertyFilter
		want    []string
	}{
		{"partition", []*datacatalog.SinglePropertyFilter{partition("odd")}, []string{"a", "c", "e"}},
		{"tag", []*datacatalog.SinglePropertyFilter{tagged}, []string{"d"}},
		{"id", []*datacatalog.SinglePropertyFilter{named}, []string{"c"}},
		{"both", []*datacatalog.SinglePropertyFilter{named, partition("even")}, nil},
	} {
		if got, _ := s.list(d, ascending(10, ""), c.filters...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got, token := s.list(d, ascending(2, ""), partition("odd")); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("a page of a filter: %v", got)
	} else if got, _ := s.list(d, ascending(2, token), partition("odd")); !slices.Equal(got, []string{"e"}) {
		t.Errorf("the page after: %v", got)
	}

	byName := func(name string) *datacatalog.FilterExpression {
		return &datacatalog.FilterExpression{Filters: []*datacatalog.SinglePropertyFilter{{PropertyFilter: &datacatalog.SinglePropertyFilter_DatasetFilter{
			DatasetFilter: &datacatalog.DatasetPropertyFilter{Property: &datacatalog.DatasetPropertyFilter_Name{Name: name}}}}}}
	}
	for name, want := range map[string]int{"flyte_task-listed": 1, "flyte_task-none": 0} {
		answer, err := s.catalog.ListDatasets(t.Context(), &datacatalog.ListDatasetsRequest{Filter: byName(name)})
		s.ok(err)
		if len(answer.GetDatasets()) != want {
			t.Errorf("datasets %s: %v, want %d", name, answer.GetDatasets(), want)
		}
	}
	answer, err := s.catalog.ListDatasets(t.Context(), &datacatalog.ListDatasetsRequest{Pagination: ascending(1, "")})
	s.ok(err)
	rest, err := s.catalog.ListDatasets(t.Context(), &datacatalog.ListDatasetsRequest{Pagination: ascending(5, answer.GetNextToken())})
	s.ok(err)
	if len(answer.GetDatasets()) != 1 || len(rest.GetDatasets()) != 1 || answer.GetDatasets()[0].GetId().GetName() != "flyte_task-listed" {
		t.Errorf("datasets by pages: %v, then %v", answer, rest)
	}
}

func TestAllMistakesOfACatalogRequestAreToldAtOnce(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	d := s.createDataset("flyte_task-partitioned", "day", "hour")
	long := strings.Repeat("v", 10<<10)
	for name, c := range map[string]struct {
		call func() error
		want []string
	}{
		"create dataset": {func() error {
			_, err := s.catalog.CreateDataset(t.Context(), &datacatalog.CreateDatasetRequest{Dataset: &datacatalog.Dataset{
				Id: &datacatalog.DatasetID{Project: "p", Name: "n", Version: long}, PartitionKeys: []string{"k", "k"}}})
			return err
		}, []string{"missing dataset.id.domain", "dataset.id.version: it has 10240 bytes, the limit is", "twice"}},
		"create artifact": {func() error {
			a := artifact("", d, 1)
			a.Data = append(a.Data, &datacatalog.ArtifactData{Name: "o0", Value: integer(2)}, &datacatalog.ArtifactData{Name: "o1"})
			a.Partitions = []*datacatalog.Partition{{Key: "day", Value: "1"}}
			_, err := s.catalog.CreateArtifact(t.Context(), &datacatalog.CreateArtifactRequest{Artifact: a})
			return err
		}, []string{"missing artifact.id", `"o0" is there twice`, "missing artifact.data[2].value", "[day], the dataset states [day, hour]"}},
		"artifact of nothing": {func() error {
			_, err := s.catalog.CreateArtifact(t.Context(), &datacatalog.CreateArtifactRequest{})
			return err
		}, []string{"missing artifact"}},
		"get artifact": {func() error {
			_, err := s.catalog.GetArtifact(t.Context(), &datacatalog.GetArtifactRequest{Dataset: &datacatalog.DatasetID{}})
			return err
		}, []string{"missing dataset.project", "missing dataset.version", "missing artifact_id or tag_name"}},
		"add tag": {func() error { return s.tag(nil, "", long) }, []string{"missing tag.dataset", "tag.name: it has", "missing tag.artifact_id"}},
		"update artifact": {func() error {
			_, err := s.catalog.UpdateArtifact(t.Context(), &datacatalog.UpdateArtifactRequest{Dataset: d})
			return err
		}, []string{"missing artifact_id or tag_name", "missing data"}},
		"list": {func() error {
			_, err := s.catalog.ListArtifacts(t.Context(), &datacatalog.ListArtifactsRequest{
				Dataset: d, Pagination: &datacatalog.PaginationOptions{Limit: 5000, Token: "x"}, Filter: &datacatalog.FilterExpression{Filters: []*datacatalog.SinglePropertyFilter{{}}}})
			return err
		}, []string{"pagination.limit: 5000", "pagination.token", "missing filter.filters[0].property_filter"}},
		"reserve": {func() error {
			_, err := s.catalog.GetOrExtendReservation(t.Context(), &datacatalog.GetOrExtendReservationRequest{HeartbeatInterval: durationpb.New(-time.Second)})
			return err
		}, []string{"missing reservation_id.dataset_id", "missing reservation_id.tag_name", "missing owner_id", "heartbeat_interval"}},
		"cache without output": {func() error {
			_, err := s.cache.Put(t.Context(), &cacheservice.PutCacheRequest{})
			return err
		}, []string{"missing key", "missing output.output_literals or output.output_uri"}},
		"cache of a foreign place": {func() error {
			_, err := s.cache.Put(t.Context(), &cacheservice.PutCacheRequest{Key: "k", Output: &cacheservice.CachedOutput{
				Output: &cacheservice.CachedOutput_OutputUri{OutputUri: "s3://bucket/outputs.pb"}}})
			return err
		}, []string{"is not the location of an object of this server"}},
	} {
		err := c.call()
		if code(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v, want INVALID_ARGUMENT", name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %v", name, want, err)
			}
		}
	}
	missing := dataset("flyte_task-missing")
	_, err := s.catalog.GetDataset(t.Context(), &datacatalog.GetDatasetRequest{Dataset: missing})
	s.wantCode(err, connect.CodeNotFound, "flyte_task-missing")
	_, err = s.catalog.ListArtifacts(t.Context(), &datacatalog.ListArtifactsRequest{Dataset: missing})
	s.wantCode(err, connect.CodeNotFound, "flyte_task-missing")
	_, err = s.catalog.CreateArtifact(t.Context(), &datacatalog.CreateArtifactRequest{Artifact: artifact("a", missing, 1)})
	s.wantCode(err, connect.CodeNotFound, "flyte_task-missing")
	s.wantCode(s.tag(d, "nothing", "t"), connect.CodeNotFound, "nothing")
}

func TestAnArtifactNamesOnlyObjectsThatAreThere(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	d := s.createDataset("flyte_task-files")
	file := func(uri string) []*datacatalog.ArtifactData {
		return []*datacatalog.ArtifactData{{Name: "o0", Value: &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{
			Value: &core.Scalar_Blob{Blob: &core.Blob{Uri: uri, Metadata: &core.BlobMetadata{Type: &core.BlobType{}}}}}}}}}
	}
	a := artifact("a1", d, 0)
	a.Data = file("aloft://blob/none/here")
	_, err := s.catalog.CreateArtifact(t.Context(), &datacatalog.CreateArtifactRequest{Artifact: a})
	s.wantCode(err, connect.CodeInvalidArgument, "there is no object aloft://blob/none/here")
	a.Data = file("s3://bucket/of/somebody")
	s.createArtifact(a)
	got, err := s.byID(d, "a1")
	s.ok(err)
	if uri := got.GetData()[0].GetValue().GetScalar().GetBlob().GetUri(); uri != "s3://bucket/of/somebody" {
		t.Errorf("a location that is not ours became %s", uri)
	}
}

func TestAReservationIsHeldForThreeHeartbeatsOfAtMostTenSeconds(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	id := &datacatalog.ReservationID{DatasetId: dataset("flyte_task-serial"), TagName: "t"}
	reserve := func(owner string, heartbeat *durationpb.Duration) *datacatalog.Reservation {
		t.Helper()
		answer, err := s.catalog.GetOrExtendReservation(t.Context(), &datacatalog.GetOrExtendReservationRequest{ReservationId: id, OwnerId: owner, HeartbeatInterval: heartbeat})
		s.ok(err)
		return answer.GetReservation()
	}
	before := time.Now()
	first := reserve("ada", durationpb.New(time.Hour))
	if first.GetOwnerId() != "ada" || first.GetHeartbeatInterval().AsDuration() != 10*time.Second {
		t.Errorf("reserved: %v, want ada's with a heartbeat of 10 s", first)
	}
	if left := first.GetExpiresAt().AsTime().Sub(before); left < 30*time.Second || left > 30*time.Second+time.Since(before) {
		t.Errorf("it holds for %s, want three heartbeats", left)
	}
	if second := reserve("grace", nil); second.GetOwnerId() != "ada" || !second.GetExpiresAt().AsTime().Equal(first.GetExpiresAt().AsTime()) {
		t.Errorf("another one got %v, want ada's as it was", second)
	}
	if extended := reserve("ada", durationpb.New(time.Minute)); !extended.GetExpiresAt().AsTime().After(first.GetExpiresAt().AsTime()) {
		t.Errorf("extended: %v, want later than %v", extended, first)
	}
	_, err := s.catalog.ReleaseReservation(t.Context(), &datacatalog.ReleaseReservationRequest{ReservationId: id, OwnerId: "grace"})
	s.ok(err) // grace has no reservation: to release it is no error and changes nothing
	if have := reserve("alan", nil); have.GetOwnerId() != "ada" {
		t.Errorf("after grace's release it is %s's, want ada's", have.GetOwnerId())
	}
	// The same right, through the other service.
	key := strings.Join([]string{"flytesnacks", "development", "flyte_task-serial", "1-abc-def", "t"}, "/")
	answer, err := s.cache.GetOrExtendReservation(t.Context(), &cacheservice.GetOrExtendReservationRequest{Key: key, OwnerId: "grace"})
	s.ok(err)
	if answer.GetReservation().GetOwnerId() != "ada" {
		t.Errorf("through CacheService it is %s's, want ada's", answer.GetReservation().GetOwnerId())
	}
	_, err = s.cache.ReleaseReservation(t.Context(), &cacheservice.ReleaseReservationRequest{Key: key, OwnerId: "ada"})
	s.ok(err)
	if have := reserve("grace", durationpb.New(time.Second)); have.GetOwnerId() != "grace" || have.GetHeartbeatInterval().AsDuration() != time.Second {
		t.Errorf("after its release: %v, want grace's", have)
	}
}

func TestAKeyOfCacheServiceHoldsOneResult(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	for _, key := range []string{"opaque", "a/b", "%zz/b/c/d/e", "p/d/n/v/t"} {
		put := func(n int64, overwrite bool) error {
			_, err := s.cache.Put(t.Context(), &cacheservice.PutCacheRequest{Key: key, Overwrite: overwrite, Output: &cacheservice.CachedOutput{
				Output: &cacheservice.CachedOutput_OutputLiterals{OutputLiterals: &core.LiteralMap{Literals: map[string]*core.Literal{"o0": integer(n)}}},
				Metadata: &cacheservice.Metadata{
					SourceIdentifier: id(core.ResourceType_TASK, "mine"),
					KeyMap:           &cacheservice.KeyMapMetadata{Values: map[string]string{"who": "ada"}},
				},
			}})
			return err
		}
		want := func(n int64) {
			t.Helper()
			answer, err := s.cache.Get(t.Context(), &cacheservice.GetCacheRequest{Key: key})
			s.ok(err)
			out := answer.GetOutput()
			if got := out.GetOutputLiterals().GetLiterals()["o0"].GetScalar().GetPrimitive().GetInteger(); got != n {
				t.Errorf("%s has %d, want %d", key, got, n)
			}
			if m := out.GetMetadata(); len(m.GetKeyMap().GetValues()) != 1 || m.GetKeyMap().GetValues()["who"] != "ada" ||
				!proto.Equal(m.GetSourceIdentifier(), id(core.ResourceType_TASK, "mine")) || m.GetCreatedAt() == nil {
				t.Errorf("%s: metadata are %v", key, m)
			}
		}
		_, err := s.cache.Get(t.Context(), &cacheservice.GetCacheRequest{Key: key})
		s.wantCode(err, connect.CodeNotFound, key)
		s.ok(put(1, false))
		want(1)
		s.wantCode(put(2, false), connect.CodeAlreadyExists, "overwrite")
		want(1)
		s.ok(put(3, true))
		want(3)
		_, err = s.cache.Delete(t.Context(), &cacheservice.DeleteCacheRequest{Key: key})
		s.ok(err)
		_, err = s.cache.Get(t.Context(), &cacheservice.GetCacheRequest{Key: key})
		s.wantCode(err, connect.CodeNotFound)
		_, err = s.cache.Delete(t.Context(), &cacheservice.DeleteCacheRequest{Key: key})
		s.wantCode(err, connect.CodeNotFound)
	}
}

func TestAnOutputThatIsAnObjectIsReadFromThere(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	encoded, err := proto.Marshal(&core.LiteralMap{Literals: map[string]*core.Literal{"o0": integer(12)}})
	s.ok(err)
	location, err := s.proxy.CreateUploadLocation(t.Context(), &service.CreateUploadLocationRequest{Project: "flytesnacks", Domain: "development", Filename: "outputs.pb", FilenameRoot: "mine"})
	s.ok(err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, location.GetSignedUrl(), bytes.NewReader(encoded))
	s.ok(err)
	answer, err := http.DefaultClient.Do(request)
	s.ok(err)
	_ = answer.Body.Close()
	_, err = s.cache.Put(t.Context(), &cacheservice.PutCacheRequest{Key: "k", Output: &cacheservice.CachedOutput{
		Output: &cacheservice.CachedOutput_OutputUri{OutputUri: location.GetNativeUrl()}}})
	s.ok(err)
	got, err := s.cache.Get(t.Context(), &cacheservice.GetCacheRequest{Key: "k"})
	s.ok(err)
	if n := got.GetOutput().GetOutputLiterals().GetLiterals()["o0"].GetScalar().GetPrimitive().GetInteger(); n != 12 {
		t.Errorf("the output is %v, want 12", got)
	}
}
