package simulation

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	oneSeed     = flag.Uint64("seed", 0, "run the world of this seed only, and tell its story")
	seeds       = flag.Uint64("seeds", 0, "how many worlds; 0: 1,000, 100 with -short")
	firstSeed   = flag.Uint64("first", 1, "the first seed")
	maxFailures = flag.Int64("failures", 5, "stop after so many seeds that break a promise")
	timeLimit   = flag.Duration("last", 4*time.Minute, "begin no world after this time, unless -seeds says how many: a busy machine lives through fewer")
)

// fewestWorlds is how many worlds have to be lived through within -last: fewer say nothing.
const fewestWorlds = 50

// simulate lives through the world of a seed and through the same plan without faults.
func simulate(seed uint64, detail bool) (w *world, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	w = newWorld(seed, false, detail)
	if err := w.run(); err != nil {
		return w, err
	}
	undisturbed := newWorld(seed, true, false)
	if err := undisturbed.run(); err != nil {
		return w, fmt.Errorf("without faults: %w", err)
	}
	if err := w.compare(undisturbed); err != nil || !w.hasRecoveries() {
		return w, err
	}
	clean := newWorld(seed, true, false)
	clean.nothingFails = true
	if err := clean.run(); err != nil {
		return w, fmt.Errorf("when nothing fails: %w", err)
	}
	return w, w.compareRecovered(clean)
}

// Seeds that have found a bug, with the bug: they are always run. A seed is another world once something else is drawn from
// it, so each bug is planted again by mutation_test.go, too. docs/bugs.md tells of each.
var permanentSeeds = map[uint64]string{
	142:   "the first timers of a shard were looked at once, whether or not that succeeded",
	434:   "an execution of a later release was written to while the store was away",
	31178: "a message that a result may be there was taken for the one before it, which was about to be consumed",
	17875: "a step that was refused because a result had been kept by another used that result when it was made again, although it was gone by then (seldom seen by a seed: a test of the engine holds it)",
	24681: "until when an engine kept deadlines back was in the record, by a clock that was ahead: the next engine waited for that time",
	26050: "the same",
	44410: "an execution that ended kept what a node of it that never began had reserved",
	1190:  "of a planted bug: a sequence of the journal is taken twice, by an engine that nothing else stops",
	2290:  "of a planted bug: a checkpoint is not handed on by an attempt that did not get to its own",
	3056:  "the same, since the store of objects is asked otherwise",

	100327: "of the simulator itself: the one failure that an outage costs was none when it counted what its faults have spent",
}

// TestMain collects garbage rarely: a world is small and soon over. Garbage collection would take a third of the time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(1000)
	os.Exit(m.Run())
}

func TestSeedsKeepEveryPromise(t *testing.T) {
	t.Parallel()
	if *oneSeed != 0 {
		w, err := simulate(*oneSeed, true)
		t.Log("\n" + strings.Join(w.story, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	n, deadline := *seeds, time.Time{}
	if n == 0 {
		n, deadline = 1000, time.Now().Add(*timeLimit)
		if testing.Short() {
			n = 100
		}
	}
	all := slices.Sorted(maps.Keys(permanentSeeds))
	for i := range n {
		all = append(all, *firstSeed+i)
	}
	const reportEvery = 2000 // worlds; the progress is logged then
	began := time.Now()
	var next, lived, failed atomic.Int64
	var mu sync.Mutex
	seen := map[string]int{}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				if !deadline.IsZero() && time.Now().After(deadline) {
					return
				}
				i := int(next.Add(1) - 1)
				if i >= len(all) || failed.Load() >= *maxFailures {
					return
				}
				w, err := simulate(all[i], false)
				if err != nil {
					failed.Add(1)
					t.Errorf("seed %d: %v\nto see it again: go test ./engine/simulation -run Seed -v -seed=%d", all[i], err, all[i])
				}
				if n := lived.Add(1); n%reportEvery == 0 {
					t.Logf("%d of %d worlds, %d broke a promise, after %s", n, len(all), failed.Load(), time.Since(began).Round(time.Second))
				}
				mu.Lock()
				for what, n := range w.seen {
					seen[what] += n
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%7d × %s", seen[what], what)
	}
	t.Logf("%d of %d worlds were lived through", lived.Load(), len(all))
	if t.Failed() || n < 100 {
		return
	}
	if cut := lived.Load(); int(cut) < len(all) {
		if cut < fewestWorlds {
			t.Errorf("only %d worlds were lived through in %s, want at least %d: is this machine that busy, or the simulator that slow?", cut, *timeLimit, fewestWorlds)
		}
		return // so few worlds need not have every fault
	}
	// A fault that never happens finds no bug.
	wanted := slices.Concat(callFaults, behaviours, []string{"compared SUCCEEDED", "compared FAILED", "a late Commit", "a late Report", "a late outcome"},
		[]string{resultUsed, resultRepaired, resultOverwritten, resultTaken, waitsForResult, nodeRecovered, scopeRecovered, chainRecovered, checkpointHandedOn, comparedRecovered, outageCharged, outageSpared})
	for _, f := range faults {
		wanted = append(wanted, f.name)
	}
	for _, what := range wanted {
		if seen[what] == 0 {
			t.Errorf("in %d worlds it never happened that: %s", len(all), what)
		}
	}
}

// A seed can be looked into only if it gives the same world again.
func TestASeedGivesTheSameStoryAgain(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		first, err := simulate(seed+1, true)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := simulate(seed+1, true)
		if got, want := strings.Join(again.story, "\n"), strings.Join(first.story, "\n"); got != want {
			t.Errorf("seed %d told two stories:\n%s\n\n%s", seed+1, want, got)
		}
		if len(first.story) < 20 {
			t.Errorf("seed %d told only %d things", seed+1, len(first.story))
		}
	}
}
