package server

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// checkIntact fails unless the server still works and has given back the room of the requests that it refused.
func (s *testServer) checkIntact() {
	s.t.Helper()
	where := &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development"}
	tasks, err := s.admin.ListTasks(s.t.Context(), &admin.ResourceListRequest{Id: where, Limit: 100})
	if err != nil || len(tasks.GetTasks()) != 0 {
		s.t.Errorf("a refused task is there: %v, %v", tasks, err)
	}
	executions, err := s.admin.ListExecutions(s.t.Context(), &admin.ResourceListRequest{Id: where, Limit: 100})
	if err != nil || len(executions.GetExecutions()) != 0 {
		s.t.Errorf("a refused execution is there: %v, %v", executions, err)
	}
	s.registerChain("intact", 2)
	e := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "intact"), map[string]*core.Literal{"x": integer(1)}))
	if got := s.wait(e).GetClosure().GetPhase(); got != core.WorkflowExecution_SUCCEEDED {
		s.t.Errorf("a good execution ended %s", got)
	}
	if stuck, err := s.store.Stuck(s.t.Context(), 0); err != nil || len(stuck) > 0 {
		s.t.Errorf("stuck: %v, %v", stuck, err)
	}
}

func TestMalformedMessagesAreInvalidArgumentAndLeaveNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	conn := s.grpc()
	good, err := proto.Marshal(echoTask("task"))
	if err != nil {
		t.Fatal(err)
	}
	deep := func(depth int) []byte { // a literal in a literal in a literal …
		var b []byte
		for range depth {
			b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b) // LiteralCollection.literals
			b = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), b) // Literal.collection
		}
		return b
	}
	inputs := func(literal []byte) []byte {
		request, err := proto.Marshal(execute(id(core.ResourceType_TASK, "intact"), nil))
		if err != nil {
			t.Fatal(err)
		}
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x")
		entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), literal)
		m := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), entry)
		return protowire.AppendBytes(protowire.AppendTag(request, 5, protowire.BytesType), m)
	}
	encoded := func(change func(*admin.TaskCreateRequest)) []byte {
		task := echoTask("task")
		change(task)
		b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const createTask, createExecution = "/flyteidl.service.AdminService/CreateTask", "/flyteidl.service.AdminService/CreateExecution"
	for name, test := range map[string]struct {
		method  string
		content []byte
	}{
		"cut":                       {createTask, good[:len(good)-3]},
		"no protobuf":               {createTask, []byte("{\"id\": 1}")},
		"random bytes":              {createTask, bytes.Repeat([]byte{0xff}, 1000)},
		"a length beyond the end":   {createTask, []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x07}},
		"no UTF-8":                  {createTask, bytes.Replace(good, []byte("flytesnacks"), []byte("flyte\xff\xfe\xfd\xfcck"), 1)},
		"an unknown enum number":    {createTask, encoded(func(r *admin.TaskCreateRequest) { r.Spec.Template.Interface.Inputs = variables("x", 1000) })},
		"a negative enum number":    {createTask, encoded(func(r *admin.TaskCreateRequest) { r.Spec.Template.Interface.Inputs = variables("x", -1) })},
		"a name of a megabyte":      {createTask, encoded(func(r *admin.TaskCreateRequest) { r.Id.Name = strings.Repeat("n", 1<<20) })},
		"a version of a megabyte":   {createTask, encoded(func(r *admin.TaskCreateRequest) { r.Id.Version = strings.Repeat("n", 1<<20) })},
		"a name with zeros":         {createTask, encoded(func(r *admin.TaskCreateRequest) { r.Id.Name = "a\x00b" })},
		"nothing":                   {createTask, nil},
		"literals 5,000 deep":       {createExecution, inputs(deep(5000))},
		"literals 12,000 deep":      {createExecution, inputs(deep(12_000))},
		"an execution of no plan":   {createExecution, nil},
		"an execution's long name":  {createExecution, protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), strings.Repeat("n", 1<<20))},
		"a filter of a megabyte":    {"/flyteidl.service.AdminService/ListTasks", protowire.AppendString(protowire.AppendTag(nil, 4, protowire.BytesType), strings.Repeat("eq(a,b)+", 1<<17))},
		"a page token of nonsense":  {"/flyteidl.service.AdminService/ListTasks", protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "\x01%$nonsense")},
		"an execution of a mystery": {"/flyteidl.service.AdminService/GetExecution", []byte{0x0a, 0x00}},
	} {
		t.Run(name, func(t *testing.T) {
			var answer []byte
			err := conn.Invoke(t.Context(), test.method, test.content, &answer, grpc.ForceCodecV2(raw{}))
			switch got := status.Code(err); {
			case got != codes.InvalidArgument:
				t.Errorf("got %s, want INVALID_ARGUMENT: %.300v", got, err)
			case len(err.Error()) > 100_000:
				t.Errorf("the message is %d bytes long: it repeats the mistake whole", len(err.Error()))
			}
		})
	}
	s.checkIntact()
}

func TestBrokenFramesAndForeignContentTypesAreRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	good, err := proto.Marshal(echoTask("task"))
	if err != nil {
		t.Fatal(err)
	}
	frame := func(flag byte, length int, content []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(length)), content...)
	}
	const call = "/flyteidl.service.AdminService/CreateTask"
	for name, test := range map[string]struct {
		path, contentType string
		body              []byte
		want              string // in the status, its number and message in gRPC-Web, and the body
	}{
		"a frame that is cut":          {call, "application/grpc-web+proto", frame(0, len(good), good[:10]), "protocol error"},
		"a frame longer than allowed":  {call, "application/grpc-web+proto", frame(0, 1<<30, good), "grpc-status: 8"},
		"half a prefix":                {call, "application/grpc-web+proto", []byte{0, 0}, "protocol error"},
		"no frame":                     {call, "application/grpc-web+proto", nil, "grpc-status: "},
		"a compression nobody named":   {call, "application/grpc-web+proto", frame(1, len(good), good), "protocol error"},
		"a content type of nobody":     {call, "text/plain", good, "415"},
		"no content type":              {call, "", good, "415"},
		"Connect with JSON that ends":  {call, "application/json", []byte(`{"id": {`), "400"},
		"Connect with another type":    {call, "application/json", []byte(`{"id": 7}`), "400"},
		"Connect with cut protobuf":    {call, "application/proto", good[:len(good)-3], "400"},
		"REST with JSON that ends":     {"/api/v1/tasks", "application/json", []byte(`{"id": {`), "400"},
		"REST with cut protobuf":       {"/api/v1/tasks", "application/octet-stream", good[:len(good)-3], "400"},
		"REST with an unknown field":   {"/api/v1/tasks", "application/json", []byte(`{"idd": {}}`), "400"},
		"REST with JSON 100,000 deep":  {"/api/v1/tasks", "application/json", []byte(strings.Repeat(`{"id":`, 100_000)), "400"},
		"REST with an array":           {"/api/v1/tasks", "application/json", []byte(`[1, 2]`), "400"},
		"REST with an overlong path":   {"/api/v1/tasks/" + strings.Repeat("n", 100_000), "application/json", nil, "40"},
		"REST with an escaped path":    {"/api/v1/tasks/%00/%ff/%2e%2e/%2f", "application/json", nil, "40"},
		"a link that nobody signed":    {"/blob/upload/x?signature=nonsense", "application/octet-stream", good, "40"},
		"a path that climbs":           {"/api/v1/../../etc/passwd", "application/json", nil, "307"},
		"a service that is not there":  {"/flyteidl.service.Nothing/Call", "application/grpc-web+proto", frame(0, 0, nil), "grpc-status: 12"},
		"a method that is not there":   {"/flyteidl.service.AdminService/Nothing", "application/grpc-web+proto", frame(0, 0, nil), "404"},
		"a method in a strange letter": {"/flyteidl.service.AdminService/createTask", "application/grpc-web+proto", frame(0, 0, nil), "404"},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			if test.contentType != "" {
				header.Set("Content-Type", test.contentType)
			}
			answer, text := s.do(http.MethodPost, test.path, header, test.body)
			got := fmt.Sprintf("%s grpc-status: %s %s %s", answer.Status, answer.Header.Get("Grpc-Status"), answer.Header.Get("Grpc-Message"), text)
			if !strings.Contains(strings.ToLower(got), test.want) || answer.StatusCode >= 500 && answer.StatusCode != http.StatusNotImplemented {
				t.Errorf("got %.400q, want %s", got, test.want)
			}
			// The protocol's own library calls broken framing INTERNAL, as gRPC's does, and says what is broken.
			if number := answer.Header.Get("Grpc-Status"); number == "2" || number == "13" && !strings.Contains(got, "protocol error") {
				t.Errorf("got %.400q", got)
			}
		})
	}
	s.checkIntact()
}

// TestWhatIsRefusedCostsNoMultipleOfItsSize: refusals of a name of 60 MB quoted the name, which took several times as much
// memory and a quarter of a second. The test makes each text of each request large, once in a request that is right but for
// that and once in an empty request, and compares what the refusal allocates with the cheapest refusal of the same call.
func TestWhatIsRefusedCostsNoMultipleOfItsSize(t *testing.T) { //nolint:paralleltest // allocations of other tests would be counted
	if testing.Short() {
		t.Skip("under the race detector other buffers are used again")
	}
	const size = 1 << 20
	s := newServer(t)
	s.registerChain("chain", 1)
	large := strings.Repeat("\x01", size) // which is four times as long when it is quoted
	const create = "/flyteidl.service.AdminService/Create"
	execution := execute(id(core.ResourceType_LAUNCH_PLAN, "chain"), map[string]*core.Literal{"x": integer(1)})
	execution.Spec.Labels = &admin.Labels{Values: map[string]string{"a": "b"}}
	execution.Spec.Tags = []string{"a"}
	execution.Spec.RawOutputDataConfig = &admin.RawOutputDataConfig{OutputLocationPrefix: "s3://a/b"}
	plan := launchPlan("other", "chain")
	plan.Spec.EntityMetadata = &admin.LaunchPlanMetadata{Schedule: &admin.Schedule{ScheduleExpression: &admin.Schedule_CronSchedule{CronSchedule: &admin.CronSchedule{Schedule: "* * * * *"}}}}
	bases := map[string][]proto.Message{
		create + "Execution": {execution}, create + "Task": {echoTask("other")}, create + "LaunchPlan": {plan},
		create + "Workflow": {chain("other", "chain", 2)},
		"/flyteidl.service.AdminService/RegisterProject": {&admin.ProjectRegisterRequest{Project: &admin.Project{Id: "other", Name: "other"}}},
	}
	tried, refused := 0, 0
	for procedure, input := range unaryCalls() {
		type refusal struct {
			field, text string
			beyond      int64 // bytes that the refusal allocated, without those to receive and decode the request
		}
		var refusals []refusal
		for _, base := range append(bases[procedure], dynamicpb.NewMessage(input)) {
			eachText(base.ProtoReflect(), 0, func(field string, set func(string) (undo func())) {
				if named, ok := base.(interface{ GetId() *core.Identifier }); ok {
					named.GetId().Name = fmt.Sprint("other", tried) // a name that is registered would be compared with the version that is there
				}
				undo := set(large)
				request, err := proto.Marshal(base)
				undo()
				if err != nil {
					t.Fatal(err)
				}
				tried++
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				answer, text := s.do(http.MethodPost, procedure, http.Header{"Content-Type": {"application/proto"}}, request)
				runtime.ReadMemStats(&after)
				if answer.StatusCode == http.StatusOK {
					return
				}
				const receiving = 8 // what receiving and decoding allocate, in sizes of the request, that of the client included
				refusals = append(refusals, refusal{field, string(text), int64(after.TotalAlloc-before.TotalAlloc) - receiving*int64(len(request))})
			})
		}
		if len(refusals) == 0 || strings.HasPrefix(procedure, "/grpc.health.") { // a library's
			continue
		}
		refused += len(refusals)
		least := slices.MinFunc(refusals, func(a, b refusal) int { return cmp.Compare(a.beyond, b.beyond) }).beyond
		for _, r := range refusals {
			if r.beyond > least+16*size { // one quotation is more; where a buffer is used again, and a text looked up, it is up to 10
				t.Errorf("%s, %s: its refusal allocated %d KiB more than another one: %.200s", procedure, r.field, (r.beyond-least)>>10, r.text)
			}
		}
	}
	if refused < 300 {
		t.Errorf("%d of %d texts were refused", refused, tried)
	}
}

// unaryCalls are the unary calls of all services of the server, with the types of their requests.
func unaryCalls() map[string]protoreflect.MessageDescriptor {
	calls := map[string]protoreflect.MessageDescriptor{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for k := range service.Methods().Len() {
				if method := service.Methods().Get(k); !method.IsStreamingClient() && !method.IsStreamingServer() {
					calls["/"+string(service.FullName())+"/"+string(method.Name())] = method.Input()
				}
			}
		}
		return true
	})
	return calls
}

// eachText visits every text field of a message, set or not, in its first few levels.
func eachText(m protoreflect.Message, depth int, visit func(field string, set func(string) (undo func()))) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		had, kept := m.Has(f), proto.Clone(m.Interface()).ProtoReflect()
		undo := func() {
			if had {
				m.Set(f, kept.Get(f))
			} else {
				m.Clear(f)
			}
		}
		switch {
		case f.IsMap():
			if f.MapKey().Kind() != protoreflect.StringKind {
				continue
			}
			visit(string(f.FullName()), func(text string) func() {
				m.Clear(f)
				entries := m.Mutable(f).Map()
				entries.Set(protoreflect.ValueOfString(text).MapKey(), entries.NewValue())
				return undo
			})
			if f.MapValue().Kind() == protoreflect.StringKind {
				visit(string(f.FullName())+" (value)", func(text string) func() {
					m.Clear(f)
					m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString(text))
					return undo
				})
			}
			if had && f.MapValue().Message() != nil {
				m.Get(f).Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					eachText(v.Message(), depth+1, visit)
					return true
				})
			}
		case f.Kind() == protoreflect.StringKind:
			visit(string(f.FullName()), func(text string) func() {
				if f.IsList() {
					m.Clear(f)
					m.Mutable(f).List().Append(protoreflect.ValueOfString(text))
				} else {
					m.Set(f, protoreflect.ValueOfString(text))
				}
				return undo
			})
		case f.Message() == nil:
		case f.IsList():
			if had {
				for k := range m.Get(f).List().Len() {
					eachText(m.Get(f).List().Get(k).Message(), depth+1, visit)
				}
			}
		case had:
			eachText(m.Get(f).Message(), depth+1, visit)
		case depth < 3 && f.ContainingOneof() == nil:
			eachText(m.Mutable(f).Message(), depth+1, visit)
			m.Clear(f)
		}
	}
}
