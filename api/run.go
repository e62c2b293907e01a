package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
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
	Now   func() time.Time       // of those who ask services; nil: time.Now
}

// How often a watcher looks at most, so that a run of thousands of short nodes is not read thousands of times, and at
// least, because with several servers on one store a wake-up may not come.
const (
	watchAtMost  = 100 * time.Millisecond
	watchAtLeast = 2 * time.Second
	watchShare   = 9 // times as long as a look took there is a pause before the next one
)

// WatchExecution sends the tree of an execution and then what changes. ErrNotFound.
func (r *Runs) WatchExecution(ctx context.Context, request *aloftv1.WatchExecutionRequest, stream *connect.ServerStream[aloftv1.WatchExecutionResponse]) error {
	id := aloft.ExecutionIDOf(request.GetId())
	wake, cancel := r.Store.Subscribe(store.TopicExecution(id))
	defer cancel()
	watch := &watch{Runs: r, id: id, open: map[aloft.NodeID]string{}}
	for {
		began := time.Now()
		phase, err := watch.sendChanged(ctx, stream)
		if err != nil {
			return err
		}
		if request.GetOnce() || aloft.Terminal(phase) {
			return nil
		}
		// A run of many open nodes is not looked at all the time.
		if err := pause(ctx, wake, max(watchAtMost, watchShare*time.Since(began)), watchAtLeast); err != nil {
			return err
		}
	}
}

// watch is what a watcher has been told. No time decides what is new: servers' clocks differ, and what is decided first may be
// committed last. Nodes that were added are those whose number is larger than all before; and what has changed is one of those
// that had not ended when they were last sent, for what has ended stays as it is. So each look compares these with what was
// sent, with all that executors and the engine may change of their attempts while they run.
type watch struct {
	*Runs
	id    aloft.ExecutionID
	last  int64                   // number of the newest node that was sent
	sent  bool                    // the whole tree was
	open  map[aloft.NodeID]string // nodes that had not ended, or had attempts that had not, with what was sent of them
	notes cacheNotes
}

// sendChanged sends what has changed. The room that it takes is free again when it has been sent.
func (w *watch) sendChanged(ctx context.Context, stream *connect.ServerStream[aloftv1.WatchExecutionResponse]) (core.WorkflowExecution_Phase, error) {
	defer room.Part(ctx)()
	var response *aloftv1.WatchExecutionResponse
	var phase core.WorkflowExecution_Phase
	var seen looked
	if err := room.Again(ctx, func() error {
		execution, err := w.Store.GetExecution(ctx, w.id)
		if err != nil {
			return err
		}
		if seen, err = w.look(ctx); err != nil {
			return err
		}
		if w.notes.store == nil {
			w.notes = cacheNotes{store: w.Store, execution: w.id}
		}
		w.notes.pass()
		for i, n := range seen.changed {
			if n.GetCache() == nil {
				continue
			}
			if n.CacheNote, err = w.notes.of(ctx, seen.nodes[i]); err != nil {
				return err
			}
			n.Cache.Key = nil // it is large where there are many nodes, and ExplainCache has it
		}
		phase = execution.Phase
		response = &aloftv1.WatchExecutionResponse{Execution: w.status(execution), Nodes: seen.changed}
		return nil
	}); err != nil {
		return phase, err
	}
	if err := roomForAnswer(ctx, response); err != nil {
		return phase, err
	}
	w.last, w.open, w.sent = seen.last, seen.open, true
	return phase, stream.Send(response)
}

// looked is what a look has found.
type looked struct {
	changed []*aloftv1.NodeStatus // with all their attempts
	nodes   []*store.Node         // what they were made of
	last    int64
	open    map[aloft.NodeID]string
}

// openNodes and openAttempts are filters on what has not ended.
var (
	openNodes    = []store.Filter{{Field: "phase", Function: "value_in", Values: open(core.NodeExecution_Phase_name, func(n int32) bool { return aloft.Terminal(core.NodeExecution_Phase(n)) })}}
	openAttempts = []store.Filter{{Field: "phase", Function: "value_in", Values: open(core.TaskExecution_Phase_name, func(n int32) bool { return aloft.Terminal(core.TaskExecution_Phase(n)) })}}
)

func open(phases map[int32]string, terminal func(int32) bool) (names []string) {
	for n, name := range phases {
		if !terminal(n) {
			names = append(names, name)
		}
	}
	return names
}

// nodesAtOnce is how many nodes one list names.
const nodesAtOnce = 500

// look finds the nodes that are new or not as they were sent. The nodes that are open are read first: one that ends afterwards
// is found by not being among them, now or in the next look.
func (w *watch) look(ctx context.Context) (looked, error) {
	found := looked{last: w.last, open: map[aloft.NodeID]string{}}
	var nodes []*store.Node
	list := func(filters ...store.Filter) error {
		more, err := w.Store.ListNodes(ctx, w.id, "", true, store.Query{Ascending: true, Filters: filters})
		if err != nil {
			return fmt.Errorf("list nodes of %s: %w", w.id, err)
		}
		nodes = append(nodes, more...)
		return nil
	}
	if !w.sent {
		if err := list(); err != nil {
			return found, err
		}
	} else {
		if err := list(openNodes...); err != nil {
			return found, err
		}
		if err := list(store.Filter{Field: "id", Function: "gt", Values: []string{strconv.FormatInt(w.last, 10)}}); err != nil {
			return found, err
		}
		there := make(map[aloft.NodeID]bool, len(nodes))
		for _, n := range nodes {
			there[n.ID] = true
		}
		var gone []string
		for id := range w.open {
			if !there[id] {
				gone = append(gone, string(id))
			}
		}
		for some := range slices.Chunk(gone, nodesAtOnce) {
			if err := list(store.Filter{Field: "node_id", Function: "value_in", Values: some}); err != nil {
				return found, err
			}
		}
	}
	running, err := w.attempts(ctx, "", openAttempts)
	if err != nil {
		return found, err
	}
	byID := map[aloft.NodeID]*aloftv1.NodeStatus{}
	for _, n := range nodes {
		found.last = max(found.last, n.Number)
		if n.SpecNodeID == aloft.StartNode || n.SpecNodeID == aloft.EndNode || byID[n.ID] != nil {
			continue
		}
		state := stateOf(n, running[n.ID])
		if !aloft.Terminal(n.Phase) || len(running[n.ID]) > 0 { // an attempt may be stopped after its node has ended
			found.open[n.ID] = state
		}
		if before, known := w.open[n.ID]; known && before == state {
			continue
		}
		byID[n.ID] = nodeStatus(n)
		found.changed, found.nodes = append(found.changed, byID[n.ID]), append(found.nodes, n)
	}
	all := map[aloft.NodeID][]*store.Attempt{}
	if !w.sent {
		if all, err = w.attempts(ctx, "", nil); err != nil {
			return found, err
		}
	}
	for id, status := range byID {
		if w.sent {
			one, err := w.attempts(ctx, id, nil)
			if err != nil {
				return found, err
			}
			all[id] = one[id]
		}
		for _, a := range all[id] {
			status.Attempts = append(status.Attempts, attemptStatus(a))
		}
	}
	return found, nil
}

func (w *watch) attempts(ctx context.Context, node aloft.NodeID, filters []store.Filter) (map[aloft.NodeID][]*store.Attempt, error) {
	list, err := w.Store.ListAttempts(ctx, w.id, node, store.Query{Ascending: true, Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list attempts of %s: %w", w.id, err)
	}
	of := map[aloft.NodeID][]*store.Attempt{}
	for _, a := range list {
		of[a.Node] = append(of[a.Node], a)
	}
	return of, nil
}

// stateOf is all that may change of a node and of its attempts that run. One that has ended says so by the node, or by the
// attempt that follows it.
func stateOf(n *store.Node, running []*store.Attempt) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %q", n.Phase, n.UpdatedAt.UnixNano(), n.Waiting)
	for _, a := range running {
		fmt.Fprintf(&b, " %d %d %d %q %q %q %q", a.Attempt, a.Phase, a.UpdatedAt.UnixNano(), a.Executor, a.Waiting, a.Stop, a.Environment)
	}
	return b.String()
}

func (r *Runs) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// status says of an execution that does not say itself what it waits for which services are away: its attempts may need them.
func (r *Runs) status(e *store.Execution) *aloftv1.ExecutionStatus {
	status := executionStatus(e)
	if status.Waiting != "" || aloft.Terminal(e.Phase) {
		return status
	}
	var waiting []string
	for _, s := range away(r.Away, r.now()) {
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
	if a.Phase != core.TaskExecution_QUEUED && a.Phase != core.TaskExecution_INITIALIZING {
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
