package worker

import "testing"

func TestWhoIsChargedForMemory(t *testing.T) {
	t.Parallel()
	const limit = 300 << 20
	const task, machine, nobody = "the task", "the machine", "nothing"
	for name, test := range map[string]struct {
		facts memoryFacts
		want  string
	}{
		"nothing happened":                                 {memoryFacts{counted: true}, nobody},
		"killed from outside":                              {memoryFacts{counted: true, died: true}, nobody},
		"killed from outside within the limit":             {memoryFacts{counted: true, died: true, limit: limit, peak: 1 << 20}, nobody},
		"killed from outside at the limit":                 {memoryFacts{counted: true, died: true, limit: limit, peak: limit}, nobody},
		"above the limit, as we sampled":                   {memoryFacts{sampledAbove: true, died: true, limit: limit, peak: limit + 1}, task},
		"killed by the kernel at the limit":                {memoryFacts{counted: true, killed: 1, died: true, limit: limit, peak: limit}, task},
		"killed just below the limit, by a huge page":      {memoryFacts{counted: true, killed: 1, died: true, limit: limit, peak: limit - 2<<20}, task},
		"a process of it killed at the limit":              {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit}, task},
		"killed, and how much it used is unknown":          {memoryFacts{counted: true, killed: 1, died: true, limit: limit}, task},
		"killed far below its limit: the machine was full": {memoryFacts{counted: true, killed: 1, died: true, limit: limit, peak: limit / 3}, machine},
		"a process of it killed far below its limit":       {memoryFacts{counted: true, killed: 1, limit: limit, peak: limit / 3}, machine},
		"killed without a limit":                           {memoryFacts{counted: true, killed: 1, died: true}, task},
		"a process of it killed without a limit":           {memoryFacts{counted: true, killed: 1}, task},
		"not counted, and killed as the machine was full":  {memoryFacts{killed: 1, died: true}, task},
		"not counted, killed, within its limit":            {memoryFacts{killed: 1, died: true, limit: limit, peak: limit / 3}, machine},
		"not counted, and another one was killed":          {memoryFacts{killed: 1}, nobody},
		"not counted, killed from outside":                 {memoryFacts{died: true}, nobody},
	} {
		v := test.facts.verdict()
		got := nobody
		if v.oom {
			got = task
		} else if v.reason != "" {
			got = machine
		}
		if got != test.want {
			t.Errorf("%s: charged to %s (%s), want %s", name, got, v.reason, test.want)
		}
	}
}
