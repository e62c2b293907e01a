package catalog

import (
	"strconv"

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

// Metadata is how a node that uses or made a result refers to it: its dataset, its tag, and who computed it.
func Metadata(e *store.CacheEntry) *core.CatalogMetadata {
	m := &core.CatalogMetadata{
		DatasetId:   &core.Identifier{ResourceType: core.ResourceType_DATASET, Project: e.Project, Domain: e.Domain, Name: e.Name, Version: e.Version},
		ArtifactTag: &core.CatalogArtifactTag{ArtifactId: e.ID, Name: e.Tag},
	}
	if e.Source == (aloft.AttemptID{}) {
		return m
	}
	m.SourceExecution = &core.CatalogMetadata_SourceTaskExecution{SourceTaskExecution: &core.TaskExecutionIdentifier{
		TaskId: &core.Identifier{
			ResourceType: core.ResourceType_TASK, Project: e.Project, Domain: e.Domain, Name: e.Key.GetTask(), Version: e.Dataset[taskVersion],
		},
		NodeExecutionId: &core.NodeExecutionIdentifier{NodeId: string(e.Source.Node), ExecutionId: e.Source.Execution.Proto()},
		RetryAttempt:    e.Source.Attempt,
	}}
	return m
}
