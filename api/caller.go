package api

import (
	"context"
	"net"
	"net/http"
	"strings"
)

// caller is what the handlers may know about the request besides its message.
type caller struct {
	base       string // URL under which the client reached us, without a trailing slash: links that we give out begin with it
	userAgent  string
	local      bool        // from this machine
	statusRoom int         // bytes that a status of an answer may take; 0: maxStatusBytes
	connection *connection // nil where the server was started without ConnContext
}

type callerKey struct{}

// callerOf returns the zero caller outside of a request.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// withCaller notes the client of a request. Links begin with the host that the client used, not with a name that the server has of itself: by
// that host the client reaches us. A host that is not known to be ours may be another's: then links begin with the address that we answer at.
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
