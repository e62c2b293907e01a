package machine

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

var testID = aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: "story"}

// flow is a workflow as tests write it down.
type flow struct {
	name    string
	goOn    bool // FAIL_AFTER_EXECUTABLE_NODES_COMPLETE
	nodes   []flowNode
	failure *flowNode
}

type flowNode struct {
	id            string
	run           string      // "task", "sleep", "echo", "branch", or the name of a flow
	arms          []*flowNode // of a branch: if, elif …, else
	elseFails     bool        // of a branch: its last arm is no else
	after         []string
	retries       uint32
	timeout       time.Duration
	memory        string // of the task's limit, stated by the node
	interruptible bool
	cached        bool
}

func identifier(t core.ResourceType, name string) *core.Identifier {
	return &core.Identifier{ResourceType: t, Project: testID.Project, Domain: testID.Domain, Name: name, Version: "v1"}
}

// closure compiles flows by hand; the first is the primary one. Edges are stated in connections alone.
func closure(flows ...flow) *core.CompiledWorkflowClosure {
	c := &core.CompiledWorkflowClosure{}
	for _, t := range []string{"python-task", TaskSleep, TaskEcho} {
		c.Tasks = append(c.Tasks, &core.CompiledTask{Template: &core.TaskTemplate{Id: identifier(core.ResourceType_TASK, t), Type: t}})
	}
	for i, f := range flows {
		w := &core.CompiledWorkflow{
			Template: &core.WorkflowTemplate{
				Id:       identifier(core.ResourceType_WORKFLOW, f.name),
				Nodes:    []*core.Node{{Id: aloft.StartNode}, {Id: aloft.EndNode}},
				Metadata: &core.WorkflowMetadata{},
			},
			Connections: &core.ConnectionSet{Upstream: map[string]*core.ConnectionSet_IdList{}},
		}
		if f.goOn {
			w.Template.Metadata.OnFailure = core.WorkflowMetadata_FAIL_AFTER_EXECUTABLE_NODES_COMPLETE
		}
		for _, n := range f.nodes {
			w.Template.Nodes = append(w.Template.Nodes, n.proto())
			n.connect(w.Connections)
		}
		if f.failure != nil {
			w.Template.FailureNode = f.failure.proto()
		}
		if i == 0 {
			c.Primary = w
		} else {
			c.SubWorkflows = append(c.SubWorkflows, w)
		}
	}
	return c
}

func (n flowNode) connect(c *core.ConnectionSet) {
	c.Upstream[n.id] = &core.ConnectionSet_IdList{Ids: n.after}
	for _, arm := range n.arms {
		arm.connect(c)
	}
}

func (n flowNode) branch() *core.Node_BranchNode {
	block := &core.IfElseBlock{}
	for i, arm := range n.arms {
		then := &core.IfBlock{ThenNode: arm.proto()}
		switch {
		case i == 0:
			block.Case = then
		case i == len(n.arms)-1 && !n.elseFails:
			block.Default = &core.IfElseBlock_ElseNode{ElseNode: then.ThenNode}
		default:
			block.Other = append(block.Other, then)
		}
	}
	if n.elseFails {
		block.Default = &core.IfElseBlock_Error{Error: &core.Error{Message: "no arm"}}
	}
	return &core.Node_BranchNode{BranchNode: &core.BranchNode{IfElse: block}}
}

func (n flowNode) proto() *core.Node {
	p := &core.Node{Id: n.id, Metadata: &core.NodeMetadata{Name: n.id}}
	if n.retries > 0 {
		p.Metadata.Retries = &core.RetryStrategy{Retries: n.retries}
	}
	if n.timeout > 0 {
		p.Metadata.Timeout = durationpb.New(n.timeout)
	}
	if n.cached {
		p.Metadata.CacheableValue = &core.NodeMetadata_Cacheable{Cacheable: true}
	}
	if n.interruptible {
		p.Metadata.InterruptibleValue = &core.NodeMetadata_Interruptible{Interruptible: true}
	}
	if n.run == "branch" {
		p.Target = n.branch()
		return p
	}
	task, isTask := map[string]string{"": "python-task", "task": "python-task", "sleep": TaskSleep, "echo": TaskEcho}[n.run]
	if isTask {
		p.Target = &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{
			ReferenceId: identifier(core.ResourceType_TASK, task),
		}}}
		if n.memory != "" {
			p.GetTaskNode().Overrides = &core.TaskNodeOverrides{Resources: &core.Resources{
				Limits: []*core.Resources_ResourceEntry{{Name: core.Resources_MEMORY, Value: n.memory}},
			}}
		}
	} else {
		p.Target = &core.Node_WorkflowNode{WorkflowNode: &core.WorkflowNode{Reference: &core.WorkflowNode_SubWorkflowRef{
			SubWorkflowRef: identifier(core.ResourceType_WORKFLOW, n.run),
		}}}
	}
	return p
}

func mustGraph(t testing.TB, flows ...flow) *Graph {
	t.Helper()
	g, err := NewGraph(closure(flows...))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// facts are answers by the id of a node in its template.
type facts struct {
	t       tester
	sleep   map[string]time.Duration
	fails   map[string]*aloftv1.Failure // inputs, or the run of what the machine runs itself when the key ends in "!"
	missing map[string]bool             // cannot be had now
	arms    map[string]uint32           // that branches take; 0 where nothing is said
	policy  Policy

	// By unique id. What is not here is a miss, or was not finished.
	cache     map[aloft.NodeID]CacheAnswer
	recovered map[aloft.NodeID]Recovery

	// Of random worlds, instead.
	answer func(NodeRef) CacheAnswer
	source func(NodeRef) Recovery
}

func literals(of string) *aloftv1.LiteralRef {
	d := sha256.Sum256([]byte(of))
	return &aloftv1.LiteralRef{Digest: d[:], Size: int64(len(of))}
}

func (f *facts) Inputs(n NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error) {
	if f.missing[n.SpecID()] {
		return nil, nil, errors.New("the blob store is away")
	}
	if failure := f.fails[n.SpecID()]; failure != nil {
		return nil, failure, nil
	}
	if h := n.Handles(); h != nil {
		return literals("err " + h.GetMessage()), nil, nil
	}
	return literals("inputs of " + string(n.ID())), nil, nil
}

func (f *facts) Echo(n NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error) {
	if n.Inputs() == nil {
		f.t.Errorf("node %s echoes before it has inputs", n.ID())
	}
	return n.Inputs(), f.fails[n.SpecID()+"!"], nil
}

func (f *facts) Arm(n NodeRef) (uint32, *aloftv1.Failure, error) {
	if n.Inputs() == nil {
		f.t.Errorf("node %s takes an arm before it has inputs", n.ID())
	}
	if f.missing[n.SpecID()+"?"] {
		return 0, nil, errors.New("the store is away")
	}
	return f.arms[n.SpecID()], f.fails[n.SpecID()+"!"], nil
}

func (f *facts) Cached(n NodeRef, inputs *aloftv1.LiteralRef) (CacheAnswer, error) {
	if f.missing[n.SpecID()] {
		return CacheAnswer{}, errors.New("the catalog is away")
	}
	if f.answer != nil {
		return f.answer(n), nil
	}
	if c, ok := f.cache[n.ID()]; ok {
		return c, nil
	}
	return lookup(core.CatalogCacheStatus_CACHE_MISS), nil
}

func lookup(status core.CatalogCacheStatus) CacheAnswer {
	return CacheAnswer{Lookup: &aloftv1.CacheLookup{Status: status}}
}

func (f *facts) Recovered(n NodeRef) (Recovery, error) {
	if f.missing[n.SpecID()] {
		return Recovery{}, errors.New("the store is away")
	}
	if f.source != nil {
		return f.source(n), nil
	}
	return f.recovered[n.ID()], nil
}

func (f *facts) Policy() *Policy { return &f.policy }

func (f *facts) Duration(n NodeRef) (time.Duration, *aloftv1.Failure, error) {
	if n.Inputs() == nil {
		f.t.Errorf("node %s sleeps before it has inputs", n.ID())
	}
	return f.sleep[n.SpecID()], f.fails[n.SpecID()+"!"], nil
}

// stateDiff compares states field by field, graphs by identity.
func stateDiff(want, got *State) string {
	return cmp.Diff(want, got,
		cmp.AllowUnexported(State{}, scope{}, node{}, attempt{}, ref{}, queue{}, timer{}, wait{}, outage{}, overdue{}, block{}),
		cmp.Comparer(func(a, b *Graph) bool { return a == b }),
		cmp.Comparer(func(a, b *body) bool { return a == b }),
		protocmp.Transform())
}

// run drives one execution as the engine does: each decision is applied, recorded, and folded again from its bytes.
type run struct {
	t       tester
	g       *Graph
	s       *State
	facts   *facts
	journal []*aloftv1.JournalEntry
	at      int64

	before, until time.Time // of deadlines that are kept back
	lean          bool      // blocks are given back after each step and after each entry that is folded
}

func newRun(t testing.TB, g *Graph) *run {
	return &run{t: t, g: g, s: New(testID, g), facts: &facts{t: t}}
}

func (r *run) step(now time.Time, limit int, messages ...*aloftv1.Inbox) Decision {
	r.t.Helper()
	d, err := r.try(now, limit, messages...)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *run) try(now time.Time, limit int, messages ...*aloftv1.Inbox) (Decision, error) {
	r.t.Helper()
	d, err := r.s.Step(messages, now, r.facts, limit)
	if err != nil {
		r.s = r.fold()
		return d, err
	}
	for _, e := range d.Events {
		if e.At < r.at {
			r.t.Fatalf("%s is at %d, after one at %d", describe(e), e.At, r.at)
		}
		r.at = e.At
	}
	if len(d.Events) > 0 {
		data, err := proto.Marshal(&aloftv1.JournalEntry{Events: d.Events})
		if err != nil {
			r.t.Fatal(err)
		}
		entry := &aloftv1.JournalEntry{}
		if err := proto.Unmarshal(data, entry); err != nil {
			r.t.Fatal(err)
		}
		r.journal = append(r.journal, entry)
	}
	if err := r.s.Check(); err != nil {
		r.t.Fatalf("after %d events: %v", len(d.Events), err)
	}
	if r.lean {
		r.s.GiveBack()
		if err := r.s.Check(); err != nil {
			r.t.Fatalf("after blocks were given back: %v", err)
		}
	}
	return d, nil
}

func (r *run) fold() *State {
	r.t.Helper()
	s := New(testID, r.g)
	for i, entry := range r.journal {
		if err := s.Fold(int64(i+1), entry); err != nil {
			r.t.Fatal(err)
		}
		if r.lean {
			s.GiveBack()
		}
	}
	return s
}

// restart goes on with a fold, as an engine does that takes the execution at a time.
func (r *run) restart(at, until time.Time) {
	r.s, r.before, r.until = r.fold(), at, until
	r.s.KeepBack(at, until)
}

func (r *run) checkFold() {
	r.t.Helper()
	folded := r.fold()
	if r.s.overdue.until != 0 {
		folded.KeepBack(r.before, r.until)
	}
	if diff := stateDiff(r.s, folded); diff != "" {
		r.t.Fatalf("a fold of the journal differs from the live state (-live +folded):\n%s", diff)
	}
}

func create(parallelism uint32) *aloftv1.Inbox {
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{
		Workflow: identifier(core.ResourceType_WORKFLOW, "main"), Inputs: literals("inputs"), MaxParallelism: parallelism, Seed: "seed",
	}}}
}

func terminate(cause string) *aloftv1.Inbox {
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{Cause: cause, Principal: "ada"}}}
}

func failure(kind core.ExecutionError_ErrorKind, recoverable bool, code, message string) *aloftv1.Failure {
	return &aloftv1.Failure{Error: &core.ExecutionError{Kind: kind, Code: code, Message: message}, Recoverable: recoverable}
}

func succeeded(id aloft.NodeID) *aloftv1.Outcome_Outputs {
	return &aloftv1.Outcome_Outputs{Outputs: &aloftv1.Literals{Ref: literals("outputs of " + string(id))}}
}

// phases lists the final phase of every node that has a record.
func phases(s *State) string {
	var b strings.Builder
	for n := range s.Nodes() {
		fmt.Fprintf(&b, "%s %s %d\n", n.ID(), n.Phase, n.Attempts)
	}
	return b.String()
}
