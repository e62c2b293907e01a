//go:build linux

package worker

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// holds says whether got has all that want has; "ANY" is anything that is there, "PID" a number above 0.
func holds(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		fields, ok := got.(map[string]any)
		for name, value := range want {
			ok = ok && holds(fields[name], value)
		}
		return ok
	case []any:
		list, ok := got.([]any)
		ok = ok && len(list) == len(want)
		for i := range want {
			ok = ok && holds(list[i], want[i])
		}
		return ok
	case string:
		number, isNumber := got.(float64)
		return want == "ANY" && got != nil || want == "PID" && isNumber && number > 0 || got == want
	default:
		return got == want
	}
}

// The other side may be one version older: its messages were recorded when that version was released.
func TestSupervisorUnderstandsRecordedConversations(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/protocol-*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded conversations: %v", err)
	}
	for _, file := range files {
		b := newBench(t)
		f, err := newFolder(b.config.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		path, err := f.socket()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(deadline))
		answers := bufio.NewScanner(conn)
		var unmatched []map[string]any
		for line := range strings.Lines(strings.ReplaceAll(b.read(file), "DIR", b.dir)) {
			direction, message, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch direction {
			case ">":
				if _, err := conn.Write([]byte(message + "\n")); err != nil {
					t.Fatalf("%s: send %s: %v", file, message, err)
				}
			case "<":
				var want map[string]any
				if err := json.Unmarshal([]byte(message), &want); err != nil {
					t.Fatalf("%s: %s: %v", file, message, err)
				}
				// Answer and event may come in either order.
				for found := false; !found; {
					for i, got := range unmatched {
						if holds(got, want) {
							unmatched, found = append(unmatched[:i], unmatched[i+1:]...), true
							break
						}
					}
					if found {
						break
					}
					if !answers.Scan() {
						t.Fatalf("%s: no answer %s in %v (%v)", file, message, unmatched, answers.Err())
					}
					var got map[string]any
					if err := json.Unmarshal(answers.Bytes(), &got); err != nil {
						t.Fatalf("%s: got %q: %v", file, answers.Text(), err)
					}
					unmatched = append(unmatched, got)
				}
			}
		}
		if len(unmatched) > 0 {
			t.Errorf("%s: answers nobody expects: %v", file, unmatched)
		}
	}
}

// recordedSupervisor answers as a supervisor of version 1 did, with fields of a later version added.
func recordedSupervisor(t *testing.T, listener net.Listener) {
	conn, err := listener.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	answers := map[string]string{
		"hello": `{"id":ID,"hello":{"protocol":1,"build":"test","pid":7,"boot_id":"b","new":1}}
{"event":{"kind":"exited","attempt_id":"old","token":"t","new":[],"exit":{"attempt_id":"old","token":"t","code":3,"cpu_user":5000,"new":{}}}}`,
		"start": `{"id":ID,"status":{"attempt_id":"a","token":"t","state":"running","pid":9,"attached":true,"adopted":true,"new":null}}`,
		"list":  `{"id":ID,"statuses":[{"attempt_id":"a","token":"t","state":"done"}]}`, "forget": `{"id":ID}`,
		"prepare": `{"id":ID,"error":"call \"prepare\" is not known to this supervisor (protocol 1)"}`,
	}
	for calls := bufio.NewScanner(conn); calls.Scan(); {
		var r struct {
			ID   json.Number `json:"id"`
			Call string      `json:"call"`
		}
		if err := json.Unmarshal(calls.Bytes(), &r); err != nil {
			t.Errorf("client says %q: %v", calls.Text(), err)
		}
		if _, err := conn.Write([]byte(strings.ReplaceAll(answers[r.Call], "ID", r.ID.String()) + "\n")); err != nil {
			return
		}
	}
}

// listenIn listens where clients of a data folder expect its supervisor.
func listenIn(t *testing.T, dir string) net.Listener {
	t.Helper()
	f, err := newFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	path, err := f.socket()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func TestClientUnderstandsRecordedAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	listener := listenIn(t, dir)
	go recordedSupervisor(t, listener)
	client, err := Connect(t.Context(), Config{DataDir: dir, Build: "test", Executable: []string{"/bin/false"}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if e := <-client.Events(); e.Kind != EventExited || e.AttemptID != "old" || e.Exit.Code != 3 || e.Exit.CPUUser != 5*time.Microsecond {
		t.Errorf("event: got %+v", e)
	}
	if s, err := client.Start(t.Context(), Spec{AttemptID: "a"}); err != nil || s.State != StateRunning || s.PID != 9 || !s.Attached || !s.Adopted {
		t.Errorf("start: got %+v, %v", s, err)
	}
	if l, err := client.List(t.Context()); err != nil || len(l) != 1 || l[0].State != StateDone {
		t.Errorf("list: got %+v, %v", l, err)
	}
	if err := client.Forget(t.Context(), "a"); err != nil {
		t.Errorf("forget: %v", err)
	}
	if err := client.Prepare(t.Context(), Environment{Interpreter: "/p"}); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("a call it does not know: got %v", err)
	}
}

func TestClientSaysWhyNoSupervisorStarts(t *testing.T) {
	t.Parallel()
	if _, err := Connect(t.Context(), Config{DataDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no program to start one") {
		t.Errorf("got %v", err)
	}
	_, err := Connect(t.Context(), Config{DataDir: t.TempDir(), Executable: []string{"/bin/sh", "-c", "echo it is broken >&2; exit 3"}})
	if err == nil || !strings.Contains(err.Error(), "it is broken") {
		t.Errorf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(t.Context(), Config{DataDir: file, Executable: []string{"/bin/false"}}); err == nil {
		t.Error("a data folder that is a file: no error")
	}
}

func TestFastExecuteKeepsWhatDynamicTasksNeed(t *testing.T) {
	t.Parallel()
	spec := Spec{AttemptID: "a", WorkDir: "/w", CodeDir: "/code", Env: map[string]string{"PYTHONPATH": "/own"}, TempDir: "/t",
		Argv: []string{"pyflyte-fast-execute", "--additional-distribution", "s3://x.tar.gz", "--dest-dir", ".", "--",
			"pyflyte-map-execute", "--inputs", "i", "--resolver", "r", "--", "vars", ""},
		Environment: Environment{Interpreter: "/env/bin/python"}}
	c, err := plan(spec, "m")
	if err != nil {
		t.Fatal(err)
	}
	want := "pyflyte-map-execute --inputs i --dynamic-addl-distro s3://x.tar.gz --dynamic-dest-dir . --resolver r -- vars "
	if got := strings.Join(c.argv, " "); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if c.env["PYTHONPATH"] != "/own:/code" || c.env["TMPDIR"] != "/t" || !strings.HasPrefix(c.env["PATH"], "/env/bin:") || !c.python || c.cold != "" {
		t.Errorf("got %+v", c)
	}
	spec.CodeDir = ""
	if _, err := plan(spec, "m"); err == nil || !strings.Contains(err.Error(), "code_dir") {
		t.Errorf("without an unpacked archive: got %v", err)
	}
	for _, name := range []string{"LD_PRELOAD", "PYTHONHASHSEED", "PYTHONMALLOC"} {
		spec.CodeDir, spec.Env = "/code", map[string]string{name: "1"}
		if c, err := plan(spec, "m"); err != nil || !strings.Contains(c.cold, name) {
			t.Errorf("%s: got %q, %v, want it cold", name, c.cold, err)
		}
	}
}
