package api

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// ListNodeExecutions lists the nodes of the top level of an execution, or the nodes that a node contains.
func (s *adminService) ListNodeExecutions(ctx context.Context, r *admin.NodeExecutionListRequest) (*admin.NodeExecutionList, error) {
	var problems field.Problems
	problems.Execution(r.GetWorkflowExecutionId())
	q := parseChildren(&problems, r, r.GetFilters())
	if err := problems.Err(); err != nil {
		return nil, listError("node executions", err)
	}
	id, parent := aloft.ExecutionIDOf(r.GetWorkflowExecutionId()), aloft.NodeID(r.GetUniqueParentId())
	if parent != "" {
		if _, err := s.node(ctx, id, parent); err != nil {
			return nil, err
		}
	}
	q = withBudget(ctx, q)
	rows, err := s.Store.ListNodes(ctx, id, parent, false, q)
	if err != nil && !errors.Is(err, aloft.ErrNotFound) { // an execution that does not exist has no nodes
		return nil, listError("node executions", err)
	}
	list := &admin.NodeExecutionList{}
	list.NodeExecutions, list.Token, err = fillPage(ctx, q, rows, func(row *store.Node) (*admin.NodeExecution, error) {
		row.Error = trimError(row.Error)
		row.Execution = id
		return s.nodeExecutionMessage(ctx, row)
	}, func(m *admin.NodeExecution, _ string) { m.Closure.TargetMetadata = nil })
	return list, err
}

func (s *adminService) GetNodeExecution(ctx context.Context, r *admin.NodeExecutionGetRequest) (*admin.NodeExecution, error) {
	n, err := s.nodeOf(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return s.nodeExecutionMessage(ctx, n)
}

// GetNodeExecutionData leaves dynamic_workflow unset: clients take a node with that field for a dynamic node.
func (s *adminService) GetNodeExecutionData(ctx context.Context, r *admin.NodeExecutionGetDataRequest) (*admin.NodeExecutionGetDataResponse, error) {
	n, err := s.nodeOf(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	answer := &admin.NodeExecutionGetDataResponse{FlyteUrls: flyteURLs(n.Execution, string(n.ID), nil, n.DeckURI != "")}
	if answer.FullInputs, answer.Inputs, err = s.inline(ctx, n.Inputs); err != nil {
		return nil, fmt.Errorf("read inputs of node %s/%s: %w", n.Execution, n.ID, err)
	}
	if answer.FullOutputs, answer.Outputs, err = s.inline(ctx, n.Outputs); err != nil {
		return nil, fmt.Errorf("read outputs of node %s/%s: %w", n.Execution, n.ID, err)
	}
	return answer, nil
}

func flyteURLs(id aloft.ExecutionID, node string, attempt *uint32, deck bool) *admin.FlyteURLs {
	urls := &admin.FlyteURLs{Inputs: flyteURL(id, node, attempt, "i"), Outputs: flyteURL(id, node, attempt, "o")}
	if deck {
		urls.Deck = flyteURL(id, node, nil, "d")
	}
	return urls
}

func (a *API) nodeOf(ctx context.Context, id *core.NodeExecutionIdentifier) (*store.Node, error) {
	var problems field.Problems
	problems.Execution(id.GetExecutionId())
	problems.Text("node_id", id.GetNodeId())
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return a.node(ctx, aloft.ExecutionIDOf(id.GetExecutionId()), aloft.NodeID(id.GetNodeId()))
}

func (a *API) node(ctx context.Context, id aloft.ExecutionID, node aloft.NodeID) (*store.Node, error) {
	n, err := a.Store.GetNode(ctx, id, node)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, missingEntity("node execution", fmt.Sprintf("node_id:%q project:%q domain:%q name:%q", node, id.Project, id.Domain, id.Name))
	}
	if err != nil {
		return nil, err
	}
	n.Execution = id
	return n, nil
}

func (a *API) nodeExecutionMessage(ctx context.Context, n *store.Node) (*admin.NodeExecution, error) {
	deck, err := a.Renderer.Link(n.DeckURI, callerOf(ctx).base, a.Now().Add(linkLife))
	if err != nil {
		return nil, err
	}
	closure := &admin.NodeExecutionClosure{
		Phase:     n.Phase,
		CreatedAt: timestamppb.New(n.CreatedAt),
		UpdatedAt: timestamppb.New(n.UpdatedAt),
		StartedAt: stamp(n.StartedAt),
		Duration:  duration(n.StartedAt, n.EndedAt),
		DeckUri:   deck,
	}
	switch {
	case n.Error != nil:
		closure.OutputResult = &admin.NodeExecutionClosure_Error{Error: n.Error}
	case aloft.Succeeded(n.Phase):
		closure.OutputResult = &admin.NodeExecutionClosure_OutputUri{OutputUri: flyteURL(n.Execution, string(n.ID), nil, "o")}
	}
	if n.Metadata != nil || n.Cache != nil {
		closure.TargetMetadata = &admin.NodeExecutionClosure_TaskNodeMetadata{TaskNodeMetadata: &admin.TaskNodeMetadata{
			CacheStatus: n.Cache.GetStatus(), CatalogKey: n.Cache.GetFound(), CheckpointUri: n.Metadata.GetCheckpointUri(),
		}}
	}
	m := &admin.NodeExecution{
		Id:      &core.NodeExecutionIdentifier{NodeId: string(n.ID), ExecutionId: n.Execution.Proto()},
		Closure: closure,
		Metadata: &admin.NodeExecutionMetaData{
			RetryGroup: n.RetryGroup, IsParentNode: n.IsParent, SpecNodeId: n.SpecNodeID, IsDynamic: n.IsDynamic, IsArray: n.IsArray,
		},
	}
	if n.SpecNodeID != aloft.StartNode { // the start node has only outputs: the inputs of its workflow
		m.InputUri = flyteURL(n.Execution, string(n.ID), nil, "i")
	}
	return m, nil
}
