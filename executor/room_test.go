package executor

import (
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestADiskWithoutRoomIsNotHeldAgainstTheTask(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind    core.ExecutionError_ErrorKind
		code    string
		message string
		want    bool
	}{
		{core.ExecutionError_USER, "USER:RuntimeError", "Traceback …\nOSError: [Errno 28] No space left on device: '/data/attempts/x'", true},
		{core.ExecutionError_USER, "USER:RuntimeError", "OSError: [Errno 122] Disk quota exceeded", true},
		{core.ExecutionError_USER, CodeExited, "task t terminated with exit code 1. \nIts last output was:\nsh: write error: No space left on device", true},
		{core.ExecutionError_USER, CodeOutOfMemory, "killed\nIts last output was:\nNo space left on device", false},
		{core.ExecutionError_USER, "USER:ValueError", "there is no space left on the shelf", false},
		{core.ExecutionError_SYSTEM, CodeServiceAway, "No space left on device", false},
	} {
		f := NewFailure(c.kind, false, c.code, c.message)
		if got := foundNoRoom(f); got != c.want {
			t.Errorf("%s %q: found no room: %t, want %t", c.code, c.message, got, c.want)
			continue
		}
		if !c.want {
			continue
		}
		reclassifyNoRoom(f)
		if f.GetError().GetKind() != core.ExecutionError_SYSTEM || !f.GetRecoverable() || f.GetService() != "" || !strings.HasPrefix(f.GetError().GetMessage(), c.message) {
			t.Errorf("%q became %v", c.message, f)
		}
	}
	if foundNoRoom(nil) {
		t.Error("a success is a failure")
	}
}
