package api

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/store"
)

// flytekit waits for an execution by asking, sleeping 30 s, and asking again, so a run of a second takes it half a minute.
// hold answers such a question when the execution ends instead of at once. It must not slow other clients, so all of this
// has to be true:
//
//   - The caller is Python's gRPC, and its call has a deadline above 50 s: flytekit gives one of 60 s to what `wait` and
//     `sync` ask, and none to the plain question after a create, whose answer prints the link to the console.
//   - The connection follows this one running execution. A client that started or asked for two that run wants to know of
//     both, and is answered at once, even in the middle of a held call.
//   - The connection created the execution, or asks for the second time: a first `fetch_execution` in a notebook wants to
//     see how things stand.
//
// No answer is held for longer than maxHold, below the client's deadline and what proxies between us endure.
const (
	minHoldDeadline = 50 * time.Second
	maxHold         = 25 * time.Second
	holdMargin      = 10 * time.Second // the rest of the client's deadline is for the calls that follow under it
	followed        = 2 * time.Minute  // a client that has not asked for so long (flytekit: 55 s) follows no more
	maxFollowed     = 8                // more than enough to know that it is not one
)

// hold reads an execution, now or when it has ended.
func (s *adminService) hold(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error) {
	e, err := s.execution(ctx, id)
	if err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	if c.connection == nil || !strings.HasPrefix(c.userAgent, "grpc-python") {
		return e, nil
	}
	if aloft.Terminal(e.Phase) {
		c.connection.ended(id)
		return e, nil
	}
	deadline, ok := ctx.Deadline()
	waits := ok && time.Until(deadline) > minHoldDeadline
	many, eager := c.connection.follow(id, waits, s.Now(), func(other aloft.ExecutionID) bool { return s.runs(ctx, other) })
	if !waits || !eager {
		return e, nil
	}

	wake, cancel := s.Store.Subscribe(store.TopicExecution(id))
	defer cancel()
	timer := time.NewTimer(min(maxHold, time.Until(deadline)-holdMargin))
	defer timer.Stop()
	s.held.Add(1)
	defer s.held.Add(-1)
	for {
		// Read after subscribing: a commit in between would not wake this call.
		if e, err = s.again(ctx, id); err != nil {
			return nil, err
		}
		if aloft.Terminal(e.Phase) {
			c.connection.ended(id)
			return e, nil
		}
		select {
		case <-wake:
		case <-many:
			return e, nil
		case <-timer.C:
			return e, nil
		case <-s.closing:
			return e, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// again reads an execution that was read before. Of what a call has read it keeps the last, for which the first took room.
func (s *adminService) again(ctx context.Context, id aloft.ExecutionID) (e *store.Execution, err error) {
	defer room.Part(ctx)()
	err = room.Again(ctx, func() error {
		e, err = s.execution(ctx, id)
		return err
	})
	return e, err
}

// Held is how many calls are held now.
func (a *API) Held() int64 { return a.held.Load() }

// runs says whether an execution has not ended; one that cannot be read counts as running: then no call is held.
func (s *adminService) runs(ctx context.Context, id aloft.ExecutionID) bool {
	e, err := s.Store.GetExecution(ctx, id)
	return err != nil || !aloft.Terminal(e.Phase)
}

type connectionKey struct{}

// connection is what we remember of a client's connection for as long as it lives: the running executions it follows.
type connection struct {
	mu      sync.Mutex
	follows map[aloft.ExecutionID]*following
	many    chan struct{} // closed when they become two; nil: no call waits for that
}

type following struct {
	asked time.Time
	waits bool // it was created on this connection, or asked for with a deadline before: the next such call is held
}

// created notes an execution that was created on the connection.
func (c *connection) created(id aloft.ExecutionID) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(id, time.Now()).waits = true
}

// ended forgets an execution.
func (c *connection) ended(id aloft.ExecutionID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.follows, id)
}

// follow notes that the connection asks for a running execution. The call is to be held if eager, until many is closed.
func (c *connection) follow(id aloft.ExecutionID, waits bool, now time.Time, runs func(aloft.ExecutionID) bool) (many <-chan struct{}, eager bool) {
	c.mu.Lock()
	f := c.note(id, now)
	eager = f.waits
	f.waits = f.waits || waits
	var others []aloft.ExecutionID
	for other, f := range c.follows {
		if now.Sub(f.asked) > followed {
			delete(c.follows, other)
		} else if other != id {
			others = append(others, other)
		}
	}
	if c.many == nil {
		c.many = make(chan struct{})
	}
	many = c.many
	c.mu.Unlock()

	// Others may have ended since they were asked for. Asking the store takes time, so not under the lock.
	for _, other := range others {
		if eager && runs(other) {
			return many, false
		}
		if eager {
			c.ended(other)
		}
	}
	return many, eager
}

// note must be called with the lock held. A second execution releases the calls that are held.
func (c *connection) note(id aloft.ExecutionID, now time.Time) *following {
	if f, ok := c.follows[id]; ok {
		f.asked = now
		return f
	}
	if c.follows == nil {
		c.follows = map[aloft.ExecutionID]*following{}
	}
	if len(c.follows) >= maxFollowed {
		for other := range c.follows { // any: more than one remain
			delete(c.follows, other)
			break
		}
	}
	f := &following{asked: now}
	c.follows[id] = f
	if c.many != nil {
		close(c.many)
		c.many = nil
	}
	return f
}
