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

// The protocol: a stream socket, one JSON object a line each way, names as below. Each side ignores
// fields that it does not know and answers an unknown call with an error, so either side may be one version ahead. The first call is
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
	Invalid  bool           `json:"invalid,omitempty"` // the error is about the request: repeating the call cannot help
	Hello    *Hello         `json:"hello,omitempty"`
	Status   *Status        `json:"status,omitempty"`
	Statuses []Status       `json:"statuses,omitempty"`
	Zygotes  []ZygoteStatus `json:"zygotes,omitempty"`
	Undead   []Undead       `json:"undead,omitempty"`
	Retired  bool           `json:"retired,omitempty"`
	Event    *Event         `json:"event,omitempty"`
}

// maxMessage bounds one line. A spec is mostly its variables, for which the system's own limit is a few MiB. A longer message does
// not end the connection, which would be made again for the same message: the client refuses a longer call, the supervisor
// answers with an error in place of a longer answer, and leaves the modules out of a longer event.
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

// next returns a line, which is valid until the next call. With errLongLine it is the beginning of a line that is too long; the next
// call returns the line after that.
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

// decode reads the next message of a supervisor. A message that is too long comes from an earlier release: an event is understood
// without its list of modules, an answer is taken as an error.
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

// idOf is the id of a call or an answer, whose first field it is; 0: there is none.
func idOf(beginning []byte) (id uint64) {
	_, _ = fmt.Sscanf(string(beginning[:min(64, len(beginning))]), `{"id":%d,`, &id)
	return id
}

// outbox sends messages in order and never blocks its users: messages that the peer does not read wait in it.
type outbox struct {
	conn net.Conn

	mu      sync.Mutex
	pending []byte
	closed  bool
	wake    chan struct{}
	written chan struct{} // closed when the outbox writes no more
}

// maxOutbox is how many bytes may wait for a peer that does not read.
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

// send takes a message, unless the message is too long or the outbox is full. A closed outbox takes every message, and sends none.
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

// giveUp ends the outbox and the connection; messages that wait are dropped.
func (o *outbox) giveUp() {
	o.mu.Lock()
	o.pending = nil
	o.mu.Unlock()
	o.close()
	_ = o.conn.Close()
}

// close ends the outbox once the messages that wait were written.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// write sends the messages that wait, until the outbox is closed.
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
