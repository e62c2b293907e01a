package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/internal/weight/weighttest"
)

const createPath = "/flyteidl.service.AdminService/CreateExecution"

// intakeServer is a server whose handler only reads what the intake lets through.
type intakeServer struct {
	*httptest.Server
	pool   *room.Pool
	passed atomic.Int64 // bytes of the last body that reached the handler
	most   atomic.Int64 // bytes of room that were taken at once, at most
}

func takeIn(t *testing.T, size int64, idle time.Duration) *intakeServer {
	t.Helper()
	s := &intakeServer{pool: room.NewPatientPool(size, 200*time.Millisecond)}
	a := newIntake(s.pool, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.most.Store(max(s.most.Load(), s.pool.Taken()))
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		s.passed.Store(n)
	}))
	a.wireLimits = wireLimits{idle: idle, grace: time.Hour, upload: time.Second, answer: time.Hour}
	s.Server = httptest.NewServer(a)
	t.Cleanup(s.Close)
	return s
}

func (s *intakeServer) post(t *testing.T, path string, header http.Header, body []byte) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	answer, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d grpc-status: %s%s %s %s", answer.StatusCode, answer.Header.Get("Grpc-Status"), answer.Trailer.Get("Grpc-Status"),
		answer.Header.Get("Grpc-Message")+answer.Trailer.Get("Grpc-Message"), text)
}

func frame(flags byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMessagesThatWouldFillTheMemoryAreRefused is attack 2: messages that are small on the wire and large in memory.
func TestMessagesThatWouldFillTheMemoryAreRefused(t *testing.T) {
	t.Parallel()
	s := takeIn(t, DefaultRoom, time.Minute)
	grpc := http.Header{"Content-Type": {"application/grpc+proto"}, "Grpc-Encoding": {"gzip"}}
	web := http.Header{"Content-Type": {"application/grpc-web+proto"}, "Grpc-Encoding": {"gzip"}}
	proto := http.Header{"Content-Type": {"application/proto"}, "Content-Encoding": {"gzip"}}
	json := http.Header{"Content-Type": {"application/json"}}
	bomb := gzipped(t, append([]byte{0x1a, 0x80, 0x80, 0x80, 0x06}, make([]byte, 12<<20)...))
	literals := gzipped(t, weighttest.Within(5, weighttest.LiteralMap("x", 2_500_000))) // 5 MB
	objects := []byte(`{"spec": {"x": [` + strings.Repeat("{},", 1_400_000) + `{}]}}`)
	for name, test := range map[string]struct {
		path   string
		header http.Header
		body   []byte
		want   []string
	}{
		"a bomb over gRPC":        {createPath, grpc, frame(1, bomb), []string{"grpc-status: 8", "100"}},
		"a bomb over gRPC-Web":    {createPath, web, frame(1, bomb), []string{"grpc-status: 8", "100"}},
		"a bomb over Connect":     {createPath, proto, bomb, []string{"resource_exhausted", "100"}},
		"empty literals":          {createPath, grpc, frame(1, literals), []string{"grpc-status: 8", "256 MiB"}},
		"JSON of empty objects":   {createPath, json, objects, []string{"resource_exhausted", "256 MiB"}},
		"REST of empty objects":   {"/api/v1/executions", json, objects, []string{"429", "256 MiB"}},
		"a frame above the limit": {createPath, grpc, binary.BigEndian.AppendUint32([]byte{0}, aloft.MaxMessageBytes+1), []string{"grpc-status: 8", "64 MiB"}},
		"two messages in a call":  {createPath, grpc, append(frame(0, nil), frame(0, nil)...), []string{"grpc-status: 3", "another one"}},
		"what is no gzip":         {createPath, grpc, frame(1, []byte("plain")), []string{"grpc-status: 3", "gzip"}},
	} {
		s.passed.Store(-1)
		got := s.post(t, test.path, test.header.Clone(), test.body)
		for _, want := range test.want {
			if !strings.Contains(strings.ReplaceAll(got, "%20", " "), want) {
				t.Errorf("%s: %.300s, want %s", name, got, want)
			}
		}
		if s.passed.Load() >= 0 {
			t.Errorf("%s reached the handler", name)
		}
	}
	// A message that is well compressed but small, and one that is large but only text, pass.
	if got := s.post(t, createPath, grpc.Clone(), frame(1, gzipped(t, append([]byte{0x1a, 0x80, 0x80, 0x80, 0x04}, make([]byte, 8<<20)...)))); !strings.HasPrefix(got, "200") || s.passed.Load() != 5+5+8<<20 {
		t.Errorf("8 MiB of zeros: %.200s, %d bytes reached the handler", got, s.passed.Load())
	}
	if got := s.post(t, createPath, grpc.Clone(), frame(0, append([]byte{0x1a, 0x80, 0x80, 0x80, 0x0a}, make([]byte, 20<<20)...))); !strings.HasPrefix(got, "200") || s.passed.Load() != 5+5+20<<20 {
		t.Errorf("20 MiB of text: %.200s, %d bytes reached the handler", got, s.passed.Load())
	}
	waitUntil(t, "all room to be given back", func() bool { return s.pool.Taken() == 0 })
}

func waitUntil(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestBodiesThatStopGiveTheirRoomBack is attack 2: connections that send a part and then nothing.
func TestBodiesThatStopGiveTheirRoomBack(t *testing.T) {
	t.Parallel()
	s := takeIn(t, 64<<20, 100*time.Millisecond)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n", createPath, 64<<20)
			go func() { _, _ = conn.Write(make([]byte, 57<<20)) }()
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return // refused while it was still sending: the connection is reset
			}
			defer answer.Body.Close()
			text, _ := io.ReadAll(answer.Body)
			if !strings.Contains(string(text), "deadline_exceeded") && !strings.Contains(string(text), "resource_exhausted") {
				t.Errorf("%s %s", answer.Status, text)
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		default:
			if taken := s.pool.Taken(); taken > 64<<20 {
				t.Fatalf("%d bytes are held", taken)
			}
		}
		if got := s.post(t, createPath, http.Header{"Content-Type": {"application/proto"}}, []byte{0x1a, 0x01, 'n'}); !strings.HasPrefix(got, "200") {
			t.Errorf("a small request beside them: %s", got)
		}
	}
	waitUntil(t, "all room to be given back", func() bool { return s.pool.Taken() == 0 })
}

// TestTheSlotForLargeMessagesIsFreeWhileOneWaitsForRoom: a request kept the only slot while it waited for room to decompress or to
// decode, and no other large message was received, not even one for which there was room.
func TestTheSlotForLargeMessagesIsFreeWhileOneWaitsForRoom(t *testing.T) {
	t.Parallel()
	message := bytes.Repeat([]byte{0x1a, 0x02, 'a', 'b'}, 1<<18) // 1 MiB
	compressed := gzipped(t, message)
	input := (&admin.ExecutionCreateRequest{}).ProtoReflect().Descriptor()
	for name, take := range map[string]func(in *messageReader) error{
		"to decompress": func(in *messageReader) error { _, err := in.inflate(compressed, 0); return err },
		"to decode":     func(in *messageReader) error { return in.weigh(input, message, false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pool := room.NewPool(64 << 20)
				other, claim := pool.Claim(), pool.Claim()
				if err := other.Take(t.Context(), pool.Largest()+room.Allowance-100_000); err != nil {
					t.Fatal(err)
				}
				places := make(chan struct{}, 1)
				in := &messageReader{ctx: t.Context(), claim: claim, slot: &heavySlot{places: places, claim: claim}}
				ended := make(chan error, 1)
				go func() { ended <- take(in) }()
				synctest.Wait()
				if len(ended) > 0 || len(places) > 0 {
					t.Errorf("without room: ended %v, has the slot %v", len(ended) > 0, len(places) > 0)
				}
				other.Release()
				if err := <-ended; err != nil || len(places) == 0 {
					t.Errorf("when there was room: %v, has the slot %v", err, len(places) > 0)
				}
				in.slot.release()
				claim.Release()
			})
		})
	}
}

// creating is a service whose handler shows the room and the slot that its request has when it runs.
type creating struct {
	serviceconnect.UnimplementedAdminServiceHandler
	found func()
}

func (c creating) CreateExecution(context.Context, *admin.ExecutionCreateRequest) (*admin.ExecutionCreateResponse, error) {
	c.found()
	return &admin.ExecutionCreateResponse{}, nil
}

// TestWhatALargeMessageHoldsWhenItsHandlerRuns: the slot has been given back, because the message is decoded, and the request has
// room for the message as it came, for the copies of the decoder, and for the decoded message.
func TestWhatALargeMessageHoldsWhenItsHandlerRuns(t *testing.T) {
	t.Parallel()
	message := bytes.Repeat([]byte{0x1a, 0x02, 'a', 'b'}, 1<<18) // the name, again and again: 1 MiB
	decoded, err := weight.Protobuf((&admin.ExecutionCreateRequest{}).ProtoReflect().Descriptor(), message)
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	pool := room.NewPool(DefaultRoom)
	mux := http.NewServeMux()
	a := newIntake(pool, mux)
	var slots int
	var taken int64
	mux.Handle(serviceconnect.NewAdminServiceHandler(creating{found: func() { slots, taken = len(a.heavy), pool.Taken() }},
		connect.WithInterceptors(guardInterceptor{&API{Config: Config{Logger: slog.New(slog.DiscardHandler)}}})))
	s := &intakeServer{Server: httptest.NewServer(a), pool: pool}
	defer s.Close()
	for name, call := range map[string]struct {
		header http.Header
		body   []byte
	}{
		"as it is":   {http.Header{"Content-Type": {"application/proto"}}, message},
		"compressed": {http.Header{"Content-Type": {"application/proto"}, "Content-Encoding": {"gzip"}}, gzipped(t, message)},
		"over gRPC":  {http.Header{"Content-Type": {"application/grpc+proto"}}, frame(0, message)},
	} {
		slots, taken = -1, 0
		if got := s.post(t, createPath, call.header, call.body); !strings.HasPrefix(got, "200") {
			t.Fatalf("%s: %.300s", name, got)
		}
		if slots != 0 {
			t.Errorf("%s: %d slots for large messages were held while the handler ran", name, slots)
		}
		if least, most := 3*size+decoded, 4*size+decoded+1<<10; taken < least || taken > most {
			t.Errorf("%s: %d bytes of room, want %d to %d", name, taken, least, most)
		}
	}
	waitUntil(t, "all room to be given back", func() bool { return pool.Taken() == 0 })
}

// TestLargeBuffersAreCopiedWithTheSlot: all requests that received a body copied it into larger buffers at once, and no small
// request found a processor meanwhile. The slot is not kept while more of the body is to come.
func TestLargeBuffersAreCopiedWithTheSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := room.NewPool(64 << 20)
		claim := pool.Claim()
		places := make(chan struct{}, 1)
		places <- struct{}{} // another request's slot
		in := &messageReader{ctx: t.Context(), claim: claim, slot: &heavySlot{places: places, claim: claim}}
		body, sender := io.Pipe()
		sent, ended := 0, make(chan error, 1)
		go func() {
			for ; sent < 4*heavyBytes; sent += 1 << 10 {
				if _, err := sender.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}()
		go func() { _, err := in.readAll(body, 8*heavyBytes, nil); ended <- err }()
		synctest.Wait()
		if sent < heavyBytes/2 || sent > heavyBytes+1<<10 {
			t.Errorf("without the slot %d bytes were received, want about %d", sent, heavyBytes)
		}
		<-places
		synctest.Wait()
		if sent != 4*heavyBytes || len(places) > 0 {
			t.Errorf("with the slot %d bytes were received; it is kept while the wire is silent: %v", sent, len(places) > 0)
		}
		_ = sender.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		claim.Release()
	})
}

// naming answers with a name of a given length.
type naming struct {
	serviceconnect.UnimplementedAdminServiceHandler
	size int
}

func (n naming) CreateExecution(context.Context, *admin.ExecutionCreateRequest) (*admin.ExecutionCreateResponse, error) {
	return &admin.ExecutionCreateResponse{Id: &core.WorkflowExecutionIdentifier{Name: strings.Repeat("n", n.size)}}, nil
}

// TestLargeAnswersAreEncodedWithTheSlot: a list of thousands of rows is encoded without a pause. A client that is slow to take
// the answer does not keep the slot.
func TestLargeAnswersAreEncodedWithTheSlot(t *testing.T) {
	t.Parallel()
	serve := func(size int) (*intake, *intakeServer) {
		pool := room.NewPatientPool(DefaultRoom, 50*time.Millisecond)
		mux := http.NewServeMux()
		a := newIntake(pool, mux)
		mux.Handle(serviceconnect.NewAdminServiceHandler(naming{size: size},
			connect.WithInterceptors(guardInterceptor{&API{Config: Config{Logger: slog.New(slog.DiscardHandler)}}})))
		s := &intakeServer{Server: httptest.NewServer(a), pool: pool}
		t.Cleanup(s.Close)
		for len(a.heavy) < cap(a.heavy) {
			a.heavy <- struct{}{} // slots of other requests
		}
		return a, s
	}
	header := http.Header{"Content-Type": {"application/proto"}}
	_, s := serve(1000)
	if got := s.post(t, createPath, header, []byte{0x1a, 1, 'n'}); !strings.HasPrefix(got, "200") {
		t.Errorf("a small answer while others have the slots: %.300s", got)
	}
	a, s := serve(32 << 20)
	if got := s.post(t, createPath, header, []byte{0x1a, 1, 'n'}); !strings.HasPrefix(got, "429") || !strings.Contains(got, "other large requests") {
		t.Errorf("a large answer while others have the slots: %.300s", got)
	}
	<-a.heavy
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: 3\r\n\r\n\x1a\x01n", createPath)
	if status, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(status, "200") {
		t.Errorf("a large answer with a slot: %q, %v", status, err)
	}
	waitUntil(t, "the slot of an answer that is not taken", func() bool { return len(a.heavy) == cap(a.heavy)-1 })
}
