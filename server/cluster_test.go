package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/api"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
	"github.com/aloft-dev/aloft/store/storetest"
)

// killsVariable is how often TestKillsOfServersAndTheirDatabaseLoseNothing kills something; 40 times if it is not set, and few
// with -short.
const killsVariable = "ALOFT_TEST_KILLS"

// beforeVariable names the test binary of this package, made by go test -c, of an earlier release than the one before.
const beforeVariable = "ALOFT_TEST_BEFORE"

// memberConfig is the configuration of a server of the cluster, which is a process of its own.
type memberConfig struct {
	Dir      string        `json:"dir"`
	Database string        `json:"database"`
	LeaseTTL time.Duration `json:"lease_ttl"`
}

const (
	clusterClients = 6
	clusterLease   = 1500 * time.Millisecond // short: the test waits for the leases of killed and suspended servers to run out, many times
)

// serve runs a server of the cluster in this process.
func serve(text string) error {
	var m memberConfig
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	c := testConfig(m.Dir)
	c.Database, c.Slots = m.Database, 4
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := Start(ctx, c, Options{
		Version: api.Version{Version: "v0.0.1"}, Worker: []string{os.Args[0], "worker"}, leaseTTL: m.LeaseTTL,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	fmt.Println(s.Address)
	return errors.Join(s.Wait(ctx), s.Close())
}

// cluster is several servers on one database and one folder of objects, with clients that never stop.
type cluster struct {
	testing.TB
	database *postgrestest.Cluster
	store    *sqlstore.Store // the test's own, to read records and to subscribe
	members  []*clusterServer

	stop     atomic.Bool
	clients  sync.WaitGroup
	created  atomic.Int64
	ended    chan struct{} // one for each execution that has ended
	mu       sync.Mutex
	names    []string // of executions whose creation was acknowledged
	unsought int      // names[:unsought] have been compared
}

// clusterServer is one server of a cluster.
type clusterServer struct {
	memberConfig
	release string // path of the binary that it runs
	process *exec.Cmd
	address atomic.Value // string
	admin   serviceconnect.AdminServiceClient
}

// startCluster starts a server of each of the releases, which are test binaries of this package.
func startCluster(t *testing.T, releases ...string) *cluster {
	t.Helper()
	c := &cluster{TB: t, database: postgrestest.Start(t), ended: make(chan struct{}, 1<<16)}
	var err error
	if c.store, err = sqlstore.Open(t.Context(), sqlstore.Options{URL: c.database.URL}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.store.Close() })
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "signing.key"), []byte(strings.Repeat("0a", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, release := range releases {
		m := &clusterServer{memberConfig: memberConfig{Dir: t.TempDir(), Database: c.database.URL, LeaseTTL: clusterLease}, release: release}
		data := filepath.Join(m.Dir, "data")
		if err := errors.Join(os.MkdirAll(data, 0o700), os.MkdirAll(filepath.Join(shared, "blob"), 0o700),
			os.Symlink(filepath.Join(shared, "blob"), filepath.Join(data, "blob")), os.Symlink(filepath.Join(shared, "signing.key"), filepath.Join(data, "signing.key"))); err != nil {
			t.Fatal(err)
		}
		protocols := &http.Protocols{}
		protocols.SetUnencryptedHTTP2(true)
		m.admin = serviceconnect.NewAdminServiceClient(&http.Client{Transport: toAddress{m, &http.Transport{Protocols: protocols}}}, "http://server", connect.WithGRPC())
		c.members = append(c.members, m)
		c.start(m)
		t.Cleanup(func() { // in an orderly way: it stops its tasks
			_ = errors.Join(m.process.Process.Signal(syscall.SIGCONT), m.process.Process.Signal(syscall.SIGTERM))
			_ = m.process.Wait()
		})
	}
	return c
}

// toAddress sends requests to the address at which a server listens now.
type toAddress struct {
	member    *clusterServer
	transport *http.Transport
}

func (a toAddress) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host, _ = a.member.address.Load().(string)
	return a.transport.RoundTrip(r)
}

// start returns when the server answers.
func (c *cluster) start(m *clusterServer) {
	c.Helper()
	text, err := json.Marshal(m.memberConfig)
	if err != nil {
		c.Fatal(err)
	}
	m.process = exec.Command(m.release, "serve", string(text))
	m.process.Stderr = testLog{c.TB, filepath.Base(m.Dir)}
	out, err := m.process.StdoutPipe()
	if err == nil {
		err = m.process.Start()
	}
	if err != nil {
		c.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		c.Fatal("a server does not start")
	}
	m.address.Store(lines.Text())
}

func (c *cluster) kill(m *clusterServer) {
	c.Helper()
	if err := m.process.Process.Kill(); err != nil {
		c.Fatal(err)
	}
	_ = m.process.Wait()
}

// identity is the name of a server. Its leases are under this name, to which a process adds a dot and its nonce.
func (m *clusterServer) identity(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(m.Dir, "data", "server.id"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

// testLog passes the log of a server on to the test. The server may log after the test has ended.
type testLog struct {
	t    testing.TB
	name string
}

func (l testLog) Write(p []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Logf("server %s: %s", l.name, strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// anywhere makes a call at one server after the other until one answers something else than UNAVAILABLE.
func (c *cluster) anywhere(what string, call func(context.Context, serviceconnect.AdminServiceClient) error) error {
	from := rand.IntN(len(c.members))
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
		err := call(ctx, c.members[(from+try)%len(c.members)].admin)
		cancel()
		switch code(err) {
		case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
			if c.Context().Err() == nil {
				continue
			}
		case connect.CodeUnknown, connect.CodeInternal:
			var own *connect.Error
			if !errors.As(err, &own) || !connect.IsWireError(err) { // a connection that broke, not an answer
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
}

// load has clients create executions one after the other until stop is set: each is waited for before the next is created.
func (c *cluster) load(plans []*core.Identifier) {
	for client := range clusterClients {
		c.clients.Go(func() {
			for n := 0; !c.stop.Load(); n++ {
				request := execute(plans[(client+n)%len(plans)], nil)
				request.Name = fmt.Sprintf("e%d", c.created.Add(1))
				err := c.anywhere("create "+request.Name, func(ctx context.Context, a serviceconnect.AdminServiceClient) error {
					_, err := a.CreateExecution(ctx, request)
					if code(err) == connect.CodeAlreadyExists { // an earlier try of ours
						return nil
					}
					return err
				})
				if err != nil {
					c.Error(err)
					return
				}
				c.mu.Lock()
				c.names = append(c.names, request.Name)
				c.mu.Unlock()
				if !c.wait(request.Name) {
					return
				}
				select {
				case c.ended <- struct{}{}:
				default:
				}
			}
		})
	}
}

func executionID(name string) aloft.ExecutionID {
	return aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name}
}

// wait returns when the execution has ended; if it does not, the test fails.
func (c *cluster) wait(name string) bool {
	wake, cancel := c.store.Subscribe(store.TopicExecution(executionID(name)))
	defer cancel()
	timeout := time.NewTimer(2 * time.Minute)
	defer timeout.Stop()
	for {
		e, err := c.store.GetExecution(c.Context(), executionID(name))
		switch {
		case err == nil && aloft.Terminal(e.Phase):
			return true
		case err != nil && !errors.Is(err, aloft.ErrUnavailable):
			c.Errorf("an acknowledged execution cannot be read: %v", err)
			return false
		}
		again := time.NewTimer(time.Second) // a wake-up goes with the server that sends it
		select {
		case <-wake:
		case <-again.C:
		case <-timeout.C:
			c.Errorf("%s has not ended: %+v", name, e)
			return false
		}
		again.Stop()
	}
}

// afterEnds returns when so many more executions have ended.
func (c *cluster) afterEnds(n int) {
	c.Helper()
	for len(c.ended) > 0 {
		<-c.ended
	}
	for range n {
		select {
		case <-c.ended:
		case <-time.After(3 * time.Minute):
			c.Fatal("no execution ends any more")
		}
	}
}

// shards counts the shards that a server leases, by the records of leases.
func (c *cluster) shards(of *clusterServer) (n int) {
	c.Helper()
	conn := postgrestest.Connect(c.TB, c.database.URL)
	defer conn.Close(context.Background())
	if err := conn.QueryRow(c.Context(), "SELECT COUNT(*) FROM shards WHERE owner = $1 OR owner LIKE $1 || '.%'", of.identity(c.TB)).Scan(&n); err != nil {
		c.Fatal(err)
	}
	return n
}

// compare looks at every execution that has ended since the last call: no acknowledged execution is lost, all have succeeded,
// no node ran twice, each node has succeeded by the attempt that the journal names, and no execution is stuck.
func (c *cluster) compare() {
	c.Helper()
	c.mu.Lock()
	names := c.names[c.unsought:]
	c.unsought = len(c.names)
	c.mu.Unlock()
	for _, name := range names {
		e, err := c.store.GetExecution(c.Context(), executionID(name))
		if err != nil {
			c.Errorf("P1: %s was acknowledged: %v", name, err)
			continue
		}
		if e.Phase != core.WorkflowExecution_SUCCEEDED {
			c.Errorf("%s ended %s: %v", name, e.Phase, e.Error)
		}
		_, journal, err := storetest.Load(c.Context(), c.store, e.Key)
		if err != nil {
			c.Error(err)
			continue
		}
		succeeded, adopted := map[uint32]int{}, map[string]int{}
		for i, row := range journal {
			if row.Seq != int64(i+1) {
				c.Errorf("%s: entry %d of the journal has the sequence %d", name, i+1, row.Seq)
			}
			for _, event := range row.Entry.GetEvents() {
				switch k := event.GetKind().(type) {
				case *aloftv1.Event_NodeSucceeded:
					succeeded[k.NodeSucceeded.GetNode()]++
				case *aloftv1.Event_AttemptEnded:
					adopted[fmt.Sprint(k.AttemptEnded.GetNode(), "/", k.AttemptEnded.GetAttempt())]++
				}
			}
		}
		if len(succeeded) == 0 {
			c.Errorf("%s: no node has succeeded", name)
		}
		for node, n := range succeeded {
			if n > 1 {
				c.Errorf("P2: node %d of %s has succeeded %d times", node, name, n)
			}
		}
		for attempt, n := range adopted {
			if n > 1 {
				c.Errorf("P3: attempt %s of %s has ended %d times", attempt, name, n)
			}
		}
	}
	if stuck, err := c.store.Stuck(c.Context(), 0); err != nil || len(stuck) > 0 {
		c.Errorf("P5: stuck executions %v (%v)", stuck, err)
	}
}

// register registers the workflows that the clients run: a chain that sleeps between its nodes, and a process.
func (c *cluster) register() (plans []*core.Identifier) {
	c.Helper()
	slow := chain("slow", "slow.echo", 3)
	slow.Spec.Template.Interface.Inputs = &core.VariableMap{}
	slow.Spec.Template.Nodes[0].Inputs[0].Binding = &core.BindingData{Value: &core.BindingData_Scalar{Scalar: integer(7).GetScalar()}}
	slow.Spec.Template.Nodes = append(slow.Spec.Template.Nodes, &core.Node{
		Id: "sleep", Metadata: &core.NodeMetadata{Name: "sleep"}, UpstreamNodeIds: []string{"n0"},
		Inputs: []*core.Binding{{Var: "duration", Binding: &core.BindingData{Value: &core.BindingData_Scalar{Scalar: sleepFor(50 * time.Millisecond).GetScalar()}}}},
		Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: id(core.ResourceType_TASK, "slow.sleep")}}},
	})
	slow.Spec.Template.Nodes[1].UpstreamNodeIds = []string{"sleep"}
	err := c.anywhere("register", func(ctx context.Context, a serviceconnect.AdminServiceClient) error {
		for _, task := range []*admin.TaskCreateRequest{echoTask("slow.echo"), sleepTask("slow.sleep"), shellTask("process", "exit 0", &core.TaskMetadata{})} {
			if _, err := a.CreateTask(ctx, task); err != nil && code(err) != connect.CodeAlreadyExists {
				return err
			}
		}
		if _, err := a.CreateWorkflow(ctx, slow); err != nil && code(err) != connect.CodeAlreadyExists {
			return err
		}
		_, err := a.CreateLaunchPlan(ctx, launchPlan("slow", "slow"))
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
	return []*core.Identifier{id(core.ResourceType_LAUNCH_PLAN, "slow"), id(core.ResourceType_LAUNCH_PLAN, "slow"), id(core.ResourceType_TASK, "process")}
}

// Servers are killed and suspended past their leases, and so is their database, while clients create executions at all of
// them without end.
func TestKillsOfServersAndTheirDatabaseLoseNothing(t *testing.T) {
	t.Parallel()
	kills := 40
	if testing.Short() {
		kills = 6
	}
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", killsVariable, err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := startCluster(t, os.Args[0], os.Args[0])
	plans := c.register()
	c.load(plans)
	defer func() { c.stop.Store(true); c.clients.Wait() }()
	c.afterEnds(20)
	done := map[string]int{}
	for n := range kills {
		m := c.members[random.IntN(len(c.members))]
		switch n % 6 {
		case 2: // a server is suspended until the others have its shards, which it does not know when it goes on
			done["suspended"]++
			if err := m.process.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			for c.shards(m) > 0 {
				c.afterEnds(1)
			}
			if err := m.process.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			for c.shards(m) == 0 { // it takes part again
				c.afterEnds(1)
			}
		case 4:
			done["database killed"]++
			c.database.Kill()
			c.database.Restart()
		case 5:
			done["all killed"]++
			c.database.Kill()
			for _, m := range c.members {
				c.kill(m)
			}
			c.database.Restart()
			for _, m := range c.members {
				c.start(m)
			}
		default:
			done["server killed"]++
			c.kill(m)
			c.afterEnds(random.IntN(30))
			c.start(m)
		}
		c.afterEnds(random.IntN(30))
		if n%50 == 49 {
			c.drain()
			c.stop.Store(false)
			t.Logf("after %d kills: %v, %d executions", n+1, done, len(c.names))
			c.load(plans)
		}
	}
	c.drain()
	t.Logf("%v, %d executions", done, len(c.names))
}

// drain lets all running executions end, and compares.
func (c *cluster) drain() {
	c.Helper()
	c.stop.Store(true)
	c.clients.Wait()
	c.compare()
	if c.Failed() {
		c.FailNow()
	}
}

func TestADatabaseThatGoesAwayIsSaidAndWorkGoesOnWhenItIsBack(t *testing.T) {
	t.Parallel()
	database := postgrestest.Start(t)
	c := testConfig(t.TempDir())
	c.Database = database.URL
	s := start(t, c)
	s.registerChain("chain", 2)
	asleep := s.sleeping(time.Second) // its time comes while there is no database
	database.Kill()
	request := execute(id(core.ResourceType_LAUNCH_PLAN, "chain"), map[string]*core.Literal{"x": integer(1)})
	request.Name = "meanwhile"
	_, err := s.admin.CreateExecution(t.Context(), request)
	s.wantCode(err, connect.CodeUnavailable, "the database server cannot be reached", "it goes on by itself when the server is back")
	_, err = s.admin.GetExecution(t.Context(), &admin.WorkflowExecutionGetRequest{Id: asleep})
	s.wantCode(err, connect.CodeUnavailable, "the database server cannot be reached")
	if _, err := s.admin.GetVersion(t.Context(), &admin.GetVersionRequest{}); err != nil {
		t.Errorf("the server does not answer without its database: %v", err)
	}
	database.Restart()
	for {
		if _, err = s.admin.CreateExecution(t.Context(), request); code(err) != connect.CodeUnavailable {
			break
		}
	}
	if err != nil {
		t.Fatalf("the database is back: %v", err)
	}
	for _, e := range []*core.WorkflowExecutionIdentifier{asleep, {Project: "flytesnacks", Domain: "development", Name: "meanwhile"}} {
		if got := s.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
			t.Errorf("%s ended %s, want SUCCEEDED", e.GetName(), got)
		}
	}
}
