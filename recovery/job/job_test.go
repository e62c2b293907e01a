package job_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery/job"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
)

func id(name string) aloft.ExecutionID {
	return aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
}

// endedStore is a store and a launcher whose executions have ended when they are created.
type endedStore struct {
	testing.TB
	*sqlstore.Store

	mu    sync.Mutex
	asked map[aloft.ExecutionID]int // calls of Recover
	made  map[aloft.ExecutionID]int // recoveries that were created
	fails map[aloft.ExecutionID]bool

	workflow string // of new executions; empty: wf
}

func newEndedStore(t testing.TB) *endedStore {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: filepath.Join(t.TempDir(), "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &endedStore{TB: t, Store: s, asked: map[aloft.ExecutionID]int{}, made: map[aloft.ExecutionID]int{}, fails: map[aloft.ExecutionID]bool{}}
}

func (w *endedStore) create(ctx context.Context, name string, phase core.WorkflowExecution_Phase, of *core.WorkflowExecutionIdentifier) error {
	mode := admin.ExecutionMetadata_MANUAL
	if of != nil {
		mode = admin.ExecutionMetadata_RECOVERED
	}
	source := name // a recovery has the inputs of the execution that it recovers
	if of != nil {
		source = of.GetName()
	}
	e := &store.Execution{
		ID: id(name), Phase: phase, CreatedAt: time.Now(), UpdatedAt: time.Now(), EndedAt: time.Now(), JournalVersion: store.JournalVersion,
		Workflow: &core.Identifier{Project: "flytesnacks", Domain: "development", Name: cmp.Or(w.workflow, "wf"), Version: "v1"},
		Spec:     &admin.ExecutionSpec{Metadata: &admin.ExecutionMetadata{Mode: mode, ReferenceExecution: of}},
		Inputs:   &aloftv1.Literals{Ref: &aloftv1.LiteralRef{Digest: []byte(source)}},
	}
	if phase == core.WorkflowExecution_FAILED {
		e.Error = &core.ExecutionError{Code: "USER:E", Message: "row 1 is bad"}
	}
	return w.CreateExecution(ctx, e, &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{}}})
}

// Recover implements job.Launcher: it creates an execution that has ended.
func (w *endedStore) Recover(ctx context.Context, of aloft.ExecutionID, name string, _ *core.NodeExecutionIdentifier) (aloft.ExecutionID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[of]++
	phase := core.WorkflowExecution_SUCCEEDED
	if w.fails[of] {
		phase = core.WorkflowExecution_FAILED
	}
	err := w.create(ctx, name, phase, of.Proto())
	if err == nil {
		w.made[of]++
	}
	return id(name), err
}

// mortalServer is the store and the launcher of a server that is killed at its n-th call: before the call has an effect, or
// after, but before the server gets its answer.
type mortalServer struct {
	*endedStore
	calls, killed int
	after         bool
}

var errKilled = fmt.Errorf("killed: %w", aloft.ErrUnavailable)

func (m *mortalServer) die(call func() error) error {
	m.calls++
	if m.killed > 0 && (m.calls > m.killed || m.calls == m.killed && !m.after) {
		return errKilled
	}
	err := call()
	if m.calls == m.killed {
		return errKilled
	}
	return err
}

func (m *mortalServer) AcquireRecoveryJobs(ctx context.Context, owner string, now time.Time, ttl time.Duration) (jobs []*aloftv1.RecoveryJob, err error) {
	err = m.die(func() error { jobs, err = m.endedStore.AcquireRecoveryJobs(ctx, owner, now, ttl); return err })
	return jobs, err
}

func (m *mortalServer) SaveRecoveryJob(ctx context.Context, j *aloftv1.RecoveryJob, items []*aloftv1.RecoveryItem) error {
	return m.die(func() error { return m.endedStore.SaveRecoveryJob(ctx, j, items) })
}

func (m *mortalServer) RecoveriesOf(ctx context.Context, ids []aloft.ExecutionID) (all []store.Recovered, err error) {
	err = m.die(func() error { all, err = m.endedStore.RecoveriesOf(ctx, ids); return err })
	return all, err
}

func (m *mortalServer) Recover(ctx context.Context, of aloft.ExecutionID, name string, parent *core.NodeExecutionIdentifier) (made aloft.ExecutionID, err error) {
	err = m.die(func() error { made, err = m.endedStore.Recover(ctx, of, name, parent); return err })
	return made, err
}

func (w *endedStore) jobs(s job.Store, l job.Launcher, owner string) *job.Jobs {
	return job.New(job.Config{Store: s, Launcher: l, Owner: owner, Logger: slog.New(slog.DiscardHandler)})
}

// begin creates n failed executions and a job that recovers them.
func (w *endedStore) begin(n int, canary uint32) string {
	w.Helper()
	for i := range n {
		if err := w.create(w.Context(), fmt.Sprintf("e%d", i), core.WorkflowExecution_FAILED, nil); err != nil {
			w.Fatal(err)
		}
	}
	j, err := w.jobs(w.Store, w, "x").Create(w.Context(), &aloftv1.CreateRecoveryJobRequest{Canary: canary, Selection: &aloftv1.RecoverySelection{Project: "flytesnacks", Domain: "development"}})
	if err != nil {
		w.Fatal(err)
	}
	return j.GetName()
}

// waitEnded runs passes until a job has ended.
func (w *endedStore) waitEnded(name string, all ...*job.Jobs) *aloftv1.RecoveryJob {
	w.Helper()
	for range 100 {
		for _, jobs := range all {
			if _, err := jobs.Pass(w.Context()); err != nil {
				w.Fatal(err)
			}
		}
		j, err := w.GetRecoveryJob(w.Context(), name)
		if err != nil {
			w.Fatal(err)
		}
		if j.GetPhase() == aloftv1.RecoveryJob_ENDED {
			return j
		}
	}
	w.Fatal("the job does not end")
	return nil
}

func (w *endedStore) onceEach(n int) {
	w.Helper()
	for i := range n {
		if made := w.made[id(fmt.Sprintf("e%d", i))]; made != 1 {
			w.Errorf("execution e%d was recovered %d times", i, made)
		}
	}
}

func TestAServerThatIsKilledAnywhereRecoversEachOnce(t *testing.T) {
	t.Parallel()
	const n = 4
	for _, after := range []bool{false, true} {
		again := 0
		for killed := 1; ; killed++ {
			w := newEndedStore(t)
			name := w.begin(n, 1)
			m := &mortalServer{endedStore: w, killed: killed, after: after}
			first := w.jobs(m, m, "server")
			var err error
			for range 50 {
				if _, err = first.Pass(t.Context()); err != nil {
					break
				}
			}
			done := w.waitEnded(name, w.jobs(w.Store, w, "server"))
			if got := done.GetCounts(); got.GetSucceeded() != n {
				t.Errorf("killed %d (after: %t): it ended as %v", killed, after, got)
			}
			w.onceEach(n)
			for _, asked := range w.asked {
				again += asked - 1
			}
			if m.calls < killed { // the server was never killed
				break
			}
			if killed > 30 {
				break // idle passes go on for ever
			}
		}
		if after && again == 0 {
			t.Error("nothing was ever asked for twice: the test does not kill where it hurts")
		}
	}
}

func TestTwoWhoThinkThatAJobIsTheirsRecoverEachOnce(t *testing.T) {
	t.Parallel()
	const n = 200
	w := newEndedStore(t)
	name := w.begin(n, 2)
	var all sync.WaitGroup
	for range 3 {
		jobs := w.jobs(w.Store, w, "the same")
		all.Go(func() {
			for range 200 {
				j, err := w.GetRecoveryJob(t.Context(), name)
				if err != nil || j.GetPhase() == aloftv1.RecoveryJob_ENDED {
					return
				}
				if _, err := jobs.Pass(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := w.waitEnded(name, w.jobs(w.Store, w, "the same")).GetCounts(); got.GetSucceeded() != n {
		t.Errorf("it ended as %v", got)
	}
	w.onceEach(n)
}

func TestTwoJobsRecoverEachOnceAndAFailedRecoveryStandsForItsSource(t *testing.T) {
	t.Parallel()
	const n = 3
	w := newEndedStore(t)
	w.fails[id("e1")] = true
	first := w.begin(n, 0)
	selection := &aloftv1.RecoverySelection{Project: "flytesnacks", Domain: "development"}
	jobs := w.jobs(w.Store, w, "server")
	second, err := jobs.Create(t.Context(), &aloftv1.CreateRecoveryJobRequest{Selection: selection})
	if err != nil {
		t.Fatal(err)
	}
	w.waitEnded(first, jobs)
	w.waitEnded(second.GetName(), jobs)
	w.onceEach(n)
	third, err := jobs.Create(t.Context(), &aloftv1.CreateRecoveryJobRequest{Selection: selection})
	if err != nil {
		t.Fatal(err)
	}
	done := w.waitEnded(third.GetName(), jobs)
	if got := done.GetCounts(); got.GetSucceeded() != 1 || got.GetSkipped() != 2 {
		t.Errorf("the third job ended as %v", got)
	}
	w.onceEach(n) // the third job has recovered a recovery that had failed
	if len(w.made) != n+1 {
		t.Errorf("%d executions were recovered, want %d", len(w.made), n+1)
	}
}

// faultyLauncher is a launcher that cannot create some recoveries.
type faultyLauncher struct {
	*endedStore
	errs map[aloft.ExecutionID]error
	away map[aloft.ExecutionID]int // how many more calls find a service away
}

func (l *faultyLauncher) Recover(ctx context.Context, of aloft.ExecutionID, name string, parent *core.NodeExecutionIdentifier) (aloft.ExecutionID, error) {
	if err := l.errs[of]; err != nil {
		return aloft.ExecutionID{}, err
	}
	if l.away[of] > 0 {
		l.away[of]--
		return aloft.ExecutionID{}, fmt.Errorf("the blob store does not answer: %w", aloft.ErrUnavailable)
	}
	return l.endedStore.Recover(ctx, of, name, parent)
}

// TestAnItemThatCannotBeRecoveredStopsNoOther: damaged inputs of an execution are an ErrConflict of digests, which is no
// conflict of the job.
func TestAnItemThatCannotBeRecoveredStopsNoOther(t *testing.T) {
	t.Parallel()
	w := newEndedStore(t)
	name := w.begin(6, 0)
	l := &faultyLauncher{
		endedStore: w,
		errs: map[aloft.ExecutionID]error{
			id("e0"): fmt.Errorf("read literals: object x has another digest: %w", aloft.ErrConflict),
			id("e1"): fmt.Errorf("the inputs are too large: %w", aloft.ErrExhausted),
			id("e2"): errors.New("an error that is on no list"),
		},
		away: map[aloft.ExecutionID]int{id("e3"): 2},
	}
	jobs := w.jobs(w.Store, l, "server")
	wrong := 0
	var done *aloftv1.RecoveryJob
	for pass := 0; done.GetPhase() != aloftv1.RecoveryJob_ENDED; pass++ {
		if pass == 20 {
			t.Fatalf("after %d passes it is %v", pass, done)
		}
		if _, err := jobs.Pass(t.Context()); err != nil {
			wrong++
		}
		var err error
		if done, err = w.GetRecoveryJob(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if got := done.GetCounts(); got.GetSucceeded() != 3 || got.GetFailed() != 3 {
		t.Errorf("it ended as %v, want three of each", got)
	}
	if wrong != 2 {
		t.Errorf("%d passes said that something was away, want 2", wrong)
	}
	items, err := w.RecoveryItems(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		if want := l.errs[aloft.ExecutionIDOf(i.GetExecution())]; want != nil && i.GetReason() != want.Error() {
			t.Errorf("%s failed with %q, want %q", i.GetExecution().GetName(), i.GetReason(), want)
		}
	}
}

func TestRunsOfOneTaskAreSelectedByTheNameThatListsShow(t *testing.T) {
	t.Parallel()
	w := newEndedStore(t)
	for name, workflow := range map[string]string{"one": ".flytegen.bad.fails", "two": "bad.chain"} {
		w.workflow = workflow
		if err := w.create(t.Context(), name, core.WorkflowExecution_FAILED, nil); err != nil {
			t.Fatal(err)
		}
	}
	for workflow, want := range map[string]uint32{"bad.fails": 1, ".flytegen.bad.fails": 1, "bad.chain": 1, "bad": 0} {
		j, err := w.jobs(w.Store, w, "x").Create(t.Context(), &aloftv1.CreateRecoveryJobRequest{Selection: &aloftv1.RecoverySelection{Project: "flytesnacks", Domain: "development", Workflow: workflow}})
		selected := uint32(0)
		for _, c := range j.GetCauses() {
			selected += c.GetExecutions()
		}
		if selected != want || (err == nil) != (want > 0) {
			t.Errorf("of workflow %s: %d executions (%v), want %d", workflow, selected, err, want)
		}
	}
}
