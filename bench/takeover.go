package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

// postgres starts a PostgreSQL server with its own, durable settings.
func (b *bench) postgres(ctx context.Context) (url string, stop func(), err error) {
	script := func(ctx context.Context, args ...string) ([]byte, error) {
		command := exec.CommandContext(ctx, "test/postgres.sh", args...)
		command.Env = append(os.Environ(), "ALOFT_POSTGRES_DIR="+b.data("postgres"))
		return command.Output()
	}
	out, err := script(ctx, "start", "durable")
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", nil, fmt.Errorf("start PostgreSQL (`make postgres` installs one): %w", err)
	}
	return strings.TrimSpace(string(out)), func() { _, _ = script(context.WithoutCancel(ctx), "stop") }, nil
}

// The length of a server's lease, and how long the tasks of the executions last: all of them end before the lease of the killed
// server has run out.
const (
	leaseTime = 10 * time.Second
	taskTime  = 7 * time.Second
)

// takeover kills one of two servers on one database that have 1,000 sleeping executions each. All tasks end while the
// executions of the killed server have no owner; these executions end as soon as the other server takes them over.
func (b *bench) takeover(ctx context.Context) error {
	url, stopDatabase, err := b.postgres(ctx)
	if err != nil {
		return err
	}
	defer stopDatabase()
	blobs := b.data("takeover-blob")
	var servers []*server
	for i := range 2 {
		data := b.data(fmt.Sprintf("takeover%d", i))
		if err := errors.Join(os.MkdirAll(data, 0o700), os.MkdirAll(blobs, 0o700), os.Symlink(blobs, filepath.Join(data, "blob"))); err != nil {
			return err
		}
		s, err := b.serve(ctx, data, "--database", url)
		if err != nil {
			return err
		}
		defer func() { _ = s.stop() }()
		servers = append(servers, s)
	}
	var worst time.Duration
	var counts []int
	for range b.repeat(10)/3 + 1 {
		n, took, err := b.takeOver(ctx, servers)
		if err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, servers[0].stderr, servers[1].stderr)
		}
		worst, counts = max(worst, took), append(counts, n)
		// The killed server is started again on its data folder, and gets its share of the executions.
		again, err := b.serve(ctx, b.data("takeover0"), "--database", url)
		if err != nil {
			return err
		}
		defer func() { _ = again.stop() }()
		servers[0] = again
	}
	b.add(fmt.Sprintf("takeover of a killed server's %v executions, the slowest", counts), fmt.Sprintf("%.1f s", worst.Seconds()), "≤ lease (10 s) + 2 s",
		worst <= leaseTime+2*time.Second, "")
	return nil
}

// takeOver kills the first server. It returns how many executions that server had, and after how long all of them had gone on.
func (b *bench) takeOver(ctx context.Context, servers []*server) (n int, took time.Duration, err error) {
	const each = 1000
	// After a renewal of leases by the first server and one by the second, both have their share of the shards.
	time.Sleep(leaseTime/3 + leaseTime/10)
	conn, err := dial(servers[1].addr)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close() }()
	api := service.NewAdminServiceClient(conn)
	plan, err := registerSleep(ctx, api, taskTime)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	prefix := fmt.Sprintf("t%x", began.UnixNano())
	var all sync.WaitGroup
	failures := make(chan error, 2*each)
	for client := range 16 {
		own, err := dial(servers[client%2].addr)
		if err != nil {
			return 0, 0, err
		}
		defer func() { _ = own.Close() }()
		all.Go(func() {
			for i := client; i < 2*each; i += 16 {
				if _, err := service.NewAdminServiceClient(own).CreateExecution(ctx, &admin.ExecutionCreateRequest{
					Project: "flytesnacks", Domain: "development", Name: fmt.Sprintf("%s-%d", prefix, i), Inputs: &core.LiteralMap{},
					Spec: &admin.ExecutionSpec{LaunchPlan: plan, Metadata: &admin.ExecutionMetadata{}},
				}); err != nil {
					failures <- err
				}
			}
		})
	}
	all.Wait()
	if len(failures) > 0 {
		return 0, 0, fmt.Errorf("create execution: %w", <-failures)
	}
	list := func(filter string, limit uint32) (int, error) {
		answer, err := api.ListExecutions(ctx, &admin.ResourceListRequest{
			Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}, Limit: limit, Filters: filter,
		})
		return len(answer.GetExecutions()), err
	}
	for running := 0; running < 2*each; { // until all executions have begun
		if running, err = list("eq(phase,RUNNING)", 2*each); err != nil {
			return 0, 0, err
		}
		if time.Since(began) > taskTime {
			return 0, 0, errors.New("the first executions have ended before the last have begun")
		}
	}
	killed := time.Now()
	if err := servers[0].process.Process.Kill(); err != nil {
		return 0, 0, err
	}
	_ = servers[0].process.Wait()
	// Until then the executions of the other server have ended by themselves.
	for time.Since(killed) < taskTime+500*time.Millisecond {
		time.Sleep(10 * time.Millisecond)
	}
	if n, err = list("ne(phase,SUCCEEDED)", 2*each); err != nil {
		return 0, 0, err
	}
	for time.Since(killed) < 10*leaseTime {
		left, err := list("ne(phase,SUCCEEDED)", 1)
		if err != nil {
			return n, 0, err
		}
		if left == 0 {
			return n, time.Since(killed), nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return n, 0, fmt.Errorf("the executions of the killed server do not go on")
}
