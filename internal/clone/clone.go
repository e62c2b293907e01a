// Package clone gives a file's content to a second file as cheaply as the file system can: blob/folder makes private copies
// of stored objects with it, and bundle those of code.
//
// A clone shares its blocks with the original until one of the two files is written to (XFS, Btrfs; both files on one file
// system). It costs the same for any size. On other file systems the kernel copies the content, and holes stay holes. A hard
// link is never made: it would be a second name of the original, through which a task could change a stored object.
package clone

import (
	"context"
	"io"
	"os"

	"github.com/aloft-dev/aloft/internal/hang"
)

// How is the way in which File gave the content.
type How int

const (
	Copied How = iota
	Shared     // blocks are shared until one of the files is written to
)

// chunk is how many bytes are copied between two looks at the context.
const chunk = 64 << 20

// File gives the content of src to dst, which is new and empty. If copied is set, a clone is not tried: for a small file, or on
// a file system that was seen to have no clones, the vain call would be a good part of the cost.
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

// sparse copies all data of src but its holes. The size of dst is set first, so that a hole at the end stays a hole, too.
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
			if err != nil { // io.EOF: src became shorter meanwhile, which no stored object does
				return err
			}
			at += n
		}
	}
	return nil
}
