package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/environment"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/leftover"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/worker"
)

// Watch turns the supervisor's events into outcomes. See executor.Backend.
func (b *Backend) Watch(ctx context.Context, expected []aloft.AttemptID, report func(executor.Event)) error {
	client, err := b.waitForSupervisor(ctx)
	if err != nil {
		return nil // waitForSupervisor fails only when ctx ends
	}
	if err := b.giveUpOrphans(ctx, client, expected); err != nil {
		b.config.Logger.Warn("look for attempts that were given up", "error", err)
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { b.startWarmWorker(ctx, client) })
	reading.Go(func() { b.removeDiscarded(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
			b.mu.Lock()
			found := b.found
			b.found = nil
			b.mu.Unlock()
			for _, event := range found {
				b.handle(ctx, event, report, &reading)
			}
		case event, ok := <-client.Events():
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the worker's connection was closed")
			}
			b.handle(ctx, event, report, &reading)
		}
	}
}

// restBeforeWarming is how long a server that is just starting has the processors for itself before a warm worker starts.
const restBeforeWarming = 200 * time.Millisecond

// startWarmWorker has the supervisor start the warm worker of the environment in which most attempts will run, so that the
// first attempt need not wait for it.
func (b *Backend) startWarmWorker(ctx context.Context, client *worker.Client) {
	known, ok := b.config.Environments.(interface {
		Present(ctx context.Context) (environment.Environment, error)
	})
	if !ok || b.config.Mode == worker.ModeCold {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(restBeforeWarming):
	}
	env, err := known.Present(ctx)
	var short string
	if err == nil {
		short, err = worker.ShortPath(b.config.DataDir)
	}
	if err == nil {
		err = client.Prepare(ctx, worker.Environment{Interpreter: env.Interpreter, Digest: env.Digest, Variables: b.commonVariables(env, short)})
	}
	switch { // an error is only logged: an attempt that needs the environment tells its user
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, aloft.ErrNotFound): // no environment stands for all images; an image may have its own
		b.config.Logger.Info("no warm worker is started ahead", "error", err)
	default:
		b.config.Logger.Warn("no warm worker is started ahead", "error", err)
	}
}

// handle takes one event of the supervisor, or one that attach has made.
func (b *Backend) handle(ctx context.Context, event worker.Event, report func(executor.Event), reading *sync.WaitGroup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.jobs[event.AttemptID]
	if a == nil || a.reported { // Start will attach to the attempt, or the attempt was given up
		return
	}
	switch event.Kind {
	case worker.EventStarted:
		started := executor.Event{Job: a.job, Started: a.job.Started("", time.Now().UnixNano())}
		b.mu.Unlock()
		report(started)
		b.mu.Lock()
	case worker.EventDone, worker.EventExited:
		if event.Kind == worker.EventExited {
			a.exited = &event
		}
		if a.reading {
			return // finish is at work: it looks at a.exited if the files of the attempt tell no outcome yet
		}
		a.reading = true
		// Reading what the attempt left means waiting for the disk: events of other attempts are handled meanwhile.
		reading.Go(func() { b.finish(ctx, a, event, report) })
	}
}

// waitForSupervisor calls supervisor until it succeeds or ctx ends: the server is of use before its tasks can run.
func (b *Backend) waitForSupervisor(ctx context.Context) (*worker.Client, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		client, err := b.supervisor(ctx)
		if err == nil {
			return client, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		b.config.Logger.Warn("the worker cannot be reached: tasks wait", "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// giveUpOrphans ends the attempts that the supervisor has and that the store has given up: no Start has come for them, and
// Watch does not expect them.
func (b *Backend) giveUpOrphans(ctx context.Context, client *worker.Client, expected []aloft.AttemptID) error {
	keep := map[string]bool{}
	for _, id := range expected {
		keep[attemptName(id)] = true
	}
	known, err := client.List(ctx)
	if err != nil {
		return err
	}
	for _, status := range known {
		b.mu.Lock()
		started := b.jobs[status.AttemptID] != nil
		b.mu.Unlock()
		if started || keep[status.AttemptID] {
			continue
		}
		b.config.Logger.Info("end an attempt that was given up", "attempt", status.AttemptID)
		if err := client.Stop(ctx, status.AttemptID, b.config.Grace); err != nil {
			return err
		}
		if err := client.Forget(ctx, status.AttemptID); err != nil {
			return err
		}
		b.mu.Lock()
		delete(b.inherited, status.AttemptID)
		b.mu.Unlock()
	}
	return b.sweep(keep, known)
}

// sweep removes the folders of attempts that neither the store (keep) nor the supervisor (known) has: a server was killed
// before it had handed them over, or while it was removing them.
func (b *Backend) sweep(keep map[string]bool, known []worker.Status) error {
	kept := map[string]bool{}
	for name := range keep {
		kept[folderName(name)] = true
	}
	for _, status := range known {
		kept[folderName(status.AttemptID)] = true
	}
	folders, err := os.ReadDir(filepath.Join(b.config.DataDir, "attempts"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, folder := range folders {
		name := strings.TrimSuffix(strings.TrimSuffix(folder.Name(), tempSuffix), inputsSuffix)
		if !kept[name] {
			b.removeUnknown(name, folder.Name())
		}
	}
	return nil
}

// removeUnknown removes a folder of an attempt that no Start is or was at work for. The folder's age says nothing: a file
// system's clock may be some milliseconds behind ours, so that a folder that a Start is just making looks older than this server.
func (b *Backend) removeUnknown(name, folder string) {
	b.mu.Lock()
	wanted := b.locked[name]
	for attempt := range b.jobs {
		wanted = wanted || folderName(attempt) == name
	}
	if wanted {
		b.mu.Unlock()
		return
	}
	b.locked[name] = true // a Start that comes meanwhile waits
	b.mu.Unlock()
	defer b.unlockFolders(name)
	b.discard(filepath.Join(b.config.DataDir, "attempts", folder))
}

// finish reads what an attempt left and reports its outcome, once. It begins when the task says that it is done (EventDone),
// some milliseconds before the process is gone; if the files tell no outcome by then, finish reads them again after the exit
// (EventExited). A Stop ends a reading that takes long: the terabytes that a task left, or a disk that is full, keep no
// execution from being terminated.
func (b *Backend) finish(ctx context.Context, a *attempt, event worker.Event, report func(executor.Event)) {
	wait := 50 * time.Millisecond
	server := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	a.cancel = cancel
	if a.abandoned {
		cancel()
	}
	b.mu.Unlock()
	for {
		over := event.Kind == worker.EventExited
		outcome, err := b.outcome(ctx, a, event.Exit, over)
		if err == nil {
			b.mu.Lock()
			a.reading, a.reported = false, true
			b.mu.Unlock()
			report(executor.Event{Job: a.job, Outcome: outcome})
			return
		}
		b.mu.Lock()
		if a.exited != nil && ctx.Err() != nil && server.Err() == nil { // a Stop has ended the reading
			a.reading, a.reported = false, true
			exit := a.exited.Exit
			b.mu.Unlock()
			outcome := a.job.Outcome()
			outcome.StartedAt, outcome.EndedAt = exit.StartedAt.UnixNano(), time.Now().UnixNano()
			outcome.Result = &aloftv1.Outcome_Stopped{Stopped: "stopped as asked, before all that it left was read"}
			report(executor.Event{Job: a.job, Outcome: outcome})
			return
		}
		if !over && a.exited != nil { // the exit came while we read, and there may be more to read now
			event = *a.exited
			b.mu.Unlock()
			continue
		}
		if !over || ctx.Err() != nil {
			a.reading = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		// Our own part failed (a full disk): the task's result waits, it is not thrown away.
		err = aloft.Blame(aloft.ServiceBlob, err) // all that outcome reads and writes is in the blob store
		b.config.Logger.Warn("keep what the attempt left", "attempt", a.job.ID.String(), "error", err, "again_in", wait)
		report(executor.Event{Job: a.job, Held: err})
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// errNotOver: the task says that it is done, and its files tell no outcome yet.
var errNotOver = errors.New("it is not over yet")

// outcome makes the outcome of an attempt from its exit record and the files it left, and makes durable what the outcome
// refers to. Before the exit (over is false) it returns errNotOver unless the files tell the outcome.
func (b *Backend) outcome(ctx context.Context, a *attempt, exit *worker.ExitRecord, over bool) (*aloftv1.Outcome, error) {
	job := a.job
	run := b.config.Blob.Path(blob.Key(job.ID.RunKey()))
	left := executor.Left{
		Name: "task " + job.Template.GetId().GetName(), Code: exit.Code, Signal: exit.Signal, OutOfMemory: exit.OOM, Limit: job.Spec.GetMemoryLimit(),
		Reason: exit.Reason, Declared: job.Template.GetInterface().GetOutputs().GetVariables(),
	}
	if exit.Stopped {
		left.Stopped = "stopped as asked"
		if exit.Reason != "" {
			left.Stopped += ": " + exit.Reason
		}
	}
	if exit.Lost {
		left.Lost = exit.Reason
	}
	if exit.Unready {
		left.Service, left.Unready = b.machineService(), exit.Reason
	}
	claim := b.results.Claim()
	defer claim.Release()
	if err := claim.Take(ctx, min(roomOf(run), b.results.Largest())); err != nil {
		return nil, err
	}
	if err := readResult(run, &left); err != nil {
		return nil, err
	}
	silent := left.Error == nil && left.Outputs == nil
	if !over && (left.NoError != "" || left.NoOutputs != "" || silent && !left.Futures) {
		return nil, errNotOver
	}
	if silent {
		left.Tail = tail(filepath.Join(run, "stderr"))
	}
	outcome := job.Outcome()
	outcome.StartedAt, outcome.EndedAt = exit.StartedAt.UnixNano(), exit.EndedAt.UnixNano()
	if exit.StartedAt.IsZero() {
		outcome.StartedAt = 0
	}
	if exit.EndedAt.IsZero() {
		outcome.EndedAt = time.Now().UnixNano()
	}
	outcome.Environment = exit.Environment
	used := usage(exit)
	if outputs := left.Read(outcome); outputs != nil {
		err := b.keep(ctx, job, outputs, outcome)
		if over && (errors.Is(err, aloft.ErrInvalid) || errors.Is(err, aloft.ErrExhausted)) { // another try would end the same
			outcome.Objects, outcome.Result = nil, &aloftv1.Outcome_Failure{Failure: executor.NewFailure(core.ExecutionError_USER, false, executor.CodeOutputsUnreadable,
				fmt.Sprintf("what %s returned cannot be kept: %v", left.Name, err))}
		} else if err != nil {
			return nil, err
		}
	}
	if f := outcome.GetFailure().GetError(); f.GetKind() == core.ExecutionError_USER {
		if advice := b.advice(ctx, job, f.GetMessage()); advice != "" {
			f.Message += "\n\n" + advice
		}
	}
	if outcome.GetOutputs() == nil { // the next attempt goes on from the checkpoint
		kept, err := b.config.Blob.Adopt(ctx, checkpointKey(job.ID))
		if len(kept) > 0 {
			used.Checkpoint = checkpointKey(job.ID).URI()
		}
		if errors.Is(err, aloft.ErrInvalid) {
			b.config.Logger.Warn("the checkpoint cannot be kept", "attempt", job.ID.String(), "error", err)
		} else if err != nil {
			return nil, fmt.Errorf("keep the checkpoint: %w", err)
		}
	}
	encoded, err := proto.Marshal(used)
	if err != nil {
		return nil, fmt.Errorf("encode usage: %w", err)
	}
	outcome.Usage = encoded
	deck, err := b.config.Blob.Adopt(ctx, blob.Key(job.ID.RunKey()+"/deck.html"))
	if errors.Is(err, aloft.ErrInvalid) {
		b.config.Logger.Warn("the deck cannot be kept", "attempt", job.ID.String(), "error", err)
	} else if err != nil {
		return nil, fmt.Errorf("keep the deck: %w", err)
	}
	if len(deck) > 0 {
		outcome.DeckUri = deck[0].Key.URI()
	}
	return outcome, nil
}

// advice is the way out of a failure (executor.Ran); empty: there is none.
func (b *Backend) advice(ctx context.Context, job *executor.Job, message string) string {
	// Whether there is advice on a message does not depend on the environment, and to resolve that takes a moment.
	ran := executor.Ran{Image: job.Template.GetContainer().GetImage(), Interpreter: "python", Folder: b.workDir(attemptName(job.ID))}
	if ran.Advice(message) == "" {
		return ""
	}
	env, _, err := b.environment(ctx, job)
	if err != nil {
		return ""
	}
	ran.Interpreter, ran.Reason = env.Interpreter, env.Reason
	return ran.Advice(message)
}

// keep makes the outputs canonical and everything that they refer to durable, with its digest. Outputs that refer to nothing,
// or to a file that is removed with the attempt, are aloft.ErrInvalid, all of them in one error.
func (b *Backend) keep(ctx context.Context, job *executor.Job, outputs *core.LiteralMap, outcome *aloftv1.Outcome) error {
	raw := b.writtenKey(job.ID)
	var written []blob.Object
	if !isEmptyFolder(b.config.Blob.Path(raw)) { // a folder that prepare made and in which the attempt wrote nothing need not be durable
		var err error
		if written, err = b.config.Blob.Adopt(ctx, raw); err != nil {
			return fmt.Errorf("keep the files of the outputs: %w", err)
		}
	}
	canonical := b.canonicalAmong(written)
	var problems []error
	back := func(location string) (string, error) {
		uri, err := canonical(location)
		if err == nil && uri == location {
			if uri, err = b.returnedURI(ctx, job, location); errors.Is(err, aloft.ErrUnavailable) || ctx.Err() != nil {
				problems = append(problems, err)
			}
		}
		return uri, err
	}
	if err := literal.RewriteURIs(outputs, back); len(problems) > 0 {
		return fmt.Errorf("keep changed inputs: %w", errors.Join(problems...))
	} else if err != nil {
		b.config.Logger.Warn("render locations in outputs", "attempt", job.ID.String(), "error", err)
	}
	var err error
	if outcome.Objects, err = b.digests(ctx, attemptName(job.ID), outputs, written); err != nil {
		return err
	}
	literals, err := b.literals.WriteLiterals(ctx, outputs)
	if err != nil {
		return err
	}
	outcome.Result = &aloftv1.Outcome_Outputs{Outputs: literals}
	return nil
}

// canonicalAmong returns a function that gives the canonical form of the locations that an attempt returns. flytekit un-escapes the location of a
// FlyteFile that it returns (types/file/file.py, unquote), so one whose path has a "%41" in it names another file, that is
// not there; what the attempt wrote tells which is meant.
func (b *Backend) canonicalAmong(written []blob.Object) func(uri string) (string, error) {
	meant := map[string]string{}
	there := map[string]bool{}
	for _, o := range written {
		there[o.Key.URI()] = true
		path := b.config.Blob.Path(o.Key)
		if unescaped, err := url.PathUnescape(path); err == nil && unescaped != path {
			meant[unescaped] = o.Key.URI()
		}
	}
	return func(uri string) (string, error) {
		canonical, err := b.renderer.Canonical(uri)
		if object, ok := meant[strings.TrimPrefix(uri, "file://")]; ok && !there[canonical] {
			return object, nil
		}
		return canonical, err
	}
}

// digests lists the stored files and folders that the outputs refer to, each with its digest. What the location of a literal
// names must be there; a text in a struct counts as a location only if something is there.
func (b *Backend) digests(ctx context.Context, attempt string, outputs *core.LiteralMap, written []blob.Object) ([]*aloftv1.ObjectDigest, error) {
	var keys []blob.Key
	var problems []error
	seen := map[blob.Key]bool{}
	output := map[blob.Key]string{} // the first output that refers to the key
	for _, name := range slices.Sorted(maps.Keys(outputs.GetLiterals())) {
		literal.Walk(outputs.GetLiterals()[name], func(uri *string) {
			if err := b.checkLocalOutput(attempt, *uri); err != nil {
				problems = append(problems, fmt.Errorf("output %s: %w", name, err))
			}
			key, ours, err := blob.KeyOfURI(*uri)
			switch {
			case err != nil:
				problems = append(problems, fmt.Errorf("output %s: %w", name, err))
			case ours && isShared(key) && isFolder(b.config.Blob.Path(key)):
				problems = append(problems, fmt.Errorf("output %s: %s is a folder with what other attempts wrote; return what this one wrote, or an input", name, key.URI()))
			case ours && !seen[key]:
				seen[key], output[key] = true, name
				keys = append(keys, key)
			}
		})
	}
	references := literal.References(outputs, blob.KeyOfText)
	for _, key := range slices.Sorted(maps.Keys(references)) {
		// Below run there are no outputs, but logs, which go on being written, and what is kept of attempts.
		if references[key] == literal.InStruct && !seen[key] && !key.Within("run") && !(isShared(key) && isFolder(b.config.Blob.Path(key))) {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	var digests []*aloftv1.ObjectDigest
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		below := blob.Below(written, key) // no copy: outputs may refer to each of many folders in one another
		if len(below) == 0 {
			// The attempt has not written the object: it passes an input on.
			var err error
			below, err = b.objectsBelow(ctx, key)
			if references[key] == literal.InStruct && (errors.Is(err, aloft.ErrNotFound) || errors.Is(err, aloft.ErrConflict)) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		if len(below) == 0 && !isFolder(b.config.Blob.Path(key)) {
			if references[key] == literal.InStruct {
				continue
			}
			problems = append(problems, fmt.Errorf("output %s refers to %s, and nothing is there", output[key], key.URI()))
			continue
		}
		digest, size := blob.DigestBelow(key, below)
		digests = append(digests, &aloftv1.ObjectDigest{Uri: key.URI(), Digest: digest, Size: size})
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: %w", aloft.ErrInvalid, errors.Join(problems...))
	}
	return digests, nil
}

// objectsBelow are the objects at or below a key, with their digests.
func (b *Backend) objectsBelow(ctx context.Context, key blob.Key) ([]blob.Object, error) {
	var below []blob.Object
	for entry, err := range b.config.Blob.List(ctx, key) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", key, err)
		}
		attributes, err := b.config.Blob.Stat(ctx, entry.Key)
		if err != nil {
			return nil, fmt.Errorf("read the digest of %s: %w", entry.Key, err)
		}
		below = append(below, blob.Object{Key: entry.Key, Attributes: attributes})
	}
	return below, nil
}

// isShared says whether a key names a folder above those of attempts: raw, or raw and the two letters that spread load.
func isShared(key blob.Key) bool {
	return key == "raw" || strings.HasPrefix(string(key), "raw/") && strings.Count(string(key), "/") == 1
}

// checkLocalOutput returns an error if an output is a path on this machine that cannot stay one: the file is removed with the
// attempt, or does not exist.
func (b *Backend) checkLocalOutput(attempt, uri string) error {
	path := strings.TrimPrefix(uri, "file://")
	if !filepath.IsAbs(path) {
		return nil
	}
	const wayOut = "; without remote_path=False flytekit keeps it"
	folders := []string{b.workDir(attempt), b.tempDir(attempt), b.inputsDir(attempt)}
	if short, err := worker.ShortPath(b.config.DataDir); err == nil {
		folders = append(folders, filepath.Join(short, "attempts", folderName(attempt)+tempSuffix))
	}
	for _, dir := range folders {
		if below, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(below) {
			return fmt.Errorf("%s is in a folder of the attempt, which is removed with it%s", path, wayOut)
		}
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("%s is not there%s", path, wayOut)
	}
	return nil
}

// isFolder says whether there is a folder at a path, perhaps an empty one.
func isFolder(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// isEmptyFolder says whether there is a folder at a path, and nothing in it.
func isEmptyFolder(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// usage is what an attempt used, and in which mode it ran.
func usage(exit *worker.ExitRecord) *aloftv1.AttemptUsage {
	return &aloftv1.AttemptUsage{
		CpuUser: durationpb.New(exit.CPUUser), CpuSystem: durationpb.New(exit.CPUSystem), PeakMemory: exit.PeakMemory,
		ExitCode: int32(exit.Code), Signal: int32(exit.Signal), Mode: string(exit.Mode), ModeReason: exit.WhyCold,
	}
}

// The files by which a task tells how it ended, in its folder.
const (
	errorFile   = "error.pb"   // flyteidl.core.ErrorDocument
	outputsFile = "outputs.pb" // flyteidl.core.LiteralMap
)

// readResult reads what a task says of its end.
func readResult(run string, left *executor.Left) error {
	for _, file := range []struct {
		name    string
		content *[]byte
		problem *string
	}{{errorFile, &left.Error, &left.NoError}, {outputsFile, &left.Outputs, &left.NoOutputs}} {
		content, err := leftover.Read(filepath.Join(run, file.name), aloft.MaxMessageBytes)
		not, isNot := errors.AsType[*leftover.NotFileError](err)
		_, tooLarge := errors.AsType[*leftover.TooLargeError](err)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case isNot:
			*file.problem = not.Error()
		case tooLarge && file.content == &left.Outputs:
			left.Outputs, left.TooLarge = []byte{}, true
		case tooLarge:
			*file.problem = err.Error()
		case err != nil:
			return unavailable("read what the attempt left", err)
		default:
			*file.content = content
		}
	}
	futures, err := os.Lstat(filepath.Join(run, "futures.pb"))
	left.Futures = err == nil && futures.Mode().IsRegular()
	return nil
}

// Large results take room while they are read, decoded and kept, and wait for it: what tasks leave at once must not fill the
// server's memory. Small ones never wait behind them.
const (
	resultsRoom  = 3 * aloft.MaxDecodedBytes
	largeResult  = 64 << 10
	resultCopies = 4 // the file, what is kept of it, and both buffers as they grow
)

// roomOf is how many bytes of memory the result in a folder can take.
func roomOf(run string) int64 {
	var size int64
	for _, name := range []string{errorFile, outputsFile} {
		if info, err := os.Lstat(filepath.Join(run, name)); err == nil && info.Mode().IsRegular() {
			size += min(info.Size(), aloft.MaxMessageBytes)
		}
	}
	if size <= largeResult {
		return 0
	}
	return resultCopies*size + min(weight.Most*size, aloft.MaxDecodedBytes)
}

// tailBytes of stderr go into the failure of a task that left no error of its own.
const tailBytes = 4096

// tail is the end of a log as text, from the beginning of a line.
func tail(path string) string {
	content, err := leftover.Tail(path, tailBytes)
	if not, ok := errors.AsType[*leftover.NotFileError](err); ok {
		return "(" + not.Error() + ")"
	}
	if err != nil {
		return ""
	}
	if i := bytes.IndexByte(content, '\n'); len(content) == tailBytes && i >= 0 {
		content = content[i+1:]
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(content)), "\uFFFD")
}
