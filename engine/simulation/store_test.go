package simulation

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/blobtest"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
)

// fragileStore is the store as processes call it. A write can fail, be done while its caller is told that it failed, be done by
// halves or arrive late; a read can fail (through the hook of memstore). After each commit the invariants are checked.
type fragileStore struct {
	*memstore.Store
	world *world
}

// write makes a call that writes, with a mishap now and then.
func (s *fragileStore) write(op string, call func() error) (err error) {
	do := func() { s.world.withoutFaults(func() { err = call() }) }
	switch s.world.drawMishap(op, late) {
	case fails:
		return unavailable(op)
	case late:
		s.world.lateCalls = append(s.world.lateCalls, lateCall{op, func() { _ = call() }})
		return unavailable(op)
	case untold:
		do()
		return unavailable(op)
	}
	do()
	return err
}

// writeEach makes a call with a batch of n members. By its contract Commit does all of a batch or nothing: this store does
// worse, which shows that each member is safe by itself.
func (s *fragileStore) writeEach(op string, n int, call func(from, to int) []error) []error {
	do := func(from, to int) (errs []error) {
		s.world.withoutFaults(func() { errs = call(from, to) })
		return errs
	}
	allUnknown := func(n int) []error {
		errs := make([]error, n)
		for i := range errs {
			errs[i] = unavailable(op)
		}
		return errs
	}
	s.world.stall(op)
	switch s.world.drawMishap(op, late, halfDone) {
	case fails:
		return allUnknown(n)
	case untold:
		do(0, n)
		return allUnknown(n)
	case late:
		s.world.lateCalls = append(s.world.lateCalls, lateCall{op, func() { call(0, n) }})
		return allUnknown(n)
	case halfDone:
		k := s.world.random.IntN(n + 1)
		errs := do(0, k)
		if s.world.random.IntN(2) == 0 {
			return allUnknown(n)
		}
		return append(errs, allUnknown(n-k)...)
	}
	return do(0, n)
}

func (s *fragileStore) Commit(ctx context.Context, steps []*store.Step) []error {
	for _, step := range steps {
		if step.Change.EndsUnasked() && s.world.random.IntN(2) == 0 {
			s.world.terminate(s.world.planned(step.ID.Name)) // a client's request between the decision and its commit
		}
	}
	return s.writeEach("Commit", len(steps), func(from, to int) []error {
		results := s.Store.Commit(ctx, steps[from:to])
		for i, step := range steps[from:to] {
			s.world.committed(step, results[i])
		}
		return results
	})
}

func (s *fragileStore) Assign(ctx context.Context, executor, nonce string, attempts []store.AttemptKey, now time.Time) []error {
	return s.writeEach("Assign", len(attempts), func(from, to int) []error {
		return s.Store.Assign(ctx, executor, nonce, attempts[from:to], now)
	})
}

func (s *fragileStore) Report(ctx context.Context, executor string, reports []store.Report) []error {
	return s.writeEach("Report", len(reports), func(from, to int) []error {
		return s.Store.Report(ctx, executor, reports[from:to])
	})
}

func (s *fragileStore) CreateExecution(ctx context.Context, e *store.Execution, create *aloftv1.Inbox) error {
	return s.write("CreateExecution", func() error { return s.Store.CreateExecution(ctx, e, create) })
}

func (s *fragileStore) Append(ctx context.Context, id aloft.ExecutionID, message store.Message) error {
	return s.write("Append", func() error { return s.Store.Append(ctx, id, message) })
}

// AcquireShards counts leases by one clock for all engines, as a database that servers share does.
func (s *fragileStore) AcquireShards(ctx context.Context, owner string, _ time.Time, ttl time.Duration) (leases []store.Lease, err error) {
	now := s.world.firstWall.Add(s.world.elapsed)
	err = s.write("AcquireShards", func() (err error) {
		leases, err = s.Store.AcquireShards(ctx, owner, now, ttl)
		for _, l := range leases {
			s.world.epochs[l.Shard] = max(s.world.epochs[l.Shard], l.Epoch)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return leases, nil
}

func (s *fragileStore) Heartbeat(ctx context.Context, instance store.Instance) error {
	return s.write("Heartbeat", func() error { return s.Store.Heartbeat(ctx, instance) })
}

func (s *fragileStore) RemoveInstance(ctx context.Context, executor string) error {
	return s.write("RemoveInstance", func() error { return s.Store.RemoveInstance(ctx, executor) })
}

func (s *fragileStore) Adopt(ctx context.Context, from, to string) (n int, err error) {
	err = s.write("Adopt", func() (err error) {
		n, err = s.Store.Adopt(ctx, from, to)
		return err
	})
	return n, err
}

func (s *fragileStore) RemoveResults(ctx context.Context, ids []string, reason string, now time.Time) (n int, err error) {
	err = s.write("RemoveResults", func() (err error) {
		n, err = s.Store.RemoveResults(ctx, ids, reason, now)
		return err
	})
	return n, err
}

func (s *fragileStore) Reserve(ctx context.Context, r store.Reservation, now time.Time) (held store.Reservation, err error) {
	s.world.stall("Reserve")
	err = s.write("Reserve", func() (err error) {
		held, err = s.Store.Reserve(ctx, r, now)
		return err
	})
	return held, err
}

func (s *fragileStore) Release(ctx context.Context, id store.ResultID, owner string) error {
	return s.write("Release", func() error { return s.Store.Release(ctx, id, owner) })
}

// fragileBlobs is the blob store as processes call it.
type fragileBlobs struct {
	*blobtest.Memory
	world *world
}

func (b *fragileBlobs) Put(ctx context.Context, key blob.Key, r io.Reader, o blob.PutOptions) (blob.Attributes, error) {
	m := b.world.drawMishap("Put", unsynced)
	if m == fails {
		return blob.Attributes{}, unavailable("Put")
	}
	if m == unsynced {
		content, err := io.ReadAll(r)
		if err == nil && !b.Durable(key) {
			b.WriteInPlace(key, content)
		}
		return blob.Attributes{}, unavailable("Put")
	}
	a, err := b.Memory.Put(ctx, key, r, o)
	if err == nil {
		delete(b.world.damaged, key.URI())
	}
	if m == untold {
		return blob.Attributes{}, unavailable("Put")
	}
	return a, err
}

func (b *fragileBlobs) Get(ctx context.Context, key blob.Key, rng blob.Range) (io.ReadCloser, error) {
	r, err := b.Memory.Get(ctx, key, rng)
	switch b.world.drawMishap("Get") {
	case fails:
		return nil, unavailable("Get")
	case untold: // the content breaks off in the middle
		if err == nil {
			r = io.NopCloser(io.MultiReader(io.LimitReader(r, 1), brokenReader{}))
		}
	}
	return r, err
}

func (b *fragileBlobs) Check(ctx context.Context, key blob.Key) error {
	if b.world.drawMishap("Check") != goesWell {
		return unavailable("Check")
	}
	return b.Memory.Check(ctx, key)
}

func (b *fragileBlobs) List(ctx context.Context, prefix blob.Key) iter.Seq2[blob.Entry, error] {
	if b.world.drawMishap("List") != goesWell {
		return func(yield func(blob.Entry, error) bool) { yield(blob.Entry{}, unavailable("List")) }
	}
	return b.Memory.List(ctx, prefix)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, unavailable("Get") }

// Adopt makes durable what a task wrote.
func (b *fragileBlobs) Adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	switch b.world.drawMishap("Adopt objects") {
	case fails:
		return nil, unavailable("Adopt objects")
	case untold:
		_, _ = b.Memory.Adopt(ctx, prefix)
		return nil, unavailable("Adopt objects")
	}
	return b.Memory.Adopt(ctx, prefix)
}

// read returns a small object as text; empty: there is none.
func (b *fragileBlobs) read(ctx context.Context, key blob.Key) (string, error) {
	if _, err := b.Stat(ctx, key); err != nil {
		return "", nil //nolint:nilerr // memory has no other error
	}
	content, err := blob.ReadAll(ctx, b, key, 1<<10)
	return string(bytes.Clone(content)), err
}

func cmpKeys(a, b store.AttemptKey) int {
	return cmp.Or(cmp.Compare(a.Execution, b.Execution), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Token, b.Token))
}

func checkpointKey(id aloft.AttemptID, attempt uint32) blob.Key {
	return blob.Key(fmt.Sprintf("checkpoint/%s/%s/%d", id.Execution.Name, id.Node, attempt))
}
