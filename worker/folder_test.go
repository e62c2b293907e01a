package worker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestTheSocketFolderMustBeOurs is about an attack: another user makes the folder for short sockets before us, with the right mode,
// and later puts a socket of his own in the place of the supervisor's.
func TestTheSocketFolderMustBeOurs(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	f, err := newFolder(deep)
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp("", "sock") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	t.Setenv("XDG_RUNTIME_DIR", base)
	dir := filepath.Join(base, "aloft-"+strconv.Itoa(os.Getuid()))
	path, err := f.socket()
	if err != nil || filepath.Dir(path) != dir {
		t.Fatalf("a folder that we make: %s, %v", path, err)
	}
	if again, err := f.socket(); err != nil || again != path {
		t.Errorf("the recorded socket: %s, %v, want %s", again, err, path)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"recorded", "new"} {
			if path, err := f.socket(); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
				t.Errorf("%s folder of another user: %s, %v, want a refusal", when, path, err)
			}
			_ = os.Remove(filepath.Join(f.dir, "sock.path"))
		}
	}
	theirs := filepath.Join(base, "theirs")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(theirs, 0o700), os.Symlink(theirs, dir)); err != nil {
		t.Fatal(err)
	}
	if path, err := f.socket(); err == nil {
		t.Errorf("a link to a folder: %s, want a refusal", path)
	}
}

func TestLinksToDataFoldersThatAreGoneAreSwept(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	short, err := os.MkdirTemp("", "links") //nolint:usetesting // links are made for the sake of short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	t.Setenv("TMPDIR", short)
	folder := func(name string) string {
		dir := filepath.Join(short, strings.Repeat("a-long-name-", 6), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	link := func(dir string) string {
		path, err := ShortPath(dir)
		if err != nil || path == dir {
			t.Fatalf("the short path of %s is %s, %v", dir, path, err)
		}
		return path
	}
	gone, kept := folder("gone"), folder("kept")
	goneLink, keptLink := link(gone), link(kept)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	newLink := link(folder("new"))
	if _, err := os.Lstat(goneLink); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link to a folder that is gone: %v", err)
	}
	for _, path := range []string{keptLink, newLink} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
