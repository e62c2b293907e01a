package folder

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/hang"
)

// object is an object that was opened to be read. The time of a read is bounded: a read that takes too long is left. Reads go
// through a buffer, since a read that was left may still write to its memory when the caller uses its own again.
type object struct {
	ctx   context.Context
	guard *hang.Guard
	file  *os.File
	size  int64

	array  []byte // memory for reads; nil: not made yet, or a read that was left may still write to it
	buffer []byte // the part of array that was read and that the caller has not taken yet
	err    error  // of the latest read: it is returned once buffer is empty
}

// readAhead is how much is read at once.
const readAhead = 128 << 10

func (o *object) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(o.buffer) == 0 && o.err == nil {
		o.fill()
	}
	if len(o.buffer) == 0 {
		return 0, o.err
	}
	n := copy(p, o.buffer)
	o.buffer = o.buffer[n:]
	return n, nil
}

// fill reads the next part of the file into the buffer.
func (o *object) fill() {
	if o.array == nil {
		o.array = make([]byte, min(max(o.size+1, 512), readAhead))
	}
	room := o.array
	n, err := hang.Do(o.ctx, o.guard, func(context.Context) (int, error) { return o.file.Read(room) }, nil)
	if err != nil && !errors.Is(err, io.EOF) {
		o.array, err = nil, blob.Unavailable(err)
	}
	o.buffer, o.err = room[:n], err
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekCurrent {
		offset -= int64(len(o.buffer))
	}
	o.buffer, o.err = nil, nil
	return o.file.Seek(offset, whence)
}

func (o *object) Close() error { return o.file.Close() }

// File is the file itself, for a handler that has the kernel send it. Such a read has no bound in time: it lasts as long as the
// connection.
func (o *object) File() *os.File { return o.file }
