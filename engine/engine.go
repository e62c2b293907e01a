package engine

import (
	"context"
	"crypto/rand"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/lru"
	"github.com/aloft-dev/aloft/store"
)

// Store is what the engine needs of the store.
type Store interface {
	AcquireShards(ctx context.Context, owner string, now time.Time, ttl time.Duration) ([]store.Lease, error)
	YieldShards(ctx context.Context, leases []store.Lease) error
	ReleaseShards(ctx context.Context, owner string) error
	Inbox(ctx context.Context, shards []int, after int64, limit int) ([]store.InboxRow, error)
	Messages(ctx context.Context, seqs []int64) ([]store.InboxRow, error)
	Due(ctx context.Context, shards []int, until time.Time, limit int) ([]store.DueRow, error)
	Clocks(ctx context.Context, shards []int, after store.Key, limit int) ([]store.ClockRow, error)
	Load(ctx context.Context, key store.Key) (*store.Execution, error)
	Journal(ctx context.Context, key store.Key, got func(store.JournalRow) error) error
	Commit(ctx context.Context, steps []*store.Step) []error

	GetWorkflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error)
	NodeInputs(ctx context.Context, execution store.Key, node aloft.NodeID) (*aloftv1.Literals, error)
	NodeOutputs(ctx context.Context, execution store.Key, node aloft.NodeID) (*aloftv1.Literals, error)
	ListNodes(ctx context.Context, id aloft.ExecutionID, parent aloft.NodeID, all bool, q store.Query) ([]*store.Node, error)
	ListAttempts(ctx context.Context, id aloft.ExecutionID, node aloft.NodeID, q store.Query) ([]*store.Attempt, error)
	NodeValues(ctx context.Context, id aloft.ExecutionID, nodes []aloft.NodeID) ([]*store.Node, error)

	Instances(ctx context.Context) ([]store.Instance, error)
	Assigned(ctx context.Context, executor string) ([]*store.Attempt, error)
	Adopt(ctx context.Context, from, to string) (int, error)
	Report(ctx context.Context, executor string, reports []store.Report) []error
	RemoveInstance(ctx context.Context, executor string) error

	store.Wakes
}

// Catalog finds results that may be used again: catalog.Catalog. An error means that it could not look.
type Catalog interface {
	// Ahead is what there is for several ids now, in their order; nil: nothing. Each must pass Use before it is used.
	Ahead(ctx context.Context, ids []store.ResultID) ([]*store.Result, error)
	// Use sees that all is there that a result refers to. With a reason it is not what it was, and gone.
	Use(ctx context.Context, e *store.Result) (reason string, err error)
	// FindOrReserve returns a result that may be used or, on a miss, asks for the right to compute it: the reservation that
	// holds is returned, r's own or that of somebody to wait for. reason is that of a result that was there.
	FindOrReserve(ctx context.Context, r store.Reservation) (e *store.Result, held store.Reservation, reason string, err error)
	// Lost says what of a finished node's outputs is not there any more; empty: nothing.
	Lost(ctx context.Context, outputs *aloftv1.Literals) (problem string, err error)
}

// Literals keeps literal maps that are too large for a row: blob.Literals.
type Literals interface {
	// WriteLiterals returns once an object that it needs is durable. A map that would take too much memory for its readers is
	// ErrExhausted.
	WriteLiterals(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error)
	ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error)
}

// Health is what the engine asks of package health.
type Health interface {
	// Failed says that a service could not do its part and returns what is known of it then.
	Failed(ctx context.Context, service, reason string) (s store.Service, first bool)
	// Away returns the first of the services that is away.
	Away(services ...string) (s store.Service, away bool)
}

// blamed says of whoever keeps literals that it was them.
type blamed struct{ Literals }

func (b blamed) WriteLiterals(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error) {
	l, err := b.Literals.WriteLiterals(ctx, m)
	return l, aloft.Blame(aloft.ServiceBlob, err)
}

func (b blamed) ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error) {
	m, err := b.Literals.ReadLiterals(ctx, ref)
	return m, aloft.Blame(aloft.ServiceBlob, err)
}

// Config of an engine. Store, Literals, Owner and Logger are required, zero values of the others take the default.
type Config struct {
	Store    Store
	Literals Literals
	Catalog  Catalog // nil: nothing is used again
	Logger   *slog.Logger

	// Owner names the engine in its leases. No two have ever the same. One that is started in the place of another that
	// surely ended (a server that holds the lock of its data folder) releases that one's leases before it starts and goes on
	// at once, any other waits until they have run out.
	Owner string

	// Policy is the limits of every execution and what becomes of retries. An attempt whose task states no timeout ends
	// after 48 h unless it says otherwise: every task ends.
	Policy machine.Policy

	// MaxRetries is how often a step is tried again that could not be done because something of ours was away, in a row,
	// before its execution is parked. 10, as Flyte's max-workflow-retries, which fails the execution then.
	MaxRetries int

	// MaxOutage is for how long an execution waits for a service before it fails. 0: for ever.
	MaxOutage time.Duration

	// Health of the services; nil: nobody tells when one is back, and what is parked asks by itself.
	Health Health

	Clock     Clock         // NewClock(time.Now()); of the process: see clock.go
	LeaseTTL  time.Duration // 10 s; renewed each third of it
	Poll      time.Duration // 1 s; how often it looks at the store without being woken
	Grace     time.Duration // 15 s; how long after an executor's time is up its attempts are given up
	Workers   int           // GOMAXPROCS; executions that are stepped at once
	StepLimit int           // 1,000; about how many events one step may decide before other executions are stepped

	CacheRuns     int64 // 256 MiB of executions that are kept in memory between their steps
	CacheGraphs   int64 // 64 MiB of compiled workflows
	CacheLiterals int64 // 64 MiB of literals
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = NewClock(time.Now())
	}
	setDefault(&c.Policy.Timeout, 48*time.Hour)
	setDefault(&c.MaxRetries, 10)
	setDefault(&c.LeaseTTL, 10*time.Second)
	setDefault(&c.Poll, time.Second)
	setDefault(&c.Grace, 15*time.Second)
	setDefault(&c.Workers, runtime.GOMAXPROCS(0))
	setDefault(&c.StepLimit, 1000)
	setDefault(&c.CacheRuns, 256<<20)
	setDefault(&c.CacheGraphs, 64<<20)
	setDefault(&c.CacheLiterals, 64<<20)
	return c
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Bounds of what is in memory between the store and the workers.
const (
	rowsPerCommit = 8_000
	rowsWaiting   = 24_000   // decided and not committed: workers pause above
	bytesWaiting  = 64 << 20 // likewise
	cachedKeys    = 16 << 20 // bytes of what is known of nodes' cache keys
)

// Engine moves the executions of the shards it holds. New makes one; Run or Pass make it go, never both.
type Engine struct {
	config   Config
	store    Store
	literals Literals
	clock    Clock
	logger   *slog.Logger

	graphs   *lru.Cache[aloft.Key, *machine.Graph]
	values   *lru.Cache[string, *core.LiteralMap] // by digest
	keys     *lru.Cache[*core.Node, *catalog.Signature]
	heard    map[string]heartbeat // of executors; of whoever reaps, as lookedAt
	lookedAt time.Time
	nonce    string // begins the commit ids of this process

	mu          sync.Mutex
	workable    *sync.Cond // of mu, for workers: something is ready, there is room for what they decide, or it is over
	committable *sync.Cond // of mu, for the committer: something is finished, or it is over
	stopping    bool
	leases      leases
	unrenewed   time.Time // when the first renewal of leases began that has not come to its end since, or failed; zero: the last one succeeded
	runs        map[store.Key]*run
	ready       queue[*run]
	timers      timers
	inboxes     inboxes
	clockSearch fastClockSearch
	parked      map[*run]struct{} // those that wait for a service that is away

	memory    memory
	finished  queue[*decided]
	rows      int        // of finished and unsettled
	bytes     int64      // of these, about
	unsettled []*decided // given to the store without learning what became of it
	commits   int64      // numbers commit ids
	renewAt   time.Time
	rescanAt  time.Time
	reapAt    time.Time
	tick      chan struct{} // tells the collector that the soonest timer or the room for messages changed
}

// New makes an engine that has no shard yet.
func New(config Config) *Engine {
	config = config.withDefaults()
	e := &Engine{
		config:   config,
		store:    config.Store,
		literals: blamed{config.Literals},
		clock:    config.Clock,
		logger:   config.Logger,
		graphs:   lru.New[aloft.Key, *machine.Graph](config.CacheGraphs),
		values:   lru.New[string, *core.LiteralMap](config.CacheLiterals),
		keys:     lru.New[*core.Node, *catalog.Signature](cachedKeys),
		nonce:    rand.Text(),
		runs:     make(map[store.Key]*run),
		parked:   make(map[*run]struct{}),
		inboxes:  newInboxes(),
		memory:   memory{limit: config.CacheRuns},
		tick:     make(chan struct{}, 1),
	}
	e.workable, e.committable = sync.NewCond(&e.mu), sync.NewCond(&e.mu)
	return e
}

// Run moves executions until ctx ends; then it finishes the commit it is in and gives its shards back.
func (e *Engine) Run(ctx context.Context) error {
	wake, cancel := e.store.Subscribe(store.TopicInbox)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		e.mu.Lock()
		e.stopping = true
		e.mu.Unlock()
		e.workable.Broadcast()
		e.committable.Broadcast()
	})
	defer stop()

	var all sync.WaitGroup
	all.Go(func() { e.keepLeases(ctx) })
	all.Go(func() { e.keepCollecting(ctx, wake) })
	all.Go(func() { e.keepReaping(ctx) })
	all.Go(func() { e.keepCommitting(ctx) })
	for range e.config.Workers {
		all.Go(func() { e.keepStepping(ctx) })
	}
	all.Wait()

	// The context is over, giving back is still to be done.
	release, done := context.WithTimeout(context.WithoutCancel(ctx), e.config.LeaseTTL)
	defer done()
	if err := e.store.ReleaseShards(release, e.config.Owner); err != nil {
		e.logger.Warn("shards were not given back: their leases run out by themselves", "error", err)
	}
	return nil
}

// Pass does once, on the caller's goroutine, all that is to be done now: it renews leases, collects messages and timers,
// steps each ready execution once and commits that. It says whether there is more to do at once. An error means that the
// store could not do its part: the next pass goes on where this one stopped.
func (e *Engine) Pass(ctx context.Context) (more bool, err error) {
	now := e.clock.Now()
	if due(now, &e.renewAt, e.config.LeaseTTL/3) {
		if err := e.renew(ctx); err != nil {
			e.renewAt = time.Time{}
			return true, err
		}
		if e.leaving() { // what is in flight there ends with this pass
			e.renewAt = time.Time{}
		}
	}
	if due(now, &e.reapAt, e.config.Grace/3) {
		if err := e.Reap(ctx); err != nil {
			e.reapAt = time.Time{}
			return true, err
		}
	}
	if err := e.settle(ctx); err != nil {
		return true, err
	}
	if err := e.collect(ctx); err != nil {
		return true, err
	}
	e.mu.Lock()
	n := e.ready.len()
	e.mu.Unlock()
	for range n {
		e.mu.Lock()
		r, ok := e.next()
		e.mu.Unlock()
		if !ok {
			break
		}
		e.finish(e.step(ctx, r))
	}
	err = e.settle(ctx)
	leaving := e.leaving()
	e.mu.Lock()
	defer e.mu.Unlock()
	return err != nil || leaving || e.ready.len() > 0 || e.inboxes.reread > 0 || len(e.clockSearch.shards) > 0, err
}

// Now is the clock of the process: executors that share it agree with the engine on when an attempt may start.
func (e *Engine) Now() time.Time { return e.clock.Now() }

// WakeAt is when a pass has something to do if no message comes before.
func (e *Engine) WakeAt() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := e.rescanAt
	if next := e.timers.next(); !next.IsZero() && next.Before(at) {
		at = next
	}
	return at
}

// due says whether now is at or after *at, and sets the next time if so.
func due(now time.Time, at *time.Time, every time.Duration) bool {
	if now.Before(*at) {
		return false
	}
	*at = now.Add(every)
	return true
}

// queue is first in, first out.
type queue[T any] struct{ in, out []T }

func (q *queue[T]) len() int { return len(q.in) + len(q.out) }

func (q *queue[T]) push(v T) { q.in = append(q.in, v) }

func (q *queue[T]) pop() (v T, ok bool) {
	if len(q.out) == 0 {
		for _, v := range slices.Backward(q.in) {
			q.out = append(q.out, v)
		}
		clear(q.in)
		q.in = q.in[:0]
	}
	if len(q.out) == 0 {
		return v, false
	}
	last := len(q.out) - 1
	v = q.out[last]
	var zero T
	q.out[last] = zero
	q.out = q.out[:last]
	return v, true
}
