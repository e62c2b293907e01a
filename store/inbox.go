package store

import (
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// CreateDedup is the deduplication key of every execution's first message.
const CreateDedup = "create"

// SameCreation says whether the execution that has a name was made by this very message. A client that did not learn the
// outcome of a creation repeats it with the same seed, and no other creation has that seed. Unread is the execution's message
// of CreateDedup, or nil once it was consumed; journal begins with the first entry and reaches at least to the entry that
// consumed the message: entries before that one only say what the execution waited for.
func SameCreation(create, unread *aloftv1.Inbox, journal []*aloftv1.JournalEntry) bool {
	there := unread.GetCreate()
	for _, entry := range journal {
		for _, e := range entry.GetEvents() {
			if started := e.GetExecutionStarted(); started != nil {
				there = started.GetCreate()
			}
		}
	}
	seed := create.GetCreate().GetSeed()
	return seed != "" && there.GetSeed() == seed
}

// TerminateDedup is the deduplication key of the message that asks for an execution's end. While it is unread, no step
// ends the execution in another phase than ABORTED: see Store.Commit.
const TerminateDedup = "terminate"

// EndsUnasked says whether a step ends its execution by itself, in a phase that an unread request to terminate forbids.
func (c *ExecutionChange) EndsUnasked() bool {
	return c != nil && aloft.Terminal(c.Phase) && c.Phase != core.WorkflowExecution_ABORTED
}

// ShardOf is the shard of an execution: by its id, so that it is known before there is a row.
func ShardOf(id aloft.ExecutionID) int {
	h := fnv.New32a()
	h.Write([]byte(id.String()))
	return int(h.Sum32() % Shards)
}

// ReportDedup is the deduplication key of an executor's message about an attempt: of its kind, node, attempt and token.
// A message of any other kind is ErrInvalid.
func ReportDedup(report Report) (string, error) {
	var kind string
	switch report.Inbox.GetKind().(type) {
	case *aloftv1.Inbox_AttemptStarted:
		kind = "started"
	case *aloftv1.Inbox_Outcome:
		kind = "outcome"
	default:
		return "", fmt.Errorf("report on %s: only that it started and its outcome can be reported: %w", report.Attempt.Node, aloft.ErrInvalid)
	}
	a := report.Attempt
	return kind + "/" + string(a.Node) + "/" + strconv.FormatUint(uint64(a.Attempt), 10) + "/" + a.Token, nil
}

// StoppedUnstarted is the outcome that a commit puts into the inbox for an attempt that is to be stopped and has no executor:
// no executor would ever report its end.
func StoppedUnstarted(a *Attempt) Message {
	inbox := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: &aloftv1.Outcome{
		Node: string(a.Node), Attempt: a.Attempt, Token: a.Token, EndedAt: a.UpdatedAt.UnixNano(),
		Result: &aloftv1.Outcome_Stopped{Stopped: a.Stop},
	}}}
	dedup, _ := ReportDedup(Report{Attempt: a.AttemptKey, Inbox: inbox}) // an Outcome always has one
	return Message{Dedup: dedup, Inbox: inbox}
}

// WakesExecutors says whether a commit of this attempt concerns executors: it was scheduled, is to be stopped, or has
// ended. An attempt that the engine runs itself never concerns them.
func WakesExecutors(a *Attempt) bool {
	return !a.ByEngine && (a.Phase == core.TaskExecution_QUEUED || a.Stop != "" || aloft.Terminal(a.Phase))
}
