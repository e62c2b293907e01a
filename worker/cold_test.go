//go:build linux

package worker

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Cold is the specification: each situation is run in a fresh interpreter, and rounds times in children of a warm worker, which has
// learnt imports from other tasks and from the situation itself.

const rounds = 3

// situation is a task that may find out whether its process is warm or cold.
type situation struct {
	name   string            // SITUATION of the task's environment
	change func(*Spec)       // nil: nothing
	holds  string            // a part of outputs.pb or of the standard output, cold and warm; empty: any
	code   int               // the exit code, cold and warm
	signal int               // the signal, cold and warm
	files  map[string]string // in the code folder, beside tasks.py
}

// same runs situations and reports where warm differs from cold.
func (b *bench) same(interpreter, source string, situations []situation) {
	b.Helper()
	for _, c := range situations {
		var cold result
		for round := range rounds + 1 {
			s := b.pythonSpec(interpreter, source, "t")
			s.Env["SITUATION"] = c.name
			s.Argv[2] = "aloft://blob/" + c.name // another archive
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

// forksSource has ways in which a process that the task forked returns from the task's function.
const forksSource = `
import atexit, ctypes, multiprocessing, os, pty, signal, subprocess, sys, threading, concurrent.futures
from flytekit import task

SITUATION = os.environ["SITUATION"]

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
    if SITUATION.startswith("exit ") or SITUATION == "raise" or SITUATION == "return":
        pid = os.fork()
        if pid == 0:
            if SITUATION == "return":
                return 7
            leave(SITUATION.removeprefix("exit "))
        wait(pid)
        return x + 1
    if SITUATION == "parent is killed":
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        wait(pid)
        os.kill(os.getpid(), signal.SIGKILL)
    if SITUATION == "parent exits":
        pid = os.fork()
        if pid == 0:
            return 7
        wait(pid)
        os._exit(3)
    if SITUATION == "parent raises":
        pid = os.fork()
        if pid == 0:
            sys.exit(1)
        wait(pid)
        raise ValueError("the parent's own")
    if SITUATION == "parent ends first":
        r, w = os.pipe()
        if os.fork():
            os._exit(0)
        os.read(r, 1)
        return 5
    if SITUATION == "orphan":
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                os.read(r, 1)
            os._exit(0)
        wait(pid)
        try:
            print("another child", os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("no other child")
        return x + 1
    if SITUATION == "without hooks":
        libc = ctypes.CDLL(None)
        pid = libc.fork()
        if pid == 0:
            return 7
        wait(pid)
        return x + 1
    if SITUATION == "twice":
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                return 8
            os.wait()
            return 7
        wait(pid)
        return x + 1
    if SITUATION == "pty":
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
    if SITUATION == "after threads":
        done = threading.Event()
        threading.Thread(target=done.wait).start()
        pid = os.fork()
        if pid == 0:
            return 7
        wait(pid)
        done.set()
        return x + 1
    if SITUATION == "in a thread":
        def run():
            pid = os.fork()
            if pid == 0:
                sys.exit(5)
            wait(pid)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return x + 1
    if SITUATION == "exec":
        pid = os.fork()
        if pid == 0:
            os.execv("/bin/sh", ["sh", "-c", "echo replaced; exit 9"])
        wait(pid)
        return x + 1
    if SITUATION == "spawn":
        wait(os.posix_spawn("/bin/sh", ["sh", "-c", "echo spawned; exit 9"], os.environ))
        print(subprocess.run(["sh", "-c", "ls /proc/self/fd | wc -w"], capture_output=True, text=True, close_fds=False).stdout)
        return subprocess.run([sys.executable, "-c", "import sys; sys.exit(4)"]).returncode
    if SITUATION == "pools":
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
    if SITUATION == "descriptors closed":
        os.closerange(64, 2048)  # not those of flytekit's loop
        files = [open("mine%d" % i, "w") for i in range(600)]
        for f in files:
            f.write("x")
        globals()["KEPT"] = files
        return x + 1
    raise LookupError(SITUATION)
`

func TestOnlyTheProcessThatWasStartedSpeaksForItsAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.same(python(t), forksSource, []situation{
		{name: "return", holds: "integer: 42"},
		{name: "raise", holds: "integer: 42"},
		{name: "exit 0", holds: "integer: 42"},
		{name: "exit 1", holds: "integer: 42"},
		{name: "parent is killed", signal: 9},
		{name: "parent exits", code: 3},
		{name: "parent raises"},
		{name: "parent ends first"},
		{name: "orphan", holds: "no other child"},
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

// virtual makes a virtual environment on top of the interpreter's own packages, with modules of the test's.
func (b *bench) virtual(interpreter string, modules map[string]string) (python, site string) {
	b.Helper()
	env := filepath.Join(b.dir, "env")
	script := `import subprocess, sys, sysconfig
subprocess.run([sys.executable, "-m", "venv", "--without-pip", sys.argv[1]], check=True)
print(sysconfig.get_path("purelib"))`
	out, err := exec.Command(interpreter, "-c", script, env).Output()
	if err != nil {
		b.Fatal(err)
	}
	sites, err := filepath.Glob(filepath.Join(env, "lib", "python3*", "site-packages"))
	if err != nil || len(sites) != 1 {
		b.Fatalf("site-packages: %v, %v", sites, err)
	}
	b.write(filepath.Join(sites[0], "base.pth"), strings.TrimSpace(string(out))+"\n")
	for name, content := range modules {
		b.write(filepath.Join(sites[0], name), content)
	}
	return filepath.Join(env, "bin", "python"), sites[0]
}

// teach adds modules to the import profile of an attempt's environment, as if tasks had imported them, and waits until a warm worker
// has tried to import them ahead.
func (b *bench) teach(s Spec, modules ...string) ZygoteStatus {
	b.Helper()
	f, err := newFolder(b.config.DataDir)
	if err != nil {
		b.Fatal(err)
	}
	// With these there are enough modules for a successor.
	modules = append(modules, "colorsys", "sched", "netrc", "wave", "fileinput", "filecmp", "mailbox", "plistlib", "poplib", "ftplib", "cmd", "modulefinder")
	content, err := json.Marshal(map[string]any{"modules": modules})
	if err != nil {
		b.Fatal(err)
	}
	b.write(filepath.Join(f.learnt(), shortHash(s.Environment.Interpreter, s.Environment.Digest)+".json"), string(content))
	if r := b.run(s); r.Mode != ModeWarm || r.Code != 0 {
		b.Fatalf("got %+v\n%s", r, b.read(s.Stderr))
	}
	return b.warm(1)
}

// libraries are modules whose imports make a process differ from other processes, each in another way.
var libraries = map[string]string{
	"envlib.py":           "import os\nVALUE = os.environ.get('ENVLIB', 'unset')\n",
	"bytelib.py":          "import os\nVALUE = os.getenvb(b'BYTELIB')\n",
	"alllib.py":           "import os\nVALUE = sorted(k for k in os.environ if k.startswith('ALLLIB_'))\n",
	"filelib.py":          "import os\nVALUE = open('filelib.cfg').read() if os.path.exists('filelib.cfg') else 'none'\n",
	"cwdlib.py":           "import os\nVALUE = os.getcwd() == os.environ.get('WORK')\n",
	"shadowed.py":         "VALUE = 'installed'\n",
	"usesshadow.py":       "import shadowed\nVALUE = shadowed.VALUE\n",
	"misslib.py":          "try:\n    import optionallib\n    VALUE = optionallib.VALUE\nexcept ImportError:\n    VALUE = 'without'\n",
	"templib.py":          "import atexit, shutil, tempfile\nD = tempfile.mkdtemp()\natexit.register(shutil.rmtree, D)\nVALUE = __import__('os').path.dirname(D) == __import__('os').environ.get('TMPDIR')\n",
	"idlib.py":            "import uuid\nVALUE = uuid.uuid4().hex\n",
	"randomlib.py":        "import random\nVALUE = random.random()\n",
	"clocklib.py":         "import time\nSTARTED = time.time()\n",
	"nowlib.py":           "from datetime import datetime\nSTARTED = datetime.now()\n",
	"pidlib.py":           "import os\nPID = os.getpid()\n",
	"openlib.py":          "F = open(__file__)\n",
	"sqllib.py":           "import sqlite3\nDB = sqlite3.connect(':memory:')\nDB.execute('create table t (x)')\n",
	"threadlib.py":        "import threading\nE = threading.Event()\nT = threading.Thread(target=E.wait, daemon=True)\nT.start()\n",
	"socketlib.py":        "import socket\nS = socket.socket()\n",
	"childlib.py":         "import subprocess\nP = subprocess.Popen(['sleep', '1000'])\n",
	"exitlib.py":          "import atexit\natexit.register(print, 'exitlib ends', flush=True)\n",
	"warnlib.py":          "import warnings\nwarnings.filterwarnings('ignore', message='of warnlib')\n",
	"loglib.py":           "import logging\nLOG = logging.getLogger('loglib')\n",
	"patchlib.py":         "import json\nOLD = json.dumps\njson.dumps = lambda *a, **k: 'patched'\n",
	"setlib.py":           "import os\nos.environ['SETLIB'] = 'set'\n",
	"pathlib2.py":         "import sys\nsys.path.append('/added/by/a/library')\n",
	"signallib.py":        "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n",
	"registerlib.py":      "import multiprocessing.context\nmultiprocessing.context._concrete_contexts['registerlib'] = None\n",
	"exchangelib.py":      "import multiprocessing.context\nmultiprocessing.context._concrete_contexts['fork'] = None\n",
	"firstlib.py":         "import os\nP = os.environ['HOME'] + '/firstlib.cache'\nif not os.path.exists(P):\n    open(P, 'w').write('made once')\nVALUE = open(P).read()\n",
	"everlib.py":          "import os\nopen(os.environ['HOME'] + '/everlib.cache', 'w').write('made')\n",
	"default1lib.py":      "import os\nos.environ.setdefault('DEFAULTLIB', 'default')\nVALUE = os.environ['DEFAULTLIB']\n",
	"default2lib.py":      "import os\nos.environ.setdefault('DEFAULTLIB', 'default')\n",
	"package/__init__.py": "",
	"package/inner.py":    "VALUE = 'inner'\n",
	"pureone.py":          "import package.inner\nVALUE = 'pure'\n",
}

// learntSource prints the state of the process before and after it imports the libraries.
const learntSource = `
import json, logging, os, signal, sys, time, warnings
from flytekit import task

kind, libraries = os.environ["SITUATION"], os.environ["LIBRARIES"].split()
if kind == "sets":
    os.environ["ENVLIB"] = os.environ["BYTELIB"] = os.environ["ALLLIB_X"] = os.environ["DEFAULTLIB"] = "by the code"
if kind == "path":
    sys.path.insert(0, os.path.join(os.environ["WORK"], "more"))
if kind == "chdir":
    os.makedirs("elsewhere", exist_ok=True)
    os.chdir("elsewhere")
    open("filelib.cfg", "w").write("elsewhere")

def surroundings():
    import asyncio, multiprocessing, threading
    contexts = multiprocessing.context._concrete_contexts
    return [
        "registerlib" in contexts, contexts["fork"] is None,
        json.dumps(1), "/added/by/a/library" in sys.path, os.environ.get("SETLIB"), os.environ.get("DEFAULTLIB"), signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
        [f[1].pattern for f in warnings.filters if f[1] and "warnlib" in f[1].pattern], "loglib" in logging.root.manager.loggerDict,
        [n for n in %(NAMES)s if n in sys.modules], sorted(t.name for t in threading.enumerate() if t.name.startswith("Thread")),
    ]

def made_anew(name, value):
    with open(os.path.join(os.environ["SHARED"], name), "a+") as f:
        f.seek(0)
        before = f.read()
        f.write(repr(value) + "\n")
    return repr(value) not in before

@task
def t(x: int) -> int:
    print(surroundings())
    for library in libraries:
        __import__(library)
        module = sys.modules[library]
        seen = [library]
        if library in ("idlib", "randomlib"):
            seen.append(made_anew(library, module.VALUE))
        else:
            seen.append(getattr(module, "VALUE", None))
        if library == "pureone":
            import package
            seen += [hasattr(package, "inner"), "package.inner" in sys.modules]
        if library == "package":
            seen += [hasattr(module, "inner"), "package.inner" in sys.modules]
        if library == "clocklib":
            seen.append(module.STARTED >= float(os.environ["BEGUN"]))
        if library == "nowlib":
            seen.append(module.STARTED.timestamp() >= float(os.environ["BEGUN"]))
        if library == "pidlib":
            seen.append(module.PID == os.getpid())
        if library == "openlib":
            seen.append(module.F.read(3))
        if library == "templib":
            seen.append(os.path.isdir(module.D))
        if library == "threadlib":
            seen.append(module.T.is_alive())
        if library == "childlib":
            seen.append(module.P.poll())
        if library == "loglib":
            seen += [module.LOG.parent is logging.root, module.LOG.getEffectiveLevel() == logging.root.level]
        print(seen + surroundings())
    return x
`

// A library may read or make anything at its import: a task sees the same as in a fresh interpreter.
func TestWhatOthersHaveImportedIsNotSeen(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	interpreter, _ := b.virtual(py, libraries)
	shared := filepath.Join(b.dir, "shared")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	var names []string
	for file := range libraries {
		names = append(names, strings.TrimSuffix(strings.ReplaceAll(strings.TrimSuffix(file, ".py"), "/", "."), ".__init__"))
	}
	slices.Sort(names)
	z := b.teach(b.pythonSpec(interpreter, tasksSource, "add1"), names...)
	dropped := strings.Join(z.Dropped, "\n")
	for _, want := range []string{
		"alllib: reads all variables", "cwdlib: reads the working folder", "templib: ", "idlib: draws random numbers", "randomlib: draws random numbers",
		"clocklib: reads the clock", "nowlib: reads the clock", "pidlib: reads the process's number", "openlib: leaves a descriptor open",
		"threadlib: leaves threads running", "socketlib: leaves", "childlib: ", "patchlib: changes json.dumps", "pathlib2: changes sys", "signallib: changes the signals",
		"exchangelib: changes multiprocessing.context._concrete_contexts", "everlib: writes ",
	} {
		if !strings.Contains(dropped, want) {
			t.Errorf("dropped %q does not hold %q", dropped, want)
		}
	}
	for _, name := range []string{"envlib", "filelib", "shadowed", "usesshadow", "misslib", "exitlib", "warnlib", "loglib", "setlib", "package", "pureone", "registerlib", "firstlib", "default1lib", "default2lib"} {
		if strings.Contains(dropped, "\n"+name+": ") {
			t.Errorf("%s was dropped: %s", name, dropped)
		}
	}
	everything := strings.Join(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "package.inner" }), " ")
	quoted, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	source := strings.ReplaceAll(learntSource, "%(NAMES)s", string(quoted))
	var all []situation
	add := func(name, libraries string, files map[string]string, change func(*Spec)) {
		all = append(all, situation{name: name, files: files, change: func(s *Spec) {
			s.Env["WORK"], s.Env["SHARED"], s.Env["BEGUN"], s.Env["LIBRARIES"] = s.WorkDir, shared, fmt.Sprint(time.Now().Unix()), libraries
			if change != nil {
				change(s)
			}
		}})
	}
	mine := map[string]string{
		"filelib.cfg": "mine", "shadowed/__init__.py": "VALUE = 'bundled'\n", "optionallib.py": "VALUE = 'bundled'\n",
		"more/shadowed.py": "VALUE = 'on a path'\n", "more/optionallib.py": "VALUE = 'on a path'\n",
	}
	elsewhere := map[string]string{"more/shadowed.py": mine["more/shadowed.py"], "more/optionallib.py": mine["more/optionallib.py"]}
	add("plain", everything, nil, nil)
	add("reversed", "pureone package usesshadow shadowed misslib exitlib warnlib loglib setlib envlib", nil, nil)
	add("sets", "envlib bytelib alllib default2lib default1lib", nil, nil)
	add("defaults", "default2lib", nil, nil)
	add("given", "envlib bytelib alllib", nil, func(s *Spec) { s.Env["ENVLIB"], s.Env["BYTELIB"], s.Env["ALLLIB_Y"] = "given", "given", "given" })
	add("bundled", "filelib usesshadow misslib", mine, nil)
	add("chdir", "filelib shadowed misslib", mine, nil)
	add("path", "shadowed misslib", elsewhere, nil)
	add("PYTHONPATH", "usesshadow misslib", elsewhere, func(s *Spec) { s.Env["PYTHONPATH"] = filepath.Join(s.WorkDir, "more") })
	add("a click of its own", "envlib", map[string]string{"click.py": "raise ImportError('my click')\n"}, nil)
	all[len(all)-1].code = 1
	add("nothing", "", nil, nil)
	b.same(interpreter, source, all)
}

// A warm worker believes the proofs of an earlier one while everything that they rest on is the same; what it then has imported is
// what a fresh interpreter imports.
func TestProofsAreKeptAndNotBelievedWhenTheyAreStaleOrDamaged(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	interpreter, site := b.virtual(py, libraries)
	s := b.pythonSpec(interpreter, tasksSource, "add1")
	names := []string{"envlib", "exitlib", "warnlib", "loglib", "setlib", "registerlib", "pureone", "misslib", "usesshadow"}
	first := b.teach(s, names...)
	if first.Believed != 0 || first.Preloaded == 0 {
		t.Fatalf("the first one: %+v", first)
	}
	kept := filepath.Join(b.config.DataDir, "worker", "learnt", shortHash(s.Environment.Interpreter, s.Environment.Digest)+".json.proofs")
	// another ends the supervisor, and has the next one start a warm worker.
	another := func() ZygoteStatus {
		t.Helper()
		if err := b.client.Shutdown(b.ctx(), time.Nanosecond); err != nil {
			t.Fatal(err)
		}
		_ = b.client.Close()
		b.connect()
		b.run(b.pythonSpec(interpreter, tasksSource, "add1"))
		return b.warm(1)
	}
	if z := another(); z.Believed != first.Preloaded || z.Preloaded != first.Preloaded {
		t.Errorf("nothing has changed: got %+v, want %d believed", z, first.Preloaded)
	}
	source := strings.ReplaceAll(learntSource, "%(NAMES)s", `["envlib", "exitlib", "registerlib", "package.inner"]`)
	b.same(interpreter, source, []situation{{name: "plain", change: func(s *Spec) {
		s.Env["WORK"], s.Env["SHARED"], s.Env["BEGUN"], s.Env["LIBRARIES"] = s.WorkDir, b.dir, "0", strings.Join(names, " ")
	}}})

	damaged := strings.Replace(b.read(kept), `"envlib"`, `"envliB"`, 1)
	b.write(kept, damaged)
	if z := another(); z.Believed != 0 || z.Preloaded != first.Preloaded {
		t.Errorf("the file is damaged: got %+v, want nothing believed", z)
	}
	if b.read(kept) == damaged {
		t.Error("a damaged file stays")
	}
	b.write(filepath.Join(site, "envlib.py"), "import time\nVALUE = time.time() # now\n")
	if z := another(); z.Believed != 0 || !strings.Contains(strings.Join(z.Dropped, " "), "envlib: reads the clock") {
		t.Errorf("a module has changed: got %+v, want nothing believed and envlib dropped", z)
	}
}

// factsSource prints what a task can find out about its process, and ends in ways that differ.
const factsSource = `
import asyncio, atexit, builtins, faulthandler, gc, json, locale, logging, multiprocessing, os, pickle, resource, signal, sys, tempfile, threading
import time, tracemalloc, warnings
from flytekit import task

SITUATION = os.environ["SITUATION"]
LEFT = open("left.txt", "w")
LEFT.write("never closed")

class Last:
    def __del__(self):
        with open("deleted.txt", "a") as f:
            f.write("deleted")

LAST = Last()

def facts():
    main = sys.modules["__main__"]
    mask = os.umask(0)
    os.umask(mask)
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[int(fd)] = os.readlink("/proc/self/fd/" + fd).split(":")[0]
        except OSError:
            pass
    with open("/proc/self/status") as f:
        status = {k: v.strip() for k, v in (line.split(":", 1) for line in f) if k in (
            "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd", "Umask", "NoNewPrivs", "Seccomp", "CapEff", "Groups")}
    manager = logging.root.manager
    return {
        "umask": mask, "nice": os.getpriority(os.PRIO_PROCESS, 0), "limits": [resource.getrlimit(i) for i in range(16) if i != 10],
        "session": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpid(), "status": status,
        "signals": {int(n): getattr(signal.getsignal(n), "__qualname__", str(signal.getsignal(n))) for n in signal.valid_signals()},
        "argv": sys.argv, "orig_argv": sys.orig_argv[1:], "flags": str(sys.flags), "xoptions": sys._xoptions, "warnoptions": sys.warnoptions,
        "main": sorted(vars(main)), "main file": getattr(main, "__file__", None), "main spec": repr(main.__spec__), "main loader": type(main.__loader__).__name__,
        "cached": getattr(main, "__cached__", 0), "path": sys.path, "meta_path": [getattr(f, "__name__", type(f).__name__) for f in sys.meta_path],
        "hooks": len(sys.path_hooks), "modules": [n in sys.modules for n in ("numpy", "pandas.core", "sklearn", "pyarrow.lib", "mashumaro.jsonschema")],
        "filters": [(f[0], f[1] and f[1].pattern, f[2].__name__, f[4]) for f in warnings.filters], "gc": [gc.isenabled(), gc.get_threshold(), len(gc.callbacks)],
        "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(), "locale": locale.setlocale(locale.LC_ALL), "zone": time.tzname,
        "encodings": [sys.getfilesystemencoding(), sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering, sys.stdout.write_through, sys.stderr.line_buffering],
        "stdin": [sys.stdin.name, sys.stdin.read()], "faulthandler": faulthandler.is_enabled(), "tracemalloc": tracemalloc.is_tracing(),
        "threads": sorted(t.name for t in threading.enumerate() if "Loop" not in t.name and "sync_" not in t.name), "main thread": threading.main_thread().ident == threading.get_ident(),
        "cwd": os.getcwd(), "environ": [(k, v) for k, v in os.environ.items() if k != "LC_CTYPE"],
        "command line": open("/proc/self/cmdline").read().split("\0"), "started with": open("/proc/self/environ").read().split("\0"),
        "tempdir": tempfile.gettempdir(), "root": [logging.root.level, [type(h).__name__ for h in logging.root.handlers]], "disable": manager.disable,
        "loggers": sorted(n for n, l in manager.loggerDict.items() if not isinstance(l, logging.PlaceHolder) and n.startswith(("flyte", "pandas", "numpy", "asyncio"))),
        "flytekit": [(l.level, [type(h).__name__ for h in l.handlers]) for l in (logging.getLogger("flytekit"), logging.getLogger("flytekit.user_space"))],
        "relative": logging.makeLogRecord({}).relativeCreated < 600_000, "hooks of sys": [sys.excepthook.__qualname__, sys.displayhook.__qualname__, sys.unraisablehook.__qualname__],
        "loop": repr(asyncio.get_event_loop_policy()._local.__dict__), "start": multiprocessing.get_start_method(allow_none=True), "process": multiprocessing.current_process().name,
        "descriptors": [fds.get(i) for i in range(3)], "next": os.dup(0) < 64, "executable": sys.executable, "prefix": sys.prefix, "hash": hash("x") if sys.flags.hash_randomization == 0 else None,
        "builtins": len(dir(builtins)), "children": os.path.exists("/proc/self/task/%d/children" % os.getpid()) and open("/proc/self/task/%d/children" % os.getpid()).read(),
        "pickled": pickle.loads(pickle.dumps(square))(3), "recorded": logging.getLogRecordFactory().__qualname__, "class": logging.getLoggerClass().__qualname__,
    }

def square(v):
    return v * v

@task
def t(x: int) -> int:
    atexit.register(lambda: print("first handler"))
    atexit.register(lambda: print("second handler"))
    if SITUATION.startswith("facts"):
        for name, value in facts().items():
            print(name, "=", json.dumps(value, default=repr, sort_keys=True))
    if SITUATION == "exit none":
        sys.exit()
    if SITUATION == "exit text":
        sys.exit("farewell")
    if SITUATION == "exit 300":
        sys.exit(300)
    if SITUATION == "interrupt":
        raise KeyboardInterrupt
    if SITUATION == "thread exits":
        thread = threading.Thread(target=sys.exit, args=(5,))
        thread.start()
        thread.join()
    if SITUATION == "terminated":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(100)
    if SITUATION == "stdout closed":
        os.close(1)
        print("lost")
    if SITUATION == "daemon thread":
        threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()
    print("ends")
    return x + 1
`

func TestATaskFindsTheProcessOfAFreshInterpreterAndEndsLikeIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	all := []situation{{name: "facts", holds: "integer: 42"}}
	all = append(all, situation{name: "facts elsewhere", holds: "integer: 42", change: func(s *Spec) {
		maps.Copy(s.Env, map[string]string{
			"TZ": "Asia/Tokyo", "PYTHONPATH": "more::/nowhere:" + s.WorkDir, "FLYTE_SDK_LOGGING_LEVEL": "40", "FLYTE_SDK_LOGGING_FORMAT": "text",
		})
	}})
	all = append(all, situation{name: "facts seeded", holds: "integer: 42", change: func(s *Spec) { s.Env["PYTHONHASHSEED"] = "0" }})
	for _, name := range []string{"exit none", "exit 300", "exit text", "interrupt", "thread exits", "stdout closed", "daemon thread", "terminated"} {
		all = append(all, situation{name: name})
	}
	all[4].code, all[5].code, all[6].code, all[len(all)-1].signal = 300&255, 1, 1, 15
	b.same(python(t), factsSource, all)
}

// What a task finds out also depends on how its interpreter is reached, and on whether console scripts are installed.
func TestATaskFindsTheProcessOfAFreshInterpreterThroughALinkAndWithoutConsoleScripts(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	link := filepath.Join(b.dir, "link")
	if err := os.Symlink(filepath.Dir(filepath.Dir(py)), link); err != nil {
		t.Fatal(err)
	}
	without, _ := b.virtual(py, nil)
	for _, interpreter := range []string{filepath.Join(link, "bin", "python"), without} {
		b.same(interpreter, factsSource, []situation{{name: "facts", holds: "integer: 42"}})
	}
}

// A module that appears in the environment, by a .pth file too, is there for the next attempt; so is a change of an installed file.
func TestAChangeOfTheEnvironmentIsSeenByTheNextAttempt(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	interpreter, site := b.virtual(py, map[string]string{"installed.py": "VALUE = 'old'\n"})
	source := `
import sys
from flytekit import task

@task
def t(x: int) -> str:
    import installed
    try:
        import editable
        return installed.VALUE + " " + editable.VALUE
    except ImportError:
        return installed.VALUE + " alone"
`
	elsewhere := filepath.Join(b.dir, "elsewhere")
	run := func(want string) {
		t.Helper()
		for range 2 {
			s := b.pythonSpec(interpreter, source, "t")
			r := b.run(s)
			if got := b.result(s, r).Files["outputs.pb"]; !strings.Contains(got, want) || r.Mode != ModeWarm {
				t.Errorf("got %s %s\n%s, want %s\n%s", r.Mode, r.WhyCold, got, want, b.read(s.Stderr))
			}
		}
	}
	b.teach(b.pythonSpec(interpreter, source, "t"), "installed", "mashumaro.jsonschema")
	run("old alone")
	b.write(filepath.Join(elsewhere, "editable.py"), "VALUE = 'first'\n")
	b.write(filepath.Join(site, "__editable__.pth"), elsewhere+"\n")
	run("old first")
	b.write(filepath.Join(elsewhere, "editable.py"), "VALUE = 'changed, and longer'\n")
	run("old changed")
	b.write(filepath.Join(site, "installed.py"), "VALUE = 'newer'\n")
	run("newer changed")
}

// A library with native code cannot be loaded a second time: if it has read something that the code has changed since, the attempt
// starts over in a fresh interpreter, and its code is not forked again.
func TestWhatTheCodeSetsBeforeAnImportIsHonoured(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	source := `
import os
print("loading")
if os.environ["SITUATION"] == "sets":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy
from flytekit import task

@task
def t(x: int) -> int:
    return x + len([n for n in os.listdir("/proc/self/task")]) * (os.environ["SITUATION"] == "sets")
`
	spec := b.pythonSpec(py, source, "t")
	spec.Env["SITUATION"] = "plain"
	if z := b.teach(spec, "numpy", "mashumaro.jsonschema"); len(z.Dropped) > 0 {
		t.Errorf("dropped %v", z.Dropped)
	}
	b.same(py, source, []situation{{name: "plain", holds: "loading"}, {name: "sets", holds: "loading"}})
	spec = b.pythonSpec(py, source, "t")
	spec.Argv[2], spec.Env["SITUATION"] = "aloft://blob/sets", "sets"
	if r := b.run(spec); r.Mode != ModeCold || !strings.Contains(r.WhyCold, "OPENBLAS_NUM_THREADS") {
		t.Errorf("got %s %q, want it cold since it sets OPENBLAS_NUM_THREADS", r.Mode, r.WhyCold)
	}
}
