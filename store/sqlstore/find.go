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
// The positions come from one walk, or from several whose positions are merged. A walk reads an index in the order of the list, in
// slices of sliceRows, and checks for each execution of a slice the conditions for which the index has no column. The walks are
//
//   - for a filter that says what a column is equal to: one walk of the column's index (valueIndex) for each value;
//   - for other comparisons of such a column: one walk for each of its values that match, if they are few: there are many
//     executions of a workflow, but few workflows;
//   - for a range of times, or of names: no walk, but all positions in the range (rangeIndex), if they are few;
//   - else one walk of all executions of the project and domain.
//
// If several filters have walks, those of the filter with the fewest executions are taken, as far as they are counted. A walk
// that is not over after its first slice has to wait for one of scansAtOnce turns, and lets other goroutines run after each slice.

const (
	sliceRows   = 2000  // rows of an index that a walk reads before it lets others run
	firstSlice  = 500   // rows of the first slice, at least: it needs no turn
	countedRows = 1000  // executions up to which the walks of each filter are counted at first
	maxCounted  = 16000 // executions up to which they are counted if no filter has fewer
	fewValues   = 64    // values of a column up to which each has a walk
	scansAtOnce = 2     // walks beyond their first slice that run at once
	rowsAtOnce  = 50    // executions that one statement reads by their numbers
	usualPage   = 100   // executions of a page that needs no turn
	tagKey      = "g.key"
	tagValue    = "g.value"
	specAlias   = "x" // of the table execution_specs
)

// valueIndex is an index whose columns are project, domain, one more, and the position: time of creation and number.
type valueIndex struct {
	table, alias string
	column       string // empty: an execution that has a value is in the index, any other is not
	number, at   string // the columns of the position
	only         string // the condition of a partial index, which a statement must repeat to use it
	exact        bool   // the filter compares this column; else it must be checked for each execution, too
}

// rangeIndex is an index whose columns are project, domain, one more, and the number.
type rangeIndex struct {
	ended bool // it has only executions that have ended; the others are in the index executions_open
}

var (
	endedRange, allRange = &rangeIndex{ended: true}, &rangeIndex{}

	everyExecution = &valueIndex{table: "executions", alias: "e", number: "e.number", at: "e.created_at", only: "e.number > 0"}
	phaseIndex     = &valueIndex{table: "executions", alias: "e", column: "e.phase", number: "e.number", at: "e.created_at", only: "e.number > 0", exact: true}
	errorIndex     = &valueIndex{table: "executions", alias: "e", column: "e.error_code", number: "e.number", at: "e.created_at", only: "e.error_code <> ''", exact: true}
	abortedIndex   = &valueIndex{table: "executions", alias: "e", number: "e.number", at: "e.created_at", only: "e.abort_cause <> ''"}
	modeIndex      = specIndex("x.mode", "x.execution > 0", true)
	principalIndex = specIndex("x.principal", "x.principal <> ''", true)
	tagIndex       = &valueIndex{table: "execution_tags", alias: "g", column: tagKey, number: "g.execution", at: "g.created_at", exact: true}
)

func specIndex(column, only string, exact bool) *valueIndex {
	return &valueIndex{table: "execution_specs", alias: specAlias, column: column, number: "x.execution", at: "x.created_at", only: only, exact: exact}
}

// indexedInSpecs sets the indexes of the names and versions among these columns.
func indexedInSpecs(columns map[string]column, of, prefix string, exact bool) map[string]column {
	for _, name := range []string{"name", "version"} {
		c := columns[of+"."+name]
		c.valueIndex = specIndex("x."+prefix+"_"+name, "x.execution > 0", exact)
		columns[of+"."+name] = c
	}
	return columns
}

// position is where an execution is in the order of creation.
type position struct{ at, number int64 }

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.at, o.at), cmp.Compare(p.number, o.number))
}

// walk is a part of one index, in the order of the list.
type walk struct {
	*valueIndex
	conditions []condition // on columns of the index: which part of it
	checks     []condition // on the executions in that part
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
	condition // for an execution whose row is read
	filter    store.Filter
	column    column
	tag       *tagFilter
}

// newWalkedList prepares a list; nil: walks cannot answer it, or the query has mistakes, which entity.where reports, all at once.
func (s *Store) newWalkedList(q store.Query) *walkedList {
	if q.Project == "" || q.Domain == "" || q.Limit <= 0 || q.Offset < 0 || q.SortBy != "" && strings.TrimPrefix(q.SortBy, "execution.") != "created_at" {
		return nil
	}
	p := &walkedList{store: s, query: q, ascending: q.Ascending}
	var tags []tagFilter
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
			tags = addTagCondition(tags, c.sql, f.Function, condition)
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

// listWalked reads a list by positions.
func (s *Store) listWalked(ctx context.Context, p *walkedList) ([]*store.Execution, error) {
	positions, err := p.positions(ctx)
	if err != nil {
		return nil, err
	}
	return s.executionsAt(ctx, positions, p.ascending, p.query.Budget)
}

// positions reads the positions of the page.
func (p *walkedList) positions(ctx context.Context) ([]position, error) {
	turn := &turn{of: p.store.scans}
	defer turn.end()
	walks, few, err := p.chooseWalks(ctx)
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

// chooseWalks finds the walks for the list, or few positions that have all executions of the list among them.
func (p *walkedList) chooseWalks(ctx context.Context) (walks []walk, few []position, err error) {
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
	if best == nil || fewest > firstSlice && len(candidates) < p.countIndexed() {
		for i := range p.filters {
			found, ok, err := p.positionsInRange(ctx, i)
			if err != nil {
				return nil, nil, err
			}
			if ok {
				return nil, append([]position{}, found...), nil
			}
		}
	}
	if best == nil {
		best = []walk{p.newWalk(everyExecution, nil, -1)}
	}
	return best, nil, nil
}

// shortest is the candidate with the fewest executions, as far as they are counted, and how many it has. All candidates are counted
// up to a limit that grows until one has fewer: of the executions that failed and those of a workflow, either may be the fewer.
func (p *walkedList) shortest(ctx context.Context, candidates [][]walk) (best []walk, fewest int64, err error) {
	if len(candidates) > 0 {
		best = candidates[0]
	}
	for limit := int64(countedRows); limit <= maxCounted; limit *= 4 {
		fewest = limit + 1
		if p.countIndexed() <= 1 { // there is no other candidate to compare with
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

// countIndexed is how many filters have an index.
func (p *walkedList) countIndexed() (n int) {
	for _, f := range p.filters {
		if f.tag != nil || f.column.valueIndex != nil || f.column.rangeIndex != nil {
			n++
		}
	}
	return n
}

// newWalk is a walk of the part of an index whose column has a value, or of all of it (value is nil). All filters are checked but
// the one with the number leaveOut, if the index decides it (exact).
func (p *walkedList) newWalk(f *valueIndex, value any, leaveOut int) walk {
	w := walk{valueIndex: f, conditions: []condition{{f.alias + ".project = ?", []any{p.query.Project}}, {f.alias + ".domain = ?", []any{p.query.Domain}}}}
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
	find := f.column.valueIndex
	if find == nil {
		return nil, false, nil
	}
	if find.column == "" {
		return []walk{p.newWalk(find, nil, i)}, !matches(f.filter, ""), nil
	}
	var values []any
	switch equal := f.filter.Function == "eq" || f.filter.Function == "value_in"; {
	case f.column.kind == enum:
		for n, name := range f.column.enum {
			if matches(f.filter, name) {
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
	case f.column.kind != text || !strings.HasSuffix(find.only, "> 0"), !find.exact && matches(f.filter, ""):
		return nil, false, nil // the index does not have all executions of which the filter holds
	default:
		all, few, err := p.valuesOf(ctx, find)
		if err != nil || !few {
			return nil, false, err
		}
		for _, value := range all {
			if matches(f.filter, value) {
				values = append(values, value)
			}
		}
	}
	if len(values) > fewValues {
		return nil, false, nil
	}
	walks := make([]walk, 0, len(values))
	for _, value := range values {
		walks = append(walks, p.newWalk(find, value, i))
	}
	return walks, true, nil
}

// walksOfTag is a walk of the executions that have a tag, or one for each of the few tags that match.
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
		w := p.newWalk(tagIndex, key, i)
		w.conditions = append(w.conditions, rest...) // on the same tag
		return w
	}
	if key != nil {
		return []walk{along(key)}, true, nil
	}
	keys, few, err := p.valuesOf(ctx, tagIndex)
	if err != nil || !few {
		return nil, false, err
	}
	var walks []walk
	for _, key := range keys {
		walks = append(walks, along(key))
	}
	return walks, true, nil
}

// valuesOf are the values of an index's column, if they are few: each is found as the smallest that is larger than the last one.
func (p *walkedList) valuesOf(ctx context.Context, f *valueIndex) (values []string, few bool, err error) {
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

// positionsInRange are the positions in the range of a filter, if there are few.
func (p *walkedList) positionsInRange(ctx context.Context, i int) (positions []position, few bool, err error) {
	f := &p.filters[i]
	span := f.column.rangeIndex
	if span == nil || comparisons[f.filter.Function] == "" && f.filter.Function != "value_in" || f.filter.Function == "ne" {
		return nil, false, nil
	}
	// The statements read the range in its index, or all executions that have not ended. The columns project || '' and domain || ''
	// keep the database from using another index.
	parts := []string{" AND e.project = ? AND e.domain = ?"}
	if span.ended {
		open, err := p.countOpen(ctx)
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
	w := walk{valueIndex: everyExecution}
	for k, other := range p.filters {
		if k != i {
			w.checks = append(w.checks, other.condition)
		}
	}
	for _, c := range p.times {
		w.checks = append(w.checks, condition{strings.ReplaceAll(c.sql, "{at}", w.at), c.args})
	}
	positions, err = p.filterPositions(ctx, w, positions)
	return positions, true, err
}

// countOpen is how many executions have not ended, up to a limit.
func (p *walkedList) countOpen(ctx context.Context) (n int64, err error) {
	err = p.store.read(ctx, true, "SELECT COUNT(*) FROM (SELECT 1 FROM executions WHERE ended = 0 LIMIT ?) AS counted", []any{countedRows + 1},
		func(scan scan) error { return scan(&n) })
	return n, err
}

// filterPositions leaves those positions of which the checks of the walk hold.
func (p *walkedList) filterPositions(ctx context.Context, w walk, positions []position) ([]position, error) {
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

// slice reads at most limit positions in the next slice of a walk, of size rows. to is the last position that was read; more: there
// may be others behind it.
func (p *walkedList) slice(ctx context.Context, w walk, from *position, size, limit int) (found []position, to position, more bool, err error) {
	if len(w.checks) == 0 { // all positions of the slice are on the list: one statement reads them and finds its end
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

// read reads the positions of a walk behind from, up to and including to, at most limit (0: all).
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
	// The index is read first, and the rows of its positions are looked up: CROSS JOIN keeps SQLite from doing it the other way.
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

// turn is the right to look at many rows, or to read a large page, for a list: few lists have one at a time.
type turn struct {
	of  chan struct{} // scans or pages of the store
	has bool
}

// next waits for the turn; a list that has it lets other goroutines run.
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

// executionsAt reads the executions at positions, in their order, as far as the budget reaches. It waits for a turn before it reads
// more than usualPage.
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
