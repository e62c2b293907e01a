package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// The columns of an execution, and statements without and with the columns that lists leave out.
const (
	executionColumns = `e.number, e.shard, e.project, e.domain, e.name, e.journal_version, e.phase, e.created_at, e.started_at, e.updated_at, e.ended_at,
	e.waiting, e.waiting_since, e.waits, e.abort_cause, e.abort_principal, e.state, e.state_changed_at, e.state_principal, e.error,
	x.workflow, x.task, x.notifications, x.spec`
	executionFrom  = ` FROM executions e JOIN execution_specs x ON x.execution = e.number `
	listExecutions = "SELECT " + executionColumns + ", NULL, NULL, NULL" + executionFrom
	oneExecution   = "SELECT " + executionColumns + ", x.inputs, x.user_inputs, e.outputs" + executionFrom
)

func scanExecution(scan scan) (*store.Execution, error) {
	e := new(store.Execution)
	var phase, createdAt, startedAt, updatedAt, endedAt, waitingSince, state, stateChangedAt int64
	var failure, workflow, task, notifications, spec, inputs, userInputs, outputs []byte
	if err := scan(&e.Key, &e.Shard, &e.ID.Project, &e.ID.Domain, &e.ID.Name, &e.JournalVersion, &phase, &createdAt, &startedAt, &updatedAt, &endedAt,
		&e.Waiting, &waitingSince, &e.Waits, &e.AbortCause, &e.AbortPrincipal, &state, &stateChangedAt, &e.StatePrincipal, &failure,
		&workflow, &task, &notifications, &spec, &inputs, &userInputs, &outputs); err != nil {
		return nil, err
	}
	e.Phase, e.State = core.WorkflowExecution_Phase(phase), admin.ExecutionState(state)
	e.CreatedAt, e.StartedAt, e.UpdatedAt, e.EndedAt = instant(createdAt), instant(startedAt), instant(updatedAt), instant(endedAt)
	e.StateChangedAt, e.WaitingSince = instant(stateChangedAt), instant(waitingSince)
	var d decoder
	e.Error = into(&d, new(core.ExecutionError), failure)
	e.Workflow = into(&d, new(core.Identifier), workflow)
	e.Task = into(&d, new(core.Identifier), task)
	e.Notifications = into(&d, new(admin.NotificationList), notifications).GetNotifications()
	e.Spec = into(&d, new(admin.ExecutionSpec), spec)
	e.Inputs = into(&d, new(aloftv1.Literals), inputs)
	e.UserInputs = into(&d, new(aloftv1.Literals), userInputs)
	e.Outputs = into(&d, new(aloftv1.Literals), outputs)
	e.Error, e.Unreadable = d.rowFailure("execution", e.ID, e.Error)
	return e, nil
}

// execution reads one, or nil if there is none.
func (s *Store) execution(ctx context.Context, where string, args ...any) (rec *store.Execution, err error) {
	err = s.read(ctx, true, oneExecution+"WHERE "+where, args, func(scan scan) (err error) {
		rec, err = scanExecution(scan)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// GetExecution returns one execution with inputs and outputs.
func (s *Store) GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error) {
	rec, err := s.execution(ctx, "e.project = ? AND e.domain = ? AND e.name = ?", id.Project, id.Domain, id.Name)
	switch {
	case err != nil:
		return nil, err
	case rec == nil:
		return nil, withoutRefusal(missingExecution(id))
	case rec.Unreadable != nil:
		return nil, rec.Unreadable
	}
	return rec, nil
}

// key finds the number of an execution.
func (s *Store) key(ctx context.Context, id aloft.ExecutionID) (key int64, err error) {
	err = s.read(ctx, true, "SELECT number FROM executions WHERE project = ? AND domain = ? AND name = ?", []any{id.Project, id.Domain, id.Name},
		func(scan scan) error { return scan(&key) })
	if err == nil && key == 0 {
		err = withoutRefusal(missingExecution(id))
	}
	return key, err
}

// SetExecutionState archives an execution or brings it back.
func (s *Store) SetExecutionState(ctx context.Context, id aloft.ExecutionID, state admin.ExecutionState, principal string) error {
	now := time.Now() // for people to read: no decision depends on it
	return s.write(ctx, 1, func(t *tx) error {
		n, err := t.exec("UPDATE executions SET state = ?, state_changed_at = ?, state_principal = ? WHERE project = ? AND domain = ? AND name = ?",
			int64(state), nanos(now), principal, id.Project, id.Domain, id.Name)
		if err == nil && n == 0 {
			return missingExecution(id)
		}
		t.wake(store.TopicExecution(id))
		return err
	})
}

// Counts are of the whole store.
func (s *Store) Counts(ctx context.Context) (counts store.Counts, err error) {
	err = s.read(ctx, true, "SELECT (SELECT COUNT(*) FROM executions), (SELECT COUNT(*) FROM executions WHERE ended = 0), "+countWaits, nil,
		func(scan scan) error {
			return scan(&counts.Executions, &counts.Running, &counts.Waiting, &counts.Waits)
		})
	return counts, err
}

const (
	countWaits  = "COUNT(*), CAST(COALESCE(SUM(waits), 0) AS BIGINT) FROM executions WHERE ended = 0 AND waits > 0"
	selectWaits = `SELECT e.project, e.domain, e.name, e.waits, e.waiting, COALESCE((SELECT n.waiting FROM nodes n WHERE n.execution = e.number
		AND n.ended = 0 AND n.waiting IS NOT NULL LIMIT 1), '') FROM executions e WHERE e.ended = 0 AND e.waits > 0 ORDER BY e.number LIMIT ?`
)

// Waits returns executions that have named external waits.
func (s *Store) Waits(ctx context.Context, limit int) ([]store.Wait, error) {
	var waits []store.Wait
	err := s.read(ctx, true, selectWaits, []any{limitArg(limit)}, func(scan scan) error {
		var w store.Wait
		var node string
		err := scan(&w.Execution.Project, &w.Execution.Domain, &w.Execution.Name, &w.Waits, &w.Reason, &node)
		w.Reason = cmp.Or(w.Reason, node)
		waits = append(waits, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	return waits, nil
}

const (
	nodeColumnsOf = `e.project, e.domain, e.name, n.node, COALESCE(n.parent, ''), COALESCE(n.spec_node_id, ''), COALESCE(n.name, ''),
	COALESCE(n.retry_group, ''), n.flags, n.phase, n.created_at, n.started_at, n.updated_at, n.ended_at, COALESCE(n.deck_uri, ''), n.error, n.target, n.metadata, n.cache,
	COALESCE(n.waiting, ''), n.number`
	nodeFrom  = ` FROM nodes n JOIN executions e ON e.number = n.execution `
	listNodes = "SELECT " + nodeColumnsOf + ", NULL, NULL" + nodeFrom
	oneNode   = "SELECT " + nodeColumnsOf + ", n.inputs, n.outputs" + nodeFrom
)

func scanNode(scan scan) (*store.Node, error) {
	n := new(store.Node)
	var flags, phase, createdAt, startedAt, updatedAt, endedAt int64
	var failure, target, metadata, cache, inputs, outputs []byte
	if err := scan(&n.Execution.Project, &n.Execution.Domain, &n.Execution.Name, &n.ID, &n.Parent, &n.SpecNodeID, &n.Name, &n.RetryGroup, &flags, &phase,
		&createdAt, &startedAt, &updatedAt, &endedAt, &n.DeckURI, &failure, &target, &metadata, &cache, &n.Waiting, &n.Number, &inputs, &outputs); err != nil {
		return nil, err
	}
	n.IsParent, n.IsDynamic, n.IsArray = flags&flagParent != 0, flags&flagDynamic != 0, flags&flagArray != 0
	n.Phase = core.NodeExecution_Phase(phase)
	n.CreatedAt, n.StartedAt, n.UpdatedAt, n.EndedAt = instant(createdAt), instant(startedAt), instant(updatedAt), instant(endedAt)
	var d decoder
	n.Error = into(&d, new(core.ExecutionError), failure)
	n.Target = into(&d, new(core.Identifier), target)
	n.Metadata = into(&d, new(admin.TaskNodeMetadata), metadata)
	n.Cache = into(&d, new(aloftv1.CacheLookup), cache)
	n.Inputs = into(&d, new(aloftv1.Literals), inputs)
	n.Outputs = into(&d, new(aloftv1.Literals), outputs)
	n.Error, n.Unreadable = d.rowFailure("node "+string(n.ID)+" of execution", n.Execution, n.Error)
	return n, nil
}

// GetNode returns one node execution with inputs and outputs.
func (s *Store) GetNode(ctx context.Context, id aloft.ExecutionID, node aloft.NodeID) (n *store.Node, err error) {
	err = s.read(ctx, true, oneNode+"WHERE e.project = ? AND e.domain = ? AND e.name = ? AND n.node = ?", []any{id.Project, id.Domain, id.Name, string(node)},
		func(scan scan) (err error) {
			n, err = scanNode(scan)
			return err
		})
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, fmt.Errorf("node execution %s/%s: %w", id, node, aloft.ErrNotFound)
	}
	if n.Unreadable != nil {
		return nil, n.Unreadable
	}
	return n, nil
}

// GetAttempt returns one attempt.
func (s *Store) GetAttempt(ctx context.Context, id aloft.AttemptID) (*store.Attempt, error) {
	found, err := s.attempts(ctx, nil, true, "WHERE e.project = ? AND e.domain = ? AND e.name = ? AND a.node = ? AND a.attempt = ?",
		id.Execution.Project, id.Execution.Domain, id.Execution.Name, string(id.Node), int64(id.Attempt))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("task execution %s: %w", id, aloft.ErrNotFound)
	}
	return found[0], nil
}

// valuesAtOnce is how many nodes one query names: the query is prepared once, for this number.
const valuesAtOnce = 64

var nodeValues = oneNode + "WHERE n.execution = ? AND n.node IN (" + strings.TrimSuffix(strings.Repeat("?,", valuesAtOnce), ",") + ")"

// NodeValues returns several nodes with inputs and outputs.
func (s *Store) NodeValues(ctx context.Context, id aloft.ExecutionID, nodes []aloft.NodeID) ([]*store.Node, error) {
	key, err := s.key(ctx, id)
	if err != nil {
		return nil, err
	}
	found := make([]*store.Node, 0, len(nodes))
	for some := range slices.Chunk(nodes, valuesAtOnce) {
		args := make([]any, 0, 1+valuesAtOnce)
		args = append(args, key)
		for i := range valuesAtOnce {
			args = append(args, string(some[min(i, len(some)-1)]))
		}
		if err := s.read(ctx, true, nodeValues, args, func(scan scan) error {
			n, err := scanNode(scan)
			found = append(found, n)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// NodeInputs is what an executor hands to a task.
func (s *Store) NodeInputs(ctx context.Context, key store.Key, node aloft.NodeID) (*aloftv1.Literals, error) {
	return s.literals(ctx, "inputs", key, node)
}

// NodeOutputs is what downstream nodes bind to.
func (s *Store) NodeOutputs(ctx context.Context, key store.Key, node aloft.NodeID) (*aloftv1.Literals, error) {
	return s.literals(ctx, "outputs", key, node)
}

func (s *Store) literals(ctx context.Context, column string, key store.Key, node aloft.NodeID) (l *aloftv1.Literals, err error) {
	err = s.read(ctx, true, "SELECT "+column+" FROM nodes WHERE execution = ? AND node = ?", []any{int64(key), string(node)}, func(scan scan) error {
		var value []byte
		if err := scan(&value); err != nil {
			return err
		}
		var d decoder
		l = into(&d, new(aloftv1.Literals), value)
		if d.err != nil {
			return fmt.Errorf("%s of node %s of execution with key %d: %w: %w", column, node, key, aloft.ErrUnreadable, d.err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, fmt.Errorf("%s of node %s of execution with key %d: %w", column, node, key, aloft.ErrNotFound)
	}
	return l, nil
}
