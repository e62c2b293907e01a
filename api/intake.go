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

// How long a client may take on the wire before its request is cut off.
const (
	bodyIdle   = 10 * time.Second // without sending a byte of a call's message
	bodyGrace  = 20 * time.Second // from the first byte of a message on, before bodyRate is demanded
	bodyRate   = 64 << 10         // bytes a second, on average since the message began
	uploadIdle = time.Minute      // without sending a byte of a file
	answerIdle = time.Minute      // without taking a byte of the answer
)

const (
	maxRatio       = 100       // decompressed bytes per compressed byte, above freeInflated
	freeInflated   = 10 << 20  // a decompressed message up to this size may have any ratio
	heavyBytes     = 256 << 10 // a message above this size is large: it is decompressed, weighed, decoded and encoded with a slot
	streamedBytes  = 1 << 20   // all messages together that a client streams in one call
	copiedBytes    = 256 << 10 // copied without a pause: the scheduler interrupts no copy, and new memory is slow at its first touch
	headerRoom     = 4 << 10   // headers up to this size take no room
	decodingCopies = 2         // of a message while it is decoded: connect reads it into a buffer that doubles as it grows
)

// intake stands between the gate and all handlers. It receives the message of a call within the time and the room that a request
// has, decompresses it, weighs it, and takes room for the decoded message. Only then does the handler that decodes it run. The
// package doc tells this with its bounds and an example.
//
//	header ─▶ receive (idle, rate, room) ─▶ decompress (ratio, room) ─▶ weigh (limit, room) ─▶ decode, handle, answer ─▶ release
//
// A request that exceeds a bound is refused in the protocol of its client; a panic of a handler releases the room as its return
// does. Files of signed links are streamed by their handler: only their time on the wire is bounded. Two kinds of bodies reach the
// handler unweighed: the messages of a stream of the client's (at most streamedBytes), and a binary REST body, whose type only the
// gateway knows: octetStream weighs it before it decodes it.
type intake struct {
	pool       *room.Pool
	heavy      chan struct{} // one entry for each slot that is taken; its capacity is the number of slots
	inputs     sync.Map      // protoreflect.MessageDescriptor of a call's request, by path
	next       http.Handler
	wireLimits wireLimits
}

// wireLimits are bodyIdle, bodyGrace, uploadIdle and answerIdle, shorter in tests.
type wireLimits struct{ idle, grace, upload, answer time.Duration }

func newIntake(pool *room.Pool, next http.Handler) *intake {
	return &intake{
		pool: pool, next: next,
		heavy:      make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		wireLimits: wireLimits{bodyIdle, bodyGrace, uploadIdle, answerIdle},
	}
}

func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, blob.LinkPath) {
		watch := watchWire(w, i.wireLimits.upload, i.wireLimits.answer)
		defer watch.end()
		r.Body = &wireBody{body: r.Body, watch: watch}
		i.next.ServeHTTP(w, r) // with the writer as it is: a watchedWriter would keep the kernel from sending the file itself
		return
	}
	claim := i.pool.Claim()
	defer claim.Release()
	slot := &heavySlot{places: i.heavy, claim: claim}
	defer slot.release()
	watch := watchWire(w, i.wireLimits.idle, i.wireLimits.answer)
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

// receive replaces the body of a call by its message, whole and decompressed.
func (i *intake) receive(r *http.Request, claim *room.Claim, slot *heavySlot, watch *wireWatch) error {
	if size := headerSize(r.Header); size > headerRoom {
		if err := claim.Take(r.Context(), size); err != nil {
			return err
		}
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	body := &wireBody{body: r.Body, watch: watch, began: time.Now(), grace: i.wireLimits.grace}
	format, input := formatOf(r), i.input(r.URL.Path)
	in := &messageReader{ctx: r.Context(), body: body, claim: claim, slot: slot}
	var message []byte
	var err error
	switch {
	case isREST(r.URL.Path):
		if message, err = in.readBody(r.ContentLength); err == nil && !format.binary() {
			err = in.weigh(nil, message, true) // a binary message is weighed by octetStream, which knows its type
		}
	case input == nil: // a call to which clients stream, or an unknown path: the handler tells which
		r.Body = &limitedBody{ReadCloser: body, left: streamedBytes}
		return nil
	case format.enveloped():
		message, err = in.readEnvelope(format.encoding(r.Header), input, format.json())
	default:
		if message, err = in.readBody(r.ContentLength); err == nil && r.Header.Get("Content-Encoding") == "gzip" {
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
	r.Body, r.ContentLength = &receivedBody{Reader: *bytes.NewReader(message), data: message, reader: in}, int64(len(message))
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

// input is the type of a call's request message; nil if the path is no call, or a call to which clients stream messages.
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
		return nil // not remembered: a client can make up any number of paths
	}
	if s, ok := found.(protoreflect.ServiceDescriptor); ok {
		if m := s.Methods().ByName(protoreflect.Name(method)); m != nil && !m.IsStreamingClient() {
			i.inputs.Store(path, m.Input())
			return m.Input()
		}
	}
	return nil
}

// refusalOf is the client's error for an error of the intake. An error that no row of errorCodes matches comes from the wire.
func refusalOf(err error) *connect.Error {
	if ready, ok := errors.AsType[*connect.Error](err); ok {
		return ready
	}
	for _, row := range errorCodes {
		if errors.Is(err, row.err) {
			return connect.NewError(row.code, errors.New(fit(clientText(err), maxStatusBytes)))
		}
	}
	return connect.NewError(connect.CodeCanceled, fmt.Errorf("the request was cut off: %w", err))
}

// messageReader reads, decompresses and weighs the message of one request, and takes room and slot for that.
type messageReader struct {
	ctx   context.Context
	body  io.Reader
	claim *room.Claim // of the request
	slot  *heavySlot  // of the request
}

var errTooLarge = fmt.Errorf("%w: the request has more than %d MiB, the limit of one message", aloft.ErrExhausted, aloft.MaxMessageBytes>>20)

// readBody reads the whole body. declared is its Content-Length, -1 if that is missing.
func (in *messageReader) readBody(declared int64) ([]byte, error) {
	if declared > aloft.MaxMessageBytes {
		return nil, errTooLarge
	}
	return in.readAll(in.body, declared, nil)
}

// readAll reads all of r into a buffer that grows as bytes come, not to the size that was declared at once: a client that
// declares much and sends nothing takes no room. check, if not nil, may end the reading after each part.
func (in *messageReader) readAll(r io.Reader, declared int64, check func(size int) error) ([]byte, error) {
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
			if int64(len(buffer)) == declared { // r has ended, or it has more than was declared
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

// grow copies the buffer into a larger one. It does so with the slot if that is large, and gives the slot back, because the next
// step waits for the wire.
func (in *messageReader) grow(buffer []byte, size int64) ([]byte, error) {
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

// readEnvelope reads the one message of a gRPC, gRPC-Web or streaming Connect call, and returns it with its envelope, decompressed.
func (in *messageReader) readEnvelope(encoding string, input protoreflect.MessageDescriptor, json bool) ([]byte, error) {
	var prefix [envelopeHeader]byte
	if n, err := io.ReadFull(in.body, prefix[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return prefix[:n], nil // connect's handler answers what is wrong with it
		}
		return nil, err
	}
	size := int64(binary.BigEndian.Uint32(prefix[1:]))
	if size > aloft.MaxMessageBytes {
		return nil, errTooLarge
	}
	whole := io.MultiReader(bytes.NewReader(prefix[:]), in.body)
	message, err := in.readAll(whole, envelopeHeader+size, nil)
	if errors.Is(err, aloft.ErrInvalid) {
		return nil, fmt.Errorf("the call has one message, and another one came after it: %w", aloft.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	if int64(len(message)) < envelopeHeader+size {
		return message, nil // connect's handler answers that the message is not complete
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

// inflate decompresses a message into a buffer, behind free bytes for an envelope.
func (in *messageReader) inflate(compressed []byte, free int) ([]byte, error) {
	if err := in.slot.take(in.ctx); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("the request is said to be compressed with gzip, and is not: %w: %w", err, aloft.ErrInvalid)
	}
	message, err := in.readAll(io.MultiReader(bytes.NewReader(make([]byte, free)), z), 0, func(size int) error {
		if size > freeInflated && size > maxRatio*len(compressed) {
			return fmt.Errorf("%w: the request is compressed to less than a %dth of its size; above %d MiB that is not taken: send it uncompressed",
				aloft.ErrExhausted, maxRatio, freeInflated>>20)
		}
		return nil
	})
	var corrupt interface{ Timeout() bool } // no error of the wire can come here: any other error is about the compressed bytes
	if err != nil && !errors.Is(err, aloft.ErrExhausted) && !errors.As(err, &corrupt) && in.ctx.Err() == nil {
		err = fmt.Errorf("the request cannot be decompressed: %w: %w", err, aloft.ErrInvalid)
	}
	if err == nil {
		in.claim.Give(int64(cap(compressed) + free)) // compressed is a slice of a buffer that has the envelope, of free bytes, before it
	}
	return message, err
}

// weigh takes the room that a message needs from now on, for its decoded form and the copies of the decoder. If the message is
// large it keeps the slot, until API.guard runs after the decoding.
func (in *messageReader) weigh(input protoreflect.MessageDescriptor, message []byte, json bool) error {
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

// take takes n bytes of room. While it waits it gives the slot back, for requests that have their room already, and takes it
// again afterwards.
func (in *messageReader) take(n int64) error {
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

// receivedBody is the body of a request whose message is in memory.
type receivedBody struct {
	bytes.Reader
	data    []byte         // the message
	reader  *messageReader // which octetStream needs to weigh the message
	refused *connect.Error // by octetStream, instead of decoding; nil: not refused
}

func (*receivedBody) Close() error { return nil }

// limitedBody ends with an error after left bytes.
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

// heavySlot is one request's slot: the right to keep a processor busy with a large message. There are half as many slots as
// processors, so that small requests always find a free processor. A request that waits for room or for the wire has no slot:
// otherwise requests that have room and wait for a slot would wait for requests that have a slot and wait for room.
type heavySlot struct {
	places chan struct{} // intake.heavy
	claim  *room.Claim   // its patience is spent when the request waits for a slot
	has    bool          // the request has a slot
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

// slotOf is the slot of a request, nil outside of one that passed the intake.
func slotOf(ctx context.Context) *heavySlot {
	slot, _ := ctx.Value(heavyKey{}).(*heavySlot)
	return slot
}

// wireWatch cuts a request off whose client sends nothing, or takes nothing, for too long. It costs one timer for each request.
type wireWatch struct {
	control     *http.ResponseController
	read, write wireDirection
	mu          sync.Mutex
	timer       *time.Timer // runs check
	ended       bool        // the request has ended
}

// wireDirection is the reading of a request's body, or the writing of its answer.
type wireDirection struct {
	limit time.Duration
	since atomic.Int64 // when the Read or Write began that is going on, in nanoseconds since 1970; 0: none is going on
	cut   atomic.Bool  // it took longer than limit, and its deadline was set into the past
}

// overdue says whether a Read or Write has been going on for longer than the limit.
func (t *wireDirection) overdue(now time.Time) bool {
	since := t.since.Load()
	return since != 0 && now.Sub(time.Unix(0, since)) >= t.limit
}

func (t *wireDirection) begin() { t.since.Store(time.Now().UnixNano()) }
func (t *wireDirection) done()  { t.since.Store(0) }

func watchWire(w http.ResponseWriter, read, write time.Duration) *wireWatch {
	watch := &wireWatch{control: http.NewResponseController(w)}
	watch.read.limit, watch.write.limit = read, write
	watch.timer = time.AfterFunc(min(read, write), watch.check)
	return watch
}

// check runs now and then while the request lasts, and cuts off each direction that is overdue.
func (w *wireWatch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended { // net/http may be using the writer for the next request of the connection
		return
	}
	now, past := time.Now(), time.Unix(1, 0)
	if w.read.overdue(now) && !w.read.cut.Swap(true) {
		_ = w.control.SetReadDeadline(past)
	}
	if w.write.overdue(now) && !w.write.cut.Swap(true) {
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

// wireBody reads the body of a request under a watch.
type wireBody struct {
	body     io.ReadCloser
	watch    *wireWatch
	began    time.Time     // from when on the rate is measured; zero: no rate is demanded
	grace    time.Duration // from began on, without a demand
	received int64         // bytes
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
	slot  *heavySlot // which a large answer was encoded with; given back at the first byte
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
