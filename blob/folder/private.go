package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/clone"
)

const (
	// maxPlainCopy is the size up to which a file is copied without asking for a clone: one is not faster.
	maxPlainCopy = 64 << 10

	// privateWorkers copy the files of a folder at the same time: making and opening a file is mostly waiting for locks.
	privateWorkers = 4
)

func (s *Store) Private(ctx context.Context, key blob.Key, dst string) error {
	if err := s.private(ctx, key, dst); err != nil {
		return fmt.Errorf("copy object %s: %w", key, blob.Unavailable(err))
	}
	return nil
}

func (s *Store) private(ctx context.Context, key blob.Key, dst string) error {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return err
	}
	path := s.Path(key)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return s.missing(err)
	case info.Mode().IsRegular():
		return s.privateFile(ctx, path, dst)
	case !info.IsDir():
		return aloft.ErrNotFound
	}
	return s.privateFolder(ctx, path, dst)
}

// privateFolder copies files and folders, empty ones too. Other things cannot be objects: they are left out.
func (s *Store) privateFolder(ctx context.Context, path, dst string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	names := make(chan string)
	var workers sync.WaitGroup
	for range privateWorkers {
		workers.Go(func() {
			for name := range names {
				if err := s.privateFile(ctx, path+name, dst+name); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		name := at[len(path):]
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return s.missing(err)
		case d.IsDir():
			return os.Mkdir(dst+name, 0o755)
		case d.Type().IsRegular():
			select {
			case names <- name:
			case <-ctx.Done():
			}
		}
		return nil
	})
	close(names)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// privateFile copies one object, if it is what was stored. The copy has the time of the object, by which a copy that was
// not changed is told, and is writable.
func (s *Store) privateFile(ctx context.Context, path, dst string) error {
	src, info, err := s.openFile(path)
	if err != nil {
		return err
	}
	defer src.Close()
	if _, _, err := sound(ctx, src, info); err != nil {
		return err
	}
	to, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	plain := s.noClone.Load() || info.Size() <= maxPlainCopy
	how, err := clone.File(ctx, to, src, plain)
	if err == nil && !plain && how == clone.Copied {
		s.noClone.Store(true)
	}
	return errors.Join(err, to.Close(), os.Chtimes(dst, info.ModTime(), info.ModTime()))
}
