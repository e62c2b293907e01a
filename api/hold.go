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

// flytekit waits for an execution by calling GetExecution, sleeping 30 s, and calling again, so that a user waits half a minute
// for an execution of a second. A held call is a call of GetExecution that is answered when the execution has ended, instead of
// at once. Holding must not slow other uses of the call, so a call is held only if all of this is true:
//
//   - The client is Python's gRPC, and the call has a deadline above minHoldDeadline: flytekit gives one of 60 s to the calls of
//     `wait` and `sync`, and none to the call after a create, whose answer prints the link to the console.
//   - The connection follows one running execution alone. A client that has created or read two running executions wants to know
//     of both, so it is answered at once, and a held call on its connection is answered when the second one appears.
//   - The connection created the execution, or reads it for the second time: a first `fetch_execution` in a notebook wants to
//     see the state as it is.
//
// A held call ends when the execution has ended, when the connection follows a second one, after maxHold (which is below the
// client's deadline and the patience of proxies), and when the server shuts down (API.Close). It always answers with the record as
// it is then, so a client cannot tell a held call from a slow one. If the wake-up is lost, the call ends after maxHold.
const (
	minHoldDeadline = 50 * time.Second
	maxHold         = 25 * time.Second
	holdMargin      = 10 * time.Second // what is left of the client's deadline after a hold: flytekit makes more calls under it
	followTimeout   = 2 * time.Minute  // a connection follows an execution until it has not read it for so long (flytekit: every 55 s)
	maxFollowed     = 8                // executions that are remembered of a connection; two are enough to know that it is not one
)

// hold reads an execution for GetExecution: at once, or, if the call is to be held, when the execution has ended.
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
	becameShared, mayHold := c.connection.follow(id, waits, s.Now(), func(other aloft.ExecutionID) bool { return s.runs(ctx, other) })
	if !waits || !mayHold {
		return e, nil
	}

	wake, cancel := s.Store.Subscribe(store.TopicExecution(id))
	defer cancel()
	timer := time.NewTimer(min(maxHold, time.Until(deadline)-holdMargin))
	defer timer.Stop()
	s.held.Add(1)
	defer s.held.Add(-1)
	for {
		// Read after subscribing: a commit between a read and the subscription would not wake this call.
		if e, err = s.readAgain(ctx, id); err != nil {
			return nil, err
		}
		if aloft.Terminal(e.Phase) {
			c.connection.ended(id)
			return e, nil
		}
		select {
		case <-wake:
		case <-becameShared:
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

// readAgain reads an execution that this call has read before. The call keeps only the last record, and the first read has taken
// the room for it: so what this read takes is given back at once.
func (s *adminService) readAgain(ctx context.Context, id aloft.ExecutionID) (e *store.Execution, err error) {
	defer room.Part(ctx)()
	err = room.Again(ctx, func() error {
		e, err = s.execution(ctx, id)
		return err
	})
	return e, err
}

// Held is the number of calls that are held now.
func (a *API) Held() int64 { return a.held.Load() }

// runs says whether an execution has not ended. An execution that cannot be read counts as running, so that no call is held.
func (s *adminService) runs(ctx context.Context, id aloft.ExecutionID) bool {
	e, err := s.Store.GetExecution(ctx, id)
	return err != nil || !aloft.Terminal(e.Phase)
}

type connectionKey struct{}

// connection is a client's connection: it remembers the running executions that the client follows, at most maxFollowed.
type connection struct {
	mu           sync.Mutex
	follows      map[aloft.ExecutionID]*followedExecution
	becameShared chan struct{} // closed when a further execution is followed: held calls are answered; nil: no call has asked for it
}

// followedExecution is a running execution that was created or read on a connection.
type followedExecution struct {
	asked time.Time // when it was last created or read
	waits bool      // it was created on this connection, or read with a deadline: the next call with a deadline may be held
}

// created notes an execution that was created on the connection; nil does nothing.
func (c *connection) created(id aloft.ExecutionID) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(id, time.Now()).waits = true
}

// ended forgets an execution that has ended.
func (c *connection) ended(id aloft.ExecutionID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.follows, id)
}

// follow notes that a call reads a running execution; waits: with a deadline that allows a hold. The call may be held, until
// becameShared is closed, if mayHold.
func (c *connection) follow(id aloft.ExecutionID, waits bool, now time.Time, runs func(aloft.ExecutionID) bool) (becameShared <-chan struct{}, mayHold bool) {
	c.mu.Lock()
	f := c.note(id, now)
	mayHold = f.waits
	f.waits = f.waits || waits
	var others []aloft.ExecutionID
	for other, f := range c.follows {
		if now.Sub(f.asked) > followTimeout {
			delete(c.follows, other)
		} else if other != id {
			others = append(others, other)
		}
	}
	if c.becameShared == nil {
		c.becameShared = make(chan struct{})
	}
	becameShared = c.becameShared
	c.mu.Unlock()

	// The other executions may have ended since they were read. The store is asked without the lock, because that takes time.
	for _, other := range others {
		if mayHold && runs(other) {
			return becameShared, false
		}
		if mayHold {
			c.ended(other)
		}
	}
	return becameShared, mayHold
}

// note remembers an execution. If it is a new one, held calls of the connection are answered. The caller holds mu.
func (c *connection) note(id aloft.ExecutionID, now time.Time) *followedExecution {
	if f, ok := c.follows[id]; ok {
		f.asked = now
		return f
	}
	if c.follows == nil {
		c.follows = map[aloft.ExecutionID]*followedExecution{}
	}
	if len(c.follows) >= maxFollowed {
		for other := range c.follows { // whichever comes first: more than one remain, which is all that counts
			delete(c.follows, other)
			break
		}
	}
	f := &followedExecution{asked: now}
	c.follows[id] = f
	if c.becameShared != nil {
		close(c.becameShared)
		c.becameShared = nil
	}
	return f
}
