package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/event"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// ListTaskExecutions lists the attempts of a node.
func (s *adminService) ListTaskExecutions(ctx context.Context, r *admin.TaskExecutionListRequest) (*admin.TaskExecutionList, error) {
	var problems field.Problems
	problems.Execution(r.GetNodeExecutionId().GetExecutionId())
	problems.Text("node_id", r.GetNodeExecutionId().GetNodeId())
	q := parseChildren(&problems, r, r.GetFilters())
	if err := problems.Err(); err != nil {
		return nil, listError("task executions", err)
	}
	id := aloft.ExecutionIDOf(r.GetNodeExecutionId().GetExecutionId())
	q = withBudget(ctx, q)
	rows, err := s.Store.ListAttempts(ctx, id, aloft.NodeID(r.GetNodeExecutionId().GetNodeId()), q)
	if err != nil && !errors.Is(err, aloft.ErrNotFound) {
		return nil, listError("task executions", err)
	}
	list := &admin.TaskExecutionList{}
	list.TaskExecutions, list.Token, err = fillPage(ctx, q, rows, func(row *store.Attempt) (*admin.TaskExecution, error) { return s.taskExecutionMessage(ctx, row) },
		func(m *admin.TaskExecution, note string) {
			m.Closure.Reason, m.Closure.Reasons = note, nil
			if failure := m.GetClosure().GetError(); failure != nil {
				m.Closure.OutputResult = &admin.TaskExecutionClosure_Error{Error: trimError(failure)}
			}
		})
	return list, err
}

func (s *adminService) GetTaskExecution(ctx context.Context, r *admin.TaskExecutionGetRequest) (*admin.TaskExecution, error) {
	attempt, err := s.attemptOf(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return s.taskExecutionMessage(ctx, attempt)
}

func (s *adminService) GetTaskExecutionData(ctx context.Context, r *admin.TaskExecutionGetDataRequest) (*admin.TaskExecutionGetDataResponse, error) {
	attempt, err := s.attemptOf(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	number := attempt.ID.Attempt
	answer := &admin.TaskExecutionGetDataResponse{FlyteUrls: flyteURLs(attempt.ID.Execution, string(attempt.ID.Node), &number, attempt.DeckURI != "")}
	inputs, outputs, err := s.attemptLiterals(ctx, attempt)
	if err != nil {
		return nil, err
	}
	if answer.FullInputs, answer.Inputs, err = s.inline(ctx, inputs); err != nil {
		return nil, fmt.Errorf("read inputs of %s: %w", attempt.ID, err)
	}
	if answer.FullOutputs, answer.Outputs, err = s.inline(ctx, outputs); err != nil {
		return nil, fmt.Errorf("read outputs of %s: %w", attempt.ID, err)
	}
	return answer, nil
}

// attemptLiterals finds the inputs and outputs of an attempt. They are kept with the node: all attempts of a node have the same
// inputs, and only the attempt that succeeded has outputs.
func (a *API) attemptLiterals(ctx context.Context, attempt *store.Attempt) (inputs, outputs *aloftv1.Literals, err error) {
	n, err := a.node(ctx, attempt.ID.Execution, attempt.ID.Node)
	if err != nil {
		return nil, nil, err
	}
	if attempt.Phase == core.TaskExecution_SUCCEEDED {
		outputs = n.Outputs
	}
	return n.Inputs, outputs, nil
}

func (a *API) attemptOf(ctx context.Context, id *core.TaskExecutionIdentifier) (*store.Attempt, error) {
	var problems field.Problems
	problems.Execution(id.GetNodeExecutionId().GetExecutionId())
	problems.Text("node_id", id.GetNodeExecutionId().GetNodeId())
	problems.Identifier("task_id", id.GetTaskId(), core.ResourceType_TASK, true)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	attemptID := aloft.AttemptID{
		Execution: aloft.ExecutionIDOf(id.GetNodeExecutionId().GetExecutionId()),
		Node:      aloft.NodeID(id.GetNodeExecutionId().GetNodeId()),
		Attempt:   id.GetRetryAttempt(),
	}
	attempt, err := a.attempt(ctx, attemptID)
	if err != nil {
		return nil, err
	}
	if t := attempt.Spec.GetTask(); t.GetName() != id.GetTaskId().GetName() || t.GetVersion() != id.GetTaskId().GetVersion() {
		return nil, missingEntity("task execution", fmt.Sprintf("%s of task %s", attemptID, identifierText(id.GetTaskId())))
	}
	return attempt, nil
}

func (a *API) attempt(ctx context.Context, id aloft.AttemptID) (*store.Attempt, error) {
	attempt, err := a.Store.GetAttempt(ctx, id)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, missingEntity("task execution", fmt.Sprintf("node_id:%q retry_attempt:%d project:%q domain:%q name:%q",
			id.Node, id.Attempt, id.Execution.Project, id.Execution.Domain, id.Execution.Name))
	}
	return attempt, err
}

// eventVersion is 1, without which clients ignore the metadata of a task execution.
const eventVersion = 1

func (a *API) taskExecutionMessage(ctx context.Context, t *store.Attempt) (*admin.TaskExecution, error) {
	node := string(t.ID.Node)
	closure := &admin.TaskExecutionClosure{
		Phase:        t.Phase,
		CreatedAt:    timestamppb.New(t.CreatedAt),
		UpdatedAt:    timestamppb.New(t.UpdatedAt),
		StartedAt:    stamp(t.StartedAt),
		Duration:     duration(t.StartedAt, t.EndedAt),
		TaskType:     t.Spec.GetTaskType(),
		EventVersion: eventVersion,
		Metadata:     &event.TaskExecutionMetadata{GeneratedName: t.ID.GeneratedName(), PluginIdentifier: t.Executor},
	}
	reason := t.Waiting
	switch {
	case t.Lost:
		reason = "lost: nobody knows how it ended"
	case t.Stop != "" && !aloft.Terminal(t.Phase):
		reason = "stopping: " + t.Stop
	}
	if t.Waiting != "" && t.Phase == core.TaskExecution_QUEUED {
		closure.Phase = core.TaskExecution_WAITING_FOR_RESOURCES
	}
	if reason != "" {
		closure.Reason = reason
		closure.Reasons = []*admin.Reason{{OccurredAt: timestamppb.New(t.UpdatedAt), Message: reason}}
	}
	switch {
	case t.Error != nil:
		closure.OutputResult = &admin.TaskExecutionClosure_Error{Error: t.Error}
	case t.Phase == core.TaskExecution_SUCCEEDED:
		closure.OutputResult = &admin.TaskExecutionClosure_OutputUri{OutputUri: flyteURL(t.ID.Execution, node, &t.ID.Attempt, "o")}
	}
	if !t.ByEngine && !t.StartedAt.IsZero() {
		logs, err := a.logLinks(ctx, t)
		if err != nil {
			return nil, err
		}
		closure.Logs = logs
	}
	return &admin.TaskExecution{
		Id: &core.TaskExecutionIdentifier{
			TaskId:          t.Spec.GetTask(),
			NodeExecutionId: &core.NodeExecutionIdentifier{NodeId: node, ExecutionId: t.ID.Execution.Proto()},
			RetryAttempt:    t.ID.Attempt,
		},
		InputUri: flyteURL(t.ID.Execution, node, &t.ID.Attempt, "i"),
		Closure:  closure,
	}, nil
}

// logLinks are links to stdout and stderr of an attempt. The files grow while it runs.
func (a *API) logLinks(ctx context.Context, t *store.Attempt) ([]*core.TaskLog, error) {
	var logs []*core.TaskLog
	for _, name := range []string{"stdout", "stderr"} {
		uri, err := a.Renderer.Link("aloft://blob/"+t.ID.RunKey()+"/"+name, callerOf(ctx).base, a.Now().Add(30*24*time.Hour))
		if err != nil {
			return nil, err
		}
		logs = append(logs, &core.TaskLog{Uri: uri, Name: name, MessageFormat: core.TaskLog_UNKNOWN, ShowWhilePending: false})
	}
	return logs, nil
}
