package executor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/literal"
)

// Codes of failures that an executor finds. Source: flyte-execution reference 3.6 and 3.7.
const (
	CodeOutOfMemory       = "OOMKilled"
	CodeInterrupted       = "Interrupted"
	CodeExited            = "Error"
	CodeOutputsNotFound   = "OutputsNotFound"
	CodeOutputsUnreadable = "OutputsUnreadable"
	CodeErrorUnreadable   = "ErrorFileBadFormat"
	CodeBadTaskFormat     = "BadTaskFormat"
	CodeEnvironment       = "EnvironmentUnavailable"
	CodeDynamic           = "DynamicWorkflowBuildFailed"
	CodeOutputTooLarge    = "OutputSizeExceeded"
	CodeServiceAway       = "ServiceUnavailable" // ours: what an attempt needs to run could not do its part
	CodeInputLost         = "InputLost"          // ours: a stored object that the attempt was to be given is gone or damaged
	CodeOutcomeRefused    = "OutcomeRefused"     // ours: the store cannot hold what the attempt ended with
)

// Left is what an attempt left behind: how its process ended and the files in its output folder.
type Left struct {
	Name        string // of the task, for messages
	Code        int
	Signal      int    // 0: none
	OutOfMemory bool   // killed for its memory limit
	Limit       int64  // the memory limit in bytes; 0: none
	Stopped     string // why the attempt was asked to end; empty: it was not
	Lost        string // why it is not known how the attempt ended; empty: it is known
	Unready     string // what a service lacked, so that the process never ran; empty: it ran
	Service     string // the service of Unready
	Reason      string // more about the end, as a sentence; empty: nothing
	Tail        string // the last lines of stderr

	Futures bool   // futures.pb is there
	Error   []byte // error.pb; nil: not there
	Outputs []byte // outputs.pb; nil: not there

	TooLarge bool // outputs.pb is above the limit of a message and was not read

	NoError   string // what is in the place of error.pb and cannot be read, as a sentence; empty: nothing like that
	NoOutputs string // the same for outputs.pb

	Declared map[string]*core.Variable // outputs of the task's interface
}

// Read decides what an attempt's end means, in Flyte's order, and fills the result into the outcome. Outputs are
// returned with the URIs that the task wrote; the caller makes what they refer to durable and canonical.
//
// Unlike in Flyte, which does not read it then, an error.pb counts also after a non-zero exit: the task has written it.
func (l Left) Read(outcome *aloftv1.Outcome) *core.LiteralMap {
	fail := func(kind core.ExecutionError_ErrorKind, recoverable bool, code, format string, args ...any) {
		outcome.Result = &aloftv1.Outcome_Failure{Failure: NewFailure(kind, recoverable, code, fmt.Sprintf(format, args...))}
	}
	var document core.ErrorDocument
	badError := l.Error != nil && decode(l.Error, &document) != nil
	switch {
	case l.Stopped != "":
		outcome.Result = &aloftv1.Outcome_Stopped{Stopped: l.Stopped}
	case l.Unready != "":
		fail(core.ExecutionError_SYSTEM, true, CodeServiceAway, "%s", l.Unready)
		outcome.GetFailure().Service = l.Service
	case l.OutOfMemory && l.Limit > 0:
		fail(core.ExecutionError_USER, true, CodeOutOfMemory, "%s was killed: %s. Ask for more with Resources(mem=...) or with_overrides(limits=...).%s",
			l.Name, cmp.Or(l.Reason, fmt.Sprintf("it used more than its memory limit of %d MiB", l.Limit>>20)), l.tail())
	case l.OutOfMemory:
		fail(core.ExecutionError_USER, true, CodeOutOfMemory, "%s was killed for want of memory%s. State how much it needs with Resources(mem=...), so that it waits for room and ends alone.%s",
			l.Name, l.because(), l.tail())
	case l.NoError != "":
		fail(core.ExecutionError_USER, true, CodeErrorUnreadable, "%s failed, and how it failed cannot be read: %s%s", l.Name, l.NoError, l.tail())
	case document.GetError() != nil:
		outcome.Result = &aloftv1.Outcome_Failure{Failure: reported(document.GetError())}
	case badError:
		fail(core.ExecutionError_SYSTEM, true, CodeErrorUnreadable, "%s left an error.pb that cannot be read%s", l.Name, l.tail())
	case l.Lost != "":
		outcome.Result = &aloftv1.Outcome_Lost{Lost: l.Lost}
	case l.Signal == int(syscall.SIGKILL): // the sender is not known: the task may have killed itself
		fail(core.ExecutionError_SYSTEM, true, CodeInterrupted, "%s was killed (SIGKILL)%s%s", l.Name, l.because(), l.tail())
	case l.Code == 137 || l.Code == 247: // the exit code of a shell, and of Python, whose child was killed
		fail(core.ExecutionError_SYSTEM, true, CodeInterrupted, "%s terminated with exit code %d, as when what it ran is killed (SIGKILL)%s%s", l.Name, l.Code, l.because(), l.tail())
	case l.Signal != 0:
		fail(core.ExecutionError_USER, true, CodeExited, "%s was terminated by %s. %s%s", l.Name, describeSignal(l.Signal), l.Reason, l.tail())
	case l.Code != 0:
		fail(core.ExecutionError_USER, true, CodeExited, "%s terminated with exit code %d. %s%s", l.Name, l.Code, l.Reason, l.tail())
	case l.Futures:
		fail(core.ExecutionError_USER, false, CodeDynamic, "%s is a dynamic task: it made a workflow at run time, which is not supported yet by this release of aloft", l.Name)
	case len(l.Declared) == 0: // files of the task do not matter
		return &core.LiteralMap{}
	case l.TooLarge:
		fail(core.ExecutionError_USER, false, CodeOutputTooLarge, "%s left an outputs.pb of more than %d MiB: return large values as FlyteFile, FlyteDirectory or StructuredDataset", l.Name, aloft.MaxMessageBytes>>20)
	case l.NoOutputs != "":
		fail(core.ExecutionError_USER, true, CodeOutputsUnreadable, "%s ended without an error but its outputs cannot be read: %s%s", l.Name, l.NoOutputs, l.tail())
	case l.Outputs == nil:
		fail(core.ExecutionError_USER, true, CodeOutputsNotFound, "%s ended without an error but wrote no outputs%s", l.Name, l.tail())
	default:
		outputs := &core.LiteralMap{}
		err := decode(l.Outputs, outputs)
		if errors.Is(err, aloft.ErrExhausted) {
			fail(core.ExecutionError_USER, false, CodeOutputTooLarge, "%s left an outputs.pb that is too large: %v", l.Name, err)
			return nil
		}
		if deep := deepOutputs(l.Outputs, outputs, err); len(deep) > 0 {
			fail(core.ExecutionError_USER, false, CodeOutputsUnreadable, "%s returned values that are nested too deep: %s. Lists, maps and unions may be nested in each other %d times; return what is deeper as a FlyteFile",
				l.Name, aloft.Excerpt(strings.Join(deep, ", ")), literal.MaxDepth)
			return nil
		}
		if err != nil {
			fail(core.ExecutionError_USER, true, CodeOutputsUnreadable, "%s left an outputs.pb that cannot be read: %v", l.Name, err)
			return nil
		}
		var missing []string
		for name := range l.Declared {
			if _, ok := outputs.GetLiterals()[name]; !ok {
				missing = append(missing, name)
			}
		}
		if slices.Sort(missing); len(missing) > 0 {
			fail(core.ExecutionError_USER, true, CodeOutputsNotFound, "%s wrote its outputs without %s", l.Name, strings.Join(missing, ", "))
			return nil
		}
		return outputs
	}
	return nil
}

// decode reads what a task wrote, unless it would take too much memory, then the error is aloft.ErrExhausted, or is nested
// deeper than maxNesting.
func decode(content []byte, m proto.Message) error {
	if _, err := weight.Protobuf(m.ProtoReflect().Descriptor(), content); err != nil {
		return err
	}
	return proto.UnmarshalOptions{RecursionLimit: maxNesting}.Unmarshal(content, m)
}

// maxNesting is how deep messages may be nested in the files that a task left. The protobuf runtime reads 10,000 levels, but not
// all of them are for the task: the inbox, the records, answers and the inputs of other nodes wrap outputs in messages of their
// own, and a message that cannot be read there stops its execution. Python clients read 100 levels.
const maxNesting = 1000

// deepOutputs are the names of the outputs that are nested deeper than literal.MaxDepth. If outputs.pb could not be decoded (err)
// because structs or types in it are nested deeper than maxNesting, it is the name of the first such output.
func deepOutputs(content []byte, outputs *core.LiteralMap, err error) (deep []string) {
	if err != nil {
		if name, deeper := weight.Deeper(outputs.ProtoReflect().Descriptor(), content, maxNesting); deeper {
			deep = append(deep, name)
		}
		return deep
	}
	for name, l := range outputs.GetLiterals() {
		if literal.Deep(l) {
			deep = append(deep, name)
		}
	}
	slices.Sort(deep)
	return deep
}

// reported translates what flytekit wrote into error.pb. In that file a value that the task
// cannot decode, most often an input, counts as a failure of the platform, which would be tried again. But each try finds the same
// value: the failure is the user's, and not recoverable.
func reported(e *core.ContainerError) *aloftv1.Failure {
	kind, recoverable := core.ExecutionError_USER, e.GetKind() == core.ContainerError_RECOVERABLE
	switch {
	case e.GetOrigin() != core.ExecutionError_SYSTEM:
	case undecodable.MatchString(e.GetMessage()):
		recoverable = false
	default:
		kind = core.ExecutionError_SYSTEM
	}
	f := NewFailure(kind, recoverable, e.GetCode(), e.GetMessage())
	if e.GetTimestamp().CheckValid() == nil { // another timestamp cannot be written as JSON, nor read in Python
		f.Error.Timestamp = e.GetTimestamp()
	}
	f.Error.Worker = e.GetWorker()
	return f
}

// describeSignal is a signal's number, with name and meaning if the signal has them.
func describeSignal(number int) string {
	s := syscall.Signal(number)
	if name := unix.SignalName(s); name != "" {
		return fmt.Sprintf("signal %d (%s, %v)", number, name, s)
	}
	return fmt.Sprintf("signal %d", number)
}

// because is the Reason as the end of a sentence.
func (l Left) because() string {
	if l.Reason == "" {
		return ""
	}
	return ": " + l.Reason
}

// tail is the Tail as the end of a message.
func (l Left) tail() string {
	if l.Tail == "" {
		return ""
	}
	return "\nIts last output was:\n" + l.Tail
}

// MaxMessage bounds the text of a failure; the middle of a longer one is left out. Source: flyte-execution reference 4.5.
const MaxMessage = 102_400

// NewFailure makes a failure, its message bounded and valid UTF-8.
func NewFailure(kind core.ExecutionError_ErrorKind, recoverable bool, code, message string) *aloftv1.Failure {
	message = strings.ToValidUTF8(message, "\uFFFD")
	if len(message) > MaxMessage {
		half := (MaxMessage - 40) / 2
		message = strings.ToValidUTF8(message[:half], "") + " ... <Message Truncated> ... " + strings.ToValidUTF8(message[len(message)-half:], "")
	}
	return &aloftv1.Failure{Error: &core.ExecutionError{Code: code, Message: strings.TrimRight(message, " \n"), Kind: kind}, Recoverable: recoverable}
}

// LostInput is the failure of an attempt whose inputs are gone; reasons names them. No other attempt would find them, and to
// compute them again within the execution would let a node succeed twice: a recovery computes them again.
func LostInput(job *Job, reasons []string) *aloftv1.Failure {
	e := job.ID.Execution
	return NewFailure(core.ExecutionError_SYSTEM, false, CodeInputLost, fmt.Sprintf(
		"what %s was to be given is gone:\n%s\nRun `aloft recover -p %s -d %s %s`: it computes again what is not there any more. What a client had uploaded must be given anew.",
		job.ID.Node, strings.Join(reasons, "\n"), e.Project, e.Domain, e.Name))
}

// FailedToStart is the outcome of a job that did not start, with the failure that says why.
func FailedToStart(job *Job, f *aloftv1.Failure, now time.Time) *aloftv1.Outcome {
	o := job.Outcome()
	o.EndedAt = now.UnixNano()
	if f.Error.Timestamp == nil {
		f.Error.Timestamp = timestamppb.New(now)
	}
	o.Result = &aloftv1.Outcome_Failure{Failure: f}
	return o
}
