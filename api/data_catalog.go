package api

import (
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// dataCatalog serves Flyte's data catalog over the results of the engine: clients read what the engine cached, and the engine
// finds what clients add. An artifact is a store.Result, under the same id. A dataset is a store.ResultID without its tag.
type dataCatalog struct{ *API }

// Limits of requests. The name of a dataset is that of a task with a prefix; its version is a cache version with two hashes.
const (
	maxDatasetText  = 300      // bytes of a name
	maxCatalogKeys  = 64 << 10 // bytes of all metadata of one artifact or dataset
	maxArtifactPage = 100      // rows
	maxDatasetPage  = 1000     // rows
)

func catalogOperator(problems *field.Problems, where string, f *datacatalog.SinglePropertyFilter) {
	if f.GetOperator() != datacatalog.SinglePropertyFilter_EQUALS {
		problems.Add("invalid value for %s.operator: there is EQUALS alone", where)
	}
}

// catalogPage reads limit, token and order. No limit means a page of the largest size.
func catalogPage(problems *field.Problems, p *datacatalog.PaginationOptions, limit int) store.ResultQuery {
	q := store.ResultQuery{Limit: limit, Ascending: p.GetSortOrder() == datacatalog.PaginationOptions_ASCENDING}
	if n := p.GetLimit(); n > uint32(limit) {
		problems.Add("invalid value for pagination.limit: %d is above %d", n, limit)
	} else if n > 0 {
		q.Limit = int(n)
	}
	if p.GetSortKey() != datacatalog.PaginationOptions_CREATION_TIME {
		problems.Add("invalid value for pagination.sortKey: there is CREATION_TIME alone")
	}
	if _, ok := datacatalog.PaginationOptions_SortOrder_name[int32(p.GetSortOrder())]; !ok {
		problems.Add("invalid value for pagination.sortOrder: there is DESCENDING and ASCENDING")
	}
	q.Offset = parseOffset(problems, "pagination.token", p.GetToken())
	return q
}

func parseOffset(problems *field.Problems, where, token string) int {
	if token == "" {
		return 0
	}
	n, err := strconv.Atoi(token)
	if err != nil || n < 0 {
		problems.Add("invalid value for %s: %q is not what the answer before this one gave", where, aloft.Excerpt(token))
		return 0
	}
	return n
}

func catalogMetadata(problems *field.Problems, where string, m map[string]string) {
	size := 0
	for key, value := range m {
		size += len(key) + len(value)
		if strings.ContainsRune(key+value, 0) {
			problems.Add("invalid value for %s: %q contains a NUL character", where, aloft.Excerpt(key))
		}
	}
	if size > maxCatalogKeys {
		problems.Add("invalid value for %s: it has %d bytes, the limit is %d", where, size, maxCatalogKeys)
	}
}
