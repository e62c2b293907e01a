package blob_test

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
)

// bench is one store with a signer, a handler and a renderer of its links.
type bench struct {
	store    *folder.Store
	signer   *blob.Signer
	handler  *blob.Handler
	renderer *blob.Renderer
}

func newBench(t testing.TB) *bench {
	t.Helper()
	dir := t.TempDir()
	store, err := folder.Open(filepath.Join(dir, "blob"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := blob.OpenSigner(filepath.Join(dir, "signing.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &bench{store, signer, &blob.Handler{Store: store, Signer: signer}, &blob.Renderer{Local: store, Signer: signer}}
}

func (b *bench) put(t testing.TB, key blob.Key, content string) {
	t.Helper()
	if _, err := b.store.Put(t.Context(), key, strings.NewReader(content), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) path(method string, key blob.Key, md5 []byte) string {
	return b.signer.Path(blob.Grant{Method: method, Key: key, Expires: time.Now().Add(time.Hour), ContentMD5: md5})
}

func (b *bench) do(method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

const html = "text/html,application/xhtml+xml"

func TestALinkReadsItsObject(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.put(t, "raw/ä b/100%/deck.html", "<p>0123456789")
	link := b.path("GET", "raw/ä b/100%/deck.html", nil)

	w := b.do("GET", link, "")
	if w.Code != 200 || w.Body.String() != "<p>0123456789" || w.Header().Get("Content-Length") != "13" {
		t.Errorf("got %d %q, length %s", w.Code, w.Body, w.Header().Get("Content-Length"))
	}
	if got := w.Header().Get("Content-Type"); got != "application/octet-stream" {
		t.Errorf("type for a program: got %q; fsspec takes text/html for a folder", got)
	}
	etag := w.Header().Get("ETag")
	if !strings.HasPrefix(etag, `"sha256:`) {
		t.Errorf("got ETag %s, want the digest", etag)
	}
	w = b.do("GET", link, "", "Accept", html)
	if got := w.Header().Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("type for a browser: got %q", got)
	}
	if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "sandbox") || strings.Contains(policy, "frame-ancestors") || w.Header().Get("X-Frame-Options") != "" {
		t.Errorf("a page must be sandboxed and may be framed: %v", w.Header())
	}
	if w = b.do("GET", link, "", "Range", "bytes=3-5"); w.Code != 206 || w.Body.String() != "012" {
		t.Errorf("range: got %d %q", w.Code, w.Body)
	}
	if w = b.do("HEAD", link, ""); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "13" {
		t.Errorf("head: got %d %q %v", w.Code, w.Body, w.Header())
	}
	if w = b.do("GET", link, "", "If-None-Match", etag); w.Code != 304 {
		t.Errorf("unchanged: got %d", w.Code)
	}
}

func TestADeckIsAPageToWhoeverAsks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.put(t, "run/p/d/e/n0/0/deck.html", "<p>deck")
	w := b.do("GET", b.path("GET", "run/p/d/e/n0/0/deck.html", nil), "", "Accept", "*/*")
	if got := w.Header().Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("got %q", got)
	}
	if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "sandbox") {
		t.Errorf("it must be sandboxed whoever asks: %v", w.Header())
	}
}

func TestALinkIsForWhatItSaysOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.put(t, "a/b/secret", "secret")
	b.put(t, "a/bc", "other")
	get, put := b.path("GET", "a/b/secret", nil), b.path("PUT", "a/b/new", nil)
	token := strings.Split(get, "/")[2]
	other, err := blob.OpenSigner(filepath.Join(t.TempDir(), "signing.key"))
	if err != nil {
		t.Fatal(err)
	}
	expired := b.signer.Path(blob.Grant{Method: "GET", Key: "a/b/secret", Expires: time.Now().Add(-time.Second)})
	for name, c := range map[string]struct{ method, target string }{
		"a sibling":                    {"GET", "/blob/" + token + "/a/bc"},
		"a sibling with as many parts": {"GET", "/blob/" + token + "/a/b/other"},
		"its parent":                   {"GET", "/blob/" + token + "/a/b"},
		"writing with a read link":     {"PUT", get},
		"reading with a write link":    {"GET", put},
		"writing below a write link":   {"PUT", put + "/x"},
		"a later expiry":               {"GET", strings.Replace(get, "/g", "/gz", 1)},
		"no token":                     {"GET", "/blob/a/b/secret"},
		"nothing":                      {"GET", "/blob/"},
		"a traversal":                  {"GET", get + "/../../../signing.key"},
		"another server's link":        {"GET", other.Path(blob.Grant{Method: "GET", Key: "a/b/secret", Expires: time.Now().Add(time.Hour)})},
		"an expired link":              {"GET", expired},
	} {
		if w := b.do(c.method, c.target, "x"); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "secret\n") {
			t.Errorf("%s: got %d %q, want 403", name, w.Code, w.Body)
		}
	}
	if w := b.do("GET", b.path("GET", "a/b", nil)+"/secret", ""); w.Code != 200 {
		t.Errorf("below a folder's link: got %d, want 200", w.Code)
	}
	if w := b.do("GET", b.path("GET", "a/none", nil), ""); w.Code != 404 {
		t.Errorf("absent: got %d, want 404", w.Code)
	}
}

func TestUploadsAreCheckedAndComplete(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sum := md5.Sum([]byte("hello"))
	right, wrong := blob.EncodeMD5(sum[:]), blob.EncodeMD5(make([]byte, 16))
	n := 0
	for name, c := range map[string]struct {
		required []byte
		body     string
		header   []string
		want     int
		message  string
	}{
		"nothing announced":                {nil, "hello", nil, 200, ""},
		"an empty body":                    {nil, "", nil, 200, ""},
		"the right header":                 {nil, "hello", []string{"Content-MD5", right}, 200, ""},
		"a wrong header":                   {nil, "hello", []string{"Content-MD5", wrong}, 400, "MD5"},
		"no header where one is announced": {sum[:], "hello", nil, 200, ""},
		"other content than signed":        {sum[:], "evil!", nil, 400, "MD5"},
		"another header than signed":       {sum[:], "hello", []string{"Content-MD5", wrong}, 400, "Content-MD5 header says"},
		"a header that is no digest":       {nil, "hello", []string{"Content-MD5", "%%"}, 400, "not the base64"},
	} {
		n++
		key := blob.Key(fmt.Sprintf("upload/%d", n))
		w := b.do("PUT", b.path("PUT", key, c.required), c.body, c.header...)
		if w.Code != c.want || !strings.Contains(w.Body.String(), c.message) {
			t.Errorf("%s: got %d %q, want %d %q", name, w.Code, w.Body, c.want, c.message)
		}
		_, err := b.store.Stat(t.Context(), key)
		if stored := err == nil; stored != (c.want == 200) {
			t.Errorf("%s: stored %v", name, stored)
		}
	}
	b.handler.MaxBody = 4
	if w := b.do("PUT", b.path("PUT", "upload/large", nil), "hello"); w.Code != 413 || !strings.Contains(w.Body.String(), "4 bytes") {
		t.Errorf("too large: got %d %q", w.Code, w.Body)
	}
}

func TestAnUploadCanBeRepeatedButNotChanged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	link := b.path("PUT", "upload/k", nil)
	for _, c := range []struct {
		body string
		want int
	}{{"one", 200}, {"one", 200}, {"two", 409}} {
		if w := b.do("PUT", link, c.body); w.Code != c.want {
			t.Errorf("put %q: got %d %q, want %d", c.body, w.Code, w.Body, c.want)
		}
	}
}

func TestOverTheWire(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	server := httptest.NewServer(b.handler)
	defer server.Close()

	// A body of unknown length: chunked, and empty.
	r, err := http.NewRequest(http.MethodPut, server.URL+b.path("PUT", "upload/empty", nil), struct{ io.Reader }{strings.NewReader("")})
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = -1
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("chunked empty body: %v %v", answer, err)
	}
	answer.Body.Close()
	if a, err := b.store.Stat(t.Context(), "upload/empty"); err != nil || a.Size != 0 {
		t.Errorf("chunked empty body: stored %+v, %v", a, err)
	}

	// A client that goes away in the middle.
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this", b.path("PUT", "upload/half", nil))
	conn.(*net.TCPConn).CloseWrite()
	text, _ := io.ReadAll(conn) // the server answers or hangs up when it has seen the end
	conn.Close()
	if bytes.HasPrefix(text, []byte("HTTP/1.1 200")) {
		t.Errorf("half a body was accepted: %s", text)
	}
	if _, err := b.store.Stat(t.Context(), "upload/half"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("half a body was stored (%v)", err)
	}
}

func TestAFolderIsAPageOfLinks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.put(t, "d/a b.txt", "A")
	b.put(t, "d/http.log", "H")
	b.put(t, `d/"<x>&'%41#?.txt`, "X")
	b.put(t, "d/sub/deep/c", "C")
	b.put(t, "table/00000", "PAR1")
	link := b.path("GET", "d", nil)
	page := b.do("GET", link+"/", "").Body.String()
	for _, want := range []string{`href="a b.txt"`, `href="./http.log"`, `href="sub/"`, `href="%22%3Cx%3E%26%27%2541%23%3F.txt"`, "&lt;x&gt;"} {
		if !strings.Contains(page, want) {
			t.Errorf("page has no %s:\n%s", want, page)
		}
	}
	if w := b.do("GET", link+"/%22%3Cx%3E%26%27%2541%23%3F.txt", ""); w.Body.String() != "X" {
		t.Errorf("following the escaped link: got %d %q", w.Code, w.Body)
	}
	if w := b.do("GET", link, "", "Accept", html); w.Code != 301 || w.Header().Get("Location") != "./d/" {
		t.Errorf("browser without slash: got %d %q", w.Code, w.Header().Get("Location"))
	}
	if w := b.do("GET", b.path("GET", "table", nil), ""); w.Body.String() != "PAR1" {
		t.Errorf("a table's folder: got %d %q, want its part", w.Code, w.Body)
	}
	if w := b.do("GET", b.path("GET", "table", nil)+"/", ""); !strings.Contains(w.Body.String(), `href="00000"`) {
		t.Errorf("a table's folder with slash: got %d %q, want the page", w.Code, w.Body)
	}
}

func TestRemoteStoresServeRangesToo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.put(t, "k", "0123456789")
	b.handler.Store = struct{ blob.Store }{b.store} // hides that it is local
	link := b.path("GET", "k", nil)
	if w := b.do("GET", link, "", "Range", "bytes=-3"); w.Code != 206 || w.Body.String() != "789" {
		t.Errorf("got %d %q", w.Code, w.Body)
	}
	if w := b.do("GET", link, ""); w.Body.String() != "0123456789" {
		t.Errorf("got %d %q", w.Code, w.Body)
	}
}

func TestTheSigningKeyIsMadeOnceAndPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "signing.key")
	grant := blob.Grant{Method: "GET", Key: "k", Expires: time.Unix(1e9, 0)}
	links := make([]string, 8)
	var wg sync.WaitGroup
	for i := range links {
		wg.Go(func() {
			s, err := blob.OpenSigner(path)
			if err != nil {
				t.Error(err)
				return
			}
			links[i] = s.Path(grant)
		})
	}
	wg.Wait()
	for _, link := range links {
		if link != links[0] {
			t.Errorf("two keys: %s and %s", link, links[0])
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	os.WriteFile(path, []byte("short"), 0o600)
	if _, err := blob.OpenSigner(path); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("broken key: got %v, want the way out", err)
	}
}

func TestEveryRenderedFormComesBackCanonical(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, key := range []blob.Key{"raw/aa/x/file.txt", "raw/a b/100%/ä#?.csv", "upload/p/d/ABC======/fast.tar.gz"} {
		path, err1 := b.renderer.Path(key.URI())
		link, err2 := b.renderer.Link(key.URI(), "http://some.host:1234/", time.Unix(1, 0)) // long expired
		native, err3 := b.renderer.Native(key.URI())
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		unescaped := "https://elsewhere/proxy" + link[strings.Index(link, "/blob/"):len(link)-len(lastEscaped(link))] + key.Base()
		for _, form := range []string{key.URI(), key.URI() + "/", path, path + "/", "file://" + path, link, link + "/", unescaped, native} {
			if got, err := b.renderer.Canonical(form); err != nil || got != key.URI() {
				t.Errorf("canonical of %q: got %q, %v; want %q", form, got, err, key.URI())
			}
		}
	}
}

func lastEscaped(link string) string { return link[strings.LastIndexByte(link, '/')+1:] }

func TestForeignURIsPassUnchanged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, uri := range []string{"", "s3://bucket/key", "gs://bucket/key", "http://example.org/blob/data.csv", "https://x/blob/g1-1--00/k", "/etc/passwd", "file:///etc/passwd",
		"relative/path", "plain text", "flyte://v1/p/d/e/n/i", "memory://mine/a", b.store.Path("a") + "/../../signing.key", filepath.Dir(b.store.Path("a"))} {
		for name, render := range map[string]func(string) (string, error){
			"path": b.renderer.Path, "native": b.renderer.Native, "canonical": b.renderer.Canonical,
			"link": func(u string) (string, error) { return b.renderer.Link(u, "http://h", time.Now()) },
		} {
			if got, err := render(uri); err != nil || got != uri {
				t.Errorf("%s of %q: got %q, %v", name, uri, got, err)
			}
		}
	}
	for _, uri := range []string{"aloft://blob/../x", "aloft://blob/", "aloft://blob/a//b", "memory://aloft/a/./b"} {
		if _, err := b.renderer.Canonical(uri); !errors.Is(err, aloft.ErrInvalid) {
			t.Errorf("canonical of %q: got error %v, want ErrInvalid", uri, err)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, seed := range []string{"aloft://blob/a/b", "aloft://blob/../x", "memory://aloft/a", "http://h/blob/g1-2--00/a/b", "file:///a/../b", "/x", "aloft://blob/a%2fb"} {
		f.Add(seed)
	}
	dir := f.TempDir()
	store, err := folder.Open(filepath.Join(dir, "blob"))
	if err != nil {
		f.Fatal(err)
	}
	signer, err := blob.OpenSigner(filepath.Join(dir, "signing.key"))
	if err != nil {
		f.Fatal(err)
	}
	r := &blob.Renderer{Local: store, Signer: signer}
	f.Fuzz(func(t *testing.T, uri string) {
		canonical, err := r.Canonical(uri)
		if err != nil {
			return
		}
		if again, err := r.Canonical(canonical); err != nil || again != canonical {
			t.Errorf("canonical of %q is %q, and of that %q, %v", uri, canonical, again, err)
		}
		key, err := blob.ParseURI(canonical)
		if err != nil {
			if canonical != uri {
				t.Errorf("%q became %q, which is no URI of ours: %v", uri, canonical, err)
			}
			return
		}
		path, err := r.Path(canonical)
		if rel, relErr := filepath.Rel(filepath.Join(dir, "blob"), path); err != nil || relErr != nil || !filepath.IsLocal(rel) {
			t.Errorf("%q is rendered as %q, outside of the store (%v)", uri, path, err)
		}
		if back, ok := store.KeyOf(path); !ok || back != key {
			t.Errorf("path %q comes back as %q, not %q", path, back, key)
		}
		link, err := r.Link(canonical, "http://h", time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := r.Canonical(link); err != nil || back != canonical {
			t.Errorf("link %q comes back as %q, %v; want %q", link, back, err, canonical)
		}
	})
}

// For an empty file Python's requests sends the headers Content-Length and Transfer-Encoding, and no chunk, not even the last.
func TestAnEmptyFileIsStoredThoughItsBodyNeverEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	server := httptest.NewServer(b.handler)
	defer server.Close()
	nothing := md5.Sum(nil)
	send := func(path, more string) (int, string) {
		connection, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil { // so that a bug does not hang the test
			t.Fatal(err)
		}
		fmt.Fprintf(connection, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n%s", path, more)
		answer, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	if status, text := send(b.path("PUT", "upload/_SUCCESS", nothing[:]), ""); status != 200 {
		t.Errorf("got %d %q, want 200", status, text)
	}
	if a, err := b.store.Stat(t.Context(), "upload/_SUCCESS"); err != nil || a.Size != 0 {
		t.Errorf("what is stored has %d bytes, %v; want an empty object", a.Size, err)
	}
	if status, text := send(b.path("PUT", "upload/ended", nothing[:]), "0\r\n\r\n"); status != 200 {
		t.Errorf("with its last chunk: got %d %q, want 200", status, text)
	}
	if status, text := send(b.path("PUT", "upload/more", nothing[:]), "3\r\nabc\r\n0\r\n\r\n"); status != 400 {
		t.Errorf("three bytes under a link for none: got %d %q, want 400", status, text)
	}
}
