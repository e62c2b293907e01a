package leftover_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aloft-dev/aloft/internal/leftover"
)

// Attack 5: each of these blocked or deceived the programs that read the files of a task.
func TestOnlyAFileIsRead(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "left") //nolint:usetesting // a socket needs a path that is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path("file"), []byte("content"), 0o644))
	must(syscall.Mkfifo(path("pipe"), 0o644))
	must(os.Symlink(path("file"), path("link")))
	must(os.Symlink("loop", path("loop")))
	must(os.Symlink("/dev/zero", path("zero")))
	must(os.Mkdir(path("folder"), 0o755))
	listener, err := net.Listen("unix", path("socket"))
	must(err)
	defer listener.Close()
	must(os.WriteFile(path("monster"), nil, 0o644))
	must(os.Truncate(path("monster"), 1<<40))

	for name, want := range map[string]string{
		"pipe": "a named pipe", "link": "a symbolic link", "loop": "a symbolic link", "zero": "a symbolic link",
		"folder": "a folder", "socket": "a socket", strings.Repeat("n", 300): "too long",
	} {
		var not *leftover.NotFileError
		if _, err := leftover.Read(path(name), 1<<20); !errors.As(err, &not) || !strings.Contains(not.What, want) {
			t.Errorf("%.20s: got %v, want that it is %s", name, err, want)
		}
		if _, err := leftover.Tail(path(name), 10); !errors.As(err, &not) {
			t.Errorf("tail of %.20s: got %v, want that it is %s", name, err, want)
		}
	}
	var large *leftover.TooLargeError
	if _, err := leftover.Read(path("monster"), 1<<20); !errors.As(err, &large) {
		t.Errorf("a file of 1 TiB: got %v, want that it is too large", err)
	}
	if b, err := leftover.Tail(path("monster"), 10); err != nil || len(b) != 10 {
		t.Errorf("tail of a file of 1 TiB: got %q, %v", b, err)
	}
	if _, err := leftover.Read(path("nothing"), 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: got %v", err)
	}
	if b, err := leftover.Read(path("file"), 7); err != nil || string(b) != "content" {
		t.Errorf("a file of the limit: got %q, %v", b, err)
	}
	if b, err := leftover.Tail(path("file"), 4); err != nil || string(b) != "tent" {
		t.Errorf("tail: got %q, %v", b, err)
	}
}

func TestAFileWithoutPermissionsIsTheTasksDoing(t *testing.T) {
	t.Parallel()
	// Root can read every file, so the errors that an ordinary user gets are made by hand here.
	for _, errno := range []syscall.Errno{syscall.EACCES, syscall.ENOTCONN, syscall.ENXIO} {
		var not *leftover.NotFileError
		if err := leftover.Explain("outputs.pb", &fs.PathError{Op: "open", Err: errno}); !errors.As(err, &not) {
			t.Errorf("%v: got %v", errno, err)
		}
	}
	if err := leftover.Explain("outputs.pb", syscall.EIO); !errors.Is(err, syscall.EIO) {
		t.Errorf("a disk that fails: got %v, want it as it is", err)
	}
}
