package compiler

import (
	"cmp"
	"regexp"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// Request is all that a workflow is compiled from.
type Request struct {
	ID           *core.Identifier         // the id it is registered under; replaces the template's, nil keeps that
	Template     *core.WorkflowTemplate   // left as it is
	SubWorkflows []*core.WorkflowTemplate // those it calls, and those that they call; each is compiled once, when it is reached
	Tasks        []*core.CompiledTask     // at least those that Requirements names; the closure shares them
}

// CompileWorkflow compiles a workflow with its sub-workflows. The error is an Errors that holds all that is wrong.
func CompileWorkflow(request Request) (*core.CompiledWorkflowClosure, error) {
	b := &build{
		tasks:    make(map[aloft.Key]*core.CompiledTask, len(request.Tasks)),
		faces:    make(map[*core.TypedInterface]face),
		subs:     make(map[aloft.Key]*core.WorkflowTemplate, len(request.SubWorkflows)),
		compiled: make(map[aloft.Key]*subWorkflow),
	}
	if request.Template == nil {
		b.errs.add(ValueRequired, "root", "Value required [template].")
		return nil, b.errs.err()
	}
	for _, t := range request.Tasks {
		b.tasks[aloft.KeyOf(t.GetTemplate().GetId())] = t
	}
	for _, sub := range request.SubWorkflows {
		if _, ok := b.subs[aloft.KeyOf(sub.GetId())]; ok {
			b.errs.add(DuplicateID, sub.GetId().GetName(), "Sub-workflow [%s] is given more than once.", describe(sub.GetId()))
		}
		b.subs[aloft.KeyOf(sub.GetId())] = sub
	}
	template := proto.CloneOf(request.Template)
	if request.ID != nil {
		template.Id = proto.CloneOf(request.ID)
		template.Id.ResourceType = core.ResourceType_WORKFLOW
	}
	tasks := b.references(template, request.SubWorkflows)
	if len(b.errs) > 0 {
		return nil, b.errs.err()
	}
	primary, _ := b.workflow(template, 0)
	if err := b.errs.err(); err != nil {
		return nil, err
	}
	closure := &core.CompiledWorkflowClosure{Primary: primary, Tasks: tasks}
	for _, sub := range b.compiled {
		closure.SubWorkflows = append(closure.SubWorkflows, sub.compiled)
	}
	slices.SortFunc(closure.SubWorkflows, func(a, b *core.CompiledWorkflow) int {
		return compareIDs(a.GetTemplate().GetId(), b.GetTemplate().GetId())
	})
	return closure, nil
}

// build is one compilation: what may be referred to and what was found wrong so far.
type build struct {
	tasks    map[aloft.Key]*core.CompiledTask
	faces    map[*core.TypedInterface]face // of tasks and sub-workflows, worked out once for all nodes that run them
	subs     map[aloft.Key]*core.WorkflowTemplate
	compiled map[aloft.Key]*subWorkflow
	errs     Errors
}

type subWorkflow struct {
	compiled *core.CompiledWorkflow
	nodes    int // with those of the sub-workflows it calls, once per call
	open     bool
}

func (b *build) face(i *core.TypedInterface) face {
	f, ok := b.faces[i]
	if !ok {
		f = faceOf(i)
		b.faces[i] = f
	}
	return f
}

// references checks that everything referred to was given, and returns the tasks among it in order. What is missing makes
// every later message pointless, so compilation ends there.
func (b *build) references(template *core.WorkflowTemplate, subs []*core.WorkflowTemplate) []*core.CompiledTask {
	s := newScan()
	s.template(template)
	for _, sub := range subs {
		s.template(sub)
	}
	var tasks []*core.CompiledTask
	for _, id := range sorted(s.tasks) {
		task, ok := b.tasks[aloft.KeyOf(id)]
		if !ok {
			b.errs.add(TaskReferenceNotFound, aloft.StartNode, "Referenced Task [%s] not found.", describe(id))
			continue
		}
		tasks = append(tasks, task)
	}
	for _, id := range sorted(s.workflows) {
		if _, ok := b.subs[aloft.KeyOf(id)]; !ok {
			b.errs.add(WorkflowReferenceNotFound, aloft.StartNode, "Referenced Workflow [%s] not found.", describe(id))
		}
	}
	return tasks
}

// subWorkflow compiles a sub-workflow when it is reached for the first time and gives its interface and number of nodes.
func (b *build) subWorkflow(id *core.Identifier, depth int) (*core.TypedInterface, int) {
	template, ok := b.subs[aloft.KeyOf(id)]
	if !ok {
		return nil, 0 // a scan that stopped at its depth; the caller reports
	}
	done, ok := b.compiled[aloft.KeyOf(id)]
	if !ok {
		done = &subWorkflow{open: true}
		b.compiled[aloft.KeyOf(id)] = done
		outer := b.errs
		b.errs = nil
		done.compiled, done.nodes = b.workflow(proto.CloneOf(template), depth+1)
		for i := range b.errs {
			b.errs[i].Workflow = cmp.Or(b.errs[i].Workflow, id.GetName())
		}
		b.errs = append(outer, b.errs...)
		done.open = false
	} else if done.open {
		b.errs.add(CycleDetected, id.GetName(), "Sub-workflow [%s] calls itself, directly or through another.", describe(id))
	}
	return template.GetInterface(), done.nodes
}

// workflow compiles one template, which it changes, and counts the nodes that one run of it has.
func (b *build) workflow(t *core.WorkflowTemplate, depth int) (*core.CompiledWorkflow, int) {
	id := describe(t.GetId())
	if depth > literal.MaxDepth {
		b.errs.add(WorkflowBuildError, id, "Sub-workflows are nested deeper than %d levels.", literal.MaxDepth)
		return nil, 0
	}
	if t.GetInterface() == nil {
		b.errs.add(ValueRequired, id, "Value required [interface].")
		return nil, 0
	}
	checkInterface(&b.errs, id, t.GetInterface())
	g := &graph{build: b, template: t, depth: depth, nodes: make(map[string]*node, len(t.GetNodes())+2)}
	g.addUserNodes()
	switch {
	case len(g.order) == 0:
		b.errs.add(NoNodesFound, id, "Can't find any nodes in workflow [%s].", id)
		return nil, 0
	case g.count > aloft.MaxWorkflowNodes:
		b.errs.add(WorkflowBuildError, id, "The workflow has more than %d nodes, with those of its sub-workflows in each place they are called: "+
			"split it into several workflows, or map a task over a list.", aloft.MaxWorkflowNodes)
		return nil, g.count
	}
	g.addStartAndEnd()
	g.addFailureNode()
	g.connect()
	g.checkBindings()
	g.checkReachability()
	return &core.CompiledWorkflow{Template: t, Connections: g.connections()}, g.count
}

// graph is one workflow while it is compiled.
type graph struct {
	*build
	template *core.WorkflowTemplate
	depth    int // of sub-workflows
	nodes    map[string]*node
	order    []*node // the user's nodes as given
	start    *node
	end      *node
	failure  *node
	arms     map[string]bool // ids of the nodes in arms
	count    int             // nodes that one run has
}

// node is a node with what its target says about its inputs and outputs.
type node struct {
	*core.Node
	face
	unknown    bool              // the target could not be used, so nothing is said about inputs and outputs
	aliases    map[string]string // alias → output
	upstream   []string
	downstream []string
	arms       []*node  // of a branch: the nodes of its arms
	needed     []string // branches of which an arm takes a value from the node
}

// face is what a node shows of its target.
type face struct {
	inputs, outputs map[string]*core.Variable
	required        []string // the inputs that must be bound
}

func faceOf(i *core.TypedInterface) face {
	f := face{inputs: i.GetInputs().GetVariables(), outputs: i.GetOutputs().GetVariables()}
	for name, variable := range f.inputs {
		if !literal.Optional(variable.GetType()) {
			f.required = append(f.required, name)
		}
	}
	return f
}

// addUserNodes takes over the user's nodes. A compiled template that is registered again brings its start and end node along.
func (g *graph) addUserNodes() {
	for i, n := range g.template.GetNodes() {
		id := n.GetId()
		switch _, seen := g.nodes[id]; {
		case id == "":
			g.errs.add(ValueRequired, id, "Value required [id] of the node at position %d.", i)
			continue
		case id == aloft.StartNode || id == aloft.EndNode:
			if n.GetTarget() != nil {
				g.errs.add(DuplicateID, id, "Node id [%s] is reserved: name the node otherwise.", id)
			}
			continue
		case seen:
			g.errs.add(DuplicateID, id, "Node id [%s] is used more than once: the ids of nodes are unique in their workflow.", id)
			continue
		}
		c := &node{Node: n}
		g.nodes[id] = c
		g.order = append(g.order, c)
		if len(g.order) > aloft.MaxWorkflowNodes {
			g.count = len(g.order)
			return
		}
	}
	for _, n := range g.order {
		g.count++
		g.target(n)
		g.prepare(n)
		if g.count > aloft.MaxWorkflowNodes {
			return
		}
	}
}

var nodeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// checkNodeID keeps ids of nodes to what can be a part of a path and of a name in a cluster. flytekit's are shorter still: it
// makes names with other characters fit.
func checkNodeID(errs *Errors, id string) {
	if id != "" && !nodeID.MatchString(id) {
		errs.add(InvalidValue, id, "Invalid value for id: the id of node [%q] has other characters than letters, digits, '-', '_' and '.', or does not begin with a letter or digit.", aloft.Excerpt(id))
	}
}

// prepare does what every node needs whatever its target.
func (g *graph) prepare(n *node) {
	id := n.GetId()
	checkNodeID(&g.errs, id)
	for _, b := range n.GetInputs() {
		nameStartNode(b.GetBinding(), 0)
	}
	slices.Sort(n.UpstreamNodeIds)
	checkRetries(&g.errs, id, "metadata.retries", n.GetMetadata().GetRetries())
	checkTimeout(&g.errs, id, "metadata.timeout", n.GetMetadata().GetTimeout())
	checkCacheVersion(&g.errs, id, "metadata.cache_version", n.GetMetadata().GetCacheVersion())
	for _, a := range n.GetOutputAliases() {
		if _, ok := n.aliases[a.GetAlias()]; ok {
			g.errs.add(DuplicateAlias, id, "Duplicate alias [%s] of node [%s].", a.GetAlias(), id)
			continue
		}
		if n.aliases == nil {
			n.aliases = make(map[string]string)
		}
		n.aliases[a.GetAlias()] = a.GetVar()
	}
}

func (g *graph) addStartAndEnd() {
	g.start = &node{Node: &core.Node{Id: aloft.StartNode}, face: face{outputs: g.template.GetInterface().GetInputs().GetVariables()}}
	for _, b := range g.template.GetOutputs() {
		nameStartNode(b.GetBinding(), 0)
	}
	g.end = &node{
		Node: &core.Node{Id: aloft.EndNode, Inputs: g.template.GetOutputs()},
		face: faceOf(&core.TypedInterface{Inputs: g.template.GetInterface().GetOutputs()}),
	}
	g.nodes[aloft.StartNode], g.nodes[aloft.EndNode] = g.start, g.end
	all := make([]*core.Node, 0, len(g.order)+2)
	all = append(all, g.start.Node, g.end.Node)
	for _, n := range g.order {
		all = append(all, n.Node)
	}
	g.template.Nodes = all
}

// nameStartNode writes the start node's id where a promise means an input of the workflow.
func nameStartNode(data *core.BindingData, depth int) {
	if depth > literal.MaxDepth {
		return
	}
	switch v := data.GetValue().(type) {
	case *core.BindingData_Promise:
		if v.Promise != nil && v.Promise.NodeId == "" {
			v.Promise.NodeId = aloft.StartNode
		}
	case *core.BindingData_Collection:
		for _, e := range v.Collection.GetBindings() {
			nameStartNode(e, depth+1)
		}
	case *core.BindingData_Map:
		for _, e := range v.Map.GetBindings() {
			nameStartNode(e, depth+1)
		}
	}
}
