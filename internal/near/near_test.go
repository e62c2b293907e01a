package near

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

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
		{strings.Repeat("ſ", 30), "", []string{strings.Repeat("s", 60)}},
		{strings.Repeat("Ⱥ", 50), "", []string{strings.Repeat("Ⱥ", 33), strings.Repeat("ⱥ", 33), strings.Repeat("ⱥ", 50)}},
		{strings.Repeat("\xff", 100), strings.Repeat("\xff", 99) + "a", []string{strings.Repeat("\xff", 99) + "a"}},
	} {
		if got := Name(c.word, c.names); got != c.want {
			t.Errorf("Name(%q, %q) = %q, want %q", c.word, c.names, got, c.want)
		}
	}
}

// Words and names may be of any size and number: comparing them takes no memory and little time.
func TestWhatIsComparedIsBounded(t *testing.T) { //nolint:paralleltest // the test counts allocations
	names := make([]string, 200_000)
	for i := range names {
		names[i] = fmt.Sprintf("%099d", i)
	}
	huge := strings.Repeat("x", 64<<20)
	for what, c := range map[string]struct {
		word  string
		names []string
		want  string
	}{
		"many names":  {names[0][:98] + "x", names, names[0]},
		"a huge word": {huge, names, ""},
		"a huge name": {"xxx", []string{huge, "xxxx"}, "xxxx"},
	} {
		var got string
		if n := testing.AllocsPerRun(1, func() { got = Name(c.word, c.names) }); n > 10 {
			t.Errorf("%s: %v allocations", what, n)
		}
		if got != c.want {
			t.Errorf("%s: got %.200q, want %.200q", what, got, c.want)
		}
	}
	if got := Name("the-last", slices.Concat(names, []string{"the-lst"})); got != "" {
		t.Errorf("the last of %d names was compared: %q", len(names), got)
	}
}
