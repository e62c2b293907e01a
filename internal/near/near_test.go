package near

import "testing"

func TestTheNameThatWasMeantIsFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		word, want string
		names      []string
	}{
		{"ALOFT_SLOTSS", "ALOFT_SLOTS", []string{"ALOFT_CPU", "ALOFT_SLOTS"}},
		{"ALOFT_DATADIR", "ALOFT_DATA_DIR", []string{"ALOFT_DATABASE", "ALOFT_DATA_DIR"}},
		{"flyte", "flytesnacks", []string{"other", "flytesnacks"}},
		{"Etl", "etl", []string{"elt", "etl"}},
		{"lsiten", "listen", []string{"listen", "hosts"}},
		{"port", "", []string{"listen", "hosts"}},
		{"x", "", []string{"y", "xyz"}},
		{"", "", []string{"a", ""}},
	} {
		if got := Name(c.word, c.names); got != c.want {
			t.Errorf("Name(%q, %q) = %q, want %q", c.word, c.names, got, c.want)
		}
	}
}
