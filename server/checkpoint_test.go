package server

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// countingScript is a task that saves its progress as a checkpoint. Its second attempt dies before it has saved anything, the third
// attempt waits for the test.
const countingScript = `
import os, time
from flytekit import current_context, task
from flytekit.exceptions.user import FlyteRecoverableException

@task(retries=4)
def count() -> int:
    attempt = int(os.environ["FLYTE_ATTEMPT_NUMBER"])
    checkpoint = current_context().checkpoint
    saved = checkpoint.read()
    n = int(saved) if saved else 0
    if attempt == 1:
        raise FlyteRecoverableException("died before it saved")
    while attempt == 2 and not os.path.exists(os.path.join(os.environ["PYTHONPATH"], "go-on")):
        time.sleep(0.02)
    checkpoint.write(str(n + 1).encode())
    if attempt < 3:
        raise FlyteRecoverableException("died after it saved")
    return n
`

func TestFlytekitsCheckpointsReachLaterAttemptsAcrossARestart(t *testing.T) {
	t.Parallel()
	python := os.Getenv("ALOFT_TEST_PYTHON")
	if python == "" {
		t.Skip("ALOFT_TEST_PYTHON names no Python with flytekit")
	}
	dir, code := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(code, "counting.py"), []byte(countingScript), 0o644); err != nil {
		t.Fatal(err)
	}
	task := &core.TaskTemplate{
		Id: id(core.ResourceType_TASK, "counting.count"), Type: "python-task",
		Metadata:  &core.TaskMetadata{Retries: &core.RetryStrategy{Retries: 4}},
		Interface: &core.TypedInterface{Outputs: variables("o0", core.SimpleType_INTEGER)},
		Target: &core.TaskTemplate_Container{Container: &core.Container{
			Image: "cr.flyte.org/flyteorg/flytekit:py3.12-latest", Env: []*core.KeyValuePair{{Key: "PYTHONPATH", Value: code}},
			Args: []string{
				"pyflyte-execute", "--inputs", "{{.input}}", "--output-prefix", "{{.outputPrefix}}", "--raw-output-data-prefix", "{{.rawOutputDataPrefix}}",
				"--checkpoint-path", "{{.checkpointOutputPrefix}}", "--prev-checkpoint", "{{.prevCheckpointPrefix}}",
				"--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--", "task-module", "counting", "task-name", "count",
			},
		}},
	}
	c := testConfig(dir)
	c.Python = python
	running := c
	running.StopTasks = false
	first := startRunning(t, running)
	if _, err := first.admin.CreateTask(t.Context(), &admin.TaskCreateRequest{Id: task.Id, Spec: &admin.TaskSpec{Template: task}}); err != nil {
		t.Fatal(err)
	}
	e := first.create(execute(task.Id, nil))
	first.until(e, "in its third attempt", func(all []*store.Attempt) bool {
		for _, a := range all {
			if a.Attempt == 2 && a.Phase == core.TaskExecution_RUNNING {
				return true
			}
		}
		return false
	})
	first.close()
	second := startRunning(t, c)
	if err := os.WriteFile(filepath.Join(code, "go-on"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if closure := second.wait(e).GetClosure(); closure.GetPhase() != core.WorkflowExecution_SUCCEEDED {
		t.Fatalf("the execution ended %s: %v", closure.GetPhase(), closure.GetError())
	}
	data, err := second.admin.GetExecutionData(t.Context(), &admin.WorkflowExecutionGetDataRequest{Id: e})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(data.GetFullOutputs().GetLiterals()["o0"].GetScalar().GetPrimitive().GetInteger()); got != "2" {
		t.Errorf("the fourth attempt went on from %s, want 2: what the first and the third had saved", got)
	}
}
