package compiler_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// FuzzCompileWorkflow: any workflow is compiled, the same each time, or refused with errors; and a compiled workflow compiles to
// itself.
func FuzzCompileWorkflow(f *testing.F) {
	tasks := sampleTasks(f)
	for _, path := range samples(f, "WorkflowSpec") {
		var spec admin.WorkflowSpec
		load(f, path, &spec)
		b, _ := proto.Marshal(&spec)
		f.Add(b)
	}
	for _, template := range handmade() {
		b, _ := proto.Marshal(&admin.WorkflowSpec{Template: template})
		f.Add(b)
	}
	deep := &core.Node{Id: "n"}
	for range 300 {
		deep = &core.Node{Id: "n", Target: &core.Node_ArrayNode{ArrayNode: &core.ArrayNode{Node: deep}}}
	}
	b, _ := proto.Marshal(&admin.WorkflowSpec{Template: plainWorkflow(deep)})
	f.Add(b)
	for _, t := range handmadeTasks() {
		tasks[t.GetTemplate().GetId().GetName()] = t
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var spec admin.WorkflowSpec
		if proto.Unmarshal(b, &spec) != nil {
			t.Skip()
		}
		request := compiler.Request{Template: spec.GetTemplate(), SubWorkflows: spec.GetSubWorkflows()}
		for _, id := range compiler.Requirements(&spec).Tasks {
			if task, ok := tasks[id.GetName()]; ok {
				task = proto.CloneOf(task)
				task.Template.Id = id // so that a reference with other letters is found too and compilation goes on
				request.Tasks = append(request.Tasks, task)
			}
		}
		closure, err := compiler.CompileWorkflow(request)
		if err != nil {
			var errs compiler.Errors
			if !errors.As(err, &errs) || len(errs) == 0 || errs.Error() == "" {
				t.Errorf("refused without a reason: %v", err)
			}
			if _, again := compiler.CompileWorkflow(request); again == nil || again.Error() != err.Error() {
				t.Errorf("refused in another way the second time:\n%v\n%v", err, again)
			}
			return
		}
		again, err := compiler.CompileWorkflow(request)
		if err != nil || literal.StructureDigest(again) != literal.StructureDigest(closure) {
			t.Errorf("compiled to something else the second time: %v", err)
		}
		request.Template = closure.GetPrimary().GetTemplate()
		again, err = compiler.CompileWorkflow(request)
		if err != nil {
			t.Fatalf("what was compiled does not compile: %v", err)
		}
		if literal.StructureDigest(again.GetPrimary()) != literal.StructureDigest(closure.GetPrimary()) {
			t.Errorf("what was compiled compiles to something else:\n%s", compiler.Difference(closure.GetPrimary(), again.GetPrimary()))
		}
		compiler.Difference(&spec, closure)
	})
}

// FuzzCompileTask does the same for any task template, and for any launch plan of its interface.
func FuzzCompileTask(f *testing.F) {
	var plans [][]byte
	for _, path := range samples(f, "LaunchPlan") {
		var plan admin.LaunchPlan
		load(f, path, &plan)
		b, _ := proto.Marshal(plan.GetSpec())
		plans = append(plans, b)
	}
	for i, path := range samples(f, "TaskSpec") {
		var spec admin.TaskSpec
		load(f, path, &spec)
		b, _ := proto.Marshal(spec.GetTemplate())
		f.Add(b, plans[i%len(plans)])
	}
	f.Fuzz(func(t *testing.T, template, plan []byte) {
		var task core.TaskTemplate
		var spec admin.LaunchPlanSpec
		if proto.Unmarshal(template, &task) != nil || proto.Unmarshal(plan, &spec) != nil {
			t.Skip()
		}
		compiled, err := compiler.CompileTask(id(core.ResourceType_TASK, "t"), &task)
		if (compiled == nil) != (err != nil) {
			t.Errorf("%v and %v", compiled, err)
		}
		if err == nil {
			if again, err := compiler.CompileTask(compiled.GetTemplate().GetId(), compiled.GetTemplate()); err != nil || !proto.Equal(again, compiled) {
				t.Errorf("what was compiled compiles to something else: %v", err)
			}
		}
		if _, err := compiler.CompileLaunchPlan(&spec, task.GetInterface()); err != nil && err.Error() == "" {
			t.Error("a launch plan was refused without a reason")
		}
	})
}

func fanOut(n int) *core.WorkflowTemplate {
	w := plainWorkflow(taskNode("source", "one", bind("a", promise("", "x"))))
	collected := listOf()
	for i := range n - 2 {
		w.Nodes = append(w.Nodes, taskNode("n"+itoa(i), "one", bind("a", promise("source", "o")), "source"))
		collected.GetCollection().Bindings = append(collected.GetCollection().Bindings, promise("n"+itoa(i), "o"))
	}
	w.Nodes = append(w.Nodes, taskNode("sink", "all", bind("as", collected)))
	return w
}

func chain(n int) *core.WorkflowTemplate {
	w := plainWorkflow(taskNode("n0", "one", bind("a", promise("", "x"))))
	for i := 1; i < n; i++ {
		w.Nodes = append(w.Nodes, taskNode("n"+itoa(i), "one", bind("a", promise("n"+itoa(i-1), "o"))))
	}
	return w
}

func benchmarkCompile(b *testing.B, t *core.WorkflowTemplate) {
	tasks := append(handmadeTasks(), task("all", variables("as", list(integer)), nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := compiler.CompileWorkflow(compiler.Request{Template: t, Tasks: tasks}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompileFanOut1k(b *testing.B)  { benchmarkCompile(b, fanOut(1_000)) }
func BenchmarkCompileFanOut50k(b *testing.B) { benchmarkCompile(b, fanOut(50_000)) }
func BenchmarkCompileChain50k(b *testing.B)  { benchmarkCompile(b, chain(50_000)) }
func BenchmarkCompileWrong50k(b *testing.B) {
	w := fanOut(50_000)
	for _, n := range w.Nodes {
		n.Inputs = nil
	}
	b.ReportAllocs()
	for b.Loop() {
		_, err := compiler.CompileWorkflow(compiler.Request{Template: w, Tasks: append(handmadeTasks(), task("all", variables("as", list(integer)), nil))})
		if err == nil || len(err.Error()) > 100_000 {
			b.Fatal(err)
		}
	}
}
