package folder

import "golang.org/x/sys/unix"

// ofTheKernel says whether a path leads into a file system of the kernel's, such as /proc. Reading a file there may never end, or
// wait for ever (/proc/kmsg).
func ofTheKernel(path string) bool {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return false
	}
	switch int64(s.Type) { //nolint:unconvert // other types on other systems
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC:
		return true
	}
	return false
}
