// Package server puts everything together: it builds, starts and stops the stations of the flow, in its order, around one
// data folder. cmd/aloft runs it as a process, tests start it inside of theirs.
//
// It relies on having the data folder for itself, which a lock ensures. When something is in the way (the folder locked,
// read-only or not a folder, the port taken) Start says so in one sentence with the way out and leaves nothing behind. When
// the process is killed at any moment, the next server goes on where it was: all state is in the store, the blob store and the
// data folder, and none in memory alone.
//
// A running server is these parts, each in a goroutine of its own (Server.run). A part that ends by itself ends the server (Wait).
//
//	health         probes the services that are away
//	engine         decides for the executions of the shards that it leases
//	catalog        removes cached results above the limits
//	executor       starts attempts through the supervisor (only with Options.Worker)
//	recovery jobs  starts the recoveries of jobs
//	listener       serves the API
//
// Close ends them in this order: the listener, so that no request comes in; all others; the tasks, if stop-tasks is set; the store;
// the lock. If the process dies in between, the next start finds the same as after a kill.
package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/admission"
	"github.com/aloft-dev/aloft/api"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/bundle"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/config"
	"github.com/aloft-dev/aloft/engine"
	"github.com/aloft-dev/aloft/engine/machine"
	"github.com/aloft-dev/aloft/environment"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/executor/process"
	"github.com/aloft-dev/aloft/health"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/private"
	"github.com/aloft-dev/aloft/launch"
	"github.com/aloft-dev/aloft/recovery/job"
	"github.com/aloft-dev/aloft/registry"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/worker"
)

// Options are what a server needs besides its configuration: facts about the program that runs it.
type Options struct {
	Version api.Version
	Path    string   // folders in which python3 and uv are looked for, in the form of PATH
	Environ []string // the environment of the server; tasks get the variables of it that task-env names
	Worker  []string // command line that starts a supervisor, such as {"/usr/bin/aloft", "worker"}; empty: tasks that need a process wait
	Logger  *slog.Logger

	leaseTTL   time.Duration // zero: the engine's default; shorter in tests that wait for leases to run out
	maxSilence time.Duration // zero: the constant of this name; shorter in tests
}

// Server is a running server.
type Server struct {
	Address string // host:port on which it listens; if the configured port is 0, the one that the system chose

	config     config.Config
	options    Options
	log        *slog.Logger
	room       admission.Room
	lock       *os.File
	store      *sqlstore.Store
	api        *api.API
	http       *http.Server
	health     *health.Monitor
	results    *catalog.Catalog
	engine     *engine.Engine
	executor   *executor.Executor
	recoveries *job.Jobs
	resolver   *environment.Resolver
	remains    func(context.Context) []string // leftovers of attempts that have ended
	mounts     func() string                  // whether stored objects are read-only for tasks

	stop    context.CancelFunc // ends engine, executor and recovery jobs
	running sync.WaitGroup     // engine, executor, recovery jobs and the HTTP server
	failed  chan error         // errors of parts that ended by themselves; Wait returns the first

	mu         sync.Mutex
	supervisor *worker.Client // nil until the executor asked for it
}

// Start builds a server and returns when it answers. ctx bounds starting only; Close ends the server.
func Start(ctx context.Context, c config.Config, o Options) (_ *Server, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c, options: o, log: o.Logger, failed: make(chan error, 5)}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()

	// If the port is taken, say so before a data folder is made that no server would use.
	if _, err := os.Stat(c.DataDir); errors.Is(err, fs.ErrNotExist) {
		l, err := listen(ctx, c.Listen)
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			return nil, err
		}
	}

	// The data folder, and in it objects, the key that signs links, and the store.
	if s.lock, err = lockDataDir(c.DataDir, c.Listen); err != nil {
		return nil, err
	}
	s.tighten()
	identity, err := identify(c.DataDir)
	if err != nil {
		return nil, err
	}
	place, err := worker.Place(c.DataDir)
	if err != nil {
		return nil, err
	}
	nonce := strings.ToLower(rand.Text())[:12]
	blobs, err := folder.Open(filepath.Join(c.DataDir, "blob"))
	if err != nil {
		return nil, err
	}
	signer, err := blob.OpenSigner(filepath.Join(c.DataDir, "signing.key"))
	if err != nil {
		return nil, err
	}
	renderer := &blob.Renderer{Local: blobs, Signer: signer}
	literals := blob.Literals{Store: blobs}
	if s.store, err = sqlstore.Open(ctx, sqlstore.Options{Path: s.databaseFile(), URL: c.Database, Logger: s.log}); err != nil {
		return nil, err
	}
	before, err := s.predecessor(ctx, identity, place)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.belongTogether(ctx, blobs), s.shareBlobs(ctx, blobs, identity, nonce)); err != nil {
		return nil, err
	}

	// From a request to a queued execution.
	versions := registry.New(registry.Config{Store: s.store, Domains: c.Domains})
	for _, project := range c.Projects {
		if err := versions.Seed(ctx, project); err != nil {
			return nil, err
		}
	}
	if s.room, err = capacity(c); err != nil {
		return nil, err
	}
	variables, err := c.TaskVariables(o.Environ)
	if err != nil {
		return nil, err
	}
	launcher := launch.New(launch.Config{
		Store: s.store, Registry: versions, Literals: literals,
		MaxParallelism: c.MaxParallelism, CanonicalFunc: renderer.Canonical, RefusalFunc: s.refusal, Variables: variables,
	})
	// From a queued execution to its end.
	size, err := config.ParseBytes(c.CacheMaxSize)
	if err != nil {
		return nil, err
	}
	s.results = &catalog.Catalog{
		Store: s.store, Blob: blobs, Log: s.log, Limits: catalog.Limits{MaxAge: config.Limit(c.CacheMaxAge), MaxSize: size},
	}
	s.recoveries = job.New(job.Config{Store: s.store, Launcher: launcher, Results: s.results, Owner: identity, Logger: s.log})
	code, err := bundle.NewCache(filepath.Join(c.DataDir, "bundle"), blobs, bundle.Limits{})
	if err != nil {
		return nil, err
	}
	s.resolver = environment.New(environment.Config{
		DataDir: c.DataDir, Python: c.Python, Path: o.Path, Logger: s.log,
	})
	if err := s.resolver.Given(); err != nil {
		return nil, err
	}
	backend := process.New(process.Config{
		DataDir: c.DataDir, Place: place, Blob: blobs, Environments: s.resolver, Code: process.Bundles{Cache: code},
		Connect: s.connectWorker, Capacity: s.room, Platform: s.platform, Variables: variables, Mode: worker.Mode(c.WorkerMode), Logger: s.log,
	})
	s.mounts, s.remains = backend.Mounts, backend.Remains
	probes := map[string]health.Probe{aloft.ServiceDatabase: s.store.Probe, aloft.ServiceCatalog: func(ctx context.Context) error {
		_, err := s.store.ListResults(ctx, store.ResultQuery{Limit: 1})
		return err
	}}
	for name, probe := range backend.Services() {
		probes[name] = probe
	}
	now, err := s.store.Now(ctx)
	if err != nil {
		return nil, err
	}
	clock := engine.NewClock(now) // shared by health and engine: times at which a service was well are compared with times of failed attempts
	s.health = health.New(health.Config{Store: s.store, Logger: s.log, Probes: probes, Watched: []string{aloft.ServiceDatabase}, Now: clock.Now})
	s.engine = engine.New(engine.Config{
		Store: s.store, Literals: literals, Catalog: s.results, Logger: s.log, Owner: leaseOwner(identity, nonce), Policy: policy(c),
		MaxRetries: c.WorkflowRetries, MaxOutage: config.Limit(c.MaxOutage), Health: s.health, Clock: clock,
		LeaseTTL: o.leaseTTL,
	})
	s.executor = executor.New(executor.Config{
		Instance: identity, Nonce: nonce, Follows: before, Store: s.store, Literals: literals, Backend: backend, Health: s.health, Logger: s.log, Now: s.engine.Now,
	})

	// What clients see.
	listener, err := listen(ctx, c.Listen)
	if err != nil {
		return nil, err
	}
	s.Address = publicAddress(c.Listen, listener.Addr())
	if s.api, err = s.newAPI(api.Config{
		Store: s.store, Registry: versions, Launcher: launcher, Blobs: blobs, Literals: literals, Renderer: renderer, Signer: signer,
		Links:   &blob.Handler{Store: blobs, Signer: signer, Log: s.log},
		Version: o.Version, PublicURL: c.PublicURL, Origins: c.Origins, Hosts: append(hostsOf(c.Listen), c.Hosts...), LocalPaths: c.LocalPaths, Logger: s.log,
		Room: requestRoom(c),
	}); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.http = s.api.Server()
	s.http.ConnState = newConnections(maxConnections()).state

	// The executor registers before the engine starts, which looks for executors that are gone. The rest starts in the order of
	// the flow.
	err = s.executor.Register(ctx)
	if errors.Is(err, aloft.ErrFenced) {
		err = s.twinError(identity)
	}
	if err == nil {
		err = s.store.ReleaseShards(ctx, leaseOwner(identity, before)) // the process before has ended: its leases need not run out
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.run("health", func() error { return s.health.Run(background) })
	s.run("engine", func() error { return s.engine.Run(background) })
	s.run("catalog", func() error { s.results.Run(background); return nil })
	if len(o.Worker) > 0 {
		s.run("executor", func() error { return s.executor.Run(background) })
	}
	s.run("recovery jobs", func() error { return s.recoveries.Run(background) })
	s.run("listener", func() error {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	if slices.Contains(c.Origins, "*") {
		s.log.Warn("any web page that is opened in a browser of this machine may run commands here; name the pages that may in origins", "origins", "*")
	}
	s.log.Info("server started", "listen", s.Address, "data", c.DataDir, "database", s.database(), "version", o.Version.Version)
	return s, nil
}

// policy is the part of the configuration that the engine applies to every execution.
func policy(c config.Config) machine.Policy {
	return machine.Policy{
		Timeout: config.Limit(c.TaskTimeout), QueueTimeout: config.Limit(c.QueueTimeout), ExecutionTimeout: config.Limit(c.ExecutionTimeout),
		Retries: c.Retries(), SystemRetries: c.System(),
	}
}

func (s *Server) newAPI(c api.Config) (*api.API, error) {
	runs := &api.Runs{Store: s.store, Blobs: c.Blobs, Away: s.health.All, Now: s.engine.Now}
	results := &api.Results{Store: s.store}
	info := &api.Info{
		Store: s.store, Version: s.options.Version.Version, DataDir: s.config.DataDir, Database: s.database(), Listen: s.listenAddress(),
		StartedAt: time.Now(), Room: s.queue, Environments: s.environments, Python: s.python, Away: s.health.All, Now: s.engine.Now, StoreMounts: s.mounts, Remains: s.remains,
		TaskTimeout: config.Limit(s.config.TaskTimeout), QueueTimeout: config.Limit(s.config.QueueTimeout), ExecutionTimeout: config.Limit(s.config.ExecutionTimeout),
	}
	recoveries := &api.Recoveries{Jobs: s.recoveries}
	c.Services = append(c.Services,
		func(o ...connect.HandlerOption) (string, string, http.Handler) {
			path, handler := aloftv1connect.NewRecoveryServiceHandler(recoveries, o...)
			return aloftv1connect.RecoveryServiceName, path, handler
		},
		func(o ...connect.HandlerOption) (string, string, http.Handler) {
			path, handler := aloftv1connect.NewRunServiceHandler(runs, o...)
			return aloftv1connect.RunServiceName, path, handler
		},
		func(o ...connect.HandlerOption) (string, string, http.Handler) {
			path, handler := aloftv1connect.NewResultServiceHandler(results, o...)
			return aloftv1connect.ResultServiceName, path, handler
		},
		func(o ...connect.HandlerOption) (string, string, http.Handler) {
			path, handler := aloftv1connect.NewServerServiceHandler(info, o...)
			return aloftv1connect.ServerServiceName, path, handler
		})
	return api.New(c)
}

// run starts a part of the server. A part that ends with an error before Close ends the server (Wait).
func (s *Server) run(name string, part func() error) {
	s.running.Go(func() {
		if err := part(); err != nil && !errors.Is(err, context.Canceled) {
			s.failed <- fmt.Errorf("%s: %w", name, err)
		}
	})
}

// Wait returns when ctx ends, or with an error when a part of the server ended by itself.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// closeGrace is how long calls in flight may take when the server ends. Clients repeat uploads that take longer.
const closeGrace = 2 * time.Second

// Close ends the server: first the listener, then the engine, the executor and the other parts, then the tasks if StopTasks is set,
// then the store. Without StopTasks the tasks go on running, and the next server finds them.
func (s *Server) Close() error {
	s.api.Close()
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close() // calls such as WatchExecution and GetLogs, which would go on
	}
	s.stop()
	s.running.Wait()
	var err error
	if s.config.StopTasks {
		err = s.stopTasks()
	}
	err = errors.Join(err, s.release())
	s.log.Info("server ended")
	return err
}

// stopTasksGrace is the time that tasks have to clean up, between SIGTERM and SIGKILL.
const stopTasksGrace = 10 * time.Second

func (s *Server) stopTasks() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.supervisor == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTasksGrace+5*time.Second)
	defer cancel()
	if err := s.supervisor.Shutdown(ctx, stopTasksGrace); err != nil {
		return fmt.Errorf("stop tasks: %w", err)
	}
	return nil
}

// release gives back what Start has taken so far, in the opposite order.
func (s *Server) release() error {
	s.stop()
	var err error
	s.mu.Lock()
	if s.supervisor != nil {
		err = s.supervisor.Close()
	}
	s.mu.Unlock()
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	if s.lock != nil {
		// Closing the descriptor is not enough: a child that is just being started has a copy of it for a moment.
		err = errors.Join(err, syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN), s.lock.Close())
	}
	return err
}

// Running returns the attempts that the executor of this server runs now.
func (s *Server) Running() []aloft.AttemptID { return s.executor.Running() }

// databaseFile is the path of the SQLite database, which is used unless the configuration names a PostgreSQL database.
func (s *Server) databaseFile() string { return filepath.Join(s.config.DataDir, "aloft.db") }

// database names the database for messages, without a password.
func (s *Server) database() string {
	if s.config.Database != "" {
		return "postgresql " + sqlstore.Redacted(s.config.Database)
	}
	return "sqlite " + s.databaseFile()
}

// connectWorker finds or starts the supervisor of the data folder, once.
func (s *Server) connectWorker(ctx context.Context) (*worker.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.supervisor != nil {
		return s.supervisor, nil
	}
	client, err := worker.Connect(ctx, worker.Config{
		DataDir: s.config.DataDir, Logger: s.log, Executable: s.options.Worker, Build: s.options.Version.Version,
	})
	if err != nil {
		return nil, err
	}
	s.supervisor = client
	return client, nil
}

// Describe is the text of a started server: where its data, its port and its tasks are, and how clients are configured.
func (s *Server) Describe() string {
	address := s.Address
	python := s.config.Python
	if python == "" {
		python = "found or made for each task's image"
	}
	var b strings.Builder
	if s.config.Database == "" {
		fmt.Fprintf(&b, "data    %s (database aloft.db, files blob/)\n", s.config.DataDir)
	} else {
		fmt.Fprintf(&b, "data    %s (files blob/), database %s\n", s.config.DataDir, sqlstore.Redacted(s.config.Database))
	}
	fmt.Fprintf(&b, "listen  http://%s: gRPC, REST and pages on one port\n", address)
	fmt.Fprintf(&b, "tasks   processes here: %s, python %s\n\n", describeRoom(s.room), python)
	fmt.Fprintf(&b, "For clients:\n")
	fmt.Fprintf(&b, "  export FLYTE_PLATFORM_URL=%s FLYTE_PLATFORM_INSECURE=true   # pyflyte, FlyteRemote\n", address)
	fmt.Fprintf(&b, "  flytectl config init --host dns:///%s --insecure               # flytectl: writes its configuration file\n", address)
	return b.String()
}

// Farewell is the text of a server that ends, about the attempts that still run; empty if none does.
func (s *Server) Farewell(running []aloft.AttemptID) string {
	if len(running) == 0 {
		return ""
	}
	const shown = 5
	var b strings.Builder
	if s.config.StopTasks {
		fmt.Fprintf(&b, "%d running task(s) are stopped; the next server starts them again:\n", len(running))
	} else {
		fmt.Fprintf(&b, "%d task(s) go on running; the next server on this data folder finds them (--stop-tasks ends them):\n", len(running))
	}
	for i, id := range running {
		if i == shown {
			fmt.Fprintf(&b, "  and %d more\n", len(running)-shown)
			break
		}
		fmt.Fprintf(&b, "  execution %s, node %s\n", id.Execution.Name, id.Node)
	}
	return b.String()
}

// lockDataDir makes the data folder if need be and locks it for this process. The lock ends with the process.
func lockDataDir(dir, address string) (*os.File, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("open data folder %s: it is a file; choose another one with --data-dir", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, openDataDirError(dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "server.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, openDataDirError(dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(f.Name())
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
		}
		who := strings.TrimSpace(string(holder))
		if who == "" {
			who = "another server"
		}
		return nil, fmt.Errorf("open data folder %s: %s has it; stop that server, or choose another folder with --data-dir", dir, who)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(openDataDirError(dir, err), f.Close())
	}
	if _, err := fmt.Fprintf(f, "process %d, started for %s\n", os.Getpid(), address); err != nil {
		return nil, errors.Join(openDataDirError(dir, err), f.Close())
	}
	return f, nil
}

// dataFolderParts are the files and folders of a data folder, as patterns.
var dataFolderParts = []string{"aloft.db*", "attempts", "blob", "bundle", "environment*", "server.*", "signing.key", "worker"}

// tighten takes the permissions of other users from a data folder that an earlier release, or a user by hand, made too open. If
// that fails, the server uses the folder as it is and warns: its owner may want it so.
func (s *Server) tighten() {
	changed, err := private.Tighten(s.config.DataDir, dataFolderParts...)
	if len(changed) > 0 {
		s.log.Info("other users could read the data folder, and cannot any more", "data", s.config.DataDir, "changed", changed)
	}
	if err != nil {
		s.log.Warn("other users may read what is in the data folder", "data", s.config.DataDir, "error", err)
	}
}

func openDataDirError(dir string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("open data folder %s: %s is below a file; choose another one with --data-dir", dir, path.Path)
	}
	return fmt.Errorf("open data folder %s (--data-dir): %w", dir, blob.Unavailable(err))
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the port is in use; stop what listens there, or choose another address with --listen", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: the port is for root only; choose one above 1023 with --listen", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this machine has no such address; choose another one with --listen", address)
	case err != nil:
		return nil, fmt.Errorf("listen on %s (--listen): %w", address, err)
	}
	return l, nil
}

// hostsOf is the host in an address to listen on, or none if it has no host.
func hostsOf(listen string) []string {
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		return []string{host}
	}
	return nil
}

// listenAddress is the configured address, whose host says from where the server can be reached, with the real port.
func (s *Server) listenAddress() string {
	host, _, err := net.SplitHostPort(s.config.Listen)
	_, port, perr := net.SplitHostPort(s.Address)
	if err != nil || perr != nil {
		return s.Address
	}
	return net.JoinHostPort(host, port)
}

// refusal says why this server cannot run a task with the resources that a node wants; empty: it can, as a process or in the
// engine.
func (s *Server) refusal(task *core.TaskTemplate, node *core.TaskNode) string {
	switch task.GetType() {
	case machine.TaskSleep, machine.TaskEcho:
		return ""
	}
	if reason := process.Refusal(task); reason != "" {
		return reason
	}
	if asks, err := machine.GPUs(task, node); err == nil && asks > s.room.GPU { // an error cannot occur: the compiler has refused numbers that cannot be read
		return fmt.Sprintf("task %s asks for %d GPU, and no machine of this server has one to give: leave gpu out of its Resources, or override it where the task is called, with_overrides(requests=Resources(gpu=\"0\"), limits=Resources(gpu=\"0\"))",
			task.GetId().GetName(), asks)
	}
	return ""
}

// platform is how tasks of this machine reach the server.
func (s *Server) platform() executor.Platform {
	return executor.Platform{Endpoint: s.Address, URL: strings.TrimSuffix(cmp.Or(s.config.PublicURL, "http://"+s.Address), "/")}
}

// publicAddress is the configured host with the real port. An unspecified host, to which clients cannot connect, becomes localhost.
func publicAddress(configured string, actual net.Addr) string {
	host, _, err := net.SplitHostPort(configured)
	_, port, perr := net.SplitHostPort(actual.String())
	if err != nil || perr != nil {
		return actual.String()
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
