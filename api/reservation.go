package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

func (s *dataCatalog) GetOrExtendReservation(ctx context.Context, r *datacatalog.GetOrExtendReservationRequest) (*datacatalog.GetOrExtendReservationResponse, error) {
	var problems field.Problems
	id := reservationID(&problems, r.GetReservationId())
	have, err := s.reserve(ctx, &problems, id, r.GetOwnerId(), r.GetHeartbeatInterval())
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	return &datacatalog.GetOrExtendReservationResponse{Reservation: &datacatalog.Reservation{
		ReservationId: r.GetReservationId(), OwnerId: have.Owner,
		HeartbeatInterval: durationpb.New(have.Heartbeat), ExpiresAt: timestamppb.New(have.Expires), Metadata: &datacatalog.Metadata{},
	}}, nil
}

// ReleaseReservation gives back a reservation of the owner. As in Flyte, it succeeds also if the owner has none.
func (s *dataCatalog) ReleaseReservation(ctx context.Context, r *datacatalog.ReleaseReservationRequest) (*datacatalog.ReleaseReservationResponse, error) {
	var problems field.Problems
	id := reservationID(&problems, r.GetReservationId())
	if err := s.release(ctx, &problems, id, r.GetOwnerId()); err != nil {
		return nil, fmt.Errorf("release reservation: %w", err)
	}
	return &datacatalog.ReleaseReservationResponse{}, nil
}

// As in Flyte's catalog, a longer heartbeat is taken for maxHeartbeat, and a reservation expires after heartbeatGrace heartbeats.
const (
	maxHeartbeat   = 10 * time.Second
	heartbeatGrace = 3
)

// reserve asks for the right to compute a result. The reservation that it returns may be another owner's: then that owner computes
// the result.
func (a *API) reserve(ctx context.Context, problems *field.Problems, id store.ResultID, owner string, heartbeat *durationpb.Duration) (store.Reservation, error) {
	problems.TextUpTo(maxDatasetText, "owner_id", owner)
	interval := maxHeartbeat
	if heartbeat != nil {
		if heartbeat.CheckValid() != nil || heartbeat.AsDuration() < 0 {
			problems.Add("invalid value for heartbeat_interval: it is not negative; above %s it is taken for that", maxHeartbeat)
		} else if d := heartbeat.AsDuration(); d > 0 {
			interval = min(d, maxHeartbeat)
		}
	}
	if err := problems.Err(); err != nil {
		return store.Reservation{}, err
	}
	now := a.Now()
	have, err := a.Store.Reserve(ctx, store.Reservation{ID: id, Owner: owner, Heartbeat: interval, Expires: now.Add(heartbeatGrace * interval)}, now)
	if err != nil {
		return store.Reservation{}, fmt.Errorf("%s: %w", id.Tag, err)
	}
	if have.Expires.IsZero() { // a node has it until the node ends: the client is told a time, after which it asks again
		have.Heartbeat, have.Expires = interval, now.Add(heartbeatGrace*interval)
	}
	return have, nil
}

func (a *API) release(ctx context.Context, problems *field.Problems, id store.ResultID, owner string) error {
	problems.TextUpTo(maxDatasetText, "owner_id", owner)
	if err := problems.Err(); err != nil {
		return err
	}
	if err := a.Store.Release(ctx, id, owner); err != nil && !errors.Is(err, aloft.ErrNotFound) {
		return fmt.Errorf("%s: %w", id.Tag, err)
	}
	return nil
}

func reservationID(problems *field.Problems, r *datacatalog.ReservationID) store.ResultID {
	id := datasetID(problems, "reservation_id.dataset_id", r.GetDatasetId())
	id.Tag = r.GetTagName()
	problems.TextUpTo(aloft.MaxResultTag, "reservation_id.tag_name", id.Tag)
	return id
}
