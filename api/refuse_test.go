package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
)

// TestARESTPathIsOneForAll: /meX was a REST path for the intake, and none for the gate and the handlers.
func TestARESTPathIsOneForAll(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	for _, path := range restPaths {
		mux.Handle(path, http.NotFoundHandler())
	}
	for _, path := range []string{"/", "/me", "/meX", "/me/x", "/api/v1/", "/api/v1/version", "/api/v1x", "/api/v2/version", "/.well-known/x", "/.well-knownx", "/config/v1/flyte_client", "/config/v2/x"} {
		_, pattern := mux.Handler(httptest.NewRequest(http.MethodGet, path, nil))
		if got, want := isREST(path), pattern != ""; got != want {
			t.Errorf("%s is REST: %v, and the handlers say %v", path, got, want)
		}
	}
}

// TestARefusalIsInTheProtocolOfTheCaller: gate, intake and unknownCalls each wrote refusals in their own way.
func TestARefusalIsInTheProtocolOfTheCaller(t *testing.T) {
	t.Parallel()
	const call = "/flyteidl.service.AdminService/CreateExecution"
	for _, test := range []struct {
		method, path, kind string
		want               []string
	}{
		{"POST", "/api/v1/executions", "application/json", []string{"429", `"code":8`, `"message":"why"`, `"details":[]`}},
		{"GET", "/me", "", []string{"429", `"code":8`}},
		{"POST", "/meX", "text/plain", []string{"429", "text/plain", "why"}},
		{"POST", call, "application/json", []string{"429", `"code":"resource_exhausted"`, `"message":"why"`}},
		{"POST", call, "application/grpc+proto", []string{"200", "status=8", "message=why"}},
		{"POST", call, "application/grpc+thrift", []string{"200", "status=8", "message=why"}},
		{"GET", call + "?connect=v1&encoding=json", "", []string{"429", "resource_exhausted"}},
		{"GET", "/console/", "", []string{"429", "text/plain", "why"}},
	} {
		r := httptest.NewRequest(test.method, test.path, nil)
		r.Header.Set("Content-Type", test.kind)
		w := httptest.NewRecorder()
		refuse(w, r, 0, connect.NewError(connect.CodeResourceExhausted, errors.New("why")))
		h := w.Result().Header
		got := fmt.Sprintf("%d %s status=%s%s message=%s%s %s", w.Code, h.Get("Content-Type"), h.Get("Grpc-Status"), w.Result().Trailer.Get("Grpc-Status"),
			h.Get("Grpc-Message"), w.Result().Trailer.Get("Grpc-Message"), strings.ReplaceAll(w.Body.String(), `": `, `":`))
		for _, want := range test.want {
			if !strings.Contains(strings.ReplaceAll(got, ", ", ","), want) {
				t.Errorf("%s %s as %q: %s, want %s", test.method, test.path, test.kind, got, want)
			}
		}
	}
}
