package compiler_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// load reads a sample, completes its ids as the client does at registration, and gives the digest in its head, if any.
func load(t testing.TB, path string, m proto.Message) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := prototext.Unmarshal(b, m); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	completeIDs(m.ProtoReflect())
	_, rest, _ := strings.Cut(string(b), "# digest: ")
	digest, _, _ := strings.Cut(rest, "\n")
	return digest
}

func completeIDs(m protoreflect.Message) {
	if id, ok := m.Interface().(*core.Identifier); ok {
		if id.GetProject() == "" {
			id.Project, id.Domain, id.Version = "p", "development", "v1"
		}
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, e protoreflect.Value) bool { completeIDs(e.Message()); return true })
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				completeIDs(v.List().Get(i).Message())
			}
		default:
			completeIDs(v.Message())
		}
		return true
	})
}

func samples(t testing.TB, kind string) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*." + kind + ".textproto")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples of %s: %v", kind, err)
	}
	return paths
}

// sampleTasks are all tasks that a sample shows, compiled, by name.
func sampleTasks(t testing.TB) map[string]*core.CompiledTask {
	t.Helper()
	tasks := make(map[string]*core.CompiledTask)
	for _, path := range samples(t, "CompiledWorkflowClosure") {
		var closure core.CompiledWorkflowClosure
		load(t, path, &closure)
		for _, task := range closure.GetTasks() {
			tasks[task.GetTemplate().GetId().GetName()] = task
		}
	}
	for _, path := range samples(t, "TaskSpec") {
		var spec admin.TaskSpec
		load(t, path, &spec)
		if tasks[spec.GetTemplate().GetId().GetName()] != nil {
			continue // sample 21 is a task of sample 01 packaged in another way
		}
		task, err := compiler.CompileTask(spec.GetTemplate().GetId(), spec.GetTemplate())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		tasks[spec.GetTemplate().GetId().GetName()] = task
	}
	return tasks
}

func compileSpec(spec *admin.WorkflowSpec, tasks map[string]*core.CompiledTask) (*core.CompiledWorkflowClosure, error) {
	request := compiler.Request{ID: spec.GetTemplate().GetId(), Template: spec.GetTemplate(), SubWorkflows: spec.GetSubWorkflows()}
	for _, id := range compiler.Requirements(spec).Tasks {
		if task, ok := tasks[id.GetName()]; ok {
			request.Tasks = append(request.Tasks, task)
		}
	}
	return compiler.CompileWorkflow(request)
}

func TestClosuresEqualTheReferenceCompilers(t *testing.T) {
	t.Parallel()
	tasks := sampleTasks(t)
	specs := make(map[string]*admin.WorkflowSpec) // by sample number and name
	for _, path := range samples(t, "WorkflowSpec") {
		var spec admin.WorkflowSpec
		load(t, path, &spec)
		specs[filepath.Base(path)[:2]+spec.GetTemplate().GetId().GetName()] = &spec
	}
	compared := make(map[string]bool)
	for _, path := range samples(t, "CompiledWorkflowClosure") {
		name := filepath.Base(path)
		var want core.CompiledWorkflowClosure
		digest := load(t, path, &want)
		if digest != "" {
			if got := literal.StructureDigest(&want).String(); got != digest {
				t.Errorf("%s: the sample's digest is %s, want %s", name, got, digest)
			}
		}
		spec := specs[name[:2]+want.GetPrimary().GetTemplate().GetId().GetName()]
		if spec == nil {
			t.Errorf("%s: no spec of this workflow", name)
			continue
		}
		before := proto.CloneOf(spec)
		got, err := compileSpec(spec, tasks)
		if diff := cmp.Diff(before, spec, protocmp.Transform()); diff != "" {
			t.Errorf("%s: compiling changed the spec: %s", name, diff)
		}
		var errs compiler.Errors
		if errors.As(err, &errs) && !slices.ContainsFunc(errs, func(e compiler.Error) bool { return e.Code != compiler.Unsupported }) {
			continue // see TestNodesOfLaterReleasesAreRefusedByName
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		compared[name[:2]] = true
		if !proto.Equal(&want, got) {
			t.Errorf("%s: the reference → ours\n%s", name, compiler.Difference(&want, got))
		}
		if d := literal.StructureDigest(got).String(); digest != "" && d != digest {
			t.Errorf("%s: digest %s, want %s", name, d, digest)
		}
	}
	for _, number := range []string{"01", "02", "05", "11", "14", "15", "16", "18", "20", "22"} {
		if !compared[number] {
			t.Errorf("sample %s was not compared", number)
		}
	}
}

func TestNodesOfLaterReleasesAreRefusedByName(t *testing.T) {
	t.Parallel()
	tasks := sampleTasks(t)
	for file, want := range map[string]string{
		"06_map_ratio.2":           "node n0: array nodes (map tasks) are not supported yet by this release of aloft",
		"10_map_over_launchplan.2": "array nodes",
		"12_launchplan.3":          "launch plan nodes are not supported yet by this release of aloft",
		"13_gate.1":                "gate nodes are not supported yet by this release of aloft",
	} {
		var spec admin.WorkflowSpec
		load(t, "testdata/"+file+".WorkflowSpec.textproto", &spec)
		// Not every sample has the tasks that the arms of its branches run.
		for _, id := range compiler.Requirements(&spec).Tasks {
			if tasks[id.GetName()] == nil {
				tasks[id.GetName()] = &core.CompiledTask{Template: &core.TaskTemplate{Id: id, Interface: &core.TypedInterface{}}}
			}
		}
		_, err := compileSpec(&spec, tasks)
		var errs compiler.Errors
		if !errors.As(err, &errs) || !errors.Is(err, aloft.ErrInvalid) {
			t.Errorf("%s: got %v", file, err)
			continue
		}
		for _, e := range errs {
			if e.Code != compiler.Unsupported {
				t.Errorf("%s: what a refused node leads to is reported too: %v", file, e)
			}
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", file, err, want)
		}
	}
}

func TestEveryTaskOfFlytekitCompiles(t *testing.T) {
	t.Parallel()
	compiled := make(map[string]*core.CompiledTask)
	for _, path := range samples(t, "CompiledWorkflowClosure") {
		var closure core.CompiledWorkflowClosure
		load(t, path, &closure)
		for _, task := range closure.GetTasks() {
			compiled[filepath.Base(path)[:2]+task.GetTemplate().GetId().GetName()] = task
		}
	}
	same := 0
	for _, path := range samples(t, "TaskSpec") {
		var spec admin.TaskSpec
		load(t, path, &spec)
		id := proto.CloneOf(spec.GetTemplate().GetId())
		template := proto.CloneOf(spec.GetTemplate())
		template.Id = nil // the request's id counts
		got, err := compiler.CompileTask(id, template)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if want, ok := compiled[filepath.Base(path)[:2]+id.GetName()]; ok {
			same++
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", path, diff)
			}
		}
	}
	if same < 10 {
		t.Errorf("only %d tasks were compared with a closure", same)
	}
}

func TestAttributesOfDataclassesAreChecked(t *testing.T) {
	t.Parallel()
	var spec admin.WorkflowSpec
	load(t, "testdata/17_dataclass_enum_union.2.WorkflowSpec.textproto", &spec)
	tasks := sampleTasks(t)
	for _, id := range compiler.Requirements(&spec).Tasks {
		t.Logf("requires %s, known: %v", id.GetName(), tasks[id.GetName()] != nil)
	}
	closure, err := compileSpec(&spec, tasks)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(closure.GetPrimary().GetTemplate().GetNodes()); n != len(spec.GetTemplate().GetNodes())+2 {
		t.Errorf("%d nodes", n)
	}
	for _, n := range spec.GetTemplate().GetNodes() {
		for _, b := range n.GetInputs() {
			for _, a := range b.GetBinding().GetPromise().GetAttrPath() {
				if s, ok := a.GetValue().(*core.PromiseAttribute_StringValue); ok {
					s.StringValue += "x"
				}
			}
		}
	}
	_, err = compileSpec(&spec, tasks)
	var errs compiler.Errors
	if !errors.As(err, &errs) || len(errs) != 2 || errs[0].Code != compiler.FieldNotFound ||
		errs[0].Description != "Cannot resolve [n0.o0.innerx] for the input variable 'add.b': the struct has no such field." {
		t.Errorf("fields that are not there: %v", err)
	}
}

func TestEveryTypeAndBindingOfFlytekitCompiles(t *testing.T) {
	t.Parallel()
	tasks := sampleTasks(t)
	var spec admin.WorkflowSpec
	load(t, "testdata/40_every_type.12.WorkflowSpec.textproto", &spec)
	closure, err := compileSpec(&spec, tasks)
	if err != nil {
		t.Fatal(err)
	}
	if nodes, subs, used := len(closure.GetPrimary().GetTemplate().GetNodes()), len(closure.GetSubWorkflows()), len(closure.GetTasks()); nodes != 23 || subs != 1 || used != 11 {
		t.Errorf("%d nodes, %d sub-workflows, %d tasks", nodes, subs, used)
	}
	for _, id := range compiler.Requirements(&spec).Tasks {
		before := tasks[id.GetName()]
		for name := range before.GetTemplate().GetInterface().GetInputs().GetVariables() {
			// Another type on any input that is used must be noticed: no binding is waved through.
			changed := proto.CloneOf(before)
			changed.Template.Interface.Inputs.Variables[name].Type = simple(core.SimpleType_BINARY)
			tasks[id.GetName()] = changed
			if _, err := compileSpec(&spec, tasks); err == nil {
				t.Errorf("input %s of %s may have any type", name, id.GetName())
			}
		}
		tasks[id.GetName()] = before
	}
}
