package clone

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// share makes dst share the blocks of src until one of the two is written to. False if the file system cannot.
func share(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// NextData is the first stretch of src at or after from that is not a hole; start is size if there is none. A file
// system that knows no holes says that everything is data.
func NextData(src *os.File, from, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(src.Fd()), from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case err != nil: // it does not know these two ways of seeking
		return from, size, nil //nolint:nilerr // see above
	}
	if end, err = unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE); err != nil {
		return 0, 0, &os.PathError{Op: "seek", Path: src.Name(), Err: err}
	}
	return min(start, size), min(end, size), nil
}
