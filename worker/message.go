package worker

import (
	"bufio"
	"encoding/json"
	"errors"
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

// maxMessage bounds one line. A spec is mostly its variables, for which the system's own limit is a few MiB.
const maxMessage = 64 << 20

func readMessages(r io.Reader, each func([]byte) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for {
		part, err := lines.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxMessage {
			return errors.New("read message: longer than 64 MiB")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return err
		}
		if err := each(line); err != nil {
			return err
		}
		line = line[:0]
	}
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

// maxOutbox is where a peer that does not read is given up; it connects again and gets the present state instead.
const maxOutbox = 256 << 20

func newOutbox(conn net.Conn) *outbox {
	o := &outbox{conn: conn, wake: make(chan struct{}, 1), written: make(chan struct{})}
	go o.write()
	return o
}

func (o *outbox) send(message any) {
	b, err := json.Marshal(message)
	if err != nil { // our own types: only a bug gets here
		panic(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if len(o.pending)+len(b) > maxOutbox {
		o.closed = true
		_ = o.conn.Close()
	} else {
		o.pending = append(append(o.pending, b...), '\n')
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
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
