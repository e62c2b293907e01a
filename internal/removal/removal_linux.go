package removal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxDepth is how many folders are open at once, each below the one before.
const maxDepth = 16

// maxStacked is how many mounts on top of each other are detached from one place.
const maxStacked = 1000

// tree is a folder that is being removed.
type tree struct {
	path    string
	entries int      // how many entries may still be removed
	top     *os.File // the folder itself; nil: it is not open yet
	changed int      // how many entries were removed or moved to the top
	stays   error    // the error of the first entry that cannot be removed; nil: none
}

func remove(path string, entries int) error {
	dir, name := filepath.Split(filepath.Clean(path))
	parent, err := os.OpenFile(filepath.Clean(dir+"."), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	t := &tree{path: path, entries: entries}
	if err := t.entry(parent, name, 0); err != nil {
		return err
	}
	if t.stays != nil {
		return fmt.Errorf("remove %s: %w", path, t.stays)
	}
	return nil
}

// entry removes one entry of a folder. Its error ends the removal; an entry that cannot be removed is noted in stays instead.
func (t *tree) entry(parent *os.File, name string, depth int) error {
	err := unlink(parent, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		// The entry is a folder, or a file on which something is mounted.
		if depth < maxDepth {
			var more bool
			if more, err = t.folder(parent, name, depth); more {
				return errMore
			}
		} else {
			err = t.moveUp(parent, name)
		}
	}
	switch {
	case err == nil:
		t.changed++
		t.entries--
	case errors.Is(err, fs.ErrNotExist): // another removal was faster
	case t.stays == nil:
		t.stays = &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	if t.entries < 0 {
		return errMore
	}
	return nil
}

// folder removes a folder with its entries.
func (t *tree) folder(parent *os.File, name string, depth int) (more bool, err error) {
	f, err := open(parent, name)
	if errors.Is(err, unix.ENOTDIR) {
		return false, unlink(parent, name, 0)
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if depth == 0 {
		t.top = f
	}
	for {
		before := t.changed
		for {
			names, err := f.Readdirnames(256)
			for _, name := range names {
				if err := t.entry(f, name, depth+1); err != nil {
					return true, nil
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return false, err
			}
		}
		err := unlink(parent, name, unix.AT_REMOVEDIR)
		// Entries that are there now were moved up meanwhile, or the file system skipped them while others were removed.
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) || t.changed == before {
			return false, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
	}
}

// moveUp moves a folder that is too deep to the top of the tree.
func (t *tree) moveUp(parent *os.File, name string) error {
	move := func() error {
		return unix.Renameat(int(parent.Fd()), name, int(t.top.Fd()), "deep-"+rand.Text())
	}
	err := move()
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, opened := open(parent, name) // detaches what is mounted there and gives permissions back, both of which a move needs
	if opened != nil {
		if errors.Is(opened, unix.ENOTDIR) { // the entry is a file, which need not be moved
			return err
		}
		return opened
	}
	_ = f.Chmod(0o700)
	_ = parent.Chmod(0o700)
	_ = t.top.Chmod(0o700)
	_ = f.Close()
	return move()
}

// unlink removes a file, or with AT_REMOVEDIR an empty folder, and restores the permissions of its parent if they are missing.
func unlink(parent *os.File, name string, flags int) error {
	err := ignoringInterrupts(func() error { return unix.Unlinkat(int(parent.Fd()), name, flags) })
	if errors.Is(err, unix.EACCES) && parent.Chmod(0o700) == nil {
		err = ignoringInterrupts(func() error { return unix.Unlinkat(int(parent.Fd()), name, flags) })
	}
	if errors.Is(err, unix.EBUSY) && detach(parent, name) == nil {
		err = ignoringInterrupts(func() error { return unix.Unlinkat(int(parent.Fd()), name, flags) })
	}
	return err
}

// errMount is the error of a folder that cannot be removed because of a mount.
var errMount = errors.New("something is mounted there, which this user cannot detach")

// open opens a folder to list and change it. A mount on the folder is detached and never opened.
func open(parent *os.File, name string) (*os.File, error) {
	f, err := openHere(parent, name)
	if errors.Is(err, unix.EXDEV) {
		if err = detach(parent, name); err != nil {
			return nil, err
		}
		f, err = openHere(parent, name)
	}
	if errors.Is(err, unix.EACCES) && restorePermissions(parent, name) == nil {
		f, err = openHere(parent, name)
	}
	return f, err
}

const openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// openHere opens a folder of the same mount as its parent. EXDEV if it is of another mount.
func openHere(parent *os.File, name string) (*os.File, error) {
	fd, err := openat2(parent, name, openFolder)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openat2 opens an entry with the condition, which the kernel checks, that it is of the same mount as its parent. A check by
// this process could be overtaken by a new mount. Where the call is missing (kernels before 5.6) or filtered, the mount of the
// opened file is compared before the file is used.
func openat2(parent *os.File, name string, flags int) (fd int, err error) {
	err = ignoringInterrupts(func() error {
		fd, err = unix.Openat2(int(parent.Fd()), name, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_XDEV})
		return err
	})
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fd, err
	}
	err = ignoringInterrupts(func() error {
		fd, err = unix.Openat(int(parent.Fd()), name, flags, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	above, known := mountOf(int(parent.Fd()))
	if own, ok := mountOf(fd); !ok || !known || own != above {
		_ = unix.Close(fd)
		return -1, unix.EXDEV
	}
	return fd, nil
}

// mountOf is the number of the mount to which an open file belongs.
func mountOf(fd int) (string, bool) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return "", false
	}
	_, rest, ok := bytes.Cut(b, []byte("mnt_id:"))
	id, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(bytes.TrimSpace(id)), ok
}

// detach unmounts everything that is mounted on an entry of a folder, with the mounts below it. It first makes the mount
// private: a bind mount of a whole file system shares the mounts below it with the original, and they would vanish there, too.
func detach(parent *os.File, name string) error {
	for range maxStacked {
		fd, err := unix.Openat(int(parent.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if own, ok := mountOf(fd); ok {
			if above, ok := mountOf(int(parent.Fd())); ok && own == above {
				_ = unix.Close(fd)
				return nil
			}
		}
		at := "/proc/self/fd/" + strconv.Itoa(fd)
		err = unix.Mount("", at, "", unix.MS_REC|unix.MS_PRIVATE, "")
		if err == nil {
			err = unix.Unmount(at, unix.MNT_DETACH)
		}
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%w: %w", errMount, err)
		}
	}
	return errMount
}

// restorePermissions gives the owner of a folder its permissions back, which a task has removed.
func restorePermissions(parent *os.File, name string) error {
	fd, err := openat2(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil && errors.Is(err, unix.EACCES) && parent.Chmod(0o700) == nil {
		fd, err = openat2(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o700)
}

func ignoringInterrupts(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
