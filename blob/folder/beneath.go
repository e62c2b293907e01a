package folder

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// openByParts is openBeneath for systems that have no call for that. A task could put a link there between the look at the folders
// and the opening of the file, so it is used only where there is no other way.
func openByParts(root, key string) (*os.File, error) {
	path := root
	parts := strings.Split(key, "/")
	for _, part := range parts[:len(parts)-1] {
		path = filepath.Join(path, part)
		info, err := os.Lstat(path)
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
	}
	return os.OpenFile(filepath.Join(path, parts[len(parts)-1]), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
}
