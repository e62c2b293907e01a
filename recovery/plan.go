package recovery

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/nodes"
	"github.com/aloft-dev/aloft/store"
)

// Path is the place of a node in a graph: the ids in the templates from the top, "n1/n0". It names no attempt.
type Path string

// Join is the path of a node inside the node at p; p is empty at the top.
func (p Path) Join(specNodeID string) Path {
	if p == "" {
		return Path(specNodeID)
	}
	return p + "/" + Path(specNodeID)
}

// Node is the part of a finished run's node record that decisions need. Inputs and outputs stay in the store.
type Node struct {
	ID         aloft.NodeID
	Group      int // the attempt of the parent in which the node ran
	Phase      core.NodeExecution_Phase
	Code       string           // of its error; empty: none
	Target     *core.Identifier // the task, sub-workflow or launch plan that it ran; nil: none of these
	DeckURI    string
	Cache      *aloftv1.CacheLookup // nil: the node was not cached
	Checkpoint string               // canonical URI of its last known checkpoint; empty: none
}

// Run is a finished run: its nodes by path. It never changes.
type Run struct {
	byPath map[Path][]Node // of one path there is a node for each attempt of the parent; the first one counts
	paths  map[aloft.NodeID]Path
}

// NewRun reads the records of all nodes of a run, in any order. A node whose record is damaged counts as not begun.
func NewRun(records []*store.Node) *Run {
	r := &Run{byPath: make(map[Path][]Node, len(records)), paths: make(map[aloft.NodeID]Path, len(records))}
	byID := make(map[aloft.NodeID]*store.Node, len(records))
	for _, n := range records {
		byID[n.ID] = n
	}
	for _, n := range records {
		if n.Unreadable != nil {
			continue // the node runs again
		}
		group, _ := strconv.Atoi(n.RetryGroup) // empty: 0
		path := r.path(byID, n)
		r.byPath[path] = append(r.byPath[path], Node{
			ID: n.ID, Group: group, Phase: n.Phase, Code: n.Error.GetCode(), Target: n.Target, DeckURI: n.DeckURI,
			Cache: n.Cache, Checkpoint: n.Metadata.GetCheckpointUri(),
		})
	}
	for _, same := range r.byPath {
		// A node that succeeded in any attempt of its parent counts first, then the node of the latest attempt.
		slices.SortFunc(same, func(a, b Node) int {
			if aloft.Succeeded(a.Phase) != aloft.Succeeded(b.Phase) {
				if aloft.Succeeded(a.Phase) {
					return -1
				}
				return 1
			}
			return b.Group - a.Group
		})
	}
	return r
}

func (r *Run) path(byID map[aloft.NodeID]*store.Node, n *store.Node) Path {
	if path, known := r.paths[n.ID]; known {
		return path
	}
	var path Path
	if parent := byID[n.Parent]; parent != nil {
		path = r.path(byID, parent)
	}
	path = path.Join(n.SpecNodeID)
	r.paths[n.ID] = path
	return path
}

// Decision is the decision about one node of the target. Without Take and Enter the node runs.
type Decision struct {
	Take       bool   // the results of Source are taken over, and the node does not run
	Enter      bool   // the node contains nodes, each of which has a decision of its own; never together with Take
	Source     Node   // the node of the finished run; zero: there is none
	Checkpoint string // from which the first attempt may go on; empty: none
	Reason     string // for messages
}

// Decide decides about a node of the target graph that is to begin.
func (r *Run) Decide(path Path, node *core.Node) Decision {
	shape := shapeOf(node)
	if shape.never != "" {
		return Decision{Reason: shape.never}
	}
	same := r.byPath[path]
	if len(same) == 0 {
		return Decision{Enter: shape.contains, Reason: "it had not begun"}
	}
	found := same[0]
	if was := found.Target; was != nil && shape.target != nil && !sameVersion(was, shape.target) {
		return Decision{Enter: shape.contains, Source: found, Reason: fmt.Sprintf("it ran %s there and is to run %s", versionText(was), versionText(shape.target))}
	}
	if aloft.Succeeded(found.Phase) {
		reason := "it had succeeded"
		if found.Phase == core.NodeExecution_RECOVERED {
			reason = "it had been recovered"
		}
		return Decision{Take: true, Source: found, Reason: reason}
	}
	d := Decision{Enter: shape.contains, Source: found, Reason: unfinishedReason(found)}
	if d.Enter {
		return d
	}
	for _, n := range same {
		if d.Checkpoint = n.Checkpoint; d.Checkpoint != "" {
			d.Reason += ", and left a checkpoint"
			break
		}
	}
	return d
}

// Again is the decision about a node that was to be taken over but whose results are not all there: problem says what is lost.
// A node that contains nodes is entered, so that the nodes inside whose results are there are taken over.
func (d Decision) Again(node *core.Node, problem string) Decision {
	return Decision{Enter: shapeOf(node).contains, Source: d.Source, Reason: d.Reason + ", but " + problem}
}

// unfinishedReason says in which phase a node was that had not succeeded.
func unfinishedReason(n Node) string {
	switch n.Phase {
	case core.NodeExecution_FAILED, core.NodeExecution_FAILING:
		if n.Code != "" {
			return "it had failed: " + n.Code
		}
		return "it had failed"
	case core.NodeExecution_ABORTED:
		return "it had been aborted"
	case core.NodeExecution_SKIPPED:
		return "it had been skipped"
	case core.NodeExecution_TIMED_OUT:
		return "it had timed out"
	}
	return "it had not finished"
}

// shape is all that a decision needs to know about the kind of a node. A new kind of node is added in shapeOf alone.
type shape struct {
	target   *core.Identifier // the task, sub-workflow or launch plan that the node runs; nil: none of these
	contains bool             // the node contains nodes, which are decided one by one if it had not finished as a whole
	never    string           // why such a node is never taken over; empty: it may be
}

func shapeOf(n *core.Node) shape {
	switch target := n.GetTarget().(type) {
	case *core.Node_TaskNode:
		return shape{target: target.TaskNode.GetReferenceId()}
	case *core.Node_WorkflowNode:
		if sub := target.WorkflowNode.GetSubWorkflowRef(); sub != nil {
			return shape{target: sub, contains: true}
		}
		return shape{target: target.WorkflowNode.GetLaunchplanRef()}
	case *core.Node_BranchNode, *core.Node_ArrayNode:
		return shape{contains: true}
	case *core.Node_GateNode:
		return shape{}
	}
	return shape{never: "it begins or ends a graph"}
}

func sameVersion(a, b *core.Identifier) bool {
	return a.GetProject() == b.GetProject() && a.GetDomain() == b.GetDomain() && a.GetName() == b.GetName() && a.GetVersion() == b.GetVersion()
}

func versionText(id *core.Identifier) string { return id.GetName() + " " + id.GetVersion() }

// Step is one node of a plan.
type Step struct {
	Path Path
	Name string // that the author gave the node
	Decision
}

// Plan is what a recovery will do, node by node in the order of the graphs. A node that is entered has no step of its own, but its
// nodes have. Failure nodes have no step, because they run only if the recovery fails.
type Plan struct{ Steps []Step }

// Reused is the number of steps whose results are taken over.
func (p *Plan) Reused() int {
	n := 0
	for _, s := range p.Steps {
		if s.Take {
			n++
		}
	}
	return n
}

// Runs is the number of steps that run.
func (p *Plan) Runs() int { return len(p.Steps) - p.Reused() }

// NewPlan decides about every node of the target, which may be of another version than the run. lost has the finished nodes whose
// results are not all there any more, with a text about what is lost.
func NewPlan(run *Run, target *core.CompiledWorkflowClosure, lost map[aloft.NodeID]string) *Plan {
	subs := make(map[aloft.Key]*core.WorkflowTemplate, len(target.GetSubWorkflows()))
	for _, sub := range target.GetSubWorkflows() {
		subs[aloft.KeyOf(sub.GetTemplate().GetId())] = sub.GetTemplate()
	}
	p := &Plan{}
	p.add(run, subs, lost, "", target.GetPrimary().GetTemplate())
	return p
}

func (p *Plan) add(run *Run, subs map[aloft.Key]*core.WorkflowTemplate, lost map[aloft.NodeID]string, at Path, graph *core.WorkflowTemplate) {
	for _, n := range graph.GetNodes() {
		if n.GetId() != aloft.StartNode && n.GetId() != aloft.EndNode {
			p.addNode(run, subs, lost, at, n)
		}
	}
}

func (p *Plan) addNode(run *Run, subs map[aloft.Key]*core.WorkflowTemplate, lost map[aloft.NodeID]string, at Path, n *core.Node) {
	path := at.Join(n.GetId())
	d := run.Decide(path, n)
	if problem := lost[d.Source.ID]; d.Take && problem != "" {
		d = d.Again(n, problem)
	}
	if sub := subs[aloft.KeyOf(n.GetWorkflowNode().GetSubWorkflowRef())]; d.Enter && sub != nil {
		p.add(run, subs, lost, path, sub)
		return
	}
	if d.Enter {
		// Of the arms of a branch only one runs. That is the one which the run had taken, unless its conditions have other values now.
		for _, arm := range nodes.Arms(n.GetBranchNode()) {
			if arm != nil && len(run.byPath[path.Join(arm.GetId())]) > 0 {
				p.addNode(run, subs, lost, path, arm)
				return
			}
		}
	}
	p.Steps = append(p.Steps, Step{Path: path, Name: n.GetMetadata().GetName(), Decision: d})
}
