// Package bundle turns a code archive into a folder: unpacked once, named by its digest, kept while there is room. It comes
// after blob, which holds the archive that a client uploaded, and before executor, which starts each attempt in a private
// copy of the folder.
//
// Three forms of code arrive (flytekit/tools/fast_registration.py, download_distribution): "….tar.gz" from pyflyte; the
// same name with a plain tar inside from flytectl, which un-gzips before it uploads; and "pkl.gz" from a notebook, one
// gzipped pickle that the notebook resolver opens by that name in the working folder. So a bundle is always a folder; a
// notebook's holds the one file pkl.gz.
//
// An archive is a client's upload and may hold anything. Entries that would leave the folder, devices and names that are too long
// are left out, each with the reason ([Dir].Omitted); a file that is no archive is aloft.ErrInvalid, and an archive beyond the
// [Limits] aloft.ErrExhausted. A full disk is aloft.ErrUnavailable, an archive that is gone aloft.ErrNotFound. A bundle under its
// final name is always complete, also after a power cut, and every bundle can be removed while no server runs: it is unpacked
// again.
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
	Files int   // entries of an archive, and the folders above them; default 100,000
	Bytes int64 // unpacked; default 4 GiB
	Cache int64 // bytes of unpacked bundles above which those without a user are removed; default 2 GiB
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

// Cache holds unpacked bundles in one folder. One process at a time uses the folder: the server's lock on the data folder ensures
// that.
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

// entry is one bundle of the cache. Cache.mu guards its fields; ready is closed once, by finish.
type entry struct {
	name  string
	ready chan struct{} // closed when path may be used or err is set
	err   error
	unpackResult
	users int       // callers that have it open, or wait for it
	used  time.Time // its latest use

	planning sync.Mutex
	tree     []treeEntry // the files and folders that PrivateCopy writes; nil: not read yet. Guarded by planning
}

// Dir is a bundle in use. Its folder exists until Close.
type Dir struct {
	Path   string // absolute; its content must not be changed
	Digest string // of the archive: "sha256:<hex>"

	Omitted []string // entries of the archive that could not be made here, each with the reason

	cache *Cache
	entry *entry
	once  sync.Once
}

const partialPrefix = ".partial-" // begins the names of folders that are being filled or removed

// NewCache uses the folder root, which it makes if needed, and removes folders that a killed process was filling or removing.
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
// one unpacking; a caller that gives up does not disturb the others. A URI that is not ours is aloft.ErrUnimplemented.
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
		// Not under the ctx of the first caller, who may give up while others wait.
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

// acquire counts the caller as a user of the bundle. If the caller is the first it must fill the bundle and then call finish.
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

// finish ends the filling of a bundle, for all callers that wait for it.
func (c *Cache) finish(e *entry, u unpackResult, err error) {
	c.mu.Lock()
	e.unpackResult, e.err = u, err
	var doomed []string
	if err == nil {
		doomed = c.evict()
	} else if c.entries[e.name] == e {
		delete(c.entries, e.name) // the next Open tries again
	}
	close(e.ready)
	c.mu.Unlock()
	discard(doomed)
}

// release ends the use of a bundle by one caller.
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

// fill makes the bundle's folder, unless an earlier process has made it. If entries were omitted, a file beside the folder lists
// them.
func (c *Cache) fill(ctx context.Context, key blob.Key, digest, name string, unpack unpackFunc) (unpackResult, error) {
	final := filepath.Join(c.root, name)
	now := time.Now()
	if err := os.Chtimes(final, now, now); err == nil { // the folder's time is that of its latest use, by which evict goes after a restart
		return unpackResult{sizeOf(final), readOmitted(final)}, nil
	}
	c.unpacks.Add(1)
	temp, err := os.MkdirTemp(c.root, partialPrefix)
	if err != nil {
		return unpackResult{}, blob.Unavailable(err)
	}
	defer func() { _ = removal.All(context.Background(), temp) }()
	u, err := c.unpackInto(ctx, temp, key, digest, unpack)
	if err != nil {
		return unpackResult{}, classify(err)
	}
	if err := errors.Join(os.Chmod(temp, 0o755), os.Chtimes(temp, now, now), writeOmitted(final, u.omitted)); err != nil {
		return unpackResult{}, blob.Unavailable(err)
	}
	if err := os.Rename(temp, final); err != nil && !isDir(final) {
		return unpackResult{}, blob.Unavailable(err)
	}
	return u, nil
}

// classify makes an error of the file system one of the archive (aloft.ErrInvalid) or of the disk (aloft.ErrUnavailable).
func classify(err error) error {
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

// readOmitted reads the list of writeOmitted. If a power cut has damaged the file the list is empty: it is information only.
func readOmitted(bundle string) (omitted []string) {
	if content, err := os.ReadFile(bundle + omittedSuffix); err == nil {
		_ = json.Unmarshal(content, &omitted)
	}
	return omitted
}

// evict takes bundles out of the cache, those without a user and used longest ago first, until the others fit; c.mu is held. A
// bundle in use stays, of any size. evict only renames the folders, which frees their names for the next Open, and returns them
// for discard.
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
		default: // the bundle is being filled, and stays even if all its callers have given up
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

// discard removes folders that evict has renamed. A folder that cannot be removed now is removed by the next NewCache.
func discard(doomed []string) {
	for _, dir := range doomed {
		_ = removal.All(context.Background(), dir)
	}
}

// scan enters the bundles of earlier processes. It is called at the first eviction and not by NewCache, which must be quick.
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
		e := &entry{name: d.Name(), ready: make(chan struct{}), used: info.ModTime(), unpackResult: unpackResult{sizeOf(path), readOmitted(path)}}
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
