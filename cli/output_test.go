package cli

import "testing"

func TestTheLineThatSaysWhatHappenedIsShown(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"": "",
		"task t was terminated by signal 11.\nIts last output was:\na warning\nanother":                                              "task t was terminated by signal 11.",
		"Trace:\n\n    Traceback (most recent call last):\n      File \"a.py\"\n\nMessage:\n\n    ValueError: bad\n":                 "ValueError: bad",
		"[3/3] currentAttempt done. Last Error: USER::Trace:\n\n Traceback (most recent call last):\n x\n\nMessage:\n\n KeyError: k": "KeyError: k",
	} {
		if got := firstLine(message); got != want {
			t.Errorf("of %q: got %q, want %q", message, got, want)
		}
	}
}

func TestAClippedLineEndsItsColours(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"plain text":                  "plain",
		"short":                       "short",
		"\x1b[31mred\x1b[0m and more": "\x1b[31mred\x1b[0m a\x1b[0m",
	} {
		if got := clip(line, 5); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
