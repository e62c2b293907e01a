package engine

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/store"
)

func TestTimersAreOverInTheirOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var timers timers
	runs := make([]*run, 50)
	for i := range runs {
		runs[i] = &run{key: store.Key(i + 1)}
	}
	for range 5000 {
		at := time.Unix(random.Int64N(20)+1, 0)
		if random.IntN(3) == 0 {
			at = time.Time{}
		}
		r := runs[random.IntN(len(runs))]
		soonest := timers.set(r, at)
		var want []*run
		for _, r := range runs {
			if !r.timer.at.IsZero() {
				want = append(want, r)
			}
		}
		slices.SortFunc(want, func(a, b *run) int { return cmp.Or(a.timer.at.Compare(b.timer.at), cmp.Compare(a.key, b.key)) })
		if len(want) != timers.len() || len(want) > 0 && !timers.next().Equal(want[0].timer.at) {
			t.Fatalf("there are %d timers, the soonest at %s; want %d", timers.len(), timers.next(), len(want))
		}
		if soonest && want[0] != r {
			t.Fatalf("execution %d is said to have the soonest timer, %d has", r.key, want[0].key)
		}
	}
	now := time.Unix(10, 0)
	var want, got []store.Key
	for at := int64(1); at <= 10; at++ {
		for _, r := range runs {
			if r.timer.at.Equal(time.Unix(at, 0)) {
				want = append(want, r.key)
			}
		}
	}
	for r := timers.takeExpired(now); r != nil; r = timers.takeExpired(now) {
		got = append(got, r.key)
		if !r.timer.at.IsZero() || r.timer.heapIndex != 0 {
			t.Errorf("execution %d still has a timer", r.key)
		}
	}
	if !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("over are the timers of %v, want %v", got, want)
	}
	if next := timers.next(); !next.After(now) {
		t.Errorf("a timer at %s was not over", next)
	}
}
