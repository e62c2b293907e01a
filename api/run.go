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

// Runs serves aloft.v1.RunService: calls to watch a running execution, which Flyte's protocol does not have.
type Runs struct {
	Store interface {
		store.Queries
		store.Wakes
		store.Catalog
		GetWorkflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error)
	}
	Blobs blob.Store
	Away  func() []store.Service // services that are away; nil: none ever
	Now   func() time.Time       // clock of the health monitor that Away asks; nil: time.Now
}

// How often a watch looks at the store.
const (
	watchAtMost  = 100 * time.Millisecond // the shortest pause: a run of thousands of short nodes is not read thousands of times
	watchAtLeast = 2 * time.Second        // the longest pause: with several servers on one store a wake-up may not come
	watchShare   = 9                      // a pause lasts at least so many times as long as the last look: at most 1/10 of the time is spent looking
)

// WatchExecution sends all nodes of an execution with their attempts, and then the nodes that change, until the execution has
// ended. ErrNotFound.
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
		// A look at an execution with many open nodes takes long, so the pause after it is longer.
		if err := pause(ctx, wake, max(watchAtMost, watchShare*time.Since(began)), watchAtLeast); err != nil {
			return err
		}
	}
}

// watch is the state of one call of WatchExecution: what its client has been sent. It does not find changes by their times, because
// servers' clocks differ and a change that was decided first may be committed last. Instead:
//
//   - a node is new if its number is larger than last;
//   - a node can have changed only if it was open when it was last sent: a node that has ended, with all its attempts, never changes.
//     A look compares the fingerprint of each open node with the one that was sent.
//
// For example: last = 2 and open = {n1}. A look reads the open nodes (n1, and n3, which is new), the nodes with a number above
// 2 (n3, and n4, which has begun and ended since), and sends n3, n4, and n1 if its fingerprint differs. If a look fails, the
// call ends with the error; a new call of the client begins with the whole tree.
type watch struct {
	*Runs
	id    aloft.ExecutionID
	last  int64                   // number of the newest node that was sent
	sent  bool                    // the whole tree has been sent
	open  map[aloft.NodeID]string // fingerprints of the nodes that had not ended, or had attempts that had not ended, when they were sent
	notes cacheNotes

	branches map[aloft.Key]map[string]*core.BranchNode // of each workflow of the execution, by spec node id; nil: not read yet
}

// sendChanged sends the nodes that have changed since the last call. It gives back the room that it took.
func (w *watch) sendChanged(ctx context.Context, stream *connect.ServerStream[aloftv1.WatchExecutionResponse]) (core.WorkflowExecution_Phase, error) {
	defer room.Part(ctx)()
	var response *aloftv1.WatchExecutionResponse
	var phase core.WorkflowExecution_Phase
	var seen treeChanges
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
			n.Cache.Key = nil // the keys of many nodes are large, and ExplainCache has them
		}
		skipped, err := w.skippedArms(ctx, execution, seen.nodes)
		if err != nil {
			return err
		}
		phase = execution.Phase
		response = &aloftv1.WatchExecutionResponse{Execution: w.status(execution), Nodes: append(seen.changed, skipped...)}
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

// treeChanges is the result of one look of a watch: the nodes to send, and the state of the watch once they are sent.
type treeChanges struct {
	changed []*aloftv1.NodeStatus   // with all their attempts
	nodes   []*store.Node           // records of changed, in the same order
	last    int64                   // the next watch.last
	open    map[aloft.NodeID]string // the next watch.open
}

// openNodes and openAttempts are filters for nodes and attempts that have not ended.
var (
	openNodes    = []store.Filter{{Field: "phase", Function: "value_in", Values: openPhases(core.NodeExecution_Phase_name, func(n int32) bool { return aloft.Terminal(core.NodeExecution_Phase(n)) })}}
	openAttempts = []store.Filter{{Field: "phase", Function: "value_in", Values: openPhases(core.TaskExecution_Phase_name, func(n int32) bool { return aloft.Terminal(core.TaskExecution_Phase(n)) })}}
)

func openPhases(phases map[int32]string, terminal func(int32) bool) (names []string) {
	for n, name := range phases {
		if !terminal(n) {
			names = append(names, name)
		}
	}
	return names
}

// nodesAtOnce is how many nodes a query names at most.
const nodesAtOnce = 500

// look finds the nodes that are new or differ from what was sent. It reads the open nodes first: a node of w.open that is not
// among them has ended, and is read by its id. A node that ends after that first read is still open here, and the next look
// finds its end.
func (w *watch) look(ctx context.Context) (treeChanges, error) {
	found := treeChanges{last: w.last, open: map[aloft.NodeID]string{}}
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
		state := fingerprint(n, running[n.ID])
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

// fingerprint is all that may change of a node and of its attempts that run. The end of an attempt changes it, too: the attempt
// is no longer among those that run.
func fingerprint(n *store.Node, running []*store.Attempt) string {
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

// status is the status of an execution. If the record of a running execution has no waiting reason, the status names the services
// that are away, because its attempts may need them.
func (r *Runs) status(e *store.Execution) *aloftv1.ExecutionStatus {
	status := executionStatus(e)
	if status.Waiting != "" || aloft.Terminal(e.Phase) {
		return status
	}
	var waiting []string
	for _, s := range awayServices(r.Away, r.now()) {
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

// stamp is nil for the zero time, which stands for an event that has not happened.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// pause waits for a wake-up and then for shortest, or for longest if no wake-up comes.
func pause(ctx context.Context, wake <-chan struct{}, shortest, longest time.Duration) error {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	case <-wake:
	}
	timer.Reset(shortest)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
