package blob

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
)

// Handler serves signed links; mount it at LinkPath.
//
// GET and HEAD answer an object, with ranges and its digest as ETag, or a folder as an HTML page of links that its own
// token covers. PUT stores a body if it is complete and has the right MD5; a second PUT must have the same content.
//
// How flytekit 1.16 was observed to use links, and what follows for this handler:
//
//   - A file (FlyteFile): fsspec first GETs the link to see whether it is a folder, which to fsspec is an answer of type
//     text/html (or none) with links in it; such a file is then not downloaded. So HTML is called HTML only when the client
//     asks for it, as browsers and frames do; to other clients it is bytes. Only decks are HTML for all clients.
//   - A table (StructuredDataset as pandas.DataFrame): pandas GETs the URI of the *folder* with urllib and takes the body
//     for a Parquet file. So a folder that holds nothing but flytekit's one part, "00000", answers with that part, unless a
//     trailing slash or a browser asks for the page. CSV tables are read at <uri>/.csv, below the link. A table as a
//     pyarrow.Table cannot be read by link: flytekit cuts off "http:" and opens the rest as a local path.
//   - A folder (FlyteDirectory): crawl, and listdir with reading its files, work (listdir gives folders inside an empty
//     name, because it cuts the name at the slash that makes crawl see a folder). Downloading it whole does not work with
//     any server: fsspec also opens the folder's own name as a local file (IsADirectoryError). A client on this machine
//     should get paths instead of links for folders and Arrow tables.
//   - fsspec takes each link's text raw, un-escapes nothing and appends it to the URI of the page; so links are relative
//     and escaped only as far as a browser needs it.
type Handler struct {
	Store  Store
	Signer *Signer
	Log    *slog.Logger

	MaxBody int64            // bytes of a PUT; 0 means no limit
	Now     func() time.Time // nil means time.Now
}

// datasetPart is the name of the one file of a table that flytekit writes (basic_dfs.py).
const datasetPart = "00000"

// maxListed bounds the entries of a folder's page.
const maxListed = 100_000

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	// An object is a user's content on the address of our API and console, and HTML, SVG and PDF are programs: their scripts may run,
	// but without access to API and console. Framing is allowed, since the console shows decks in frames.
	header.Set("Content-Security-Policy", "sandbox allow-scripts allow-popups allow-downloads allow-forms allow-modals")
	header.Set("Referrer-Policy", "no-referrer") // the link is the permission to read, and must not reach other servers
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut:
	default:
		header.Set("Allow", "GET, HEAD, PUT")
		http.Error(w, "a link can be read (GET) or uploaded to (PUT)", http.StatusMethodNotAllowed)
		return
	}
	grant, key, err := h.open(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.Method == http.MethodPut {
		h.put(w, r, grant, key)
		return
	}
	h.get(w, r, key)
}

// open checks the link of a request.
func (h *Handler) open(r *http.Request) (Grant, Key, error) {
	token, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, LinkPath), "/")
	grant, k, err := h.Signer.Open(token, strings.TrimSuffix(key, "/"))
	now := time.Now
	if h.Now != nil {
		now = h.Now
	}
	switch {
	case err != nil:
		return Grant{}, "", err
	case (grant.Method == http.MethodPut) != (r.Method == http.MethodPut):
		return Grant{}, "", fmt.Errorf("the link is for %s only", grant.Method)
	case now().After(grant.Expires):
		return Grant{}, "", errExpired
	}
	return grant, k, nil
}

func (h *Handler) put(w http.ResponseWriter, r *http.Request, grant Grant, key Key) {
	o := PutOptions{ContentMD5: grant.ContentMD5}
	if text := r.Header.Get("Content-MD5"); text != "" {
		sent, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sent) != 16 {
			http.Error(w, fmt.Sprintf("the Content-MD5 header %q is not the base64 of 16 bytes", aloft.Excerpt(text)), http.StatusBadRequest)
			return
		}
		if grant.ContentMD5 != nil && !bytes.Equal(sent, grant.ContentMD5) {
			http.Error(w, fmt.Sprintf("the link is for content with MD5 %s, the Content-MD5 header says %s", EncodeMD5(grant.ContentMD5), text), http.StatusBadRequest)
			return
		}
		o.ContentMD5 = sent
	}
	body := r.Body
	if h.MaxBody > 0 {
		if r.ContentLength > h.MaxBody {
			h.fail(w, r, key, &http.MaxBytesError{Limit: h.MaxBody})
			return
		}
		body = http.MaxBytesReader(w, body, h.MaxBody)
	}
	if r.ContentLength >= 0 {
		o.Size = &r.ContentLength
	} else if bytes.Equal(o.ContentMD5, md5OfNothing) {
		body = endlessBody{body, http.NewResponseController(w)}
	}
	a, err := h.Store.Put(r.Context(), key, body, o)
	if err != nil {
		h.fail(w, r, key, err)
		return
	}
	w.Header().Set("ETag", `"`+a.SHA256+`"`)
	w.WriteHeader(http.StatusOK) // flytectl takes no other status for success
}

// md5OfNothing is the MD5 of an empty file.
var md5OfNothing = func() []byte { sum := md5.Sum(nil); return sum[:] }()

// endlessBody is the body of an upload of an empty file. Python's requests announces chunks for it and sends none, not even the
// last (psf/requests#4215), so the end of the body never comes: if no byte comes soon after the header, the body counts as empty.
type endlessBody struct {
	io.ReadCloser
	connection *http.ResponseController
}

// soonAfterHeader is how long endlessBody waits for a byte.
const soonAfterHeader = 100 * time.Millisecond

func (e endlessBody) Read(p []byte) (int, error) {
	// A connection without deadlines (a test's recorder) has a body that ends by itself. A deadline that has passed also ends the
	// connection after the answer: it is not kept open for the rest of the body.
	_ = e.connection.SetReadDeadline(time.Now().Add(soonAfterHeader))
	n, err := e.ReadCloser.Read(p)
	if n == 0 && err != nil { // the deadline's error, or the one that the watch over slow senders has put in its place
		err = io.EOF
	}
	return n, err
}

func (h *Handler) get(w http.ResponseWriter, r *http.Request, key Key) {
	folder := strings.HasSuffix(r.URL.Path, "/")
	browser := strings.Contains(r.Header.Get("Accept"), "text/html")
	if !folder {
		err := h.serveObject(w, r, key, browser)
		if !errors.Is(err, aloft.ErrNotFound) {
			h.fail(w, r, key, err)
			return
		}
	}
	children, err := h.children(r.Context(), key)
	switch {
	case err != nil:
		h.fail(w, r, key, err)
	case len(children) == 0:
		h.fail(w, r, key, fmt.Errorf("object %s: %w", key, aloft.ErrNotFound))
	case !folder && browser:
		// With a slash at the end, so that the page's relative links lead below the folder. The redirection is relative, too, since a
		// proxy may have put a path before ours.
		w.Header().Set("Location", "./"+escapeName(key.Base())+"/")
		w.WriteHeader(http.StatusMovedPermanently)
	case !folder && len(children) == 1 && children[0] == datasetPart:
		part, err := key.Join(datasetPart)
		if err == nil {
			err = h.serveObject(w, r, part, browser)
		}
		h.fail(w, r, key, err)
	default:
		servePage(w, r, key, children)
	}
}

// serveObject answers with one object. When it returns aloft.ErrNotFound it has not answered.
func (h *Handler) serveObject(w http.ResponseWriter, r *http.Request, key Key, browser bool) error {
	a, err := h.Store.Stat(r.Context(), key)
	if err != nil {
		return err
	}
	content, err := h.openContent(r.Context(), key, a.Size)
	if err != nil {
		return err
	}
	defer content.Close()
	browser = browser || isDeck(key)
	header := w.Header()
	header.Set("ETag", `"`+a.SHA256+`"`)
	header.Set("Cache-Control", "private")
	header.Set("Vary", "Accept")
	header.Set("Content-Type", contentType(key, browser))
	http.ServeContent(w, r, "", a.ModTime, content)
	return nil
}

// openContent opens an object, if possible as a file, which the kernel then copies to the socket. It follows no symbolic link: a
// task may have left one in the place of an object, to a file that is not in the store.
func (h *Handler) openContent(ctx context.Context, key Key, size int64) (io.ReadSeekCloser, error) {
	if _, ok := h.Store.(Local); ok {
		content, err := h.Store.Get(ctx, key, Range{})
		if err != nil {
			return nil, err
		}
		if file, ok := content.(interface{ File() *os.File }); ok {
			return file.File(), nil
		}
		if seeker, ok := content.(io.ReadSeekCloser); ok {
			return seeker, nil
		}
		if err := content.Close(); err != nil {
			return nil, err
		}
	}
	return &seeker{ctx: ctx, store: h.Store, key: key, size: size}, nil
}

// children are the names in a folder; those of folders end with a slash.
func (h *Handler) children(ctx context.Context, prefix Key) ([]string, error) {
	var names []string
	for e, err := range h.Store.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		if e.Key == prefix {
			continue
		}
		name, _, isFolder := strings.Cut(string(e.Key[len(prefix)+1:]), "/")
		if isFolder {
			name += "/"
		}
		if n := len(names); n > 0 && names[n-1] == name {
			continue
		}
		if len(names) == maxListed {
			return nil, fmt.Errorf("%w: folder %s has more than %d entries; read the files by name", aloft.ErrExhausted, prefix, maxListed)
		}
		names = append(names, name)
	}
	return names, nil
}

func servePage(w http.ResponseWriter, r *http.Request, key Key, names []string) {
	var page bytes.Buffer
	title := html.EscapeString(key.Base())
	fmt.Fprintf(&page, "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>%s</title></head>\n<body><h1>%s</h1>\n", title, title)
	for _, name := range names {
		// "./" keeps a name such as "http.log" or "a:b" from being taken for an absolute link, by fsspec and by browsers.
		dot := ""
		if strings.HasPrefix(name, "http") || strings.Contains(name, ":") {
			dot = "./"
		}
		fmt.Fprintf(&page, "<a href=\"%s%s\">%s</a><br>\n", dot, escapeName(name), html.EscapeString(name))
	}
	page.WriteString("</body></html>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(page.Bytes()))
}

// escapeName escapes the characters that would end the attribute or the path, or would be un-escaped on the way. Others stay as
// they are: fsspec uses the escaped name as the local file name.
func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c == 0x7f || strings.IndexByte(`%?#"'<>&\`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// contentTypes are used in place of the machine's table, so that every server answers alike.
var contentTypes = map[string]string{
	".txt": "text/plain; charset=utf-8", ".log": "text/plain; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".json": "application/json", ".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8",
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".svg": "image/svg+xml",
	".pdf": "application/pdf", ".parquet": "application/vnd.apache.parquet", ".gz": "application/gzip", ".zip": "application/zip",
}

// isDeck says whether an object is the deck of an attempt. No client takes a deck for a folder, so it is served as HTML to all.
func isDeck(key Key) bool {
	return strings.HasPrefix(string(key), "run/") && key.Base() == "deck.html"
}

func contentType(key Key, browser bool) string {
	switch key.Base() {
	case "stdout", "stderr":
		return contentTypes[".log"]
	}
	t, ok := contentTypes[strings.ToLower(path.Ext(key.Base()))]
	if !ok || (strings.HasPrefix(t, "text/html") && !browser) {
		return "application/octet-stream"
	}
	return t
}

// fail answers with an error, or does nothing if err is nil.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, key Key, err error) {
	if err == nil {
		return
	}
	var (
		tooLarge *http.MaxBytesError
		source   *ReadError
		status   = http.StatusInternalServerError
		text     = err.Error()
	)
	switch {
	case errors.As(err, &tooLarge):
		status, text = http.StatusRequestEntityTooLarge, fmt.Sprintf("the upload of %s is larger than the limit of %d bytes; the server's configuration can raise it", key, tooLarge.Limit)
	case errors.As(err, &source):
		status, text = http.StatusBadRequest, fmt.Sprintf("the upload of %s ended before its end (%v); nothing was stored, send it again", key, source.Err)
	case errors.Is(err, aloft.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, aloft.ErrExists):
		status = http.StatusConflict
	case errors.Is(err, aloft.ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, aloft.ErrExhausted):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	default:
		if errors.Is(err, aloft.ErrUnavailable) {
			status = http.StatusServiceUnavailable
		}
		if h.Log != nil {
			h.Log.Error("blob link failed", "method", r.Method, "key", string(key), "error", err)
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, status)
}

// seeker reads an object of a remote store by ranges, as http.ServeContent wants it: it gets the object only at the first read, from
// the offset of that read on.
type seeker struct {
	ctx    context.Context
	store  Store
	key    Key
	size   int64
	offset int64
	open   io.ReadCloser // positioned at offset; nil before the first read and after a seek
}

func (s *seeker) Read(p []byte) (int, error) {
	if s.offset >= s.size {
		return 0, io.EOF
	}
	if s.open == nil {
		r, err := s.store.Get(s.ctx, s.key, Range{Offset: s.offset})
		if err != nil {
			return 0, err
		}
		s.open = r
	}
	n, err := s.open.Read(p)
	s.offset += int64(n)
	return n, err
}

func (s *seeker) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.offset
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek in object %s: %w: before its beginning", s.key, aloft.ErrInvalid)
	}
	if offset != s.offset {
		_ = s.Close()
		s.offset = offset
	}
	return offset, nil
}

func (s *seeker) Close() error {
	if s.open == nil {
		return nil
	}
	err := s.open.Close()
	s.open = nil
	return err
}
