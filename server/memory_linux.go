package server

import "golang.org/x/sys/unix"

// totalMemory of this machine in bytes; 0: not known.
func totalMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit)) //nolint:unconvert // the fields' sizes differ between architectures
}
