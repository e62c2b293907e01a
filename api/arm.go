package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/nodes"
	"github.com/aloft-dev/aloft/store"
)

// skippedArms are the arms that branch nodes have not taken, as nodes that are skipped. They have no record, and Flyte's lists do not
// name them: which they are follows from the workflow and from the arm that has a record. They are sent with each state of their
// branch.
func (w *watch) skippedArms(ctx context.Context, execution *store.Execution, changed []*store.Node) ([]*aloftv1.NodeStatus, error) {
	var skipped []*aloftv1.NodeStatus
	for _, n := range changed {
		if !n.IsParent || n.Target != nil || n.Phase == core.NodeExecution_QUEUED {
			continue // no branch, or it has not taken an arm
		}
		branch, err := w.branch(ctx, execution.Workflow, n)
		if err != nil {
			return nil, err
		}
		inside, err := w.Store.ListNodes(ctx, w.id, n.ID, false, store.Query{})
		if err != nil {
			return nil, fmt.Errorf("list the arm of node %s of %s: %w", n.ID, w.id, err)
		}
		if len(inside) == 0 && !aloft.Terminal(n.Phase) {
			continue // the arm that is taken waits for other nodes
		}
		for _, arm := range nodes.Arms(branch) {
			if arm == nil || len(inside) > 0 && inside[0].SpecNodeID == arm.GetId() {
				continue
			}
			status := &aloftv1.NodeStatus{
				Id: string(aloft.UniqueNodeID(n.ID, 0, arm.GetId())), Parent: string(n.ID), SpecNodeId: arm.GetId(), Name: arm.GetMetadata().GetName(),
				Phase: core.NodeExecution_SKIPPED, CreatedAt: stamp(n.UpdatedAt), EndedAt: stamp(n.UpdatedAt),
			}
			if id := arm.GetTaskNode().GetReferenceId(); id != nil {
				status.Target = id
			} else {
				status.Target = arm.GetWorkflowNode().GetSubWorkflowRef()
			}
			skipped = append(skipped, status)
		}
	}
	return skipped, nil
}

// branch is the branch that a node runs, as compiled; nil: the workflow has none of that id.
func (w *watch) branch(ctx context.Context, workflow *core.Identifier, n *store.Node) (*core.BranchNode, error) {
	if w.branches == nil {
		found, err := w.Store.GetWorkflow(ctx, workflow)
		if errors.Is(err, aloft.ErrNotFound) || errors.Is(err, aloft.ErrUnreadable) {
			return nil, nil // the nodes that have run are shown all the same
		}
		if err != nil {
			return nil, fmt.Errorf("read workflow %s: %w", workflow.GetName(), err)
		}
		w.branches = map[aloft.Key]map[string]*core.BranchNode{}
		for _, c := range nodes.Workflows(found.Compiled) {
			of := map[string]*core.BranchNode{}
			for n := range nodes.All(c.GetTemplate()) {
				if b := n.GetBranchNode(); b != nil {
					of[n.GetId()] = b
				}
			}
			w.branches[aloft.KeyOf(c.GetTemplate().GetId())] = of
		}
	}
	// The workflow that the branch is in: that of the next node around it which runs one.
	for id := n.Parent; id != ""; {
		parent, err := w.Store.GetNode(ctx, w.id, id)
		if err != nil {
			return nil, fmt.Errorf("read node %s of %s: %w", id, w.id, err)
		}
		if parent.Target != nil {
			workflow = parent.Target
			break
		}
		id = parent.Parent
	}
	return w.branches[aloft.KeyOf(workflow)][n.SpecNodeID], nil
}
