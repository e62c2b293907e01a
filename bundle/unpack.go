package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
)

// pickleName is what flytekit calls a notebook's code, in the store and in the working folder (PICKLE_FILE_PATH).
const pickleName = "pkl.gz"

// unpackFunc fills a folder from an archive.
type unpackFunc func(dir *os.Root, r io.Reader, limits Limits) (unpackResult, error)

// unpackResult is the result of unpacking an archive.
type unpackResult struct {
	size    int64    // bytes of its files
	omitted []string // entries that were left out, each with the reason
}

// unpackInto unpacks an archive into a folder and checks its digest. It reads the archive only once, so that the unpacked bytes are
// those of the digest.
func (c *Cache) unpackInto(ctx context.Context, dir string, key blob.Key, digest string, unpack unpackFunc) (unpackResult, error) {
	r, err := c.store.Get(ctx, key, blob.Range{})
	if err != nil {
		return unpackResult{}, err
	}
	defer r.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return unpackResult{}, err
	}
	defer func() { _ = root.Close() }()
	seen := blob.NewDigest()
	archive := io.TeeReader(r, seen)
	u, err := unpack(root, archive, c.limits)
	if err != nil {
		return unpackResult{}, err
	}
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return unpackResult{}, fmt.Errorf("read archive: %w", err)
	}
	if got := seen.Attributes().SHA256; got != digest {
		return unpackResult{}, fmt.Errorf("%w: the archive has digest %s now, it was stored with %s; register the code again", aloft.ErrConflict, got, digest)
	}
	return u, syncTree(dir)
}

func unpackPickle(dir *os.Root, r io.Reader, limits Limits) (unpackResult, error) {
	f, err := dir.OpenFile(pickleName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return unpackResult{}, err
	}
	defer f.Close()
	n, err := io.Copy(f, io.LimitReader(r, limits.Bytes+1))
	if err == nil && n > limits.Bytes {
		err = tooLarge(limits)
	}
	return unpackResult{size: n}, err
}

// unpackArchive unpacks a tar archive, gzipped or not, as tar does: like Flyte it makes symbolic links to any target, also to none.
// No file is written through a link, since links are made last. Besides, the folder is an os.Root, so that even a mistake here
// cannot make the system follow a name out of it. Entries that cannot be made are omitted by name.
func unpackArchive(dir *os.Root, r io.Reader, limits Limits) (unpackResult, error) {
	source := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := source.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(source)
		if err != nil {
			return unpackResult{}, malformed(err)
		}
		defer func() { _ = unzipped.Close() }()
		return unpackTar(dir, unzipped, limits)
	}
	return unpackTar(dir, source, limits)
}

func unpackTar(dir *os.Root, r io.Reader, limits Limits) (unpackResult, error) {
	u := &unpacker{dir: dir, limits: limits, links: map[string]string{}, counted: map[string]bool{}}
	// The limits also hold for sparse entries and long runs of headers: the bytes that the reader yields are counted.
	archive, entries := tar.NewReader(r), 0
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return unpackResult{}, malformed(err)
		}
		entries++
		if err := u.count(1, 0); err != nil {
			return unpackResult{}, err
		}
		if err := u.entry(h, archive); err != nil {
			return unpackResult{}, err
		}
	}
	if entries == 0 {
		// A tar archive without entries is legal: zeros, up to 10 KiB of them from Python. A file that is no archive may seem to have no
		// entries, too, but then not all of it is zeros.
		rest, err := io.ReadAll(io.LimitReader(r, 64<<10))
		if err != nil {
			return unpackResult{}, malformed(err)
		}
		if len(bytes.Trim(rest, "\x00")) > 0 {
			return unpackResult{}, malformed(errors.New("no entries"))
		}
	}
	if err := u.finish(); err != nil {
		return unpackResult{}, err
	}
	return u.unpackResult, nil
}

func malformed(err error) error {
	return fmt.Errorf("%w: it is neither a tar archive nor a gzipped one (%w); upload the code again", aloft.ErrInvalid, err)
}

func tooLarge(limits Limits) error {
	return fmt.Errorf("%w: it holds more than %d bytes; exclude data and environments with .dockerignore or .gitignore", aloft.ErrExhausted, limits.Bytes)
}

// unpacker unpacks one tar archive.
type unpacker struct {
	unpackResult
	dir     *os.Root
	limits  Limits
	files   int               // entries so far, and folders above them without an entry
	names   int               // bytes of their paths, and of the targets of links
	counted map[string]bool   // folders that files counts already
	folders []madeFolder      // whose times and modes are set last: a file that is made in a folder changes its time
	links   map[string]string // targets of symbolic links by name; they are made last, so that no file is written through a link
}

// madeFolder is a folder with an entry in the archive.
type madeFolder struct {
	name string
	mode fs.FileMode
	time time.Time
}

// The limits of a path and its parts, in bytes. Systems take paths of 4,096 bytes: the rest is for the path of the folder in which an
// attempt has its copy.
const (
	maxPath = 3 << 10
	maxName = 255
)

// maxNames bounds the bytes of all paths together. The paths are kept in memory for the copies of a bundle, and each use of a path
// through a thousand folders costs a thousand look-ups.
const maxNames = 16 << 20

// count adds to files and names, and returns an error if they are above the limits.
func (u *unpacker) count(files, names int) error {
	u.files, u.names = u.files+files, u.names+names
	switch {
	case u.files > u.limits.Files:
		return fmt.Errorf("%w: the archive has more than %d files and folders; exclude data and environments with .dockerignore or .gitignore", aloft.ErrExhausted, u.limits.Files)
	case u.names > maxNames:
		return fmt.Errorf("%w: the paths in the archive have more than %d MiB together; exclude data and environments with .dockerignore or .gitignore", aloft.ErrExhausted, maxNames>>20)
	}
	return nil
}

// countAbove counts the folders above an entry, each once: an archive need not have entries for them, and a path may go through a
// thousand.
func (u *unpacker) countAbove(name string) error {
	for dir := path.Dir(name); dir != "." && !u.counted[dir]; dir = path.Dir(dir) {
		u.counted[dir] = true
		if err := u.count(1, len(dir)); err != nil {
			return err
		}
	}
	return nil
}

// tooLong says which part of a path is too long, as the end of a sentence; empty: none.
func tooLong(name string) string {
	if len(name) > maxPath {
		return fmt.Sprintf("is a path of %d bytes, the limit is %d", len(name), maxPath)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return fmt.Sprintf("has a name of %d bytes, the limit is %d", len(part), maxName)
		}
	}
	return ""
}

// omit notes that an entry is left out.
func (u *unpacker) omit(name, why string) {
	const most = 20
	if len(u.omitted) < most {
		u.omitted = append(u.omitted, fmt.Sprintf("%q %s", aloft.Excerpt(name), why))
	} else if len(u.omitted) == most {
		u.omitted = append(u.omitted, "…")
	}
}

// entry makes the file or folder of an entry, or notes it for finish.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	}
	name := path.Clean(h.Name)
	switch {
	case path.IsAbs(h.Name):
		u.omit(h.Name, "is an absolute path")
		return nil
	case !filepath.IsLocal(name), strings.Contains(h.Name, "\x00"):
		u.omit(h.Name, "leads out of the archive")
		return nil
	}
	if why := tooLong(name); why != "" {
		u.omit(h.Name, why)
		return nil
	}
	if len(h.Linkname) > maxPath {
		u.omit(h.Name, fmt.Sprintf("links to a path of %d bytes, the limit is %d", len(h.Linkname), maxPath))
		return nil
	}
	if err := u.count(0, len(name)+len(h.Linkname)); err != nil {
		return err
	}
	if err := u.countAbove(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if name != "." {
			u.counted[name] = true
			u.folders = append(u.folders, madeFolder{name, h.FileInfo().Mode().Perm() | 0o700, h.ModTime})
		}
		return u.omitFailed(name, u.dir.MkdirAll(name, 0o755))
	case tar.TypeReg:
		return u.file(name, h, content)
	case tar.TypeLink:
		return u.hardLink(name, h)
	case tar.TypeSymlink:
		u.links[name] = h.Linkname
		return nil
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.omit(h.Name, "is a device or a pipe")
		return nil
	}
	u.omit(h.Name, fmt.Sprintf("is of an unknown kind (%q)", h.Typeflag))
	return nil
}

// omitFailed omits an entry that could not be made, if its name is the reason. It returns errors of the disk, and of limits.
func (u *unpacker) omitFailed(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, aloft.ErrExhausted), errors.Is(err, aloft.ErrInvalid):
		return err
	case isDiskError(err):
		return err
	}
	u.omit(name, fmt.Sprintf("cannot be made: %v", err))
	return nil
}

// make creates a file in the place of an earlier entry with the same name, as tar does.
func (u *unpacker) make(name string, mode fs.FileMode) (*os.File, error) {
	if parent := path.Dir(name); parent != "." {
		if err := u.dir.MkdirAll(parent, 0o755); err != nil {
			return nil, err
		}
	}
	if err := u.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	delete(u.links, name)
	return u.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

func (u *unpacker) file(name string, h *tar.Header, content io.Reader) error {
	if h.Size > u.limits.Bytes-u.size {
		return tooLarge(u.limits)
	}
	mode := h.FileInfo().Mode().Perm() | 0o600
	f, err := u.make(name, mode)
	if err != nil {
		return u.omitFailed(h.Name, err)
	}
	defer f.Close()
	n, err := io.Copy(f, content)
	u.size += n
	if err != nil {
		if isDiskError(err) {
			return err
		}
		return malformed(err)
	}
	if err := f.Chmod(mode); err != nil { // the umask may have taken bits of the mode away
		return err
	}
	return u.dir.Chtimes(name, h.ModTime, h.ModTime)
}

// hardLink copies the file that a hard link leads to. tar writes a hard link for a file that had two names; code does not depend on
// their being one file.
func (u *unpacker) hardLink(name string, h *tar.Header) error {
	target := path.Clean(h.Linkname)
	if path.IsAbs(h.Linkname) || !filepath.IsLocal(target) {
		u.omit(h.Name, fmt.Sprintf("links to %q outside of the archive", h.Linkname))
		return nil
	}
	if link, ok := u.links[target]; ok {
		u.links[name] = link
		return nil
	}
	info, err := u.dir.Lstat(target)
	if err != nil || !info.Mode().IsRegular() || target == name {
		u.omit(h.Name, fmt.Sprintf("links to %q, which is no file before it in the archive", h.Linkname))
		return nil
	}
	from, err := u.dir.Open(target)
	if err != nil {
		return u.omitFailed(h.Name, err)
	}
	defer from.Close()
	copied := *h
	copied.Typeflag, copied.Size, copied.Mode, copied.ModTime = tar.TypeReg, info.Size(), int64(info.Mode().Perm()), info.ModTime()
	return u.file(name, &copied, from)
}

// link makes a symbolic link in the place of an earlier entry with the same name.
func (u *unpacker) link(name, target string) error {
	if parent := path.Dir(name); parent != "." {
		if err := u.dir.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	if err := u.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return u.dir.Symlink(target, name)
}

// finish makes the symbolic links, and sets modes and times of the folders.
func (u *unpacker) finish() error {
	for _, name := range slices.Sorted(maps.Keys(u.links)) {
		if err := u.omitFailed(name, u.link(name, u.links[name])); err != nil {
			return err
		}
	}
	for _, f := range slices.Backward(u.folders) {
		info, err := u.dir.Lstat(f.name)
		if err != nil || !info.IsDir() {
			continue // a later entry has taken the place of the folder
		}
		if err := errors.Join(u.dir.Chmod(f.name, f.mode), u.dir.Chtimes(f.name, f.time, f.time)); err != nil {
			return err
		}
	}
	return nil
}

// isDiskError says whether an error is the disk's and not the archive's.
func isDiskError(err error) bool {
	var wrapped *fs.PathError
	for _, sign := range diskErrors {
		if errors.Is(err, sign) {
			return true
		}
	}
	return errors.As(err, &wrapped) && wrapped.Op == "write"
}

// syncTree makes all files and folders durable before their folder gets its final name. Without that a power cut might leave a bundle
// of empty files, which would be used for ever.
func syncTree(dir string) error {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || d.Type().IsRegular()) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	next := make(chan string)
	errs := make(chan error, len(paths))
	var workers sync.WaitGroup
	for range min(16, len(paths)) {
		workers.Go(func() {
			for path := range next {
				f, err := os.Open(path)
				if err == nil {
					err = errors.Join(f.Sync(), f.Close())
				}
				errs <- err
			}
		})
	}
	for _, path := range paths {
		next <- path
	}
	close(next)
	workers.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}
