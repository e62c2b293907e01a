package api

import (
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/literal"
)

const (
	// linkLife is how long links to inputs and outputs can be opened. A notebook keeps values for a day.
	linkLife = 24 * time.Hour

	// maxInlineLinked is up to where literals with locations of ours are inline although they are large: the object itself
	// has the locations in their stored form, which no client can open. flytekit takes messages up to 20 MiB.
	maxInlineLinked = 16 << 20

	// literalTimes is how much larger literals are once they are read, with the bytes that they are read from.
	literalTimes = 8
)

// inline gives a literal map as an answer holds it: in full, or, above the limit, a link to it. Both are always there,
// possibly empty. Locations in it are such that the caller can open them.
func (a *API) inline(ctx context.Context, kept *aloftv1.Literals) (*core.LiteralMap, *admin.UrlBlob, error) {
	size := kept.GetRef().GetSize()
	if size == 0 {
		size = int64(proto.Size(kept.GetValue()))
	}
	tooLarge := size > aloft.MaxInlineData
	if tooLarge && size > maxInlineLinked {
		return a.linked(ctx, kept)
	}
	m, err := a.literals(ctx, kept)
	if err != nil {
		return nil, nil, err
	}
	if tooLarge && kept.GetRef().GetUri() != "" && !mentions(m) {
		return a.linked(ctx, kept)
	}
	a.render(ctx, m)
	return m, &admin.UrlBlob{}, nil
}

func (a *API) linked(ctx context.Context, kept *aloftv1.Literals) (*core.LiteralMap, *admin.UrlBlob, error) {
	url, err := a.Renderer.Link(kept.GetRef().GetUri(), callerOf(ctx).base, a.Now().Add(linkLife))
	if err != nil {
		return nil, nil, err
	}
	return &core.LiteralMap{}, &admin.UrlBlob{Url: url, Bytes: kept.GetRef().GetSize()}, nil
}

// literals reads a literal map, from the record or the object it is in. The caller may change it.
func (a *API) literals(ctx context.Context, kept *aloftv1.Literals) (*core.LiteralMap, error) {
	if kept.GetRef().GetUri() == "" {
		if kept.GetValue() == nil {
			return &core.LiteralMap{}, nil
		}
		return kept.GetValue(), nil
	}
	if err := room.Take(ctx, literalTimes*kept.GetRef().GetSize()); err != nil {
		return nil, err
	}
	return a.Literals.ReadLiterals(ctx, kept.GetRef())
}

// mentions says whether a location in m is ours.
func mentions(m *core.LiteralMap) bool {
	found := false
	_ = literal.RewriteURIs(m, func(uri string) (string, error) { // what cannot be read has no location that could be opened
		found = found || strings.HasPrefix(uri, blob.Scheme)
		return uri, nil
	})
	return found
}

// render makes our locations in m such that the caller can open them, in place.
func (a *API) render(ctx context.Context, m *core.LiteralMap) {
	base, expires := callerOf(ctx).base, a.Now().Add(linkLife)
	local := a.LocalPaths && callerOf(ctx).local
	err := literal.RewriteURIs(m, func(uri string) (string, error) { return a.renderURI(uri, base, expires, local) })
	if err != nil {
		a.Logger.WarnContext(ctx, "a value in an answer could not be read, locations in it are as they were stored", "error", err)
	}
}

// renderURI gives a signed link, or a path where only that works: flytekit cannot download a folder by link, nor read an
// Arrow table, but it can where client and server share their disk.
func (a *API) renderURI(uri, base string, expires time.Time, local bool) (string, error) {
	if local && strings.HasPrefix(uri, blob.Scheme) {
		path, err := a.Renderer.Path(uri)
		if err != nil {
			return "", err
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return path, nil
		}
	}
	return a.Renderer.Link(uri, base, expires)
}

// isLocal says whether the request comes from this machine.
func isLocal(r *http.Request) bool {
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return false // from a proxy on this machine
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	if err != nil || ip == nil {
		return false
	}
	return ip.IsLoopback()
}

// flyteURL is a location of inputs ("i"), outputs ("o") or the deck ("d") of a node, or of one of its attempts, that
// GetData answers for: without host and port, so that it may be kept.
func flyteURL(id aloft.ExecutionID, node string, attempt *uint32, what string) string {
	url := "flyte://v1/" + id.String() + "/" + node + "/"
	if attempt != nil {
		url += strconv.FormatUint(uint64(*attempt), 10) + "/"
	}
	return url + what
}
