package blob

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/aloft-dev/aloft"
)

// Key names an object: slash-separated segments without a leading or trailing slash. Any UTF-8 text without NUL may be a
// segment, because tasks choose the names of their files; "%", "?", "#" and space are ordinary characters. Names that no
// file system or object store can keep are refused: empty segments, "." and "..", segments above 255 bytes, keys above 1,024.
// A first segment with a leading dot is reserved for the backend.
type Key string

const (
	MaxKey     = 1024 // bytes; what S3 allows
	maxSegment = 255  // bytes; what file systems allow

	// Scheme begins every canonical URI. The key follows, byte for byte and not percent-encoded: so the URI of an object and
	// the path of its file end alike, and a name may be joined to either.
	Scheme = "aloft://blob/"

	// nativeScheme is an alias of Scheme for clients that must recognise the protocol: see Renderer.Native.
	nativeScheme = "memory://aloft/"
)

// ParseKey checks s. The error wraps aloft.ErrInvalid and names what is wrong.
func ParseKey(s string) (Key, error) {
	if problem := keyProblem(s); problem != "" {
		return "", fmt.Errorf("%w: object key %q: %s", aloft.ErrInvalid, aloft.Excerpt(s), problem)
	}
	return Key(s), nil
}

// ParseURI takes the key out of a canonical URI.
func ParseURI(uri string) (Key, error) {
	rest, ok := strings.CutPrefix(uri, Scheme)
	if !ok {
		return "", fmt.Errorf("%w: object URI %q: it does not begin with %s", aloft.ErrInvalid, aloft.Excerpt(uri), Scheme)
	}
	return ParseKey(rest)
}

// JoinKey makes a key of segments; a segment may itself contain slashes. It is for names we generate and for text that
// a client sent alike: every result is checked.
func JoinKey(segments ...string) (Key, error) { return ParseKey(strings.Join(segments, "/")) }

// URI returns the canonical URI.
func (k Key) URI() string { return Scheme + string(k) }

// Join returns a key below k.
func (k Key) Join(segments ...string) (Key, error) {
	if k == "" {
		return JoinKey(segments...)
	}
	return JoinKey(append([]string{string(k)}, segments...)...)
}

// Base returns the last segment.
func (k Key) Base() string { return string(k[strings.LastIndexByte(string(k), '/')+1:]) }

// Within says whether k is prefix or below it.
func (k Key) Within(prefix Key) bool {
	return prefix == "" || k == prefix || (len(k) > len(prefix) && k[len(prefix)] == '/' && k[:len(prefix)] == prefix)
}

// below is the path of k within the folder dir; k itself if k is not below dir.
func (k Key) below(dir Key) string {
	if len(k) > len(dir) && k[len(dir)] == '/' && k[:len(dir)] == dir {
		return string(k[len(dir)+1:])
	}
	return string(k)
}

// compare orders keys by their segments, as List does.
func (k Key) compare(other Key) int {
	for i := range min(len(k), len(other)) {
		a, b := k[i], other[i]
		switch {
		case a == b:
		case a == '/':
			return -1
		case b == '/':
			return 1
		default:
			return int(a) - int(b)
		}
	}
	return len(k) - len(other)
}

// keyProblem says why a text is no key; empty: it is one.
func keyProblem(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case len(s) > MaxKey:
		return fmt.Sprintf("it has %d bytes, the limit is %d", len(s), MaxKey)
	case strings.IndexByte(s, 0) >= 0:
		return "it contains a NUL byte"
	case !utf8.ValidString(s):
		return "it is not valid UTF-8"
	case s[0] == '.':
		return "it begins with a dot"
	}
	for segment := range strings.SplitSeq(s, "/") {
		switch {
		case segment == "":
			return "it has an empty segment (two slashes in a row, or one at the beginning or end)"
		case segment == "." || segment == "..":
			return fmt.Sprintf("it has a segment %q", segment)
		case len(segment) > maxSegment:
			return fmt.Sprintf("a segment has %d bytes, the limit is %d", len(segment), maxSegment)
		}
	}
	return ""
}
