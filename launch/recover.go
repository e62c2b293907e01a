package launch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// Recover creates an execution that takes over what the execution id has finished and runs the rest, with the same version, inputs
// and settings. parent is the node whose task made the call, or nil. ErrNotFound if there is no such execution, ErrPrecondition if
// it still runs or has succeeded, ErrExists if the name is taken.
func (l *Launcher) Recover(ctx context.Context, id aloft.ExecutionID, name string, parent *core.NodeExecutionIdentifier) (aloft.ExecutionID, error) {
	old, err := l.recoverable(ctx, id.Project, id.Domain, id.Proto())
	if err != nil {
		return aloft.ExecutionID{}, fmt.Errorf("recover: %w", err)
	}
	given, err := l.load(ctx, old.UserInputs)
	if err != nil {
		return aloft.ExecutionID{}, fmt.Errorf("recover execution %s: read its inputs: %w", id, err)
	}
	spec := proto.CloneOf(old.Spec)
	spec.Metadata = &admin.ExecutionMetadata{Mode: admin.ExecutionMetadata_RECOVERED, ReferenceExecution: id.Proto(), ParentNodeExecution: parent}
	return l.Create(ctx, Request{Project: id.Project, Domain: id.Domain, Name: name, Spec: spec, Inputs: given})
}

// recoverable reads the execution that is to be recovered and checks that it may be. The check holds later, too: an execution that
// has ended never changes.
func (l *Launcher) recoverable(ctx context.Context, project, domain string, reference *core.WorkflowExecutionIdentifier) (*store.Execution, error) {
	var problems field.Problems
	if reference == nil {
		problems.Add("missing spec.metadata.reference_execution: which execution is to be recovered")
		return nil, problems.Err()
	}
	problems.Execution(reference)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	id := aloft.ExecutionIDOf(reference)
	if id.Project != project || id.Domain != domain {
		problems.Add("execution %s is of another project or domain: recover it there, in %s/%s", id, id.Project, id.Domain)
		return nil, problems.Err()
	}
	old, err := l.Store.GetExecution(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case old.Phase == core.WorkflowExecution_SUCCEEDED:
		return nil, fmt.Errorf("execution %s has succeeded, there is nothing to recover: relaunch it to run it again: %w", id, aloft.ErrPrecondition)
	case !aloft.Terminal(old.Phase):
		return nil, fmt.Errorf("execution %s has not ended: wait for its end, or terminate it, and recover it then: %w", id, aloft.ErrPrecondition)
	}
	return old, nil
}

// checkSameRun refuses a recovery with another workflow version or other inputs than the old execution, whose results would be
// wrong in the new one.
func (l *Launcher) checkSameRun(ctx context.Context, old *store.Execution, plan *store.LaunchPlan, inputs *core.LiteralMap) error {
	var problems field.Problems
	if was, is := old.Workflow, plan.Spec.GetWorkflowId(); !proto.Equal(withoutKind(was), withoutKind(is)) {
		problems.Add("invalid value for spec.launch_plan: it runs workflow %s, version %s, but execution %s ran %s, version %s: recover it with that, or relaunch",
			is.GetName(), is.GetVersion(), old.ID, was.GetName(), was.GetVersion())
	}
	had, err := l.load(ctx, old.Inputs)
	if err != nil {
		return fmt.Errorf("read inputs of execution %s: %w", old.ID, err)
	}
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(inputs.GetLiterals())) {
		if !proto.Equal(inputs.GetLiterals()[name], had.GetLiterals()[name]) {
			differ = append(differ, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(had.GetLiterals())) {
		if inputs.GetLiterals()[name] == nil {
			differ = append(differ, name)
		}
	}
	if len(differ) > 0 {
		problems.Add("invalid value for inputs: %s differ from those of execution %s: recover it with the same (give none), or relaunch",
			strings.Join(differ, ", "), old.ID)
	}
	return problems.Err()
}

// withoutKind is an identifier without its resource type, which some clients leave out.
func withoutKind(id *core.Identifier) *core.Identifier {
	id = proto.CloneOf(id)
	id.ResourceType = 0
	return id
}
