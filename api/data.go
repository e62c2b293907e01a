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

	// maxInlineLinked bounds literals that are above aloft.MaxInlineData and still inline, because they have aloft:// locations:
	// in the stored object those are in canonical form, which no client can open. flytekit takes messages up to 20 MiB.
	maxInlineLinked = 16 << 20

	// literalTimes estimates the room that reading literals needs: their encoded size, times this, for the bytes and the message.
	literalTimes = 8
)

// inline gives a literal map for an answer: in full, with locations that the client can open, or, above the limit, as a link to
// the stored object. Neither return value is nil; one of them is empty.
func (a *API) inline(ctx context.Context, kept *aloftv1.Literals) (*core.LiteralMap, *admin.UrlBlob, error) {
	size := kept.GetRef().GetSize()
	if size == 0 {
		size = int64(proto.Size(kept.GetValue()))
	}
	tooLarge := size > aloft.MaxInlineData
	if tooLarge && size > maxInlineLinked {
		return a.linkTo(ctx, kept)
	}
	m, err := a.literals(ctx, kept)
	if err != nil {
		return nil, nil, err
	}
	if tooLarge && kept.GetRef().GetUri() != "" && !hasOwnLocation(m) {
		return a.linkTo(ctx, kept)
	}
	a.render(ctx, m)
	return m, &admin.UrlBlob{}, nil
}

func (a *API) linkTo(ctx context.Context, kept *aloftv1.Literals) (*core.LiteralMap, *admin.UrlBlob, error) {
	url, err := a.Renderer.Link(kept.GetRef().GetUri(), callerOf(ctx).base, a.Now().Add(linkLife))
	if err != nil {
		return nil, nil, err
	}
	return &core.LiteralMap{}, &admin.UrlBlob{Url: url, Bytes: kept.GetRef().GetSize()}, nil
}

// literals reads a literal map from its record, or from the object to which the record refers. The map may be changed.
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

// hasOwnLocation says whether a location in m is an aloft:// URI.
func hasOwnLocation(m *core.LiteralMap) bool {
	found := false
	_ = literal.RewriteURIs(m, func(uri string) (string, error) { // a value that cannot be decoded has no location that a client could open
		found = found || strings.HasPrefix(uri, blob.Scheme)
		return uri, nil
	})
	return found
}

// render replaces the aloft:// locations in m by locations that the client can open.
func (a *API) render(ctx context.Context, m *core.LiteralMap) {
	base, expires := callerOf(ctx).base, a.Now().Add(linkLife)
	local := a.LocalPaths && callerOf(ctx).local
	err := literal.RewriteURIs(m, func(uri string) (string, error) { return a.renderURI(uri, base, expires, local) })
	if err != nil {
		a.Logger.WarnContext(ctx, "a value in an answer could not be read, locations in it are as they were stored", "error", err)
	}
}

// renderURI gives a signed link, or, to a local client, the path of a folder: flytekit can neither download a folder nor read an
// Arrow table by a link, but it can by a path where client and server share a disk.
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

// isLocal says whether the client of a request runs on this machine.
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

// flyteURL is a location that GetData understands: of the inputs ("i"), the outputs ("o") or the deck ("d") of a node, or of one
// of its attempts. It has no host and no port, so that clients may keep it.
func flyteURL(id aloft.ExecutionID, node string, attempt *uint32, what string) string {
	url := "flyte://v1/" + id.String() + "/" + node + "/"
	if attempt != nil {
		url += strconv.FormatUint(uint64(*attempt), 10) + "/"
	}
	return url + what
}
