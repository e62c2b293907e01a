package sqlstore

import (
	"context"
)

// BlobStore returns the id of the blob store that the database belongs with, empty if it has none yet, and whether the blob
// store is known to have the same id.
func (s *Store) BlobStore(ctx context.Context) (id string, sealed bool, err error) {
	err = s.read(ctx, true, "SELECT blobs, sealed FROM installation", nil, func(scan scan) error {
		var n int64
		err := scan(&id, &n)
		sealed = n != 0
		return err
	})
	return id, sealed, err
}

// SetBlobStore says with which blob store the database belongs, and whether that one has the id, too. One that is known
// stays: it returns the id that holds.
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
