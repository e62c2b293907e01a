package admission

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Unix(1_700_000_000, 0)

func candidate(project, execution string, milliCPU, memory int64, second int) Candidate {
	return Candidate{Project: project, Execution: execution, Asks: Room{MilliCPU: milliCPU, Memory: memory},
		CreatedAt: t0.Add(time.Duration(second) * time.Second)}
}

func TestProjectsAndExecutionsTakeTurnsThenFirstComeFirstServed(t *testing.T) {
	t.Parallel()
	waiting := []Candidate{
		candidate("big", "e1", 100, 0, 0), candidate("big", "e1", 100, 0, 1), candidate("big", "e1", 100, 0, 2),
		candidate("big", "e2", 100, 0, 3), candidate("small", "e3", 100, 0, 4),
	}
	got := Choose(waiting, nil, Room{MilliCPU: 1000, Slots: 4}, t0.Add(time.Second*5)).Start
	if want := []int{0, 4, 3, 1}; !slices.Equal(got, want) {
		t.Errorf("started %v, want %v: one of each project in turn, then the other execution", got, want)
	}
}

func TestWhatRunsCountsAgainstItsProject(t *testing.T) {
	t.Parallel()
	running := []Candidate{candidate("a", "e1", 100, 0, 0), candidate("a", "e1", 100, 0, 0)}
	waiting := []Candidate{candidate("a", "e1", 100, 0, 0), candidate("b", "e2", 100, 0, 9)}
	got := Choose(waiting, running, Room{MilliCPU: 1000, Slots: 3}, t0.Add(time.Second*9))
	if !slices.Equal(got.Start, []int{1}) || got.Reasons[0] != "no room: all 3 slots are taken" {
		t.Errorf("got %+v, want b's attempt started and a's waiting for a slot", got)
	}
}

func TestAnAttemptWithoutRoomWaitsWithItsReasonAndSmallerOnesPass(t *testing.T) {
	t.Parallel()
	waiting := []Candidate{candidate("a", "e1", 1500, 0, 0), candidate("a", "e2", 500, 0, 1)}
	running := []Candidate{candidate("a", "e3", 1000, 0, 0)}
	got := Choose(waiting, running, Room{MilliCPU: 2000, Slots: 8}, t0.Add(time.Second))
	if !slices.Equal(got.Start, []int{1}) || got.Reasons[0] != "no room: asks for 1.5 of 2 CPU, others use them" {
		t.Errorf("got %+v, want the smaller one started and the larger one waiting for CPU", got)
	}
}

func TestAnImpatientLargeAttemptIsNotPassedForEver(t *testing.T) {
	t.Parallel()
	waiting := []Candidate{candidate("a", "e1", 2000, 0, 0), candidate("a", "e2", 500, 0, 1)}
	running := []Candidate{candidate("a", "e3", 1000, 0, 0)}
	got := Choose(waiting, running, Room{MilliCPU: 2000, Slots: 8}, t0.Add(Patience))
	if len(got.Start) != 0 || !strings.Contains(got.Reasons[1], "older attempt") {
		t.Errorf("got %+v, want nothing started: the room is kept for the large one", got)
	}
}

func TestWhatAsksForMoreThanThereIsRunsAlone(t *testing.T) {
	t.Parallel()
	waiting := []Candidate{candidate("a", "e1", 64_000, 1<<40, 0), candidate("a", "e2", 500, 0, 1)}
	got := Choose(waiting, nil, Room{MilliCPU: 2000, Memory: 1 << 30, Slots: 8}, t0)
	if !slices.Equal(got.Start, []int{0}) {
		t.Errorf("started %v, want only the large one", got.Start)
	}
}

func TestAGPUThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	waiting := []Candidate{{Project: "a", Execution: "e", Asks: Room{GPU: 1}, CreatedAt: t0}}
	got := Choose(waiting, nil, Room{MilliCPU: 2000, Slots: 8}, t0.Add(time.Hour))
	if len(got.Start) != 0 || got.Reasons[0] != "asks for 1 GPU, this executor has 0" {
		t.Errorf("got %+v", got)
	}
}

func TestChoicesNeverExceedTheRoomAndEverybodyIsAnswered(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		capacity := Room{rapid.Int64Range(0, 8000).Draw(t, "cpu"), rapid.Int64Range(0, 1<<34).Draw(t, "memory"), 0, rapid.Int64Range(0, 16).Draw(t, "slots")}
		draw := rapid.Custom(func(t *rapid.T) Candidate {
			return candidate(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "project"), rapid.SampledFrom([]string{"e1", "e2", "e3", "e4"}).Draw(t, "execution"),
				rapid.Int64Range(0, 4000).Draw(t, "asks"), rapid.Int64Range(0, 1<<33).Draw(t, "memory"), rapid.IntRange(0, 100).Draw(t, "second"))
		})
		waiting := rapid.SliceOfN(draw, 0, 30).Draw(t, "waiting")
		choice := Choose(waiting, nil, capacity, t0.Add(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(0, 200).Draw(t, "now")) * time.Second
		}).Draw(t, "elapsed")))
		free, seen := capacity, map[int]bool{}
		for _, i := range choice.Start {
			free = free.minus(waiting[i].Asks.cappedAt(capacity))
			seen[i] = true
		}
		if free.MilliCPU < 0 || free.Memory < 0 || free.Slots < 0 {
			t.Fatalf("chose %v: %+v is left of %+v", choice.Start, free, capacity)
		}
		for i := range waiting {
			if _, waits := choice.Reasons[i]; waits == seen[i] {
				t.Fatalf("candidate %d: started %v, waits %v", i, seen[i], waits)
			}
		}
		if len(waiting) > 0 && capacity.Slots > 0 && len(choice.Start) == 0 {
			t.Fatalf("nothing started on an idle executor with %+v", capacity)
		}
	})
}

// naive follows the rule of Choose without queues: it looks for the next candidate among all that are left, each time.
func naive(waiting, running []Candidate, capacity Room, now time.Time) []int {
	free := capacity
	projects, executions := map[string]int{}, map[string]int{}
	for _, r := range running {
		free = free.minus(r.Asks.cappedAt(capacity))
		projects[r.Project]++
		executions[r.Execution]++
	}
	var start []int
	done := map[int]bool{}
	for {
		best := -1
		for i, w := range waiting {
			if done[i] || w.Asks.GPU > capacity.GPU {
				continue
			}
			if best < 0 || slices.Compare([]int{projects[w.Project], executions[w.Execution], i},
				[]int{projects[waiting[best].Project], executions[waiting[best].Execution], best}) < 0 {
				best = i
			}
		}
		if best < 0 {
			return start
		}
		done[best] = true
		w := waiting[best]
		if !free.fits(w.Asks.cappedAt(capacity)) {
			if now.Sub(w.CreatedAt) >= Patience {
				return start
			}
			continue
		}
		free = free.minus(w.Asks.cappedAt(capacity))
		projects[w.Project]++
		executions[w.Execution]++
		start = append(start, best)
	}
}

func TestTheQueueGivesTheSameTurnsAsLookingAtAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(t *rapid.T, label string, n int) (all []Candidate) {
			for i := range rapid.IntRange(0, n).Draw(t, label) {
				project := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "project")
				execution := project + rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "execution")
				all = append(all, candidate(project, execution, rapid.Int64Range(0, 3000).Draw(t, "asks"), rapid.Int64Range(0, 1<<33).Draw(t, "memory"), i))
			}
			return all
		}
		waiting, running := draw(t, "waiting", 20), draw(t, "running", 5)
		capacity := Room{rapid.Int64Range(0, 8000).Draw(t, "cpu"), 1 << 34, 0, rapid.Int64Range(0, 16).Draw(t, "slots")}
		now := t0.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "now")) * time.Second)
		if got, want := Choose(waiting, running, capacity, now).Start, naive(waiting, running, capacity, now); !slices.Equal(got, want) {
			t.Fatalf("started %v, want %v", got, want)
		}
		n := rapid.IntRange(0, 25).Draw(t, "n")
		want := naive(waiting, nil, Room{MilliCPU: 1 << 40, Memory: 1 << 50, Slots: 1 << 20}, t0)
		want = want[:min(n, len(want))]
		slices.Sort(want)
		if got := First(waiting, n); !slices.Equal(got, want) {
			t.Fatalf("first %d: %v, want %v", n, got, want)
		}
	})
}

func BenchmarkChooseAmongAThousandExecutionsOnABusyMachine(b *testing.B) {
	var waiting, running []Candidate
	for i := range 1000 {
		waiting = append(waiting, candidate("a", "e"+string(rune('A'+i%26))+string(rune('0'+i/26)), 500, 0, 0))
	}
	for range 4 {
		running = append(running, candidate("a", "e", 500, 0, 0))
	}
	for b.Loop() {
		Choose(waiting, running, Room{MilliCPU: 2000, Slots: 8}, t0)
	}
}
