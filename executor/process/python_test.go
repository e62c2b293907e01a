package process_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/environment"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/worker"
)

const tasks = `
from flytekit import task

@task
def double(x: int) -> int:
    with open("data.txt") as f:
        factor = int(f.read())
    with open("data.txt", "w") as f:
        f.write("1000")
    return factor * x

@task
def broken(x: int) -> int:
    raise ValueError("no luck with %d" % x)
`

// TestPythonTasksRunAsTheyWereRegistered runs the command line that pyflyte registers for code it has uploaded.
func TestPythonTasksRunAsTheyWereRegistered(t *testing.T) {
	t.Parallel()
	python := os.Getenv("ALOFT_TEST_PYTHON")
	if python == "" {
		t.Skip("ALOFT_TEST_PYTHON names no Python with flytekit")
	}
	w := newWorld(t)
	key := w.upload(t, map[string]string{"wf.py": tasks, "data.txt": "2"})
	environments := environment.New(environment.Config{DataDir: w.data, Python: python, Logger: slog.New(slog.DiscardHandler)})
	run := func(name, task string) *aloftv1.Outcome {
		job := shell(name, "", "o0")
		job.Inputs = &core.LiteralMap{Literals: map[string]*core.Literal{"x": integer(21)}}
		job.Template.Type = "python-task"
		job.Template.GetContainer().Command = nil
		job.Template.GetContainer().Args = strings.Fields(`pyflyte-fast-execute --additional-distribution ` + key.URI() + ` --dest-dir /root --
			pyflyte-execute --inputs {{.input}} --output-prefix {{.outputPrefix}} --raw-output-data-prefix {{.rawOutputDataPrefix}}
			--checkpoint-path {{.checkpointOutputPrefix}} --prev-checkpoint {{.prevCheckpointPrefix}}
			--resolver flytekit.core.python_auto_container.default_task_resolver -- task-module wf task-name ` + task)
		return w.run(t, w.open(t, environments, w.blob), job)
	}
	client, err := w.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// A back end that only watches has the warm worker started ahead.
	w.watch(t, w.open(t, environments, w.blob), func(executor.Event) {})
	var zygotes []worker.ZygoteStatus
	for end := time.Now().Add(deadline); len(zygotes) != 1 || zygotes[0].State != "ready"; {
		if zygotes, err = client.Zygotes(t.Context()); err != nil || time.Now().After(end) {
			t.Fatalf("no warm worker is ready: %+v, %v", zygotes, err)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // the supervisor tells of attempts only
	}
	ahead := zygotes[0].PID
	var modes []string
	for _, name := range []string{"a", "b"} { // the second finds the file as it was, and the interpreter warm
		o := run(name, "double")
		if got := o.GetOutputs().GetValue().GetLiterals()["o0"].GetScalar().GetPrimitive().GetInteger(); got != 42 {
			t.Fatalf("outcome %v, want 42", o)
		}
		if !strings.HasPrefix(o.Environment, "sha256:") {
			t.Errorf("it ran in environment %q", o.Environment)
		}
		usage := &aloftv1.AttemptUsage{}
		if err := proto.Unmarshal(o.Usage, usage); err != nil {
			t.Fatal(err)
		}
		modes = append(modes, usage.Mode+usage.ModeReason)
	}
	if modes[0] != "warm" || modes[1] != "warm" {
		t.Errorf("modes %q: want both warm", modes)
	}
	if zygotes, err = client.Zygotes(t.Context()); err != nil || len(zygotes) != 1 || zygotes[0].PID != ahead || zygotes[0].Forks != 2 {
		t.Errorf("warm workers: %+v, %v: want the one that was started ahead, with two forks", zygotes, err)
	}
	if f := run("c", "broken").GetFailure().GetError(); f.GetKind() != core.ExecutionError_USER || !strings.Contains(f.GetMessage(), "no luck with 21") {
		t.Errorf("failure %v", f)
	}
}
