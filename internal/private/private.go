// Package private keeps other users of this machine away from the data of the server, and tasks as far as that is possible
// under one user id. It checks and sets modes of files and folders, and the owner of a folder (Folder, Tighten), checks the
// user at the other end of a socket (Peer), and closes the process to inspection by others (Process).
//
// Packages server and worker call it before they use a folder or a socket. It relies on the operating system alone. Systems
// other than Linux and macOS do not tell the user at the other end of a socket: there the modes of folder and socket are the
// only protection. It does not help against root, nor against processes of the same user, which may send signals to the server,
// open its files and connect to it.
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

// Folder checks that a folder belongs to the user of this process and that no other user can enter it: another user who made
// the folder first could put a socket or a file of his own in it.
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

// Tighten removes the permissions of other users from a folder and from its entries with one of the names, which may be
// patterns. Entries of these are out of their reach then. It returns the paths that it has changed. A path that belongs to
// another user, and a folder that all users share (such as /tmp), stays as it is and is reported as an error.
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

// escape turns a path into a pattern that matches only the path.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
