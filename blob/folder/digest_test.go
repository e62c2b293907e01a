package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/clone"
)

// stretch is a part of a file that was written.
type stretch struct{ at, bytes int64 }

func writeSparse(t *testing.T, path string, size int64, written ...stretch) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, w := range written {
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte('a' + i%26)}, int(w.bytes)), w.at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func TestADigestIsTheSameWhereverAFileHasHoles(t *testing.T) {
	t.Parallel()
	const part, block = hashedPart, 64 << 10
	var striped []stretch
	for at := int64(0); at < 3*part; at += 2 * block {
		striped = append(striped, stretch{at, block})
	}
	for name, c := range map[string]struct {
		size    int64
		written []stretch
	}{
		"empty":                  {0, nil},
		"one byte":               {1, []stretch{{0, 1}}},
		"a hole alone":           {5*part + 1, nil},
		"a small hole":           {100, nil},
		"no hole":                {2*part + 7, []stretch{{0, 2*part + 7}}},
		"a hole first":           {4*part + 3, []stretch{{3*part + block, block}}},
		"a hole last":            {4 * part, []stretch{{0, 10}}},
		"a hole in between":      {6 * part, []stretch{{0, block + 1}, {6*part - 1, 1}}},
		"stripes":                {3 * part, striped},
		"stripes, then a hole":   {9*part + 5, striped},
		"data at an odd place":   {7 * part, []stretch{{3*part + 4097, part + 1}}},
		"a part without its end": {part - 1, []stretch{{block, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "f")
			writeSparse(t, path, c.size, c.written...)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := blob.NewDigest()
			want.Write(content)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := digestOf(t.Context(), f, info); err != nil || got.Size != c.size || got.SHA256 != want.Attributes().SHA256 || !bytes.Equal(got.MD5, want.Attributes().MD5) {
				t.Errorf("it is %+v, %v; want %+v", got, err, want.Attributes())
			}
			// A file that another process writes to, or cuts off, is read to the end that it has.
			if c.size > 0 {
				for _, size := range []int64{c.size - 1, c.size + 5} {
					if err := os.Truncate(path, size); err != nil {
						t.Fatal(err)
					}
					if got, err := digestOf(t.Context(), f, info); err != nil || size > c.size && got.Size != size {
						t.Errorf("it has %d bytes instead of %d and the digest says %d, %v", size, c.size, got.Size, err)
					}
				}
			}
		})
	}
}

// readSoFar is how many bytes this process has read.
func readSoFar(t *testing.T) (n int64) {
	t.Helper()
	content, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("this system does not count what is read: %v", err)
	}
	if _, err := fmt.Sscanf(string(content), "rchar: %d", &n); err != nil {
		t.Skipf("this system does not count what is read: %v", err)
	}
	return n
}

func TestHolesOfAdoptedFilesAreNotRead(t *testing.T) { //nolint:paralleltest // what other tests read would count
	s := openLazily(t)
	if err := os.MkdirAll(s.Path("raw/x"), 0o700); err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	path := filepath.Join(s.Path("raw/x"), "f")
	writeSparse(t, path, size, stretch{size / 2, 1})
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := clone.NextData(f, 0, size)
	if f.Close(); err != nil || data == 0 {
		t.Skipf("this file system knows no holes: %v", err)
	}
	before := readSoFar(t)
	if objects, err := s.Adopt(t.Context(), "raw/x"); err != nil || len(objects) != 1 || objects[0].Size != size {
		t.Fatalf("%+v, %v", objects, err)
	}
	if n := readSoFar(t) - before; n > 4*hashedPart {
		t.Errorf("%d bytes were read of a file of %d with one", n, size)
	}
}

func TestAFileWaitsForItsTurnToBeHashed(t *testing.T) { //nolint:paralleltest // it takes all turns of the process
	s := openLazily(t)
	leave(t, s.Path("raw/x"), 20)
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(s.Path("raw/x"), fmt.Sprint("f", i)), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range cap(hashing) {
		hashing <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if objects, err := s.Adopt(ctx, "raw/x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("files of others are hashed, and %d objects are adopted, %v", len(objects), err)
	}
	if _, err := s.Put(ctx, "large", strings.NewReader(strings.Repeat("x", freelyHashed+1)), blob.PutOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("files of others are hashed, and a large object is put: %v", err)
	}
	if _, err := s.Put(t.Context(), "small", strings.NewReader(strings.Repeat("x", freelyHashed)), blob.PutOptions{}); err != nil {
		t.Errorf("a small object waits for files of others: %v", err)
	}
	for range cap(hashing) {
		<-hashing
	}
	if objects, err := s.Adopt(t.Context(), "raw/x"); err != nil || len(objects) != 20 {
		t.Errorf("in its turn: %d objects, %v", len(objects), err)
	}
	if len(hashing) != 0 {
		t.Errorf("%d places were not given back", len(hashing))
	}
}
