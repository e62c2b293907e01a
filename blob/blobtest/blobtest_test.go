package blobtest_test

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/blobtest"
)

func TestMemoryMeetsTheContractOfAStore(t *testing.T) {
	t.Parallel()
	// Only as a blob.Store: tests of blob.Local would write to its paths, which do not exist.
	blobtest.Run(t, func(t *testing.T) blob.Store { return struct{ blob.Store }{blobtest.NewMemory()} })
}

func TestAFaultyStoreWithoutFaultsMeetsTheContract(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) blob.Store {
		return struct{ blob.Store }{&blobtest.Faulty{Store: blobtest.NewMemory()}}
	})
}

func TestMemoryForgetsWhatWasNotAdopted(t *testing.T) {
	t.Parallel()
	m := blobtest.NewMemory()
	m.WriteInPlace("raw/a/1", []byte("adopted"))
	if objects, err := m.Adopt(t.Context(), "raw/a"); err != nil || len(objects) != 1 {
		t.Fatalf("adopt: %v, %v", objects, err)
	}
	m.WriteInPlace("raw/a/2", []byte("too late"))
	if _, err := m.Stat(t.Context(), "raw/a/2"); err != nil || m.Durable("raw/a/2") {
		t.Errorf("before the crash: %v, durable %v; want it there and not durable", err, m.Durable("raw/a/2"))
	}
	m.Crash()
	if _, err := m.Stat(t.Context(), "raw/a/1"); err != nil {
		t.Errorf("the adopted file: %v", err)
	}
	if _, err := m.Stat(t.Context(), "raw/a/2"); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("the other file: got %v, want ErrNotFound", err)
	}
	a, err := m.Stat(t.Context(), "raw/a/1")
	if err != nil {
		t.Fatal(err)
	}
	m.Corrupt("raw/a/1")
	if err := blob.Verify(t.Context(), m, "raw/a/1", a.SHA256); !errors.Is(err, aloft.ErrConflict) {
		t.Errorf("corrupted: got %v, want ErrConflict", err)
	}
}

func TestMemoryKnowsWhatAFolderHeldWhenItWasAdopted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(*blobtest.Memory) error
		want   error
	}{
		"as it was":         {func(*blobtest.Memory) error { return nil }, nil},
		"a file is removed": {func(m *blobtest.Memory) error { return m.Delete(t.Context(), "raw/a/1") }, aloft.ErrConflict},
		"all are removed": {func(m *blobtest.Memory) error {
			return errors.Join(m.Delete(t.Context(), "raw/a/1"), m.Delete(t.Context(), "raw/a/2"))
		}, aloft.ErrConflict},
		"a file is added":   {func(m *blobtest.Memory) error { m.WriteInPlace("raw/a/3", nil); return nil }, aloft.ErrConflict},
		"a file is changed": {func(m *blobtest.Memory) error { m.Corrupt("raw/a/1"); return nil }, aloft.ErrConflict},
		"it is adopted anew": {func(m *blobtest.Memory) error {
			m.WriteInPlace("raw/a/3", nil)
			_, err := m.Adopt(t.Context(), "raw/a")
			return err
		}, nil},
	} {
		m := blobtest.NewMemory()
		m.WriteInPlace("raw/a/1", []byte("one"))
		m.WriteInPlace("raw/a/2", []byte("two"))
		if _, err := m.Adopt(t.Context(), "raw/a"); err != nil {
			t.Fatal(err)
		}
		if err := c.damage(m); err != nil {
			t.Fatal(err)
		}
		if err := m.Check(t.Context(), "raw/a"); !errors.Is(err, c.want) {
			t.Errorf("%s: check gives %v, want %v", name, err, c.want)
		}
		if err := m.Private(t.Context(), "raw/a", filepath.Join(t.TempDir(), "copy")); !errors.Is(err, c.want) {
			t.Errorf("%s: a copy gives %v, want %v", name, err, c.want)
		}
	}
}

func TestAFaultHappensBeforeOrAfterTheNamedCallOnly(t *testing.T) {
	t.Parallel()
	for fault, stored := range map[blobtest.Fault]bool{blobtest.Before: false, blobtest.After: true} {
		inside := blobtest.NewMemory()
		f := &blobtest.Faulty{Store: inside, Plan: blobtest.FailAt(2, fault)}
		if _, err := f.Put(t.Context(), "first", strings.NewReader("x"), blob.PutOptions{}); err != nil {
			t.Errorf("first call: %v", err)
		}
		if _, err := f.Put(t.Context(), "second", strings.NewReader("x"), blob.PutOptions{}); !errors.Is(err, blobtest.ErrInjected) || !errors.Is(err, aloft.ErrUnavailable) {
			t.Errorf("second call: got %v, want the injected failure", err)
		}
		if _, err := inside.Stat(t.Context(), "second"); (err == nil) != stored {
			t.Errorf("fault %d: %v, want stored %v", fault, err, stored)
		}
		if calls := f.Calls(); len(calls) != 2 || calls[1] != (blobtest.Call{N: 2, Op: "Put", Key: "second"}) {
			t.Errorf("calls %v", calls)
		}
	}
	f := &blobtest.Faulty{Store: blobtest.NewMemory(), Plan: blobtest.FailAt(2, blobtest.After)}
	f.Put(t.Context(), "k", strings.NewReader("content"), blob.PutOptions{})
	r, err := f.Get(t.Context(), "k", blob.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "c" || !errors.Is(err, blobtest.ErrInjected) {
		t.Errorf("reading: got %q, %v; want a failure in the middle", got, err)
	}
}
