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

// Flyte's filters on our columns. The columns of each entity are listed here, so that no text of a client ever becomes SQL.

// kind is how the values of a column are written in a filter.
type kind int

const (
	text     kind = iota
	number        // a whole number, as clients write state and mode
	moment        // RFC 3339 or ISO text
	duration      // seconds, or Go's duration text
	enum          // the name of one of the column's enum values
)

// column is a column that a client may filter and sort by.
type column struct {
	sql        string
	kind       kind
	enum       map[int32]string // names of the values of an enum
	tag        bool             // of execution_tags: an execution has any number of values
	valueIndex *valueIndex      // finds executions by a value of the column; nil: no index does
	rangeIndex *rangeIndex      // finds executions by a range of values; nil: no index does
}

// entity is a kind of records that can be listed.
type entity struct {
	name    string            // as a prefix of its own columns
	columns map[string]column // with a prefix if the column is another entity's
	joins   []string          // other entities whose columns a filter may name
	lacks   []string          // columns of Flyte's that have no counterpart here (docs/differences.md)
	number  string            // Flyte's id, which also breaks ties in an order

	projectColumn, domainColumn, nameColumn string // the columns of Query.Project, Domain and Name
}

var (
	executionEntity = entity{
		name: "execution", number: "e.number", projectColumn: "e.project", domainColumn: "e.domain", nameColumn: "e.name",
		joins: []string{"workflow", "launch_plan", "task", "admin_tag", "execution_tag"},
		lacks: []string{"deleted_at", "closure", "spec", "cluster", "source_execution_id", "parent_node_execution_id", "inputs_uri", "user_inputs_uri"},
		columns: merged(map[string]column{
			"id": {sql: "e.number", kind: number}, "execution_project": {sql: "e.project"}, "execution_domain": {sql: "e.domain"}, "execution_name": {sql: "e.name", rangeIndex: allRange},
			"phase":      {sql: "e.phase", kind: enum, enum: core.WorkflowExecution_Phase_name, valueIndex: phaseIndex},
			"created_at": {sql: "e.created_at", kind: moment}, "execution_created_at": {sql: "e.created_at", kind: moment},
			"updated_at": {sql: "e.updated_at", kind: moment, rangeIndex: endedRange}, "execution_updated_at": {sql: "e.updated_at", kind: moment, rangeIndex: endedRange},
			"started_at": {sql: "e.started_at", kind: moment, rangeIndex: endedRange}, "duration": {sql: durationSQL("e"), kind: duration, rangeIndex: endedRange},
			"abort_cause": {sql: "e.abort_cause", valueIndex: abortedIndex}, "error_kind": {sql: "e.error_kind"}, "error_code": {sql: "e.error_code", valueIndex: errorIndex},
			"state": {sql: "e.state", kind: number}, "mode": {sql: "x.mode", kind: number, valueIndex: modeIndex}, "user": {sql: "x.principal", valueIndex: principalIndex},
			"launch_entity":  {sql: "x.launch_entity"},
			"workflow_id":    {sql: numberOf("workflows", "x.workflow_"), kind: number},
			"launch_plan_id": {sql: ifLaunched("launch_plan", numberOf("launch_plans", "x.launch_"), "0"), kind: number},
			"task_id":        {sql: ifLaunched("task", numberOf("tasks", "x.launch_"), "0"), kind: number},
			// Labels are pairs, tags are keys without a value: Flyte keeps both in one table and calls it by two names.
			"admin_tag.name": {sql: tagKey, tag: true}, "execution_tag.key": {sql: tagKey, tag: true}, "execution_tag.value": {sql: tagValue, tag: true},
			"execution_tag.execution_project": {sql: "e.project"}, "execution_tag.execution_domain": {sql: "e.domain"}, "execution_tag.execution_name": {sql: "e.name"},
		}, indexedInSpecs(versionColumns("workflow", "x.workflow_", ""), "workflow", "workflow", true),
			indexedInSpecs(versionColumns("launch_plan", "x.launch_", "launch_plan"), "launch_plan", "launch", false),
			indexedInSpecs(versionColumns("task", "x.launch_", "task"), "task", "launch", false)),
	}
	nodeEntity = entity{
		name: "node_execution", number: "n.number", projectColumn: "e.project", domainColumn: "e.domain", nameColumn: "e.name", joins: []string{"execution"},
		lacks: []string{"deleted_at", "input_uri", "closure", "node_execution_metadata", "parent_id", "parent_task_execution_id",
			"dynamic_workflow_remote_closure_reference", "internal_data"},
		columns: merged(map[string]column{
			"id": {sql: "n.number", kind: number}, "node_id": {sql: "n.node"}, "phase": {sql: "n.phase", kind: enum, enum: core.NodeExecution_Phase_name},
			"created_at": {sql: "n.created_at", kind: moment}, "node_execution_created_at": {sql: "n.created_at", kind: moment},
			"updated_at": {sql: "n.updated_at", kind: moment}, "node_execution_updated_at": {sql: "n.updated_at", kind: moment},
			"started_at": {sql: "n.started_at", kind: moment}, "duration": {sql: durationSQL("n"), kind: duration},
		}, ofExecution),
	}
	attemptEntity = entity{
		name: "task_execution", number: "a.number", projectColumn: "e.project", domainColumn: "e.domain", nameColumn: "e.name", joins: []string{"task", "execution", "node_execution"},
		lacks: []string{"deleted_at", "phase_version", "input_uri", "closure"},
		columns: merged(map[string]column{
			"id": {sql: "a.number", kind: number}, "node_execution.node_id": {sql: "a.node"},
			"node_id": {sql: "a.node"}, "retry_attempt": {sql: "a.attempt", kind: number},
			"phase":      {sql: "a.phase", kind: enum, enum: core.TaskExecution_Phase_name},
			"created_at": {sql: "a.created_at", kind: moment}, "task_execution_created_at": {sql: "a.created_at", kind: moment},
			"updated_at": {sql: "a.updated_at", kind: moment}, "task_execution_updated_at": {sql: "a.updated_at", kind: moment},
			"started_at": {sql: "a.started_at", kind: moment}, "duration": {sql: durationSQL("a"), kind: duration},
			"node_execution.phase": {sql: "(SELECT n.phase FROM nodes n WHERE n.execution = a.execution AND n.node = a.node)", kind: enum, enum: core.NodeExecution_Phase_name},
		}, ofExecution),
	}
	taskEntity = entity{
		name: "task", number: "t.number", projectColumn: "t.project", domainColumn: "t.domain", nameColumn: "t.name", lacks: []string{"deleted_at", "closure", "digest"},
		columns: merged(map[string]column{"id": {sql: "t.number", kind: number}, "type": {sql: "t.type"}, "short_description": {sql: "t.short_description"}, "created_at": {sql: "t.created_at", kind: moment},
			"updated_at": {sql: "t.created_at", kind: moment}}, versionColumns("", "t.", "")),
	}
	workflowEntity = entity{
		name: "workflow", number: "w.number", projectColumn: "w.project", domainColumn: "w.domain", nameColumn: "w.name",
		lacks: []string{"deleted_at", "typed_interface", "remote_closure_identifier", "digest"},
		columns: merged(map[string]column{"id": {sql: "w.number", kind: number}, "short_description": {sql: "w.short_description"}, "created_at": {sql: "w.created_at", kind: moment},
			"updated_at": {sql: "w.created_at", kind: moment}}, versionColumns("", "w.", "")),
	}
	launchPlanEntity = entity{
		name: "launch_plan", number: "l.number", projectColumn: "l.project", domainColumn: "l.domain", nameColumn: "l.name", joins: []string{"workflow"},
		lacks: []string{"deleted_at", "spec", "closure", "digest", "launch_condition_type"},
		columns: merged(map[string]column{"id": {sql: "l.number", kind: number}, "workflow_id": {sql: numberOf("workflows", "l.workflow_"), kind: number},
			"state": {sql: "l.state", kind: number}, "schedule_type": {sql: "l.schedule_type"},
			"created_at": {sql: "l.created_at", kind: moment}, "updated_at": {sql: "l.updated_at", kind: moment}},
			versionColumns("", "l.", ""), versionColumns("workflow", "l.workflow_", "")),
	}
	projectEntity = entity{
		name: "project", number: "p.number", projectColumn: "p.id", domainColumn: "''", nameColumn: "p.name", lacks: []string{"deleted_at", "labels"},
		columns: map[string]column{"id": {sql: "p.number", kind: number}, "identifier": {sql: "p.id"}, "name": {sql: "p.name"}, "description": {sql: "p.description"},
			"state": {sql: "p.state", kind: number}, "created_at": {sql: "p.number", kind: number}, "updated_at": {sql: "p.number", kind: number}},
	}
	namedEntity = entity{
		name: "entities", number: "e.number", projectColumn: "e.project", domainColumn: "e.domain", nameColumn: "e.name", joins: []string{"named_entity_metadata"},
		columns: map[string]column{
			"resource_type": {sql: "e.resource_type", kind: number}, "project": {sql: "e.project"}, "domain": {sql: "e.domain"}, "name": {sql: "e.name"},
			"created_at": {sql: "e.created_at", kind: moment}, "updated_at": {sql: "e.updated_at", kind: moment},
			"description": {sql: namedDescription}, "named_entity_metadata.description": {sql: namedDescription},
			"state": {sql: namedState, kind: number}, "named_entity_metadata.state": {sql: namedState, kind: number},
		},
	}

	// ofExecution are the columns of the execution in lists within one execution.
	ofExecution = map[string]column{
		"execution_project": {sql: "e.project"}, "execution_domain": {sql: "e.domain"}, "execution_name": {sql: "e.name"},
		"execution.execution_project": {sql: "e.project"}, "execution.execution_domain": {sql: "e.domain"}, "execution.execution_name": {sql: "e.name"},
		"execution.phase": {sql: "e.phase", kind: enum, enum: core.WorkflowExecution_Phase_name}, "execution.state": {sql: "e.state", kind: number},
		"execution.error_kind": {sql: "e.error_kind"}, "execution.error_code": {sql: "e.error_code"},
	}
)

// Fields of a record that are in its message and in no column: filters on them are applied to the records (recordFilter).
var (
	nodeTexts = map[string]func(*store.Node) string{
		"error_kind":   func(n *store.Node) string { return errorKind(n.Error) },
		"error_code":   func(n *store.Node) string { return n.Error.GetCode() },
		"cache_status": func(n *store.Node) string { return n.Cache.GetStatus().String() },
	}
	attemptTexts = merged(taskTexts(""), taskTexts("task."))
)

func taskTexts(prefix string) map[string]func(*store.Attempt) string {
	return map[string]func(*store.Attempt) string{
		prefix + "project": func(a *store.Attempt) string { return a.Spec.GetTask().GetProject() },
		prefix + "domain":  func(a *store.Attempt) string { return a.Spec.GetTask().GetDomain() },
		prefix + "name":    func(a *store.Attempt) string { return a.Spec.GetTask().GetName() },
		prefix + "version": func(a *store.Attempt) string { return a.Spec.GetTask().GetVersion() },
	}
}

// durationSQL is how long a record's execution, node or attempt ran; 0 while it has not ended.
func durationSQL(alias string) string {
	return "(CASE WHEN " + alias + ".started_at > 0 AND " + alias + ".ended_at > 0 THEN " + alias + ".ended_at - " + alias + ".started_at ELSE 0 END)"
}

// versionColumns are project, domain, name and version of the entity of, or of the listed entity itself (of is empty). The
// columns x.launch_ are of a task or a launch plan: only names the one whose columns they are.
func versionColumns(of, prefix, only string) map[string]column {
	columns := make(map[string]column)
	for _, name := range []string{"project", "domain", "name", "version"} {
		sql := prefix + name
		if only != "" {
			sql = ifLaunched(only, sql, "''")
		}
		if of != "" {
			name = of + "." + name
		}
		columns[name] = column{sql: sql}
	}
	return columns
}

// ifLaunched is the value of a column of an execution if a launch plan, or a task, was launched, or otherwise.
func ifLaunched(launched, sql, otherwise string) string {
	return "(CASE WHEN x.launch_entity = '" + launched + "' THEN " + sql + " ELSE " + otherwise + " END)"
}

// numberOf is the id of the version that columns with this prefix name, 0 if it is not registered.
func numberOf(table, prefix string) string {
	return "COALESCE((SELECT v.number FROM " + table + " v WHERE v.project = " + prefix + "project AND v.domain = " + prefix + "domain AND v.name = " +
		prefix + "name AND v.version = " + prefix + "version), 0)"
}

func merged[C any](columns map[string]C, more ...map[string]C) map[string]C {
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

// where is WHERE, ORDER BY and LIMIT of a list, or all mistakes of the query.
func (e *entity) where(q store.Query, conditions ...condition) (string, []any, error) {
	var errs []error
	equals := " = ?"
	if e.tagged(q) {
		equals = " || '' = ?" // no index can be used for this: first the tags are read, and then the executions that have them
	}
	for _, c := range []struct{ sql, value string }{{e.projectColumn, q.Project}, {e.domainColumn, q.Domain}, {e.nameColumn, q.Name}} {
		if c.value != "" {
			conditions = append(conditions, condition{c.sql + equals, []any{c.value}})
		}
	}
	var tags []tagFilter
	for _, f := range q.Filters {
		field, err := e.column(f.Field)
		var c condition
		if err == nil {
			c, err = field.condition(f)
		}
		errs = append(errs, err)
		if field.tag {
			tags = addTagCondition(tags, field.sql, f.Function, c)
			continue
		}
		conditions = append(conditions, c)
	}
	for _, t := range tags {
		conditions = append(conditions, t.condition())
	}
	order := column{sql: e.columns["created_at"].sql}
	if q.SortBy != "" {
		key := strings.TrimPrefix(q.SortBy, e.name+".")
		var ok bool
		if order, ok = e.columns[key]; !ok || strings.Contains(key, ".") {
			errs = append(errs, fmt.Errorf("invalid sort key '%s'%s: %w", aloft.Excerpt(q.SortBy), e.noCounterpart(key), aloft.ErrInvalid))
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
	return b.String(), append(args, limitArg(q.Limit), int64(q.Offset)), nil
}

// column finds the column that a filter's field names.
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
	return column{}, fmt.Errorf("'%s.%s' is invalid filter%s: %w", e.name, field, e.noCounterpart(field), aloft.ErrInvalid)
}

// noCounterpart is a note for messages if the name is a column of Flyte's that has no counterpart here.
func (e *entity) noCounterpart(name string) string {
	if slices.Contains(e.lacks, name) {
		return " (Flyte's column '" + name + "' has no counterpart here)"
	}
	return ""
}

// tagFilter are conditions that one tag of an execution must fulfil together.
type tagFilter struct {
	conditions []condition
	equal      []string // columns that one of the conditions compares by eq
}

// tagged says whether a query has filters on tags.
func (e *entity) tagged(q store.Query) bool {
	return slices.ContainsFunc(q.Filters, func(f store.Filter) bool { return e.columns[f.Field].tag })
}

// addTagCondition adds a condition to those on tags. Flyte joins one tag to each execution, so that all conditions are about the
// same tag: eq(execution_tag.key,k)+eq(execution_tag.value,v). One tag cannot have two texts in one column: a second eq on a
// column begins the conditions on another tag, which the execution must have as well.
func addTagCondition(tags []tagFilter, column, function string, c condition) []tagFilter {
	if len(tags) == 0 || function == "eq" && slices.Contains(tags[len(tags)-1].equal, column) {
		tags = append(tags, tagFilter{})
	}
	last := &tags[len(tags)-1]
	last.conditions = append(last.conditions, c)
	if function == "eq" {
		last.equal = append(last.equal, column)
	}
	return tags
}

// condition selects each execution that has such a tag, once.
func (t *tagFilter) condition() condition {
	var texts []string
	var args []any
	for _, c := range t.conditions {
		texts, args = append(texts, c.sql), append(args, c.args...)
	}
	return condition{"e.number IN (SELECT g.execution FROM execution_tags g WHERE " + strings.Join(texts, " AND ") + ")", args}
}

// check is the condition for an execution whose row is read already.
func (t *tagFilter) check() condition {
	c := t.condition()
	return condition{"EXISTS (SELECT 1 FROM execution_tags g WHERE g.execution = e.number AND " + strings.TrimPrefix(c.sql, "e.number IN (SELECT g.execution FROM execution_tags g WHERE "), c.args}
}

var comparisons = map[string]string{"eq": "=", "ne": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

// condition is a filter on the column.
func (c *column) condition(f store.Filter) (condition, error) {
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
		return c.enumCondition(f), nil
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

// value is the value of the column that a filter's text means.
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

// enumCondition compares names, as clients write them, and selects the numbers of those that match.
func (c *column) enumCondition(f store.Filter) condition {
	numbers := []string{"-1"} // no number of an enum: the list is never empty
	for n, name := range c.enum {
		if matches(f, name) {
			numbers = append(numbers, strconv.Itoa(int(n)))
		}
	}
	return condition{c.sql + " IN (" + strings.Join(numbers, ",") + ")", nil}
}

// matches says whether a filter matches a text, as the database would decide it.
func matches(f store.Filter, text string) bool {
	switch v := f.Values[0]; f.Function {
	case "eq":
		return text == v
	case "ne":
		return text != v
	case "gt":
		return text > v
	case "gte":
		return text >= v
	case "lt":
		return text < v
	case "lte":
		return text <= v
	case "contains":
		return like([]rune(text), []rune("%"+v+"%"))
	case "not_like":
		return !like([]rune(text), []rune(v))
	}
	return slices.Contains(f.Values, text) == (f.Function == "value_in")
}

// like is SQL's LIKE without escapes.
func like(text, pattern []rune) bool {
	t, p, again, from := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '%':
			again, from = p, t // if the rest does not fit here, it may do so further on
			p++
		case p < len(pattern) && (pattern[p] == '_' || pattern[p] == text[t]):
			t, p = t+1, p+1
		case again >= 0:
			from++
			t, p = from, again+1
		default:
			return false
		}
	}
	return strings.Trim(string(pattern[p:]), "%") == ""
}

// recordFilter is the part of a query that is applied to the records, because the database has no columns for it.
type recordFilter[T any] struct {
	query   store.Query
	filters []store.Filter
	texts   []func(T) string // one for each filter
	order   func(T) string   // the text to sort by; nil: the database has sorted
}

// splitTexts takes filters and order on texts out of a query on an entity. The rest is for the database, which then returns all
// records, of all pages: these are lists within one execution, so there are not many more than on the page.
func splitTexts[T any](e *entity, q store.Query, texts map[string]func(T) string) (store.Query, recordFilter[T], error) {
	r := recordFilter[T]{query: q}
	if key := strings.TrimPrefix(q.SortBy, e.name+"."); !strings.Contains(key, ".") { // another entity's column orders nothing
		r.order = texts[key]
	}
	var rest []store.Filter
	var errs []error
	for _, f := range q.Filters {
		text := texts[strings.TrimPrefix(f.Field, e.name+".")]
		if text == nil {
			rest = append(rest, f)
			continue
		}
		_, err := (&column{}).condition(f) // for its mistakes
		errs = append(errs, err)
		r.filters, r.texts = append(r.filters, f), append(r.texts, text)
	}
	if r.order == nil && len(r.filters) == 0 {
		return q, r, nil
	}
	q.Filters, q.Budget = rest, nil // every record is read
	if r.order != nil {
		q.SortBy = ""
	}
	if q.Offset >= 0 && q.Limit >= 0 {
		q.Offset, q.Limit = 0, 0
	}
	return q, r, errors.Join(errs...)
}

// apply is the page that the query asks for, of the records that the database returned.
func (r *recordFilter[T]) apply(records []T) []T {
	if r.order == nil && len(r.filters) == 0 {
		return records
	}
	records = slices.DeleteFunc(records, func(record T) bool {
		for i, f := range r.filters {
			if !matches(f, r.texts[i](record)) {
				return true
			}
		}
		return false
	})
	if r.order != nil {
		slices.SortStableFunc(records, func(a, b T) int {
			if r.query.Ascending {
				return strings.Compare(r.order(a), r.order(b))
			}
			return strings.Compare(r.order(b), r.order(a))
		})
	}
	records = records[min(r.query.Offset, len(records)):]
	if r.query.Limit > 0 {
		records = records[:min(r.query.Limit, len(records))]
	}
	return records
}
