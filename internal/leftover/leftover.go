// Package leftover reads files that a task left behind: outputs.pb, error.pb, logs, exit codes. The task's code may have put
// anything in the place of a file, and that must neither block nor deceive the program that reads: a named pipe has no end, opening
// a device may have an effect, a link leads to the files of others, a sparse file claims more bytes than any memory holds, and a
// file without permissions can be read by root alone.
//
// So [Open] opens only a regular file at the very path and never waits. For anything else the error is a [NotFileError], which is
// the task's fault. Every other error comes from the disk: reading again later may help.
package leftover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// NotFileError says that there is something else in the place of a file, or a file that the server may not read.
type NotFileError struct {
	Name string // last part of the path
	What string // "a named pipe", "a symbolic link"
}

func (e *NotFileError) Error() string { return e.Name + " is " + e.What }

// TooLargeError says that a file is longer than its reader takes.
type TooLargeError struct {
	Name  string
	Limit int64 // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s has more than %d bytes", e.Name, e.Limit)
}

// Open opens a regular file for reading. fs.ErrNotExist if there is nothing at the path.
func Open(path string) (*os.File, fs.FileInfo, error) {
	// The kind is checked before, because opening a device may have an effect, and again after, because the file may have been
	// replaced.
	info, err := os.Lstat(path)
	if err == nil {
		err = onlyFile(path, info)
	}
	if err != nil {
		return nil, nil, Explain(path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, Explain(path, err)
	}
	if info, err = f.Stat(); err == nil {
		err = onlyFile(path, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func onlyFile(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return &NotFileError{filepath.Base(path), Kind(info.Mode())}
}

// Kind names the kind of a file for messages: "a named pipe".
func Kind(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "a file"
	case fs.ModeDir:
		return "a folder"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a named pipe"
	case fs.ModeSocket:
		return "a socket"
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		return "a device"
	default:
		return "something that is not a file"
	}
}

// Explain turns an error of the file system that a task has caused by changing its files into a NotFileError. It returns any other
// error as it is.
func Explain(path string, err error) error {
	name := filepath.Base(path)
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &NotFileError{name, "not readable: its permissions, or those of a folder above it, were taken away"}
	case errors.Is(err, syscall.ELOOP):
		return &NotFileError{name, "a symbolic link"}
	case errors.Is(err, syscall.ENXIO):
		return &NotFileError{name, "a named pipe, a socket or a device"}
	case errors.Is(err, syscall.ENAMETOOLONG):
		return &NotFileError{name, "at a path that is too long for this system"}
	case errors.Is(err, syscall.ENOTCONN):
		return &NotFileError{name, "on a file system that nothing serves any more"}
	}
	return err
}

// Read returns the content of a file of at most limit bytes. A longer file is not read: the error is a TooLargeError.
func Read(path string, limit int64) ([]byte, error) {
	f, info, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > limit {
		return nil, &TooLargeError{filepath.Base(path), limit}
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit { // the file has grown meanwhile
		return nil, &TooLargeError{filepath.Base(path), limit}
	}
	return content, nil
}

// Tail returns at most the last limit bytes of a file.
func Tail(path string, limit int64) ([]byte, error) {
	f, info, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit), limit))
}
