package sqlstore

import (
	"database/sql/driver"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// How Go values are stored in columns. Callers encode before they submit a job, so an error of encoding concerns no other job.

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func instant(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// optional is NULL for an empty text.
func optional(text string) driver.Value {
	if text == "" {
		return nil
	}
	return text
}

// encoder collects the values of rows and the first error.
type encoder struct {
	values []driver.Value
	err    error
}

func (e *encoder) add(values ...driver.Value) { e.values = append(e.values, values...) }

// empty stands for a message in which nothing is set. Drivers do not tell an empty blob from NULL, and no message that is
// not empty can begin with a zero byte.
var empty = []byte{0}

// blob is NULL for a nil message, and never NULL for an empty one.
func (e *encoder) blob(m proto.Message) driver.Value {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, 64), m)
	if err != nil && e.err == nil {
		e.err = err
	}
	if len(b) == 0 {
		return empty
	}
	return b
}

// unmarshal reads what blob made.
func unmarshal(column []byte, m proto.Message) error {
	if len(column) == 1 && column[0] == empty[0] {
		return nil
	}
	return proto.Unmarshal(column, m)
}

// decoder collects the first error of the columns of a row.
type decoder struct{ err error }

// into fills a message from a column; NULL is a nil message.
func into[M proto.Message](d *decoder, m M, column []byte) M {
	var none M
	if column == nil {
		return none
	}
	if err := unmarshal(column, m); err != nil {
		if d.err == nil {
			d.err = err
		}
		return none
	}
	return m
}

// unreadable is the error of a row that could not be understood; nil: it could.
func (d *decoder) unreadable(noun string, id fmt.Stringer) error {
	if d.err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w: %w", noun, id, aloft.ErrUnreadable, d.err)
}

// rowFailure is unreadable for a row of a list, which has what could be understood of it: the error is shown as its failure, too,
// unless it has one.
func (d *decoder) rowFailure(noun string, id fmt.Stringer, failure *core.ExecutionError) (*core.ExecutionError, error) {
	err := d.unreadable(noun, id)
	if err != nil && failure == nil {
		failure = &core.ExecutionError{Code: "Unreadable", Kind: core.ExecutionError_SYSTEM, Message: err.Error()}
	}
	return failure, err
}

const (
	flagParent = 1 << iota
	flagDynamic
	flagArray
)

const nodeColumns = 21

var writeNodes = newBulkInsert(nodeColumns, `INSERT INTO nodes (execution, node, parent, spec_node_id, name, retry_group, flags, phase, ended,
	created_at, started_at, updated_at, ended_at, deck_uri, error, target, metadata, inputs, outputs, cache, waiting)`,
	`ON CONFLICT (execution, node) DO UPDATE SET parent = excluded.parent, spec_node_id = excluded.spec_node_id, name = excluded.name,
	retry_group = excluded.retry_group, flags = excluded.flags, phase = excluded.phase, ended = excluded.ended,
	started_at = excluded.started_at, updated_at = excluded.updated_at, ended_at = excluded.ended_at, deck_uri = excluded.deck_uri,
	error = excluded.error, target = excluded.target, metadata = COALESCE(excluded.metadata, nodes.metadata),
	inputs = COALESCE(excluded.inputs, nodes.inputs), outputs = COALESCE(excluded.outputs, nodes.outputs),
	cache = COALESCE(excluded.cache, nodes.cache), waiting = excluded.waiting
	WHERE nodes.ended = 0 OR nodes.phase = excluded.phase`)

func (e *encoder) node(execution store.Key, n *store.Node) {
	flags := flag(n.IsParent)*flagParent | flag(n.IsDynamic)*flagDynamic | flag(n.IsArray)*flagArray
	e.add(int64(execution), string(n.ID), optional(string(n.Parent)), optional(n.SpecNodeID), optional(n.Name), optional(n.RetryGroup),
		flags, int64(n.Phase), flag(aloft.Terminal(n.Phase)), nanos(n.CreatedAt), nanos(n.StartedAt), nanos(n.UpdatedAt), nanos(n.EndedAt),
		optional(n.DeckURI), e.blob(n.Error), e.blob(n.Target), e.blob(n.Metadata), e.blob(n.Inputs), e.blob(n.Outputs),
		e.blob(n.Cache), optional(n.Waiting))
}

const attemptColumns = 23

// The engine's QUEUED (1) does not undo the INITIALIZING (6) of an executor that has the attempt already.
var writeAttempts = newBulkInsert(attemptColumns, `INSERT INTO attempts (execution, node, attempt, token, phase, ended, by_engine, lost, not_before,
	created_at, started_at, updated_at, ended_at, executor, waiting, stop, deck_uri, environment, error, outputs, objects, usage, spec)`,
	`ON CONFLICT (execution, node, attempt) DO UPDATE SET
	phase = CASE WHEN excluded.phase = 1 AND attempts.executor IS NOT NULL THEN 6 ELSE excluded.phase END,
	waiting = CASE WHEN excluded.phase = 1 AND attempts.executor IS NULL THEN attempts.waiting END,
	ended = excluded.ended, lost = excluded.lost, not_before = excluded.not_before, started_at = excluded.started_at,
	updated_at = excluded.updated_at, ended_at = excluded.ended_at, stop = excluded.stop, deck_uri = excluded.deck_uri,
	environment = COALESCE(excluded.environment, attempts.environment), error = excluded.error, outputs = excluded.outputs,
	objects = COALESCE(excluded.objects, attempts.objects), usage = COALESCE(excluded.usage, attempts.usage)
	WHERE attempts.token = excluded.token AND (attempts.ended = 0 OR attempts.phase = excluded.phase)`)

func (e *encoder) attempt(execution store.Key, a *store.Attempt) {
	var objects driver.Value
	if len(a.Objects) > 0 {
		objects = e.blob(&aloftv1.Outcome{Objects: a.Objects})
	}
	e.add(int64(execution), string(a.Node), int64(a.Attempt), a.Token, int64(a.Phase), flag(aloft.Terminal(a.Phase)), flag(a.ByEngine),
		flag(a.Lost), nanos(a.NotBefore), nanos(a.CreatedAt), nanos(a.StartedAt), nanos(a.UpdatedAt), nanos(a.EndedAt), optional(a.Executor),
		optional(a.Waiting), optional(a.Stop), optional(a.DeckURI), optional(a.Environment), e.blob(a.Error), e.blob(a.Outputs), objects,
		e.blob(a.Usage), e.blob(a.Spec))
}
