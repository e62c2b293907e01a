package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// What one transaction takes at most, so that nobody waits long for those before him.
const (
	maxJobs = 1024
	maxRows = 20_000
)

const (
	busyFor  = 30 * time.Second // how long the writer goes on asking for a database that another program has locked
	awayFor  = 10 * time.Second // how long it tries to reach a server, before those who wait are told
	maxTries = 5                // of a transaction of which nothing was committed
	writeFor = 30 * time.Second // how long a caller waits for a transaction that stands still on a disk
)

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

// overtaken is a refusal that looks different the next time: what was in the way is committed and can be seen then.
type overtaken struct{ error }

func (o overtaken) Unwrap() error { return o.error }

// tx is the transaction as one member sees it. A member may be run again in another transaction.
type tx struct {
	*conn
	guarded         bool   // other members are in the same transaction, and a refusal must undo this one alone
	lockName, atEnd string // of the dialect
	number          int64  // of the transaction
	fragile         bool   // an error in a read spoils the transaction, too
	wrote           bool   // this member has written something
	topics          []store.Topic
	bulk            bool // what members write may be put together
}

func (t *tx) wake(topics ...store.Topic) { t.topics = append(t.topics, topics...) }

// hold makes whoever else holds this name wait until the transaction is over.
func (t *tx) hold(name string) error {
	if t.lockName == "" {
		return nil
	}
	_, err := t.exec(t.lockName, name)
	return err
}

// guard opens the savepoint that a refusal goes back to, before the member's first write: most refusals come earlier.
func (t *tx) guard() error {
	if t.wrote {
		return nil
	}
	t.wrote = true
	if !t.guarded {
		return nil
	}
	return t.conn.later("SAVEPOINT member", nil, nil)
}

func (t *tx) row(dest []any, query string, args ...driver.Value) (bool, error) {
	if t.guarded && t.fragile {
		if err := t.guard(); err != nil {
			return false, err
		}
	}
	return t.conn.row(dest, query, args...)
}

func (t *tx) each(dest []any, got func() error, query string, args ...driver.Value) error {
	if t.guarded && t.fragile {
		if err := t.guard(); err != nil {
			return err
		}
	}
	return t.conn.each(dest, got, query, args...)
}

func (t *tx) exec(query string, args ...driver.Value) (int64, error) {
	if err := t.guard(); err != nil {
		return 0, err
	}
	return t.conn.exec(query, args...)
}

func (t *tx) later(query string, args []driver.Value, check func(rows int64) error) error {
	if err := t.guard(); err != nil {
		return err
	}
	return t.conn.later(query, args, check)
}

func (t *tx) laterMany(m *many, args []driver.Value, check func(rows int64) error) error {
	if len(args) == 0 {
		return nil
	}
	if err := t.guard(); err != nil {
		return err
	}
	if t.bulk {
		t.conn.gather(m, args, int64(len(args)/m.columns), check)
		return nil
	}
	return t.conn.laterMany(m, args, check)
}

// writer is the one goroutine that writes. All that waits goes into one transaction: one sync for all of it.
type writer struct {
	dialect *dialect
	dsn     string
	path    string                      // as messages name it
	told    func(topics ...store.Topic) // is told what to wake
	log     *slog.Logger

	jobs    chan *job
	closing chan struct{}
	once    sync.Once
	stopped chan struct{}

	patience time.Duration         // how long callers wait for a transaction that stands still; 0: for its end
	epoch    time.Time             // when the writer was made
	begun    atomic.Int64          // when the transaction under way began, in nanoseconds after the one before epoch; 0: there is none
	met      atomic.Pointer[error] // what the last transaction met; nil: nothing

	conn    *conn        // nil: to be opened again
	open    bool         // a transaction is
	number  int64        // of it
	commits atomic.Int64 // transactions that wrote something, for tests that count
}

func newWriter(d *dialect, dsn, path string, patience time.Duration, told func(...store.Topic), log *slog.Logger) *writer {
	w := &writer{
		dialect: d, dsn: dsn, path: path, patience: patience, told: told, log: log, epoch: time.Now(),
		jobs: make(chan *job, maxJobs), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	go w.run()
	return w
}

// submit waits until the members were committed or refused. A caller who goes before that is told that the outcome is not
// known, and must not change the records any more: a transaction that stands still on a disk may be committed yet.
func (w *writer) submit(ctx context.Context, rows int, members ...member) []error {
	j := &job{members: members, errs: make([]error, len(members)), rows: rows, done: make(chan struct{})}
	if err := w.standstill(); err != nil {
		return j.fail(err)
	}
	var patience <-chan time.Time
	if w.patience > 0 {
		timer := time.NewTimer(w.patience)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case w.jobs <- j:
	case <-ctx.Done():
		return j.fail(fmt.Errorf("write to %s: %w: %w", w.path, context.Cause(ctx), aloft.ErrUnavailable))
	case <-patience:
		return j.fail(w.tooLong())
	case <-w.closing:
		return j.fail(w.closed())
	}
	for gone := ctx.Done(); ; {
		select {
		case <-j.done:
			return j.errs
		case <-gone:
			if j.state.CompareAndSwap(jobWaits, jobLeft) {
				return j.fail(fmt.Errorf("write to %s: %w: %w", w.path, context.Cause(ctx), aloft.ErrUnavailable))
			}
			gone = nil // it is being written from the caller's records, and soon done
		case <-patience:
			if j.state.CompareAndSwap(jobWaits, jobLeft) {
				return j.fail(w.tooLong())
			}
			if err := w.standstill(); err != nil {
				return j.fail(err)
			}
			patience = time.After(w.patience) // its transaction is one of many, and has begun since
		case <-w.stopped:
			select {
			case <-j.done:
				return j.errs
			default:
				return j.fail(w.closed())
			}
		}
	}
}

// standstill says since when the transaction under way waits for the disk, if that is longer than callers wait for it.
func (w *writer) standstill() error {
	begun := w.begun.Load()
	if begun == 0 || w.patience == 0 {
		return nil
	}
	stands := time.Since(w.epoch) - time.Duration(begun-1)
	if stands < w.patience {
		return nil
	}
	return fmt.Errorf("write to %s: its disk has not answered for %s: check it, and the network if it is a network file system; all goes on by itself when it answers: %w",
		w.path, stands.Round(time.Second), aloft.ErrUnavailable)
}

// tooLong is told to callers whose turn did not come. Nothing of theirs was written.
func (w *writer) tooLong() error {
	if err := w.standstill(); err != nil {
		return err
	}
	return fmt.Errorf("write to %s: its turn did not come within %s, the disk is slow or there is too much to write: try again: %w", w.path, w.patience, aloft.ErrUnavailable)
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

// close lets what waits be written and ends the writer. One that stands still ends when the disk answers.
func (w *writer) close() error {
	w.once.Do(func() { close(w.closing) })
	for {
		select {
		case <-w.stopped:
			return nil
		case <-time.After(time.Second):
			if err := w.standstill(); err != nil {
				return err
			}
		}
	}
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

// write is one transaction: members, one sync, wake-ups, answers. If it comes to nothing and the database says so, it is
// done once more from the beginning.
func (w *writer) write(batch []*job) {
	w.begun.Store(1 + int64(time.Since(w.epoch)))
	defer w.begun.Store(0)
	err := w.begin() // before anything is taken from the callers: whoever does not want to wait for the database can still go
	running := batch[:0]
	members := 0
	for _, j := range batch {
		if j.state.CompareAndSwap(jobWaits, jobRuns) {
			running = append(running, j)
			members += len(j.members)
		}
	}
	var topics []store.Topic
	if len(running) > 0 && err == nil {
		careful := !w.dialect.optimist
		for try := 1; try <= maxTries; try++ {
			var again bool
			if topics, again, err = w.transact(running, members > 1, careful, try < maxTries); !again {
				break
			}
			careful = true
		}
	}
	if err != nil {
		err = unavailable("write to", w.path, w.dialect, err)
		for _, j := range running {
			j.errs = j.fail(err)
		}
	}
	if w.open {
		w.rollback()
	}
	w.report(err)
	w.told(topics...) // also after a fault: the transaction may have become durable all the same
	for _, j := range running {
		close(j.done)
	}
}

// transact runs the members and commits. It says again, if more is allowed, when nothing was committed and another try has a
// chance: after a refusal that cannot be undone alone, or a fault that passes.
func (w *writer) transact(batch []*job, shared, careful, more bool) (topics []store.Topic, again bool, err error) {
	if err := w.begin(); err != nil {
		return nil, false, err
	}
	var done []*tx
	for _, j := range batch {
		for i, do := range j.members {
			j.errs[i] = nil
			t := &tx{conn: w.conn, guarded: shared && careful, bulk: shared && !careful, fragile: w.dialect.optimist, lockName: w.dialect.lockName, atEnd: w.dialect.atEnd, number: w.number}
			err := do(t)
			if err == nil && (careful || !shared) {
				err = w.conn.flush()
			}
			var passes overtaken
			switch {
			case err == nil:
				done = append(done, t)
				if t.wrote && t.guarded {
					err = w.conn.later("RELEASE member", nil, nil)
				}
			case w.refuses(err) && more && (errors.As(err, &passes) || shared && !careful && (t.wrote || w.beforeIt(err))):
				w.rollback()
				return nil, true, nil
			case w.refuses(err):
				j.errs[i] = w.refused(err)
				err = nil
				switch {
				case t.wrote && t.guarded:
					if _, err = w.conn.exec("ROLLBACK TO member"); err == nil {
						err = w.conn.later("RELEASE member", nil, nil)
					}
				case t.wrote: // alone in its transaction
					w.rollback()
					return nil, false, nil
				}
			}
			if err != nil {
				w.abandon()
				return woken(done), more && w.passes(err), err
			}
		}
	}
	if err := w.conn.flush(); err != nil {
		if w.refuses(err) && more {
			w.rollback()
			return nil, true, nil
		}
		w.abandon()
		return nil, more && w.passes(err), err
	}
	topics = woken(done)
	_, err = w.conn.exec("COMMIT")
	w.open = false
	if err != nil {
		w.abandon() // nobody knows if it was committed
		return topics, false, err
	}
	for _, t := range done {
		if t.wrote {
			w.commits.Add(1)
			break
		}
	}
	return topics, false, nil
}

func woken(done []*tx) (topics []store.Topic) {
	for _, t := range done {
		topics = append(topics, t.topics...)
	}
	return topics
}

// beforeIt says whether an error may be about statements of members that came before.
func (w *writer) beforeIt(err error) bool {
	var l late
	return errors.As(err, &l)
}

// passes says whether a transaction that ended with this fault, before it was to be committed, may be tried again at once.
func (w *writer) passes(err error) bool {
	f := w.dialect.fault(err)
	return f == faultBusy || f == faultAway
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

// begin opens a transaction unless there is one, connecting again after a fault and waiting for a lock that somebody else
// has and for a server that is away.
func (w *writer) begin() error {
	if w.open {
		return nil
	}
	began := time.Now()
	for try := 1; ; try++ {
		err := w.connect()
		if err == nil {
			_, err = w.conn.exec(w.dialect.begin)
		}
		if err == nil {
			w.open = true
			w.number++
			return nil
		}
		pause, limit := 10*time.Millisecond, busyFor // the driver waits for most locks by itself, but not for all
		switch w.dialect.fault(err) {
		case faultBusy:
		case faultAway:
			w.disconnect()
			if pause, limit = 100*time.Millisecond, awayFor; try == 1 {
				pause = 0 // the server may have been back for a while
			}
		default:
			limit = 0
		}
		if time.Since(began) >= limit {
			w.disconnect()
			return err
		}
		select {
		case <-time.After(pause):
		case <-w.closing:
			w.disconnect()
			return err
		}
	}
}

func (w *writer) connect() error {
	if w.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), awayFor)
	defer cancel()
	s, err := w.dialect.connect(ctx, w.dialect, w.dsn)
	if err == nil {
		w.conn = &conn{s}
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
	w.open = false
	if w.conn == nil {
		return
	}
	w.conn.forget()
	if _, err := w.conn.exec("ROLLBACK"); err != nil {
		w.disconnect()
	}
}

func (w *writer) disconnect() {
	w.open = false
	if w.conn != nil {
		if err := w.conn.close(); err != nil {
			w.log.Warn("close database", "path", w.path, "error", err)
		}
		w.conn = nil
	}
}

// report logs when writing begins to fail and when it works again, not every time in between.
func (w *writer) report(err error) {
	healthy := w.met.Load() == nil
	switch {
	case err != nil && healthy:
		w.log.Error("the store cannot write; it goes on by itself when it can", "error", err)
	case err == nil && !healthy:
		w.log.Info("the store writes again", "path", w.path)
	}
	if err == nil {
		w.met.Store(nil)
	} else {
		w.met.Store(&err)
	}
}

// opening is what went wrong when there is no store yet that could go on.
const opening = "open store"

// noDescriptors says whether this process cannot open any file. SQLite does not tell that from a file that it may not open.
func noDescriptors() bool {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
	}
	_ = f.Close()
	return false
}

// readOnlyDisk says whether the file system of a database takes no writes, which SQLite does not tell from a broken disk or a
// file of another user. The lock beside it is opened for that: closing a descriptor of the file itself would end SQLite's locks.
func readOnlyDisk(path string) bool {
	f, err := os.OpenFile(path+".lock", os.O_WRONLY, 0)
	if err != nil {
		return errors.Is(err, syscall.EROFS)
	}
	_ = f.Close()
	return false
}

// unavailable turns a database's error into one sentence with the way out.
func unavailable(verb, path string, d *dialect, err error) error {
	if errors.Is(err, aloft.ErrUnavailable) {
		return err
	}
	f := d.fault(err)
	hint, ok := d.hints[f]
	switch {
	case f == faultFull && verb == opening:
		hint = "the disk is full: make room and start again"
	case d.name == "sqlite" && (f == faultReadOnly || f == faultDisk) && readOnlyDisk(path):
		hint = "its file system is read-only: see why (dmesg), and mount it writable; it goes on by itself then"
	case f == faultReadOnly && noDescriptors():
		hint = "too many files and connections are open: raise the limit (ulimit -n); it goes on by itself when some are closed"
	case ok:
	case errors.Is(err, context.DeadlineExceeded):
		hint = "it took too long: ask for less, or try again"
	case errors.Is(err, context.Canceled):
		hint = "the caller went away"
	default:
		hint = "the database answered with an error"
	}
	return fmt.Errorf("%s %s: %s: %w: %w", verb, path, hint, err, aloft.ErrUnavailable)
}
