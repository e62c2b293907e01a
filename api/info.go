package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
)

// Info serves aloft.v1.ServerService: the state of a server, for the people who run it (aloft doctor).
type Info struct {
	Store interface {
		Instances(ctx context.Context) ([]store.Instance, error)
		Counts(ctx context.Context) (store.Counts, error)
		Stuck(ctx context.Context, limit int) ([]aloft.ExecutionID, error)
		Waits(ctx context.Context, limit int) ([]store.Wait, error)
	}
	Version, DataDir, Database, Listen          string
	StartedAt                                   time.Time
	TaskTimeout, QueueTimeout, ExecutionTimeout time.Duration                                       // 0: none
	Room                                        func() (running, waiting int64)                     // attempts of this server's executor
	Environments                                func() []*aloftv1.EnvironmentInfo                   // environments that tasks have used so far
	Python                                      func(context.Context) (interpreter, problem string) // for tasks to come; both empty: it depends on the image
	Away                                        func() []store.Service                              // services that are away; nil: none ever
	StoreMounts                                 func() string                                       // "yes" if stored objects are read-only for tasks, else why not
	Remains                                     func(context.Context) []string                      // leftovers of attempts that have ended; nil: no executor
	Now                                         func() time.Time                                    // clock of the health monitor that Away asks; nil: time.Now
}

// stuckLimit is how many stuck executions are counted; one is already too many.
const stuckLimit = 1000

// waitsLimit is how many waiting executions are named; all are counted.
const waitsLimit = 10

// GetServerInfo gives the version of the server, its settings, its state, and the services that are away.
func (i *Info) GetServerInfo(ctx context.Context, _ *aloftv1.GetServerInfoRequest) (*aloftv1.GetServerInfoResponse, error) {
	answer := &aloftv1.GetServerInfoResponse{
		Version: i.Version, DataDir: i.DataDir, Database: i.Database, Listen: i.Listen, StartedAt: timestamppb.New(i.StartedAt),
		Environments: i.Environments(),
	}
	now := i.now()
	for _, s := range awayServices(i.Away, now) {
		answer.Away = append(answer.Away, &aloftv1.ServiceInfo{Name: s.Name, AwaySince: stamp(s.AwaySince), Reason: s.Reason, ProbeAt: stamp(s.ProbeAt)})
	}
	// A database that is away is among the things that this call reports, so the call does not fail with it.
	if err := i.count(ctx, answer); errors.Is(err, aloft.ErrUnavailable) && ctx.Err() == nil {
		if !slices.ContainsFunc(answer.Away, func(s *aloftv1.ServiceInfo) bool { return s.GetName() == aloft.ServiceDatabase }) {
			answer.Away = append(answer.Away, &aloftv1.ServiceInfo{Name: aloft.ServiceDatabase, AwaySince: timestamppb.New(now), Reason: err.Error(), ProbeAt: timestamppb.New(now)})
		}
	} else if err != nil {
		return nil, err
	}
	if i.StoreMounts != nil {
		answer.StoreMounts = i.StoreMounts()
	}
	if i.Remains != nil {
		answer.Remains = i.Remains(ctx)
	}
	if len(answer.Environments) == 0 && i.Python != nil {
		answer.Python, answer.PythonProblem = i.Python(ctx)
	}
	answer.TaskTimeout, answer.QueueTimeout, answer.ExecutionTimeout = span(i.TaskTimeout), span(i.QueueTimeout), span(i.ExecutionTimeout)
	return answer, nil
}

func (i *Info) now() time.Time {
	if i.Now == nil {
		return time.Now()
	}
	return i.Now()
}

// countTimeout is how long the database may take: a user of aloft doctor does not wait for long.
const countTimeout = 10 * time.Second

// count adds the counts and lists from the database: all of them, or none if it returns an error.
func (i *Info) count(ctx context.Context, answer *aloftv1.GetServerInfoResponse) error {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	counts, err := i.Store.Counts(ctx)
	if err != nil {
		return fmt.Errorf("count executions: %w", err)
	}
	stuck, err := i.Store.Stuck(ctx, stuckLimit)
	if err != nil {
		return fmt.Errorf("look for stuck executions: %w", err)
	}
	waits, err := i.Store.Waits(ctx, waitsLimit)
	if err != nil {
		return fmt.Errorf("look for executions that wait: %w", err)
	}
	instances, err := i.Store.Instances(ctx)
	if err != nil {
		return fmt.Errorf("list executors: %w", err)
	}
	answer.Counts = &aloftv1.StoreCounts{Executions: counts.Executions, Running: counts.Running, Stuck: int64(len(stuck)),
		Waiting: counts.Waiting, Waits: counts.Waits}
	for _, w := range waits {
		answer.Waits = append(answer.Waits, &aloftv1.WaitInfo{Id: w.Execution.Proto(), Waits: int64(w.Waits), Reason: w.Reason})
	}
	running, waiting := i.Room()
	for _, e := range instances {
		answer.Executors = append(answer.Executors, &aloftv1.ExecutorInfo{Id: e.ID, Kind: e.Kind, Cpu: float64(e.MilliCPU) / 1000, Memory: e.Memory,
			Slots: e.Slots, Running: running, Waiting: waiting})
	}
	return nil
}

// probeExpiry is how old the probe of a service that is away may be. After that the service is left out, because the server that
// probed it is gone.
const probeExpiry = 10 * time.Minute

// awayServices are the services that are away and were probed lately.
func awayServices(of func() []store.Service, now time.Time) []store.Service {
	if of == nil {
		return nil
	}
	return slices.DeleteFunc(of(), func(s store.Service) bool { return now.Sub(s.ProbeAt) > probeExpiry })
}

// span is nil for 0, which means that there is no limit.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
