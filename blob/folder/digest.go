package folder

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/clone"
)

const (
	// hashedPart is how many bytes are hashed in one turn, which takes about half a millisecond.
	hashedPart = 256 << 10

	// freelyHashed is how many bytes of a Put are hashed without waiting for a turn: the server's own objects are smaller.
	freelyHashed = 256 << 10
)

// hashing limits how many parts are hashed at the same time, of files of all stores of this process, so that half of the processors
// are left to requests.
var hashing = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// zeros is the content of a hole.
var zeros [hashedPart]byte

// turnDigest is a blob.Digest that waits for its turn before each part, and fails when its ctx ends.
type turnDigest struct {
	*blob.Digest
	ctx  context.Context
	free int // bytes that may still be hashed without a turn
}

func (d *turnDigest) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(n+hashedPart, len(p))]
		if d.free >= len(part) {
			d.free -= len(part)
			_, _ = d.Digest.Write(part)
		} else if err := d.writeInTurn(part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func (d *turnDigest) writeInTurn(part []byte) error {
	if err := goesOn(d.ctx); err != nil {
		return err
	}
	select {
	case hashing <- struct{}{}:
	case <-d.ctx.Done():
		return d.ctx.Err()
	}
	defer func() { <-hashing }()
	runtime.Gosched() // the scheduler runs a goroutine that was handed a place before all others
	_, _ = d.Digest.Write(part)
	return goesOn(d.ctx)
}

// digestOf hashes a file. Holes are not read: a task makes them of any size at no cost. The offset of f is anywhere afterwards.
func digestOf(ctx context.Context, f *os.File, info fs.FileInfo) (blob.Attributes, error) {
	digest := &turnDigest{Digest: blob.NewDigest(), ctx: ctx}
	size := info.Size()
	part := make([]byte, min(max(size+1, 512), hashedPart))
	for at, data, hole := int64(0), int64(0), int64(0); ; { // from at to data there is a hole, from data to hole there are data
		if err := goesOn(ctx); err != nil {
			return blob.Attributes{}, err
		}
		if at >= hole && at < size {
			var err error
			if data, hole, err = clone.NextData(f, at, size); err != nil {
				data, hole = at, size // the file may have been cut off meanwhile: then ReadAt finds its end
			}
		}
		if data-at >= hashedPart {
			if _, err := digest.Write(zeros[:]); err != nil {
				return blob.Attributes{}, err
			}
			at += hashedPart
			continue
		}
		n, err := f.ReadAt(part, at)
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return blob.Attributes{}, err
		}
		if _, err := digest.Write(part[:n]); err != nil {
			return blob.Attributes{}, err
		}
		if at += int64(n); ended {
			break
		}
	}
	a := digest.Attributes()
	a.ModTime = info.ModTime()
	return a, nil
}
