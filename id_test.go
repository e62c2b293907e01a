package aloft

import "testing"

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

func TestRawOutputKeysAreFlytes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"ax6tkvkw5tlhqmdfhkml": "ui/ax6tkvkw5tlhqmdfhkml-n0-0", "f1": "2u/f1-n0-0"} {
		a := AttemptID{Execution: ExecutionID{Project: "p", Domain: "d", Name: name}, Node: "n0"}
		if got := a.RawOutputKey(); got != want {
			t.Errorf("RawOutputKey of %s = %q, want %q", a, got, want)
		}
	}
}
