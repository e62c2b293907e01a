package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/aloft-dev/aloft/blob"
)

// diskErrors are the machine's and not the archive's.
var diskErrors = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.EACCES, syscall.EPERM}

// PrivateCopy copies the bundle into the folder dst, which it makes if needed: an attempt's working folder, in which it
// may change every file. Blocks are shared with the bundle where the file system can (XFS, Btrfs), else copied; never
// hard links, because a task that writes a file in place would write everybody's. Modes and times are kept: Python decides
// by them whether compiled modules are current. It is not synced: an attempt does not survive a power cut.
func (d *Dir) PrivateCopy(dst string) error {
	if err := d.cache.copyDir(d.Path, dst, 0o755); err != nil {
		return fmt.Errorf("copy code bundle to %s: %w", dst, blob.Unavailable(err))
	}
	return nil
}

func (c *Cache) copyDir(src, dst string, mode fs.FileMode) error {
	if err := os.Mkdir(dst, mode|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.MkdirAll(dst, mode|0o700); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := src+string(filepath.Separator)+e.Name(), dst+string(filepath.Separator)+e.Name()
		switch e.Type() {
		case fs.ModeDir:
			info, err := e.Info()
			if err != nil {
				return err
			}
			if err := c.copyDir(from, to, info.Mode().Perm()); err != nil {
				return err
			}
			if err := os.Chtimes(to, info.ModTime(), info.ModTime()); err != nil {
				return err
			}
		case fs.ModeSymlink:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
		default:
			if err := c.copyFile(from, to); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cache) copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer dst.Close()
	if c.noClone.Load() || !cloneFile(dst, src) {
		c.noClone.Store(true)
		if err := copyBytes(dst, src, info.Size()); err != nil {
			return err
		}
	}
	if current, err := dst.Stat(); err == nil && current.Mode() != info.Mode() { // the umask took something
		if err := dst.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}

// copyBytes spares the kernel's copy_file_range the many small files that code is: one read, one write.
func copyBytes(dst, src *os.File, size int64) error {
	const small = 64 << 10
	if size > small {
		_, err := io.Copy(dst, src)
		return err
	}
	buf := make([]byte, size)
	if _, err := io.ReadFull(src, buf); err != nil {
		return err
	}
	_, err := dst.Write(buf)
	return err
}
