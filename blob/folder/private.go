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
	"github.com/aloft-dev/aloft/internal/hang"
)

const (
	// maxPlainCopy is the size up to which a file is copied without asking for a clone: one is not faster.
	maxPlainCopy = 64 << 10

	// privateWorkers copy the files of a folder at the same time: making and opening a file is mostly waiting for locks.
	privateWorkers = 4
)

func (s *Store) Private(ctx context.Context, key blob.Key, dst string) error {
	if _, err := hang.Do(ctx, &s.guard, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.private(ctx, key, dst) }, nil); err != nil {
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
	case err == nil && s.led(key):
		return aloft.ErrNotFound
	case err != nil:
		return s.missing(err)
	case info.Mode().IsRegular():
		_, err := s.privateFile(ctx, path, dst)
		return err
	case !info.IsDir():
		return aloft.ErrNotFound
	}
	return s.privateFolder(ctx, key, dst)
}

// privateFolder copies files and folders, empty ones too. Other things cannot be objects: they are left out. Where it was
// recorded what the folder held when it was stored, it must hold that now.
func (s *Store) privateFolder(ctx context.Context, key blob.Key, dst string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	path := s.Path(key)
	type entry struct {
		name string
		blob.Object
	}
	entries := make(chan *entry)
	var workers sync.WaitGroup
	for range privateWorkers {
		workers.Go(func() {
			for e := range entries {
				var err error
				if e.Attributes, err = s.privateFile(ctx, path+e.name, dst+e.name); err != nil {
					cancel(err)
				}
			}
		})
	}
	var copied []*entry
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
			e := &entry{name: name, Object: blob.Object{Key: key + blob.Key(filepath.ToSlash(name))}}
			copied = append(copied, e)
			select {
			case entries <- e:
			case <-ctx.Done():
			}
		}
		return nil
	})
	close(entries)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	was := readListing(path)
	if was == "" {
		return nil
	}
	objects := make([]blob.Object, len(copied))
	for i, e := range copied {
		if e.SHA256 == "" { // nothing is recorded of the file itself: its content tells
			if e.Attributes, err = s.stat(ctx, e.Key); err != nil {
				return err
			}
		}
		objects[i] = e.Object
	}
	if now, _ := blob.DigestBelow(key, objects); now != was {
		return fmt.Errorf("a file in it was removed, added or exchanged after it was stored: %w", aloft.ErrConflict)
	}
	return nil
}

// privateFile copies one object, if it is what was stored, and returns its attributes. The copy has the time of the object,
// by which a copy that was not changed is told, and is writable.
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
