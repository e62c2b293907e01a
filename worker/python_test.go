package worker

import (
	"os"
	"path/filepath"
	"testing"
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

func TestTry(t *testing.T) {
	py := python(t)
	b := newBench(t)
	for range 3 {
		s := b.pythonSpec(py, tasksSource, "add1")
		r := b.run(s)
		t.Logf("%+v", r)
		t.Logf("took %v", r.EndedAt.Sub(r.StartedAt))
		t.Log(b.readIf(s.Stdout), b.readIf(s.Stderr))
		entries, _ := os.ReadDir(s.OutputDir)
		t.Log(entries)
	}
}
