package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft/blob"
)

// A gate decides which requests enter the port at all, before a handler sees them. There is no login yet, so a request that
// reaches a handler may do anything, and a browser lets every page that its user opens send requests to this machine.
//
// Programs pass. They send neither Origin nor Sec-Fetch headers, and flytekit, flytectl and curl are such programs. A page
// gives itself away by these headers, which a browser sets and a page cannot:
//
//   - A page of this server passes (Sec-Fetch-Site: same-origin, or an Origin that is the host of the request).
//   - A page of an origin in the setting origins passes, and is told that it may read the answer.
//   - Any other page is refused every request, also on another port of this machine, also without an origin
//     ("null": a file, a sandboxed frame). It may only contain a link to this server: GET as a navigation of the whole tab,
//     whose answer the page cannot read, and which changes nothing.
//
// A page can also reach the server under a host name of its own that it makes resolve to this machine (DNS rebinding). By all
// these headers it is then a page of this server. So the Host of a request must be known: a name of this machine for itself, an
// address, the host of public-url, the host of the setting listen, or one in the setting hosts. Native gRPC is exempt, since no
// page can send it over HTTP/2 in cleartext, and since flytekit would take the refusal of a host (HTTP 421) for "log in".
//
// Finally, the body of a REST call must be of a type that a page cannot send without asking the server first (a preflight).
type gate struct {
	origins      []string // origins whose pages may call, in lower case; "*": all but "null"
	hosts        []string // known hosts besides localhost and addresses: lower case, without port
	publicOrigin string   // origin of public-url; empty: public-url is not set
}

func newGate(c Config) *gate {
	g := &gate{}
	for _, o := range c.Origins {
		g.origins = append(g.origins, strings.ToLower(o))
	}
	for _, h := range c.Hosts {
		g.hosts = append(g.hosts, hostName(h))
	}
	if u, err := url.Parse(c.PublicURL); err == nil && u.Host != "" {
		g.hosts = append(g.hosts, hostName(u.Host))
		g.publicOrigin = strings.ToLower(u.Scheme + "://" + u.Host)
	}
	return g
}

// entry is the part of a request that a gate looks at.
type entry struct {
	method, path     string
	host             string // Host, or :authority
	origin           string // Origin
	site, mode, dest string // Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest
	requestedMethod  string // Access-Control-Request-Method; empty: the request is no preflight
	format           format
	http2            bool
	body             bool // the request has a body
}

func entryOf(r *http.Request) entry {
	h := r.Header
	return entry{
		method: r.Method, path: r.URL.Path, host: r.Host, origin: h.Get("Origin"),
		site: h.Get("Sec-Fetch-Site"), mode: h.Get("Sec-Fetch-Mode"), dest: h.Get("Sec-Fetch-Dest"),
		requestedMethod: h.Get("Access-Control-Request-Method"),
		format:          formatOf(r), http2: r.ProtoMajor == 2, body: r.ContentLength != 0,
	}
}

// verdict is the decision of a gate about a request.
type verdict struct {
	refusal   *refusal // nil: the request may enter
	knownHost bool     // links in the answer may begin with the request's host
	reader    string   // value of Access-Control-Allow-Origin; empty: no page of another origin may read the answer
	preflight bool     // the request is a preflight of a page that may call: it is answered here, with yes
}

// refusal says why a request may not enter.
type refusal struct {
	status int
	code   connect.Code
	reason string
}

// decide depends on the gate's settings and the entry alone.
func (g *gate) decide(e entry) verdict {
	v := verdict{knownHost: g.knows(e.host)}
	foreign := g.foreign(e)
	switch {
	case !v.knownHost && !e.nativeGRPC():
		v.refusal = &refusal{http.StatusMisdirectedRequest, connect.CodePermissionDenied, fmt.Sprintf(
			"%+q is not known as a name of this server, and a page elsewhere could have given it that name; if it is right, add it to the setting hosts (--hosts %s) or set public-url", e.host, printable(hostName(e.host)))}
	case foreign && g.allows(e.origin):
		v.reader = e.origin
		if slices.Contains(g.origins, anyOrigin) {
			v.reader = anyOrigin
		}
		v.preflight = e.method == http.MethodOptions && e.requestedMethod != ""
	case foreign && !e.link():
		v.refusal = &refusal{http.StatusForbidden, connect.CodePermissionDenied, foreignReason(e.origin)}
	}
	if v.refusal == nil && !v.preflight && isREST(e.path) && e.body && e.method != http.MethodGet && e.method != http.MethodHead {
		v.refusal = bodyRefusal(e.format)
	}
	return v
}

// anyOrigin stands for every origin in the setting origins.
const anyOrigin = "*"

// allows says whether pages of an origin may call by the setting origins. The origin "null" is never allowed, since it stands
// for all pages without an origin. Requests without the header, such as those of images, are allowed where any page may call.
func (g *gate) allows(origin string) bool {
	return origin != "null" && slices.Contains(g.origins, anyOrigin) || origin != "" && slices.Contains(g.origins, strings.ToLower(origin))
}

// foreign says whether a page of another origin sent the request. Browsers say so in Sec-Fetch-Site, except older browsers and all
// browsers that call another machine without TLS. Then the Origin header decides, which browsers send with all but safe methods.
func (g *gate) foreign(e entry) bool {
	switch e.site {
	case "same-origin":
		return false
	case "", "none": // none: the user asked for it, by the address bar or a bookmark
		return e.origin != "" && !g.ours(e.origin, e.host)
	default:
		return true
	}
}

// ours says whether an origin is that of a page of this server: the host of the request, or public-url.
func (g *gate) ours(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && (strings.EqualFold(u.Host, host) || strings.ToLower(origin) == g.publicOrigin)
}

// knows says whether a host is known as a name of this server.
func (g *gate) knows(host string) bool {
	name := hostName(host)
	if name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") || slices.Contains(g.hosts, name) {
		return true // a request without a host is HTTP/1.0, which no browser speaks
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// hostName is a host without port, brackets and final dot, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// nativeGRPC says whether a gRPC client sent the request: a page cannot.
func (e entry) nativeGRPC() bool {
	return e.http2 && e.format.nativeGRPC() && e.origin == "" && e.site == "" && e.mode == ""
}

// link says whether the user followed a link, as a navigation of a whole tab. Prefetching a link looks the same.
func (e entry) link() bool {
	return (e.method == http.MethodGet || e.method == http.MethodHead) && e.origin == "" && e.mode == "navigate" && e.dest == "document"
}

func foreignReason(origin string) string {
	switch origin {
	case "":
		return "a page of another site may link to this server, but not call it; the setting origins (--origins) names the pages that may, and pages must ask in a mode that tells their origin (cors)"
	case "null":
		return "a page without an origin, such as a file or a sandboxed frame, may not call this server; serve it from an address that the setting origins (--origins) can name"
	default:
		return fmt.Sprintf("a page of %+q may not call this server; if it shall, add it to the setting origins (--origins %s)", origin, printable(origin))
	}
}

// bodyRefusal refuses a body of a type that a browser sends for any page without a preflight, and of a type that no client of the
// REST API sends.
func bodyRefusal(said format) *refusal {
	switch said {
	case "application/json", "application/octet-stream":
		return nil
	case "":
		return &refusal{http.StatusUnsupportedMediaType, connect.CodeInvalidArgument, "the body has no Content-Type; send Content-Type: application/json, or application/octet-stream for binary protobuf"}
	}
	return &refusal{http.StatusUnsupportedMediaType, connect.CodeInvalidArgument, fmt.Sprintf(
		"a body of type %+q is not taken; send Content-Type: application/json, or application/octet-stream for binary protobuf", fit(string(said), 200))}
}

// printable removes the characters that could not be pasted into a command line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && !strings.ContainsRune("\"'`\\$;&|<>()", r) {
			return r
		}
		return -1
	}, text)
}

// withGate puts the gate before next: it refuses requests or passes them on with their caller, and sets the headers that
// browsers read.
func (a *API) withGate(next http.Handler) http.Handler {
	g := newGate(a.Config)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		unread := canonical(r)
		e := entryOf(r)
		v := g.decide(e)
		if v.refusal == nil {
			v.refusal = unread
		}
		h := w.Header()
		if e.origin != "" {
			h.Add("Vary", "Origin")
		}
		if !e.nativeGRPC() {
			h.Set("X-Content-Type-Options", "nosniff")
			if v.reader == "" && !strings.HasPrefix(e.path, blob.LinkPath) {
				// For browsers without Sec-Fetch headers: pages of other origins cannot embed the answer, either.
				h.Set("Cross-Origin-Resource-Policy", "same-origin")
			}
		}
		if v.reader != "" {
			h.Set("Access-Control-Allow-Origin", v.reader)
			h.Set("Access-Control-Expose-Headers", "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, ETag, Content-Length, Content-Range")
			if v.reader != anyOrigin {
				h.Set("Access-Control-Allow-Credentials", "true")
			}
		}
		switch {
		case v.refusal != nil:
			a.Logger.DebugContext(r.Context(), "refused a request", "method", e.method, "path", e.path, "host", e.host, "origin", e.origin, "reason", v.refusal.reason)
			refuse(w, r, v.refusal.status, connect.NewError(v.refusal.code, errors.New(v.refusal.reason)))
		case v.preflight:
			h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, HEAD")
			h.Set("Access-Control-Allow-Headers", "Content-Type, Content-MD5, Range, flyte-authorization, X-Grpc-Web, X-User-Agent, Grpc-Timeout, Connect-Protocol-Version, Connect-Timeout-Ms")
			h.Set("Access-Control-Max-Age", "600") // seconds; short, because an origin may be taken out of the setting
			if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
				h.Set("Access-Control-Allow-Private-Network", "true")
			}
			w.WriteHeader(http.StatusNoContent)
		default:
			next.ServeHTTP(w, a.withCaller(r, v.knownHost))
		}
	})
}
