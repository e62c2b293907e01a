package health

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestPausesDoubleUpToALimitAndLeaveTheirPartToChance(t *testing.T) {
	t.Parallel()
	p := Pauses{First: time.Second, Longest: time.Minute, Jitter: 0.5}
	for _, c := range []struct {
		probe  int
		chance float64
		want   time.Duration
	}{
		{0, 0, time.Second}, {1, 0, 2 * time.Second}, {5, 0, 32 * time.Second}, {6, 0, time.Minute}, {1000, 0, time.Minute},
		{0, 1, 500 * time.Millisecond}, {6, 0.5, 45 * time.Second},
	} {
		if got := p.pause(c.probe, c.chance); got != c.want {
			t.Errorf("pause %d at chance %v: %s, want %s", c.probe, c.chance, got, c.want)
		}
	}
}

func TestAServiceIsAwayFromItsFirstFailureToTheProbeThatWorks(t *testing.T) {
	t.Parallel()
	well := store.Service{Name: "s", WellAt: noon.Add(-time.Hour), Revision: 4}
	away, changed := markAway(well, "no space", noon, time.Second)
	if want := (store.Service{Name: "s", AwaySince: noon, Reason: "no space", WellAt: well.WellAt, ProbeAt: noon.Add(time.Second), Revision: 4}); !changed || away != want {
		t.Fatalf("it is %+v, want %+v", away, want)
	}
	if again, changed := markAway(away, "another", noon.Add(time.Minute), time.Second); changed || again != away {
		t.Errorf("a second failure changed it to %+v", again)
	}
	if probeDue(away, noon) || !probeDue(away, noon.Add(time.Second)) || probeDue(well, noon.Add(time.Hour)) {
		t.Error("it is asked at another time than said, or while it is well")
	}
	half := beginProbe(away, noon.Add(time.Second), 2*time.Second)
	if half.Probes != 1 || !half.ProbeAt.Equal(noon.Add(3*time.Second)) || probeDue(half, noon.Add(2*time.Second)) {
		t.Errorf("while it is asked it is %+v", half)
	}
	still := endProbe(half, "still no space", noon.Add(time.Second))
	if !still.AwaySince.Equal(noon) || still.Reason != "still no space" || !still.ProbeAt.Equal(half.ProbeAt) {
		t.Errorf("after a probe that failed it is %+v", still)
	}
	back := endProbe(half, "", noon.Add(2*time.Second))
	if want := (store.Service{Name: "s", WellAt: noon.Add(2 * time.Second), Revision: 4}); back != want {
		t.Errorf("after a probe that worked it is %+v, want %+v", back, want)
	}
}

// outage is a service that works or not.
type outage struct {
	mu    sync.Mutex
	err   error
	asked atomic.Int32
}

func (o *outage) set(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

func (o *outage) probe(context.Context) error {
	o.asked.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func monitor(s Store, probes map[string]Probe) *Monitor {
	return New(Config{Store: s, Logger: slog.New(slog.DiscardHandler), Probes: probes})
}

func TestOfAllWhoNoticeAnOutageOneIsCharged(t *testing.T) {
	t.Parallel()
	s, o := memstore.New(), &outage{err: errors.New("no space")}
	probes := map[string]Probe{"blob": o.probe}
	monitors := []*Monitor{monitor(s, probes), monitor(s, probes)}
	var first, away atomic.Int32
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			known, counts := monitors[i%2].Failed(t.Context(), "blob", "no space")
			if counts {
				first.Add(1)
			}
			if known.Away() {
				away.Add(1)
			}
		})
	}
	all.Wait()
	if first.Load() != 1 || away.Load() != 40 {
		t.Errorf("%d failures count and %d fell into an outage, want 1 and 40", first.Load(), away.Load())
	}
	if n := o.asked.Load(); n > 2 {
		t.Errorf("the service was asked %d times for 40 failures on two servers", n)
	}
}

func TestAServiceThatAnswersIsNotBlamedForAFailure(t *testing.T) {
	t.Parallel()
	s, o := memstore.New(), &outage{}
	m := monitor(s, map[string]Probe{"blob": o.probe})
	if known, first := m.Failed(t.Context(), "blob", "permission denied"); first || known.Away() {
		t.Errorf("it is %+v, counted: %v", known, first)
	}
	if known, first := m.Failed(t.Context(), "a service that nobody here can ask", "timeout"); !first || !known.Away() {
		t.Errorf("it is %+v, counted: %v", known, first)
	}
}

// A day of outage costs some 1,500 probes, one server probes at a time, and all servers learn that it is over.
func TestAnOutageOfADayIsProbedByOneAndNoticedByAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, o := memstore.New(), &outage{err: errors.New("no space")}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		monitors := []*Monitor{monitor(s, map[string]Probe{"blob": o.probe}), monitor(s, map[string]Probe{"blob": o.probe}), monitor(s, nil)}
		for _, m := range monitors {
			all.Go(func() { _ = m.Run(ctx) })
		}
		synctest.Wait()
		since := time.Now()
		if _, first := monitors[0].Failed(ctx, "blob", "no space"); !first {
			t.Error("the first failure does not count")
		}
		time.Sleep(24 * time.Hour) //nolint:forbidigo // of the clock of the bubble
		synctest.Wait()
		for i, m := range monitors {
			if known, away := m.Away("other", "blob"); !away || !known.AwaySince.Equal(since) {
				t.Errorf("after a day monitor %d knows %+v", i, known)
			}
		}
		if n := o.asked.Load(); n < 1300 || n > 3000 {
			t.Errorf("it was asked %d times in a day, want once or twice a minute", n)
		}
		o.set(nil)
		time.Sleep(2 * time.Minute) //nolint:forbidigo // of the clock of the bubble
		synctest.Wait()
		for i, m := range monitors {
			if known, away := m.Away("blob"); away {
				t.Errorf("it is back and monitor %d knows %+v", i, known)
			}
		}
		if rows, _ := s.Services(ctx); len(rows) != 1 || rows[0].WellAt.Before(since.Add(24*time.Hour)) || rows[0].Reason != "" {
			t.Errorf("the store has %+v", rows)
		}
		asked := o.asked.Load()
		time.Sleep(time.Hour) //nolint:forbidigo // of the clock of the bubble
		if got := o.asked.Load(); got != asked {
			t.Errorf("while it is well it was asked %d times", got-asked)
		}
		cancel()
		all.Wait()
	})
}

// The disk that is full may be the database's, too.
func TestAnOutageThatCannotBeWrittenDownHoldsAllTheSame(t *testing.T) {
	t.Parallel()
	s, o := memstore.New(), &outage{err: errors.New("no space")}
	var broken atomic.Bool
	s.Faults = func(op string) store.Fault {
		if broken.Load() && op == "PutService" {
			return store.FailBefore
		}
		return store.NoFault
	}
	now := noon
	m := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler), Probes: map[string]Probe{"blob": o.probe}, Now: func() time.Time { return now }})
	broken.Store(true)
	if known, first := m.Failed(t.Context(), "blob", ""); !first || known.Reason != "no space" {
		t.Errorf("it is %+v, counted: %v", known, first)
	}
	if _, first := m.Failed(t.Context(), "blob", ""); first {
		t.Error("it counts again")
	}
	now = now.Add(time.Minute)
	if _, err := m.Pass(t.Context()); err == nil {
		t.Error("nothing can be written and a pass is content")
	}
	if known, away := m.Away("blob"); !away || !known.AwaySince.Equal(noon) {
		t.Errorf("after a pass it is %+v", known)
	}
	broken.Store(false)
	if _, err := m.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, _ := s.Services(t.Context()); len(rows) != 1 || !rows[0].AwaySince.Equal(noon) {
		t.Errorf("the store has %+v", rows)
	}
	o.set(nil)
	now = now.Add(time.Minute)
	if _, err := m.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if known, away := m.Away("blob"); away {
		t.Errorf("it is back and %+v is known", known)
	}
}

// A disk that is frozen lets no probe return.
func TestAProbeThatDoesNotReturnIsAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, thaw := memstore.New(), make(chan struct{})
		m := monitor(s, map[string]Probe{"disk": func(context.Context) error { <-thaw; return nil }})
		for range 3 {
			if known, _ := m.Failed(t.Context(), "disk", "input/output error"); !known.Away() {
				t.Errorf("it is %+v", known)
			}
		}
		began := time.Now()
		if _, err := m.Pass(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // of the clock of the bubble
		for range 10 {
			if _, err := m.Pass(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began) - time.Hour; took > time.Minute {
			t.Errorf("passes take %s while it hangs", took)
		}
		close(thaw)
		time.Sleep(time.Hour) //nolint:forbidigo // of the clock of the bubble
		if _, err := m.Pass(t.Context()); err != nil {
			t.Error(err)
		}
		if known, away := m.Away("disk"); away {
			t.Errorf("it answers again and is %+v", known)
		}
	})
}

func TestAServiceThatIsWatchedIsAwayWithoutHavingFailedAnything(t *testing.T) {
	t.Parallel()
	s, o, now := memstore.New(), &outage{}, noon
	m := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler), Probes: map[string]Probe{"database": o.probe}, Watched: []string{"database"},
		Now: func() time.Time { return now }})
	for _, c := range []struct {
		err  error
		away bool
	}{{nil, false}, {errors.New("read-only"), true}, {errors.New("read-only"), true}, {nil, false}} {
		o.set(c.err)
		now = now.Add(2 * time.Minute)
		if _, err := m.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, away := m.Away("database"); away != c.away {
			t.Errorf("when its probe says %v it is away: %v", c.err, away)
		}
	}
	// The store can be neither written nor read.
	s.Faults = func(op string) store.Fault {
		if op == "PutService" || op == "Services" {
			return store.FailBefore
		}
		return store.NoFault
	}
	o.set(errors.New("hangs"))
	now = now.Add(2 * time.Minute)
	if _, err := m.Pass(t.Context()); err == nil {
		t.Error("the store cannot be read and a pass is content")
	}
	if known, away := m.Away("database"); !away || known.Reason != "hangs" {
		t.Errorf("it is %+v", known)
	}
}

// The server that wrote when the next probe is due had a clock an hour ahead of this one's, and is gone.
func TestTheClockOfTheServerThatAskedLastDelaysNoProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, o := memstore.New(), &outage{}
		if err := s.PutService(t.Context(), store.Service{Name: "blob", AwaySince: time.Now().Add(time.Hour), Reason: "no space", ProbeAt: time.Now().Add(61 * time.Minute)}); err != nil {
			t.Fatal(err)
		}
		m := monitor(s, map[string]Probe{"blob": o.probe})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = m.Run(ctx) })
		time.Sleep(30 * time.Second) //nolint:forbidigo // of the clock of the bubble
		if n := o.asked.Load(); n != 0 {
			t.Errorf("it was asked %d times in the pause that its row states", n)
		}
		time.Sleep(2 * time.Minute) //nolint:forbidigo // of the clock of the bubble
		if known, away := m.Away("blob"); away {
			t.Errorf("after two minutes it is %+v", known)
		}
		cancel()
		all.Wait()
	})
}
