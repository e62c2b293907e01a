package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/hang"
	"github.com/aloft-dev/aloft/store"
)

// Store is what a monitor needs of the store.
type Store interface {
	store.Health
	store.Wakes
}

// Probe asks a service for something small that it can only do when it is well; nil: it did it.
type Probe func(ctx context.Context) error

// Config of a monitor. Store and Logger are required.
type Config struct {
	Store  Store
	Logger *slog.Logger

	// Probes of the services that this server can ask, by name. Others are watched only.
	Probes map[string]Probe

	// Watched are those of them whose probe costs nothing: it is asked in each pass, whether or not the service has failed.
	Watched []string

	Pauses  Pauses           // 1 s, 1 min, 0.5
	Timeout time.Duration    // 10 s; how long a probe, or the store, may take. A probe that does not return hangs after three times that
	Now     func() time.Time // time.Now
	Chance  func() float64   // rand.Float64
}

// Monitor is what one server knows of the services. New makes one; Run keeps it up to date.
type Monitor struct {
	config Config

	mu       sync.Mutex
	services map[string]store.Service
	noticed  map[string]time.Time // when a row was written or read that is another one than before, by our clock
	unsaved  map[string]bool      // those that are away as we know and could not write down
	asked    map[string]*asked
}

// asked is the last answer to a probe that was made because of a failure: many failures come together.
type asked struct {
	guard hang.Guard // a service that hangs keeps one probe; others are refused meanwhile
	mu    sync.Mutex
	at    time.Time
	err   error
}

// Answers are as good as new for so long, and the rows of other servers are read so often without a wake-up.
const (
	fresh     = time.Second
	lookAgain = 2 * time.Second
)

// New makes a monitor that knows nothing yet: all services count as well.
func New(config Config) *Monitor {
	if config.Pauses == (Pauses{}) {
		config.Pauses = Pauses{First: time.Second, Longest: time.Minute, Jitter: 0.5}
	}
	if config.Timeout == 0 {
		config.Timeout = 10 * time.Second
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Chance == nil {
		config.Chance = rand.Float64
	}
	m := &Monitor{config: config, services: map[string]store.Service{}, noticed: map[string]time.Time{}, unsaved: map[string]bool{}, asked: map[string]*asked{}}
	for name := range config.Probes {
		m.asked[name] = &asked{guard: hang.Guard{Name: name, Limit: 3 * config.Timeout, Most: 1}}
	}
	return m
}

// Away returns the first of the services that is away, as far as is known. It asks nobody.
func (m *Monitor) Away(names ...string) (s store.Service, away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if s, ok := m.services[name]; ok && s.Away() {
			return s, true
		}
	}
	return store.Service{}, false
}

// All returns the services that are away, by name.
func (m *Monitor) All() (away []store.Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.services)) {
		if s := m.services[name]; s.Away() {
			away = append(away, s)
		}
	}
	return away
}

// Failed says that a service could not do its part. It returns what is known of the service then, and whether this was
// the failure that made it away: the one that counts. A service whose probe works is well, whatever failed. Without a
// reason it is that of the probe.
func (m *Monitor) Failed(ctx context.Context, name, reason string) (s store.Service, first bool) {
	if s, away := m.Away(name); away {
		return s, false
	}
	answer, asked := m.answer(ctx, name)
	if asked && answer == nil || !asked && reason == "" || ctx.Err() != nil {
		return m.known(name), false
	}
	if reason == "" {
		reason = oneLine(answer)
	}
	for range 3 {
		s, changed := failed(m.known(name), reason, m.config.Now(), m.pause(0))
		if !changed {
			return s, false
		}
		err := m.put(ctx, s)
		switch {
		case err == nil:
			m.config.Logger.Warn("a service is away: what needs it waits", "service", name, "reason", reason)
			return m.known(name), true
		case !errors.Is(err, aloft.ErrConflict):
			// A full disk often is the database's, too: then we know it alone, and write it down when that is possible.
			m.config.Logger.Warn("a service is away and that cannot be written down", "service", name, "reason", reason, "error", err)
			m.mu.Lock()
			m.know(s)
			m.unsaved[name] = true
			m.mu.Unlock()
			return s, true
		}
		if err := m.read(ctx); err != nil {
			return s, false
		}
	}
	return m.known(name), false
}

// answer is what the service says when its probe asks it. One without a probe is not asked.
func (m *Monitor) answer(ctx context.Context, name string) (err error, asked bool) {
	a := m.asked[name]
	if a == nil {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := m.config.Now(); a.at.IsZero() || now.Sub(a.at) >= fresh || now.Before(a.at) {
		a.err = m.ask(ctx, name)
		a.at = m.config.Now()
	}
	return a.err, true
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (m *Monitor) ask(ctx context.Context, name string) error {
	_, err := hang.Do(ctx, &m.asked[name].guard, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
		defer cancel()
		return struct{}{}, m.config.Probes[name](ctx)
	}, nil)
	return err
}

func (m *Monitor) known(name string) store.Service {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.services[name]
	s.Name = name
	return s
}

func (m *Monitor) pause(probe int) time.Duration {
	return m.config.Pauses.pause(probe, m.config.Chance())
}

// put writes a service and knows it then.
func (m *Monitor) put(ctx context.Context, s store.Service) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout) // what is known is known without it, too
	defer cancel()
	if err := m.config.Store.PutService(ctx, s); err != nil {
		return fmt.Errorf("write health of %s: %w", s.Name, err)
	}
	s.Revision++
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.services[s.Name].Revision < s.Revision {
		m.know(s)
	}
	delete(m.unsaved, s.Name)
	return nil
}

// know takes in what is known of a service now. The caller holds mu.
func (m *Monitor) know(s store.Service) {
	if s != m.services[s.Name] {
		m.services[s.Name], m.noticed[s.Name] = s, m.config.Now()
	}
}

// due says whether a service is to be asked: when its row says so, or when that has not changed for the longest pause. The
// server that wrote it may have another clock, and be gone.
func (m *Monitor) due(s store.Service, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return due(s, now) || now.Sub(m.noticed[s.Name]) >= m.config.Pauses.Longest
}

func (m *Monitor) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
	defer cancel()
	services, err := m.config.Store.Services(ctx)
	if err != nil {
		return fmt.Errorf("read health of services: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range services {
		known := m.services[s.Name].Revision
		if known < s.Revision || known == s.Revision && !m.unsaved[s.Name] {
			m.know(s)
			delete(m.unsaved, s.Name)
		}
	}
	return nil
}

// Pass reads what all servers know and asks the services whose probes are due. It returns when to look again.
func (m *Monitor) Pass(ctx context.Context) (again time.Duration, err error) {
	err = m.read(ctx)
	for _, name := range m.config.Watched {
		m.Failed(ctx, name, "") // if it has: that is asked first
	}
	if err != nil {
		return lookAgain, err
	}
	again = lookAgain
	var errs []error
	for _, s := range m.All() {
		if m.config.Probes[s.Name] == nil {
			continue
		}
		if now := m.config.Now(); !m.due(s, now) {
			again = min(again, s.ProbeAt.Sub(now))
			continue
		}
		if err := m.probe(ctx, s); err != nil && !errors.Is(err, aloft.ErrConflict) { // then somebody else asks it
			errs = append(errs, err)
		}
	}
	return max(again, 10*time.Millisecond), errors.Join(errs...)
}

// probe asks a service, in the name of all servers.
func (m *Monitor) probe(ctx context.Context, s store.Service) error {
	if err := m.put(ctx, asking(s, m.config.Now(), m.pause(s.Probes+1))); err != nil {
		return err
	}
	reason := ""
	if err := m.ask(ctx, s.Name); err != nil {
		reason = oneLine(err)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // what was asked while we were told to end says nothing
	}
	next := answered(m.known(s.Name), reason, m.config.Now())
	if err := m.put(ctx, next); err != nil {
		return err
	}
	if reason == "" {
		m.config.Logger.Info("a service is back", "service", s.Name, "away", next.WellAt.Sub(s.AwaySince).Round(time.Millisecond))
	}
	return nil
}

// Run keeps the monitor up to date until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	wake, cancel := m.config.Store.Subscribe(store.TopicHealth)
	defer cancel()
	failures := 0
	for ctx.Err() == nil {
		again, err := m.Pass(ctx)
		if err == nil {
			failures = 0
		} else if failures++; failures == 1 && ctx.Err() == nil {
			m.config.Logger.Warn("the health of services is not known", "error", err)
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}
