//go:build !linux

package removal

import (
	"io/fs"
	"os"
	"path/filepath"
)

// remove trusts the tree: on other systems than Linux an ordinary user cannot mount, and os.RemoveAll stops at a busy folder.
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
