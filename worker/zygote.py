"""The warm worker: a process that has flytekit imported and forks one child per attempt (Linux, Python >= 3.9).

Warm is cold: a task cannot tell how its process was made. A fresh interpreter that runs the task's console script is the
specification; the following makes a fork of this process the same. (worker/cold_test.go compares the two. worker/doc.go tells
the life of a warm worker as the supervisor sees it.)

1. The ground: flytekit and the modules that it imports, which a fresh process imports before any code of the task.
   A Recorder records what these imports read. Variables are part of the key of this process (zygote.go), but for those that a
   child reads again (reset, set_up_loggers). The supervisor looks at the files again before each fork, and at the names of
   modules that the imports found on sys.path or looked for in vain: an attempt whose code or PYTHONPATH has such a name gets a
   fresh interpreter. Things that flytekit made for one process (random generators, the temporary folder, the context, loggers,
   an event loop) reset makes anew.
2. Modules of the environment that tasks were seen to import (LEARNT) are imported too, and each is watched while it is
   executed: a Proof lists the modules it asked for, found or not, the variables and files that it read, and what it left
   outside of itself. A module that read the clock, a process number, the working folder or random numbers, that wrote files,
   started programs, left descriptors, threads, sockets, signal handlers, or changed sys, the locale or other modules, is not
   proved; nor is a module that needs such a module, or that is no installed file. These modules are dropped by name, with the
   reason, and this process starts over without them: tasks import them themselves. Proofs are kept for the next process
   (ProofFile).
3. Proved modules are held out of sight (HeldModules): they are in no sys.modules, no package's attributes, no list of loggers,
   warning filters or exit handlers. When a task imports one, the task gets the held module if all that the module's import, and
   those of the modules it needs, have read is the same *now*: the order of sys.path, names that folders of the task have too,
   modules that were missing, variables (also those that a loaded library mentions), files. So variables that code sets before
   it imports, a bundled package, a changed sys.path and a configuration file in the working folder count as ever. If something
   differs, pure Python modules are imported again. Native modules cannot be: the attempt starts over in a fresh interpreter,
   and its code is not forked again ({"unfit"}).
4. The supervisor watches the folders of all imported modules, and of .pth files (imports.go): once a file there has changed,
   this process forks no more and another one is started. What site reads is in the environment's digest too.
5. A child ends as an interpreter does (finalize). Only the child itself speaks for the attempt, not what it forks (Channel).

What is taken on trust: modules of one package may change one another, also those that no task has imported yet; native code
reads no variable whose name is not in its file, and nothing per process when it is loaded; the table HARMLESS; modules leave
traces only in the containers and attributes that Surroundings compares.
What differs: the parent is this process and not the supervisor (a fork's parent is the process that forks), and the size of a
module's own dictionary.

Started by aloft's supervisor as `python -u zygote.py LEARNT WITHOUT_SCRIPT`, with a SEQPACKET socket as descriptor 3, on which it gets
    N, with the descriptor of a stream socket   fork a child, number N, that talks on that socket
and sends, as JSON objects (packets),
    {"ready": {..}}    {"restart": {"dropped": {MODULE: WHY}}}    {"restart": {"how": HOW}}    {"failed": WHY}    {"n": N, "pid": PID}
    {"n": N, "pid": PID, "status": S, "user": SECONDS, "sys": SECONDS, "maxrss": KB}    the child was reaped
The loop does nothing but fork and reap: the child itself reads its request (four bytes of length, JSON: childSpec), prepares
all that needs no user code, and waits for one byte, which comes when the attempt is claimed on disk. The end of the socket
before that byte ends the child. The child sends {"pid"}, then {"imported", "modules"} when the task's own work begins and it had
to import modules of the environment, then {"done", ..} when no code of the task runs any more, then {"memory"}.

The supervisor starts this process over with HOW as a further argument: "again", to see whether the files that modules made at
their import are made each time; "anew", without the proofs that earlier processes have kept. LEARNT is the path of a file
{"modules": [..], "dropped": {..}}: modules of the environment that earlier tasks imported. Empty: there are none.
WITHOUT_SCRIPT is the program that a fresh interpreter runs with -c in an environment without console scripts (command.go).
"""
import _signal, atexit, builtins, collections, contextlib, copyreg, ctypes, errno, fcntl, gc, importlib.util, json, locale, logging, mmap, os
import posix, random, resource, select, signal, socket, stat, struct, sys, tempfile, threading, time, traceback, types, warnings, weakref

COERCED = os.environ.get("LC_CTYPE")
encode, decode = json.dumps, json.loads  # the task may change the module json
PROBE = "from flytekit import task\n\n\n@task\ndef _zygote_probe(x: int) -> int:\n    return x\n"
ENTRIES = "pyflyte-execute", "pyflyte-map-execute"
MARK = "ALOFT_ATTEMPT_MARK"
SCRIPTS = {}  # name: (code of the console script, its path; None: it is not installed, and run by -c)
CHANNEL = 512  # descriptors of ours in a child have this number or a higher one
SHOWN = []  # memory with the command line and variables that /proc shows
UNSEEDED = []  # generators made before the fork that a fresh process would have seeded from the system
BASE, ROOTS, OWN, LIBC, MARK_AT, LAYOUT = frozenset(), (), (), ctypes.CDLL(None, use_errno=True), None, ()

# Variables that differ from attempt to attempt: a module that reads one at its import cannot be imported ahead.
PER_ATTEMPT = ("TMPDIR", "TEMP", "TMP", "PWD", "FLYTE_INTERNAL_", "FLYTE_ATTEMPT_NUMBER", "FLYTE_EXECUTION_URL", "_F_",
               "BATCH_JOB_", "FLYTE_K8S_", "ALOFT_")

# Variables that flytekit's own import may read all the same: reset and set_up_loggers read them again in each child.
SET_AGAIN = {"TMPDIR", "TEMP", "TMP", "PWD", "FLYTE_INTERNAL_EXECUTION_ID", "FLYTE_SDK_LOGGING_LEVEL", "FLYTE_SDK_DEV_LOGGING_LEVEL",
             "FLYTE_SDK_LOGGING_FORMAT"}

# Prefixes of variables whose full names native code puts together at run time.
COMPOSED = ("GRPC_", "ARROW_")


# ---- the ground ----------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def task_mode():
    """User code and plugins must see at import the context that they see in pyflyte-execute: some checks hold only outside."""
    from flytekit.core.context_manager import ExecutionState, FlyteContextManager as M
    c = M.current_context()
    es = c.new_execution_state().with_params(mode=ExecutionState.Mode.TASK_EXECUTION)
    with M.with_context(c.with_execution_state(es)):
        yield


def remember_seeds():
    """random.Random() made from now on is remembered when it was seeded from the system; Random(42) is left alone."""
    seed = random.Random.seed

    def remembering(self, a=None, version=2):
        if a is None and not any(r is self for r in UNSEEDED):
            UNSEEDED.append(self)
        return seed(self, a, version)
    random.Random.seed = remembering

    def restore():
        random.Random.seed = seed
    return restore


# ---- what an import is seen to read and make -----------------------------------------------------------------------

class Proof:
    """What the execution of one module was seen to do, without the modules that it imported. why is empty if that is harmless:
    then the module is proved."""
    __slots__ = "name", "needs", "variables", "writes", "defaults", "files", "missing", "year", "exits", "parent", "filters", "loggers", "entries", "why", "lazy"

    def __init__(self, name):
        self.name, self.why = name, ""
        self.needs = set()      # modules that this one asked for
        self.variables = {}     # read: name: value, None where there was none
        self.writes = {}        # set: name: value, None where it was deleted
        self.defaults = {}      # set by os.environ.setdefault: name: (value, whether it was missing before)
        self.files = {}         # looked at, outside of the environment: path as given: what was there
        self.missing = set()    # top-level modules that this one asked for and that do not exist
        self.year = None        # the year, if the module read the clock for no more than that
        self.exits = []         # (function, args, kwargs) of atexit
        self.parent = ()        # (name in the package, value there before the import); empty: no package, or imported with it
        self.filters = []       # of warnings, the first one first
        self.loggers = []       # names
        self.entries = {}       # registry: what the module has registered there, by key
        self.lazy = None        # of a LAZY module: its dictionary before it loaded itself; else None

    def doubt(self, why):
        self.why = self.why or why


# Dictionaries in which modules register things: entries of a held module are taken out until a task imports the module.
REGISTRIES = "copyreg.dispatch_table", "multiprocessing.context._concrete_contexts"


def registries():
    """The REGISTRIES whose modules are loaded, by name."""
    found = {}
    for name in REGISTRIES:
        module, _, attr = name.rpartition(".")
        if isinstance(registry := dict_of(sys.modules[module]).get(attr) if module in sys.modules else None, dict):
            found[name] = registry
    return found


# Calls that make a module's import differ from process to process, by the name of the C function.
CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns",
          "clock_gettime", "clock_gettime_ns", "localtime", "ctime", "asctime", "now", "utcnow", "today"}
CALLS = {
    **dict.fromkeys(CLOCKS, "reads the clock"),
    **dict.fromkeys(("urandom", "getrandom", "random", "getrandbits", "seed"), "draws random numbers"),
    **dict.fromkeys(("getpid", "getppid", "getpgid", "getsid", "gettid", "get_native_id"), "reads the process's number"),
    **dict.fromkeys(("getcwd", "getcwdb"), "reads the working folder"),
    **dict.fromkeys(("set_wakeup_fd", "umask", "setrlimit", "setpriority", "nice", "setrecursionlimit", "setswitchinterval",
                     "setprofile", "settrace", "set_asyncgen_hooks", "pthread_sigmask", "set_int_max_str_digits", "setpgid",
                     "setsid", "initgroups", "setuid", "setgid"), "changes the process"),
    "register": "registers an exit handler that cannot be put off",
}
HOMES = {"time": CLOCKS, "posix": CALLS, "_signal": CALLS, "resource": CALLS, "sys": CALLS, "atexit": {"register"}, "_thread": CALLS}

MAKES_FILES = "makes or changes files"

# Calls of well-known modules that are harmless, with the reason: (module, call): "", or "year" if the call is used for the year
# only (then the year is compared when a task imports the module).
HARMLESS = {
    ("dateutil.parser._parser", "localtime"): "year",  # the century of years with two digits
    ("numpy.f2py.rules", "time"): "", ("numpy.f2py.rules", "asctime"): "",  # the date in the head of C code that it generates
    ("numpy.random._pickle", "urandom"): "",  # the global generator, which reset seeds again
    ("numpy.random.mtrand", "urandom"): "", ("numpy.random", "urandom"): "",
    ("mashumaro.", "urandom"): "",  # names of methods that it generates
    ("rich.style", "getrandbits"): "",  # the id of a link, one for each style
    ("fsspec.", "getpid"): "",  # compared with the number at each use, to notice forks
    ("joblib._multiprocessing_helpers", "getpid"): "",  # tries whether there are semaphores; none stays
    ("joblib._multiprocessing_helpers", "random"): "",
    ("scipy.stats.", "urandom"): "",  # arguments of examples in documentation
    ("sklearn.", "urandom"): "",  # seeds of generators that C code makes and that nothing keeps
}


def harmless(module, call):
    for (name, c), how in HARMLESS.items():
        if c == call and (module == name or name.endswith(".") and module.startswith(name)):
            return how
    return None


class Recorder:
    """Makes a Proof of each module that is imported while the recorder is on (with recorder: ..)."""

    def __init__(self, thorough):
        self.thorough = thorough  # False: only what modules read is recorded, not what they make or change
        self.trusting, self.believed = False, set()  # trusting: an earlier process has proved the modules, and they are not watched
        self.proofs, self.ground = {}, Proof("")  # the ground is for what is read while no module is being executed
        self.stack, self.on = [self.ground], False
        B = importlib._bootstrap
        self.load, self.request, self.getitem = B._find_and_load, builtins.__import__, os._Environ.__getitem__
        self.setitem, self.delitem, self.iter = os._Environ.__setitem__, os._Environ.__delitem__, os._Environ.__iter__
        self.setdefault = os._Environ.setdefault
        self.register, self.stats, self.times = atexit.register, {}, collections.Counter()
        sys.addaudithook(self.audit)  # it cannot be removed, but does nothing while the recorder is off

    @property
    def now(self):
        """The proof of the module that is being executed."""
        return self.stack[-1]

    def __enter__(self):
        rec, B, E = self, importlib._bootstrap, os._Environ

        def getitem(env, key):
            name = key if isinstance(key, str) else os.fsdecode(key) if isinstance(key, bytes) else None
            if rec.on and name is not None and name not in rec.now.writes and name not in rec.now.defaults and not rec.copies(name):
                rec.times[name, rec.now is rec.ground] += 1
                rec.now.variables.setdefault(name, os.environ._data.get(os.fsencode(name)))
            return rec.getitem(env, key)

        def setitem(env, key, value):
            rec.setitem(env, key, value)
            rec.now.writes[os.fsdecode(key)] = os.fsdecode(value)

        def delitem(env, key):
            rec.delitem(env, key)
            rec.now.writes[os.fsdecode(key)] = None

        def setdefault(env, key, value):
            now = os.environ._data.get(os.fsencode(key))
            if not rec.on or not rec.thorough or now not in (None, os.fsencode(value)):
                return rec.setdefault(env, key, value)
            if now is None:
                rec.setitem(env, key, value)
            if key not in rec.now.variables and key not in rec.now.writes:
                rec.now.defaults.setdefault(key, (value, now is None))
            return value

        def iterate(env):
            if not rec.copies(""):
                rec.now.doubt("reads all variables")
            return rec.iter(env)
        E.__getitem__, E.__setitem__, E.__delitem__, E.__iter__, E.setdefault = getitem, setitem, delitem, iterate, setdefault

        def request(name, globals=None, locals=None, fromlist=(), level=0):
            module = rec.request(name, globals, locals, fromlist, level)
            if level:
                base = getattr(module, "__name__", "") if fromlist else ""
            else:
                base = name
            if base:
                rec.now.needs.add(base)
                for attr in fromlist or ():
                    if isinstance(attr, str) and base + "." + attr in sys.modules:
                        rec.now.needs.add(base + "." + attr)
            return module
        builtins.__import__ = request
        B._find_and_load = self.find_and_load

        def register(function, *args, **kwargs):
            if rec.on and getattr(function, "__qualname__", "").startswith("finalize."):  # weakref registers one exit handler for all finalizers of a process
                rec.now.doubt("makes finalizers")
            rec.now.exits.append((function, args, kwargs)) if rec.on else rec.register(function, *args, **kwargs)
            return function
        atexit.register = register
        for name in "stat", "lstat", "access", "readlink":
            self.stats[name] = real = getattr(os, name)

            def look(path, *args, real=real, **kwargs):
                rec.looks(path)
                return real(path, *args, **kwargs)
            setattr(os, name, look)
        self.finder = types.SimpleNamespace(find_spec=self.not_found)
        sys.meta_path.append(self.finder)
        self.on = True
        if self.thorough and not self.trusting:
            sys.setprofile(self.profile)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)
        self.on = False
        sys.meta_path.remove(self.finder)
        for name, real in self.stats.items():
            setattr(os, name, real)
        E = os._Environ
        E.__getitem__, E.__setitem__, E.__delitem__, E.__iter__, E.setdefault = self.getitem, self.setitem, self.delitem, self.iter, self.setdefault
        builtins.__import__, importlib._bootstrap._find_and_load, atexit.register = self.request, self.load, self.register

    def copies(self, name):
        """Whether all variables are read only to be handed to another program, or only those that begin with FSSPEC_ are used."""
        frame = sys._getframe(2)
        while frame and frame.f_globals.get("__name__") in ("os", "collections.abc", "_collections_abc"):
            frame = frame.f_back
        reader = frame and frame.f_globals.get("__name__")
        return reader in ("platform", "subprocess") or reader == "fsspec.config" and not name.startswith(("FSSPEC_", "HOME"))

    def not_found(self, name, path=None, target=None):
        if path is None:
            self.now.missing.add(name)

    def find_and_load(self, name, import_):
        package, _, attr = name.rpartition(".")
        if package and package not in sys.modules:
            import_(package)
        asker = self.now
        asker.needs.add(name)
        if name in sys.modules:
            return self.load(name, import_)
        proof = Proof(name)
        if package in sys.modules:
            proof.needs.add(package)
            proof.parent = attr, dict_of(sys.modules[package]).get(attr, ABSENT)
        before = self.before() if self.thorough else None
        self.stack.append(proof)
        tempfile.tempdir = None  # otherwise only the first module that asks for it would be seen to read TMPDIR
        try:
            return self.load(name, import_)
        finally:
            self.stack.pop()
            if before:
                self.compare(proof, before)
            if name in sys.modules:
                self.proofs[name] = proof
                if self.trusting:
                    self.believed.add(name)
            else:  # the import raised an error: what it did is charged to the module that asked for it
                for field in "variables", "writes", "defaults", "files":
                    getattr(asker, field).update(getattr(proof, field))
                asker.missing |= proof.missing
                asker.exits += proof.exits
                asker.why = asker.why or proof.why

    def wake(self, name, module, loader):
        """Executes a LAZY module when it is first used, and keeps in its proof what its dictionary was until then."""
        self.now.needs.add(name)
        proof = self.proofs[name] = Proof(name)
        if self.trusting:
            self.believed.add(name)
        names = dict_of(module)
        names["__spec__"].loader = loader
        proof.lazy = dict(names), dict(names["__spec__"].loader_state)
        before = self.before()
        self.stack.append(proof)
        try:
            loader.exec_module(module)
        finally:
            self.stack.pop()
            self.compare(proof, before)

    def before(self):
        """The state of the process before a module is executed, for compare."""
        with self.quiet():
            return None if self.trusting else traces(), list(warnings.filters), set(logging.Logger.manager.loggerDict), {n: dict(r) for n, r in registries().items()}

    def compare(self, proof, before):
        """Adds to a proof what has changed in the process while the module was executed."""
        with self.quiet():
            was, filters, loggers, entries = before
            for name, registry in registries().items():
                old = entries.get(name, {})
                if registry == old:
                    continue
                known = [p.entries.get(name, {}) for p in self.proofs.values()]
                if any(registry.get(k, ABSENT) is not v for k, v in old.items()):
                    proof.doubt(f"changes {name}")
                if new := {k: v for k, v in registry.items() if k not in old and not any(k in others for others in known)}:
                    proof.entries[name] = new
            if was and (why := left_behind(was, traces())):
                proof.doubt(why)
            if len(warnings.filters) != len(filters):
                known = {id(f) for f in filters} | {id(f) for p in self.proofs.values() for f in p.filters}
                proof.filters = [f for f in warnings.filters if id(f) not in known]
            if len(logging.Logger.manager.loggerDict) != len(loggers):
                known = loggers | {n for p in self.proofs.values() for n in p.loggers}
                proof.loggers = [n for n in logging.Logger.manager.loggerDict if n not in known]

    @contextlib.contextmanager
    def quiet(self):
        """Switches the recorder off for what the recorder itself does."""
        sys.setprofile(None)
        self.on, on = False, self.on
        try:
            yield
        finally:
            self.on = on
            if on and self.thorough and not self.trusting:
                sys.setprofile(self.profile)

    def looks(self, path, listing=False):
        """Records that a module has looked at a path, and what is there."""
        if not self.on or not isinstance(path, (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(path)
        if not path or path.startswith(OWN + ("/dev/", "/sys/", "/proc/cpuinfo", "/proc/meminfo")):
            return
        if path in ("/proc", "/proc/self"):
            return
        if path.startswith("/proc/"):
            return self.now.doubt(f"reads {path}")
        with self.quiet():
            self.now.files.setdefault((path, listing), seen(path, listing))

    def audit(self, event, args):
        if not self.on:
            return
        if event == "open":
            path, mode, flags = args
            if isinstance(path, int):
                return
            if flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) and path != os.devnull \
                    and not os.fsdecode(path).startswith(OWN):
                return self.now.doubt(f"writes {os.fsdecode(path)}")
            self.looks(path)
        elif event in ("os.listdir", "os.scandir"):
            self.looks(args[0] if args[0] is not None else ".", listing=True)
        elif event in ("socket.bind", "socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
            self.now.doubt("uses the network")
        elif event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"):
            self.now.doubt("starts another program")
        elif event == "os.mkdir" and os.path.isdir(args[0]):
            self.looks(args[0])  # the module only makes sure that the folder exists
        elif event in ("os.mkdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.rmdir", "os.truncate", "os.utime", "os.chmod",
                       "os.chown", "shutil.copyfile", "shutil.move", "shutil.rmtree", "tempfile.mkdtemp", "tempfile.mkstemp"):
            if not os.fsdecode(args[0]).startswith(OWN):
                self.now.doubt(MAKES_FILES)
        elif event in ("os.chdir", "os.kill", "os.killpg", "os.setxattr", "syslog.openlog", "gc.freeze", "sys.addaudithook"):
            self.now.doubt(f"calls {event}")

    def profile(self, frame, event, arg):
        if event != "c_call":
            return
        name = arg.__name__
        if name not in CALLS:
            return
        owner = getattr(arg, "__self__", None)
        home = getattr(arg, "__module__", None) or type(owner).__name__
        if not (name in HOMES.get(home, ()) or isinstance(owner, type) and hasattr(owner, "toordinal")
                or isinstance(owner, random.Random)):
            return
        if frame.f_code.co_filename == __file__:
            return
        if isinstance(owner, random.Random) and not (owner is random._inst or name != "seed" and any(owner is r for r in UNSEEDED)):
            return  # a generator with a fixed seed draws the same numbers in each process; to seed one draws none
        how = harmless(self.now.name, name)
        if how is None:
            self.now.doubt(CALLS[name])
        elif how == "year":
            self.now.year = time.gmtime(time.time()).tm_year


ABSENT = object()
LAZY = importlib.util._LazyModule  # a module that loads itself when an attribute is read: use dict_of here


def dict_of(module):
    """The dictionary of a module, read without loading a LAZY module."""
    return object.__getattribute__(module, "__dict__")


def seen(path, listing):
    """What an import may have seen at a path, in a form that can be compared. The state of a folder counts only if it was listed."""
    try:
        st = posix.stat(path)
    except (OSError, ValueError):
        return None
    return st.st_mode, st.st_ino, *((st.st_size, st.st_mtime_ns) if listing or not stat.S_ISDIR(st.st_mode) else ())


SIGNALS = [int(n) for n in signal.valid_signals()]


def traces():
    """The things in this process that a module may change, by the reason to give then, in a form that can be compared."""
    fds = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            fds.add((fd, os.readlink("/proc/self/fd/" + fd)))
    return {
        "leaves a descriptor open": {f for f in fds if "/proc/" not in f[1]}, "leaves a child process running": has_children(),
        "leaves threads running": [t.ident for t in threading.enumerate()],
        "changes the signals": list(map(_signal.getsignal, SIGNALS)),
        "changes sys": (list(sys.path), list(map(id, sys.meta_path)), list(map(id, sys.path_hooks)), id(sys.excepthook), id(sys.displayhook),
                        sys.getrecursionlimit(), sys.getswitchinterval(), id(threading.excepthook), id(sys.unraisablehook)),
        "changes the locale": locale.setlocale(locale.LC_ALL),
        "changes the working folder": os.getcwd(),
        "changes the garbage collector": (gc.isenabled(), gc.get_threshold(), len(gc.callbacks), gc.get_debug()),
        "changes logging": (logging.root.level, list(map(id, logging.root.handlers)), logging.root.manager.disable, id(logging.getLoggerClass())),
        "sets limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "changes the event loops": id(getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)),
    }


def left_behind(before, after):
    """The first difference between two traces, as a reason; None: there is none."""
    for why, value in after.items():
        if isinstance(value, set) and value - before[why] or not isinstance(value, set) and value != before[why]:
            return why


class Surroundings:
    """The attributes of all loaded modules or, with classes, of their classes. A module whose import changes them cannot be held
    back until a task imports it. There are ten thousand classes, so these are compared only once, after all imports."""

    def __init__(self, classes):
        self.saved = []
        for name, module in list(sys.modules.items()):
            if type(module) is LAZY or not isinstance(module, types.ModuleType) or name in ("__zygote__", "__main__"):
                continue
            if not classes:
                self.save(name, vars(module))
                continue
            for v in list(vars(module).values()):
                if issubclass(type(v), type) and v.__module__ == name and not name.startswith(("typing", "abc", "_")):
                    self.save(f"{name}.{v.__qualname__}", vars(v))

    def save(self, name, names):
        self.saved.append((name, names, dict(names), {k: len(v) for k, v in names.items() if type(v) in (dict, list, set)}))

    def changed(self, proofs, since=0):
        """The first change: a name, and the value that is there now. Modules of one package may change one another."""
        packages, known = {n.partition(".")[0] for n in list(proofs)[since:]}, list(map(id, registries().values()))
        for name, names, old, sizes in self.saved:
            if name in proofs and name.partition(".")[0] in packages:
                continue
            for k, v in list(names.items()):
                was = old.get(k, ABSENT)
                if k in sizes and type(v) is dict and v is was and len(v) > sizes[k]:  # a registry that has grown by classes of new modules alone, which nothing can notice
                    if all(isinstance(t, type) and t.__module__ in proofs for t in list(v)[sizes[k]:]):
                        continue
                if v is was or type(v) is type(was) and type(v) in (str, int, float, tuple) and v == was:
                    if k in sizes and len(v) != sizes[k] and not is_cache(name, k) and id(v) not in known:
                        return f"{name}.{k}", v
                elif not (isinstance(v, types.ModuleType) and f"{name}.{k}" in proofs or is_cache(name, k) or k.startswith(("__", "_abc_"))):
                    return f"{name}.{k}", v
        return "", None


def changer(value, proofs):
    """The top-level modules one of which has most likely made a change, by the value that is there now."""
    for v in [value, *(list(value)[-1:] if type(value) in (dict, list, set) else ())]:
        module = getattr(v, "__module__", None) or type(v).__module__
        if module in proofs:
            return {module.partition(".")[0]}
    return {n.partition(".")[0] for n in proofs}


def is_cache(name, attr):
    """Whether an attribute is changed by every import, so that a change shows nothing."""
    return "cache" in attr.lower() or attr in ("_copyreg_dispatch_table", "filters", "_filters_version", "onceregistry", "_intern", "_blocking_on", "_module_locks", "_registry") \
        or name.startswith(("_cython_", "six.moves", "importlib", "linecache", "re.", "re", "sre", "weakref", "_weakref", "functools", "typing", "abc", "sys", "_frozen", "zipimport",
                            "random.", "logging", "atexit", "threading", "encodings", "codecs", "copyreg", "warnings", "tokenize", "ctypes", "types",
                            "builtins", "gc", "google.protobuf", "os", "inspect", "signal", "posix", "enum"))


def sockets():
    """How many sockets are open."""
    n = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            n += os.readlink("/proc/self/fd/" + fd).startswith("socket:")
    return n


def has_children():
    """Whether this process has children, ended ones that were not waited for included."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def reap_ended():
    """Waits for the children that have ended and that the task has not waited for."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def thread_names():
    """The names of all threads by the kernel's word, the main thread's first."""
    names = []
    for t in sorted(os.listdir("/proc/self/task"), key=int):  # the main thread first
        with contextlib.suppress(OSError), open(f"/proc/self/task/{t}/comm") as f:
            names.append(f.read().strip())
    return names


def blas_threads():
    """How many threads the linear algebra libraries that are loaded may have started."""
    with open("/proc/self/maps") as f:
        libraries = {line.split()[-1] for line in f if "blas" in line.rpartition("/")[2]}
    for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"):
        if (limit := os.environ.get(name, "").partition(",")[0]).isdigit():
            return len(libraries) * max(0, int(limit) - 1)
    return len(libraries) * (len(os.sched_getaffinity(0)) - 1)


def fork_danger(sockets_before):
    """A reason why this process must not fork now; None: it may. Native threads of libraries with fork handlers do no harm:
    OpenBLAS's, which have the process's own name, and jemalloc's. OpenMP's do: an import that has computed something starts
    them. They have the process's own name, too, and are noticed because there are more threads than OpenBLAS starts."""
    if python := [t.name for t in threading.enumerate() if t is not threading.main_thread()]:
        return "leaves threads running: " + ", ".join(python)
    own, *native = thread_names() or [""]
    strange = [c for c in native if not c.startswith("jemalloc") and c != own]
    if native.count(own) > blas_threads():
        strange.append(own)
    if strange:
        return "leaves native threads running: " + ", ".join(strange)
    if sockets() > sockets_before:
        return "leaves sockets open"
    if has_children():
        return "leaves a child process running"


def module_exists(top):
    """Whether a top-level module exists. To watch an import that fails takes a hundred times as long as to look for the module, and
    a task may have told ten thousand names of modules that do not exist."""
    with contextlib.suppress(Exception):
        return top in sys.modules or importlib.util.find_spec(top) is not None
    return True


def preload(names, dropped, rec, kept):
    """Imports modules and returns those that are not proved: {module: why}. They may have left something in this process that a
    fork would not survive, or that each process must have for itself: then this process is started over without them."""
    before, found, clean = sockets(), {}, True
    tops = {n.partition(".")[0] for n in names}
    lazy = {n: dict_of(m)["__spec__"] for n, m in sys.modules.items() if type(m) is LAZY}
    for n, spec in lazy.items():
        spec.loader = Waker(spec.loader, lambda module, loader, n=n: rec.wake(n, module, loader))
    wanted = [m for m in [*(n for n in lazy if n in names or n in tops), *names] if m not in dropped and m.partition(".")[0] not in dropped]
    classes = Surroundings(classes=True) if any(m not in kept.proved for m in wanted) else None
    for m in wanted:
        if m in rec.proofs or m in sys.modules and m not in lazy:
            continue
        if not module_exists(top := m.partition(".")[0]):
            found[top] = "there is no such module"
            continue
        tempfile.tempdir = None
        rec.trusting = m in kept.proved
        surroundings = None if rec.trusting else Surroundings(classes=False)
        count, raised = len(rec.proofs), ""
        with rec:
            try:
                sys.modules[m].__doc__ if m in lazy else importlib.import_module(m)
            except BaseException as e:
                raised = f"its import raises {type(e).__name__}"
        why = raised
        if surroundings and (changed := surroundings.changed(rec.proofs, count)[0]):
            why = why or f"changes {changed}"
        if clean and (left := fork_danger(before)):
            clean = False
            if not any(p.why for p in list(rec.proofs.values())[count:]):  # otherwise a module with a doubt has left it
                why = why or left
        if why:
            found[m] = found[m.partition(".")[0]] = why
    changed, value = classes.changed(rec.proofs) if classes else ("", None)
    if changed and not found:  # otherwise one of the modules in found may have changed it
        found = dict.fromkeys(changer(value, rec.proofs), f"changes {changed}")
    found.update(doubts(rec.proofs, found))
    for n, spec in lazy.items():
        if n not in rec.proofs:
            spec.loader = spec.loader.loader
    return found


class ProofFile:
    """Proofs that an earlier process has kept in a file beside LEARNT: to watch modules takes several times as long as to import
    them. The proofs are believed while everything that they rest on is the same: this program, the interpreter, the machine, all
    variables, the order of sys.path, the files in all folders that modules came from and the libraries that were loaded (by kind,
    inode, size, times of content and of change), and what each module is seen to read and to register when it is imported now,
    which is recorded as ever. If anything differs, all modules are proved from the beginning. A damaged file is not believed: the
    file begins with its digest."""

    def __init__(self, learnt, environ, begun, believe):
        import hashlib  # flytekit has imported it already
        self.hash, self.path, self.begun, self.proved, self.state = hashlib.sha256, learnt + ".proofs", begun, {}, None
        with open(__file__, "rb") as f:
            program = self.hash(f.read()).hexdigest()
        system = os.uname()
        self.rests = [program, sys.version, repr(sys.flags), list(sys.path), [system.sysname, system.release, system.version, system.machine],
                      len(os.sched_getaffinity(0)), sorted([k, v] for k, v in environ.items() if k != MARK), str(seen(os.path.realpath(sys.executable), False))]
        if not believe or not learnt:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(self.path, "rb") as f:
                digest, _, body = f.read().partition(b"\n")
            if self.hash(body).hexdigest().encode() == digest:
                told = decode(body)
                if told["rests"] == self.rests and self.look(told["folders"], told["files"])[0] == told["state"]:
                    self.proved, self.state, self.folders, self.files = told["proved"], told["state"], told["folders"], told["files"]

    def look(self, folders, files):
        """The state of all files, as a digest, and the time of the youngest."""
        digest, youngest = self.hash(), 0
        for folder in folders:
            try:
                names = sorted(n for n in os.listdir(folder) if n != "__pycache__" and ".pyc" not in n)
            except OSError:
                names = []
            digest.update(repr((folder, names)).encode(errors="surrogateescape"))
            files = [*files, *(os.path.join(folder, n) for n in names)]
        for path in files:
            try:
                st = os.stat(path)
            except OSError:
                digest.update(b"none")
                continue
            if stat.S_ISDIR(st.st_mode):
                digest.update(repr((st.st_mode, st.st_ino)).encode())
                continue
            digest.update(repr((st.st_mode, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)).encode())
            youngest = max(youngest, st.st_mtime_ns, st.st_ctime_ns)
        return digest.hexdigest(), youngest

    def record(self, proof):
        """What is seen of a module without watching it, as a digest. The modules that it needs are left out: they have records of
        their own, and some modules ask for them in the order of a set, which differs from process to process."""
        reads = proof.variables, proof.writes, proof.defaults, {k: str(v) for k, v in proof.files.items()}
        makes = len(proof.exits), len(proof.filters), sorted(proof.loggers), sorted((r, len(e)) for r, e in proof.entries.items())
        module = sys.modules.get(proof.name)
        file = dict_of(module).get("__file__") if isinstance(module, types.ModuleType) else None
        text = repr(([sorted(d.items()) for d in reads], sorted(proof.missing), makes,
                     bool(proof.parent) and proof.parent[1] is ABSENT, bool(proof.lazy), file))
        return self.hash(text.encode(errors="surrogateescape")).hexdigest()

    def holds(self, rec):
        """Whether the modules that were believed have been imported as they were when they were proved."""
        for name in rec.believed:
            record, year = self.proved.get(name, ("", None))
            if record != self.record(rec.proofs[name]) or year not in (None, time.gmtime().tm_year):
                print(f"what was proved of {name} does not hold any more", file=sys.stderr)
                return False
            rec.proofs[name].year = year
        if rec.believed and self.look(self.folders, self.files)[0] != self.state:
            print("files were changed while they were imported", file=sys.stderr)
            return False
        return True

    def keep(self, rec):
        """Writes the proofs to the file. If that fails, the next process proves the modules again."""
        if rec.believed == rec.proofs.keys() or not rec.proofs:
            return
        paths = [f for n, m in list(sys.modules.items()) if n not in ("__zygote__", "__main__", "__mp_main__") and isinstance(m, types.ModuleType)
                 and (f := dict_of(m).get("__file__")) and os.path.isabs(f)]
        folders = sorted({os.path.dirname(f) for f in paths} | {p.rstrip("/") for p in ROOTS})
        with open("/proc/self/maps") as f:
            mapped = {line.split(None, 5)[-1].strip() for line in f if len(line.split(None, 5)) == 6}
        files = sorted(m for m in mapped if m.startswith("/") and os.path.dirname(m) not in folders)
        state, youngest = self.look(folders, files)
        if youngest >= self.begun or any(m.endswith(" (deleted)") for m in files):
            return  # a file may have been changed while it was imported
        body = encode({"rests": self.rests, "folders": folders, "files": files, "state": state,
                       "proved": {n: [self.record(p), p.year] for n, p in rec.proofs.items()}}).encode()
        with contextlib.suppress(OSError):
            fd = os.open(self.path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "wb") as f:
                f.write(self.hash(body).hexdigest().encode() + b"\n" + body)
            os.rename(self.path + ".new", self.path)


def doubts(proofs, known):
    """The modules that are not proved, and the modules that need one of these: {module: why}."""
    found = dict(known)
    for name, proof in proofs.items():
        why = proof.why
        for variable in (*proof.variables, *proof.defaults):
            if variable.startswith(PER_ATTEMPT):
                why = f"reads {variable} at its import"
        file = dict_of(sys.modules[name]).get("__file__") if isinstance(sys.modules.get(name), types.ModuleType) else None
        if not why and file and not file.startswith(OWN):
            why = f"is no installed file: {file}"
        if why:
            found[name] = why
    users, rest = collections.defaultdict(list), list(found)
    for name, proof in proofs.items():
        for other in proof.needs:
            users[other].append(name)
    while rest:
        bad = rest.pop()
        for name in users[bad]:
            if name not in found:
                found[name] = found[bad] if found[bad].startswith("needs ") else f"needs {bad}, which {found[bad]}"
                rest.append(name)
    return found


def closure(name, proofs):
    """A module and all modules that its import imports, without those of the ground."""
    names, rest = set(), [name]
    while rest:
        n = rest.pop()
        if n in names or n not in proofs:
            continue
        names.add(n)
        rest += proofs[n].needs
    return names


class HeldModules:
    """Modules that were imported ahead and that no task sees: they are in no sys.modules, no attribute of a package, no
    list of loggers, warnings or exit handlers. When a task imports one, the held module is taken, with all modules that it needs,
    if an import would give the same now; otherwise the module is imported as ever. So a task may change anything before its
    imports, and cannot tell a held module from one that is imported then."""

    def __init__(self):
        self.modules, self.proofs, self.lock, self.taken, self.refused = {}, {}, threading.RLock(), set(), set()
        self.unfit = lambda why: None  # called for a module that can neither be taken nor imported again; it may return

    def hold(self, rec):
        """Takes all modules that were imported under the recorder out of sight."""
        self.proofs = rec.proofs
        self.path, self.meta_path, self.path_hooks = list(sys.path), list(sys.meta_path), list(sys.path_hooks)
        self.first = self.path[0]
        self.environ = dict(os.environ._data)
        for name in sys.modules:
            if name in self.proofs:
                self.modules[name] = sys.modules[name]
        self.native = {n for n, m in self.modules.items() if str(getattr(m, "__file__", None) or "").endswith(".so")}
        self.attrs = {}
        for name in reversed(list(self.proofs)):
            proof = self.proofs[name]
            if name not in self.modules:
                continue
            if proof.lazy:
                self.put_to_sleep(self.modules[name], proof)
            else:
                del sys.modules[name]
            package = name.rpartition(".")[0]
            if package in self.proofs and name in closure(package, self.proofs):
                proof.parent = ()  # module and package are always taken together
            elif proof.parent:
                attr, was = proof.parent
                parent = dict_of(self.modules[package] if package in self.modules else sys.modules[package])
                proof.parent = (attr, parent.get(attr, ABSENT))
                if was is ABSENT:
                    parent.pop(attr, None)
                else:
                    parent[attr] = was
            for variable in (*proof.writes, *(v for v, (_, absent) in proof.defaults.items() if absent)):
                os.environ.pop(variable, None)
            for registry, entries in proof.entries.items():
                for k in entries:
                    registries()[registry].pop(k, None)
            proof.loggers = [(n, logging.Logger.manager.loggerDict.pop(n, None)) for n in proof.loggers]
        new = {id(f) for p in self.proofs.values() for f in p.filters}
        warnings.filters[:] = [f for f in warnings.filters if id(f) not in new]
        warnings._filters_mutated() if hasattr(warnings, "_filters_mutated") else warnings._filters_mutated_lock_held()
        for variable, value in self.environ.items():
            if os.environ._data.get(variable) != value and os.fsdecode(variable) not in self.sets():
                os.environ[os.fsdecode(variable)] = os.fsdecode(value)

    def sets(self):
        """The variables that the modules set."""
        return {v for p in self.proofs.values() for v in (*p.writes, *p.defaults)}

    def put_to_sleep(self, module, proof):
        """Makes a LAZY module what it was before it was loaded. The dictionary must stay the same one: the module's functions have it."""
        names = dict_of(module)
        asleep, state = proof.lazy
        proof.lazy = dict(names)
        names.clear()
        names.update(asleep)
        spec = names["__spec__"]
        spec.loader_state, spec.loader = state, Waker(spec.loader, self.wake)
        module.__class__ = LAZY

    def wake(self, module, loader):
        """Loads a LAZY module that a task uses for the first time: takes the held one or executes the module again."""
        spec = dict_of(module)["__spec__"]
        self.take(spec.name)
        if spec.name not in self.taken:
            spec.loader = loader
            loader.exec_module(module)

    def take(self, name):
        """Puts a held module, with those it needs, into sys.modules, if an import would give the same now."""
        with self.lock:
            if name not in self.modules or name in self.taken or name in self.refused:
                return
            names = closure(name, self.proofs) & self.modules.keys()
            if why := self.differs(names):
                if native := sorted(names & self.native):  # a native module is initialised only once in a process
                    self.unfit(f"its import of {name} gives another one than was imported ahead: {why}; and {native[0]} cannot be loaded twice")
                else:
                    self.refused.add(name)
                    return
            order = [n for n in self.modules if n in names and n not in self.taken]
            for n in order:
                if full := self.proofs[n].lazy:
                    self.modules[n].__class__ = types.ModuleType
                    names = dict_of(self.modules[n])
                    names.clear()
                    names.update(full)
                    if isinstance(names["__spec__"].loader, Waker):
                        names["__spec__"].loader = names["__spec__"].loader.loader
                sys.modules[n] = self.modules[n]
            self.taken.update(order)
            for n in order:
                self.release(n, self.proofs[n])
            if "numpy.random.mtrand" in order:
                sys.modules["numpy.random.mtrand"].seed()

    def release(self, name, proof):
        """Does what else the import of a module does: sets variables, registers exit handlers, loggers and so on."""
        if proof.parent:
            attr, value = proof.parent
            if value is not ABSENT:
                setattr(sys.modules[name.rpartition(".")[0]], attr, value)
        for variable, (value, _) in proof.defaults.items():
            os.environ.setdefault(variable, value)
        for variable, value in proof.writes.items():
            os.environ.pop(variable, None) if value is None else os.environ.__setitem__(variable, value)
        for function, args, kwargs in proof.exits:
            atexit.register(function, *args, **kwargs)
        if proof.filters:
            warnings.filters[:0] = proof.filters
            warnings._filters_mutated() if hasattr(warnings, "_filters_mutated") else warnings._filters_mutated_lock_held()
        for registry, entries in proof.entries.items():
            registries()[registry].update(entries)
        manager = logging.Logger.manager
        for n, logger in proof.loggers:
            if isinstance(logger, logging.Logger) and n not in manager.loggerDict:
                logger.parent = None
                manager.loggerDict[n] = logger
                manager._fixupParents(logger)

    def differs(self, names):
        """Why these modules would not be the same if they were imported now; None: they would."""
        if sys.path[:1] != [self.first] or [p for p in sys.path[1:] if p in self.path[1:]] != self.path[1:]:
            return "sys.path has other folders"
        if sys.meta_path != self.meta_path or sys.path_hooks != self.path_hooks:
            return "sys.meta_path or sys.path_hooks is another one"
        extra = {}
        last = len(sys.path) - 1 - sys.path[::-1].index(self.path[-1])
        for i, p in enumerate(sys.path):
            if p not in self.path:
                try:
                    entries = os.listdir(p or ".")
                except (FileNotFoundError, PermissionError):
                    continue
                except OSError:
                    return f"what {p} in sys.path holds is not known"
                for entry in entries:
                    top = entry.partition(".")[0]
                    extra[top] = p if i < last else extra.get(top)
        environ, year = os.environ._data, None
        for n in names:
            proof, module = self.proofs[n], self.modules[n]
            if sys.modules.get(n, None if n in self.taken else module) is not module or n in self.refused:
                return f"{n} is another one"
            if n in self.taken:
                continue
            top = n.partition(".")[0]
            if extra.get(top):
                return f"{extra[top]} has {top} too"
            for miss in proof.missing:
                if miss in extra:
                    return f"it looks for {miss}, which is in one of the added folders"
            for variable, value in proof.variables.items():
                if environ.get(os.fsencode(variable)) != value:
                    return f"it reads {variable} at its import"
            for variable, (value, _) in proof.defaults.items():
                if environ.get(os.fsencode(variable)) not in (None, os.fsencode(value)):
                    return f"it reads {variable} at its import"
            for (path, listing), was in proof.files.items():
                if seen(path, listing) != was:
                    return f"it reads {path} at its import"
            if proof.year is not None:
                year = year or time.gmtime().tm_year
                if proof.year != year:
                    return "it reads the year"
        if names & self.native and names - self.taken:
            mine = self.sets()
            for variable in environ.keys() | self.environ.keys():
                if environ.get(variable) != self.environ.get(variable):
                    name = os.fsdecode(variable)
                    if name in mine or name.startswith(PER_ATTEMPT) or name in ("PYTHONPATH", "PATH", "GRPC_ENABLE_FORK_SUPPORT"):  # the supervisor sets the last one
                        continue
                    if name.startswith(COMPOSED) or self.mentioned(variable):
                        return f"its native code may read {name}"
        return None

    def mentioned(self, variable):
        """Whether the name of a variable is in a loaded library. A library cannot have read a variable that it does not name."""
        with open("/proc/self/maps") as f:
            libraries = {line.split(None, 5)[-1].strip() for line in f if ".so" in line}
        for path in libraries:
            try:
                with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as code:
                    if code.find(variable + b"\0") >= 0:
                        return True
            except (OSError, ValueError):
                return True
        return False


class Waker:
    """The loader of a LAZY module: it calls wake when the module is used for the first time."""

    def __init__(self, loader, wake):
        self.loader, self.wake = loader, wake

    def exec_module(self, module):
        self.wake(module, self.loader)


# The function that the import system calls for a module that is not in sys.modules, in place of its own function of this name.
# It is compiled under the file name of the import system, so that tracebacks of failed imports leave it out as well.
FIND_AND_LOAD = """
def _find_and_load(name, import_):
    if name in held.modules:
        held.take(name)
        module = sys.modules.get(name)
        if module is not None:
            return module
    return load(name, import_)
"""


def install_import_hook(held):
    """Makes the import system ask held first."""
    names = {"held": held, "sys": sys, "load": importlib._bootstrap._find_and_load}
    exec(compile(FIND_AND_LOAD, "<frozen importlib._bootstrap>", "exec"), names)
    importlib._bootstrap._find_and_load = names["_find_and_load"]


def dry_run():
    """Runs a task of our own through the real entry point, so that children inherit what that leaves: filled caches, specialised
    byte code, a statsd client, touched pages."""
    path, argv, env, cwd = list(sys.path), sys.argv, dict(os.environ), os.getcwd()
    with tempfile.TemporaryDirectory() as d, open(os.devnull, "w") as null, \
            contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        with open(d + "/_zygote_probe.py", "w") as f, open(d + "/i.pb", "wb") as g:
            f.write(PROBE)
            g.write(b"\n\v\n\1x\22\6\n\4\n\2\10)")  # {"x": 41}
        sys.path.append(d)
        os.environ["TMPDIR"] = d
        reset(d)
        code = entry(["pyflyte-execute", "--inputs", d + "/i.pb", "--output-prefix", d + "/o", "--raw-output-data-prefix",
                      d + "/r", "--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--",
                      "task-module", "_zygote_probe", "task-name", "_zygote_probe"])
        ok = not code and os.path.exists(d + "/o/outputs.pb")
    sys.path[:], sys.argv = path, argv
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    tempfile.tempdir = None
    sys.path_importer_cache.pop(d, None)
    sys.modules.pop("_zygote_probe", None)
    with contextlib.suppress(Exception):  # tasks must not find the probe among flytekit's entities
        from flytekit.core.context_manager import FlyteEntities
        FlyteEntities.entities[:] = [e for e in FlyteEntities.entities if "_zygote_probe" not in e.name]
    if not ok:
        raise RuntimeError(f"a task of our own did not run in this environment (exit code {code})")


def stop_loops():
    """Ends flytekit's threads with event loops: no thread may live across a fork. They start again when they are needed."""
    from flytekit.utils.asyn import loop_manager
    for r in list(loop_manager._runner_map.values()):
        loop = r._TaskRunner__loop
        loop.call_soon_threadsafe(loop.stop)
        r._TaskRunner__runner_thread.join()
        loop.close()
        atexit.unregister(r._close)
    loop_manager._runner_map.clear()


def collapse():
    """Puts our memory into huge pages where the kernel can (6.1): a fork copies fewer page tables."""
    LIBC.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    huge, madv_collapse = 2 << 20, 25
    with open("/proc/self/maps") as f:
        lines = f.read().splitlines()
    for line in lines:
        span, mode, _, device, *_ = line.split()
        if mode == "rw-p" and device == "00:00" and not line.endswith("[stack]"):
            low, high = (int(x, 16) for x in span.split("-"))
            low, high = -(-low // huge) * huge, high // huge * huge
            if high > low:
                LIBC.madvise(low, high - low, madv_collapse)


# ---- what a child does ---------------------------------------------------------------------------------------------

def reset(temp):
    """Does again what a fresh process derives from its environment at import. Each page that is touched here, and each file and
    folder that is made, is a good part of what a short task costs."""
    tempfile.tempdir = temp  # made for this attempt; None: tempfile looks for a folder itself
    time.tzset()
    for r in UNSEEDED[:]:  # flytekit names files by a generator of its own: the names would be equal in all children
        r.seed()
    if "numpy.random" in sys.modules:  # the random module's own generator reseeds itself
        sys.modules["numpy.random"].seed()
    if "multiprocessing.process" in sys.modules:
        mp = sys.modules["multiprocessing.process"]
        mp.current_process().authkey = os.urandom(32)
        mp.ORIGINAL_DIR = os.getcwd()
    logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()
    from flytekit.core import context_manager as cm, data_persistence as dp
    if connector := sys.modules.get("flytekit.extend.backend.base_connector"):
        if loop := getattr(connector, "local_connector_loop", None):  # otherwise all children would wait on the same epoll descriptor
            loop.close()
            connector.local_connector_loop = type(loop)()
    dp.flyte_tmp_dir = d = tempfile.mkdtemp(prefix="flyte-")
    dp.default_local_file_access_provider = cm.default_local_file_access_provider = dp.FileAccessProvider(
        local_sandbox_dir=d + "/sandbox", raw_output_prefix=d + "/raw", data_config=dp.DataConfig.auto())
    cm.FlyteContextManager.initialize()


def set_up_loggers(env):
    """Sets flytekit's loggers up again if the variables of the attempt ask for other loggers than its import made."""
    if "FLYTE_INTERNAL_EXECUTION_ID" in env and not any(name.startswith("FLYTE_SDK_") for name in env):
        return
    from flytekit import loggers
    for logger in loggers.logger, loggers.user_space_logger, loggers.developer_logger:
        logger.handlers.clear()  # or each line would be written twice
    loggers.initialize_global_loggers()


def compile_scripts():
    """Compiles the console scripts, which a fresh interpreter runs as its __main__."""
    for name in ENTRIES:
        path = os.path.join(BIN, name)
        try:
            with open(path, "rb") as f:
                SCRIPTS[name] = compile(f.read(), path, "exec", dont_inherit=True), path
        except (OSError, SyntaxError, ValueError):
            SCRIPTS[name] = compile(WITHOUT_SCRIPT, "<string>", "exec", dont_inherit=True), None


def command_line(argv):
    """The command line of a fresh interpreter (command.go)."""
    name = os.path.basename(argv[0])
    path = SCRIPTS[name][1]
    return [sys.executable, "-u", *([path] if path else ["-c", WITHOUT_SCRIPT, name]), *argv[1:]]


def first_folder(argv):
    """sys.path[0] of a fresh interpreter: the real folder of its script; with -c "", the working folder."""
    path = SCRIPTS[os.path.basename(argv[0])][1]
    return os.path.dirname(os.path.realpath(path)) if path else ""


def entry(argv):
    """Runs the console script as the interpreter would, and returns the exit code; None: the process is to die of SIGINT."""
    code, path = SCRIPTS[os.path.basename(argv[0])]
    words = command_line(argv)
    sys.argv = words[2:] if path else ["-c", *words[4:]]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = words
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(main).update(__annotations__={}, __builtins__=builtins, __loader__=importlib.machinery.BuiltinImporter)
    if path:
        vars(main).update(__file__=path, __cached__=None, __loader__=importlib.machinery.SourceFileLoader("__main__", path))
    try:
        exec(code, vars(main))
    except SystemExit as e:
        return code_of(e.code)
    except BaseException as e:
        tb = e.__traceback__
        while tb and tb.tb_frame.f_code.co_filename == __file__:
            tb = tb.tb_next
        e.__traceback__ = tb
        sys.excepthook(type(e), e, tb)
        return None if isinstance(e, KeyboardInterrupt) else 1
    return 0


def code_of(code):
    """The exit code that the interpreter makes of the argument of SystemExit."""
    if isinstance(code, int):
        return code & 255 if -1 << 31 <= code < 1 << 31 else 255
    if code is not None:
        print(code, file=sys.stderr)
        return 1
    return 0


def finalize(code):
    """The end of the interpreter: threads, exit handlers, and then the modules of the task, so that files which it left open
    are flushed and its objects deleted. Modules that were there before the fork stay: to take them apart would copy them.
    Returns the exit code."""
    threading._shutdown()
    atexit._run_exitfuncs()
    if not flush():
        code = 120
    # Daemon threads stop here in a fresh process. Ours get the interpreter no more unless we wait for something.
    sys.setswitchinterval(1000)
    threading.excepthook = lambda args: None
    sys.path = sys.argv = sys.meta_path = sys.path_hooks = None
    modules = [weakref.ref(sys.modules["__main__"])]
    for name in list(imported_here()):
        if name not in BASE and name not in HELD.taken and isinstance(sys.modules[name], types.ModuleType):
            try:
                modules.insert(-1, weakref.ref(sys.modules[name]))
            except TypeError:  # a module made by C code, such as cffi's, has no weak references, and nothing of the task in it
                continue
            sys.modules[name] = None
    sys.modules["__main__"] = None
    gc.collect()
    for ref in modules:
        names = vars(ref() or types.SimpleNamespace())
        for private in True, False:  # as the interpreter does: names with one underscore go first
            for n in [n for n in names if isinstance(n, str) and n != "__builtins__"]:
                if (n[:1] == "_" and n[1:2] != "_") == private:
                    names[n] = None
    gc.collect()
    return code if flush() else 120


def flush():
    """Flushes standard output and error, and says whether that has worked."""
    ok = True
    for f in (sys.stdout, sys.stderr):
        try:
            if f is not None and not f.closed:
                f.flush()
        except Exception:
            ok = False
    return ok


class Channel:
    """The attempt's socket. Only the child itself sends messages on it: a process that the task forks may return from the task's
    function too, and then runs all the code that follows here."""

    def __init__(self, fd):
        # A high number, so that the task's own descriptors have the same numbers as in a fresh process.
        least = min(CHANNEL, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8)
        number = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(3, least))
        os.close(fd)
        self.sock, self.pid, self.getpid, self.fstat = socket.socket(fileno=number), os.getpid(), os.getpid, os.fstat
        self.inode = os.fstat(number).st_ino
        os.register_at_fork(after_in_child=self.close)

    def ours(self):
        """Whether this process is the child itself."""
        return self.getpid() == self.pid

    def close(self):
        with contextlib.suppress(OSError):
            if self.sock.fileno() >= 0 and self.fstat(self.sock.fileno()).st_ino == self.inode:
                self.sock.close()

    def say(self, **message):
        if not self.ours():
            return
        if self.fstat(self.sock.fileno()).st_ino != self.inode:  # the task has closed all descriptors, and opened one with this number
            raise OSError(errno.EBADF, "the attempt's socket is closed")
        self.sock.sendall(encode(message).encode() + b"\n")

    def receive(self, n):
        data = bytearray()
        while len(data) < n:
            if not (part := self.sock.recv(n - len(data))):
                os._exit(1)  # the supervisor is gone, or does not want the attempt any more; no user code has run
            data += part
        return data


def redirect(req):
    """Opens standard input, output and error of the attempt."""
    for to, name, how in ((0, os.devnull, os.O_RDONLY), (1, req["stdout"], os.O_WRONLY), (2, req["stderr"], os.O_WRONLY)):
        fd = os.open(name, how | (os.O_CREAT | os.O_APPEND if how else 0), 0o644)
        os.dup2(fd, to)
        os.close(fd)


def layout():
    """The addresses of this process's code, data, heap and stack, as PR_SET_MM_MAP wants them; (): the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/stat") as f:
        field = [None, None, None, *f.read().rpartition(")")[2].split()]  # as proc(5) numbers them
        LIBC.sbrk.restype = ctypes.c_void_p
        LIBC.prctl.argtypes = ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong
        return [int(n) for n in (*field[26:28], *field[45:48], field[28])]  # code, data, heap, stack
    return ()


def show(argv, env):
    """Makes /proc show the command line and the variables of the attempt, as of a fresh process: we tell the kernel the address
    where it is to read them. A kernel that cannot be told (before 4.x, or built without it) goes on to show ours."""
    if not LAYOUT:
        return
    words, variables = (b"".join(os.fsencode(w) + b"\0" for w in part) for part in (command_line(argv), env))
    area = mmap.mmap(-1, len(words) + len(variables), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[:] = words + variables
    SHOWN.append(area)  # for as long as the process lives
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    middle, end = start + len(words), start + len(words) + len(variables)
    places = struct.pack("12Q2I", *LAYOUT[:5], LIBC.sbrk(0), LAYOUT[5], start, middle, middle, end, 0, 0, 0xFFFFFFFF)
    LIBC.prctl(35, 14, places, len(places), 0)  # PR_SET_MM, PR_SET_MM_MAP


def mount(read_only, writable):
    """Makes folders read-only for this process and all that it starts, but for some below them, as mounts_linux.go does.
    Returns why it could not."""
    bound = []

    def call(function, *args):
        if function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in args)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        call(LIBC.unshare, 0x20000)  # CLONE_NEWNS
        call(LIBC.mount, b"", b"/", 0, 0x84000, 0)  # MS_REC | MS_SLAVE
        for folders, bind, recursive, attributes in (read_only, 0x5000, 0x8000, (1, 0)), (writable or (), 0x1000, 0, (0, 1)):
            for path in map(os.fsencode, folders):
                call(LIBC.mount, path, path, 0, bind, 0)
                bound.append(path)
                call(LIBC.syscall, 442, -100, path, recursive, struct.pack("4Q", *attributes, 0, 0), 32)  # mount_setattr
    except OSError as e:
        for path in reversed(bound):  # some read-only folders alone would be worse than none
            LIBC.umount2(path, 2)  # MNT_DETACH
        return e.strerror


def imported_here():
    """Names of the modules that were imported since the fork, the last one first. The other names are not even looked at: that
    would copy their memory pages."""
    for name in reversed(sys.modules):
        if name == "__zygote__":
            return
        yield name


def learnt_modules(argv, told):
    """Modules of the environment that this task has imported and the zygote had not, without those of the task's own package."""
    new = []
    with contextlib.suppress(RuntimeError):  # if a thread imports meanwhile, a later task tells these modules
        for m in imported_here():
            if m not in BASE and m not in HELD.modules and m not in told and len(m) <= 200:  # the supervisor takes no more (limit.go)
                new.append(m)
    new.reverse()
    own = argv[argv.index("task-module") + 1].partition(".")[0] if "task-module" in argv[:-1] else None
    return [m for m in new if m.partition(".")[0] != own
            and str(getattr(sys.modules.get(m), "__file__", None) or "").startswith(ROOTS)][:5000]


def when_loaded(do):
    """Calls do when flytekit has loaded the task and begins to read its inputs. No frame of ours is on the stack later."""
    from flytekit.core import utils
    load = utils.load_proto_from_file

    def load_proto_from_file(*args, **kwargs):
        utils.load_proto_from_file = load
        do()
        return load(*args, **kwargs)
    utils.load_proto_from_file = load_proto_from_file


def attempt(channel):
    """Runs an attempt in a child, from its request to its end."""
    os.setsid()  # so that the attempt and what it started can be signalled as one group
    say = channel.say
    say(pid=os.getpid())
    req = decode(channel.receive(int.from_bytes(channel.receive(4), "big")))
    for join in req.get("joins") or ():  # control groups; before the child allocates memory, which is to be counted there
        with open(join, "w") as f:
            f.write("0")
    if MARK_AT:  # in place: /proc/<pid>/environ shows this memory, of this process and of those that it forks
        ctypes.memmove(MARK_AT, req["mark"].encode(), 32)
    if (mounts := req.get("mounts")) and (why := mount(**mounts)):
        say(unmounted=why)
    argv, code, told, modules = req["argv"], 1, [], []
    env = sorted(f"{name}={value}" for name, value in req["env"].items())  # in the order in which the supervisor gives them to a fresh process
    show(argv, env)

    def unfit(why):
        if channel.ours():
            say(unfit=why)
            os._exit(1)
    HELD.unfit = unfit

    def loaded():
        sys.dont_write_bytecode = writes_no_bytecode
        took = time.process_time() - begin  # processor time: on a crowded machine every import takes long by the clock
        with contextlib.suppress(Exception):  # the task must not notice
            if channel.ours() and (modules := learnt_modules(argv, ())):
                told.extend(modules)
                say(imported=took, modules=modules)
    try:
        redirect(req)
        os.environ.clear()
        os.environ.update(e.split("=", 1) for e in env)
        if COERCED and "LC_ALL" not in req["env"]:  # a fresh interpreter that starts in the C locale sets this variable
            os.environ.setdefault("LC_CTYPE", COERCED)
        os.chdir(req["cwd"])
        sys.path[0] = HELD.first = first_folder(argv)
        if path := req["env"].get("PYTHONPATH"):  # as the interpreter and its site module do
            sys.path[1:] = dict.fromkeys([*map(os.path.abspath, path.split(os.pathsep)), *sys.path[1:]])
        reset(req.get("temp_dir"))
        set_up_loggers(req["env"])
        channel.receive(1)
        writes_no_bytecode = sys.dont_write_bytecode
        with contextlib.suppress(Exception):  # a later flytekit may have no such function
            when_loaded(loaded)
            sys.dont_write_bytecode = True  # the copy of the code is private to the attempt: no other process would use the bytecode
        begin = time.process_time()
        code = entry(argv)
        modules = learnt_modules(argv, set(told)) if channel.ours() else []
        end = finalize(code)
        if code is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        code = end
    except BaseException as e:
        code = 1
        sys.__excepthook__(type(e), e, e.__traceback__)
    try:
        if not channel.ours():
            return
        u = resource.getrusage(resource.RUSAGE_SELF)
        try:
            # In a short task the number of page faults is that of its own pages; a long one may fault the same page in many times.
            short = u.ru_utime + u.ru_stime < 0.2
            reap_ended()
            say(done=code, user=u.ru_utime, sys=u.ru_stime, children=has_children(), modules=modules,
                memory=u.ru_minflt * resource.getpagesize() // 1024 if short else 0)
            if not short:  # the kernel takes 2 ms to count
                with open("/proc/self/smaps_rollup") as f:
                    say(memory=sum(int(line.split()[1]) for line in f if line.startswith("Private_")))
        except OSError:  # the supervisor is gone: the next supervisor looks for this file
            with contextlib.suppress(OSError), open(req["done_file"], "w") as f:
                f.write(encode({"done": code}))
    finally:
        os._exit(code)
HELD = HeldModules()


# ---- the loop ------------------------------------------------------------------------------------------------------

def packets(message):
    """A message as packets that the buffer of a socket has room for. The last packet begins with a point, all others with +."""
    text, size = encode(message).encode(), 32 << 10
    for i in range(0, len(text), size):
        yield (b"+" if i + size < len(text) else b".") + text[i:i + size]


def serve(control, restore):
    """The loop of a zygote that is ready: it forks a child for each request, and reports the children that have ended."""
    control.setblocking(False)
    wake, woken = socket.socketpair()
    for s in (wake, woken):
        s.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    numbers, outgoing = {}, collections.deque()

    def say(**message):
        outgoing.extend(packets(message))
        flush()

    def flush():  # never blocks: packets that the supervisor does not take now wait in outgoing
        with contextlib.suppress(BlockingIOError):
            while outgoing:
                control.send(outgoing[0])
                outgoing.popleft()
        poll.modify(control, select.POLLIN | (select.POLLOUT if outgoing else 0))

    def fork():
        try:
            data, fds, _, _ = socket.recv_fds(control, 64, 1)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:  # the supervisor has ended, or has no use for this zygote any more; children run on
            reap()
            control.setblocking(True)
            with contextlib.suppress(OSError):
                for packet in outgoing:
                    control.send(packet)
            os._exit(0)
        if not fds:
            return
        try:
            pid = os.fork()
        except OSError:
            os.close(fds[0])  # the end of the socket tells the supervisor that there is no child
            return
        if pid:
            os.close(fds[0])
            numbers[pid] = int(data)
            say(n=int(data), pid=pid)
            return
        try:
            signal.set_wakeup_fd(-1)
            for sig in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(sig, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for s in (control, wake, woken):  # not all sockets: a library may have opened some at its import
                s.close()
            outgoing.clear()
            restore()
            gc.enable()
            attempt(Channel(fds[0]))
        finally:
            os._exit(1)

    def reap():
        with contextlib.suppress(BlockingIOError):
            while wake.recv(4096):
                pass
        while numbers:
            try:
                pid, status, u = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            say(n=numbers.pop(pid, 0), pid=pid, status=status, user=u.ru_utime, sys=u.ru_stime, maxrss=u.ru_maxrss)

    say(ready=READY)
    while True:
        events = dict(poll.poll())
        if events.get(control.fileno(), 0) & select.POLLOUT:
            flush()
        if wake.fileno() in events:
            reap()
        if events.get(control.fileno(), 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
            fork()


def main():
    """Imports flytekit and the learnt modules, and then serves."""
    global BASE, ROOTS, OWN, MARK_AT, LAYOUT, READY, BIN, WITHOUT_SCRIPT
    control = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    environ = dict(os.environ)

    def end(**message):
        with contextlib.suppress(OSError):
            for packet in packets(message):
                control.send(packet)
        os._exit(1)
    try:
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, signal.SIG_DFL)
        LIBC.getenv.restype = ctypes.c_void_p
        MARK_AT, LAYOUT = LIBC.getenv(MARK.encode()), layout()
        try:
            with open(sys.argv[1]) as f:
                learnt = decode(f.read())
        except (OSError, ValueError):
            learnt = {}
        # __main__ is as in the console script of a task: processes that multiprocessing spawns import it again.
        BIN, WITHOUT_SCRIPT = os.path.dirname(sys.executable), sys.argv[2]
        compile_scripts()
        sys.path[0] = first_folder(["pyflyte-execute"]) or BIN
        sys.modules["__zygote__"] = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.modules["__main__"].__file__ = os.path.join(BIN, "pyflyte-execute")
        sys.modules["__main__"].__builtins__ = __builtins__
        import site, sysconfig
        paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages(),
                 *(p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages"))}
        ROOTS = tuple(sorted(p.rstrip("/") + "/" for p in paths))
        OWN = (*ROOTS, sysconfig.get_path("stdlib") + "/", sysconfig.get_path("platstdlib") + "/", sys.prefix + "/pyvenv.cfg",
               os.path.dirname(sys.executable) + "/", os.path.realpath(sys.executable))
        restore = remember_seeds()
        begun, base, again = time.time_ns(), Recorder(thorough=False), Recorder(thorough=False)
        with base:
            import flytekit.bin.entrypoint
        if why := fork_danger(sockets()):  # flytekit's import makes an event loop, whose socket pair does no harm
            end(failed="importing flytekit " + why)
        with again:
            reset(None)
            set_up_loggers({})
        with base:
            dry_run()
        stop_loops()
        for _ in range(100):  # a thread that was joined is still listed for a moment
            if not (why := fork_danger(sockets())):
                break
            time.sleep(0.002)
        else:
            end(failed="a dry run " + why)
        # Variables and files that reset and set_up_loggers read in each child need not be the same as here.
        base.proofs.pop("_zygote_probe", None)
        reads = {n for p in base.proofs.values() for n in p.variables if base.times[n, False] > again.times[n, True]}
        files = {f: was for p in base.proofs.values() for f, was in p.files.items()
                 if f not in again.ground.files and not f[0].startswith(tempfile.gettempdir())}
        rec, dropped = Recorder(thorough=True), dict(learnt.get("dropped") or {})
        kept = ProofFile(sys.argv[1], environ, begun, "anew" not in sys.argv)
        with task_mode():
            found = preload(learnt.get("modules") or [], dropped, rec, kept)

        if rec.believed and (found.keys() & rec.believed or not kept.holds(rec)):
            end(restart={"how": "anew"})
        if "again" not in sys.argv and any(why == MAKES_FILES or why.startswith("writes ") for why in found.values()):
            end(restart={"how": "again"})  # the module may make the file only once for all processes, such as a list of fonts
        if found:
            end(restart={"dropped": found})
        kept.keep(rec)
        HELD.hold(rec)
        install_import_hook(HELD)
        sys.modules["__zygote__"] = sys.modules.pop("__zygote__")  # now the last name: modules after it were imported by a child (imported_here)
        BASE = frozenset(sys.modules)
        reads |= {n for p in rec.proofs.values() for n in (*p.variables, *p.defaults)}
        awake = {n: m for n, m in [*sys.modules.items(), *HELD.modules.items()]
                 if type(m) is not LAZY and n not in ("__zygote__", "__main__", "__mp_main__")}
        places = {os.path.dirname(f) for m in awake.values() if (f := getattr(m, "__file__", None)) and os.path.isabs(f)}
        names = {n.partition(".")[0] for n in BASE if n[:2] != "__" and not n.startswith("_cython_") and (n not in awake or
                 getattr(getattr(awake[n], "__spec__", None), "origin", "built-in") not in ("built-in", "frozen"))}
        names |= {"sitecustomize", "usercustomize"}.union(*(p.missing for p in base.proofs.values()))
        gc.collect()
        gc.freeze()  # the children's collector does not visit, and so does not copy, objects that exist now
        gc.disable()
        collapse()
        with open("/proc/self/statm") as f:
            rss = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        READY = {"preloaded": len(HELD.modules), "believed": len(rec.believed), "reads": sorted(reads - SET_AGAIN), "dropped": dropped, "rss": rss, "names": sorted(names),
                 "changed": next((f for m in awake.values() if (f := getattr(m, "__file__", None)) and (st := seen(f, False)) and st[3] > begun), ""),
                 "folders": sorted(places | {p.rstrip("/") for p in ROOTS}), "missing": sorted(f for (f, _), was in files.items() if was is None),
                 "files": sorted(f for (f, _), was in files.items() if was is not None)}
    except BaseException as e:
        traceback.print_exc()
        end(failed=f"{type(e).__name__}: {e}")
    serve(control, restore)


if __name__ == "__main__":
    if sys.version_info < (3, 9) or not sys.platform.startswith("linux"):
        socket.socket(fileno=3).send(b"." + encode({"failed": "a warm worker needs Linux and Python 3.9 or newer"}).encode())
        sys.exit(1)
    main()
