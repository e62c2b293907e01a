package simulation

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// fakeExecutor runs tasks by waiting. What it knows of them survives its own crashes, as a supervisor's disk does.
type fakeExecutor struct {
	world       *world
	id, place   string
	silentUntil time.Duration // it does nothing before; its tasks go on
	jobs        map[store.AttemptKey]*job
}

type job struct {
	attempt *store.Attempt
	started time.Duration
	ends    time.Duration
	told    bool             // that it runs
	outcome *aloftv1.Outcome // how it ended; nil: not yet
}

const executorTTL = 15 * time.Second

// pass does what an executor does, once. Whatever the store does not take now is tried again in the next one.
func (x *fakeExecutor) pass() {
	w := x.world
	if w.mono < x.silentUntil {
		return
	}
	ctx, r := w.ctx, w.random
	now := w.now()
	if w.store.Heartbeat(ctx, store.Instance{ID: x.id, Kind: "process", Place: x.place, Slots: 100, SeenAt: now, Expires: now.Add(executorTTL)}) != nil {
		return
	}
	waiting, _ := w.store.Waiting(ctx, w.latest, 50)
	for _, a := range waiting {
		if w.calm || r.IntN(3) > 0 {
			_ = w.store.Assign(ctx, x.id, []store.AttemptKey{a.AttemptKey}, now)
		}
	}
	assigned, err := w.store.Assigned(ctx, x.id)
	if err != nil {
		return
	}
	mine := map[store.AttemptKey]bool{}
	for _, a := range assigned {
		mine[a.AttemptKey] = true
		j := x.jobs[a.AttemptKey]
		if j == nil {
			j = &job{attempt: a, started: w.mono, ends: w.mono + time.Duration(r.IntN(int(3*time.Second)))}
			x.jobs[a.AttemptKey] = j
			if !w.calm && r.IntN(25) == 0 {
				j.outcome = x.outcome(j)
				j.outcome.Result = &aloftv1.Outcome_Lost{Lost: "its process is gone and left no record"}
			}
		}
		if a.Stop != "" && j.outcome == nil && (w.calm || r.IntN(3) > 0) {
			j.outcome = x.outcome(j)
			j.outcome.Result = &aloftv1.Outcome_Stopped{Stopped: a.Stop}
		}
	}
	for _, key := range x.sorted() {
		j := x.jobs[key]
		if j.outcome == nil && w.mono >= j.ends && !x.hangs(j) {
			if j.outcome = x.run(j); j.outcome == nil {
				continue // its inputs cannot be read now
			}
		}
		if j.outcome == nil && !j.told && r.IntN(2) == 0 {
			started := &aloftv1.AttemptStarted{
				Node: string(key.Node), Attempt: key.Attempt, Token: key.Token, Executor: x.id, StartedAt: now.UnixNano(),
			}
			j.told = errors.Join(w.store.Report(ctx, x.id, []store.Report{{Attempt: key, Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: started}}}})...) == nil
		}
		if j.outcome == nil {
			continue
		}
		message := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: j.outcome}}
		if !w.calm && r.IntN(6) == 0 {
			x.misreport(j, message)
		}
		err := errors.Join(w.store.Report(ctx, x.id, []store.Report{{Attempt: key, Inbox: message}})...)
		// It stays until the attempt is over, so it is reported again and again; and what was taken from us once more.
		if errors.Is(err, aloft.ErrConflict) && (w.calm || r.IntN(3) == 0) && !mine[key] {
			delete(x.jobs, key)
		}
	}
}

func (x *fakeExecutor) sorted() []store.AttemptKey {
	return slices.SortedFunc(maps.Keys(x.jobs), func(a, b store.AttemptKey) int {
		return cmpKeys(a, b)
	})
}

func (x *fakeExecutor) outcome(j *job) *aloftv1.Outcome {
	k := j.attempt.AttemptKey
	now := x.world.now()
	return &aloftv1.Outcome{
		Node: string(k.Node), Attempt: k.Attempt, Token: k.Token,
		StartedAt: now.Add(j.started - x.world.mono).UnixNano(), EndedAt: now.UnixNano(),
		// The check looks here for whose result was adopted.
		Environment: origin(k.Node, k.Attempt, k.Token),
	}
}

func origin(node aloft.NodeID, attempt uint32, token string) string {
	return fmt.Sprintf("%s/%d/%s", node, attempt, token)
}

// failed is how often the task of a job has failed by itself before.
func (x *fakeExecutor) failed(j *job) (n int) {
	for _, a := range x.world.attempts(j.attempt.ID.Execution, j.attempt.Node) {
		if a.Attempt < j.attempt.Attempt && a.Error != nil && !a.Lost {
			n++
		}
	}
	return n
}

func (x *fakeExecutor) hangs(j *job) bool {
	return j.attempt.Spec.GetTask().GetName() == runHang && x.failed(j) == 0
}

// run is the task: its result depends on its inputs and on how often it has failed by itself before.
func (x *fakeExecutor) run(j *job) *aloftv1.Outcome {
	w, k := x.world, j.attempt.AttemptKey
	l, err := w.store.NodeInputs(w.ctx, k.Execution, k.Node)
	if err != nil {
		return nil
	}
	inputs := l.GetValue()
	if l.GetRef().GetUri() != "" {
		if inputs, err = w.objects.ReadLiterals(w.ctx, l.GetRef()); err != nil {
			return nil
		}
	}
	o := x.outcome(j)
	failed := x.failed(j)
	failure := func(kind core.ExecutionError_ErrorKind, recoverable bool) {
		o.Result = &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{
			Error: &core.ExecutionError{Code: "Raised", Message: "it raised", Kind: kind}, Recoverable: recoverable,
		}}
	}
	switch behaviour := j.attempt.Spec.GetTask().GetName(); {
	case behaviour == runFail:
		failure(core.ExecutionError_USER, false)
	case behaviour == runFailRetrying, behaviour == runFlakyUser && failed == 0:
		failure(core.ExecutionError_USER, true)
	case behaviour == runFlakySystem && failed == 0:
		failure(core.ExecutionError_SYSTEM, true)
	default:
		sum := sha256.Sum256([]byte(inputs.GetLiterals()["x"].GetScalar().GetPrimitive().GetStringValue()))
		value := hex.EncodeToString(sum[:])[:4+int(sum[0])%60]
		outputs, err := w.objects.WriteLiterals(w.ctx, oneText("o0", value))
		if err != nil {
			return nil
		}
		o.Result = &aloftv1.Outcome_Outputs{Outputs: outputs}
	}
	return o
}

// misreport puts into the inbox what Report would not: a result under another attempt's number or token, a second and
// different result, a result that comes after the attempt was given up.
func (x *fakeExecutor) misreport(j *job, message *aloftv1.Inbox) {
	w := x.world
	wrong := &aloftv1.Outcome{
		Node: string(j.attempt.Node), Attempt: j.attempt.Attempt, Token: j.attempt.Token, EndedAt: w.now().UnixNano(),
		Environment: "zombie", Result: &aloftv1.Outcome_Outputs{Outputs: &aloftv1.Literals{Value: oneText("o0", "zombie")}},
	}
	switch w.random.IntN(4) {
	case 0:
		wrong.Token = "no such token"
	case 1:
		wrong.Attempt++ // the next one, with the token of this one
	case 2:
		if j.attempt.Attempt == 0 {
			wrong.Token = ""
		} else {
			wrong.Attempt-- // one that was given up
		}
	case 3:
		wrong = message.GetOutcome() // the right one, past the store's own check
	}
	w.serial++
	_ = w.store.Append(w.ctx, j.attempt.ID.Execution, store.Message{
		Dedup: fmt.Sprintf("mis/%d", w.serial), Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: wrong}},
	})
}
