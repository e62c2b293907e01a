package aloft

import "github.com/aloft-dev/aloft/idl/flyteidl/core"

// Terminal says whether a phase of an execution, a node or a task is a last one: no phase follows it.
func Terminal[P core.WorkflowExecution_Phase | core.NodeExecution_Phase | core.TaskExecution_Phase](phase P) bool {
	switch p := any(phase).(type) {
	case core.WorkflowExecution_Phase:
		switch p {
		case core.WorkflowExecution_SUCCEEDED, core.WorkflowExecution_FAILED, core.WorkflowExecution_ABORTED, core.WorkflowExecution_TIMED_OUT:
			return true
		}
	case core.NodeExecution_Phase:
		switch p {
		case core.NodeExecution_SUCCEEDED, core.NodeExecution_FAILED, core.NodeExecution_ABORTED, core.NodeExecution_SKIPPED,
			core.NodeExecution_TIMED_OUT, core.NodeExecution_RECOVERED:
			return true
		}
	case core.TaskExecution_Phase:
		switch p {
		case core.TaskExecution_SUCCEEDED, core.TaskExecution_FAILED, core.TaskExecution_ABORTED, core.TaskExecution_RETRYABLE_FAILED:
			return true
		}
	}
	return false
}

// Succeeded says whether a node in this phase has outputs that downstream nodes may use.
func Succeeded(phase core.NodeExecution_Phase) bool {
	return phase == core.NodeExecution_SUCCEEDED || phase == core.NodeExecution_RECOVERED
}
