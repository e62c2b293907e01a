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
	entries int      // that may still be removed
	top     *os.File // the folder itself; nil: it is not open yet
	changed int      // entries that were removed or moved to the top
	stays   error    // why the first entry that cannot be removed cannot
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

// entry removes one entry of a folder. Its error ends the removal; what merely cannot be removed is noted in stays.
func (t *tree) entry(parent *os.File, name string, depth int) error {
	err := unlink(parent, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		// A folder; or a file that something is mounted on.
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

// folder removes a folder with all that it holds.
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
		// What is found in it now was moved up meanwhile, or the file system had skipped it while others were removed.
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) || t.changed == before {
			return false, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
	}
}

// moveUp makes a folder that is too deep one of the top's own.
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
		if errors.Is(opened, unix.ENOTDIR) { // a file, which was not to be moved
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

// unlink removes a file, or with AT_REMOVEDIR an empty folder, also where the folder that holds it lacks its permissions.
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

// errMount says why a folder is not removed.
var errMount = errors.New("something is mounted there, which this user cannot detach")

// open opens a folder to list and change it. It detaches what is mounted there, and never opens that.
func open(parent *os.File, name string) (*os.File, error) {
	f, err := openHere(parent, name)
	if errors.Is(err, unix.EXDEV) {
		if err = detach(parent, name); err != nil {
			return nil, err
		}
		f, err = openHere(parent, name)
	}
	if errors.Is(err, unix.EACCES) && giveBack(parent, name) == nil {
		f, err = openHere(parent, name)
	}
	return f, err
}

const openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// openHere opens a folder of the same mount as its parent. EXDEV: it is another's.
func openHere(parent *os.File, name string) (*os.File, error) {
	fd, err := openat2(parent, name, openFolder)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openat2 asks the kernel itself not to leave the mount, so that no mount can come between a question and an answer. Kernels
// before 5.6 and some filters of calls do not know it: there the mount of what was opened is compared before it is used.
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

// mountOf is the number of the mount that an open file is of.
func mountOf(fd int) (string, bool) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return "", false
	}
	_, rest, ok := bytes.Cut(b, []byte("mnt_id:"))
	id, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(bytes.TrimSpace(id)), ok
}

// detach takes away all that is mounted on an entry of a folder. What is mounted below that goes with it, here alone: a mount
// that a task made of a whole file system shares its mounts with the original, from which they would vanish too.
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

// giveBack lets us use a folder whose permissions were taken away.
func giveBack(parent *os.File, name string) error {
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
