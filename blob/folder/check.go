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

// visitor has the functions that examine calls for each folder and file at or below a key. name is the path below the key; empty for
// the key itself.
type visitor struct {
	folder func(name string) error // called before the files in the folder
	// file returns the attributes of a file that is as it was stored, or zero attributes if it has no record; another file is an
	// error. It is called from several goroutines.
	file func(ctx context.Context, path, name string) (blob.Attributes, error)
}

// examine visits the object with this key, or the folder and everything below it, and returns an error if anything is not as it was
// stored. Check and Private both use it, and so give the same answer.
func (s *Store) examine(ctx context.Context, key blob.Key, v visitor) error {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return err
	}
	path := s.Path(key)
	info, err := os.Lstat(path)
	switch {
	case err == nil && s.belowLink(key):
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

// examiners is how many files of a folder are visited at the same time: making and opening a file is mostly waiting for locks.
const examiners = 4

// examineFolder visits all files and folders, empty ones too. Links, pipes and so on are no objects and are left out. If the folder
// has a recorded listing, its files must be those of the listing.
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
		if e.SHA256 == "" { // the file has no record: its content is read
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
