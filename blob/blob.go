// Package blob keeps bytes under location-free names. It stands at the end of the flow, after worker (which writes a
// task's outputs) and before nothing: engine, catalog, bundle, registry and api read from it.
//
// # Names
//
// An object's one name is its [Key], a slash path; in a literal, a record or a journal it is written as a URI,
// aloft://blob/<key>, without folder, host or port. So a data folder may move and a port may change while every old run
// stays readable. The URI is rendered at the edges by a [Renderer]: a local path for a task on this machine, a signed
// HTTP link for a client; and the paths and links that a task or a client returns are rendered back. URIs that are not ours
// (s3://, gs://, https:// of another server) pass unchanged in both directions.
//
// # Durability
//
// Promise P2 (downstream starts only after all upstream outputs are durable) rests on two sentences of the contract of
// [Store] and [Local]: when Put returns nil the object survives a power cut, and when Adopt returns nil everything that a
// task wrote in place below that prefix does. Until then an object is either absent or complete, never partial. When the
// disk fails (full, read-only, no permission) the error wraps aloft.ErrUnavailable and says in one sentence what to
// do; callers retry the operation, not the task.
//
// # Links
//
// [Handler] serves links signed by a [Signer]. The signature is a path segment and not a query because flytekit reads
// links through fsspec, pandas and os.path.join, which append to them. The doc of [Handler] says what those clients do.
//
// A backend is a package of its own: blob/folder keeps objects as plain files. blob/blobtest holds the suite that every
// backend must pass, and stores that fail or forget on demand.
package blob

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"iter"
	"time"

	"github.com/aloft-dev/aloft"
)

// Store keeps immutable objects by key. Implementations are safe for concurrent use, also from several processes.
//
// Errors wrap aloft.ErrNotFound (no such object), aloft.ErrExists (the key is taken by other content),
// aloft.ErrInvalid (the bytes are not the ones announced) or aloft.ErrUnavailable (the backend cannot do its part now).
type Store interface {
	// Put stores what r yields and returns once it is durable. When it returns an error nothing of r is visible under
	// the key, except that after a crash, or an aloft.ErrUnavailable at the last step, the complete object may be there:
	// putting it again then changes nothing. Put reads r to the end; an error of r is returned as *ReadError.
	//
	// An object never changes: putting the same bytes again succeeds, other bytes give aloft.ErrExists, unless
	// PutOptions says otherwise.
	Put(ctx context.Context, key Key, r io.Reader, o PutOptions) (Attributes, error)

	// Get opens the object for reading. The zero Range is the whole object. The caller closes the reader.
	Get(ctx context.Context, key Key, rng Range) (io.ReadCloser, error)

	// Stat returns the object's attributes, digests included; a backend that did not record them reads the object.
	Stat(ctx context.Context, key Key) (Attributes, error)

	// Check returns nil if the object with this key, or the folder with everything below it, is as it was stored. It compares
	// with the record that the backend made when the object was stored, and reads content only where file and record differ;
	// an object without a record passes. Nothing at key is aloft.ErrNotFound. An object that was changed is
	// aloft.ErrConflict, and so is an adopted folder in which a file was removed, added or exchanged since.
	Check(ctx context.Context, key Key) error

	// List yields the objects whose key is prefix or is below it, segment by segment ("a/b" yields "a/b" and "a/b/c",
	// not "a/bc"), in the order of their segments. The empty prefix is everything. A prefix with nothing below yields
	// nothing. After an error the sequence ends.
	List(ctx context.Context, prefix Key) iter.Seq2[Entry, error]

	// Delete removes one object. An absent one is no error.
	Delete(ctx context.Context, key Key) error
}

// Local is a Store whose objects are files on this machine: tasks read them by path, and write raw outputs in place.
type Local interface {
	Store

	// Path returns the absolute path of the object or prefix, whether or not it exists.
	Path(key Key) string

	// KeyOf is the inverse of Path. It is false for a path outside of the store and for one that is no valid key.
	KeyOf(path string) (Key, bool)

	// Adopt makes all files durable that a process has written in place at or below prefix, and returns them as objects with
	// their digests, in the order of List. If nothing was written there the result is empty. Adopting again is harmless. A
	// symbolic link to a file becomes a copy of the file; other things that are neither file nor folder are refused with
	// aloft.ErrInvalid, which names all of them. A file that changes meanwhile gives aloft.ErrConflict: the writer still runs.
	Adopt(ctx context.Context, prefix Key) ([]Object, error)

	// Private makes dst, which must not exist, a copy of the object with this key, or of the folder with everything below
	// it: writable, and without any connection to what is stored. It is cheap for any size where the file system can
	// share blocks. Objects must not change while Private runs. An object for which Check has an error is not copied, and the
	// error is the same; files that were copied before that stay.
	Private(ctx context.Context, key Key, dst string) error
}

// PutOptions say what the caller knows about the bytes, and what is to happen if the key is taken. The zero value: nothing is
// known, and a key that is taken by other content is aloft.ErrExists.
type PutOptions struct {
	ContentMD5 []byte // 16 bytes; the content must have this digest, else aloft.ErrInvalid and nothing is stored
	SHA256     string // "sha256:<hex>"; the same for this digest; empty means unknown
	Size       *int64 // the same for the size; nil means unknown
	IfAbsent   bool   // an object with the same content is aloft.ErrExists, too
	Overwrite  bool   // replace an object with other content, atomically
}

// Attributes describe one object.
type Attributes struct {
	Size    int64
	SHA256  string // "sha256:" and 64 lower-case hex digits
	MD5     []byte // 16 bytes
	ModTime time.Time
}

// Entry is an object as a listing shows it: without digests, which may need the content.
type Entry struct {
	Key     Key
	Size    int64
	ModTime time.Time
}

// Object is a key with the attributes of its object.
type Object struct {
	Key Key
	Attributes
}

// Range selects Length bytes from Offset. Length 0 means up to the end; a range that reaches beyond the end is cut.
type Range struct{ Offset, Length int64 }

// Digest computes an object's size and digests while its bytes pass through Write.
type Digest struct {
	sha, md hash.Hash
	size    int64
}

func NewDigest() *Digest { return &Digest{sha: sha256.New(), md: md5.New()} }

func (d *Digest) Write(p []byte) (int, error) {
	d.sha.Write(p)
	d.md.Write(p)
	d.size += int64(len(p))
	return len(p), nil
}

// Attributes returns size and digests of the bytes that were written so far.
func (d *Digest) Attributes() Attributes {
	return Attributes{Size: d.size, SHA256: "sha256:" + hex.EncodeToString(d.sha.Sum(nil)), MD5: d.md.Sum(nil)}
}

// Check compares the attributes of the received bytes with those that the options announce.
func (o PutOptions) Check(key Key, got Attributes) error {
	switch {
	case o.Size != nil && *o.Size != got.Size:
		return fmt.Errorf("%w: object %s: received %d bytes instead of the announced %d; send it again", aloft.ErrInvalid, key, got.Size, *o.Size)
	case o.ContentMD5 != nil && string(o.ContentMD5) != string(got.MD5):
		return fmt.Errorf("%w: object %s: the MD5 of the received %d bytes is %x, announced was %x; send it again", aloft.ErrInvalid, key, got.Size, got.MD5, o.ContentMD5)
	case o.SHA256 != "" && o.SHA256 != got.SHA256:
		return fmt.Errorf("%w: object %s: the digest of the received %d bytes is %s, announced was %s; send it again", aloft.ErrInvalid, key, got.Size, got.SHA256, o.SHA256)
	}
	return nil
}

// Verify reads the object and compares its content with a recorded digest. A cache verifies an object before it serves it: the
// object may have been deleted (aloft.ErrNotFound) or damaged (aloft.ErrConflict).
func Verify(ctx context.Context, s Store, key Key, sha256 string) error {
	r, err := s.Get(ctx, key, Range{})
	if err != nil {
		return err
	}
	defer r.Close()
	d := NewDigest()
	if _, err := io.Copy(d, r); err != nil {
		return fmt.Errorf("read object %s: %w", key, err)
	}
	if got := d.Attributes().SHA256; got != sha256 {
		return fmt.Errorf("%w: object %s: its content has digest %s, recorded was %s", aloft.ErrConflict, key, got, sha256)
	}
	return nil
}

// ReadAll reads the whole of a small object. An object above limit bytes is refused with aloft.ErrExhausted.
func ReadAll(ctx context.Context, s Store, key Key, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, Range{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", key, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: object %s has more than %d bytes", aloft.ErrExhausted, key, limit)
	}
	return b, nil
}
