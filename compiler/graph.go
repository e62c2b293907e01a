package compiler

import (
	"iter"
	"slices"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// producers are the ids of the nodes that a binding takes values from.
func producers(data *core.BindingData) iter.Seq[string] {
	return func(yield func(string) bool) { yieldProducers(data, yield, 0) }
}

func yieldProducers(data *core.BindingData, yield func(string) bool, depth int) bool {
	if depth > literal.MaxDepth {
		return true
	}
	switch v := data.GetValue().(type) {
	case *core.BindingData_Promise:
		return yield(v.Promise.GetNodeId())
	case *core.BindingData_Collection:
		for _, e := range v.Collection.GetBindings() {
			if !yieldProducers(e, yield, depth+1) {
				return false
			}
		}
	case *core.BindingData_Map:
		for _, e := range v.Map.GetBindings() {
			if !yieldProducers(e, yield, depth+1) {
				return false
			}
		}
	}
	return true
}

// connect adds the edges: stated ones, one for each promise in a binding, and, for every node without an upstream or downstream
// edge, one from the start node or to the end node. The failure node gets upstream edges only, because it runs only when the
// execution has failed.
func (g *graph) connect() {
	edge := func(from, to *node) {
		to.upstream = append(to.upstream, from.GetId())
		if to != g.failure {
			from.downstream = append(from.downstream, to.GetId())
		}
	}
	before := func(n *node, f func(from *node)) {
		for _, id := range n.GetUpstreamNodeIds() {
			from, ok := g.nodes[id]
			if !ok {
				g.errs.add(NodeReferenceNotFound, id, "Referenced node [%s] not found: node [%s] names it in upstream_node_ids.", id, n.GetId())
				continue
			}
			f(from)
		}
		for _, b := range n.GetInputs() {
			for id := range producers(b.GetBinding()) {
				if from, ok := g.nodes[id]; ok {
					f(from)
				}
			}
		}
	}
	incoming := func(n *node) { before(n, func(from *node) { edge(from, n) }) }
	for _, n := range g.order {
		incoming(n)
		// The node of an arm has upstream edges only: it is waited for by its branch.
		n.inArms(func(arm *node) {
			before(arm, func(from *node) {
				arm.upstream = append(arm.upstream, from.GetId())
				from.needed = append(from.needed, n.GetId())
			})
			arm.upstream = unique(arm.upstream)
		})
	}
	incoming(g.end)
	if g.failure != nil {
		incoming(g.failure)
	}
	for _, n := range g.order {
		if len(n.upstream) == 0 {
			edge(g.start, n)
		}
		if len(n.downstream) == 0 {
			edge(n, g.end)
		}
	}
	if len(g.end.upstream) == 0 {
		edge(g.start, g.end)
	}
	for _, n := range g.nodes {
		n.upstream, n.downstream, n.needed = unique(n.upstream), unique(n.downstream), unique(n.needed)
	}
	if g.failure != nil {
		g.failure.upstream = unique(g.failure.upstream)
	}
}

func unique(ids []string) []string {
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (g *graph) connections() *core.ConnectionSet {
	set := &core.ConnectionSet{
		Downstream: make(map[string]*core.ConnectionSet_IdList, len(g.nodes)),
		Upstream:   make(map[string]*core.ConnectionSet_IdList, len(g.nodes)),
	}
	add := func(n *node) {
		if len(n.upstream) > 0 {
			set.Upstream[n.GetId()] = &core.ConnectionSet_IdList{Ids: n.upstream}
		}
		if len(n.downstream) > 0 {
			set.Downstream[n.GetId()] = &core.ConnectionSet_IdList{Ids: n.downstream}
		}
	}
	for _, n := range g.nodes {
		add(n)
		n.inArms(add)
	}
	if g.failure != nil {
		add(g.failure)
	}
	return set
}

// checkReachability checks that the graph has no cycle and that the start node leads to every node. It walks depth first, in
// the order of ids, with a stack of its own, because a chain may have as many nodes as a workflow.
func (g *graph) checkReachability() {
	type step struct {
		node  *node
		after []string // nodes that come after it
		next  int
	}
	enter := func(n *node) step {
		if len(n.needed) == 0 {
			return step{node: n, after: n.downstream}
		}
		// An arm that is taken keeps its branch from ending before the nodes that it takes values from.
		return step{node: n, after: unique(slices.Concat(n.downstream, n.needed))}
	}
	const (
		open = iota + 1
		done
	)
	state := make(map[*node]int, len(g.nodes))
	stack := []step{enter(g.start)}
	state[g.start] = open
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next == len(top.after) {
			state[top.node] = done
			stack = stack[:len(stack)-1]
			continue
		}
		next := g.nodes[top.after[top.next]]
		top.next++
		switch state[next] {
		case open:
			path := make([]string, 0, len(stack)+1)
			for _, s := range stack {
				path = append(path, s.node.GetId())
			}
			g.errs.add(CycleDetected, aloft.StartNode, "A cycle has been detected while traversing the Workflow [%s].", shorten(append(path, next.GetId()), ">"))
			return
		case 0:
			state[next] = open
			stack = append(stack, enter(next))
		}
	}
	var lost []string
	for _, n := range g.order {
		if state[n] == 0 {
			lost = append(lost, n.GetId())
		}
	}
	if len(lost) == 0 {
		return
	}
	slices.Sort(lost)
	g.errs.add(UnreachableNodes, aloft.StartNode, "The Workflow contain unreachable nodes [%s]. They wait for each other: %s.",
		shorten(lost, ","), shorten(g.findCycle(g.nodes[lost[0]], func(n *node) bool { return state[n] == 0 }), ">"))
}

// findCycle finds nodes that wait for each other. It goes upstream from a node n that cannot be reached (lost), through lost
// nodes only. This always ends in a cycle: a lost node has a lost upstream node, because a node without upstream has an edge
// from the start node.
func (g *graph) findCycle(n *node, lost func(*node) bool) []string {
	seen := make(map[*node]int)
	var path []string
	for {
		if at, ok := seen[n]; ok {
			circle := append(slices.Clone(path[at:]), path[at])
			slices.Reverse(circle) // the path was walked against the edges
			return circle
		}
		seen[n] = len(path)
		path = append(path, n.GetId())
		i := slices.IndexFunc(n.upstream, func(id string) bool { return lost(g.nodes[id]) })
		if i < 0 {
			return path
		}
		n = g.nodes[n.upstream[i]]
	}
}

// shorten joins ids and leaves out the middle of a long list.
func shorten(ids []string, separator string) string {
	const keep = 20
	if len(ids) > 2*keep {
		ids = slices.Concat(ids[:keep], []string{"…"}, ids[len(ids)-keep:])
	}
	return strings.Join(ids, separator)
}
