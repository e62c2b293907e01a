package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/leftover"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/worker"
)

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
