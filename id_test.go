package aloft

import (
	"path"
	"strings"
	"testing"
)

func TestUniqueNodeIDsAreFlytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parent  NodeID
		attempt uint32
		node    string
		want    NodeID
	}{
		{"", 0, "n0", "n0"},
		{"n0", 0, "dn1", "n0-0-dn1"},
		{"n0", 0, "n0-n1", "n0-0-n0-n1"},
		{"n0-0-dn1", 1, "n2", "n0-0-dn1-1-n2"},
		{"n0-0-n0-0-n0", 0, "end-node", "fcl4he5i"},
		{"", 0, "a-very-long-node-identifier", "fq651nri"},
	} {
		if got := UniqueNodeID(c.parent, c.attempt, c.node); got != c.want {
			t.Errorf("UniqueNodeID(%q, %d, %q) = %q, want %q", c.parent, c.attempt, c.node, got, c.want)
		}
	}
}

func TestRawOutputKeysBeginAsFlytes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"ax6tkvkw5tlhqmdfhkml": "ui/ax6tkvkw5tlhqmdfhkml-n0-0-", "f1": "2u/f1-n0-0-"} {
		a := AttemptID{Execution: ExecutionID{Project: "p", Domain: "d", Name: name}, Node: "n0"}
		if got := a.RawOutputKey(); !strings.HasPrefix(got, want) {
			t.Errorf("RawOutputKey of %s = %q, want %q and more", a, got, want)
		}
	}
}

// Attempts whose ids differ in one part alone have no key in common, and no key leads out of the attempt's folder.
func TestNoTwoAttemptsShareAKey(t *testing.T) {
	t.Parallel()
	// The FNV hashes of 32 bits of the two names, with node and attempt, are equal.
	const long, other = "a9cpjkczkxjpzjjqwhlf2fz4qqrxsq95lcskcsjqq67dnxnfsz7nb2v9hrxflp", "adgb5ml5pt7w6dqxhq6xglk2ppgmbwl6t28h6g8cwsqh9t29psgbnht4wkm4vm"
	keys := map[string]AttemptID{}
	for _, a := range []AttemptID{
		{ExecutionID{"p", "d", "nightly"}, "n0", 0}, {ExecutionID{"p", "staging", "nightly"}, "n0", 0}, {ExecutionID{"q", "d", "nightly"}, "n0", 0},
		{ExecutionID{"p", "d", "nightly"}, "n0", 1}, {ExecutionID{"p", "d", "nightly-n0"}, "n0", 0}, {ExecutionID{"p", "d", "nightly"}, "n0-n0", 0},
		{ExecutionID{"p", "d", long}, "n0", 0}, {ExecutionID{"p", "d", other}, "n0", 0},
		{ExecutionID{"p", "d", "e"}, "..", 0}, {ExecutionID{"p", "d", "e"}, ".", 0}, {ExecutionID{"p", "d", "e"}, "../victim/n0", 0},
		{ExecutionID{"p", "d", "e"}, "../../../../../../e", 0}, {ExecutionID{"p", "d", "e"}, "a\nb", 0}, {ExecutionID{"p", "d", "e"}, "a/b", 0},
	} {
		for _, key := range []string{a.RunKey(), "raw/" + a.RawOutputKey()} {
			if before, ok := keys[key]; ok {
				t.Errorf("%v and %v share %q", before, a, key)
			}
			keys[key] = a
			if key != path.Clean(key) || strings.Contains(key, "/..") || strings.Contains(key, "\n") {
				t.Errorf("the key of %v is %q", a, key)
			}
		}
		if run := a.RunKey(); strings.Count(run, "/") != 5 || !strings.HasPrefix(run, "run/"+a.Execution.String()+"/") {
			t.Errorf("the key of %v is %q, which is not below its execution", a, run)
		}
	}
	if a, b := (AttemptID{ExecutionID{"p", "d", long}, "n0", 0}), (AttemptID{ExecutionID{"p", "d", other}, "n0", 0}); a.GeneratedName() != b.GeneratedName() {
		t.Errorf("%s and %s: the test needs names that collide", a.GeneratedName(), b.GeneratedName())
	}
}
