package api

import (
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestListsSayWhatAnErrorIsAbout(t *testing.T) {
	t.Parallel()
	const trace = "Trace:\n\n    Traceback (most recent call last):\n      File \"a/long/path/to/some/file.py\", line 1, in task\n    ValueError: bad\n\nMessage:\n\n    "
	for message, want := range map[string]string{
		"short":                   "short",
		trace + "ValueError: bad": "ValueError: bad",
		"[2/2] currentAttempt done. Last Error: USER::" + trace + "ValueError: bad": "[2/2] currentAttempt done. Last Error: USER::ValueError: bad",
		trace + strings.Repeat("x", 200):                                            strings.Repeat("x", 100),
		strings.Repeat("ä", 100):                                                    strings.Repeat("ä", 50),
		"x" + strings.Repeat("ä", 100):                                              "x" + strings.Repeat("ä", 49),
	} {
		e := &core.ExecutionError{Code: "c", Message: message}
		if got := trimError(e); got.GetMessage() != want || got.GetCode() != "c" || e.GetMessage() != message {
			t.Errorf("of %q: got %q, want %q", message, got.GetMessage(), want)
		}
	}
	if trimError(nil) != nil {
		t.Error("no error must stay none")
	}
}
