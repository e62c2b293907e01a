// Package admission chooses which waiting attempts may start where there is room.
//
// After the store has an attempt, before an executor starts it. The choice is pure: it is handed what waits, what runs
// and the room there is, and returns what starts now and why each of the others waits. Executors call it and commit the
// choice; nothing here remembers anything, so a restart changes nothing but the order of equals.
package admission

import (
	"cmp"
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
	Execution string // unique over all projects
	Asks      Room   // Slots is taken as 1
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
func Choose(waiting, running []Candidate, capacity Room, now time.Time) Choice {
	free := capacity
	projects, executions := map[string]int{}, map[string]int{}
	for _, r := range running {
		free = free.less(r.Asks.within(capacity))
		projects[r.Project]++
		executions[r.Execution]++
	}
	choice := Choice{Reasons: map[int]string{}}
	left := make([]int, 0, len(waiting))
	for i, w := range waiting {
		if w.Asks.GPU > capacity.GPU {
			choice.Reasons[i] = fmt.Sprintf("asks for %d GPU, this executor has %d", w.Asks.GPU, capacity.GPU)
			continue
		}
		left = append(left, i)
	}
	queues := queue(waiting, left)
	for {
		next, ok := queues.next(projects, executions)
		if !ok {
			return choice
		}
		w := waiting[next]
		asks := w.Asks.within(capacity)
		if short := free.short(asks); short != "" {
			choice.Reasons[next] = "no room: " + short
			if now.Sub(w.CreatedAt) >= Patience {
				for _, i := range queues.rest() {
					choice.Reasons[i] = "waits behind an older attempt for which there is no room yet"
				}
				return choice
			}
			continue
		}
		free = free.less(asks)
		projects[w.Project]++
		executions[w.Execution]++
		choice.Start = append(choice.Start, next)
	}
}

// queues holds what waits by project and, within it, by execution, each in order of arrival.
type queues map[string]map[string][]int

func queue(waiting []Candidate, indexes []int) queues {
	slices.SortStableFunc(indexes, func(a, b int) int { return waiting[a].CreatedAt.Compare(waiting[b].CreatedAt) })
	q := queues{}
	for _, i := range indexes {
		w := waiting[i]
		if q[w.Project] == nil {
			q[w.Project] = map[string][]int{}
		}
		q[w.Project][w.Execution] = append(q[w.Project][w.Execution], i)
	}
	return q
}

// next takes the candidate whose turn it is. Ties go to the one that came first (the smallest index).
func (q queues) next(projects, executions map[string]int) (int, bool) {
	type turn struct {
		project, execution     string
		inProject, inExecution int
		index                  int
	}
	var best *turn
	for project, byExecution := range q {
		for execution, indexes := range byExecution {
			t := turn{project, execution, projects[project], executions[execution], indexes[0]}
			if best == nil || cmp.Or(
				cmp.Compare(t.inProject, best.inProject),
				cmp.Compare(t.inExecution, best.inExecution),
				cmp.Compare(t.index, best.index)) < 0 {
				best = &t
			}
		}
	}
	if best == nil {
		return 0, false
	}
	rest := q[best.project][best.execution][1:]
	if len(rest) > 0 {
		q[best.project][best.execution] = rest
	} else if delete(q[best.project], best.execution); len(q[best.project]) == 0 {
		delete(q, best.project)
	}
	return best.index, true
}

// rest is all that has not been taken.
func (q queues) rest() []int {
	var all []int
	for _, byExecution := range q {
		for _, indexes := range byExecution {
			all = append(all, indexes...)
		}
	}
	return all
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

// short says what is missing for a request; empty if it fits.
func (r Room) short(asks Room) string {
	switch {
	case r.Slots < asks.Slots:
		return "all slots are taken"
	case r.MilliCPU < asks.MilliCPU:
		return fmt.Sprintf("asks for %s CPU, %s free", cores(asks.MilliCPU), cores(max(r.MilliCPU, 0)))
	case r.Memory < asks.Memory:
		return fmt.Sprintf("asks for %s of memory, %s free", mebibytes(asks.Memory), mebibytes(max(r.Memory, 0)))
	case r.GPU < asks.GPU:
		return fmt.Sprintf("asks for %d GPU, %d free", asks.GPU, max(r.GPU, 0))
	}
	return ""
}

func cores(milli int64) string { return fmt.Sprintf("%g", float64(milli)/1000) }

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
