package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Execution is the record of one execution.
type Execution struct {
	Key            Key
	Shard          int
	ID             aloft.ExecutionID
	Spec           *admin.ExecutionSpec // as resolved at creation; spec.launch_plan may be a task
	Workflow       *core.Identifier     // the compiled workflow that runs
	Task           *core.Identifier     // the task of a single-task execution; nil otherwise
	Inputs         *aloftv1.Literals    // complete: given, default and fixed
	UserInputs     *aloftv1.Literals    // as given: relaunch applies new defaults to them
	Notifications  []*admin.Notification
	Phase          core.WorkflowExecution_Phase // written by the engine only
	CreatedAt      time.Time
	StartedAt      time.Time // zero: not yet
	UpdatedAt      time.Time
	EndedAt        time.Time            // zero: not yet
	Error          *core.ExecutionError // why it failed; nil otherwise
	Outputs        *aloftv1.Literals    // nil: none yet
	AbortCause     string               // set once terminated
	AbortPrincipal string
	State          admin.ExecutionState // archived or not; independent of the phase
	StateChangedAt time.Time
	StatePrincipal string    // who changed the state last
	Waiting        string    // what the execution as a whole waits for; empty: nothing
	WaitingSince   time.Time // since when; zero: it does not wait
	Waits          int       // number of named external waits of the execution as a whole and of its nodes
	JournalVersion int       // an engine never claims an execution whose journal it cannot read
	Unreadable     error     // ErrUnreadable: what of the record is damaged and left out; nil: nothing
}

// JournalVersion is the version of the journal that this release writes for new executions. An execution keeps the version
// that it was created with, and nothing is written to its journal that a release of that version could not read: releases
// may run side by side. Versions: 1, the spine; 2, nodes that are cached, recovered or parked; 3, branches.
const JournalVersion = 3

// PlainJournalVersion is the version of the journal of an execution whose workflow has nothing that needs a later one: the release
// before runs it, too.
const PlainJournalVersion = 2

// Tag is what an execution can be found by: a label, or a tag, which is a key without a value.
type Tag struct{ Key, Value string }

// TagsOf returns the labels and tags of an execution in order, none of them twice. Flyte's filters do not tell them apart.
func TagsOf(spec *admin.ExecutionSpec) []Tag {
	var tags []Tag
	for key, value := range spec.GetLabels().GetValues() {
		tags = append(tags, Tag{key, value})
	}
	for _, key := range spec.GetTags() {
		tags = append(tags, Tag{Key: key})
	}
	slices.SortFunc(tags, func(a, b Tag) int { return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Value, b.Value)) })
	return slices.Compact(tags)
}
