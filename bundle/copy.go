package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aloft-dev/aloft/internal/clone"
)

// diskErrors are errors of the disk or the machine, not of an archive.
var diskErrors = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.EACCES, syscall.EPERM}

// PrivateCopy copies the bundle into the folder dst, which it makes if needed: an attempt's working folder, in which it
// may change every file. Blocks are shared with the bundle where the file system can (XFS, Btrfs), else copied; never
// hard links, because a task that writes a file in place would change the file of all attempts. Modes and times are kept: by the times
// Python decides whether compiled modules are current. The copy is not synced: an attempt does not survive a power cut.
func (d *Dir) PrivateCopy(dst string) error {
	plan, err := d.entry.plan(d.Path)
	if err == nil {
		err = d.cache.copyTree(d.Path, dst, plan)
	}
	if err != nil {
		return fmt.Errorf("copy code bundle to %s: %w", dst, classify(err))
	}
	return nil
}

// treeEntry is one file, link or folder of a bundle, as PrivateCopy writes it. In a list a folder comes before its entries.
type treeEntry struct {
	name    string // relative to the bundle
	mode    fs.FileMode
	time    time.Time
	target  string // of a symbolic link
	content []byte // of a small file; nil: the copy reads the file
	size    int64
}

const (
	maxKeptFile   = 64 << 10 // bytes; larger files are cloned or copied by the kernel
	maxKeptBundle = 1 << 20  // bytes of content kept in memory for one bundle, as long as it is in the cache
)

// plan reads the bundle's folder once for all copies: so an attempt starts with one write per file, and not with a walk.
func (e *entry) plan(dir string) ([]treeEntry, error) {
	e.planning.Lock()
	defer e.planning.Unlock()
	if e.tree != nil {
		return e.tree, nil
	}
	tree, err := planTree(dir)
	if err == nil {
		e.tree = tree
	}
	return tree, err
}

func planTree(dir string) ([]treeEntry, error) {
	tree := []treeEntry{}
	var kept int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n := treeEntry{name: path[len(dir)+1:], mode: info.Mode(), time: info.ModTime(), size: info.Size()}
		switch {
		case d.Type() == fs.ModeSymlink:
			n.target, err = os.Readlink(path)
		case d.Type().IsRegular() && n.size <= maxKeptFile && kept+n.size <= maxKeptBundle:
			n.content, err = os.ReadFile(path)
			kept += n.size
		}
		tree = append(tree, n)
		return err
	})
	return tree, err
}

func (c *Cache) copyTree(src, dst string, tree []treeEntry) error {
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	for _, n := range tree {
		to := dst + string(filepath.Separator) + n.name
		var err error
		switch {
		case n.mode.IsDir():
			if err = os.Mkdir(to, n.mode.Perm()|0o700); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		case n.mode.Type() == fs.ModeSymlink:
			err = os.Symlink(n.target, to)
		case n.content != nil:
			err = writeFile(to, n)
		default:
			err = c.copyFile(src+string(filepath.Separator)+n.name, to, n)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range slices.Backward(tree) { // after their entries, which change the time of a folder
		if n.mode.IsDir() {
			to := dst + string(filepath.Separator) + n.name
			if err := errors.Join(os.Chmod(to, n.mode.Perm()), os.Chtimes(to, n.time, n.time)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeFile is os.WriteFile with a modification time, and without the system calls by which os.OpenFile tries to register the file
// with the poller: they count with twenty files in every attempt.
func writeFile(path string, n treeEntry) error {
	mode := uint32(n.mode.Perm())
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, mode)
	})
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	for rest := n.content; len(rest) > 0 && err == nil; {
		var written int
		written, err = retry(func() (int, error) { return unix.Write(fd, rest) })
		rest = rest[max(written, 0):]
	}
	if err == nil { // the umask may have taken bits of the mode away
		err = unix.Fchmod(fd, mode)
	}
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return os.Chtimes(path, n.time, n.time)
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (c *Cache) copyFile(from, to string, n treeEntry) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, n.mode.Perm())
	if err != nil {
		return err
	}
	defer dst.Close()
	how, err := clone.File(context.Background(), dst, src, c.noClone.Load())
	if err != nil {
		return err
	}
	if how == clone.Copied {
		c.noClone.Store(true)
	}
	if err := dst.Chmod(n.mode.Perm()); err != nil { // the umask may have taken bits of the mode away
		return err
	}
	return os.Chtimes(to, n.time, n.time)
}
