package health

import (
	"math"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// Pauses say how often a service that is away is probed.
type Pauses struct {
	First   time.Duration // from the moment it went away to the first probe
	Longest time.Duration // each further pause is twice as long as the one before, up to this
	Jitter  float64       // the part of a pause, from 0 to 1, that is left to chance
}

// pause is how long to wait before a probe, numbered from 0; chance is from 0 to 1.
func (p Pauses) pause(probe int, chance float64) time.Duration {
	d := min(float64(p.First)*math.Pow(2, float64(min(probe, 62))), float64(p.Longest))
	return time.Duration(d * (1 - p.Jitter*chance))
}

// markAway is the service after a failure that its probe confirmed. A service that is away already does not change.
func markAway(s store.Service, reason string, now time.Time, pause time.Duration) (next store.Service, changed bool) {
	if s.Away() {
		return s, false
	}
	s.AwaySince, s.Reason, s.Probes, s.ProbeAt = now, reason, 0, now.Add(pause)
	return s, true
}

// probeDue says whether the service is to be probed.
func probeDue(s store.Service, now time.Time) bool { return s.Away() && !s.ProbeAt.After(now) }

// beginProbe is the service while a server probes it: the next probe is due as if this one had failed, so that no other server
// probes it meanwhile.
func beginProbe(s store.Service, now time.Time, pause time.Duration) store.Service {
	s.Probes, s.ProbeAt = s.Probes+1, now.Add(pause)
	return s
}

// endProbe is the service after its probe: away for the reason, or well if that is empty.
func endProbe(s store.Service, reason string, now time.Time) store.Service {
	if reason != "" {
		s.Reason = reason
		return s
	}
	s.AwaySince, s.Reason, s.WellAt, s.Probes, s.ProbeAt = time.Time{}, "", now, 0, time.Time{}
	return s
}
