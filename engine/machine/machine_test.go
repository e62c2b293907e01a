package machine

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Each entry is a journal that would be right without its last event.
func TestApplyRefusesWhatCannotHaveHappened(t *testing.T) {
	t.Parallel()
	// Numbers: 0 start-node, 1 end-node, 2 a, 3 b (after a), 4 s (a sub-workflow), 5 z (a sleep), 6 f (the failure node);
	// once s is open 7 its start-node, 8 its end-node, 9 x.
	g := mustGraph(t, flow{
		name:    "main",
		nodes:   []flowNode{{id: "a"}, {id: "b", after: []string{"a"}}, {id: "s", run: "inner"}, {id: "z", run: "sleep"}},
		failure: &flowNode{id: "f"},
	}, flow{name: "inner", nodes: []flowNode{{id: "x", run: "echo"}}})
	token := func(i, n uint32) string {
		s := New(testID, g)
		s.create = create(0).GetCreate()
		s.openScope(g.root, noIndex, 0)
		return s.token(i, n)
	}
	at := epoch.UnixNano()
	event := func(e *aloftv1.Event) *aloftv1.Event { e.At = at; return e }
	begun := event(&aloftv1.Event{Kind: &aloftv1.Event_ExecutionStarted{ExecutionStarted: &aloftv1.ExecutionStarted{Create: create(2).GetCreate()}}})
	terminated := event(&aloftv1.Event{Kind: &aloftv1.Event_TerminateRequested{TerminateRequested: &aloftv1.TerminateRequested{}}})
	ended := func(p core.WorkflowExecution_Phase, err *core.ExecutionError) *aloftv1.Event {
		return event(&aloftv1.Event{Kind: &aloftv1.Event_ExecutionEnded{ExecutionEnded: &aloftv1.ExecutionEnded{Phase: p, Error: err}}})
	}
	problem := &core.ExecutionError{Code: "X", Message: "bad"}
	failing := event(&aloftv1.Event{Kind: &aloftv1.Event_ExecutionFailing{ExecutionFailing: &aloftv1.ExecutionFailing{Error: problem}}})
	opened := func(i uint32) *aloftv1.Event {
		return event(&aloftv1.Event{Kind: &aloftv1.Event_ScopeOpened{ScopeOpened: &aloftv1.ScopeOpened{Node: i}}})
	}
	scopeFailing := func(i uint32) *aloftv1.Event {
		return event(&aloftv1.Event{Kind: &aloftv1.Event_ScopeFailing{ScopeFailing: &aloftv1.ScopeFailing{Node: i, Error: problem}}})
	}
	queued := func(i uint32) *aloftv1.Event { return nodeQueued(at, i, nil, nil) }
	running := func(i uint32) *aloftv1.Event { return nodeRunning(at, i, at) }
	done := func(i uint32) *aloftv1.Event { return nodeSucceeded(at, i, nil, "") }
	scheduled := func(i, n uint32) *aloftv1.Event {
		e, _ := newAttemptScheduled(at, i, n, token(i, n))
		return e
	}
	byEngine := func(i, n uint32) *aloftv1.Event {
		e, x := newAttemptScheduled(at, i, n, token(i, n))
		x.ByEngine, x.DueAt = true, at
		return e
	}
	attemptRunning := func(i, n uint32) *aloftv1.Event {
		return event(&aloftv1.Event{Kind: &aloftv1.Event_AttemptRunning{AttemptRunning: &aloftv1.AttemptRunning{Node: i, Attempt: n}}})
	}
	stop := func(i, n uint32, why string) *aloftv1.Event {
		return event(&aloftv1.Event{Kind: &aloftv1.Event_AttemptStopRequested{AttemptStopRequested: &aloftv1.AttemptStopRequested{Node: i, Attempt: n, Reason: why}}})
	}
	good := func(i, n uint32) *aloftv1.Event {
		x := newAttemptEnded(at, i, n)
		x.body.Result = &aloftv1.AttemptEnded_Outputs{Outputs: &aloftv1.LiteralRef{}}
		return &x.event
	}
	bad := func(i, n uint32) *aloftv1.Event {
		x := newAttemptEnded(at, i, n)
		x.body.Result = &aloftv1.AttemptEnded_Failure{Failure: &aloftv1.Failure{Error: problem}}
		return &x.event
	}
	early := func(e *aloftv1.Event) *aloftv1.Event { e = proto.CloneOf(e); e.At = at - 1; return e }
	resultless := newAttemptEnded(at, 2, 0)
	forged, _ := newAttemptScheduled(at, 2, 0, token(3, 0))
	strange := newAttemptEnded(at, 2, 0)
	strange.body.Result = &aloftv1.AttemptEnded_Outputs{Outputs: &aloftv1.LiteralRef{Digest: []byte("short")}}

	up := []*aloftv1.Event{begun, done(0)}
	a := append(slices.Clone(up), queued(2), scheduled(2, 0))
	s := append(slices.Clone(up), queued(4), running(4), opened(4))
	for claim, journal := range map[string][]*aloftv1.Event{
		"nothing comes before the start":                   {queued(2)},
		"an execution starts once":                         {begun, begun},
		"an execution starts with a create":                {event(&aloftv1.Event{Kind: &aloftv1.Event_ExecutionStarted{ExecutionStarted: &aloftv1.ExecutionStarted{}}})},
		"a terminated execution does not start":            {terminated, begun},
		"an event has a time":                              {{Kind: begun.Kind}},
		"an event has a kind":                              {begun, event(&aloftv1.Event{})},
		"time does not go back":                            {begun, early(done(0))},
		"a run is terminated once":                         {begun, terminated, terminated},
		"nothing follows the end":                          {begun, terminated, ended(core.WorkflowExecution_ABORTED, nil), done(0)},
		"a run does not end while attempts run":            append(slices.Clone(a), terminated, ended(core.WorkflowExecution_ABORTED, nil)),
		"a run does not end while nodes wait":              append(slices.Clone(up), ended(core.WorkflowExecution_SUCCEEDED, nil)),
		"a run that is not terminated is not aborted":      {begun, failing, ended(core.WorkflowExecution_ABORTED, nil)},
		"a run that fails does not succeed":                {begun, failing, nodeFailed(at, 6, problem), ended(core.WorkflowExecution_SUCCEEDED, nil)},
		"a failed run has an error":                        {begun, failing, nodeFailed(at, 6, problem), ended(core.WorkflowExecution_FAILED, nil)},
		"a run fails once":                                 {begun, failing, failing},
		"a terminated run does not begin to fail":          {begun, terminated, failing},
		"a run ends in a phase that is an end":             {begun, terminated, ended(core.WorkflowExecution_RUNNING, nil)},
		"a node exists":                                    append(slices.Clone(up), queued(99)),
		"a start-node is not queued":                       {begun, queued(0)},
		"a node does not begin before its upstream":        append(slices.Clone(up), queued(3)),
		"a node begins once":                               append(slices.Clone(a), queued(2)),
		"a start-node succeeds once":                       append(slices.Clone(up), done(0)),
		"a node does not begin in a run that fails":        append(slices.Clone(up), failing, queued(2)),
		"a node does not begin in a run that is aborted":   append(slices.Clone(up), terminated, queued(2)),
		"no more task nodes run than may":                  append(slices.Clone(a), queued(5), byEngine(5, 0), queued(4), running(4), opened(4), done(7), queued(9)),
		"a failure node does not begin in a run that runs": append(slices.Clone(up), queued(6)),
		"a node runs after it was queued":                  append(slices.Clone(up), running(2)),
		"a node begins to run once":                        append(slices.Clone(a), running(2), running(2)),
		"a task does not succeed without an attempt":       append(slices.Clone(up), queued(2), done(2)),
		"a task does not succeed while it runs":            append(slices.Clone(a), done(2)),
		"a task does not succeed by a failure":             append(slices.Clone(a), bad(2, 0), done(2)),
		"a task does not fail by a success":                append(slices.Clone(a), good(2, 0), nodeFailed(at, 2, problem)),
		"a node succeeds once":                             append(slices.Clone(a), good(2, 0), done(2), done(2)),
		"a failed node has an error":                       append(slices.Clone(up), nodeFailed(at, 2, nil)),
		"a failed node stays failed":                       append(slices.Clone(a), bad(2, 0), nodeFailed(at, 2, problem), done(2)),
		"a node fails once":                                append(slices.Clone(a), bad(2, 0), nodeFailed(at, 2, problem), nodeFailed(at, 2, problem)),
		"a node is not skipped for nothing":                append(slices.Clone(up), nodeSkipped(at, 2)),
		"a node is not aborted in a run that runs":         append(slices.Clone(a), bad(2, 0), nodeAborted(at, 2, "")),
		"a node is not aborted while it runs":              append(slices.Clone(a), failing, nodeAborted(at, 2, "")),
		"a node that has not begun is not aborted":         append(slices.Clone(up), failing, nodeAborted(at, 2, "")),
		"a scope is opened by a node that runs":            append(slices.Clone(up), queued(4), opened(4)),
		"a scope is opened once":                           append(slices.Clone(s), opened(4)),
		"a task has no scope":                              append(slices.Clone(a), running(2), opened(2)),
		"a scope that was not opened does not fail":        append(slices.Clone(up), scopeFailing(4)),
		"a scope fails once":                               append(slices.Clone(s), scopeFailing(4), scopeFailing(4)),
		"a sub-workflow does not succeed before its end":   append(slices.Clone(s), done(4)),
		"a sub-workflow does not fail before it rests":     append(slices.Clone(s), nodeFailed(at, 4, problem)),
		"an attempt belongs to a node that has begun":      append(slices.Clone(up), scheduled(2, 0)),
		"attempts follow each other":                       append(slices.Clone(a), scheduled(2, 1)),
		"attempts are numbered without holes":              append(slices.Clone(a), bad(2, 0), scheduled(2, 2)),
		"no attempt follows a success":                     append(slices.Clone(a), good(2, 0), scheduled(2, 1)),
		"no attempt follows in a run that fails":           append(slices.Clone(a), failing, bad(2, 0), scheduled(2, 1)),
		"an executor's task is not run by the engine":      append(slices.Clone(up), queued(2), byEngine(2, 0)),
		"the engine's task is not run by an executor":      append(slices.Clone(up), queued(5), scheduled(5, 0)),
		"a token follows from the seed":                    append(slices.Clone(up), queued(2), forged),
		"an attempt begins to run once":                    append(slices.Clone(a), attemptRunning(2, 0), attemptRunning(2, 0)),
		"an attempt exists":                                append(slices.Clone(a), attemptRunning(2, 1)),
		"an attempt is not stopped in a run that runs":     append(slices.Clone(a), stop(2, 0, "why not")),
		"a stop has a reason":                              append(slices.Clone(a), terminated, stop(2, 0, "")),
		"a stop is requested once":                         append(slices.Clone(a), terminated, stop(2, 0, "x"), stop(2, 0, "x")),
		"an attempt ends with a result":                    append(slices.Clone(a), &resultless.event),
		"an attempt ends once":                             append(slices.Clone(a), bad(2, 0), bad(2, 0)),
		"a digest is a digest":                             append(slices.Clone(a), &strange.event),
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			state := New(testID, g)
			for i, e := range journal {
				err := state.Apply(e)
				if last := i == len(journal)-1; (err != nil) != last {
					t.Fatalf("event %d of %d (%s): %v", i+1, len(journal), describe(e), err)
				}
			}
		})
	}
}

func TestAFoldNamesTheEntryThatItRefuses(t *testing.T) {
	t.Parallel()
	g := mustGraph(t, flow{name: "main"})
	_, err := Fold(testID, g, []*aloftv1.JournalEntry{{}, {Events: []*aloftv1.Event{nodeQueued(1, 7, nil, nil)}}})
	if err == nil || !strings.Contains(err.Error(), "entry 2") || !strings.Contains(err.Error(), "node_queued to node number 7") {
		t.Fatalf("got %v", err)
	}
}

func TestChangesHaveEachRecordOnce(t *testing.T) {
	t.Parallel()
	r := newRun(t, mustGraph(t, flow{name: "main", nodes: []flowNode{{id: "a", run: "echo"}, {id: "s", run: "inner"}}},
		flow{name: "inner", nodes: []flowNode{{id: "x", retries: 1}}}))
	d := r.step(epoch, 0, create(0))
	nodes, execution := Changes(d.Events)
	ended := d.Events[slices.IndexFunc(d.Events, func(e *aloftv1.Event) bool { return e.GetAttemptEnded() != nil })].GetAttemptEnded()
	inputs := r.s.Node(0).Outputs
	want := []Change{
		{Node: 0, Outputs: inputs},
		{Node: 2, Inputs: r.s.Node(2).Inputs, Outputs: r.s.Node(2).Outputs, Attempts: []AttemptChange{{Ended: ended}}},
		{Node: 3, Inputs: r.s.Node(3).Inputs},
		{Node: 4, Outputs: r.s.Node(3).Inputs},
		{Node: 6, Inputs: r.s.Node(6).Inputs, Attempts: []AttemptChange{{}}},
	}
	if diff := cmp.Diff(want, nodes, protocmp.Transform()); diff != "" || !execution {
		t.Errorf("after create, execution %t (-want +got):\n%s", execution, diff)
	}
	x := r.s.Ref(6)
	again := &aloftv1.Outcome{Node: string(x.ID()), Token: r.s.token(6, 0), Result: &aloftv1.Outcome_Lost{Lost: "gone"}}
	d = r.step(epoch, 0, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: again}})
	nodes, execution = Changes(d.Events)
	want = []Change{{Node: 6, Attempts: []AttemptChange{{Ended: d.Events[0].GetAttemptEnded()}, {Attempt: 1}}}}
	if diff := cmp.Diff(want, nodes, protocmp.Transform()); diff != "" || execution {
		t.Errorf("after a lost attempt, execution %t (-want +got):\n%s", execution, diff)
	}
}

func TestRecordsAnswerWhatTheStoreKeeps(t *testing.T) {
	t.Parallel()
	c := closure(flow{name: "main", nodes: []flowNode{{id: "s", run: "inner"}}}, flow{name: "inner", nodes: []flowNode{{id: "x"}}})
	g, err := NewGraph(c)
	if err != nil {
		t.Fatal(err)
	}
	r := newRun(t, g)
	r.step(epoch, 0, create(0))
	v := r.s.Execution()
	if v.ID != testID || v.Phase != core.WorkflowExecution_RUNNING || !v.StartedAt.Equal(epoch) || v.Outstanding != 1 || !v.EndedAt.IsZero() {
		t.Errorf("execution after create: %+v", v)
	}
	at := r.s.Outstanding()[0]
	x := r.s.Node(at.Node)
	parent, _ := x.Parent()
	switch {
	case x.ID() != "s-0-x", x.SpecID() != "x", x.Name() != "x", x.RetryGroup() != "0", parent.ID() != "s", !parent.IsParent(), x.IsParent(),
		x.Target().GetName() != "python-task", parent.Target().GetName() != "inner", x.Task().GetType() != "python-task",
		x.Workflow().GetId().GetName() != "inner", x.Closure() != c, x.Template().GetId() != "x", parent.RetryGroup() != "",
		parent.Interface() != c.SubWorkflows[0].Template.Interface, x.Attempts != 1, x.Phase != core.NodeExecution_QUEUED:
		t.Errorf("node %+v", x)
	}
	if !proto.Equal(x.ScopeInputs(), parent.Inputs()) || !proto.Equal(parent.ScopeInputs(), r.s.Create().Inputs) {
		t.Error("the inputs of a scope are those of the node or execution that contains it")
	}
	objects := []*aloftv1.ObjectDigest{{Uri: "aloft://blob/raw/x", Digest: "sha256:0", Size: 1}}
	d := r.step(epoch.Add(time.Second), 0, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: &aloftv1.Outcome{
		Node: "s-0-x", Token: r.s.token(at.Node, 0), Result: succeeded("s-0-x"), DeckUri: "aloft://blob/deck",
		Objects: objects, Environment: "sha256:1", Usage: []byte("usage"),
	}}})
	a, ok := r.s.Attempt(at)
	if !ok || a.DeckURI != "aloft://blob/deck" || a.Phase != core.TaskExecution_SUCCEEDED || a.Token == "" || a.Spec.GetSpecNodeId() != "x" {
		t.Errorf("attempt %+v", a)
	}
	if n := r.s.Node(at.Node); n.DeckURI != a.DeckURI || !proto.Equal(n.Outputs, a.Outputs) || n.Outputs == nil {
		t.Errorf("node %+v", n)
	}
	if e := d.Events[0].GetAttemptEnded(); !proto.Equal(e.GetObjects()[0], objects[0]) || e.GetEnvironment() != "sha256:1" || string(e.GetUsage()) != "usage" {
		t.Errorf("the event does not carry digests, environment and usage: %v", e)
	}
	if _, ok := r.s.Attempt(AttemptRef{Node: at.Node, Attempt: 1}); ok {
		t.Error("found an attempt that does not exist")
	}
	if _, ok := r.s.Attempt(AttemptRef{Node: 99}); ok {
		t.Error("found an attempt of a node that does not exist")
	}
	if v := r.s.Execution(); v.Phase != core.WorkflowExecution_SUCCEEDED || v.Outputs == nil || !v.EndedAt.Equal(epoch.Add(time.Second)) {
		t.Errorf("execution at its end: %+v", v)
	}
}

func TestTokensDifferBetweenSeedsNodesAndAttempts(t *testing.T) {
	t.Parallel()
	g := mustGraph(t, flow{name: "main", nodes: []flowNode{{id: "a"}, {id: "b"}}})
	seen := map[string]bool{}
	for _, seed := range []string{"one", "two"} {
		m := create(0)
		m.GetCreate().Seed = seed
		r := newRun(t, g)
		r.step(epoch, 0, m)
		for _, node := range []uint32{2, 3} {
			for attempt := range uint32(2) {
				seen[r.s.token(node, attempt)] = true
			}
		}
	}
	if len(seen) != 8 {
		t.Errorf("8 attempts have %d tokens", len(seen))
	}
}

func TestAnExecutorsWrongDigestDoesNotStopTheRun(t *testing.T) {
	t.Parallel()
	r := newRun(t, mustGraph(t, flow{name: "main", nodes: []flowNode{{id: "a"}}}))
	r.step(epoch, 0, create(0))
	r.step(epoch, 0, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: &aloftv1.Outcome{
		Node: "a", Token: r.s.token(2, 0), Result: &aloftv1.Outcome_Outputs{Outputs: &aloftv1.Literals{Ref: &aloftv1.LiteralRef{Digest: []byte("?")}}},
	}}})
	if got, want := r.s.Outstanding(), []AttemptRef{{Node: 2, Attempt: 1}}; !slices.Equal(got, want) {
		t.Errorf("outstanding %v, want %v", got, want)
	}
}

func TestALongMessageLosesItsMiddle(t *testing.T) {
	t.Parallel()
	long := "head" + strings.Repeat("ö", maxErrorMessage) + "tail"
	got := cut(&core.ExecutionError{Code: "X", Message: long}).GetMessage()
	if len(got) > maxErrorMessage || !utf8.ValidString(got) || !strings.HasPrefix(got, "head") || !strings.HasSuffix(got, "tail") {
		t.Errorf("%d bytes, valid %t", len(got), utf8.ValidString(got))
	}
}

func TestTimersComeInOrder(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 2))
	var h timerHeap
	var want []timer
	for i := range uint32(1000) {
		x := timer{at: dice.Int64N(100), node: i}
		h.push(x)
		want = append(want, x)
	}
	slices.SortFunc(want, func(a, b timer) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for i, w := range want {
		if h[0] != w {
			t.Fatalf("timer %d is %v, want %v", i, h[0], w)
		}
		h.pop()
	}
}

func TestAQueueGivesBackWhatWasTaken(t *testing.T) {
	t.Parallel()
	var q queue
	next := uint32(0)
	for i := range uint32(100_000) {
		q.push(i)
		if i%100 < 99 && i > 500 { // a backlog of some hundreds
			if q.front() != next {
				t.Fatalf("got %d, want %d", q.front(), next)
			}
			next++
			q.pop()
		}
	}
	if len(q.items) > 10_000 {
		t.Errorf("the queue keeps %d items for %d", len(q.items), len(q.items)-q.taken)
	}
}

func TestUnsupportedNodesAreAllListed(t *testing.T) {
	t.Parallel()
	c := closure(flow{name: "main", nodes: []flowNode{{id: "a"}, {id: "b"}, {id: "c"}, {id: "d"}}})
	nodes := c.Primary.Template.Nodes
	nodes[3].Target = &core.Node_GateNode{GateNode: &core.GateNode{}}
	nodes[4].Target = &core.Node_ArrayNode{ArrayNode: &core.ArrayNode{}}
	nodes[5].Target = &core.Node_WorkflowNode{WorkflowNode: &core.WorkflowNode{Reference: &core.WorkflowNode_LaunchplanRef{LaunchplanRef: identifier(core.ResourceType_LAUNCH_PLAN, "lp")}}}
	_, err := NewGraph(c)
	if !errors.Is(err, aloft.ErrUnimplemented) || errors.Is(err, aloft.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"node b", "gate", "node c", "array", "node d", "launch plan lp"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}

func TestAClosureThatNoCompilerMakesIsRefused(t *testing.T) {
	t.Parallel()
	for claim, spoil := range map[string]func(*core.CompiledWorkflowClosure){
		"nothing at all": func(c *core.CompiledWorkflowClosure) { proto.Reset(c) },
		"no end-node":    func(c *core.CompiledWorkflowClosure) { c.Primary.Template.Nodes = c.Primary.Template.Nodes[:1] },
		"two nodes of one id": func(c *core.CompiledWorkflowClosure) {
			c.Primary.Template.Nodes = append(c.Primary.Template.Nodes, c.Primary.Template.Nodes[2])
		},
		"a task that is missing":  func(c *core.CompiledWorkflowClosure) { c.Tasks = nil },
		"a node without a target": func(c *core.CompiledWorkflowClosure) { c.Primary.Template.Nodes[2].Target = nil },
		"a start-node that waits": func(c *core.CompiledWorkflowClosure) { c.Primary.Template.Nodes[0].UpstreamNodeIds = []string{"a"} },
		"an end-node that is waited for": func(c *core.CompiledWorkflowClosure) {
			c.Primary.Template.Nodes[2].UpstreamNodeIds = []string{aloft.EndNode}
		},
		"a quantity that is none": func(c *core.CompiledWorkflowClosure) {
			c.Primary.Template.Nodes[2].GetTaskNode().Overrides = &core.TaskNodeOverrides{Resources: resources("cpu", "many", "", "")}
		},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			c := closure(flow{name: "main", nodes: []flowNode{{id: "a"}}})
			spoil(c)
			if _, err := NewGraph(c); !errors.Is(err, aloft.ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnEdgeHoldsWhoeverStatesIt(t *testing.T) {
	t.Parallel()
	promise := func(node string) *core.BindingData {
		return &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{NodeId: node, Var: "o0"}}}
	}
	for claim, state := range map[string]func(*core.CompiledWorkflow){
		"upstream ids": func(w *core.CompiledWorkflow) { w.Template.Nodes[3].UpstreamNodeIds = []string{"a"} },
		"connections down": func(w *core.CompiledWorkflow) {
			w.Connections.Downstream = map[string]*core.ConnectionSet_IdList{"a": {Ids: []string{"b"}}}
		},
		"a promise": func(w *core.CompiledWorkflow) {
			w.Template.Nodes[3].Inputs = []*core.Binding{{Var: "x", Binding: promise("a")}, {Var: "y", Binding: promise("")}}
		},
		"a promise inside a list inside a map": func(w *core.CompiledWorkflow) {
			list := &core.BindingData{Value: &core.BindingData_Collection{Collection: &core.BindingDataCollection{Bindings: []*core.BindingData{promise("a")}}}}
			w.Template.Nodes[3].Inputs = []*core.Binding{{Var: "x", Binding: &core.BindingData{Value: &core.BindingData_Map{
				Map: &core.BindingDataMap{Bindings: map[string]*core.BindingData{"k": list}},
			}}}}
		},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			c := closure(flow{name: "main", nodes: []flowNode{{id: "a"}, {id: "b"}}})
			state(c.Primary)
			g, err := NewGraph(c)
			if err != nil {
				t.Fatal(err)
			}
			r := newRun(t, g)
			r.step(epoch, 0, create(0))
			if got := r.s.Outstanding(); !slices.Equal(got, []AttemptRef{{Node: 2}}) {
				t.Errorf("begun: %v, want a alone", got)
			}
		})
	}
}

func resources(requestName, request, limitName, limit string) *core.Resources {
	r := &core.Resources{}
	name := func(n string) core.Resources_ResourceName {
		return core.Resources_ResourceName(core.Resources_ResourceName_value[strings.ToUpper(n)])
	}
	if request != "" {
		r.Requests = append(r.Requests, &core.Resources_ResourceEntry{Name: name(requestName), Value: request})
	}
	if limit != "" {
		r.Limits = append(r.Limits, &core.Resources_ResourceEntry{Name: name(limitName), Value: limit})
	}
	return r
}

func TestNodeAndTaskAgreeOnResources(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		claim      string
		task, node *core.Resources
		want       demand
	}{
		{"nothing stated is nothing asked", nil, nil, demand{}},
		{"the task's", resources("cpu", "500m", "memory", "1Gi"), nil, demand{milliCPU: 500, memory: 1 << 30, memoryLimit: 1 << 30}},
		{"a request alone sets no limit", resources("memory", "1Gi", "", ""), nil, demand{memory: 1 << 30}},
		{"the node's wins", resources("memory", "1Gi", "memory", "2Gi"), resources("memory", "1500Mi", "", ""), demand{memory: 1500 << 20, memoryLimit: 2 << 30}},
		{"a request is capped by the task's limit", resources("memory", "1Gi", "memory", "2Gi"), resources("memory", "5Gi", "", ""), demand{memory: 2 << 30, memoryLimit: 2 << 30}},
		{"resources are merged one by one", resources("cpu", "2", "", ""), resources("gpu", "1", "memory", "64M"), demand{milliCPU: 2000, gpu: 1, memory: 64e6, memoryLimit: 64e6}},
		{"parts of a unit are rounded up", resources("cpu", "0.1m", "memory", "0.5"), nil, demand{milliCPU: 1, memory: 1, memoryLimit: 1}},
	} {
		got, err := demandOf(c.task, c.node)
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.claim, got, err, c.want)
		}
	}
}

func TestQuantitiesAreThoseOfKubernetes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{ // in thousandths
		"0": 0, "1": 1000, "500m": 500, "1.5": 1500, ".5": 500, "5.": 5000, "+2": 2000, "2k": 2e6, "1Ki": 1024e3, "1.5Gi": 1.5 * (1 << 30) * 1000,
		"2e3": 2e6, "2E3": 2e6, "2E": 9223372036854775807, "1500e-3": 1500, "100u": 1, "1n": 1, "3M": 3e9, "1Ti": (1 << 40) * 1000,
	} {
		v, err := quantity(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := ceil(v, 1000); got != want {
			t.Errorf("%q is %d thousandths, want %d", text, got, want)
		}
	}
	for _, text := range []string{"", " ", "m", "-1", "1 Gi", "1g", "1KiB", "1e", "1e999999999", "1/3", "0x10", "1_000", "1.2.3", "1+1", "NaN", "Inf", strings.Repeat("9", 1000)} {
		if v, err := quantity(text); err == nil {
			t.Errorf("%q is taken for %v", text, v)
		}
	}
}

func TestANodesOwnRetriesAndInterruptibleWin(t *testing.T) {
	t.Parallel()
	c := closure(flow{name: "main", nodes: []flowNode{{id: "a", retries: 2}, {id: "b"}, {id: "c", interruptible: true}}})
	c.Tasks[0].Template.Metadata = &core.TaskMetadata{Retries: &core.RetryStrategy{Retries: 5}}
	c.Primary.Template.Nodes[3].Metadata.InterruptibleValue = &core.NodeMetadata_Interruptible{Interruptible: false}
	c.Primary.Template.MetadataDefaults = &core.WorkflowMetadataDefaults{Interruptible: true}
	g, err := NewGraph(c)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := g.root.nodes[2].maxAttempts, g.root.nodes[3].maxAttempts; a != 3 || b != 6 {
		t.Errorf("attempts %d and %d, want 3 (the node's) and 6 (the task's)", a, b)
	}
	r := newRun(t, g)
	r.step(epoch, 0, create(0))
	var got []bool
	for _, at := range r.s.Outstanding() {
		a, _ := r.s.Attempt(at)
		got = append(got, a.Spec.Interruptible)
	}
	if want := []bool{true, false, true}; !slices.Equal(got, want) {
		t.Errorf("interruptible %v, want %v: from the workflow, the node's no, the node's yes", got, want)
	}
	a, _ := r.s.Attempt(AttemptRef{Node: 2})
	want := &aloftv1.AttemptSpec{
		Task: identifier(core.ResourceType_TASK, "python-task"), TaskType: "python-task", SpecNodeId: "a", NodeName: "a",
		Workflow: identifier(core.ResourceType_WORKFLOW, "main"), Interruptible: true,
	}
	if diff := cmp.Diff(want, a.Spec, protocmp.Transform()); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func TestWhatIsNextInLineIsToldAndChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRun(t, mustGraph(t, flow{name: "main", nodes: []flowNode{{id: "a"}, {id: "b"}, {id: "c"}, {id: "d", after: []string{"a"}}}}))
	next := func(n int) (names []string) {
		for node := range r.s.Next(n) {
			names = append(names, node.SpecID())
		}
		return names
	}
	r.step(epoch, 0, create(1)) // there is room for one: a has begun
	for n, want := range [][]string{nil, {"b"}, {"b", "c"}, {"b", "c"}} {
		if got := next(n); !slices.Equal(got, want) {
			t.Errorf("the next %d in line: %v, want %v", n, got, want)
		}
	}
	r.checkFold()
	r.step(epoch, 0, terminate("enough"))
	if got := next(9); len(got) > 0 {
		t.Errorf("in line although nothing may begin: %v", got)
	}
}

func TestANodeMayAskForOtherGPUsThanItsTask(t *testing.T) {
	t.Parallel()
	asks := func(gpu string) *core.Resources {
		all := []*core.Resources_ResourceEntry{{Name: core.Resources_GPU, Value: gpu}}
		return &core.Resources{Requests: all, Limits: all}
	}
	task := &core.TaskTemplate{Target: &core.TaskTemplate_Container{Container: &core.Container{Resources: asks("2")}}}
	for _, c := range []struct {
		node *core.TaskNode
		want int64
	}{
		{nil, 2}, {&core.TaskNode{}, 2},
		{&core.TaskNode{Overrides: &core.TaskNodeOverrides{Resources: asks("0")}}, 0},
		{&core.TaskNode{Overrides: &core.TaskNodeOverrides{Resources: asks("4")}}, 4},
	} {
		if got, err := GPUs(task, c.node); err != nil || got != c.want {
			t.Errorf("%v: %d, %v, want %d", c.node, got, err, c.want)
		}
	}
}
