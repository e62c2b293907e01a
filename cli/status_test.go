package cli

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestANodeThatWaitsForItsRetrySaysWhichBudgetPaidAndWhenItStarts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	node := &aloftv1.NodeStatus{Phase: core.NodeExecution_RUNNING, Attempts: []*aloftv1.AttemptStatus{
		{
			Phase: core.TaskExecution_FAILED, Error: &core.ExecutionError{Message: "task execution timeout [10s] expired"},
			Charge: &aloftv1.AttemptCharge{Budget: aloftv1.AttemptEnded_USER, RetriesUsed: 1, RetriesAllowed: 3, Reason: "its time was over", NextAt: 1},
		},
		{Attempt: 1, Phase: core.TaskExecution_QUEUED, NotBefore: timestamppb.New(now.Add(12 * time.Second))},
	}}
	want := "  attempt 2  starts in 12s  before: task execution timeout [10s] expired (user retry 1 of 3: its time was over)"
	if got := (&tree{}).note(node, now); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, want := budget(&aloftv1.AttemptCharge{Budget: aloftv1.AttemptEnded_SYSTEM, RetriesUsed: 3, RetriesAllowed: 3, Reason: "a failure of the system (X), and its retries are used up"}),
		" (3 of 3 system retries used: a failure of the system (X), and its retries are used up)"; got != want { // the message of the last attempt is another one
		t.Errorf("got  %q\nwant %q", got, want)
	}
	node.Attempts[1] = &aloftv1.AttemptStatus{Attempt: 1, Phase: core.TaskExecution_RUNNING, StartedAt: timestamppb.New(now), Stop: "task execution timeout [10s] expired"}
	node.Attempts[0].Charge = &aloftv1.AttemptCharge{}
	want = "  attempt 2  is being stopped: task execution timeout [10s] expired  before: task execution timeout [10s] expired"
	if got := (&tree{}).note(node, now); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestANodeThatFailedWithRetriesLeftSaysWhyTheyWereNotUsed(t *testing.T) {
	t.Parallel()
	asked := 0
	tree := &tree{retriesFunc: func(task *core.Identifier) uint32 {
		asked++
		return map[string]uint32{"retried": 2}[task.GetName()]
	}}
	exception := "Trace:\n\n    Traceback (most recent call last):\n\nMessage:\n\n    ValueError: bad"
	none := &aloftv1.AttemptCharge{Reason: "a failure of the task (USER:RuntimeError), not recoverable: no other attempt would help"}
	used := &aloftv1.AttemptCharge{Budget: aloftv1.AttemptEnded_USER, RetriesUsed: 2, RetriesAllowed: 2, Reason: "a failure of the task (x), and its retries are used up"}
	for _, c := range []struct {
		task, message string
		kind          core.ExecutionError_ErrorKind
		charge        *aloftv1.AttemptCharge
		want          string
	}{
		{"retried", exception, core.ExecutionError_USER, none, "  ValueError: bad (not retried: of a task's exceptions only FlyteRecoverableException is)"},
		{"retried", exception, core.ExecutionError_SYSTEM, none, "  ValueError: bad (not retried: it is not recoverable)"},
		{"retried", "its outputs.pb is too large", core.ExecutionError_USER, none, "  its outputs.pb is too large (not retried: it is not recoverable)"},
		{"retried", exception, core.ExecutionError_USER, used, "  ValueError: bad"},
		{"retried", exception, core.ExecutionError_USER, nil, "  ValueError: bad"}, // of a server that does not tell the charge
		{"plain", exception, core.ExecutionError_USER, none, "  ValueError: bad"},
	} {
		node := &aloftv1.NodeStatus{
			Phase: core.NodeExecution_FAILED, Target: &core.Identifier{ResourceType: core.ResourceType_TASK, Name: c.task},
			Error: &core.ExecutionError{Message: c.message, Kind: c.kind}, Attempts: []*aloftv1.AttemptStatus{{Charge: c.charge}},
		}
		if got := tree.note(node, time.Now()); got != c.want {
			t.Errorf("%s, %v: got %q, want %q", c.task, c.charge, got, c.want)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times for two tasks", asked)
	}
}

func TestATreeThatHasMoreNodesThanTheTerminalLinesShowsThoseThatFailedOrRun(t *testing.T) {
	t.Parallel()
	tree := &tree{nodes: map[string]*aloftv1.NodeStatus{}}
	status := &aloftv1.WatchExecutionResponse{Execution: &aloftv1.ExecutionStatus{}}
	for i, phase := range []core.NodeExecution_Phase{
		core.NodeExecution_SUCCEEDED, core.NodeExecution_FAILED, core.NodeExecution_QUEUED, core.NodeExecution_RUNNING, core.NodeExecution_SUCCEEDED, core.NodeExecution_SUCCEEDED, core.NodeExecution_QUEUED,
	} {
		status.Nodes = append(status.Nodes, &aloftv1.NodeStatus{Id: "n" + strconv.Itoa(i), Phase: phase})
	}
	tree.update(status)
	for height, want := range map[int]string{
		8: "n0 n1 n2 n3 n4 n5 n6", 7: "… 2 more n1 n2 n3 n5 n6", 6: "… 3 more n1 n2 n3 n6", 5: "… 4 more n1 n2 n3", 4: "… 5 more n1 n3", 3: "… 6 more n1", 2: "… 7 more", 1: "… 7 more",
	} {
		var got []string
		for _, line := range tree.fitTo(height, time.Now())[1:] {
			line, _, _ = strings.Cut(strings.TrimSpace(strings.TrimLeft(line, "├└─ ")), "  ")
			got = append(got, line)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("in %d lines: %s, want %s", height, strings.Join(got, " "), want)
		}
	}
	status.Execution.Error = &core.ExecutionError{Message: "so\nit\nis"}
	if got := tree.fitTo(8, time.Now()); len(got) != 8 || !strings.Contains(got[7], "n6") {
		t.Errorf("an error took the room of nodes:\n%s", strings.Join(got, "\n"))
	}
	if got := tree.fitTo(13, time.Now()); len(got) != 13 || got[12] != "  is" {
		t.Errorf("an error that has room:\n%s", strings.Join(got, "\n"))
	}
}

func TestTheFirstLineOfATreeKeepsThePhaseWhereThereIsLittleRoom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		project string
		room    int
		want    string
	}{
		{"p", 0, "p/d/a7xk  module.workflow  SUCCEEDED  0 ms"},
		{"p", 42, "p/d/a7xk  module.workflow  SUCCEEDED  0 ms"},
		{"p", 41, "a7xk  module.workflow  SUCCEEDED  0 ms"},
		{"p", 37, "a7xk  module.workfl…  SUCCEEDED  0 ms"},
		{"p", 10, "a7xk  module.…  SUCCEEDED  0 ms"},
		{"q", 41, "q/d/a7xk  module.workfl…  SUCCEEDED  0 ms"}, // the name alone would be an execution of another project
	} {
		tree := &tree{place: "p/d/", room: c.room, execution: &aloftv1.ExecutionStatus{
			Id: &core.WorkflowExecutionIdentifier{Project: c.project, Domain: "d", Name: "a7xk"}, Workflow: &core.Identifier{Name: "module.workflow"},
			Phase: core.WorkflowExecution_SUCCEEDED, StartedAt: timestamppb.New(time.Unix(9, 0)), EndedAt: timestamppb.New(time.Unix(9, 0)),
		}}
		if got := tree.head(time.Now()); got != c.want {
			t.Errorf("in %d characters: %q, want %q", c.room, got, c.want)
		}
	}
}

func TestANodeSaysWhetherItsResultWasThereAndWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		node *aloftv1.NodeStatus
		want string
	}{
		{&aloftv1.NodeStatus{Phase: core.NodeExecution_SUCCEEDED, CacheNote: "cached from a7/n0"}, "  cached from a7/n0"},
		{&aloftv1.NodeStatus{Phase: core.NodeExecution_QUEUED, CacheNote: `miss: input "x" was 5 and is 6`, Waiting: "waits for the result that a7/n0 computes"},
			`  miss: input "x" was 5 and is 6  waits for the result that a7/n0 computes`},
		{&aloftv1.NodeStatus{Phase: core.NodeExecution_QUEUED, Waiting: "the blob store"}, "  waits: the blob store"},
		{&aloftv1.NodeStatus{Phase: core.NodeExecution_SUCCEEDED, Waiting: "the blob store"}, ""}, // the node has ended
	} {
		if got := (&tree{}).note(c.node, time.Now()); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
	tree := &tree{nodes: map[string]*aloftv1.NodeStatus{}}
	tell := func(waiting string) int {
		return len(tree.update(&aloftv1.WatchExecutionResponse{Nodes: []*aloftv1.NodeStatus{{Id: "n0", Waiting: waiting}}}))
	}
	if first, second, third := tell(""), tell("waits for a result"), tell("waits for a result"); first != 1 || second != 1 || third != 0 {
		t.Errorf("told %d, %d, %d times, want a wait told once", first, second, third)
	}
}

func TestWaitsAreCountedWhereOneLooks(t *testing.T) {
	t.Parallel()
	tree := &tree{nodes: map[string]*aloftv1.NodeStatus{}}
	tree.update(&aloftv1.WatchExecutionResponse{Execution: &aloftv1.ExecutionStatus{Waiting: "waiting for the blob store"}, Nodes: []*aloftv1.NodeStatus{
		{Id: "n0", Waiting: "waits for a result"}, {Id: "n1", Waiting: "waits for another"}, {Id: "n2"},
		{Id: "n3", Waiting: "it is over", Phase: core.NodeExecution_FAILED},
	}})
	if got, want := tree.head(time.Now()), "waiting for the blob store  nodes that wait for something outside: 2"; !strings.HasSuffix(got, want) {
		t.Errorf("the first line is %q, want it to end with %q", got, want)
	}

	var out bytes.Buffer
	d := &diagnosis{out: &out}
	d.server(&client{}, &aloftv1.GetServerInfoResponse{
		Counts: &aloftv1.StoreCounts{Executions: 9, Running: 5, Waiting: 3, Waits: 4}, Executors: []*aloftv1.ExecutorInfo{{}},
		Waits: []*aloftv1.WaitInfo{{Id: &core.WorkflowExecutionIdentifier{Project: "p", Domain: "d", Name: "n"}, Waits: 2, Reason: "waits for a result"}},
	}, nil)
	for _, want := range []string{"note  executions that wait for something outside of them: 3 (waits in all: 4)", "p/d/n waits for a result", "and 2 more"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	if d.problems != 0 {
		t.Error("a wait is nothing to be done")
	}
}

func TestEachAttemptSaysHowItWentAndWhyItsProcessWasAFreshOne(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tree := &tree{nodes: map[string]*aloftv1.NodeStatus{}, verbose: true}
	tree.update(&aloftv1.WatchExecutionResponse{Execution: &aloftv1.ExecutionStatus{}, Nodes: []*aloftv1.NodeStatus{
		{Id: "n0", Phase: core.NodeExecution_RUNNING, Attempts: []*aloftv1.AttemptStatus{
			{
				Phase: core.TaskExecution_FAILED, Mode: "cold", ModeReason: "variable LD_PRELOAD is honoured only by a fresh interpreter",
				StartedAt: timestamppb.New(now), EndedAt: timestamppb.New(now.Add(2 * time.Second)), Error: &core.ExecutionError{Message: "no\nmore"},
			},
			{Attempt: 1, Phase: core.TaskExecution_SUCCEEDED, Mode: "warm"},
			{Attempt: 2, Phase: core.TaskExecution_QUEUED, Waiting: "no room"},
		}},
		{Id: "n0-0-n0", Parent: "n0", Phase: core.NodeExecution_SUCCEEDED, Attempts: []*aloftv1.AttemptStatus{{Phase: core.TaskExecution_SUCCEEDED, Mode: "cold"}}},
	}})
	want := []string{
		"   attempt 1  FAILED  2.0 s  cold start: variable LD_PRELOAD is honoured only by a fresh interpreter  no",
		"   attempt 2  SUCCEEDED  warm start",
		"   attempt 3  QUEUED  waits: no room",
		"      attempt 1  SUCCEEDED  cold start",
	}
	var got []string
	for _, line := range tree.lines(now) {
		if strings.Contains(line, "attempt ") && !strings.Contains(line, "n0") {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
