package health

import (
	"math"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// Pauses say how often a service that is away is asked.
type Pauses struct {
	First   time.Duration // after it went away
	Longest time.Duration // each further one is twice as long, up to that
	Jitter  float64       // the part of a pause, from 0 to 1, that is left to chance
}

// pause is how long to wait before a probe, numbered from 0; chance is from 0 to 1.
func (p Pauses) pause(probe int, chance float64) time.Duration {
	d := min(float64(p.First)*math.Pow(2, float64(min(probe, 62))), float64(p.Longest))
	return time.Duration(d * (1 - p.Jitter*chance))
}

// failed is what a failure means for the service. One that is away already is not further away.
func failed(s store.Service, reason string, now time.Time, pause time.Duration) (next store.Service, changed bool) {
	if s.Away() {
		return s, false
	}
	s.AwaySince, s.Reason, s.Probes, s.ProbeAt = now, reason, 0, now.Add(pause)
	return s, true
}

// due says whether the service is to be asked.
func due(s store.Service, now time.Time) bool { return s.Away() && !s.ProbeAt.After(now) }

// asking is the service while somebody asks it: the others wait as if it had failed.
func asking(s store.Service, now time.Time, pause time.Duration) store.Service {
	s.Probes, s.ProbeAt = s.Probes+1, now.Add(pause)
	return s
}

// answered is the service after its probe: well if there is no reason for it not to be.
func answered(s store.Service, reason string, now time.Time) store.Service {
	if reason != "" {
		s.Reason = reason
		return s
	}
	s.AwaySince, s.Reason, s.WellAt, s.Probes, s.ProbeAt = time.Time{}, "", now, 0, time.Time{}
	return s
}
