//go:build linux

package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// python is an interpreter with flytekit, or the test is skipped: `make test` sets it.
func python(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ALOFT_TEST_PYTHON")
	if path == "" {
		t.Skip("ALOFT_TEST_PYTHON is not set")
	}
	return path
}

const tasksSource = `
import os, sys, signal, random
from collections import namedtuple
from flytekit import task, dynamic
from flytekit.types.file import FlyteFile
from flytekit.exceptions.user import FlyteRecoverableException

AT_IMPORT = os.getenv("GREETING", "none")
FIXED = random.Random(42)
UNSEEDED = random.Random()

@task
def add1(x: int) -> int:
    print("adding", x)
    print("to stderr", file=sys.stderr)
    return x + 1

@task
def boom(x: int) -> int:
    raise ValueError("boom %d" % x)

@task
def again(x: int) -> int:
    raise FlyteRecoverableException("try again")

@task
def leave(x: int) -> int:
    print("leaving")
    sys.exit(41)

@task
def crash(x: int) -> int:
    print("last words")
    os.kill(os.getpid(), signal.SIGSEGV)
    return x

@task
def nothing(x: int):
    print("nothing", x)

@task
def several(x: int) -> (int, str):
    return x, str(x)

@task
def file(x: int) -> FlyteFile:
    with open("made.txt", "w") as f:
        f.write("content %d" % x)
    return FlyteFile("made.txt")

@task
def noreturn(x: int) -> int:
    if x > 1000:
        return x

@task
def getenv(x: int) -> str:
    return AT_IMPORT

@task
def logs(x: int) -> int:
    import flytekit
    flytekit.current_context().logging.info("logged by the user")
    flytekit.logger.warning("logged by flytekit")
    return x
`

// pythonSpec is a flytekit task as the client registers it, with x=41 as its input.
func (b *bench) pythonSpec(interpreter, source, task string) Spec {
	b.Helper()
	s := b.spec()
	dir := filepath.Dir(s.WorkDir)
	for name, content := range map[string]string{"work/tasks.py": source, "inputs.pb": "\n\v\n\x01x\x12\x06\n\x04\n\x02\b)"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	s.Argv = []string{
		"pyflyte-fast-execute", "--additional-distribution", "aloft://blob/upload/fast.tar.gz", "--dest-dir", "/root", "--",
		"pyflyte-execute", "--inputs", filepath.Join(dir, "inputs.pb"), "--output-prefix", s.OutputDir,
		"--raw-output-data-prefix", filepath.Join(dir, "raw"), "--checkpoint-path", filepath.Join(dir, "raw", "_flytecheckpoints"),
		"--prev-checkpoint", `""`, "--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--",
		"task-module", "tasks", "task-name", task,
	}
	s.Env = map[string]string{
		"PATH": defaultPath, "HOME": b.dir, "FLYTE_INTERNAL_EXECUTION_ID": "x", "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
		"FLYTE_INTERNAL_EXECUTION_DOMAIN": "d",
	}
	s.CodeDir = s.WorkDir
	s.Environment = Environment{Interpreter: interpreter, Digest: "sha256:test"}
	return s
}

// both runs a task warm and cold and returns what differs.
func (b *bench) both(interpreter, source, task string, change func(*Spec)) (warm, cold result) {
	b.Helper()
	for _, mode := range []Mode{ModeWarm, ModeCold} {
		s := b.pythonSpec(interpreter, source, task)
		s.Mode = mode
		if change != nil {
			change(&s)
		}
		r := b.run(s)
		if r.Mode != mode {
			b.Fatalf("%s: asked for %s, ran %s: %s", task, mode, r.Mode, r.WhyCold)
		}
		one := b.result(s, r)
		if mode == ModeWarm {
			warm = one
		} else {
			cold = one
		}
	}
	return warm, cold
}

// result is all that an attempt leaves, without times and paths, which differ between any two runs.
type result struct {
	Code, Signal   int
	Stdout, Stderr string
	Files          map[string]string
	Work           map[string]string // of the working folder, if that is compared
}

// tree are the files below a folder, without bytecode.
func (b *bench) tree(dir string) map[string]string {
	b.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && filepath.Ext(path) != ".pyc" {
			files[strings.TrimPrefix(path, dir)] = stamps.ReplaceAllString(strings.ReplaceAll(b.read(path), filepath.Dir(dir), "DIR"), "-")
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return files
}

func (b *bench) write(path, content string) {
	b.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		b.Fatal(err)
	}
}

var (
	stamps   = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.,]+Z?|"asctime": "[^"]*"|[0-9a-f]{32}|\b0x[0-9a-f]+`)
	stdlines = regexp.MustCompile(`(lib/python3[^"]*", line )[0-9]+`)
)

func (b *bench) result(s Spec, r ExitRecord) result {
	b.Helper()
	dir := filepath.Dir(s.WorkDir)
	clean := func(text string) string {
		text = strings.ReplaceAll(text, dir, "DIR")
		return stdlines.ReplaceAllString(stamps.ReplaceAllString(text, "-"), "${1}N")
	}
	out := result{r.Code, r.Signal, clean(b.readIf(s.Stdout)), clean(b.readIf(s.Stderr)), map[string]string{}, nil}
	entries, err := os.ReadDir(s.OutputDir)
	if err != nil {
		b.Fatal(err)
	}
	for _, entry := range entries {
		content := []byte(b.read(filepath.Join(s.OutputDir, entry.Name())))
		if entry.Name() == "error.pb" {
			var document core.ErrorDocument
			if err := proto.Unmarshal(content, &document); err != nil {
				b.Fatal(err)
			}
			e := document.GetError()
			content = fmt.Appendf(nil, "%s %s %s\n%s", e.GetCode(), e.GetKind(), e.GetOrigin(), e.GetMessage())
		} else if entry.Name() == "outputs.pb" {
			var literals core.LiteralMap
			if err := proto.Unmarshal(content, &literals); err != nil {
				b.Fatal(err)
			}
			content, _ = prototext.MarshalOptions{Multiline: true}.Marshal(&literals)
			content = []byte(strings.ReplaceAll(string(content), ":  ", ": "))
		}
		out.Files[entry.Name()] = clean(string(content))
	}
	return out
}

func TestWarmIsEqualToCold(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	missing := func(s *Spec) { _ = os.Remove(filepath.Join(filepath.Dir(s.WorkDir), "inputs.pb")) }
	wrong := func(s *Spec) {
		_ = os.WriteFile(filepath.Join(filepath.Dir(s.WorkDir), "inputs.pb"), []byte("\n\v\n\x01y\x12\x06\n\x04\n\x02\b)"), 0o644)
	}
	for _, c := range []struct {
		name, task   string
		change       func(*Spec)
		code, signal int
		file, holds  string
	}{
		{"value", "add1", nil, 0, 0, "outputs.pb", "integer: 42"},
		{"exception", "boom", nil, 0, 0, "error.pb", "USER:RuntimeError NON_RECOVERABLE USER"},
		{"recoverable", "again", nil, 0, 0, "error.pb", "USER:Recoverable RECOVERABLE"},
		{"exit code", "leave", nil, 41, 0, "", ""},
		{"signal", "crash", nil, 0, 11, "", ""},
		{"no outputs", "nothing", nil, 0, 0, "outputs.pb", ""},
		{"several outputs", "several", nil, 0, 0, "outputs.pb", `string_value: "41"`},
		{"file output", "file", nil, 0, 0, "outputs.pb", "made.txt"},
		{"unknown task", "no_such_task", nil, 0, 0, "error.pb", "USER"},
		{"missing input", "add1", missing, 0, 0, "error.pb", "SYSTEM"},
		{"wrong input", "add1", wrong, 0, 0, "error.pb", "SYSTEM"},
		{"missing return is judged in task mode", "noreturn", nil, 0, 0, "error.pb", ""},
		{"variable read at import", "getenv", func(s *Spec) { s.Env["GREETING"] = "hello" }, 0, 0, "outputs.pb", `string_value: "hello"`},
		{"log lines", "logs", nil, 0, 0, "outputs.pb", ""},
		{"log lines in another form", "logs", func(s *Spec) { s.Env["FLYTE_SDK_LOGGING_FORMAT"] = "text" }, 0, 0, "outputs.pb", ""},
		{"log lines of a level", "logs", func(s *Spec) { s.Env["FLYTE_SDK_LOGGING_LEVEL"] = "40" }, 0, 0, "outputs.pb", ""},
		{"usage error", "add1", func(s *Spec) { s.Argv = append(s.Argv[:6:6], "pyflyte-execute", "--nonsense") }, 2, 0, "", ""},
	} {
		warm, cold := b.both(py, tasksSource, c.task, c.change)
		if diff := cmp.Diff(cold, warm); diff != "" {
			t.Errorf("%s: warm (+) differs from cold (-):\n%s", c.name, diff)
		}
		if warm.Code != c.code || warm.Signal != c.signal {
			t.Errorf("%s: got code %d, signal %d, want %d, %d\n%s", c.name, warm.Code, warm.Signal, c.code, c.signal, warm.Stderr)
		}
		if got, ok := warm.Files[c.file]; c.file != "" && (!ok || !strings.Contains(got, c.holds)) || c.file == "" && len(warm.Files) > 0 {
			t.Errorf("%s: got files %v, want %s with %q", c.name, warm.Files, c.file, c.holds)
		}
	}
}

// probeSource prints facts of a process as JSON.
const probeSource = tasksSource + `
import json, tempfile, time, subprocess, threading, multiprocessing, atexit

@task
def facts(x: int) -> int:
    from flytekit.interfaces.random import random as private
    import flytekit
    import numpy
    import grpc
    rng = numpy.random.default_rng()
    print(json.dumps({
        "private": private.random(), "unseeded": UNSEEDED.random(), "module": random.random(), "fixed": FIXED.random(),
        "numpy": numpy.random.random(), "rng": rng.random(), "authkey": multiprocessing.current_process().authkey.hex(),
        "argv0": sys.argv[0], "main": sys.modules["__main__"].__file__, "path0": sys.path[0], "path1": sys.path[1], "cwd": os.getcwd(),
        "tempdir": tempfile.gettempdir(), "tz": time.tzname[0], "executable": sys.executable,
        "environ": sorted(k for k in os.environ if k != "LC_CTYPE"),
        "fds": [os.readlink("/proc/self/fd/%d" % i) for i in range(3)], "threads": [t.name for t in threading.enumerate() if "sync_" not in t.name and "Loop" not in t.name],
        "int": getattr(signal.getsignal(signal.SIGINT), "__qualname__", str(signal.getsignal(signal.SIGINT))), "chld": str(signal.getsignal(signal.SIGCHLD)),
        "modules_probe": "_zygote_probe" in sys.modules,
        "scratch": os.path.commonpath([flytekit.current_context().working_directory, tempfile.gettempdir()]),
    }))
    return x

@task
def leftover(x: int) -> int:
    p = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open("popen.pid", "w") as f:
        f.write(str(p.pid))
    r, w = os.pipe()
    if os.fork() == 0:  # a daemon: another session, no exec, an orphan
        os.setsid()
        if os.fork() == 0:
            with open("daemon.pid", "w") as f:
                f.write(str(os.getpid()))
            os.write(w, b"x")
            time.sleep(1000)
        os._exit(0)
    os.read(r, 1)
    return x

@task
def writes(x: int) -> int:
    r, w = os.pipe()
    if os.fork() == 0:
        if os.environ["LEFT"] == "orphan" and os.fork():
            os._exit(0)
        os.write(w, b"x")
        time.sleep(1000)
    os.read(r, 1)
    return x

@task
def threads(x: int) -> int:
    def late():
        time.sleep(0.2)
        print("thread ended")
    threading.Thread(target=late).start()
    atexit.register(lambda: print("exit handler"))
    return x

@task
def held(x: int) -> int:
    with open("../fifo") as f:
        f.read()
    return x

@task
def hog(x: int) -> int:
    data = bytearray(600 << 20)
    for i in range(0, len(data), 4096):
        data[i] = 1
    return len(data)

@task
def uses_pandas(x: int) -> int:
    import pandas
    return len(pandas.DataFrame({"a": [x]}))

@dynamic
def dyn(x: int) -> int:
    for i in range(2):
        x = add1(x=x)
    return x
`

// A spawned pool imports its task's module outside of task mode, where flytekit refuses some of those above.
const poolSource = `
import multiprocessing
from flytekit import task

def square(v):
    return v * v

@task
def pools(x: int) -> str:
    out = []
    for how in ("fork", "spawn"):
        with multiprocessing.get_context(how).Pool(2) as p:
            out.append(p.map(square, [1, 2, 3]))
    return str(out)
`

func (b *bench) facts(s Spec, r ExitRecord) map[string]any {
	b.Helper()
	var facts map[string]any
	if err := json.Unmarshal([]byte(b.read(s.Stdout)), &facts); err != nil {
		b.Fatalf("%v\nstdout: %s\nstderr: %s\n%+v", err, b.read(s.Stdout), b.read(s.Stderr), r)
	}
	return facts
}

func TestWarmChildrenHaveFreshSeedsAndTheProcessStateOfAConsoleScript(t *testing.T) {
	py := python(t)
	t.Setenv("SERVER_SECRET", "hunter2")
	b := newBench(t)
	var seen []map[string]any
	for _, mode := range []Mode{ModeWarm, ModeWarm, ModeCold} {
		s := b.pythonSpec(py, probeSource, "facts")
		s.Mode = mode
		s.Env["TZ"] = "Asia/Tokyo"
		s.Env["PYTHONPATH"] = "/extra"
		s.Env["GRPC_ENABLE_FORK_SUPPORT"] = "1"
		r := b.run(s)
		if r.Mode != mode {
			t.Fatalf("ran %s: %s", r.Mode, r.WhyCold)
		}
		f := b.facts(s, r)
		for name, want := range map[string]any{
			"cwd": s.WorkDir, "tempdir": s.TempDir, "tz": "JST", "path1": "/extra", "main": filepath.Join(filepath.Dir(py), "pyflyte-execute"),
			"argv0": filepath.Join(filepath.Dir(py), "pyflyte-execute"), "path0": filepath.Dir(py), "executable": py, "modules_probe": false,
			"scratch": s.TempDir,
		} {
			if f[name] != want {
				t.Errorf("%s: %s: got %v, want %v", mode, name, f[name], want)
			}
		}
		if want := []any{"/dev/null", s.Stdout, s.Stderr}; !cmp.Equal(f["fds"], want) {
			t.Errorf("%s: descriptors: got %v, want %v", mode, f["fds"], want)
		}
		seen = append(seen, f)
	}
	for _, name := range []string{"private", "unseeded", "module", "numpy", "rng", "authkey"} {
		if seen[0][name] == seen[1][name] {
			t.Errorf("two children have the same %s: %v", name, seen[0][name])
		}
	}
	for _, name := range []string{"fixed", "environ", "threads", "chld", "int"} {
		if !cmp.Equal(seen[0][name], seen[2][name]) {
			t.Errorf("%s: warm %v, cold %v", name, seen[0][name], seen[2][name])
		}
	}
}

func TestWarmTaskMayUsePoolsThreadsAndExitHandlers(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	for task, holds := range map[string]string{"pools": "[[1, 4, 9], [1, 4, 9]]", "threads": "41"} {
		source := probeSource
		if task == "pools" {
			source = poolSource
		}
		warm, cold := b.both(py, source, task, nil)
		if diff := cmp.Diff(cold, warm); diff != "" {
			t.Errorf("%s: warm (+) differs from cold (-):\n%s", task, diff)
		}
		if !strings.Contains(warm.Files["outputs.pb"], holds) {
			t.Errorf("%s: got %+v, want outputs with %s", task, warm, holds)
		}
		if task == "threads" && strings.TrimSpace(warm.Stdout) != "thread ended\nexit handler" {
			t.Errorf("got stdout %q", warm.Stdout)
		}
	}
}

func TestWhatAWarmTaskLeavesRunningIsKilled(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	s := b.pythonSpec(py, probeSource, "leftover")
	if r := b.run(s); r.Mode != ModeWarm || r.Code != 0 || r.Lost {
		t.Fatalf("got %+v\n%s", r, b.read(s.Stderr))
	}
	b.gone(filepath.Join(s.WorkDir, "popen.pid"))
	b.gone(filepath.Join(s.WorkDir, "daemon.pid"))
}

// A process that a task leaves running may write to the outputs: they are not read before that process has ended.
func TestAWarmTaskThatLeavesAProcessIsDoneWhenThatHasEnded(t *testing.T) {
	t.Parallel()
	py := python(t)
	for _, groups := range []string{"groups=", "groups=none"} {
		b := newBench(t, groups)
		for _, left := range []string{"child", "orphan"} {
			s := b.pythonSpec(py, probeSource, "writes")
			s.Env["LEFT"] = left
			if r := b.run(s); r.Mode != ModeWarm || r.Code != 0 || r.Lost {
				t.Fatalf("%s, %s: got %+v\n%s", groups, left, r, b.read(s.Stderr))
			}
			if n := len(b.of(s.AttemptID, EventDone)); n > 0 {
				t.Errorf("%s, %s: done was told while a process of it ran", groups, left)
			}
		}
	}
}

func TestDynamicTaskKeepsTheRegisteredArguments(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	settings := exec.Command(py, "-c", `from flytekit.configuration import *
print(SerializationSettings(project="p", domain="d", version="v", image_config=ImageConfig.auto_default_image(),
    fast_serialization_settings=FastSerializationSettings(True, "/root", "aloft://blob/upload/fast.tar.gz")).serialized_context)`)
	context, err := settings.Output()
	if err != nil {
		t.Fatal(err)
	}
	warm, cold := b.both(py, probeSource, "dyn", func(s *Spec) { s.Env["_F_SS_C"] = strings.TrimSpace(string(context)) })
	futures := warm.Files["futures.pb"]
	for _, want := range []string{"--additional-distribution", "aloft://blob/upload/fast.tar.gz", "--dest-dir", "/root"} {
		if !strings.Contains(futures, want) {
			t.Errorf("futures.pb does not hold %q (warm files %v)", want, slices.Collect(maps.Keys(warm.Files)))
		}
	}
	if len(futures) != len(cold.Files["futures.pb"]) {
		t.Errorf("futures.pb has %d bytes warm, %d cold", len(futures), len(cold.Files["futures.pb"]))
	}
}

// hold starts a warm task that runs until its fifo is written.
func (b *bench) hold(py string) (Spec, func()) { b.Helper(); return b.holdIn(py, probeSource) }

func (b *bench) holdIn(py, source string) (Spec, func()) {
	b.Helper()
	s := b.pythonSpec(py, source, "held")
	fifo := filepath.Join(filepath.Dir(s.WorkDir), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		b.Fatal(err)
	}
	return s, func() {
		b.Helper()
		if err := os.WriteFile(fifo, []byte("go"), 0); err != nil {
			b.Fatal(err)
		}
	}
}

func TestChildrenOutliveTheirZygote(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	ends, dies := func() (a, z struct {
		Spec
		release func()
	}) {
		a.Spec, a.release = b.hold(py)
		z.Spec, z.release = b.hold(py)
		return
	}()
	for _, s := range []Spec{ends.Spec, dies.Spec} {
		b.start(s)
	}
	b.await(ends.AttemptID, EventStarted)
	pid := b.await(dies.AttemptID, EventStarted).PID
	zygotes, err := b.client.Zygotes(b.ctx())
	if err != nil || len(zygotes) != 1 || zygotes[0].Running != 2 || zygotes[0].Forks != 2 {
		t.Fatalf("zygotes: %+v, %v", zygotes, err)
	}
	if err := syscall.Kill(zygotes[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := b.pythonSpec(py, tasksSource, "add1")
	if r := b.run(again); r.Mode != ModeWarm || r.Code != 0 {
		t.Errorf("the next attempt: got %+v, want it warm", r)
	}
	ends.release()
	if r := b.await(ends.AttemptID, EventExited).Exit; r.Code != 0 || r.Lost || r.Signal != 0 || !exists(filepath.Join(ends.OutputDir, "outputs.pb")) {
		t.Errorf("orphan that ends: got %+v", r)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := b.await(dies.AttemptID, EventExited).Exit; r.Signal != 9 || r.Lost {
		t.Errorf("orphan that is killed: got %+v, want signal 9", r)
	}
}

// A warm worker may end between the look at its state and the fork: the fork fails, and the supervisor lives on.
func TestAForkOfAZygoteThatHasJustEndedIsRefused(t *testing.T) {
	t.Parallel()
	zs := &zygotes{log: slog.New(slog.DiscardHandler)}
	z := &zygote{state: zygoteReady, children: map[int]*warmChild{}}
	child, err := zs.forkFrom(z, childSpec{}, nil)
	if err == nil || child != nil || len(z.children) != 0 {
		t.Errorf("got %v, %v and %d children, want an error", child, err, len(z.children))
	}
}

func TestWarmAttemptsOutliveTheirSupervisorAndKeepTheirExitCode(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	s, release := b.hold(py)
	b.start(s)
	pid := b.await(s.AttemptID, EventStarted).PID
	b.killSupervisor()
	if e := b.await(s.AttemptID, EventStarted); e.PID != pid {
		t.Errorf("got process %d, want %d adopted", e.PID, pid)
	}
	release()
	if r := b.await(s.AttemptID, EventExited).Exit; r.Lost || r.Code != 0 || r.Reason != "" || r.Mode != ModeWarm {
		t.Errorf("got %+v, want it as if undisturbed", r)
	}
}

func TestKilledAndOutOfMemoryWarmTasksAreToldApart(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	s := b.pythonSpec(py, probeSource, "hog")
	s.MemoryLimit = 200 << 20
	if r := b.run(s); !r.OOM || r.Lost || r.Mode != ModeWarm {
		t.Errorf("above the limit: got %+v, want OOM", r)
	}
	s, _ = b.hold(py)
	s.MemoryLimit = 200 << 20
	b.start(s)
	if err := syscall.Kill(b.await(s.AttemptID, EventStarted).PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := b.await(s.AttemptID, EventExited).Exit; r.OOM || r.Signal != 9 {
		t.Errorf("killed: got %+v, want signal 9 without OOM", r)
	}
}

// warm waits until there is one warm worker, which is ready and has imported at least so many modules ahead.
func (b *bench) warm(preloaded int) (z ZygoteStatus) {
	b.Helper()
	b.eventually(fmt.Sprintf("one warm worker has preloaded %d modules", preloaded), func() bool {
		zygotes, err := b.client.Zygotes(b.ctx())
		if err == nil && len(zygotes) == 1 {
			z = zygotes[0]
		}
		return err == nil && len(zygotes) == 1 && z.State == zygoteReady && z.Preloaded >= preloaded
	})
	return z
}

func TestWarmWorkerLearnsTheModulesOfItsEnvironment(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	first := b.run(b.pythonSpec(py, probeSource, "uses_pandas"))
	if !slices.Contains(first.Modules, "pandas.core.frame") || slices.Contains(first.Modules, "tasks") {
		t.Fatalf("modules: %d, with pandas %t", len(first.Modules), slices.Contains(first.Modules, "pandas.core.frame"))
	}
	b.warm(100)
	s := b.pythonSpec(py, probeSource, "uses_pandas")
	second := b.run(s)
	if second.Mode != ModeWarm || slices.Contains(second.Modules, "pandas.core.frame") || len(second.Modules) > len(first.Modules)/10 {
		t.Errorf("second run imported %d modules, the first %d: %v", len(second.Modules), len(first.Modules), second)
	}
	warm, cold := b.both(py, probeSource, "uses_pandas", nil)
	if diff := cmp.Diff(cold, warm); diff != "" {
		t.Errorf("warm (+) differs from cold (-):\n%s", diff)
	}
}

// scienceSource imports at its top what most pipelines do, and works for long.
const scienceSource = `
import matplotlib
matplotlib.use("Agg")
import pandas
import sklearn.ensemble, sklearn.linear_model, sklearn.metrics
from matplotlib import pyplot
from flytekit import task

@task
def held(x: int) -> int:
    with open("../fifo") as f:
        f.read()
    return x

@task
def fits(x: int) -> float:
    from sklearn.datasets import load_breast_cancer
    frame = load_breast_cancer(as_frame=True).frame
    model = sklearn.ensemble.HistGradientBoostingClassifier(random_state=x, max_iter=2)  # uses OpenMP
    model.fit(frame.drop(columns="target"), frame["target"])
    pyplot.plot([1, 2]); pyplot.savefig("plot.png")
    return float(model.score(frame.drop(columns="target"), frame["target"]))
`

// registersSource uses what registers itself elsewhere (joblib in multiprocessing) or makes a cache at its first import (matplotlib).
const registersSource = `
import hashlib, multiprocessing
before = "loky" in multiprocessing.context._concrete_contexts
import matplotlib.pyplot
import sklearn.ensemble
from flytekit import task

@task
def t(x: int) -> str:
    print(before, "loky" in multiprocessing.context._concrete_contexts)
    import joblib
    print(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(v) for v in (-1, 2)))
    forest = sklearn.ensemble.RandomForestRegressor(n_estimators=5, random_state=0, n_jobs=2).fit([[0], [1], [2], [3]], [0, 1, 4, 9])
    figure, axes = matplotlib.pyplot.subplots()
    axes.plot(forest.predict([[0], [1], [2], [3]]))
    figure.savefig("figure.png")
    print(matplotlib.get_backend(), hashlib.sha256(open("figure.png", "rb").read()).hexdigest()[:16])
    return str(forest.predict([[1.2]]))
`

func TestASuccessorWithTheLearntModulesIsThereWhileTheFirstTaskStillWorks(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	s, release := b.holdIn(py, scienceSource)
	b.start(s)
	pid := b.await(s.AttemptID, EventStarted).PID
	previous := b.warm(0)
	z := b.warm(400)
	if z.Forks != 0 || z.Running != 0 {
		t.Errorf("got %+v, want a successor that has forked nothing", z)
	}
	for _, dropped := range z.Dropped {
		if name, _, _ := strings.Cut(dropped, ":"); slices.Contains([]string{"pandas", "numpy", "scipy", "pyarrow", "sklearn", "joblib", "matplotlib"}, name) {
			t.Errorf("dropped %s", dropped)
		}
	}
	// Work with threads of OpenMP's in children whose modules were imported before the fork.
	for range 2 {
		fits := b.pythonSpec(py, scienceSource, "fits")
		r := b.run(fits)
		if imports := func(m string) bool { return strings.HasPrefix(m, "pandas.core") || m == "sklearn" || m == "matplotlib" }; r.Mode != ModeWarm || r.Code != 0 ||
			slices.ContainsFunc(r.Modules, imports) || !strings.Contains(b.result(fits, r).Files["outputs.pb"], "float_value") {
			t.Errorf("got %+v\n%s", r, b.read(fits.Stderr))
		}
	}
	b.eventually("the former warm worker is gone although its child runs on", func() bool { return syscall.Kill(previous.PID, 0) == syscall.ESRCH })
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the first task: %v", err)
	}
	release()
	if r := b.await(s.AttemptID, EventExited).Exit; r.Code != 0 || r.Lost || r.Mode != ModeWarm || r.Signal != 0 {
		t.Errorf("the first task: got %+v", r)
	}
	b.same(py, registersSource, []situation{{name: "plain", holds: "False True", change: b.shortTemp}})
}

func TestASecondZygoteIsNotMadeForAFewQuickModules(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	for range 3 {
		if r := b.run(b.pythonSpec(py, tasksSource, "add1")); r.Mode != ModeWarm || len(r.Modules) >= manyModules {
			t.Errorf("got %+v", r)
		}
	}
	if z := b.warm(0); z.Forks != 3 || z.Preloaded != 0 {
		t.Errorf("got %+v, want one warm worker that forked all", z)
	}
}

func TestModulesThatMayNotBeImportedAheadAreDroppedWithTheirReason(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	f, err := newFolder(b.config.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]string{
		"threaded.py":   "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
		"socketed.py":   "import socket\ns = socket.socket()\n",
		"perattempt.py": "import os\nx = os.environ.get('FLYTE_INTERNAL_EXECUTION_ID')\n",
		"raising.py":    "raise ValueError('not now')\n",
		"reading.py":    "import os\nx = os.getenv('READING_OPTION')\n",
		"harmless.py":   "",
	}
	learnt := []string{"threaded", "socketed", "perattempt", "raising", "reading", "harmless"}
	for i := range manyModules { // so many modules are worth a successor
		name := fmt.Sprintf("broken%d", i)
		modules[name+".py"], learnt = "raise ValueError('never')\n", append(learnt, name)
	}
	interpreter, _ := b.virtual(py, modules)
	spec := func() Spec { return b.pythonSpec(interpreter, tasksSource, "add1") }
	s := spec()
	// A module that another release could not prove is tried again.
	content, _ := json.Marshal(map[string]any{"modules": learnt, "prover": "zygote-another.py", "dropped": map[string]string{"harmless": "not proved"}})
	path := filepath.Join(f.learnt(), shortHash(s.Environment.Interpreter, s.Environment.Digest)+".json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := b.run(s); r.Mode != ModeWarm || r.Code != 0 {
		t.Fatalf("got %+v", r)
	}
	z := b.warm(2)
	dropped := strings.Join(z.Dropped, "\n")
	for _, want := range []string{"threaded: leaves threads", "socketed: leaves a descriptor", "perattempt: reads FLYTE_INTERNAL", "raising: its import raises ValueError"} {
		if !strings.Contains(dropped, want) {
			t.Errorf("dropped %q does not hold %q", dropped, want)
		}
	}
	// An attempt that sets a variable which a module reads at its import does not get the worker that imported it without.
	s = spec()
	s.Env["READING_OPTION"] = "1"
	if r := b.run(s); r.Mode != ModeCold || !strings.Contains(r.WhyCold, "start-up variables") {
		t.Errorf("first attempt with the variable: got %+v", r)
	}
	s = spec()
	s.Env["READING_OPTION"] = "1"
	if r := b.run(s); r.Mode != ModeWarm {
		t.Errorf("second attempt with the variable: got %+v", r)
	}
	if zygotes, err := b.client.Zygotes(b.ctx()); err != nil || len(zygotes) != 2 {
		t.Errorf("got %+v, %v, want two warm workers", zygotes, err)
	}
}

func TestWhatCannotBeForkedRunsColdAndSaysWhy(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	s := b.pythonSpec(py, tasksSource, "add1")
	s.Env["PYTHONHASHSEED"] = "7"
	if r := b.run(s); r.Mode != ModeCold || !strings.Contains(r.WhyCold, "PYTHONHASHSEED") || r.Code != 0 {
		t.Errorf("hash seed: got %+v", r)
	}
	broken := filepath.Join(b.dir, "bin", "python")
	if err := os.MkdirAll(filepath.Dir(broken), 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\ncase \"$2\" in *zygote*) echo this Python is broken >&2; exit 3;; esac\nexec " + py + " \"$@\"\n"
	syscall.ForkLock.RLock() // a file that a process which is just being forked has open for writing cannot be run
	err := os.WriteFile(broken, []byte(script), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	s = b.pythonSpec(broken, tasksSource, "add1")
	if r := b.run(s); r.Mode != ModeCold || !strings.Contains(r.WhyCold, "this Python is broken") || r.Code != 0 {
		t.Errorf("zygote that does not start: got %+v\n%s", r, b.read(s.Stderr))
	}
}

func TestConcurrentAttemptsShareOneWarmWorker(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	specs := make([]Spec, 20)
	if err := b.client.Prepare(b.ctx(), Environment{Interpreter: py, Digest: "sha256:test", Variables: map[string]string{"HOME": b.dir}}); err != nil {
		t.Fatal(err)
	}
	for i := range specs {
		specs[i] = b.pythonSpec(py, tasksSource, "add1")
		b.start(specs[i])
	}
	for _, s := range specs {
		if done := b.await(s.AttemptID, EventDone); done.Exit.Code != 0 || !exists(filepath.Join(s.OutputDir, "outputs.pb")) {
			t.Errorf("done: got %+v, outputs there: %t", done, exists(filepath.Join(s.OutputDir, "outputs.pb")))
		}
		if r := b.await(s.AttemptID, EventExited).Exit; r.Code != 0 || r.Mode != ModeWarm || r.PeakMemory <= 0 || r.CPUUser+r.CPUSystem <= 0 {
			t.Errorf("exited: got %+v", r)
		}
	}
	zygotes, err := b.client.Zygotes(b.ctx())
	if err != nil || len(zygotes) != 1 || zygotes[0].Forks != 20 {
		t.Errorf("got %+v, %v, want one warm worker with 20 forks", zygotes, err)
	}
}

// A task sends SIGSTOP to the warm worker. Once each later attempt waited for twenty seconds then, and got a new worker.
func TestAStoppedWarmWorkerGoesOn(t *testing.T) {
	t.Parallel()
	interpreter := python(t)
	b := newBench(t)
	first := b.pythonSpec(interpreter, tasksSource, "add1")
	if r := b.run(first); r.Mode != ModeWarm {
		t.Fatalf("got %+v, want it warm", r)
	}
	before, err := b.client.Zygotes(b.ctx())
	if err != nil || len(before) != 1 {
		t.Fatalf("%+v, %v", before, err)
	}
	if err := syscall.Kill(before[0].PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if r := b.run(b.pythonSpec(interpreter, tasksSource, "add1")); r.Mode != ModeWarm || r.Code != 0 {
		t.Errorf("got %+v, want it warm", r)
	}
	if after, err := b.client.Zygotes(b.ctx()); err != nil || len(after) != 1 || after[0].PID != before[0].PID {
		t.Errorf("got %+v, %v, want the warm worker %d", after, err, before[0].PID)
	}
}
