package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/store"
)

// Runs serves aloft.v1.RunService: what people who watch a run want and Flyte's protocol has no call for.
type Runs struct {
	Store interface {
		store.Queries
		store.Wakes
		store.Catalog
	}
	Blobs blob.Store
	Away  func() []store.Service // services that are away; nil: none ever
	Now   func() time.Time       // nil: time.Now
}

// How often a watcher looks at most, so that a run of thousands of short nodes is not read thousands of times, and at
// least, because with several servers on one store a wake-up may not come.
const (
	watchAtMost  = 100 * time.Millisecond
	watchAtLeast = 2 * time.Second
)

// WatchExecution sends the tree of an execution and then what changes. ErrNotFound.
func (r *Runs) WatchExecution(ctx context.Context, request *aloftv1.WatchExecutionRequest, stream *connect.ServerStream[aloftv1.WatchExecutionResponse]) error {
	id := aloft.ExecutionIDOf(request.GetId())
	wake, cancel := r.Store.Subscribe(store.TopicExecution(id))
	defer cancel()
	watch := &watch{Runs: r, id: id}
	for {
		phase, err := watch.turn(ctx, stream)
		if err != nil {
			return err
		}
		if request.GetOnce() || aloft.Terminal(phase) {
			return nil
		}
		if err := pause(ctx, wake, watchAtMost, watchAtLeast); err != nil {
			return err
		}
	}
}

// watch is what a watcher has been told.
type watch struct {
	*Runs
	id    aloft.ExecutionID
	since time.Time // everything changed before it has been sent
	notes cacheNotes
}

// turn sends what has changed. The room that it takes is free again when it has been sent.
func (w *watch) turn(ctx context.Context, stream *connect.ServerStream[aloftv1.WatchExecutionResponse]) (core.WorkflowExecution_Phase, error) {
	ctx, release := room.Part(ctx)
	defer release()
	var response *aloftv1.WatchExecutionResponse
	var phase core.WorkflowExecution_Phase
	latest := w.since
	if err := room.Again(ctx, func() error {
		execution, err := w.Store.GetExecution(ctx, w.id)
		if err != nil {
			return err
		}
		var nodes []*aloftv1.NodeStatus
		if nodes, latest, err = w.changedNodes(ctx, w.id, w.since); err != nil {
			return err
		}
		if w.notes.store == nil {
			w.notes = cacheNotes{store: w.Store, execution: w.id, before: execution.CreatedAt}
		}
		for _, n := range nodes {
			if n.GetCache() == nil {
				continue
			}
			if n.CacheNote, err = w.notes.of(ctx, n.GetId(), n.GetCache()); err != nil {
				return err
			}
			n.Cache.Key = nil // it is large where there are many nodes, and ExplainCache has it
		}
		phase = execution.Phase
		response = &aloftv1.WatchExecutionResponse{Execution: w.status(execution), Nodes: nodes}
		return nil
	}); err != nil {
		return phase, err
	}
	if err := roomForAnswer(ctx, response); err != nil {
		return phase, err
	}
	w.since = latest
	return phase, stream.Send(response)
}

// changedNodes returns the nodes, with all their attempts, of which something has changed since then. Records are compared
// by the time of their last change; those of that very time come again, which does no harm.
func (r *Runs) changedNodes(ctx context.Context, id aloft.ExecutionID, since time.Time) ([]*aloftv1.NodeStatus, time.Time, error) {
	changed := func(field string) store.Query {
		q := store.Query{Ascending: true}
		if !since.IsZero() {
			q.Filters = []store.Filter{{Field: field, Function: "gte", Values: []string{since.UTC().Format(time.RFC3339Nano)}}}
		}
		return q
	}
	nodes, err := r.Store.ListNodes(ctx, id, "", true, changed("node_execution_updated_at"))
	if err != nil {
		return nil, since, fmt.Errorf("list nodes of %s: %w", id, err)
	}
	attempts, err := r.Store.ListAttempts(ctx, id, "", changed("task_execution_updated_at"))
	if err != nil {
		return nil, since, fmt.Errorf("list attempts of %s: %w", id, err)
	}
	latest := since
	statuses := make([]*aloftv1.NodeStatus, 0, len(nodes))
	byID := map[string]*aloftv1.NodeStatus{}
	add := func(n *store.Node) {
		if n.SpecNodeID == aloft.StartNode || n.SpecNodeID == aloft.EndNode {
			return
		}
		status := nodeStatus(n)
		statuses, byID[status.Id] = append(statuses, status), status
	}
	for _, n := range nodes {
		add(n)
		latest = later(latest, n.UpdatedAt)
	}
	whole := since.IsZero()
	for _, a := range attempts {
		latest = later(latest, a.UpdatedAt)
		if byID[string(a.Node)] != nil || whole {
			continue
		}
		n, err := r.Store.GetNode(ctx, id, a.Node)
		if err != nil {
			return nil, since, fmt.Errorf("read node %s of %s: %w", a.Node, id, err)
		}
		add(n)
	}
	if !whole { // a node is sent with all its attempts
		attempts = nil
		for _, n := range statuses {
			more, err := r.Store.ListAttempts(ctx, id, aloft.NodeID(n.Id), store.Query{Ascending: true})
			if err != nil {
				return nil, since, fmt.Errorf("list attempts of node %s of %s: %w", n.Id, id, err)
			}
			attempts = append(attempts, more...)
		}
	}
	for _, a := range attempts {
		if n := byID[string(a.Node)]; n != nil {
			n.Attempts = append(n.Attempts, attemptStatus(a))
		}
	}
	return statuses, latest, nil
}

// status says of an execution that does not say itself what it waits for which services are away: its attempts may need them.
func (r *Runs) status(e *store.Execution) *aloftv1.ExecutionStatus {
	status := executionStatus(e)
	if status.Waiting != "" || aloft.Terminal(e.Phase) {
		return status
	}
	var waiting []string
	for _, s := range away(r.Away, time.Now()) {
		waiting = append(waiting, s.Waiting())
	}
	status.Waiting = strings.Join(waiting, "; ")
	return status
}

func executionStatus(e *store.Execution) *aloftv1.ExecutionStatus {
	status := &aloftv1.ExecutionStatus{
		Id: e.ID.Proto(), Workflow: e.Workflow, LaunchPlan: e.Spec.GetLaunchPlan(), Phase: e.Phase, Error: e.Error, Waiting: e.Waiting,
		CreatedAt: stamp(e.CreatedAt), StartedAt: stamp(e.StartedAt), EndedAt: stamp(e.EndedAt), AbortCause: e.AbortCause,
	}
	if m := e.Spec.GetMetadata(); m.GetMode() == admin.ExecutionMetadata_RECOVERED {
		status.Recovers = m.GetReferenceExecution()
	}
	return status
}

func nodeStatus(n *store.Node) *aloftv1.NodeStatus {
	return &aloftv1.NodeStatus{
		Id: string(n.ID), Parent: string(n.Parent), SpecNodeId: n.SpecNodeID, Name: n.Name, Target: n.Target, Phase: n.Phase, Error: n.Error,
		CreatedAt: stamp(n.CreatedAt), StartedAt: stamp(n.StartedAt), EndedAt: stamp(n.EndedAt),
		Cache: n.Cache, Waiting: n.Waiting,
	}
}

func attemptStatus(a *store.Attempt) *aloftv1.AttemptStatus {
	status := &aloftv1.AttemptStatus{
		Attempt: a.Attempt, Phase: a.Phase, Waiting: a.Waiting, Executor: a.Executor, Environment: a.Environment,
		Mode: a.Usage.GetMode(), ModeReason: a.Usage.GetModeReason(), Error: a.Error,
		CreatedAt: stamp(a.CreatedAt), StartedAt: stamp(a.StartedAt), EndedAt: stamp(a.EndedAt),
		Charge: a.Usage.GetCharge(), NotBefore: stamp(a.NotBefore),
	}
	if !aloft.Terminal(a.Phase) {
		status.Stop = a.Stop
	}
	if a.Phase != core.TaskExecution_QUEUED {
		status.Waiting = ""
	}
	return status
}

// stamp leaves out what has not happened.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// pause waits for a wake-up, but no shorter than atMost often and no longer than atLeast often.
func pause(ctx context.Context, wake <-chan struct{}, atMost, atLeast time.Duration) error {
	timer := time.NewTimer(atLeast)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	case <-wake:
	}
	timer.Reset(atMost)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
