package executor

import (
	"slices"
	"strings"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// reclassify makes a user failure a system failure if the task ended silently while a service that it needs was away. The
// failure names no service: the task may have broken the service itself, and must not be repeated for ever.
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

// foundNoRoom says whether a task failed because a disk was full. The task may have seen that before any probe of ours did, and
// the disk may have room again when we look.
func foundNoRoom(f *aloftv1.Failure) bool {
	return f.GetError().GetKind() == core.ExecutionError_USER && f.GetError().GetCode() != CodeOutOfMemory &&
		slices.ContainsFunc(noRoomTexts, func(text string) bool { return strings.Contains(f.GetError().GetMessage(), text) })
}

// reclassifyNoRoom makes a user failure a system failure. It names no service, as in reclassify: the task may have filled the disk
// itself.
func reclassifyNoRoom(f *aloftv1.Failure) {
	f.Recoverable, f.Error.Kind = true, core.ExecutionError_SYSTEM
	f.Error.Message += "\nA disk had no room for more: that is not held against the task."
}

// silent says whether a task failed without an error of its own: it left no error.pb.
func silent(f *aloftv1.Failure) bool {
	code := f.GetError().GetCode()
	return f.GetError().GetKind() == core.ExecutionError_USER && (code == CodeExited || code == CodeOutputsNotFound)
}

// attribute names in a failure the service that is away, with the beginning of the outage unless that is charged to this failure
// itself (charged). A service that is well is not named.
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
