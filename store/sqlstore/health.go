package sqlstore

import (
	"context"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// Services returns what is known of every service, by name.
func (s *Store) Services(ctx context.Context) ([]store.Service, error) {
	var services []store.Service
	err := s.read(ctx, true, "SELECT name, revision, away_since, reason, well_at, probes, probe_at FROM services ORDER BY name", nil, func(scan scan) error {
		var v store.Service
		var awaySince, wellAt, probes, probeAt int64
		err := scan(&v.Name, &v.Revision, &awaySince, &v.Reason, &wellAt, &probes, &probeAt)
		v.AwaySince, v.WellAt, v.Probes, v.ProbeAt = instant(awaySince), instant(wellAt), int(probes), instant(probeAt)
		services = append(services, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return services, nil
}

// PutService writes a service if its row was not written since it was read.
func (s *Store) PutService(ctx context.Context, v store.Service) error {
	return s.write(ctx, 1, func(t *tx) error {
		n, err := t.exec(`INSERT INTO services (name, revision, away_since, reason, well_at, probes, probe_at) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, away_since = excluded.away_since, reason = excluded.reason,
			well_at = excluded.well_at, probes = excluded.probes, probe_at = excluded.probe_at
			WHERE services.revision = excluded.revision - 1 OR services.revision = excluded.revision AND services.away_since = excluded.away_since
			AND services.reason = excluded.reason AND services.well_at = excluded.well_at AND services.probes = excluded.probes
			AND services.probe_at = excluded.probe_at`,
			v.Name, v.Revision+1, nanos(v.AwaySince), v.Reason, nanos(v.WellAt), int64(v.Probes), nanos(v.ProbeAt))
		if err == nil && n == 0 {
			return refuse("write health of %s: somebody else has: %w", v.Name, aloft.ErrConflict)
		}
		t.wake(store.TopicHealth)
		return err
	})
}
