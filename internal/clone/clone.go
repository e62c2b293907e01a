// Package clone gives a file's content to a second file as cheaply as the file system can: blob/folder makes private copies
// of stored objects with it, and bundle those of code.
//
// A clone shares its blocks with the original until one of the two is written to (XFS, Btrfs; both files on one file
// system). It costs the same for any size. Where there are none, content is copied by the kernel and holes stay holes. It
// is never a hard link: two names of one file are one file, and under one user id either can be written through.
package clone

import (
	"context"
	"io"
	"os"

	"github.com/aloft-dev/aloft/internal/hang"
)

// How a content was given.
type How int

const (
	Copied How = iota
	Shared     // blocks are shared until one of the files is written to
)

// chunk is copied between two looks at the context.
const chunk = 64 << 20

// File gives the content of src to dst, which is new and empty. Sharing is not tried if copied is set: for a small file, and
// where it was seen to be impossible, a call less is a good part of the cost.
func File(ctx context.Context, dst, src *os.File, copied bool) (How, error) {
	if !copied && share(dst, src) {
		return Shared, nil
	}
	info, err := src.Stat()
	if err != nil {
		return Copied, err
	}
	return Copied, sparse(ctx, dst, src, info.Size())
}

// sparse copies what is not a hole. The size is set first, so that a hole at the end is one, too.
func sparse(ctx context.Context, dst, src *os.File, size int64) error {
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		start, end, err := NextData(src, at, size)
		if err != nil {
			return err
		}
		for at = start; at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			hang.Progress(ctx)
			for _, f := range []*os.File{src, dst} {
				if _, err := f.Seek(at, io.SeekStart); err != nil {
					return err
				}
			}
			n, err := io.CopyN(dst, src, min(chunk, end-at))
			if err != nil { // io.EOF: it became shorter meanwhile, which no stored file does
				return err
			}
			at += n
		}
	}
	return nil
}
