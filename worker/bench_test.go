//go:build linux

package worker

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkWarmAttempt is the time from the call of Start to EventDone, claim and sync included, one attempt after another.
func BenchmarkWarmAttempt(b *testing.B) {
	py := python(b)
	bench := newBench(b)
	bench.run(bench.pythonSpec(py, tasksSource, "add1"))
	var done, exited []time.Duration
	for b.Loop() {
		b.StopTimer()
		s := bench.pythonSpec(py, tasksSource, "add1")
		waitDone, waitExit := bench.of(s.AttemptID, EventDone), bench.of(s.AttemptID, EventExited)
		b.StartTimer()
		begin := time.Now()
		bench.start(s)
		<-waitDone
		done = append(done, time.Since(begin))
		<-waitExit
		exited = append(exited, time.Since(begin))
		b.StopTimer()
		_ = bench.client.Forget(b.Context(), s.AttemptID)
		b.StartTimer()
	}
	for name, list := range map[string][]time.Duration{"done": done, "exit": exited} {
		slices.Sort(list)
		b.ReportMetric(float64(list[0].Microseconds())/1000, name+"-min-ms")
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-med-ms")
	}
}

func BenchmarkWarmThroughput(b *testing.B) {
	for _, inFlight := range []int{1, 2, 4, 8} {
		b.Run(string(rune('0'+inFlight))+"-in-flight", func(b *testing.B) {
			py := python(b)
			bench := newBench(b)
			bench.run(bench.pythonSpec(py, tasksSource, "add1"))
			specs := make([]Spec, b.N)
			for i := range specs {
				specs[i] = bench.pythonSpec(py, tasksSource, "add1")
				bench.of(specs[i].AttemptID, EventDone)
			}
			slots := make(chan struct{}, inFlight)
			before := processorTime(bench.client.Hello().PID)
			b.ResetTimer()
			for _, s := range specs {
				slots <- struct{}{}
				go func() {
					bench.start(s)
					<-bench.of(s.AttemptID, EventDone)
					_ = bench.client.Forget(b.Context(), s.AttemptID)
					<-slots
				}()
			}
			for range inFlight {
				slots <- struct{}{}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
			b.ReportMetric((processorTime(bench.client.Hello().PID)-before)*1000/float64(b.N), "supervisor-cpu-ms/task")
		})
	}
}

// processorTime is the seconds that a process itself has used, its children not counted.
func processorTime(pid int) float64 {
	content, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return float64(user+system) / 100
}
