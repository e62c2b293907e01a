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
	// hashedPart is how many bytes are hashed in one turn: about half a millisecond.
	hashedPart = 256 << 10

	// freelyHashed is how many bytes of what is put are hashed without a turn: what the server itself puts is smaller.
	freelyHashed = 256 << 10
)

// hashing has a place for each part that is being hashed, of files of all stores: the processors are the process's, too. At
// least half of them are left to requests.
var hashing = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// zeros are what a hole is read as.
var zeros [hashedPart]byte

// turnDigest is a blob.Digest that waits for its turn before each part, and ends with its ctx.
type turnDigest struct {
	*blob.Digest
	ctx  context.Context
	free int // bytes that need no turn
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
				data, hole = at, size // it was cut off meanwhile: reading tells
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
