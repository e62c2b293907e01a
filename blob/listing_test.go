package blob_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/blob"
)

func TestBelowIsWhatAKeyMeans(t *testing.T) {
	t.Parallel()
	keys := []blob.Key{"a", "b/1", "b/c/2", "b/c/d/3", "b/c-/4", "b/c./5", "b/c0", "b/cc/6", "b-/7", "bb", "ö/x/y"}
	slices.SortFunc(keys, func(a, b blob.Key) int {
		return slices.Compare(strings.Split(string(a), "/"), strings.Split(string(b), "/"))
	})
	var objects []blob.Object
	for _, key := range keys {
		objects = append(objects, blob.Object{Key: key})
	}
	for _, key := range append(keys, "b", "b/c", "b/c/d", "b/c/2/x", "b/c-", "b/c.", "b/cc", "b/d", "b-", "c", "ö", "ö/x", "zz") {
		var want, got []blob.Key
		for _, o := range objects {
			if o.Key.Within(key) {
				want = append(want, o.Key)
			}
		}
		for _, o := range blob.Below(objects, key) {
			got = append(got, o.Key)
		}
		_ = append(blob.Below(objects, key), blob.Object{Key: "appended"}) // must not change objects
		if !slices.Equal(got, want) {
			t.Errorf("below %q there is %q, want %q", key, got, want)
		}
	}
}

// A task may return many nested folders as outputs, with many files in the innermost.
func TestBelowTakesNoMemory(t *testing.T) { //nolint:paralleltest // allocations are counted
	objects := make([]blob.Object, 1000)
	for i := range objects {
		objects[i].Key = "a/b/c/x"
	}
	if n := testing.AllocsPerRun(1, func() {
		if len(blob.Below(objects, "a/b/c")) != len(objects) {
			t.Error("they are not all below")
		}
	}); n > 0 {
		t.Errorf("it makes %.0f allocations", n)
	}
}
