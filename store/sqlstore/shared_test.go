package sqlstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
	"github.com/aloft-dev/aloft/store/storetest"
)

// What holds where several servers share a database.

func lease(t testing.TB, s *sqlstore.Store, owner string, now time.Time, ttl time.Duration) []store.Lease {
	t.Helper()
	leases, err := s.AcquireShards(t.Context(), owner, now, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

func TestLeasesOfASharedDatabaseFollowItsClockAndNoCallers(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	a, b := openPostgres(t, url), openPostgres(t, url)
	past, future := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC)
	old := lease(t, a, "a", past, time.Hour)
	if len(old) != store.Shards {
		t.Fatalf("a got %d shards", len(old))
	}
	if got := lease(t, b, "b", future, time.Hour); len(got) != 0 {
		t.Fatalf("b, whose clock is 200 years late, got %d shards that a has", len(got))
	}
	e := mustCreate(t, b, "e")
	lease(t, a, "a", future, time.Nanosecond)
	if err := a.Commit(t.Context(), []*store.Step{benchStep(e, old, 1)})[0]; !errors.Is(err, aloft.ErrFenced) {
		t.Fatalf("a commit under a lease that has run out and nobody has taken: %v", err)
	}
	renewed := lease(t, a, "a", past, time.Hour)
	if renewed[e.Shard].Epoch != old[e.Shard].Epoch {
		t.Errorf("the epoch grew from %d to %d although nobody had the shard in between", old[e.Shard].Epoch, renewed[e.Shard].Epoch)
	}
	if err := a.Commit(t.Context(), []*store.Step{benchStep(e, renewed, 1)})[0]; err != nil {
		t.Fatalf("a commit under a lease that was renewed: %v", err)
	}

	lease(t, a, "a", past, time.Nanosecond)
	taken := lease(t, b, "b", past, time.Hour)
	if len(taken) != store.Shards || taken[e.Shard].Epoch <= renewed[e.Shard].Epoch {
		t.Fatalf("b got %d shards", len(taken))
	}
	if err := a.Commit(t.Context(), []*store.Step{benchStep(e, renewed, 2)})[0]; !errors.Is(err, aloft.ErrFenced) {
		t.Errorf("a commit of the one who had the shard before: %v", err)
	}
	if err := b.Commit(t.Context(), []*store.Step{benchStep(e, taken, 2)})[0]; err != nil {
		t.Errorf("a commit of the one who has the shard: %v", err)
	}
}

// The clock of one server is 200 years ahead of the other's.
func TestReservationsInASharedDatabaseFollowItsClock(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	a, b := openPostgres(t, url), openPostgres(t, url)
	past, future := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC)
	reserve := func(s *sqlstore.Store, tag, owner string, now time.Time, lasts time.Duration) string {
		t.Helper()
		holds, err := s.Reserve(t.Context(), store.Reservation{
			ID: store.ResultID{Project: "p", Domain: "d", Name: "n", Version: "v", Tag: tag}, Owner: owner, Heartbeat: time.Second, Expires: now.Add(lasts),
		}, now)
		if err != nil {
			t.Fatal(err)
		}
		return holds.Owner
	}
	reserve(a, "lives", "a", past, time.Hour)
	if owner := reserve(b, "lives", "b", future, time.Hour); owner != "a" {
		t.Errorf("%s took a reservation that has an hour left", owner)
	}
	reserve(b, "is over", "b", future, -time.Second)
	if owner := reserve(a, "is over", "a", past, time.Hour); owner != "a" {
		t.Errorf("%s has a reservation that is over", owner)
	}
}

func TestACommitHoldsItsShardUntilItIsDone(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s := openPostgres(t, url)
	lease(t, s, "a", now, time.Nanosecond)
	other := postgrestest.Connect(t, url)
	defer other.Close(context.Background())
	for _, statement := range []string{"BEGIN", "SELECT 1 FROM shards WHERE shard = 7 FOR SHARE"} { // as a commit that is under way
		if _, err := other.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if got := lease(t, s, "b", now, time.Hour); len(got) != store.Shards-1 {
		t.Fatalf("b got %d shards while a commit held one of %d", len(got), store.Shards)
	}
	if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if got := lease(t, s, "b", now, time.Hour); len(got) != store.Shards {
		t.Fatalf("b got %d shards", len(got))
	}
}

func TestWakeUpsReachTheOtherServers(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	a, b := openPostgres(t, url), openPostgres(t, url)
	e := mustCreate(t, a, "e")
	inbox, cancel := b.Subscribe(store.TopicInbox)
	defer cancel()
	watch, cancelWatch := b.Subscribe(store.TopicExecution(e.ID))
	defer cancelWatch()
	for i := range 3 {
		if err := a.Append(t.Context(), e.ID, store.Message{Dedup: fmt.Sprint(i), Inbox: &aloftv1.Inbox{}}); err != nil {
			t.Fatal(err)
		}
		<-inbox
		if err := a.SetExecutionState(t.Context(), e.ID, admin.ExecutionState(i%2), "ada"); err != nil {
			t.Fatal(err)
		}
		<-watch
	}
	// More than a note can say.
	release := a.Hold()
	var group sync.WaitGroup
	for i := range 300 {
		group.Go(func() {
			other := benchExecution(fmt.Sprint("a-long-name-so-that-there-is-much-to-tell-", i))
			if err := a.CreateExecution(t.Context(), other, benchCreate()); err != nil {
				t.Error(err)
			}
			if err := a.SetExecutionState(t.Context(), other.ID, 1, "ada"); err != nil {
				t.Error(err)
			}
		})
	}
	release()
	group.Wait()
	<-inbox
	// After the connection was lost: all are woken, for what they may have missed.
	terminate(t, url)
	<-watch
}

// terminate ends all connections of stores to a database, as a server that is restarted does.
func terminate(t testing.TB, url string) {
	t.Helper()
	postgrestest.Exec(t, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
}

func TestConnectionsThatAreLostAtAnyMomentLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s := openPostgres(t, url)
	leases := lease(t, s, "a", now, time.Hour)
	const executions, steps = 8, 60
	var unknown atomic.Int64
	committed := make(chan struct{}, executions) // bounds how many commits come between two ends of connections
	var group sync.WaitGroup
	made := make([]*store.Execution, executions)
	for i := range made {
		group.Go(func() {
			made[i] = benchExecution(fmt.Sprint("e", i))
			for {
				err := s.CreateExecution(t.Context(), made[i], benchCreate())
				if err == nil {
					break
				}
				if !errors.Is(err, aloft.ErrUnavailable) {
					t.Errorf("create: %v", err)
					return
				}
			}
			for seq := int64(1); seq <= steps; {
				step := benchStep(made[i], leases, seq)
				for n := range 5 {
					step.Nodes = append(step.Nodes, &store.Node{ID: aloft.NodeID(fmt.Sprintf("n%d-%d", seq, n)), Phase: core.NodeExecution_SUCCEEDED, Outputs: small()})
				}
				switch err := s.Commit(t.Context(), []*store.Step{step})[0]; {
				case err == nil:
					seq++
					committed <- struct{}{}
				case errors.Is(err, aloft.ErrUnavailable):
					unknown.Add(1)
				default:
					t.Errorf("commit %d: %v", seq, err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	ends := 0
	for n, ended := 1, false; !ended; n++ {
		select {
		case <-done:
			ended = true
		case <-committed:
			if n%20 == executions {
				terminate(t, url)
				ends++
			}
		}
	}
	t.Logf("connections were ended %d times; %d outcomes were unknown", ends, unknown.Load())
	if ends < 5 {
		t.Errorf("connections were ended %d times only", ends)
	}
	for _, e := range made {
		_, journal, err := storetest.Load(t.Context(), s, e.Key)
		if err != nil || len(journal) != steps {
			t.Errorf("%s has %d entries (%v), want %d", e.ID, len(journal), err, steps)
		}
		if nodes, err := s.ListNodes(t.Context(), e.ID, "", true, store.Query{}); err != nil || len(nodes) != 5*steps {
			t.Errorf("%s has %d nodes (%v), want %d", e.ID, len(nodes), err, 5*steps)
		}
	}
}

func TestAnEarlierTryThatIsStillUnderWayIsFoundByItsRepetition(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s := openPostgres(t, url)
	leases := lease(t, s, "a", now, time.Hour)
	for _, same := range []bool{true, false} {
		e := mustCreate(t, s, fmt.Sprint("e", same))
		step := benchStep(e, leases, 1)
		commitID := step.CommitID
		if !same {
			commitID = "another"
		}
		first := postgrestest.Connect(t, url)
		defer first.Close(context.Background())
		if _, err := first.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Exec(t.Context(), "INSERT INTO journal (execution, seq, commit_id, entry) VALUES ($1, 1, $2, '')", int64(e.Key), commitID); err != nil {
			t.Fatal(err)
		}
		answer := make(chan error)
		go func() { answer <- s.Commit(t.Context(), []*store.Step{step})[0] }()
		waitForLock(t, url)
		if _, err := first.Exec(t.Context(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := <-answer; same && err != nil || !same && !errors.Is(err, aloft.ErrConflict) {
			t.Errorf("the entry that came first had the same commit id: %t; the answer is %v", same, err)
		}
	}
}

// waitForLock returns when a transaction waits for a lock in the database.
func waitForLock(t testing.TB, url string) {
	t.Helper()
	conn := postgrestest.Connect(t, url)
	defer conn.Close(context.Background())
	for n := 0; n == 0; {
		if err := conn.QueryRow(t.Context(), "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAMessageForAnExecutionThatEndsIsRefusedAndNotForgotten(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	a, b := openPostgres(t, url), openPostgres(t, url)
	leases := lease(t, a, "a", now, time.Hour)
	const executions = 40
	var refused, accepted atomic.Int64
	for i := range executions {
		e := mustCreate(t, a, fmt.Sprint("e", i))
		end := benchStep(e, leases, 1)
		end.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_SUCCEEDED, EndedAt: now, UpdatedAt: now}
		var group sync.WaitGroup
		group.Go(func() {
			switch err := b.Append(t.Context(), e.ID, store.Message{Dedup: "x", Inbox: &aloftv1.Inbox{}}); {
			case err == nil:
				accepted.Add(1)
			case errors.Is(err, aloft.ErrPrecondition):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
		group.Go(func() {
			if err := a.Commit(t.Context(), []*store.Step{end})[0]; err != nil {
				t.Error(err)
			}
		})
		group.Wait()
	}
	all := make([]int, store.Shards)
	for i := range all {
		all[i] = i
	}
	rows, err := a.Inbox(t.Context(), all, 0, 0)
	if err != nil || len(rows) != 0 {
		t.Errorf("%d messages are left to executions that have ended (%v)", len(rows), err)
	}
	t.Logf("%d came before the end, %d after", accepted.Load(), refused.Load())
}

// The termination is in a transaction that has not been committed when the step looks.
func TestATerminationThatIsUnderWayIsNotOvertakenByTheEnd(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s := openPostgres(t, url)
	leases := lease(t, s, "a", now, time.Hour)
	e := mustCreate(t, s, "e")
	client := postgrestest.Connect(t, url)
	defer client.Close(context.Background())
	for _, statement := range []string{
		"BEGIN",
		fmt.Sprintf("SELECT 1 FROM executions WHERE number = %d FOR KEY SHARE", e.Key),
		fmt.Sprintf("INSERT INTO inbox (execution, shard, dedup, message) VALUES (%d, %d, '%s', '')", e.Key, e.Shard, store.TerminateDedup),
	} {
		if _, err := client.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	end := benchStep(e, leases, 1)
	end.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_SUCCEEDED, EndedAt: now, UpdatedAt: now}
	answer := make(chan error)
	go func() { answer <- s.Commit(t.Context(), []*store.Step{end})[0] }()
	waitForLock(t, url)
	if _, err := client.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; !errors.Is(err, aloft.ErrConflict) {
		t.Errorf("an end that overtakes an acknowledged termination: %v", err)
	}
}

func TestTextThatPostgreSQLCannotHoldDoesNotStopTheRun(t *testing.T) {
	t.Parallel()
	s := openPostgres(t, postgrestest.Database(t))
	leases := lease(t, s, "a", now, time.Hour)
	e := mustCreate(t, s, "e")
	step := benchStep(e, leases, 1)
	step.Waiting = "a\x00b\xffc"
	if err := s.Commit(t.Context(), []*store.Step{step})[0]; err != nil {
		t.Fatal(err)
	}
	if got, err := s.GetExecution(t.Context(), e.ID); err != nil || got.Waiting != "a\uFFFDb\uFFFDc" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestServersThatStartAtOnceMigrateOnce(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			s, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestActivationsAtOnceLeaveOneActive(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	a, b := openPostgres(t, url), openPostgres(t, url)
	version := func(v string) *core.Identifier {
		return &core.Identifier{ResourceType: core.ResourceType_LAUNCH_PLAN, Project: "flytesnacks", Domain: "development", Name: "wf", Version: v}
	}
	for _, v := range []string{"v1", "v2", "v3"} {
		if err := a.CreateLaunchPlan(t.Context(), &store.LaunchPlan{ID: version(v), CreatedAt: now}); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for i := range 30 {
		s := []*sqlstore.Store{a, b}[i%2]
		group.Go(func() {
			if err := s.SetLaunchPlanState(t.Context(), version(fmt.Sprintf("v%d", i%3+1)), admin.LaunchPlanState_ACTIVE, now); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if _, err := b.GetActiveLaunchPlan(t.Context(), "flytesnacks", "development", "wf"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongWithADatabaseSaysTheWayOut(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	missing := strings.Replace(url, "aloft_test_", "no_such_", 1)
	for name, test := range map[string]struct{ url, want string }{
		"no database": {missing, "the database server has no such database: create it"},
		"no server":   {"postgres://me:geheim@127.0.0.1:1/aloft", "the database server cannot be reached: start it, or check host and port"},
		"no user":     {withUser(url, "nobody_here"), "does not accept the user or the password"},
	} {
		_, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: test.url})
		if !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), test.want) || strings.Contains(fmt.Sprint(err), "geheim") {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		}
	}
}

func withUser(url, user string) string {
	if strings.Contains(url, "user=") {
		before, _, _ := strings.Cut(url, "user=")
		return before + "user=" + user
	}
	_, after, _ := strings.Cut(url, "@")
	return "postgres://" + user + "@" + after
}

const pausedVariable = "ALOFT_TEST_SQLSTORE_PAUSED"

// paused is a server that is stopped while it has a lease, and commits late.
func paused(url string) error {
	ctx := context.Background()
	s, err := sqlstore.Open(ctx, sqlstore.Options{URL: url})
	if err != nil {
		return err
	}
	leases, err := s.AcquireShards(ctx, "paused", now, time.Second)
	if err != nil {
		return err
	}
	e := benchExecution("e")
	if err := s.CreateExecution(ctx, e, benchCreate()); err != nil {
		return err
	}
	if err := s.Commit(ctx, []*store.Step{benchStep(e, leases, 1)})[0]; err != nil {
		return err
	}
	fmt.Println("committed")
	if _, err := io.ReadAll(os.Stdin); err != nil {
		return err
	}
	err = s.Commit(ctx, []*store.Step{benchStep(e, leases, 2)})[0]
	if errors.Is(err, aloft.ErrFenced) {
		fmt.Println("refused")
	}
	return fmt.Errorf("the late commit: %w", err)
}

func TestALateCommitOfAServerThatWasPausedIsRefused(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), pausedVariable+"="+url)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "committed" {
		t.Fatalf("the other server said %q", lines.Text())
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s := openPostgres(t, url)
	var leases []store.Lease
	for len(leases) < store.Shards { // until its lease has run out
		leases = lease(t, s, "heir", now, time.Hour)
	}
	e, err := s.GetExecution(t.Context(), benchExecution("e").ID)
	if err != nil {
		t.Fatal(err)
	}
	step := benchStep(e, leases, 2)
	step.CommitID = "the heir's"
	if err := s.Commit(t.Context(), []*store.Step{step})[0]; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGCONT), in.Close()); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "refused" {
		t.Errorf("the late commit was not refused: %q", lines.Text())
	}
	_ = cmd.Wait()
	if _, journal, err := storetest.Load(t.Context(), s, e.Key); err != nil || len(journal) != 2 {
		t.Errorf("the journal has %d entries (%v), want 2", len(journal), err)
	}
}

// Rows travel in the form of their table, which a server of a later release may extend while this one runs.
func TestAColumnThatALaterReleaseAddsStopsNobodyForLong(t *testing.T) {
	t.Parallel()
	url := postgrestest.Database(t)
	s := openPostgres(t, url)
	leases := lease(t, s, "a", now, time.Hour)
	e := mustCreate(t, s, "e")
	node := func(seq int64) *store.Step {
		step := benchStep(e, leases, seq)
		step.Nodes = []*store.Node{{ID: aloft.NodeID(fmt.Sprint("n", seq)), Phase: core.NodeExecution_SUCCEEDED, Outputs: small()}}
		return step
	}
	if err := s.Commit(t.Context(), []*store.Step{node(1)})[0]; err != nil {
		t.Fatal(err)
	}
	for i, change := range []string{"ADD COLUMN later BIGINT", "DROP COLUMN later"} {
		postgrestest.Exec(t, url, "ALTER TABLE nodes "+change)
		step := node(int64(i + 2))
		for try := 1; ; try++ {
			err := s.Commit(t.Context(), []*store.Step{step})[0]
			if err == nil {
				break
			}
			if !errors.Is(err, aloft.ErrUnavailable) || try == 2 {
				t.Fatalf("after %s, try %d: %v", change, try, err)
			}
		}
	}
	if nodes, err := s.ListNodes(t.Context(), e.ID, "", true, store.Query{}); err != nil || len(nodes) != 3 {
		t.Errorf("got %d nodes, %v, want 3", len(nodes), err)
	}
}
