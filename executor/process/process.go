// Package process runs attempts as processes of this machine: it prepares an attempt's folders, code and command line,
// hands it to the supervisor (package worker), and makes what the task left behind durable.
//
// After executor (whose back end it is), before worker. It relies on the data folder's disk, on the supervisor, which
// outlives us, and on package environment for a Python with flytekit. When the disk or the supervisor cannot do its part,
// Start returns an error and is called again; when there is no fitting environment, that is the attempt's failure.
//
// Folders of an attempt:
//
//	<data>/blob/run/<project>/<domain>/<execution>/<node>/<attempt>/  inputs.pb, outputs.pb, error.pb, deck.html, stdout, stderr: kept
//	<data>/blob/raw/<xx>/<generated name>/                           files the task returns: kept
//	<data>/attempts/<attempt>/work                                   its private copy of the code, its current directory: removed
//	<data>/attempts/<attempt>/tmp                                    its TMPDIR and HOME: removed
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/environment"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/worker"
)

// Kind of this back end in records.
const Kind = "process"

// Config of the back end.
type Config struct {
	DataDir      string
	Blob         blob.Local
	Environments *environment.Resolver
	Code         Code
	Connect      func(ctx context.Context) (*worker.Client, error) // finds or starts the supervisor
	Capacity     admission.Room
	Mode         worker.Mode   // empty: warm where that is equal to a fresh interpreter
	Grace        time.Duration // between TERM and KILL; 0: 10 s
	Logger       *slog.Logger
}

// Code gives an attempt its private copy of a code archive.
type Code interface {
	// Copy puts the content of the archive at a canonical URI into the folder dst, which exists and is empty.
	// aloft.ErrInvalid: what is there is no archive we can unpack; aloft.ErrNotFound: nothing is there.
	Copy(ctx context.Context, uri, dst string) error
}

// Backend implements executor.Backend.
type Backend struct {
	config   Config
	renderer blob.Renderer
	literals blob.Literals

	mu     sync.Mutex
	client *worker.Client
	jobs   map[string]*attempt // by the worker's name for it
	found  []worker.Event      // of attempts that had been started before us; Watch has not seen them yet
	wake   chan struct{}       // there is something in found
}

// attempt is a job that was started.
type attempt struct {
	job         *executor.Job
	environment environment.Environment
	finished    bool // its outcome was reported
}

// New makes a back end; nothing is started before the first attempt or Watch.
func New(config Config) *Backend {
	if config.Grace == 0 {
		config.Grace = 10 * time.Second
	}
	return &Backend{config: config, renderer: blob.Renderer{Local: config.Blob}, literals: blob.Literals{Store: config.Blob}, jobs: map[string]*attempt{}, wake: make(chan struct{}, 1)}
}

func (b *Backend) Kind() string             { return Kind }
func (b *Backend) Place() string            { return b.config.DataDir }
func (b *Backend) Capacity() admission.Room { return b.config.Capacity }

// supervisor returns the connection, made on first use; it repairs itself from then on.
func (b *Backend) supervisor(ctx context.Context) (*worker.Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == nil {
		client, err := b.config.Connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to the worker: %w", err)
		}
		b.client = client
	}
	return b.client, nil
}

// Start prepares the attempt and hands it to the supervisor. See executor.Backend.
func (b *Backend) Start(ctx context.Context, job *executor.Job) (*aloftv1.Failure, error) {
	container := job.Template.GetContainer()
	if container == nil {
		return executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat,
			fmt.Sprintf("task %s of type %q has no container: this executor runs container tasks as processes only", job.Template.GetId().GetName(), job.Template.GetType())), nil
	}
	image := container.GetImage()
	env, err := b.config.Environments.Resolve(ctx, environment.Request{Image: image})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && errors.Is(err, aloft.ErrUnavailable):
		return nil, fmt.Errorf("find environment for image %s: %w", image, err)
	case err != nil:
		return executor.NewFailure(core.ExecutionError_SYSTEM, false, executor.CodeEnvironment, fmt.Sprintf("no environment for image %q: %v", image, err)), nil
	}
	client, err := b.supervisor(ctx)
	if err != nil {
		return nil, err
	}
	spec, failure, err := b.prepare(ctx, job, env)
	if failure != nil || err != nil {
		return failure, err
	}
	b.mu.Lock()
	if b.jobs[spec.AttemptID] == nil {
		b.jobs[spec.AttemptID] = &attempt{job: job, environment: env}
	}
	b.mu.Unlock()
	status, err := client.Start(ctx, *spec)
	switch {
	case errors.Is(err, aloft.ErrInvalid):
		return executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat, err.Error()), nil
	case err != nil:
		return nil, fmt.Errorf("start %s: %w", spec.AttemptID, err)
	case status.Attached:
		b.attach(status)
	}
	return nil, nil
}

// attach makes up for the events of an attempt that came before this backend knew it.
func (b *Backend) attach(status worker.Status) {
	event := worker.Event{Kind: worker.EventStarted, AttemptID: status.AttemptID, Token: status.Token, PID: status.PID, Exit: status.Exit}
	switch status.State {
	case worker.StateStarting:
		return
	case worker.StateExited:
		event.Kind = worker.EventExited
	}
	b.mu.Lock()
	b.found = append(b.found, event)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// prepare makes the folders, inputs and command line of an attempt. Doing it again for one that runs changes nothing.
func (b *Backend) prepare(ctx context.Context, job *executor.Job, env environment.Environment) (*worker.Spec, *aloftv1.Failure, error) {
	name := attemptName(job.ID)
	run := b.config.Blob.Path(blob.Key(job.ID.RunKey()))
	raw := b.config.Blob.Path(blob.Key("raw/" + job.ID.RawOutputKey()))
	home := filepath.Join(b.config.DataDir, "attempts", name)
	work, temp := filepath.Join(home, "work"), filepath.Join(home, "tmp")
	for _, dir := range []string{run, filepath.Dir(raw), home, temp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, nil, unavailable("make the folders of the attempt", err)
		}
	}
	inputs := filepath.Join(run, "inputs.pb")
	if err := b.writeInputs(inputs, job.Inputs); err != nil {
		return nil, nil, err
	}
	arguments := append(append([]string{}, job.Template.GetContainer().GetCommand()...), job.Template.GetContainer().GetArgs()...)
	argv, err := executor.Variables{
		Input: inputs, InputPrefix: run, OutputPrefix: run, RawOutputPrefix: raw,
		Checkpoint:  filepath.Join(raw, "_flytecheckpoints"),
		PerRetryKey: executor.PerRetryKey(job.ID.GeneratedName()),
		Namespace:   job.ID.Execution.Project + "-" + job.ID.Execution.Domain,
		TaskTemplatePath: func() (string, error) {
			encoded, err := proto.Marshal(job.Template)
			if err != nil {
				return "", err
			}
			path := filepath.Join(run, "task.pb")
			return path, os.WriteFile(path, encoded, 0o644)
		},
		Inputs: job.Inputs,
	}.Render(arguments)
	if err != nil || len(argv) == 0 {
		if err == nil {
			err = errors.New("it has neither command nor arguments")
		}
		return nil, executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat,
			fmt.Sprintf("task %s cannot be run: %v", job.Template.GetId().GetName(), err)), nil
	}
	spec := &worker.Spec{
		AttemptID: name, Token: job.Key.Token, Argv: argv, Env: b.variables(job, env, temp),
		WorkDir: work, TempDir: temp, Stdout: filepath.Join(run, "stdout"), Stderr: filepath.Join(run, "stderr"), OutputDir: run,
		Environment: worker.Environment{Interpreter: env.Interpreter, Digest: env.Digest},
		Mode:        b.config.Mode, MemoryLimit: job.Spec.GetMemoryLimit(), CPU: float64(job.Spec.GetMilliCpu()) / 1000, Grace: b.config.Grace,
	}
	failure, err := b.copyCode(ctx, spec, home)
	return spec, failure, err
}

// copyCode makes the working folder: a private copy of the archive that the command line names, or an empty folder.
// It appears by a rename, so one that exists is complete and belongs to an attempt that may already run in it.
func (b *Backend) copyCode(ctx context.Context, spec *worker.Spec, home string) (*aloftv1.Failure, error) {
	archive := distribution(spec.Argv)
	if archive != "" {
		spec.CodeDir = spec.WorkDir
	}
	if _, err := os.Stat(spec.WorkDir); err == nil {
		return nil, nil
	}
	fresh, err := os.MkdirTemp(home, ".work-")
	if err != nil {
		return nil, unavailable("make the working folder", err)
	}
	if archive != "" {
		uri, err := b.renderer.Canonical(archive)
		if err == nil {
			err = b.config.Code.Copy(ctx, uri, fresh)
		}
		switch {
		case err == nil:
		case errors.Is(err, aloft.ErrInvalid) || errors.Is(err, aloft.ErrNotFound):
			return executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat,
				fmt.Sprintf("the task's code %s cannot be used: %v. Register it again", archive, err)), nil
		default:
			return nil, fmt.Errorf("copy code %s: %w", archive, err)
		}
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return nil, unavailable("make the working folder", err)
	}
	if err := os.Rename(fresh, spec.WorkDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, unavailable("make the working folder", err)
	}
	return nil, nil
}

// distribution is the code archive that a pyflyte-fast-execute command line names; empty for other commands.
func distribution(argv []string) string {
	if filepath.Base(argv[0]) != "pyflyte-fast-execute" {
		return ""
	}
	for i := 1; i+1 < len(argv) && argv[i] != "--"; i++ {
		if argv[i] == "--additional-distribution" {
			return argv[i+1]
		}
		if value, ok := strings.CutPrefix(argv[i], "--additional-distribution="); ok {
			return value
		}
	}
	return ""
}

func (b *Backend) writeInputs(path string, inputs *core.LiteralMap) error {
	local := proto.CloneOf(inputs)
	var problem error
	if err := literal.RewriteURIs(local, func(uri string) string {
		rendered, err := b.renderer.Path(uri)
		if err != nil {
			problem = err
		}
		return rendered
	}); err != nil || problem != nil {
		b.config.Logger.Warn("render locations in inputs", "file", path, "error", errors.Join(err, problem))
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(local)
	if err != nil {
		return fmt.Errorf("encode inputs: %w", err)
	}
	// Written beside and renamed: an attempt that is found again may be reading it.
	temp := path + ".new"
	if err := os.WriteFile(temp, encoded, 0o644); err != nil {
		return unavailable("write inputs", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return unavailable("write inputs", err)
	}
	return nil
}

// variables is the complete environment of the task: nothing of the server's own reaches it.
func (b *Backend) variables(job *executor.Job, env environment.Environment, temp string) map[string]string {
	variables := map[string]string{
		"PATH": filepath.Dir(env.Interpreter) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": temp, "LANG": "C.UTF-8", "TMPDIR": temp,
	}
	for name, value := range executor.Environment(job) {
		variables[name] = value
	}
	return variables
}

// Stop asks the supervisor to end an attempt. See executor.Backend.
func (b *Backend) Stop(ctx context.Context, job *executor.Job, _ string) error {
	client, err := b.supervisor(ctx)
	if err != nil {
		return err
	}
	return client.Stop(ctx, attemptName(job.ID), b.config.Grace)
}

// Forget lets the supervisor and the disk forget the attempt. See executor.Backend.
func (b *Backend) Forget(ctx context.Context, job *executor.Job) error {
	name := attemptName(job.ID)
	b.mu.Lock()
	delete(b.jobs, name)
	client := b.client
	b.mu.Unlock()
	if client != nil {
		if err := client.Forget(ctx, name); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(b.config.DataDir, "attempts", name))
}

// attemptName is the worker's name for an attempt, fit for a file name.
func attemptName(id aloft.AttemptID) string {
	return strings.ReplaceAll(strings.ReplaceAll(id.String(), "_", "__"), "/", "_")
}

func unavailable(what string, err error) error {
	return fmt.Errorf("%s: %w: %w", what, aloft.ErrUnavailable, err)
}
