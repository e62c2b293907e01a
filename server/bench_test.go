package server

import (
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

// BenchmarkCreateExecution creates executions of one node from 64 clients, each on a connection of its own, and ends when
// all have ended.
func BenchmarkCreateExecution(b *testing.B) {
	const clients = 64
	s, err := Start(b.Context(), testConfig(b.TempDir()), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	admins := make([]service.AdminServiceClient, clients)
	for i := range admins {
		conn, err := grpc.NewClient(s.Address, grpc.WithTransportCredentials(insecureCredentials))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		admins[i] = service.NewAdminServiceClient(conn)
	}
	if _, err := admins[0].CreateTask(b.Context(), echoTask("one")); err != nil {
		b.Fatal(err)
	}
	if _, err := admins[0].CreateWorkflow(b.Context(), chain("one", "one", 1)); err != nil {
		b.Fatal(err)
	}
	if _, err := admins[0].CreateLaunchPlan(b.Context(), launchPlan("one", "one")); err != nil {
		b.Fatal(err)
	}
	wake, cancel := s.store.Subscribe("inbox")
	defer cancel()
	b.ResetTimer()
	var next atomic.Int64
	var all sync.WaitGroup
	for _, admin := range admins {
		all.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if _, err := admin.CreateExecution(b.Context(), execute(id(core.ResourceType_LAUNCH_PLAN, "one"), map[string]*core.Literal{"x": integer(1)})); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "created/s")
	for {
		counts, err := s.store.Counts(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if counts.Running == 0 {
			break
		}
		select {
		case <-wake:
		default:
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "completed/s")
}
