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

// Probe asks a service for something small that it can do only when it is well; nil: it did.
type Probe func(ctx context.Context) error

// Config of a monitor. Store and Logger are required.
type Config struct {
	Store  Store
	Logger *slog.Logger

	// Probes of the services that this server can ask, by name. Of other services it knows what the store says.
	Probes map[string]Probe

	// Watched names those services in Probes whose probe costs nothing: it runs in each pass, whether or not the service has
	// failed.
	Watched []string

	Pauses  Pauses           // 1 s, 1 min, 0.5
	Timeout time.Duration    // 10 s; how long a probe, or the store, may take. A probe that does not return hangs after three times that
	Now     func() time.Time // time.Now
	Chance  func() float64   // rand.Float64
}

// Monitor is what one server knows of the services. New makes one; Run keeps it up to date. A service that is not in services,
// or has no AwaySince, is well.
type Monitor struct {
	config Config

	mu        sync.Mutex
	services  map[string]store.Service
	changedAt map[string]time.Time // when the row of a service last changed, by the clock of this server
	unsaved   map[string]bool      // services that are away and whose row could not be written: only this server knows
	answers   map[string]*probeAnswer
}

// probeAnswer is the last answer of a probe that ran because of a failure. It serves all failures of the next moment (answerLasts):
// many come together.
type probeAnswer struct {
	guard hang.Guard // a service that hangs keeps one probe running; further probes are refused meanwhile
	mu    sync.Mutex
	at    time.Time
	err   error
}

const (
	answerLasts = time.Second     // how long the answer of a probe counts as new
	readEvery   = 2 * time.Second // how often the rows of other servers are read without a wake-up
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
	m := &Monitor{config: config, services: map[string]store.Service{}, changedAt: map[string]time.Time{}, unsaved: map[string]bool{}, answers: map[string]*probeAnswer{}}
	for name := range config.Probes {
		m.answers[name] = &probeAnswer{guard: hang.Guard{Name: name, Limit: 3 * config.Timeout, Most: 1}}
	}
	return m
}

// Away returns the first of the services that is away, as far as the monitor knows. It neither probes nor reads the store.
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

// Failed reports that a service could not do its part. It probes the service, and if the probe fails, too, the service is away
// from now on. It returns what is known of the service then, and whether this was the failure that made it away: the one that
// is charged. If reason is empty, it is that of the probe; a service without a probe is believed to be away only with a reason.
func (m *Monitor) Failed(ctx context.Context, name, reason string) (s store.Service, first bool) {
	if s, away := m.Away(name); away {
		return s, false
	}
	answer, asked := m.askOnce(ctx, name)
	if asked && answer == nil || !asked && reason == "" || ctx.Err() != nil {
		return m.service(name), false
	}
	if reason == "" {
		reason = oneLine(answer)
	}
	for range 3 {
		s, changed := markAway(m.service(name), reason, m.config.Now(), m.pause(0))
		if !changed {
			return s, false
		}
		err := m.put(ctx, s)
		switch {
		case err == nil:
			m.config.Logger.Warn("a service is away: what needs it waits", "service", name, "reason", reason)
			return m.service(name), true
		case !errors.Is(err, aloft.ErrConflict):
			// A full disk often is the database's, too: then this server alone knows of the outage, and writes it when it can.
			m.config.Logger.Warn("a service is away and that cannot be written down", "service", name, "reason", reason, "error", err)
			m.mu.Lock()
			m.remember(s)
			m.unsaved[name] = true
			m.mu.Unlock()
			return s, true
		}
		if err := m.read(ctx); err != nil {
			return s, false
		}
	}
	return m.service(name), false
}

// askOnce is the answer of the service's probe: that of a moment ago (answerLasts), or a new one. asked: the service has a probe.
func (m *Monitor) askOnce(ctx context.Context, name string) (err error, asked bool) {
	a := m.answers[name]
	if a == nil {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := m.config.Now(); a.at.IsZero() || now.Sub(a.at) >= answerLasts || now.Before(a.at) {
		a.err = m.runProbe(ctx, name)
		a.at = m.config.Now()
	}
	return a.err, true
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (m *Monitor) runProbe(ctx context.Context, name string) error {
	_, err := hang.Do(ctx, &m.answers[name].guard, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
		defer cancel()
		return struct{}{}, m.config.Probes[name](ctx)
	}, nil)
	return err
}

func (m *Monitor) service(name string) store.Service {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.services[name]
	s.Name = name
	return s
}

func (m *Monitor) pause(probe int) time.Duration {
	return m.config.Pauses.pause(probe, m.config.Chance())
}

// put writes a service to the store, and remembers it if that worked.
func (m *Monitor) put(ctx context.Context, s store.Service) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout) // a store that hangs must not keep the caller
	defer cancel()
	if err := m.config.Store.PutService(ctx, s); err != nil {
		return fmt.Errorf("write health of %s: %w", s.Name, err)
	}
	s.Revision++
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.services[s.Name].Revision < s.Revision {
		m.remember(s)
	}
	delete(m.unsaved, s.Name)
	return nil
}

// remember keeps what is known of a service now. The caller holds mu.
func (m *Monitor) remember(s store.Service) {
	if s != m.services[s.Name] {
		m.services[s.Name], m.changedAt[s.Name] = s, m.config.Now()
	}
}

// probeDue says whether a service is to be probed: when its row says so, or when the row has not changed for the longest pause.
// The server that wrote the row may have had another clock, and be gone.
func (m *Monitor) probeDue(s store.Service, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return probeDue(s, now) || now.Sub(m.changedAt[s.Name]) >= m.config.Pauses.Longest
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
			m.remember(s)
			delete(m.unsaved, s.Name)
		}
	}
	return nil
}

// Pass reads what all servers know and probes the services whose probes are due. It returns after which time to call it again.
func (m *Monitor) Pass(ctx context.Context) (again time.Duration, err error) {
	err = m.read(ctx)
	for _, name := range m.config.Watched {
		m.Failed(ctx, name, "") // does nothing if the probe works
	}
	if err != nil {
		return readEvery, err
	}
	again = readEvery
	var errs []error
	for _, s := range m.All() {
		if m.config.Probes[s.Name] == nil {
			continue
		}
		if now := m.config.Now(); !m.probeDue(s, now) {
			again = min(again, s.ProbeAt.Sub(now))
			continue
		}
		if err := m.probe(ctx, s); err != nil && !errors.Is(err, aloft.ErrConflict) { // a conflict: another server probes the service
			errs = append(errs, err)
		}
	}
	return max(again, 10*time.Millisecond), errors.Join(errs...)
}

// probe probes a service for all servers. It claims the probe first, by writing when the next one is due.
func (m *Monitor) probe(ctx context.Context, s store.Service) error {
	if err := m.put(ctx, beginProbe(s, m.config.Now(), m.pause(s.Probes+1))); err != nil {
		return err
	}
	reason := ""
	if err := m.runProbe(ctx, s.Name); err != nil {
		reason = oneLine(err)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // an answer that came while the server ends says nothing
	}
	next := endProbe(m.service(s.Name), reason, m.config.Now())
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
