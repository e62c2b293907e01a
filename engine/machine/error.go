package machine

import (
	"strings"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Codes of errors that the machine itself gives.
const (
	CodeNodeAborted      = "NodeAborted"       // a node that was active when what contains it failed or was terminated
	CodeTaskAborted      = "Task Aborted"      // its attempt; with the blank, as in Flyte
	CodeRetriesExhausted = "RetriesExhausted|" // before the code of the last attempt's error
	CodeAttemptLost      = "AttemptLost"       // how the attempt ended is unknown
	CodeUnknown          = "Unknown"           // a failure that does not say what it is
)

// Codes of failures by time.
const (
	CodeTimeout          = "TimeoutExpired"      // an attempt, as in Flyte
	CodeQueueTimeout     = "QueueTimeoutExpired" // an attempt that did not begin; Flyte has no such limit
	CodeExecutionTimeout = "Timeout"             // an execution, as in Flyte
	CodeOutage           = "OutageTooLong"       // an execution that had to wait for a service; Flyte gives up after ten rounds instead
)

// CodeOutOfMemory is what executors call a death for want of memory, as Kubernetes does.
const CodeOutOfMemory = "OOMKilled"

// maxErrorMessage is the number of bytes from which a message loses its middle, as in Flyte.
const maxErrorMessage = 100 << 10

// cut takes the middle out of a message that is too long for a record.
func cut(e *core.ExecutionError) *core.ExecutionError {
	m := e.GetMessage()
	if len(m) <= maxErrorMessage {
		return e
	}
	const mark = " ... <Message Truncated> ... "
	half := (maxErrorMessage - len(mark)) / 2
	// A character cut in two would make the message unfit for protobuf, and the step unfit to be committed.
	m = strings.ToValidUTF8(m[:half], "") + mark + strings.ToValidUTF8(m[len(m)-half:], "")
	return &core.ExecutionError{
		Code: e.GetCode(), Message: m, ErrorUri: e.GetErrorUri(), Kind: e.GetKind(), Timestamp: e.GetTimestamp(), Worker: e.GetWorker(),
	}
}

func failureOf(f *aloftv1.Failure) *core.ExecutionError {
	if f.GetError() == nil {
		return &core.ExecutionError{Code: CodeUnknown, Message: "no reason is known"}
	}
	return f.GetError()
}
