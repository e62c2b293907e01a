package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// The protocol: a stream socket, one JSON object a line each way, names as below. A side ignores fields that it does not
// know and answers a call that it does not know with an error, so either side may be one version ahead. The first call is
// hello; after its answer the supervisor sends events. testdata holds recorded conversations of each version: those lines
// must be understood for ever.

type request struct {
	ID          uint64        `json:"id"` // chosen by the client, repeated in the answer
	Call        string        `json:"call"`
	Hello       *Hello        `json:"hello,omitempty"`
	Spec        *Spec         `json:"spec,omitempty"`
	AttemptIDs  []string      `json:"attempt_ids,omitempty"`
	Grace       time.Duration `json:"grace,omitempty"`
	Environment *Environment  `json:"environment,omitempty"`
}

const (
	callHello    = "hello"
	callStart    = "start"
	callStop     = "stop"
	callList     = "list"
	callForget   = "forget"
	callPrepare  = "prepare"
	callZygotes  = "zygotes"
	callUndead   = "undead"
	callRetire   = "retire" // end if nothing runs: a newer build wants to take over
	callShutdown = "shutdown"
)

// reply is an answer (ID set) or an event (Event set).
type reply struct {
	ID       uint64         `json:"id,omitempty"`
	Error    string         `json:"error,omitempty"`
	Invalid  bool           `json:"invalid,omitempty"` // the error is about the request: it will never do
	Hello    *Hello         `json:"hello,omitempty"`
	Status   *Status        `json:"status,omitempty"`
	Statuses []Status       `json:"statuses,omitempty"`
	Zygotes  []ZygoteStatus `json:"zygotes,omitempty"`
	Undead   []Undead       `json:"undead,omitempty"`
	Retired  bool           `json:"retired,omitempty"`
	Event    *Event         `json:"event,omitempty"`
}

// maxMessage bounds one line. A spec is mostly its variables, for which the system's own limit is a few MiB. What is longer costs
// itself alone: a call fails, on the side of who makes it, and so does one with such an answer; of an event, which has no long
// field but what a task says, the modules are left out. The connection stays: it would be made again for the same message.
const maxMessage = 64 << 20

// lineReader reads lines of at most maxMessage bytes, their ends counted.
type lineReader struct {
	lines *bufio.Reader
	line  []byte
}

var errLongLine = errors.New("a line is longer than 64 MiB")

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{lines: bufio.NewReaderSize(r, 64<<10)}
}

// next returns a line, which is valid until the next one is read. With errLongLine it is the beginning of one that is too long,
// and what follows is the line after that.
func (r *lineReader) next() ([]byte, error) {
	if cap(r.line) > 1<<20 {
		r.line = nil
	}
	r.line = r.line[:0]
	for long := false; ; {
		part, err := r.lines.ReadSlice('\n')
		if room := maxMessage - len(r.line); len(part) > room {
			part, long = part[:room], true
		}
		r.line = append(r.line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == nil && long:
			err = errLongLine
		}
		return r.line, err
	}
}

// decode reads what a supervisor says next. One that does not know how long that may be has said an event, which is understood
// without its list of modules, or an answer.
func (r *lineReader) decode(message *reply) error {
	line, err := r.next()
	if errors.Is(err, errLongLine) {
		if json.Unmarshal(withoutModules(line, 3), message) != nil || message.Event == nil {
			*message = reply{ID: idOf(line), Error: "the answer is longer than 64 MiB"}
		}
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(line, message)
}

// idOf is the id of a call or an answer, of which it is the first field; 0: there is none.
func idOf(beginning []byte) (id uint64) {
	_, _ = fmt.Sscanf(string(beginning[:min(64, len(beginning))]), `{"id":%d,`, &id)
	return id
}

// outbox sends messages in order and never blocks its users: what the peer does not read waits here.
type outbox struct {
	conn net.Conn

	mu      sync.Mutex
	pending []byte
	closed  bool
	wake    chan struct{}
	written chan struct{} // closed when nothing is written any more
}

// maxOutbox bounds what waits for a peer that does not read.
const maxOutbox = 256 << 20

func newOutbox(conn net.Conn) *outbox {
	o := &outbox{conn: conn, wake: make(chan struct{}, 1), written: make(chan struct{})}
	go o.write()
	return o
}

// longMessageError says that a message is too long for the connection.
type longMessageError int

func (e longMessageError) Error() string {
	return fmt.Sprintf("a message of %d bytes, and at most %d can be sent", int(e), maxMessage)
}

var errOutboxFull = errors.New("the peer does not read")

// send takes a message, unless it is too long or the outbox is full. One that is closed takes all, and sends nothing.
func (o *outbox) send(message any) error {
	b, err := json.Marshal(message)
	if err != nil { // our own types: only a bug gets here
		panic(err)
	}
	if len(b) >= maxMessage {
		return longMessageError(len(b))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	if len(o.pending)+len(b) > maxOutbox {
		return errOutboxFull
	}
	o.pending = append(append(o.pending, b...), '\n')
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// giveUp ends the outbox and the connection; nothing more is written.
func (o *outbox) giveUp() {
	o.mu.Lock()
	o.pending = nil
	o.mu.Unlock()
	o.close()
	_ = o.conn.Close()
}

// close ends the outbox after what waits was written.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) write() {
	defer close(o.written)
	var batch []byte
	for range o.wake {
		o.mu.Lock()
		batch, o.pending = o.pending, batch[:0]
		closed := o.closed
		o.mu.Unlock()
		if len(batch) > 0 {
			if _, err := o.conn.Write(batch); err != nil {
				o.mu.Lock()
				o.closed = true
				o.mu.Unlock()
				_ = o.conn.Close()
				return
			}
		}
		if closed {
			_ = o.conn.Close()
			return
		}
	}
}
