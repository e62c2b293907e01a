package private_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/aloft-dev/aloft/internal/private"
)

// The test binary is also the process that is made private, and the process of another user that connects.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "be-private":
		err := private.Process()
		fmt.Println(err == nil, os.Getenv("ALOFT_TEST_SECRET"), err)
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		os.Exit(0)
	case len(os.Args) == 3 && os.Args[1] == "connect":
		conn, err := net.Dial("unix", os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_, _ = bufio.NewReader(conn).ReadString('\n')
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestAFolderOfAnotherUserIsNotOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, open, link := filepath.Join(dir, "ours"), filepath.Join(dir, "open"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(ours, 0o700), os.Mkdir(open, 0o700), os.Chmod(open, 0o750), os.Symlink(ours, link)); err != nil {
		t.Fatal(err)
	}
	if err := private.Folder(ours); err != nil {
		t.Errorf("our folder: %v", err)
	}
	for _, path := range []string{open, link, filepath.Join(dir, "none")} {
		if err := private.Folder(path); err == nil {
			t.Errorf("%s is taken for a folder of ours", path)
		}
	}
	if os.Getuid() != 0 {
		return
	}
	if err := os.Chown(ours, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := private.Folder(ours); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("a folder of another user with mode 0700: %v", err)
	}
}

func TestTightenTakesFromOthersWhatIsNamed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "da[t]a")
	shared := filepath.Join(t.TempDir(), "objects")
	for _, d := range []string{dir, shared, filepath.Join(dir, "other")} {
		if err := errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"aloft.db", "aloft.db-wal", "theirs"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Chmod(path, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(shared, filepath.Join(dir, "blob")); err != nil {
		t.Fatal(err)
	}
	changed, err := private.Tighten(dir, "aloft.db*", "blob", "signing.key")
	want := []string{dir, filepath.Join(dir, "aloft.db"), filepath.Join(dir, "aloft.db-wal"), filepath.Join(dir, "blob")}
	if err != nil || !slices.Equal(changed, want) {
		t.Errorf("changed %v, %v, want %v", changed, err, want)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, dir + "/aloft.db": 0o600, dir + "/aloft.db-wal": 0o600, shared: 0o700, dir + "/theirs": 0o644, dir + "/other": 0o755} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %04o", path, info.Mode(), err, want)
		}
	}
	if changed, err := private.Tighten(dir, "aloft.db*", "blob"); err != nil || len(changed) > 0 {
		t.Errorf("again: %v, %v, want nothing to do", changed, err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if changed, err := private.Tighten(dir); err == nil || len(changed) > 0 {
		t.Errorf("a folder that all share: %v, %v, want it left alone and said", changed, err)
	}
}

func TestAPeerIsOfOurUser(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "peer") //nolint:usetesting // a socket's path is short, and another user must get there
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	accept := func(other *exec.Cmd) error {
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(); _ = other.Wait() }()
		return private.Peer(conn)
	}
	self := "/proc/self/exe"
	if runtime.GOOS != "linux" {
		self = os.Args[0]
	}
	if err := accept(exec.CommandContext(t.Context(), self, "connect", path)); err != nil {
		t.Errorf("our own process: %v", err)
	}
	if os.Getuid() != 0 || runtime.GOOS != "linux" {
		return
	}
	other := exec.CommandContext(t.Context(), self, "connect", path)
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := accept(other); err == nil || !strings.Contains(err.Error(), "of user 65534") {
		t.Errorf("another user's process: %v, want it refused", err)
	}
}

func TestTheEnvironmentOfAPrivateProcessIsNotSeen(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux shows it in /proc")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "be-private")
	cmd.Env = append(os.Environ(), "ALOFT_TEST_SECRET=geheim")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "true geheim <nil>\n" {
		t.Fatalf("the process says %q, %v, want that it knows its variable still", line, err)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
	if strings.Contains(string(environ), "geheim") || os.Getuid() == 0 && err != nil || os.Getuid() != 0 && err == nil {
		t.Errorf("/proc shows %q, %v", environ, err)
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("its memory belongs to %v, %v, want root", info, err)
	}
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
