package folder

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
)

// failingDisk is a disk on which one kind of call fails, as on a full or broken one.
type failingDisk struct {
	osDisk
	create, write, sync, syncDir error
}

func (d failingDisk) CreateTemp(dir string) (file, error) {
	if d.create != nil {
		return nil, d.create
	}
	f, err := d.osDisk.CreateTemp(dir)
	return failingFile{f, d}, err
}

func (d failingDisk) SyncDir(path string) error {
	if d.syncDir != nil {
		return d.syncDir
	}
	return d.osDisk.SyncDir(path)
}

type failingFile struct {
	file
	d failingDisk
}

func (f failingFile) Write(p []byte) (int, error) {
	if f.d.write != nil {
		return 0, f.d.write
	}
	return f.file.Write(p)
}

func (f failingFile) Sync() error {
	if f.d.sync != nil {
		return f.d.sync
	}
	return f.file.Sync()
}

func TestADiskThatCannotSaysTheWayOutAndThePutCanBeRepeated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		disk   failingDisk
		advice string
	}{
		"full":                         {failingDisk{write: syscall.ENOSPC}, "free some space"},
		"over quota":                   {failingDisk{write: syscall.EDQUOT}, "free some space"},
		"full when the data is synced": {failingDisk{sync: syscall.ENOSPC}, "free some space"},
		"read-only":                    {failingDisk{create: syscall.EROFS}, "remount it writable"},
		"not ours":                     {failingDisk{create: syscall.EACCES}, "give its user permission"},
		"broken at the last step":      {failingDisk{syncDir: syscall.EIO}, "check its health"},
	} {
		s, err := Open(filepath.Join(t.TempDir(), "blob"))
		if err != nil {
			t.Fatal(err)
		}
		s.disk = c.disk
		_, err = s.Put(t.Context(), "a/b", strings.NewReader("x"), blob.PutOptions{})
		if !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(err.Error(), c.advice) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want ErrUnavailable and %q in one sentence", name, err, c.advice)
		}
		s.disk = osDisk{}
		if _, err := s.Put(t.Context(), "a/b", strings.NewReader("x"), blob.PutOptions{}); err != nil {
			t.Errorf("%s, later: %v", name, err)
		}
	}
}
