package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

// recover measures how soon a recovery starts the nodes that failed: 37 of 10,000.
func (b *bench) recover(ctx context.Context) error {
	const nodes, failures = 10_000, 37
	s, err := b.serve(ctx, b.data("recover"))
	if err != nil {
		return err
	}
	defer func() { _ = s.stop() }()
	conn, err := dial(s.addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	api := service.NewAdminServiceClient(conn)
	fixed := filepath.Join(b.dir, "fixed")
	plan, err := registerFragile(ctx, api, nodes, failures, fixed)
	if err != nil {
		return err
	}
	var all, used []float64
	for range b.repeat(5) {
		_ = os.Remove(fixed)
		made, err := api.CreateExecution(ctx, &admin.ExecutionCreateRequest{Project: "flytesnacks", Domain: "development",
			Spec: &admin.ExecutionSpec{LaunchPlan: plan, MaxParallelism: -1}, Inputs: &core.LiteralMap{Literals: map[string]*core.Literal{"x": text("value")}}})
		if err != nil {
			return err
		}
		if _, err := s.watch(ctx, api, made.GetId(), core.WorkflowExecution_FAILED); err != nil {
			return err
		}
		if err := os.WriteFile(fixed, nil, 0o644); err != nil {
			return err
		}
		before, err := s.processorTime()
		if err != nil {
			return err
		}
		began := time.Now()
		recovered, err := api.RecoverExecution(ctx, &admin.ExecutionRecoverRequest{Id: made.GetId()})
		if err != nil {
			return err
		}
		statuses, err := s.watch(ctx, api, recovered.GetId(), core.WorkflowExecution_SUCCEEDED)
		if err != nil {
			return err
		}
		after, err := s.processorTime()
		if err != nil {
			return err
		}
		used = append(used, float64((after-before)/time.Millisecond))
		attempts, taken, last := 0, 0, time.Time{}
		for _, n := range statuses {
			if n.GetPhase() == core.NodeExecution_RECOVERED {
				taken++
			}
			for _, a := range n.GetAttempts() {
				attempts++
				if at := a.GetCreatedAt().AsTime(); at.After(last) {
					last = at
				}
			}
		}
		if attempts != failures || taken != nodes-failures {
			return fmt.Errorf("the recovery had %d attempts and took over %d nodes, want %d and %d", attempts, taken, failures, nodes-failures)
		}
		all = append(all, last.Sub(began).Seconds()*1000)
	}
	ms := median(all)
	b.add("recovery of 10,000 nodes of which 37 failed, call → the 37 are scheduled", fmt.Sprintf("%.0f ms", ms), "≤ 1,000 ms", ms <= 1000, "")
	b.add("… CPU of the server for all of it", fmt.Sprintf("%.0f ms", median(used)), "", true, "")
	return nil
}

func text(s string) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}}}}}}
}

// registerFragile registers a workflow of n nodes. Some of them, failures in number, are processes that fail until a file
// exists; the engine itself runs the others.
func registerFragile(ctx context.Context, api service.AdminServiceClient, n, failures int, file string) (*core.Identifier, error) {
	version := fmt.Sprintf("%x", time.Now().UnixNano())
	id := func(kind core.ResourceType, name string) *core.Identifier {
		return &core.Identifier{ResourceType: kind, Project: "flytesnacks", Domain: "development", Name: name, Version: version}
	}
	types := func(name string) *core.VariableMap {
		return &core.VariableMap{Variables: map[string]*core.Variable{name: {Type: &core.LiteralType{Type: &core.LiteralType_Simple{Simple: core.SimpleType_STRING}}}}}
	}
	echo := &core.TaskTemplate{Id: id(core.ResourceType_TASK, "bench.echo"), Type: "echo", Metadata: &core.TaskMetadata{},
		Interface: &core.TypedInterface{Inputs: types("x"), Outputs: types("o0")}}
	fragile := &core.TaskTemplate{Id: id(core.ResourceType_TASK, "bench.fragile"), Type: "container", Metadata: &core.TaskMetadata{}, Interface: &core.TypedInterface{},
		Target: &core.TaskTemplate_Container{Container: &core.Container{Image: "none", Command: []string{"/bin/sh", "-c", "test -e " + file}}}}
	for _, t := range []*core.TaskTemplate{echo, fragile} {
		if _, err := api.CreateTask(ctx, &admin.TaskCreateRequest{Id: t.GetId(), Spec: &admin.TaskSpec{Template: t}}); err != nil {
			return nil, fmt.Errorf("register task: %w", err)
		}
	}
	w := &core.WorkflowTemplate{Id: id(core.ResourceType_WORKFLOW, "bench.recover"), Interface: &core.TypedInterface{Inputs: types("x")},
		Metadata: &core.WorkflowMetadata{OnFailure: core.WorkflowMetadata_FAIL_AFTER_EXECUTABLE_NODES_COMPLETE}}
	bound := []*core.Binding{{Var: "x", Binding: &core.BindingData{Value: &core.BindingData_Promise{Promise: &core.OutputReference{Var: "x"}}}}}
	for i := range n {
		task, inputs := echo.GetId(), bound
		if i%(n/failures) == 0 && i/(n/failures) < failures { // spread over the graph
			task, inputs = fragile.GetId(), nil
		}
		name := fmt.Sprintf("n%d", i)
		w.Nodes = append(w.Nodes, &core.Node{Id: name, Metadata: &core.NodeMetadata{Name: name}, Inputs: inputs,
			Target: &core.Node_TaskNode{TaskNode: &core.TaskNode{Reference: &core.TaskNode_ReferenceId{ReferenceId: task}}}})
	}
	if _, err := api.CreateWorkflow(ctx, &admin.WorkflowCreateRequest{Id: w.GetId(), Spec: &admin.WorkflowSpec{Template: w}}); err != nil {
		return nil, fmt.Errorf("register workflow: %w", err)
	}
	plan := id(core.ResourceType_LAUNCH_PLAN, "bench.recover")
	if _, err := api.CreateLaunchPlan(ctx, &admin.LaunchPlanCreateRequest{Id: plan, Spec: &admin.LaunchPlanSpec{WorkflowId: w.GetId()}}); err != nil {
		return nil, fmt.Errorf("register launch plan: %w", err)
	}
	return plan, nil
}

// watch waits for the end of an execution and returns its nodes with their attempts.
func (s *server) watch(ctx context.Context, api service.AdminServiceClient, id *core.WorkflowExecutionIdentifier, want core.WorkflowExecution_Phase) ([]*aloftv1.NodeStatus, error) {
	for {
		e, err := api.GetExecution(ctx, &admin.WorkflowExecutionGetRequest{Id: id})
		if err != nil {
			return nil, err
		}
		phase := e.GetClosure().GetPhase()
		if phase == want {
			break
		}
		if aloft.Terminal(phase) {
			return nil, fmt.Errorf("execution %s ended %s, want %s: %v", id.GetName(), phase, want, e.GetClosure().GetError())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	runs := aloftv1connect.NewRunServiceClient(&http.Client{Transport: transport}, "http://"+s.addr, connect.WithGRPC(), connect.WithReadMaxBytes(aloft.MaxMessageBytes))
	stream, err := runs.WatchExecution(ctx, &aloftv1.WatchExecutionRequest{Id: id, Once: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	if !stream.Receive() {
		return nil, stream.Err()
	}
	return stream.Msg().GetNodes(), nil
}

// processorTime is the processor time that the server has used so far.
func (s *server) processorTime() (time.Duration, error) {
	content, err := os.ReadFile("/proc/" + s.pid() + "/stat")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(content), ") ") // the name of the program may have blanks
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%s/stat is %q", s.pid(), content)
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, nil // in hundredths of a second
}
