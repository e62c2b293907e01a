package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// plan is what clients ask for in a world: the same with and without faults.
type plan struct {
	cachedOfFive int                             // how many of five tasks are cached
	closures     []*core.CompiledWorkflowClosure // versions of workflows: the first is registered before anything else
	executions   []plannedExecution
	policy       machine.Policy
}

type plannedExecution struct {
	name           string
	workflow       int
	input          string
	maxParallelism uint32
	interruptible  bool
	terminated     bool // a client may terminate it
	newer          bool // its journal is of a later release, which shares the store
	overwrites     bool // results that other executions have computed

	recovers string // the execution that this one recovers; empty: none
	chain    int    // how many executions there are before it, each of which recovers the one before
	fixed    bool   // of what made that one fail, all is mended; else about half
}

// What the tasks of executors do, by the name of their task.
const (
	runOK           = "run-ok"
	runFlakyUser    = "run-flaky-user"   // fails once, recoverably
	runFlakySystem  = "run-flaky-system" // fails once, recoverably, by no fault of the user's
	runFail         = "run-fail"
	runHang         = "run-hang"          // never ends, the first time
	runFailRetrying = "run-fail-retrying" // recoverable each time, until the budget is spent
	runHungry       = "run-hungry"        // dies for want of memory below hungryNeeds
	runResume       = "run-resume"        // fails twice, recoverably, and goes on from its checkpoint
	runFile         = "run-file"          // writes a file, too
)

var behaviours = []string{
	runOK, runOK, runOK, runOK, runFlakyUser, runFlakySystem, runFail, runFailRetrying, runHang, runHungry, runResume, runFile,
}

// Names of cached tasks begin with one of these, and go on with what the task does. Of a serialTask one node at a time computes
// a result (cache_serialize).
const (
	cachedTask = "cached-"
	serialTask = "serial-"
)

var cachedBehaviours = []string{runOK, runFile, runFile, runFile, runFlakyUser, runFlakySystem, runFail, runHang}

// behaviourOf is what a task does, whether or not it is cached.
func behaviourOf(task string) string {
	return strings.TrimPrefix(strings.TrimPrefix(task, cachedTask), serialTask)
}

func isCached(task string) bool { return behaviourOf(task) != task }

// cacheVersion is the cache version of tasks: every second version of a workflow has the same.
func cacheVersion(version string) string {
	return []string{"even", "odd"}[(version[len(version)-1]-'0')%2]
}

// salt is what the outputs of a task depend on beside its inputs.
func salt(task, version string) string {
	if isCached(task) {
		return task + " " + cacheVersion(version)
	}
	return version
}

// hungryNeeds is the memory, in bytes, that hungry tasks need: twice what they ask for.
const hungryNeeds = 2 << 30

// longText is the length of a text that makes its literal map an object instead of a part of a row.
const longText = aloft.MaxInlineLiterals + 1

// hangTimeout is the timeout of tasks that hang: longer than any executor is silent, so that no attempt that does not hang runs
// into it.
const hangTimeout = 3 * time.Minute

func identifier(kind core.ResourceType, name, version string) *core.Identifier {
	return &core.Identifier{ResourceType: kind, Project: "flytesnacks", Domain: "development", Name: name, Version: version}
}

func variable(names ...string) *core.VariableMap {
	m := &core.VariableMap{Variables: map[string]*core.Variable{}}
	for _, n := range names {
		m.Variables[n] = &core.Variable{Type: &core.LiteralType{Type: &core.LiteralType_Simple{Simple: core.SimpleType_STRING}}}
	}
	return m
}

func tasks(version string) (all []*core.CompiledTask) {
	add := func(name, kind string, inputs, outputs *core.VariableMap) {
		t := &core.TaskTemplate{
			Id: identifier(core.ResourceType_TASK, name, version), Type: kind, Metadata: &core.TaskMetadata{},
			Interface: &core.TypedInterface{Inputs: inputs, Outputs: outputs},
		}
		if isCached(name) {
			t.Metadata.Discoverable, t.Metadata.DiscoveryVersion = true, cacheVersion(version)
			t.Metadata.CacheSerializable = strings.HasPrefix(name, serialTask)
		}
		if behaviourOf(name) == runFile {
			t.Interface.Outputs = proto.CloneOf(outputs)
			t.Interface.Outputs.Variables["file"] = &core.Variable{Type: &core.LiteralType{Type: &core.LiteralType_Blob{Blob: &core.BlobType{}}}}
		}
		if name == runHungry {
			t.Target = &core.TaskTemplate_Container{Container: &core.Container{Resources: &core.Resources{
				Requests: []*core.Resources_ResourceEntry{{Name: core.Resources_MEMORY, Value: "1Gi"}},
			}}}
		}
		all = append(all, &core.CompiledTask{Template: t})
	}
	add("sleep", machine.TaskSleep, &core.VariableMap{Variables: map[string]*core.Variable{
		"duration": {Type: &core.LiteralType{Type: &core.LiteralType_Simple{Simple: core.SimpleType_DURATION}}},
	}}, nil)
	add("echo", machine.TaskEcho, variable("x"), variable("o0"))
	for _, name := range slices.Compact(slices.Clone(behaviours)) {
		add(name, "python-task", variable("x"), variable("o0"))
	}
	for _, name := range slices.Compact(slices.Clone(cachedBehaviours)) {
		add(cachedTask+name, "python-task", variable("x"), variable("o0"))
		add(serialTask+name, "python-task", variable("x"), variable("o0"))
	}
	return all
}

func newPlan(seed uint64) *plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := &plan{cachedOfFive: []int{1, 1, 4}[r.IntN(3)]}
	heavy := r.IntN(3) == 0 // literals that are objects
	for i := range 1 + r.IntN(3) {
		// Versions of one workflow, or of two.
		p.closures = append(p.closures, p.newClosure(r, heavy, fmt.Sprintf("w%d", r.IntN(2)), fmt.Sprintf("v%d", i)))
	}
	if _, permanent := permanentSeeds[seed]; !permanent {
		// With random numbers of their own: the worlds of seeds that have found something before stay as they were.
		branching := rand.New(rand.NewPCG(seed, 7))
		for _, c := range p.closures {
			if branching.IntN(2) == 0 {
				addBranches(branching, c)
			}
		}
	}
	n := 1 + r.IntN(5)
	if p.cachedOfFive > 1 {
		n += 2
	}
	for i := range n {
		p.executions = append(p.executions, plannedExecution{
			name: fmt.Sprintf("e%d", i), workflow: r.IntN(len(p.closures)), input: randomText(r, heavy),
			maxParallelism: uint32(r.IntN(4)), interruptible: r.IntN(4) == 0, terminated: r.IntN(6) == 0, newer: r.IntN(20) == 0,
			overwrites: r.IntN(8) == 0,
		})
	}
	if r.IntN(2) == 0 {
		p.policy.Retries = append(p.policy.Retries, aloft.RetryPolicy{Error: machine.CodeOutOfMemory, Memory: 1.5, MaxMemory: 4 << 30})
	}
	if r.IntN(2) == 0 {
		p.policy.Retries = append(p.policy.Retries, aloft.RetryPolicy{
			Task: "run-flaky-*", Backoff: time.Second, Factor: 2, Max: time.Minute, Jitter: r.Float64(),
		})
	}
	if r.IntN(6) == 0 {
		p.policy.QueueTimeout = 2 * time.Minute
	}
	if r.IntN(6) == 0 {
		p.policy.ExecutionTimeout = time.Duration(1+r.IntN(10)) * time.Minute
	}
	return p
}

// randomText is short or, in a heavy plan now and then, longer than longText.
func randomText(r *rand.Rand, heavy bool) string {
	b := make([]byte, 1+r.IntN(8)+r.IntN(2)*60)
	for i := range b {
		b[i] = byte('a' + r.IntN(26))
	}
	if heavy && r.IntN(2) == 0 {
		return string(b) + strings.Repeat("i", longText)
	}
	return string(b)
}

func (p *plan) newClosure(r *rand.Rand, heavy bool, name, version string) *core.CompiledWorkflowClosure {
	c := &core.CompiledWorkflowClosure{Tasks: tasks(version)}
	failing := r.IntN(3) == 0 // most workflows succeed if nothing goes wrong
	var subs []string
	for i := range r.IntN(3) {
		sub := fmt.Sprintf("%s-sub%d", name, i)
		c.SubWorkflows = append(c.SubWorkflows, p.newWorkflow(r, heavy, sub, version, subs, failing)) // a later one may contain the earlier ones
		subs = append(subs, sub)
	}
	c.Primary = p.newWorkflow(r, heavy, name, version, subs, failing)
	return c
}

// newWorkflow makes a workflow with one input x and one output o0.
func (p *plan) newWorkflow(r *rand.Rand, heavy bool, name, version string, subs []string, failing bool) *core.CompiledWorkflow {
	t := &core.WorkflowTemplate{
		Id: identifier(core.ResourceType_WORKFLOW, name, version), Metadata: &core.WorkflowMetadata{}, MetadataDefaults: &core.WorkflowMetadataDefaults{},
		Interface: &core.TypedInterface{Inputs: variable("x"), Outputs: variable("o0")},
	}
	if r.IntN(2) == 0 {
		t.Metadata.OnFailure = core.WorkflowMetadata_FAIL_AFTER_EXECUTABLE_NODES_COMPLETE
	}
	nodes := []*core.Node{{Id: aloft.StartNode, Metadata: &core.NodeMetadata{}}}
	var producers []string // nodes with an output
	source := func() *core.BindingData {
		if i := r.IntN(len(producers) + 1); i < len(producers) {
			return promise(producers[i], "o0")
		}
		if r.IntN(2) == 0 {
			return promise(aloft.StartNode, "x")
		}
		return scalar(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: randomText(r, heavy)}})
	}
	// Most cached tasks have one of a few inputs.
	few := func() *core.BindingData {
		value := string('a' + rune(r.IntN(2)))
		if heavy && r.IntN(2) == 0 {
			value += strings.Repeat("i", longText)
		}
		if r.IntN(5) < 4 {
			return scalar(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: value}})
		}
		return source()
	}
	for i := range 1 + r.IntN(6) {
		n := &core.Node{Id: fmt.Sprintf("n%d", i), Metadata: &core.NodeMetadata{}}
		if r.IntN(3) == 0 && i > 0 {
			n.UpstreamNodeIds = []string{fmt.Sprintf("n%d", r.IntN(i))}
		}
		bind := func(name string, b *core.BindingData) {
			n.Inputs = append(n.Inputs, &core.Binding{Var: name, Binding: b})
		}
		run := func(task string) {
			n.Target = &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: identifier(core.ResourceType_TASK, task, version)}}}
		}
		output := true
		switch k := r.IntN(10); {
		case k == 0:
			run("sleep")
			bind("duration", scalar(&core.Primitive{Value: &core.Primitive_Duration{Duration: durationpb.New(sleeps[r.IntN(len(sleeps))])}}))
			output = false
		case k <= 2:
			run("echo")
			bind("x", source())
		case k <= 4 && len(subs) > 0:
			n.Target = &core.Node_WorkflowNode{WorkflowNode: &core.WorkflowNode{Reference: &core.WorkflowNode_SubWorkflowRef{
				SubWorkflowRef: identifier(core.ResourceType_WORKFLOW, subs[r.IntN(len(subs))], version),
			}}}
			bind("x", source())
		default:
			from, prefix, input := behaviours, "", source
			if r.IntN(5) < p.cachedOfFive {
				from, prefix, input = cachedBehaviours, []string{cachedTask, serialTask}[r.IntN(2)], few
			}
			behaviour := from[r.IntN(len(from))]
			if !failing && (behaviour == runFail || behaviour == runFailRetrying) {
				behaviour = runOK
			}
			run(prefix + behaviour)
			bind("x", input())
			if prefix != "" && r.IntN(10) == 0 {
				n.Metadata.CacheableValue = &core.NodeMetadata_Cacheable{Cacheable: false}
			}
			if behaviour == runHang {
				n.Metadata.Timeout = durationpb.New(hangTimeout)
			}
			n.Metadata.Retries = &core.RetryStrategy{Retries: leastRetries[behaviour] + uint32(r.IntN(3))}
			if r.IntN(4) == 0 {
				n.Metadata.InterruptibleValue = &core.NodeMetadata_Interruptible{Interruptible: r.IntN(2) == 0}
			}
		}
		nodes = append(nodes, n)
		if output {
			producers = append(producers, n.GetId())
		}
	}
	t.Outputs = []*core.Binding{{Var: "o0", Binding: source()}}
	nodes = append(nodes, &core.Node{Id: aloft.EndNode, Metadata: &core.NodeMetadata{}, Inputs: t.GetOutputs()})
	t.Nodes = nodes
	if r.IntN(4) == 0 {
		t.FailureNode = &core.Node{
			Id: "efn", Metadata: &core.NodeMetadata{}, Inputs: []*core.Binding{{Var: "x", Binding: promise(aloft.StartNode, "x")}},
			Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: identifier(core.ResourceType_TASK, runOK, version)}}},
		}
	}
	return &core.CompiledWorkflow{Template: t, Connections: &core.ConnectionSet{}}
}

// addBranches makes some nodes of a closure the first arm of a branch.
func addBranches(r *rand.Rand, c *core.CompiledWorkflowClosure) {
	for _, w := range append([]*core.CompiledWorkflow{c.Primary}, c.SubWorkflows...) {
		producers := []string{aloft.StartNode} // nodes with an output so far
		for i, n := range w.Template.Nodes {
			if n.GetTarget() == nil || n.GetTaskNode().GetReferenceId().GetName() == "sleep" {
				continue
			}
			if r.IntN(3) == 0 {
				w.Template.Nodes[i] = branch(r, n, producers, c.Primary.Template.Id.Version, 0)
			}
			producers = append(producers, n.GetId())
		}
	}
}

// branch is a node of the same id that runs the given one if the text of a producer is less than a constant, and another node or none
// if not. Neither the constant nor that of the other arms need be the same for two branches: which arm is taken follows from texts
// that only the run knows.
func branch(r *rand.Rand, n *core.Node, producers []string, version string, depth int) *core.Node {
	arm := proto.CloneOf(n)
	arm.Id = n.GetId() + "-a"
	b := &core.Node{Id: n.GetId(), Metadata: &core.NodeMetadata{}, UpstreamNodeIds: n.GetUpstreamNodeIds()}
	output := func(id string) *core.BindingData {
		if id == aloft.StartNode {
			return promise(id, "x")
		}
		return promise(id, "o0")
	}
	b.Inputs = []*core.Binding{{Var: "v", Binding: output(producers[r.IntN(len(producers))])}}
	condition := func() *core.BooleanExpression {
		return &core.BooleanExpression{Expr: &core.BooleanExpression_Comparison{Comparison: &core.ComparisonExpression{
			Operator: core.ComparisonExpression_Operator(r.IntN(6)), LeftValue: &core.Operand{Val: &core.Operand_Var{Var: "v"}},
			RightValue: &core.Operand{Val: &core.Operand_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: string('a' + rune(r.IntN(26)))}}}},
		}}}
	}
	echo := func(id string) *core.Node {
		return &core.Node{
			Id: id, Metadata: &core.NodeMetadata{}, Inputs: []*core.Binding{{Var: "x", Binding: output(producers[r.IntN(len(producers))])}},
			Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: identifier(core.ResourceType_TASK, "echo", version)}}},
		}
	}
	if depth < 2 && r.IntN(4) == 0 {
		arm = branch(r, arm, producers, version, depth+1)
	}
	block := &core.IfElseBlock{Case: &core.IfBlock{Condition: condition(), ThenNode: arm}}
	if r.IntN(2) == 0 {
		block.Other = append(block.Other, &core.IfBlock{Condition: condition(), ThenNode: echo(n.GetId() + "-b")})
	}
	block.Default = &core.IfElseBlock_ElseNode{ElseNode: echo(n.GetId() + "-c")}
	if r.IntN(20) == 0 {
		block.Default = &core.IfElseBlock_Error{Error: &core.Error{Message: "no arm"}}
	}
	b.Target = &core.Node_BranchNode{BranchNode: &core.BranchNode{IfElse: block}}
	return b
}

// leastRetries is how many retries tasks need to succeed.
var leastRetries = map[string]uint32{runFlakyUser: 1, runHang: 2, runHungry: 2, runResume: 2}

var sleeps = []time.Duration{0, 0, time.Millisecond, time.Second, time.Minute}

func scalar(p *core.Primitive) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}}}}
}

func promise(node, variable string) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{NodeId: node, Var: variable}}}
}

func oneText(name, value string) *core.LiteralMap {
	return &core.LiteralMap{Literals: map[string]*core.Literal{name: {Value: &core.Literal_Scalar{
		Scalar: scalar(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: value}}).GetScalar(),
	}}}}
}
