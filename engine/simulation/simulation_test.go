package simulation

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	oneSeed  = flag.Uint64("seed", 0, "run the world of this seed only, and tell its story")
	seeds    = flag.Uint64("seeds", 0, "how many worlds; 0: 300, 30 with -short")
	firstOne = flag.Uint64("first", 1, "the first seed")
)

// simulate lives through the world of a seed and through the same plan without faults.
func simulate(seed uint64, detail bool) (story []string, err error) {
	var w *world
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		if w != nil {
			story = w.story
		}
	}()
	w = newWorld(seed, false, detail)
	if err := w.run(); err != nil {
		return w.story, err
	}
	undisturbed := newWorld(seed, true, false)
	if err := undisturbed.run(); err != nil {
		return w.story, fmt.Errorf("without faults: %w", err)
	}
	return w.story, w.compare(undisturbed)
}

func TestSeedsKeepEveryPromise(t *testing.T) {
	t.Parallel()
	if *oneSeed != 0 {
		story, err := simulate(*oneSeed, true)
		t.Log("\n" + strings.Join(story, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	n := *seeds
	if n == 0 {
		n = 300
		if testing.Short() {
			n = 30
		}
	}
	next := atomic.Uint64{}
	next.Store(*firstOne)
	var failed atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for {
				seed := next.Add(1) - 1
				if seed >= *firstOne+n || failed.Load() >= 5 {
					return
				}
				if _, err := simulate(seed, false); err != nil {
					failed.Add(1)
					t.Errorf("seed %d: %v\nto see it again: go test ./engine/simulation -run Seed -v -seed=%d", seed, err, seed)
				}
			}
		})
	}
	all.Wait()
}

// A seed is worth something only if it gives the same world again.
func TestASeedGivesTheSameStoryAgain(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		first, err := simulate(seed+1, true)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := simulate(seed+1, true)
		if got, want := strings.Join(again, "\n"), strings.Join(first, "\n"); got != want {
			t.Errorf("seed %d told two stories:\n%s\n\n%s", seed+1, want, got)
		}
		if len(first) < 20 {
			t.Errorf("seed %d told only %d things", seed+1, len(first))
		}
	}
}
