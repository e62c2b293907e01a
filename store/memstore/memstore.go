// Package memstore is the store in memory, for the simulator and for tests: after launch and before engine, exactly
// where store/sqlstore stands, but its content is lost with the process.
//
// It follows the contract of package store to the letter (both pass store/storetest) and adds two things: it is
// deterministic, so that a seed replays a simulation, and a fault hook makes any call fail before or after it did its
// work. It relies on nothing and fails only when the hook says so. Lists know pages but no filters and no order but that of
// creation: the simulator reads all records.
package memstore

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/store"
)

// Store keeps all records in maps under one lock. New makes one.
type Store struct {
	store.Hub
	// Faults is asked before each call with the method's name. Set it before use.
	Faults store.Faults

	mu         sync.Mutex
	executions []*execution // by key, from 1
	byID       map[aloft.ExecutionID]*execution
	inbox      sortedList[inboxRow]
	lastInbox  int64
	due        sortedList[dueRow]
	unassigned sortedList[*attempt] // attempts that Waiting returns, also before their NotBefore
	lastTry    int64
	assigned   map[string]*sortedList[*attempt]
	leases     [store.Shards]store.Lease
	engines    map[string]time.Time // until when they are present, by their owner names
	instances  map[string]store.Instance
	services   map[string]store.Service

	results        map[string]*store.Result // by id
	resultsInOrder []*store.Result          // the same, in order of creation
	tags           map[store.ResultID]*store.Result
	datasets       []*store.Dataset
	reservations   map[store.ResultID]store.Reservation
	waiters        map[store.ResultID][]store.Key

	tasks       map[aloft.Key]*store.Task
	workflows   map[aloft.Key]*store.Workflow
	launchPlans map[aloft.Key]*store.LaunchPlan
	projects    map[string]*admin.Project
	registered  []aloft.Key                              // in order of registration
	metadata    map[aloft.Key]*admin.NamedEntityMetadata // of names, without a version
}

var _ store.Store = (*Store)(nil)

// New makes an empty store that has the project flytesnacks.
func New() *Store {
	s := &Store{
		byID:       make(map[aloft.ExecutionID]*execution),
		inbox:      sortedList[inboxRow]{func(a, b inboxRow) int { return cmp.Compare(a.seq, b.seq) }, nil},
		due:        sortedList[dueRow]{func(a, b dueRow) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.key, b.key)) }, nil},
		unassigned: byCreation(),
		assigned:   make(map[string]*sortedList[*attempt]),
		instances:  make(map[string]store.Instance),
		services:   make(map[string]store.Service),
		engines:    make(map[string]time.Time),

		results:      make(map[string]*store.Result),
		tags:         make(map[store.ResultID]*store.Result),
		reservations: make(map[store.ResultID]store.Reservation),
		waiters:      make(map[store.ResultID][]store.Key),
		tasks:        make(map[aloft.Key]*store.Task),
		workflows:    make(map[aloft.Key]*store.Workflow),
		launchPlans:  make(map[aloft.Key]*store.LaunchPlan),
		metadata:     make(map[aloft.Key]*admin.NamedEntityMetadata),
		projects:     map[string]*admin.Project{"flytesnacks": {Id: "flytesnacks", Name: "flytesnacks"}},
	}
	for shard := range s.leases {
		s.leases[shard].Shard = shard
	}
	return s
}

// Close does nothing: there is nothing to give back.
func (s *Store) Close() error { return nil }

// do runs a call under the lock and the faults. It wakes subscribers after it has released the lock, also when a fault makes
// the outcome unknown to the caller: the write was done.
func (s *Store) do(op string, call func() ([]store.Topic, error)) error {
	return s.Faults.Do(op, func() error {
		s.mu.Lock()
		topics, err := call()
		s.mu.Unlock()
		s.Wake(topics...)
		return err
	})
}

func (s *Store) doEach(op string, n int, call func(first int) ([]store.Topic, []error)) []error {
	return s.Faults.DoEach(op, n, func(first int) []error {
		s.mu.Lock()
		topics, errs := call(first)
		s.mu.Unlock()
		s.Wake(topics...)
		return errs
	})
}

// execution is the record of one execution with all that belongs to it.
type execution struct {
	rec      store.Execution
	ended    bool
	dueAt    time.Time
	journal  []journalRow
	dedup    map[string]int64 // sequences of unread inbox rows, by deduplication key
	nodes    map[aloft.NodeID]*store.Node
	order    []aloft.NodeID
	attempts map[attemptName]*attempt
	tries    []*attempt // in order of creation
}

type attemptName struct {
	node    aloft.NodeID
	attempt uint32
}

type attempt struct {
	rec    store.Attempt
	id     int64 // order of creation
	listed bool  // in Store.unassigned
}

// journalRow keeps the entry as bytes: reading it decodes the same message as reading it from a disk.
type journalRow struct {
	commitID string
	entry    []byte
}

type inboxRow struct {
	seq   int64
	exec  *execution
	dedup string
	inbox *aloftv1.Inbox

	damaged bool // it reads as one that cannot be understood
}

type dueRow struct {
	at  time.Time
	key store.Key
}

func (s *Store) find(key store.Key) *execution {
	if key < 1 || int(key) > len(s.executions) {
		return nil
	}
	return s.executions[key-1]
}

// sortedList is a sorted slice: small, and in the same order in each run.
type sortedList[T any] struct {
	compare func(a, b T) int
	rows    []T
}

func byCreation() sortedList[*attempt] {
	return sortedList[*attempt]{func(a, b *attempt) int { return cmp.Compare(a.id, b.id) }, nil}
}

func (o *sortedList[T]) add(row T) {
	i, found := slices.BinarySearchFunc(o.rows, row, o.compare)
	if !found {
		o.rows = slices.Insert(o.rows, i, row)
	}
}

func (o *sortedList[T]) remove(row T) {
	i, found := slices.BinarySearchFunc(o.rows, row, o.compare)
	switch {
	case !found:
	case i == 0: // most rows are removed from the front, where moving all other rows would be the whole cost
		clear(o.rows[:1])
		o.rows = o.rows[1:]
	default:
		o.rows = slices.Delete(o.rows, i, i+1)
	}
}

func clone[M proto.Message](m M) M { return proto.CloneOf(m) }

func cloneAll[M proto.Message](ms []M) []M {
	if ms == nil {
		return nil
	}
	out := make([]M, len(ms))
	for i, m := range ms {
		out[i] = proto.CloneOf(m)
	}
	return out
}

func cloneExecution(e *store.Execution, whole bool) *store.Execution {
	c := *e
	c.Spec, c.Workflow, c.Task, c.Error = clone(e.Spec), clone(e.Workflow), clone(e.Task), clone(e.Error)
	c.Notifications = cloneAll(e.Notifications)
	c.Inputs, c.UserInputs, c.Outputs = nil, nil, nil
	if whole {
		c.Inputs, c.UserInputs, c.Outputs = clone(e.Inputs), clone(e.UserInputs), clone(e.Outputs)
	}
	return &c
}

func cloneNode(n *store.Node, whole bool) *store.Node {
	c := *n
	c.Error, c.Target, c.Metadata, c.Cache = clone(n.Error), clone(n.Target), clone(n.Metadata), clone(n.Cache)
	c.Inputs, c.Outputs = nil, nil
	if whole {
		c.Inputs, c.Outputs = clone(n.Inputs), clone(n.Outputs)
	}
	return &c
}

func cloneAttempt(a *store.Attempt, whole bool) *store.Attempt {
	c := *a
	c.Spec, c.Error, c.Outputs, c.Usage = clone(a.Spec), clone(a.Error), clone(a.Outputs), clone(a.Usage)
	c.Objects = nil
	if whole {
		c.Objects = cloneAll(a.Objects)
	}
	return &c
}

// page cuts one page out of a list.
func page[T any](rows []T, q store.Query) []T {
	rows = rows[min(max(q.Offset, 0), len(rows)):]
	if q.Limit > 0 {
		rows = rows[:min(q.Limit, len(rows))]
	}
	return rows
}

func matchesName(q store.Query, project, domain, name string) bool {
	return (q.Project == "" || q.Project == project) && (q.Domain == "" || q.Domain == domain) && (q.Name == "" || q.Name == name)
}

// SetExecutionState archives an execution or brings it back.
func (s *Store) SetExecutionState(_ context.Context, id aloft.ExecutionID, state admin.ExecutionState, principal string) error {
	return s.do("SetExecutionState", func() ([]store.Topic, error) {
		e := s.byID[id]
		if e == nil {
			return nil, missingExecution(id)
		}
		e.rec.State, e.rec.StatePrincipal = state, principal
		e.rec.StateChangedAt = e.rec.UpdatedAt // there is no clock here: deterministic, and not before the last change
		return []store.Topic{store.TopicExecution(id)}, nil
	})
}

// Counts are of the whole store.
func (s *Store) Counts(context.Context) (counts store.Counts, err error) {
	err = s.do("Counts", func() ([]store.Topic, error) {
		counts = store.Counts{Executions: int64(len(s.executions))}
		for _, e := range s.executions {
			if !e.ended {
				counts.Running++
				counts.Waits += int64(e.rec.Waits)
				counts.Waiting += int64(min(e.rec.Waits, 1))
			}
		}
		return nil, nil
	})
	return counts, err
}

// Waits returns executions that wait for something by name.
func (s *Store) Waits(_ context.Context, limit int) (waits []store.Wait, err error) {
	err = s.do("Waits", func() ([]store.Topic, error) {
		waits = nil
		for _, e := range s.executions {
			if limit > 0 && len(waits) == limit {
				break
			}
			if e.ended || e.rec.Waits == 0 {
				continue
			}
			w := store.Wait{Execution: e.rec.ID, Waits: e.rec.Waits, Reason: e.rec.Waiting}
			for _, id := range e.order {
				if n := e.nodes[id]; w.Reason == "" && !aloft.Terminal(n.Phase) {
					w.Reason = n.Waiting
				}
			}
			waits = append(waits, w)
		}
		return nil, nil
	})
	return waits, err
}
