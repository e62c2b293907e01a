package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/launch"
	"github.com/aloft-dev/aloft/store"
)

func (s *adminService) CreateExecution(ctx context.Context, r *admin.ExecutionCreateRequest) (*admin.ExecutionCreateResponse, error) {
	id, err := s.Launcher.Create(ctx, launch.Request{
		Project: r.GetProject(), Domain: r.GetDomain(), Name: r.GetName(), Spec: r.GetSpec(), Inputs: r.GetInputs(),
	})
	if err != nil {
		return nil, registryError(err)
	}
	callerOf(ctx).connection.created(id)
	return &admin.ExecutionCreateResponse{Id: id.Proto()}, nil
}

func (s *adminService) RelaunchExecution(ctx context.Context, r *admin.ExecutionRelaunchRequest) (*admin.ExecutionCreateResponse, error) {
	if err := checkExecution(r.GetId()); err != nil {
		return nil, err
	}
	id, err := s.Launcher.Relaunch(ctx, aloft.ExecutionIDOf(r.GetId()), r.GetName(), r.GetOverwriteCache())
	if err != nil {
		return nil, registryError(err)
	}
	callerOf(ctx).connection.created(id)
	return &admin.ExecutionCreateResponse{Id: id.Proto()}, nil
}

// RecoverExecution creates an execution that takes over what another execution has finished. Of the request's metadata only the
// parent node counts, as in Flyte.
func (s *adminService) RecoverExecution(ctx context.Context, r *admin.ExecutionRecoverRequest) (*admin.ExecutionCreateResponse, error) {
	if err := checkExecution(r.GetId()); err != nil {
		return nil, err
	}
	id, err := s.Launcher.Recover(ctx, aloft.ExecutionIDOf(r.GetId()), r.GetName(), r.GetMetadata().GetParentNodeExecution())
	if err != nil {
		return nil, registryError(err)
	}
	callerOf(ctx).connection.created(id)
	return &admin.ExecutionCreateResponse{Id: id.Proto()}, nil
}

// GetExecution may hold its answer back until the execution has ended: see hold.
func (s *adminService) GetExecution(ctx context.Context, r *admin.WorkflowExecutionGetRequest) (*admin.Execution, error) {
	if err := checkExecution(r.GetId()); err != nil {
		return nil, err
	}
	e, err := s.hold(ctx, aloft.ExecutionIDOf(r.GetId()))
	if err != nil {
		return nil, err
	}
	return executionMessage(e), nil
}

func (s *adminService) GetExecutionData(ctx context.Context, r *admin.WorkflowExecutionGetDataRequest) (*admin.WorkflowExecutionGetDataResponse, error) {
	if err := checkExecution(r.GetId()); err != nil {
		return nil, err
	}
	e, err := s.execution(ctx, aloft.ExecutionIDOf(r.GetId()))
	if err != nil {
		return nil, err
	}
	answer := &admin.WorkflowExecutionGetDataResponse{}
	if answer.FullInputs, answer.Inputs, err = s.inline(ctx, e.Inputs); err != nil {
		return nil, fmt.Errorf("read inputs of execution %s: %w", e.ID, err)
	}
	if answer.FullOutputs, answer.Outputs, err = s.inline(ctx, e.Outputs); err != nil {
		return nil, fmt.Errorf("read outputs of execution %s: %w", e.ID, err)
	}
	return answer, nil
}

// ListExecutions leaves out archived executions, unless a filter names the state.
func (s *adminService) ListExecutions(ctx context.Context, r *admin.ResourceListRequest) (*admin.ExecutionList, error) {
	q, err := parseResourceList(r)
	if err != nil {
		return nil, listError("executions", err)
	}
	aboutState := func(f store.Filter) bool { return f.Field == "state" || f.Field == "execution.state" }
	if !slices.ContainsFunc(q.Filters, aboutState) {
		q.Filters = append(q.Filters, store.Filter{Field: "state", Function: "eq", Values: []string{"0"}})
	}
	q = withBudget(ctx, q)
	rows, err := s.Store.ListExecutions(ctx, q)
	if err != nil {
		return nil, listError("executions", err)
	}
	list := &admin.ExecutionList{}
	list.Executions, list.Token, err = fillPage(ctx, q, rows, func(row *store.Execution) (*admin.Execution, error) {
		row.Error = trimError(row.Error)
		return executionMessage(row), nil
	}, func(m *admin.Execution, note string) {
		m.Spec = &admin.ExecutionSpec{LaunchPlan: m.GetSpec().GetLaunchPlan(), Metadata: m.GetSpec().GetMetadata(),
			Annotations: &admin.Annotations{Values: map[string]string{"aloft/spec": note}}}
		m.Closure.Notifications = nil
	})
	return list, err
}

// UpdateExecution archives an execution or makes it active again. It does not touch the phase.
func (s *adminService) UpdateExecution(ctx context.Context, r *admin.ExecutionUpdateRequest) (*admin.ExecutionUpdateResponse, error) {
	var problems field.Problems
	problems.Execution(r.GetId())
	if _, ok := admin.ExecutionState_name[int32(r.GetState())]; !ok {
		problems.Add("invalid value for state: %d is neither EXECUTION_ACTIVE nor EXECUTION_ARCHIVED", r.GetState())
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	id := aloft.ExecutionIDOf(r.GetId())
	if err := s.Store.SetExecutionState(ctx, id, r.GetState(), ""); err != nil {
		return nil, executionError(id, err)
	}
	return &admin.ExecutionUpdateResponse{}, nil
}

// TerminateExecution puts the request into the inbox of the execution. When it returns, the execution is sure to end as
// ABORTED; the phase changes when the engine has read the inbox.
func (s *adminService) TerminateExecution(ctx context.Context, r *admin.ExecutionTerminateRequest) (*admin.ExecutionTerminateResponse, error) {
	if err := checkExecution(r.GetId()); err != nil {
		return nil, err
	}
	id := aloft.ExecutionIDOf(r.GetId())
	cause := r.GetCause()
	if len(cause) > aloft.MaxAbortCause {
		cause = strings.ToValidUTF8(cause[:aloft.MaxAbortCause], "")
	}
	err := s.Store.Append(ctx, id, store.Message{
		Dedup: store.TerminateDedup,
		Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{Cause: cause}}},
	})
	if errors.Is(err, aloft.ErrPrecondition) {
		phase := "a last phase"
		if e, err := s.Store.GetExecution(ctx, id); err == nil {
			phase = e.Phase.String()
		}
		return nil, withDetail(
			fmt.Errorf("execution %s is already in terminal state %s: %w", id, phase, aloft.ErrPrecondition),
			&admin.EventFailureReason{Reason: &admin.EventFailureReason_AlreadyInTerminalState{
				AlreadyInTerminalState: &admin.EventErrorAlreadyInTerminalState{CurrentPhase: phase},
			}})
	}
	if err != nil {
		return nil, executionError(id, err)
	}
	return &admin.ExecutionTerminateResponse{}, nil
}

func checkExecution(id *core.WorkflowExecutionIdentifier) error {
	var problems field.Problems
	problems.Execution(id)
	return problems.Err()
}

// execution reads one execution with its inputs and outputs.
func (a *API) execution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error) {
	e, err := a.Store.GetExecution(ctx, id)
	if err != nil {
		return nil, executionError(id, err)
	}
	return e, nil
}

func executionError(id aloft.ExecutionID, err error) error {
	if errors.Is(err, aloft.ErrNotFound) {
		return missingEntity("execution", fmt.Sprintf("project:%q domain:%q name:%q", id.Project, id.Domain, id.Name))
	}
	if errors.Is(err, aloft.ErrUnreadable) {
		return fmt.Errorf("%w. If it has not ended it waits, and no other is affected: aloft terminate -p %s -d %s %s ends it", err, id.Project, id.Domain, id.Name)
	}
	return err
}

// executionMessage is the record as Flyte's clients know it, without inputs and outputs, which only GetExecutionData gives.
func executionMessage(e *store.Execution) *admin.Execution {
	closure := &admin.ExecutionClosure{
		Phase:         e.Phase,
		CreatedAt:     timestamppb.New(e.CreatedAt),
		UpdatedAt:     timestamppb.New(e.UpdatedAt),
		StartedAt:     stamp(e.StartedAt),
		Duration:      duration(e.StartedAt, e.EndedAt),
		Notifications: e.Notifications,
		WorkflowId:    e.Workflow,
		StateChangeDetails: &admin.ExecutionStateChangeDetails{
			State: e.State, OccurredAt: timestamppb.New(e.StateChangedAt),
		},
	}
	switch {
	case e.Phase == core.WorkflowExecution_ABORTING, e.Phase == core.WorkflowExecution_ABORTED:
		closure.OutputResult = &admin.ExecutionClosure_AbortMetadata{AbortMetadata: &admin.AbortMetadata{Cause: e.AbortCause, Principal: e.AbortPrincipal}}
	case e.Error != nil:
		closure.OutputResult = &admin.ExecutionClosure_Error{Error: e.Error}
	case e.Phase == core.WorkflowExecution_SUCCEEDED:
		closure.OutputResult = &admin.ExecutionClosure_Outputs{Outputs: &admin.LiteralMapBlob{
			Data: &admin.LiteralMapBlob_Uri{Uri: flyteURL(e.ID, aloft.EndNode, nil, "o")},
		}}
	}
	return &admin.Execution{Id: e.ID.Proto(), Spec: e.Spec, Closure: closure}
}

// trimError is an error as lists show it: a page of long tracebacks would be too large for clients. flytekit writes the
// traceback first ("Trace:") and then the message ("Message:"), of which the beginning is kept.
func trimError(err *core.ExecutionError) *core.ExecutionError {
	const limit = 100
	if len(err.GetMessage()) <= limit {
		return err
	}
	err = proto.CloneOf(err)
	if before, said, ok := strings.Cut(err.Message, "\n\nMessage:\n\n"); ok {
		retries, _, _ := strings.Cut(before, "Trace:\n")
		err.Message = retries + strings.TrimSpace(said)
	}
	err.Message = strings.ToValidUTF8(err.Message[:min(limit, len(err.Message))], "")
	return err
}

// duration is nil until both times are known.
func duration(from, to time.Time) *durationpb.Duration {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	return durationpb.New(to.Sub(from))
}
