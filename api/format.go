package api

import (
	"fmt"
	"mime"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft/blob"
)

// format is how the body of a request is written, as its Content-Type says. The gate brings this header into one form
// (canonical), so that the intake and the libraries that decode the body read the same format in it. Otherwise the intake could
// weigh a body in one format and the codec decode it in another one.
//
//	application/grpc, grpc-web (+proto, +json)   in envelopes; Grpc-Encoding
//	application/connect+proto, +json             in envelopes; Connect-Content-Encoding
//	application/proto, json                      a Connect call's message; Content-Encoding
//	application/json, octet-stream               a REST call's message; never compressed
type format string // in lower case, without parameters; empty: the request has no Content-Type

func formatOf(r *http.Request) format {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return format(strings.TrimSpace(kind))
}

// grpc says whether a gRPC or a gRPC-Web client sent the body.
func (f format) grpc() bool { return strings.HasPrefix(string(f), "application/grpc") }

// nativeGRPC says whether a gRPC client sent the body, and no gRPC-Web client.
func (f format) nativeGRPC() bool {
	return f == "application/grpc" || strings.HasPrefix(string(f), "application/grpc+")
}

func (f format) enveloped() bool {
	return f.grpc() || strings.HasPrefix(string(f), "application/connect+")
}

func (f format) json() bool {
	return strings.HasSuffix(string(f), "/json") || strings.HasSuffix(string(f), "+json")
}

func (f format) binary() bool { return f == "application/octet-stream" }

// encoding is the compression of messages in envelopes.
func (f format) encoding(h http.Header) string {
	if f.grpc() {
		return h.Get("Grpc-Encoding")
	}
	return h.Get("Connect-Content-Encoding")
}

// singleHeaders are the headers that say how a body is read: a request may have each of them once.
var singleHeaders = []string{"Content-Type", "Content-Encoding", "Grpc-Encoding", "Connect-Content-Encoding"}

// canonical brings the Content-Type of a call into lower case, without spaces. It refuses a request whose headers can be understood
// in two ways. Uploads of files are exempt: they may be of any type.
func canonical(r *http.Request) *refusal {
	if strings.HasPrefix(r.URL.Path, blob.LinkPath) {
		return nil
	}
	wrong := func(text string, args ...any) *refusal {
		return &refusal{http.StatusUnsupportedMediaType, connect.CodeInvalidArgument, fmt.Sprintf(text, args...)}
	}
	for _, name := range singleHeaders {
		if n := len(r.Header.Values(name)); n > 1 {
			return wrong("the request has %d headers %s; send one", n, name)
		}
	}
	said := r.Header.Get("Content-Type")
	if said == "" {
		return nil
	}
	kind, parameters, err := mime.ParseMediaType(said)
	if err == nil {
		kind = mime.FormatMediaType(kind, parameters)
	}
	if err != nil || kind == "" {
		return wrong("Content-Type %+q cannot be read; send one such as application/json or application/grpc", fit(said, 200))
	}
	r.Header.Set("Content-Type", kind)
	return nil
}
