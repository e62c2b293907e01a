// Package private keeps other users of this machine, and tasks as far as one user id allows, away from what the server keeps: modes
// of files and folders, the owner of a folder, who is at the other end of a socket, and a process that cannot be looked into.
//
// Packages server and worker call it before they use what it speaks about. It relies on the operating system alone: where that
// cannot tell (who is at the other end of a socket, other than on Linux and macOS), the modes of folder and socket are all there
// is. It does not help against root, nor against processes of the same user: those may signal us, open our files and connect to us.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Folder checks that a folder is our own and that no other user gets into it: someone who makes it before us could put his
// own things in the place of ours.
func Folder(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no folder", path)
	case owner(info) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not to us (user %d)", path, owner(info), os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is open to other users (mode %04o, it must be 0700)", path, info.Mode().Perm())
	}
	return nil
}

func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// Tighten takes from other users what modes give them: of the folder and of those of its entries that have one of the names,
// which may be patterns. What lies deeper is out of their reach then. It returns what it has changed. What belongs to another
// user, and a folder that all may share (such as /tmp), is left alone and is the error.
func Tighten(dir string, names ...string) (changed []string, err error) {
	paths := []string{dir}
	for _, name := range names {
		found, gerr := filepath.Glob(filepath.Join(escape(dir), name))
		err = errors.Join(err, gerr)
		paths = append(paths, found...)
	}
	for _, path := range paths {
		info, serr := os.Stat(path) // an entry may be a link: the folder of objects is, where servers share it
		if errors.Is(serr, fs.ErrNotExist) {
			continue
		}
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		mode := info.Mode()
		if mode.Perm()&0o077 == 0 {
			continue
		}
		if owner(info) != os.Geteuid() || mode&fs.ModeSticky != 0 {
			err = errors.Join(err, fmt.Errorf("%s is open to other users (mode %04o) and not ours to change", path, mode.Perm()))
			continue
		}
		if cerr := os.Chmod(path, mode&^0o077); cerr != nil {
			err = errors.Join(err, cerr)
			continue
		}
		changed = append(changed, path)
	}
	return changed, err
}

// escape makes a path a pattern that means it.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
