package server

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
)

// testdata/release has data folders of every release, as test/record.py and the binary of that release left them when they were
// killed: tar -czf 0.1.0.sqlite.tar.gz --exclude=aloft.db-shm data. The folder of a server on PostgreSQL has one more file,
// database.sql, which is pg_dump --inserts --no-owner --no-privileges URL without the lines that only psql understands.

// TestDataFoldersOfEveryReleaseGoOn: an execution that was in any phase when the server of an earlier release was killed comes
// to its right end here. The processes of its tasks are gone, and so is the machine that they ran on.
func TestDataFoldersOfEveryReleaseGoOn(t *testing.T) {
	t.Parallel()
	python := os.Getenv("ALOFT_TEST_PYTHON")
	if python == "" {
		t.Skip("ALOFT_TEST_PYTHON names no Python with flytekit")
	}
	folders, err := filepath.Glob("testdata/release/*.tar.gz")
	if err != nil || len(folders) == 0 {
		t.Fatalf("testdata/release has no data folders (%v)", err)
	}
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			t.Parallel()
			c := testConfig(t.TempDir())
			c.Python = python
			unpack(t, folder, c.DataDir)
			dump := filepath.Join(c.DataDir, "database.sql")
			if content, err := os.ReadFile(dump); err == nil {
				c.Database = postgrestest.Database(t)
				postgrestest.Exec(t, c.Database, string(content))
				if err := os.Remove(dump); err != nil {
					t.Fatal(err)
				}
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			s := &recordedServer{startRunning(t, c)}
			s.goesOn()
			s.recovers()
			s.hits()
			s.resumes()
			if stuck, err := s.store.Stuck(t.Context(), 10); err != nil || len(stuck) > 0 {
				t.Errorf("nothing will ever move %v (%v)", stuck, err)
			}
		})
	}
}

// recordedServer is a server on a data folder that test/record.py has left.
type recordedServer struct{ *testServer }

func (s *recordedServer) execution(name string) *core.WorkflowExecutionIdentifier {
	return &core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: name}
}

// ends checks how an execution ends, and its first output where it has any.
func (s *recordedServer) ends(e *core.WorkflowExecutionIdentifier, want core.WorkflowExecution_Phase, output int64) {
	s.t.Helper()
	if closure := s.wait(e).GetClosure(); closure.GetPhase() != want {
		s.t.Errorf("execution %s ended %s, want %s: %v", e.GetName(), closure.GetPhase(), want, closure.GetError())
		return
	}
	if want != core.WorkflowExecution_SUCCEEDED || output == 0 {
		return
	}
	data, err := s.admin.GetExecutionData(s.t.Context(), &admin.WorkflowExecutionGetDataRequest{Id: e})
	if err != nil {
		s.t.Fatal(err)
	}
	if got := data.GetFullOutputs().GetLiterals()["o0"].GetScalar().GetPrimitive().GetInteger(); got != output {
		s.t.Errorf("execution %s gave %d, want %d", e.GetName(), got, output)
	}
}

func (s *recordedServer) node(e *core.WorkflowExecutionIdentifier, node string) *store.Node {
	s.t.Helper()
	n, err := s.store.GetNode(s.t.Context(), aloft.ExecutionIDOf(e), aloft.NodeID(node))
	if err != nil {
		s.t.Fatalf("node %s of %s: %v", node, e.GetName(), err)
	}
	return n
}

// goesOn waits for the executions that were running, and checks those that had ended.
func (s *recordedServer) goesOn() {
	s.t.Helper()
	const succeeded = core.WorkflowExecution_SUCCEEDED
	for _, r := range []struct {
		name   string
		ends   core.WorkflowExecution_Phase
		output int64
	}{
		{"queued", succeeded, 32}, {"waiting", succeeded, 1}, {"sleeping", succeeded, 0}, {"running", succeeded, 21}, {"owning", succeeded, 3}, {"parking", succeeded, 3},
		{"chain", succeeded, 3}, {"recovered-nested", succeeded, 6}, {"hit", succeeded, 4}, {"broken-alone", core.WorkflowExecution_FAILED, 0}, {"terminated", core.WorkflowExecution_ABORTED, 0},
	} {
		s.ends(s.execution(r.name), r.ends, r.output)
	}
	for _, name := range []string{"running", "owning"} { // whose processes are gone
		attempts, err := s.store.ListAttempts(s.t.Context(), aloft.ExecutionIDOf(s.execution(name)), "n0", store.Query{Ascending: true})
		if err != nil || len(attempts) != 2 || !attempts[0].Lost || attempts[1].Phase != core.TaskExecution_SUCCEEDED {
			s.t.Errorf("attempts of %s: %v (%v), want one that was lost and one that replaced it", name, attempts, err)
		}
	}
	if n := s.node(s.execution("parking"), "n0"); n.Cache.GetStatus() != core.CatalogCacheStatus_CACHE_HIT {
		s.t.Errorf("what waited for another run's result did not take it: %v", n.Cache)
	}
}

// recovers recovers an execution that had failed under the earlier release.
func (s *recordedServer) recovers() {
	s.t.Helper()
	answer, err := s.admin.RecoverExecution(s.t.Context(), &admin.ExecutionRecoverRequest{Id: s.execution("broken-alone"), Name: "again"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.ends(answer.GetId(), core.WorkflowExecution_SUCCEEDED, 6)
	nodes, err := s.store.ListNodes(s.t.Context(), aloft.ExecutionIDOf(answer.GetId()), "", true, store.Query{})
	if err != nil || !slices.ContainsFunc(nodes, func(n *store.Node) bool { return n.Phase == core.NodeExecution_RECOVERED }) {
		s.t.Errorf("nothing was taken over from the execution that was recovered: %v (%v)", nodes, err)
	}
}

// hits runs a task whose result the earlier release had cached.
func (s *recordedServer) hits() {
	s.t.Helper()
	plan := &core.Identifier{ResourceType: core.ResourceType_LAUNCH_PLAN, Project: "flytesnacks", Domain: "development", Name: "released.cached", Version: "recorded"}
	e := s.create(execute(plan, map[string]*core.Literal{"x": integer(40)}))
	s.ends(e, core.WorkflowExecution_SUCCEEDED, 160)
	for _, node := range []string{"n0", "n1"} {
		if n := s.node(e, node); n.Cache.GetStatus() != core.CatalogCacheStatus_CACHE_HIT {
			s.t.Errorf("node %s was computed again: %v", node, n.Cache)
		}
	}
}

// resumes lets a recovery job go on that was paused under the earlier release.
func (s *recordedServer) resumes() {
	s.t.Helper()
	recoveries := aloftv1connect.NewRecoveryServiceClient(s.http, "http://"+s.Address, connect.WithGRPC())
	jobs, err := recoveries.ListRecoveryJobs(s.t.Context(), &aloftv1.ListRecoveryJobsRequest{})
	if err != nil || len(jobs.GetJobs()) != 1 || jobs.GetJobs()[0].GetPhase() != aloftv1.RecoveryJob_PAUSED || jobs.GetJobs()[0].GetCounts().GetWaiting() != 1 {
		s.t.Fatalf("recovery jobs: %v (%v), want one that has paused, with one execution left", jobs, err)
	}
	name := jobs.GetJobs()[0].GetName()
	if _, err := recoveries.ResumeRecoveryJob(s.t.Context(), &aloftv1.ResumeRecoveryJobRequest{Name: name}); err != nil {
		s.t.Fatal(err)
	}
	job := (&gatedWorkflow{testServer: s.testServer}).job(name, over)
	if n := job.GetCounts(); job.GetPhase() != aloftv1.RecoveryJob_ENDED || n.GetSucceeded() != 2 || n.GetFailed() != 1 {
		s.t.Errorf("the job ended so: %v", job)
	}
}

// unpack unpacks the folder data of a file of testdata/release.
func unpack(t *testing.T, file, dir string) {
	t.Helper()
	packed, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unpacked); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(strings.TrimPrefix(h.Name, "data"), "/")))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(at, 0o700)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, at)
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(at, content, h.FileInfo().Mode().Perm())
			}
		default:
			err = fmt.Errorf("%s is of a kind that data folders do not have", h.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
