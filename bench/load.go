package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// loadResult is the result of createMany.
type loadResult struct {
	created, failed, completed int
	perSecond                  float64       // creations acknowledged
	first                      error         // error of the first call that failed
	creating, completing       time.Duration // from the first creation to the last acknowledgement, and to the last end
}

// createMany has clients, each with a connection of its own, create executions of one node until there are n.
func createMany(ctx context.Context, addr string, clients, n int) (loadResult, error) {
	conn, err := dial(addr)
	if err != nil {
		return loadResult{}, err
	}
	defer func() { _ = conn.Close() }()
	api := service.NewAdminServiceClient(conn)
	plan, err := registerSleep(ctx, api, 0)
	if err != nil {
		return loadResult{}, err
	}
	var (
		next, failed atomic.Int64
		first        atomic.Pointer[error]
		all          sync.WaitGroup
		result       loadResult
	)
	began := time.Now()
	prefix := fmt.Sprintf("l%x", began.UnixNano())
	for range clients {
		own, err := dial(addr)
		if err != nil {
			return loadResult{}, err
		}
		defer func() { _ = own.Close() }()
		client := service.NewAdminServiceClient(own)
		all.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				_, err := client.CreateExecution(ctx, &admin.ExecutionCreateRequest{
					Project: "flytesnacks", Domain: "development", Name: fmt.Sprintf("%s-%d", prefix, i), Inputs: &core.LiteralMap{},
					Spec: &admin.ExecutionSpec{LaunchPlan: plan, Metadata: &admin.ExecutionMetadata{}},
				})
				if err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	result.creating = time.Since(began)
	result.failed = int(failed.Load())
	result.created = n - result.failed
	result.perSecond = float64(result.created) / result.creating.Seconds()
	if err := first.Load(); err != nil {
		result.first = *err
	}
	for i := 1; i <= n; i++ {
		for {
			e, err := api.GetExecution(ctx, &admin.WorkflowExecutionGetRequest{Id: &core.WorkflowExecutionIdentifier{
				Project: "flytesnacks", Domain: "development", Name: fmt.Sprintf("%s-%d", prefix, i)}})
			if err != nil {
				break // the execution was not created
			}
			if phase := e.GetClosure().GetPhase(); aloft.Terminal(phase) {
				if phase == core.WorkflowExecution_SUCCEEDED {
					result.completed++
				}
				break
			}
			select {
			case <-ctx.Done():
				return result, ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	result.completing = time.Since(began)
	return result, nil
}

// registerSleep registers a workflow of one node that the engine runs by itself and that lasts for d, and its launch plan.
func registerSleep(ctx context.Context, api service.AdminServiceClient, d time.Duration) (*core.Identifier, error) {
	version := fmt.Sprintf("%x", time.Now().UnixNano())
	id := func(kind core.ResourceType) *core.Identifier {
		return &core.Identifier{ResourceType: kind, Project: "flytesnacks", Domain: "development", Name: "bench.load", Version: version}
	}
	task, workflow, plan := id(core.ResourceType_TASK), id(core.ResourceType_WORKFLOW), id(core.ResourceType_LAUNCH_PLAN)
	duration := &core.LiteralType{Type: &core.LiteralType_Simple{Simple: core.SimpleType_DURATION}}
	if _, err := api.CreateTask(ctx, &admin.TaskCreateRequest{Id: task, Spec: &admin.TaskSpec{Template: &core.TaskTemplate{
		Id: task, Type: "core-sleep",
		Metadata:  &core.TaskMetadata{Runtime: &core.RuntimeMetadata{Type: core.RuntimeMetadata_FLYTE_SDK, Version: "1.16.0", Flavor: "python"}},
		Interface: &core.TypedInterface{Inputs: &core.VariableMap{Variables: map[string]*core.Variable{"duration": {Type: duration}}}},
	}}}); err != nil {
		return nil, fmt.Errorf("register task: %w", err)
	}
	lasts := &core.BindingData{Value: &core.BindingData_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{
		Primitive: &core.Primitive{Value: &core.Primitive_Duration{Duration: durationpb.New(d)}}}}}}
	if _, err := api.CreateWorkflow(ctx, &admin.WorkflowCreateRequest{Id: workflow, Spec: &admin.WorkflowSpec{Template: &core.WorkflowTemplate{
		Id: workflow, Interface: &core.TypedInterface{}, Metadata: &core.WorkflowMetadata{},
		Nodes: []*core.Node{{
			Id: "n0", Metadata: &core.NodeMetadata{Name: "n0"}, Inputs: []*core.Binding{{Var: "duration", Binding: lasts}},
			Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: task}}},
		}},
	}}}); err != nil {
		return nil, fmt.Errorf("register workflow: %w", err)
	}
	if _, err := api.CreateLaunchPlan(ctx, &admin.LaunchPlanCreateRequest{Id: plan, Spec: &admin.LaunchPlanSpec{
		WorkflowId: workflow, FixedInputs: &core.LiteralMap{}, DefaultInputs: &core.ParameterMap{},
	}}); err != nil {
		return nil, fmt.Errorf("register launch plan: %w", err)
	}
	return plan, nil
}

// freeAddress is an address on which no program listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
