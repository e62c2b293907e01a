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
// and mixed up. What follows tells the original from the copy at the start, where a sentence can say what is wrong:
//
//   - server.id in the data folder is the name of the server, under which its attempts are found again;
//   - the place is the folder itself, wherever it was moved to: a copy has the same server.id and another place;
//   - the nonce is the process: two that have one name are told apart by it, and the later one wins;
//   - the id of the blob store is an object in it and a row of the database;
//   - in the blob store each server that shares a database leaves its nonce, so that a copy of the blob store is told from
//     the one that is shared.

// identify returns the name under which the executor of this data folder is known, made on first use. It moves with the
// folder, so that a server which follows another one finds what that one had.
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

// quiet is how long a process that has our name must not have been heard before we take its place.
const quiet = 15 * time.Second

// predecessor returns the nonce of the process that was this instance before; empty: there was none, or one of release
// 0.1.0. The lock of the data folder says that a process of this very folder has ended. One that ran on another folder, of
// which ours is a copy (or which ours was before it was moved to another disk), is given the time for a heartbeat.
func (s *Server) predecessor(ctx context.Context, identity, place string) (string, error) {
	before, err := s.instance(ctx, identity)
	ours := before.Place == place || before.Place == s.config.DataDir // release 0.1.0 took the path for the folder
	if err != nil || before.ID == "" || ours || s.config.Database == "" {
		return before.Nonce, err
	}
	wait := cmp.Or(s.options.quiet, quiet)
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

// leaseOwner names the engine of a process. The leases of another process are another's, even if it has our name.
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

// blobStoreKey is where a blob store has its id. It is written once.
const blobStoreKey blob.Key = "installation.id"

// belongTogether refuses a blob store and a database of which one belongs elsewhere. Those of an installation that has no id
// yet, because it is new or of release 0.1.0, get one: first the database, then the blob store, then the database notes
// that both have it. So one without the other is a step that was interrupted, or a mistake.
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
		case try < 2: // another server may be giving both their id just now: it was in between what we read
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

// strangersError says which of the two is wrong and how to go on, also with what was meant so.
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

// shareBlobs refuses a blob store that is a copy of the one that the other servers of the database share: what they write
// would not be found here.
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

// sharesWith looks for the sign of another server, and if there is none, or one of an earlier process, whether it lives.
func (s *Server) sharesWith(ctx context.Context, blobs blob.Store, other store.Instance) error {
	seen := other.SeenAt
	for deadline := time.Now().Add(cmp.Or(s.options.quiet, quiet)); ; {
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
			return nil // it has ended
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
