package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
	"github.com/aloft-dev/aloft/store"
)

const resultColumns = 21

// A result is not written if its id is there, or its tag names another result already: then the step is refused (takenError).
var writeResults = newBulkInsert(resultColumns, `INSERT INTO results (id, project, domain, name, version, tag, created_at, used_at, size, pinned, gone_at,
	gone_reason, source_project, source_domain, source_execution, source_node, source_attempt, outputs, objects, cache_key, artifact)`,
	"ON CONFLICT DO NOTHING")

func (e *encoder) result(r *store.Result) {
	used := r.UsedAt
	if used.IsZero() {
		used = r.CreatedAt
	}
	var objects, artifact driver.Value
	if len(r.Objects) > 0 {
		objects = e.blob(&aloftv1.Outcome{Objects: r.Objects})
	}
	if len(r.Metadata)+len(r.Partitions) > 0 {
		a := &datacatalog.Artifact{Metadata: &datacatalog.Metadata{KeyMap: r.Metadata}}
		for key, value := range r.Partitions {
			a.Partitions = append(a.Partitions, &datacatalog.Partition{Key: key, Value: value})
		}
		artifact = e.blob(a)
	}
	source := r.Source.Execution
	e.add(r.ID, r.Project, r.Domain, r.Name, r.Version, optional(r.Tag), nanos(r.CreatedAt), nanos(used), r.Size, flag(r.Pinned), nanos(r.GoneAt),
		optional(r.GoneReason), optional(source.Project), optional(source.Domain), optional(source.Name), optional(string(r.Source.Node)),
		int64(r.Source.Attempt), e.blob(r.Outputs), objects, e.blob(r.Key), artifact)
}

// encodeResults sorts the results, so that two servers that write the same results do not wait for each other for ever, and
// results of one dataset stand side by side.
func encodeResults(results []*store.Result, errs *encoder) []driver.Value {
	if len(results) == 0 {
		return nil
	}
	results = slices.Clone(results)
	slices.SortFunc(results, func(a, b *store.Result) int {
		return strings.Compare(store.WaitForResult(a.ResultID), store.WaitForResult(b.ResultID))
	})
	e := encoder{values: make([]driver.Value, 0, len(results)*resultColumns)}
	for _, r := range results {
		e.result(r)
	}
	if errs.err == nil {
		errs.err = e.err
	}
	return e.values
}

func datasetRecord(e *encoder, metadata map[string]string, partitions []string) driver.Value {
	if len(metadata)+len(partitions) == 0 {
		return nil
	}
	return e.blob(&datacatalog.Dataset{Metadata: &datacatalog.Metadata{KeyMap: metadata}, PartitionKeys: partitions})
}

const (
	writeDataset = `INSERT INTO datasets (project, domain, name, version, created_at, record) VALUES (?,?,?,?,?,?)
		ON CONFLICT (project, domain, name, version) DO NOTHING`
	replaceResult = `UPDATE results SET gone_at = ?, gone_reason = ? WHERE project = ? AND domain = ? AND name = ? AND version = ? AND tag = ?
		AND gone_at = 0 AND tag IS NOT NULL AND id <> ?`
	replaceTagged = `UPDATE results SET gone_at = ?, gone_reason = ? WHERE gone_at = 0 AND id <> ? AND id IN (SELECT result FROM result_tags
		WHERE project = ? AND domain = ? AND name = ? AND version = ? AND tag = ?)`
	forgetTags = `DELETE FROM result_tags WHERE project = ? AND domain = ? AND name = ? AND version = ?
		AND EXISTS (SELECT 1 FROM results r WHERE r.id = result_tags.result AND r.gone_at <> 0)`
)

// encodedRelease is a reservation that is given back, with the message for its waiters.
type encodedRelease struct {
	on, owner      string
	dedup, message driver.Value
}

// giveBack wakes the waiters and deletes them and the reservation, if it is the owner's.
func (r encodedRelease) giveBack(t *tx) error {
	if err := t.execLater(`INSERT INTO inbox (execution, shard, dedup, message) SELECT e.number, e.shard, ?, ? FROM executions e
		JOIN reservation_waiters w ON w.execution = e.number JOIN reservations h ON h.result = w.result
		WHERE w.result = ? AND h.owner = ? AND e.ended = 0 {hold_execution} ON CONFLICT (execution, dedup) DO NOTHING`,
		[]driver.Value{r.dedup, r.message, r.on, r.owner}, func(rows int64) error {
			if rows > 0 {
				t.wake(store.TopicInbox)
			}
			return nil
		}); err != nil {
		return err
	}
	if err := t.execLater("DELETE FROM reservation_waiters WHERE result = ? AND EXISTS (SELECT 1 FROM reservations h WHERE h.result = ? AND h.owner = ?)",
		[]driver.Value{r.on, r.on, r.owner}, nil); err != nil {
		return err
	}
	return t.execLater("DELETE FROM reservations WHERE result = ? AND owner = ?", []driver.Value{r.on, r.owner}, nil)
}

// release encodes the message for the waiters.
func (e *encoder) release(on, owner, occasion string) encodedRelease {
	m := store.ResultWake(on, occasion)
	return encodedRelease{on, owner, m.Dedup, e.blob(m.Inbox)}
}

// releasedReservations are the reservations that the step gives back.
func (e *encodedStep) releasedReservations(t *tx) ([]encodedRelease, error) {
	if !e.ReleasesAll {
		return e.releases, nil
	}
	all := slices.Clone(e.releases)
	var on, owner string
	var enc encoder
	err := t.each([]any{&on, &owner}, func() error {
		all = append(all, enc.release(on, owner, e.CommitID))
		return enc.err
	}, "SELECT result, owner FROM reservations WHERE execution = ? ORDER BY result", int64(e.Execution))
	return all, err
}

// writeCatalog makes the step's results findable and gives reservations back.
func (e *encodedStep) writeCatalog(t *tx, releases []encodedRelease) error {
	var last store.ResultID
	for i, r := range e.Results {
		if d := r.ResultID.Dataset(); i == 0 || d != last {
			last = d
			var enc encoder
			record := datasetRecord(&enc, r.Dataset, nil)
			if enc.err != nil {
				return refuse("commit %s: encode: %w", e.ID, enc.err)
			}
			if err := t.execLater(writeDataset, []driver.Value{r.Project, r.Domain, r.Name, r.Version, nanos(r.CreatedAt), record}, nil); err != nil {
				return err
			}
		}
		if !e.Overwrite {
			continue
		}
		if err := replaceNamed(t, r.ResultID, r.ID, r.CreatedAt); err != nil {
			return err
		}
	}
	if len(e.results) > 0 {
		if err := t.openSavepoint(); err != nil {
			return err
		}
		if err := t.conn.insertLater(writeResults, e.results, func(rows int64) error {
			if rows != int64(len(e.Results)) {
				return refuse("%w", errTaken)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for _, r := range releases {
		if err := r.giveBack(t); err != nil {
			return err
		}
	}
	return nil
}

// errTaken refuses a step whose results were not all written. Which results are in their place is read after the transaction.
var errTaken = errors.New("a result is there already")

// takenError finds the results that are in the place of those of a refused step.
func (s *Store) takenError(ctx context.Context, step *store.Step) error {
	by := make(map[store.ResultID]*store.Result)
	tags := make([]store.ResultID, len(step.Results))
	for i, r := range step.Results {
		tags[i] = r.ResultID
	}
	found, err := s.FindResults(ctx, tags)
	if err != nil {
		return fmt.Errorf("commit %s: %w", step.ID, err)
	}
	for i, r := range step.Results {
		if found[i] == nil {
			switch found[i], err = s.GetResult(ctx, r.ID); {
			case errors.Is(err, aloft.ErrNotFound):
				continue
			case err != nil:
				return fmt.Errorf("commit %s: %w", step.ID, err)
			}
		} else if step.Overwrite {
			continue
		}
		found[i].Outputs, found[i].Objects = nil, nil
		by[r.ResultID] = found[i]
	}
	if len(by) == 0 { // they are gone since
		return fmt.Errorf("commit %s: a result was there already: %w", step.ID, aloft.ErrConflict)
	}
	return fmt.Errorf("commit %s: %w", step.ID, &store.TakenError{By: by})
}

// replaceNamed makes the result that a tag names gone, for the result with the id by.
func replaceNamed(t *tx, id store.ResultID, by string, now time.Time) error {
	reason := "replaced by " + by
	if err := t.execLater(replaceResult, []driver.Value{nanos(now), reason, id.Project, id.Domain, id.Name, id.Version, id.Tag, by}, nil); err != nil {
		return err
	}
	if err := t.execLater(replaceTagged, []driver.Value{nanos(now), reason, by, id.Project, id.Domain, id.Name, id.Version, id.Tag}, nil); err != nil {
		return err
	}
	return t.execLater(forgetTags, []driver.Value{id.Project, id.Domain, id.Name, id.Version}, nil)
}

const selectResults = `SELECT r.id, r.project, r.domain, r.name, r.version, COALESCE(r.tag, ''), r.created_at, r.used_at, r.size, r.pinned, r.gone_at,
	COALESCE(r.gone_reason, ''), COALESCE(r.source_project, ''), COALESCE(r.source_domain, ''), COALESCE(r.source_execution, ''),
	COALESCE(r.source_node, ''), r.source_attempt, r.cache_key, r.artifact, d.record,
	CASE WHEN EXISTS (SELECT 1 FROM result_tags g WHERE g.result = r.id) THEN 1 ELSE 0 END`

const fromResults = ` FROM results r LEFT JOIN datasets d ON d.project = r.project AND d.domain = r.domain AND d.name = r.name AND d.version = r.version `

// results reads results; whole: with their outputs and objects.
func (s *Store) results(ctx context.Context, keep, whole bool, rest string, args ...any) ([]*store.Result, error) {
	values := ", NULL, NULL"
	if whole {
		values = ", r.outputs, r.objects"
	}
	var found, named []*store.Result // named: results with further tags, which are rare
	err := s.read(ctx, keep, selectResults+values+fromResults+rest, args, func(scan scan) error {
		e := new(store.Result)
		var createdAt, usedAt, pinned, goneAt, attempt, tags int64
		var key, artifact, dataset, outputs, objects []byte
		source := &e.Source
		if err := scan(&e.ID, &e.Project, &e.Domain, &e.Name, &e.Version, &e.Tag, &createdAt, &usedAt, &e.Size, &pinned, &goneAt, &e.GoneReason,
			&source.Execution.Project, &source.Execution.Domain, &source.Execution.Name, &source.Node, &attempt, &key, &artifact, &dataset, &tags,
			&outputs, &objects); err != nil {
			return err
		}
		source.Attempt = uint32(attempt)
		e.CreatedAt, e.UsedAt, e.GoneAt, e.Pinned = instant(createdAt), instant(usedAt), instant(goneAt), pinned != 0
		var d decoder
		e.Key = into(&d, new(aloftv1.CacheKey), key)
		if a := into(&d, new(datacatalog.Artifact), artifact); a != nil {
			e.Metadata = a.GetMetadata().GetKeyMap()
			for _, p := range a.GetPartitions() {
				if e.Partitions == nil {
					e.Partitions = make(map[string]string)
				}
				e.Partitions[p.GetKey()] = p.GetValue()
			}
		}
		e.Outputs = into(&d, new(aloftv1.Literals), outputs)
		e.Objects = into(&d, new(aloftv1.Outcome), objects).GetObjects()
		e.Unreadable = d.unreadable("result", plainID(e.ID))
		e.Dataset = datasetMetadata(dataset)
		found = append(found, e)
		if tags != 0 {
			named = append(named, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, e := range named {
		if err := s.read(ctx, true, "SELECT tag FROM result_tags WHERE result = ? ORDER BY tag", []any{e.ID}, func(scan scan) error {
			var tag string
			err := scan(&tag)
			e.Tags = append(e.Tags, tag)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// datasetMetadata is the metadata of a dataset; nil if its record cannot be understood, which makes no result unreadable.
func datasetMetadata(record []byte) map[string]string {
	var d decoder
	return into(&d, new(datacatalog.Dataset), record).GetMetadata().GetKeyMap()
}

// plainID is an id in messages.
type plainID string

func (id plainID) String() string { return string(id) }

// onlyResult is the only result found, or ErrNotFound.
func onlyResult(found []*store.Result, err error, what string) (*store.Result, error) {
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("result %s: %w", what, aloft.ErrNotFound)
	}
	return found[0], nil
}

// FindResult returns the result that a tag names.
func (s *Store) FindResult(ctx context.Context, id store.ResultID) (*store.Result, error) {
	found, err := s.results(ctx, true, true, "WHERE r.project = ? AND r.domain = ? AND r.name = ? AND r.version = ? AND r.tag = ? AND r.gone_at = 0 AND r.tag IS NOT NULL",
		id.Project, id.Domain, id.Name, id.Version, id.Tag)
	if err == nil && len(found) == 0 {
		found, err = s.results(ctx, true, true, `WHERE r.gone_at = 0 AND r.id IN (SELECT g.result FROM result_tags g
			WHERE g.project = ? AND g.domain = ? AND g.name = ? AND g.version = ? AND g.tag = ?)`, id.Project, id.Domain, id.Name, id.Version, id.Tag)
	}
	return onlyResult(found, err, store.WaitForResult(id))
}

// hitColumns are the columns that are needed to use a result, for results of one dataset.
const hitColumns = `r.id, COALESCE(r.tag, ''), r.created_at, COALESCE(r.source_project, ''), COALESCE(r.source_domain, ''), COALESCE(r.source_execution, ''),
	COALESCE(r.source_node, ''), r.source_attempt, r.outputs, r.objects,
	(SELECT d.record FROM datasets d WHERE d.project = ? AND d.domain = ? AND d.name = ? AND d.version = ?)`

// The two ways from a tag to a result, as in FindResult, for several tags of a dataset.
var (
	byTags = newInQuery([]int{1, 4, 16, 64}, "SELECT r.tag, "+hitColumns+` FROM results r
		WHERE r.project = ? AND r.domain = ? AND r.name = ? AND r.version = ? AND r.gone_at = 0 AND r.tag IS NOT NULL AND r.tag IN `, "")
	byFurtherTags = newInQuery([]int{1, 4, 16, 64}, "SELECT g.tag, "+hitColumns+` FROM result_tags g JOIN results r ON r.id = g.result
		WHERE g.project = ? AND g.domain = ? AND g.name = ? AND g.version = ? AND r.gone_at = 0 AND g.tag IN `, "")
)

// FindResults returns the results that several tags name.
func (s *Store) FindResults(ctx context.Context, ids []store.ResultID) ([]*store.Result, error) {
	found := make(map[store.ResultID]*store.Result, len(ids))
	for _, way := range []inQuery{byTags, byFurtherTags} {
		open := make(map[store.ResultID][]string) // tags without a result so far, by their dataset
		for _, id := range ids {
			if found[id] == nil && id.Tag != "" {
				d := id.Dataset()
				open[d] = append(open[d], id.Tag)
			}
		}
		for of, tags := range open {
			for len(tags) > 0 {
				text, places := way.fit(len(tags))
				n := min(places, len(tags))
				if err := s.readHits(ctx, text, places, of, tags[:n], found); err != nil {
					return nil, err
				}
				tags = tags[n:]
			}
		}
	}
	all := make([]*store.Result, len(ids))
	for i, id := range ids {
		all[i] = found[id]
	}
	return all, nil
}

// readHits adds to found the results that a statement with some places finds for tags of a dataset.
func (s *Store) readHits(ctx context.Context, statement string, places int, of store.ResultID, tags []string, found map[store.ResultID]*store.Result) error {
	args := make([]any, 0, 8+places)
	args = append(args, of.Project, of.Domain, of.Name, of.Version, of.Project, of.Domain, of.Name, of.Version)
	for i := range places {
		args = append(args, tags[min(i, len(tags)-1)])
	}
	var stated map[string]string // the dataset's metadata, once it was read
	return s.read(ctx, true, statement, args, func(scan scan) error {
		e := &store.Result{ResultID: of}
		var createdAt, attempt int64
		var outputs, objects, dataset sql.RawBytes
		source, asked := &e.Source, of
		if err := scan(&asked.Tag, &e.ID, &e.Tag, &createdAt, &source.Execution.Project, &source.Execution.Domain, &source.Execution.Name,
			&source.Node, &attempt, &outputs, &objects, &dataset); err != nil {
			return err
		}
		source.Attempt, e.CreatedAt = uint32(attempt), instant(createdAt)
		var d decoder
		if stated == nil && dataset != nil {
			stated = datasetMetadata(dataset)
		}
		e.Dataset = stated
		e.Outputs = into(&d, new(aloftv1.Literals), outputs)
		e.Objects = into(&d, new(aloftv1.Outcome), objects).GetObjects()
		e.Unreadable = d.unreadable("result", plainID(e.ID))
		found[asked] = e
		return nil
	})
}

// GetResult returns a result by its id.
func (s *Store) GetResult(ctx context.Context, id string) (*store.Result, error) {
	found, err := s.results(ctx, true, true, "WHERE r.id = ?", id)
	return onlyResult(found, err, id)
}

// resultNamed is the id of the result that a tag names now; empty: none.
func resultNamed(t *tx, id store.ResultID) (result string, err error) {
	found, err := t.row([]any{&result}, `SELECT id FROM results WHERE project = ? AND domain = ? AND name = ? AND version = ? AND tag = ? AND gone_at = 0
		AND tag IS NOT NULL`, id.Project, id.Domain, id.Name, id.Version, id.Tag)
	if err != nil || found {
		return result, err
	}
	_, err = t.row([]any{&result}, "SELECT result FROM result_tags WHERE project = ? AND domain = ? AND name = ? AND version = ? AND tag = ?",
		id.Project, id.Domain, id.Name, id.Version, id.Tag)
	return result, err
}

// PutResult adds a result from outside of the engine.
func (s *Store) PutResult(ctx context.Context, e *store.Result, overwrite bool) (*store.Result, error) {
	var enc encoder
	enc.result(e)
	record := datasetRecord(&enc, e.Dataset, nil)
	if enc.err != nil {
		return nil, fmt.Errorf("put result %s: encode: %w", e.ID, enc.err)
	}
	var now string // the id of the result that is there now
	err := s.write(ctx, 2+len(e.Tags), func(t *tx) error {
		now = e.ID
		if err := t.lock(datasetName(e.ResultID)); err != nil {
			return err
		}
		var known int64
		if _, err := t.row([]any{&known}, "SELECT COUNT(*) FROM results WHERE id = ?", e.ID); err != nil {
			return err
		}
		if known > 0 {
			return refuse("result %s: %w", e.ID, aloft.ErrExists)
		}
		tags := e.Tags
		if e.Tag != "" {
			tags = append([]string{e.Tag}, tags...)
		}
		for _, tag := range tags {
			id := e.ResultID
			id.Tag = tag
			there, err := resultNamed(t, id)
			switch {
			case err != nil:
				return err
			case there == "":
			case !overwrite:
				now = there
				return nil
			default:
				if err := replaceNamed(t, id, e.ID, e.CreatedAt); err != nil {
					return err
				}
			}
		}
		if _, err := t.exec(writeDataset, e.Project, e.Domain, e.Name, e.Version, nanos(e.CreatedAt), record); err != nil {
			return err
		}
		if _, err := t.exec(writeResults.texts[len(writeResults.texts)-1], enc.values[:resultColumns]...); err != nil {
			return err
		}
		for _, tag := range e.Tags {
			if _, err := t.exec("INSERT INTO result_tags (project, domain, name, version, tag, result) VALUES (?,?,?,?,?,?)",
				e.Project, e.Domain, e.Name, e.Version, tag, e.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.GetResult(ctx, now)
}

// datasetName names a dataset for tx.lock.
func datasetName(id store.ResultID) string {
	return id.Project + "/" + id.Domain + "/" + id.Name + "/" + id.Version
}

// TagResult gives a result another tag.
func (s *Store) TagResult(ctx context.Context, id, tag string) error {
	return s.write(ctx, 1, func(t *tx) error {
		var e store.ResultID
		var gone int64
		found, err := t.row([]any{&e.Project, &e.Domain, &e.Name, &e.Version, &e.Tag, &gone},
			"SELECT project, domain, name, version, COALESCE(tag, ''), gone_at FROM results WHERE id = ?", id)
		if err != nil {
			return err
		}
		if !found || gone != 0 {
			return refuse("result %s: %w", id, aloft.ErrNotFound)
		}
		if err := t.lock(datasetName(e)); err != nil {
			return err
		}
		first := e.Tag == ""
		e.Tag = tag
		there, err := resultNamed(t, e)
		if err != nil {
			return err
		}
		if there != "" {
			return refuse("tag %s: %w", tag, aloft.ErrExists)
		}
		if first {
			_, err = t.exec("UPDATE results SET tag = ? WHERE id = ?", tag, id)
			return err
		}
		_, err = t.exec("INSERT INTO result_tags (project, domain, name, version, tag, result) VALUES (?,?,?,?,?,?)", e.Project, e.Domain, e.Name, e.Version, tag, id)
		return err
	})
}

// CreateDataset states a dataset.
func (s *Store) CreateDataset(ctx context.Context, d *store.Dataset) error {
	var enc encoder
	record := datasetRecord(&enc, d.Metadata, d.PartitionKeys)
	if enc.err != nil {
		return fmt.Errorf("create dataset %s: encode: %w", d.Name, enc.err)
	}
	return s.write(ctx, 1, func(t *tx) error {
		n, err := t.exec(writeDataset, d.Project, d.Domain, d.Name, d.Version, nanos(d.CreatedAt), record)
		if err == nil && n == 0 {
			return refuse("dataset %s/%s/%s/%s: %w", d.Project, d.Domain, d.Name, d.Version, aloft.ErrExists)
		}
		return err
	})
}

// datasetConditions are the conditions of a query that both datasets and results have.
func datasetConditions(q store.ResultQuery) (conditions []string, args []any) {
	for _, c := range []struct{ column, value string }{{"project", q.Project}, {"domain", q.Domain}, {"name", q.Name}, {"version", q.Version}} {
		if c.value != "" {
			conditions, args = append(conditions, c.column+" = ?"), append(args, c.value)
		}
	}
	return conditions, args
}

// orderAndPage is the rest of a list's statement: conditions, order and page.
func orderAndPage(prefix string, conditions []string, args []any, q store.ResultQuery) (string, []any) {
	where := ""
	if len(conditions) > 0 {
		where = "WHERE " + prefix + strings.Join(conditions, " AND "+prefix)
	}
	order := " DESC"
	if q.Ascending {
		order = ""
	}
	return where + " ORDER BY " + prefix + "number" + order + " LIMIT ? OFFSET ?", append(args, limitArg(q.Limit), int64(max(q.Offset, 0)))
}

// ListDatasets lists datasets.
func (s *Store) ListDatasets(ctx context.Context, q store.ResultQuery) ([]*store.Dataset, error) {
	conditions, args := datasetConditions(q)
	rest, args := orderAndPage("", conditions, args, q)
	var all []*store.Dataset
	err := s.read(ctx, false, "SELECT project, domain, name, version, created_at, record FROM datasets "+rest, args, func(scan scan) error {
		d := new(store.Dataset)
		var createdAt int64
		var record []byte
		if err := scan(&d.Project, &d.Domain, &d.Name, &d.Version, &createdAt, &record); err != nil {
			return err
		}
		d.CreatedAt = instant(createdAt)
		var dec decoder
		r := into(&dec, new(datacatalog.Dataset), record)
		d.Metadata, d.PartitionKeys = r.GetMetadata().GetKeyMap(), r.GetPartitionKeys()
		if err := dec.unreadable("dataset", plainID(d.Name)); err != nil { // its results are found all the same
			d.Metadata = map[string]string{"unreadable": err.Error()}
		}
		all = append(all, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// ListResults lists results without their outputs.
func (s *Store) ListResults(ctx context.Context, q store.ResultQuery) ([]*store.Result, error) {
	conditions, args := datasetConditions(q)
	conditions = append(conditions, "number > 0") // for the index results_dataset
	and := func(condition string, values ...any) {
		conditions, args = append(conditions, condition), append(args, values...)
	}
	if q.ID != "" {
		and("id = ?", q.ID)
	}
	if !q.Gone {
		and("gone_at = 0")
	}
	if !q.Before.IsZero() {
		and("created_at < ?", nanos(q.Before))
	}
	if q.Tag != "" {
		and("id IN (SELECT t.id FROM results t WHERE t.tag = ? UNION ALL SELECT g.result FROM result_tags g WHERE g.tag = ?)", q.Tag, q.Tag)
	}
	if x := q.Execution; x != nil {
		and("source_project = ?", x.GetProject())
		and("source_domain = ?", x.GetDomain())
		and("source_execution = ?", x.GetName())
	}
	rest, args := orderAndPage("r.", conditions, args, q)
	return s.results(ctx, false, false, rest, args...)
}

// updateResults runs a statement for each of the results, and returns how many it changed.
func (s *Store) updateResults(ctx context.Context, ids []string, statement string, args ...driver.Value) (changed int, err error) {
	err = s.write(ctx, len(ids), func(t *tx) error {
		changed = 0
		for _, id := range ids {
			n, err := t.exec(statement, append(slices.Clone(args), id)...)
			if err != nil {
				return err
			}
			changed += int(n)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// RemoveResults makes results gone.
func (s *Store) RemoveResults(ctx context.Context, ids []string, reason string, now time.Time) (int, error) {
	var changed int
	err := s.write(ctx, len(ids), func(t *tx) error {
		changed = 0
		for _, id := range ids {
			n, err := t.exec("UPDATE results SET gone_at = ?, gone_reason = ? WHERE gone_at = 0 AND id = ?", nanos(now), reason, id)
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			changed++
			if _, err := t.exec("DELETE FROM result_tags WHERE result = ?", id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// PinResults exempts results from limits, or ends that.
func (s *Store) PinResults(ctx context.Context, ids []string, pinned bool) (int, error) {
	return s.updateResults(ctx, ids, "UPDATE results SET pinned = ? WHERE gone_at = 0 AND pinned <> ? AND id = ?", flag(pinned), flag(pinned))
}

// UsedResults notes that results were found.
func (s *Store) UsedResults(ctx context.Context, ids []string, now time.Time) error {
	_, err := s.updateResults(ctx, ids, "UPDATE results SET used_at = ? WHERE used_at < ? AND id = ?", nanos(now), nanos(now))
	return err
}

// Reserve asks for the right to compute a result.
func (s *Store) Reserve(ctx context.Context, r store.Reservation, now time.Time) (holds store.Reservation, err error) {
	on := store.WaitForResult(r.ID)
	var execution, node driver.Value
	if r.Execution != 0 {
		execution, node = int64(r.Execution), string(r.Node)
	}
	err = s.write(ctx, 1, func(t *tx) error {
		// Servers that share a database go by its clock: the clock of one server must not end reservations made by another.
		r, now := r, now
		if s.dialect.clock != "" {
			var clock int64
			if _, err := t.row([]any{&clock}, "SELECT "+s.dialect.clock); err != nil {
				return err
			}
			if !r.Expires.IsZero() {
				r.Expires = instant(clock).Add(r.Expires.Sub(now))
			}
			now = instant(clock)
		}
		holds = r
		n, err := t.exec(`INSERT INTO reservations (result, owner, execution, node, heartbeat, expires) VALUES (?,?,?,?,?,?) ON CONFLICT (result) DO NOTHING`,
			on, r.Owner, execution, node, int64(r.Heartbeat), nanos(r.Expires))
		if err != nil || n > 0 {
			return err
		}
		old := store.Reservation{ID: r.ID}
		var key, heartbeat, expires int64
		var of string
		found, err := t.row([]any{&old.Owner, &key, &of, &heartbeat, &expires},
			"SELECT r.owner, COALESCE(r.execution, 0), COALESCE(r.node, ''), r.heartbeat, r.expires FROM reservations r WHERE r.result = ? {hold_reservation}", on)
		if err != nil {
			return err
		}
		if !found { // given back between the two statements
			return retryableRefusal{refuse("reserve %s: %w", on, aloft.ErrConflict)}
		}
		old.Execution, old.Node = store.Key(key), aloft.NodeID(of)
		old.Heartbeat, old.Expires = time.Duration(heartbeat), instant(expires)
		if old.Owner != r.Owner {
			alive := old.Expires.After(now)
			if old.Execution != 0 {
				var n int64
				if _, err := t.row([]any{&n}, `SELECT COUNT(*) FROM executions e WHERE e.number = ? AND e.ended = 0
					AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.execution = e.number AND n.node = ? AND n.ended = 1)`, key, of); err != nil {
					return err
				}
				alive = n > 0
			}
			if alive {
				holds = old
				if r.Execution == 0 {
					return nil
				}
				_, err := t.exec("INSERT INTO reservation_waiters (result, execution) VALUES (?,?) ON CONFLICT (result, execution) DO NOTHING", on, int64(r.Execution))
				return err
			}
		}
		_, err = t.exec("UPDATE reservations SET owner = ?, execution = ?, node = ?, heartbeat = ?, expires = ? WHERE result = ?",
			r.Owner, execution, node, int64(r.Heartbeat), nanos(r.Expires), on)
		return err
	})
	if err != nil {
		return store.Reservation{}, err
	}
	return holds, nil
}

// Release gives a reservation back.
func (s *Store) Release(ctx context.Context, id store.ResultID, owner string) error {
	var enc encoder
	r := enc.release(store.WaitForResult(id), owner, rand.Text())
	if enc.err != nil {
		return fmt.Errorf("release %s: %w", r.on, enc.err)
	}
	return s.write(ctx, 1, r.giveBack)
}
