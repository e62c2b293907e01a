package sqlstore

import (
	"context"
	"errors"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/store"
)

// executionsWhere adds the condition of the index executions_created (number > 0), unless the query is about tags, which have
// their own index.
func executionsWhere(q store.Query) (string, []any, error) {
	var conditions []condition
	if !executionEntity.tagged(q) {
		conditions = append(conditions, condition{"e.number > 0", nil})
	}
	if q.After != nil {
		behind := "<"
		if q.Ascending {
			behind = ">"
		}
		conditions = append(conditions, condition{"(e.created_at, e.number) " + behind + " (?, ?)", []any{nanos(q.After.CreatedAt), int64(q.After.Key)}})
	}
	return executionEntity.where(q, conditions...)
}

// ListExecutions lists executions without inputs and outputs.
func (s *Store) ListExecutions(ctx context.Context, q store.Query) ([]*store.Execution, error) {
	if p := s.newWalkedList(q); p != nil {
		return s.listWalked(ctx, p)
	}
	where, args, err := executionsWhere(q)
	if err != nil {
		return nil, err
	}
	var recs []*store.Execution
	err = s.list(ctx, len(q.Filters) == 0, listExecutions+where, args, q.Budget, func(scan scan) error {
		rec, err := scanExecution(scan)
		if err == nil {
			recs = append(recs, rec)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return recs, nil
}

// ListNodes lists the nodes of an execution: all, or the children of one (or the top level).
func (s *Store) ListNodes(ctx context.Context, id aloft.ExecutionID, parent aloft.NodeID, all bool, q store.Query) ([]*store.Node, error) {
	key, err := s.key(ctx, id)
	if err != nil {
		return nil, err
	}
	conditions := []condition{{"n.execution = ?", []any{key}}}
	if !all {
		conditions = append(conditions, condition{"COALESCE(n.parent, '') = ?", []any{string(parent)}})
	}
	rest, asked, wrong := splitTexts(&nodeEntity, q, nodeTexts)
	where, args, err := nodeEntity.where(rest, conditions...)
	if err := errors.Join(wrong, err); err != nil {
		return nil, err
	}
	var recs []*store.Node
	err = s.list(ctx, len(q.Filters) == 0, listNodes+where, args, rest.Budget, func(scan scan) error {
		rec, err := scanNode(scan)
		if err == nil {
			recs = append(recs, rec)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return asked.apply(recs), nil
}

// ListAttempts lists the attempts of an execution or of one node.
func (s *Store) ListAttempts(ctx context.Context, id aloft.ExecutionID, node aloft.NodeID, q store.Query) ([]*store.Attempt, error) {
	key, err := s.key(ctx, id)
	if err != nil {
		return nil, err
	}
	conditions := []condition{{"a.execution = ?", []any{key}}}
	if node != "" {
		conditions = append(conditions, condition{"a.node = ?", []any{string(node)}})
	}
	rest, asked, wrong := splitTexts(&attemptEntity, q, attemptTexts)
	where, args, err := attemptEntity.where(rest, conditions...)
	if err := errors.Join(wrong, err); err != nil {
		return nil, err
	}
	recs, err := s.attempts(ctx, rest.Budget, len(q.Filters) == 0, where, args...)
	if err != nil {
		return nil, err
	}
	for _, a := range recs {
		a.Objects = nil // lists leave out what can be large
	}
	return asked.apply(recs), nil
}

// versionsCondition is the condition of the indexes of versions in the order of their registration.
func versionsCondition(e *entity) condition { return condition{e.number + " > 0", nil} }

// ListTasks lists versions of tasks.
func (s *Store) ListTasks(ctx context.Context, q store.Query) ([]*store.Task, error) {
	where, args, err := taskEntity.where(q, versionsCondition(&taskEntity))
	if err != nil {
		return nil, err
	}
	return s.tasks(ctx, q.Budget, len(q.Filters) == 0, where, args...)
}

// ListWorkflows lists versions of workflows without their graphs.
func (s *Store) ListWorkflows(ctx context.Context, q store.Query) ([]*store.Workflow, error) {
	where, args, err := workflowEntity.where(q, versionsCondition(&workflowEntity))
	if err != nil {
		return nil, err
	}
	return s.workflows(ctx, q.Budget, len(q.Filters) == 0, "summary", where, args...)
}

// ListLaunchPlans lists versions of launch plans.
func (s *Store) ListLaunchPlans(ctx context.Context, q store.Query) ([]*store.LaunchPlan, error) {
	where, args, err := launchPlanEntity.where(q, versionsCondition(&launchPlanEntity))
	if err != nil {
		return nil, err
	}
	return s.launchPlans(ctx, q.Budget, len(q.Filters) == 0, where, args...)
}

// ListProjects lists projects, by identifier unless another order is asked for.
func (s *Store) ListProjects(ctx context.Context, q store.Query) ([]*admin.Project, error) {
	if q.SortBy == "" {
		q.SortBy, q.Ascending = "identifier", true
	}
	where, args, err := projectEntity.where(q)
	if err != nil {
		return nil, err
	}
	return s.projects(ctx, len(q.Filters) == 0, where, args...)
}
