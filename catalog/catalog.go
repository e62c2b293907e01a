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

// Catalog finds results whose objects are there, and removes results beyond the limits. Its methods may be called from any
// goroutine.
type Catalog struct {
	Store  Store
	Blob   blob.Store
	Limits Limits
	Log    *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now

	mu   sync.Mutex
	used map[string]time.Time // results that were found since the last NoteUses, and when, by their ids
}

// Bounds of what Find reads of a result to compare hashes. An object is immutable and the blob store has synced it, so damage is
// rare: a user's rm or editor, or a disk. A deleted or cut object shows in its size, which is always compared and costs one
// listing of the folder. Hashes find all other damage, and these bounds keep a hit far cheaper than most tasks: 64 MiB are read
// and hashed in a tenth of a second. Beyond them the blob store's own record decides, as it does when a task is given the
// object: a hit that no task can use would be found again by each recovery.
const (
	maxHashedObject = 16 << 20 // bytes of an object, or of all objects in a folder
	maxHashedResult = 64 << 20 // bytes of all objects of a result
	maxHashedFiles  = 1000     // files of a folder: each has to be opened
	verifyAtOnce    = 8        // objects of a result that are verified at once
)

// Find is the result that an id names, with all of its objects verified. nil: a miss; then reason says why the result that the
// store had was removed, or is empty if the store had none. A store or a blob store that cannot answer is an error.
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

// Ahead are the results that the store has for several ids at this moment, in their order; nil: none. Their objects are not
// verified: the caller must call Use before it uses a result, and soon.
func (c *Catalog) Ahead(ctx context.Context, ids []store.ResultID) ([]*store.Result, error) {
	found, err := c.Store.FindResults(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("find %d results: %w", len(ids), err)
	}
	return found, nil
}

// Use is the second half of Find, for a result that the store had a moment ago: it verifies the result and notes the use. If it
// returns a reason, the result was removed and must not be used.
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
	c.noteUse(e.ID)
	return "", nil
}

// FindOrReserve is Find and, on a miss, asks for the right to compute the result. It returns the result, or else the reservation
// that holds: r.Owner's, or another owner's, and then r.Execution is woken when that one is given back.
//
// Between the miss and the reservation the owner before may have finished. So, when it gets the reservation, FindOrReserve looks
// for the result again, and gives the reservation back if there is one by now.
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
		return nil, held, reason, err // r.Owner keeps the reservation: asking again returns it again
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

// verify verifies every object of a result. problem is that of the first object that is not as it was, in their order.
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
		room     = make(chan struct{}, verifyAtOnce)
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
			if problems[i], errs[i] = c.verifyObject(ctx, o, hash); errs[i] != nil {
				cancel()
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		// The error that cancelled the other checks, not theirs.
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

// unknownSize is the size of an object that was never measured: the blob store's own record decides.
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
		// A result from outside of the engine: no digests were taken of the objects that it refers to.
		for _, key := range referredTo(e.Outputs.GetValue()) {
			objects = append(objects, &aloftv1.ObjectDigest{Uri: key.URI(), Size: unknownSize})
		}
	}
	return objects
}

// verifyObject compares an object, or the objects in a folder, with what was recorded. A listing shows both, and most objects
// that are missing, without reading any content.
func (c *Catalog) verifyObject(ctx context.Context, o *aloftv1.ObjectDigest, hash bool) (problem string, err error) {
	if !strings.HasPrefix(o.GetUri(), blob.Scheme) {
		return "", nil // not in the blob store: it cannot be verified
	}
	different := func(now, was string) string {
		return fmt.Sprintf("its object %s is not what was written: %s, was %s", o.GetUri(), now, was)
	}
	missing := "its object " + o.GetUri() + " is missing"
	key, err := blob.ParseURI(strings.TrimSuffix(o.GetUri(), "/"))
	if err != nil {
		return missing, nil // no object can have such a name
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
			return missing, nil // the object was deleted after the listing
		} else if err != nil {
			return "", err
		}
	}
	if now, _ := blob.DigestBelow(key, below); now != o.GetDigest() {
		return different(now, o.GetDigest()), nil
	}
	return "", nil
}

// hash reads an object and returns its digest. The digest that Stat returns was taken when the object was written: it does not
// show what the disk has damaged since.
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

// noteUse remembers that a result was found, for the next NoteUses: a write for each hit would cost more than the hit.
func (c *Catalog) noteUse(id string) {
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

// NoteUses writes to the store which results were found since it was last called. Uses that cannot be written now are kept for
// the next call; the time that is written is that of the latest use in a batch.
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
			maps.Copy(used, c.used) // uses of the same result meanwhile are later
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
