//go:build linux

package worker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Cold is the specification: each situation is run in a fresh interpreter, and as often as rounds says in children of a warm
// worker, which other tasks and the situation itself have taught what they import.

const rounds = 3

// A situation is one task run in a way that may show how its process was made.
type situation struct {
	name   string            // KIND of the task's environment
	change func(*Spec)       // nil: nothing
	holds  string            // what outputs.pb or the standard output holds, cold and warm; empty: not looked at
	code   int               // the exit code, cold and warm
	signal int               // the signal, cold and warm
	files  map[string]string // in the code folder, beside tasks.py
}

// same runs situations and reports where warm differs from cold.
func (b *bench) same(interpreter, source, task string, situations []situation) {
	b.Helper()
	for _, c := range situations {
		var cold result
		for round := range rounds + 1 {
			s := b.pythonSpec(interpreter, source, task)
			s.Env["KIND"] = c.name
			s.Mode = ModeCold
			if round > 0 {
				s.Mode = ModeAuto
			}
			for name, content := range c.files {
				b.write(filepath.Join(s.CodeDir, name), content)
			}
			if c.change != nil {
				c.change(&s)
			}
			r := b.run(s)
			got := b.result(s, r)
			got.Work = b.tree(s.WorkDir)
			if done := b.of(s.AttemptID, EventDone); len(done) > 1 || len(done) == 1 && (<-done).Exit.Code != r.Code {
				b.Errorf("%s: run %d: done was told %d times more, or with another code than %d", c.name, round, len(done), r.Code)
			}
			if round == 0 {
				cold = got
				all := got.Stdout + got.Files["outputs.pb"]
				if got.Code != c.code || got.Signal != c.signal || !strings.Contains(all, c.holds) {
					b.Errorf("%s: cold: got code %d, signal %d, want %d, %d, and %q in\n%s\n%s", c.name, got.Code, got.Signal, c.code, c.signal, c.holds, all, got.Stderr)
				}
				continue
			}
			if diff := cmp.Diff(cold, got); diff != "" {
				b.Errorf("%s: run %d, %s %s (+), differs from cold (-):\n%s", c.name, round, r.Mode, r.WhyCold, diff)
			}
		}
	}
}

// shortTemp gives an attempt a temporary folder that has room for the name of a socket.
func (b *bench) shortTemp(s *Spec) {
	dir, err := os.MkdirTemp("", "t")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.TempDir = filepath.Join(dir, "t")
}

// forksSource has ways in which a process of a task comes to run what follows the task's function.
const forksSource = `
import atexit, ctypes, multiprocessing, os, pty, signal, subprocess, sys, threading, concurrent.futures
from flytekit import task

KIND = os.environ["KIND"]

def square(v):
    return v * v

def leave(how):
    if how == "raise":
        raise ValueError("in the child")
    sys.exit(int(how))

def wait(pid):
    print("child ended", os.waitpid(pid, 0)[1], flush=True)

def note(text):
    with open("notes", "a") as f:
        f.write(text + "\n")

@task
def t(x: int) -> int:
    atexit.register(note, "exit handler")
    if KIND.startswith("exit ") or KIND == "raise" or KIND == "return":
        pid = os.fork()
        if pid == 0:
            if KIND == "return":
                return 7
            leave(KIND.removeprefix("exit "))
        wait(pid)
        return x + 1
    if KIND == "parent is killed":
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        wait(pid)
        os.kill(os.getpid(), signal.SIGKILL)
    if KIND == "parent exits":
        pid = os.fork()
        if pid == 0:
            return 7
        wait(pid)
        os._exit(3)
    if KIND == "parent raises":
        pid = os.fork()
        if pid == 0:
            sys.exit(1)
        wait(pid)
        raise ValueError("the parent's own")
    if KIND == "parent ends first":
        r, w = os.pipe()
        if os.fork():
            os._exit(0)
        os.read(r, 1)
        return 5
    if KIND == "without hooks":
        libc = ctypes.CDLL(None)
        pid = libc.fork()
        if pid == 0:
            return 7
        wait(pid)
        return x + 1
    if KIND == "twice":
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                return 8
            os.wait()
            return 7
        wait(pid)
        return x + 1
    if KIND == "pty":
        pid, fd = pty.fork()
        if pid == 0:
            return 7
        try:
            while os.read(fd, 1024):
                pass
        except OSError:
            pass
        wait(pid)
        return x + 1
    if KIND == "after threads":
        done = threading.Event()
        threading.Thread(target=done.wait).start()
        pid = os.fork()
        if pid == 0:
            return 7
        wait(pid)
        done.set()
        return x + 1
    if KIND == "in a thread":
        def run():
            pid = os.fork()
            if pid == 0:
                sys.exit(5)
            wait(pid)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return x + 1
    if KIND == "exec":
        pid = os.fork()
        if pid == 0:
            os.execv("/bin/sh", ["sh", "-c", "echo replaced; exit 9"])
        wait(pid)
        return x + 1
    if KIND == "spawn":
        wait(os.posix_spawn("/bin/sh", ["sh", "-c", "echo spawned; exit 9"], os.environ))
        print(subprocess.run(["sh", "-c", "ls /proc/self/fd | wc -w"], capture_output=True, text=True, close_fds=False).stdout)
        return subprocess.run([sys.executable, "-c", "import sys; sys.exit(4)"]).returncode
    if KIND == "pools":
        out = []
        for how in ("fork", "spawn", "forkserver"):
            context = multiprocessing.get_context(how)
            p = context.Process(target=leave, args=("3",))
            p.start()
            p.join()
            out.append(p.exitcode)
            with context.Pool(2) as pool:
                out.append(pool.map(square, [1, 2]))
        with concurrent.futures.ProcessPoolExecutor(2) as pool:
            out.append(list(pool.map(square, [3])))
        print(out, flush=True)
        return x + 1
    if KIND == "descriptors closed":
        os.closerange(64, 2048)  # not those of flytekit's loop
        files = [open("mine%d" % i, "w") for i in range(600)]
        for f in files:
            f.write("x")
        globals()["KEPT"] = files
        return x + 1
    raise LookupError(KIND)
`

func TestOnlyTheProcessThatWasStartedSpeaksForItsAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.same(python(t), forksSource, "t", []situation{
		{name: "return", holds: "integer: 42"},
		{name: "raise", holds: "integer: 42"},
		{name: "exit 0", holds: "integer: 42"},
		{name: "exit 1", holds: "integer: 42"},
		{name: "parent is killed", signal: 9},
		{name: "parent exits", code: 3},
		{name: "parent raises"},
		{name: "parent ends first"},
		{name: "without hooks", holds: "integer: 42"},
		{name: "twice", holds: "integer: 42"},
		{name: "pty", holds: "integer: 42"},
		{name: "after threads", holds: "integer: 42"},
		{name: "in a thread", holds: "integer: 42"},
		{name: "exec", holds: "replaced"},
		{name: "spawn", holds: "integer: 4"},
		{name: "pools", change: b.shortTemp, holds: "[3, [1, 4], 3, [1, 4], 3, [1, 4], [9]]"},
		{name: "descriptors closed", holds: "integer: 42"},
	})
}
