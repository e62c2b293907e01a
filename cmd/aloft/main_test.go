package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"aloft": main})
}

// TestTerminal runs the stories in testdata, each of which is a terminal session. Besides testscript's own commands there are:
//
//	exits CODE COMMAND...     the command ends with this code; its output is there for stdout and stderr
//	serving DIR [FLAG...]     starts a server on a data folder and waits until it answers; $SERVER is its address
//	listening                 takes a port, $PORT
//	mount-read-only DIR       mounts an empty file system; for root only: [root]
//	put PROJECT/DOMAIN/NAME/VERSION/TAG
//	                          a client puts a result under a key of CacheService
//	one-line                  what the last command wrote to stderr is one line that begins with "aloft: "
func TestTerminal(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "serving": serving, "listening": listening, "mount-read-only": mountReadOnly, "one-line": oneLine, "put": put,
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("condition %q is not known", name)
			}
			return runtime.GOOS == "linux" && os.Getuid() == 0, nil
		},
	})
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func serving(ts *testscript.TestScript, _ bool, args []string) {
	path, err := exec.LookPath("aloft")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"serve", "--listen", "localhost:0", "--data-dir", ts.MkAbs(args[0])}, args[1:]...)...)
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("WORK"))
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if _, address, ok := strings.Cut(lines.Text(), "FLYTE_PLATFORM_URL="); ok {
			address, _, _ = strings.Cut(address, " ")
			ts.Setenv("SERVER", address)
			return
		}
	}
	ts.Fatalf("the server ended before it answered")
}

func listening(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv("PORT", port)
}

func mountReadOnly(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o700))
	if output, err := exec.Command("mount", "-t", "tmpfs", "-o", "ro", "none", dir).CombinedOutput(); err != nil {
		ts.Fatalf("mount: %s", output)
	}
	ts.Defer(func() { _ = exec.Command("umount", dir).Run() })
}

func oneLine(ts *testscript.TestScript, _ bool, _ []string) {
	text := ts.ReadFile("stderr")
	if !strings.HasPrefix(text, "aloft: ") || strings.Count(text, "\n") != 1 {
		ts.Fatalf("stderr is not one line that begins with \"aloft: \":\n%s", text)
	}
}

func put(ts *testscript.TestScript, _ bool, args []string) {
	body := fmt.Sprintf(`{"key": %q, "output": {"output_literals": {"literals": {"o0": {"scalar": {"primitive": {"integer": "7"}}}}}}}`, args[0])
	answer, err := http.Post("http://"+ts.Getenv("SERVER")+"/flyteidl.cacheservice.CacheService/Put", "application/json", strings.NewReader(body))
	ts.Check(err)
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		ts.Fatalf("put %s: %s", args[0], answer.Status)
	}
}
