package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/private"
)

// Client is the server's connection to the supervisor. It reconnects by itself, and starts another supervisor if the old one is
// gone; calls wait for that until their context ends. All calls may be repeated. Safe for concurrent use.
type Client struct {
	config    Config
	folder    folder
	events    chan Event
	queue     *eventQueue
	ctx       context.Context // ends with Close
	close     context.CancelFunc
	done      chan struct{} // closed when stayConnected has returned
	delivered chan struct{} // closed when deliver has returned

	mu     sync.Mutex
	link   *link         // nil while there is no connection
	linked chan struct{} // closed when link is set; made anew when link is lost
	hello  Hello
	err    error  // why the last try to connect failed
	next   uint64 // id of the latest call
	over   bool   // Shutdown was called: the supervisor is not started again
}

// link is one connection, with the calls that wait for an answer on it.
type link struct {
	*outbox
	mu      sync.Mutex
	waiting map[uint64]chan reply // by id of the call
	lost    chan struct{}         // closed when the connection has ended
}

// Connect finds the supervisor of the data folder, or starts one that outlives this process.
func Connect(ctx context.Context, config Config) (*Client, error) {
	config = config.withDefaults()
	f, err := newFolder(config.DataDir)
	if err != nil {
		return nil, err
	}
	c := &Client{
		config: config, folder: f, events: make(chan Event), queue: newEventQueue(), linked: make(chan struct{}),
		done: make(chan struct{}), delivered: make(chan struct{}),
	}
	c.ctx, c.close = context.WithCancel(context.WithoutCancel(ctx))
	l, reader, err := c.open(ctx)
	if err != nil {
		c.close()
		return nil, err
	}
	go c.stayConnected(l, reader)
	go c.deliver()
	return c, nil
}

// open connects and says hello. A supervisor of another build that has nothing to do is made to retire; then open starts one of ours.
func (c *Client) open(ctx context.Context) (*link, *lineReader, error) {
	for {
		conn, err := c.dial(ctx)
		if err != nil {
			return nil, nil, err
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		l := &link{outbox: newOutbox(conn), waiting: map[uint64]chan reply{}, lost: make(chan struct{})}
		reader := newLineReader(conn)
		_ = l.send(request{ID: 1, Call: callHello, Hello: &Hello{
			Protocol: Protocol, Build: c.config.Build, PID: os.Getpid(), BootID: bootID(),
		}})
		var first reply
		err = reader.decode(&first)
		if !stop() {
			_ = conn.Close()
			return nil, nil, fmt.Errorf("greet supervisor: %w", ctx.Err())
		}
		if err != nil || first.Hello == nil {
			// The supervisor ended between our dialling and its answer.
			_ = conn.Close()
			select {
			case <-ctx.Done():
				return nil, nil, fmt.Errorf("greet supervisor: %w", ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		ours, err := c.belongs(first.Hello)
		if err != nil {
			_ = conn.Close()
			return nil, nil, err
		}
		if !ours {
			c.dismiss(l, reader, first.Hello)
			continue
		}
		if first.Hello.Build != c.config.Build && c.retire(l, reader) {
			continue
		}
		c.mu.Lock()
		c.link, c.hello, c.next, c.err = l, *first.Hello, max(c.next, 2), nil
		close(c.linked)
		c.mu.Unlock()
		return l, reader, nil
	}
}

// belongs says whether a supervisor is that of our data folder, and its attempts were told paths that lead there. A supervisor of
// release 0.1.0 does not say whose it is, and counts as ours.
func (c *Client) belongs(h *Hello) (bool, error) {
	if h.Place == "" {
		return true, nil
	}
	place, err := Place(c.folder.data())
	if err != nil {
		return false, err
	}
	return h.Place == place && leadsTo(h.DataDir, h.Place), nil
}

// dismiss leaves a supervisor that is not ours. If its data folder was moved here, the supervisor is shut down with all attempts:
// the paths that the tasks know lead nowhere. If our data folder is a copy of its folder, it goes on, and we forget its socket,
// which we found in the copy.
func (c *Client) dismiss(l *link, reader *lineReader, h *Hello) {
	defer l.conn.Close()
	if leadsTo(h.DataDir, h.Place) {
		c.config.Logger.Info("the data folder is a copy: it gets a supervisor of its own", "other", h.DataDir)
		c.folder.forgetSocket()
		return
	}
	c.config.Logger.Warn("the data folder was moved while tasks ran: they end and are run again", "from", h.DataDir)
	_ = l.conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // then open finds it and asks again
	_ = l.send(request{ID: 2, Call: callShutdown, Grace: time.Nanosecond})
	for {
		var r reply
		if reader.decode(&r) != nil {
			return
		}
	}
}

// retire asks a supervisor of another build to end, and says whether it does. A supervisor refuses while attempts run; then we use
// it as it is.
func (c *Client) retire(l *link, reader *lineReader) bool {
	_ = l.send(request{ID: 2, Call: callRetire})
	for {
		var r reply
		if err := reader.decode(&r); err != nil {
			_ = l.conn.Close()
			return true // the supervisor has ended
		}
		if r.Event != nil {
			c.queue.put(*r.Event)
		}
		if r.ID == 2 {
			if r.Retired {
				_ = l.conn.Close()
				c.config.Logger.Info("supervisor of another build retires", "build", c.config.Build)
				return true
			}
			return false
		}
	}
}

// dial finds a supervisor that listens, starting one if there is none.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var started <-chan error
	wait := time.Millisecond
	for {
		path, err := c.folder.socket()
		if err != nil {
			return nil, err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			if err := private.Peer(conn); err != nil {
				_ = conn.Close()
				return nil, fmt.Errorf("connect to supervisor at %s: %w; start the server as the user of the data folder", path, err)
			}
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to supervisor: %w", ctx.Err())
		}
		if started == nil {
			if len(c.config.Executable) == 0 {
				return nil, fmt.Errorf("connect to supervisor: none runs and no program to start one is given: %w", err)
			}
			if started, err = c.spawn(); err != nil {
				return nil, err
			}
		}
		select {
		case err := <-started:
			if err != nil {
				return nil, fmt.Errorf("start supervisor: %w: %s (see %s)", err, lastLine(c.folder.log()), c.folder.log())
			}
			started = nil // another supervisor has the data folder, or had it until a moment ago
			wait = 5 * time.Millisecond
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, 20*time.Millisecond)
		}
	}
}

// supervisorVariables are all variables of ours that a supervisor gets: it lives long, and must hold no secrets.
var supervisorVariables = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR", "TZ", "GOCOVERDIR", "ALOFT_TEST_GROUPS"}

// spawn starts a supervisor. The channel tells its end.
func (c *Client) spawn() (<-chan error, error) {
	log, err := os.OpenFile(c.folder.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	defer log.Close()
	argv := append(append([]string{}, c.config.Executable...), "--data-dir", c.config.DataDir)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // the supervisor outlives us
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{}
	for _, name := range supervisorVariables {
		if value, ok := os.LookupEnv(name); ok { //nolint:forbidigo // handed on, not read
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	// In a session of its own, so that Ctrl-C at our terminal does not reach the supervisor.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps the supervisor if it ends before us
	return ended, nil
}

// stayConnected reads from the connection, and makes another one whenever it is lost, until Close or Shutdown.
func (c *Client) stayConnected(l *link, reader *lineReader) {
	defer close(c.done)
	for {
		stop := context.AfterFunc(c.ctx, func() { _ = l.conn.Close() })
		c.read(l, reader)
		stop()
		_ = l.conn.Close()
		l.close()
		c.mu.Lock()
		c.link, c.linked = nil, make(chan struct{})
		over := c.over
		c.mu.Unlock()
		close(l.lost)
		if over || c.ctx.Err() != nil {
			return
		}
		c.config.Logger.Warn("supervisor is gone; connecting again")
		for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
			var err error
			if l, reader, err = c.open(c.ctx); err == nil {
				break
			}
			c.mu.Lock()
			c.err, over = err, c.over
			c.mu.Unlock()
			if over || c.ctx.Err() != nil {
				return
			}
			c.config.Logger.Warn("connect to supervisor", "error", err)
			select {
			case <-c.ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// read hands on answers and events until the connection is lost.
func (c *Client) read(l *link, reader *lineReader) {
	for {
		var r reply
		if err := reader.decode(&r); err != nil {
			return
		}
		if r.Event != nil {
			c.queue.put(*r.Event)
			continue
		}
		l.mu.Lock()
		waiting := l.waiting[r.ID]
		delete(l.waiting, r.ID)
		l.mu.Unlock()
		if waiting != nil {
			waiting <- r
		}
	}
}

// call sends a request until it is answered: all calls may be repeated.
func (c *Client) call(ctx context.Context, r request) (reply, error) {
	for {
		c.mu.Lock()
		l, linked, over, lastErr := c.link, c.linked, c.over && r.Call != callShutdown, c.err
		c.next++
		r.ID = c.next
		c.mu.Unlock()
		if over {
			return reply{}, fmt.Errorf("%s: the supervisor was shut down: %w", r.Call, aloft.ErrUnavailable)
		}
		if l == nil {
			select {
			case <-linked:
				continue
			case <-c.done:
				return reply{}, fmt.Errorf("%s: the client is closed: %w", r.Call, aloft.ErrUnavailable)
			case <-ctx.Done():
				return reply{}, fmt.Errorf("%s: no supervisor: %w", r.Call, errors.Join(ctx.Err(), lastErr))
			}
		}
		answer := make(chan reply, 1)
		l.mu.Lock()
		l.waiting[r.ID] = answer
		l.mu.Unlock()
		if err := l.send(r); err != nil {
			l.mu.Lock()
			delete(l.waiting, r.ID)
			l.mu.Unlock()
			if !errors.Is(err, errOutboxFull) {
				return reply{}, fmt.Errorf("%s: %w: %w", r.Call, err, aloft.ErrInvalid)
			}
			select { // until the long messages of other calls are sent
			case <-l.lost:
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return reply{}, ctx.Err()
			}
			continue
		}
		select {
		case a := <-answer:
			return c.resultOf(a)
		case <-l.lost:
			select {
			case a := <-answer:
				return c.resultOf(a)
			default:
			}
			if r.Call == callShutdown {
				return reply{}, nil
			}
		case <-ctx.Done():
			l.mu.Lock()
			delete(l.waiting, r.ID)
			l.mu.Unlock()
			return reply{}, ctx.Err()
		}
	}
}

// resultOf turns an answer into the result of a call.
func (c *Client) resultOf(a reply) (reply, error) {
	switch {
	case a.Error == "":
		return a, nil
	case a.Invalid:
		return a, fmt.Errorf("%s: %w", strings.TrimSuffix(a.Error, ": "+aloft.ErrInvalid.Error()), aloft.ErrInvalid)
	default:
		return a, refusedError(a.Error)
	}
}

// refusedError is the supervisor's answer that it could not do its part.
type refusedError string

func (e refusedError) Error() string { return string(e) + ": " + aloft.ErrUnavailable.Error() }
func (e refusedError) Unwrap() error { return aloft.ErrUnavailable }

// Refused says of an error of a call that the supervisor has answered with it: nothing of the call was done.
func Refused(err error) bool {
	var refused refusedError
	return errors.As(err, &refused)
}

// Hello is the hello of the supervisor that we are connected to, or were last.
func (c *Client) Hello() Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hello
}

// Events is the one stream of events, in order per attempt. It never drops; it is closed by Close. After each
// (re)connection there is an EventStarted for each attempt that runs and an EventExited for each that has ended and was not
// forgotten.
func (c *Client) Events() <-chan Event { return c.events }

// Start runs an attempt. When it returns without an error the claim is durable; what follows comes as events. A second
// Start of an attempt id starts nothing and answers with the first one's status, exit record included.
// An error that wraps aloft.ErrInvalid means that this spec can never run; nothing was claimed then.
func (c *Client) Start(ctx context.Context, spec Spec) (Status, error) {
	a, err := c.call(ctx, request{Call: callStart, Spec: &spec})
	if long, ok := errors.AsType[longMessageError](err); ok {
		return Status{}, fmt.Errorf("start attempt: its command line and variables are too long: %w: %w", long, aloft.ErrInvalid)
	}
	if err != nil {
		return Status{}, err
	}
	if a.Status == nil {
		return Status{}, fmt.Errorf("start attempt: an answer without a status: %w", aloft.ErrUnavailable)
	}
	return *a.Status, nil
}

// Stop ends an attempt: SIGTERM, and after grace (0: the spec's) SIGKILL of all its processes. It returns at once;
// EventExited tells the end. An attempt that is unknown or over is no error.
func (c *Client) Stop(ctx context.Context, attemptID string, grace time.Duration) error {
	_, err := c.call(ctx, request{Call: callStop, AttemptIDs: []string{attemptID}, Grace: grace})
	return err
}

// List is all attempts that were not forgotten.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	a, err := c.call(ctx, request{Call: callList})
	return a.Statuses, err
}

// Forget removes the claims of attempts whose outcome is durable with the caller. An attempt that still runs is forgotten when it
// has ended, and gives no EventExited then. Unknown attempts are no error.
func (c *Client) Forget(ctx context.Context, attemptIDs ...string) error {
	_, err := c.call(ctx, request{Call: callForget, AttemptIDs: attemptIDs})
	return err
}

// Prepare starts the warm worker of an environment ahead of its first attempt. It returns at once.
func (c *Client) Prepare(ctx context.Context, env Environment) error {
	_, err := c.call(ctx, request{Call: callPrepare, Environment: &env})
	return err
}

// Zygotes are the warm workers of the supervisor, for display.
func (c *Client) Zygotes(ctx context.Context) ([]ZygoteStatus, error) {
	a, err := c.call(ctx, request{Call: callZygotes})
	return a.Zygotes, err
}

// Undead are the processes that were killed and are still there, for display. A supervisor of an earlier release does not know the
// call: then there are none.
func (c *Client) Undead(ctx context.Context) ([]Undead, error) {
	a, err := c.call(ctx, request{Call: callUndead})
	if Refused(err) {
		return nil, nil
	}
	return a.Undead, err
}

// Shutdown stops all attempts, each with its own grace or with the given one if that is not 0, and ends the supervisor.
// It returns when the supervisor is gone; exit records that were not forgotten stay on disk for the next supervisor. After
// Shutdown only Events of the client can be used, and end with Close.
func (c *Client) Shutdown(ctx context.Context, grace time.Duration) error {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	if _, err := c.call(ctx, request{Call: callShutdown, Grace: grace}); err != nil {
		return err
	}
	select {
	case <-c.done: // the supervisor has closed the connection
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the connection; supervisor and attempts go on.
func (c *Client) Close() error {
	c.close()
	<-c.done
	<-c.delivered
	return nil
}

// deliver moves events from the queue to the channel of Events.
func (c *Client) deliver() {
	defer close(c.delivered)
	defer close(c.events)
	for {
		e, ok := c.queue.take(c.ctx)
		if !ok {
			return
		}
		select {
		case c.events <- e:
		case <-c.ctx.Done():
			return
		}
	}
}

// eventQueue holds events, without bound, until deliver takes them.
type eventQueue struct {
	mu   sync.Mutex
	list []Event
	wake chan struct{}
}

func newEventQueue() *eventQueue { return &eventQueue{wake: make(chan struct{}, 1)} }

func (q *eventQueue) put(e Event) {
	q.mu.Lock()
	q.list = append(q.list, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) take(ctx context.Context) (Event, bool) {
	for {
		q.mu.Lock()
		if len(q.list) > 0 {
			e := q.list[0]
			q.list = q.list[1:]
			q.mu.Unlock()
			return e, true
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return Event{}, false
		}
	}
}
