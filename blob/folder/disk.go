package folder

import (
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aloft-dev/aloft/blob"
)

// disk makes all changes of the store to the file system, and opens objects. A test uses a disk that loses everything that was not
// synced, or that does not answer.
type disk interface {
	Open(root, key string) (*os.File, error) // to read it; see openBeneath
	CreateTemp(dir string) (file, error)
	Link(from, to string) error // fails with fs.ErrExist if to exists
	Rename(from, to string) error
	Remove(path string) error
	Mkdir(path string) error
	SyncDir(path string) error
	SyncFile(path string) error
}

// file is a temporary file of Put.
type file interface {
	io.Writer
	Name() string
	Seal(blob.Attributes) (modTime time.Time, err error) // read-only, with its record; nothing is written afterwards
	Sync() error
	Close() error
}

// osDisk is the disk of the operating system.
type osDisk struct{}

func (osDisk) Open(root, key string) (*os.File, error) { return openBeneath(root, key) }

func (osDisk) CreateTemp(dir string) (file, error) {
	f, err := os.CreateTemp(dir, "put-*")
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) Link(from, to string) error { return os.Link(from, to) }

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove is unlink alone: a folder is never removed by mistake.
func (osDisk) Remove(path string) error {
	if err := syscall.Unlink(path); err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

func (osDisk) Mkdir(path string) error    { return os.Mkdir(path, 0o700) }
func (osDisk) SyncDir(path string) error  { return syncPath(path) }
func (osDisk) SyncFile(path string) error { return syncPath(path) }

func syncPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // O_NONBLOCK: a pipe may have taken the file's place
	if err != nil {
		return err
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

type osFile struct{ *os.File }

func (f osFile) Seal(a blob.Attributes) (time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	writeRecord(f.File, info, a)
	return info.ModTime(), f.Chmod(0o400)
}

// recordName is the extended attribute with the digests of a file.
const recordName = "user.aloft.digest"

// writeRecord records the attributes of a file. It may fail silently: not every file system has extended attributes, and Stat can do
// without a record.
func writeRecord(f *os.File, info fs.FileInfo, a blob.Attributes) {
	record := fmt.Sprintf("1 %d %d %d %s %x", a.Size, info.ModTime().UnixNano(), inode(info), a.SHA256, a.MD5)
	_ = unix.Fsetxattr(int(f.Fd()), recordName, []byte(record), 0)
}

// renewRecord records the attributes of an object again, after its content was found to be as recorded although inode, size or time
// are not. The file is made writable for that: its owner may set an attribute only then.
func renewRecord(f *os.File, info fs.FileInfo, a blob.Attributes) {
	if err := f.Chmod(0o600); err == nil {
		writeRecord(f, info, a)
	}
	_ = f.Chmod(0o400)
}

// listingName is the extended attribute of a folder with the digest of all that was stored below it.
const listingName = "user.aloft.listing"

// writeListing records the digest of a folder's listing. Like writeRecord, it may fail silently.
func writeListing(dir string, key blob.Key, below []blob.Object) {
	digest, _ := blob.DigestBelow(key, below)
	_ = unix.Lsetxattr(dir, listingName, []byte("1 "+digest), 0)
}

// readListing returns the recorded digest of all that is below a folder; empty: none was recorded.
func readListing(dir string) string {
	buf := make([]byte, 128)
	n, err := unix.Lgetxattr(dir, listingName, buf)
	if err != nil {
		return ""
	}
	digest, ok := strings.CutPrefix(string(buf[:n]), "1 ")
	if !ok {
		return ""
	}
	return digest
}

// recordState says whether a file has a record, and whether the record fits the file.
type recordState int

const (
	noRecord    recordState = iota
	staleRecord             // the record was made for another file, or before the file was changed
	validRecord             // the record was made for the file as it is now
)

// readRecord returns the recorded attributes.
func readRecord(f *os.File, info fs.FileInfo) (blob.Attributes, recordState) {
	buf := make([]byte, 256)
	n, err := unix.Fgetxattr(int(f.Fd()), recordName, buf)
	if err != nil {
		return blob.Attributes{}, noRecord
	}
	var (
		a             blob.Attributes
		nanos         int64
		number        uint64
		version, text string
	)
	if _, err := fmt.Sscan(string(buf[:n]), &version, &a.Size, &nanos, &number, &a.SHA256, &text); err != nil {
		return blob.Attributes{}, noRecord
	}
	if a.MD5, err = hex.DecodeString(text); err != nil || version != "1" {
		return blob.Attributes{}, noRecord
	}
	a.ModTime = info.ModTime()
	if a.Size != info.Size() || nanos != info.ModTime().UnixNano() || number != inode(info) {
		return a, staleRecord
	}
	return a, validRecord
}

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Ino) //nolint:unconvert // another type on other systems
	}
	return 0
}

func inodeOf(path string) uint64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return inode(info)
}

// capacityOf is how many bytes the disk of a path has in all. A sparse file may claim more.
func capacityOf(path string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil || s.Blocks == 0 {
		return math.MaxInt64
	}
	return int64(min(s.Blocks, math.MaxInt64/uint64(s.Bsize)) * uint64(s.Bsize))
}
