package clone

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// share makes dst a clone of src. False if the file system has no clones.
func share(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// NextData is the first stretch of data of src at or after from; start is size if only a hole follows. On a file system without
// holes, all of the file is data.
func NextData(src *os.File, from, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(src.Fd()), from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case err != nil: // the file system knows neither SEEK_DATA nor SEEK_HOLE
		return from, size, nil //nolint:nilerr // see above
	}
	if end, err = unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE); err != nil {
		return 0, 0, &os.PathError{Op: "seek", Path: src.Name(), Err: err}
	}
	return min(start, size), min(end, size), nil
}
