package folder_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
)

func TestAPrivateCopyOfAFolderHasAllThatTheFolderHas(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	deep := strings.Repeat("d/", 60)
	files := []string{"a", "odd \\ \n\t\"name", "ü/%41?#", deep + "end", "empty"}
	for _, name := range files {
		path := s.Path("raw/x") + "/" + name
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(strings.Repeat(name, min(3, len(name)))), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(s.Path("raw/x")+"/folder/without/files", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(t.Context(), "raw/x"); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := s.Private(t.Context(), "raw/x", dst); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, dst), tree(t, s.Path("raw/x")); got != want {
		t.Errorf("the copy is\n%s\nwant\n%s", got, want)
	}
	_ = filepath.WalkDir(dst, func(path string, d fs.DirEntry, _ error) error {
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o200 == 0 {
			t.Errorf("%s has mode %v, %v: its owner may not write to it", path, info.Mode(), err)
		}
		return nil
	})
}

// tree is the names and contents of all files below a folder.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var content []byte
		if !d.IsDir() {
			content, err = os.ReadFile(path)
		}
		fmt.Fprintf(&all, "%q %v %q\n", path[len(dir):], d.IsDir(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestAFolderOfManyFilesIsCopiedWhole(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	const files = 5000
	for i := range files {
		path := fmt.Sprintf("%s/%d/%d", s.Path("many"), i/100, i)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte{byte(i)}, 0o444)); err != nil {
			t.Fatal(err)
		}
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := s.Private(t.Context(), "many", dst); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(tree(t, dst), " false "); got != files {
		t.Errorf("the copy has %d files, want %d", got, files)
	}
}

func TestWhatIsNotAllThereIsNotCopied(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	for _, key := range []blob.Key{"x/a", "x/b"} {
		if _, err := s.Put(t.Context(), key, strings.NewReader("content"), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(s.Path("x/b"), 0o644), os.Truncate(s.Path("x/b"), 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.Private(t.Context(), "x", filepath.Join(t.TempDir(), "copy")); !errors.Is(err, aloft.ErrConflict) {
		t.Errorf("a folder with a file that was cut: got %v, want ErrConflict", err)
	}
}

func TestAFolderOfWhichAFileIsMissingOrAnotherIsNotCopied(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(dir string) error
		want   error
	}{
		"as it was":               {func(string) error { return nil }, nil},
		"a file is missing":       {func(dir string) error { return os.Remove(dir + "/a") }, aloft.ErrConflict},
		"a file below is missing": {func(dir string) error { return os.Remove(dir + "/deep/er/b") }, aloft.ErrConflict},
		"a folder is missing":     {func(dir string) error { return os.RemoveAll(dir + "/deep") }, aloft.ErrConflict},
		"everything is missing": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/a"), os.Remove(dir+"/ab"), os.RemoveAll(dir+"/deep"))
		}, aloft.ErrConflict},
		"there is another file":    {func(dir string) error { return os.WriteFile(dir+"/new", nil, 0o600) }, aloft.ErrConflict},
		"one is exchanged":         {func(dir string) error { return os.Rename(dir+"/deep/er/b", dir+"/a") }, aloft.ErrConflict},
		"one has another name":     {func(dir string) error { return os.Rename(dir+"/a", dir+"/c") }, aloft.ErrConflict},
		"its record alone is gone": {func(dir string) error { return unix.Removexattr(dir+"/a", "user.aloft.digest") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openFolder(t)
			dir := s.Path("raw/x/out")
			for _, name := range []string{"a", "ab", "deep/er/b"} {
				if err := errors.Join(os.MkdirAll(filepath.Dir(dir+"/"+name), 0o755), os.WriteFile(dir+"/"+name, []byte(name), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Adopt(t.Context(), "raw/x"); err != nil {
				t.Fatal(err)
			}
			if err := test.change(dir); errors.Is(err, unix.ENOTSUP) {
				t.Skip("no extended attributes here")
			} else if err != nil {
				t.Fatal(err)
			}
			if err := s.Private(t.Context(), "raw/x/out", filepath.Join(t.TempDir(), "copy")); !errors.Is(err, test.want) {
				t.Errorf("a copy gives %v, want %v", err, test.want)
			}
			if err := s.Check(t.Context(), "raw/x/out"); !errors.Is(err, test.want) {
				t.Errorf("a check gives %v, want %v", err, test.want)
			}
		})
	}
}

// sparseObject is an object of size bytes that holds one block of data in its middle.
func sparseObject(t testing.TB, s *folder.Store, size int64) {
	t.Helper()
	path := s.Path("sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("data"), size/2)
	if err := errors.Join(err, f.Truncate(size), f.Chmod(0o444)); err != nil { // it gets no record: to hash it takes long
		t.Fatal(err)
	}
}

func TestHolesStayHoles(t *testing.T) {
	t.Parallel()
	s := openFolder(t)
	const size = 1 << 30
	sparseObject(t, s, size)
	if used(t, s.Path("sparse")) > 1<<20 {
		t.Skip("this file system knows no holes")
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := s.Private(t.Context(), "sparse", dst); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dst)
	if err != nil || info.Size() != size {
		t.Fatalf("the copy has %d bytes, %v; want %d", info.Size(), err, int64(size))
	}
	if n := used(t, dst); n > 1<<20 {
		t.Errorf("the copy takes %d bytes of the disk", n)
	}
	f, err := os.Open(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 8)
	if _, err := f.ReadAt(got, size/2-2); err != nil || !bytes.Equal(got, []byte("\x00\x00data\x00\x00")) {
		t.Errorf("in its middle the copy has %q, %v", got, err)
	}
}

// used is how many bytes of the disk a file takes.
func used(t testing.TB, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestFilesAreClonedWhereTheFileSystemCan looks at the blocks where ALOFT_TEST_CLONES names a folder of a file system with clones
// (XFS, Btrfs): internal/clone/xfs_test.sh makes one and runs it.
func TestFilesAreClonedWhereTheFileSystemCan(t *testing.T) {
	t.Parallel()
	dir, clones := t.TempDir(), os.Getenv("ALOFT_TEST_CLONES")
	if clones != "" {
		dir = filepath.Join(clones, t.Name())
		defer os.RemoveAll(dir)
	}
	s, err := folder.Open(filepath.Join(dir, "blob"))
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	if _, err := s.Put(t.Context(), "k", bytes.NewReader(content), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		unix.Sync()
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bfree) * int64(st.Bsize) //nolint:unconvert // of another type elsewhere
	}
	before := free()
	for i := range 10 {
		if err := s.Private(t.Context(), "k", filepath.Join(dir, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if took := before - free(); clones != "" && took > int64(len(content))/2 {
		t.Errorf("ten copies took %d bytes of the disk, want next to nothing", took)
	}
	if err := os.WriteFile(filepath.Join(dir, "0"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(s.Path("k")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after a write to a clone the object has %d bytes, %v", len(got), err)
	}
}

// The figures of docs/inputs.md: go test -bench PrivateCopy ./blob/folder, in ALOFT_TEST_CLONES or TMPDIR.
func BenchmarkPrivateCopy(b *testing.B) {
	dir := b.TempDir()
	if clones := os.Getenv("ALOFT_TEST_CLONES"); clones != "" {
		dir = filepath.Join(clones, b.Name())
		defer os.RemoveAll(dir)
	}
	s, err := folder.Open(filepath.Join(dir, "blob"))
	if err != nil {
		b.Fatal(err)
	}
	sparseObject(b, s, 10<<30)
	for name, size := range map[string]int{"1KiB": 1 << 10, "1MiB": 1 << 20, "100MiB": 100 << 20, "1GiB": 1 << 30} {
		if _, err := s.Put(b.Context(), blob.Key(name), &zeros{size}, blob.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 10_000 {
		path := fmt.Sprintf("%s/%d", s.Path("folder-of-10000"), i)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte{byte(i)}, 0o444)); err != nil {
			b.Fatal(err)
		}
	}
	for _, key := range []blob.Key{"sparse", "1KiB", "1MiB", "100MiB", "1GiB", "folder-of-10000"} {
		b.Run(string(key), func(b *testing.B) {
			for b.Loop() {
				dst := filepath.Join(dir, "copy")
				if err := s.Private(b.Context(), key, dst); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := os.RemoveAll(dst); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// zeros is a reader of so many zero bytes: written to a file, they make no hole.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	n := min(len(p), z.left)
	if n == 0 {
		return 0, io.EOF
	}
	clear(p[:n])
	p[0] = byte(time.Now().Nanosecond())
	z.left -= n
	return n, nil
}
