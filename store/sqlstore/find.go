package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

// Lists of executions in the order of their creation, which is how clients ask for them, cost what is on the page and not
// what is in the store. A list is read in two parts: first the positions of its executions, from indexes alone, then their rows.
//
// The positions come from one walk, or from several that are merged: an index is walked in the order of the list, in slices of
// sliceRows, and the conditions for which it has no column are checked for each execution of a slice. What is walked is
//
//   - the index of a filter that says what a column is equal to (finder), once for each value;
//   - for other comparisons of such a column, those of its values that fit, if they are few: there are many executions of a
//     workflow, but few workflows;
//   - for a range of times, or of names, what is in the range, if that is little (span);
//   - else all executions of the project and domain.
//
// Of several filters that could be walked the one is that has fewest executions, as far as a count says. A walk
// that is not over after its first slice has to wait for one of scansAtOnce turns, and lets others run after each slice.

const (
	sliceRows   = 2000 // looked at between two chances for others
	firstSlice  = 500
	countedRows = 1000  // at first
	mostCounted = 16000 // where all that could be walked is long
	fewValues   = 64    // of a column that are walked one by one
	scansAtOnce = 2
	rowsAtOnce  = 50
	usualPage   = 100 // executions that a page of a list has which people look at
	tagKey      = "g.key"
	tagValue    = "g.value"
	specAlias   = "x" // of the table execution_specs
)

// finder is an index whose columns are project, domain, one more, and the position: time of creation and number.
type finder struct {
	table, alias string
	column       string // empty: what the index has is what matters
	number, at   string
	only         string // what the index asks for: it is partial
	exact        bool   // the column is what the filter compares
}

// span is an index whose columns are project, domain, one more, and the number.
type span struct {
	ended bool // of executions that have ended; the others are in executions_open
}

var (
	ofEnded, ofAll = &span{ended: true}, &span{}

	everyExecution = &finder{table: "executions", alias: "e", number: "e.number", at: "e.created_at", only: "e.number > 0"}
	findPhase      = &finder{table: "executions", alias: "e", column: "e.phase", number: "e.number", at: "e.created_at", only: "e.number > 0", exact: true}
	findError      = &finder{table: "executions", alias: "e", column: "e.error_code", number: "e.number", at: "e.created_at", only: "e.error_code <> ''", exact: true}
	findAborted    = &finder{table: "executions", alias: "e", number: "e.number", at: "e.created_at", only: "e.abort_cause <> ''"}
	findMode       = ofSpec("x.mode", "x.execution > 0", true)
	findPrincipal  = ofSpec("x.principal", "x.principal <> ''", true)
	findTag        = &finder{table: "execution_tags", alias: "g", column: tagKey, number: "g.execution", at: "g.created_at", exact: true}
)

func ofSpec(column, only string, exact bool) *finder {
	return &finder{table: "execution_specs", alias: specAlias, column: column, number: "x.execution", at: "x.created_at", only: only, exact: exact}
}

// indexedInSpecs says of the names and versions among these columns in which index they are.
func indexedInSpecs(columns map[string]column, of, prefix string, exact bool) map[string]column {
	for _, name := range []string{"name", "version"} {
		c := columns[of+"."+name]
		c.find = ofSpec("x."+prefix+"_"+name, "x.execution > 0", exact)
		columns[of+"."+name] = c
	}
	return columns
}

// position is where an execution is in the order of creation.
type position struct{ at, number int64 }

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.at, o.at), cmp.Compare(p.number, o.number))
}

// walk is one index with what is equal in it.
type walk struct {
	*finder
	conditions []condition // of the index
	checks     []condition // of the execution
}

// walkedList is a list of executions that walks can answer.
type walkedList struct {
	store     *Store
	query     store.Query
	ascending bool
	filters   []listFilter
	times     []condition // on the time of creation; {at} is its column
}

// listFilter is a filter, or all filters on one tag.
type listFilter struct {
	condition // for an execution that is looked at
	filter    store.Filter
	column    column
	tag       *tag
}

// walkedList prepares a list; nil: it is none that walks can answer, or has mistakes, all of which the other way reports.
func (s *Store) walkedList(q store.Query) *walkedList {
	if q.Project == "" || q.Domain == "" || q.Limit <= 0 || q.Offset < 0 || q.SortBy != "" && strings.TrimPrefix(q.SortBy, "execution.") != "created_at" {
		return nil
	}
	p := &walkedList{store: s, query: q, ascending: q.Ascending}
	var tags []tag
	for _, f := range q.Filters {
		c, err := executionEntity.column(f.Field)
		if err != nil {
			return nil
		}
		condition, err := c.condition(f)
		if err != nil {
			return nil
		}
		switch {
		case c.tag:
			tags = about(tags, c.sql, f.Function, condition)
		case c.sql == everyExecution.at && comparisons[f.Function] != "" && f.Function != "ne":
			condition.sql = strings.ReplaceAll(condition.sql, everyExecution.at, "{at}")
			p.times = append(p.times, condition)
		default:
			p.filters = append(p.filters, listFilter{condition: condition, filter: f, column: c})
		}
	}
	for i := range tags {
		p.filters = append(p.filters, listFilter{condition: tags[i].check(), tag: &tags[i]})
	}
	if q.Name != "" {
		p.filters = append(p.filters, listFilter{condition: condition{"e.name = ?", []any{q.Name}},
			filter: store.Filter{Field: "execution_name", Function: "eq", Values: []string{q.Name}}, column: executionEntity.columns["execution_name"]})
	}
	return p
}

// listWalked is a list by positions.
func (s *Store) listWalked(ctx context.Context, p *walkedList) ([]*store.Execution, error) {
	positions, err := p.positions(ctx)
	if err != nil {
		return nil, err
	}
	return s.executionsAt(ctx, positions, p.ascending, p.query.Budget)
}

// positions are those of the page.
func (p *walkedList) positions(ctx context.Context) ([]position, error) {
	turn := &turn{of: p.store.scans}
	defer turn.end()
	walks, few, err := p.choose(ctx)
	if err != nil {
		return nil, err
	}
	need := p.query.Offset + p.query.Limit
	all := few
	for _, w := range walks {
		some, err := p.walk(ctx, turn, w, need)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(walks) != 1 || few != nil {
		slices.SortFunc(all, p.order)
		all = slices.Compact(all)
	}
	all = all[min(p.query.Offset, len(all)):]
	return all[:min(p.query.Limit, len(all))], nil
}

func (p *walkedList) order(a, b position) int {
	if p.ascending {
		return a.compare(b)
	}
	return b.compare(a)
}

// choose finds what to walk, or few positions of which no other can be on the list.
func (p *walkedList) choose(ctx context.Context) (walks []walk, few []position, err error) {
	var candidates [][]walk
	for i := range p.filters {
		ws, ok, err := p.walksOf(ctx, i)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			candidates = append(candidates, ws)
		}
	}
	best, fewest, err := p.shortest(ctx, candidates)
	if err != nil {
		return nil, nil, err
	}
	if best == nil || fewest > firstSlice && len(candidates) < p.selective() {
		for i := range p.filters {
			found, ok, err := p.spanOf(ctx, i)
			if err != nil {
				return nil, nil, err
			}
			if ok {
				return nil, append([]position{}, found...), nil
			}
		}
	}
	if best == nil {
		best = []walk{p.along(everyExecution, nil, -1)}
	}
	return best, nil, nil
}

// shortest is the candidate with the fewest executions, as far as they are counted, and how many it has. They are counted
// further and further until one ends: of what has failed and what is of a workflow either may be the rare one.
func (p *walkedList) shortest(ctx context.Context, candidates [][]walk) (best []walk, fewest int64, err error) {
	if len(candidates) > 0 {
		best = candidates[0]
	}
	for limit := int64(countedRows); limit <= mostCounted; limit *= 4 {
		fewest = limit + 1
		if p.selective() <= 1 { // there is nothing to compare it with
			return best, fewest, nil
		}
		for _, ws := range candidates {
			n, err := p.count(ctx, ws, fewest)
			if err != nil {
				return nil, 0, err
			}
			if n < fewest {
				best, fewest = ws, n
			}
		}
		if fewest <= limit || len(candidates) < 2 {
			break
		}
	}
	return best, fewest, nil
}

// selective is how many filters could be walked, or read as a range.
func (p *walkedList) selective() (n int) {
	for _, f := range p.filters {
		if f.tag != nil || f.column.find != nil || f.column.span != nil {
			n++
		}
	}
	return n
}

// along is a walk along an index where its column has a value, if it has one; every filter but this one is checked.
func (p *walkedList) along(f *finder, value any, leaveOut int) walk {
	w := walk{finder: f, conditions: []condition{{f.alias + ".project = ?", []any{p.query.Project}}, {f.alias + ".domain = ?", []any{p.query.Domain}}}}
	if value != nil {
		w.conditions = append(w.conditions, condition{f.column + " = ?", []any{value}})
	}
	if f.only != "" {
		w.conditions = append(w.conditions, condition{f.only, nil})
	}
	for _, c := range p.times {
		w.conditions = append(w.conditions, condition{strings.ReplaceAll(c.sql, "{at}", f.at), c.args})
	}
	for i, filter := range p.filters {
		if i != leaveOut || !f.exact {
			w.checks = append(w.checks, filter.condition)
		}
	}
	return w
}

// walksOf are the walks that find all executions of which a filter holds.
func (p *walkedList) walksOf(ctx context.Context, i int) ([]walk, bool, error) {
	f := &p.filters[i]
	if f.tag != nil {
		return p.walksOfTag(ctx, i)
	}
	find := f.column.find
	if find == nil {
		return nil, false, nil
	}
	if find.column == "" {
		return []walk{p.along(find, nil, i)}, !fits(f.filter, ""), nil
	}
	var values []any
	switch equal := f.filter.Function == "eq" || f.filter.Function == "value_in"; {
	case f.column.kind == enum:
		for n, name := range f.column.enum {
			if fits(f.filter, name) {
				values = append(values, int64(n))
			}
		}
	case equal:
		for _, text := range f.filter.Values {
			value, err := f.column.value(text)
			if err != nil || value == "" {
				return nil, false, err
			}
			values = append(values, value)
		}
	case f.column.kind != text || !strings.HasSuffix(find.only, "> 0"), !find.exact && fits(f.filter, ""):
		return nil, false, nil // the index has not all executions, or others than those that have a value there are meant
	default:
		all, few, err := p.valuesOf(ctx, find)
		if err != nil || !few {
			return nil, false, err
		}
		for _, value := range all {
			if fits(f.filter, value) {
				values = append(values, value)
			}
		}
	}
	if len(values) > fewValues {
		return nil, false, nil
	}
	walks := make([]walk, 0, len(values))
	for _, value := range values {
		walks = append(walks, p.along(find, value, i))
	}
	return walks, true, nil
}

// walksOfTag walks the executions that have a tag, or each of the few tags that fit.
func (p *walkedList) walksOfTag(ctx context.Context, i int) ([]walk, bool, error) {
	t := p.filters[i].tag
	var key any
	var rest []condition
	for _, c := range t.conditions {
		if key == nil && c.sql == tagKey+" = ?" {
			key = c.args[0]
		} else {
			rest = append(rest, c)
		}
	}
	along := func(key any) walk {
		w := p.along(findTag, key, i)
		w.conditions = append(w.conditions, rest...) // on the same tag
		return w
	}
	if key != nil {
		return []walk{along(key)}, true, nil
	}
	keys, few, err := p.valuesOf(ctx, findTag)
	if err != nil || !few {
		return nil, false, err
	}
	var walks []walk
	for _, key := range keys {
		walks = append(walks, along(key))
	}
	return walks, true, nil
}

// valuesOf are the values of an index's column, if they are few: each is found from the one before.
func (p *walkedList) valuesOf(ctx context.Context, f *finder) (values []string, few bool, err error) {
	only := ""
	if f.only != "" {
		only = " AND " + f.only
	}
	next := fmt.Sprintf("SELECT MIN(%s) FROM %s %s WHERE %s.project = ? AND %s.domain = ?%s", f.column, f.table, f.alias, f.alias, f.alias, only)
	query := fmt.Sprintf("WITH RECURSIVE v (value) AS (%s UNION ALL SELECT (%s AND %s > v.value) FROM v WHERE v.value IS NOT NULL) SELECT value FROM v WHERE value IS NOT NULL LIMIT %d",
		next, next, f.column, fewValues+1)
	err = p.store.read(ctx, true, query, []any{p.query.Project, p.query.Domain, p.query.Project, p.query.Domain}, func(scan scan) error {
		var value string
		err := scan(&value)
		values = append(values, value)
		return err
	})
	return values, len(values) <= fewValues, err
}

// count is how many executions walks have, up to a limit.
func (p *walkedList) count(ctx context.Context, walks []walk, limit int64) (total int64, err error) {
	for _, w := range walks {
		if total >= limit {
			break
		}
		where, args := join(w.conditions)
		err := p.store.read(ctx, false, "SELECT COUNT(*) FROM (SELECT 1 FROM "+w.table+" "+w.alias+where+" LIMIT ?) AS counted", append(args, limit-total), func(scan scan) error {
			var n int64
			err := scan(&n)
			total += n
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return total, nil
}

func join(conditions []condition) (where string, args []any) {
	for i, c := range conditions {
		where += map[bool]string{true: " WHERE ", false: " AND "}[i == 0] + c.sql
		args = append(args, c.args...)
	}
	return where, args
}

// spanOf are the positions in the range of a filter, if there are few.
func (p *walkedList) spanOf(ctx context.Context, i int) (positions []position, few bool, err error) {
	f := &p.filters[i]
	span := f.column.span
	if span == nil || comparisons[f.filter.Function] == "" && f.filter.Function != "value_in" || f.filter.Function == "ne" {
		return nil, false, nil
	}
	// What is read is the range in its index, or all that is open: project and domain are no reason to take another one.
	parts := []string{" AND e.project = ? AND e.domain = ?"}
	if span.ended {
		open, err := p.openOnes(ctx)
		if err != nil || open > countedRows {
			return nil, false, err
		}
		parts = []string{parts[0] + " AND e.ended = 1", " AND e.project || '' = ? AND e.domain || '' = ? AND e.ended = 0"}
	}
	for _, part := range parts {
		err := p.store.read(ctx, false, "SELECT e.created_at, e.number FROM executions e WHERE "+f.sql+part+" LIMIT ?",
			append(append([]any{}, f.args...), p.query.Project, p.query.Domain, countedRows+1), func(scan scan) error {
				var at position
				err := scan(&at.at, &at.number)
				positions = append(positions, at)
				return err
			})
		if err != nil || len(positions) > countedRows {
			return nil, false, err
		}
	}
	w := walk{finder: everyExecution}
	for k, other := range p.filters {
		if k != i {
			w.checks = append(w.checks, other.condition)
		}
	}
	for _, c := range p.times {
		w.checks = append(w.checks, condition{strings.ReplaceAll(c.sql, "{at}", w.at), c.args})
	}
	positions, err = p.checked(ctx, w, positions)
	return positions, true, err
}

// openOnes is how many executions have not ended, up to a limit.
func (p *walkedList) openOnes(ctx context.Context) (n int64, err error) {
	err = p.store.read(ctx, true, "SELECT COUNT(*) FROM (SELECT 1 FROM executions WHERE ended = 0 LIMIT ?) AS counted", []any{countedRows + 1},
		func(scan scan) error { return scan(&n) })
	return n, err
}

// checked leaves those positions of which the conditions hold.
func (p *walkedList) checked(ctx context.Context, w walk, positions []position) ([]position, error) {
	left := []position{}
	for some := range slices.Chunk(positions, rowsAtOnce) {
		numbers := make([]any, len(some))
		for i, at := range some {
			numbers[i] = at.number
		}
		part := w
		part.conditions = []condition{{"e.number IN (" + strings.TrimSuffix(strings.Repeat("?,", len(numbers)), ",") + ")", numbers}}
		found, err := p.read(ctx, part, nil, position{}, 0)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	slices.SortFunc(left, p.order)
	if after := p.after(); after != nil {
		left = slices.DeleteFunc(left, func(at position) bool { return p.order(at, *after) <= 0 })
	}
	return left, nil
}

func (p *walkedList) after() *position {
	if p.query.After == nil {
		return nil
	}
	return &position{nanos(p.query.After.CreatedAt), int64(p.query.After.Key)}
}

// walk reads the first positions of a walk, slice by slice.
func (p *walkedList) walk(ctx context.Context, turn *turn, w walk, need int) (positions []position, err error) {
	from := p.after()
	for size := max(firstSlice, min(2*need, sliceRows)); ; size = sliceRows {
		found, to, more, err := p.slice(ctx, w, from, size, need-len(positions))
		if err != nil {
			return nil, err
		}
		if positions = append(positions, found...); !more || len(positions) >= need {
			return positions, nil
		}
		from = &to
		if err := turn.next(ctx); err != nil {
			return nil, err
		}
	}
}

// slice reads at most so many of the positions in the next slice of a walk. to is the last position that was looked at; more:
// there may be others behind it.
func (p *walkedList) slice(ctx context.Context, w walk, from *position, size, limit int) (found []position, to position, more bool, err error) {
	if len(w.checks) == 0 { // what is looked at is found: one statement does both
		limit = min(limit, size)
		if found, err = p.read(ctx, w, from, position{}, limit); err != nil || len(found) < limit {
			return found, position{}, false, err
		}
		return found, found[limit-1], true, nil
	}
	if to, more, err = p.boundary(ctx, w, from, size); err != nil {
		return nil, position{}, false, err
	}
	found, err = p.read(ctx, w, from, to, limit)
	return found, to, more, err
}

func (p *walkedList) directions() (direction, behind, notBehind string) {
	if p.ascending {
		return "", ">", "<="
	}
	return " DESC", "<", ">="
}

// boundary is the last position of a slice; more: there may be others behind it.
func (p *walkedList) boundary(ctx context.Context, w walk, from *position, size int) (to position, more bool, err error) {
	direction, behind, _ := p.directions()
	conditions := slices.Clone(w.conditions)
	if from != nil {
		conditions = append(conditions, condition{"(" + w.at + ", " + w.number + ") " + behind + " (?, ?)", []any{from.at, from.number}})
	}
	where, args := join(conditions)
	err = p.store.read(ctx, true, fmt.Sprintf("SELECT %s, %s FROM %s %s%s ORDER BY %s%s, %s%s LIMIT 1 OFFSET ?", w.at, w.number, w.table, w.alias, where, w.at, direction, w.number, direction),
		append(args, size-1), func(scan scan) error {
			more = true
			return scan(&to.at, &to.number)
		})
	return to, more, err
}

// read reads positions from one that is left out to one that is not, at most so many; 0: all.
func (p *walkedList) read(ctx context.Context, w walk, from *position, to position, limit int) (positions []position, err error) {
	direction, behind, notBehind := p.directions()
	conditions := slices.Clone(w.conditions)
	if from != nil {
		conditions = append(conditions, condition{"(" + w.at + ", " + w.number + ") " + behind + " (?, ?)", []any{from.at, from.number}})
	}
	if to != (position{}) {
		conditions = append(conditions, condition{"(" + w.at + ", " + w.number + ") " + notBehind + " (?, ?)", []any{to.at, to.number}})
	}
	tables := w.table + " " + w.alias
	checks, _ := join(w.checks)
	// The index comes first, and the rows of its positions are looked up: CROSS JOIN keeps SQLite from turning that round.
	if w.alias != "e" && strings.Contains(checks, "e.") {
		tables += " CROSS JOIN executions e"
		conditions = append(conditions, condition{"e.number = " + w.number, nil})
	}
	if w.alias != specAlias && strings.Contains(checks, "x.") {
		tables += " CROSS JOIN execution_specs x"
		conditions = append(conditions, condition{"x.execution = " + w.number, nil})
	}
	where, args := join(append(conditions, w.checks...))
	query := fmt.Sprintf("SELECT %s, %s FROM %s%s", w.at, w.number, tables, where)
	if limit > 0 {
		query += fmt.Sprintf(" ORDER BY %s%s, %s%s LIMIT ?", w.at, direction, w.number, direction)
		args = append(args, limit)
	}
	err = p.store.read(ctx, false, query, args, func(scan scan) error {
		var at position
		err := scan(&at.at, &at.number)
		positions = append(positions, at)
		return err
	})
	return positions, err
}

// turn is the right to look at many rows, or to read large pages, of which there are few at a time.
type turn struct {
	of  chan struct{} // scans or pages of the store
	has bool
}

// next waits for the turn, or lets others run who have waited meanwhile.
func (t *turn) next(ctx context.Context) error {
	if t.has {
		runtime.Gosched()
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, readFor)
	defer cancel()
	select {
	case t.of <- struct{}{}:
		t.has = true
		return nil
	case <-ctx.Done():
		return fmt.Errorf("other lists of many rows are read: %w: %w", aloft.ErrUnavailable, ctx.Err())
	}
}

func (t *turn) end() {
	if t.has {
		<-t.of
		t.has = false
	}
}

var executionsAt = listExecutions + "WHERE e.number IN (" + strings.TrimSuffix(strings.Repeat("?,", rowsAtOnce), ",") + ") ORDER BY e.created_at"

// executionsAt reads the executions at positions, in their order, as far as the budget reaches. Of a page that is larger than
// those that people look at, the rest waits for a turn.
func (s *Store) executionsAt(ctx context.Context, positions []position, ascending bool, budget *store.Budget) ([]*store.Execution, error) {
	query := executionsAt + " DESC, e.number DESC"
	if ascending {
		query = executionsAt + ", e.number"
	}
	recs := make([]*store.Execution, 0, len(positions))
	turn := &turn{of: s.pages}
	defer turn.end()
	for some := range slices.Chunk(positions, rowsAtOnce) {
		if len(recs) >= usualPage {
			if err := turn.next(ctx); err != nil {
				return nil, err
			}
		}
		args := make([]any, rowsAtOnce)
		for i := range args {
			args[i] = some[min(i, len(some)-1)].number
		}
		err := s.list(ctx, true, query, args, budget, func(scan scan) error {
			rec, err := scanExecution(scan)
			if err == nil {
				recs = append(recs, rec)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if budget != nil && budget.Cut {
			break
		}
	}
	return recs, nil
}
