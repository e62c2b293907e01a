package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/hang"
	"github.com/aloft-dev/aloft/internal/leftover"
)

// adoptWorkers is how many files are synced at the same time. Syncs that overlap share a commit of the file system's journal, so
// there are more workers than processors. Hashing is limited to fewer: see hashing.
const adoptWorkers = 16

func (s *Store) Adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	objects, err := hang.Do(ctx, &s.guard, func(ctx context.Context) ([]blob.Object, error) { return s.adopt(ctx, prefix) }, nil)
	if err != nil {
		return nil, fmt.Errorf("adopt objects below %s: %w", prefix, blob.Unavailable(err))
	}
	return objects, nil
}

func (s *Store) adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	if _, err := blob.ParseKey(string(prefix)); err != nil {
		return nil, err
	}
	objects, dirs, err := s.survey(ctx, prefix)
	if err != nil || len(objects)+len(dirs) == 0 {
		return nil, err
	}
	errs := make([]error, len(objects))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(adoptWorkers, len(objects)) {
		workers.Go(func() {
			for i := range next {
				objects[i].Attributes, errs[i] = s.adoptFile(ctx, objects[i].Key)
			}
		})
	}
	for i := range objects {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	if err := errors.Join(errors.Join(errs...), ctx.Err()); err != nil {
		return nil, err
	}
	if err := s.recordListings(ctx, dirs, objects); err != nil {
		return nil, err
	}
	// Deepest first, and the folders above the prefix last: a name is durable only if the whole way to it is.
	for _, dir := range slices.Backward(dirs) {
		if err := goesOn(ctx); err != nil {
			return nil, err
		}
		if err := s.disk.SyncDir(dir); err != nil {
			return nil, err
		}
	}
	return objects, s.syncUp(filepath.Dir(s.Path(prefix)))
}

// recordListings records for each folder the digest of its listing, so that Check notices a file that is missing later. The digest of
// an object is hashed once for each folder above it: a key has at most blob.MaxKey bytes, so these are a few hundred. objects are
// in the order of a walk, which is that of List.
func (s *Store) recordListings(ctx context.Context, dirs []string, objects []blob.Object) error {
	for _, dir := range dirs {
		if err := goesOn(ctx); err != nil {
			return err
		}
		if key, ok := s.KeyOf(dir); ok {
			writeListing(dir, key, blob.Below(objects, key))
		}
	}
	return nil
}

// goesOn tells the guard that the call of ctx makes progress, and returns an error if the call is to end.
func goesOn(ctx context.Context) error {
	hang.Progress(ctx)
	return ctx.Err()
}

// maxProblems is how many names of files that cannot become objects an error lists.
const maxProblems = 20

// survey finds the files and folders at or below prefix, or says which of them cannot become objects. A task may have left
// anything: links in circles, pipes, files that claim more bytes than the disk has, folders without the right to enter. These are
// the task's mistakes, so the error is aloft.ErrInvalid: repeating the call would give the same.
func (s *Store) survey(ctx context.Context, prefix blob.Key) (objects []blob.Object, dirs []string, err error) {
	var problems []string
	count := 0
	problem := func(format string, args ...any) {
		if count++; count <= maxProblems {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	capacity := capacityOf(s.root)
	err = filepath.WalkDir(s.Path(prefix), func(path string, d fs.DirEntry, err error) error {
		if err := goesOn(ctx); err != nil {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil
		}
		name, _ := filepath.Rel(s.root, path)
		if not, ok := errors.AsType[*leftover.NotFileError](leftover.Explain(path, err)); ok {
			problem("%q is %s", shorten(name), not.What)
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		key, err := blob.ParseKey(filepath.ToSlash(name))
		if err != nil {
			problem("%v", err)
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		var info fs.FileInfo
		switch d.Type() {
		case fs.ModeDir:
			dirs = append(dirs, path)
			return nil
		case 0:
			info, err = d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		case fs.ModeSymlink:
			info, err = os.Stat(path)
			switch {
			case err != nil:
				problem("%s is a symbolic link to nothing", key)
				return nil //nolint:nilerr // it is the task's mistake, and listed with the others
			case !info.Mode().IsRegular() || ofTheKernel(path):
				problem("%s is a symbolic link to something that is not a file", key)
				return nil
			}
		default:
			problem("%s is not a file (%s)", key, d.Type())
			return nil
		}
		if not, ok := errors.AsType[*leftover.NotFileError](leftover.Explain(path, err)); ok {
			problem("%s is %s", key, not.What)
			return nil
		}
		if err != nil {
			return err
		}
		if info.Size() > capacity {
			problem("%s says that it has %d bytes, more than its whole disk", key, info.Size())
			return nil
		}
		objects = append(objects, blob.Object{Key: key})
		return nil
	})
	if err == nil && count > 0 {
		if count > maxProblems {
			problems = append(problems, fmt.Sprintf("and %d more", count-maxProblems))
		}
		err = fmt.Errorf("%w: outputs must be files and folders: %s", aloft.ErrInvalid, strings.Join(problems, "; "))
	}
	return objects, dirs, err
}

// shorten is the end of a path, which may be longer than the system itself takes.
func shorten(path string) string {
	if len(path) > 200 {
		return "…" + path[len(path)-200:]
	}
	return path
}

// adoptFile makes one file an object: a file without another name by which it could be changed, read-only, recorded and synced.
func (s *Store) adoptFile(ctx context.Context, key blob.Key) (blob.Attributes, error) {
	path := s.Path(key)
	link, err := os.Lstat(path)
	if err != nil {
		return blob.Attributes{}, vanished(key, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return blob.Attributes{}, vanished(key, err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return blob.Attributes{}, err
	}
	if !before.Mode().IsRegular() {
		return blob.Attributes{}, fmt.Errorf("%w: %s became %s while it was looked at", aloft.ErrConflict, key, leftover.Kind(before.Mode()))
	}
	attributes, record := readRecord(f, before)
	switch {
	case record == validRecord && before.Mode().Perm()&0o222 == 0 && link.Mode().IsRegular():
		// The file was adopted before, or is another name of an object: it does not change any more.
	case !link.Mode().IsRegular() || links(before) > 1:
		return s.adoptCopy(ctx, key, f)
	default:
		if attributes, err = digestOf(ctx, f, before); err != nil {
			return blob.Attributes{}, err
		}
		after, err := f.Stat()
		if err != nil {
			return blob.Attributes{}, err
		}
		if attributes.Size != after.Size() || !before.ModTime().Equal(after.ModTime()) {
			return blob.Attributes{}, fmt.Errorf("%w: %s changed while it was read, somebody still writes to it", aloft.ErrConflict, key)
		}
		attributes.ModTime = after.ModTime()
		writeRecord(f, after, attributes)
		if err := f.Chmod(0o400); err != nil {
			return blob.Attributes{}, err
		}
	}
	hang.Syncing(ctx, attributes.Size)
	return attributes, s.disk.SyncFile(path)
}

// adoptCopy puts a private copy of what f reads in the place of a link.
func (s *Store) adoptCopy(ctx context.Context, key blob.Key, f *os.File) (blob.Attributes, error) {
	temp, attributes, err := s.writeTemp(ctx, f, func(blob.Attributes) error { return nil })
	if err != nil {
		return blob.Attributes{}, err
	}
	if err := s.disk.Rename(temp, s.Path(key)); err != nil {
		_ = s.disk.Remove(temp)
		return blob.Attributes{}, err
	}
	return attributes, nil
}

// vanished classifies an error of opening a file that survey has found.
func vanished(key blob.Key, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s was removed meanwhile, somebody still writes", aloft.ErrConflict, key)
	}
	if not, ok := errors.AsType[*leftover.NotFileError](leftover.Explain(string(key), err)); ok {
		return fmt.Errorf("%w: %s is %s", aloft.ErrInvalid, key, not.What)
	}
	return err
}

// links is how many names a file has.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // another type on other systems
	}
	return 1
}
