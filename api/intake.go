package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/internal/weight"
)

// How long the parts of a request may take on the wire.
const (
	bodyIdle   = 10 * time.Second // without a byte of a call's message
	bodyGrace  = 20 * time.Second // before a message must have come at bodyRate
	bodyRate   = 64 << 10         // bytes a second
	uploadIdle = time.Minute      // without a byte of a file
	answerIdle = time.Minute      // without a byte of the answer being taken
)

const (
	maxRatio       = 100      // of a compressed message, above freeInflated
	freeInflated   = 10 << 20 // bytes up to which any ratio is fine
	heavyBytes     = 256 << 10
	streamedBytes  = 1 << 20   // of all messages together that a client streams to us
	copiedBytes    = 256 << 10 // at once: the scheduler interrupts no copy, and new memory is slow at its first touch
	headerRoom     = 4 << 10   // headers up to this many bytes are not worth counting
	decodingCopies = 2         // of a message: connect reads it into a buffer that doubles as it grows
)

// intake stands before all handlers. It receives the message of a call within the time and the room that there are for
// it, decompresses it, weighs it, and takes room for what it will be when it is decoded; only then does the handler that
// decodes it run. What it refuses it answers in the protocol of the caller.
//
//	header ─▶ receive (idle, rate, room) ─▶ decompress (ratio, room) ─▶ weigh (limit, room) ─▶ decode, handle, answer ─▶ release
//
// Files are streamed by their handler: of them only the time on the wire is bounded.
type intake struct {
	pool    *room.Pool
	heavy   chan struct{} // held while a large message is decompressed, weighed and decoded, or encoded
	inputs  sync.Map      // protoreflect.MessageDescriptor by path; nil where none is known
	next    http.Handler
	timings timings
}

// timings are the constants above, shorter in tests.
type timings struct{ idle, grace, upload, answer time.Duration }

func newIntake(pool *room.Pool, next http.Handler) *intake {
	return &intake{
		pool: pool, next: next,
		heavy:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		timings: timings{bodyIdle, bodyGrace, uploadIdle, answerIdle},
	}
}

func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, blob.LinkPath) {
		watch := watchWire(w, i.timings.upload, i.timings.answer)
		defer watch.end()
		r.Body = &wireBody{body: r.Body, watch: watch}
		i.next.ServeHTTP(w, r) // the writer is left as it is: files are sent by the kernel
		return
	}
	claim := i.pool.Claim()
	defer claim.Release()
	slot := &heavySlot{places: i.heavy, claim: claim}
	defer slot.release()
	watch := watchWire(w, i.timings.idle, i.timings.answer)
	defer watch.end()
	ctx := context.WithValue(room.With(r.Context(), claim), heavyKey{}, slot)
	r = r.WithContext(ctx)
	w = &watchedWriter{w, watch, slot}
	if err := i.receive(r, claim, slot, watch); err != nil {
		refuse(w, r, 0, refusalOf(err))
		return
	}
	i.next.ServeHTTP(w, r)
}

// receive puts the message of a call, whole and decompressed, in the place of its body.
func (i *intake) receive(r *http.Request, claim *room.Claim, slot *heavySlot, watch *wireWatch) error {
	if size := headerSize(r.Header); size > headerRoom {
		if err := claim.Take(r.Context(), size); err != nil {
			return err
		}
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	body := &wireBody{body: r.Body, watch: watch, began: time.Now(), grace: i.timings.grace}
	format, input := formatOf(r), i.input(r.URL.Path)
	in := &incoming{ctx: r.Context(), body: body, claim: claim, slot: slot}
	var message []byte
	var err error
	switch {
	case isREST(r.URL.Path):
		if message, err = in.all(r.ContentLength); err == nil && !format.binary() {
			err = in.weigh(nil, message, true) // its binary messages are weighed where their type is known
		}
	case input == nil: // a stream of the client's, or no call of ours: connect says which
		r.Body = &limitedBody{ReadCloser: body, left: streamedBytes}
		return nil
	case format.enveloped():
		message, err = in.envelope(format.encoding(r.Header), input, format.json())
	default:
		if message, err = in.all(r.ContentLength); err == nil && r.Header.Get("Content-Encoding") == "gzip" {
			message, err = in.inflate(message, 0)
			r.Header.Del("Content-Encoding")
		}
		if err == nil {
			err = in.weigh(input, message, format.json())
		}
	}
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = &heldBody{Reader: *bytes.NewReader(message), data: message, incoming: in}, int64(len(message))
	return nil
}

func headerSize(h http.Header) (size int64) {
	for name, values := range h {
		for _, value := range values {
			size += int64(len(name) + len(value))
		}
	}
	return size
}

// input is what the one message of a call is; nil if the path is no call, or one to which clients stream.
func (i *intake) input(path string) protoreflect.MessageDescriptor {
	if known, ok := i.inputs.Load(path); ok {
		desc, _ := known.(protoreflect.MessageDescriptor)
		return desc
	}
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok {
		return nil
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil // not remembered: there is any number of them
	}
	if s, ok := found.(protoreflect.ServiceDescriptor); ok {
		if m := s.Methods().ByName(protoreflect.Name(method)); m != nil && !m.IsStreamingClient() {
			i.inputs.Store(path, m.Input())
			return m.Input()
		}
	}
	return nil
}

func refusalOf(err error) *connect.Error {
	if ready, ok := errors.AsType[*connect.Error](err); ok {
		return ready
	}
	for _, row := range errorCodes {
		if errors.Is(err, row.err) {
			return connect.NewError(row.code, errors.New(fit(plain(err), maxStatusBytes)))
		}
	}
	return connect.NewError(connect.CodeCanceled, fmt.Errorf("the request was cut off: %w", err))
}

// incoming is a message on its way into memory.
type incoming struct {
	ctx   context.Context
	body  io.Reader
	claim *room.Claim
	slot  *heavySlot
}

var errTooLarge = fmt.Errorf("%w: the request has more than %d MiB, the limit of one message", aloft.ErrExhausted, aloft.MaxMessageBytes>>20)

// all reads the whole body.
func (in *incoming) all(declared int64) ([]byte, error) {
	if declared > aloft.MaxMessageBytes {
		return nil, errTooLarge
	}
	return in.read(in.body, declared, nil)
}

// read reads all of r into a buffer that grows as bytes come, not to the size that was declared at once: a client that
// declares much and sends nothing takes no room. check is asked after each part.
func (in *incoming) read(r io.Reader, declared int64, check func(size int) error) ([]byte, error) {
	if declared <= 0 {
		declared = aloft.MaxMessageBytes
	}
	first := min(declared, 512)
	if err := in.take(first); err != nil {
		return nil, err
	}
	buffer := make([]byte, 0, first)
	for {
		if len(buffer) == cap(buffer) {
			if int64(len(buffer)) == declared { // the rest is nothing, or more than was said
				var one [1]byte
				n, err := io.ReadFull(r, one[:])
				if n == 0 && errors.Is(err, io.EOF) {
					return buffer, nil
				}
				if n == 0 {
					return nil, err
				}
				if declared == aloft.MaxMessageBytes {
					return nil, errTooLarge
				}
				return nil, fmt.Errorf("the request has more than the %d bytes that it declares: %w", declared, aloft.ErrInvalid)
			}
			grown := min(int64(2*cap(buffer)), declared)
			if err := in.take(grown); err != nil {
				return nil, err
			}
			larger, err := in.grow(buffer, grown)
			if err != nil {
				return nil, err
			}
			in.claim.Give(int64(cap(buffer)))
			buffer = larger
		}
		if len(buffer) > heavyBytes {
			runtime.Gosched() // small requests go first
		}
		n, err := r.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		if check != nil {
			if err := check(len(buffer)); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			return buffer, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// grow copies what has come into a larger buffer: a large one with the slot, which it gives back before it waits for the wire.
func (in *incoming) grow(buffer []byte, size int64) ([]byte, error) {
	if size > heavyBytes && !in.slot.has {
		if err := in.slot.take(in.ctx); err != nil {
			return nil, err
		}
		defer in.slot.release()
	}
	larger := make([]byte, 0, size)
	for part := range slices.Chunk(buffer, copiedBytes) {
		larger = append(larger, part...)
		runtime.Gosched()
	}
	return larger, nil
}

const (
	envelopeHeader     = 5
	envelopeCompressed = 1
)

// envelope reads the one message of a gRPC, gRPC-Web or streaming Connect call, and gives it as one that is not compressed.
func (in *incoming) envelope(encoding string, input protoreflect.MessageDescriptor, json bool) ([]byte, error) {
	var prefix [envelopeHeader]byte
	if n, err := io.ReadFull(in.body, prefix[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return prefix[:n], nil // connect says what is missing
		}
		return nil, err
	}
	size := int64(binary.BigEndian.Uint32(prefix[1:]))
	if size > aloft.MaxMessageBytes {
		return nil, errTooLarge
	}
	whole := io.MultiReader(bytes.NewReader(prefix[:]), in.body)
	message, err := in.read(whole, envelopeHeader+size, nil)
	if errors.Is(err, aloft.ErrInvalid) {
		return nil, fmt.Errorf("the call has one message, and another one came after it: %w", aloft.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	if int64(len(message)) < envelopeHeader+size {
		return message, nil // connect says that it is not whole
	}
	if message[0]&envelopeCompressed != 0 && encoding == "gzip" {
		if message, err = in.inflate(message[envelopeHeader:], envelopeHeader); err != nil {
			return nil, err
		}
		message[0] = prefix[0] &^ envelopeCompressed
		binary.BigEndian.PutUint32(message[1:], uint32(len(message)-envelopeHeader))
	}
	return message, in.weigh(input, message[envelopeHeader:], json)
}

// inflate decompresses a message behind so many bytes that are left free.
func (in *incoming) inflate(compressed []byte, free int) ([]byte, error) {
	if err := in.slot.take(in.ctx); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("the request is said to be compressed with gzip, and is not: %w: %w", err, aloft.ErrInvalid)
	}
	message, err := in.read(io.MultiReader(bytes.NewReader(make([]byte, free)), z), 0, func(size int) error {
		if size > freeInflated && size > maxRatio*len(compressed) {
			return fmt.Errorf("%w: the request is compressed to less than a %dth of its size; above %d MiB that is not taken: send it uncompressed",
				aloft.ErrExhausted, maxRatio, freeInflated>>20)
		}
		return nil
	})
	var corrupt interface{ Timeout() bool } // of the wire there is nothing here, so any other error is about the text
	if err != nil && !errors.Is(err, aloft.ErrExhausted) && !errors.As(err, &corrupt) && in.ctx.Err() == nil {
		err = fmt.Errorf("the request cannot be decompressed: %w: %w", err, aloft.ErrInvalid)
	}
	if err == nil {
		in.claim.Give(int64(cap(compressed) + free)) // it came behind as many bytes
	}
	return message, err
}

// weigh takes the room that a message needs from now on.
func (in *incoming) weigh(input protoreflect.MessageDescriptor, message []byte, json bool) error {
	if len(message) > heavyBytes {
		if err := in.slot.take(in.ctx); err != nil {
			return err
		}
	}
	var heavy int64
	var err error
	if json {
		heavy, err = weight.JSON(message)
	} else {
		heavy, err = weight.Protobuf(input, message)
	}
	if err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	return in.take(heavy + decodingCopies*int64(len(message)))
}

// take takes room. The slot is given away while it waits, for others that have their room already.
func (in *incoming) take(n int64) error {
	err := in.claim.TryTake(n)
	if _, short := errors.AsType[*room.Shortage](err); !short {
		return err
	}
	had := in.slot.has
	in.slot.release()
	if err := in.claim.Take(in.ctx, n); err != nil || !had {
		return err
	}
	return in.slot.take(in.ctx)
}

// heldBody is the body of a request whose message has been received.
type heldBody struct {
	bytes.Reader
	data     []byte
	incoming *incoming
	refused  *connect.Error // why it was not decoded
}

func (*heldBody) Close() error { return nil }

// limitedBody ends with an error after so many bytes.
type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("a stream of requests has more than %d KiB", streamedBytes>>10))
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

type heavyKey struct{}

// heavySlot is the right to keep a processor busy with a large message: there are few, so that small requests find one free.
type heavySlot struct {
	places chan struct{}
	claim  *room.Claim // whose patience it is
	has    bool
}

func (s *heavySlot) take(ctx context.Context) (err error) {
	if s.has {
		return nil
	}
	if s.has, err = s.claim.Enter(ctx, s.places); err == nil && !s.has {
		err = fmt.Errorf("%w: the server is busy with other large requests: try again later", aloft.ErrExhausted)
	}
	return err
}

func (s *heavySlot) release() {
	if s != nil && s.has {
		<-s.places
		s.has = false
	}
}

// slotOf is the slot of a call, nil where it has none.
func slotOf(ctx context.Context) *heavySlot {
	slot, _ := ctx.Value(heavyKey{}).(*heavySlot)
	return slot
}

// wireWatch cuts a request whose client does not go on. It costs one timer for each request, which is stopped at its end.
type wireWatch struct {
	control     *http.ResponseController
	read, write wireTurn
	mu          sync.Mutex
	timer       *time.Timer
	ended       bool
}

// wireTurn is one direction.
type wireTurn struct {
	limit time.Duration
	since atomic.Int64 // nanoseconds since the epoch of the call that waits; 0: none does
	cut   atomic.Bool
}

func (t *wireTurn) late(now time.Time) bool {
	since := t.since.Load()
	return since != 0 && now.Sub(time.Unix(0, since)) >= t.limit
}

func (t *wireTurn) begin() { t.since.Store(time.Now().UnixNano()) }
func (t *wireTurn) done()  { t.since.Store(0) }

func watchWire(w http.ResponseWriter, read, write time.Duration) *wireWatch {
	watch := &wireWatch{control: http.NewResponseController(w)}
	watch.read.limit, watch.write.limit = read, write
	watch.timer = time.AfterFunc(min(read, write), watch.look)
	return watch
}

// look runs now and then while the request lasts.
func (w *wireWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended { // the writer is another request's by now
		return
	}
	now, past := time.Now(), time.Unix(1, 0)
	if w.read.late(now) && !w.read.cut.Swap(true) {
		_ = w.control.SetReadDeadline(past)
	}
	if w.write.late(now) && !w.write.cut.Swap(true) {
		_ = w.control.SetWriteDeadline(past)
	}
	w.timer.Reset(max(min(w.read.limit, w.write.limit)/4, time.Millisecond))
}

func (w *wireWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
}

// wireBody reads a body under a watch.
type wireBody struct {
	body     io.ReadCloser
	watch    *wireWatch
	began    time.Time // zero: there is no rate
	grace    time.Duration
	received int64
}

func (b *wireBody) Read(p []byte) (int, error) {
	b.watch.read.begin()
	n, err := b.body.Read(p)
	b.watch.read.done()
	b.received += int64(n)
	if err != nil && !errors.Is(err, io.EOF) && (b.watch.read.cut.Load() || errors.Is(err, os.ErrDeadlineExceeded)) {
		return n, connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("nothing of the request came for %v: it was cut off after %d bytes", b.watch.read.limit, b.received))
	}
	if err == nil && !b.began.IsZero() {
		if took := time.Since(b.began); took > b.grace && float64(b.received) < took.Seconds()*bodyRate {
			return n, connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("the request comes too slowly: %d bytes in %v, where %d KiB a second are expected",
				b.received, took.Round(time.Second), bodyRate>>10))
		}
	}
	return n, err
}

func (b *wireBody) Close() error { return b.body.Close() }

// watchedWriter writes an answer under a watch.
type watchedWriter struct {
	http.ResponseWriter
	watch *wireWatch
	slot  *heavySlot // held while the answer was encoded
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	w.slot.release()
	w.watch.write.begin()
	defer w.watch.write.done()
	return w.ResponseWriter.Write(p)
}

func (w *watchedWriter) Flush() {
	w.watch.write.begin()
	defer w.watch.write.done()
	_ = w.watch.control.Flush()
}

// Unwrap is for http.ResponseController.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
