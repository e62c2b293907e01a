// Package admission chooses which waiting attempts may start where there is room.
//
// It comes after the store, which has the attempts, and before an executor, which starts them. Choose is pure: it takes the
// waiting attempts, the running attempts and the room of the executor, and returns which attempts start now and why each of the
// others waits. Executors call it and commit the choice. The package keeps no state, so a restart of the server changes at most the
// order of attempts with equal claims.
//
// For example, an executor has room for one attempt, project a runs two attempts and project b none. Three attempts wait: one of a,
// which is the oldest, and two of b. The older attempt of b starts, because b runs fewer attempts; the other two wait for room.
package admission

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// Room is an amount of resources: the capacity of an executor, the free part of it, or what one attempt asks for.
type Room struct {
	MilliCPU int64
	Memory   int64 // bytes
	GPU      int64
	Slots    int64 // places for attempts: each attempt takes one
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
	Reasons map[int]string // waiting reasons of all others, by their index
}

// Patience is how long smaller attempts may overtake a larger one for which there is no room.
// After that, room that becomes free is kept for the larger one.
const Patience = 10 * time.Second

// Choose decides fairly: the project with the fewest running attempts comes first, within it the execution with the fewest,
// within that the oldest attempt. An attempt that asks for more than the whole capacity gets all of it, so that it runs alone
// instead of never. That does not apply to GPUs: an attempt that asks for more GPUs than there are waits.
//
// Reasons do not say how much is free, because they would have to be written again whenever an attempt ends.
func Choose(waiting, running []Candidate, capacity Room, now time.Time) Choice {
	free := capacity
	for _, r := range running {
		free = free.minus(r.Asks.cappedAt(capacity))
	}
	choice := Choice{Reasons: map[int]string{}}
	left := make([]int, 0, len(waiting))
	least := capacity // the smallest request for each resource
	for i, w := range waiting {
		if w.Asks.GPU > capacity.GPU {
			choice.Reasons[i] = fmt.Sprintf("asks for %d GPU, this executor has %d", w.Asks.GPU, capacity.GPU)
			continue
		}
		left = append(left, i)
		least = least.smallest(w.Asks.cappedAt(capacity))
	}
	// full gives all remaining attempts their reason when no attempt fits any more. Most choices end here, so that a long queue
	// costs little.
	full := func(rest []int) Choice {
		var asks Room
		var why string
		for _, i := range rest {
			if why == "" || waiting[i].Asks != asks {
				asks = waiting[i].Asks
				why = free.shortage(asks, capacity)
			}
			choice.Reasons[i] = why
		}
		return choice
	}
	if !free.fits(least) {
		return full(left)
	}
	queues := newQueues(waiting, left, running)
	for len(queues) > 0 {
		if !free.fits(least) {
			return full(queues.rest())
		}
		patient := true
		queues.next(func(next int) (starts bool) {
			w := waiting[next]
			asks := w.Asks.cappedAt(capacity)
			if free.fits(asks) {
				free = free.minus(asks)
				choice.Start = append(choice.Start, next)
				return true
			}
			choice.Reasons[next] = free.shortage(w.Asks, capacity)
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

// First returns the n candidates that would start first if there were room for all, in order of their indexes.
func First(waiting []Candidate, n int) []int {
	left := make([]int, len(waiting))
	for i := range left {
		left[i] = i
	}
	queues := newQueues(waiting, left, nil)
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

// queues are the waiting candidates by project and, within it, by execution: a heap of heaps, with the next project and the next
// execution on top.
type queues []*projectQueue

// projectQueue are the waiting candidates of a project, as a heap of executions.
type projectQueue struct {
	running    int // attempts, those that this choice starts included
	executions []*executionQueue
}

// executionQueue are the waiting candidates of an execution.
type executionQueue struct {
	running int   // attempts, those that this choice starts included
	waiting []int // indexes of candidates, the oldest first; never empty
}

func newQueues(waiting []Candidate, indexes []int, running []Candidate) queues {
	slices.SortStableFunc(indexes, func(a, b int) int { return waiting[a].CreatedAt.Compare(waiting[b].CreatedAt) })
	projects, executions := map[string]*projectQueue{}, map[[2]string]*executionQueue{}
	var q queues
	for _, i := range indexes {
		w := waiting[i]
		p := projects[w.Project]
		if p == nil {
			p = &projectQueue{}
			projects[w.Project] = p
			q = append(q, p)
		}
		l := executions[[2]string{w.Project, w.Execution}]
		if l == nil {
			l = &executionQueue{}
			executions[[2]string{w.Project, w.Execution}] = l
			p.executions = append(p.executions, l)
		}
		l.waiting = append(l.waiting, i)
	}
	for _, r := range running {
		if p := projects[r.Project]; p != nil {
			p.running++
		}
		if l := executions[[2]string{r.Project, r.Execution}]; l != nil {
			l.running++
		}
	}
	for _, p := range q {
		heap.Init(p)
	}
	heap.Init(&q)
	return q
}

// next takes the next candidate out of its queue and calls starts, which says whether it starts. If it does it counts as
// running in the order of those that follow.
func (q *queues) next(starts func(index int) bool) {
	p := (*q)[0]
	l := p.executions[0]
	index := l.waiting[0]
	l.waiting = l.waiting[1:]
	if starts(index) {
		l.running++
		p.running++
	}
	if len(l.waiting) > 0 {
		heap.Fix(p, 0)
	} else if heap.Pop(p); len(p.executions) == 0 {
		heap.Pop(q)
		return
	}
	heap.Fix(q, 0)
}

// rest are the candidates that next has not taken.
func (q queues) rest() []int {
	var all []int
	for _, p := range q {
		for _, l := range p.executions {
			all = append(all, l.waiting...)
		}
	}
	return all
}

func (p *projectQueue) Len() int { return len(p.executions) }
func (p *projectQueue) Swap(i, j int) {
	p.executions[i], p.executions[j] = p.executions[j], p.executions[i]
}
func (p *projectQueue) Push(l any)         { p.executions = append(p.executions, l.(*executionQueue)) }
func (p *projectQueue) Less(i, j int) bool { return p.executions[i].before(p.executions[j]) < 0 }
func (p *projectQueue) Pop() any {
	last := len(p.executions) - 1
	l := p.executions[last]
	p.executions = p.executions[:last]
	return l
}

func (q queues) Len() int      { return len(q) }
func (q queues) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queues) Push(p any)   { *q = append(*q, p.(*projectQueue)) }
func (q queues) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].running, q[j].running), q[i].executions[0].before(q[j].executions[0])) < 0
}
func (q *queues) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	*q = (*q)[:last]
	return p
}

// before orders executions: the one with the fewest running attempts first, then the one with the older waiting attempt.
func (l *executionQueue) before(other *executionQueue) int {
	return cmp.Or(cmp.Compare(l.running, other.running), cmp.Compare(l.waiting[0], other.waiting[0]))
}

// cappedAt limits a request to the capacity.
func (r Room) cappedAt(capacity Room) Room {
	return Room{
		MilliCPU: min(r.MilliCPU, capacity.MilliCPU),
		Memory:   min(r.Memory, capacity.Memory),
		GPU:      min(r.GPU, capacity.GPU),
		Slots:    1,
	}
}

func (r Room) minus(asks Room) Room {
	return Room{r.MilliCPU - asks.MilliCPU, r.Memory - asks.Memory, r.GPU - asks.GPU, r.Slots - asks.Slots}
}

func (r Room) smallest(other Room) Room {
	return Room{min(r.MilliCPU, other.MilliCPU), min(r.Memory, other.Memory), min(r.GPU, other.GPU), 1}
}

func (r Room) fits(asks Room) bool {
	return r.Slots >= asks.Slots && r.MilliCPU >= asks.MilliCPU && r.Memory >= asks.Memory && r.GPU >= asks.GPU
}

// shortage says which resource of the free room is too small for a request.
func (r Room) shortage(asks, capacity Room) string {
	cut := asks.cappedAt(capacity)
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
