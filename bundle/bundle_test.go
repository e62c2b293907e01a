package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/internal/removal"
)

type bench struct {
	store *folder.Store
	cache *Cache
	dir   string
}

func newBench(t testing.TB, limits Limits) *bench {
	t.Helper()
	dir := t.TempDir()
	store, err := folder.Open(filepath.Join(dir, "blob"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := NewCache(filepath.Join(dir, "bundle"), store, limits)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{store, cache, dir}
}

// upload stores bytes as an archive and returns its URI.
func (b *bench) upload(t testing.TB, name string, content []byte) string {
	t.Helper()
	key, err := blob.JoinKey("upload/flytesnacks/development/MD5======", name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Put(t.Context(), key, bytes.NewReader(content), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return key.URI()
}

func (b *bench) open(t testing.TB, uri string) *Dir {
	t.Helper()
	d, err := b.cache.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) // what flytekit writes

func file(name, content string) tar.Header {
	return tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: epoch, PAXRecords: map[string]string{"ALOFT.content": content}}
}

// archive writes a tar; the content of a file travels in its header.
func archive(t testing.TB, zip bool, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	var sink io.Writer = &out
	if zip {
		z := gzip.NewWriter(&out)
		defer z.Close()
		sink = z
	}
	w := tar.NewWriter(sink)
	for _, h := range headers {
		content := h.PAXRecords["ALOFT.content"]
		h.PAXRecords = nil
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if z, ok := sink.(*gzip.Writer); ok {
		z.Close()
	}
	return out.Bytes()
}

func read(t testing.TB, parts ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestAnArchiveWithoutEntriesIsAnEmptyFolder(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{
		"as Go writes it":          archive(t, true),
		"filled up as Python does": make([]byte, 10240),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, Limits{})
			dst := t.TempDir() + "/work"
			if err := b.open(t, b.upload(t, "fast0.tar.gz", content)).PrivateCopy(dst); err != nil {
				t.Fatal(err)
			}
			if entries, err := os.ReadDir(dst); err != nil || len(entries) > 0 {
				t.Errorf("got %v, %v", entries, err)
			}
		})
	}
}

func TestAnArchiveIsUnpackedWithModesAndTimes(t *testing.T) {
	t.Parallel()
	for name, zip := range map[string]bool{"as pyflyte sends it": true, "ungzipped, as flytectl sends it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, Limits{})
			script := file("pkg/run.sh", "echo")
			script.Mode = 0o755
			uri := b.upload(t, "fast0.tar.gz", archive(t, zip,
				tar.Header{Typeflag: tar.TypeDir, Name: "pkg/", Mode: 0o555, ModTime: epoch}, script, file("./pkg/sub/data.csv", "x"), file("empty", ""),
				tar.Header{Typeflag: tar.TypeSymlink, Name: "pkg/link", Linkname: "../empty"}, tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "pkg/run.sh"},
				file("empty2", "first"), file("empty2", "second")))
			d := b.open(t, uri)
			for name, want := range map[string]string{"pkg/run.sh": "echo", "pkg/sub/data.csv": "x", "empty": "", "pkg/link": "", "hard": "echo", "empty2": "second"} {
				if got := read(t, d.Path, name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			info, err := os.Stat(filepath.Join(d.Path, "pkg/run.sh"))
			if err != nil || info.Mode().Perm() != 0o755 || !info.ModTime().Equal(epoch) {
				t.Errorf("pkg/run.sh: %v, %v, %v; want mode 0755 and the time of the archive", info.Mode(), info.ModTime(), err)
			}
			if !strings.HasPrefix(d.Digest, "sha256:") {
				t.Errorf("digest %q", d.Digest)
			}
		})
	}
}

func TestANotebooksPickleIsAFolderWithThatFile(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	d := b.open(t, b.upload(t, "pkl.gz", []byte("\x1f\x8bwhatever it is")))
	if got := read(t, d.Path, "pkl.gz"); got != "\x1f\x8bwhatever it is" {
		t.Errorf("got %q", got)
	}
}

func TestWhatWouldLeaveTheFolderIsOmittedByName(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	bad := []tar.Header{
		file("../escape", "x"), file("a/../../escape2", "x"), file("/etc/absolute", "x"), file("../v3/bin/python", "x"),
		{Typeflag: tar.TypeLink, Name: "hardout", Linkname: "../x"},
		{Typeflag: tar.TypeLink, Name: "hardnone", Linkname: "nothing"},
		{Typeflag: tar.TypeChar, Name: "device", Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeFifo, Name: "pipe"},
	}
	uri := b.upload(t, "fast.tar.gz", archive(t, true, append(bad, file("fine", "x"))...))
	for _, when := range []string{"unpacked", "found by a later process"} {
		dir, err := b.cache.Open(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		omitted := strings.Join(dir.Omitted, "\n")
		for _, h := range bad {
			if !strings.Contains(omitted, fmt.Sprintf("%q", h.Name)) {
				t.Errorf("%s: %q is not among what was omitted: %s", when, h.Name, omitted)
			}
		}
		if len(dir.Omitted) != len(bad) {
			t.Errorf("%s: %d entries were omitted, want %d: %s", when, len(dir.Omitted), len(bad), omitted)
		}
		entries, _ := os.ReadDir(dir.Path)
		if len(entries) != 1 || entries[0].Name() != "fine" {
			t.Errorf("%s: the bundle has %v, want what is fine", when, entries)
		}
		dir.Close()
		if b.cache, err = NewCache(filepath.Join(b.dir, "bundle"), b.store, Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"escape", "escape2", "v3", "bundle/escape"} {
		if _, err := os.Lstat(filepath.Join(b.dir, path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made (%v)", path, err)
		}
	}
}

func TestLinksAreMadeWhereverTheyLeadAndNothingIsWrittenThroughThem(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	outside := filepath.Join(b.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	link := func(name, target string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
	}
	dir, err := b.cache.Open(t.Context(), b.upload(t, "fast.tar.gz", archive(t, true,
		link("abs", "/etc/hostname"), link("d/up", "../../beside"), link("dangling", "nothing"), link("inside", "d"),
		link("out", outside), file("out/through", "x"), // a folder is made for the file, so there can be no link
		link("replaced", outside), file("replaced", "a file"),
		file("again", "a file"), link("again", "/etc"),
		tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "abs"},
	)))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	copied := filepath.Join(b.dir, "copied")
	if err := dir.PrivateCopy(copied); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{dir.Path, copied} {
		for name, want := range map[string]string{"abs": "/etc/hostname", "d/up": "../../beside", "dangling": "nothing", "inside": "d", "again": "/etc", "hard": "/etc/hostname"} {
			if got, err := os.Readlink(filepath.Join(place, name)); err != nil || got != want {
				t.Errorf("%s in %s leads to %q, %v; want %q", name, place, got, err, want)
			}
		}
		for name, want := range map[string]string{"out/through": "x", "replaced": "a file"} {
			if got, err := os.ReadFile(filepath.Join(place, name)); err != nil || string(got) != want {
				t.Errorf("%s in %s is %q, %v; want %q", name, place, got, err, want)
			}
		}
	}
	if len(dir.Omitted) != 1 || !strings.Contains(dir.Omitted[0], `"out"`) {
		t.Errorf("omitted is %q, want the link that has a folder in its place", dir.Omitted)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("written through a link: %v", entries)
	}
}

func TestAFileIsNotWrittenThroughALinkOfTheArchive(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	d := b.open(t, b.upload(t, "fast.tar.gz", archive(t, true, file("target", "safe"), tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "target"}, file("link", "new"))))
	if read(t, d.Path, "target") != "safe" || read(t, d.Path, "link") != "new" {
		t.Errorf("target %q, link %q; the later entry must replace the link", read(t, d.Path, "target"), read(t, d.Path, "link"))
	}
}

func TestWhatIsNoArchiveOrTooLargeSaysSo(t *testing.T) {
	t.Parallel()
	good := archive(t, true, file("a", strings.Repeat("x", 100)), file("b", "y"))
	for name, c := range map[string]struct {
		content []byte
		limits  Limits
		want    error
		message string
	}{
		"text":            {[]byte("<html>not found</html>"), Limits{}, aloft.ErrInvalid, "neither a tar"},
		"long text":       {bytes.Repeat([]byte("no archive "), 1000), Limits{}, aloft.ErrInvalid, "neither a tar"},
		"half an archive": {good[:len(good)/2], Limits{}, aloft.ErrInvalid, "upload the code again"},
		"gzipped text":    {gzipped("text"), Limits{}, aloft.ErrInvalid, "neither a tar"},
		"many bytes":      {good, Limits{Bytes: 50}, aloft.ErrExhausted, "50 bytes"},
		"many files":      {good, Limits{Files: 1}, aloft.ErrExhausted, "1 files and folders"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, c.limits)
			_, err := b.cache.Open(t.Context(), b.upload(t, "fast.tar.gz", c.content))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.message) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.message)
			}
		})
	}
	b := newBench(t, Limits{})
	if _, err := b.cache.Open(t.Context(), "aloft://blob/upload/none.tar.gz"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("absent archive: got %v", err)
	}
	if _, err := b.cache.Open(t.Context(), "s3://bucket/fast.tar.gz"); !errors.Is(err, aloft.ErrUnimplemented) {
		t.Errorf("foreign archive: got %v", err)
	}
}

// folders is a path of so many folders, the first of which has a name of its own.
func folders(first string, n int) string { return first + strings.Repeat("/d", n-1) }

// long is a path of few folders and so many bytes.
func long(first string, bytes int) string {
	rest := strings.Repeat("/"+strings.Repeat("x", 249), bytes/250+1)
	return first + rest[:bytes-len(first)-1] + "x"
}

func TestPathsThatAreTooLongAreOmittedByName(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	bad := []tar.Header{
		file(folders("p", 2500), "x"), {Typeflag: tar.TypeDir, Name: folders("q", 2500), Mode: 0o755},
		{Typeflag: tar.TypeSymlink, Name: folders("r", 2500), Linkname: "x"}, {Typeflag: tar.TypeSymlink, Name: "s", Linkname: strings.Repeat("x", 5000)},
		{Typeflag: tar.TypeLink, Name: folders("t", 2500), Linkname: "fine"}, file("u/"+strings.Repeat("x", 256), "x"),
		file(strings.Repeat("x", 1_000_000), "x"),
	}
	longest := long("longest", maxPath)
	dir := b.open(t, b.upload(t, "fast.tar.gz", archive(t, true, append(bad, file("fine", "x"), file(longest, "x"), file(strings.Repeat("y", 255), "x"))...)))
	if len(dir.Omitted) != len(bad) {
		t.Errorf("%d entries were omitted, want %d", len(dir.Omitted), len(bad))
	}
	for i, what := range dir.Omitted {
		if !strings.Contains(what, fmt.Sprintf("%q", bad[i].Name[:1])[:2]) || !strings.Contains(what, "the limit is") || len(what) > 10_000 {
			t.Errorf("of %.40s… it says %.500s", bad[i].Name, what)
		}
	}
	copied := filepath.Join(b.dir, "copied")
	if err := dir.PrivateCopy(copied); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(copied)
	if err != nil || len(entries) != 3 || read(t, copied, longest) != "x" {
		t.Errorf("the copy has %v, %v; want what is not too long", entries, err)
	}
}

// A data folder may be so deep that even a path within the limit does not fit below it.
func TestAPathThatDoesNotFitIsTheArchivesFault(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	uri := b.upload(t, "fast.tar.gz", archive(t, true, file(long("p", 3000), "x")))
	deep := filepath.Join(b.dir, long("deep", 1200))
	if err := b.open(t, uri).PrivateCopy(deep); !errors.Is(err, aloft.ErrInvalid) || errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("copying gives %.300v", err)
	}
	cache, err := NewCache(deep, b.store, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Open(t.Context(), uri); !errors.Is(err, aloft.ErrInvalid) || errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("unpacking gives %.300v", err)
	}
}

func TestFoldersThatNoEntryNamesCount(t *testing.T) {
	t.Parallel()
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
	for name, c := range map[string]struct {
		entries []tar.Header
		makes   int
	}{
		"a file":                      {[]tar.Header{file("a/b/c/f", "x")}, 4},
		"two files in one folder":     {[]tar.Header{file("a/b/f", "x"), file("a/b/g", "x")}, 4},
		"folders that are entries":    {[]tar.Header{dir("a"), dir("a/b"), file("a/b/f", "x")}, 3},
		"a folder in folders":         {[]tar.Header{dir("a/b/c")}, 3},
		"a link in folders":           {[]tar.Header{{Typeflag: tar.TypeSymlink, Name: "a/b/l", Linkname: "x"}}, 3},
		"long paths, a short archive": {[]tar.Header{dir(folders("a", 300)), dir(folders("b", 300)), dir(folders("c", 300))}, 900},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			content := archive(t, true, c.entries...)
			b := newBench(t, Limits{Files: c.makes})
			made := -1 // the folder itself
			_ = filepath.WalkDir(b.open(t, b.upload(t, "fast.tar.gz", content)).Path, func(string, fs.DirEntry, error) error { made++; return nil })
			if made != c.makes {
				t.Errorf("%d bytes make %d files and folders, want %d", len(content), made, c.makes)
			}
			b = newBench(t, Limits{Files: c.makes - 1})
			if d, err := b.cache.Open(t.Context(), b.upload(t, "fast.tar.gz", content)); !errors.Is(err, aloft.ErrExhausted) {
				t.Errorf("%d files and folders are allowed, and %d are made: %v, %v", c.makes-1, c.makes, d, err)
			}
		})
	}
}

func TestPathsThatTakeMuchMemoryTogetherAreRefused(t *testing.T) {
	t.Parallel()
	target := strings.Repeat("x", maxPath)
	var entries []tar.Header
	for i := range maxNames/maxPath + 1 {
		entries = append(entries, tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint(i), Linkname: target})
	}
	b := newBench(t, Limits{})
	if _, err := b.cache.Open(t.Context(), b.upload(t, "fast.tar.gz", archive(t, true, entries...))); !errors.Is(err, aloft.ErrExhausted) {
		t.Errorf("%d links to paths of %d bytes give %.300v", len(entries), len(target), err)
	}
}

func gzipped(text string) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	io.WriteString(z, text)
	z.Close()
	return out.Bytes()
}

func TestConcurrentCallersShareOneUnpacking(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	uri := b.upload(t, "fast.tar.gz", archive(t, true, file("a.py", "1")))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.cache.Open(gone, uri); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gives up: got %v", err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			d, err := b.cache.Open(context.Background(), uri)
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Close()
			if content, err := os.ReadFile(filepath.Join(d.Path, "a.py")); err != nil || string(content) != "1" {
				t.Errorf("got %q, %v", content, err)
			}
		})
	}
	wg.Wait()
	if got := b.cache.unpacks.Load(); got != 1 {
		t.Errorf("unpacked %d times, want once", got)
	}
	again, err := NewCache(filepath.Join(b.dir, "bundle"), b.store, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := again.Open(t.Context(), uri); err != nil || again.unpacks.Load() != 0 {
		t.Errorf("after a restart: unpacked %d times, %v; want the folder that is there", again.unpacks.Load(), err)
	} else {
		d.Close()
	}
}

func TestAFailedUnpackingIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	uri := b.upload(t, "fast.tar.gz", archive(t, true, file("a.py", "1")))
	os.Chmod(filepath.Join(b.dir, "bundle"), 0o755)
	if err := os.Rename(filepath.Join(b.dir, "bundle"), filepath.Join(b.dir, "away")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.cache.Open(t.Context(), uri); !errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("without its folder: got %v, want ErrUnavailable", err)
	}
	if err := os.Rename(filepath.Join(b.dir, "away"), filepath.Join(b.dir, "bundle")); err != nil {
		t.Fatal(err)
	}
	b.open(t, uri)
}

func TestEvictionTakesTheLongestUnusedAndNeverOneInUse(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{Cache: 250})
	var uris []string
	for i := range 4 {
		uris = append(uris, b.upload(t, fmt.Sprintf("fast%d.tar.gz", i), archive(t, true, file("data", strings.Repeat(fmt.Sprint(i), 100)))))
	}
	there := func(d *Dir) bool { return isDir(d.Path) }
	first, second, third := b.open(t, uris[0]), b.open(t, uris[1]), b.open(t, uris[2])
	if !there(first) || !there(second) || !there(third) {
		t.Fatal("a bundle in use was evicted")
	}
	second.Close() // 300 bytes, 250 allowed: the only unused one goes
	if there(second) || !there(first) || !there(third) {
		t.Errorf("after closing the second: first %v, second %v, third %v; want the second gone", there(first), there(second), there(third))
	}
	third.Close()
	first.Close() // used last
	fourth := b.open(t, uris[3])
	if there(third) || !there(first) || !there(fourth) {
		t.Errorf("after opening the fourth: first %v, third %v, fourth %v; want the third gone", there(first), there(third), there(fourth))
	}
	if d := b.open(t, uris[1]); read(t, d.Path, "data") != strings.Repeat("1", 100) {
		t.Error("an evicted bundle does not come back")
	}
	restarted, err := NewCache(filepath.Join(b.dir, "bundle"), b.store, Limits{Cache: 1})
	if err != nil {
		t.Fatal(err)
	}
	d, err := restarted.Open(t.Context(), uris[0])
	if err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(b.dir, "bundle", "[0-9a-f]*")) // without those that are being removed
	if len(left) != 1 || !there(d) {
		t.Errorf("after a restart with less room: %v, want only the one in use", left)
	}
	d.Close()
}

func TestAPrivateCopyIsEqualAndIndependent(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{})
	script := file("pkg/run.sh", "echo")
	script.Mode = 0o775
	d := b.open(t, b.upload(t, "fast.tar.gz", archive(t, true, tar.Header{Typeflag: tar.TypeDir, Name: "pkg", Mode: 0o750, ModTime: epoch}, script,
		file("big", strings.Repeat("x", 200_000)), tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "pkg/run.sh"}, tar.Header{Typeflag: tar.TypeDir, Name: "void", Mode: 0o755, ModTime: epoch})))
	existing := filepath.Join(b.dir, "attempt1")
	if err := os.Mkdir(existing, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dst := range []string{existing, filepath.Join(b.dir, "attempts", "x", "attempt2")} {
		if err := d.PrivateCopy(dst); err != nil {
			t.Fatal(err)
		}
		want, got := describe(t, d.Path), describe(t, dst)
		if got != want {
			t.Errorf("copy differs:\n%s\nwant\n%s", got, want)
		}
		if err := os.WriteFile(filepath.Join(dst, "pkg/run.sh"), []byte("changed in place"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, d.Path, "pkg/run.sh"); got != "echo" {
		t.Errorf("writing to a copy changed the bundle: %q", got)
	}
}

func describe(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.Type() == fs.ModeSymlink {
			target, _ := os.Readlink(path)
			fmt.Fprintln(&out, name, "->", target)
			return nil
		}
		fmt.Fprintln(&out, name, info.Mode(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAnArchiveMadeByFlytekitIsUnpacked(t *testing.T) {
	t.Parallel()
	python := os.Getenv("ALOFT_TEST_PYTHON")
	if python == "" {
		t.Skip("ALOFT_TEST_PYTHON names no Python with flytekit")
	}
	b := newBench(t, Limits{})
	src, out := filepath.Join(b.dir, "src"), filepath.Join(b.dir, "out")
	if err := errors.Join(os.MkdirAll(filepath.Join(src, "pkg"), 0o755), os.Mkdir(out, 0o755), os.WriteFile(filepath.Join(src, "pkg", "wf.py"), []byte("x = 1\n"), 0o644),
		os.WriteFile(filepath.Join(src, "data.csv"), []byte("a,b\n"), 0o644), os.Link(filepath.Join(src, "data.csv"), filepath.Join(src, "same.csv"))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", `
import sys
from flytekit.constants import CopyFileDetection
from flytekit.tools.fast_registration import FastPackageOptions, fast_package
print(fast_package(sys.argv[1], sys.argv[2], options=FastPackageOptions([], copy_style=CopyFileDetection.ALL)))`, src, out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("package: %v\n%s", err, text)
	}
	made, err := filepath.Glob(filepath.Join(out, "fast*.tar.gz"))
	if err != nil || len(made) != 1 {
		t.Fatalf("made %v, %v", made, err)
	}
	d := b.open(t, b.upload(t, filepath.Base(made[0]), []byte(read(t, made[0]))))
	for name, want := range map[string]string{"pkg/wf.py": "x = 1\n", "data.csv": "a,b\n", "same.csv": "a,b\n"} {
		if got := read(t, d.Path, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, false, file("a/b", "x"), tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a"}, tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "a/b"}))
	f.Add(archive(f, true, file("../a", "x")))
	f.Add(archive(f, false, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, file("l/x", "x")))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, content []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "dir")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_, err = unpackArchive(root, bytes.NewReader(content), Limits{Files: 100, Bytes: 1 << 20})
		if err != nil && !errors.Is(err, aloft.ErrInvalid) && !errors.Is(err, aloft.ErrExhausted) {
			t.Errorf("error without a cause: %v", err)
		}
		if beside, _ := os.ReadDir(parent); len(beside) != 1 {
			t.Errorf("files outside of the folder: %v", beside)
		}
		if size := sizeOf(dir); size > 1<<20 {
			t.Errorf("unpacked %d bytes", size)
		}
		if err == nil {
			tree, err := planTree(dir)
			if err := errors.Join(err, new(Cache).copyTree(dir, filepath.Join(parent, "copy"), tree)); err != nil {
				t.Errorf("what was unpacked cannot be copied: %v", err)
			}
		}
		_ = removal.All(context.Background(), dir)
	})
}

func BenchmarkPrivateCopy20Files(b *testing.B) {
	bench := newBench(b, Limits{})
	var headers []tar.Header
	for i := range 20 {
		headers = append(headers, file(fmt.Sprintf("pkg/m%d.py", i), strings.Repeat("x = 1\n", 500)))
	}
	d := bench.open(b, bench.upload(b, "fast.tar.gz", archive(b, true, headers...)))
	n := 0
	for b.Loop() {
		n++
		// Not removed in between: ext4 passes over each recently deleted inode when it makes a file, and that would be measured.
		if err := d.PrivateCopy(filepath.Join(bench.dir, fmt.Sprint("attempt", n))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenUnpacked(b *testing.B) {
	bench := newBench(b, Limits{})
	uri := bench.upload(b, "fast.tar.gz", archive(b, true, file("a.py", "x")))
	bench.open(b, uri)
	for b.Loop() {
		d, err := bench.cache.Open(b.Context(), uri)
		if err != nil {
			b.Fatal(err)
		}
		d.Close()
	}
}
