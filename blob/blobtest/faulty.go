package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
)

// ErrInjected is wrapped, with aloft.ErrUnavailable, by every failure that Faulty makes up.
var ErrInjected = errors.New("injected failure")

// Fault is what happens to one call.
type Fault int

const (
	None   Fault = iota
	Before       // the call fails and nothing was done
	After        // the call is done and fails nevertheless: the caller cannot tell this from Before
)

// Call is one call to the store.
type Call struct {
	N   int    // from 1, over all methods
	Op  string // Put, Get, Stat, Check, List, Delete, Adopt, Private
	Key blob.Key
}

// Faulty is a store that fails as Plan says. It counts calls, so that a test can let a program fail at its first call, then at its
// second, and so on until the program ends without a failure. It is a blob.Local if the store inside is one; calling a method of
// Local is a panic otherwise.
type Faulty struct {
	blob.Store
	Plan func(Call) Fault // called one at a time; nil is no failure

	mu    sync.Mutex
	calls []Call
}

var _ blob.Local = (*Faulty)(nil)

// FailAt is a plan by which the nth call fails, and no other.
func FailAt(n int, f Fault) func(Call) Fault {
	return func(c Call) Fault {
		if c.N == n {
			return f
		}
		return None
	}
}

// Calls returns the calls made so far.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// decide counts a call and returns the error to return in place of the call (before), or after it.
func (f *Faulty) decide(op string, key blob.Key) (before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := Call{N: len(f.calls) + 1, Op: op, Key: key}
	f.calls = append(f.calls, c)
	if f.Plan == nil {
		return nil, nil
	}
	err := fmt.Errorf("%w: %w at call %d (%s %s)", aloft.ErrUnavailable, ErrInjected, c.N, op, key)
	switch f.Plan(c) {
	case Before:
		return err, nil
	case After:
		return nil, err
	}
	return nil, nil
}

func (f *Faulty) Put(ctx context.Context, key blob.Key, r io.Reader, o blob.PutOptions) (blob.Attributes, error) {
	before, after := f.decide("Put", key)
	if before != nil {
		return blob.Attributes{}, before
	}
	a, err := f.Store.Put(ctx, key, r, o)
	if err == nil && after != nil {
		return blob.Attributes{}, after
	}
	return a, err
}

// Get with a fault after it fails in the middle of reading.
func (f *Faulty) Get(ctx context.Context, key blob.Key, rng blob.Range) (io.ReadCloser, error) {
	before, after := f.decide("Get", key)
	if before != nil {
		return nil, before
	}
	r, err := f.Store.Get(ctx, key, rng)
	if err == nil && after != nil {
		return &breaking{r, after}, nil //nolint:nilerr // the fault comes with the reading
	}
	return r, err
}

// breaking is a reader that yields one byte and then fails.
type breaking struct {
	io.ReadCloser
	err error
}

func (b *breaking) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.ReadCloser.Read(p[:1])
	if n == 0 && err == nil {
		return 0, nil
	}
	return n, b.err
}

func (f *Faulty) Stat(ctx context.Context, key blob.Key) (blob.Attributes, error) {
	before, after := f.decide("Stat", key)
	if err := errors.Join(before, after); err != nil {
		return blob.Attributes{}, err
	}
	return f.Store.Stat(ctx, key)
}

func (f *Faulty) Check(ctx context.Context, key blob.Key) error {
	before, after := f.decide("Check", key)
	if err := errors.Join(before, after); err != nil {
		return err
	}
	return f.Store.Check(ctx, key)
}

// List with a fault after it ends with an error instead of its end.
func (f *Faulty) List(ctx context.Context, prefix blob.Key) iter.Seq2[blob.Entry, error] {
	before, after := f.decide("List", prefix)
	return func(yield func(blob.Entry, error) bool) {
		if before != nil {
			yield(blob.Entry{}, before)
			return
		}
		for e, err := range f.Store.List(ctx, prefix) {
			if !yield(e, err) || err != nil {
				return
			}
		}
		if after != nil {
			yield(blob.Entry{}, after)
		}
	}
}

func (f *Faulty) Delete(ctx context.Context, key blob.Key) error {
	before, after := f.decide("Delete", key)
	if before != nil {
		return before
	}
	if err := f.Store.Delete(ctx, key); err != nil {
		return err
	}
	return after
}

func (f *Faulty) Path(key blob.Key) string { return f.Store.(blob.Local).Path(key) }

func (f *Faulty) KeyOf(path string) (blob.Key, bool) { return f.Store.(blob.Local).KeyOf(path) }

func (f *Faulty) Adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	before, after := f.decide("Adopt", prefix)
	if before != nil {
		return nil, before
	}
	objects, err := f.Store.(blob.Local).Adopt(ctx, prefix)
	if err == nil && after != nil {
		return nil, after
	}
	return objects, err
}

func (f *Faulty) Private(ctx context.Context, key blob.Key, dst string) error {
	before, after := f.decide("Private", key)
	if before != nil {
		return before
	}
	if err := f.Store.(blob.Local).Private(ctx, key, dst); err != nil {
		return err
	}
	return after
}
