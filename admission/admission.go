// Package admission chooses which waiting attempts may start where there is room.
//
// After the store has an attempt, before an executor starts it. The choice is pure: it is handed what waits, what runs
// and the room there is, and returns what starts now and why each of the others waits. Executors call it and commit the
// choice; nothing here remembers anything, so a restart changes nothing but the order of equals.
package admission

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// Room is an amount of what attempts compete for: a capacity, what is free of it, or what one attempt asks for.
type Room struct {
	MilliCPU int64
	Memory   int64 // bytes
	GPU      int64
	Slots    int64 // attempts at once, whatever they ask for
}

// Candidate is one attempt that waits or runs.
type Candidate struct {
	Project   string
	Execution string
	Asks      Room // Slots is taken as 1
	CreatedAt time.Time
}

// Choice is the decision about the waiting candidates.
type Choice struct {
	Start   []int          // indexes into waiting, in the order in which to start them
	Reasons map[int]string // for each that is not started: what it waits for
}

// Patience is how long smaller attempts may pass by a larger one for which there is no room.
// After that, room that becomes free is kept for it.
const Patience = 10 * time.Second

// Choose decides fairly: the project with the fewest attempts running comes first, within it the execution with the
// fewest, within that first come, first served. What asks for more than the whole capacity is given the whole of it, so
// that it runs alone instead of never; but a GPU that is not there cannot be shared.
//
// Reasons do not tell how much is free: they would have to be written again with each attempt that ends.
func Choose(waiting, running []Candidate, capacity Room, now time.Time) Choice {
	free := capacity
	for _, r := range running {
		free = free.less(r.Asks.within(capacity))
	}
	choice := Choice{Reasons: map[int]string{}}
	left := make([]int, 0, len(waiting))
	least := capacity // what the most modest of them asks for
	for i, w := range waiting {
		if w.Asks.GPU > capacity.GPU {
			choice.Reasons[i] = fmt.Sprintf("asks for %d GPU, this executor has %d", w.Asks.GPU, capacity.GPU)
			continue
		}
		left = append(left, i)
		least = least.least(w.Asks.within(capacity))
	}
	// Nothing fits any more: most looks end here, whatever the length of the queue.
	full := func(rest []int) Choice {
		var asks Room
		var why string
		for _, i := range rest {
			if why == "" || waiting[i].Asks != asks {
				asks = waiting[i].Asks
				why = free.why(asks, capacity)
			}
			choice.Reasons[i] = why
		}
		return choice
	}
	if !free.fits(least) {
		return full(left)
	}
	queues := queue(waiting, left, running)
	for len(queues) > 0 {
		if !free.fits(least) {
			return full(queues.rest())
		}
		patient := true
		queues.next(func(next int) (starts bool) {
			w := waiting[next]
			asks := w.Asks.within(capacity)
			if free.fits(asks) {
				free = free.less(asks)
				choice.Start = append(choice.Start, next)
				return true
			}
			choice.Reasons[next] = free.why(w.Asks, capacity)
			patient = now.Sub(w.CreatedAt) < Patience
			return false
		})
		if !patient {
			for _, i := range queues.rest() {
				choice.Reasons[i] = "waits behind an older attempt for which there is no room yet"
			}
			break
		}
	}
	return choice
}

// First returns the n candidates whose turn would come first if there were room for all, in order of arrival.
func First(waiting []Candidate, n int) []int {
	left := make([]int, len(waiting))
	for i := range left {
		left[i] = i
	}
	queues := queue(waiting, left, nil)
	first := make([]int, 0, min(n, len(waiting)))
	for len(queues) > 0 && len(first) < n {
		queues.next(func(next int) bool {
			first = append(first, next)
			return true
		})
	}
	slices.Sort(first)
	return first
}

// queues is what waits by project and, within it, by execution: heaps with the one whose turn it is on top.
type queues []*project

type project struct {
	running int
	lines   []*line
}

type line struct {
	running int
	waiting []int // of one execution, in order of arrival
}

func queue(waiting []Candidate, indexes []int, running []Candidate) queues {
	slices.SortStableFunc(indexes, func(a, b int) int { return waiting[a].CreatedAt.Compare(waiting[b].CreatedAt) })
	projects, lines := map[string]*project{}, map[[2]string]*line{}
	var q queues
	for _, i := range indexes {
		w := waiting[i]
		p := projects[w.Project]
		if p == nil {
			p = &project{}
			projects[w.Project] = p
			q = append(q, p)
		}
		l := lines[[2]string{w.Project, w.Execution}]
		if l == nil {
			l = &line{}
			lines[[2]string{w.Project, w.Execution}] = l
			p.lines = append(p.lines, l)
		}
		l.waiting = append(l.waiting, i)
	}
	for _, r := range running {
		if p := projects[r.Project]; p != nil {
			p.running++
		}
		if l := lines[[2]string{r.Project, r.Execution}]; l != nil {
			l.running++
		}
	}
	for _, p := range q {
		heap.Init(p)
	}
	heap.Init(&q)
	return q
}

// next takes the candidate whose turn it is and asks whether it starts, which counts for whose turn comes after it.
func (q *queues) next(starts func(index int) bool) {
	p := (*q)[0]
	l := p.lines[0]
	index := l.waiting[0]
	l.waiting = l.waiting[1:]
	if starts(index) {
		l.running++
		p.running++
	}
	if len(l.waiting) > 0 {
		heap.Fix(p, 0)
	} else if heap.Pop(p); len(p.lines) == 0 {
		heap.Pop(q)
		return
	}
	heap.Fix(q, 0)
}

// rest is all that has not been taken.
func (q queues) rest() []int {
	var all []int
	for _, p := range q {
		for _, l := range p.lines {
			all = append(all, l.waiting...)
		}
	}
	return all
}

func (p *project) Len() int           { return len(p.lines) }
func (p *project) Swap(i, j int)      { p.lines[i], p.lines[j] = p.lines[j], p.lines[i] }
func (p *project) Push(l any)         { p.lines = append(p.lines, l.(*line)) }
func (p *project) Less(i, j int) bool { return p.lines[i].before(p.lines[j]) < 0 }
func (p *project) Pop() any {
	last := len(p.lines) - 1
	l := p.lines[last]
	p.lines = p.lines[:last]
	return l
}

func (q queues) Len() int      { return len(q) }
func (q queues) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queues) Push(p any)   { *q = append(*q, p.(*project)) }
func (q queues) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].running, q[j].running), q[i].lines[0].before(q[j].lines[0])) < 0
}
func (q *queues) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	*q = (*q)[:last]
	return p
}

// before orders executions: the fewest running first; ties go to the one that came first.
func (l *line) before(other *line) int {
	return cmp.Or(cmp.Compare(l.running, other.running), cmp.Compare(l.waiting[0], other.waiting[0]))
}

// within cuts what is asked for down to what there is at all.
func (r Room) within(capacity Room) Room {
	return Room{
		MilliCPU: min(r.MilliCPU, capacity.MilliCPU),
		Memory:   min(r.Memory, capacity.Memory),
		GPU:      min(r.GPU, capacity.GPU),
		Slots:    1,
	}
}

func (r Room) less(asks Room) Room {
	return Room{r.MilliCPU - asks.MilliCPU, r.Memory - asks.Memory, r.GPU - asks.GPU, r.Slots - asks.Slots}
}

func (r Room) least(other Room) Room {
	return Room{min(r.MilliCPU, other.MilliCPU), min(r.Memory, other.Memory), min(r.GPU, other.GPU), 1}
}

func (r Room) fits(asks Room) bool {
	return r.Slots >= asks.Slots && r.MilliCPU >= asks.MilliCPU && r.Memory >= asks.Memory && r.GPU >= asks.GPU
}

// why says what is missing in the free room for a request.
func (r Room) why(asks, capacity Room) string {
	cut := asks.within(capacity)
	switch {
	case r.Slots < cut.Slots:
		return fmt.Sprintf("no room: all %d slots are taken", capacity.Slots)
	case r.MilliCPU < cut.MilliCPU:
		return fmt.Sprintf("no room: asks for %s of %s CPU, others use them", cores(asks.MilliCPU), cores(capacity.MilliCPU))
	case r.Memory < cut.Memory:
		return fmt.Sprintf("no room: asks for %s of %s memory, others use it", mebibytes(asks.Memory), mebibytes(capacity.Memory))
	default:
		return fmt.Sprintf("no room: asks for %d of %d GPU, others use them", asks.GPU, capacity.GPU)
	}
}

func cores(milli int64) string { return fmt.Sprintf("%g", float64(milli)/1000) }

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
