package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// checkQuery refuses filters and orders, which lists here do not know: a list that ignored a filter would be wrong.
func checkQuery(q store.Query) error {
	if len(q.Filters) > 0 || q.SortBy != "" && q.SortBy != "created_at" {
		return fmt.Errorf("list: the store in memory has no filters and no order but that of creation: %w", aloft.ErrUnimplemented)
	}
	return nil
}

// sortByCreation sorts rows, which are in the order in which they were written, by their time of creation; rows with equal
// times stay in that order. Then it puts the newest first unless the query is ascending.
func sortByCreation[T any](rows []T, q store.Query, at func(T) time.Time) []T {
	slices.SortStableFunc(rows, func(a, b T) int { return at(a).Compare(at(b)) })
	return inOrder(rows, q)
}

// inOrder puts rows, which are in ascending order, into the order of the query: the newest first unless it is ascending.
func inOrder[T any](rows []T, q store.Query) []T {
	if !q.Ascending {
		slices.Reverse(rows)
	}
	return rows
}

// GetExecution returns one execution with inputs and outputs.
func (s *Store) GetExecution(_ context.Context, id aloft.ExecutionID) (rec *store.Execution, err error) {
	err = s.do("GetExecution", func() ([]store.Topic, error) {
		e := s.byID[id]
		if e == nil {
			return nil, missingExecution(id)
		}
		rec = cloneExecution(&e.rec, true)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

func (s *Store) node(id aloft.ExecutionID, node aloft.NodeID) (*store.Node, error) {
	if e := s.byID[id]; e != nil && e.nodes[node] != nil {
		return e.nodes[node], nil
	}
	return nil, fmt.Errorf("node execution %s/%s: %w", id, node, aloft.ErrNotFound)
}

// GetNode returns one node execution with inputs and outputs.
func (s *Store) GetNode(_ context.Context, id aloft.ExecutionID, node aloft.NodeID) (rec *store.Node, err error) {
	err = s.do("GetNode", func() ([]store.Topic, error) {
		n, err := s.node(id, node)
		if err != nil {
			return nil, err
		}
		rec = cloneNode(n, true)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// GetAttempt returns one attempt.
func (s *Store) GetAttempt(_ context.Context, id aloft.AttemptID) (rec *store.Attempt, err error) {
	err = s.do("GetAttempt", func() ([]store.Topic, error) {
		if e := s.byID[id.Execution]; e != nil {
			if try := e.attempts[attemptName{id.Node, id.Attempt}]; try != nil {
				rec = cloneAttempt(&try.rec, true)
				return nil, nil
			}
		}
		return nil, fmt.Errorf("task execution %s: %w", id, aloft.ErrNotFound)
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// behind says whether an execution comes after the position where a list begins.
func behind(q store.Query, e *store.Execution) bool {
	if q.After == nil {
		return true
	}
	order := cmp.Or(e.CreatedAt.Compare(q.After.CreatedAt), cmp.Compare(e.Key, q.After.Key))
	return q.Ascending && order > 0 || !q.Ascending && order < 0
}

// ListExecutions lists executions.
func (s *Store) ListExecutions(_ context.Context, q store.Query) (recs []*store.Execution, err error) {
	err = s.do("ListExecutions", func() ([]store.Topic, error) {
		if err := checkQuery(q); err != nil {
			return nil, err
		}
		var found []*execution
		for _, e := range s.executions {
			if matchesName(q, e.rec.ID.Project, e.rec.ID.Domain, e.rec.ID.Name) && behind(q, &e.rec) {
				found = append(found, e)
			}
		}
		recs = nil
		for _, e := range page(sortByCreation(found, q, func(e *execution) time.Time { return e.rec.CreatedAt }), q) {
			recs = append(recs, cloneExecution(&e.rec, false))
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return recs, nil
}

// ListNodes lists the nodes of an execution: all, or the children of one (or the top level).
func (s *Store) ListNodes(_ context.Context, id aloft.ExecutionID, parent aloft.NodeID, all bool, q store.Query) (recs []*store.Node, err error) {
	err = s.do("ListNodes", func() ([]store.Topic, error) {
		if err := checkQuery(q); err != nil {
			return nil, err
		}
		e := s.byID[id]
		if e == nil {
			return nil, missingExecution(id)
		}
		var found []*store.Node
		for _, node := range e.order {
			if n := e.nodes[node]; all || n.Parent == parent {
				found = append(found, n)
			}
		}
		recs = nil
		for _, n := range page(sortByCreation(found, q, func(n *store.Node) time.Time { return n.CreatedAt }), q) {
			recs = append(recs, cloneNode(n, false))
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return recs, nil
}

// ListAttempts lists the attempts of an execution or of one node.
func (s *Store) ListAttempts(_ context.Context, id aloft.ExecutionID, node aloft.NodeID, q store.Query) (recs []*store.Attempt, err error) {
	err = s.do("ListAttempts", func() ([]store.Topic, error) {
		if err := checkQuery(q); err != nil {
			return nil, err
		}
		e := s.byID[id]
		if e == nil {
			return nil, missingExecution(id)
		}
		var found []*attempt
		for _, try := range e.tries {
			if node == "" || try.rec.Node == node {
				found = append(found, try)
			}
		}
		recs = nil
		for _, try := range page(sortByCreation(found, q, func(a *attempt) time.Time { return a.rec.CreatedAt }), q) {
			recs = append(recs, cloneAttempt(&try.rec, false))
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return recs, nil
}

// NodeValues returns several nodes with inputs and outputs.
func (s *Store) NodeValues(_ context.Context, id aloft.ExecutionID, nodes []aloft.NodeID) (found []*store.Node, err error) {
	err = s.do("NodeValues", func() ([]store.Topic, error) {
		e := s.byID[id]
		if e == nil {
			return nil, missingExecution(id)
		}
		found = nil
		for _, node := range nodes {
			if n := e.nodes[node]; n != nil {
				found = append(found, cloneNode(n, true))
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// NodeInputs is what an executor hands to a task.
func (s *Store) NodeInputs(_ context.Context, key store.Key, node aloft.NodeID) (*aloftv1.Literals, error) {
	return s.literals("NodeInputs", key, node, func(n *store.Node) *aloftv1.Literals { return n.Inputs })
}

// NodeOutputs is what downstream nodes bind to.
func (s *Store) NodeOutputs(_ context.Context, key store.Key, node aloft.NodeID) (*aloftv1.Literals, error) {
	return s.literals("NodeOutputs", key, node, func(n *store.Node) *aloftv1.Literals { return n.Outputs })
}

func (s *Store) literals(op string, key store.Key, node aloft.NodeID, of func(*store.Node) *aloftv1.Literals) (l *aloftv1.Literals, err error) {
	err = s.do(op, func() ([]store.Topic, error) {
		if e := s.find(key); e != nil && e.nodes[node] != nil {
			if found := of(e.nodes[node]); found != nil {
				l = clone(found)
				return nil, nil
			}
		}
		return nil, fmt.Errorf("%s of node %s of execution with key %d: %w", op, node, key, aloft.ErrNotFound)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ListTasks lists tasks.
func (s *Store) ListTasks(_ context.Context, q store.Query) ([]*store.Task, error) {
	return list(s, "ListTasks", core.ResourceType_TASK, q, func(v aloft.Key) *store.Task { return cloneTask(s.tasks[v]) })
}

// ListWorkflows lists workflows.
func (s *Store) ListWorkflows(_ context.Context, q store.Query) ([]*store.Workflow, error) {
	return list(s, "ListWorkflows", core.ResourceType_WORKFLOW, q, func(v aloft.Key) *store.Workflow {
		w := cloneWorkflow(s.workflows[v])
		w.Compiled = store.WorkflowInterface(w.Compiled)
		return w
	})
}

// ListLaunchPlans lists launch plans.
func (s *Store) ListLaunchPlans(_ context.Context, q store.Query) ([]*store.LaunchPlan, error) {
	return list(s, "ListLaunchPlans", core.ResourceType_LAUNCH_PLAN, q, func(v aloft.Key) *store.LaunchPlan { return cloneLaunchPlan(s.launchPlans[v]) })
}

func list[T any](s *Store, op string, kind core.ResourceType, q store.Query, get func(aloft.Key) T) (recs []T, err error) {
	err = s.do(op, func() ([]store.Topic, error) {
		if err := checkQuery(q); err != nil {
			return nil, err
		}
		recs = nil
		for _, v := range page(inOrder(s.versions(kind, q), q), q) {
			recs = append(recs, get(v))
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return recs, nil
}

func (s *Store) versions(kind core.ResourceType, q store.Query) (found []aloft.Key) {
	for _, v := range s.registered {
		if v.Kind == kind && matchesName(q, v.Project, v.Domain, v.Name) {
			found = append(found, v)
		}
	}
	return found
}

// ListProjects lists projects by identifier.
func (s *Store) ListProjects(_ context.Context, q store.Query) (recs []*admin.Project, err error) {
	err = s.do("ListProjects", func() ([]store.Topic, error) {
		if err := checkQuery(q); err != nil {
			return nil, err
		}
		var ids []string
		for id := range s.projects {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		recs = nil
		for _, id := range page(ids, q) {
			recs = append(recs, clone(s.projects[id]))
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return recs, nil
}
