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
//	<data>/blob/run/…/<attempt>/_flytecheckpoints/                   what the attempt saves for the next one: kept
//	<data>/blob/raw/<xx>/<generated name>/                           files the task returns: kept
//	<data>/attempts/<hash of its name>/                              its private copy of the code, its current directory: removed
//	<data>/attempts/<hash of its name>.tmp/                          its TMPDIR: removed
//	<data>/attempts/<hash of its name>.in/                           its private copies of the files it is given: removed
//	<data>/attempts/gone-<random>/                                   a folder of a forgotten attempt while it is removed (discard.go)
//	<data>/worker/home                                               HOME of all attempts: a warm interpreter has one from its start
//
// All of <data>/blob but the attempt's own folders is read-only for it where the supervisor can do that (worker.Spec.ReadOnly).
// Tasks know TMPDIR and HOME by short paths, however long the names of the data folder, the execution and the node are
// (worker.ShortPath): libraries put sockets there, whose addresses have room for 107 bytes.
package process

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/environment"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/leftover"
	"github.com/aloft-dev/aloft/internal/removal"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/worker"
)

// Kind of this back end in records.
const Kind = "process"

// Config of the back end.
type Config struct {
	DataDir      string
	Place        string // of the data folder (worker.Place); empty: its path
	Blob         blob.Local
	Environments Environments
	Code         Code
	Connect      func(ctx context.Context) (*worker.Client, error) // finds or starts the supervisor
	Capacity     admission.Room
	Platform     func() executor.Platform // how tasks reach the server; nil: they are not told
	Variables    map[string]string        // for all tasks, weaker than what the task or its execution sets
	Mode         worker.Mode              // empty: warm where that is equal to a fresh interpreter
	Grace        time.Duration            // between TERM and KILL; 0: 10 s
	Logger       *slog.Logger
}

// Environments finds the Python that stands for an image. An implementation may also have the method
// Present(context.Context) (environment.Environment, error), which returns the environment in which most attempts will run:
// Watch has its warm worker started before the first attempt comes.
type Environments interface {
	Resolve(ctx context.Context, request environment.Request) (environment.Environment, error)
}

// Code gives an attempt its private copy of a code archive.
type Code interface {
	// Copy puts the content of the archive at a canonical URI into the folder dst, which exists and is empty.
	// Entries of the archive that cannot be made here are omitted, each with the reason.
	// aloft.ErrInvalid: the object is no archive that we can unpack; aloft.ErrNotFound: there is no object.
	Copy(ctx context.Context, uri, dst string) (omitted []string, err error)
}

// Backend implements executor.Backend.
type Backend struct {
	config   Config
	renderer blob.Renderer
	literals blob.Literals
	results  *room.Pool // memory for results of attempts while they are read and kept

	connecting sync.Mutex // held while the supervisor is looked for or started

	mu        sync.Mutex
	client    *worker.Client      // nil: not connected yet
	jobs      map[string]*attempt // by attemptName
	inherited map[string]bool     // attempt names that the supervisor had when we connected and that no Start has come for yet
	locked    map[string]bool     // by folderName: one Start or one removal is at work on the attempt's folders
	unlocked  sync.Cond           // a name was deleted from locked; its lock is mu
	found     []worker.Event      // made by attach for attempts that were started before; Watch takes them
	wake      chan struct{}       // there is something in found
	recorded  map[string]bool     // digests of environments whose description is kept
	discarded []*discardedFolder  // for removeDiscarded; a folder stays in the list while it is being removed

	discardedWake chan struct{} // a folder was added to discarded
}

// attempt is a job that was started. The back end's lock guards it.
type attempt struct {
	job       *executor.Job
	handed    bool          // to the supervisor: it was asked to start the attempt, whether or not it answered
	exited    *worker.Event // the supervisor's last event: no process of the attempt runs any more; nil: not received yet
	reading   bool          // finish is at work: it reads what the attempt left
	abandoned bool          // a Stop came after the attempt's end, and stopPatience has passed: finish reads no further
	cancel    func()        // ends the context of finish; nil: finish has not begun
	reported  bool          // the outcome was reported: later events are dropped
}

// New makes a back end; nothing is started before the first attempt or Watch.
func New(config Config) *Backend {
	if config.Grace == 0 {
		config.Grace = 10 * time.Second
	}
	b := &Backend{
		config: config, renderer: blob.Renderer{Local: config.Blob}, literals: blob.Literals{Store: config.Blob},
		results: room.NewPatientPool(resultsRoom, math.MaxInt64), // a Stop ends the wait
		jobs:    map[string]*attempt{}, inherited: map[string]bool{}, locked: map[string]bool{}, wake: make(chan struct{}, 1), discardedWake: make(chan struct{}, 1),
	}
	b.unlocked.L = &b.mu
	return b
}

// Mounts says whether stored objects are read-only for tasks: "yes", or why they are not; empty: that is not known yet.
func (b *Backend) Mounts() string {
	b.mu.Lock()
	client := b.client
	b.mu.Unlock()
	if client == nil {
		return ""
	}
	return client.Hello().Mounts
}

func (b *Backend) Kind() string             { return Kind }
func (b *Backend) Place() string            { return cmp.Or(b.config.Place, b.config.DataDir) }
func (b *Backend) Capacity() admission.Room { return b.config.Capacity }

// supervisor returns the connection, made on first use; it repairs itself from then on.
func (b *Backend) supervisor(ctx context.Context) (*worker.Client, error) {
	b.connecting.Lock()
	defer b.connecting.Unlock()
	b.mu.Lock()
	client := b.client
	b.mu.Unlock()
	if client != nil {
		return client, nil
	}
	client, err := b.config.Connect(ctx)
	if err != nil {
		return nil, b.blameWorker(ctx, fmt.Errorf("connect to the worker: %w", err))
	}
	known, err := client.List(ctx)
	if err != nil {
		return nil, b.blameWorker(ctx, fmt.Errorf("ask the worker what runs: %w", err))
	}
	if err := makeFolder(sharedHome(b.config.DataDir)); err != nil {
		return nil, b.blame(unavailable("make the home of the attempts", err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.client = client
	for _, status := range known {
		b.inherited[status.AttemptID] = true
	}
	return client, nil
}

// Start prepares the attempt and hands it to the supervisor. See executor.Backend.
func (b *Backend) Start(ctx context.Context, job *executor.Job) (*aloftv1.Failure, error) {
	if reason := Refusal(job.Template); reason != "" {
		return executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat, reason), nil
	}
	untimed := ctx
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	client, err := b.supervisor(ctx)
	if err != nil {
		return nil, b.blameWorker(untimed, err)
	}
	defer b.lockFolders(attemptName(job.ID))()
	if attached, err := b.attachHanded(ctx, client, job); attached || err != nil {
		return nil, b.blameWorker(untimed, err)
	}
	ctx = untimed // making an environment may take longer than answerTime
	env, failure, err := b.environment(ctx, job)
	if failure != nil || err != nil {
		return failure, notStarted(err)
	}
	spec, failure, err := b.prepare(ctx, job, env)
	if failure != nil || err != nil {
		return failure, notStarted(b.blame(err))
	}
	ctx, cancel = context.WithTimeout(untimed, answerTime)
	defer cancel()
	b.mu.Lock()
	if b.jobs[spec.AttemptID] == nil {
		b.jobs[spec.AttemptID] = &attempt{job: job}
	}
	b.jobs[spec.AttemptID].handed = true
	b.mu.Unlock()
	status, err := client.Start(ctx, *spec)
	switch {
	case errors.Is(err, aloft.ErrInvalid):
		return executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat, err.Error()), nil
	case worker.Refused(err):
		return nil, notStarted(aloft.Blame(b.machineService(), fmt.Errorf("start %s: %w", spec.AttemptID, err)))
	case err != nil:
		return nil, b.blameWorker(untimed, fmt.Errorf("start %s: %w", spec.AttemptID, err))
	case status.Attached:
		b.attach(status)
	}
	return nil, nil
}

// lockFolders waits until no other Start and no removal is at work on the attempt's folders: two would write the same files.
func (b *Backend) lockFolders(name string) (unlock func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	folder := folderName(name)
	for b.locked[folder] {
		b.unlocked.Wait()
	}
	b.locked[folder] = true
	return func() { b.unlockFolders(folder) }
}

// unlockFolders lets the next Start of the attempt begin.
func (b *Backend) unlockFolders(folder string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.locked, folder)
	b.unlocked.Broadcast()
}

// Refusal says why a task can never run as a process, and the way out; empty: it may.
func Refusal(task *core.TaskTemplate) string {
	name, container := task.GetId().GetName(), task.GetContainer()
	switch {
	case task.GetK8SPod() != nil:
		return fmt.Sprintf("task %s brings a pod, which needs Kubernetes: tasks run as processes here; register it without pod_template", name)
	case task.GetSql() != nil:
		return fmt.Sprintf("task %s is SQL of type %q, which needs a service that runs it: tasks run as processes here; run the query from a Python task", name, task.GetType())
	case container == nil:
		return fmt.Sprintf("task %s of type %q has no container, it is run by a connector of Flyte's: tasks run as processes here; do its work in a Python task", name, task.GetType())
	}
	copilot := container.GetDataConfig()
	if !copilot.GetEnabled() {
		return ""
	}
	const unsupported = "which Flyte's co-pilot container does and this executor does not; "
	if len(task.GetInterface().GetOutputs().GetVariables()) > 0 {
		return fmt.Sprintf("task %s is a raw container whose outputs are to be collected from %s, "+unsupported+"write them from a Python task", name, copilot.GetOutputPath())
	}
	in := copilot.GetInputPath()
	for _, arg := range slices.Concat(container.GetCommand(), container.GetArgs()) {
		if in != "" && strings.Contains(arg, in) {
			return fmt.Sprintf("task %s is a raw container that reads its inputs below %s, "+unsupported+"use {{.inputs.NAME}} in its command", name, in)
		}
	}
	return ""
}

// environment resolves the container's image. The result is empty for a command whose program is not Python, if it has an
// absolute path or the machine has no environment.
func (b *Backend) environment(ctx context.Context, job *executor.Job) (environment.Environment, *aloftv1.Failure, error) {
	container := job.Template.GetContainer()
	program := ""
	if words := slices.Concat(container.GetCommand(), container.GetArgs()); len(words) > 0 {
		program = words[0]
	}
	base := filepath.Base(program)
	python := strings.HasPrefix(base, "pyflyte") || strings.HasPrefix(base, "python")
	if filepath.IsAbs(program) && !python {
		return environment.Environment{}, nil, nil
	}
	image := container.GetImage()
	env, err := b.config.Environments.Resolve(ctx, environment.Request{Image: image, Making: job.Waits})
	switch {
	case err == nil:
		return env, nil, b.record(ctx, env)
	case ctx.Err() != nil:
		return env, nil, ctx.Err()
	case !python: // the program is looked for in the system's folders
		return environment.Environment{}, nil, nil
	case errors.Is(err, aloft.ErrUnavailable):
		return env, nil, fmt.Errorf("find environment for image %s: %w", image, err)
	default:
		return env, executor.NewFailure(core.ExecutionError_SYSTEM, false, executor.CodeEnvironment, fmt.Sprintf("no environment for image %q: %v", image, err)), nil
	}
}

// attachHanded attaches to an attempt that this server or an earlier one has handed to the supervisor, and says whether it did.
// Such an attempt runs as it was prepared then: nothing of it is prepared again. Every other attempt is new to the supervisor,
// and what is on disk of it was left by a server that was killed before it had handed the attempt over.
func (b *Backend) attachHanded(ctx context.Context, client *worker.Client, job *executor.Job) (bool, error) {
	name := attemptName(job.ID)
	b.mu.Lock()
	a := b.jobs[name]
	if b.inherited[name] && a == nil { // before List is called: an event that comes from now on must find the attempt
		a = &attempt{job: job, handed: true}
		b.jobs[name] = a
	}
	ask := a != nil && a.handed
	b.mu.Unlock()
	if !ask {
		return false, nil
	}
	status, err := find(ctx, client, name)
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	delete(b.inherited, name)
	b.mu.Unlock()
	if status == nil {
		return false, nil
	}
	b.attach(*status)
	return true, nil
}

// find asks the supervisor for one attempt; nil: it has none of this name.
func find(ctx context.Context, client *worker.Client, name string) (*worker.Status, error) {
	known, err := client.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the worker for %s: %w", name, err)
	}
	i := slices.IndexFunc(known, func(s worker.Status) bool { return s.AttemptID == name })
	if i < 0 {
		return nil, nil
	}
	return &known[i], nil
}

// workDir and tempDir stand side by side: a folder around them would be one more to make and to remove for each attempt.
func (b *Backend) workDir(name string) string {
	return filepath.Join(b.config.DataDir, "attempts", folderName(name))
}
func (b *Backend) tempDir(name string) string { return b.workDir(name) + tempSuffix }

// folderName is short for every attempt. Its 65 bits are enough: the folders of few attempts are there at once.
func folderName(attempt string) string {
	sum := sha256.Sum256([]byte(attempt))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:13])
}

const tempSuffix = ".tmp" // a name of an attempt ends with its number

// attach makes the event that the state of an attempt stands for, and gives it to Watch. The supervisor's own events may have
// come before this back end knew the attempt, and were dropped then.
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

// prepare makes the folders, inputs and command line of an attempt that was not handed over yet. Each call of the file
// system counts: these calls are a good part of what a short task costs.
func (b *Backend) prepare(ctx context.Context, job *executor.Job, env environment.Environment) (*worker.Spec, *aloftv1.Failure, error) {
	name := attemptName(job.ID)
	run := b.config.Blob.Path(blob.Key(job.ID.RunKey()))
	raw := b.config.Blob.Path(rawKey(job.ID))
	short, err := worker.ShortPath(b.config.DataDir)
	if err != nil {
		return nil, nil, unavailable("find a short path for the attempt", err)
	}
	work, temp := b.workDir(name), filepath.Join(short, "attempts", folderName(name)+tempSuffix)
	for _, dir := range []string{run, raw} {
		if err := makeFolder(dir); err != nil {
			return nil, nil, unavailable("make the folders of the attempt", err)
		}
	}
	inputs := filepath.Join(run, "inputs.pb")
	local, failure, err := b.giveInputs(ctx, job, inputs)
	if failure != nil || err != nil {
		return nil, failure, err
	}
	earlier := filepath.Join(b.inputsDir(name), "checkpoint")
	if found, err := b.giveCheckpoint(ctx, job.ID, job.Spec.GetCheckpoint(), earlier); err != nil {
		return nil, nil, err
	} else if !found {
		earlier = ""
	}
	arguments := append(append([]string{}, job.Template.GetContainer().GetCommand()...), job.Template.GetContainer().GetArgs()...)
	argv, err := executor.Variables{
		Input: inputs, InputPrefix: run, OutputPrefix: run, RawOutputPrefix: cmp.Or(job.RawOutputPrefix(), raw),
		Checkpoint: b.config.Blob.Path(checkpointKey(job.ID)), PrevCheckpoint: earlier,
		PerRetryKey: executor.PerRetryKey(job.ID.UniqueName()),
		Namespace:   job.ID.Execution.Project + "-" + job.ID.Execution.Domain,
		TaskTemplatePath: func() (string, error) {
			encoded, err := proto.Marshal(job.Template)
			if err != nil {
				return "", err
			}
			path := filepath.Join(run, "task.pb")
			if err := os.WriteFile(path, encoded, 0o600); err != nil {
				return "", unavailable("write the task's template", err)
			}
			return path, nil
		},
		Inputs: local,
	}.Render(arguments)
	if errors.Is(err, aloft.ErrUnavailable) {
		return nil, nil, err
	}
	if err != nil || len(argv) == 0 {
		if err == nil {
			err = errors.New("it has neither command nor arguments")
		}
		return nil, executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat,
			fmt.Sprintf("task %s cannot be run: %v", job.Template.GetId().GetName(), err)), nil
	}
	spec := &worker.Spec{
		AttemptID: name, Token: job.Key.Token, Argv: argv, Env: b.variables(job, env, short, temp),
		WorkDir: work, TempDir: temp, Stdout: filepath.Join(run, "stdout"), Stderr: filepath.Join(run, "stderr"), OutputDir: run,
		ReadOnly: []string{b.config.Blob.Path("")}, Writable: []string{run, raw},
		Environment: worker.Environment{Interpreter: env.Interpreter, Digest: env.Digest},
		Mode:        b.config.Mode, MemoryLimit: job.Spec.GetMemoryLimit(), CPU: float64(job.Spec.GetMilliCpu()) / 1000, Grace: b.config.Grace,
	}
	failure, err = b.copyCode(ctx, spec)
	return spec, failure, err
}

// rawKey is where an attempt writes its files.
func rawKey(id aloft.AttemptID) blob.Key { return blob.Key("raw/" + id.RawOutputKey()) }

// writtenKey is where an attempt has written its files: its rawKey or, if a server of release 0.1.0 has started the attempt,
// the folder that it shares with all attempts of the same generated name.
func (b *Backend) writtenKey(id aloft.AttemptID) blob.Key {
	key := rawKey(id)
	if _, err := os.Lstat(b.config.Blob.Path(key)); !os.IsNotExist(err) {
		return key
	}
	old := blob.Key(path.Join(path.Dir(string(key)), path.Base(id.GeneratedName())))
	if _, err := os.Lstat(b.config.Blob.Path(old)); err != nil {
		return key
	}
	return old
}

// checkpointKey is where an attempt keeps its checkpoints. Unlike Flyte's it is no part of the raw data, whose names are
// without project and domain: an execution of the same name in another project must not find them.
func checkpointKey(id aloft.AttemptID) blob.Key { return blob.Key(id.RunKey() + "/_flytecheckpoints") }

// hasEntries says whether there is a folder at a key with something in it.
func (b *Backend) hasEntries(key blob.Key) (bool, error) {
	dir := b.config.Blob.Path(key)
	// A task made the folder: it may hold a million entries, or be no folder.
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err == nil {
		var first []string
		first, err = f.Readdirnames(1)
		_ = f.Close()
		if len(first) > 0 {
			return true, nil
		}
	}
	if _, ok := errors.AsType[*leftover.NotFileError](leftover.Explain(dir, err)); ok || err == nil ||
		errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return false, unavailable("look for the checkpoint of an earlier attempt", err)
}

// copyCode makes the working folder: a private copy of the archive that the command line names, or an empty folder.
func (b *Backend) copyCode(ctx context.Context, spec *worker.Spec) (*aloftv1.Failure, error) {
	err := os.Mkdir(spec.WorkDir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist): // left by a server that was killed before it had handed the attempt over
		if err = errors.Join(removal.All(ctx, spec.WorkDir), removal.All(ctx, spec.TempDir)); err == nil {
			err = os.Mkdir(spec.WorkDir, 0o700)
		}
	case errors.Is(err, fs.ErrNotExist): // the first attempt of all
		err = makeFolder(spec.WorkDir)
	}
	if err != nil {
		return nil, unavailable("make the working folder", err)
	}
	archive := distribution(spec.Argv)
	if archive != "" {
		spec.CodeDir = spec.WorkDir
		uri, err := b.renderer.Canonical(archive)
		var omitted []string
		if err == nil {
			omitted, err = b.config.Code.Copy(ctx, uri, spec.WorkDir)
		}
		if err == nil && len(omitted) > 0 {
			err = appendLine(spec.Stderr, "aloft: left out of the code, it cannot be made here: "+strings.Join(omitted, "; "))
		}
		switch {
		case err == nil:
		case errors.Is(err, aloft.ErrInvalid), errors.Is(err, aloft.ErrNotFound), errors.Is(err, aloft.ErrConflict), errors.Is(err, aloft.ErrExhausted), errors.Is(err, aloft.ErrUnimplemented):
			return executor.NewFailure(core.ExecutionError_USER, false, executor.CodeBadTaskFormat,
				fmt.Sprintf("the task's code %s cannot be used: %v. Register it again", archive, err)), nil
		default:
			return nil, fmt.Errorf("copy code %s: %w", archive, err)
		}
	}
	return nil, nil
}

// appendLine adds a line to a log of an attempt before its process starts.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.WriteString(line + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return unavailable("write the log of the attempt", err)
	}
	return nil
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

// variables are all environment variables of the task: no variable of the server's own reaches it.
func (b *Backend) variables(job *executor.Job, env environment.Environment, short, temp string) map[string]string {
	variables := b.commonVariables(env, short)
	variables["TMPDIR"] = temp
	maps.Copy(variables, executor.Environment(job, b.platform()))
	return variables
}

func (b *Backend) platform() executor.Platform {
	if b.config.Platform == nil {
		return executor.Platform{}
	}
	return b.config.Platform()
}

// commonVariables are the variables that all attempts in an environment get: aloft's own, and those of the setting task-env,
// which replace them.
func (b *Backend) commonVariables(env environment.Environment, short string) map[string]string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if env.Interpreter != "" {
		path = filepath.Dir(env.Interpreter) + ":" + path
	}
	variables := map[string]string{"PATH": path, "HOME": sharedHome(short), "LANG": "C.UTF-8"}
	maps.Copy(variables, b.config.Variables)
	return variables
}

// makeFolder is os.MkdirAll for folders that are mostly new in a folder that is mostly there.
func makeFolder(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeFolder(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// sharedHome is HOME of all attempts. An attempt cannot have its own: a warm interpreter reads HOME when it starts.
func sharedHome(dataDir string) string { return filepath.Join(dataDir, "worker", "home") }

// Stop asks the supervisor to end an attempt. See executor.Backend.
func (b *Backend) Stop(ctx context.Context, job *executor.Job, _ string) error {
	client, err := b.supervisor(ctx)
	if err != nil {
		return err
	}
	name := attemptName(job.ID)
	status, err := find(ctx, client, name)
	if err != nil {
		return err
	}
	if status == nil {
		return fmt.Errorf("stop %s: the worker does not have it: %w", name, aloft.ErrNotFound)
	}
	if status.State == worker.StateExited {
		time.AfterFunc(stopPatience, func() { b.abandonReading(name) })
	}
	return client.Stop(ctx, name, b.config.Grace)
}

// stopPatience is how long finish goes on reading what an ended attempt left once a Stop of the attempt has come.
const stopPatience = time.Second

// abandonReading ends finish for an attempt, also one that begins later.
func (b *Backend) abandonReading(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.jobs[name]; a != nil {
		a.abandoned = true
		if a.cancel != nil {
			a.cancel()
		}
	}
}

// Forget lets the supervisor and the disk forget the attempt. See executor.Backend.
func (b *Backend) Forget(ctx context.Context, job *executor.Job) error {
	client, err := b.supervisor(ctx)
	if err != nil {
		return err
	}
	name := attemptName(job.ID)
	if err := client.Forget(ctx, name); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.jobs, name)
	b.mu.Unlock()
	_ = syscall.Rmdir(b.config.Blob.Path(b.writtenKey(job.ID))) // fails, as it should, if the attempt has written something there
	for _, dir := range []string{b.workDir(name), b.tempDir(name), b.inputsDir(name)} {
		b.discard(dir)
	}
	return nil
}

// attemptName is the worker's name for an attempt, fit for a file name.
func attemptName(id aloft.AttemptID) string {
	return strings.ReplaceAll(strings.ReplaceAll(id.String(), "_", "__"), "/", "_")
}

func unavailable(what string, err error) error {
	return fmt.Errorf("%s: %w: %w", what, aloft.ErrUnavailable, err)
}
