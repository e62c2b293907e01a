package machine

// queue is first in, first out. Both ends are cheap and what was taken out is given back now and then.
type queue struct {
	items []uint32
	taken int
}

func (q *queue) push(i uint32) { q.items = append(q.items, i) }

func (q *queue) empty() bool { return q.taken == len(q.items) }

func (q *queue) front() uint32 { return q.items[q.taken] }

func (q *queue) pop() {
	q.taken++
	switch {
	case q.taken == len(q.items):
		q.items, q.taken = q.items[:0], 0
	case q.taken >= 1024 && q.taken > len(q.items)/2:
		q.items, q.taken = q.items[:copy(q.items, q.items[q.taken:])], 0
	}
}

// timerHeap has the soonest timer first; of equal ones that of the node with the smaller number.
type timerHeap []timer

// timer is when something is to be done about a node, if it is still what State.timer says.
type timer struct {
	at   int64
	node uint32
}

func (a timer) before(b timer) bool { return a.at < b.at || a.at == b.at && a.node < b.node }

func (h *timerHeap) push(t timer) {
	*h = append(*h, t)
	for i := len(*h) - 1; i > 0; {
		up := (i - 1) / 2
		if !(*h)[i].before((*h)[up]) {
			return
		}
		(*h)[i], (*h)[up] = (*h)[up], (*h)[i]
		i = up
	}
}

func (h *timerHeap) pop() {
	last := len(*h) - 1
	(*h)[0] = (*h)[last]
	*h = (*h)[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if (*h)[child].before((*h)[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		(*h)[i], (*h)[least] = (*h)[least], (*h)[i]
		i = least
	}
}
