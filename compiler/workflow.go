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

// Request has all that a workflow is compiled from.
type Request struct {
	ID           *core.Identifier         // under which the workflow is registered, in place of the template's; nil: the template's
	Template     *core.WorkflowTemplate   // is not changed
	SubWorkflows []*core.WorkflowTemplate // sub-workflows of the workflow and of each other; each is compiled once, when it is reached
	Tasks        []*core.CompiledTask     // at least those that Requirements names; the closure shares their memory
}

// CompileWorkflow compiles a workflow with its sub-workflows. The error is an Errors with all mistakes.
func CompileWorkflow(request Request) (*core.CompiledWorkflowClosure, error) {
	b := &compilation{
		tasks:      make(map[aloft.Key]*core.CompiledTask, len(request.Tasks)),
		interfaces: make(map[*core.TypedInterface]nodeInterface),
		subs:       make(map[aloft.Key]*core.WorkflowTemplate, len(request.SubWorkflows)),
		compiled:   make(map[aloft.Key]*subWorkflow),
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

// compilation is one call of CompileWorkflow: the entities to which nodes may refer, and the mistakes so far.
type compilation struct {
	tasks      map[aloft.Key]*core.CompiledTask
	interfaces map[*core.TypedInterface]nodeInterface // of tasks and sub-workflows, computed once for all nodes that run them
	subs       map[aloft.Key]*core.WorkflowTemplate
	compiled   map[aloft.Key]*subWorkflow
	errs       Errors
}

// subWorkflow is a sub-workflow that was reached. It is entered before it is compiled, so that one that calls itself is found.
type subWorkflow struct {
	compiled   *core.CompiledWorkflow
	nodes      int // that one run has, with those of the sub-workflows that it calls, once per call
	inProgress bool
}

func (b *compilation) nodeInterface(i *core.TypedInterface) nodeInterface {
	f, ok := b.interfaces[i]
	if !ok {
		f = nodeInterfaceOf(i)
		b.interfaces[i] = f
	}
	return f
}

// references checks that the request has all tasks and sub-workflows to which nodes refer, and returns the tasks, sorted. If one is
// missing, the compilation ends, because later messages would only be consequences.
func (b *compilation) references(template *core.WorkflowTemplate, subs []*core.WorkflowTemplate) []*core.CompiledTask {
	s := newReferenceScan()
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
func (b *compilation) subWorkflow(id *core.Identifier, depth int) (*core.TypedInterface, int) {
	template, ok := b.subs[aloft.KeyOf(id)]
	if !ok {
		return nil, 0 // references did not look so deep; the caller reports the mistake
	}
	done, ok := b.compiled[aloft.KeyOf(id)]
	if !ok {
		done = &subWorkflow{inProgress: true}
		b.compiled[aloft.KeyOf(id)] = done
		outer := b.errs
		b.errs = nil
		done.compiled, done.nodes = b.workflow(proto.CloneOf(template), depth+1)
		for i := range b.errs {
			b.errs[i].Workflow = cmp.Or(b.errs[i].Workflow, id.GetName())
		}
		b.errs = append(outer, b.errs...)
		done.inProgress = false
	} else if done.inProgress {
		b.errs.add(CycleDetected, id.GetName(), "Sub-workflow [%s] calls itself, directly or through another.", describe(id))
	}
	return template.GetInterface(), done.nodes
}

// workflow compiles one template, which it changes, and returns the number of nodes that one run of it has.
func (b *compilation) workflow(t *core.WorkflowTemplate, depth int) (*core.CompiledWorkflow, int) {
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
	g := &graph{compilation: b, template: t, depth: depth, nodes: make(map[string]*node, len(t.GetNodes())+2)}
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

// graph is one workflow or sub-workflow while it is compiled.
type graph struct {
	*compilation
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

// node is a node while its workflow is compiled.
type node struct {
	*core.Node
	nodeInterface
	unknown    bool              // its target is not known, so its inputs and outputs are not checked
	aliases    map[string]string // alias → output
	upstream   []string
	downstream []string
	arms       []*node  // of a branch: the nodes of its arms
	needed     []string // branches of which an arm takes a value from the node
}

// nodeInterface are the inputs and outputs of a node, which are those of its target.
type nodeInterface struct {
	inputs, outputs map[string]*core.Variable
	required        []string // the inputs that must be bound
}

func nodeInterfaceOf(i *core.TypedInterface) nodeInterface {
	f := nodeInterface{inputs: i.GetInputs().GetVariables(), outputs: i.GetOutputs().GetVariables()}
	for name, variable := range f.inputs {
		if !literal.Optional(variable.GetType()) {
			f.required = append(f.required, name)
		}
	}
	return f
}

// addUserNodes adds the nodes of the template but for a start and an end node, which a template has that was compiled before.
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

// checkNodeID limits the id of a node to characters that can be part of a path and of a name in a cluster. The ids that
// flytekit makes have even fewer: flytekit replaces other characters.
func checkNodeID(errs *Errors, id string) {
	if id != "" && !nodeID.MatchString(id) {
		errs.add(InvalidValue, id, "Invalid value for id: the id of node [%q] has other characters than letters, digits, '-', '_' and '.', or does not begin with a letter or digit.", aloft.Excerpt(id))
	}
}

// prepare checks and completes the parts of a node that do not depend on its target.
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
	g.start = &node{Node: &core.Node{Id: aloft.StartNode}, nodeInterface: nodeInterface{outputs: g.template.GetInterface().GetInputs().GetVariables()}}
	for _, b := range g.template.GetOutputs() {
		nameStartNode(b.GetBinding(), 0)
	}
	g.end = &node{
		Node:          &core.Node{Id: aloft.EndNode, Inputs: g.template.GetOutputs()},
		nodeInterface: nodeInterfaceOf(&core.TypedInterface{Inputs: g.template.GetInterface().GetOutputs()}),
	}
	g.nodes[aloft.StartNode], g.nodes[aloft.EndNode] = g.start, g.end
	all := make([]*core.Node, 0, len(g.order)+2)
	all = append(all, g.start.Node, g.end.Node)
	for _, n := range g.order {
		all = append(all, n.Node)
	}
	g.template.Nodes = all
}

// nameStartNode writes the id of the start node into promises that have no node id: they refer to inputs of the workflow.
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
