package worker

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft/internal/private"
)

// folder is the supervisor's part of a data folder.
type folder struct{ dir string }

func newFolder(dataDir string) (folder, error) {
	if dataDir == "" {
		return folder{}, errors.New("find worker folder: no data folder given")
	}
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return folder{}, fmt.Errorf("find worker folder: %w", err)
	}
	f := folder{filepath.Join(abs, "worker")}
	for _, dir := range []string{f.dir, f.claims(), f.learnt()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return folder{}, fmt.Errorf("make worker folder: %w", err)
		}
	}
	return f, nil
}

func (f folder) data() string   { return filepath.Dir(f.dir) }
func (f folder) lock() string   { return filepath.Join(f.dir, "lock") }
func (f folder) log() string    { return filepath.Join(f.dir, "log") }
func (f folder) claims() string { return filepath.Join(f.dir, "claims") }
func (f folder) learnt() string { return filepath.Join(f.dir, "learnt") }
func (f folder) groups() string { return filepath.Join(f.dir, "groups") } // names the folders of our control groups

// maxSocketPath is what fits a socket address on all systems: 104 bytes on darwin, with the end mark.
const maxSocketPath = 100

// socket is where the supervisor listens. A path that is too long for a socket address is replaced by a short one below
// the system's folder for such things. What a running supervisor recorded counts before what we would choose, since
// TMPDIR may differ between it and us.
func (f folder) socket() (string, error) {
	path := filepath.Join(f.dir, "sock")
	if len(path) <= maxSocketPath {
		return path, nil
	}
	record := filepath.Join(f.dir, "sock.path")
	if b, err := os.ReadFile(record); err == nil && len(b) > 0 {
		path := strings.TrimSpace(string(b))
		// A folder that was cleaned away since then is made again below, or the next best one.
		if err := private.Folder(filepath.Dir(path)); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, socketFolderError(err)
		}
	}
	dir, err := shortFolder(60)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, shortHash(f.dir)+".sock")
	if err := os.WriteFile(record, []byte(path+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("record socket path: %w", err)
	}
	return path, nil
}

// shortFolder is a folder of this user alone, whose parent's path has at most so many bytes where the system allows.
func shortFolder(limit int) (string, error) {
	base := os.Getenv("XDG_RUNTIME_DIR") //nolint:forbidigo // where the system wants sockets
	if base == "" || len(base) > limit {
		base = os.TempDir()
	}
	if len(base) > limit {
		base = "/tmp"
	}
	dir := filepath.Join(base, "aloft-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make socket folder: %w", err)
	}
	if err := private.Folder(dir); err != nil {
		return "", socketFolderError(err)
	}
	return dir, nil
}

// maxDataPath bounds the path by which tasks know a data folder. A socket address has room for 107 bytes; libraries put
// their sockets below TMPDIR, Python's multiprocessing with 32 bytes more, and TMPDIR is 27 bytes below the data folder.
const maxDataPath = 48

// ShortPath is a path of at most 48 bytes that leads to a data folder: its own, or that of a link to it in a folder of this
// user alone, which is made when it is missing.
func ShortPath(dataDir string) (string, error) {
	if len(dataDir) <= maxDataPath {
		return dataDir, nil
	}
	dir, err := shortFolder(20)
	if err != nil {
		return "", err
	}
	link := filepath.Join(dir, shortHash(dataDir)[:12])
	if to, err := os.Readlink(link); err == nil && to == dataDir {
		return link, nil
	}
	sweepLinks(dir)
	fresh := link + "." + rand.Text() // then in its place at once: attempts may use the link
	if err := os.Symlink(dataDir, fresh); err != nil {
		return "", fmt.Errorf("make a short path to the data folder: %w", err)
	}
	if err := os.Rename(fresh, link); err != nil {
		return "", fmt.Errorf("make a short path to the data folder: %w", err)
	}
	return link, nil
}

// sweepLinks removes the links to data folders that are not there any more. What cannot be looked at stays.
func sweepLinks(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it is looked at again when the next link is made
	}
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			continue
		}
		link := filepath.Join(dir, e.Name())
		if _, err := os.Stat(link); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(link)
		}
	}
}

// forgetSocket makes the next look for the supervisor find where ours would be, whatever is recorded.
func (f folder) forgetSocket() { _ = os.Remove(filepath.Join(f.dir, "sock.path")) }

// socketFolderError says the way out; nil stays nil.
func socketFolderError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("use socket folder: %w; the supervisor of tasks would be another user's to replace. Remove that folder, or name another one by XDG_RUNTIME_DIR or TMPDIR", err)
}

func shortHash(s ...string) string {
	h := sha256.New()
	for _, part := range s {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}
