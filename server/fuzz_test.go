package server

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

// raw sends bytes as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// FuzzRequest sends any bytes to any call of the served services: no panic, which would be INTERNAL, and no UNKNOWN.
func FuzzRequest(f *testing.F) {
	var methods []string
	for _, s := range []*grpc.ServiceDesc{&service.AdminService_ServiceDesc, &service.DataProxyService_ServiceDesc} {
		for _, m := range s.Methods {
			methods = append(methods, "/"+s.ServiceName+"/"+m.MethodName)
		}
	}
	seed := func(method string, m proto.Message) {
		content, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for i, name := range methods {
			if name == "/flyteidl.service."+method {
				f.Add(uint8(i), content)
				f.Add(uint8(i), content[:len(content)/2])
			}
		}
	}
	e := &core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: "none"}
	where := &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}
	seed("AdminService/CreateTask", echoTask("fuzz"))
	seed("AdminService/CreateWorkflow", chain("fuzz", "fuzz", 2))
	seed("AdminService/CreateLaunchPlan", launchPlan("fuzz", "fuzz"))
	seed("AdminService/CreateExecution", execute(id(core.ResourceType_LAUNCH_PLAN, "fuzz"), map[string]*core.Literal{"x": integer(1)}))
	seed("AdminService/CreateExecution", execute(id(core.ResourceType_TASK, "fuzz"), nil))
	seed("AdminService/GetExecution", &admin.WorkflowExecutionGetRequest{Id: e})
	seed("AdminService/ListExecutions", &admin.ResourceListRequest{Id: where, Limit: 1, Filters: "eq(phase,SUCCEEDED)+gt(duration,1s)", SortBy: &admin.Sort{Key: "created_at"}})
	seed("AdminService/ListTasks", &admin.ResourceListRequest{Id: where, Limit: 1, Token: "1", Filters: "value_in(name,a;b)"})
	seed("AdminService/ListNodeExecutions", &admin.NodeExecutionListRequest{WorkflowExecutionId: e, Limit: 1, UniqueParentId: "n0"})
	seed("AdminService/UpdateProject", &admin.Project{Id: "flytesnacks", State: 1})
	seed("AdminService/RegisterProject", &admin.ProjectRegisterRequest{Project: &admin.Project{Id: "p", Name: "p"}})
	name := &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development", Name: "fuzz"}
	seed("AdminService/ListNamedEntities", &admin.NamedEntityListRequest{ResourceType: 2, Project: "flytesnacks", Domain: "development", Limit: 1, Filters: "eq(state,0)", SortBy: &admin.Sort{Key: "name"}})
	seed("AdminService/UpdateNamedEntity", &admin.NamedEntityUpdateRequest{ResourceType: 1, Id: name, Metadata: &admin.NamedEntityMetadata{Description: "d", State: 1}})
	seed("AdminService/UpdateLaunchPlan", &admin.LaunchPlanUpdateRequest{Id: id(0, "fuzz"), State: 1})
	seed("DataProxyService/CreateUploadLocation", &service.CreateUploadLocationRequest{Project: "flytesnacks", Domain: "development", Filename: "a", FilenameRoot: "b", ContentMd5: make([]byte, 16)})
	seed("DataProxyService/GetData", &service.GetDataRequest{FlyteUrl: "flyte://v1/p/d/e/n/0/o/x"})
	seed("DataProxyService/CreateDownloadLocation", &service.CreateDownloadLocationRequest{NativeUrl: "aloft://blob/a/../b"})

	server, err := Start(f.Context(), testConfig(f.TempDir()), Options{}) // one for all inputs of this process
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = server.Close() })
	conn, err := grpc.NewClient(server.Address, grpc.WithTransportCredentials(insecureCredentials))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close() })
	client := service.NewAdminServiceClient(conn)
	if _, err := client.CreateTask(f.Context(), echoTask("fuzz")); err != nil {
		f.Fatal(err)
	}
	if _, err := client.CreateWorkflow(f.Context(), chain("fuzz", "fuzz", 2)); err != nil {
		f.Fatal(err)
	}
	if _, err := client.CreateLaunchPlan(f.Context(), launchPlan("fuzz", "fuzz")); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method uint8, content []byte) {
		name := methods[int(method)%len(methods)]
		var answer []byte
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // no request may take so long: it is a hang
		defer cancel()
		err := conn.Invoke(ctx, name, content, &answer, grpc.ForceCodecV2(raw{}))
		switch status.Code(err) {
		case codes.Internal, codes.Unknown, codes.DataLoss, codes.DeadlineExceeded:
			t.Errorf("%s: %v", name, err)
		}
	})
}
