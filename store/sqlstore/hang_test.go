package sqlstore

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// openIn opens a store in a folder, in the bubble of the test.
func openIn(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: filepath.Join(dir, "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func hung(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(err.Error(), "has not answered for") {
		t.Errorf("%s: %v", what, err)
	}
}

func TestReadsReturnWhileTheDiskHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openIn(t, dir)
		defer closeStore(t, s)
		thaw, handed := make(chan struct{}), 0
		var all sync.WaitGroup
		stuck := context.WithValue(t.Context(), observerKey{}, func(string, []any) { <-thaw })
		for range 3 * readers { // more reads than there are connections
			all.Go(func() {
				err := s.read(stuck, true, "SELECT COUNT(*) FROM services", nil, func(scan) error { handed++; return nil })
				hung(t, "a read", err)
			})
		}
		all.Wait()
		hung(t, "the probe", s.Probe(stuck))
		began := time.Now()
		_, err := s.Services(stuck)
		hung(t, "a read when it is known", err)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a read when it is known takes %s", took)
		}
		close(thaw)
		synctest.Wait()
		if err := s.Probe(t.Context()); err != nil {
			t.Errorf("the disk answers again and the probe says %v", err)
		}
		if _, err := s.Services(t.Context()); err != nil {
			t.Error(err)
		}
		if handed != 0 {
			t.Errorf("%d rows were handed to callers that had gone", handed)
		}
	})
}

func TestWritesReturnWhileTheDiskHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openIn(t, dir)
		defer closeStore(t, s)
		thaw := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			hung(t, "the write that hangs", s.write(context.Background(), 1, func(*tx) error { <-thaw; return nil }))
		})
		synctest.Wait() // it is under way
		service := store.Service{Name: "a service", WellAt: time.Unix(1, 0).UTC()}
		for range 5 { // jobs that are queued behind it
			all.Go(func() { hung(t, "a write behind it", s.PutService(context.Background(), service)) })
		}
		all.Wait()
		began := time.Now()
		hung(t, "a write when it is known", s.PutService(context.Background(), service))
		if took := time.Since(began); took > 0 {
			t.Errorf("a write when it is known takes %s", took)
		}
		hung(t, "the probe", s.Probe(t.Context()))
		close(thaw)
		synctest.Wait()
		if err := s.Probe(t.Context()); err != nil {
			t.Errorf("the disk answers again and the probe says %v", err)
		}
		if err := s.PutService(t.Context(), service); err != nil {
			t.Errorf("the disk answers again: %v", err)
		}
		if services, err := s.Services(t.Context()); err != nil || len(services) != 1 || services[0].Revision != 1 {
			t.Errorf("the services are %+v, %v", services, err)
		}
	})
}

func TestAStoreOnADiskThatHangsIsClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, thaw := openIn(t, dir), make(chan struct{})
		hung(t, "a write", s.write(context.Background(), 1, func(*tx) error { <-thaw; return nil }))
		hung(t, "its end", s.Close())
		close(thaw)
		<-s.writer.stopped
	})
}

func TestTheProbeTellsWhatTheLastWriteMet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openIn(t, dir)
		defer closeStore(t, s)
		if err := s.write(t.Context(), 1, func(*tx) error { return errors.New("the disk is on fire") }); !errors.Is(err, aloft.ErrUnavailable) {
			t.Fatal(err)
		}
		if err := s.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "the disk is on fire") {
			t.Errorf("the probe says %v", err)
		}
		if err := s.write(t.Context(), 1, func(*tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := s.Probe(t.Context()); err != nil {
			t.Errorf("it writes again and the probe says %v", err)
		}
	})
}
