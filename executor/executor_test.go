package executor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/executor/executortest"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/memstore"
)

// bench is a store, a place where attempts run, and a stand-in for the engine that does what it is told, when it is told.
type bench struct {
	*testing.T
	store  *memstore.Store
	place  *executortest.Memory
	leases map[int]store.Lease
	runs   map[string]*execution
	byKey  map[store.Key]*execution

	mu      sync.Mutex
	calls   map[string]int                // of the store, by method
	faults  map[string]func() store.Fault // by method
	adopted map[aloft.AttemptID][]*aloftv1.Outcome
	started map[aloft.AttemptID]int // messages that an attempt runs
}

type execution struct {
	rec      *store.Execution
	seq      int64
	attempts map[aloft.AttemptID]*store.Attempt
}

// inBubble runs a test in which time stands still while anything happens.
func inBubble(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{
			T: t, store: memstore.New(), place: executortest.NewMemory(), leases: map[int]store.Lease{}, runs: map[string]*execution{}, byKey: map[store.Key]*execution{},
			calls: map[string]int{}, faults: map[string]func() store.Fault{}, adopted: map[aloft.AttemptID][]*aloftv1.Outcome{}, started: map[aloft.AttemptID]int{},
		}
		b.store.Faults = func(op string) store.Fault {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.calls[op]++
			if fault := b.faults[op]; fault != nil {
				return fault()
			}
			return store.NoFault
		}
		leases, err := b.store.AcquireShards(t.Context(), "engine", time.Now(), 1000*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range leases {
			b.leases[l.Shard] = l
		}
		tasks := []*core.CompiledTask{}
		for _, word := range []string{"succeed", "fail", "wait", "impossible"} {
			tasks = append(tasks, &core.CompiledTask{Template: &core.TaskTemplate{Id: identifier(core.ResourceType_TASK, word),
				Target: &core.TaskTemplate_Container{Container: &core.Container{Command: []string{word}}}}})
		}
		err = b.store.CreateWorkflow(t.Context(), &store.Workflow{ID: identifier(core.ResourceType_WORKFLOW, "w"), Compiled: &core.CompiledWorkflowClosure{Tasks: tasks}})
		if err != nil {
			t.Fatal(err)
		}
		test(b)
	})
}

func identifier(kind core.ResourceType, name string) *core.Identifier {
	return &core.Identifier{ResourceType: kind, Project: "p", Domain: "d", Name: name, Version: "1"}
}

// fault makes a method of the store fail the next n times.
func (b *bench) fault(op string, fault store.Fault, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[op] = func() store.Fault {
		if n == 0 {
			return store.NoFault
		}
		n--
		return fault
	}
}

func (b *bench) called(op string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[op]
}

// run begins an executor; the returned function is its sudden end.
func (b *bench) run(instance string) (kill func()) {
	ctx, cancel := context.WithCancel(b.Context())
	backend := b.place.Open(b.T)
	e := executor.New(executor.Config{Instance: instance, Store: b.store, Backend: backend, Logger: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	over := false
	kill = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-done; err != nil {
			b.Errorf("executor %s: %v", instance, err)
		}
		_ = backend.(interface{ Close() error }).Close()
	}
	b.Cleanup(kill)
	return kill
}

// attempts schedules attempts named [project:]execution/node, in one commit for each execution. word is the task, with
// the CPU it asks for where that matters: wait@800.
func (b *bench) attempts(word string, names ...string) []aloft.AttemptID {
	b.Helper()
	ids := make([]aloft.AttemptID, len(names))
	byExecution := map[string][]*store.Attempt{}
	var order []string
	for i, name := range names {
		project, rest, ok := strings.Cut(name, ":")
		if !ok {
			project, rest = "p", name
		}
		run, node, _ := strings.Cut(rest, "/")
		ids[i] = aloft.AttemptID{Execution: aloft.ExecutionID{Project: project, Domain: "d", Name: run}, Node: aloft.NodeID(node)}
		x := b.runs[project+":"+run]
		if x == nil {
			x = &execution{rec: &store.Execution{ID: ids[i].Execution}, attempts: map[aloft.AttemptID]*store.Attempt{}}
			if err := b.store.CreateExecution(b.Context(), x.rec, &aloftv1.Inbox{}); err != nil {
				b.Fatal(err)
			}
			b.runs[project+":"+run], b.byKey[x.rec.Key] = x, x
		}
		milliCPU := int64(0)
		task, amount, stated := strings.Cut(word, "@")
		if stated {
			if _, err := fmt.Sscan(amount, &milliCPU); err != nil {
				b.Fatal(err)
			}
		}
		a := &store.Attempt{
			AttemptKey: store.AttemptKey{Execution: x.rec.Key, Node: ids[i].Node, Token: "t-" + name}, ID: ids[i], Phase: core.TaskExecution_QUEUED, CreatedAt: time.Now(),
			Spec: &aloftv1.AttemptSpec{Workflow: identifier(core.ResourceType_WORKFLOW, "w"), Task: identifier(core.ResourceType_TASK, task), MilliCpu: milliCPU},
		}
		x.attempts[ids[i]] = a
		key := project + ":" + run
		if byExecution[key] == nil {
			order = append(order, key)
		}
		byExecution[key] = append(byExecution[key], a)
	}
	for _, key := range order {
		b.commit(b.runs[key], nil, byExecution[key]...)
	}
	return ids
}

func (b *bench) commit(x *execution, consumed []int64, attempts ...*store.Attempt) {
	b.Helper()
	x.seq++
	step := &store.Step{Execution: x.rec.Key, ID: x.rec.ID, Lease: b.leases[x.rec.Shard], Seq: x.seq, CommitID: fmt.Sprint(x.rec.ID, x.seq),
		Entry: &aloftv1.JournalEntry{}, Consumed: consumed, Attempts: attempts}
	for _, a := range attempts {
		a.UpdatedAt = time.Now()
		step.Nodes = append(step.Nodes, &store.Node{ID: a.Node, Inputs: &aloftv1.Literals{Value: &core.LiteralMap{}}})
	}
	if errs := b.store.Commit(b.Context(), []*store.Step{step}); errs[0] != nil {
		b.Fatal(errs[0])
	}
}

func (b *bench) stop(id aloft.AttemptID) {
	b.Helper()
	x := b.runs[id.Execution.Project+":"+id.Execution.Name]
	a := x.attempts[id]
	a.Stop = "asked for"
	b.commit(x, nil, a)
}

// adopt is one pass of the engine over the inbox: outcomes end their attempts.
func (b *bench) adopt() {
	b.Helper()
	rows, err := b.store.Inbox(b.Context(), shards(), 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, row := range rows {
		x := b.byKey[row.Execution]
		node := row.Inbox.GetOutcome().GetNode() + row.Inbox.GetAttemptStarted().GetNode() // one of them
		id := aloft.AttemptID{Execution: x.rec.ID, Node: aloft.NodeID(node)}
		var ended []*store.Attempt
		if o := row.Inbox.GetOutcome(); o != nil {
			b.adopted[id] = append(b.adopted[id], o)
			x.attempts[id].Phase = core.TaskExecution_SUCCEEDED
			ended = append(ended, x.attempts[id])
		} else if row.Inbox.GetAttemptStarted() != nil {
			b.started[id]++
		}
		b.commit(x, []int64{row.Seq}, ended...)
	}
}

func shards() (all []int) {
	for i := range store.Shards {
		all = append(all, i)
	}
	return all
}

// settle lets everything happen that needs no time.
func settle() { synctest.Wait() }

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the time of the bubble
	synctest.Wait()
}

func (b *bench) wantOutcome(id aloft.AttemptID, starts int, is func(*aloftv1.Outcome) bool) {
	b.Helper()
	if got := b.adopted[id]; len(got) != 1 || !is(got[0]) {
		b.Errorf("%s: adopted outcomes %v", id, got)
	}
	if got := b.place.StartsID(id); got != starts {
		b.Errorf("%s was started %d times, want %d", id, got, starts)
	}
}

func succeeded(o *aloftv1.Outcome) bool { return o.GetOutputs() != nil }
func stopped(o *aloftv1.Outcome) bool   { return o.GetStopped() != "" }
func failed(o *aloftv1.Outcome) bool    { return o.GetFailure() != nil }

func TestAnAttemptIsAssignedBeforeItStartsAndStartsWithoutWaiting(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		var id aloft.AttemptID
		b.place.Fault = func(op string, job *executor.Job) error {
			if a, err := b.store.GetAttempt(b.Context(), job.ID); op == "start" && (err != nil || a.Executor != "one") {
				b.Errorf("started although the store says %+v, %v", a, err)
			}
			return nil
		}
		b.run("one")
		settle()
		began := time.Now()
		id = b.attempts("wait", "e/a")[0]
		settle()
		if b.place.StartsID(id) != 1 || time.Since(began) != 0 {
			t.Errorf("started %d times after %v, want at once", b.place.StartsID(id), time.Since(began))
		}
		b.place.ReleaseID(id)
		settle()
		b.adopt()
		settle()
		b.wantOutcome(id, 1, succeeded)
		pass(time.Second)
		if n := b.place.Known(); n != 0 {
			t.Errorf("%d jobs were not forgotten", n)
		}
	})
}

func TestAnAttemptThatArrivesJustAfterALookWaitsForTheNextAndNoLonger(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.place.Room = admission.Room{MilliCPU: 1000, Memory: 1 << 30, Slots: 8}
		b.run("one")
		settle()
		b.attempts("wait@800", "e/a", "e/large") // the second has no room and stays known
		settle()
		began := time.Now()
		small := b.attempts("wait@100", "e/small")[0]
		for b.place.StartsID(small) == 0 {
			pass(time.Millisecond)
			if time.Since(began) > 50*time.Millisecond {
				t.Fatal("the small attempt does not start although there is room for it")
			}
		}
	})
}

func TestAnAttemptThatIsToBeStoppedBeforeItStartedNeverStarts(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.place.Fault = func(op string, _ *executor.Job) error {
			if op == "start" {
				return aloft.ErrUnavailable
			}
			return nil
		}
		kill := b.run("one")
		ids := b.attempts("wait", "e/a", "e/b")
		settle()
		b.stop(ids[0])
		pass(time.Second)
		b.adopt()
		b.wantOutcome(ids[0], 0, stopped)
		// The other is asked to stop while nobody looks.
		kill()
		b.stop(ids[1])
		b.place.Fault = nil
		b.run("one")
		pass(time.Second)
		b.adopt()
		b.wantOutcome(ids[1], 0, stopped)
	})
}

func TestARunningAttemptIsStopped(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		refused := 0
		b.place.Fault = func(op string, _ *executor.Job) error {
			if op == "stop" && refused < 3 {
				refused++
				return aloft.ErrUnavailable
			}
			return nil
		}
		b.run("one")
		id := b.attempts("wait", "e/a")[0]
		settle()
		b.stop(id)
		pass(5 * time.Second)
		b.adopt()
		b.wantOutcome(id, 1, stopped)
	})
}

func TestWhatIsStoppedWhileNobodyHasItIsTakenByNobody(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		id := b.attempts("wait", "e/a")[0]
		b.stop(id)
		b.run("one")
		pass(2 * time.Second)
		b.adopt()
		b.wantOutcome(id, 0, stopped)
	})
}

func TestAnOutcomeIsAdoptedOnceThoughTheStoreFails(t *testing.T) {
	t.Parallel()
	for _, fault := range []store.Fault{store.FailBefore, store.FailAfter} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			inBubble(t, func(b *bench) {
				b.fault("Report", fault, 5)
				b.run("one")
				ids := b.attempts("succeed", "e/a", "e/b")
				for range 20 { // the engine consumes what there is meanwhile: a repetition finds its attempt ended
					pass(100 * time.Millisecond)
					b.adopt()
				}
				for _, id := range ids {
					b.wantOutcome(id, 1, succeeded)
				}
				pass(time.Second)
				if n := b.place.Known(); n != 0 {
					t.Errorf("%d jobs were not forgotten", n)
				}
			})
		})
	}
}

func TestACrashAtAnyPointStartsOnceAndAdoptsOnce(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(b *bench){
		"BetweenAssignAndStart": func(b *bench) {
			b.place.Fault = func(op string, _ *executor.Job) error {
				if op == "start" {
					return aloft.ErrUnavailable
				}
				return nil
			}
		},
		"BetweenStartAndTheAnswer":    func(b *bench) { b.fault("Report", store.FailBefore, -1) },
		"BetweenOutcomeAndReport":     func(b *bench) { b.fault("Report", store.FailBefore, -1) },
		"BetweenReportAndTheAnswer":   func(b *bench) { b.fault("Report", store.FailAfter, -1) },
		"BetweenReportAndForget":      func(*bench) {},
		"WhenTheAnswerToAssignIsLost": func(b *bench) { b.fault("Assign", store.FailAfter, -1) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				crash(b)
				kill := b.run("one")
				ids := b.attempts("succeed", "e/a", "e/b")
				settle()
				kill()
				b.place.Fault = nil
				for _, op := range []string{"Report", "Assign"} {
					b.fault(op, store.NoFault, 0)
				}
				b.run("one") // the engine has not consumed the inbox yet
				pass(time.Second)
				b.adopt()
				pass(time.Second)
				b.adopt()
				for _, id := range ids {
					b.wantOutcome(id, 1, succeeded)
				}
				pass(time.Second)
				if n := b.place.Known(); n != 0 {
					t.Errorf("%d jobs were not forgotten", n)
				}
			})
		})
	}
}

func TestAnAssignmentWhoseAnswerIsLostIsFoundWithoutARestart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.fault("Assign", store.FailAfter, 1)
		b.run("one")
		id := b.attempts("succeed", "e/a")[0]
		pass(100 * time.Millisecond)
		b.adopt()
		b.wantOutcome(id, 1, succeeded)
	})
}

func TestAnExecutorWaitsForTheStoreItStartsWith(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.fault("Heartbeat", store.FailBefore, 2)
		b.fault("Assigned", store.FailBefore, 2)
		b.run("one")
		id := b.attempts("succeed", "e/a")[0]
		pass(time.Second)
		b.adopt()
		b.wantOutcome(id, 1, succeeded)
	})
}

func TestAttemptsOfAnInstanceThatIsGoneAreTakenOver(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		kill := b.run("one")
		b.run("two")
		id := b.attempts("wait", "e/a")[0]
		settle()
		a, _ := b.store.GetAttempt(b.Context(), id)
		if a.Executor == "two" {
			kill = func() {} // it has it already
		}
		kill()
		if _, err := b.store.Adopt(b.Context(), "one", "two"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		b.place.ReleaseID(id)
		settle()
		b.adopt()
		b.wantOutcome(id, 1, succeeded)
	})
}

func TestAnInstanceThatWasThoughtGoneLeavesItsAttemptsToTheHeir(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.run("one")
		id := b.attempts("wait", "e/a")[0]
		settle()
		b.run("two")
		settle()
		if n, err := b.store.Adopt(b.Context(), "one", "two"); err != nil || n != 1 {
			t.Fatalf("adopted %d, %v", n, err)
		}
		pass(2 * time.Second)
		if running := b.place.Running(); len(running) != 1 {
			t.Fatalf("running: %v, want the attempt", running)
		}
		b.place.ReleaseID(id)
		settle()
		b.adopt()
		pass(2 * time.Second)
		b.wantOutcome(id, 1, succeeded)
		if n := b.place.Known(); n != 0 {
			t.Errorf("%d jobs were not forgotten", n)
		}
	})
}

func TestWhatIsGivenUpIsStoppedAndItsOutcomeRefused(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.run("one")
		id := b.attempts("wait", "e/a")[0]
		settle()
		x := b.runs["p:e"]
		x.attempts[id].Phase = core.TaskExecution_ABORTED // the engine has given it up
		b.commit(x, nil, x.attempts[id])
		pass(2 * time.Second)
		b.adopt()
		if got := b.adopted[id]; len(got) != 0 {
			t.Errorf("adopted %v", got)
		}
		if n := b.place.Known(); n != 0 {
			t.Errorf("%d jobs are left", n)
		}
	})
}

func TestProjectsShareTheRoomAndWhoWaitsKnowsWhy(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.place.Room = admission.Room{MilliCPU: 4000, Memory: 1 << 30, Slots: 2}
		var names []string
		for i := range 1500 { // more than one look takes in
			names = append(names, fmt.Sprintf("many:m/%d", i))
		}
		b.attempts("wait", names...)
		few := b.attempts("wait", "few:f/0")
		b.run("one")
		settle()
		if got, want := b.place.Running(), []string{"f/0", "m/0"}; !slices.Equal(got, want) {
			t.Errorf("running %v, want %v: one of each project", got, want)
		}
		pass(5 * time.Second)
		a, err := b.store.GetAttempt(b.Context(), aloft.AttemptID{Execution: aloft.ExecutionID{Project: "many", Domain: "d", Name: "m"}, Node: "1"})
		if err != nil || a.Waiting != "no room: all 2 slots are taken" {
			t.Errorf("it waits for %q, %v", a.Waiting, err)
		}
		if a, err := b.store.GetAttempt(b.Context(), few[0]); err != nil || a.Waiting != "" {
			t.Errorf("what runs waits for %q, %v", a.Waiting, err)
		}
		written := b.called("SetWaiting")
		pass(30 * time.Second)
		if again := b.called("SetWaiting"); again != written {
			t.Errorf("the same reasons were written %d times more", again-written)
		}
	})
}

func TestThousandsThatWaitAreReadSeldom(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		const n = 5000
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("e%d/%d", i%50, i))
		}
		ids := b.attempts("succeed", names...)
		kill := b.run("one")
		settle()
		kill() // nothing needs time, so all has happened
		b.adopt()
		for _, id := range ids {
			b.wantOutcome(id, 1, succeeded)
		}
		for op, most := range map[string]int{"Waiting": 2 * n / 1000, "Assigned": 10, "GetWorkflow": 1, "GetExecution": 50, "SetWaiting": 10} {
			if got := b.called(op); got > most {
				t.Errorf("%s was called %d times for %d attempts, want at most %d", op, got, n, most)
			}
		}
	})
}

func TestAShortAttemptNeedsNoMessageThatItRuns(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.run("one")
		short, long := b.attempts("succeed", "e/short")[0], b.attempts("wait", "e/long")[0]
		pass(time.Second)
		b.adopt()
		if b.started[short] != 0 || b.started[long] != 1 {
			t.Errorf("it runs was told %d times of the short and %d times of the long attempt, want 0 and 1", b.started[short], b.started[long])
		}
		b.wantOutcome(short, 1, succeeded)
		if o := b.adopted[short][0]; o.StartedAt == 0 {
			t.Error("the short one's outcome does not say when it began")
		}
	})
}

func TestWhatCanNeverRunFails(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		b.run("one")
		ids := append(b.attempts("impossible", "e/a"), b.attempts("no such task", "e/b")...)
		pass(time.Second)
		b.adopt()
		for _, id := range ids {
			b.wantOutcome(id, 0, failed)
		}
	})
}

func TestAnOutcomeThatTheStoreCannotHoldIsAFailure(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		e := executor.New(executor.Config{Instance: "one", Store: picky{b.store}, Backend: b.place.Open(t), Logger: slog.New(slog.DiscardHandler)})
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		id := b.attempts("succeed", "e/a")[0]
		pass(time.Second)
		b.adopt()
		b.wantOutcome(id, 1, failed)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// picky refuses outputs.
type picky struct{ *memstore.Store }

func (p picky) Report(ctx context.Context, executor string, reports []store.Report) []error {
	errs := make([]error, len(reports))
	for i, r := range reports {
		if r.Inbox.GetOutcome().GetOutputs() != nil {
			errs[i] = fmt.Errorf("outputs of 3 GiB: %w", aloft.ErrExhausted)
			continue
		}
		errs[i] = p.Store.Report(ctx, executor, []store.Report{r})[0]
	}
	return errs
}

func TestABackEndThatGivesUpWatchingEndsTheExecutor(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bench) {
		e := executor.New(executor.Config{Instance: "one", Store: b.store, Backend: blind{b.place.Open(t)}, Logger: slog.New(slog.DiscardHandler)})
		if err := e.Run(b.Context()); !errors.Is(err, errBlind) {
			t.Errorf("ended with %v", err)
		}
	})
}

var errBlind = errors.New("blind")

type blind struct{ executor.Backend }

func (blind) Watch(context.Context, []aloft.AttemptID, func(executor.Event)) error { return errBlind }
