package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// What one transaction takes at most, so that nobody waits long for those before him.
const (
	maxJobs = 1024
	maxRows = 20_000
)

// busyFor is how long the writer goes on asking for a database that another program has locked.
const busyFor = 30 * time.Second

// job is one call: members that are committed or refused each for itself.
type job struct {
	members []member
	errs    []error // one for each member, set before done is closed
	rows    int     // about how much it writes
	state   atomic.Int32
	done    chan struct{}
}

// member does its writes in tx. An error made by refuse, or a constraint that a row violates, refuses the member alone;
// any other error is the database's and concerns the whole transaction.
type member func(tx *tx) error

const (
	jobWaits = iota
	jobRuns
	jobLeft // its caller has gone: it must not touch what the caller handed in
)

// refusal is an answer, not a fault.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// tx is the transaction as one member sees it.
type tx struct {
	*conn
	shared bool // other members are in the same transaction
	wrote  bool // this member has written something
	topics []store.Topic
}

func (t *tx) wake(topics ...store.Topic) { t.topics = append(t.topics, topics...) }

// guard opens the savepoint that a refusal goes back to, before the member's first write: most refusals come earlier.
func (t *tx) guard() error {
	if t.wrote {
		return nil
	}
	t.wrote = true
	if !t.shared {
		return nil
	}
	_, err := t.conn.exec("SAVEPOINT member")
	return err
}

func (t *tx) exec(query string, args ...driver.Value) (int64, error) {
	if err := t.guard(); err != nil {
		return 0, err
	}
	return t.conn.exec(query, args...)
}

func (t *tx) execMany(m many, args []driver.Value) (int64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	if err := t.guard(); err != nil {
		return 0, err
	}
	return t.conn.execMany(m, args)
}

// writer is the one goroutine that writes. All that waits goes into one transaction: one sync for all of it.
type writer struct {
	dialect *dialect
	dsn     string
	path    string
	hub     *store.Hub
	log     *slog.Logger

	jobs    chan *job
	closing chan struct{}
	once    sync.Once
	stopped chan struct{}

	conn    *conn // nil: to be opened again
	healthy bool
	commits atomic.Int64 // transactions that wrote something, for tests that count
}

func newWriter(d *dialect, path string, hub *store.Hub, log *slog.Logger) *writer {
	w := &writer{
		dialect: d, dsn: d.writeDSN(path), path: path, hub: hub, log: log, healthy: true,
		jobs: make(chan *job, maxJobs), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	go w.run()
	return w
}

// submit waits until the members were committed or refused. Whoever goes before that is told that he does not know.
func (w *writer) submit(ctx context.Context, rows int, members ...member) []error {
	j := &job{members: members, errs: make([]error, len(members)), rows: rows, done: make(chan struct{})}
	select {
	case w.jobs <- j:
	case <-ctx.Done():
		return j.fail(fmt.Errorf("write to %s: %w: %w", w.path, context.Cause(ctx), aloft.ErrUnavailable))
	case <-w.closing:
		return j.fail(w.closed())
	}
	select {
	case <-j.done:
		return j.errs
	case <-ctx.Done():
		if j.state.CompareAndSwap(jobWaits, jobLeft) {
			return j.fail(fmt.Errorf("write to %s: %w: %w", w.path, context.Cause(ctx), aloft.ErrUnavailable))
		}
		<-j.done // it is being written from the caller's records, and soon done
		return j.errs
	case <-w.stopped:
		select {
		case <-j.done:
			return j.errs
		default:
			return j.fail(w.closed())
		}
	}
}

func (w *writer) closed() error {
	return fmt.Errorf("write to %s: the store is closed: %w", w.path, aloft.ErrUnavailable)
}

func (j *job) fail(err error) []error {
	errs := make([]error, len(j.members))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// close lets what waits be written and ends the writer.
func (w *writer) close() {
	w.once.Do(func() { close(w.closing) })
	<-w.stopped
}

func (w *writer) run() {
	defer close(w.stopped)
	defer w.disconnect()
	var batch []*job
	for {
		batch = batch[:0]
		select {
		case j := <-w.jobs:
			batch = append(batch, j)
		case <-w.closing:
			select { // what was submitted before is still written
			case j := <-w.jobs:
				batch = append(batch, j)
			default:
				return
			}
		}
		rows := batch[0].rows
	gather:
		for len(batch) < maxJobs && rows < maxRows {
			select {
			case j := <-w.jobs:
				batch = append(batch, j)
				rows += j.rows
			default:
				break gather
			}
		}
		w.write(batch)
	}
}

// write is one transaction: members, one sync, wake-ups, answers.
func (w *writer) write(batch []*job) {
	running := batch[:0]
	members := 0
	for _, j := range batch {
		if j.state.CompareAndSwap(jobWaits, jobRuns) {
			running = append(running, j)
			members += len(j.members)
		}
	}
	if len(running) == 0 {
		return
	}
	topics, err := w.transact(running, members > 1)
	if err != nil {
		err = unavailable("write to", w.path, w.dialect, err)
		for _, j := range running {
			j.errs = j.fail(err)
		}
	}
	w.report(err)
	w.hub.Wake(topics...) // also after a fault: the transaction may have become durable all the same
	for _, j := range running {
		close(j.done)
	}
}

func (w *writer) transact(batch []*job, shared bool) (topics []store.Topic, err error) {
	if err := w.begin(); err != nil {
		return nil, err
	}
	wrote := false
	for _, j := range batch {
		for i, do := range j.members {
			t := &tx{conn: w.conn, shared: shared}
			err := do(t)
			undo := t.wrote && shared
			switch {
			case err == nil:
				wrote = wrote || t.wrote
				topics = append(topics, t.topics...)
				if undo {
					_, err = w.conn.exec("RELEASE member")
				}
			case w.refuses(err):
				j.errs[i] = w.refused(err)
				err = nil
				switch {
				case undo:
					if _, err = w.conn.exec("ROLLBACK TO member"); err == nil {
						_, err = w.conn.exec("RELEASE member")
					}
				case t.wrote: // alone in its transaction
					w.rollback()
					return nil, nil
				}
			}
			if err != nil {
				w.abandon()
				return topics, err
			}
		}
	}
	if _, err := w.conn.exec("COMMIT"); err != nil {
		w.abandon()
		return topics, err
	}
	if wrote {
		w.commits.Add(1)
	}
	return topics, nil
}

func (w *writer) refuses(err error) bool {
	var r refusal
	return errors.As(err, &r) || w.dialect.fault(err) == faultConstraint
}

func (w *writer) refused(err error) error {
	if r, ok := errors.AsType[refusal](err); ok {
		return r.error
	}
	return fmt.Errorf("the schema refuses it: %w: %w", err, aloft.ErrInvalid)
}

// begin opens a transaction, connecting again after a fault and waiting for a lock that somebody else has.
func (w *writer) begin() error {
	for until := time.Now().Add(busyFor); ; {
		err := w.connect()
		if err == nil {
			_, err = w.conn.exec(w.dialect.begin)
		}
		if err == nil {
			return nil
		}
		if w.dialect.fault(err) != faultBusy || time.Now().After(until) {
			w.disconnect()
			return err
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // there is no signal: the driver waits for most locks by itself, but not for all
	}
}

func (w *writer) connect() (err error) {
	if w.conn == nil {
		w.conn, err = connect(w.dialect, w.dsn)
	}
	return err
}

// abandon gives up the transaction and, after a fault, the connection too: what it believes of the disk may be wrong.
func (w *writer) abandon() {
	w.rollback()
	w.disconnect()
}

// rollback leaves no transaction open.
func (w *writer) rollback() {
	if _, err := w.conn.exec("ROLLBACK"); err != nil {
		w.disconnect()
	}
}

func (w *writer) disconnect() {
	if w.conn != nil {
		if err := w.conn.close(); err != nil {
			w.log.Warn("close database", "path", w.path, "error", err)
		}
		w.conn = nil
	}
}

// report logs when writing begins to fail and when it works again, not every time in between.
func (w *writer) report(err error) {
	switch {
	case err != nil && w.healthy:
		w.log.Error("the store cannot write; it goes on by itself when it can", "error", err)
	case err == nil && !w.healthy:
		w.log.Info("the store writes again", "path", w.path)
	}
	w.healthy = err == nil
}

// opening is what went wrong when there is no store yet that could go on.
const opening = "open store"

// unavailable turns a database's error into one sentence with the way out.
func unavailable(verb, path string, d *dialect, err error) error {
	if errors.Is(err, aloft.ErrUnavailable) {
		return err
	}
	var hint string
	switch d.fault(err) {
	case faultBusy:
		hint = "another program has it locked: close that program"
	case faultFull:
		hint = "the disk is full: make room, it goes on by itself"
		if verb == opening {
			hint = "the disk is full: make room and start again"
		}
	case faultReadOnly:
		hint = "it cannot be opened for writing: check that the folder exists and that this user may write to it"
	case faultDisk:
		hint = "the disk reports an error: check it"
	case faultDamaged:
		hint = "the file is damaged or no database: put it back from a backup"
	default:
		if errors.Is(err, context.DeadlineExceeded) {
			hint = "it took too long: ask for less, or try again"
		} else if errors.Is(err, context.Canceled) {
			hint = "the caller went away"
		} else {
			hint = "the database answered with an error"
		}
	}
	return fmt.Errorf("%s %s: %s: %w: %w", verb, path, hint, err, aloft.ErrUnavailable)
}
