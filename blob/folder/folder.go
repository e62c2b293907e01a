// Package folder is the blob store of one machine: every object is a plain file, its key the path below one folder. It
// comes after worker, whose tasks read objects by path and write raw outputs in place, and before nothing; engine,
// catalog, bundle and api reach it through package blob.
//
// # How an object becomes durable
//
// Put writes a temporary file in <root>/.partial (the same file system), syncs it, gives it its name and syncs every
// folder on the way that is not known to be durable: the name in its folder first, then new folders upwards. Only then
// does it return. A crash before leaves nothing under the name, or the complete object. Adopt does the same in place for
// files that a task wrote: until Adopt returns, a power cut may lose them, and no outcome names them yet. Files that a killed
// process leaves in .partial are removed by the next Open.
//
// # Digests without a second file
//
// Size and digests are recorded in an extended attribute of the file itself, set before its sync, so they cost no write
// of their own. The record names the size, modification time and inode it was made for. A file that does not match (it
// was changed, or copied to another disk) or cannot hold attributes is read again by Stat: slower, never wrong.
//
// Files of tasks are hashed by half of the processors at most, so that the others are left to requests. Holes are not read.
//
// Objects are read-only files, so that a task that opens its input for writing gets an error instead of changing what
// another run produced.
//
// # When it fails
//
// A full or read-only disk gives aloft.ErrUnavailable with advice, and so does a disk that does not answer when a file is opened,
// read or synced (internal/hang). The call may have been done or not; calling it again does what is missing, and temporary files
// are removed with the next Open.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/hang"
	"github.com/aloft-dev/aloft/internal/removal"
)

// partialFolder holds files that are being written. Each Store has a folder of its own in it, which it has locked: a folder
// without a lock was left by a process that has died. No key can begin with a dot, so these files are never objects.
const partialFolder = ".partial"

// Store is a blob.Local in one folder. Several processes may open the same folder.
type Store struct {
	root    string // absolute
	real    string // root without symbolic links: programs report either
	disk    disk
	guard   hang.Guard
	partial *os.File // the folder in partialFolder where this Store writes, open so that its lock holds
	durable durableFolders
	noClone atomic.Bool // this file system cannot share blocks between files
}

var _ blob.Local = (*Store)(nil)

// Open makes the folder if it is not there.
func Open(root string) (*Store, error) { return open(root, osDisk{}) }

func open(root string, d disk) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	s := &Store{root: root, disk: d, guard: hang.Guard{Name: "the disk of " + root}}
	if err := os.MkdirAll(filepath.Join(root, partialFolder), 0o700); err != nil {
		return nil, fmt.Errorf("open blob folder: %w", blob.Unavailable(err))
	}
	for _, dir := range []string{root, filepath.Dir(root)} {
		// The parent may be read-only for us, such as that of a mount point: then we have not made the folder in it.
		if err := d.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("open blob folder: %w", blob.Unavailable(err))
		}
	}
	if s.real, err = filepath.EvalSymlinks(root); err != nil {
		return nil, fmt.Errorf("open blob folder: %w", blob.Unavailable(err))
	}
	if err := s.sweep(time.Now().Add(-24 * time.Hour)); err != nil {
		return nil, fmt.Errorf("open blob folder: remove old temporary files: %w", blob.Unavailable(err))
	}
	if s.partial, err = makePartial(filepath.Join(s.root, partialFolder)); err != nil {
		return nil, fmt.Errorf("open blob folder: %w", blob.Unavailable(err))
	}
	return s, nil
}

// makePartial makes a folder and locks it. The lock ends with the process. On a file system without locks (some network file
// systems) sweep goes by the age of the folder.
func makePartial(dir string) (*os.File, error) {
	for {
		path, err := os.MkdirTemp(dir, "store-*") // mode 0700
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed by the sweep of another process before it was locked
		}
		if err != nil {
			return nil, err
		}
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_SH)
		if _, err := os.Lstat(path); err == nil {
			return f, nil
		}
		_ = f.Close()
	}
}

// sweep removes temporary files of processes that have died. Where no lock can tell that, files from before the given time are
// removed: on file systems without locks, and files in partialFolder itself, which a server of an earlier release may be writing.
func (s *Store) sweep(before time.Time) error {
	dir := filepath.Join(s.root, partialFolder)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			if err := sweepFolder(path, before); err != nil {
				return err
			}
			continue
		}
		if info, err := e.Info(); err != nil || info.ModTime().After(before) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweepFolder removes the folder of a Store whose process has died.
func sweepFolder(path string, before time.Time) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // another process has removed the folder
	}
	defer f.Close()
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil // the process of the folder lives
	case err != nil:
		if info, err := f.Stat(); err != nil || info.ModTime().After(before) {
			return nil // there are no locks here, and the folder is too young
		}
	}
	return removal.All(context.Background(), path)
}

func (s *Store) Path(key blob.Key) string {
	return filepath.Join(s.root, filepath.FromSlash(string(key)))
}

func (s *Store) KeyOf(path string) (blob.Key, bool) {
	for _, root := range []string{s.root, s.real} {
		if rest, ok := strings.CutPrefix(path, root+string(filepath.Separator)); ok {
			key, err := blob.ParseKey(filepath.ToSlash(rest))
			return key, err == nil
		}
	}
	return "", false
}

func (s *Store) Put(ctx context.Context, key blob.Key, r io.Reader, o blob.PutOptions) (blob.Attributes, error) {
	source := &lentReader{r: r}
	defer source.takeBack()
	a, err := hang.Do(ctx, &s.guard, func(ctx context.Context) (blob.Attributes, error) {
		return s.put(ctx, key, source.under(ctx), o)
	}, nil)
	if err != nil {
		return blob.Attributes{}, fmt.Errorf("put object %s: %w", key, blob.Unavailable(err))
	}
	return a, nil
}

// lentReader is a caller's reader during a guarded call, which the caller may leave while the disk does not answer: then the reader
// is taken back. The time that the reader itself takes is not counted as the disk's.
type lentReader struct {
	ctx  context.Context
	mu   sync.Mutex
	r    io.Reader
	back bool // the caller has left the call: nothing is read any more
}

func (l *lentReader) under(ctx context.Context) io.Reader {
	l.ctx = ctx
	return l
}

func (l *lentReader) Read(p []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.back {
		return 0, context.Canceled
	}
	hang.Outside(l.ctx, func() { n, err = l.r.Read(p) })
	return n, err
}

func (l *lentReader) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.back = true
}

func (s *Store) put(ctx context.Context, key blob.Key, r io.Reader, o blob.PutOptions) (blob.Attributes, error) {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return blob.Attributes{}, err
	}
	temp, attributes, err := s.writeTemp(ctx, r, func(got blob.Attributes) error { return o.Check(key, got) })
	if err != nil {
		return blob.Attributes{}, err
	}
	defer func() { _ = s.disk.Remove(temp) }()

	path := s.Path(key)
	if err := s.name(temp, path, o.Overwrite); errors.Is(err, fs.ErrExist) {
		return s.putExisting(ctx, key, temp, attributes, o)
	} else if err != nil {
		return blob.Attributes{}, err
	}
	return attributes, s.syncUp(filepath.Dir(path))
}

// writeTemp writes a complete, sealed and synced temporary file, and returns its path and attributes.
func (s *Store) writeTemp(ctx context.Context, r io.Reader, check func(blob.Attributes) error) (path string, a blob.Attributes, err error) {
	f, err := s.disk.CreateTemp(s.partial.Name())
	if err != nil {
		return "", a, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = s.disk.Remove(f.Name())
		}
	}()
	digest := &turnDigest{Digest: blob.NewDigest(), ctx: ctx, free: freelyHashed}
	source := &contextReader{ctx: ctx, r: r}
	if _, err = io.Copy(io.MultiWriter(f, digest), source); err != nil {
		if source.err != nil {
			err = &blob.ReadError{Err: source.err}
		}
		return "", a, err
	}
	a = digest.Attributes()
	if err = check(a); err != nil {
		return "", a, err
	}
	if a.ModTime, err = f.Seal(a); err != nil {
		return "", a, err
	}
	hang.Syncing(ctx, a.Size)
	if err = f.Sync(); err != nil {
		return "", a, err
	}
	if err = f.Close(); err != nil {
		return "", a, err
	}
	return f.Name(), a, nil
}

// name gives a temporary file its final name, making folders as needed. Without overwrite a name that is taken gives
// fs.ErrExist, decided by the file system, so that it holds between processes.
func (s *Store) name(temp, path string, overwrite bool) error {
	if err := s.mkdirs(filepath.Dir(path)); err != nil {
		return err
	}
	if !overwrite {
		return s.disk.Link(temp, path)
	}
	err := s.disk.Rename(temp, path)
	if info, statErr := os.Lstat(path); err != nil && statErr == nil && info.IsDir() {
		return fs.ErrExist
	}
	return err
}

// putExisting ends a Put whose key is taken: with the same content it succeeds, once the object there is durable.
func (s *Store) putExisting(ctx context.Context, key blob.Key, temp string, want blob.Attributes, o blob.PutOptions) (blob.Attributes, error) {
	path := s.Path(key)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return blob.Attributes{}, fmt.Errorf("%w: there are objects below it, so it cannot be one itself", aloft.ErrExists)
	}
	got, err := s.stat(ctx, key)
	switch {
	case errors.Is(err, aloft.ErrConflict):
		return s.heal(key, temp, want)
	case err != nil:
		return blob.Attributes{}, err
	case o.IfAbsent:
		return blob.Attributes{}, aloft.ErrExists
	case got.SHA256 != want.SHA256:
		return blob.Attributes{}, fmt.Errorf("%w with other content (%s, %d bytes; this is %s, %d bytes)", aloft.ErrExists, got.SHA256, got.Size, want.SHA256, want.Size)
	}
	// The object may not be synced: another Put may be at its last sync, or a task has written the file.
	if err := s.disk.SyncFile(path); err != nil {
		return blob.Attributes{}, err
	}
	return got, s.syncUp(filepath.Dir(path))
}

// heal puts the received file in the place of a damaged object, if that is the content that was recorded of the object.
func (s *Store) heal(key blob.Key, temp string, want blob.Attributes) (blob.Attributes, error) {
	f, info, err := s.openObject(key)
	if err != nil {
		return blob.Attributes{}, err
	}
	was, _ := readRecord(f, info)
	f.Close()
	if was.SHA256 != want.SHA256 {
		return blob.Attributes{}, fmt.Errorf("%w with other content (%s, %d bytes, damaged since; this is %s, %d bytes)", aloft.ErrExists, was.SHA256, was.Size, want.SHA256, want.Size)
	}
	if err := s.disk.Rename(temp, s.Path(key)); err != nil {
		return blob.Attributes{}, err
	}
	return want, s.syncUp(filepath.Dir(s.Path(key)))
}

// mkdirs makes a folder and its parents up to the root. They are durable after syncUp.
func (s *Store) mkdirs(dir string) error {
	if dir == s.root {
		return nil
	}
	info, err := os.Lstat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil || errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: a part of the key is an object, so nothing can be below it", aloft.ErrExists)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := s.mkdirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := s.disk.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// syncUp makes the entries of dir durable, and the names of dir and its parents up to the root. A parent is synced only if we do
// not know already that the name below it is durable: even an fsync that changes nothing flushes the disk's cache.
func (s *Store) syncUp(dir string) error {
	if err := s.disk.SyncDir(dir); err != nil {
		return err
	}
	var named []string
	for ; dir != s.root && !s.durable.has(dir); dir = filepath.Dir(dir) {
		if err := s.disk.SyncDir(filepath.Dir(dir)); err != nil {
			return err
		}
		named = append(named, dir)
	}
	s.durable.add(named)
	return nil
}

func (s *Store) Get(ctx context.Context, key blob.Key, rng blob.Range) (io.ReadCloser, error) {
	if rng.Offset < 0 || rng.Length < 0 {
		return nil, fmt.Errorf("get object %s: %w: negative range", key, aloft.ErrInvalid)
	}
	opened, err := hang.Do(ctx, &s.guard, func(context.Context) (*object, error) {
		f, info, err := s.openObject(key)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(rng.Offset, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
		return &object{ctx: ctx, guard: &s.guard, file: f, size: info.Size()}, nil
	}, func(o *object) {
		if o != nil {
			_ = o.Close()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("get object %s: %w", key, blob.Unavailable(err))
	}
	if rng.Length == 0 {
		return opened, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(opened, rng.Length), opened}, nil
}

// openObject opens the file of an object. It does not block on a pipe that a task may have left there, and follows no symbolic
// link, neither in the place of the file nor of a folder above: an object is always a regular file.
func (s *Store) openObject(key blob.Key) (*os.File, fs.FileInfo, error) {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return nil, nil, err
	}
	return s.openFile(s.Path(key))
}

func (s *Store) openFile(path string) (*os.File, fs.FileInfo, error) {
	f, err := s.disk.Open(s.real, strings.TrimPrefix(path, s.root))
	if errors.Is(err, syscall.ELOOP) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, s.missing(err)
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		if err == nil {
			err = fs.ErrNotExist
		}
		return nil, nil, s.missing(err)
	}
	return f, info, nil
}

// missing turns an error of opening a file into aloft.ErrNotFound if there is no object, and into aloft.ErrUnavailable if the disk
// fails.
func (s *Store) missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENAMETOOLONG) {
		if err := s.present(); err != nil {
			return err
		}
		return aloft.ErrNotFound
	}
	return blob.Unavailable(err)
}

// present returns an error if the store's folder is not there, as when its volume is not mounted. Without this check all objects
// would seem to be missing, and cached results would be given up.
func (s *Store) present() error {
	_, err := os.Lstat(filepath.Join(s.root, partialFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w; the store's folder is not the one it was: mount its volume", aloft.ErrUnavailable, err)
	}
	return blob.Unavailable(err)
}

func (s *Store) Stat(ctx context.Context, key blob.Key) (blob.Attributes, error) {
	a, err := hang.Do(ctx, &s.guard, func(ctx context.Context) (blob.Attributes, error) { return s.stat(ctx, key) }, nil)
	if err != nil {
		return blob.Attributes{}, fmt.Errorf("stat object %s: %w", key, blob.Unavailable(err))
	}
	return a, nil
}

func (s *Store) stat(ctx context.Context, key blob.Key) (blob.Attributes, error) {
	f, info, err := s.openObject(key)
	if err != nil {
		return blob.Attributes{}, err
	}
	defer f.Close()
	a, known, err := sound(ctx, f, info)
	if err == nil && !known {
		a, err = digestOf(ctx, f, info)
	}
	return a, err
}

// sound returns the attributes that were recorded when the object was stored. If size, time or inode differ from the record, the
// content is read: if it is the same it is recorded anew, if not the error is aloft.ErrConflict. known is false if there is no
// record.
func sound(ctx context.Context, f *os.File, info fs.FileInfo) (a blob.Attributes, known bool, err error) {
	was, state := readRecord(f, info)
	switch state {
	case noRecord:
		return blob.Attributes{}, false, nil
	case validRecord:
		return was, true, nil
	}
	now, err := digestOf(ctx, f, info)
	if err != nil {
		return blob.Attributes{}, false, err
	}
	if now.SHA256 != was.SHA256 {
		return blob.Attributes{}, false, fmt.Errorf("it was changed after it was stored: it has %d bytes with digest %s, stored were %d with %s: %w",
			now.Size, now.SHA256, was.Size, was.SHA256, aloft.ErrConflict)
	}
	renewRecord(f, info, now)
	return now, true, nil
}

// listItem is an entry of a list, or an error in its place.
type listItem struct {
	entry blob.Entry
	err   error
}

// mostListed is how many entries List reads ahead of its caller at most.
const mostListed = 256

func (s *Store) List(ctx context.Context, prefix blob.Key) iter.Seq2[blob.Entry, error] {
	return func(yield func(blob.Entry, error) bool) {
		var step context.Context // of the guarded call that reads the present batch
		next, stop := iter.Pull2(s.list(prefix, func() error { return goesOn(step) }))
		for some, more := 1, true; more; some = min(2*some, mostListed) {
			batch, err := hang.Do(ctx, &s.guard, func(ctx context.Context) (batch []listItem, err error) {
				step = ctx //nolint:fatcontext // each call has a context of its own, not nested in that of the call before
				for len(batch) < some && more {
					var l listItem
					if l.entry, l.err, more = next(); more {
						batch = append(batch, l)
					}
				}
				return batch, nil
			}, func([]listItem) { stop() })
			if err != nil { // the call was left, or ctx has ended
				yield(blob.Entry{}, fmt.Errorf("list objects below %q: %w", prefix, err))
				return
			}
			for _, l := range batch {
				if !yield(l.entry, l.err) {
					more = false
					break
				}
			}
		}
		stop()
	}
}

// list is List without the guard. It calls goOn before each file and folder, also those that are no objects: a task may leave any
// number of them.
func (s *Store) list(prefix blob.Key, goOn func() error) iter.Seq2[blob.Entry, error] {
	return func(yield func(blob.Entry, error) bool) {
		if s.belowLink(prefix) {
			return
		}
		err := filepath.WalkDir(s.Path(prefix), func(path string, d fs.DirEntry, err error) error {
			if err := goOn(); err != nil {
				return err
			}
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
				return s.present() // nothing is at the prefix, or a file was deleted meanwhile
			case errors.Is(err, syscall.ENAMETOOLONG):
				return fs.SkipDir // no object has a path that long: a task made it
			case err != nil:
				return err
			case d.IsDir() && path == filepath.Join(s.root, partialFolder):
				return fs.SkipDir
			case !d.Type().IsRegular():
				return nil
			}
			key, ok := s.KeyOf(path)
			if !ok {
				return nil // a task's file that was never adopted
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
			if !yield(blob.Entry{Key: key, Size: info.Size(), ModTime: info.ModTime()}, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(blob.Entry{}, fmt.Errorf("list objects below %q: %w", prefix, blob.Unavailable(err)))
		}
	}
}

// belowLink says whether a task has put a symbolic link into the path of a key, above its last part: then there is no object.
func (s *Store) belowLink(key blob.Key) bool {
	dir := path.Dir(string(key))
	if dir == "." {
		return false
	}
	f, err := openBeneath(s.real, dir)
	if err != nil {
		return errors.Is(err, syscall.ELOOP)
	}
	_ = f.Close()
	return false
}

// Delete leaves folders that become empty: a Put may have found such a folder, and be about to put its object there.
func (s *Store) Delete(ctx context.Context, key blob.Key) error {
	_, err := hang.Do(ctx, &s.guard, func(context.Context) (struct{}, error) { return struct{}{}, s.remove(key) }, nil)
	if err != nil {
		return fmt.Errorf("delete object %s: %w", key, blob.Unavailable(err))
	}
	return nil
}

func (s *Store) remove(key blob.Key) error {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return err
	}
	path := s.Path(key)
	if info, err := os.Lstat(path); err == nil && info.IsDir() || s.belowLink(key) {
		return nil // a prefix is not an object
	}
	if err := s.disk.Remove(path); err != nil {
		if errors.Is(s.missing(err), aloft.ErrNotFound) {
			return nil
		}
		return err
	}
	return s.disk.SyncDir(filepath.Dir(path))
}

// durableFolders are folders whose own name, and the names of all their parents, were synced. A folder that was removed and made
// again has another inode, and is not among them.
type durableFolders struct {
	mu     sync.Mutex
	inodes map[string]uint64 // by path
}

const maxDurableFolders = 20_000 // entries; forgetting costs some syncs, growing for ever would cost memory

func (d *durableFolders) has(dir string) bool {
	inode := inodeOf(dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.inodes[dir]
	return ok && known == inode
}

func (d *durableFolders) add(dirs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inodes == nil || len(d.inodes) > maxDurableFolders {
		d.inodes = map[string]uint64{}
	}
	for _, dir := range dirs {
		d.inodes[dir] = inodeOf(dir)
	}
}

// contextReader is a reader that fails when its context ends. It keeps its error, so that a failed read can be told from a failed
// write.
type contextReader struct {
	ctx context.Context
	r   io.Reader
	err error // other than io.EOF
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.err = c.ctx.Err(); c.err != nil {
		return 0, c.err
	}
	hang.Progress(c.ctx)
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
