package engine_test

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// workflow is a workflow of the tests, written down as its nodes; compiled is what the compiler would make of it.
type workflow struct {
	name    string
	inputs  map[string]core.SimpleType
	outputs map[string]*core.BindingData
	nodes   []*core.Node
	tasks   []*core.TaskTemplate
	policy  core.WorkflowMetadata_OnFailurePolicy
	failure *core.Node
}

func identifier(kind core.ResourceType, name string) *core.Identifier {
	return &core.Identifier{ResourceType: kind, Project: "flytesnacks", Domain: "development", Name: name, Version: "v1"}
}

func variables(types map[string]core.SimpleType) *core.VariableMap {
	m := &core.VariableMap{Variables: map[string]*core.Variable{}}
	for name, t := range types {
		m.Variables[name] = &core.Variable{Type: &core.LiteralType{Type: &core.LiteralType_Simple{Simple: t}}}
	}
	return m
}

func task(name, kind string, inputs, outputs map[string]core.SimpleType) *core.TaskTemplate {
	return &core.TaskTemplate{
		Id: identifier(core.ResourceType_TASK, name), Type: kind, Metadata: &core.TaskMetadata{},
		Interface: &core.TypedInterface{Inputs: variables(inputs), Outputs: variables(outputs)},
	}
}

var (
	sleepTask = task("sleep", machine.TaskSleep, map[string]core.SimpleType{"duration": core.SimpleType_DURATION}, nil)
	echoTask  = task("echo", machine.TaskEcho, map[string]core.SimpleType{"x": core.SimpleType_STRING}, map[string]core.SimpleType{"o0": core.SimpleType_STRING})
	runTask   = task("run", "python-task", map[string]core.SimpleType{"x": core.SimpleType_STRING}, map[string]core.SimpleType{"o0": core.SimpleType_STRING})
)

func taskNode(id string, t *core.TaskTemplate, inputs map[string]*core.BindingData, after ...string) *core.Node {
	n := &core.Node{
		Id: id, Metadata: &core.NodeMetadata{Name: id}, UpstreamNodeIds: after,
		Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: t.GetId()}}},
	}
	for name, b := range inputs {
		n.Inputs = append(n.Inputs, &core.Binding{Var: name, Binding: b})
	}
	return n
}

func sleepNode(id string, d time.Duration, after ...string) *core.Node {
	return taskNode(id, sleepTask, map[string]*core.BindingData{"duration": constant(&core.Primitive{Value: &core.Primitive_Duration{Duration: durationpb.New(d)}})}, after...)
}

func constant(p *core.Primitive) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: p}}}}
}

func text(s string) *core.BindingData {
	return constant(&core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}})
}

func promise(node, variable string) *core.BindingData {
	return &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{NodeId: node, Var: variable}}}
}

func textLiteral(s string) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: text(s).GetScalar()}}
}

func texts(m map[string]string) *core.LiteralMap {
	l := &core.LiteralMap{Literals: map[string]*core.Literal{}}
	for name, s := range m {
		l.Literals[name] = textLiteral(s)
	}
	return l
}

func (w workflow) template() *core.WorkflowTemplate {
	outputTypes := map[string]core.SimpleType{}
	t := &core.WorkflowTemplate{
		Id: identifier(core.ResourceType_WORKFLOW, w.name), Metadata: &core.WorkflowMetadata{OnFailure: w.policy},
		MetadataDefaults: &core.WorkflowMetadataDefaults{}, FailureNode: w.failure,
	}
	for name, b := range w.outputs {
		outputTypes[name] = core.SimpleType_STRING
		t.Outputs = append(t.Outputs, &core.Binding{Var: name, Binding: b})
	}
	t.Interface = &core.TypedInterface{Inputs: variables(w.inputs), Outputs: variables(outputTypes)}
	t.Nodes = append(t.Nodes, &core.Node{Id: aloft.StartNode, Metadata: &core.NodeMetadata{Name: aloft.StartNode}})
	t.Nodes = append(t.Nodes, w.nodes...)
	t.Nodes = append(t.Nodes, &core.Node{Id: aloft.EndNode, Metadata: &core.NodeMetadata{Name: aloft.EndNode}, Inputs: t.GetOutputs()})
	return t
}

func (w workflow) compiled(subs ...workflow) *core.CompiledWorkflowClosure {
	c := &core.CompiledWorkflowClosure{Primary: &core.CompiledWorkflow{Template: w.template(), Connections: &core.ConnectionSet{}}}
	tasks := w.tasks
	for _, s := range subs {
		c.SubWorkflows = append(c.SubWorkflows, &core.CompiledWorkflow{Template: s.template(), Connections: &core.ConnectionSet{}})
		tasks = append(tasks, s.tasks...)
	}
	seen := map[string]bool{}
	for _, t := range tasks {
		if !seen[t.GetId().GetName()] {
			seen[t.GetId().GetName()] = true
			c.Tasks = append(c.Tasks, &core.CompiledTask{Template: t})
		}
	}
	return c
}

func workflowNode(id string, sub workflow, inputs map[string]*core.BindingData) *core.Node {
	n := &core.Node{
		Id: id, Metadata: &core.NodeMetadata{Name: id},
		Target: &core.Node_WorkflowNode{WorkflowNode: &core.WorkflowNode{
			Reference: &core.WorkflowNode_SubWorkflowRef{SubWorkflowRef: identifier(core.ResourceType_WORKFLOW, sub.name)},
		}},
	}
	for name, b := range inputs {
		n.Inputs = append(n.Inputs, &core.Binding{Var: name, Binding: b})
	}
	return n
}

func fanOut(n int) workflow {
	w := workflow{name: fmt.Sprintf("fan%d", n), tasks: []*core.TaskTemplate{sleepTask}}
	for i := range n {
		w.nodes = append(w.nodes, sleepNode(fmt.Sprintf("n%d", i), 0))
	}
	return w
}

// echoes are n nodes, none of which needs another, each of which returns an input of its own.
func echoes(n int, echo *core.TaskTemplate) workflow {
	w := workflow{name: fmt.Sprintf("%s%d", echo.GetId().GetName(), n), tasks: []*core.TaskTemplate{echo}}
	for i := range n {
		w.nodes = append(w.nodes, taskNode(fmt.Sprintf("n%d", i), echo, map[string]*core.BindingData{"x": text(fmt.Sprintf("input %d", i))}))
	}
	return w
}

func chain(n int) workflow {
	w := workflow{name: fmt.Sprintf("chain%d", n), tasks: []*core.TaskTemplate{sleepTask}}
	for i := range n {
		var after []string
		if i > 0 {
			after = []string{fmt.Sprintf("n%d", i-1)}
		}
		w.nodes = append(w.nodes, sleepNode(fmt.Sprintf("n%d", i), 0, after...))
	}
	return w
}
