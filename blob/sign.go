package blob

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// LinkPath is where Handler is mounted: the path of every link begins with it.
const LinkPath = "/blob/"

// Grant is what a link allows its bearer to do.
type Grant struct {
	Method  string // http.MethodGet (includes HEAD, and everything below Key) or http.MethodPut (Key only)
	Key     Key
	Expires time.Time // full seconds

	// ContentMD5, for PUT: 16 bytes that the body's MD5 must equal; nil allows any body. The client need not send a
	// header for it: flytectl ignores the headers it is told to send.
	ContentMD5 []byte
}

var (
	errSignature = errors.New("the link is not signed by this server; it was changed, or the server has a new signing key. Ask for a new link")
	errExpired   = errors.New("the link has expired. Ask for a new link")
)

// Signer makes and checks links. The signing key is the only thing that makes one server's links different from
// another's: host and port are not signed, so a link survives a change of port or a proxy in between.
type Signer struct{ key []byte }

// NewSigner signs with the given secret of at least 32 bytes.
func NewSigner(key []byte) (*Signer, error) {
	if len(key) < 32 {
		return nil, fmt.Errorf("signing key has %d bytes, it needs 32", len(key))
	}
	return &Signer{key: key}, nil
}

// OpenSigner reads the signing key from a file, which it creates (mode 0600, random) on first use. Two servers that
// create the file at once end up with the same key.
func OpenSigner(path string) (*Signer, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		// Incomplete keys are left by processes that were killed in createSigningKey. Another process may be in there just now: it
		// finds the complete key, and needs its own no more.
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), signingPrefix+"*"))
		for _, name := range left {
			_ = os.Remove(name)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := createSigningKey(path); err != nil {
			return nil, fmt.Errorf("create signing key %s: %w", path, Unavailable(err))
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", Unavailable(err))
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) < 32 {
		return nil, fmt.Errorf("read signing key %s: it is not 64 hex digits; remove the file to get a new one (links given out before will end)", path)
	}
	return NewSigner(key)
}

// signingPrefix begins the names of keys that are not complete.
const signingPrefix = ".signing-"

// createSigningKey links a complete, synced file into place, so that a crash leaves no half of a key.
func createSigningKey(path string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, signingPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, 32)
	rand.Read(key)
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(path); there != nil { // no error: another process was quicker, and removed our file
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Path returns the path of a link that carries the grant: /blob/<token>/<key>. A caller puts a base URL before it.
func (s *Signer) Path(g Grant) string {
	var b strings.Builder
	b.WriteString(LinkPath)
	b.WriteString(s.token(g))
	for segment := range strings.SplitSeq(string(g.Key), "/") {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(segment))
	}
	return b.String()
}

// A token is <method><expiry>-<segments>-<md5>-<mac>: g or p and the Unix time in base 36, the number of segments of the
// key that is signed (what follows them in a path is below it), the required MD5 in hex or nothing, and the first 16
// bytes of the MAC. All characters survive in a URL, an HTML page and a file name.
func (s *Signer) token(g Grant) string {
	method := "g"
	if g.Method == http.MethodPut {
		method = "p"
	}
	head := fmt.Sprintf("%s%s-%d-%x-", method, strconv.FormatInt(g.Expires.Unix(), 36), 1+strings.Count(string(g.Key), "/"), g.ContentMD5)
	return head + s.mac(head, g.Key)
}

// mac signs a grant: head is the token without the MAC.
func (s *Signer) mac(head string, key Key) string {
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte("aloft link 1\x00" + head + "\x00" + string(key))) // neither part can contain NUL
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// Open reads a link that Path made: the grant in the token, and the key that path asks for, which is the grant's or, for GET,
// below it. It does not check whether the grant has expired.
func (s *Signer) Open(token, path string) (Grant, Key, error) {
	fields := strings.Split(token, "-")
	if len(fields) != 4 || len(fields[0]) < 2 {
		return Grant{}, "", errSignature
	}
	g := Grant{Method: http.MethodGet}
	if fields[0][0] == 'p' {
		g.Method = http.MethodPut
	}
	expires, err1 := strconv.ParseInt(fields[0][1:], 36, 64)
	n, err2 := strconv.Atoi(fields[1])
	md5, err3 := hex.DecodeString(fields[2])
	key, err4 := ParseKey(path)
	if errors.Join(err1, err2, err3, err4) != nil {
		return Grant{}, "", errSignature
	}
	if len(md5) > 0 {
		g.ContentMD5 = md5
	}
	g.Expires = time.Unix(expires, 0)
	segments := strings.Split(path, "/")
	if n < 1 || n > len(segments) || (n < len(segments) && g.Method == http.MethodPut) {
		return Grant{}, "", errSignature
	}
	g.Key = Key(strings.Join(segments[:n], "/"))
	head := token[:len(token)-len(fields[3])]
	if !hmac.Equal([]byte(s.mac(head, g.Key)), []byte(fields[3])) {
		return Grant{}, "", errSignature
	}
	return g, key, nil
}

// EncodeMD5 writes a digest as HTTP's Content-MD5 does.
func EncodeMD5(md5 []byte) string { return base64.StdEncoding.EncodeToString(md5) }
