package catalog

import (
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// taskVersion is what Flyte calls the version of the task, in the metadata of a dataset.
const taskVersion = "task-version"

// DatasetMetadata is what the data catalog shows of a dataset whose first result was made by this version of the task.
func DatasetMetadata(version string) map[string]string {
	return map[string]string{taskVersion: version}
}

// SourceMetadata is what the data catalog shows of a result: the attempt that computed it, under Flyte's names.
func SourceMetadata(a aloft.AttemptID) map[string]string {
	return map[string]string{
		"exec-project": a.Execution.Project, "exec-domain": a.Execution.Domain, "execution-name": a.Execution.Name,
		"exec-node": string(a.Node), "exec-attempt": strconv.FormatUint(uint64(a.Attempt), 10),
	}
}

// Metadata is how a node that uses or made a result refers to it: its dataset, its tag, and the attempt that computed it.
func Metadata(e *store.Result) *core.CatalogMetadata {
	x := &struct { // in one piece: each hit has one
		all           core.CatalogMetadata
		dataset, task core.Identifier
		tag           core.CatalogArtifactTag
		kind          core.CatalogMetadata_SourceTaskExecution
		source        core.TaskExecutionIdentifier
		node          core.NodeExecutionIdentifier
	}{}
	m, d, t := &x.all, &x.dataset, &x.task
	m.DatasetId, m.ArtifactTag = d, &x.tag
	d.ResourceType, d.Project, d.Domain, d.Name, d.Version = core.ResourceType_DATASET, e.Project, e.Domain, e.Name, e.Version
	x.tag.ArtifactId, x.tag.Name = e.ID, e.Tag
	if e.Source == (aloft.AttemptID{}) {
		return m
	}
	identify(t, e)
	x.node.NodeId, x.node.ExecutionId = string(e.Source.Node), e.Source.Execution.Proto()
	x.source.TaskId, x.source.NodeExecutionId, x.source.RetryAttempt = t, &x.node, e.Source.Attempt
	x.kind.SourceTaskExecution = &x.source
	m.SourceExecution = &x.kind
	return m
}

// Task is the version of the task that computed the first result of the dataset of e, a result that an engine added.
func Task(e *store.Result) *core.Identifier {
	id := &core.Identifier{}
	identify(id, e)
	return id
}

func identify(task *core.Identifier, e *store.Result) {
	task.ResourceType, task.Project, task.Domain = core.ResourceType_TASK, e.Project, e.Domain
	task.Name, task.Version = strings.TrimPrefix(e.Name, datasetPrefix), e.Dataset[taskVersion]
}
