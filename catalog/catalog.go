package catalog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
)

// Store is what the catalog needs of store.Catalog.
type Store interface {
	FindResult(ctx context.Context, id store.ResultID) (*store.Result, error)
	FindResults(ctx context.Context, ids []store.ResultID) ([]*store.Result, error)
	ListResults(ctx context.Context, q store.ResultQuery) ([]*store.Result, error)
	RemoveResults(ctx context.Context, ids []string, reason string, now time.Time) (int, error)
	UsedResults(ctx context.Context, ids []string, now time.Time) error
	Reserve(ctx context.Context, r store.Reservation, now time.Time) (store.Reservation, error)
	Release(ctx context.Context, id store.ResultID, owner string) error
}

// Catalog finds results that are really there, and lets go of those that are too old or too many. Its methods may be called
// from any goroutine.
type Catalog struct {
	Store  Store
	Blob   blob.Store
	Limits Limits
	Log    *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now

	mu   sync.Mutex
	used map[string]time.Time // by id of the result: found since the last note
}

// What Find reads of a result to compare hashes. An object is immutable and the store has synced it, so what damages one is
// rare: somebody's rm or editor, or a disk. A deleted or cut object shows in its size, which is always looked at and costs one
// look into the folder. The hash is for the rest, and its bound keeps a hit far cheaper than most tasks: 64 MiB are read and
// hashed in a tenth of a second. Beyond that the blob store's own record decides, as it does when a task is given the object:
// a hit that no task can use would be found again by each recovery.
const (
	maxHashedObject = 16 << 20 // bytes of an object, or of all in a folder
	maxHashedResult = 64 << 20 // bytes of all objects of a result
	maxHashedFiles  = 1000     // files of a folder: each has to be opened
	maxLooking      = 8        // objects of a result that are looked at simultaneously
)

// Find is the result that an id names, all of whose objects are there. nil: a miss; reason then says what was wrong with the
// result that was found, which is gone now, or is empty if there was none. A store or a blob store that cannot answer is an error.
func (c *Catalog) Find(ctx context.Context, id store.ResultID) (e *store.Result, reason string, err error) {
	e, err = c.Store.FindResult(ctx, id)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, "", nil
	} else if err != nil {
		return nil, "", fmt.Errorf("find result of %s: %w", id.Name, err)
	}
	if reason, err = c.Use(ctx, e); reason != "" || err != nil {
		return nil, reason, err
	}
	return e, "", nil
}

// Ahead is what the store has for several ids at this moment, in their order; nil: nothing. Nobody has looked at the objects
// of these results: whoever wants to use one calls Use, and soon.
func (c *Catalog) Ahead(ctx context.Context, ids []store.ResultID) ([]*store.Result, error) {
	found, err := c.Store.FindResults(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("find %d results: %w", len(ids), err)
	}
	return found, nil
}

// Use is the second half of Find, for a result that the store had a moment ago: with a reason it must not be used, and is gone.
func (c *Catalog) Use(ctx context.Context, e *store.Result) (reason string, err error) {
	if reason, err = c.verify(ctx, e); err != nil {
		return "", fmt.Errorf("verify result %s of %s: %w", e.ID, e.Name, err)
	}
	if reason != "" {
		if _, err := c.Store.RemoveResults(ctx, []string{e.ID}, reason, c.now()); err != nil {
			return "", fmt.Errorf("remove damaged result %s of %s: %w", e.ID, e.Name, err)
		}
		return reason, nil
	}
	c.use(e.ID)
	return "", nil
}

// FindOrReserve is Find and, on a miss, asks for the right to compute the result. It returns the result, or else the reservation
// that holds: r's owner's, or that of somebody to wait for, and then r.Execution is woken.
//
// Between a miss and a reservation the one who had it may have finished. So whoever gets it looks again, and gives it back if
// there is a result by now.
func (c *Catalog) FindOrReserve(ctx context.Context, r store.Reservation) (e *store.Result, held store.Reservation, reason string, err error) {
	if e, reason, err = c.Find(ctx, r.ID); e != nil || err != nil {
		return e, held, reason, err
	}
	if held, err = c.Store.Reserve(ctx, r, c.now()); err != nil {
		return nil, held, reason, fmt.Errorf("reserve result of %s: %w", r.ID.Name, err)
	}
	if held.Owner != r.Owner {
		return nil, held, reason, nil
	}
	e, again, err := c.Find(ctx, r.ID)
	if err != nil {
		return nil, held, reason, err // the reservation is still r's: asking again gives it again
	}
	if again != "" {
		reason = again
	}
	if e == nil {
		return nil, held, reason, nil
	}
	if err := c.Store.Release(ctx, r.ID, r.Owner); err != nil {
		return nil, held, reason, fmt.Errorf("give back reservation of %s: %w", r.ID.Name, err)
	}
	return e, store.Reservation{}, "", nil
}

// verify looks at every object of a result. problem is that of the first that is not as it was, in the order of its objects.
func (c *Catalog) verify(ctx context.Context, e *store.Result) (problem string, err error) {
	if e.Unreadable != nil {
		return "its record cannot be understood: " + e.Unreadable.Error(), nil
	}
	objects := objectsOf(e)
	if len(objects) == 0 {
		return "", nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wait     sync.WaitGroup
		problems = make([]string, len(objects))
		errs     = make([]error, len(objects))
		room     = make(chan struct{}, maxLooking)
		budget   = int64(maxHashedResult)
	)
	for i, o := range objects {
		hash := o.GetDigest() != "" && o.GetSize() <= min(maxHashedObject, budget)
		if hash {
			budget -= o.GetSize()
		}
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			if problems[i], errs[i] = c.look(ctx, o, hash); errs[i] != nil {
				cancel()
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		// The error that cancelled the others, and not what became of them.
		if err != nil && !errors.Is(err, context.Canceled) {
			return "", err
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for _, p := range problems {
		if p != "" {
			return p, nil
		}
	}
	return "", nil
}

// unknownSize is that of an object nobody measured: its existence alone is looked at.
const unknownSize = -1

// objectsOf are the objects without which a result is of no use.
func objectsOf(e *store.Result) []*aloftv1.ObjectDigest {
	objects := e.Objects
	if ref := e.Outputs.GetRef(); ref.GetUri() != "" {
		objects = append([]*aloftv1.ObjectDigest{{
			Uri: ref.GetUri(), Digest: "sha256:" + hex.EncodeToString(ref.GetDigest()), Size: ref.GetSize(),
		}}, objects...)
	}
	if e.Source == (aloft.AttemptID{}) && len(e.Objects) == 0 {
		// From outside: nobody took digests of what it refers to.
		for _, key := range referredTo(e.Outputs.GetValue()) {
			objects = append(objects, &aloftv1.ObjectDigest{Uri: key.URI(), Size: unknownSize})
		}
	}
	return objects
}

// look compares an object, or the objects in a folder, with what was recorded. A listing shows either, and most of what is not
// there, without reading any content.
func (c *Catalog) look(ctx context.Context, o *aloftv1.ObjectDigest, hash bool) (problem string, err error) {
	if !strings.HasPrefix(o.GetUri(), blob.Scheme) {
		return "", nil // not ours: we cannot look
	}
	different := func(now, was string) string {
		return fmt.Sprintf("its object %s is not what was written: %s, was %s", o.GetUri(), now, was)
	}
	missing := "its object " + o.GetUri() + " is missing"
	key, err := blob.ParseURI(strings.TrimSuffix(o.GetUri(), "/"))
	if err != nil {
		return missing, nil // nothing can be at a place that cannot be named
	}
	var below []blob.Object
	size := int64(0)
	for entry, err := range c.Blob.List(ctx, key) {
		if err != nil {
			return "", err
		}
		below = append(below, blob.Object{Key: entry.Key, Attributes: blob.Attributes{Size: entry.Size}})
		size += entry.Size
	}
	switch {
	case o.GetSize() == unknownSize:
		return c.check(ctx, key)
	case len(below) == 0 && o.GetSize() > 0:
		return missing, nil
	case size != o.GetSize():
		return different(fmt.Sprintf("%d bytes", size), fmt.Sprint(o.GetSize())), nil
	case !hash || len(below) > maxHashedFiles:
		return c.check(ctx, key)
	case len(below) == 0: // a listing does not show a folder without files, which an output may be
		if problem, err := c.check(ctx, key); problem != "" || err != nil {
			return problem, err
		}
	}
	for i := range below {
		if below[i].SHA256, err = c.hash(ctx, below[i].Key); errors.Is(err, aloft.ErrNotFound) {
			return missing, nil // deleted since it was listed
		} else if err != nil {
			return "", err
		}
	}
	if now, _ := blob.DigestBelow(key, below); now != o.GetDigest() {
		return different(now, o.GetDigest()), nil
	}
	return "", nil
}

// hash reads an object. The digest that Stat has was taken when it was written, and a disk does not tell what it lost since.
func (c *Catalog) hash(ctx context.Context, key blob.Key) (string, error) {
	r, err := c.Blob.Get(ctx, key, blob.Range{})
	if err != nil {
		return "", err
	}
	defer r.Close()
	d := blob.NewDigest()
	if err := copyAll(ctx, d, r); err != nil {
		return "", fmt.Errorf("read object %s: %w", key, blob.Unavailable(err))
	}
	return d.Attributes().SHA256, nil
}

// copyAll is io.Copy that ends with ctx.
func copyAll(ctx context.Context, w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}))
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (c *Catalog) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c *Catalog) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// use remembers that a result was found, for the next NoteUses: a write for each hit would cost more than the hit.
func (c *Catalog) use(id string) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used == nil {
		c.used = map[string]time.Time{}
	}
	c.used[id] = now
}

// maxBatch is how many results one call to the store changes.
const maxBatch = 500

// NoteUses writes down which results were found since it was last called. What cannot be written now is tried again the next
// time; the time written is that of the latest use in a batch.
func (c *Catalog) NoteUses(ctx context.Context) error {
	c.mu.Lock()
	used := c.used
	c.used = nil
	c.mu.Unlock()

	ids := make([]string, 0, min(len(used), maxBatch))
	for len(used) > 0 {
		ids = ids[:0]
		var latest time.Time
		for id, at := range used {
			if ids = append(ids, id); at.After(latest) {
				latest = at
			}
			if len(ids) == maxBatch {
				break
			}
		}
		if err := c.Store.UsedResults(ctx, ids, latest); err != nil {
			c.mu.Lock()
			maps.Copy(used, c.used) // what was used meanwhile is later
			c.used = used
			c.mu.Unlock()
			return fmt.Errorf("note uses of %d results: %w", len(used), err)
		}
		for _, id := range ids {
			delete(used, id)
		}
	}
	return nil
}
