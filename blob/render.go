package blob

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// Renderer turns the URIs of literals between their canonical form and the forms that are used outside. Each method maps
// one URI and fits as the function of a walk over a literal. A URI that is not ours is returned as it is; only a URI that
// claims to be ours and is malformed is an error (aloft.ErrInvalid).
//
// The outside forms are:
//
//	aloft://blob/<key>                     canonical: in the store, the journal, digests
//	/<data folder>/blob/<key>, file://…    a task on this machine, or a client on it
//	http://<host>/blob/<token>/<key>       a client: a signed link
//	memory://aloft/<key>                   the native_url of an upload of data, see Native
type Renderer struct {
	Local  Local   // nil: no paths on this machine
	Signer *Signer // nil: no links
}

// Path renders a canonical URI as a path on this machine.
func (r *Renderer) Path(uri string) (string, error) {
	key, ours, err := KeyOfURI(uri)
	if err != nil || !ours || r.Local == nil {
		return uri, err
	}
	return r.Local.Path(key), nil
}

// Link renders a canonical URI as a link to read it, at a base URL that the client can reach, until expires.
func (r *Renderer) Link(uri, baseURL string, expires time.Time) (string, error) {
	key, ours, err := KeyOfURI(uri)
	if err != nil || !ours || r.Signer == nil {
		return uri, err
	}
	return strings.TrimSuffix(baseURL, "/") + r.Signer.Path(Grant{Method: http.MethodGet, Key: key, Expires: expires}), nil
}

// Native renders a canonical URI as the native_url that CreateUploadLocation answers for data (a request with a
// filename_root; code may have the canonical one). A native URL is location-free, too, but names a protocol that the client's fsspec
// knows without any configuration: after the upload of a folder, FlyteFS.extract_common asks fsspec for the class of the
// native URLs' file system, which raises for an unknown protocol such as ours. The protocol cannot be "flyte":
// modify_literal_uris looks such URLs up in a table of the client's and puts None in the place of one that it does not find.
func (r *Renderer) Native(uri string) (string, error) {
	key, ours, err := KeyOfURI(uri)
	if err != nil || !ours {
		return uri, err
	}
	return nativeScheme + string(key), nil
}

// Canonical renders any form back. A link counts as ours if this server's key signed it, with any host and port, and also if it has
// expired: here the link only names the object, and Handler checks whether the object may be read.
func (r *Renderer) Canonical(uri string) (string, error) {
	switch {
	case strings.HasPrefix(uri, Scheme), strings.HasPrefix(uri, nativeScheme):
		key, _, err := KeyOfURI(uri)
		if err != nil {
			return uri, err
		}
		return key.URI(), nil
	case strings.HasPrefix(uri, "http://"), strings.HasPrefix(uri, "https://"):
		if key, ok := r.linkKey(uri); ok {
			return key.URI(), nil
		}
	case strings.HasPrefix(uri, "file://"), strings.HasPrefix(uri, "/"):
		if r.Local == nil {
			break
		}
		path := strings.TrimPrefix(uri, "file://")
		if key, ok := r.Local.KeyOf(filepath.Clean(path)); ok && filepath.IsAbs(path) {
			return key.URI(), nil
		}
	}
	return uri, nil
}

// KeyOfURI takes the key out of a canonical or native URI. One trailing slash is allowed: that is how clients write folders.
func KeyOfURI(uri string) (key Key, ours bool, err error) {
	for _, scheme := range []string{Scheme, nativeScheme} {
		if rest, ok := strings.CutPrefix(uri, scheme); ok {
			key, err := ParseKey(strings.TrimSuffix(rest, "/"))
			if err != nil {
				return "", true, fmt.Errorf("read URI: %w", err)
			}
			return key, true, nil
		}
	}
	return "", false, nil
}

// KeyOfText takes the key out of any text; false: the text is no URI of ours.
func KeyOfText(text string) (Key, bool) {
	key, ours, err := KeyOfURI(text)
	return key, ours && err == nil
}

// linkKey takes the key out of a link. flytekit un-escapes the URI of a FlyteFile and leaves other URIs as they are, so both
// readings are tried: the signature fits one of them.
func (r *Renderer) linkKey(link string) (Key, bool) {
	if r.Signer == nil {
		return "", false
	}
	_, rest, _ := strings.Cut(link, "://")
	_, path, ok := strings.Cut(rest, LinkPath)
	if !ok {
		return "", false
	}
	token, raw, ok := strings.Cut(strings.TrimSuffix(path, "/"), "/")
	if !ok {
		return "", false
	}
	readings := []string{raw}
	if unescaped, err := url.PathUnescape(raw); err == nil && unescaped != raw {
		readings = []string{unescaped, raw}
	}
	for _, reading := range readings {
		if _, key, err := r.Signer.Open(token, reading); err == nil {
			return key, true
		}
	}
	return "", false
}
