package compiler

import (
	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// target finds the target of a node (task, sub-workflow …) and with it the node's inputs and outputs. Each kind of node that this
// release runs has its function. Kinds that it does not run yet are refused here and nowhere else.
func (g *graph) target(n *node) {
	switch target := n.GetTarget().(type) {
	case *core.Node_TaskNode:
		g.task(n, target.TaskNode)
	case *core.Node_WorkflowNode:
		switch ref := target.WorkflowNode.GetReference().(type) {
		case *core.WorkflowNode_SubWorkflowRef:
			g.subWorkflowNode(n, ref.SubWorkflowRef)
		case *core.WorkflowNode_LaunchplanRef:
			g.refuse(n, "launch plan nodes")
		default:
			g.missing(n, "workflow_node.reference")
		}
	case *core.Node_BranchNode:
		g.branch(n, target.BranchNode)
	case *core.Node_GateNode:
		g.refuse(n, "gate nodes")
	case *core.Node_ArrayNode:
		g.refuse(n, "array nodes (map tasks)")
	default:
		g.missing(n, "target")
	}
}

func (g *graph) refuse(n *node, kind string) {
	n.unknown = true
	g.errs.add(Unsupported, n.GetId(), "node %s: %s are not supported yet by this release of aloft", n.GetId(), kind)
}

func (g *graph) missing(n *node, field string) {
	n.unknown = true
	g.errs.add(ValueRequired, n.GetId(), "Value required [%s].", field)
}

func (g *graph) task(n *node, target *core.TaskNode) {
	if target.GetReferenceId() == nil {
		g.missing(n, "task_node.reference_id")
		return
	}
	task, ok := g.tasks[aloft.KeyOf(target.GetReferenceId())]
	if !ok {
		n.unknown = true
		g.errs.add(TaskReferenceNotFound, n.GetId(), "Referenced Task [%s] not found.", describe(target.GetReferenceId()))
		return
	}
	n.nodeInterface = g.nodeInterface(task.GetTemplate().GetInterface())
	o := target.GetOverrides()
	checkResources(&g.errs, n.GetId(), "task_node.overrides.resources", o.GetResources())
	if o.GetPodTemplate().GetPodSpec() != nil {
		checkPod(&g.errs, n.GetId(), "task_node.overrides.pod_template", o.GetPodTemplate())
	}
}

func (g *graph) subWorkflowNode(n *node, ref *core.Identifier) {
	i, nodes := g.subWorkflow(ref, g.depth)
	if i == nil {
		n.unknown = true // the mistake was reported when the sub-workflow was compiled or not found
		return
	}
	n.nodeInterface = g.nodeInterface(i)
	g.count += nodes
}

// addFailureNode adds the node that runs when the workflow has failed. In this release it must run a task, and its inputs must be
// constants or inputs of the workflow, because any other node may be the one that failed.
func (g *graph) addFailureNode() {
	template := g.template.GetFailureNode()
	if template == nil {
		return
	}
	n := &node{Node: template}
	g.failure = n
	if n.GetId() == "" {
		g.missing(n, "failure_node.id")
		return
	}
	if _, ok := g.nodes[n.GetId()]; ok {
		g.errs.add(DuplicateID, n.GetId(), "Node id [%s] of the failure node is used by another node.", n.GetId())
	}
	switch n.GetTarget().(type) {
	case *core.Node_TaskNode, nil:
		g.target(n)
	default:
		g.refuse(n, "failure nodes other than tasks")
	}
	g.prepare(n)
	for _, b := range n.GetInputs() {
		for producer := range producers(b.GetBinding()) {
			if producer != aloft.StartNode && g.nodes[producer] != nil {
				g.refuse(n, "failure nodes with inputs from other nodes")
				return
			}
		}
	}
}
