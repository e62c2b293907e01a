package server

import (
	"crypto/md5"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

// smallDisk mounts a file system of a given size, which only root may do.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("only root mounts a small disk")
	}
	if output, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", bytes), "none", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %s", output)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir
}

// fill takes all free space of the disk and returns a function that gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullDiskStopsWritesAndNothingElseUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 32<<20)
	s := start(t, testConfig(dir))
	s.registerChain("full", 3)
	done := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "full"), map[string]*core.Literal{"x": integer(1)}))
	s.wait(done)
	asleep := s.sleeping(200 * time.Millisecond) // its time comes while the disk is full

	free := fill(t, dir)
	request := execute(id(core.ResourceType_LAUNCH_PLAN, "full"), map[string]*core.Literal{"x": integer(1)})
	var acknowledged []*core.WorkflowExecutionIdentifier
	var refusal error
	for i := 0; refusal == nil; i++ { // a write-ahead log has some room of its own
		request.Name = fmt.Sprintf("full%d", i)
		var answer *admin.ExecutionCreateResponse
		if answer, refusal = s.admin.CreateExecution(t.Context(), request); refusal == nil {
			acknowledged = append(acknowledged, answer.GetId())
		}
	}
	s.wantCode(refusal, connect.CodeUnavailable, "disk", "full", "room")
	if strings.Contains(refusal.Error(), "\n") {
		t.Errorf("the refusal is not one sentence: %v", refusal)
	}
	refused := &core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: request.Name}

	// Records that are there can be read.
	if got := s.get(done).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
		t.Errorf("an execution that has ended is %s", got)
	}
	if _, err := s.admin.ListExecutions(t.Context(), &admin.ResourceListRequest{Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}, Limit: 100}); err != nil {
		t.Errorf("list executions: %v", err)
	}
	if _, err := s.admin.GetExecution(t.Context(), &admin.WorkflowExecutionGetRequest{Id: refused}); code(err) != connect.CodeNotFound {
		t.Errorf("what was refused is half there: %v", err)
	}

	// An upload is refused in one sentence too, and leaves nothing.
	content := make([]byte, 4<<20)
	sum := md5.Sum(content)
	location, err := s.proxy.CreateUploadLocation(t.Context(), &service.CreateUploadLocationRequest{Project: "flytesnacks", Domain: "development", Filename: "f", ContentMd5: sum[:]})
	if err != nil {
		t.Fatalf("an upload location needs no room: %v", err)
	}
	header := http.Header{}
	for k, v := range location.GetHeaders() {
		header.Set(k, v)
	}
	if answer, text := s.do(http.MethodPut, location.GetSignedUrl(), header, content); answer.StatusCode < 500 || !strings.Contains(string(text), "full") {
		t.Errorf("an upload without room is answered %v %q", answer.StatusCode, text)
	}
	if err := filepath.WalkDir(dir+"/data/blob", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "upload") {
			t.Errorf("the refused upload left %s", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}

	// There is room again: everything goes on by itself.
	free()
	for _, e := range append(acknowledged, asleep) {
		if got := s.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
			t.Errorf("execution %s ended %s, want SUCCEEDED as if the disk had never been full", e.GetName(), got)
		}
	}
	if got := s.wait(s.create(request)).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
		t.Errorf("what was refused before ended %s, want SUCCEEDED", got)
	}
	if answer, text := s.do(http.MethodPut, location.GetSignedUrl(), header, content); answer.StatusCode != http.StatusOK {
		t.Errorf("the upload that was refused before: %v %q", answer.StatusCode, text)
	}
	if stuck, err := s.store.Stuck(t.Context(), 0); err != nil || len(stuck) > 0 {
		t.Errorf("stuck: %v, %v", stuck, err)
	}
}
