package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

const (
	// GeneratedPrefix begins the names of workflows and launch plans that are generated for executions of single tasks.
	GeneratedPrefix = ".flytegen."

	maxSingleNodeID    = 63 // characters of the task's name that become the node's id, counted from its end
	singleTaskRetries  = 3  // of a task whose metadata state none
	generatedShortText = "runs one task"
)

// SingleTask returns the launch plan of a workflow that runs only the task. Both are generated on first use. The launch plan has no
// defaults: all inputs of the task are required.
func (r *Registry) SingleTask(ctx context.Context, taskID *core.Identifier) (*store.LaunchPlan, error) {
	planID := proto.CloneOf(taskID)
	planID.ResourceType = core.ResourceType_LAUNCH_PLAN
	planID.Name = GeneratedPrefix + taskID.GetName()
	if l, ok := r.launchPlans.Get(aloft.KeyOf(planID)); ok {
		return l, nil
	}
	task, err := r.Task(ctx, taskID)
	if err != nil {
		return nil, err
	}
	r.generating.Lock()
	defer r.generating.Unlock()
	if l, err := r.LaunchPlan(ctx, planID); !errors.Is(err, aloft.ErrNotFound) {
		return l, err
	}
	if err := r.generate(ctx, planID, task); err != nil {
		return nil, fmt.Errorf("make a workflow for task %s: %w", taskID.GetName(), err)
	}
	return r.LaunchPlan(ctx, planID)
}

// generate registers the workflow and then the launch plan. Each of them may exist already, if the server died between the two, or
// if another server generates them at the same time.
func (r *Registry) generate(ctx context.Context, planID *core.Identifier, task *store.Task) error {
	workflowID := proto.CloneOf(planID)
	workflowID.ResourceType = core.ResourceType_WORKFLOW
	w, err := r.compile(ctx, workflowID, singleTaskSpec(workflowID, task))
	if err != nil {
		return err
	}
	w.Generated, w.ShortDescription = true, generatedShortText
	if err := r.Store.CreateWorkflow(ctx, w); err != nil && !errors.Is(err, aloft.ErrExists) {
		return err
	}
	l, err := r.compileLaunchPlan(planID, &admin.LaunchPlanSpec{WorkflowId: workflowID, EntityMetadata: &admin.LaunchPlanMetadata{}}, w)
	if err != nil {
		return err
	}
	l.Generated = true
	if err := r.Store.CreateLaunchPlan(ctx, l); err != nil && !errors.Is(err, aloft.ErrExists) {
		return err
	}
	return nil
}

func singleTaskSpec(id *core.Identifier, task *store.Task) *admin.WorkflowSpec {
	template := task.Compiled.GetTemplate()
	node := singleNodeID(template.GetId().GetName())
	retries := template.GetMetadata().GetRetries()
	if retries == nil {
		retries = &core.RetryStrategy{Retries: singleTaskRetries}
	}
	n := &core.Node{
		Id:       node,
		Metadata: &core.NodeMetadata{Name: node, Retries: retries},
		Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{
			Reference: &core.TaskNode_ReferenceId{ReferenceId: template.GetId()},
		}},
	}
	for _, name := range slices.Sorted(maps.Keys(template.GetInterface().GetInputs().GetVariables())) {
		n.Inputs = append(n.Inputs, promise(name, "", name))
	}
	t := &core.WorkflowTemplate{Id: id, Metadata: &core.WorkflowMetadata{}, Interface: template.GetInterface(), Nodes: []*core.Node{n}}
	for _, name := range slices.Sorted(maps.Keys(template.GetInterface().GetOutputs().GetVariables())) {
		t.Outputs = append(t.Outputs, promise(name, node, name))
	}
	return &admin.WorkflowSpec{Template: t}
}

func promise(variable, node, output string) *core.Binding {
	return &core.Binding{Var: variable, Binding: &core.BindingData{Value: &core.BindingData_Promise{
		Promise: &core.OutputReference{NodeId: node, Var: output},
	}}}
}

// singleNodeID is Flyte's rule: the end of the task's name without what a node's id may not contain.
func singleNodeID(taskName string) string {
	if len(taskName) > maxSingleNodeID {
		taskName = taskName[len(taskName)-maxSingleNodeID:]
	}
	id := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			return c
		}
		return -1
	}, taskName)
	if id == "" || id == aloft.StartNode || id == aloft.EndNode {
		return "task"
	}
	return id
}
