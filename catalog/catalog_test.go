package catalog_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/blobtest"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/catalog"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// results is a store of results and reservations in memory. It fails every call while err is set.
type results struct {
	mu       sync.Mutex
	entries  []*store.Result
	reserved map[store.ResultID]store.Reservation
	noted    [][]string
	calls    int
	err      error
	onTake   func() // called when a reservation is given
}

func (s *results) enter() (leave func(), err error) {
	s.mu.Lock()
	s.calls++
	if s.err != nil {
		defer s.mu.Unlock()
		return nil, s.err
	}
	return s.mu.Unlock, nil
}

func (s *results) FindResult(_ context.Context, id store.ResultID) (*store.Result, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, e := range s.entries {
		if e.ResultID == id && e.GoneAt.IsZero() {
			return e, nil
		}
	}
	return nil, aloft.ErrNotFound
}

func (s *results) FindResults(ctx context.Context, ids []store.ResultID) ([]*store.Result, error) {
	all := make([]*store.Result, len(ids))
	for i, id := range ids {
		e, err := s.FindResult(ctx, id)
		if err != nil && !errors.Is(err, aloft.ErrNotFound) {
			return nil, err
		}
		all[i] = e
	}
	return all, nil
}

func (s *results) ListResults(_ context.Context, q store.ResultQuery) ([]*store.Result, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	var found []*store.Result
	for _, e := range s.entries {
		if selects(q, e) {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b *store.Result) int {
		if q.Ascending {
			a, b = b, a
		}
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	found = found[min(q.Offset, len(found)):]
	return found[:min(q.Limit, len(found))], nil
}

func (s *results) RemoveResults(_ context.Context, ids []string, reason string, now time.Time) (n int, err error) {
	leave, err := s.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	for _, e := range s.entries {
		if slices.Contains(ids, e.ID) && e.GoneAt.IsZero() {
			e.GoneAt, e.GoneReason = now, reason
			n++
		}
	}
	return n, nil
}

func (s *results) UsedResults(_ context.Context, ids []string, now time.Time) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	s.noted = append(s.noted, slices.Sorted(slices.Values(ids)))
	for _, e := range s.entries {
		if slices.Contains(ids, e.ID) {
			e.UsedAt = now
		}
	}
	return nil
}

func (s *results) Reserve(_ context.Context, r store.Reservation, _ time.Time) (store.Reservation, error) {
	leave, err := s.enter()
	if err != nil {
		return store.Reservation{}, err
	}
	defer leave()
	if held, ok := s.reserved[r.ID]; ok && held.Owner != r.Owner {
		return held, nil
	}
	if s.reserved == nil {
		s.reserved = map[store.ResultID]store.Reservation{}
	}
	s.reserved[r.ID] = r
	if s.onTake != nil {
		s.onTake()
	}
	return r, nil
}

func (s *results) Release(_ context.Context, id store.ResultID, owner string) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	if s.reserved[id].Owner == owner {
		delete(s.reserved, id)
	}
	return nil
}

// put writes objects and returns what an outcome records of them: for a name that ends in / of the folder.
func put(t *testing.T, s blob.Store, uri string, contents ...string) *aloftv1.ObjectDigest {
	t.Helper()
	key := blob.Key(strings.TrimSuffix(uri, "/"))
	var below []blob.Object
	for i, content := range contents {
		k := key
		if strings.HasSuffix(uri, "/") {
			k = blob.Key(fmt.Sprintf("%s/%05d", key, i))
		}
		a, err := s.Put(t.Context(), k, strings.NewReader(content), blob.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		below = append(below, blob.Object{Key: k, Attributes: a})
	}
	digest, size := blob.DigestBelow(key, below)
	return &aloftv1.ObjectDigest{Uri: key.URI(), Digest: digest, Size: size}
}

var computedBy = aloft.AttemptID{Execution: aloft.ExecutionID{Project: "ml", Domain: "staging", Name: "f1"}, Node: "n0"}

func TestAResultIsFoundOnlyIfItsObjectsAreAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 17<<20)
	remove := func(t *testing.T, path string) {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	// rewrite is what an editor or a careless script does to an object.
	rewrite := func(t *testing.T, path, content string) {
		t.Helper()
		remove(t, path)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(t *testing.T, path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[0]++
		rewrite(t, path, string(b))
	}
	type damage func(t *testing.T, at func(name string) string)
	for _, c := range []struct {
		name   string
		damage damage
		reason string // empty: it is found
	}{
		{"nothing", func(*testing.T, func(string) string) {}, ""},
		{"file deleted", func(t *testing.T, at func(string) string) { remove(t, at("raw/file")) }, "its object aloft://blob/raw/file is missing"},
		{"folder deleted", func(t *testing.T, at func(string) string) { remove(t, at("raw/table")) }, "its object aloft://blob/raw/table is missing"},
		{"outputs deleted", func(t *testing.T, at func(string) string) { remove(t, at("literals/o")) }, "its object aloft://blob/literals/o is missing"},
		{"file cut", func(t *testing.T, at func(string) string) { rewrite(t, at("raw/file"), "conten") },
			"its object aloft://blob/raw/file is not what was written: 6 bytes, was 7"},
		{"file changed", func(t *testing.T, at func(string) string) { flip(t, at("raw/file")) },
			"its object aloft://blob/raw/file is not what was written: sha256:*, was sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"},
		{"outputs changed", func(t *testing.T, at func(string) string) { flip(t, at("literals/o")) }, "its object aloft://blob/literals/o is not what was written: sha256:*"},
		{"a part of a folder deleted", func(t *testing.T, at func(string) string) { remove(t, at("raw/table/00001")) },
			"its object aloft://blob/raw/table is not what was written: 4 bytes, was 7"},
		{"a part of a folder changed", func(t *testing.T, at func(string) string) { flip(t, at("raw/table/00000")) },
			"its object aloft://blob/raw/table is not what was written: sha256:*"},
		{"a part of a folder renamed", func(t *testing.T, at func(string) string) {
			if err := os.Rename(at("raw/table/00000"), at("raw/table/0000a")); err != nil {
				t.Fatal(err)
			}
		}, "its object aloft://blob/raw/table is not what was written: sha256:*"},
		{"a file more in a folder", func(t *testing.T, at func(string) string) { rewrite(t, at("raw/table/more"), "+") },
			"its object aloft://blob/raw/table is not what was written: 8 bytes, was 7"},
		{"large file cut", func(t *testing.T, at func(string) string) { rewrite(t, at("raw/large"), large[1:]) },
			"its object aloft://blob/raw/large is not what was written: 17825791 bytes, was 17825792"},
		{"large file changed, which only reading all of it would show", func(t *testing.T, at func(string) string) { flip(t, at("raw/large")) }, ""},
		{"two of them damaged", func(t *testing.T, at func(string) string) { remove(t, at("raw/large")); remove(t, at("raw/file")) },
			"its object aloft://blob/raw/file is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			files, err := folder.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			content := "larger than the others"
			if strings.HasPrefix(c.name, "large") {
				content = large
			}
			o := put(t, files, "literals/o", "outputs")
			a, err := files.Stat(t.Context(), "literals/o")
			if err != nil {
				t.Fatal(err)
			}
			e := result("a1", newFit().key(), noon)
			e.Source = computedBy
			e.Outputs = &aloftv1.Literals{Ref: &aloftv1.LiteralRef{Uri: o.GetUri(), Digest: unhex(t, a.SHA256), Size: o.GetSize()}}
			e.Objects = []*aloftv1.ObjectDigest{put(t, files, "raw/file", "content"), put(t, files, "raw/table/", "zero", "one"), put(t, files, "raw/large", content)}
			s := &results{entries: []*store.Result{e}}
			cat := &catalog.Catalog{Store: s, Blob: files, Now: func() time.Time { return noon.Add(time.Hour) }}
			c.damage(t, func(name string) string { return filepath.Join(root, filepath.FromSlash(name)) })

			got, reason, err := cat.Find(t.Context(), e.ResultID)
			switch {
			case err != nil:
				t.Fatal(err)
			case c.reason == "" && (got != e || reason != "" || !e.GoneAt.IsZero()):
				t.Errorf("found %v, %q, want the result", got, reason)
			case c.reason != "" && (got != nil || !matches(reason, c.reason)):
				t.Errorf("found %v, reason\n%s, want\n%s", got, reason, c.reason)
			case c.reason != "" && (!e.GoneAt.Equal(noon.Add(time.Hour)) || e.GoneReason != reason):
				t.Errorf("gone at %v: %q, want now: %q", e.GoneAt, e.GoneReason, reason)
			}
			if c.reason == "" {
				return
			}
			// A second Find is a miss without a reason; a result that takes the place of the damaged one is found.
			if got, reason, err := cat.Find(t.Context(), e.ResultID); got != nil || reason != "" || err != nil {
				t.Errorf("second look: %v, %q, %v", got, reason, err)
			}
			again := result("a2", e.Key, noon)
			again.Source = computedBy
			s.entries = append(s.entries, again)
			if got, _, err := cat.Find(t.Context(), e.ResultID); got != again || err != nil {
				t.Errorf("after it was computed again: %v, %v", got, err)
			}
		})
	}
}

// An object that is too large to be hashed at each hit, or was never measured, is a miss if the blob store's own record does not
// match it: a task that was given the object would fail.
func TestAFolderThatIsNotHashedIsFoundOnlyIfTheBlobStoreKnowsItAsItIs(t *testing.T) {
	t.Parallel()
	for name, measured := range map[string]bool{"too large to hash": true, "never measured": false} {
		for _, removed := range []string{"", "_SUCCESS"} {
			files, err := folder.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			dir := files.Path("raw/table")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{"_SUCCESS": "", "part-0": strings.Repeat("x", 17<<20)} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			below, err := files.Adopt(t.Context(), "raw/table")
			if err != nil {
				t.Fatal(err)
			}
			e := result("a1", newFit().key(), noon)
			if measured {
				digest, size := blob.DigestBelow("raw/table", below)
				e.Source, e.Objects = computedBy, []*aloftv1.ObjectDigest{{Uri: "aloft://blob/raw/table", Digest: digest, Size: size}}
			} else {
				e.Key, e.Outputs = nil, &aloftv1.Literals{Value: inputs(values{"o0": located("aloft://blob/raw/table")})}
			}
			if removed != "" {
				if err := os.Remove(filepath.Join(dir, removed)); err != nil {
					t.Fatal(err)
				}
			}
			cat := &catalog.Catalog{Store: &results{entries: []*store.Result{e}}, Blob: files}
			got, reason, err := cat.Find(t.Context(), e.ResultID)
			if want := removed == ""; err != nil || (got == e) != want || strings.Contains(reason, "is not what was written") == want {
				t.Errorf("%s, removed %q: found %v, %q, %v", name, removed, got != nil, reason, err)
			}
		}
	}
}

// located is a literal with the location of a file or folder.
func located(uri string) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Blob{Blob: &core.Blob{Uri: uri}}}}}
}

func unhex(t *testing.T, digest string) []byte {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(digest, "sha256:%x", &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnOutageIsNeverAMiss(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		memory := blobtest.NewMemory()
		e := result("a1", newFit().key(), noon)
		e.Source = computedBy
		e.Objects = []*aloftv1.ObjectDigest{put(t, memory, "raw/file", "content"), put(t, memory, "raw/table/", "zero", "one")}
		s := &results{entries: []*store.Result{e}}
		faulty := &blobtest.Faulty{Store: memory, Plan: blobtest.FailAt(n, blobtest.Before)}
		cat := &catalog.Catalog{Store: s, Blob: faulty}
		got, _, err := cat.Find(t.Context(), e.ResultID)
		if !e.GoneAt.IsZero() {
			t.Fatalf("call %d failed: the result is gone: %s", n, e.GoneReason)
		}
		if len(faulty.Calls()) < n {
			if got != e || err != nil || n < 6 {
				t.Errorf("without a failure: %v, %v after %d calls", got, err, n-1)
			}
			break
		}
		if got != nil || !errors.Is(err, aloft.ErrUnavailable) {
			t.Errorf("call %d failed: found %v, %v, want an error", n, got, err)
		}
	}

	s := &results{err: aloft.ErrUnavailable}
	cat := &catalog.Catalog{Store: s, Blob: blobtest.NewMemory()}
	if got, _, err := cat.Find(t.Context(), store.ResultID{}); got != nil || !errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("store away: %v, %v", got, err)
	}
}

func TestAVolumeThatIsNotMountedIsNoMiss(t *testing.T) {
	t.Parallel()
	for _, empty := range []bool{false, true} { // an empty mount point, or not even that
		root := filepath.Join(t.TempDir(), "blob")
		files, err := folder.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		e := result("a1", newFit().key(), noon)
		e.Source, e.Objects = computedBy, []*aloftv1.ObjectDigest{put(t, files, "raw/file", "content")}
		if err := os.Rename(root, root+".away"); err != nil {
			t.Fatal(err)
		}
		if empty {
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cat := &catalog.Catalog{Store: &results{entries: []*store.Result{e}}, Blob: files}
		if got, reason, err := cat.Find(t.Context(), e.ResultID); got != nil || !errors.Is(err, aloft.ErrUnavailable) || !e.GoneAt.IsZero() {
			t.Errorf("found %v, %q, %v, gone: %q; want an error", got, reason, err, e.GoneReason)
		}
		_ = os.Remove(root)
		if err := os.Rename(root+".away", root); err != nil {
			t.Fatal(err)
		}
		if got, reason, err := cat.Find(t.Context(), e.ResultID); got != e || err != nil {
			t.Errorf("when it is back: found %v, %q, %v", got, reason, err)
		}
	}
}

func TestAResultWithoutObjectsCostsNoLook(t *testing.T) {
	t.Parallel()
	e := result("a1", newFit().key(), noon)
	e.Source = computedBy
	e.Outputs = &aloftv1.Literals{Value: inputs(values{"o0": integer(1)}), Ref: &aloftv1.LiteralRef{Digest: make([]byte, 32), Size: 9}}
	faulty := &blobtest.Faulty{Store: blobtest.NewMemory()}
	s := &results{entries: []*store.Result{e}}
	cat := &catalog.Catalog{Store: s, Blob: faulty}
	if got, _, err := cat.Find(t.Context(), e.ResultID); got != e || err != nil {
		t.Fatalf("found %v, %v", got, err)
	}
	if len(faulty.Calls()) > 0 || s.calls != 1 {
		t.Errorf("%d calls of the blob store, %d of the store", len(faulty.Calls()), s.calls)
	}
}

func TestTheObjectsOfAResultFromOutsideMustExist(t *testing.T) {
	t.Parallel()
	memory := blobtest.NewMemory()
	put(t, memory, "up/file", "content")
	dataclass := func(uri string) *core.Literal {
		return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Generic{Generic: &structpb.Struct{
			Fields: map[string]*structpb.Value{"path": structpb.NewStringValue(uri)},
		}}}}}
	}
	for _, c := range []struct {
		output *core.Literal
		reason string
	}{
		{located("aloft://blob/up/file"), ""},
		{located("aloft://blob/up/"), ""},
		{located("aloft://blob/up/other"), "its object aloft://blob/up/other is missing"},
		{located("s3://bucket/file"), ""}, // not ours to look at
		{dataclass("aloft://blob/up/file"), ""},
		{dataclass("aloft://blob/up/other"), "its object aloft://blob/up/other is missing"},
	} {
		e := result("a1", newFit().key(), noon)
		e.Key, e.Outputs = nil, &aloftv1.Literals{Value: inputs(values{"o0": c.output})}
		cat := &catalog.Catalog{Store: &results{entries: []*store.Result{e}}, Blob: memory}
		got, reason, err := cat.Find(t.Context(), e.ResultID)
		if err != nil || (got == e) != (c.reason == "") || reason != c.reason {
			t.Errorf("%v: found %v, %q, %v; want %q", c.output, got, reason, err, c.reason)
		}
	}
}

func TestOneComputesAndWhoeverComesBetweenFindsTheResult(t *testing.T) {
	t.Parallel()
	e := result("a1", newFit().key(), noon)
	e.Source = computedBy
	mine := store.Reservation{ID: e.ResultID, Owner: "me"}
	s := &results{}
	cat := &catalog.Catalog{Store: s, Blob: blobtest.NewMemory()}
	look := func(owner string) (*store.Result, string) {
		t.Helper()
		r := mine
		r.Owner = owner
		found, held, reason, err := cat.FindOrReserve(t.Context(), r)
		if err != nil || reason != "" {
			t.Fatalf("%q, %v", reason, err)
		}
		return found, held.Owner
	}
	for _, owner := range []string{"me", "you", "me"} {
		if found, held := look(owner); found != nil || held != "me" {
			t.Errorf("%s: found %v, held by %q; want mine", owner, found, held)
		}
	}
	// The first owner finishes between the miss and the reservation of the second one.
	delete(s.reserved, e.ResultID)
	s.onTake = func() { s.entries = []*store.Result{e} }
	if found, held := look("you"); found != e || held != "" || len(s.reserved) != 0 {
		t.Errorf("found %v, held by %q, reservations %v; want the result and no reservation", found, held, s.reserved)
	}
}

func TestUsesAreNotedInBatchesAndNotLostWhenTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s := &results{}
	cat := &catalog.Catalog{Store: s, Blob: blobtest.NewMemory(), Now: func() time.Time { return noon.Add(time.Minute) }}
	for i := range 600 {
		f := newFit()
		f.inputs["depth"] = integer(int64(i))
		e := result(fmt.Sprintf("a%03d", i), f.key(), noon)
		e.Source = computedBy
		s.entries = append(s.entries, e)
	}
	find := func(e *store.Result) {
		t.Helper()
		if got, _, err := cat.Find(t.Context(), e.ResultID); got != e || err != nil {
			t.Fatalf("found %v, %v", got, err)
		}
	}
	for _, e := range s.entries {
		find(e)
		find(e)
	}
	if len(s.noted) > 0 {
		t.Fatalf("%d writes for hits", len(s.noted))
	}
	s.err = aloft.ErrUnavailable
	if err := cat.NoteUses(t.Context()); !errors.Is(err, aloft.ErrUnavailable) {
		t.Errorf("store away: %v", err)
	}
	s.err = nil
	for range 2 { // the second has nothing to do
		if err := cat.NoteUses(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.noted) != 2 || len(s.noted[0])+len(s.noted[1]) != 600 {
		t.Errorf("%d writes, want 2 for 600 results", len(s.noted))
	}
	for _, e := range s.entries {
		if !e.UsedAt.Equal(noon.Add(time.Minute)) {
			t.Fatalf("%s used at %v", e.ID, e.UsedAt)
		}
	}
}

func TestExcessIsWhatIsTooOldAndThenWhatWasNotUsedForLongest(t *testing.T) {
	t.Parallel()
	type r struct {
		id        string
		age, used int // hours before now
		size      int64
		pinned    bool
	}
	for _, c := range []struct {
		name    string
		limits  catalog.Limits
		results []r
		want    string
	}{
		{"no limits", catalog.Limits{}, []r{{"a", 99, 99, 99, false}}, ""},
		{"age", catalog.Limits{MaxAge: 5 * time.Hour}, []r{{"a", 6, 0, 1, false}, {"b", 5, 5, 1, false}, {"c", 9, 9, 1, true}}, "a"},
		{"size, least lately used first", catalog.Limits{MaxSize: 10}, []r{{"a", 9, 1, 5, false}, {"b", 8, 7, 5, false}, {"c", 7, 5, 5, false}, {"d", 6, 2, 4, false}}, "b c"},
		{"at the limit", catalog.Limits{MaxSize: 10}, []r{{"a", 9, 1, 5, false}, {"b", 8, 7, 5, false}}, ""},
		{"pinned stay and count", catalog.Limits{MaxSize: 10}, []r{{"a", 9, 9, 9, true}, {"b", 8, 7, 2, false}, {"c", 8, 6, 1, false}}, "b"},
		{"pinned alone are too large", catalog.Limits{MaxSize: 10}, []r{{"a", 9, 9, 11, true}, {"b", 8, 7, 2, false}}, "b"},
		{"what has no size makes no room", catalog.Limits{MaxSize: 10}, []r{{"a", 9, 9, 0, false}, {"b", 8, 7, 11, false}}, "b"},
		{"what is too old makes room", catalog.Limits{MaxAge: 5 * time.Hour, MaxSize: 10}, []r{{"a", 3, 3, 8, false}, {"b", 8, 1, 8, false}}, "b"},
		{"equals by id", catalog.Limits{MaxSize: 1}, []r{{"b", 1, 1, 1, false}, {"a", 1, 1, 1, false}}, "a"},
	} {
		var entries []*store.Result
		for _, r := range c.results {
			hours := func(n int) time.Time { return noon.Add(-time.Duration(n) * time.Hour) }
			entries = append(entries, &store.Result{ID: r.id, CreatedAt: hours(r.age), UsedAt: hours(r.used), Size: r.size, Pinned: r.pinned})
		}
		entries = append(entries, &store.Result{ID: "gone", Size: 1000, CreatedAt: noon.Add(-1000 * time.Hour), GoneAt: noon})
		var got []string
		for _, g := range c.limits.Excess(entries, noon) {
			got = append(got, g.ID)
			if !strings.Contains(g.Reason, "cache-max-") {
				t.Errorf("%s: reason %q does not name the setting", c.name, g.Reason)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q go, want %q", c.name, got, c.want)
		}
	}
}

func TestTidyKeepsTheLimitsOfEachProjectForItself(t *testing.T) {
	t.Parallel()
	s := &results{}
	for i := range 2500 {
		f := newFit()
		f.task.Id.Project = []string{"ml", "ops"}[i%2]
		f.inputs["depth"] = integer(int64(i))
		e := result(fmt.Sprintf("a%04d", i), f.key(), noon.Add(time.Duration(i)*time.Second))
		e.Source, e.Size = computedBy, 1
		if i%2 == 1 {
			e.Size = 2
		}
		s.entries = append(s.entries, e)
	}
	cat := &catalog.Catalog{Store: s, Blob: blobtest.NewMemory(), Now: func() time.Time { return noon.Add(2 * time.Hour) }}
	if err := cat.Tidy(t.Context(), noon); err != nil || s.calls != 0 {
		t.Errorf("without limits: %d calls of the store, %v", s.calls, err)
	}
	cat.Limits = catalog.Limits{MaxSize: 1240}
	// The earliest result of ml is found just before: it stays, although this use was not written to the store yet.
	if _, _, err := cat.Find(t.Context(), s.entries[0].ResultID); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second changes nothing
		if err := cat.Tidy(t.Context(), noon.Add(3*time.Hour)); err != nil {
			t.Fatal(err)
		}
		left, first := map[string]int{}, map[string]string{}
		for _, e := range s.entries {
			if e.GoneAt.IsZero() {
				if left[e.Project]++; left[e.Project] == 2 {
					first[e.Project] = e.ID
				}
			}
		}
		if left["ml"] != 1240 || left["ops"] != 620 || !s.entries[0].GoneAt.IsZero() || first["ml"] != "a0022" {
			t.Errorf("left %v, second left %v, want 1240 of ml (its first and from a0022 on) and 620 of ops", left, first)
		}
	}
}

func TestRunNotesAndTidiesUntilItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := result("a1", newFit().key(), time.Now())
		e.Source = computedBy
		s := &results{entries: []*store.Result{e}}
		cat := &catalog.Catalog{Store: s, Blob: blobtest.NewMemory(), Limits: catalog.Limits{MaxAge: time.Hour}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); cat.Run(ctx) }()
		find := func() *store.Result {
			found, _, err := cat.Find(ctx, e.ResultID)
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		find()
		time.Sleep(30 * time.Minute) //nolint:forbidigo // of the clock of the bubble
		synctest.Wait()
		if len(s.noted) != 1 || !e.GoneAt.IsZero() {
			t.Errorf("after half an hour: noted %v, gone %q", s.noted, e.GoneReason)
		}
		find()
		cancel()
		<-ended
		if len(s.noted) != 2 {
			t.Errorf("noted %v, want the last use, too", s.noted)
		}
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go cat.Run(ctx)
		time.Sleep(time.Hour) //nolint:forbidigo // of the clock of the bubble
		synctest.Wait()
		if e.GoneAt.IsZero() || find() != nil {
			t.Error("a result older than the limit is there")
		}
	})
}
