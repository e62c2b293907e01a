package compiler

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// CompileTask checks a template and gives it the id under which it is registered. The error is an Errors. It does not check whether
// the project exists or whether the server can run the type of the task.
func CompileTask(id *core.Identifier, template *core.TaskTemplate) (*core.CompiledTask, error) {
	var errs Errors
	name := id.GetName()
	required := func(field string) { errs.add(ValueRequired, name, "Value required [%s].", field) }
	if id == nil {
		required("id")
	}
	if template == nil {
		required("template")
		return nil, errs.err()
	}
	if template.GetType() == "" {
		required("template.type")
	}
	if template.GetMetadata() == nil {
		required("template.metadata")
	}
	if r := template.GetMetadata().GetRuntime(); r != nil && r.GetVersion() == "" {
		required("template.metadata.runtime.version")
	}
	checkRetries(&errs, name, "template.metadata.retries", template.GetMetadata().GetRetries())
	checkTimeout(&errs, name, "template.metadata.timeout", template.GetMetadata().GetTimeout())
	if m := template.GetMetadata(); m.GetDiscoverable() && m.GetDiscoveryVersion() == "" {
		errs.add(ValueRequired, name, "Value required [template.metadata.discovery_version]: a cached task states its cache version.")
	}
	checkCacheVersion(&errs, name, "template.metadata.discovery_version", template.GetMetadata().GetDiscoveryVersion())
	if template.GetInterface() == nil {
		required("template.interface")
	}
	checkInterface(&errs, name, template.GetInterface())
	switch target := template.GetTarget().(type) {
	case *core.TaskTemplate_Container:
		c := target.Container
		if c.GetImage() == "" {
			required("template.container.image")
		}
		i := template.GetInterface()
		if len(i.GetInputs().GetVariables())+len(i.GetOutputs().GetVariables()) > 0 && len(c.GetCommand())+len(c.GetArgs()) == 0 {
			errs.add(ValueRequired, name, "Value required [template.container.command]: a task with inputs or outputs has a command or arguments.")
		}
		checkResources(&errs, name, "template.container.resources", c.GetResources())
	case *core.TaskTemplate_K8SPod:
		checkPod(&errs, name, "template.k8s_pod", target.K8SPod)
	}
	if err := errs.err(); err != nil {
		return nil, err
	}
	compiled := proto.CloneOf(template)
	compiled.Id = proto.CloneOf(id)
	compiled.Id.ResourceType = core.ResourceType_TASK
	return &core.CompiledTask{Template: compiled}, nil
}

func checkRetries(errs *Errors, node, field string, r *core.RetryStrategy) {
	if n := r.GetRetries(); n > aloft.MaxRetries {
		errs.add(InvalidValue, node, "Invalid value [%d] for %s: it is between 0 and %d.", n, field, aloft.MaxRetries)
	}
}

// checkCacheVersion bounds the cache version, which is a part of the name of every cached result.
func checkCacheVersion(errs *Errors, node, field, version string) {
	if n := len(version); n > aloft.MaxCacheVersion {
		errs.add(InvalidValue, node, "Invalid value for %s: it has %d bytes, the limit is %d; a long cache version can be replaced by its hash.", field, n, aloft.MaxCacheVersion)
	}
	if strings.ContainsRune(version, 0) {
		errs.add(InvalidValue, node, "Invalid value for %s: it contains a NUL character.", field)
	}
}

func checkTimeout(errs *Errors, node, field string, d *durationpb.Duration) {
	if d == nil {
		return
	}
	if d.CheckValid() != nil || d.GetSeconds() < 0 || d.GetNanos() < 0 {
		errs.add(InvalidValue, node, "Invalid value for %s: a timeout is not negative, 0 is none.", field)
	}
}

func checkInterface(errs *Errors, node string, i *core.TypedInterface) {
	for _, side := range []struct {
		name      string
		variables map[string]*core.Variable
	}{{"inputs", i.GetInputs().GetVariables()}, {"outputs", i.GetOutputs().GetVariables()}} {
		for _, name := range slices.Sorted(maps.Keys(side.variables)) {
			if name == "" {
				errs.add(ValueRequired, node, "Value required [interface.%s]: a variable has no name.", side.name)
			}
			if err := literal.CheckType(side.variables[name].GetType()); err != nil {
				errs.add(ValueRequired, node, "Value required [interface.%s[%s].type]: %v.", side.name, name, err)
			}
		}
	}
}

var podName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkPod checks only that Kubernetes can read the pod; all else is for the cluster to check.
func checkPod(errs *Errors, node, where string, pod *core.K8SPod) {
	if pod.GetPodSpec() == nil {
		errs.add(ValueRequired, node, "Value required [%s.pod_spec].", where)
		return
	}
	containers, ok := pod.GetPodSpec().GetFields()["containers"]
	if !ok {
		errs.add(ValueRequired, node, "Value required [%s.pod_spec.containers].", where)
		return
	}
	list, ok := containers.GetKind().(*structpb.Value_ListValue)
	if !ok {
		errs.add(InvalidValue, node, "Invalid value for %s.pod_spec.containers: it is a list.", where)
		return
	}
	for i, c := range list.ListValue.GetValues() {
		name, ok := c.GetStructValue().GetFields()["name"].GetKind().(*structpb.Value_StringValue)
		if !ok || !podName.MatchString(name.StringValue) {
			errs.add(InvalidValue, node, "Invalid value for %s.pod_spec.containers[%d].name: it has 1 to 63 lower-case letters, digits and dashes, no dash first or last.", where, i)
		}
	}
}
