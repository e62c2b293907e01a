package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/private"
)

// supervisor is the parent of all task processes of one data folder.
type supervisor struct {
	config  Config
	log     *slog.Logger
	folder  folder
	journal *journal
	boot    string
	dataDir string // path of the data folder, as all attempts were told it
	place   string // the data folder itself (Place)
	reaper  *reaper
	zygotes *zygotes
	groups  *groups
	mounts  error // why folders cannot be made read-only for tasks; nil: they can

	mu         sync.Mutex
	attempts   map[string]*attempt // by id
	peers      map[*peer]bool
	closing    bool // no attempt is started any more
	undead     []Undead
	quietSince time.Time // since when no client is connected and no attempt runs; zero: one is
	ended      chan struct{}
	endOnce    sync.Once
}

// attempt is one attempt from its claim to its being forgotten.
type attempt struct {
	spec    Spec
	mark    mark
	command command

	claimed  chan struct{} // closed when the claim is durable, or claimErr set
	claimErr error         // why the claim is not durable; nil: it is
	stop     chan struct{} // closed at the first Stop
	over     chan struct{} // closed in StateExited

	// Guarded by the supervisor's mutex.
	state     State
	pid       int
	exit      *ExitRecord
	stopped   bool
	stopGrace time.Duration
	forgotten bool // Forget was called: the attempt goes as soon as it has exited
	adopted   bool // an earlier supervisor started the attempt
}

// peer is a connected client.
type peer struct {
	*outbox
	greeted bool // has said hello, and gets events since
}

// send sends a message to a client. The connection of a client that does not read is closed: the client connects again, and gets the
// present state of all attempts instead.
func (p *peer) send(r reply) {
	err := p.outbox.send(r)
	if _, long := errors.AsType[longMessageError](err); long { // the message is an answer: events are short
		err = p.outbox.send(reply{ID: r.ID, Error: "the answer is " + err.Error(), Invalid: r.Invalid})
	}
	if err != nil {
		p.giveUp()
	}
}

func (c Config) withDefaults() Config {
	c.Build = cmp.Or(c.Build, "unknown")
	c.Grace = cmp.Or(c.Grace, 30*time.Second)
	c.ZygoteIdle = cmp.Or(c.ZygoteIdle, 15*time.Minute)
	c.MaxZygotes = cmp.Or(c.MaxZygotes, 8)
	c.KillTime = cmp.Or(c.KillTime, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Main is the supervisor process. It returns nil when it ended because no attempt runs and no client is connected, because of a
// Shutdown, or because another supervisor has the data folder; when ctx ends it stops all attempts first.
// No other code in the process may start child processes: Main waits for every child.
func Main(ctx context.Context, config Config) error {
	config = config.withDefaults()
	f, err := newFolder(config.DataDir)
	if err != nil {
		return err
	}
	// The end of the terminal or the server must not end us. Handling these signals, and not ignoring them, matters: tasks would
	// inherit that they are ignored.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Stop(signals)

	lock, err := os.OpenFile(f.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock worker folder: %w", err)
	}
	defer lock.Close()
	path, err := f.socket()
	if err != nil {
		return err
	}
	if another, err := takeLock(ctx, lock, path); err != nil || another {
		return err
	}
	s, err := newSupervisor(config, f)
	if err != nil {
		return err
	}
	left, err := s.open()
	if err != nil {
		return err
	}
	s.groups.clean(f, unfinishedMarks(left, s.boot))
	s.adopt(left)
	_ = os.Remove(path) // left by a supervisor that was killed: no other can run, since we have the lock
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen for the server: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // until now only the rights on the folder kept other users out
		return fmt.Errorf("listen for the server: %w", err)
	}
	s.log.Info("supervisor started", "pid", os.Getpid(), "build", config.Build, "attempts", len(s.attempts))
	s.mu.Lock()
	if !s.quietSince.IsZero() {
		s.quietSince = time.Now() // the time to wait for a client begins now: our start may have taken longer than that
	}
	s.mu.Unlock()
	go s.accept(listener)
	go s.tend()
	select {
	case <-s.ended:
	case <-ctx.Done():
		s.shutdown(0)
		s.end()
	}
	_ = listener.Close() // removes the socket
	s.zygotes.endAll()
	s.groups.close()
	s.mu.Lock()
	told := time.After(time.Second)
	for p := range s.peers {
		p.close()
	}
	peers := slices.Collect(maps.Keys(s.peers))
	s.mu.Unlock()
	for _, p := range peers { // the answer to a Shutdown may still wait to be sent
		select {
		case <-p.written:
		case <-told:
		}
	}
	s.log.Info("supervisor ended")
	return nil
}

// takeLock takes the lock of the data folder. It waits for an earlier supervisor that is about to end; if a supervisor answers at
// the socket, that one is there to stay (another).
func takeLock(ctx context.Context, lock *os.File, socket string) (another bool, err error) {
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return false, fmt.Errorf("lock worker folder: %w", err)
		}
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
			_ = conn.Close()
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func newSupervisor(config Config, f folder) (*supervisor, error) {
	if err := becomeSubreaper(); err != nil {
		return nil, err
	}
	s := &supervisor{
		config: config, log: config.Logger, folder: f, boot: bootID(), dataDir: f.data(), reaper: newReaper(),
		attempts: map[string]*attempt{}, peers: map[*peer]bool{}, quietSince: time.Now(), ended: make(chan struct{}),
	}
	s.groups = newGroups(config.Logger, f, config.ControlGroups)
	if s.mounts = mountable(f); s.mounts != nil {
		s.log.Info("stored objects cannot be made read-only for tasks", "reason", s.mounts)
	}
	var err error
	if s.place, err = Place(s.dataDir); err != nil {
		return nil, err
	}
	s.zygotes, err = newZygotes(config.Logger, f, s.reaper, config)
	return s, err
}

// open reads the journal of an earlier supervisor.
func (s *supervisor) open() (left []storedAttempt, err error) {
	s.journal, left, err = openJournal(s.folder)
	return left, err
}

// accept serves clients until the listener is closed.
func (s *supervisor) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Error("accept connection", "error", err)
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // most likely we are out of descriptors, and have some again after a pause
			continue
		}
		if err := private.Peer(conn); err != nil {
			s.log.Warn("refused a connection", "error", err)
			_ = conn.Close()
			continue
		}
		p := &peer{outbox: newOutbox(conn)}
		s.mu.Lock()
		s.peers[p] = true
		s.updateQuiet()
		s.mu.Unlock()
		go func() {
			for calls := newLineReader(conn); ; {
				line, err := calls.next()
				if errors.Is(err, errLongLine) {
					p.send(reply{ID: idOf(line), Error: "the call is longer than 64 MiB", Invalid: true})
				} else if err != nil || s.handle(p, line) != nil {
					break
				}
			}
			p.close()
			s.mu.Lock()
			delete(s.peers, p)
			s.updateQuiet()
			s.mu.Unlock()
		}()
	}
}

// updateQuiet sets quietSince after a change of attempts or peers; called with the mutex held.
func (s *supervisor) updateQuiet() {
	busy := len(s.peers) > 0
	for _, a := range s.attempts {
		busy = busy || a.state != StateExited
	}
	switch {
	case busy:
		s.quietSince = time.Time{}
	case s.quietSince.IsZero():
		s.quietSince = time.Now()
	}
}

// tend looks every second, or more often, whether the supervisor is to end, and tends the zygotes.
func (s *supervisor) tend() {
	tick := time.NewTicker(min(s.config.Grace/4+time.Millisecond, time.Second))
	defer tick.Stop()
	missed := 0
	for {
		select {
		case <-s.ended:
			return
		case now := <-tick.C:
			if missed++; !s.moved() {
				missed = 0
			}
			if missed > 1 {
				s.log.Warn("the data folder was moved away: its tasks end here and are run again where it is", "path", s.dataDir)
				s.shutdown(time.Nanosecond)
				s.end()
				return
			}
			s.zygotes.tend(now)
			s.mu.Lock()
			over := !s.quietSince.IsZero() && now.Sub(s.quietSince) > s.config.Grace
			s.closing = s.closing || over
			s.mu.Unlock()
			if over {
				s.end()
			}
		}
	}
}

// moved says that the data folder is no longer where the tasks were told that it is: they would read nothing there, and what they
// write would make another folder.
func (s *supervisor) moved() bool { return !leadsTo(s.dataDir, s.place) }

func (s *supervisor) end() { s.endOnce.Do(func() { close(s.ended) }) }

// handle takes one call. Calls change the supervisor's state in the order in which they come; a call that must wait is answered in
// the background and does not delay the next one.
func (s *supervisor) handle(p *peer, line []byte) error {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("read call: %w", err)
	}
	answer := reply{ID: r.ID}
	switch r.Call {
	case callHello:
		answer.Hello = &Hello{Protocol: Protocol, Build: s.config.Build, PID: os.Getpid(), BootID: s.boot, DataDir: s.dataDir, Place: s.place, Mounts: "yes"}
		if s.mounts != nil {
			answer.Hello.Mounts = s.mounts.Error()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		p.send(answer)
		p.greeted = true
		for _, a := range s.attempts {
			if e, ok := a.currentEvent(); ok {
				p.send(reply{Event: &e})
			}
		}
		return nil
	case callStart:
		if r.Spec == nil {
			answer.Error, answer.Invalid = "start attempt: no spec", true
			break
		}
		a, attached, err := s.start(*r.Spec)
		if err != nil {
			answer.Error, answer.Invalid = err.Error(), errors.Is(err, aloft.ErrInvalid)
			break
		}
		go func() {
			<-a.claimed
			if a.claimErr != nil {
				answer.Error = a.claimErr.Error()
			} else {
				s.mu.Lock()
				status := a.status()
				s.mu.Unlock()
				status.Attached = attached
				answer.Status = &status
			}
			p.send(answer)
		}()
		return nil
	case callStop:
		for _, id := range r.AttemptIDs {
			s.stop(id, r.Grace)
		}
	case callList:
		s.mu.Lock()
		for _, a := range s.attempts {
			if !a.forgotten {
				answer.Statuses = append(answer.Statuses, a.status())
			}
		}
		s.mu.Unlock()
		slices.SortFunc(answer.Statuses, func(a, b Status) int { return cmp.Compare(a.AttemptID, b.AttemptID) })
	case callForget:
		s.forget(r.AttemptIDs)
	case callPrepare:
		if r.Environment != nil && r.Environment.Interpreter != "" {
			c := command{env: map[string]string{}}
			maps.Copy(c.env, r.Environment.Variables)
			c.env["PATH"] = withFirst(filepath.Dir(r.Environment.Interpreter), c.env["PATH"])
			s.zygotes.obtain(*r.Environment, c.env, true)
		}
	case callZygotes:
		answer.Zygotes = s.zygotes.status()
	case callUndead:
		answer.Undead = s.listUndead()
	case callRetire:
		s.mu.Lock()
		busy := len(s.peers) > 1
		for _, a := range s.attempts {
			busy = busy || a.state != StateExited
		}
		answer.Retired = !busy
		s.closing = s.closing || !busy
		s.mu.Unlock()
		p.send(answer)
		if !busy {
			s.end()
		}
		return nil
	case callShutdown:
		go func() {
			s.shutdown(r.Grace)
			p.send(answer)
			s.end()
		}()
		return nil
	default:
		answer.Error = fmt.Sprintf("call %q is not known to this supervisor (protocol %d)", r.Call, Protocol)
	}
	p.send(answer)
	return nil
}

// start registers an attempt and runs it, or returns the attempt that has this id already (attached).
func (s *supervisor) start(spec Spec) (a *attempt, attached bool, err error) {
	m := mark(shortHash(s.folder.dir, spec.AttemptID, spec.Token))
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.attempts[spec.AttemptID]; a != nil {
		return a, true, nil
	}
	if s.closing {
		return nil, false, errors.New("start attempt: the supervisor is about to end")
	}
	c, err := plan(spec, string(m))
	if err != nil {
		return nil, false, err
	}
	a = newAttempt(spec, m)
	a.command = c
	s.attempts[spec.AttemptID] = a
	s.quietSince = time.Time{}
	go s.run(a)
	return a, false, nil
}

func newAttempt(spec Spec, m mark) *attempt {
	spec.Grace = cmp.Or(spec.Grace, 10*time.Second)
	return &attempt{
		spec: spec, mark: m, state: StateStarting,
		claimed: make(chan struct{}), stop: make(chan struct{}), over: make(chan struct{}),
	}
}

func (s *supervisor) stop(attemptID string, grace time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attempts[attemptID]
	if a == nil || a.stopped || a.state == StateExited {
		return
	}
	a.stopped, a.stopGrace = true, cmp.Or(grace, a.spec.Grace)
	close(a.stop)
}

func (s *supervisor) forget(attemptIDs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range attemptIDs {
		a := s.attempts[id]
		if a == nil {
			continue
		}
		a.forgotten = true
		if a.state == StateExited {
			delete(s.attempts, id)
			s.journal.forget(id)
		}
	}
}

// shutdown stops all attempts, lets none start any more, and returns when they are over.
func (s *supervisor) shutdown(grace time.Duration) {
	s.mu.Lock()
	s.closing = true
	var running []*attempt
	for _, a := range s.attempts {
		if a.state != StateExited {
			running = append(running, a)
		}
	}
	s.mu.Unlock()
	for _, a := range running {
		s.stop(a.spec.AttemptID, grace)
	}
	for _, a := range running {
		<-a.over
	}
}

// status is called with the mutex held.
func (a *attempt) status() Status {
	return Status{
		AttemptID: a.spec.AttemptID, Token: a.spec.Token, State: a.state, PID: a.pid, Exit: a.exit, Adopted: a.adopted,
	}
}

// currentEvent is the event that tells a new client the attempt's state, if there is one.
func (a *attempt) currentEvent() (Event, bool) {
	e := Event{AttemptID: a.spec.AttemptID, Token: a.spec.Token, PID: a.pid, Exit: a.exit}
	switch a.state {
	case StateRunning:
		e.Kind = EventStarted
	case StateDone:
		e.Kind = EventDone
	case StateExited:
		e.Kind = EventExited
	}
	return e, e.Kind != "" && !a.forgotten
}

// advance moves an attempt forward and sends the event to all clients.
func (s *supervisor) advance(a *attempt, to State, pid int, exit *ExitRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.state, a.exit = to, exit
	if pid != 0 {
		a.pid = pid
	}
	if e, ok := a.currentEvent(); ok {
		for p := range s.peers {
			if p.greeted {
				p.send(reply{Event: &e})
			}
		}
	}
	if exit != nil { // the modules are sent once, with the event above
		kept := exit.bounded()
		a.exit = &kept
	}
	if to == StateExited {
		close(a.over)
		if a.forgotten {
			delete(s.attempts, a.spec.AttemptID)
			s.journal.forget(a.spec.AttemptID)
		}
		s.updateQuiet()
	}
}
