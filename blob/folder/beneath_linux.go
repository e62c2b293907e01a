package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openBeneath opens a file to read it, and fails with ELOOP where any part of its path is a symbolic link: a task may make
// links below its own prefix, and must not lead readers out of the store. root has no links in it.
func openBeneath(root, key string) (*os.File, error) {
	path := filepath.Join(root, filepath.FromSlash(key))
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // before Linux 5.6, or a filter of system calls that does not know it
			return openByParts(root, key)
		default:
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}
