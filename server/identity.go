package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/store"
)

// A server, its data folder, its database and its blob store belong together, and all of them can be copied, moved, restored
// and mixed up. The functions in this file find that out at the start, when an error can still say what is wrong. They compare:
//
//   - the identity: the name of the server, in the file server.id of the data folder. Its attempts are recorded under this name;
//   - the place: the folder itself, not its path (worker.Place). A folder that was renamed keeps it, until the machine starts again; a
//     copy has the same server.id and another place;
//   - the nonce: a random text of one process. Two processes with one identity have different nonces, and the later process wins;
//   - the id of the blob store: an object in the blob store and a row of the database, which must be equal;
//   - the sign of a server: an object with its nonce, which each server that shares a database leaves in the blob store. A copy of the
//     blob store lacks the signs that the other servers have left since.
//
// For example, a data folder is copied, and the copy started while the original runs on the same PostgreSQL database. The copy
// has the identity of the original and another place. So it waits for maxSilence, sees a heartbeat of the original, and ends
// with twinError.

// identify returns the identity of the server of this data folder, which is made on first use. It moves with the folder, so
// that the next server on the folder finds the attempts of the server before.
func identify(dir string) (string, error) {
	path := filepath.Join(dir, "server.id")
	content, err := os.ReadFile(path)
	if name := strings.TrimSpace(string(content)); err == nil && name != "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", openDataDirError(dir, err)
	}
	name := "process-" + strings.ToLower(rand.Text())[:12]
	temporary := path + ".new"
	if err := os.WriteFile(temporary, []byte(name+"\n"), 0o600); err != nil {
		return "", openDataDirError(dir, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return "", openDataDirError(dir, err)
	}
	return name, nil
}

// maxSilence is how long a server waits for a heartbeat of another process with its identity before it takes that process for
// ended.
const maxSilence = 15 * time.Second

// predecessor returns the nonce of the process that had this identity before; empty: there was none, or it was of release 0.1.0.
// If that process ran on this very folder it has ended, because this process has the lock. If it ran on another folder, this
// folder may be a copy, or was moved to another disk: then the predecessor is given maxSilence for a heartbeat, and if there is one
// the error is twinError.
func (s *Server) predecessor(ctx context.Context, identity, place string) (string, error) {
	before, err := s.instance(ctx, identity)
	sameFolder := before.Place == place || before.Place == s.config.DataDir // release 0.1.0 recorded the path as the place
	if err != nil || before.ID == "" || sameFolder || s.config.Database == "" {
		return before.Nonce, err
	}
	wait := cmp.Or(s.options.maxSilence, maxSilence)
	s.log.Info("the data folder is not where it was: waiting to see whether another server has its name", "name", identity, "at_most", wait)
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return "", err
		}
		now, err := s.instance(ctx, identity)
		if err != nil {
			return "", err
		}
		if now.ID != "" && (now.Nonce != before.Nonce || !now.SeenAt.Equal(before.SeenAt)) {
			return "", s.twinError(identity)
		}
	}
	return before.Nonce, nil
}

// leaseOwner names the engine of a process in leases. Two processes with one identity are different owners.
func leaseOwner(identity, nonce string) string {
	if nonce == "" {
		return identity // release 0.1.0
	}
	return identity + "." + nonce
}

func (s *Server) twinError(identity string) error {
	dir := s.config.DataDir
	return fmt.Errorf("open data folder %s: it is a copy of one whose server runs on the same database (as %s), and both would run every task; "+
		"to add a server, let it share the folder blob and the file signing.key (a mount or links) and delete %s; to replace that server, stop it first",
		dir, identity, filepath.Join(dir, "server.id"))
}

// instance reads the record of an executor; the zero value if there is none.
func (s *Server) instance(ctx context.Context, id string) (store.Instance, error) {
	instances, err := s.store.Instances(ctx)
	if err != nil {
		return store.Instance{}, err
	}
	if i := slices.IndexFunc(instances, func(i store.Instance) bool { return i.ID == id }); i >= 0 {
		return instances[i], nil
	}
	return store.Instance{}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// blobStoreKey is the object with the id of a blob store. It is written once.
const blobStoreKey blob.Key = "installation.id"

// belongTogether refuses a blob store and a database with different ids. If neither has an id, because the installation is new
// or of release 0.1.0, it writes one, in three steps that may be repeated: the id into the database, the id into the blob
// store, and into the database that both have it (sealed). A start that was interrupted in between has an id in the database
// that is not sealed, and the next start goes on. Any other difference is a mistake of the user's.
func (s *Server) belongTogether(ctx context.Context, blobs blob.Store) error {
	for try := 1; ; try++ {
		there, err := smallObject(ctx, blobs, blobStoreKey)
		if err != nil {
			return fmt.Errorf("read the id of the blob store: %w", err)
		}
		id, sealed, err := s.store.BlobStore(ctx)
		if err != nil {
			return err
		}
		switch {
		case id == "" && there == "":
			if id, err = s.store.SetBlobStore(ctx, "blobs-"+strings.ToLower(rand.Text())[:16], false); err != nil {
				return err
			}
		case there == "" && !sealed, there != "" && there == id:
			if sealed {
				return nil
			}
		case try < 2: // another server may have written the id between the two reads: read again
			continue
		default:
			return s.strangersError(id, there)
		}
		if _, err := blobs.Put(ctx, blobStoreKey, strings.NewReader(id+"\n"), blob.PutOptions{}); err != nil {
			return fmt.Errorf("give the blob store its id: %w", err)
		}
		_, err = s.store.SetBlobStore(ctx, id, true)
		return err
	}
}

// strangersError says that the ids of database and blob store differ, how to correct that, and how to go on if the user wants
// it so.
func (s *Server) strangersError(database, blobs string) error {
	folder := filepath.Join(s.config.DataDir, "blob")
	file := filepath.Join(folder, string(blobStoreKey))
	name := "the database " + s.database()
	takeUp := fmt.Sprintf("rm -f %s && echo %s > %[1]s", file, database)
	switch {
	case database == "":
		return fmt.Errorf("open %s: it is new, and %s has the files of another installation; name the database that they belong to (--database), or another "+
			"data folder (--data-dir); to use the files with the new database: rm %s", name, folder, file)
	case blobs == "":
		return fmt.Errorf("open blob folder %s: it is empty, and %s refers to files in another one; mount, link or restore that folder (servers that share a "+
			"database share it); if it was deleted on purpose, go on without its files: %s", folder, name, takeUp)
	default:
		return fmt.Errorf("open blob folder %s: it has the files of another installation (%s) than %s (%s); mount, link or restore the folder that belongs "+
			"to it; if this is the one, say so: %s", folder, blobs, name, database, takeUp)
	}
}

func smallObject(ctx context.Context, blobs blob.Store, key blob.Key) (string, error) {
	content, err := blob.ReadAll(ctx, blobs, key, 1<<10)
	if errors.Is(err, aloft.ErrNotFound) {
		return "", nil
	}
	return strings.TrimSpace(string(content)), err
}

// shareBlobs leaves the sign of this server in the blob store, and refuses a blob store that is a copy of the one that the other
// servers of the database use: objects that they write would be missing here.
func (s *Server) shareBlobs(ctx context.Context, blobs blob.Store, identity, nonce string) error {
	if s.config.Database == "" {
		return nil
	}
	if _, err := blobs.Put(ctx, witnessKey(identity), strings.NewReader(nonce), blob.PutOptions{Overwrite: true}); err != nil {
		return fmt.Errorf("leave a sign in the blob store: %w", err)
	}
	others, err := s.store.Instances(ctx)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.ID == identity || other.Nonce == "" {
			continue
		}
		if err := s.sharesWith(ctx, blobs, other); err != nil {
			return err
		}
	}
	return nil
}

// sharesWith looks for the sign of another server. If its current sign is missing, the server has ended, or it uses another
// blob store: a heartbeat within maxSilence tells that it lives, and is an error.
func (s *Server) sharesWith(ctx context.Context, blobs blob.Store, other store.Instance) error {
	seen := other.SeenAt
	for deadline := time.Now().Add(cmp.Or(s.options.maxSilence, maxSilence)); ; {
		sign, err := smallObject(ctx, blobs, witnessKey(other.ID))
		switch {
		case err != nil:
			return fmt.Errorf("look for the other servers of the database in the blob store: %w", err)
		case sign == other.Nonce || other.ID == "":
			return nil
		case !other.SeenAt.Equal(seen):
			return fmt.Errorf("open blob folder %s: it is not the one of server %s, which runs on the same database, but perhaps a copy; servers that share "+
				"a database share the folder blob and the file signing.key (a mount or links)", filepath.Join(s.config.DataDir, "blob"), other.ID)
		case time.Now().After(deadline):
			return nil // the other server has ended
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if other, err = s.instance(ctx, other.ID); err != nil {
			return err
		}
	}
}

func witnessKey(identity string) blob.Key { return blob.Key("servers/" + identity) }
