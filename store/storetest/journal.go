package storetest

import (
	"context"

	"github.com/aloft-dev/aloft/store"
)

// Load returns an execution with its whole journal, without that of a later version.
func Load(ctx context.Context, s interface {
	Load(ctx context.Context, key store.Key) (*store.Execution, error)
	Journal(ctx context.Context, key store.Key, got func(store.JournalRow) error) error
}, key store.Key,
) (*store.Execution, []store.JournalRow, error) {
	rec, err := s.Load(ctx, key)
	if err != nil || rec.JournalVersion > store.JournalVersion {
		return rec, nil, err
	}
	var journal []store.JournalRow
	err = s.Journal(ctx, key, func(row store.JournalRow) error { journal = append(journal, row); return nil })
	return rec, journal, err
}
