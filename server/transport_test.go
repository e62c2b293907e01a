package server

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/cacheservice"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

type (
	serviceGetData      = service.GetDataRequest
	serviceDownloadLink = service.CreateDownloadLinkRequest
	serviceLinkOfNode   = service.CreateDownloadLinkRequest_NodeExecutionId
)

var insecureCredentials = insecure.NewCredentials()

const artifactDeck = service.ArtifactType_ARTIFACT_TYPE_DECK

// reply is a response without its body.
type reply struct {
	StatusCode int
	Status     string
	Header     http.Header
}

// do sends a request over HTTP/1 and returns status and body.
func (s *testServer) do(method, path string, header http.Header, body []byte) (reply, []byte) {
	s.t.Helper()
	return s.doAs("", method, path, header, body)
}

// doAs is do with a Host of its own; empty: the server's.
func (s *testServer) doAs(host, method, path string, header http.Header, body []byte) (reply, []byte) {
	s.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = "http://" + s.Address + path
	}
	request, err := http.NewRequestWithContext(s.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header, request.Host = header, host
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(request)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, url, err)
	}
	return reply{answer.StatusCode, answer.Status, answer.Header}, content
}

func (s *testServer) download(url string) *core.LiteralMap {
	s.t.Helper()
	answer, content := s.do(http.MethodGet, url, http.Header{}, nil)
	if answer.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s: %s", url, answer.Status, content)
	}
	m := &core.LiteralMap{}
	if err := proto.Unmarshal(content, m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *testServer) grpc() *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(s.Address, grpc.WithTransportCredentials(insecureCredentials),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1<<30), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

func TestEveryProtocolReachesTheSameMethods(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if _, err := s.admin.CreateTask(t.Context(), echoTask("a.b")); err != nil { // gRPC through connect
		t.Fatal(err)
	}
	request := &admin.ObjectGetRequest{Id: id(core.ResourceType_TASK, "a.b")}
	byGRPC, err := service.NewAdminServiceClient(s.grpc()).GetTask(t.Context(), request)
	if err != nil {
		t.Fatalf("grpc: %v", err)
	}
	for name, option := range map[string]connect.ClientOption{"gRPC-Web": connect.WithGRPCWeb(), "Connect JSON": connect.WithProtoJSON()} {
		got, err := s.adminClient(http.DefaultClient, option).GetTask(t.Context(), request)
		if name == "Connect JSON" {
			got, err = s.adminClient(s.http, option).GetTask(t.Context(), request)
		}
		if err != nil || !proto.Equal(got, byGRPC) {
			t.Errorf("%s gives %v, %v, want what gRPC gives", name, got, err)
		}
	}
	answer, content := s.do(http.MethodGet, "/api/v1/tasks/flytesnacks/development/a.b/v1", http.Header{"Accept": {"application/octet-stream"}}, nil)
	got := &admin.Task{}
	if err := proto.Unmarshal(content, got); err != nil || answer.Header.Get("Content-Type") != "application/octet-stream" || !proto.Equal(got, byGRPC) {
		t.Errorf("REST in binary gives %v, %v (%s), want what gRPC gives", got, err, answer.Header.Get("Content-Type"))
	}
	_, content = s.do(http.MethodGet, "/api/v1/tasks/flytesnacks/development/a.b/v1", http.Header{}, nil)
	var fields map[string]any
	if err := json.Unmarshal(content, &fields); err != nil {
		t.Fatalf("REST in JSON gives %s: %v", content, err)
	}
	if _, ok := fields["short_description"]; !ok {
		t.Errorf("JSON lacks short_description: names are those of the .proto files, defaults are shown: %s", content)
	}
}

func TestRESTTakesBinaryBodiesAndBodiesOfDELETE(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	body, err := proto.Marshal(echoTask("binary"))
	if err != nil {
		t.Fatal(err)
	}
	octets := http.Header{"Content-Type": {"application/octet-stream"}, "Accept": {"application/octet-stream"}}
	if answer, content := s.do(http.MethodPost, "/api/v1/tasks", octets, body); answer.StatusCode != http.StatusOK {
		t.Fatalf("POST: %s %q", answer.Status, content)
	}
	answer, content := s.do(http.MethodPost, "/api/v1/tasks", http.Header{"Content-Type": {"application/octet-stream"}}, body)
	if answer.StatusCode != http.StatusConflict {
		t.Errorf("POST again: %s %q, want 409", answer.Status, content)
	}
	e := s.sleeping(1 << 40)
	path := "/api/v1/executions/" + e.GetProject() + "/" + e.GetDomain() + "/" + e.GetName()
	if answer, content := s.do(http.MethodDelete, path, http.Header{"Content-Type": {"application/json"}}, []byte(`{"cause": "by REST"}`)); answer.StatusCode != http.StatusOK {
		t.Fatalf("DELETE: %s %s", answer.Status, content)
	}
	if got := s.wait(e).GetClosure().GetAbortMetadata().GetCause(); got != "by REST" {
		t.Errorf("the cause is %q, want that of the body", got)
	}
	for _, query := range []string{"limit=1&sort_by.key=created_at&sort_by.direction=DESCENDING", "limit=1&sortBy.key=created_at&sortBy.direction=0"} {
		if answer, content := s.do(http.MethodGet, "/api/v1/executions/flytesnacks/development?"+query, http.Header{}, nil); answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", query, answer.Status, content)
		}
	}
}

func TestErrorsHaveTheCodesOfRESTToo(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for path, want := range map[string]int{
		"/api/v1/tasks/flytesnacks/development/none/v1":   http.StatusNotFound,
		"/api/v1/tasks/flytesnacks/development":           http.StatusBadRequest,
		"/api/v1/metrics/executions/p/d/n":                http.StatusNotImplemented,
		"/me":                                             http.StatusNotImplemented,
		"/api/v1/executions/flytesnacks/development/none": http.StatusNotFound,
		"/healthcheck":                                    http.StatusOK,
		"/nothing/here":                                   http.StatusNotFound,
		"/console/projects/p/domains/d/executions/n":      http.StatusNotFound,
		"/console/":                                       http.StatusOK,
	} {
		if answer, content := s.do(http.MethodGet, path, http.Header{}, nil); answer.StatusCode != want {
			t.Errorf("GET %s: %s, want %d: %s", path, answer.Status, want, content)
		} else if strings.HasPrefix(path, "/console/projects/") && !strings.Contains(string(content), "<h1>execution p/d/n: not found</h1>") {
			t.Errorf("GET %s says in the words of Flyte's clients: %s", path, content)
		}
	}
}

func TestCallsThatAreNotServedAnswerUnimplementedByName(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	conn := s.grpc()
	for _, file := range []*grpc.ServiceDesc{
		&service.AdminService_ServiceDesc, &service.DataProxyService_ServiceDesc, &service.SignalService_ServiceDesc, &service.IdentityService_ServiceDesc,
		&service.AuthMetadataService_ServiceDesc, &service.AsyncAgentService_ServiceDesc, &service.AgentMetadataService_ServiceDesc,
		&datacatalog.DataCatalog_ServiceDesc, &cacheservice.CacheService_ServiceDesc, &aloftv1.ResultService_ServiceDesc,
	} {
		for _, m := range file.Methods {
			var answer admin.GetVersionRequest // any message: unknown fields are kept
			err := conn.Invoke(t.Context(), "/"+file.ServiceName+"/"+m.MethodName, &admin.GetVersionRequest{}, &answer)
			switch status.Code(err) {
			case codes.OK, codes.InvalidArgument:
			case codes.Unimplemented:
				if !strings.Contains(err.Error(), file.ServiceName+"/"+m.MethodName) || !strings.Contains(err.Error(), "not supported yet") {
					t.Errorf("%s says %v, want its name and \"not supported yet\"", m.MethodName, err)
				}
			default:
				t.Errorf("an empty request to %s: %v", m.MethodName, err)
			}
		}
	}
	err := conn.Invoke(t.Context(), "/some.Service/Call", &admin.GetVersionRequest{}, &admin.GetVersionResponse{})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "some.Service/Call") {
		t.Errorf("a service that is not there: %v, want UNIMPLEMENTED with its name", err)
	}
}

func TestHealthIsServing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, name := range []string{"", "flyteadmin"} {
		got, err := healthpb.NewHealthClient(s.grpc()).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q is %v, %v, want SERVING", name, got, err)
		}
	}
}

func TestAMessageAboveTheLimitIsResourceExhausted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	task := echoTask("huge")
	task.Spec.Template.Config = map[string]string{"x": strings.Repeat("x", aloft.MaxMessageBytes)}
	_, err := service.NewAdminServiceClient(s.grpc()).CreateTask(t.Context(), task)
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("got %v, want RESOURCE_EXHAUSTED with the limit", err)
	}
	body, err := proto.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	if answer, content := s.do(http.MethodPost, "/api/v1/tasks", http.Header{"Content-Type": {"application/octet-stream"}}, body); answer.StatusCode != http.StatusTooManyRequests {
		t.Errorf("REST: %s %.200s, want 429", answer.Status, content)
	}
}

// TestPagesElsewhereAreRefusedOnEveryPath is attack 1: a refused request has no effect.
func TestPagesElsewhereAreRefusedOnEveryPath(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	c.Origins = []string{"https://mine.example"}
	s := start(t, c)
	project := func(name string) []byte { return []byte(`{"project": {"id": "` + name + `", "name": "` + name + `"}}`) }
	evil := func(more ...string) http.Header {
		h := http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	const register = "/flyteidl.service.AdminService/RegisterProject"
	for _, test := range []struct {
		method, path string
		header       http.Header
		status       int
		says         string
	}{
		{"POST", "/api/v1/projects", evil("Content-Type", "text/plain"), 403, `"code":7`},
		{"POST", "/api/v1/projects", evil("Content-Type", "application/json"), 403, "--origins https://evil.example"},
		{"POST", "/api/v1/projects", http.Header{"Content-Type": {"text/plain"}}, 415, "application/json"},
		{"POST", register, evil("Content-Type", "application/json"), 403, `"code":"permission_denied"`},
		{"POST", register, evil("Content-Type", "application/connect+json"), 200, `"code":"permission_denied"`},
		{"POST", register, evil("Content-Type", "application/grpc-web+json"), 200, ""},
		{"GET", "/api/v1/projects", evil(), 403, "origins"},
		{"GET", "/console/", evil(), 403, "origins"},
		{"GET", "/healthcheck", evil(), 403, "origins"},
		{"GET", "/blob/x/y", evil(), 403, "origins"},
		{"POST", "/grpc.health.v1.Health/Check", evil("Content-Type", "application/json"), 403, "origins"},
		{"POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", evil("Content-Type", "application/connect+json"), 200, "origins"},
		{"GET", "/nothing/here", evil(), 403, "origins"},
		{"OPTIONS", "/api/v1/projects", evil("Access-Control-Request-Method", "POST"), 403, "origins"},
		{"GET", "/console/", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}, 200, ""},
	} {
		answer, content := s.do(test.method, test.path, test.header, project("evil"))
		if answer.StatusCode != test.status || !strings.Contains(string(content), test.says) {
			t.Errorf("%s %s %v: %s %s, want %d with %s", test.method, test.path, test.header, answer.Status, content, test.status, test.says)
		}
		if allow := answer.Header.Get("Access-Control-Allow-Origin"); allow != "" {
			t.Errorf("%s %s: %s may read the answer", test.method, test.path, allow)
		}
		if code := answer.Header.Get("Grpc-Status"); strings.Contains(test.header.Get("Content-Type"), "grpc") && code != "7" {
			t.Errorf("%s %s: Grpc-Status %q, want 7", test.method, test.path, code)
		}
	}
	mine := http.Header{"Origin": {"https://mine.example"}, "Sec-Fetch-Site": {"cross-site"}, "Content-Type": {"application/json"}}
	ask := mine.Clone()
	ask.Set("Access-Control-Request-Method", "POST")
	answer, _ := s.do(http.MethodOptions, "/api/v1/projects", ask, nil)
	if answer.StatusCode != http.StatusNoContent || answer.Header.Get("Access-Control-Allow-Origin") != "https://mine.example" || !strings.Contains(answer.Header.Get("Access-Control-Allow-Headers"), "flyte-authorization") {
		t.Errorf("the preflight of an allowed page is answered with %s %v", answer.Status, answer.Header)
	}
	if answer, content := s.do(http.MethodPost, "/api/v1/projects", mine, project("mine")); answer.StatusCode != http.StatusOK || answer.Header.Get("Access-Control-Allow-Origin") != "https://mine.example" {
		t.Errorf("an allowed page: %s %s", answer.Status, content)
	}
	list, err := s.admin.ListProjects(t.Context(), &admin.ProjectListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.GetProjects() {
		if p.GetId() == "evil" {
			t.Error("a page elsewhere registered a project, although its request was refused")
		}
	}
}

// A plain gRPC client gives up on headers of more than 16 KiB, and then has no text of the error (attack 18).
func TestErrorsFitTheHeadersThatAClientTakes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	task := echoTask("problems")
	for i := range 2000 {
		task.Spec.Template.Interface.Inputs.Variables[fmt.Sprintf("v%d", i)] = &core.Variable{}
	}
	body, err := proto.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	for name, test := range map[string]struct {
		header   http.Header
		from, to int
	}{
		"a plain client": {http.Header{"User-Agent": {"grpc-python/1.71.0 grpc-c/46.0.0 (linux; chttp2)"}}, 2 << 10, 8 << 10},
		"flytekit":       {http.Header{"User-Agent": {"grpc-python/1.71.0 grpc-c/46.0.0 (linux; chttp2)"}, "Accept": {"application/grpc"}}, 16 << 10, 32 << 10},
		"flytectl":       {http.Header{"User-Agent": {"grpc-go/1.68.0"}}, 16 << 10, 32 << 10},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Address+"/flyteidl.service.AdminService/CreateTask", bytes.NewReader(frame))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = test.header
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("Te", "trailers")
		answer, err := s.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		size := 0
		for _, header := range []http.Header{answer.Header, answer.Trailer} {
			for key, values := range header {
				size += len(key) + len(strings.Join(values, "")) + 32
			}
		}
		if size < test.from || size > test.to {
			t.Errorf("%s gets %d bytes of headers, want from %d to %d", name, size, test.from, test.to)
		}
	}
}

// TestLinksAreNeverMadeOfAHostThatIsNotOurs is attack 1, the part about Host.
func TestLinksAreNeverMadeOfAHostThatIsNotOurs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if answer, content := s.do(http.MethodGet, "/api/v1/projects", http.Header{}, nil); answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", answer.Status, content)
	}
	request := &service.CreateUploadLocationRequest{Project: "flytesnacks", Domain: "development", Filename: "x", ContentMd5: make([]byte, 16)}
	conn, err := grpc.NewClient(s.Address, grpc.WithTransportCredentials(insecureCredentials), grpc.WithAuthority("evil.example"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := service.NewDataProxyServiceClient(conn).CreateUploadLocation(t.Context(), request)
	_, port, _ := net.SplitHostPort(s.Address)
	if err != nil || strings.Contains(got.GetSignedUrl(), "evil") || !strings.Contains(got.GetSignedUrl(), ":"+port+"/blob/") {
		t.Errorf("gRPC with another authority: %v, %v, want a link to the address that answered", got.GetSignedUrl(), err)
	}
	body := []byte(`{"project": "flytesnacks", "domain": "development", "filename": "x", "content_md5": "AAAAAAAAAAAAAAAAAAAAAA=="}`)
	for _, path := range []string{"/api/v1/dataproxy/artifact_urn", "/flyteidl.service.DataProxyService/CreateUploadLocation"} {
		answer, content := s.doAs("evil.example", http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, body)
		if answer.StatusCode == http.StatusOK || !strings.Contains(string(content), "hosts") || strings.Contains(string(content), "/blob/") {
			t.Errorf("%s with another Host: %s %s, want a refusal that names the setting", path, answer.Status, content)
		}
	}
}

func TestAnUploadGoesWhereTheClientReachedUsAndIsNamedByContent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	content := []byte("print('hello')\n")
	sum := md5.Sum(content)
	request := &service.CreateUploadLocationRequest{Project: "flytesnacks", Domain: "development", Filename: "fast.tar.gz", ContentMd5: sum[:], AddContentMd5Metadata: true}
	first, err := s.proxy.CreateUploadLocation(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first.GetSignedUrl(), "http://"+s.Address+"/") {
		t.Errorf("the link is %s, want one at %s", first.GetSignedUrl(), s.Address)
	}
	header := http.Header{}
	for k, v := range first.GetHeaders() {
		header.Set(k, v)
	}
	for range 2 {
		if answer, text := s.do(http.MethodPut, first.GetSignedUrl(), header, content); answer.StatusCode != http.StatusOK {
			t.Fatalf("PUT: %s %s", answer.Status, text)
		}
	}
	again, err := s.proxy.CreateUploadLocation(t.Context(), request)
	if err != nil || again.GetNativeUrl() != first.GetNativeUrl() {
		t.Errorf("the same request gives %s and %s, %v, want one name", first.GetNativeUrl(), again.GetNativeUrl(), err)
	}
	if strings.Contains(first.GetNativeUrl(), s.Address) {
		t.Errorf("native_url %s contains our address", first.GetNativeUrl())
	}
	link, err := s.proxy.CreateDownloadLocation(t.Context(), &service.CreateDownloadLocationRequest{NativeUrl: first.GetNativeUrl()})
	if err != nil {
		t.Fatal(err)
	}
	if _, got := s.do(http.MethodGet, link.GetSignedUrl(), http.Header{}, nil); !bytes.Equal(got, content) {
		t.Errorf("downloaded %q, want %q", got, content)
	}

	named := proto.CloneOf(request)
	named.FilenameRoot = "root"
	location, err := s.proxy.CreateUploadLocation(t.Context(), named)
	if err != nil {
		t.Fatal(err)
	}
	s.do(http.MethodPut, location.GetSignedUrl(), header, content)
	if _, err := s.proxy.CreateUploadLocation(t.Context(), named); err != nil {
		t.Errorf("the same content at the same name: %v, want a location", err)
	}
	other := md5.Sum([]byte("other"))
	named.ContentMd5 = other[:]
	_, err = s.proxy.CreateUploadLocation(t.Context(), named)
	s.wantCode(err, connect.CodeAlreadyExists, "file already exists at location")

	_, err = s.proxy.CreateUploadLocation(t.Context(), &service.CreateUploadLocationRequest{})
	s.wantCode(err, connect.CodeInvalidArgument, "project and domain are required", "content_md5 or filename_root")
	_, err = s.proxy.CreateUploadLocation(t.Context(), &service.CreateUploadLocationRequest{Project: "flytesnacks", Domain: "development", FilenameRoot: "../../etc", Filename: "passwd"})
	s.wantCode(err, connect.CodeInvalidArgument)
}
