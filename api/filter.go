package api

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// The grammar of filters is Flyte's: func(field,value) joined by '+', with ';' between the members of a list. The last
// comma separates field from value, and nothing can be escaped.
var filterExpression = regexp.MustCompile(`^\s*([^()]+)\((.+),\s?(.+)\)\s*$`)

var filterFunctions = []string{"eq", "ne", "gt", "gte", "lt", "lte", "contains", "not_like", "value_in", "value_not_in"}

// filterEntities are the words that may stand before the dot of a field.
var filterEntities = []string{
	"task", "workflow", "launch_plan", "execution", "node_execution", "task_execution", "entities", "named_entity_metadata",
	"project", "signal", "admin_tag", "execution_admin_tag", "execution_tag",
}

// parseFilters reads the filters of a list request. Which fields an entity has is the store's knowledge.
func parseFilters(text string) ([]store.Filter, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var problems field.Problems
	var filters []store.Filter
	if n := len(text); n > aloft.MaxFilterBytes { // a match of the regular expression cannot be cancelled
		problems.Add("invalid value for filters: they have %d bytes, the limit is %d", n, aloft.MaxFilterBytes)
		return nil, problems.Err()
	}
	if n := strings.Count(text, "+") + 1; !problems.AtMost(aloft.MaxFilters, "filters", n) {
		return nil, problems.Err()
	}
	for expression := range strings.SplitSeq(text, "+") {
		match := filterExpression.FindStringSubmatch(expression)
		if match == nil {
			problems.Add("invalid value for filters: %q is not of the form function(field,value), with '+' between several", aloft.Excerpt(expression))
			continue
		}
		f := store.Filter{Function: strings.TrimSpace(match[1]), Field: strings.TrimSpace(match[2])}
		if !slices.Contains(filterFunctions, f.Function) {
			problems.Add("unrecognized filter function: %q in %q: it is one of %s", aloft.Excerpt(f.Function), aloft.Excerpt(expression), strings.Join(filterFunctions, ", "))
			continue
		}
		if entity, _, ok := strings.Cut(f.Field, "."); ok && !slices.Contains(filterEntities, entity) {
			problems.Add("'%s' entity is not allowed in filters: %q", aloft.Excerpt(entity), aloft.Excerpt(expression))
			continue
		}
		f.Values = []string{match[3]}
		if f.Function == "value_in" || f.Function == "value_not_in" {
			f.Values = strings.Split(match[3], ";")
			problems.AtMost(aloft.MaxFilterValues, "filters: values of "+aloft.Excerpt(f.Field), len(f.Values))
		}
		if f.Field == "duration" || strings.HasSuffix(f.Field, ".duration") {
			for i, value := range f.Values {
				seconds, err := parseDuration(value)
				if err != nil {
					problems.Add("invalid value for filters: %q is no duration, such as 1.5 (seconds) or 1h30m, in %q", aloft.Excerpt(value), aloft.Excerpt(expression))
				}
				f.Values[i] = seconds
			}
		}
		filters = append(filters, f)
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return filters, nil
}

// parseDuration reads a number of seconds, or a duration in Go's notation, and gives seconds.
func parseDuration(text string) (string, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64), nil
	}
	if _, err := strconv.ParseFloat(text, 64); err != nil {
		return text, err
	}
	return text, nil
}

// listRequest is what all list requests have in common.
type listRequest interface {
	GetLimit() uint32
	GetToken() string
	GetSortBy() *admin.Sort
}

// parseList reads limit, token, order (without one: the newest first) and filters. Tokens are decimal offsets, because
// flytectl computes them itself, or positions.
func parseList(problems *field.Problems, r listRequest, filters string, needLimit bool) store.Query {
	q := store.Query{Limit: int(min(r.GetLimit(), aloft.MaxPageRows))}
	if q.Limit == 0 && needLimit {
		problems.Add("invalid value for limit: it must be above 0")
	}
	if s := r.GetSortBy(); s != nil && s.GetKey() != "" {
		q.SortBy, q.Ascending = s.GetKey(), s.GetDirection() == admin.Sort_ASCENDING
	}
	if token := r.GetToken(); token != "" {
		offset, err := strconv.Atoi(token)
		if position, ok := parsePosition(token); ok && sortedByCreation(q) {
			q.After = position
		} else if err != nil || offset < 0 {
			problems.Add("invalid pagination token %q: it is what the answer before this one gave, or a number of rows", aloft.Excerpt(token))
		} else {
			q.Offset = offset
		}
	}
	var err error
	q.Filters, err = parseFilters(filters)
	problems.Include(err)
	return q
}

// parseChildren reads a request for a list of nodes or attempts, by default in order of creation: a client that states no order
// shows the rows as the course of the execution. flytectl takes one page and sorts it by a time that several nodes share.
func parseChildren(problems *field.Problems, r listRequest, filters string) store.Query {
	q := parseList(problems, r, filters, true)
	if q.SortBy == "" {
		q.SortBy, q.Ascending = "created_at", true
	}
	return q
}

// nextToken is the token of the next page; empty after the last one.
func nextToken(q store.Query, rows int) string {
	if q.Limit > 0 && rows == q.Limit {
		return strconv.Itoa(q.Offset + rows)
	}
	return ""
}

// listError adds the noun to an error of the store, which names a filter or an order that the entity does not have.
func listError(noun string, err error) error { return fmt.Errorf("list %s: %w", noun, err) }

// missingEntity reports that an entity with all its words is not there.
func missingEntity(kind, id string) error {
	return fmt.Errorf("missing entity of type %s with identifier %s: %w", kind, id, aloft.ErrNotFound)
}
