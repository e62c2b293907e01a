package server

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft/config"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func refused(t *testing.T, c config.Config, want ...string) {
	t.Helper()
	s, err := Start(t.Context(), c, Options{})
	if err == nil {
		_ = s.Close()
		t.Fatal("started, want a refusal")
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the refusal does not say %q: %v", text, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the refusal is not one sentence: %v", err)
	}
}

func TestASecondServerOnADataFolderIsRefused(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	s := start(t, c)
	refused(t, c, c.DataDir, "process", "stop that server", "--data-dir")
	s.close()
	start(t, c) // the lock has ended with the first server
}

func TestAPortInUseIsRefusedAndTheDataFolderIsFreeAgain(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := testConfig(t.TempDir())
	c.Listen = l.Addr().String()
	refused(t, c, "the port is in use", "--listen")
	fresh := c
	fresh.DataDir = filepath.Join(t.TempDir(), "fresh")
	refused(t, fresh, "the port is in use")
	if _, err := os.Stat(fresh.DataDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a data folder was made: %v", err)
	}
	c.Listen = "localhost:0"
	start(t, c)
}

func TestADataFolderThatIsAFileIsRefused(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	c.DataDir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(c.DataDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, c, "it is a file", "--data-dir")
	c.DataDir = filepath.Join(c.DataDir, "below")
	refused(t, c, "below a file", "--data-dir")
}

func TestAReadOnlyDataFolderIsRefused(t *testing.T) {
	t.Parallel()
	c := testConfig(t.TempDir())
	if os.Getuid() != 0 {
		if err := os.Mkdir(c.DataDir, 0o500); err != nil {
			t.Fatal(err)
		}
		refused(t, c, c.DataDir, "permission")
		return
	}
	// root may write everywhere but on a file system that is mounted read-only.
	if err := os.Mkdir(c.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("mount", "-t", "tmpfs", "-o", "ro", "none", c.DataDir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %s", output)
	}
	defer func() { _ = exec.Command("umount", c.DataDir).Run() }()
	refused(t, c, c.DataDir, "read-only", "choose another data folder")
}

func TestTheDataFolderMayMoveAndThePortMayChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := testConfig(dir)
	first := start(t, c)
	first.registerChain("moved", 2)
	e := first.create(execute(id(core.ResourceType_LAUNCH_PLAN, "moved"), map[string]*core.Literal{"x": integer(3)}))
	first.wait(e)
	first.close()
	if err := os.Rename(c.DataDir, dir+"/elsewhere"); err != nil {
		t.Fatal(err)
	}
	c.DataDir = dir + "/elsewhere"
	s := start(t, c)
	data, err := s.admin.GetExecutionData(t.Context(), &admin.WorkflowExecutionGetDataRequest{Id: e})
	if err != nil || data.GetFullOutputs().GetLiterals()["y"].GetScalar().GetPrimitive().GetInteger() != 3 {
		t.Errorf("the old run gives %v, %v, want y=3", data, err)
	}
	s.wait(s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "moved"), map[string]*core.Literal{"x": integer(3)})))
}

func TestAServerSaysWhereEverythingIs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	text := s.Describe()
	lines := strings.Split(text, "\n")
	for i, want := range []string{s.config.DataDir, "http://" + s.Address, "cores"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %q, want it to say %s", i, lines[i], want)
		}
	}
	if !strings.Contains(text, "export FLYTE_PLATFORM_URL="+s.Address+" FLYTE_PLATFORM_INSECURE=true") {
		t.Errorf("no client configuration to paste:\n%s", text)
	}
}
