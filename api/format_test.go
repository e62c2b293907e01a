package api

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/internal/weight/weighttest"
)

// whole is a server with gate, intake and all handlers, over HTTP/2.
func whole(t *testing.T) *intakeServer {
	t.Helper()
	pool := room.NewPool(DefaultRoom)
	runs := func(options ...connect.HandlerOption) (string, string, http.Handler) {
		path, handler := aloftv1connect.NewRunServiceHandler(aloftv1connect.UnimplementedRunServiceHandler{}, options...)
		return aloftv1connect.RunServiceName, path, handler
	}
	a, err := New(Config{Logger: slog.New(slog.DiscardHandler), Room: pool, Services: []func(...connect.HandlerOption) (string, string, http.Handler){runs}})
	if err != nil {
		t.Fatal(err)
	}
	s := &intakeServer{Server: httptest.NewUnstartedServer(a.Handler()), pool: pool}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// The library that decodes a body reads it in the format in which the intake weighed it, for each way to state a format, or the
// request is refused.
func TestAMessageIsWeighedAsItIsDecoded(t *testing.T) {
	t.Parallel()
	s := whole(t)
	const rest, watch = "/api/v1/executions", "/aloft.v1.RunService/WatchExecution"
	literals := gzipped(t, weighttest.Within(5, weighttest.LiteralMap("x", 2_500_000)))
	objects := []byte(`{"spec": {"x": [` + strings.Repeat("{},", 1_400_000) + `{}]}}`)
	bomb := gzipped(t, append([]byte{0x3a, 0x80, 0x80, 0x80, 0x1d}, make([]byte, 58<<20)...))
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
		}
		return h
	}
	for name, c := range map[string]struct {
		path   string
		header http.Header
		body   []byte
		want   string
	}{
		"gRPC":                               {createPath, header("Content-Type", "application/grpc+proto", "Grpc-Encoding", "gzip"), frame(1, literals), "256 MiB"},
		"gRPC in capitals":                   {createPath, header("Content-Type", "Application/GRPC+proto", "Grpc-Encoding", "gzip"), frame(1, literals), "256 MiB"},
		"gRPC with a parameter":              {createPath, header("Content-Type", "application/grpc; x=json", "Grpc-Encoding", "gzip"), frame(1, literals), "256 MiB"},
		"gRPC-Web in capitals":               {createPath, header("Content-Type", "application/grpc-WEB", "Grpc-Encoding", "gzip"), frame(1, literals), "256 MiB"},
		"JSON in capitals":                   {createPath, header("Content-Type", "application/JSON"), objects, "256 MiB"},
		"JSON with a charset":                {createPath, header("Content-Type", "application/json;Charset=UTF-8"), objects, "256 MiB"},
		"JSON behind a space":                {createPath, header("Content-Type", " application/json"), objects, "256 MiB"},
		"REST in capitals":                   {rest, header("Content-Type", "Application/Json"), objects, "256 MiB"},
		"REST, binary, with a bad parameter": {rest, header("Content-Type", "application/octet-stream; ="), objects, "415"},
		"REST, binary by its first letters":  {rest, header("Content-Type", "application/octet-streams"), objects, "415"},
		"REST of two types":                  {rest, header("Content-Type", "application/octet-stream", "Content-Type", "application/json"), objects, "415"},
		"a call of two types":                {createPath, header("Content-Type", "application/json", "Content-Type", "application/proto"), objects, "one"},
		"a call of two encodings":            {createPath, header("Content-Type", "application/proto", "Content-Encoding", "identity", "Content-Encoding", "gzip"), literals, "one"},
		"a stream of Connect":                {watch, header("Content-Type", "application/connect+proto", "Connect-Content-Encoding", "gzip"), frame(1, bomb), "100"},
		"a stream of Connect with gRPC's encoding": {watch, header("Content-Type", "application/connect+proto", "Grpc-Encoding", "identity", "Connect-Content-Encoding", "gzip"),
			frame(1, bomb), "100"},
		"gRPC with Connect's encoding": {createPath, header("Content-Type", "application/grpc", "Grpc-Encoding", "gzip", "Connect-Content-Encoding", "identity"), frame(1, literals), "256 MiB"},
	} {
		got := strings.ReplaceAll(s.post(t, c.path, c.header, c.body), "%20", " ")
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %.300s, want %s", name, got, c.want)
		}
	}
	if taken := s.pool.Taken(); taken != 0 {
		t.Errorf("%d bytes of room are taken when all is answered", taken)
	}
}

// The intake cannot weigh the messages that a client streams: each of them has a small limit, and all of them together have one.
func TestStreamsOfClientsAreLimited(t *testing.T) {
	t.Parallel()
	s := whole(t)
	long := append([]byte{0x0a, 0x80, 0x80, 0x80, 0x20}, make([]byte, 64<<20)...)
	question := []byte{0x3a, 0} // which services are there?
	for _, service := range []string{"/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"} {
		zipped := http.Header{"Content-Type": {"application/grpc+proto"}, "Grpc-Encoding": {"gzip"}, "Te": {"trailers"}}
		if got := s.post(t, service+"ServerReflectionInfo", zipped, frame(1, gzipped(t, long))); !strings.Contains(got, "grpc-status: 8") {
			t.Errorf("%s: a message that is 64 MiB when it is decompressed: %.200s, want RESOURCE_EXHAUSTED", service, got)
		}
		plain := http.Header{"Content-Type": {"application/grpc+proto"}, "Te": {"trailers"}}
		many := bytes.Repeat(frame(0, append([]byte{0x1a, 0x80, 0x78}, make([]byte, 15<<10)...)), streamedBytes>>10/15+1)
		if got := s.post(t, service+"ServerReflectionInfo", plain, many); !strings.Contains(got, "grpc-status: 8") {
			t.Errorf("%s: %d bytes of messages: %.200s, want RESOURCE_EXHAUSTED", service, len(many), got)
		}
		if got := s.post(t, service+"ServerReflectionInfo", plain, frame(0, question)); !strings.Contains(got, "grpc-status: 0") {
			t.Errorf("%s: a short question: %.200s, want an answer", service, got)
		}
	}
}
