package store

import (
	"context"
	"time"

	"github.com/aloft-dev/aloft"
)

// Health is what is known of the services that attempts and executions need. All servers share it, so that an outage is
// found, counted and probed once.
type Health interface {
	// Services returns what is known of every service that has ever failed, by name.
	Services(ctx context.Context) ([]Service, error)

	// PutService writes what is known of a service now. s.Revision is the revision that was read, 0 for a service that is not
	// known yet; the row gets the next one. ErrConflict if the row was written since it was read. Writing again what was
	// written last is no error. It wakes TopicHealth.
	PutService(ctx context.Context, s Service) error
}

// TopicHealth wakes when a service went away or came back.
const TopicHealth Topic = "health"

// Service is the health of one service: well, or away since a time for a reason.
type Service struct {
	Name      string
	AwaySince time.Time // zero: it is well
	Reason    string    // why it is away
	WellAt    time.Time // when it was last known to work; zero: never
	Probes    int       // number of probes since it is away
	ProbeAt   time.Time // when the next probe is due; the server that probes moves it ahead first, so that no other server does
	Revision  int64     // counts writes
}

// Away says whether the service is away: then nothing is started that needs it.
func (s Service) Away() bool { return !s.AwaySince.IsZero() }

// Waiting is the waiting reason of executions and attempts that need the service; empty while it is well.
func (s Service) Waiting() string {
	if !s.Away() {
		return ""
	}
	return aloft.WaitingFor(s.Name, s.AwaySince.UTC().Format(time.RFC3339), s.Reason)
}
