package api

import (
	"context"
	"net"
	"net/http"
	"strings"
)

// caller is what handlers know about the client of a request besides its message.
type caller struct {
	base       string // URL under which the client reaches the server, without a trailing slash: links in answers begin with it
	userAgent  string
	local      bool        // the client runs on this machine
	statusRoom int         // bytes that the status of an answer may take in its headers; 0: maxStatusBytes
	connection *connection // nil where the server was started without ConnContext
}

type callerKey struct{}

// callerOf returns the zero caller outside of a request.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// withCaller puts the caller into the context of a request. Without public-url, links begin with the host that the client used,
// because the client can reach the server by it. A host that the gate does not know may belong to another server: then links
// begin with the address of the connection.
func (a *API) withCaller(r *http.Request, knownHost bool) *http.Request {
	c := caller{base: a.PublicURL, userAgent: r.UserAgent(), local: isLocal(r), statusRoom: statusRoom(r)}
	c.connection, _ = r.Context().Value(connectionKey{}).(*connection)
	if c.base == "" {
		scheme := "http"
		if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
			scheme = "https"
		}
		host := r.Host
		if host == "" || !knownHost {
			host = localAddress(r.Context())
		}
		c.base = scheme + "://" + host
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

func localAddress(ctx context.Context) string {
	if addr, ok := ctx.Value(http.LocalAddrContextKey).(net.Addr); ok {
		return addr.String()
	}
	return "localhost"
}
