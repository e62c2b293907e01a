package folder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/aloft-dev/aloft/blob"
)

// lazyDisk is a disk that syncs nothing, and tells each folder that is to be synced.
type lazyDisk struct {
	osDisk
	synced func()
}

func (lazyDisk) SyncFile(string) error { return nil }

func (d lazyDisk) SyncDir(string) error {
	if d.synced != nil {
		d.synced()
	}
	return nil
}

func openLazily(t testing.TB) *Store {
	t.Helper()
	s, err := open(filepath.Join(t.TempDir(), "blob"), lazyDisk{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leave makes n empty folders, and n files beside them, as a task may leave them.
func leave(t testing.TB, dir string, n int) {
	t.Helper()
	for i := range n {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, fmt.Sprint("d", i)), 0o700), os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAdoptionOfFilesBesideManyFoldersCostsTheirSum(t *testing.T) { //nolint:paralleltest // allocations of other tests would count
	const n = 100
	s := openLazily(t)
	run := 0
	allocations := func(files int) float64 {
		run++
		key := blob.Key(fmt.Sprint("raw/aa/the-raw-outputs-of-an-attempt-", run))
		leave(t, s.Path(key), files)
		return testing.AllocsPerRun(1, func() { // the files are adopted already by the first run
			if objects, err := s.Adopt(t.Context(), key); err != nil || len(objects) != files {
				t.Fatalf("%d objects, %v", len(objects), err)
			}
		})
	}
	few, many := allocations(n), allocations(4*n)
	if many > 5*few {
		t.Errorf("%d folders and files make %.0f allocations, four times as many %.0f", 2*n, few, many)
	}
}

func TestAdoptionEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	s := openLazily(t)
	leave(t, s.Path("raw/x"), 100)
	ctx, cancel := context.WithCancel(t.Context())
	synced := 0
	s.disk = lazyDisk{synced: func() { synced++; cancel() }}
	if _, err := s.Adopt(ctx, "raw/x"); !errors.Is(err, context.Canceled) || synced != 1 {
		t.Errorf("it is %v, after %d folders were synced", err, synced)
	}
	if err := s.recordListings(ctx, []string{s.Path("raw/x")}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("recording what is in folders: %v", err)
	}
	if _, _, err := s.survey(ctx, "raw/x"); !errors.Is(err, context.Canceled) {
		t.Errorf("finding what is there: %v", err)
	}
}

func TestTheListingOfEachFolderIsOfWhatIsBelowIt(t *testing.T) {
	t.Parallel()
	s := openLazily(t)
	for _, name := range []string{"a/b/c/f", "a/b/g", "a/b-c/h", "a/z", "b/i"} { // "-" is before "/"
		path := filepath.Join(s.Path("raw/x"), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(s.Path("raw/x/a/b/empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	objects, err := s.Adopt(t.Context(), "raw/x")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []blob.Key{"raw/x", "raw/x/a", "raw/x/a/b", "raw/x/a/b/c", "raw/x/a/b/empty", "raw/x/a/b-c", "raw/x/b"} {
		var below []blob.Object
		for _, o := range objects {
			if o.Key.Within(dir) {
				below = append(below, o)
			}
		}
		want, _ := blob.DigestBelow(dir, below)
		switch got := readListing(s.Path(dir)); got {
		case "":
			t.Skip("this file system has no extended attributes")
		case want:
		default:
			t.Errorf("%s is recorded to hold %s, want %s", dir, got, want)
		}
	}
}

// The guard of the disk must see progress in a list that walks many folders without an object.
func TestAListGetsOnAmongFoldersWithoutObjects(t *testing.T) {
	t.Parallel()
	s := openLazily(t)
	for i := range 100 {
		if err := os.MkdirAll(filepath.Join(s.Path("raw/x"), fmt.Sprint("d", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	steps, gone := 0, errors.New("its caller has gone")
	goOn := func() error {
		if steps++; steps == 100 {
			return gone
		}
		return nil
	}
	for e, err := range s.list("raw/x", goOn) {
		if !errors.Is(err, gone) {
			t.Errorf("it gives %v, %v", e, err)
		}
	}
	if steps != 100 {
		t.Errorf("it gave %d signs of life for 101 folders, and was to end after 100", steps)
	}
}
