package folder

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/clone"
	"github.com/aloft-dev/aloft/internal/hang"
)

// maxPlainCopy is the size up to which a file is copied and not cloned: a clone would not be faster.
const maxPlainCopy = 64 << 10

func (s *Store) Private(ctx context.Context, key blob.Key, dst string) error {
	if _, err := hang.Do(ctx, &s.guard, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.private(ctx, key, dst) }, nil); err != nil {
		return fmt.Errorf("copy object %s: %w", key, blob.Unavailable(err))
	}
	return nil
}

// private copies an object or a folder, if it is as it was stored. Folders without files are copied, too.
func (s *Store) private(ctx context.Context, key blob.Key, dst string) error {
	return s.examine(ctx, key, visitor{
		folder: func(name string) error { return os.Mkdir(dst+name, 0o755) },
		file: func(ctx context.Context, path, name string) (blob.Attributes, error) {
			return s.privateFile(ctx, path, dst+name)
		},
	})
}

// privateFile copies one object, if it is as it was stored, and returns its attributes. The copy is writable. It has the
// modification time of the object: as long as it has, it was not changed.
func (s *Store) privateFile(ctx context.Context, path, dst string) (blob.Attributes, error) {
	hang.Progress(ctx)
	src, info, err := s.openFile(path)
	if err != nil {
		return blob.Attributes{}, err
	}
	defer src.Close()
	attributes, _, err := sound(ctx, src, info)
	if err != nil {
		return blob.Attributes{}, err
	}
	to, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return blob.Attributes{}, err
	}
	plain := s.noClone.Load() || info.Size() <= maxPlainCopy
	how, err := clone.File(ctx, to, src, plain)
	if err == nil && !plain && how == clone.Copied {
		s.noClone.Store(true)
	}
	return attributes, errors.Join(err, to.Close(), os.Chtimes(dst, info.ModTime(), info.ModTime()))
}
