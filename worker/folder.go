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
// the system's folder for sockets. The path that a running supervisor has recorded counts before the path that we would choose,
// since TMPDIR may differ between the supervisor and us.
func (f folder) socket() (string, error) {
	path := filepath.Join(f.dir, "sock")
	if len(path) <= maxSocketPath {
		return path, nil
	}
	record := filepath.Join(f.dir, "sock.path")
	if b, err := os.ReadFile(record); err == nil && len(b) > 0 {
		path := strings.TrimSpace(string(b))
		// If the folder was removed since then, a folder is made below.
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

// ShortPath is a path of at most 48 bytes that leads to a data folder: the folder's own path, or a link to it in a folder of this
// user alone. ShortPath makes the link if it is missing.
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
	fresh := link + "." + rand.Text() // made beside, and renamed: attempts may be using the link
	if err := os.Symlink(dataDir, fresh); err != nil {
		return "", fmt.Errorf("make a short path to the data folder: %w", err)
	}
	if err := os.Rename(fresh, link); err != nil {
		return "", fmt.Errorf("make a short path to the data folder: %w", err)
	}
	return link, nil
}

// sweepLinks removes the links to data folders that do not exist any more. A link that cannot be followed for another reason stays.
func sweepLinks(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // tried again when the next link is made
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

// forgetSocket forgets the recorded socket path: the next call of socket returns the path that we would choose.
func (f folder) forgetSocket() { _ = os.Remove(filepath.Join(f.dir, "sock.path")) }

// socketFolderError adds the way out to an error; nil stays nil.
func socketFolderError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("use socket folder: %w; the supervisor of tasks would be another user's to replace. Remove that folder, or name another one by XDG_RUNTIME_DIR or TMPDIR", err)
}

// shortHash is half of the SHA-256 of some texts, in hex.
func shortHash(s ...string) string {
	h := sha256.New()
	for _, part := range s {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}
