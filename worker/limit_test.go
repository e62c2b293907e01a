//go:build linux

package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
)

// saysSource is a task that writes to its attempt's socket.
const saysSource = `
import json, os, socket
from flytekit import task

WORDS = {
    "a long name": [{"done": 0, "modules": ["m" * (8 << 20)]}],
    "long names": [{"imported": 0, "modules": [str(i) * 300 for i in range(2000)]}],
    "many names": [{"imported": 0, "modules": ["forged%d" % i for i in range(100000)]}],
    "many lines": [{"done": 0, "modules": ["forged"]}] * 10000,
    "no line": [],
    "a long reason": [{"unfit": "u" * (1 << 20)}],
}

@task
def t(x: int) -> int:
    if (words := WORDS.get(os.environ["SAYS"])) is not None:
        text = "".join(json.dumps(w) + "\n" for w in words) or "m" * (8 << 20)
        with socket.socket(fileno=os.dup(512)) as s:
            try:
                s.sendall(text.encode())
            except OSError:
                pass
    return x + 1
`

// linkOf is the connection that a client has.
func linkOf(c *Client) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

func TestWhatATaskSaysOnItsSocketIsBounded(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	first := linkOf(b.client)
	for _, says := range []string{"a long name", "long names", "many names", "many lines", "no line", "nothing", "a long reason"} {
		s := b.pythonSpec(py, saysSource, "t")
		s.Env["SAYS"] = says
		b.start(s)
		var r ExitRecord
		select {
		case e := <-b.of(s.AttemptID, EventExited):
			r = *e.Exit
		case <-time.After(time.Minute):
			t.Fatalf("%s: no end is told", says)
		}
		mode := ModeWarm
		if says == "a long reason" { // the task asks for a fresh interpreter, and there it has no such socket
			mode = ModeCold
		}
		if r.Code != 0 || r.Lost || r.Mode != mode || !strings.Contains(b.result(s, r).Files["outputs.pb"], "integer: 42") {
			t.Errorf("%s: got code %d, lost %t, mode %s: %.200s", says, r.Code, r.Lost, r.Mode, b.read(s.Stderr))
		}
		told, err := json.Marshal(r)
		if err != nil || len(told) > 2*maxListed {
			t.Errorf("%s: its end is told in %d bytes (%v), want at most %d", says, len(told), err, 2*maxListed)
		}
		if exists(filepath.Join(b.config.DataDir, "worker", "claims", s.AttemptID+".done")) {
			if err := b.client.Forget(b.ctx(), s.AttemptID); err != nil {
				t.Fatal(err)
			}
			b.eventually("its exit code's file is removed", func() bool {
				return !exists(filepath.Join(b.config.DataDir, "worker", "claims", s.AttemptID+".done"))
			})
		}
	}
	if info, err := os.Stat(filepath.Join(b.config.DataDir, "worker", "claims", "journal")); err != nil || info.Size() > journalRoom {
		t.Errorf("the journal has %d bytes (%v), want %d", info.Size(), err, journalRoom)
	}
	if linkOf(b.client) != first {
		t.Error("the connection was lost")
	}
}

func TestAJournalOfRecordsThatAreTooLongLoadsCutDown(t *testing.T) {
	t.Parallel()
	f, err := newFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	claimed := func(id string) string { return fmt.Sprintf(`{"attempt_id":%q,"claim":{"attempt_id":%[1]q}}`+"\n", id) }
	ended := func(id, rest string) string {
		return fmt.Sprintf(`{"attempt_id":%q,"exit":{"attempt_id":%[1]q,"token":"","code":3,%s}}`+"\n", id, rest)
	}
	long := strings.Repeat("m", 100<<10)
	content := claimed("monstrous") + ended("monstrous", `"cpu_user":5,"modules":["`+strings.Repeat(long, 800)+`"]`) +
		claimed("large") + ended("large", `"why_cold":"`+long+`","cpu_user":5,"modules":["`+long+`"]`) +
		claimed("strange") + ended("strange", `"new":"`+strings.Repeat(long, 800)+`"`) +
		claimed("small") + ended("small", `"cpu_user":5,"new":[1]`) + claimed("last")
	if err := os.WriteFile(f.journal(), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"monstrous": "exit 3", "large": "exit 3", "strange": "claimed", "small": "exit 3", "last": "claimed"}
	for _, round := range []string{"first", "second"} {
		j, left, err := openJournal(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := told(left); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s time: got %v, want %v", round, got, want)
		}
		for _, one := range left {
			if r := one.exit; r != nil && (len(r.WhyCold) > 2*maxSentence || r.Modules != nil || r.CPUUser != 5) {
				t.Errorf("%s time: %s has %d bytes of a reason, %d modules, %d of a processor", round, r.AttemptID, len(r.WhyCold), len(r.Modules), r.CPUUser)
			}
		}
		if j.size > 10_000 {
			t.Errorf("%s time: the journal has %d bytes", round, j.size)
		}
		if kept := string(j.live["small"].exit); !strings.Contains(kept, `"new":[1]`) {
			t.Errorf("%s time: a field of a later version is not kept: %s", round, kept)
		}
	}
}

func TestAnEventThatIsTooLongIsUnderstoodWithoutItsModules(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	listener := listenIn(t, dir)
	long := strings.Repeat("m", maxMessage)
	go func() { // a supervisor of an earlier release, without a bound on messages
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for calls := bufio.NewScanner(conn); calls.Scan(); {
			answer := `{"id":2,"statuses":[{"attempt_id":"` + long + `"}]}` + "\n"
			if strings.Contains(calls.Text(), `"hello"`) {
				answer = `{"id":1,"hello":{"build":"test"}}` + "\n" +
					`{"event":{"kind":"exited","attempt_id":"a","token":"t","exit":{"attempt_id":"a","code":3,"modules":["` + long + `"]}}}` + "\n" +
					`{"event":{"kind":"exited","attempt_id":"b","token":"t","exit":{"attempt_id":"b","code":4}}}` + "\n"
			}
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := Connect(ctx, Config{DataDir: dir, Build: "test", Executable: []string{"/bin/false"}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, want := range []string{"a 3 0", "b 4 0"} {
		select {
		case e := <-client.Events():
			if got := fmt.Sprint(e.AttemptID, " ", e.Exit.Code, " ", len(e.Exit.Modules)); got != want {
				t.Errorf("event: got %s, want %s", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("no event %s", want)
		}
	}
	client.mu.Lock()
	client.next = 1 // the next call gets the id 2, which is answered above
	client.mu.Unlock()
	if _, err := client.List(ctx); err == nil || !strings.Contains(err.Error(), "longer than 64 MiB") {
		t.Errorf("list: got %.200v, want the answer's length", err)
	}
}

func TestACallThatIsTooLongFailsAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := linkOf(b.client)
	ctx, cancel := context.WithTimeout(b.ctx(), time.Minute)
	defer cancel()
	s := b.spec("/bin/true", strings.Repeat("x", maxMessage))
	_, err := b.client.Start(ctx, s)
	for _, want := range []string{"command line and variables are too long", "a message of 6710", "at most 67108864", "invalid"} {
		if !errors.Is(err, aloft.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %.300v, want it to say %q", err, want)
		}
	}
	if r := b.run(b.shell("exit 3")); r.Code != 3 {
		t.Errorf("the next one: got %+v, want code 3", r)
	}
	if linkOf(b.client) != first {
		t.Error("the connection was lost")
	}
	if len(b.claimed()) != 1 {
		t.Errorf("claimed: %v, want one", b.claimed())
	}
}

// A client of an earlier version does not know how long a call may be.
func TestASupervisorRefusesACallThatIsTooLongAndTakesTheNext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path, err := b.client.folder.socket()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		_, _ = io.WriteString(conn, `{"id":5,"call":"start","spec":{"attempt_id":"`+strings.Repeat("x", maxMessage)+`"}}`+"\n"+`{"id":6,"call":"list"}`+"\n")
	}()
	answers := bufio.NewScanner(conn)
	for _, want := range []string{`"id":5,"error":"the call is longer than 64 MiB","invalid":true`, `"id":6`} {
		if !answers.Scan() || !strings.Contains(answers.Text(), want) {
			t.Errorf("got %q (%v), want %s", answers.Text(), answers.Err(), want)
		}
	}
}

func TestAnAnswerThatIsTooLongIsAnError(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer ours.Close()
	p := &peer{outbox: newOutbox(theirs)}
	p.send(reply{ID: 7, Statuses: []Status{{AttemptID: strings.Repeat("x", maxMessage)}}})
	p.send(reply{ID: 8})
	answers := bufio.NewScanner(ours)
	for _, want := range []string{`{"id":7,"error":"the answer is a message of`, `{"id":8}`} {
		if !answers.Scan() || !strings.HasPrefix(answers.Text(), want) {
			t.Errorf("got %q (%v), want %s", answers.Text(), answers.Err(), want)
		}
	}
	p.close()
}

func TestAFullOutboxTakesMoreWhenItsPeerHasRead(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	o := newOutbox(theirs)
	long := strings.Repeat("x", maxMessage-10)
	var err error
	for range 8 { // the first may have left the outbox already
		if err = o.send(long); err != nil {
			break
		}
	}
	if !errors.Is(err, errOutboxFull) {
		t.Fatalf("got %v, want it to be full", err)
	}
	go func() { _, _ = io.Copy(io.Discard, ours) }()
	for end := time.Now().Add(time.Minute); o.send("short") != nil; {
		if time.Now().After(end) {
			t.Fatal("it stays full")
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // there is no signal of room in the outbox
	}
	o.close()
	<-o.written
}

func TestAMessageOfAWarmWorkerThatIsLongerThanAPacketArrives(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	// Each module is dropped, with a reason of 1,200 bytes: all reasons together are more than the buffer of a socket holds.
	modules, names := map[string]string{}, []string{}
	for i := range 250 {
		name := fmt.Sprintf("broken%03d", i)
		names = append(names, name)
		modules[name+".py"] = "raise type('E' * 1200, (Exception,), {})()\n"
	}
	interpreter, _ := b.virtual(py, modules)
	b.teach(b.pythonSpec(interpreter, tasksSource, "add1"), names...)
	l := &importProfile{}
	files, err := filepath.Glob(filepath.Join(b.client.folder.learnt(), "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files of what was learnt: %v, %v", files, err)
	}
	readJSON(files[0], l)
	for _, name := range names {
		if why := l.Dropped[name]; !strings.HasPrefix(why, "its import raises EEE") || len(why) > 2*maxSentence {
			t.Errorf("%s: dropped for %q", name, why)
		}
	}
}

// newTestZygotes returns zygotes without processes, and the import profile of an environment.
func newTestZygotes(t *testing.T) (*zygotes, *importProfile, Environment) {
	t.Helper()
	f, err := newFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	zs := &zygotes{log: discard, folder: f, script: "zygote.py", live: map[string]*zygote{}, profiles: map[string]*importProfile{}}
	env := Environment{Interpreter: "/python", Digest: "sha256:test"}
	return zs, zs.profile(env), env
}

func TestModulesThatAreForgedDoNotFillAnEnvironmentForGood(t *testing.T) {
	t.Parallel()
	forged := make([]string, maxLearnt+1)
	for i := range forged {
		forged[i] = fmt.Sprintf("forged%d", i)
	}
	for name, end := range map[string]func(*zygotes, *zygote){
		"dropped":     func(zs *zygotes, z *zygote) { zs.profile(z.env).drop(reasons(forged)) },
		"never ready": func(zs *zygotes, z *zygote) { zs.fail(z, "its process ended") },
	} {
		zs, l, env := newTestZygotes(t)
		previous := zs.newZygote("key", env, nil)
		previous.modules = map[string]bool{"pandas": true}
		l.Modules = []string{"pandas"}
		zs.learn(previous, forged, 0)
		zs.learn(previous, []string{"numpy"}, 0)
		if len(l.Modules) != maxLearnt {
			t.Fatalf("%s: %d modules are learnt, want %d", name, len(l.Modules), maxLearnt)
		}
		successor := zs.newZygote("key", env, nil)
		successor.previous, previous.successor, successor.modules = previous, successor, map[string]bool{}
		for _, m := range l.Modules {
			successor.modules[m] = true
		}
		end(zs, successor)
		zs.learn(previous, []string{"numpy"}, 0)
		if got := strings.Join(l.Modules, " "); got != "pandas numpy" {
			t.Errorf("%s: learnt are %.100s, want pandas numpy", name, got)
		}
	}
}

// reasons is a warm worker's account of modules that it cannot import.
func reasons(modules []string) map[string]string {
	found := map[string]string{}
	for _, m := range modules {
		found[m] = "its import raises ModuleNotFoundError"
	}
	return found
}

func TestTheModulesThatAreKnownNotToBeImportedAheadAreBounded(t *testing.T) {
	t.Parallel()
	_, l, _ := newTestZygotes(t)
	l.drop(map[string]string{"old": "reads the clock"})
	forged := make([]string, maxLearnt)
	for i := range forged {
		forged[i] = fmt.Sprintf("forged%d", i)
	}
	l.drop(reasons(forged))
	if len(l.Dropped) != maxLearnt || l.Dropped["old"] != "" {
		t.Errorf("%d are known, the old one for %q; want %d without it", len(l.Dropped), l.Dropped["old"], maxLearnt)
	}
}
