package executor

import (
	"slices"
	"strings"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// reclassify makes a failure the system's where a task ended without a word while something was away that it needs. No
// service is blamed for it: the task may be what broke it, and must not be repeated for ever.
func reclassify(f *aloftv1.Failure, s store.Service) {
	if !silent(f) {
		return
	}
	during := "what it left could not be read for a while"
	if s.Away() {
		during = s.Waiting()
	}
	f.Recoverable, f.Error.Kind = true, core.ExecutionError_SYSTEM
	f.Error.Message += "\nIt ended without a word of its own in an outage (" + during + "): that is not held against the task."
}

// noRoomTexts are how systems say that a disk, its inodes or a quota is used up, in a traceback or on stderr.
var noRoomTexts = []string{"No space left on device", "Disk quota exceeded"}

// foundNoRoom says whether a task failed because a disk took nothing more. The task may have seen it before anything of ours
// did, and the room may be there again when we look.
func foundNoRoom(f *aloftv1.Failure) bool {
	return f.GetError().GetKind() == core.ExecutionError_USER && f.GetError().GetCode() != CodeOutOfMemory &&
		slices.ContainsFunc(noRoomTexts, func(text string) bool { return strings.Contains(f.GetError().GetMessage(), text) })
}

// reclassifyNoRoom makes a failure the system's. No service is blamed for it, as in reclassify: the disk may be the task's own affair.
func reclassifyNoRoom(f *aloftv1.Failure) {
	f.Recoverable, f.Error.Kind = true, core.ExecutionError_SYSTEM
	f.Error.Message += "\nA disk had no room for more: that is not held against the task."
}

// silent says whether a task failed without a word of its own.
func silent(f *aloftv1.Failure) bool {
	code := f.GetError().GetCode()
	return f.GetError().GetKind() == core.ExecutionError_USER && (code == CodeExited || code == CodeOutputsNotFound)
}

// attribute says what a failure is charged for: the service that is away, once. One that is well is not blamed.
func attribute(f *aloftv1.Failure, s store.Service, charged bool) {
	f.Service, f.ServiceAwaySince, f.ServiceWellAt = "", 0, 0
	if !s.Away() {
		return
	}
	f.Service = s.Name
	if !charged {
		f.ServiceAwaySince = s.AwaySince.UnixNano()
	}
	if !s.WellAt.IsZero() {
		f.ServiceWellAt = s.WellAt.UnixNano()
	}
}
