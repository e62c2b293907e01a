package api

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/idl/flyteidl/cacheservice/cacheserviceconnect"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog/datacatalogconnect"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/launch"
	"github.com/aloft-dev/aloft/registry"
	"github.com/aloft-dev/aloft/store"
)

// Config has the parts of the server and the settings that the handlers use.
type Config struct {
	Store    Store
	Registry *registry.Registry
	Launcher *launch.Launcher
	Blobs    blob.Store
	Literals blob.Literals
	Renderer *blob.Renderer
	Links    http.Handler // serves what Renderer and Signer link to; mounted at blob.LinkPath
	Signer   *blob.Signer

	Version   Version
	PublicURL string   // URL under which clients reach the server; empty: the one that a client used
	Origins   []string // origins of web pages that may call; "*": any
	Hosts     []string // names under which clients may reach the server, besides localhost, addresses and PublicURL's host
	// LocalPaths: clients on this machine get paths in place of links where links do not work, for folders and tables.
	LocalPaths bool
	Now        func() time.Time // nil: time.Now
	Logger     *slog.Logger
	Room       *room.Pool // for messages of requests and answers, of all requests together; nil: DefaultRoom bytes

	// Services are connect services besides Flyte's, such as aloft's own. Each function calls its New…ServiceHandler with the
	// given options, which contain the guard.
	Services []func(options ...connect.HandlerOption) (name, path string, handler http.Handler)
}

// DefaultRoom is how many bytes requests hold together where Config.Room is nil.
const DefaultRoom = 512 << 20

// Store is the part of the store that the handlers need: to read records, to append to inboxes, and to subscribe to wakes.
type Store interface {
	store.Queries
	store.Wakes
	store.Registry
	store.Catalog
	Append(ctx context.Context, id aloft.ExecutionID, message store.Message) error
}

// Version is the version of the server.
type Version struct {
	Version   string // v1.2.3
	Build     string // commit
	BuildTime string // RFC 3339
}

// API has the methods of all services, and the handler of the port (New).
type API struct {
	Config
	handler http.Handler
	closing chan struct{} // closed when held calls are to be answered
	close   sync.Once
	held    atomic.Int64 // calls of GetExecution that are held now (hold.go)
}

// adminService and dataProxyService have one method per RPC that we serve; all other RPCs are answered by the embedded handlers.
type (
	adminService struct {
		serviceconnect.UnimplementedAdminServiceHandler
		*API
	}
	dataProxyService struct {
		serviceconnect.UnimplementedDataProxyServiceHandler
		*API
	}
)

// New builds the handlers.
func New(config Config) (*API, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Room == nil {
		config.Room = room.NewPool(DefaultRoom)
	}
	config.PublicURL = strings.TrimSuffix(config.PublicURL, "/")
	a := &API{Config: config, closing: make(chan struct{})}

	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(aloft.MaxMessageBytes),
		connect.WithSendMaxBytes(aloft.MaxMessageBytes),
		// Compressed requests are read, but answers are not compressed: it costs more than it saves where client and server
		// are near, and Python's gRPC was seen to hand a compressed answer to its parser as it came, once in 50,000 calls.
		connect.WithCompressMinBytes(math.MaxInt),
		connect.WithInterceptors(guardInterceptor{a}),
		connect.WithCodec(connectJSON("json")),
		connect.WithCodec(connectJSON("json; charset=utf-8")),
	}
	rpc := http.NewServeMux()
	var names []string
	mount := func(name string, path string, handler http.Handler) {
		names = append(names, name)
		rpc.Handle(path, handler)
	}
	serve := func(name string) func(string, http.Handler) {
		return func(path string, handler http.Handler) { mount(name, path, handler) }
	}
	admin, proxy := &adminService{API: a}, &dataProxyService{API: a}
	serve(serviceconnect.AdminServiceName)(serviceconnect.NewAdminServiceHandler(admin, options...))
	serve(serviceconnect.DataProxyServiceName)(serviceconnect.NewDataProxyServiceHandler(proxy, options...))
	// Services of later releases answer UNIMPLEMENTED for each of their calls by name.
	signal := serviceconnect.UnimplementedSignalServiceHandler{}
	identity := serviceconnect.UnimplementedIdentityServiceHandler{}
	auth := serviceconnect.UnimplementedAuthMetadataServiceHandler{}
	serve(serviceconnect.SignalServiceName)(serviceconnect.NewSignalServiceHandler(signal, options...))
	serve(serviceconnect.IdentityServiceName)(serviceconnect.NewIdentityServiceHandler(identity, options...))
	serve(serviceconnect.AuthMetadataServiceName)(serviceconnect.NewAuthMetadataServiceHandler(auth, options...))
	serve(serviceconnect.SyncAgentServiceName)(serviceconnect.NewSyncAgentServiceHandler(serviceconnect.UnimplementedSyncAgentServiceHandler{}, options...))
	serve(serviceconnect.AsyncAgentServiceName)(serviceconnect.NewAsyncAgentServiceHandler(serviceconnect.UnimplementedAsyncAgentServiceHandler{}, options...))
	serve(serviceconnect.AgentMetadataServiceName)(serviceconnect.NewAgentMetadataServiceHandler(serviceconnect.UnimplementedAgentMetadataServiceHandler{}, options...))
	serve(serviceconnect.ExternalPluginServiceName)(serviceconnect.NewExternalPluginServiceHandler(serviceconnect.UnimplementedExternalPluginServiceHandler{}, options...))
	serve(datacatalogconnect.DataCatalogName)(datacatalogconnect.NewDataCatalogHandler(&dataCatalog{a}, options...))
	serve(cacheserviceconnect.CacheServiceName)(cacheserviceconnect.NewCacheServiceHandler(&cacheService{a}, options...))
	for _, build := range config.Services {
		mount(build(options...))
	}
	// A request to the health or reflection service names a service or a file, so it is short. Reflection is a stream, which the
	// intake does not decompress: this limit is the only one on its decompressed messages.
	short := append(slices.Clone(options), connect.WithReadMaxBytes(64<<10))
	serve(grpchealth.HealthV1ServiceName)(grpchealth.NewHandler(grpchealth.NewStaticChecker(append([]string{"flyteadmin"}, names...)...), short...))
	reflector := grpcreflect.NewStaticReflector(names...)
	rpc.Handle(grpcreflect.NewHandlerV1(reflector, short...))
	rpc.Handle(grpcreflect.NewHandlerV1Alpha(reflector, short...))

	conn := &inProcess{api: a, methods: map[string]inProcessMethod{}}
	conn.register(&service.AdminService_ServiceDesc, admin)
	conn.register(&service.DataProxyService_ServiceDesc, proxy)
	conn.register(&service.SignalService_ServiceDesc, signal)
	conn.register(&service.IdentityService_ServiceDesc, identity)
	conn.register(&service.AuthMetadataService_ServiceDesc, auth)
	rest, err := newGateway(context.Background(), conn, config.Logger)
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("/", unknownCalls(rpc))
	for _, path := range restPaths {
		mux.Handle(path, rest)
	}
	mux.HandleFunc("GET /healthcheck", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusOK) })
	execution := a.pageOf("execution", a.readExecutionPage)
	mux.HandleFunc("GET /console/projects/{project}/domains/{domain}/executions/{name}", execution)
	mux.HandleFunc("GET /console/projects/{project}/domains/{domain}/executions/{name}/nodeId/{node}/nodes", execution) // FLYTE_EXECUTION_URL
	mux.HandleFunc("GET /console/", a.pageOf("index", a.readIndexPage))
	if config.Links != nil {
		mux.Handle(blob.LinkPath, config.Links)
	}
	a.handler = a.withGate(newIntake(config.Room, mux))
	return a, nil
}

// Handler serves all paths of the port.
func (a *API) Handler() http.Handler { return a.handler }

// Close answers the held calls, so that a server can end without waiting for them.
func (a *API) Close() { a.close.Do(func() { close(a.closing) }) }

// Server speaks HTTP/1 and HTTP/2 on one port. HTTP/2 without TLS is what gRPC clients speak to a local
// server; pings at any rate are welcome, because flytekit sends them every 30 s even when nothing is called.
func (a *API) Server() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           a.handler,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000, MaxReceiveBufferPerConnection: 2 << 20, MaxReceiveBufferPerStream: 1 << 20},
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    128 << 10,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, new(connection))
		},
		ErrorLog: slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug), // mistakes of clients on the wire
	}
}

// guard runs a call whose message is decoded, and logs it at debug level.
func (a *API) guard(ctx context.Context, procedure string, call func() error) *connect.Error {
	slotOf(ctx).release() // the message is decoded
	if !a.Logger.Enabled(ctx, slog.LevelDebug) {
		return guard(ctx, a.Logger, procedure, call)
	}
	begin := time.Now()
	failure := guard(ctx, a.Logger, procedure, call)
	code := "ok"
	if failure != nil {
		code = failure.Code().String()
	}
	a.Logger.DebugContext(ctx, "call", "rpc", procedure, "code", code, "took", time.Since(begin))
	return failure
}

// answer is guard for a unary call, with room for its answer. A call without effect is run again when there was no room.
func (a *API) answer(ctx context.Context, procedure string, call func() (answer any, err error)) *connect.Error {
	run := func() error {
		answer, err := call()
		if err == nil {
			err = roomForAnswer(ctx, answer)
		}
		return err
	}
	return a.guard(ctx, procedure, func() error {
		if readOnly[procedure] {
			return room.Again(ctx, run)
		}
		return run()
	})
}

// answerCopies is how many times an answer is in memory while it is sent: as a message, encoded, and in the connection's buffer.
const answerCopies = 3

// roomForAnswer takes room for an answer that is about to be encoded. For a large answer it also takes a slot, which
// watchedWriter gives back at the first byte that is sent.
func roomForAnswer(ctx context.Context, answer any) error {
	m, ok := answer.(proto.Message)
	if !ok {
		return nil
	}
	size := proto.Size(m)
	err := room.Take(ctx, answerCopies*int64(size))
	if slot := slotOf(ctx); err == nil && slot != nil && size > heavyBytes {
		err = slot.take(ctx)
	}
	return err
}

// guardInterceptor is the guard as connect's interceptor.
type guardInterceptor struct{ api *API }

func (g guardInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (answer connect.AnyResponse, err error) {
		if failure := g.api.answer(ctx, request.Spec().Procedure, func() (any, error) {
			if answer, err = next(ctx, request); err != nil {
				return nil, err
			}
			return answer.Any(), nil
		}); failure != nil {
			return nil, failure
		}
		return answer, nil
	}
}

func (g guardInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (g guardInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if failure := g.api.guard(ctx, conn.Spec().Procedure, func() error { return next(ctx, conn) }); failure != nil {
			return failure
		}
		return nil
	}
}
