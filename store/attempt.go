package store

import (
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// AttemptKey names an attempt. A caller whose token is not the attempt's means a superseded one, and is refused.
type AttemptKey struct {
	Execution Key
	Node      aloft.NodeID
	Attempt   uint32
	Token     string
}

// Attempt is the record of one try of a node: a task execution to clients, a piece of work to executors.
//
// The engine owns Phase, Error, Stop, NotBefore, Outputs, Objects and the times; executors own Executor and Waiting, and
// through Assign the phase INITIALIZING until the engine has seen the start.
type Attempt struct {
	AttemptKey
	ID          aloft.AttemptID
	Spec        *aloftv1.AttemptSpec
	Phase       core.TaskExecution_Phase // QUEUED, INITIALIZING (assigned), RUNNING, SUCCEEDED, FAILED, RETRYABLE_FAILED, ABORTED
	ByEngine    bool                     // the engine runs it itself: executors never see it
	Executor    string                   // the instance that it is assigned to; empty: none yet
	Waiting     string                   // why it is not started, assigned or not; empty: no executor has looked at it yet, or it is started
	NotBefore   time.Time                // zero: at once
	Stop        string                   // why it is to be stopped; empty: it is not
	CreatedAt   time.Time
	StartedAt   time.Time // zero: it never ran
	UpdatedAt   time.Time
	EndedAt     time.Time // zero: not yet
	Error       *core.ExecutionError
	Lost        bool // its executor is gone for good, or cannot find out how it ended
	DeckURI     string
	Outputs     *aloftv1.LiteralRef     // nil: none
	Objects     []*aloftv1.ObjectDigest // the objects that the outputs refer to
	Environment string                  // digest of the environment that it ran in
	Usage       *aloftv1.AttemptUsage
	Unreadable  error // ErrUnreadable: what of the record is damaged and left out; nil: nothing
}

// Instance is a running executor.
type Instance struct {
	ID       string // unique for ever
	Kind     string // "process", "kube"
	Place    string // instances of the same place can reach each other's attempts: the data folder, the cluster
	Nonce    string // of the process that runs the instance now, made anew at each start; empty: a process of release 0.1.0
	Follows  string // in a heartbeat: the nonce of the earlier process that this one replaces; not stored
	MilliCPU int64
	Memory   int64 // bytes
	Slots    int64
	SeenAt   time.Time // its last heartbeat
	Expires  time.Time // when it counts as gone
}

// Report is a message about an attempt from its executor.
type Report struct {
	Attempt AttemptKey
	Inbox   *aloftv1.Inbox // AttemptStarted or Outcome
}
