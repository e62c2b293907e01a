package worker

import "syscall"

// fullBelow is what a disk needs to take anything of use.
const fullBelow = 1 << 20

// diskFull says whether the disk of a folder is full. One that cannot be asked is not.
func diskFull(dir string) bool {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return false
	}
	return uint64(s.Bavail)*uint64(s.Bsize) < fullBelow //nolint:unconvert // other types on other systems
}
