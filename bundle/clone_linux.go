package bundle

import (
	"os"

	"golang.org/x/sys/unix"
)

// cloneFile makes dst share the blocks of src until one of them is written to. False if the file system cannot.
func cloneFile(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}
