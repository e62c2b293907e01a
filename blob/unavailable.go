package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/aloft-dev/aloft"
)

// ReadError is Put's error if its reader failed, such as the body of a client that went away in the middle: not a fault of the
// store.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "read content: " + e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

// Unavailable marks an error of the file system as a failure of the store (aloft.ErrUnavailable), and adds the way out for errors
// that a person must mend. It returns nil, and errors that are already classified, as they are.
func Unavailable(err error) error {
	var (
		advice string
		source *ReadError
	)
	switch {
	case err == nil,
		errors.Is(err, aloft.ErrUnavailable), errors.Is(err, aloft.ErrNotFound), errors.Is(err, aloft.ErrExists),
		errors.Is(err, aloft.ErrInvalid), errors.Is(err, aloft.ErrConflict), errors.Is(err, aloft.ErrExhausted),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &source):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = "; the disk is full: free some space or move the data folder to a larger disk"
	case errors.Is(err, syscall.EROFS):
		advice = "; the file system is read-only: remount it writable or choose another data folder"
	case errors.Is(err, fs.ErrPermission):
		advice = "; the server may not write there: give its user permission or choose another data folder"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		advice = "; too many files are open: raise the limit (ulimit -n)"
	case errors.Is(err, syscall.EIO):
		advice = "; the disk reports an error: check its health (dmesg)"
	}
	return fmt.Errorf("%w: %w%s", aloft.ErrUnavailable, err, advice)
}
