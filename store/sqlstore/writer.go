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

// Bounds of one transaction, so that the last job in it is not answered much later than the first one could be.
const (
	maxJobs = 1024
	maxRows = 20_000
)

const (
	busyFor  = 30 * time.Second // how long the writer goes on asking for a database that another program has locked
	awayFor  = 10 * time.Second // how long the writer tries to reach a database server before it fails the jobs that wait
	maxTries = 5                // how often the writer runs a transaction of which nothing was committed
	writeFor = 30 * time.Second // how long a caller waits for a transaction that stands still on a disk
)

// job is one call of a caller: one or more members.
type job struct {
	members []member
	errs    []error      // one for each member, set before done is closed
	rows    int          // about how many rows it writes
	state   atomic.Int32 // jobQueued, jobRunning or jobAbandoned
	done    chan struct{}
}

// member is a part of a job that is committed or refused alone: a step, or all of a call that is not Commit. It checks its
// conditions and writes its rows in tx, and may run again in another transaction: it must not rely on what an earlier run set.
// An error made by refuse, or of a constraint that a row violates, refuses the member alone; any other error is a fault of the
// database and concerns the whole transaction.
type member func(tx *tx) error

const (
	jobQueued = iota
	jobRunning
	jobAbandoned // its caller has returned: the job must not touch what the caller handed in
)

// refusal is an answer to the caller of a member, not a fault of the database.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// retryableRefusal refuses a member because of what another transaction was about to commit. That transaction has ended by now:
// the next try sees what it wrote, and decides anew.
type retryableRefusal struct{ error }

func (o retryableRefusal) Unwrap() error { return o.error }

// tx is the transaction as one member sees it.
type tx struct {
	*conn
	needsSavepoint            bool   // other members are in the same transaction, and a refusal must undo this one alone
	lockNameSQL, lockInboxSQL string // of the dialect
	number                    int64  // of the transaction
	failedReadAborts          bool   // a read that fails aborts the transaction, too: it needs the savepoint
	wrote                     bool   // this member has written something
	topics                    []store.Topic
	mergeInserts              bool // inserts of several members may be merged into one statement
}

func (t *tx) wake(topics ...store.Topic) { t.topics = append(t.topics, topics...) }

// lock takes the lock of this name until the transaction ends. Other transactions that want it wait.
func (t *tx) lock(name string) error {
	if t.lockNameSQL == "" {
		return nil
	}
	_, err := t.exec(t.lockNameSQL, name)
	return err
}

// openSavepoint opens the savepoint that a refusal goes back to, before the member's first write: most refusals come earlier.
func (t *tx) openSavepoint() error {
	if t.wrote {
		return nil
	}
	t.wrote = true
	if !t.needsSavepoint {
		return nil
	}
	return t.conn.execLater("SAVEPOINT member", nil, nil)
}

func (t *tx) row(dest []any, query string, args ...driver.Value) (bool, error) {
	if t.needsSavepoint && t.failedReadAborts {
		if err := t.openSavepoint(); err != nil {
			return false, err
		}
	}
	return t.conn.row(dest, query, args...)
}

func (t *tx) each(dest []any, got func() error, query string, args ...driver.Value) error {
	if t.needsSavepoint && t.failedReadAborts {
		if err := t.openSavepoint(); err != nil {
			return err
		}
	}
	return t.conn.each(dest, got, query, args...)
}

func (t *tx) exec(query string, args ...driver.Value) (int64, error) {
	if err := t.openSavepoint(); err != nil {
		return 0, err
	}
	return t.conn.exec(query, args...)
}

func (t *tx) execLater(query string, args []driver.Value, check func(rows int64) error) error {
	if err := t.openSavepoint(); err != nil {
		return err
	}
	return t.conn.execLater(query, args, check)
}

func (t *tx) insertLater(m *bulkInsert, args []driver.Value, check func(rows int64) error) error {
	if len(args) == 0 {
		return nil
	}
	if err := t.openSavepoint(); err != nil {
		return err
	}
	if t.mergeInserts {
		t.conn.insertMerged(m, args, int64(len(args)/m.columns), check)
		return nil
	}
	return t.conn.insertLater(m, args, check)
}

// writer is the one goroutine that writes (group commit). It takes all jobs that are queued, up to maxJobs and maxRows, into one
// transaction: one sync for all of them. A job is
//
//	queued ──the writer takes it──▶ running ──▶ done: errs is set, then done is closed
//	   └──its caller's context ends, or patience──▶ abandoned: the writer skips it, and nothing of it was written
//
// A transaction ends in one of these ways:
//
//	committed    each member has its own answer: nil, or its refusal
//	retried      nothing was committed, and another try may do better: the database was locked, or the connection was lost
//	             before COMMIT; a refusal cannot be undone alone, or is a retryableRefusal. All members run again, in all
//	             at most maxTries times
//	failed       nothing was committed, because of a full disk or another fault: all members get ErrUnavailable
//	unknown      COMMIT was sent and did not succeed: all members get ErrUnavailable, and may have been committed
//
// Subscribers are woken before callers are answered, also when the outcome is unknown: a wake-up for nothing is harmless. After
// a fault the connection is closed, and the next transaction opens another one. So, for each member,
//
//	its answer is nil        ⇒ its rows were committed, and synced
//	its answer is a refusal  ⇒ none of its rows was committed
//	ErrUnavailable           ⇒ all of its rows or none: the caller repeats the same call, which finds what was committed
//
// A refusal must undo its own member alone. With savepoints, each member has one, opened before its first write, and all of its
// statements have run before the next member begins. Where the database is reached over a network this would be several
// journeys for each member. There (dialect.skipSavepoints) the first try has no savepoints: statements travel together
// (execLater) and inserts of all members are merged (insertMerged). If a member is refused after it wrote, or the error of a
// deferred statement may be an earlier member's, the transaction is rolled back and retried with savepoints.
//
// A disk that does not answer stops the writer in the middle of a transaction. Callers wait for patience, then they return
// ErrUnavailable, at once while the standstill lasts; the writer goes on when the disk answers.
//
// Example: a step of 64 nodes, a report and a step under an old epoch are queued. In one transaction the first writes its rows,
// the report its message, and the third is refused by what it reads, before it writes. After one COMMIT their answers are nil,
// nil and ErrFenced. If the disk was full at the COMMIT, all three get ErrUnavailable.
type writer struct {
	dialect  *dialect
	dsn      string
	path     string                      // as messages name the database
	wakeFunc func(topics ...store.Topic) // wakes the subscribers of topics, here and on other servers
	log      *slog.Logger

	jobs    chan *job
	closing chan struct{}
	once    sync.Once
	stopped chan struct{}

	patience time.Duration         // how long callers wait for a transaction that stands still; 0: for its end
	madeAt   time.Time             // when the writer was made
	begunAt  atomic.Int64          // when the transaction under way began: 1 + nanoseconds since madeAt; 0: there is none
	lastErr  atomic.Pointer[error] // the fault of the last transaction; nil: it had none

	conn    *conn        // nil: to be opened by the next transaction. open ⇒ conn ≠ nil
	open    bool         // a transaction is open
	number  int64        // of the open transaction, or of the last one
	commits atomic.Int64 // transactions that wrote something: for age, and for tests
}

func newWriter(d *dialect, dsn, path string, patience time.Duration, wakeFunc func(...store.Topic), log *slog.Logger) *writer {
	w := &writer{
		dialect: d, dsn: dsn, path: path, patience: patience, wakeFunc: wakeFunc, log: log, madeAt: time.Now(),
		jobs: make(chan *job, maxJobs), closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	go w.run()
	return w
}

// submit queues a job and waits until its members were committed or refused. If ctx ends while the job is queued, or the writer
// stands still, the answer is ErrUnavailable, and the caller must not change the records any more: a transaction that stands
// still on a disk may be committed yet.
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
		return j.fail(w.timedOut())
	case <-w.closing:
		return j.fail(w.closed())
	}
	for gone := ctx.Done(); ; {
		select {
		case <-j.done:
			return j.errs
		case <-gone:
			if j.state.CompareAndSwap(jobQueued, jobAbandoned) {
				return j.fail(fmt.Errorf("write to %s: %w: %w", w.path, context.Cause(ctx), aloft.ErrUnavailable))
			}
			gone = nil // the job is running, reads the caller's records, and is done soon
		case <-patience:
			if j.state.CompareAndSwap(jobQueued, jobAbandoned) {
				return j.fail(w.timedOut())
			}
			if err := w.standstill(); err != nil {
				return j.fail(err)
			}
			patience = time.After(w.patience) // the job's transaction has begun since, and does not stand still
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

// standstill is the error that the transaction under way waits for the disk, for longer than callers wait; nil: it does not.
func (w *writer) standstill() error {
	begun := w.begunAt.Load()
	if begun == 0 || w.patience == 0 {
		return nil
	}
	stands := time.Since(w.madeAt) - time.Duration(begun-1)
	if stands < w.patience {
		return nil
	}
	return fmt.Errorf("write to %s: its disk has not answered for %s: check it, and the network if it is a network file system; all goes on by itself when it answers: %w",
		w.path, stands.Round(time.Second), aloft.ErrUnavailable)
}

// timedOut is the error of a job that was queued for longer than its caller waits. Nothing of the job was written.
func (w *writer) timedOut() error {
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

// close ends the writer after it has written the jobs that are queued. A writer that stands still ends when the disk answers.
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
			select { // jobs that were queued before are still written
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

// write runs jobs in one transaction, with retries, wakes subscribers and answers the callers.
func (w *writer) write(batch []*job) {
	w.begunAt.Store(1 + int64(time.Since(w.madeAt)))
	defer w.begunAt.Store(0)
	err := w.begin() // while the jobs are still queued: a caller that does not want to wait for the database can still leave
	running := batch[:0]
	members := 0
	for _, j := range batch {
		if j.state.CompareAndSwap(jobQueued, jobRunning) {
			running = append(running, j)
			members += len(j.members)
		}
	}
	var topics []store.Topic
	if len(running) > 0 && err == nil {
		savepoints := !w.dialect.skipSavepoints
		for try := 1; try <= maxTries; try++ {
			var retry bool
			if topics, retry, err = w.transact(running, members > 1, savepoints, try < maxTries); !retry {
				break
			}
			savepoints = true
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
	w.noteHealth(err)
	w.wakeFunc(topics...) // also after a fault: the transaction may have been committed all the same
	for _, j := range running {
		close(j.done)
	}
}

// transact runs the members and commits. It returns retry, if it may, when nothing was committed and another try may do better:
// after a refusal that cannot be undone alone, or a transient fault.
func (w *writer) transact(batch []*job, several, savepoints, mayRetry bool) (topics []store.Topic, retry bool, err error) {
	if err := w.begin(); err != nil {
		return nil, false, err
	}
	var done []*tx
	for _, j := range batch {
		for i, do := range j.members {
			j.errs[i] = nil
			t := &tx{conn: w.conn, needsSavepoint: several && savepoints, mergeInserts: several && !savepoints, failedReadAborts: w.dialect.skipSavepoints,
				lockNameSQL: w.dialect.lockNameSQL, lockInboxSQL: w.dialect.lockInboxSQL, number: w.number}
			err := do(t)
			if err == nil && (savepoints || !several) {
				err = w.conn.flush()
			}
			var retryable retryableRefusal
			switch {
			case err == nil:
				done = append(done, t)
				if t.wrote && t.needsSavepoint {
					err = w.conn.execLater("RELEASE member", nil, nil)
				}
			case w.isRefusal(err) && mayRetry && (errors.As(err, &retryable) || several && !savepoints && (t.wrote || w.concernsEarlierMember(err))):
				w.rollback()
				return nil, true, nil
			case w.isRefusal(err):
				j.errs[i] = w.refusalError(err)
				err = nil
				switch {
				case t.wrote && t.needsSavepoint:
					if _, err = w.conn.exec("ROLLBACK TO member"); err == nil {
						err = w.conn.execLater("RELEASE member", nil, nil)
					}
				case t.wrote: // the member is alone in its transaction
					w.rollback()
					return nil, false, nil
				}
			}
			if err != nil {
				w.abandon()
				return topicsOf(done), mayRetry && w.isTransient(err), err
			}
		}
	}
	if err := w.conn.flush(); err != nil {
		if w.isRefusal(err) && mayRetry {
			w.rollback()
			return nil, true, nil
		}
		w.abandon()
		return nil, mayRetry && w.isTransient(err), err
	}
	topics = topicsOf(done)
	_, err = w.conn.exec("COMMIT")
	w.open = false
	if err != nil {
		w.abandon() // the outcome is unknown
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

func topicsOf(done []*tx) (topics []store.Topic) {
	for _, t := range done {
		topics = append(topics, t.topics...)
	}
	return topics
}

// concernsEarlierMember says whether an error may be about deferred statements of members that ran before.
func (w *writer) concernsEarlierMember(err error) bool {
	var l deferredError
	return errors.As(err, &l)
}

// isTransient says whether a transaction that ended with this error, before COMMIT, may be tried again at once.
func (w *writer) isTransient(err error) bool {
	f := w.dialect.fault(err)
	return f == faultBusy || f == faultAway
}

func (w *writer) isRefusal(err error) bool {
	var r refusal
	return errors.As(err, &r) || w.dialect.fault(err) == faultConstraint
}

func (w *writer) refusalError(err error) error {
	if r, ok := errors.AsType[refusal](err); ok {
		return r.error
	}
	return fmt.Errorf("the schema refuses it: %w: %w", err, aloft.ErrInvalid)
}

// begin opens a transaction unless one is open. It connects again after a fault, and waits for a lock of another program and
// for a database server that is away.
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

// abandon gives up the transaction and the connection: after a fault, what the connection holds in its cache may be wrong.
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
	w.conn.dropDeferred()
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

// noteHealth keeps the fault of the last transaction, and logs when writing begins to fail and when it works again.
func (w *writer) noteHealth(err error) {
	healthy := w.lastErr.Load() == nil
	switch {
	case err != nil && healthy:
		w.log.Error("the store cannot write; it goes on by itself when it can", "error", err)
	case err == nil && !healthy:
		w.log.Info("the store writes again", "path", w.path)
	}
	if err == nil {
		w.lastErr.Store(nil)
	} else {
		w.lastErr.Store(&err)
	}
}

// opening begins the errors of Open: there is no store yet that could go on by itself.
const opening = "open store"

// noDescriptors says whether this process cannot open any file. SQLite reports that as a file that it may not open.
func noDescriptors() bool {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
	}
	_ = f.Close()
	return false
}

// readOnlyDisk says whether the file system of a database is read-only, which SQLite reports as a broken disk or a file of
// another user. It opens the lock file beside the database: closing a descriptor of the database itself would end SQLite's locks.
func readOnlyDisk(path string) bool {
	f, err := os.OpenFile(path+".lock", os.O_WRONLY, 0)
	if err != nil {
		return errors.Is(err, syscall.EROFS)
	}
	_ = f.Close()
	return false
}

// unavailable turns an error of the database into one sentence with the way out.
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
