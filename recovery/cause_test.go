package recovery_test

import (
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery"
)

func TestFailuresWithOneCauseAreOneWhateverTheyName(t *testing.T) {
	t.Parallel()
	for name, messages := range map[string][]string{
		"numbers":   {"row 17 of 400: no value", "row 3 of 12: no value"},
		"floats":    {"timeout after 1.5 s", "timeout after 30.25 s"},
		"times":     {"at 2026-01-02 03:04:05.678 it ended", "at 2025-12-31 23:59:59 it ended"},
		"ids":       {"execution abcdfghjklmnpqrstvwx is gone", "execution azzzz222444555666777 is gone"},
		"uuids":     {"request 0b5cf2e0-8a4e-4c55-9a7b-1f6a1b2c3d4e refused", "request 11111111-2222-3333-4444-555555555555 refused"},
		"digests":   {"object 9f86d081884c7d65 is not there", "object e3b0c44298fc1c14 is not there"},
		"addresses": {"<Session object at 0x7f1e2c> is closed", "<Session object at 0x55aab0> is closed"},
		"paths":     {"[Errno 2] No such file: '/data/a/1/x.csv'", "[Errno 2] No such file: '/srv/b.csv'"},
		"places":    {"cannot read s3://bucket/a/b.parquet", "cannot read s3://other/c.parquet"},
		"tracebacks": {"Traceback (most recent call last):\n  File \"/a/b.py\", line 3, in f\n    g()\nValueError: 3 is bad",
			"Traceback (most recent call last):\n  File \"/c.py\", line 77, in h\n    k()\nValueError: 4 is bad"},
		"what flytekit writes": {"Trace:\n\n    File a, line 1\n\nMessage:\n\n    ValueError: 3 is bad", "Trace:\n\n    File b, line 2\n    File c\n\nMessage:\n\n    ValueError: 5 is bad"},
	} {
		a, b := cause("USER:E", messages[0]), cause("USER:E", messages[1])
		if a != b {
			t.Errorf("%s: %q and %q are two causes: %q and %q", name, messages[0], messages[1], a.Message, b.Message)
		}
	}
}

func TestFailuresWithDifferentCausesStayApart(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]recovery.Cause{
		{cause("USER:A", "it broke"), cause("USER:B", "it broke")},
		{cause("USER:A", "no column price"), cause("USER:A", "no column date")},
		{cause("USER:A", "ValueError: 3 is bad"), cause("USER:A", "TypeError: 3 is bad")},
		{cause("USER:A", "cannot read s3://bucket/a"), cause("USER:A", "cannot write s3://bucket/a")},
		{cause("USER:A", "the deadbeef cafe"), cause("USER:A", "the facade cafe")}, // words
	} {
		if c[0] == c[1] {
			t.Errorf("they are one cause: %v", c[0])
		}
	}
	if got := cause("E", strings.Repeat("ä ", 10_000)).Message; len(got) > 310 || !strings.HasSuffix(got, "…") {
		t.Errorf("a long message became %d bytes", len(got))
	}
	if got := cause("E", "read /a/b/c.csv: line 7, value 1,000").Message; got != "read <path>: line <n>, value <n>" {
		t.Errorf("got %q", got)
	}
}

func cause(code, message string) recovery.Cause {
	return recovery.CauseOf(&core.ExecutionError{Code: code, Message: message})
}
