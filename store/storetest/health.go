package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

func (s *suite) services() []store.Service {
	s.Helper()
	services, err := s.store.Services(s.ctx)
	s.ok(err)
	return services
}

func theHealthOfServicesIsReadBackByName(s *suite) {
	s.equal(s.services(), []store.Service(nil))
	away := store.Service{Name: "b", AwaySince: at(1), Reason: "no space", WellAt: at(0), Probes: 2, ProbeAt: at(9)}
	well := store.Service{Name: "a", WellAt: at(3)}
	s.ok(s.store.PutService(s.ctx, away))
	s.ok(s.store.PutService(s.ctx, well))
	away.Revision, well.Revision = 1, 1
	s.equal(s.services(), []store.Service{well, away})
}

func aServiceIsWrittenByWhoReadItLast(s *suite) {
	first := store.Service{Name: "a", AwaySince: at(1), Reason: "first"}
	s.ok(s.store.PutService(s.ctx, first))
	s.ok(s.store.PutService(s.ctx, first)) // it may be a repetition
	s.is(s.store.PutService(s.ctx, store.Service{Name: "a", AwaySince: at(1), Reason: "another"}), aloft.ErrConflict)
	read := s.services()[0]
	next := read
	next.AwaySince, next.Reason, next.WellAt = time.Time{}, "", at(5)
	s.ok(s.store.PutService(s.ctx, next))
	s.is(s.store.PutService(s.ctx, read), aloft.ErrConflict)
	if got := s.services()[0]; got.Away() || got.Revision != 2 || !got.WellAt.Equal(at(5)) {
		s.Errorf("it is %+v", got)
	}
}

func ofManyWhoNoticeAnOutageOneWritesIt(s *suite) {
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			err := s.store.PutService(s.ctx, store.Service{Name: "a", AwaySince: at(i + 1), Reason: "away"})
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, aloft.ErrConflict):
				s.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		s.Errorf("%d wrote it, want 1", won.Load())
	}
}

func aChangeOfHealthWakesThoseWhoWait(s *suite) {
	wake, cancel := s.store.Subscribe(store.TopicHealth)
	defer cancel()
	s.ok(s.store.PutService(s.ctx, store.Service{Name: "a", WellAt: at(1)}))
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		s.Fatal("nobody was woken")
	}
}

func anExecutionSaysSinceWhenItWaits(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	step.Waiting, step.WaitingSince, step.DueAt = "waiting for the blob store", at(7), at(60)
	s.commit(step)
	got, _, err := Load(s.ctx, s.store, e.Key)
	s.ok(err)
	if got.Waiting != "waiting for the blob store" || !got.WaitingSince.Equal(at(7)) {
		s.Errorf("it waits for %q since %s", got.Waiting, got.WaitingSince)
	}
	s.commit(s.step(e))
	got, err = s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	if got.Waiting != "" || !got.WaitingSince.IsZero() {
		s.Errorf("it still waits for %q since %s", got.Waiting, got.WaitingSince)
	}
}
