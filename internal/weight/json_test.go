package weight

import (
	"strings"
	"testing"
)

// TestAnEscapedQuoteEndsNoText: otherwise an escaped quote would make the scanner take the values behind it for a text, which
// weighs next to nothing.
func TestAnEscapedQuoteEndsNoText(t *testing.T) {
	t.Parallel()
	behind := `","b":[` + strings.Repeat("{},", 1000) + `{}]}`
	for _, test := range []struct{ escaped, plain string }{
		{`\"`, `xx`},
		{`\\`, `xx`}, // the quote behind it ends the text
		{`\\\"`, `xxxx`},
		{`\u0022`, `xxxxxx`},
		{`\"{\",[\"`, `xxxxxxxxx`},
	} {
		got, err := JSON([]byte(`{"a":"` + test.escaped + behind))
		if err != nil {
			t.Fatal(err)
		}
		want, err := JSON([]byte(`{"a":"` + test.plain + behind))
		if err != nil {
			t.Fatal(err)
		}
		if got != want || want < 2000*jsonToken {
			t.Errorf("with %s in a text a thousand objects weigh %d, with %s %d", test.escaped, got, test.plain, want)
		}
	}
}
