package api

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/aloft-dev/aloft"
)

// errorWriter writes errors for clients of gRPC, gRPC-Web and Connect.
var errorWriter = connect.NewErrorWriter()

// refuse answers a request that reaches no handler with an error in the protocol of its client, so that the client finds the reason
// where it looks for one. status is the HTTP status for REST and for requests that are no call; 0: the one that goes with the code.
func refuse(w http.ResponseWriter, r *http.Request, status int, failure *connect.Error) {
	if status == 0 {
		status = runtime.HTTPStatusFromCode(codes.Code(failure.Code()))
	}
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case isREST(r.URL.Path):
		writeRESTError(w, status, failure)
	case (r.Method == http.MethodPost || r.URL.Query().Has("connect")) && errorWriter.IsSupported(r): // IsSupported alone is true of every GET
		_ = errorWriter.Write(w, r, failure) // it fails only if the client is gone
	case formatOf(r).grpc():
		writeGRPCStatus(w, formatOf(r), failure)
	default:
		http.Error(w, failure.Message(), status)
	}
}

// writeRESTError writes an error as the gateway does.
func writeRESTError(w http.ResponseWriter, status int, failure *connect.Error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(grpcStatus(failure).Proto())
	if err != nil {
		text = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// writeGRPCStatus answers a gRPC call whose codec the server does not have. Without a message the status is in the header, for
// gRPC-Web, too.
func writeGRPCStatus(w http.ResponseWriter, said format, failure *connect.Error) {
	w.Header().Set("Content-Type", string(said))
	w.Header().Set("Grpc-Status", strconv.Itoa(int(failure.Code())))
	w.Header().Set("Grpc-Message", fit(failure.Message(), 1024))
	w.WriteHeader(http.StatusOK)
}

// unknownCalls serves mux, and answers gRPC calls of services that are not registered: a bare 404 would reach the client as
// UNIMPLEMENTED without the name of the call.
func unknownCalls(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		switch {
		case pattern != "":
			handler.ServeHTTP(w, r)
		case formatOf(r).grpc():
			text := strings.TrimPrefix(r.URL.EscapedPath(), "/") + ": " + aloft.ErrUnimplemented.Error()
			refuse(w, r, http.StatusNotFound, connect.NewError(connect.CodeUnimplemented, errors.New(fit(text, 1024))))
		case r.URL.Path == "/":
			http.Redirect(w, r, "/console/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
}

// restPaths are the paths of Flyte's REST, as patterns of http.ServeMux: a path that ends in a slash stands for all paths below it.
var restPaths = []string{"/api/v1/", "/me", "/.well-known/", "/config/v1/"}

func isREST(path string) bool {
	return slices.ContainsFunc(restPaths, func(p string) bool {
		return path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)
	})
}
