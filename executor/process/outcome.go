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
	client, err := b.connected(ctx)
	if err != nil {
		return nil // only the end of ctx ends its patience
	}
	if err := b.giveUpOrphans(ctx, client, expected); err != nil {
		b.config.Logger.Warn("look for attempts that were given up", "error", err)
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { b.warm(ctx, client) })
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

// restBeforeWarming leaves the processors to the server that is just starting.
const restBeforeWarming = 200 * time.Millisecond

// warm has the warm worker of the attempts to come started, so that the first of them need not wait for it.
func (b *Backend) warm(ctx context.Context, client *worker.Client) {
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
	switch { // the first attempt will say it to whom it concerns
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, aloft.ErrNotFound): // each image may have its own
		b.config.Logger.Info("no warm worker is started ahead", "error", err)
	default:
		b.config.Logger.Warn("no warm worker is started ahead", "error", err)
	}
}

func (b *Backend) handle(ctx context.Context, event worker.Event, report func(executor.Event), reading *sync.WaitGroup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.jobs[event.AttemptID]
	if a == nil || a.reported { // Start will attach to it, or it was given up
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
			return // whoever reads looks at a.exited when it was too early
		}
		a.reading = true
		// Reading what is left means waiting for the disk: other attempts' events go on meanwhile.
		reading.Go(func() { b.finish(ctx, a, event, report) })
	}
}

// connected is supervisor with patience: the server is of use before its tasks can run.
func (b *Backend) connected(ctx context.Context) (*worker.Client, error) {
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

// giveUpOrphans ends what the supervisor has and no attempt of the store stands for any more.
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

// sweep removes the folders of attempts that nobody knows: a server was killed before it had handed them over, or while
// it was removing them.
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

// removeUnknown removes a folder of an attempt that no Start is or was at work for. Its age says nothing: a file system's clock
// may be some milliseconds behind ours, so that what is just being prepared looks older than we are.
func (b *Backend) removeUnknown(name, folder string) {
	b.mu.Lock()
	wanted := b.starting[name]
	for attempt := range b.jobs {
		wanted = wanted || folderName(attempt) == name
	}
	if wanted {
		b.mu.Unlock()
		return
	}
	b.starting[name] = true // a Start that comes meanwhile waits
	b.mu.Unlock()
	defer b.through(name)
	b.discard(filepath.Join(b.config.DataDir, "attempts", folder))
}

// finish reads what an attempt left and reports it, once. When the task says that it is done, its outcome counts
// already; its process needs some milliseconds more to be gone. A Stop ends a reading that takes long: the terabytes that
// a task left, or a disk that is full, keep no execution from being terminated.
func (b *Backend) finish(ctx context.Context, a *attempt, event worker.Event, report func(executor.Event)) {
	wait := 50 * time.Millisecond
	server := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	a.abandon = cancel
	if a.stopping {
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
		if !over && a.exited != nil { // it came while we read too early
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
		err = aloft.Blame(aloft.ServiceBlob, err) // all that it touches is there
		b.config.Logger.Warn("keep what the attempt left", "attempt", a.job.ID.String(), "error", err, "again_in", wait)
		report(executor.Event{Job: a.job, Held: err})
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// errNotOver: the task says it is done but what it left tells nothing yet.
var errNotOver = errors.New("it is not over yet")

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
		if over && (errors.Is(err, aloft.ErrInvalid) || errors.Is(err, aloft.ErrExhausted)) { // it will not get better
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
	if outcome.GetOutputs() == nil { // whoever comes after it goes on from there
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

// advice on a failure; empty where there is none.
func (b *Backend) advice(ctx context.Context, job *executor.Job, message string) string {
	// Whether there is any does not depend on the environment, which takes a moment to ask for.
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
// or to what goes with the attempt, are aloft.ErrInvalid, all of them in one error.
func (b *Backend) keep(ctx context.Context, job *executor.Job, outputs *core.LiteralMap, outcome *aloftv1.Outcome) error {
	raw := b.writtenKey(job.ID)
	var written []blob.Object
	if !isEmptyFolder(b.config.Blob.Path(raw)) { // one of ours, in which it has written nothing, need not be durable
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
			if uri, err = b.returned(ctx, job, location); errors.Is(err, aloft.ErrUnavailable) || ctx.Err() != nil {
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

// canonicalAmong is the canonical form of the locations that an attempt returns. flytekit un-escapes the location of a
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

// digests lists the files and folders of ours that the outputs refer to. What they declare must be there; what a text in a struct
// names is one if it is.
func (b *Backend) digests(ctx context.Context, attempt string, outputs *core.LiteralMap, written []blob.Object) ([]*aloftv1.ObjectDigest, error) {
	var keys []blob.Key
	var problems []error
	seen := map[blob.Key]bool{}
	output := map[blob.Key]string{} // the first that refers to it
	for _, name := range slices.Sorted(maps.Keys(outputs.GetLiterals())) {
		literal.Walk(outputs.GetLiterals()[name], func(uri *string) {
			if err := b.passing(attempt, *uri); err != nil {
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
		// What is below run is no output: logs, which go on being written, and what is kept of attempts.
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
			// An input is passed on.
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

// passing says what is wrong with a path on this machine as an output: it ends with the attempt, or is not there even now.
func (b *Backend) passing(attempt, uri string) error {
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
