//go:build !linux

package removal

import (
	"io/fs"
	"os"
	"path/filepath"
)

// remove trusts the tree: elsewhere than on Linux an ordinary user mounts nothing, and os.RemoveAll stops at what is busy.
func remove(path string, _ int) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
