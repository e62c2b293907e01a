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

// Catalog finds results that may be used again: catalog.Catalog. An error means that the catalog could not look.
type Catalog interface {
	// Ahead returns the results that the catalog has for several ids now, in their order; nil: it has none. A result must
	// pass Use before a node takes it.
	Ahead(ctx context.Context, ids []store.ResultID) ([]*store.Result, error)
	// Use checks that all objects are there, and unchanged, that a result refers to. If not, it says so (reason) and the
	// result is gone.
	Use(ctx context.Context, e *store.Result) (reason string, err error)
	// FindOrReserve returns a result that may be used. On a miss it asks for reservation r and returns the one that holds: r
	// itself, or that of another node for whose result r's node has to wait. reason says why a result that was there is gone.
	FindOrReserve(ctx context.Context, r store.Reservation) (e *store.Result, held store.Reservation, reason string, err error)
	// Lost says which object of a finished node's outputs is missing or was changed; empty: none.
	Lost(ctx context.Context, outputs *aloftv1.Literals) (problem string, err error)
}

// Literals keeps literal maps that are too large for a row: blob.Literals.
type Literals interface {
	// WriteLiterals returns once the object that a large map is written to is durable. ErrExhausted: readers of the map
	// would need too much memory.
	WriteLiterals(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error)
	ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error)
}

// Health is what the engine asks of package health.
type Health interface {
	// Failed notes that a service could not do its part, and returns what is known of the service then. first: this failure
	// made it away.
	Failed(ctx context.Context, service, reason string) (s store.Service, first bool)
	// Away returns the first of the services that is away.
	Away(services ...string) (s store.Service, away bool)
}

// literalsHealth marks errors of the literal store as failures of the blob service.
type literalsHealth struct{ Literals }

func (b literalsHealth) WriteLiterals(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error) {
	l, err := b.Literals.WriteLiterals(ctx, m)
	return l, aloft.Blame(aloft.ServiceBlob, err)
}

func (b literalsHealth) ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error) {
	m, err := b.Literals.ReadLiterals(ctx, ref)
	return m, aloft.Blame(aloft.ServiceBlob, err)
}

// Config of an engine. Store, Literals, Owner and Logger are required, zero values of the others take the default.
type Config struct {
	Store    Store
	Literals Literals
	Catalog  Catalog // nil: nothing is used again
	Logger   *slog.Logger

	// Owner names the engine in its leases. No two engines ever have the same owner. A server that knows that the engine
	// before it has ended (it holds the lock of the data folder) releases that engine's leases before it starts its own, which
	// goes on at once; any other engine waits until the leases have run out.
	Owner string

	// Policy has the limits of every execution and the rules for retries. An attempt whose task states no timeout ends
	// after Policy.Timeout, 48 h: every task ends.
	Policy machine.Policy

	// MaxRetries is how often in a row a step that could not be done is tried again before its execution is parked. 10, as
	// Flyte's max-workflow-retries, after which Flyte fails the execution.
	MaxRetries int

	// MaxOutage is for how long an execution waits for a service before it fails. 0: for ever.
	MaxOutage time.Duration

	// Health of the services; nil: parked executions are not woken when their service is back, each tries by itself.
	Health Health

	Clock     Clock         // NewClock(time.Now()); of the process: see clock.go
	LeaseTTL  time.Duration // 10 s; renewed each third of it
	Poll      time.Duration // 1 s; how often the engine reads the store without being woken
	Grace     time.Duration // 15 s; how long after an executor's heartbeat has expired its attempts are reported lost
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
	rowsPerCommit       = 8_000
	maxUncommittedRows  = 24_000   // of steps that are decided and not committed: workers pause above
	maxUncommittedBytes = 64 << 20 // likewise
	signatureCacheBytes = 16 << 20 // of the parts of cache keys that do not depend on inputs
)

// Engine moves the executions of the shards it holds. New makes it; call Run or Pass, never both.
type Engine struct {
	config   Config
	store    Store
	literals Literals
	clock    Clock
	logger   *slog.Logger

	graphs     *lru.Cache[aloft.Key, *machine.Graph]      // by workflow
	values     *lru.Cache[string, *core.LiteralMap]       // literal maps by digest
	signatures *lru.Cache[*core.Node, *catalog.Signature] // by node template
	heartbeats map[string]heartbeat                       // the last one of each executor instance; used only by Reap
	reapedAt   time.Time                                  // when Reap last read the heartbeats; likewise
	nonce      string                                     // begins the commit ids of this process

	mu          sync.Mutex
	workable    *sync.Cond // of mu, for workers: a run is ready, there is room for decided steps, or the engine stops
	committable *sync.Cond // of mu, for the committer: a step is decided, or the engine stops
	stopping    bool
	leases      leases
	unrenewed   time.Time // when the oldest renewal of leases began since which none has succeeded; zero: the last one succeeded
	runs        map[store.Key]*run
	ready       queue[*run]
	timers      timers
	inboxes     inboxes
	clockSearch fastClockSearch
	parked      map[*run]struct{} // runs that wait for a service that is away

	memory           memory
	uncommitted      queue[*decidedStep] // those that are in no batch yet
	unsettled        []*decidedStep      // the batch of the present commit: it stays as long as its outcome is unknown
	uncommittedRows  int                 // of both
	uncommittedBytes int64               // of both, about
	commits          int64               // how many commit ids were made
	renewAt          time.Time           // when Pass renews the leases
	reapAt           time.Time           // when Pass reaps
	rescanAt         time.Time           // when the collector reads all inboxes from the beginning
	collectorWake    chan struct{}       // tells the collector that the soonest timer or the room for messages changed
}

// New makes an engine that has no shard yet.
func New(config Config) *Engine {
	config = config.withDefaults()
	e := &Engine{
		config:        config,
		store:         config.Store,
		literals:      literalsHealth{config.Literals},
		clock:         config.Clock,
		logger:        config.Logger,
		graphs:        lru.New[aloft.Key, *machine.Graph](config.CacheGraphs),
		values:        lru.New[string, *core.LiteralMap](config.CacheLiterals),
		signatures:    lru.New[*core.Node, *catalog.Signature](signatureCacheBytes),
		nonce:         rand.Text(),
		runs:          make(map[store.Key]*run),
		parked:        make(map[*run]struct{}),
		inboxes:       newInboxes(),
		memory:        memory{limit: config.CacheRuns},
		collectorWake: make(chan struct{}, 1),
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

	// ctx has ended, and the shards are still to be given back.
	release, done := context.WithTimeout(context.WithoutCancel(ctx), e.config.LeaseTTL)
	defer done()
	if err := e.store.ReleaseShards(release, e.config.Owner); err != nil {
		e.logger.Warn("shards were not given back: their leases run out by themselves", "error", err)
	}
	return nil
}

// Pass does once, on the caller's goroutine, all that is to be done now: it renews leases, collects messages and timers,
// steps each ready execution once and commits the steps. more: another pass would have something to do at once. An error
// means that the store could not do its part: the next pass goes on where this one stopped.
func (e *Engine) Pass(ctx context.Context) (more bool, err error) {
	now := e.clock.Now()
	if intervalOver(now, &e.renewAt, e.config.LeaseTTL/3) {
		if err := e.renew(ctx); err != nil {
			e.renewAt = time.Time{}
			return true, err
		}
		if e.hasSurplus() { // steps of surplus shards are committed by the end of this pass: the next one gives the shards back
			e.renewAt = time.Time{}
		}
	}
	if intervalOver(now, &e.reapAt, e.config.Grace/3) {
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
		r, ok := e.nextReady()
		e.mu.Unlock()
		if !ok {
			break
		}
		e.submit(e.step(ctx, r))
	}
	err = e.settle(ctx)
	leaving := e.hasSurplus()
	e.mu.Lock()
	defer e.mu.Unlock()
	return err != nil || leaving || e.ready.len() > 0 || e.inboxes.reread > 0 || len(e.clockSearch.shards) > 0, err
}

// Now is the clock of the process: executors that share it agree with the engine on when an attempt may start.
func (e *Engine) Now() time.Time { return e.clock.Now() }

// WakeAt is when the next pass has something to do if no message comes before.
func (e *Engine) WakeAt() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := e.rescanAt
	if next := e.timers.next(); !next.IsZero() && next.Before(at) {
		at = next
	}
	return at
}

// intervalOver says whether the interval that ends at *at is over. If so, the next one begins now.
func intervalOver(now time.Time, at *time.Time, every time.Duration) bool {
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
