package launch

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/internal/nodes"
	"github.com/aloft-dev/aloft/store"
)

// taskNeeds are what the tasks of one workflow need of the server and of an execution besides inputs. They follow from the workflow
// alone, which never changes.
type taskNeeds struct {
	secrets []secretNeed
	refused []string // reasons of tasks that this server cannot run
	journal int      // the version of the journal that executions of the workflow are written in
}

// secretNeed is a secret that a task asks for and whose value it does not state itself.
type secretNeed struct {
	task, name string
	variables  []string // environment variables; flytekit's SecretsManager finds the secret in any of them
}

// needsBytes is about what the needs of a workflow take in memory: most have none.
const needsBytes = 256

// checkNeeds returns what the tasks of a plan need. It refuses an execution that cannot succeed, because this server cannot run a task
// of it, or because a secret is missing. Such tasks can be registered all the same: one of them must not keep out all entities that are
// registered together with it.
func (l *Launcher) checkNeeds(ctx context.Context, plan *store.LaunchPlan, spec *admin.ExecutionSpec) (taskNeeds, error) {
	n, err := l.needs(ctx, plan.Spec.GetWorkflowId())
	if err != nil {
		return taskNeeds{}, err
	}
	envs := spec.GetEnvs().GetValues()
	if len(envs) == 0 {
		envs = plan.Spec.GetEnvs().GetValues()
	}
	var problems field.Problems
	for _, reason := range n.refused {
		problems.Add("%s", reason)
	}
	for _, s := range n.secrets {
		ofServer := slices.ContainsFunc(s.variables, func(name string) bool { _, given := l.Variables[name]; return given })
		if !ofServer && !slices.ContainsFunc(envs, func(kv *core.KeyValuePair) bool { return slices.Contains(s.variables, kv.GetKey()) }) {
			problems.Add("task %s needs the secret %s, and this server keeps no secrets: give it as an environment variable of the run, pyflyte run --env %s=…", s.task, s.name, s.variables[0])
		}
	}
	return n, problems.Err()
}

func (l *Launcher) needs(ctx context.Context, workflow *core.Identifier) (taskNeeds, error) {
	key := aloft.KeyOf(workflow)
	if n, ok := l.needsCache.Get(key); ok {
		return n, nil
	}
	w, err := l.Registry.Workflow(ctx, workflow)
	if err != nil {
		return taskNeeds{}, fmt.Errorf("read workflow %s: %w", workflow.GetName(), err)
	}
	n := taskNeeds{journal: journalVersion(w.Compiled)}
	size := int64(needsBytes)
	tasks := make(map[aloft.Key]*core.TaskTemplate, len(w.Compiled.GetTasks()))
	for _, t := range w.Compiled.GetTasks() {
		tasks[aloft.KeyOf(t.GetTemplate().GetId())] = t.GetTemplate()
	}
	for node := range taskNodes(w.Compiled) {
		task := tasks[aloft.KeyOf(node.GetReferenceId())]
		if l.RefusalFunc == nil || task == nil {
			continue
		}
		if reason := l.RefusalFunc(task, node); reason != "" && !slices.Contains(n.refused, reason) {
			n.refused = append(n.refused, reason)
			size += int64(len(reason))
		}
	}
	for _, t := range w.Compiled.GetTasks() {
		task := t.GetTemplate()
		for _, s := range secretsOf(task) {
			n.secrets = append(n.secrets, s)
			size += int64(len(s.task) + len(s.name) + len(strings.Join(s.variables, "")) + needsBytes)
		}
	}
	l.needsCache.Put(key, n, size)
	return n, nil
}

// journalVersion is the version of the journal that executions of a workflow need: no later one, so that the release before runs those
// that it can.
func journalVersion(c *core.CompiledWorkflowClosure) int {
	for _, w := range nodes.Workflows(c) {
		for n := range nodes.All(w.GetTemplate()) {
			if n.GetBranchNode() != nil {
				return store.JournalVersion
			}
		}
	}
	return store.PlainJournalVersion
}

// taskNodes are the nodes of a workflow and of its sub-workflows that run tasks.
func taskNodes(c *core.CompiledWorkflowClosure) iter.Seq[*core.TaskNode] {
	return func(yield func(*core.TaskNode) bool) {
		for _, w := range nodes.Workflows(c) {
			for n := range nodes.All(w.GetTemplate()) {
				if task := n.GetTaskNode(); task != nil && !yield(task) {
					return
				}
			}
		}
	}
}

// secretsOf are the secrets that a task asks for and does not state as environment variables of its own.
// Source: flytekit's SecretsManager (core/context_manager.py, get_secrets_env_var).
func secretsOf(task *core.TaskTemplate) []secretNeed {
	var out []secretNeed
	for _, s := range task.GetSecurityContext().GetSecrets() {
		parts := slices.DeleteFunc([]string{s.GetGroup(), s.GetGroupVersion(), s.GetKey()}, func(part string) bool { return part == "" })
		variables := []string{"_FSEC_" + strings.ToUpper(strings.Join(parts, "_"))}
		if s.GetEnvVar() != "" {
			variables = append(variables, s.GetEnvVar())
		}
		if !slices.ContainsFunc(task.GetContainer().GetEnv(), func(kv *core.KeyValuePair) bool { return slices.Contains(variables, kv.GetKey()) }) {
			out = append(out, secretNeed{task.GetId().GetName(), strings.Join(parts, "/"), variables})
		}
	}
	return out
}
