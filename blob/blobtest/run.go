// Package blobtest holds the tests that every blob store must pass, and stores that fail or forget on demand. It comes after
// package blob, whose contract it states as tests, and before the tests of every backend, and of all code that must survive a
// failing backend.
package blobtest

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
)

// Run checks the contract of blob.Store, and of blob.Local if the store is one. Every test gets a store of its own.
func Run(t *testing.T, newStore func(t *testing.T) blob.Store) {
	for name, test := range map[string]func(*testing.T, blob.Store){
		"what was put is read back with its digests":                  readBack,
		"odd names are names like any other":                          oddNames,
		"an object never changes unless asked":                        immutable,
		"bytes that differ from the announcement are not stored":      announced,
		"a reader that fails leaves nothing":                          failingReader,
		"a cancelled put leaves nothing":                              cancelled,
		"a range is cut at the end":                                   ranges,
		"a listing goes by segments":                                  listing,
		"deleting is idempotent":                                      deleting,
		"absence is ErrNotFound":                                      absence,
		"of concurrent puts with different content exactly one wins":  oneWinner,
		"concurrent puts of the same content all succeed":             sameContent,
		"a large object streams":                                      large,
		"verify tells a missing and a changed object from a good one": verify,
		"a check tells what is there from what is not":                check,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newStore(t))
		})
	}
	if _, ok := newStore(t).(blob.Local); !ok {
		return
	}
	for name, test := range map[string]func(*testing.T, blob.Local){
		"paths and keys are inverse":                       paths,
		"files written in place are adopted with digests":  adopt,
		"adopting nothing is nothing":                      adoptNothing,
		"adopting again gives the same":                    adoptAgain,
		"links are adopted as copies":                      adoptLinks,
		"what cannot be an object is refused, all of it":   adoptRefuses,
		"one file can be adopted by its own key":           adoptOne,
		"an object cannot be written through its own path": readOnly,
		"an object put below an object is refused":         belowObject,
		"a private copy has no connection to the object":   private,
		"what is not what was stored is told, not copied":  damaged,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newStore(t).(blob.Local))
		})
	}
}

func mustPut(t *testing.T, s blob.Store, key blob.Key, content string) blob.Attributes {
	t.Helper()
	a, err := s.Put(t.Context(), key, strings.NewReader(content), blob.PutOptions{})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return a
}

func mustRead(t *testing.T, s blob.Store, key blob.Key) string {
	t.Helper()
	b, err := blob.ReadAll(t.Context(), s, key, 1<<30)
	if err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	return string(b)
}

func wantAbsent(t *testing.T, s blob.Store, key blob.Key) {
	t.Helper()
	if _, err := s.Stat(t.Context(), key); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("stat %q: got error %v, want ErrNotFound", key, err)
	}
	if r, err := s.Get(t.Context(), key, blob.Range{}); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("get %q: got error %v, want ErrNotFound", key, err)
		if err == nil {
			r.Close()
		}
	}
	for e, err := range s.List(t.Context(), "") {
		if err != nil || e.Key == key {
			t.Errorf("list: got %q, error %v; %q should be absent", e.Key, err, key)
		}
	}
}

func keys(t *testing.T, s blob.Store, prefix blob.Key) (keys []blob.Key) {
	t.Helper()
	for e, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		keys = append(keys, e.Key)
	}
	return keys
}

func digests(content string) blob.Attributes {
	d := blob.NewDigest()
	io.WriteString(d, content)
	return d.Attributes()
}

func wantAttributes(t *testing.T, what string, got blob.Attributes, content string) {
	t.Helper()
	want := digests(content)
	if got.Size != want.Size || got.SHA256 != want.SHA256 || !bytes.Equal(got.MD5, want.MD5) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
	if got.ModTime.IsZero() {
		t.Errorf("%s: no modification time", what)
	}
}

func readBack(t *testing.T, s blob.Store) {
	for _, content := range []string{"", "hello", strings.Repeat("0123456789", 10_000)} {
		key := blob.Key(fmt.Sprintf("a/b/c%d", len(content)))
		wantAttributes(t, "put", mustPut(t, s, key, content), content)
		a, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		wantAttributes(t, "stat", a, content)
		if got := mustRead(t, s, key); got != content {
			t.Errorf("read %q: got %d bytes, want %d", key, len(got), len(content))
		}
	}
}

func oddNames(t *testing.T, s blob.Store) {
	names := []blob.Key{"a b/c", "a/100%", "a/%41", "a/?x=y", "a/#h", "a/ä/日本", "a/'\"<&>", "a/..b", "a/.csv", "a/[x]*", "a/back\\slash", "a/line\nbreak", "a/======", blob.Key("b/" + strings.Repeat("x", 255))}
	for _, name := range names {
		mustPut(t, s, name, string(name))
	}
	for _, name := range names {
		if got := mustRead(t, s, name); got != string(name) {
			t.Errorf("read %q: got %q", name, got)
		}
	}
	got := keys(t, s, "")
	if slices.Sort(names); len(got) != len(names) {
		t.Errorf("list: got %q, want %q", got, names)
	}
	for _, bad := range []blob.Key{"", "/a", "a/", "a//b", "a/../b", "..", "a/./b", "a\x00b", "a/\xff", ".hidden", blob.Key(strings.Repeat("x", 256)), blob.Key(strings.Repeat("x/", 600) + "x")} {
		if _, err := s.Put(t.Context(), bad, strings.NewReader("x"), blob.PutOptions{}); !errors.Is(err, aloft.ErrInvalid) {
			t.Errorf("put %q: got error %v, want ErrInvalid", bad, err)
		}
		if _, err := s.Get(t.Context(), bad, blob.Range{}); !errors.Is(err, aloft.ErrInvalid) {
			t.Errorf("get %q: got error %v, want ErrInvalid", bad, err)
		}
		if _, err := s.Stat(t.Context(), bad); !errors.Is(err, aloft.ErrInvalid) {
			t.Errorf("stat %q: got error %v, want ErrInvalid", bad, err)
		}
	}
}

func immutable(t *testing.T, s blob.Store) {
	mustPut(t, s, "k", "one")
	mustPut(t, s, "k", "one")
	if _, err := s.Put(t.Context(), "k", strings.NewReader("two"), blob.PutOptions{}); !errors.Is(err, aloft.ErrExists) {
		t.Errorf("put other content: got error %v, want ErrExists", err)
	}
	if _, err := s.Put(t.Context(), "k", strings.NewReader("one"), blob.PutOptions{IfAbsent: true}); !errors.Is(err, aloft.ErrExists) {
		t.Errorf("put same content if absent: got error %v, want ErrExists", err)
	}
	if got := mustRead(t, s, "k"); got != "one" {
		t.Errorf("after refused puts: got %q, want one", got)
	}
	a, err := s.Put(t.Context(), "k", strings.NewReader("two"), blob.PutOptions{Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	wantAttributes(t, "overwrite", a, "two")
	if a, err = s.Stat(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	wantAttributes(t, "stat after overwrite", a, "two")
}

func announced(t *testing.T, s blob.Store) {
	wrong := md5.Sum([]byte("other"))
	four := int64(4)
	for name, o := range map[string]blob.PutOptions{
		"md5":    {ContentMD5: wrong[:]},
		"sha256": {SHA256: "sha256:00"},
		"size":   {Size: &four},
	} {
		if _, err := s.Put(t.Context(), "k", strings.NewReader("hello"), o); !errors.Is(err, aloft.ErrInvalid) {
			t.Errorf("wrong %s: got error %v, want ErrInvalid", name, err)
		}
		wantAbsent(t, s, "k")
	}
	right, five := digests("hello"), int64(5)
	if _, err := s.Put(t.Context(), "k", strings.NewReader("hello"), blob.PutOptions{ContentMD5: right.MD5, SHA256: right.SHA256, Size: &five}); err != nil {
		t.Errorf("right announcement: %v", err)
	}
}

func failingReader(t *testing.T, s blob.Store) {
	var read *blob.ReadError
	_, err := s.Put(t.Context(), "k", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF)), blob.PutOptions{})
	if !errors.As(err, &read) || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("got error %v, want a ReadError of unexpected EOF that is not ErrUnavailable", err)
	}
	wantAbsent(t, s, "k")
}

func cancelled(t *testing.T, s blob.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	r := readerFunc(func(p []byte) (int, error) { cancel(); return copy(p, "x"), nil }) // never ends by itself
	if _, err := s.Put(ctx, "k", r, blob.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	wantAbsent(t, s, "k")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func ranges(t *testing.T, s blob.Store) {
	mustPut(t, s, "k", "0123456789")
	for _, c := range []struct {
		rng  blob.Range
		want string
	}{{blob.Range{}, "0123456789"}, {blob.Range{Offset: 3}, "3456789"}, {blob.Range{Offset: 3, Length: 2}, "34"}, {blob.Range{Length: 4}, "0123"}, {blob.Range{Offset: 8, Length: 9}, "89"}, {blob.Range{Offset: 10}, ""}, {blob.Range{Offset: 99, Length: 1}, ""}} {
		r, err := s.Get(t.Context(), "k", c.rng)
		if err != nil {
			t.Errorf("%+v: %v", c.rng, err)
			continue
		}
		got, err := io.ReadAll(r)
		if r.Close(); string(got) != c.want || err != nil {
			t.Errorf("%+v: got %q, %v; want %q", c.rng, got, err, c.want)
		}
	}
	if _, err := s.Get(t.Context(), "k", blob.Range{Offset: -1}); !errors.Is(err, aloft.ErrInvalid) {
		t.Errorf("negative offset: got error %v, want ErrInvalid", err)
	}
}

func listing(t *testing.T, s blob.Store) {
	for _, key := range []blob.Key{"a/b/2", "a/bc", "a/b/1", "a/b/sub/x", "z"} {
		mustPut(t, s, key, string(key))
	}
	for prefix, want := range map[blob.Key][]blob.Key{
		"":        {"a/b/1", "a/b/2", "a/b/sub/x", "a/bc", "z"},
		"a/b":     {"a/b/1", "a/b/2", "a/b/sub/x"},
		"a/bc":    {"a/bc"},
		"a/":      nil, // no valid key, and a prefix is a key
		"z/below": nil,
		"nothing": nil,
	} {
		if prefix == "a/" {
			continue
		}
		if got := keys(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("list %q: got %q, want %q", prefix, got, want)
		}
	}
	for e, err := range s.List(t.Context(), "a") {
		if err != nil || e.Size != int64(len(e.Key)) || e.ModTime.IsZero() {
			t.Errorf("entry %+v, error %v", e, err)
		}
		break // stopping early must be possible
	}
}

func deleting(t *testing.T, s blob.Store) {
	mustPut(t, s, "a/b", "x")
	for range 2 {
		if err := s.Delete(t.Context(), "a/b"); err != nil {
			t.Errorf("delete: %v", err)
		}
		wantAbsent(t, s, "a/b")
	}
	mustPut(t, s, "a/b", "other content is free again")
}

func absence(t *testing.T, s blob.Store) {
	wantAbsent(t, s, "a/b")
	mustPut(t, s, "a/b", "x")
	wantAbsent(t, s, "a") // a prefix is not an object
	wantAbsent(t, s, "a/b/c")
}

func oneWinner(t *testing.T, s blob.Store) {
	const n = 8
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, errs[i] = s.Put(context.Background(), "x/y/k", strings.NewReader(fmt.Sprint("content ", i)), blob.PutOptions{})
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner < 0:
			winner = i
		case err == nil:
			t.Errorf("puts %d and %d both succeeded", winner, i)
		case !errors.Is(err, aloft.ErrExists):
			t.Errorf("put %d: got error %v, want ErrExists", i, err)
		}
	}
	if got := mustRead(t, s, "x/y/k"); got != fmt.Sprint("content ", winner) {
		t.Errorf("got %q, but put %d was told that it succeeded", got, winner)
	}
}

func sameContent(t *testing.T, s blob.Store) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Put(context.Background(), "x/y/k", strings.NewReader("same"), blob.PutOptions{}); err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
}

func large(t *testing.T, s blob.Store) {
	const size = 8 << 20
	a, err := s.Put(t.Context(), "large", io.LimitReader(readerFunc(func(p []byte) (int, error) {
		for i := range p {
			p[i] = 'x'
		}
		return len(p), nil
	}), size), blob.PutOptions{})
	if err != nil || a.Size != size {
		t.Fatalf("got size %d, error %v", a.Size, err)
	}
	if _, err := blob.ReadAll(t.Context(), s, "large", size-1); !errors.Is(err, aloft.ErrExhausted) {
		t.Errorf("read above the limit: got error %v, want ErrExhausted", err)
	}
}

func verify(t *testing.T, s blob.Store) {
	a := mustPut(t, s, "k", "good")
	if err := blob.Verify(t.Context(), s, "k", a.SHA256); err != nil {
		t.Errorf("good object: %v", err)
	}
	if _, err := s.Put(t.Context(), "k", strings.NewReader("evil"), blob.PutOptions{Overwrite: true}); err != nil {
		t.Fatal(err)
	}
	if err := blob.Verify(t.Context(), s, "k", a.SHA256); !errors.Is(err, aloft.ErrConflict) {
		t.Errorf("changed object: got error %v, want ErrConflict", err)
	}
	s.Delete(t.Context(), "k")
	if err := blob.Verify(t.Context(), s, "k", a.SHA256); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("missing object: got error %v, want ErrNotFound", err)
	}
}

func check(t *testing.T, s blob.Store) {
	mustPut(t, s, "a/b/c", "x")
	for key, want := range map[blob.Key]error{
		"a/b/c": nil, "a/b": nil, "a": nil, "a/b/c/d": aloft.ErrNotFound, "a/bc": aloft.ErrNotFound, "none": aloft.ErrNotFound, "a/../b": aloft.ErrInvalid,
	} {
		if err := s.Check(t.Context(), key); !errors.Is(err, want) {
			t.Errorf("check %q: got error %v, want %v", key, err, want)
		}
	}
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), "a/b/c"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("check of what was deleted: got error %v, want ErrNotFound", err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func paths(t *testing.T, s blob.Local) {
	for _, key := range []blob.Key{"a", "a/b c/%41"} {
		path := s.Path(key)
		if got, ok := s.KeyOf(path); !filepath.IsAbs(path) || !ok || got != key {
			t.Errorf("key of path %q of %q: got %q, %v", path, key, got, ok)
		}
	}
	for _, path := range []string{"", "/", "/etc/passwd", s.Path("a") + "/../../../x", filepath.Dir(s.Path("a")), filepath.Dir(s.Path("a")) + "x/a", "a"} {
		if key, ok := s.KeyOf(path); ok {
			t.Errorf("key of %q: got %q, want none", path, key)
		}
	}
}

func adopt(t *testing.T, s blob.Local) {
	want := map[blob.Key]string{"raw/x/1": "one", "raw/x/sub/2": "two", "raw/x/sub/deep/3": "", "raw/x/sub/ö": "name"}
	for key, content := range want {
		write(t, s.Path(key), content)
	}
	write(t, s.Path("raw/xy"), "beside, not below")
	got, err := s.Adopt(t.Context(), "raw/x")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("got %d objects, want %d: %+v", len(got), len(want), got)
	}
	for _, o := range got {
		wantAttributes(t, "adopt "+string(o.Key), o.Attributes, want[o.Key])
		a, err := s.Stat(t.Context(), o.Key)
		if err != nil {
			t.Fatal(err)
		}
		wantAttributes(t, "stat "+string(o.Key), a, want[o.Key])
	}
	if !slices.IsSortedFunc(got, func(a, b blob.Object) int {
		return slices.Compare(strings.Split(string(a.Key), "/"), strings.Split(string(b.Key), "/"))
	}) {
		t.Errorf("not in the order of a listing: %+v", got)
	}
}

func adoptNothing(t *testing.T, s blob.Local) {
	if got, err := s.Adopt(t.Context(), "raw/none"); err != nil || len(got) != 0 {
		t.Errorf("absent prefix: got %v, %v", got, err)
	}
	if err := os.MkdirAll(s.Path("raw/empty/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Adopt(t.Context(), "raw/empty"); err != nil || len(got) != 0 {
		t.Errorf("empty folders: got %v, %v", got, err)
	}
	if _, err := s.Adopt(t.Context(), "raw/../x"); !errors.Is(err, aloft.ErrInvalid) {
		t.Errorf("bad prefix: got error %v, want ErrInvalid", err)
	}
}

func adoptAgain(t *testing.T, s blob.Local) {
	write(t, s.Path("raw/x/1"), "one")
	for range 2 {
		got, err := s.Adopt(t.Context(), "raw/x")
		if err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
		wantAttributes(t, "adopt", got[0].Attributes, "one")
	}
}

func adoptLinks(t *testing.T, s blob.Local) {
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "mine")
	if err := os.MkdirAll(s.Path("raw/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(outside, s.Path("raw/x/symbolic")), os.Link(outside, s.Path("raw/x/hard"))); err != nil {
		t.Skipf("links are not possible here: %v", err)
	}
	if _, err := s.Adopt(t.Context(), "raw/x"); err != nil {
		t.Fatal(err)
	}
	write(t, outside, "changed later") // must still be writable, and must not reach the objects
	for _, key := range []blob.Key{"raw/x/symbolic", "raw/x/hard"} {
		if got := mustRead(t, s, key); got != "mine" {
			t.Errorf("%s: got %q, want the content at adoption", key, got)
		}
	}
}

func adoptRefuses(t *testing.T, s blob.Local) {
	write(t, s.Path("raw/x/fine"), "fine")
	write(t, s.Path("raw/x")+"/bad\xffname", "x")
	os.Symlink("nowhere", s.Path("raw/x/dangling"))
	os.Symlink(".", s.Path("raw/x/loop"))
	_, err := s.Adopt(t.Context(), "raw/x")
	if !errors.Is(err, aloft.ErrInvalid) {
		t.Fatalf("got error %v, want ErrInvalid", err)
	}
	for _, name := range []string{`bad\xffname`, "raw/x/dangling", "raw/x/loop"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error %q does not name %s", err, name)
		}
	}
}

func adoptOne(t *testing.T, s blob.Local) {
	write(t, s.Path("run/outputs.pb"), "outputs")
	got, err := s.Adopt(t.Context(), "run/outputs.pb")
	if err != nil || len(got) != 1 || got[0].Key != "run/outputs.pb" {
		t.Fatalf("got %v, %v", got, err)
	}
	wantAttributes(t, "adopt", got[0].Attributes, "outputs")
}

func readOnly(t *testing.T, s blob.Local) {
	mustPut(t, s, "put", "x")
	write(t, s.Path("raw/adopted"), "x")
	if _, err := s.Adopt(t.Context(), "raw/adopted"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []blob.Key{"put", "raw/adopted"} {
		info, err := os.Stat(s.Path(key))
		if err != nil || info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s: mode %v, error %v; want a file that nobody may write", key, info.Mode(), err)
		}
	}
}

func belowObject(t *testing.T, s blob.Local) {
	mustPut(t, s, "a/b", "x")
	for _, key := range []blob.Key{"a/b/c", "a/b/c/d", "a"} {
		for _, overwrite := range []bool{false, true} {
			if _, err := s.Put(t.Context(), key, strings.NewReader("y"), blob.PutOptions{Overwrite: overwrite}); !errors.Is(err, aloft.ErrExists) {
				t.Errorf("put %q, overwrite %v: got error %v, want ErrExists", key, overwrite, err)
			}
		}
	}
}

func private(t *testing.T, s blob.Local) {
	mustPut(t, s, "one", "content")
	mustPut(t, s, "all/a", "A")
	mustPut(t, s, "all/deep/b c", "B")
	dir := t.TempDir()
	for key, files := range map[blob.Key]map[string]string{"one": {"": "content"}, "all": {"/a": "A", "/deep/b c": "B"}} {
		dst := filepath.Join(dir, string(key))
		if err := s.Private(t.Context(), key, dst); err != nil {
			t.Fatal(err)
		}
		for name, want := range files {
			if got, err := os.ReadFile(dst + name); err != nil || string(got) != want {
				t.Errorf("copy of %s%s: got %q, %v, want %q", key, name, got, err, want)
			}
			if err := os.WriteFile(dst+name, []byte("changed"), 0); err != nil {
				t.Errorf("a copy can be written to: %v", err)
			}
			if got := mustRead(t, s, blob.Key(string(key)+name)); got != want {
				t.Errorf("after a write to the copy of %s%s the object is %q", key, name, got)
			}
		}
		if err := os.RemoveAll(dst); err != nil {
			t.Errorf("a copy can be removed: %v", err)
		}
	}
	for _, key := range []blob.Key{"none", "one/below", "al"} {
		if err := s.Private(t.Context(), key, filepath.Join(dir, "x")); !errors.Is(err, aloft.ErrNotFound) {
			t.Errorf("copy of %s, which is not there: got error %v, want ErrNotFound", key, err)
		}
	}
}

// damaged needs a store that can record attributes of objects, such as a file system with extended attributes.
func damaged(t *testing.T, s blob.Local) {
	for name, c := range map[string]struct {
		damage func(dir string) error
		want   error
	}{
		"as it was":         {func(string) error { return nil }, nil},
		"one file removed":  {func(dir string) error { return os.Remove(dir + "/a") }, aloft.ErrConflict},
		"all files removed": {func(dir string) error { return errors.Join(os.Remove(dir+"/a"), os.Remove(dir+"/b")) }, aloft.ErrConflict},
		"one file added":    {func(dir string) error { return os.WriteFile(dir+"/c", nil, 0o644) }, aloft.ErrConflict},
		"one file changed": {func(dir string) error {
			return errors.Join(os.Chmod(dir+"/a", 0o644), os.WriteFile(dir+"/a", []byte("changed"), 0))
		}, aloft.ErrConflict},
		"removed": {os.RemoveAll, aloft.ErrNotFound},
	} {
		key := blob.Key("raw/" + strings.ReplaceAll(name, " ", "-"))
		write(t, s.Path(key)+"/a", "A")
		write(t, s.Path(key)+"/b", "B")
		if _, err := s.Adopt(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if err := c.damage(s.Path(key)); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(t.Context(), key); !errors.Is(err, c.want) {
			t.Errorf("check of a folder, %s: got error %v, want %v", name, err, c.want)
		}
		if err := s.Private(t.Context(), key, filepath.Join(t.TempDir(), "copy")); !errors.Is(err, c.want) {
			t.Errorf("copy of a folder, %s: got error %v, want %v", name, err, c.want)
		}
	}
}
