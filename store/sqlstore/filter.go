package sqlstore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Flyte's filters on our columns: a list of what each entity has, so that no text of a client ever becomes SQL.

// kind is how the values of a column are written in a filter.
type kind int

const (
	text     kind = iota
	number        // a whole number, as clients write state and mode
	moment        // RFC 3339 or ISO text
	duration      // seconds, or Go's duration text
	enum          // the name of one of the column's enum values
)

// column is what a client may filter and sort by.
type column struct {
	sql  string
	kind kind
	enum map[int32]string
}

// entity is what a list is of.
type entity struct {
	name    string            // as a prefix of its own columns
	columns map[string]column // with a prefix where they are another entity's
	joins   []string          // entities whose columns may appear
	number  string            // breaks ties in an order

	project, domain, its string // the columns of Query.Project, Domain and Name
}

var (
	executionEntity = entity{
		name: "execution", number: "e.number", project: "e.project", domain: "e.domain", its: "e.name", joins: []string{"workflow", "launch_plan", "task"},
		columns: with(map[string]column{
			"execution_project": {sql: "e.project"}, "execution_domain": {sql: "e.domain"}, "execution_name": {sql: "e.name"},
			"phase":      {sql: "e.phase", kind: enum, enum: core.WorkflowExecution_Phase_name},
			"created_at": {sql: "e.created_at", kind: moment}, "execution_created_at": {sql: "e.created_at", kind: moment},
			"updated_at": {sql: "e.updated_at", kind: moment}, "execution_updated_at": {sql: "e.updated_at", kind: moment},
			"started_at": {sql: "e.started_at", kind: moment}, "duration": {sql: lasted("e"), kind: duration},
			"abort_cause": {sql: "e.abort_cause"}, "error_kind": {sql: "e.error_kind"}, "error_code": {sql: "e.error_code"},
			"state": {sql: "e.state", kind: number}, "mode": {sql: "x.mode", kind: number}, "user": {sql: "x.principal"},
			"launch_entity": {sql: "x.launch_entity"},
		}, versionColumns("workflow", "x.workflow_", ""), versionColumns("launch_plan", "x.launch_", "launch_plan"), versionColumns("task", "x.launch_", "task")),
	}
	nodeEntity = entity{
		name: "node_execution", number: "n.number", project: "e.project", domain: "e.domain", its: "e.name", joins: []string{"execution"},
		columns: with(map[string]column{
			"node_id": {sql: "n.node"}, "phase": {sql: "n.phase", kind: enum, enum: core.NodeExecution_Phase_name},
			"created_at": {sql: "n.created_at", kind: moment}, "node_execution_created_at": {sql: "n.created_at", kind: moment},
			"updated_at": {sql: "n.updated_at", kind: moment}, "node_execution_updated_at": {sql: "n.updated_at", kind: moment},
			"started_at": {sql: "n.started_at", kind: moment}, "duration": {sql: lasted("n"), kind: duration},
		}, ofExecution),
	}
	attemptEntity = entity{
		name: "task_execution", number: "a.number", project: "e.project", domain: "e.domain", its: "e.name", joins: []string{"execution"},
		columns: with(map[string]column{
			"node_id": {sql: "a.node"}, "retry_attempt": {sql: "a.attempt", kind: number},
			"phase":      {sql: "a.phase", kind: enum, enum: core.TaskExecution_Phase_name},
			"created_at": {sql: "a.created_at", kind: moment}, "task_execution_created_at": {sql: "a.created_at", kind: moment},
			"updated_at": {sql: "a.updated_at", kind: moment}, "task_execution_updated_at": {sql: "a.updated_at", kind: moment},
			"started_at": {sql: "a.started_at", kind: moment}, "duration": {sql: lasted("a"), kind: duration},
		}, ofExecution),
	}
	taskEntity = entity{
		name: "task", number: "t.number", project: "t.project", domain: "t.domain", its: "t.name",
		columns: with(map[string]column{"type": {sql: "t.type"}, "short_description": {sql: "t.short_description"}, "created_at": {sql: "t.created_at", kind: moment},
			"updated_at": {sql: "t.created_at", kind: moment}}, versionColumns("", "t.", "")),
	}
	workflowEntity = entity{
		name: "workflow", number: "w.number", project: "w.project", domain: "w.domain", its: "w.name",
		columns: with(map[string]column{"short_description": {sql: "w.short_description"}, "created_at": {sql: "w.created_at", kind: moment},
			"updated_at": {sql: "w.created_at", kind: moment}}, versionColumns("", "w.", "")),
	}
	launchPlanEntity = entity{
		name: "launch_plan", number: "l.number", project: "l.project", domain: "l.domain", its: "l.name", joins: []string{"workflow"},
		columns: with(map[string]column{"state": {sql: "l.state", kind: number}, "schedule_type": {sql: "l.schedule_type"},
			"created_at": {sql: "l.created_at", kind: moment}, "updated_at": {sql: "l.updated_at", kind: moment}},
			versionColumns("", "l.", ""), versionColumns("workflow", "l.workflow_", "")),
	}
	projectEntity = entity{
		name: "project", number: "p.number", project: "p.id", domain: "''", its: "p.name",
		columns: map[string]column{"identifier": {sql: "p.id"}, "name": {sql: "p.name"}, "description": {sql: "p.description"},
			"state": {sql: "p.state", kind: number}, "created_at": {sql: "p.number", kind: number}, "updated_at": {sql: "p.number", kind: number}},
	}
	namedEntity = entity{
		name: "entities", number: "e.number", project: "e.project", domain: "e.domain", its: "e.name", joins: []string{"named_entity_metadata"},
		columns: map[string]column{
			"resource_type": {sql: "e.resource_type", kind: number}, "project": {sql: "e.project"}, "domain": {sql: "e.domain"}, "name": {sql: "e.name"},
			"created_at": {sql: "e.created_at", kind: moment}, "updated_at": {sql: "e.updated_at", kind: moment},
			"description": {sql: namedDescription}, "named_entity_metadata.description": {sql: namedDescription},
			"state": {sql: namedState, kind: number}, "named_entity_metadata.state": {sql: namedState, kind: number},
		},
	}

	// ofExecution is what lists within one execution may say of it.
	ofExecution = map[string]column{
		"execution_project": {sql: "e.project"}, "execution_domain": {sql: "e.domain"}, "execution_name": {sql: "e.name"},
		"execution.execution_project": {sql: "e.project"}, "execution.execution_domain": {sql: "e.domain"}, "execution.execution_name": {sql: "e.name"},
	}
)

// lasted is how long something ran, 0 while it has not ended.
func lasted(alias string) string {
	return "(CASE WHEN " + alias + ".started_at > 0 AND " + alias + ".ended_at > 0 THEN " + alias + ".ended_at - " + alias + ".started_at ELSE 0 END)"
}

// versionColumns are project, domain, name and version of what an entity refers to (or is). Where two kinds of things share
// columns, only says for which kind of launch they hold.
func versionColumns(of, prefix, only string) map[string]column {
	columns := make(map[string]column)
	for _, name := range []string{"project", "domain", "name", "version"} {
		sql := prefix + name
		if only != "" {
			sql = "(CASE WHEN x.launch_entity = '" + only + "' THEN " + sql + " ELSE '' END)"
		}
		if of != "" {
			name = of + "." + name
		}
		columns[name] = column{sql: sql}
	}
	return columns
}

func with(columns map[string]column, more ...map[string]column) map[string]column {
	for _, m := range more {
		maps.Copy(columns, m)
	}
	return columns
}

// condition is a part of WHERE.
type condition struct {
	sql  string
	args []any
}

// where is WHERE, ORDER BY and LIMIT of a list, or all that is wrong with the query.
func (e *entity) where(q store.Query, conditions ...condition) (string, []any, error) {
	var errs []error
	for _, c := range []struct{ sql, value string }{{e.project, q.Project}, {e.domain, q.Domain}, {e.its, q.Name}} {
		if c.value != "" {
			conditions = append(conditions, condition{c.sql + " = ?", []any{c.value}})
		}
	}
	for _, f := range q.Filters {
		c, err := e.condition(f)
		errs = append(errs, err)
		conditions = append(conditions, c)
	}
	order := column{sql: e.columns["created_at"].sql}
	if q.SortBy != "" {
		var ok bool
		if order, ok = e.columns[strings.TrimPrefix(q.SortBy, e.name+".")]; !ok || strings.Contains(strings.TrimPrefix(q.SortBy, e.name+"."), ".") {
			errs = append(errs, fmt.Errorf("invalid sort key '%s': %w", q.SortBy, aloft.ErrInvalid))
		}
	}
	if q.Offset < 0 || q.Limit < 0 {
		errs = append(errs, fmt.Errorf("invalid value for limit or token: neither can be negative: %w", aloft.ErrInvalid))
	}
	if err := errors.Join(errs...); err != nil {
		return "", nil, err
	}
	direction := " DESC"
	if q.Ascending {
		direction = ""
	}
	var b strings.Builder
	var args []any
	for i, c := range conditions {
		if i == 0 {
			b.WriteString("WHERE ")
		} else {
			b.WriteString(" AND ")
		}
		b.WriteString(c.sql)
		args = append(args, c.args...)
	}
	b.WriteString(" ORDER BY " + order.sql + direction + ", " + e.number + direction + " LIMIT ? OFFSET ?")
	return b.String(), append(args, atMost(q.Limit), int64(q.Offset)), nil
}

// column finds what a filter's field means.
func (e *entity) column(field string) (column, error) {
	prefix, name, dotted := strings.Cut(field, ".")
	if dotted && prefix == e.name {
		field, dotted = name, false
	}
	if c, ok := e.columns[field]; ok {
		return c, nil
	}
	if dotted {
		if slices.Contains(e.joins, prefix) {
			return column{}, fmt.Errorf("'%s' is invalid filter: %w", field, aloft.ErrInvalid)
		}
		return column{}, fmt.Errorf("'%s' entity is not allowed in filters: %w", prefix, aloft.ErrInvalid)
	}
	return column{}, fmt.Errorf("'%s.%s' is invalid filter: %w", e.name, field, aloft.ErrInvalid)
}

var comparisons = map[string]string{"eq": "=", "ne": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

func (e *entity) condition(f store.Filter) (condition, error) {
	c, err := e.column(f.Field)
	if err != nil {
		return condition{}, err
	}
	comparison, compares := comparisons[f.Function]
	list := f.Function == "value_in" || f.Function == "value_not_in"
	like := f.Function == "contains" || f.Function == "not_like"
	switch {
	case !compares && !list && !like:
		return condition{}, fmt.Errorf("unrecognized filter function: %s: %w", f.Function, aloft.ErrInvalid)
	case !list && len(f.Values) != 1 || len(f.Values) == 0:
		return condition{}, fmt.Errorf("invalid value for filters: %s(%s) has %d values: %w", f.Function, f.Field, len(f.Values), aloft.ErrInvalid)
	case like && c.kind != text && c.kind != enum:
		return condition{}, fmt.Errorf("invalid value for filters: %s does not fit %s, which is no text: %w", f.Function, f.Field, aloft.ErrInvalid)
	}
	if c.kind == enum {
		return c.oneOf(f), nil
	}
	var args []any
	for _, value := range f.Values {
		arg, err := c.value(value)
		if err != nil {
			return condition{}, fmt.Errorf("invalid value for filters: %s(%s,%s): %w: %w", f.Function, f.Field, value, err, aloft.ErrInvalid)
		}
		args = append(args, arg)
	}
	switch f.Function {
	case "contains":
		return condition{c.sql + " LIKE ?", []any{"%" + f.Values[0] + "%"}}, nil
	case "not_like":
		return condition{c.sql + " NOT LIKE ?", args}, nil
	case "value_in":
		return condition{c.sql + " IN (" + strings.TrimSuffix(strings.Repeat("?,", len(args)), ",") + ")", args}, nil
	case "value_not_in":
		return condition{c.sql + " NOT IN (" + strings.TrimSuffix(strings.Repeat("?,", len(args)), ",") + ")", args}, nil
	default:
		return condition{c.sql + " " + comparison + " ?", args}, nil
	}
}

// value is what a filter's text stands for in the column.
func (c *column) value(value string) (any, error) {
	switch c.kind {
	case number:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, errors.New("not a whole number")
		}
		return n, nil
	case moment:
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", time.DateOnly} {
			if t, err := time.Parse(layout, value); err == nil {
				return t.UnixNano(), nil
			}
		}
		return nil, errors.New("not a time such as 2006-01-02T15:04:05Z")
	case duration:
		if seconds, err := strconv.ParseFloat(value, 64); err == nil {
			return int64(seconds * float64(time.Second)), nil
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			return nil, errors.New("not a duration such as 90s or 1.5")
		}
		return int64(d), nil
	default:
		return value, nil
	}
}

// oneOf compares names, as clients know them, and asks for the numbers of those that fit.
func (c *column) oneOf(f store.Filter) condition {
	fits := func(name string) bool {
		switch v := f.Values[0]; f.Function {
		case "eq":
			return name == v
		case "ne":
			return name != v
		case "gt":
			return name > v
		case "gte":
			return name >= v
		case "lt":
			return name < v
		case "lte":
			return name <= v
		case "contains":
			return strings.Contains(name, strings.Trim(v, "%"))
		case "not_like":
			return !strings.Contains(name, strings.Trim(v, "%"))
		}
		in := false
		for _, v := range f.Values {
			in = in || name == v
		}
		return in == (f.Function == "value_in")
	}
	numbers := []string{"-1"} // no number of an enum: the list is never empty
	for n, name := range c.enum {
		if fits(name) {
			numbers = append(numbers, strconv.Itoa(int(n)))
		}
	}
	return condition{c.sql + " IN (" + strings.Join(numbers, ",") + ")", nil}
}
