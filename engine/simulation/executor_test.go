package simulation

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// place is where tasks run. What it knows of tasks survives its executors, as a supervisor's disk does.
type place struct {
	name string
	jobs map[store.AttemptKey]*job
}

type job struct {
	attempt *store.Attempt
	started time.Duration
	ends    time.Duration
	outcome *aloftv1.Outcome // how it ended; nil: not yet
}

func (p *place) sorted() []store.AttemptKey { return sortedKeys(p.jobs) }

// lose ends tasks without a record of how they ended.
func (p *place) lose(which func() bool, why string) {
	for _, key := range p.sorted() {
		if j := p.jobs[key]; j.outcome == nil && which() {
			j.outcome = outcomeOf(j.attempt, time.Time{}, time.Time{})
			j.outcome.Result = &aloftv1.Outcome_Lost{Lost: why}
		}
	}
}

// fakeExecutor runs tasks by waiting.
type fakeExecutor struct {
	process
	world         *world
	number        int
	place         *place
	host          *engineHost                         // of which it is a part: they have the same clock
	silentUntil   time.Duration                       // the executor does nothing before; its tasks go on
	started       map[store.AttemptKey]bool           // whose start it has reported
	knownAttempts map[store.AttemptKey]*store.Attempt // that it takes for its own, also after another executor has taken them over
}

const executorTTL = 15 * time.Second

func newExecutor(w *world, number int, p *place, server *engineHost) *fakeExecutor {
	x := &fakeExecutor{world: w, number: number, place: p, host: server}
	x.replace()
	return x
}

// replace starts the executor anew under a new name.
func (x *fakeExecutor) replace() {
	if x.name != "" {
		x.world.replacedExecutors = append(x.world.replacedExecutors, x.name)
	}
	x.name = fmt.Sprintf("x%d.%d", x.number, x.world.serial)
	x.world.serial++
	x.forget()
}

// forget drops what is in the memory of the executor's process, when that ends.
func (x *fakeExecutor) forget() {
	x.started, x.knownAttempts = map[store.AttemptKey]bool{}, map[store.AttemptKey]*store.Attempt{}
}

// pass is one pass of the executor. If its process dies meanwhile, the next pass begins with what its place and the store know.
func (x *fakeExecutor) pass() {
	if x.world.elapsed < x.silentUntil || x.host.engine == nil {
		return
	}
	x.world.asProcess(&x.process, x.workOnce)
	switch {
	case !x.dead:
	case x.world.enabledFaults[executorReplaced] && x.world.random.IntN(2) == 0:
		x.replace()
	default:
		x.forget()
	}
}

// workOnce does once what an executor does. Calls that fail are made again in the next pass.
func (x *fakeExecutor) workOnce() {
	w, r := x.world, x.world.random
	now := w.now()
	if w.store.Heartbeat(w.ctx, store.Instance{ID: x.name, Kind: "process", Place: x.place.name, Slots: 100, SeenAt: now, Expires: now.Add(executorTTL)}) != nil {
		return
	}
	waiting, _ := w.store.Waiting(w.ctx, x.host.engine.Now(), 50)
	var taken []store.AttemptKey
	for _, a := range waiting {
		if _, away := x.host.health.Away(aloft.ServiceBlob); !away && (w.calm || r.IntN(3) > 0) {
			taken = append(taken, a.AttemptKey)
			if !w.skewed && a.NotBefore.After(w.firstWall.Add(w.elapsed)) {
				w.fail("P10: attempt %d of node %s could start %s early", a.Attempt, a.Node, a.NotBefore.Sub(w.firstWall.Add(w.elapsed)))
			}
		}
	}
	if len(taken) > 0 {
		_ = w.store.Assign(w.ctx, x.name, "", taken, now)
	}
	assigned, err := w.store.Assigned(w.ctx, x.name)
	if err != nil {
		return
	}
	mine := map[store.AttemptKey]bool{}
	for _, a := range assigned {
		mine[a.AttemptKey], x.knownAttempts[a.AttemptKey] = true, a
		j := x.place.jobs[a.AttemptKey]
		if j == nil { // else it was started before, by this executor or by another one at the place
			j = &job{attempt: a, started: w.elapsed, ends: w.elapsed + time.Duration(r.IntN(int(3*time.Second)))}
			x.place.jobs[a.AttemptKey] = j
		}
		if a.Stop != "" && j.outcome == nil && (w.calm || r.IntN(3) > 0) {
			j.outcome = x.outcome(j)
			j.outcome.Result = &aloftv1.Outcome_Stopped{Stopped: a.Stop}
		}
	}
	for _, key := range x.place.sorted() {
		j := x.place.jobs[key]
		if x.knownAttempts[key] == nil {
			continue
		}
		if j.outcome == nil && w.elapsed >= j.ends && !x.hangs(j) {
			j.outcome = x.runTask(j) // nil: its inputs cannot be read now
			if j.outcome == nil && w.away == aloft.ServiceBlob && r.IntN(4) == 0 {
				j.outcome = x.serviceFailure(j)
			}
		}
		if j.outcome == nil && !x.started[key] && r.IntN(2) == 0 {
			message := &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: &aloftv1.AttemptStarted{
				Node: string(key.Node), Attempt: key.Attempt, Token: key.Token, Executor: x.name, StartedAt: now.UnixNano(),
			}}}
			x.started[key] = errors.Join(w.store.Report(w.ctx, x.name, []store.Report{{Attempt: key, Inbox: message}})...) == nil
		}
		if j.outcome == nil {
			continue
		}
		message := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: j.outcome}}
		if !w.calm && w.enabledFaults[callsMisreport] && r.IntN(6) == 0 {
			x.misreport(j, message)
		}
		err := errors.Join(w.store.Report(w.ctx, x.name, []store.Report{{Attempt: key, Inbox: message}})...)
		// The outcome is reported again and again until the attempt is over, also by an executor that lost the attempt.
		if errors.Is(err, aloft.ErrConflict) && (w.calm || r.IntN(3) == 0) && !mine[key] {
			delete(x.knownAttempts, key)
		}
	}
}

func (x *fakeExecutor) outcome(j *job) *aloftv1.Outcome {
	now := x.world.now()
	return outcomeOf(j.attempt, now.Add(j.started-x.world.elapsed), now)
}

func outcomeOf(a *store.Attempt, started, ended time.Time) *aloftv1.Outcome {
	o := &aloftv1.Outcome{
		Node: string(a.Node), Attempt: a.Attempt, Token: a.Token,
		// By this the invariants tell which attempt's result was adopted.
		Environment: origin(a.Node, a.Attempt, a.Token),
	}
	if !ended.IsZero() {
		o.StartedAt, o.EndedAt = started.UnixNano(), ended.UnixNano()
	}
	return o
}

func origin(node aloft.NodeID, attempt uint32, token string) string {
	return fmt.Sprintf("%s/%d/%s", node, attempt, token)
}

// ownFailures is how often the task of a job has failed by itself before.
func (x *fakeExecutor) ownFailures(j *job) (n int) {
	for _, a := range x.world.attempts(j.attempt.ID.Execution, j.attempt.Node) {
		if a.Attempt < j.attempt.Attempt && a.Error != nil && !a.Lost {
			n++
		}
	}
	return n
}

func (x *fakeExecutor) hangs(j *job) bool {
	return x.behaviour(j) == runHang && x.ownFailures(j) == 0
}

// behaviour is what a task does. In an execution that recovers another one, a task that failed there may succeed. A cached task
// does not change: else other executions could succeed by its result that fail without it.
func (x *fakeExecutor) behaviour(j *job) string {
	task := j.attempt.Spec.GetTask().GetName()
	switch b := behaviourOf(task); {
	case b != runFail && b != runFailRetrying && b != runHang, isCached(task), !x.world.failsNoMore(j.attempt):
		return b
	default:
		return runOK
	}
}

// runTask is how the task ends: that depends on its inputs and on how often it has failed by itself before.
func (x *fakeExecutor) runTask(j *job) *aloftv1.Outcome {
	w, k := x.world, j.attempt.AttemptKey
	l, err := w.store.NodeInputs(w.ctx, k.Execution, k.Node)
	if err != nil {
		return nil
	}
	inputs := l.GetValue()
	if l.GetRef().GetUri() != "" {
		if inputs, err = w.literals.ReadLiterals(w.ctx, l.GetRef()); err != nil {
			if !errors.Is(err, aloft.ErrUnavailable) {
				w.fail("P2: the inputs of node %s, which runs, cannot be read: %w", k.Node, err)
			}
			return nil
		}
	}
	o := x.outcome(j)
	failed := x.ownFailures(j)
	failure := func(code string, kind core.ExecutionError_ErrorKind, recoverable bool) {
		o.Result = &aloftv1.Outcome_Failure{Failure: &aloftv1.Failure{
			Error: &core.ExecutionError{Code: code, Message: "it raised", Kind: kind}, Recoverable: recoverable,
		}}
	}
	task := j.attempt.Spec.GetTask()
	behaviour := x.behaviour(j)
	w.count(behaviour)
	switch {
	case behaviour == runFail:
		failure("Raised", core.ExecutionError_USER, false)
	case behaviour == runFailRetrying, behaviour == runFlakyUser && failed == 0:
		failure("Raised", core.ExecutionError_USER, true)
	case behaviour == runFlakySystem && failed == 0:
		failure("Raised", core.ExecutionError_SYSTEM, true)
	case behaviour == runHungry && j.attempt.Spec.GetMemory() < hungryNeeds:
		failure("OOMKilled", core.ExecutionError_USER, true)
	case behaviour == runResume:
		done, err := x.resume(j)
		if err != nil {
			return nil
		}
		if !done {
			failure("Raised", core.ExecutionError_USER, true)
			if o.Usage, err = proto.Marshal(&aloftv1.AttemptUsage{Checkpoint: checkpointKey(j.attempt.ID, j.attempt.Attempt).URI()}); err != nil {
				w.fail("describe the use of an attempt: %w", err)
			}
			break
		}
		fallthrough
	default:
		m := taskOutputs(inputs, task)
		if behaviour == runFile && len(textOf(m, "o0")) < longText {
			if o.Objects, err = x.write(j, m); err != nil {
				return nil
			}
		}
		outputs, err := w.literals.WriteLiterals(w.ctx, m)
		if err != nil {
			return nil
		}
		o.Result = &aloftv1.Outcome_Outputs{Outputs: outputs}
	}
	return o
}

// taskOutputs are the outputs of a task, but for files.
func taskOutputs(inputs *core.LiteralMap, task *core.Identifier) *core.LiteralMap {
	return oneText("o0", taskOutput(textOf(inputs, "x"), salt(task.GetName(), task.GetVersion())))
}

func textOf(m *core.LiteralMap, name string) string {
	return m.GetLiterals()[name].GetScalar().GetPrimitive().GetStringValue()
}

// write makes a file with the content of output o0, and adds the file to the outputs. A result has one object at most, the file
// or all of its outputs: the catalog checks several at once, in an order that no seed decides.
func (x *fakeExecutor) write(j *job, outputs *core.LiteralMap) ([]*aloftv1.ObjectDigest, error) {
	w, id := x.world, j.attempt.ID
	key, content := blob.Key(fmt.Sprintf("file/%s/%s/%d", id.Execution.Name, id.Node, id.Attempt)), []byte(textOf(outputs, "o0"))
	if !w.blobs.Durable(key) {
		w.blobs.WriteInPlace(key, content)
		if _, err := w.blobs.Adopt(w.ctx, key); err != nil {
			return nil, err
		}
	}
	d := blob.NewDigest()
	d.Write(content)
	w.fileDigests[key.URI()] = d.Attributes().SHA256
	outputs.Literals["file"] = &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{
		Value: &core.Scalar_Blob{Blob: &core.Blob{Uri: key.URI(), Metadata: &core.BlobMetadata{Type: &core.BlobType{}}}},
	}}}
	return []*aloftv1.ObjectDigest{{Uri: key.URI(), Digest: d.Attributes().SHA256, Size: int64(len(content))}}, nil
}

// taskOutput is what a task makes of its input: often a long text if the input is one.
func taskOutput(input, salt string) string {
	sum := sha256.Sum256([]byte(salt + input))
	value := hex.EncodeToString(sum[:])[:4+int(sum[0])%60]
	if len(input) >= longText && sum[1]%4 > 0 {
		value += strings.Repeat("o", longText)
	}
	return value
}

// resume goes on from the checkpoint of the latest attempt before this one that saved one, does one of three parts of the task,
// and saves a checkpoint. done: that was the last part.
func (x *fakeExecutor) resume(j *job) (done bool, err error) {
	w, parts := x.world, ""
	for n := j.attempt.Attempt; n > 0 && parts == ""; n-- {
		if parts, err = w.blobs.read(w.ctx, checkpointKey(j.attempt.ID, n-1)); err != nil {
			return false, err
		}
	}
	if attempts := w.attempts(j.attempt.ID.Execution, j.attempt.Node); parts == "" && len(attempts) > 0 {
		// The checkpoint that the recovered execution left.
		if key, err := blob.ParseURI(attempts[0].Spec.GetCheckpoint()); err == nil {
			w.count(checkpointHandedOn)
			if parts, err = w.blobs.read(w.ctx, key); err != nil {
				return false, err
			}
		}
	}
	if len(parts) >= 2 {
		return true, nil
	}
	key := checkpointKey(j.attempt.ID, j.attempt.Attempt)
	w.blobs.WriteInPlace(key, []byte(parts+"."))
	_, err = w.blobs.Adopt(w.ctx, key)
	return false, err
}

// misreport puts an outcome into the inbox, now or later, that Report would refuse: under another attempt's number or token, or
// the right outcome a second time.
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
		wrong.Attempt++ // the next attempt, with the token of this one
	case 2:
		if j.attempt.Attempt == 0 {
			wrong.Token = ""
		} else {
			wrong.Attempt-- // an attempt that was given up
		}
	case 3:
		wrong = message.GetOutcome() // the right outcome, past the check of Report
	}
	w.count(callsMisreport)
	w.serial++
	id, put := j.attempt.ID.Execution, store.Message{
		Dedup: fmt.Sprintf("mis/%d", w.serial), Inbox: &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: wrong}},
	}
	if w.random.IntN(3) == 0 {
		w.lateCalls = append(w.lateCalls, lateCall{"outcome", func() { _ = w.memory.Append(w.ctx, id, put) }})
		return
	}
	_ = w.store.Append(w.ctx, id, put)
}
