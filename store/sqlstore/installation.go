package sqlstore

import (
	"context"
)

// BlobStore returns the id of the blob store that belongs with the database, empty if there is none yet, and whether this id is
// known to be in the blob store, too (sealed).
func (s *Store) BlobStore(ctx context.Context) (id string, sealed bool, err error) {
	err = s.read(ctx, true, "SELECT blobs, sealed FROM installation", nil, func(scan scan) error {
		var n int64
		err := scan(&id, &n)
		sealed = n != 0
		return err
	})
	return id, sealed, err
}

// SetBlobStore records the id of the blob store that belongs with the database, and whether the id is in that blob store, too. An
// id that was recorded before stays. It returns the id that is recorded now.
func (s *Store) SetBlobStore(ctx context.Context, id string, sealed bool) (holds string, err error) {
	err = s.write(ctx, 1, func(t *tx) error {
		if _, err := t.exec("INSERT INTO installation (one, blobs, sealed) VALUES (1,?,0) ON CONFLICT (one) DO NOTHING", id); err != nil {
			return err
		}
		if sealed {
			if _, err := t.exec("UPDATE installation SET sealed = 1 WHERE blobs = ? AND sealed = 0", id); err != nil {
				return err
			}
		}
		_, err := t.row([]any{&holds}, "SELECT blobs FROM installation")
		return err
	})
	if err != nil {
		return "", err
	}
	return holds, nil
}
