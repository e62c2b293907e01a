package machine

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Task types that the machine runs by itself.
const (
	TaskSleep = "core-sleep" // over when its one input, a duration, has passed
	TaskEcho  = "echo"       // its outputs are its inputs
)

// Graph is a compiled workflow closure, indexed. It is immutable: all executions of a workflow version share one.
type Graph struct {
	closure *core.CompiledWorkflowClosure
	root    *body
	goOn    bool                      // FAIL_AFTER_EXECUTABLE_NODES_COMPLETE, of the root and so of all scopes, as in Flyte
	ids     []aloft.NodeID            // unique ids of the root scope's nodes, by number
	taken   map[aloft.NodeID]struct{} // the same, to keep those of nested nodes apart
}

// body is nodes that run together: those of one workflow of the closure in the template's order, then the failure node if there
// is one; or the one node of an arm of a branch.
type body struct {
	template  *core.WorkflowTemplate // of the workflow that the nodes belong to
	nodes     []nodeSpec
	byID      map[string]uint32
	end       uint32   // the node whose success is the body's, and whose outputs are its outputs: the end-node, or an arm's node
	failure   uint32   // noIndex: there is no failure node
	producers []uint32 // of an arm: the nodes of the workflow's body that its node waits for; nil: the body is a workflow's
}

// isArm says whether the body is that of an arm: its node's promises refer to the nodes around the branch.
func (b *body) isArm() bool { return b.producers != nil }

// nodeSpec is what is known of a node before anything runs.
type nodeSpec struct {
	node       *core.Node
	kind       Kind
	byEngine   string // TaskSleep or TaskEcho; empty: an executor runs it, or it is no task
	upstream   uint32 // how many nodes must have succeeded before it starts
	downstream []uint32
	iface      *core.TypedInterface
	target     *core.Identifier
	sub        *body   // of a sub-workflow node
	arms       []*body // of a branch node: if, elif …, else; the last one is nil where it fails

	waitingArms []armPath // the arms whose nodes wait for this node

	task          *core.TaskTemplate // the rest is set for task nodes
	maxAttempts   uint32             // by the user's budget
	timeout       time.Duration      // of each attempt; 0: not stated
	interruptible *bool              // nil: as the execution says
	cacheable     bool               // its results may be used again
	stable, spot  *aloftv1.AttemptSpec
}

// noIndex means: there is no such node, scope or attempt.
const noIndex = ^uint32(0)

// NewGraph indexes a closure. The error lists every node that cannot be run and wraps aloft.ErrUnimplemented (a kind of
// node that a later release brings) or aloft.ErrInvalid (the closure is not what a compiler makes), or both.
func NewGraph(c *core.CompiledWorkflowClosure) (*Graph, error) {
	b := builder{
		closure:   c,
		templates: make(map[aloft.Key]*core.CompiledWorkflow),
		tasks:     make(map[aloft.Key]*core.TaskTemplate),
		built:     make(map[aloft.Key]*body),
	}
	for _, w := range c.GetSubWorkflows() {
		b.templates[aloft.KeyOf(w.GetTemplate().GetId())] = w
	}
	for _, t := range c.GetTasks() {
		b.tasks[aloft.KeyOf(t.GetTemplate().GetId())] = t.GetTemplate()
	}
	root := b.workflow(c.GetPrimary())
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	g := &Graph{
		closure: c,
		root:    root,
		goOn:    root.template.GetMetadata().GetOnFailure() == core.WorkflowMetadata_FAIL_AFTER_EXECUTABLE_NODES_COMPLETE,
		ids:     make([]aloft.NodeID, len(root.nodes)),
		taken:   make(map[aloft.NodeID]struct{}, len(root.nodes)),
	}
	for i := range root.nodes {
		id, _ := distinctID("", 0, root.nodes[i].node.GetId(), func(id aloft.NodeID) bool {
			_, taken := g.taken[id]
			return taken
		})
		g.ids[i], g.taken[id] = id, struct{}{}
	}
	return g, nil
}

// builder indexes the workflows that are reached from the primary one, each once, and collects what is wrong.
type builder struct {
	closure   *core.CompiledWorkflowClosure
	templates map[aloft.Key]*core.CompiledWorkflow
	tasks     map[aloft.Key]*core.TaskTemplate
	built     map[aloft.Key]*body // nil value: being built, so meeting it again is a cycle
	errs      []error
}

func (b *builder) workflow(c *core.CompiledWorkflow) *body {
	t := c.GetTemplate()
	w := &body{template: t, byID: make(map[string]uint32, len(t.GetNodes())+1), end: noIndex, failure: noIndex}
	b.built[aloft.KeyOf(t.GetId())] = nil
	nodes := slices.Clone(t.GetNodes())
	if f := t.GetFailureNode(); f != nil {
		w.failure = uint32(len(nodes))
		nodes = append(nodes, f)
	}
	w.nodes = make([]nodeSpec, len(nodes))
	for i, n := range nodes {
		if _, double := w.byID[n.GetId()]; double || n.GetId() == "" {
			b.refuse(w, n, "its id %q is empty or taken by another node", n.GetId())
		}
		w.byID[n.GetId()] = uint32(i)
		w.nodes[i] = b.node(w, n)
	}
	start, ok := w.byID[aloft.StartNode]
	if end, found := w.byID[aloft.EndNode]; found && ok {
		w.end = end
		b.edges(w, c.GetConnections(), start)
	} else {
		b.errs = append(b.errs, fmt.Errorf("workflow %s: it has no %s or no %s: %w", t.GetId().GetName(), aloft.StartNode, aloft.EndNode, aloft.ErrInvalid))
	}
	b.built[aloft.KeyOf(t.GetId())] = w
	return w
}

func (b *builder) node(w *body, n *core.Node) nodeSpec {
	s := nodeSpec{node: n}
	switch target := n.GetTarget().(type) {
	case nil:
		wf := w.template.GetInterface()
		switch n.GetId() {
		case aloft.StartNode:
			s.kind, s.iface = KindStart, &core.TypedInterface{Outputs: wf.GetInputs()}
		case aloft.EndNode:
			s.kind, s.iface = KindEnd, &core.TypedInterface{Inputs: wf.GetOutputs()}
		default:
			b.refuse(w, n, "it has no target")
		}
	case *core.Node_TaskNode:
		b.task(w, n, target.TaskNode, &s)
	case *core.Node_WorkflowNode:
		if lp := target.WorkflowNode.GetLaunchplanRef(); lp != nil {
			b.errs = append(b.errs, nodeError(w, n, fmt.Errorf("a node that runs launch plan %s: %w", lp.GetName(), aloft.ErrUnimplemented)))
			break
		}
		ref := target.WorkflowNode.GetSubWorkflowRef()
		s.kind, s.target = KindWorkflow, ref
		sub, seen := b.built[aloft.KeyOf(ref)]
		switch {
		case seen && sub == nil:
			b.refuse(w, n, "workflow %s contains itself", ref.GetName())
		case !seen && b.templates[aloft.KeyOf(ref)] == nil:
			b.refuse(w, n, "workflow %s is not in the closure", ref.GetName())
		case !seen:
			sub = b.workflow(b.templates[aloft.KeyOf(ref)])
		}
		if sub != nil {
			s.sub, s.iface = sub, sub.template.GetInterface()
		}
	case *core.Node_BranchNode:
		b.branch(w, n, target.BranchNode, &s)
	case *core.Node_GateNode:
		b.errs = append(b.errs, nodeError(w, n, fmt.Errorf("a gate (approve, sleep, wait_for_input): %w", aloft.ErrUnimplemented)))
	case *core.Node_ArrayNode:
		b.errs = append(b.errs, nodeError(w, n, fmt.Errorf("an array (map_task): %w", aloft.ErrUnimplemented)))
	default:
		b.errs = append(b.errs, nodeError(w, n, fmt.Errorf("a node with target %T: %w", target, aloft.ErrUnimplemented)))
	}
	return s
}

func (b *builder) task(w *body, n *core.Node, target *core.TaskNode, s *nodeSpec) {
	id := target.GetReferenceId()
	t := b.tasks[aloft.KeyOf(id)]
	if t == nil {
		b.refuse(w, n, "task %s is not in the closure", id.GetName())
		return
	}
	s.kind, s.task, s.iface, s.target = KindTask, t, t.GetInterface(), id
	if t.GetType() == TaskSleep || t.GetType() == TaskEcho {
		s.byEngine = t.GetType()
	}
	// Flyte: the node's retries if it states any, else the task's.
	s.maxAttempts = cmp.Or(n.GetMetadata().GetRetries().GetRetries(), t.GetMetadata().GetRetries().GetRetries()) + 1
	s.timeout = cmp.Or(n.GetMetadata().GetTimeout().AsDuration(), t.GetMetadata().GetTimeout().AsDuration())
	if v, ok := n.GetMetadata().GetInterruptibleValue().(*core.NodeMetadata_Interruptible); ok {
		s.interruptible = &v.Interruptible
	}
	s.cacheable = t.GetMetadata().GetDiscoverable()
	if v, ok := n.GetMetadata().GetCacheableValue().(*core.NodeMetadata_Cacheable); ok {
		s.cacheable = v.Cacheable // with_overrides(cache=…)
	}
	need, err := demandOf(t.GetContainer().GetResources(), target.GetOverrides().GetResources())
	if err != nil {
		b.refuse(w, n, "task %s: %v", id.GetName(), err)
	}
	spec := func(interruptible bool) *aloftv1.AttemptSpec {
		return &aloftv1.AttemptSpec{
			Task: id, TaskType: t.GetType(), Overrides: target.GetOverrides(),
			SpecNodeId: n.GetId(), NodeName: n.GetMetadata().GetName(), Workflow: b.closure.GetPrimary().GetTemplate().GetId(),
			MilliCpu: need.milliCPU, Memory: need.memory, MemoryLimit: need.memoryLimit, Gpu: need.gpu,
			Interruptible: interruptible,
		}
	}
	s.stable, s.spot = spec(false), spec(true)
}

// edges counts upstreams and lists downstreams, in the template's order. An edge counts no matter where it is stated (the compiler's
// connections, upstream_node_ids, a promise), for a missed one would start a node before its inputs exist. A node without
// any hangs between start-node and end-node, so that the end-node's turn means that all others have succeeded.
func (b *builder) edges(w *body, c *core.ConnectionSet, start uint32) {
	type edge struct{ from, to uint32 }
	var all []edge
	for i := range w.nodes {
		to := uint32(i)
		b.producersOf(w, c, w.nodes[i].node, func(from uint32) { all = append(all, edge{from: from, to: to}) })
	}
	for from, ids := range c.GetDownstream() {
		for _, id := range ids.GetIds() {
			if to, ok := w.byID[id]; ok {
				if from, ok := b.producer(w, w.nodes[to].node, from); ok {
					all = append(all, edge{from: from, to: to})
				}
			}
		}
	}
	// The failure node runs when all other nodes are over: it has no edges.
	all = slices.DeleteFunc(all, func(e edge) bool { return e.to == w.failure })
	has := func(side func(edge) uint32) []bool {
		found := make([]bool, len(w.nodes))
		for _, e := range all {
			found[side(e)] = true
		}
		return found
	}
	before, after := has(func(e edge) uint32 { return e.to }), has(func(e edge) uint32 { return e.from })
	for i := range w.nodes {
		n := uint32(i)
		if n != start && n != w.failure && !before[i] {
			all = append(all, edge{from: start, to: n})
			after[start] = true
		}
	}
	for i := range w.nodes {
		if n := uint32(i); n != w.end && n != w.failure && !after[i] {
			all = append(all, edge{from: n, to: w.end})
		}
	}
	slices.SortFunc(all, func(x, y edge) int { return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to)) })
	all = slices.Compact(all)
	for _, e := range all {
		w.nodes[e.from].downstream = append(w.nodes[e.from].downstream, e.to)
		w.nodes[e.to].upstream++
	}
	arms := make([][]uint32, len(w.nodes)) // by node: the branches of which an arm waits for it
	for i := range w.nodes {
		b.armEdges(w, c, &w.nodes[i], armPath{branch: uint32(i)}, func(from uint32) { arms[from] = append(arms[from], uint32(i)) })
	}
	b.acyclic(w, start, arms)
}

// producersOf calls f with each node that a node of the body, or of an arm in it, depends on; with some more than once.
func (b *builder) producersOf(w *body, c *core.ConnectionSet, n *core.Node, f func(from uint32)) {
	add := func(from string) {
		if i, ok := b.producer(w, n, from); ok {
			f(i)
		}
	}
	for _, from := range n.GetUpstreamNodeIds() {
		add(from)
	}
	for _, from := range c.GetUpstream()[n.GetId()].GetIds() {
		add(from)
	}
	for _, binding := range n.GetInputs() {
		promises(binding.GetBinding(), add)
	}
}

// producer is the node of the body that another one depends on.
func (b *builder) producer(w *body, n *core.Node, from string) (uint32, bool) {
	if from == "" { // a promise of a workflow input, before compilation
		from = aloft.StartNode
	}
	i, ok := w.byID[from]
	if !ok || i == w.failure {
		b.refuse(w, n, "it depends on node %q, which does not exist", from)
		return 0, false
	}
	return i, true
}

// acyclic runs the graph with every node succeeding at once: what is left over hangs on a cycle.
//
// An arm is not taken for certain, but if it is its branch is over only after the nodes that it waits for.
func (b *builder) acyclic(w *body, start uint32, arms [][]uint32) {
	missing := make([]uint32, len(w.nodes))
	for i := range w.nodes {
		missing[i] += w.nodes[i].upstream
		for _, branch := range arms[i] {
			missing[branch]++
		}
	}
	if missing[start] > 0 {
		b.refuse(w, w.nodes[start].node, "it depends on other nodes")
		return
	}
	for queue := []uint32{start}; len(queue) > 0; queue = queue[1:] {
		for _, d := range slices.Concat(w.nodes[queue[0]].downstream, arms[queue[0]]) {
			if missing[d]--; missing[d] == 0 {
				queue = append(queue, d)
			}
		}
	}
	for i := range missing {
		if missing[i] > 0 {
			b.refuse(w, w.nodes[i].node, "it can never start: it is on a cycle or behind one")
		}
	}
}

func (b *builder) refuse(w *body, n *core.Node, format string, args ...any) {
	b.errs = append(b.errs, nodeError(w, n, fmt.Errorf(format+": %w", append(args, aloft.ErrInvalid)...)))
}

func nodeError(w *body, n *core.Node, err error) error {
	return fmt.Errorf("node %s of workflow %s: %w", n.GetId(), w.template.GetId().GetName(), err)
}

// promises calls f with the producer of each promise in the binding.
func promises(b *core.BindingData, f func(node string)) {
	switch v := b.GetValue().(type) {
	case *core.BindingData_Promise:
		f(v.Promise.GetNodeId())
	case *core.BindingData_Collection:
		for _, element := range v.Collection.GetBindings() {
			promises(element, f)
		}
	case *core.BindingData_Map:
		for _, element := range v.Map.GetBindings() {
			promises(element, f)
		}
	}
}
