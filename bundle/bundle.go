// Package bundle turns a code archive into a folder: unpacked once, named by its digest, kept while there is room. It comes
// after blob, which holds the archive that a client uploaded, and before executor, which starts each attempt in a private
// copy of the folder.
//
// Three forms of code arrive (flytekit/tools/fast_registration.py, download_distribution): "….tar.gz" from pyflyte; the
// same name with a plain tar inside from flytectl, which un-gzips before it uploads; and "pkl.gz" from a notebook, one
// gzipped pickle that the notebook resolver opens by that name in the working folder. So a bundle is always a folder; a
// notebook's holds the one file pkl.gz.
//
// An archive is somebody's upload: entries that would leave the folder, devices and sizes beyond any code are refused with
// aloft.ErrInvalid or aloft.ErrExhausted, all offending names at once. A disk that cannot hold it is aloft.ErrUnavailable,
// an archive that is gone aloft.ErrNotFound. Nothing under its final name is ever incomplete, not even after a power cut,
// and everything here can be removed while no server runs: it is unpacked again.
package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/internal/removal"
)

// Limits bound what a bundle may be. Zero values mean the defaults.
type Limits struct {
	Files int   // entries of an archive, and folders that they need; default 100,000
	Bytes int64 // unpacked; default 4 GiB
	Cache int64 // bytes of unpacked bundles kept while nobody uses them; default 2 GiB
}

func (l Limits) withDefaults() Limits {
	if l.Files == 0 {
		l.Files = 100_000
	}
	if l.Bytes == 0 {
		l.Bytes = 4 << 30
	}
	if l.Cache == 0 {
		l.Cache = 2 << 30
	}
	return l
}

// Cache holds unpacked bundles in one folder. One process at a time uses the folder: that is what the server's lock on the
// data folder ensures.
type Cache struct {
	root   string
	store  blob.Store
	limits Limits

	mu      sync.Mutex
	entries map[string]*entry // by folder name
	scanned bool              // the folders of earlier processes are in entries

	unpacks atomic.Int64 // archives unpacked so far, for tests
	noClone atomic.Bool  // this file system cannot share blocks between files
}

// entry is one bundle. Its fields are guarded by Cache.mu, except that ready is closed once.
type entry struct {
	name  string
	ready chan struct{} // closed when path may be used or err is set
	err   error
	unpacked
	users int
	used  time.Time

	planning sync.Mutex
	nodes    []node // what PrivateCopy writes; guarded by planning
}

// Dir is a bundle in use. It is there until Close.
type Dir struct {
	Path   string // absolute; nobody may write below it
	Digest string // of the archive: "sha256:<hex>"

	Omitted []string // entries of the archive that could not be made here, each with the reason

	cache *Cache
	entry *entry
	once  sync.Once
}

const partialPrefix = ".partial-" // folders that are being filled or removed

// NewCache uses the folder root, which it makes if needed, and clears what a killed process left half done.
func NewCache(root string, store blob.Store, limits Limits) (*Cache, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open bundle folder: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open bundle folder: %w", blob.Unavailable(err))
	}
	left, err := filepath.Glob(filepath.Join(root, partialPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("open bundle folder: %w", err)
	}
	for _, dir := range left {
		if err := removal.All(context.Background(), dir); err != nil {
			return nil, fmt.Errorf("open bundle folder: remove left-over: %w", blob.Unavailable(err))
		}
	}
	return &Cache{root: root, store: store, limits: limits.withDefaults(), entries: map[string]*entry{}}, nil
}

// Open returns the unpacked code of an archive, unpacking it if need be. Callers that want the same archive at once share
// one unpacking; one that gives up does not disturb the others. A URI that is not ours is aloft.ErrUnimplemented.
func (c *Cache) Open(ctx context.Context, uri string) (*Dir, error) {
	dir, err := c.open(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("open code bundle %s: %w", uri, err)
	}
	return dir, nil
}

func (c *Cache) open(ctx context.Context, uri string) (*Dir, error) {
	key, ours, err := blob.KeyOfURI(uri)
	if err != nil {
		return nil, err
	}
	if !ours {
		return nil, fmt.Errorf("%w: the archive is not in this server's blob store; register the code again with pyflyte or flytectl", aloft.ErrUnimplemented)
	}
	archive, err := c.store.Stat(ctx, key)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, fmt.Errorf("the archive was deleted; register the code again: %w", err)
	} else if err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(archive.SHA256, "sha256:")
	unpack := unpackArchive
	if key.Base() == pickleName {
		name, unpack = name+"-pickle", unpackPickle
	}
	e, first := c.acquire(name)
	if first {
		// Detached: the first caller may give up while others wait.
		go func() {
			u, err := c.fill(context.WithoutCancel(ctx), key, archive.SHA256, name, unpack)
			c.finish(e, u, err)
		}()
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		c.release(e)
		return nil, ctx.Err()
	}
	if e.err != nil {
		c.release(e)
		return nil, e.err
	}
	return &Dir{Path: filepath.Join(c.root, name), Digest: archive.SHA256, Omitted: e.omitted, cache: c, entry: e}, nil
}

// acquire counts the caller as a user of the bundle. The first one must fill it and then call finish.
func (c *Cache) acquire(name string) (e *entry, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[name]; ok {
		e.users++
		e.used = time.Now()
		return e, false
	}
	e = &entry{name: name, ready: make(chan struct{}), users: 1, used: time.Now()}
	c.entries[name] = e
	return e, true
}

func (c *Cache) finish(e *entry, u unpacked, err error) {
	c.mu.Lock()
	e.unpacked, e.err = u, err
	var doomed []string
	if err == nil {
		doomed = c.evict()
	} else if c.entries[e.name] == e {
		delete(c.entries, e.name) // the next one tries again
	}
	close(e.ready)
	c.mu.Unlock()
	discard(doomed)
}

func (c *Cache) release(e *entry) {
	c.mu.Lock()
	e.users--
	e.used = time.Now()
	c.mu.Unlock()
}

// Close ends the use of the bundle; the Path may vanish at any time afterwards. Closing twice is harmless.
func (d *Dir) Close() {
	d.once.Do(func() {
		d.cache.release(d.entry)
		d.cache.mu.Lock()
		doomed := d.cache.evict()
		d.cache.mu.Unlock()
		discard(doomed)
	})
}

// fill makes the bundle's folder, if an earlier process did not. Beside it stands a file with what was omitted, if anything was.
func (c *Cache) fill(ctx context.Context, key blob.Key, digest, name string, unpack unpackFunc) (unpacked, error) {
	final := filepath.Join(c.root, name)
	now := time.Now()
	if err := os.Chtimes(final, now, now); err == nil { // the time orders eviction after a restart
		return unpacked{sizeOf(final), readOmitted(final)}, nil
	}
	c.unpacks.Add(1)
	temp, err := os.MkdirTemp(c.root, partialPrefix)
	if err != nil {
		return unpacked{}, blob.Unavailable(err)
	}
	defer func() { _ = removal.All(context.Background(), temp) }()
	u, err := c.unpackInto(ctx, temp, key, digest, unpack)
	if err != nil {
		return unpacked{}, blame(err)
	}
	if err := errors.Join(os.Chmod(temp, 0o755), os.Chtimes(temp, now, now), writeOmitted(final, u.omitted)); err != nil {
		return unpacked{}, blob.Unavailable(err)
	}
	if err := os.Rename(temp, final); err != nil && !isDir(final) {
		return unpacked{}, blob.Unavailable(err)
	}
	return u, nil
}

// blame says whether the archive or the disk is to blame for an error of the file system.
func blame(err error) error {
	if errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("%w: a path in it is too long for this server: shorten it, or give the server a data folder with a shorter path (%s)", aloft.ErrInvalid, aloft.Excerpt(err.Error()))
	}
	return blob.Unavailable(err)
}

const omittedSuffix = ".omitted"

func writeOmitted(bundle string, omitted []string) error {
	if len(omitted) == 0 {
		return nil
	}
	content, err := json.Marshal(omitted)
	if err != nil {
		return err
	}
	return os.WriteFile(bundle+omittedSuffix, content, 0o600)
}

// readOmitted is what writeOmitted wrote. A file that a power cut has damaged says nothing: it only informs.
func readOmitted(bundle string) (omitted []string) {
	if content, err := os.ReadFile(bundle + omittedSuffix); err == nil {
		_ = json.Unmarshal(content, &omitted)
	}
	return omitted
}

// evict takes away the bundles that were not used for longest until the rest fits; c.mu is held. A bundle in use stays,
// whatever its size. It returns folders for discard: they are only renamed here, which frees their names for the next Open.
func (c *Cache) evict() (doomed []string) {
	if !c.scanned {
		c.scan()
		c.scanned = true
	}
	var total int64
	var idle []*entry
	for _, e := range c.entries {
		total += e.size
		select {
		case <-e.ready:
			if e.users == 0 {
				idle = append(idle, e)
			}
		default: // being filled, even if whoever asked for it has given up
		}
	}
	slices.SortFunc(idle, func(a, b *entry) int { return a.used.Compare(b.used) })
	for _, e := range idle {
		if total <= c.limits.Cache {
			break
		}
		temp, err := os.MkdirTemp(c.root, partialPrefix)
		if err != nil {
			break
		}
		doomed = append(doomed, temp)
		_ = os.Remove(filepath.Join(c.root, e.name+omittedSuffix))
		if err := os.Rename(filepath.Join(c.root, e.name), filepath.Join(temp, e.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break
		}
		total -= e.size
		delete(c.entries, e.name)
	}
	return doomed
}

// discard removes what evict renamed. What cannot be removed now goes at the next start.
func discard(doomed []string) {
	for _, dir := range doomed {
		_ = removal.All(context.Background(), dir)
	}
}

// scan enters the bundles of earlier processes, as unused since their last use. It happens at the first eviction and not
// at the start, which must be quick.
func (c *Cache) scan() {
	found, err := os.ReadDir(c.root)
	if err != nil {
		return // nothing to evict then
	}
	for _, d := range found {
		if _, known := c.entries[d.Name()]; known || !d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			continue
		}
		info, err := d.Info()
		if err != nil {
			continue
		}
		path := filepath.Join(c.root, d.Name())
		e := &entry{name: d.Name(), ready: make(chan struct{}), used: info.ModTime(), unpacked: unpacked{sizeOf(path), readOmitted(path)}}
		close(e.ready)
		c.entries[e.name] = e
	}
}

func sizeOf(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}
