package process_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/bundle"
	"github.com/aloft-dev/aloft/environment"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/executor/executortest"
	"github.com/aloft-dev/aloft/executor/process"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/worker"
)

// The supervisor is this test binary, started again with this argument.
const supervisorArg = "run-supervisor"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == supervisorArg {
		config := worker.Config{DataDir: os.Args[len(os.Args)-1], Build: "test", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
		if err := worker.Main(context.Background(), config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const deadline = 60 * time.Second

// world is one data folder with real processes in it.
type world struct {
	dir  string // the test's own files
	data string
	blob blob.Local
	code *bundle.Cache

	variables map[string]string // of Config
	connected atomic.Bool       // a supervisor runs, or is just beginning to
	watching  sync.Map          // by back end: the function that ends the Watch which run began
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, "data")
}

// newWorldIn is newWorld with a data folder of that name.
func newWorldIn(t *testing.T, name string) *world {
	t.Helper()
	var lock *os.File
	t.Cleanup(func() { _ = lock.Close() }) // once the folder is gone
	dir := t.TempDir()
	w := &world{dir: dir, data: filepath.Join(dir, name)}
	var err error
	if w.blob, err = folder.Open(filepath.Join(w.data, "blob")); err != nil {
		t.Fatal(err)
	}
	if w.code, err = bundle.NewCache(filepath.Join(w.data, "bundle"), w.blob, bundle.Limits{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !w.connected.Load() {
			return // no supervisor ever ran. One that has not made its folders yet would make them while they are being removed.
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.data, "worker", "log"))
			t.Logf("supervisor's log:\n%s", log)
		}
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		client, err := w.connect(ctx)
		if err != nil {
			t.Errorf("connect to shut down: %v", err)
			return
		}
		defer client.Close()
		if err := client.Shutdown(ctx, 100*time.Millisecond); err != nil {
			t.Errorf("shut down: %v", err)
		}
		// If two supervisors were started, the second waits for this lock, and would begin to write while the folder is being removed.
		if lock, err = os.OpenFile(filepath.Join(w.data, "worker", "lock"), os.O_RDWR|os.O_CREATE, 0o600); err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		for ; errors.Is(err, syscall.EWOULDBLOCK) && ctx.Err() == nil; err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) {
			if again, e := w.connect(ctx); e == nil { // the second supervisor has the lock already
				_ = errors.Join(again.Shutdown(ctx, 100*time.Millisecond), again.Close())
			}
		}
		if err != nil {
			t.Errorf("keep other supervisors out: %v", err)
		}
	})
	return w
}

func (w *world) connect(ctx context.Context) (*worker.Client, error) {
	w.connected.Store(true)
	return worker.Connect(ctx, worker.Config{DataDir: w.data, Build: "test", Executable: []string{os.Args[0], supervisorArg}, Logger: slog.New(slog.DiscardHandler)})
}

// backend is a back end that a test can end as the end of its server does: by closing the connection to the supervisor.
type backend struct {
	*process.Backend
	client *worker.Client
}

func (b *backend) Close() error {
	if b.client == nil {
		return nil
	}
	return b.client.Close()
}

// noPython is a machine without Python.
type noPython struct{}

func (noPython) Resolve(context.Context, environment.Request) (environment.Environment, error) {
	return environment.Environment{}, errors.New("no Python with flytekit on this machine")
}

// upload puts an archive of files where a client would: the code of a version.
func (w *world) upload(t *testing.T, files map[string]string) blob.Key {
	t.Helper()
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	tarred := tar.NewWriter(zipped)
	for name, content := range files {
		if err := tarred.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tarred.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tarred.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return w.put(t, "fast.tar.gz", &archive)
}

// put uploads a file as a client would.
func (w *world) put(t *testing.T, name string, content io.Reader) blob.Key {
	t.Helper()
	key := blob.Key("upload/p/d/x/" + name)
	if _, err := w.blob.Put(t.Context(), key, content, blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) Open(t *testing.T) executor.Backend { return w.open(t, noPython{}, w.blob) }

func (w *world) open(t *testing.T, environments process.Environments, store blob.Local) *backend {
	b := &backend{}
	b.Backend = process.New(process.Config{
		DataDir: w.data, Blob: store, Environments: environments, Code: process.Bundles{Cache: w.code},
		Connect: func(ctx context.Context) (client *worker.Client, err error) {
			client, err = w.connect(ctx)
			b.client = client
			return client, err
		},
		Variables: w.variables,
		Capacity:  admission.Room{MilliCPU: 8000, Memory: 8 << 30, Slots: 8}, Grace: 2 * time.Second,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	return b
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// file is a path of the test's own.
func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

// outputs writes an outputs.pb that a script can copy.
func (w *world) outputs(t *testing.T, literals map[string]*core.Literal) string {
	t.Helper()
	content, err := proto.Marshal(&core.LiteralMap{Literals: literals})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(w.dir, "outputs-*.pb")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func integer(n int64) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_Integer{Integer: n}}}}}}
}

func file(uri string) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Blob{Blob: &core.Blob{Uri: uri,
		Metadata: &core.BlobMetadata{Type: &core.BlobType{}}}}}}}
}

// shell is a job that runs a script.
func shell(name, script string, outputs ...string) *executor.Job {
	declared := map[string]*core.Variable{}
	for _, o := range outputs {
		declared[o] = &core.Variable{}
	}
	id := aloft.AttemptID{Execution: aloft.ExecutionID{Project: "p", Domain: "d", Name: "e"}, Node: aloft.NodeID(name)}
	return &executor.Job{
		Key: store.AttemptKey{Execution: 1, Node: id.Node, Token: "token-" + name}, ID: id, Spec: &aloftv1.AttemptSpec{},
		Template: &core.TaskTemplate{
			Id: &core.Identifier{Project: "p", Domain: "d", Name: name, Version: "1"}, Type: "raw-container",
			Interface: &core.TypedInterface{Outputs: &core.VariableMap{Variables: declared}},
			Target:    &core.TaskTemplate_Container{Container: &core.Container{Command: []string{"/bin/sh", "-c", script}}},
		},
		Inputs: &core.LiteralMap{}, Workflow: &core.Identifier{Project: "p", Domain: "d", Name: "w", Version: "1"},
	}
}

func (w *world) Job(t *testing.T, name string, does executortest.Does) *executor.Job {
	begin := fmt.Sprintf("echo $$ >> %s; ", w.file(name+".starts"))
	end := fmt.Sprintf("cp %s {{.outputPrefix}}/outputs.pb", w.outputs(t, map[string]*core.Literal{executortest.Output: integer(1)}))
	switch does {
	case executortest.Fail:
		return shell(name, begin+"echo it broke >&2; exit 3")
	case executortest.Wait:
		return shell(name, begin+fmt.Sprintf("while [ ! -e %s ]; do sleep 0.02; done; ", w.file(name+".release"))+end, executortest.Output)
	case executortest.Impossible:
		return shell(name, begin+"{{.inputs.missing}}")
	default:
		return shell(name, begin+end, executortest.Output)
	}
}

func (w *world) Release(t *testing.T, job *executor.Job) {
	if err := os.WriteFile(w.file(string(job.ID.Node)+".release"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (w *world) pids(job *executor.Job) []string {
	content, _ := os.ReadFile(w.file(string(job.ID.Node) + ".starts"))
	return strings.Fields(string(content))
}

func (w *world) Starts(_ *testing.T, job *executor.Job) int { return len(w.pids(job)) }

func (w *world) Alive(t *testing.T, job *executor.Job) bool {
	for _, text := range w.pids(job) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Kill(pid, 0) == nil {
			return true
		}
	}
	return false
}

func TestProcessesAreABackEnd(t *testing.T) {
	t.Parallel()
	executortest.Run(t, func(t *testing.T) executortest.World { return newWorld(t) })
}

// run starts a job and returns its outcome.
func (w *world) run(t *testing.T, b *backend, job *executor.Job) *aloftv1.Outcome {
	t.Helper()
	outcome := make(chan *aloftv1.Outcome, 1)
	if stop, ok := w.watching.Load(b); ok {
		stop.(func())() // an event goes to one watcher
	}
	w.watching.Store(b, w.watch(t, b, func(e executor.Event) {
		if e.Outcome != nil && e.Job.Key == job.Key {
			outcome <- e.Outcome
		}
	}, job.ID)) // a back end before this one may have started the job, and an attempt that is not expected is ended
	failure, err := b.Start(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if failure != nil {
		return executor.FailedToStart(job, failure, time.Now())
	}
	select {
	case o := <-outcome:
		return o
	case <-time.After(deadline):
		t.Fatal("it did not end")
		return nil
	}
}

// watch runs Watch until stop is called or the test ends. Watch ends attempts of an earlier back end that are not expected.
func (w *world) watch(t *testing.T, b *backend, report func(executor.Event), expected ...aloft.AttemptID) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Watch(ctx, expected, report) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		_ = b.Close()
	})
	return stop
}

func TestATaskSeesItsOwnVariablesAndFoldersAndNothingOfTheServers(t *testing.T) {
	t.Setenv("ALOFT_SECRET_OF_THE_SERVER", "secret")
	w := newWorld(t)
	job := shell("a", `env > {{.outputPrefix}}/env; echo {{.rawOutputDataPrefix}} > {{.outputPrefix}}/raw; pwd > {{.outputPrefix}}/pwd; touch here "$TMPDIR/there"; echo out; echo err >&2`)
	job.Template.GetContainer().Env = []*core.KeyValuePair{{Key: "OF_TASK", Value: "t"}, {Key: "OF_BOTH", Value: "t"}}
	job.Envs = map[string]string{"OF_BOTH": "e"}
	job.RawOutput = "s3://bucket/files/"
	w.variables = map[string]string{"OF_ALL": "a", "OF_BOTH": "a", "HOME": "/home/me"}
	b := w.open(t, noPython{}, w.blob)
	if o := w.run(t, b, job); o.GetOutputs() == nil {
		t.Fatalf("outcome %v", o)
	}
	run := w.blob.Path(blob.Key(job.ID.RunKey()))
	env := read(t, filepath.Join(run, "env"))
	for _, want := range []string{"OF_TASK=t\n", "OF_BOTH=e\n", "OF_ALL=a\n", "HOME=/home/me\n", "FLYTE_INTERNAL_EXECUTION_ID=e\n", "FLYTE_ATTEMPT_NUMBER=0\n", "FLYTE_INTERNAL_TASK_NAME=a\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("no %q in its environment:\n%s", want, env)
		}
	}
	if strings.Contains(env, "secret") {
		t.Errorf("the server's variables reach the task:\n%s", env)
	}
	if pwd := strings.TrimSpace(read(t, filepath.Join(run, "pwd"))); !strings.HasPrefix(pwd, filepath.Join(w.data, "attempts")) {
		t.Errorf("it ran in %s", pwd)
	}
	if raw, want := strings.TrimSpace(read(t, filepath.Join(run, "raw"))), "s3://bucket/files/"+job.ID.RawOutputKey(); raw != want {
		t.Errorf("it is to write its files to %s, want %s", raw, want)
	}
	if out, err := read(t, filepath.Join(run, "stdout")), read(t, filepath.Join(run, "stderr")); out != "out\n" || err != "err\n" {
		t.Errorf("stdout %q, stderr %q", out, err)
	}
	if err := b.Forget(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(w.data, "attempts")); err != nil || len(left) != 0 {
		t.Errorf("left in attempts: %v, %v", left, err)
	}
}

func TestInputsAndOutputsAreCanonicalOutsideAndPathsInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	given := w.put(t, "data.txt", strings.NewReader("given"))
	job := shell("a", "", "made", "folder", "passed")
	raw := w.blob.Path(blob.Key("raw/" + job.ID.RawOutputKey()))
	out := w.outputs(t, map[string]*core.Literal{"made": file(raw + "/x/made.txt"), "folder": file(raw + "/x/folder"), "passed": file(w.blob.Path(given))})
	job.Inputs = &core.LiteralMap{Literals: map[string]*core.Literal{"in": file(given.URI())}}
	job.Template.GetContainer().Command[2] = `set -e; mkdir -p {{.rawOutputDataPrefix}}/x/folder; cat {{.inputs.in}} > {{.rawOutputDataPrefix}}/x/made.txt
		echo 1 > {{.rawOutputDataPrefix}}/x/folder/1; echo 2 > {{.rawOutputDataPrefix}}/x/folder/2; cp ` + out + ` {{.outputPrefix}}/outputs.pb`
	o := w.run(t, w.open(t, noPython{}, w.blob), job)
	got := o.GetOutputs().GetValue().GetLiterals()
	for name, want := range map[string]string{
		"made": "aloft://blob/raw/" + job.ID.RawOutputKey() + "/x/made.txt", "folder": "aloft://blob/raw/" + job.ID.RawOutputKey() + "/x/folder", "passed": given.URI(),
	} {
		if uri := got[name].GetScalar().GetBlob().GetUri(); uri != want {
			t.Errorf("%s is %s, want %s", name, uri, want)
		}
	}
	if len(o.Objects) != 3 {
		t.Fatalf("objects %v, want three", o.Objects)
	}
	bySize := map[int64]string{}
	for _, object := range o.Objects {
		bySize[object.Size] += object.Digest + " "
	}
	// "given" is what both the file that was made and the one that was passed on hold; the folder has two files of two bytes.
	if both := strings.Fields(bySize[5]); len(both) != 2 || both[0] != both[1] || bySize[4] == "" {
		t.Errorf("digests by size %v", bySize)
	}
	inputs := &core.LiteralMap{}
	if err := proto.Unmarshal([]byte(read(t, filepath.Join(w.blob.Path(blob.Key(job.ID.RunKey())), "inputs.pb"))), inputs); err != nil {
		t.Fatal(err)
	}
	if uri := inputs.GetLiterals()["in"].GetScalar().GetBlob().GetUri(); filepath.Dir(filepath.Dir(uri)) != filepath.Join(w.data, "attempts", process.FolderName("p_d_e_a_0")+".in") || filepath.Base(uri) != "data.txt" {
		t.Errorf("the task reads %s, want the path of a copy", uri)
	}
}

func TestOutputsThatCannotBeKeptAreAFailureAndNotForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := shell("a", "", "o")
	out := w.outputs(t, map[string]*core.Literal{"o": integer(1)})
	job.Template.GetContainer().Command[2] = "mkdir -p {{.rawOutputDataPrefix}}; mkfifo {{.rawOutputDataPrefix}}/pipe; cp " + out + " {{.outputPrefix}}/outputs.pb"
	o := w.run(t, w.open(t, noPython{}, w.blob), job)
	if f := o.GetFailure(); f.GetError().GetKind() != core.ExecutionError_USER || !strings.Contains(f.GetError().GetMessage(), "pipe") {
		t.Errorf("outcome %v, want a failure that names the pipe", o)
	}
}

func TestAnOutputThatRefersToNothingIsTheTasksFailure(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ location, want string }{
		"an object that is not there": {"aloft://blob/raw/nothing", "output wrong refers to aloft://blob/raw/nothing, and nothing is there"},
		"a malformed location":        {"aloft://blob/../x", "output wrong: "},
		"a path that is not there":    {"WORLD/never made", "output wrong: WORLD/never made is not there"},
		"a path that goes":            {"WORLD/data/attempts/PLACE/made", "output wrong: WORLD/data/attempts/PLACE/made is in a folder of the attempt, which is removed with it"},
	} {
		w := newWorld(t)
		job := shell("a", "", "good", "wrong")
		here := strings.NewReplacer("PLACE", process.FolderName(strings.ReplaceAll(job.ID.String(), "/", "_")), "WORLD", w.dir)
		out := w.outputs(t, map[string]*core.Literal{"good": integer(1), "wrong": file(here.Replace(c.location))})
		job.Template.GetContainer().Command[2] = "touch made; cp " + out + " {{.outputPrefix}}/outputs.pb"
		o := w.run(t, w.open(t, noPython{}, w.blob), job)
		f := o.GetFailure().GetError()
		if want := here.Replace(c.want); f.GetKind() != core.ExecutionError_USER || f.GetCode() != executor.CodeOutputsUnreadable || !strings.Contains(f.GetMessage(), want) {
			t.Errorf("%s: outcome %v, want the user's failure with %q", name, o, want)
		}
	}
}

// A dataclass holds the location of its file as text. The digest of that file shows that it is gone when the result is used again.
func TestWhatATextInAStructNamesHasADigestIfItIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	given := w.put(t, "data.txt", strings.NewReader("given"))
	job := shell("a", "", "o", "plain")
	raw := blob.Key("raw/" + job.ID.RawOutputKey())
	var texts []*structpb.Value
	for _, path := range []string{w.blob.Path(raw) + "/made.txt", w.blob.Path(given), w.blob.Path(raw) + "/nothing", w.blob.Path("raw"), w.blob.Path(blob.Key(job.ID.RunKey())), w.blob.Path(blob.Key(job.ID.RunKey())) + "/outputs.pb", "s3://bucket/x"} {
		texts = append(texts, structpb.NewStringValue(path))
	}
	o := scalar(&core.Scalar{Value: &core.Scalar_Generic{Generic: &structpb.Struct{Fields: map[string]*structpb.Value{"paths": structpb.NewListValue(&structpb.ListValue{Values: texts})}}}})
	out := w.outputs(t, map[string]*core.Literal{"o": o, "plain": text(w.blob.Path(raw) + "/other.txt")})
	job.Template.GetContainer().Command[2] = "set -e; cd {{.rawOutputDataPrefix}}; echo made > made.txt; echo other > other.txt; cp " + out + " {{.outputPrefix}}/outputs.pb"
	outcome := w.run(t, w.open(t, noPython{}, w.blob), job)
	var got []string
	for _, object := range outcome.GetObjects() {
		got = append(got, object.GetUri())
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{raw.URI() + "/made.txt", given.URI()}, got); diff != "" {
		t.Errorf("objects with digests (-want +got):\n%s\noutcome %v", diff, outcome)
	}
}

func TestAnEmptyFolderIsAnOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := shell("a", "", "o")
	key := blob.Key("raw/" + job.ID.RawOutputKey() + "/empty")
	out := w.outputs(t, map[string]*core.Literal{"o": file(w.blob.Path(key))})
	job.Template.GetContainer().Command[2] = "mkdir -p {{.rawOutputDataPrefix}}/empty; cp " + out + " {{.outputPrefix}}/outputs.pb"
	if o := w.run(t, w.open(t, noPython{}, w.blob), job); o.GetOutputs() == nil || len(o.Objects) != 1 || o.Objects[0].Size != 0 {
		t.Errorf("outcome %v, want one object of no size", o)
	}
}

// flytekit un-escapes the location of a FlyteFile that it returns.
func TestTheFileIsFoundThatAnUnescapedLocationMeans(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"data", "100%41 data"} {
		w := newWorldIn(t, folder)
		job := shell("a", "", "quoted", "plain")
		raw := blob.Key("raw/" + job.ID.RawOutputKey())
		unescaped := func(name string) *core.Literal {
			path, err := url.PathUnescape(w.blob.Path(raw) + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			return file(path)
		}
		out := w.outputs(t, map[string]*core.Literal{"quoted": unescaped("a%20b"), "plain": unescaped("plain")})
		job.Template.GetContainer().Command[2] = `mkdir -p "{{.rawOutputDataPrefix}}"; echo 1 > "{{.rawOutputDataPrefix}}/a%20b"; echo 2 > "{{.rawOutputDataPrefix}}/plain"; cp "` + out + `" "{{.outputPrefix}}/outputs.pb"`
		o := w.run(t, w.open(t, noPython{}, w.blob), job)
		for output, name := range map[string]string{"quoted": "a%20b", "plain": "plain"} {
			want := raw.URI() + "/" + name
			if got := o.GetOutputs().GetValue().GetLiterals()[output].GetScalar().GetBlob().GetUri(); got != want {
				t.Errorf("in %s: output %s is at %s, want %s (outcome %v)", folder, output, got, want, o)
			}
		}
	}
}

func TestATaskWithoutOutputsFileTellsWhatItWroteLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.run(t, w.open(t, noPython{}, w.blob), shell("a", "echo the reason >&2", "o"))
	if f := o.GetFailure(); f.GetError().GetCode() != executor.CodeOutputsNotFound || !strings.Contains(f.GetError().GetMessage(), "the reason") {
		t.Errorf("outcome %v", o)
	}
}

func TestADiskThatFailsDelaysAnOutcomeAndLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disk := &flaky{Local: w.blob, left: 2}
	job := shell("a", "", "o")
	job.Template.GetContainer().Command[2] = "cp " + w.outputs(t, map[string]*core.Literal{"o": integer(7)}) + " {{.outputPrefix}}/outputs.pb"
	o := w.run(t, w.open(t, noPython{}, disk), job)
	if got := o.GetOutputs().GetValue().GetLiterals()["o"].GetScalar().GetPrimitive().GetInteger(); got != 7 || disk.left != 0 {
		t.Errorf("outcome %v after %d refusals, want its outputs after two", o, 2-disk.left)
	}
}

// flaky is a store whose disk is full for a while.
type flaky struct {
	blob.Local
	left int // calls are one after the other here: there is one attempt
}

func (f *flaky) Adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	if f.left > 0 {
		f.left--
		return nil, fmt.Errorf("disk full: %w", aloft.ErrUnavailable)
	}
	return f.Local.Adopt(ctx, prefix)
}

func TestWhatCannotRunHereSaysSo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*executor.Job)
		code   string
		says   string
	}{
		"no container":                {func(j *executor.Job) { j.Template.Target = nil }, executor.CodeBadTaskFormat, "no container"},
		"no command":                  {func(j *executor.Job) { j.Template.GetContainer().Command = nil }, executor.CodeBadTaskFormat, "neither command nor arguments"},
		"no such input":               {func(j *executor.Job) { j.Template.GetContainer().Args = []string{"{{.inputs.x}}"} }, executor.CodeBadTaskFormat, `no input "x"`},
		"a program that is not there": {func(j *executor.Job) { j.Template.GetContainer().Command = []string{"/no/such/program"} }, "", "/no/such/program"},
		"outputs by co-pilot": {func(j *executor.Job) {
			j.Template.GetContainer().DataConfig = &core.DataLoadingConfig{Enabled: true, OutputPath: "/var/outputs"}
			j.Template.Interface.Outputs.Variables["o"] = &core.Variable{}
		}, executor.CodeBadTaskFormat, "/var/outputs"},
		"inputs by co-pilot": {func(j *executor.Job) {
			j.Template.GetContainer().DataConfig = &core.DataLoadingConfig{Enabled: true, InputPath: "/var/inputs"}
			j.Template.GetContainer().Args = []string{"cat /var/inputs/x"}
		}, executor.CodeBadTaskFormat, "/var/inputs"},
		"Python without flytekit": {func(j *executor.Job) { j.Template.GetContainer().Command = []string{"pyflyte-execute"} }, executor.CodeEnvironment, "no Python with flytekit"},
		"code of another server": {func(j *executor.Job) {
			j.Template.GetContainer().Command = []string{"/usr/bin/pyflyte-fast-execute", "--additional-distribution", "s3://bucket/fast.tar.gz", "--dest-dir", ".", "--", "pyflyte-execute"}
		}, executor.CodeEnvironment, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			job := shell("a", "exit 0")
			test.change(job)
			o := w.run(t, w.open(t, noPython{}, w.blob), job)
			f := o.GetFailure()
			if f == nil || test.code != "" && f.GetError().GetCode() != test.code || !strings.Contains(f.GetError().GetMessage(), test.says) {
				t.Errorf("outcome %v, want %s with %q", o, test.code, test.says)
			}
		})
	}
}

// somePython is a machine with Python. No test gets so far as to run it.
type somePython struct{}

func (somePython) Resolve(context.Context, environment.Request) (environment.Environment, error) {
	return environment.Environment{Interpreter: "/usr/bin/python3", Digest: "sha256:of-python"}, nil
}

// makesPython is a machine that has to make an environment, and says so.
type makesPython struct{ somePython }

func (m makesPython) Resolve(ctx context.Context, request environment.Request) (environment.Environment, error) {
	request.Making("it is being made")
	return m.somePython.Resolve(ctx, request)
}

func TestUsersAreToldThatAnEnvironmentIsBeingMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := w.Job(t, "a", executortest.Succeed)
	job.Template.GetContainer().Command[0] = "sh" // from PATH: an environment is looked for
	told := ""
	job.Waits = func(reason string) { told = reason }
	if o := w.run(t, w.open(t, makesPython{}, w.blob), job); o.GetOutputs() == nil || told != "it is being made" {
		t.Errorf("outcome %v, told %q", o, told)
	}
}

func TestCodeThatCannotBeUsedIsTheTasksFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, "broken.tar.gz", strings.NewReader("no archive"))
	for _, uri := range []string{"aloft://blob/upload/p/d/x/broken.tar.gz", "aloft://blob/upload/p/d/x/absent.tar.gz", "s3://bucket/fast.tar.gz"} {
		job := shell("a", "")
		job.Template.GetContainer().Command = []string{"pyflyte-fast-execute", "--additional-distribution", uri, "--dest-dir", ".", "--", "pyflyte-execute"}
		b := w.open(t, somePython{}, w.blob)
		failure, err := b.Start(t.Context(), job)
		if err != nil || failure.GetError().GetKind() != core.ExecutionError_USER || !strings.Contains(failure.GetError().GetMessage(), uri) {
			t.Errorf("%s: failure %v, error %v", uri, failure, err)
		}
		_ = b.Close()
	}
}

func TestEachAttemptHasItsOwnCopyOfTheCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.upload(t, map[string]string{"data.txt": "old"})
	copies := [2]string{t.TempDir(), t.TempDir()}
	for i, dst := range copies {
		if _, err := (process.Bundles{Cache: w.code}).Copy(t.Context(), key.URI(), dst); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(dst, "data.txt")); got != "old" {
			t.Errorf("copy %d holds %q", i, got)
		}
		if err := os.WriteFile(filepath.Join(dst, "data.txt"), []byte("new"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheEnvironmentOfAnInheritedAttemptIsTheOneItWasStartedIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := w.Job(t, "a", executortest.Wait)
	job.Template.GetContainer().Command[0] = "sh" // from PATH: an environment is looked for
	first := w.open(t, somePython{}, w.blob)
	if failure, err := first.Start(t.Context(), job); failure != nil || err != nil {
		t.Fatal(failure, err)
	}
	_ = first.Close()
	w.Release(t, job)
	second := w.open(t, noPython{}, w.blob)
	if o := w.run(t, second, job); o.Environment != "sha256:of-python" || o.GetOutputs() == nil {
		t.Errorf("outcome %v", o)
	}
	if n := w.Starts(t, job); n != 1 {
		t.Errorf("started %d times", n)
	}
}

// What a library puts into TMPDIR or HOME may be a socket, whose address has room for 107 bytes: Python's multiprocessing
// takes 32 of them below TMPDIR.
func TestTasksKnowTheirFoldersByShortPaths(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, strings.Repeat("a-long-name/", 12)+"data")
	job := shell(strings.Repeat("n", 60), `set -e; echo "$TMPDIR" > {{.outputPrefix}}/tmp; echo "$HOME" > {{.outputPrefix}}/home; touch "$TMPDIR/x" "$HOME/y"; rm "$HOME/y"`)
	job.ID.Execution.Name = strings.Repeat("e", 60)
	b := w.open(t, noPython{}, w.blob)
	if o := w.run(t, b, job); o.GetOutputs() == nil {
		t.Fatalf("outcome %v", o)
	}
	run := w.blob.Path(blob.Key(job.ID.RunKey()))
	for _, name := range []string{"tmp", "home"} {
		if path := strings.TrimSpace(read(t, filepath.Join(run, name))); len(path) > 107-32 {
			t.Errorf("%s is %s, %d bytes", name, path, len(path))
		}
	}
	if err := b.Forget(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(w.data, "attempts")); err != nil || len(left) != 0 {
		t.Errorf("left of the attempt: %v, %v", left, err)
	}
}

func TestFoldersOfUnknownAttemptsAreRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stale := []string{filepath.Join(w.data, "attempts", "p_d_e_gone_0"), filepath.Join(w.data, "attempts", "p_d_e_gone_0.tmp")}
	for _, folder := range stale {
		if err := os.MkdirAll(filepath.Join(folder, "below"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(folder, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if o := w.run(t, w.open(t, noPython{}, w.blob), w.Job(t, "a", executortest.Succeed)); o.GetOutputs() == nil {
		t.Errorf("outcome %v", o)
	}
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // there is no signal of a file's removal
		if !slices.ContainsFunc(stale, func(folder string) bool { _, err := os.Stat(folder); return err == nil }) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the folder is still there")
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Servers of 0.1.0 had attempts write where others of their generated name wrote. What one has started goes on writing there.
func TestFilesOfAnAttemptThatAnEarlierReleaseStartedAreFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.open(t, noPython{}, w.blob)
	id := shell("a", "", "o").ID
	key := blob.Key("raw/" + id.RawOutputKey())
	if got := b.WrittenKey(id); got != key {
		t.Errorf("its files are at %s where there are none yet, want %s", got, key)
	}
	old := blob.Key(path.Join(path.Dir(string(key)), id.GeneratedName()))
	if err := os.MkdirAll(w.blob.Path(old), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := b.WrittenKey(id); got != old {
		t.Errorf("its files are at %s, want %s", got, old)
	}
	if err := os.MkdirAll(w.blob.Path(key), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := b.WrittenKey(id); got != key {
		t.Errorf("its files are at %s although it has a folder of its own, want %s", got, key)
	}
}
