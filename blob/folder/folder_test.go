package folder_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/blobtest"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func openFolder(t testing.TB) *folder.Store {
	t.Helper()
	s, err := folder.Open(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFolderMeetsTheContractOfAStore(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) blob.Store { return openFolder(t) })
}

func TestAnObjectThatWasChangedIsNoticedAndMended(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	put := func(content string) error {
		_, err := s.Put(t.Context(), "k", strings.NewReader(content), blob.PutOptions{})
		return err
	}
	if err := put("before"); err != nil {
		t.Fatal(err)
	}
	// A process with the right to do so writes into the object behind our back.
	if err := errors.Join(os.Chmod(s.Path("k"), 0o644), os.WriteFile(s.Path("k"), []byte("beyond"), 0), os.Chtimes(s.Path("k"), time.Time{}, time.Unix(1, 0))); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Stat(t.Context(), "k"); !errors.Is(err, aloft.ErrConflict) {
		t.Errorf("stat gave %+v, %v; want ErrConflict", a, err)
	}
	if err := s.Private(t.Context(), "k", filepath.Join(t.TempDir(), "copy")); !errors.Is(err, aloft.ErrConflict) {
		t.Errorf("a copy for a task gave %v; want ErrConflict", err)
	}
	if err := put("other"); !errors.Is(err, aloft.ErrExists) {
		t.Errorf("other content gave %v, want ErrExists", err)
	}
	if err := put("before"); err != nil {
		t.Errorf("the content that was stored gave %v, want it mended", err)
	}
	d := blob.NewDigest()
	d.Write([]byte("before"))
	if a, err := s.Stat(t.Context(), "k"); err != nil || a.SHA256 != d.Attributes().SHA256 {
		t.Errorf("got %+v, %v; want what was stored", a, err)
	}
}

// A data folder that was copied has other inodes, and a backup may have other times.
func TestAnObjectThatLooksDifferentButIsNotIsRecordedAnew(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	if _, err := s.Put(t.Context(), "k", strings.NewReader("same"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(s.Path("k"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.Path("k"))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("its mode is %v, %v; want 0400", info.Mode(), err)
	}
	record := make([]byte, 256)
	n, err := unix.Getxattr(s.Path("k"), "user.aloft.digest", record)
	if errors.Is(err, unix.ENOTSUP) {
		t.Skip("this file system has no extended attributes")
	}
	if want := fmt.Sprintf(" %d ", time.Unix(1, 0).UnixNano()); !strings.Contains(string(record[:max(n, 0)]), want) {
		t.Errorf("its record is %q, %v; want one for the time it has now", record[:max(n, 0)], err)
	}
}

func TestALinkBelowAPrefixIsNoObject(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	if err := errors.Join(os.MkdirAll(s.Path("raw"), 0o755), os.Symlink("/etc/passwd", s.Path("raw/x"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "raw/x"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("stat gave %v, want ErrNotFound", err)
	}
	if r, err := s.Get(t.Context(), "raw/x", blob.Range{}); !errors.Is(err, aloft.ErrNotFound) {
		r.Close()
		t.Errorf("get gave %v, want ErrNotFound", err)
	}
	if err := s.Private(t.Context(), "raw/x", filepath.Join(t.TempDir(), "copy")); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("a copy gave %v, want ErrNotFound", err)
	}
}

// A folder may be a link, too, and lead out of the store.
func TestNothingIsAnObjectBelowAFolderThatIsALink(t *testing.T) {
	t.Parallel()
	s, outside := openFolder(t), t.TempDir()
	file := filepath.Join(outside, "dir", "secret")
	if err := errors.Join(os.MkdirAll(s.Path("raw"), 0o755), os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("x"), 0o644),
		os.Symlink(outside, s.Path("raw/x"))); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []blob.Key{"raw/x", "raw/x/dir", "raw/x/dir/secret"} {
		for e, err := range s.List(t.Context(), prefix) {
			t.Errorf("below %s there is %v, %v", prefix, e, err)
		}
		if err := s.Private(t.Context(), prefix, filepath.Join(t.TempDir(), "copy")); !errors.Is(err, aloft.ErrNotFound) {
			t.Errorf("a copy of %s gave %v, want ErrNotFound", prefix, err)
		}
	}
	if _, err := s.Stat(t.Context(), "raw/x/dir/secret"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("stat gave %v, want ErrNotFound", err)
	}
	if err := s.Delete(t.Context(), "raw/x/dir/secret"); err != nil {
		t.Errorf("delete gave %v, want nothing", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the file outside: %v", err)
	}
}

// A list that names one value many times shares it in memory. Read back from its object, it has a copy for each time.
func TestLiteralsThatWouldTakeTooMuchMemoryWhereTheyAreReadAreRefused(t *testing.T) {
	t.Parallel()
	light := &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: make([]*core.Literal, 100_000)}}}
	for i := range light.GetCollection().GetLiterals() {
		light.GetCollection().Literals[i] = &core.Literal{}
	}
	heavy := &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: slices.Repeat([]*core.Literal{light}, 100)}}}
	literals := blob.Literals{Store: openFolder(t)}
	for _, test := range []struct {
		value *core.Literal
		want  error
	}{{light, nil}, {heavy, aloft.ErrExhausted}} {
		if _, err := literals.WriteLiterals(t.Context(), &core.LiteralMap{Literals: map[string]*core.Literal{"x": test.value}}); !errors.Is(err, test.want) {
			t.Errorf("%d lists of empty literals: %v, want %v", len(test.value.GetCollection().GetLiterals()), err, test.want)
		}
	}
}

// A cached result whose outputs were damaged is computed again, and its outputs have the same name as before.
func TestLiteralsThatWereDamagedAreWrittenAgain(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	literals := blob.Literals{Store: s}
	large := &core.LiteralMap{Literals: map[string]*core.Literal{"o0": {Hash: strings.Repeat("x", aloft.MaxInlineLiterals+1)}}}
	written, err := literals.WriteLiterals(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	key, err := blob.ParseURI(written.GetRef().GetUri())
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []bool{true, false} { // the time at which the file was last changed
		info, err := os.Stat(s.Path(key))
		if err != nil {
			t.Fatal(err)
		}
		damaged := bytes.Repeat([]byte("?"), int(info.Size()))
		if err := errors.Join(os.Chmod(s.Path(key), 0o644), os.WriteFile(s.Path(key), damaged, 0)); err != nil {
			t.Fatal(err)
		}
		if kept {
			if err := os.Chtimes(s.Path(key), time.Time{}, info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := literals.ReadLiterals(t.Context(), written.GetRef()); !errors.Is(err, aloft.ErrConflict) {
			t.Fatalf("reading what was damaged gave %v, want a conflict", err)
		}
		if _, err := literals.WriteLiterals(t.Context(), large); err != nil {
			t.Errorf("writing what was damaged again (its time kept: %t): %v", kept, err)
		}
		if got, err := literals.ReadLiterals(t.Context(), written.GetRef()); err != nil || !proto.Equal(got, large) {
			t.Errorf("what was damaged and written again (its time kept: %t) gave %v", kept, err)
		}
	}
}

func TestAPathThroughALinkedDataFolderIsRecognised(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(base, "actual"), 0o755), os.Symlink("actual", filepath.Join(base, "link"))); err != nil {
		t.Fatal(err)
	}
	s, err := folder.Open(filepath.Join(base, "link", "blob"))
	if err != nil {
		t.Fatal(err)
	}
	actual, err := filepath.EvalSymlinks(filepath.Join(base, "link", "blob"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(base, "link", "blob", "a", "b"), filepath.Join(actual, "a", "b")} {
		if key, ok := s.KeyOf(path); !ok || key != "a/b" {
			t.Errorf("key of %s: got %q, %v", path, key, ok)
		}
	}
}

func TestOldTemporaryFilesAreRemovedAndYoungOnesKept(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "blob")
	if _, err := folder.Open(root); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(root, ".partial", "put-old"), filepath.Join(root, ".partial", "put-young")
	past := time.Now().Add(-25 * time.Hour)
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(young, nil, 0o600), os.Chtimes(old, past, past)); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Open(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old file is still there (%v)", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young file is gone: %v", err)
	}
}

func TestPutLeavesNoTemporaryFiles(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	for _, content := range []string{"x", "x", "y"} {
		s.Put(t.Context(), "k", strings.NewReader(content), blob.PutOptions{})
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.Path("k")), ".partial", "*", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// The next start removes the temporary file of an upload that a kill has cut off, but not that of an upload which is going on in
// another process.
func TestTemporaryFilesOfDeadStoresAreRemovedAtOnce(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "blob")
	living, err := folder.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(root, ".partial", "store-of-a-dead-process")
	if err := errors.Join(os.Mkdir(dead, 0o700), os.WriteFile(filepath.Join(dead, "put-1"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := living.Put(t.Context(), "k", reader, blob.PutOptions{})
		done <- err
	}()
	if _, err := io.WriteString(writer, "first half, "); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Open(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the dead store was writing is still there (%v)", err)
	}
	if _, err := io.WriteString(writer, "second half"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(writer.Close(), <-done); err != nil {
		t.Errorf("the living store could not end its upload: %v", err)
	}
}

// A task may leave a symbolic link below its raw prefix, and ask for a signed link to the file to which it leads.
func TestALinkThatATaskHasLeftIsNoObject(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600), os.MkdirAll(s.Path("raw/t"), 0o700),
		os.Symlink(outside, s.Path("raw/t/file")), os.Symlink(filepath.Dir(outside), s.Path("raw/t/dir"))); err != nil {
		t.Fatal(err)
	}
	for _, key := range []blob.Key{"raw/t/file", "raw/t/dir/secret"} {
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, aloft.ErrNotFound) {
			t.Errorf("stat %s: %v, want not found", key, err)
		}
		if r, err := s.Get(t.Context(), key, blob.Range{}); !errors.Is(err, aloft.ErrNotFound) {
			t.Errorf("get %s: %v, %v, want not found", key, r, err)
		}
	}
}

func TestObjectsAreReadableByTheirOwnerAlone(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "blob")
	s, err := folder.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a/b/c", strings.NewReader("x"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPut1kB(b *testing.B) {
	s := openFolder(b)
	content := strings.Repeat("x", 1000)
	n := 0
	for b.Loop() {
		n++
		if _, err := s.Put(b.Context(), blob.Key(fmt.Sprintf("run/p/d/e%d/n0/0/outputs.pb", n)), strings.NewReader(content), blob.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAdopt10Files(b *testing.B) {
	s := openFolder(b)
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		prefix := blob.Key(fmt.Sprintf("raw/aa/attempt-%d", n))
		os.MkdirAll(s.Path(prefix), 0o755)
		for i := range 10 {
			if err := os.WriteFile(filepath.Join(s.Path(prefix), fmt.Sprint(i)), []byte(strings.Repeat("x", 1000)), 0o644); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if got, err := s.Adopt(b.Context(), prefix); err != nil || len(got) != 10 {
			b.Fatal(got, err)
		}
	}
}

func TestWithoutItsFolderNothingIsKnownToBeAbsent(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "blob")
	s, err := folder.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "a", strings.NewReader("content"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	// A volume that is not mounted leaves an empty folder in its place.
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "a", blob.Range{}); !errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("Stat: %v", err)
	}
	for _, err := range s.List(t.Context(), "a") {
		if !errors.Is(err, aloft.ErrUnavailable) {
			t.Errorf("List: %v", err)
		}
		return
	}
	t.Error("List says that nothing is there")
}
