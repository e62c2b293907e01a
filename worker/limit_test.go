//go:build linux

package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
)

// linkOf is the connection that a client has.
func linkOf(c *Client) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

func TestAnEventThatIsTooLongIsUnderstoodWithoutItsModules(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
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
	defer listener.Close()
	long := strings.Repeat("m", maxMessage)
	go func() { // a supervisor that does not know how long a message may be
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
	client.next = 1 // the next call is the one that is answered above
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
	for range 8 { // one may be on its way already
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
		time.Sleep(time.Millisecond) //nolint:forbidigo // of its room nobody tells
	}
	o.close()
	<-o.written
}
