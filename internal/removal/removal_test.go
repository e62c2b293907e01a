//go:build linux

package removal_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/aloft-dev/aloft/internal/removal"
)

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

func TestEverythingBelowAPathIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere", "file")
	write(t, elsewhere)
	path := filepath.Join(dir, "tree")
	for i := range 600 {
		write(t, filepath.Join(path, "many", strconv.Itoa(i)))
	}
	write(t, filepath.Join(path, "closed", "folder", "file"))
	for _, closed := range []string{"closed/folder", "closed"} {
		if err := os.Chmod(filepath.Join(path, closed), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Dir(elsewhere), filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(path, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Join(dir, "nothing"), filepath.Join(dir, "no", "folder")} {
		if err := removal.All(t.Context(), path); err != nil {
			t.Error(err)
		}
		gone(t, path)
	}
	if _, err := os.Stat(elsewhere); err != nil {
		t.Errorf("behind a link: %v", err)
	}
}

// A removal that held a descriptor for each level would need more descriptors than a process may have.
func TestATreeOfAnyDepthIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "deep")
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for level := 0; err == nil && level < 2000; level++ {
		below := -1
		if err = unix.Mkdirat(at, "deep", 0o700); err == nil {
			below, err = unix.Openat(at, "deep", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
		_ = unix.Close(at)
		at = below
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(at)
	most := 0
	for done := false; !done; {
		if done, err = removal.Some(path, 100); err != nil {
			t.Fatal(err)
		}
		if open, err := os.ReadDir("/proc/self/fd"); err == nil {
			most = max(most, len(open))
		}
	}
	gone(t, path)
	if most > 200 {
		t.Errorf("%d descriptors were open", most)
	}
}

func TestARemovalEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tree")
	write(t, filepath.Join(path, "file"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removal.All(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// mount mounts one path on another, for the time of the test.
func mount(t *testing.T, from, to string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(from, to, "", unix.MS_BIND|flags, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
}

func TestWhatIsMountedInATreeStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	write(t, filepath.Join(precious, "sub", "file"))
	path := filepath.Join(dir, "tree")
	for _, at := range []string{"on it", "deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18", "stacked"} {
		if err := os.MkdirAll(filepath.Join(path, at), 0o755); err != nil {
			t.Fatal(err)
		}
		mount(t, precious, filepath.Join(path, at), 0)
	}
	mount(t, precious, filepath.Join(path, "stacked"), 0)
	write(t, filepath.Join(path, "file"))
	mount(t, filepath.Join(precious, "sub", "file"), filepath.Join(path, "file"), 0)
	over := filepath.Join(dir, "over")
	write(t, filepath.Join(over, "file"))
	mount(t, precious, over, 0)
	for _, path := range []string{path, over} {
		if err := removal.All(t.Context(), path); err != nil {
			t.Error(err)
		}
		gone(t, path)
	}
	if _, err := os.Stat(filepath.Join(precious, "sub", "file")); err != nil {
		t.Errorf("behind a mount: %v", err)
	}
}

// Detaching a mount that shares the mounts below it with its original does not unmount those of the original.
func TestADetachedMountTakesNothingFromItsOriginal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	original, inner := filepath.Join(dir, "original"), filepath.Join(dir, "original", "inner")
	write(t, filepath.Join(dir, "source", "file"))
	for _, made := range []string{inner, filepath.Join(dir, "tree", "copy")} {
		if err := os.MkdirAll(made, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, original, original, 0)
	if err := unix.Mount("", original, "", unix.MS_SHARED, ""); err != nil {
		t.Skip(err)
	}
	mount(t, filepath.Join(dir, "source"), inner, 0)
	mount(t, original, filepath.Join(dir, "tree", "copy"), unix.MS_REC)
	if err := removal.All(t.Context(), filepath.Join(dir, "tree")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(inner, "file")); err != nil {
		t.Errorf("the original has lost its mount: %v", err)
	}
}

// An entry that cannot be removed is named, and all others are removed.
func TestWhatCannotBeRemovedStaysAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tree")
	kept := filepath.Join(path, "a", "kept")
	write(t, kept)
	write(t, filepath.Join(path, "b", "other"))
	if output, err := exec.CommandContext(t.Context(), "chattr", "+i", kept).CombinedOutput(); err != nil {
		t.Skipf("chattr: %v: %s", err, output)
	}
	defer func() { _ = exec.CommandContext(context.Background(), "chattr", "-i", kept).Run() }()
	if err := removal.All(t.Context(), path); err == nil || !strings.Contains(err.Error(), "kept") {
		t.Errorf("got %v, want the file's name", err)
	}
	gone(t, filepath.Join(path, "b"))
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}
