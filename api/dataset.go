package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

func (s *dataCatalog) CreateDataset(ctx context.Context, r *datacatalog.CreateDatasetRequest) (*datacatalog.CreateDatasetResponse, error) {
	var problems field.Problems
	d := r.GetDataset()
	id := datasetID(&problems, "dataset.id", d.GetId())
	catalogMetadata(&problems, "dataset.metadata", d.GetMetadata().GetKeyMap())
	for i, key := range d.GetPartitionKeys() {
		problems.TextUpTo(maxDatasetText, fmt.Sprintf("dataset.partitionKeys[%d]", i), key)
		if slices.Contains(d.GetPartitionKeys()[:i], key) {
			problems.Add("invalid value for dataset.partitionKeys: %q is there twice", aloft.Excerpt(key))
		}
	}
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("create dataset: %w", err)
	}
	err := s.Store.CreateDataset(ctx, &store.Dataset{
		Project: id.Project, Domain: id.Domain, Name: id.Name, Version: id.Version,
		Metadata: d.GetMetadata().GetKeyMap(), PartitionKeys: d.GetPartitionKeys(), CreatedAt: s.Now(),
	})
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", datasetName(id), err)
	}
	return &datacatalog.CreateDatasetResponse{}, nil
}

func (s *dataCatalog) GetDataset(ctx context.Context, r *datacatalog.GetDatasetRequest) (*datacatalog.GetDatasetResponse, error) {
	var problems field.Problems
	id := datasetID(&problems, "dataset", r.GetDataset())
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("get dataset: %w", err)
	}
	d, err := s.dataset(ctx, id)
	if err != nil {
		return nil, err
	}
	return &datacatalog.GetDatasetResponse{Dataset: datasetMessage(d)}, nil
}

func (s *dataCatalog) ListDatasets(ctx context.Context, r *datacatalog.ListDatasetsRequest) (*datacatalog.ListDatasetsResponse, error) {
	var problems field.Problems
	q := catalogPage(&problems, r.GetPagination(), maxDatasetPage)
	none := false // two filters want different values of one field, so no dataset matches
	for i, f := range r.GetFilter().GetFilters() {
		where := fmt.Sprintf("filter.filters[%d]", i)
		catalogOperator(&problems, where, f)
		p, ok := f.GetPropertyFilter().(*datacatalog.SinglePropertyFilter_DatasetFilter)
		if !ok {
			problems.Add("invalid value for %s: datasets are filtered by dataset_filter alone", where)
			continue
		}
		into, value := datasetProperty(&q, p.DatasetFilter)
		if into == nil {
			problems.Add("invalid value for %s: there is project, name, domain and version", where)
			continue
		}
		problems.TextUpTo(maxDatasetText, where, value)
		none = none || *into != "" && *into != value
		*into = value
	}
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("list datasets: %w", err)
	}
	answer := &datacatalog.ListDatasetsResponse{}
	if none {
		return answer, nil
	}
	rows, err := s.Store.ListDatasets(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("list datasets: %w", err)
	}
	for _, d := range rows {
		answer.Datasets = append(answer.Datasets, datasetMessage(d))
	}
	if len(rows) == q.Limit {
		answer.NextToken = strconv.Itoa(q.Offset + len(rows))
	}
	return answer, nil
}

// dataset returns a dataset that CreateDataset made or that has results.
func (s *dataCatalog) dataset(ctx context.Context, id store.ResultID) (*store.Dataset, error) {
	found, err := s.Store.ListDatasets(ctx, store.ResultQuery{Project: id.Project, Domain: id.Domain, Name: id.Name, Version: id.Version, Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", datasetName(id), err)
	}
	if len(found) == 0 {
		return nil, missingEntity("dataset", datasetName(id))
	}
	return found[0], nil
}

// datasetProperty is the field of q that a filter sets, and its value; nil if there is no such field.
func datasetProperty(q *store.ResultQuery, f *datacatalog.DatasetPropertyFilter) (*string, string) {
	switch p := f.GetProperty().(type) {
	case *datacatalog.DatasetPropertyFilter_Project:
		return &q.Project, p.Project
	case *datacatalog.DatasetPropertyFilter_Name:
		return &q.Name, p.Name
	case *datacatalog.DatasetPropertyFilter_Domain:
		return &q.Domain, p.Domain
	case *datacatalog.DatasetPropertyFilter_Version:
		return &q.Version, p.Version
	}
	return nil, ""
}

func datasetID(problems *field.Problems, where string, id *datacatalog.DatasetID) store.ResultID {
	if id == nil {
		problems.Missing(where)
		return store.ResultID{}
	}
	problems.TextUpTo(maxDatasetText, where+".project", id.GetProject())
	problems.TextUpTo(maxDatasetText, where+".domain", id.GetDomain())
	problems.TextUpTo(maxDatasetText, where+".name", id.GetName())
	problems.TextUpTo(maxDatasetText, where+".version", id.GetVersion())
	return store.ResultID{Project: id.GetProject(), Domain: id.GetDomain(), Name: id.GetName(), Version: id.GetVersion()}
}

func datasetName(id store.ResultID) string {
	return "dataset " + id.Project + "/" + id.Domain + "/" + id.Name + " version " + id.Version
}

func datasetMessage(d *store.Dataset) *datacatalog.Dataset {
	return &datacatalog.Dataset{
		Id:       &datacatalog.DatasetID{Project: d.Project, Domain: d.Domain, Name: d.Name, Version: d.Version},
		Metadata: &datacatalog.Metadata{KeyMap: d.Metadata}, PartitionKeys: d.PartitionKeys,
	}
}
