package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

func namedID(name string) *admin.NamedEntityIdentifier {
	return &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development", Name: name}
}

// listed gives all pages of a list of named entities, each entity as "name description state".
func (s *testServer) listed(r *admin.NamedEntityListRequest) (entities []string) {
	s.t.Helper()
	r.Project, r.Domain = "flytesnacks", "development"
	for {
		page, err := s.admin.ListNamedEntities(s.t.Context(), r)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range page.GetEntities() {
			if e.GetResourceType() != r.GetResourceType() || e.GetId().GetProject() != "flytesnacks" || e.GetId().GetDomain() != "development" {
				s.t.Errorf("listed %v for %v", e, r)
			}
			entities = append(entities, fmt.Sprintf("%s %q %s", e.GetId().GetName(), e.GetMetadata().GetDescription(), e.GetMetadata().GetState()))
		}
		if r.Token = page.GetToken(); r.GetToken() == "" {
			return entities
		}
	}
}

func (s *testServer) wantListed(r *admin.NamedEntityListRequest, want ...string) {
	s.t.Helper()
	if got := s.listed(r); strings.Join(got, "; ") != strings.Join(want, "; ") {
		s.t.Errorf("%v lists\n%s\nwant\n%s", r, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNamedEntitiesAreListedAsClientsAsk(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, name := range []string{"b", "a", "c"} {
		s.registerChain(name, 1)
	}
	later := chain("b", "b", 2)
	later.Id.Version = "v2"
	if _, err := s.admin.CreateWorkflow(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	s.wait(s.create(execute(id(core.ResourceType_TASK, "a"), map[string]*core.Literal{"x": integer(1)}))) // makes a workflow and a launch plan
	if _, err := s.admin.UpdateNamedEntity(t.Context(), &admin.NamedEntityUpdateRequest{ResourceType: core.ResourceType_WORKFLOW, Id: namedID("c"),
		Metadata: &admin.NamedEntityMetadata{Description: "the last one", State: admin.NamedEntityState_NAMED_ENTITY_ARCHIVED}}); err != nil {
		t.Fatal(err)
	}
	const a, b, c, generated = `a "" NAMED_ENTITY_ACTIVE`, `b "" NAMED_ENTITY_ACTIVE`, `c "the last one" NAMED_ENTITY_ARCHIVED`, `.flytegen.a "" SYSTEM_GENERATED`
	newest, byName := &admin.Sort{Key: "created_at"}, &admin.Sort{Key: "name", Direction: admin.Sort_ASCENDING}
	list := func(filters string, by *admin.Sort) *admin.NamedEntityListRequest {
		return &admin.NamedEntityListRequest{ResourceType: core.ResourceType_WORKFLOW, Limit: 2, Filters: filters, SortBy: by}
	}
	s.wantListed(list("", nil), a, b, c)
	s.wantListed(list("", newest), c, a, b) // flytectl
	s.wantListed(list("eq(state,0)", byName), a, b)
	s.wantListed(list("eq(state,1)", newest), c)
	s.wantListed(list("eq(state,2)", nil), generated)
	s.wantListed(list("contains(name,a)", byName), generated, a) // with any filter at all, generated names are listed, as in Flyte
	s.wantListed(list("contains(named_entity_metadata.description,last)", nil), c)
	s.wantListed(&admin.NamedEntityListRequest{ResourceType: core.ResourceType_TASK, Limit: 10}, a, b, `c "" NAMED_ENTITY_ACTIVE`)
	s.wantListed(&admin.NamedEntityListRequest{ResourceType: core.ResourceType_LAUNCH_PLAN, Limit: 10, Filters: "ne(state,0)"}, generated)

	names, err := s.admin.ListWorkflowIds(t.Context(), &admin.NamedEntityIdentifierListRequest{Project: "flytesnacks", Domain: "development", Limit: 2, Filters: "contains(name,a)"})
	if err != nil || len(names.GetEntities()) != 1 || names.GetEntities()[0].GetName() != "a" || names.GetToken() != "" {
		t.Errorf("names with an a are %v, %v, want a", names, err)
	}
	_, err = s.admin.ListNamedEntities(t.Context(), &admin.NamedEntityListRequest{ResourceType: core.ResourceType_DATASET, Token: "x", Filters: "like(name,x)"})
	s.wantCode(err, connect.CodeInvalidArgument, "invalid value for resource_type", "DATASET", "missing project", "missing domain", "invalid value for limit",
		"invalid pagination token", "unrecognized filter function")
	_, err = s.admin.ListNamedEntities(t.Context(), &admin.NamedEntityListRequest{})
	s.wantCode(err, connect.CodeInvalidArgument, "missing resource_type")
	wrong := list("eq(version,v1)", &admin.Sort{Key: "version"})
	wrong.Project, wrong.Domain = "flytesnacks", "development"
	_, err = s.admin.ListNamedEntities(t.Context(), wrong)
	s.wantCode(err, connect.CodeInvalidArgument, "'entities.version' is invalid filter", "invalid sort key 'version'")
}

func TestAnArchivedNameIsLaunchedAsBefore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("flow", 1)
	for _, kind := range []core.ResourceType{core.ResourceType_TASK, core.ResourceType_WORKFLOW, core.ResourceType_LAUNCH_PLAN} {
		before, err := s.admin.GetNamedEntity(t.Context(), &admin.NamedEntityGetRequest{ResourceType: kind, Id: namedID("flow")})
		if want := (&admin.NamedEntity{ResourceType: kind, Id: namedID("flow"), Metadata: &admin.NamedEntityMetadata{}}); err != nil || !proto.Equal(before, want) {
			t.Errorf("nothing was said of it yet: %v, %v, want %v", before, err, want)
		}
		archived := &admin.NamedEntityMetadata{Description: strings.Repeat("ä", 300), State: admin.NamedEntityState_NAMED_ENTITY_ARCHIVED}
		if _, err := s.admin.UpdateNamedEntity(t.Context(), &admin.NamedEntityUpdateRequest{ResourceType: kind, Id: namedID("flow"), Metadata: archived}); err != nil {
			t.Fatal(err)
		}
		after, err := s.admin.GetNamedEntity(t.Context(), &admin.NamedEntityGetRequest{ResourceType: kind, Id: namedID("flow")})
		if err != nil || !proto.Equal(after.GetMetadata(), archived) {
			t.Errorf("after the update: %v, %v, want %v", after, err, archived)
		}
	}
	e := s.wait(s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "flow"), map[string]*core.Literal{"x": integer(1)})))
	if got := e.GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
		t.Errorf("the execution ended %s", got)
	}
	if _, err := s.admin.UpdateNamedEntity(t.Context(), &admin.NamedEntityUpdateRequest{ // as flytectl's --activate sends it
		ResourceType: core.ResourceType_TASK, Id: namedID("flow"), Metadata: &admin.NamedEntityMetadata{},
	}); err != nil {
		t.Fatal(err)
	}
	s.wantListed(&admin.NamedEntityListRequest{ResourceType: core.ResourceType_TASK, Limit: 10}, fmt.Sprintf("flow %q NAMED_ENTITY_ACTIVE", strings.Repeat("ä", 300)))
}

func TestAWrongUpdateOfANameSaysEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("flow", 1)
	_, err := s.admin.GetNamedEntity(t.Context(), &admin.NamedEntityGetRequest{ResourceType: core.ResourceType_WORKFLOW, Id: namedID("none")})
	s.wantCode(err, connect.CodeNotFound, "workflow flytesnacks/development/none", "entry not found")
	_, err = s.admin.GetNamedEntity(t.Context(), &admin.NamedEntityGetRequest{})
	s.wantCode(err, connect.CodeInvalidArgument, "missing resource_type", "missing id")
	_, err = s.admin.UpdateNamedEntity(t.Context(), &admin.NamedEntityUpdateRequest{
		ResourceType: core.ResourceType_WORKFLOW, Id: namedID("none"), Metadata: &admin.NamedEntityMetadata{},
	})
	s.wantCode(err, connect.CodeNotFound, "workflow flytesnacks/development/none", "entry not found")
	_, err = s.admin.UpdateNamedEntity(t.Context(), &admin.NamedEntityUpdateRequest{ResourceType: core.ResourceType_WORKFLOW, Id: namedID("flow")})
	s.wantCode(err, connect.CodeInvalidArgument, "missing metadata")
	_, err = s.admin.UpdateNamedEntity(t.Context(), &admin.NamedEntityUpdateRequest{
		ResourceType: 99, Id: &admin.NamedEntityIdentifier{Name: strings.Repeat("n", 256)},
		Metadata: &admin.NamedEntityMetadata{Description: strings.Repeat("ä", 300) + "\x00", State: 7},
	})
	s.wantCode(err, connect.CodeInvalidArgument, "resource_type", "missing project", "missing domain", "invalid value for name",
		"metadata.description: it has 301 characters, the limit is 300", "metadata.description: it contains a NUL", "metadata.state: 7")
	s.wantListed(&admin.NamedEntityListRequest{ResourceType: core.ResourceType_WORKFLOW, Limit: 10}, `flow "" NAMED_ENTITY_ACTIVE`)
}

func TestNamedEntitiesAreTheSameInEveryProtocol(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.registerChain("my.flow", 1)
	octets := http.Header{"Content-Type": {"application/octet-stream"}, "Accept": {"application/octet-stream"}}
	request := &admin.NamedEntityUpdateRequest{ResourceType: core.ResourceType_WORKFLOW, Id: namedID("my.flow"), Metadata: &admin.NamedEntityMetadata{Description: "said"}}
	body, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	// The console sends the number of the type and binary bodies, others its name and JSON.
	if answer, content := s.do(http.MethodPut, "/api/v1/named_entities/2/flytesnacks/development/my.flow", octets, body); answer.StatusCode != http.StatusOK {
		t.Fatalf("PUT in binary: %s %s", answer.Status, content)
	}
	if answer, content := s.do(http.MethodPut, "/api/v1/named_entities/TASK/flytesnacks/development/my.flow", http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"metadata": {"state": "NAMED_ENTITY_ARCHIVED"}}`)); answer.StatusCode != http.StatusOK {
		t.Fatalf("PUT in JSON: %s %s", answer.Status, content)
	}
	s.wantListed(&admin.NamedEntityListRequest{ResourceType: core.ResourceType_TASK, Limit: 10}, `my.flow "" NAMED_ENTITY_ARCHIVED`)

	want := &admin.NamedEntity{ResourceType: core.ResourceType_WORKFLOW, Id: namedID("my.flow"), Metadata: request.GetMetadata()}
	same := func(protocol string, got *admin.NamedEntity, err error) {
		t.Helper()
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%s gives %v, %v, want %v", protocol, got, err, want)
		}
	}
	get := &admin.NamedEntityGetRequest{ResourceType: core.ResourceType_WORKFLOW, Id: namedID("my.flow")}
	got, err := service.NewAdminServiceClient(s.grpc()).GetNamedEntity(t.Context(), get)
	same("gRPC", got, err)
	got, err = s.adminClient(s.http, connect.WithProtoJSON()).GetNamedEntity(t.Context(), get)
	same("Connect", got, err)
	_, content := s.do(http.MethodGet, "/api/v1/named_entities/WORKFLOW/flytesnacks/development/my.flow", http.Header{}, nil)
	got = &admin.NamedEntity{}
	same("REST in JSON", got, protojson.Unmarshal(content, got))
	_, content = s.do(http.MethodGet, "/api/v1/named_entities/2/flytesnacks/development?limit=5&filters=eq(state,0)&sort_by.key=name&sort_by.direction=ASCENDING", octets, nil)
	list := &admin.NamedEntityList{}
	if err := proto.Unmarshal(content, list); err != nil || len(list.GetEntities()) != 1 {
		t.Fatalf("the list by REST in binary is %v, %v", list, err)
	}
	same("the list by REST in binary", list.GetEntities()[0], nil)
	if answer, content := s.do(http.MethodGet, "/api/v1/named_entities/LAUNCH_PLAN/flytesnacks/development/none", http.Header{}, nil); answer.StatusCode != http.StatusNotFound {
		t.Errorf("what is not there is %s %s", answer.Status, content)
	}
}
