package worker

import (
	"fmt"
	"io/fs"
	"syscall"
)

// A disk with less room than this is full: bytes, and files (an attempt makes eight).
const (
	fullBelow      = 1 << 20
	fullBelowFiles = 64
)

// diskFull says whether the disk of a folder is full. A disk that cannot be asked counts as not full.
func diskFull(dir string) bool { return DiskFull(dir) != nil }

// DiskFull is an ENOSPC that says what the disk of a folder has too little of: bytes, or files and folders; nil: neither.
func DiskFull(dir string) error { return diskFullBy(dir, syscall.Statfs) }

func diskFullBy(dir string, statfs func(string, *syscall.Statfs_t) error) error {
	var s syscall.Statfs_t
	if err := statfs(dir, &s); err != nil {
		return nil //nolint:nilerr // the next write to the disk will say what is wrong
	}
	bytes, files := uint64(s.Bavail)*uint64(s.Bsize), uint64(s.Ffree) //nolint:unconvert // other types on other systems
	switch {
	case bytes < fullBelow:
		return &fs.PathError{Op: fmt.Sprintf("write where %d bytes are left", bytes), Path: dir, Err: syscall.ENOSPC}
	case s.Files > 0 && files < fullBelowFiles: // file systems that make inodes as they need them say 0
		return &fs.PathError{Op: fmt.Sprintf("make files where %d of %d are left", files, s.Files), Path: dir, Err: syscall.ENOSPC}
	}
	return nil
}
