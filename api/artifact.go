package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// maxArtifactBytes bounds a page of artifacts: each artifact is listed with its data, and an answer is one message.
const maxArtifactBytes = 16 << 20

// CreateArtifact adds a result. A result without tags is found by its id alone until AddTag gives it a tag.
func (s *dataCatalog) CreateArtifact(ctx context.Context, r *datacatalog.CreateArtifactRequest) (*datacatalog.CreateArtifactResponse, error) {
	var problems field.Problems
	a := r.GetArtifact()
	if a == nil {
		problems.Missing("artifact")
		return nil, fmt.Errorf("create artifact: %w", problems.Err())
	}
	id := datasetID(&problems, "artifact.dataset", a.GetDataset())
	problems.TextUpTo(maxDatasetText, "artifact.id", a.GetId())
	catalogMetadata(&problems, "artifact.metadata", a.GetMetadata().GetKeyMap())
	e := &store.Result{ResultID: id, ID: a.GetId(), Metadata: a.GetMetadata().GetKeyMap(), CreatedAt: s.Now()}
	for i, t := range a.GetTags() {
		where := fmt.Sprintf("artifact.tags[%d]", i)
		problems.TextUpTo(aloft.MaxResultTag, where+".name", t.GetName())
		if t.GetName() == e.Tag || slices.Contains(e.Tags, t.GetName()) {
			continue
		}
		if e.Tag == "" {
			e.Tag = t.GetName()
		} else {
			e.Tags = append(e.Tags, t.GetName())
		}
	}
	slices.Sort(e.Tags)
	e.Partitions = s.partitions(ctx, &problems, id, a.GetPartitions())
	if err := s.completeResult(ctx, &problems, e, artifactData(&problems, "artifact.data", a.GetData())); err != nil {
		return nil, fmt.Errorf("create artifact: %w", err)
	}
	have, err := s.Store.PutResult(ctx, e, false)
	if err != nil {
		return nil, fmt.Errorf("create artifact %s: %w", e.ID, err)
	}
	if have.ID != e.ID {
		return nil, fmt.Errorf("create artifact %s: tag %s of %s names artifact %s: %w", e.ID, e.Tag, datasetName(id), have.ID, aloft.ErrExists)
	}
	return &datacatalog.CreateArtifactResponse{}, nil
}

func (s *dataCatalog) GetArtifact(ctx context.Context, r *datacatalog.GetArtifactRequest) (*datacatalog.GetArtifactResponse, error) {
	e, err := s.artifact(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("get artifact: %w", err)
	}
	a, err := s.artifactMessage(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("get artifact %s: %w", e.ID, err)
	}
	return &datacatalog.GetArtifactResponse{Artifact: a}, nil
}

// AddTag gives an artifact a tag. If the tag names another artifact already, it keeps doing so and the answer is ALREADY_EXISTS:
// Flyte's engine expects that when another execution was faster.
func (s *dataCatalog) AddTag(ctx context.Context, r *datacatalog.AddTagRequest) (*datacatalog.AddTagResponse, error) {
	var problems field.Problems
	t := r.GetTag()
	id := datasetID(&problems, "tag.dataset", t.GetDataset())
	problems.TextUpTo(aloft.MaxResultTag, "tag.name", t.GetName())
	problems.TextUpTo(maxDatasetText, "tag.artifact_id", t.GetArtifactId())
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("add tag: %w", err)
	}
	if _, err := s.result(ctx, id, t.GetArtifactId()); err != nil {
		return nil, fmt.Errorf("add tag %s: %w", t.GetName(), err)
	}
	if err := s.Store.TagResult(ctx, t.GetArtifactId(), t.GetName()); err != nil {
		return nil, fmt.Errorf("add tag %s to artifact %s: %w", t.GetName(), t.GetArtifactId(), err)
	}
	return &datacatalog.AddTagResponse{}, nil
}

// ListArtifacts lists the artifacts of a dataset that are not gone. A page ends early where its artifacts are large.
func (s *dataCatalog) ListArtifacts(ctx context.Context, r *datacatalog.ListArtifactsRequest) (*datacatalog.ListArtifactsResponse, error) {
	var problems field.Problems
	id := datasetID(&problems, "dataset", r.GetDataset())
	q := catalogPage(&problems, r.GetPagination(), maxArtifactPage)
	matches := artifactFilters(&problems, id, r.GetFilter())
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	if _, err := s.dataset(ctx, id); err != nil {
		return nil, err
	}
	q.Project, q.Domain, q.Name, q.Version = id.Project, id.Domain, id.Name, id.Version
	answer := &datacatalog.ListArtifactsResponse{}
	wanted, size := q.Limit, 0
	for q.Limit = maxArtifactPage; ; {
		rows, err := s.Store.ListResults(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("list artifacts: %w", err)
		}
		for _, row := range rows {
			if len(answer.Artifacts) == wanted || size > maxArtifactBytes {
				answer.NextToken = strconv.Itoa(q.Offset)
				return answer, nil
			}
			q.Offset++
			if !matches(row) {
				continue
			}
			e, err := s.Store.GetResult(ctx, row.ID)
			if errors.Is(err, aloft.ErrNotFound) || err == nil && e.Unreadable != nil {
				continue // an unreadable result is listed by ResultService, which can say what is wrong with it
			}
			if err != nil {
				return nil, fmt.Errorf("list artifacts: %w", err)
			}
			a, err := s.artifactMessage(ctx, e)
			if err != nil {
				return nil, fmt.Errorf("list artifacts: artifact %s: %w", e.ID, err)
			}
			answer.Artifacts = append(answer.Artifacts, a)
			size += proto.Size(a)
		}
		if len(rows) < q.Limit {
			return answer, nil
		}
	}
}

// UpdateArtifact gives the tags of an artifact new data. Results never change: the tags name a new artifact from then on,
// whose id is answered, and the old one is gone.
func (s *dataCatalog) UpdateArtifact(ctx context.Context, r *datacatalog.UpdateArtifactRequest) (*datacatalog.UpdateArtifactResponse, error) {
	var problems field.Problems
	_, _ = artifactHandle(&problems, r)
	data := artifactData(&problems, "data", r.GetData())
	catalogMetadata(&problems, "metadata", r.GetMetadata().GetKeyMap())
	if len(r.GetData()) == 0 {
		problems.Missing("data")
	}
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("update artifact: %w", err)
	}
	old, err := s.artifact(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("update artifact: %w", err)
	}
	e := &store.Result{
		ResultID: old.ResultID, Tags: old.Tags, ID: newResultID(), Partitions: old.Partitions, Key: old.Key,
		Metadata: old.Metadata, Pinned: old.Pinned, CreatedAt: s.Now(),
	}
	if r.GetMetadata() != nil {
		e.Metadata = r.GetMetadata().GetKeyMap()
	}
	if err := s.completeResult(ctx, &problems, e, data); err != nil {
		return nil, fmt.Errorf("update artifact %s: %w", old.ID, err)
	}
	if _, err := s.Store.PutResult(ctx, e, true); err != nil {
		return nil, fmt.Errorf("update artifact %s: %w", old.ID, err)
	}
	if old.Tag == "" { // nothing names it, so nothing has replaced it
		if _, err := s.Store.RemoveResults(ctx, []string{old.ID}, "replaced by "+e.ID, s.Now()); err != nil {
			return nil, fmt.Errorf("update artifact %s: %w", old.ID, err)
		}
	}
	return &datacatalog.UpdateArtifactResponse{ArtifactId: e.ID}, nil
}

// completeResult completes a result that a client sends: it writes the data to the blob store, with locations in canonical
// form, and sets the objects to which they refer, the size and the time of use.
func (a *API) completeResult(ctx context.Context, problems *field.Problems, e *store.Result, data *core.LiteralMap) error {
	problems.Include(literal.Validate(data))
	var size int64
	seen := map[string]bool{}
	err := literal.RewriteURIs(data, func(uri string) (string, error) {
		canonical, err := a.Renderer.Canonical(uri)
		if err == nil && strings.HasPrefix(canonical, blob.Scheme) && !seen[canonical] {
			seen[canonical] = true
			objects, err := a.objects(ctx, canonical)
			problems.Include(err)
			for _, o := range objects {
				size += o.GetSize()
			}
			e.Objects = append(e.Objects, objects...)
		}
		return canonical, err
	})
	if err != nil {
		problems.Include(fmt.Errorf("invalid value: %w", err))
	}
	if err := problems.Err(); err != nil {
		return err
	}
	if e.Outputs, err = a.Literals.WriteLiterals(ctx, data); err != nil {
		return err
	}
	e.Size = size + e.Outputs.GetRef().GetSize()
	e.UsedAt = e.CreatedAt
	return nil
}

// objects lists the objects at a canonical URI, which is a file or a folder. ErrInvalid if there is none: no task could use a
// result that refers to it.
func (a *API) objects(ctx context.Context, uri string) ([]*aloftv1.ObjectDigest, error) {
	key, _, err := blob.KeyOfURI(uri)
	if err != nil {
		return nil, err
	}
	found, err := a.Blobs.Stat(ctx, key)
	if err == nil {
		return []*aloftv1.ObjectDigest{{Uri: key.URI(), Digest: found.SHA256, Size: found.Size}}, nil
	}
	if !errors.Is(err, aloft.ErrNotFound) {
		return nil, err
	}
	var objects []*aloftv1.ObjectDigest
	for entry, err := range a.Blobs.List(ctx, key) {
		if err != nil {
			return nil, err
		}
		objects = append(objects, &aloftv1.ObjectDigest{Uri: entry.Key.URI(), Size: entry.Size})
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("invalid value: there is no object %s: upload it first: %w", uri, aloft.ErrInvalid)
	}
	return objects, nil
}

// artifactRequest is a request for one artifact, by id or tag.
type artifactRequest interface {
	GetDataset() *datacatalog.DatasetID
	GetArtifactId() string
	GetTagName() string
}

func artifactHandle(problems *field.Problems, r artifactRequest) (id store.ResultID, artifact string) {
	id = datasetID(problems, "dataset", r.GetDataset())
	switch {
	case r.GetTagName() != "":
		id.Tag = r.GetTagName()
		problems.TextUpTo(aloft.MaxResultTag, "tag_name", id.Tag)
	case r.GetArtifactId() != "":
		problems.TextUpTo(maxDatasetText, "artifact_id", r.GetArtifactId())
	default:
		problems.Add("missing artifact_id or tag_name")
	}
	return id, r.GetArtifactId()
}

// artifact reads the artifact that a request names, with its data. ErrNotFound also for an artifact that is gone.
func (s *dataCatalog) artifact(ctx context.Context, r artifactRequest) (*store.Result, error) {
	var problems field.Problems
	id, artifact := artifactHandle(&problems, r)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if artifact != "" {
		return s.result(ctx, id, artifact)
	}
	e, err := s.Store.FindResult(ctx, id)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, missingEntity("artifact", datasetName(id)+" tag "+id.Tag)
	}
	return e, cmp.Or(err, unreadableResult(e))
}

// unreadableResult is the error for a result whose record cannot be decoded, with the way out; nil for any other result.
func unreadableResult(e *store.Result) error {
	if e == nil || e.Unreadable == nil {
		return nil
	}
	return fmt.Errorf("%w. Remove it (aloft cache rm %s): what asks for it then computes it again", e.Unreadable, e.ID)
}

// result reads a result by its id, if it is in the dataset and not gone.
func (s *dataCatalog) result(ctx context.Context, id store.ResultID, artifact string) (*store.Result, error) {
	e, err := s.Store.GetResult(ctx, artifact)
	if err != nil && !errors.Is(err, aloft.ErrNotFound) {
		return nil, err
	}
	if err == nil && !e.GoneAt.IsZero() {
		return nil, fmt.Errorf("artifact %s is gone since %s: %s: %w", artifact, e.GoneAt.UTC().Format(time.RFC3339), e.GoneReason, aloft.ErrNotFound)
	}
	if err != nil || e.Project != id.Project || e.Domain != id.Domain || e.Name != id.Name || e.Version != id.Version {
		return nil, missingEntity("artifact", datasetName(id)+" id "+artifact)
	}
	return e, unreadableResult(e)
}

// partitions reads an artifact's partitions. Their keys must be those of its dataset.
func (s *dataCatalog) partitions(ctx context.Context, problems *field.Problems, id store.ResultID, given []*datacatalog.Partition) map[string]string {
	values := map[string]string{}
	for i, p := range given {
		where := fmt.Sprintf("artifact.partitions[%d]", i)
		problems.TextUpTo(maxDatasetText, where+".key", p.GetKey())
		problems.TextUpTo(maxDatasetText, where+".value", p.GetValue())
		if _, ok := values[p.GetKey()]; ok {
			problems.Add("invalid value for artifact.partitions: %q is there twice", aloft.Excerpt(p.GetKey()))
		}
		values[p.GetKey()] = p.GetValue()
	}
	if id.Project == "" || id.Domain == "" || id.Name == "" || id.Version == "" {
		return values // there is a mistake already, and no dataset to ask
	}
	d, err := s.dataset(ctx, id)
	if err != nil {
		problems.Include(err)
		return values
	}
	keys := slices.Sorted(maps.Keys(values))
	if want := slices.Sorted(slices.Values(d.PartitionKeys)); !slices.Equal(keys, want) {
		problems.Add("invalid value for artifact.partitions: their keys are [%s], the dataset states [%s]", aloft.Excerpt(strings.Join(keys, ", ")), aloft.Excerpt(strings.Join(want, ", ")))
	}
	return values
}

// artifactFilters reads the filters of a list of artifacts.
func artifactFilters(problems *field.Problems, id store.ResultID, filter *datacatalog.FilterExpression) func(*store.Result) bool {
	var all []func(*store.Result) bool
	for i, f := range filter.GetFilters() {
		where := fmt.Sprintf("filter.filters[%d]", i)
		catalogOperator(problems, where, f)
		switch p := f.GetPropertyFilter().(type) {
		case *datacatalog.SinglePropertyFilter_TagFilter:
			tag := p.TagFilter.GetTagName()
			problems.TextUpTo(aloft.MaxResultTag, where+".tag_filter.tag_name", tag)
			all = append(all, func(e *store.Result) bool { return e.Tag == tag || slices.Contains(e.Tags, tag) })
		case *datacatalog.SinglePropertyFilter_PartitionFilter:
			key, value := p.PartitionFilter.GetKeyVal().GetKey(), p.PartitionFilter.GetKeyVal().GetValue()
			problems.TextUpTo(maxDatasetText, where+".partition_filter.key_val.key", key)
			all = append(all, func(e *store.Result) bool { have, ok := e.Partitions[key]; return ok && have == value })
		case *datacatalog.SinglePropertyFilter_ArtifactFilter:
			artifact := p.ArtifactFilter.GetArtifactId()
			problems.TextUpTo(maxDatasetText, where+".artifact_filter.artifact_id", artifact)
			all = append(all, func(e *store.Result) bool { return e.ID == artifact })
		case *datacatalog.SinglePropertyFilter_DatasetFilter:
			q := store.ResultQuery{Project: id.Project, Domain: id.Domain, Name: id.Name, Version: id.Version}
			into, value := datasetProperty(&q, p.DatasetFilter)
			if into == nil {
				problems.Add("invalid value for %s: there is project, name, domain and version", where)
				continue
			}
			same := *into == value
			all = append(all, func(*store.Result) bool { return same })
		default:
			problems.Missing(where + ".property_filter")
		}
	}
	return func(e *store.Result) bool {
		return !slices.ContainsFunc(all, func(matches func(*store.Result) bool) bool { return !matches(e) })
	}
}

// artifactData is the data of an artifact as a literal map. The names are those of a task's outputs.
func artifactData(problems *field.Problems, where string, data []*datacatalog.ArtifactData) *core.LiteralMap {
	m := &core.LiteralMap{Literals: map[string]*core.Literal{}}
	for i, d := range data {
		at := fmt.Sprintf("%s[%d]", where, i)
		problems.TextUpTo(maxDatasetText, at+".name", d.GetName())
		if d.GetValue() == nil {
			problems.Missing(at + ".value")
			continue
		}
		if m.Literals[d.GetName()] != nil {
			problems.Add("invalid value for %s: %q is there twice", where, aloft.Excerpt(d.GetName()))
		}
		m.Literals[d.GetName()] = proto.CloneOf(d.GetValue())
	}
	return m
}

// newResultID makes an id for a result that came without one.
func newResultID() string { return strings.ToLower(rand.Text()) }

// artifactMessage is a result as the data catalog shows it, with locations that the client can open.
func (s *dataCatalog) artifactMessage(ctx context.Context, e *store.Result) (*datacatalog.Artifact, error) {
	data, err := s.literals(ctx, e.Outputs)
	if err != nil {
		return nil, err
	}
	s.render(ctx, data)
	dataset := &datacatalog.DatasetID{Project: e.Project, Domain: e.Domain, Name: e.Name, Version: e.Version}
	a := &datacatalog.Artifact{Id: e.ID, Dataset: dataset, Metadata: &datacatalog.Metadata{KeyMap: e.Metadata}, CreatedAt: timestamppb.New(e.CreatedAt)}
	for _, name := range slices.Sorted(maps.Keys(data.GetLiterals())) {
		a.Data = append(a.Data, &datacatalog.ArtifactData{Name: name, Value: data.GetLiterals()[name]})
	}
	for _, key := range slices.Sorted(maps.Keys(e.Partitions)) {
		a.Partitions = append(a.Partitions, &datacatalog.Partition{Key: key, Value: e.Partitions[key]})
	}
	for _, tag := range append([]string{e.Tag}, e.Tags...) {
		if tag != "" {
			a.Tags = append(a.Tags, &datacatalog.Tag{Name: tag, ArtifactId: e.ID, Dataset: dataset})
		}
	}
	return a, nil
}
