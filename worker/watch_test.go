package worker

import (
	"reflect"
	"testing"
)

func TestWhoIsChargedForMemory(t *testing.T) {
	t.Parallel()
	const limit = 300 << 20
	killed := ExitRecord{Signal: 9}
	shell := ExitRecord{Code: 137} // of a shell whose child was killed
	lost := ExitRecord{Lost: true, Reason: "the supervisor ended meanwhile"}
	failed := ExitRecord{Code: 1}
	well := ExitRecord{}
	const above, full, within = "it used more than its limit of 300 MiB of memory", "the machine ran out of memory, and the kernel killed ",
		"the machine ran out of memory, though it was within its limit of 300 MiB"
	for name, test := range map[string]struct {
		facts memoryFacts
		ended ExitRecord
		want  ExitRecord
	}{
		"nothing happened":                        {memoryFacts{counted: true}, well, well},
		"it failed":                               {memoryFacts{counted: true}, failed, failed},
		"killed, not for memory":                  {memoryFacts{counted: true}, killed, killed},
		"killed, not for memory within the limit": {memoryFacts{counted: true, limit: limit, peak: 1 << 20}, killed, killed},
		"killed, not for memory at the limit":     {memoryFacts{counted: true, limit: limit, peak: limit}, killed, killed},
		"lost, and nothing was killed":            {memoryFacts{counted: true, limit: limit, peak: limit}, lost, lost},
		"not counted, killed, not for memory":     {memoryFacts{}, killed, killed},
		"not counted, and another was killed":     {memoryFacts{killed: 1}, failed, failed},

		"above the limit, as we sampled":              {memoryFacts{sampledAbove: true, limit: limit, peak: limit + 1}, killed, ExitRecord{Signal: 9, OOM: true, Reason: above}},
		"above the limit, as we sampled, and lost":    {memoryFacts{sampledAbove: true, limit: limit, peak: limit + 1}, lost, ExitRecord{OOM: true, Reason: above}},
		"killed by the kernel at the limit":           {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit}, killed, ExitRecord{Signal: 9, OOM: true, Reason: above + ", and the kernel killed its process"}},
		"killed just below the limit, by a huge page": {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit - 2<<20}, killed, ExitRecord{Signal: 9, OOM: true, Reason: above + ", and the kernel killed its process"}},
		"killed, and how much it used is unknown":     {memoryFacts{counted: true, killed: 1, limit: limit}, killed, ExitRecord{Signal: 9, OOM: true, Reason: above + ", and the kernel killed its process"}},
		"killed at the limit, and lost":               {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit}, lost, ExitRecord{OOM: true, Reason: above + ", and the kernel killed its process"}},
		"a process of it killed at the limit":         {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit}, well, ExitRecord{OOM: true, Reason: above + ", and the kernel killed a process that it had started"}},

		"killed without a limit":                          {memoryFacts{counted: true, killed: 1}, killed, ExitRecord{Signal: 9, OOM: true, Reason: full + "its process; it had no limit"}},
		"what its shell ran killed without a limit":       {memoryFacts{counted: true, killed: 1}, shell, ExitRecord{Code: 137, OOM: true, Reason: full + "its process; it had no limit"}},
		"killed without a limit, and lost":                {memoryFacts{counted: true, killed: 1}, lost, ExitRecord{OOM: true, Reason: full + "its process; it had no limit"}},
		"a process of it killed without a limit":          {memoryFacts{counted: true, killed: 1}, failed, ExitRecord{Code: 1, OOM: true, Reason: full + "a process that it had started; it had no limit"}},
		"not counted, and killed as the machine was full": {memoryFacts{killed: 1}, killed, ExitRecord{Signal: 9, OOM: true, Reason: full + "its process; it had no limit"}},
		"not counted, and lost as the machine was full":   {memoryFacts{killed: 1}, lost, ExitRecord{OOM: true, Reason: full + "its process; it had no limit"}},

		"killed far below its limit: the machine was full":  {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit / 3}, killed, ExitRecord{Signal: 9, Reason: within}},
		"what its shell ran killed far below its limit":     {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit / 3}, shell, ExitRecord{Signal: 9, Reason: within}},
		"a process of it killed far below its limit":        {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit / 3}, well, ExitRecord{Signal: 9, Reason: within}},
		"not counted, killed, within its limit":             {memoryFacts{killed: 1, limit: limit, peak: limit / 3}, killed, ExitRecord{Signal: 9, Reason: within}},
		"lost within its limit as the machine was full":     {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit / 3}, lost, ExitRecord{Lost: true, Reason: within}},
		"not counted, lost within its limit, machine full":  {memoryFacts{killed: 1, limit: limit, peak: limit / 3}, lost, ExitRecord{Lost: true, Reason: within}},
		"not counted, another was killed, within its limit": {memoryFacts{killed: 1, limit: limit, peak: limit / 3}, failed, failed},
	} {
		got := test.ended
		test.facts.charge(&got)
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// The data folder may be moved while a task runs out of memory.
func TestAnAttemptThatIsLostIsNotOutOfMemory(t *testing.T) {
	t.Parallel()
	r := ExitRecord{Signal: 9}
	r.outOfMemory("it used more than its limit")
	r.lose(movedReason)
	if r.OOM || !r.Lost || r.Reason != movedReason {
		t.Errorf("got %+v, want it lost alone", r)
	}
}
