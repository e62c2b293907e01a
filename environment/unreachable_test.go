package environment

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
)

func TestAnInterpreterThatCannotBeUsedIsSaidInOneSentenceWithTheWayOut(t *testing.T) {
	t.Parallel()
	program := func(name, script string) string {
		path := filepath.Join(t.TempDir(), name)
		writeProgram(t, path, script)
		return path
	}
	for name, test := range map[string]struct {
		python string
		kind   error
		want   string
	}{
		"not there": {"/nowhere/python", aloft.ErrInvalid, "/nowhere/python is not a program: give the path of a Python that has flytekit"},
		"a folder":  {t.TempDir(), aloft.ErrInvalid, "is not a program"},
		"no flytekit": {
			fakePython(t, t.TempDir(), "python", "3.12.1", nil), aloft.ErrPrecondition, "has no flytekit: run `",
		},
		"it hangs":   {program("python", "#!/bin/sh\nsleep 1000 & wait\n"), aloft.ErrUnavailable, "did not answer within"},
		"it breaks":  {program("python", "#!/bin/sh\necho broken >&2; exit 3\n"), aloft.ErrPrecondition, "cannot be run as a Python (exit status 3: broken)"},
		"no Python":  {program("python", "#!/bin/sh\necho hello\n"), aloft.ErrPrecondition, "did not answer as a Python does"},
		"no program": {program("python", "#!/nowhere/sh\n"), aloft.ErrPrecondition, "cannot be run as a Python"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(Config{DataDir: t.TempDir(), Python: test.python})
			if name == "it hangs" {
				r.patience = 50 * time.Millisecond
			}
			_, err := r.Resolve(t.Context(), Request{})
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "--python") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one sentence that says %q, an error of the kind %q", err, test.want, test.kind)
			}
		})
	}
}
