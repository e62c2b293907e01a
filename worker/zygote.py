"""The warm worker: a process that has flytekit imported and forks one child per attempt (Linux, Python >= 3.9).

Started by aloft's supervisor as `python -u zygote.py LEARNT`, with a SEQPACKET socket as descriptor 3, on which it gets
    N, with the descriptor of a stream socket   fork a child, number N, that talks on that socket
and says, as one JSON object a packet,
    {"ready": {..}}    {"restart": {"dropped": {MODULE: WHY}}}    {"failed": WHY}    {"n": N, "pid": PID}
    {"n": N, "pid": PID, "status": S, "user": SECONDS, "sys": SECONDS, "maxrss": KB}    the child was reaped
The loop does nothing but fork and reap: the child itself reads what it is to do (four bytes of length, JSON), prepares all
that needs no user code, and waits for one byte, which comes when the attempt is claimed on disk. The end of the socket
before that byte ends the child. It says {"pid"}, then {"imported", "modules"} when the task's own work begins and it had to
import modules of the environment, then {"done", ..} when nothing of the task runs any more, then {"memory"}.

LEARNT is a file: {"modules": [..], "dropped": {..}}: modules of the environment that earlier tasks imported.
"""
import atexit, builtins, collections, contextlib, ctypes, errno, fcntl, gc, importlib.machinery, json, os, random, resource, select
import signal, socket, sys, tempfile, threading, time, traceback, types, weakref

PROBE = "from flytekit import task\n\n\n@task\ndef _zygote_probe(x: int) -> int:\n    return x\n"
ENTRIES = {"pyflyte-execute": "execute_task_cmd", "pyflyte-map-execute": "map_execute_task_cmd"}
MARK = "ALOFT_ATTEMPT_MARK"
SCRIPTS = {}  # name: code of the console script
CHANNEL = 512  # the least number of a descriptor of ours in a child
UNSEEDED = []  # generators made before the fork that a fresh process would have seeded from the system
NUMPY_UNSEEDED = []
BASE, ROOTS, LIBC, MARK_AT = frozenset(), (), ctypes.CDLL(None), None

# Variables that differ from attempt to attempt: a module that reads one at its import cannot be imported ahead.
PER_ATTEMPT = ("TMPDIR", "TEMP", "TMP", "PWD", "FLYTE_INTERNAL_", "FLYTE_ATTEMPT_NUMBER", "FLYTE_EXECUTION_URL", "_F_",
               "BATCH_JOB_", "FLYTE_K8S_", "ALOFT_")


# ---- what is imported before any fork ------------------------------------------------------------------------------

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


def remember_numpy_seeds():
    import numpy.random as nr
    make = nr.default_rng

    def default_rng(seed=None):
        g = make(seed)
        if seed is None:
            NUMPY_UNSEEDED.append(g)
        return g
    nr.default_rng = default_rng

    def restore():
        nr.default_rng = make
    return restore


class Reads:
    """Names of the variables that are read while it is on."""

    def __enter__(self):
        self.names, self.get = set(), os._Environ.__getitem__

        def getitem(env, key, get=self.get, names=self.names):
            names.add(key)
            return get(env, key)
        os._Environ.__getitem__ = getitem
        return self

    def __exit__(self, *_):
        os._Environ.__getitem__ = self.get


def sockets():
    n = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            n += os.readlink("/proc/self/fd/" + fd).startswith("socket:")
    return n


def has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def comms():
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


def audit(sockets_before):
    """What a fork would not survive, or nothing. Native threads of libraries with fork handlers are fine: OpenBLAS's,
    which bear the process's own name, and jemalloc's. OpenMP's bear that name too and are not fine: they are there when an
    import has computed something with it, and told by there being more threads than OpenBLAS starts."""
    if python := [t.name for t in threading.enumerate() if t is not threading.main_thread()]:
        return "leaves threads running: " + ", ".join(python)
    own, *native = comms() or [""]
    strange = [c for c in native if not c.startswith("jemalloc") and c != own]
    if native.count(own) > blas_threads():
        strange.append(own)
    if strange:
        return "leaves native threads running: " + ", ".join(strange)
    if sockets() > sockets_before:
        return "leaves sockets open"
    if has_children():
        return "leaves a child process running"


def preload_learnt(learnt):
    """Imports the learnt modules; returns (number imported, variables they read, dropped, whether we are still clean)."""
    dropped, reads, loaded, clean = dict(learnt.get("dropped") or {}), set(), len(sys.modules), True
    modules = [m for m in learnt.get("modules") or [] if m not in dropped and m.partition(".")[0] not in dropped]
    restores = []
    if any(m.partition(".")[0] == "numpy" for m in modules):
        with contextlib.suppress(Exception):
            restores.append(remember_numpy_seeds())
    before = sockets()
    for m in modules:
        top = m.partition(".")[0]
        if m in sys.modules or m in dropped or top in dropped:
            continue
        with Reads() as r:
            try:
                importlib.import_module(m)
            except BaseException as e:
                dropped[m] = f"its import raises {type(e).__name__}"
        why = audit(before)
        for name in r.names:
            if name.startswith(PER_ATTEMPT):
                why = f"reads {name} at its import"
        if why:
            dropped[top], clean = why, False
            if not why.startswith("reads"):
                break  # what it left would be blamed on the next
        reads |= r.names
    return len(sys.modules) - loaded, sorted(reads), dropped, clean, restores


def dry_run():
    """One task of our own through the real entry point: caches, specialised byte code, a statsd client, touched pages."""
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
    with contextlib.suppress(Exception):  # the probe is no entity of the tasks to come
        from flytekit.core.context_manager import FlyteEntities
        FlyteEntities.entities[:] = [e for e in FlyteEntities.entities if "_zygote_probe" not in e.name]
    if not ok:
        raise RuntimeError(f"a task of our own did not run in this environment (exit code {code})")


def stop_loops():
    """flytekit's loop thread: none may live across a fork. It starts again where it is needed."""
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
    """What a fresh process derives from its environment at import, done again. Each page that is touched here, and each file
    and folder that is made, is a good part of what a short task costs."""
    tempfile.tempdir = temp  # made for this attempt; else tempfile tries out what there is
    time.tzset()
    for r in UNSEEDED[:]:  # flytekit has one of its own, which names its files: equal in all children otherwise
        r.seed()
    for g in NUMPY_UNSEEDED:
        b = g.bit_generator
        b.state = type(b)().state
    for m in ("numpy.random", "torch"):  # the random module's own generator reseeds itself
        if m in sys.modules:
            sys.modules[m].seed()
    if "multiprocessing.process" in sys.modules:
        mp = sys.modules["multiprocessing.process"]
        mp.current_process().authkey = os.urandom(32)
        mp.ORIGINAL_DIR = os.getcwd()
    from flytekit.core import context_manager as cm, data_persistence as dp
    if connector := sys.modules.get("flytekit.extend.backend.base_connector"):
        if loop := getattr(connector, "local_connector_loop", None):  # all children would wait with one epoll otherwise
            loop.close()
            connector.local_connector_loop = type(loop)()
    dp.flyte_tmp_dir = d = temp or tempfile.mkdtemp(prefix="flyte-")
    dp.default_local_file_access_provider = cm.default_local_file_access_provider = dp.FileAccessProvider(
        local_sandbox_dir=d, raw_output_prefix=d + "/raw", data_config=dp.DataConfig.auto())
    cm.FlyteContextManager.initialize()


def set_up_loggers(env):
    """flytekit's loggers are as its import made them, unless these variables say otherwise."""
    if "FLYTE_INTERNAL_EXECUTION_ID" in env and not any(name.startswith("FLYTE_SDK_") for name in env):
        return
    from flytekit import loggers
    for logger in loggers.logger, loggers.user_space_logger, loggers.developer_logger:
        logger.handlers.clear()  # or each line would be written twice
    loggers.initialize_global_loggers()


def compile_scripts():
    """The console scripts, which are what a fresh interpreter runs as its __main__. One that is not installed is written as
    command.go would have it done."""
    for name, function in ENTRIES.items():
        path = os.path.join(BIN, name)
        try:
            with open(path, "rb") as f:
                SCRIPTS[name] = compile(f.read(), path, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):
            text = f"import sys; from flytekit.bin.entrypoint import {function} as run; sys.exit(run())"
            SCRIPTS[name] = compile(text, path, "exec", dont_inherit=True)


def entry(argv):
    """Runs the console script as the interpreter would, and returns the exit code; None: a death by SIGINT."""
    name = os.path.basename(argv[0])
    path = os.path.join(BIN, name)
    sys.argv = [path, *argv[1:]]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable, "-u", path, *argv[1:]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(main).update(__file__=path, __builtins__=builtins, __cached__=None,
                      __loader__=importlib.machinery.SourceFileLoader("__main__", path))
    try:
        exec(SCRIPTS[name], vars(main))
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
    # Daemon threads stop here in a fresh process. These get the interpreter no more unless we wait for something.
    sys.setswitchinterval(1000)
    threading.excepthook = lambda args: None
    sys.path = sys.argv = sys.meta_path = sys.path_hooks = None
    modules = [weakref.ref(sys.modules["__main__"])]
    for name in list(reversed(sys.modules)):
        if name == "__zygote__":
            break
        if name not in BASE and isinstance(sys.modules[name], types.ModuleType):
            try:
                modules.insert(-1, weakref.ref(sys.modules[name]))
            except TypeError:  # a module of C's making, such as cffi's, has nothing of the task's and no weak references
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
    ok = True
    for f in (sys.stdout, sys.stderr):
        try:
            if f is not None and not f.closed:
                f.flush()
        except Exception:
            ok = False
    return ok


class Channel:
    """The attempt's socket. Only the process that was started speaks on it: one that the task forks may leave the task's
    function too, and runs through all that follows it."""

    def __init__(self, fd):
        # Out of the way of the task's own descriptors, whose numbers are as in a fresh process.
        least = min(CHANNEL, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 8)
        number = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(3, least))
        os.close(fd)
        self.sock, self.pid, self.getpid, self.fstat = socket.socket(fileno=number), os.getpid(), os.getpid, os.fstat
        self.inode = os.fstat(number).st_ino
        os.register_at_fork(after_in_child=self.close)

    def ours(self):
        return self.getpid() == self.pid

    def close(self):
        with contextlib.suppress(OSError):
            if self.sock.fileno() >= 0 and self.fstat(self.sock.fileno()).st_ino == self.inode:
                self.sock.close()

    def say(self, **message):
        if not self.ours():
            return
        if self.fstat(self.sock.fileno()).st_ino != self.inode:  # the task has closed all descriptors, and this is one of its own
            raise OSError(errno.EBADF, "the attempt's socket is closed")
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, n):
        data = bytearray()
        while len(data) < n:
            if not (part := self.sock.recv(n - len(data))):
                os._exit(1)  # no supervisor any more, and nothing has started yet
            data += part
        return data


def redirect(req):
    for to, name, how in ((0, os.devnull, os.O_RDONLY), (1, req["stdout"], os.O_WRONLY), (2, req["stderr"], os.O_WRONLY)):
        fd = os.open(name, how | (os.O_CREAT | os.O_APPEND if how else 0), 0o644)
        os.dup2(fd, to)
        os.close(fd)


def learnt_modules(argv, told):
    """Modules of the environment that this task has imported and the zygote had not; not those of its own package."""
    new = []
    with contextlib.suppress(RuntimeError):  # a thread imports meanwhile: what is missed now is learnt another time
        for m in reversed(sys.modules):  # not all of them: merely to touch a name copies its page
            if m == "__zygote__":
                break
            if m not in BASE and m not in told:
                new.append(m)
    new.reverse()
    own = argv[argv.index("task-module") + 1].partition(".")[0] if "task-module" in argv[:-1] else None
    return [m for m in new if m.partition(".")[0] != own
            and str(getattr(sys.modules.get(m), "__file__", None) or "").startswith(ROOTS)][:5000]


def when_loaded(do):
    """Calls do when flytekit has loaded the task and turns to its inputs; no frame of ours is left in what follows."""
    from flytekit.core import utils
    load = utils.load_proto_from_file

    def load_proto_from_file(*args, **kwargs):
        utils.load_proto_from_file = load
        do()
        return load(*args, **kwargs)
    utils.load_proto_from_file = load_proto_from_file


def attempt(channel):
    os.setsid()  # so that the attempt and what it started can be signalled as one group
    say = channel.say
    say(pid=os.getpid())
    req = json.loads(channel.receive(int.from_bytes(channel.receive(4), "big")))
    for join in req.get("joins") or ():  # control groups; before it allocates anything of its own
        with open(join, "w") as f:
            f.write("0")
    LIBC.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what its processes leave behind stays below it
    if MARK_AT:  # in place: /proc/<pid>/environ shows it, of this process and of those that it forks
        ctypes.memmove(MARK_AT, req["mark"].encode(), 32)
    argv, code, told, modules = req["argv"], 1, [], []

    def loaded():
        sys.dont_write_bytecode = writes_no_bytecode
        took = time.process_time() - begin  # of the processor: a crowded machine makes everything slow
        with contextlib.suppress(Exception):  # the task must not notice
            if channel.ours() and (modules := learnt_modules(argv, ())):
                told.extend(modules)
                say(imported=took, modules=modules)
    try:
        redirect(req)
        os.environ.clear()
        os.environ.update(req["env"])
        os.chdir(req["cwd"])
        sys.path[1:1] = [p for p in req["env"].get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
        reset(req.get("temp_dir"))
        set_up_loggers(req["env"])
        channel.receive(1)
        writes_no_bytecode = sys.dont_write_bytecode
        with contextlib.suppress(Exception):  # a later flytekit may be built otherwise
            when_loaded(loaded)
            sys.dont_write_bytecode = True  # its copy of the code is its own: nobody else will read what is compiled of it
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
            # Each page of its own was faulted in once; a task that runs for longer may have done that often for one page.
            short = u.ru_utime + u.ru_stime < 0.2
            say(done=code, user=u.ru_utime, sys=u.ru_stime, children=has_children(), modules=modules,
                memory=u.ru_minflt * resource.getpagesize() // 1024 if short else 0)
            if not short:  # 2 ms
                with open("/proc/self/smaps_rollup") as f:
                    say(memory=sum(int(line.split()[1]) for line in f if line.startswith("Private_")))
        except OSError:  # the supervisor is gone: its successor looks for this file
            with contextlib.suppress(OSError), open(req["done_file"], "w") as f:
                json.dump({"done": code}, f)
    finally:
        os._exit(code)


# ---- the loop ------------------------------------------------------------------------------------------------------

def serve(control, restores):
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
        outgoing.append(json.dumps(message).encode())
        flush()

    def flush():  # never blocks: what the supervisor does not take now waits here
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
        if not data:  # the supervisor has ended, or needs us no longer; children run on
            reap()
            control.setblocking(True)
            with contextlib.suppress(OSError):
                for message in outgoing:
                    control.send(message)
            os._exit(0)
        if not fds:
            return
        try:
            pid = os.fork()
        except OSError:
            os.close(fds[0])  # the child's end: the supervisor sees that there is none
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
            for s in (control, wake, woken):  # only our own: others may be a library's, open since its import
                s.close()
            outgoing.clear()
            for restore in restores:
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
    global BASE, ROOTS, MARK_AT, READY, BIN
    control = socket.socket(fileno=3)
    os.set_inheritable(3, False)

    def end(**message):
        with contextlib.suppress(OSError):
            control.send(json.dumps(message).encode())
        os._exit(1)
    try:
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, signal.SIG_DFL)
        LIBC.getenv.restype = ctypes.c_void_p
        MARK_AT = LIBC.getenv(MARK.encode())
        try:
            with open(sys.argv[1]) as f:
                learnt = json.load(f)
        except (OSError, ValueError):
            learnt = {}
        # As in the console script that a task would have been started by; spawned pools import it again.
        BIN = os.path.dirname(sys.executable)
        compile_scripts()
        sys.path[0] = BIN
        sys.modules["__zygote__"] = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.modules["__main__"].__file__ = os.path.join(BIN, "pyflyte-execute")
        sys.modules["__main__"].__builtins__ = __builtins__
        restores = [remember_seeds()]
        import flytekit.bin.entrypoint
        with task_mode():
            with contextlib.suppress(ImportError):
                import mashumaro.jsonschema  # 60 ms on the first dataclass in a task's signature
            if why := audit(sockets()):  # it makes an event loop, with a socket pair that nobody uses
                end(failed="importing flytekit " + why)
            count, reads, dropped, clean, more = preload_learnt(learnt)
        if not clean:
            end(restart={"dropped": dropped, "reads": reads})
        dry_run()
        stop_loops()
        for _ in range(100):  # a joined thread is a moment longer in the list
            if not (why := audit(sockets())):
                break
            time.sleep(0.002)
        else:
            end(failed="a dry run " + why)
        import site, sysconfig
        paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
        ROOTS = tuple(p.rstrip("/") + "/" for p in paths)
        sys.modules["__zygote__"] = sys.modules.pop("__zygote__")  # the last one: what follows is a child's
        BASE = frozenset(sys.modules)
        gc.collect()
        gc.freeze()  # the children's collector never walks, so never copies, what is loaded here
        gc.disable()
        collapse()
        with open("/proc/self/statm") as f:
            rss = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        READY = {"preloaded": count, "reads": reads, "dropped": dropped, "rss": rss, "modules": len(BASE)}
    except BaseException as e:
        traceback.print_exc()
        end(failed=f"{type(e).__name__}: {e}")
    serve(control, restores + more)


if __name__ == "__main__":
    if sys.version_info < (3, 9) or not sys.platform.startswith("linux"):
        socket.socket(fileno=3).send(json.dumps({"failed": "a warm worker needs Linux and Python 3.9 or newer"}).encode())
        sys.exit(1)
    main()
