package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/blobtest"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/recovery/job"
	"github.com/aloft-dev/aloft/store"
)

// roomyStore is a store of one running execution and one recovery job, each read of which takes room.
type roomyStore struct {
	store.Store // nil: the methods that are not below are not called
	store.Recoveries
	pool *room.Pool

	mu    sync.Mutex
	taken []int64 // bytes that were taken of the pool, at each read
}

const roomyRead = 1 << 20 // bytes

func (s *roomyStore) read(ctx context.Context) error {
	s.mu.Lock()
	s.taken = append(s.taken, s.pool.Taken())
	s.mu.Unlock()
	return room.Of(ctx).TryTake(roomyRead)
}

func (s *roomyStore) reads() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

func (*roomyStore) Subscribe(store.Topic) (<-chan struct{}, func()) {
	wake := make(chan struct{})
	close(wake)
	return wake, func() {}
}

func (s *roomyStore) GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error) {
	return &store.Execution{ID: id, Phase: core.WorkflowExecution_RUNNING, CreatedAt: time.Unix(1, 0), UpdatedAt: time.Unix(1, 0)}, s.read(ctx)
}

func (*roomyStore) ListAttempts(context.Context, aloft.ExecutionID, aloft.NodeID, store.Query) ([]*store.Attempt, error) {
	return nil, nil
}

func (*roomyStore) ListNodes(context.Context, aloft.ExecutionID, aloft.NodeID, bool, store.Query) ([]*store.Node, error) {
	return nil, nil
}

func (*roomyStore) GetWorkflow(context.Context, *core.Identifier) (*store.Workflow, error) {
	return nil, aloft.ErrNotFound
}

func (s *roomyStore) GetRecoveryJob(ctx context.Context, name string) (*aloftv1.RecoveryJob, error) {
	return &aloftv1.RecoveryJob{Name: name, Version: 1}, s.read(ctx)
}

// serveRoomy serves RunService and RecoveryService behind the intake, from a roomyStore.
func serveRoomy(t *testing.T) (*roomyStore, *httptest.Server) {
	t.Helper()
	s := &roomyStore{pool: room.NewPatientPool(64<<20, time.Minute)}
	options := connect.WithInterceptors(guardInterceptor{&API{Config: Config{Logger: slog.New(slog.DiscardHandler)}}})
	mux := http.NewServeMux()
	mux.Handle(aloftv1connect.NewRunServiceHandler(&Runs{Store: s}, options))
	mux.Handle(aloftv1connect.NewRecoveryServiceHandler(&Recoveries{Jobs: job.New(job.Config{Store: s})}, options))
	server := httptest.NewServer(newIntake(s.pool, mux))
	t.Cleanup(server.Close)
	return s, server
}

var roomyID = &core.WorkflowExecutionIdentifier{Project: "p", Domain: "d", Name: "e"}

// TestACallThatLastsTakesNoMoreRoomAsItGoesOn: GetLogs kept the room of each of its reads, until there was no room left.
func TestACallThatLastsTakesNoMoreRoomAsItGoesOn(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(ctx context.Context, url string) error{
		"GetLogs": func(ctx context.Context, url string) error {
			stream, err := aloftv1connect.NewRunServiceClient(http.DefaultClient, url).GetLogs(ctx, &aloftv1.GetLogsRequest{Id: roomyID, Follow: true})
			return toTheEnd(stream, err)
		},
		"WatchExecution": func(ctx context.Context, url string) error {
			stream, err := aloftv1connect.NewRunServiceClient(http.DefaultClient, url).WatchExecution(ctx, &aloftv1.WatchExecutionRequest{Id: roomyID})
			return toTheEnd(stream, err)
		},
		"WatchRecoveryJob": func(ctx context.Context, url string) error {
			stream, err := aloftv1connect.NewRecoveryServiceClient(http.DefaultClient, url).WatchRecoveryJob(ctx, &aloftv1.WatchRecoveryJobRequest{Name: "j"})
			return toTheEnd(stream, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, server := serveRoomy(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- call(ctx, server.URL) }()
			waitUntil(t, "five reads", func() bool { return len(s.reads()) >= 5 })
			for i, taken := range s.reads() {
				if first := s.reads()[0]; taken != first {
					t.Errorf("before read %d the call held %d KiB of the turns before it", i, (taken-first)>>10)
				}
			}
			cancel()
			if err := <-ended; connect.CodeOf(err) != connect.CodeCanceled {
				t.Errorf("the call ended with %v", err)
			}
			waitUntil(t, "all room to be given back", func() bool { return s.pool.Taken() == 0 })
		})
	}
}

func toTheEnd[T any](stream *connect.ServerStreamForClient[T], err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() { //nolint:revive // what is sent is of no interest
	}
	return stream.Err()
}

// TestAStreamWaitsForRoom: GetLogs was run again with a request whose body was read already, and the client was told that there is
// no such call.
func TestAStreamWaitsForRoom(t *testing.T) {
	t.Parallel()
	s, server := serveRoomy(t)
	other := s.pool.Claim()
	if err := other.Take(t.Context(), s.pool.Largest()+room.Allowance); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		stream, err := aloftv1connect.NewRunServiceClient(http.DefaultClient, server.URL).GetLogs(t.Context(), &aloftv1.GetLogsRequest{Id: roomyID})
		ended <- toTheEnd(stream, err)
	}()
	waitUntil(t, "a read without room", func() bool { return len(s.reads()) > 0 })
	other.Release()
	if err := <-ended; err != nil {
		t.Errorf("GetLogs when there was room: %v", err)
	}
	if n := len(s.reads()); n < 2 {
		t.Errorf("after %d reads", n)
	}
}

// endingStore is a store of one node, which writes its last line and ends just before it is read for the second time.
type endingStore struct {
	*roomyStore
	looked bool
	write  func()
}

func (s *endingStore) GetNode(context.Context, aloft.ExecutionID, aloft.NodeID) (*store.Node, error) {
	if !s.looked {
		s.looked = true
		return &store.Node{ID: "n0", Phase: core.NodeExecution_RUNNING}, nil
	}
	s.write()
	return &store.Node{ID: "n0", Phase: core.NodeExecution_SUCCEEDED}, nil
}

func (*endingStore) ListAttempts(_ context.Context, id aloft.ExecutionID, _ aloft.NodeID, _ store.Query) ([]*store.Attempt, error) {
	return []*store.Attempt{{ID: aloft.AttemptID{Execution: id, Node: "n0"}, AttemptKey: store.AttemptKey{Node: "n0", Token: "t"}}}, nil
}

// TestTheLastLinesOfANodeAreSent: what a node wrote between the last read of its log and its end was never sent, because GetLogs
// read the phase after the log.
func TestTheLastLinesOfANodeAreSent(t *testing.T) {
	t.Parallel()
	blobs := blobtest.NewMemory()
	key := blob.Key(aloft.AttemptID{Execution: aloft.ExecutionIDOf(roomyID), Node: "n0"}.RunKey() + "/stdout")
	s := &endingStore{roomyStore: &roomyStore{pool: room.NewPool(64 << 20)}, write: func() {
		if _, err := blobs.Put(t.Context(), key, strings.NewReader("the last line\n"), blob.PutOptions{Overwrite: true}); err != nil {
			t.Error(err)
		}
	}}
	mux := http.NewServeMux()
	mux.Handle(aloftv1connect.NewRunServiceHandler(&Runs{Store: s, Blobs: blobs}))
	server := httptest.NewServer(newIntake(s.pool, mux))
	defer server.Close()
	stream, err := aloftv1connect.NewRunServiceClient(http.DefaultClient, server.URL).GetLogs(t.Context(), &aloftv1.GetLogsRequest{Id: roomyID, Node: "n0", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	var got []byte
	for stream.Receive() {
		got = append(got, stream.Msg().GetData()...)
	}
	if stream.Err() != nil || string(got) != "the last line\n" {
		t.Errorf("%q, %v", got, stream.Err())
	}
}

// TestOfEachCallItIsSaidWhetherItHasAnEffect: which calls may be run again was told by the beginning of their names.
func TestOfEachCallItIsSaidWhetherItHasAnEffect(t *testing.T) {
	t.Parallel()
	notServed := map[protoreflect.FullName]bool{ // each of their calls answers UNIMPLEMENTED
		"flyteidl.service.SignalService": true, "flyteidl.service.IdentityService": true, "flyteidl.service.AuthMetadataService": true,
		"flyteidl.service.SyncAgentService": true, "flyteidl.service.AsyncAgentService": true, "flyteidl.service.AgentMetadataService": true,
		"flyteidl.service.ExternalPluginService": true,
	}
	left := map[string]bool{}
	for procedure := range readOnly {
		left[procedure] = true
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		pack := string(file.Package())
		if !strings.HasPrefix(pack, "flyteidl") && !strings.HasPrefix(pack, "datacatalog") && !strings.HasPrefix(pack, "aloft") {
			return true
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for k := range service.Methods().Len() {
				method := service.Methods().Get(k)
				procedure := "/" + string(service.FullName()) + "/" + string(method.Name())
				_, said := readOnly[procedure]
				if want := !notServed[service.FullName()] && !method.IsStreamingClient() && !method.IsStreamingServer(); said != want {
					t.Errorf("%s is in the table: %v, want %v", procedure, said, want)
				}
				delete(left, procedure)
			}
		}
		return true
	})
	for procedure := range left {
		t.Errorf("%s is in the table, and there is no such call", procedure)
	}
}

// heldStore is a store of one execution, which is read for a held call and has ended at some time.
type heldStore struct {
	*roomyStore
	size int64 // of a read
	ends time.Time
}

func (*heldStore) Subscribe(store.Topic) (<-chan struct{}, func()) { return nil, func() {} }

func (s *heldStore) GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error) {
	s.taken = append(s.taken, s.pool.Taken())
	e := &store.Execution{ID: id, Phase: core.WorkflowExecution_RUNNING}
	if !time.Now().Before(s.ends) {
		e.Phase = core.WorkflowExecution_SUCCEEDED
	}
	return e, room.Of(ctx).TryTake(s.size)
}

// TestAHeldCallWaitsForRoomBeforeItReadsAgain: a held call read the database without a pause while there was room for the first
// record and not for the second.
func TestAHeldCallWaitsForRoomBeforeItReadsAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		comes time.Duration // when there is room
		ended bool
	}{
		"room that comes":   {time.Second, true},
		"none for Patience": {time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pool := room.NewPool(64 << 20)
				s := &heldStore{&roomyStore{pool: pool}, 20 << 20, time.Now().Add(500 * time.Millisecond)}
				admin := &adminService{API: &API{Config: Config{Store: s, Now: time.Now}, closing: make(chan struct{})}}
				id := aloft.ExecutionIDOf(roomyID)
				c := &connection{}
				c.created(id)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				claim := pool.Claim()
				ctx = room.With(context.WithValue(ctx, callerKey{}, caller{userAgent: "grpc-python/1", connection: c}), claim)
				other := pool.Claim()
				if err := other.Take(ctx, 26<<20); err != nil { // what is left is enough for one record and a half
					t.Fatal(err)
				}
				time.AfterFunc(test.comes, other.Release)
				err := room.Again(ctx, func() error {
					if len(s.taken) > 10 {
						return errors.New("read all the time")
					}
					_, err := admin.hold(ctx, id)
					return err
				})
				if test.ended && err != nil || !test.ended && !errors.Is(err, aloft.ErrExhausted) {
					t.Errorf("%v after %d reads", err, len(s.taken))
				}
				other.Release()
				claim.Release()
				if pool.Taken() != 0 {
					t.Errorf("%d bytes are still taken", pool.Taken())
				}
			})
		})
	}
}
