package cli

import (
	"strings"
	"testing"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

func key(x, y string) *aloftv1.CacheKey {
	k := &aloftv1.CacheKey{Project: "p", Domain: "d", Task: "m.t", CacheVersion: "1", InputsHash: "aaaaaaaa", OutputsHash: "bbbbbbbb",
		Inputs: []*aloftv1.CacheInput{{Name: "x", Hash: "h" + x, Preview: x}}}
	if y != "" {
		k.Inputs = append(k.Inputs, &aloftv1.CacheInput{Name: "y", Hash: "h" + y, Preview: y, ByHash: true})
	}
	return k
}

func TestAMissIsShownBesideTheNearestResultWithAMarkAtWhatDiffers(t *testing.T) {
	t.Parallel()
	answer := &aloftv1.ExplainCacheResponse{
		Lookup: &aloftv1.CacheLookup{Key: key("6", "")}, Nearest: &aloftv1.CachedResult{Key: key("5", "z")},
		Differences: []*aloftv1.CacheDifference{{Component: aloftv1.CacheDifference_INPUT, Name: "x"}, {Component: aloftv1.CacheDifference_INPUT_REMOVED, Name: "y"}},
	}
	var got []string
	for _, row := range keyRows(answer) {
		got = append(got, strings.Join(row, "|"))
	}
	want := []string{
		" |FOUND BY|THIS NODE|NEAREST EARLIER RESULT",
		" |project|p|p", " |domain|d|d", " |task|m.t|m.t", " |cache version|1|1", " |inputs type|aaaaaaaa|aaaaaaaa", " |outputs type|bbbbbbbb|bbbbbbbb",
		"*|input x|6|5", "*|input y|-|z (by its hash)",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	hit := &aloftv1.ExplainCacheResponse{Lookup: &aloftv1.CacheLookup{Key: key("6", "")}, Nearest: &aloftv1.CachedResult{Key: key("6", "")}}
	hit.Lookup.Key.Inputs[0].Preview = "" // the result has the preview
	if rows := keyRows(hit); len(rows) != 8 || len(rows[0]) != 3 || rows[7][0] != " " || rows[7][2] != "6" {
		t.Errorf("on a hit: %v, want the key alone, without marks", rows)
	}
	if rows := keyRows(&aloftv1.ExplainCacheResponse{}); rows != nil {
		t.Errorf("of a node that is not cached: %v, want nothing", rows)
	}
}

func TestSizesAreReadable(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}
