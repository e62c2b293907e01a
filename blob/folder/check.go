package folder

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/hang"
)

func (s *Store) Check(ctx context.Context, key blob.Key) error {
	if _, err := hang.Do(ctx, &s.guard, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.check(ctx, key) }, nil); err != nil {
		return fmt.Errorf("check object %s: %w", key, blob.Unavailable(err))
	}
	return nil
}

func (s *Store) check(ctx context.Context, key blob.Key) error {
	return s.examine(ctx, key, visitor{
		folder: func(string) error { return nil },
		file: func(ctx context.Context, path, _ string) (blob.Attributes, error) {
			hang.Progress(ctx)
			f, info, err := s.openFile(path)
			if err != nil {
				return blob.Attributes{}, err
			}
			defer f.Close()
			attributes, _, err := sound(ctx, f, info)
			return attributes, err
		},
	})
}

// visitor is what examine shows the parts of what is stored at a key. name is a part's path below the key's own; empty: the
// key's own.
type visitor struct {
	folder func(name string) error // before what is below it
	// file returns the attributes of a file that is as it was stored; zero: nothing is recorded of it. It is called from several
	// goroutines.
	file func(ctx context.Context, path, name string) (blob.Attributes, error)
}

// examine shows v the object with this key, or the folder and everything below it, and says whether it is what was stored:
// Check and Private have the same answer because both ask here.
func (s *Store) examine(ctx context.Context, key blob.Key, v visitor) error {
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
		_, err := v.file(ctx, path, "")
		return err
	case !info.IsDir():
		return aloft.ErrNotFound
	}
	return s.examineFolder(ctx, key, v)
}

// examiners look at the files of a folder at the same time: making and opening a file is mostly waiting for locks.
const examiners = 4

// examineFolder shows files and folders, empty ones too. Other things cannot be objects: they are left out. Where it was
// recorded what the folder held when it was stored, it must hold that now.
func (s *Store) examineFolder(ctx context.Context, key blob.Key, v visitor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	path := s.Path(key)
	type entry struct {
		name string
		blob.Object
	}
	entries := make(chan *entry)
	var workers sync.WaitGroup
	for range examiners {
		workers.Go(func() {
			for e := range entries {
				var err error
				if e.Attributes, err = v.file(ctx, path+e.name, e.name); err != nil {
					cancel(fmt.Errorf("%s: %w", e.Key, err))
				}
			}
		})
	}
	var seen []*entry
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err := goesOn(ctx); err != nil {
			return err
		}
		name := at[len(path):]
		switch {
		case err != nil:
			return s.missing(err)
		case d.IsDir():
			return v.folder(name)
		case d.Type().IsRegular():
			e := &entry{name: name, Object: blob.Object{Key: key + blob.Key(filepath.ToSlash(name))}}
			seen = append(seen, e)
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
	objects := make([]blob.Object, len(seen))
	for i, e := range seen {
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
