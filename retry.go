package aloft

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"path"
	"strconv"
	"strings"
	"time"
)

// RetryPolicy is a setting of a server for the retries of tasks: pauses between attempts, and more memory after an attempt that
// died of too little memory. It does not change how often a task is retried, which its author states.
type RetryPolicy struct {
	Task      string        // pattern of path.Match for the name of the task; empty: every task
	Error     string        // pattern for the code of the error, or USER or SYSTEM for its kind; empty: every error
	Backoff   time.Duration // pause before the first retry; 0: the policy is not about pauses
	Factor    float64       // each further pause is so many times as long
	Max       time.Duration // the longest pause; 0: any
	Jitter    float64       // the part of a pause, from 0 to 1, that is random
	Memory    float64       // the next attempt gets so many times the memory that was not enough; 0: the policy is not about memory
	MaxMemory int64         // bytes that an attempt gets at most; 0: any number
}

// Matches says whether the policy applies to a failure of a task, by the failure's kind and code.
func (p RetryPolicy) Matches(task, kind, code string) bool {
	if p.Task != "" {
		if ok, _ := path.Match(p.Task, task); !ok {
			return false
		}
	}
	if p.Error == "" || p.Error == kind {
		return true
	}
	ok, _ := path.Match(p.Error, code)
	return ok
}

// Pause is how long to wait before a retry, which is numbered from 1; chance is from 0 to 1.
func (p RetryPolicy) Pause(retry uint32, chance float64) time.Duration {
	most := float64(p.Max)
	if p.Max <= 0 {
		most = float64(math.MaxInt64 / 2)
	}
	pause := min(float64(p.Backoff)*math.Pow(max(p.Factor, 1), float64(retry)-1), most)
	return time.Duration(pause * (1 - p.Jitter*chance))
}

// More is the memory in bytes for the attempt after one that died with bytes of memory. If the two are equal, it gets no more.
func (p RetryPolicy) More(bytes int64) int64 {
	more := math.Ceil(float64(bytes) * p.Memory)
	if p.MaxMemory > 0 {
		more = min(more, float64(p.MaxMemory))
	}
	return max(bytes, int64(min(more, 1<<62)))
}

// ParseRetryPolicy reads a policy of the configuration: words of the form name=value with blanks between them, as in
// "task=etl.* error=SYSTEM backoff=10s factor=2 max=10m jitter=0.5" or "error=OOMKilled memory=2 max-memory=64Gi".
// quantity reads amounts of memory. All mistakes are reported at once.
func ParseRetryPolicy(text string, quantity func(string) (int64, error)) (RetryPolicy, error) {
	p := RetryPolicy{Factor: 2, Jitter: 0.5}
	var wrong mistakes
	number := func(name, value string, from, to float64) float64 {
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || !(v >= from && v <= to) {
			wrong.add("%s %q is no number from %v to %v", name, value, from, to)
		}
		return v
	}
	duration := func(name, value string) time.Duration {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			wrong.add("%s %q is no duration such as 10s or 5m", name, value)
		}
		return d
	}
	pattern := func(name, value string) string {
		if _, err := path.Match(value, ""); err != nil || value == "" {
			wrong.add("%s %q is no pattern such as etl.*", name, value)
		}
		return value
	}
	for name, value := range wrong.words(text) {
		switch name {
		case "task":
			p.Task = pattern(name, value)
		case "error":
			p.Error = pattern(name, value)
		case "backoff":
			p.Backoff = duration(name, value)
		case "factor":
			p.Factor = number(name, value, 1, 100)
		case "max":
			p.Max = duration(name, value)
		case "jitter":
			p.Jitter = number(name, value, 0, 1)
		case "memory":
			p.Memory = number(name, value, 1, 100)
		case "max-memory":
			bytes, err := quantity(value)
			if err != nil || bytes <= 0 {
				wrong.add("max-memory %q is no amount such as 8Gi", value)
			}
			p.MaxMemory = bytes
		default:
			wrong.add("%q is none of task, error, backoff, factor, max, jitter, memory, max-memory", name)
		}
	}
	if len(wrong) == 0 && p.Backoff == 0 && p.Memory == 0 {
		wrong.add("it says neither backoff nor memory")
	}
	if len(wrong) > 0 {
		return RetryPolicy{}, fmt.Errorf("retry policy %q: %w: %w", text, ErrInvalid, errors.Join(wrong...))
	}
	return p, nil
}

// SystemRetries is the setting for retries of attempts that failed by the system's fault. Where a RetryPolicy is about pauses, that
// counts for the pauses.
type SystemRetries struct {
	Max        uint32        // how many attempts of a node are replaced; 0: 3, as in Flyte
	Backoff    time.Duration // pause before the first retry; each further pause is twice as long, and half of it is random; 0: none
	MaxBackoff time.Duration // the longest pause; 0: any
}

// Pause is how long to wait before a retry, which is numbered from 1; chance is from 0 to 1.
func (r SystemRetries) Pause(retry uint32, chance float64) time.Duration {
	return RetryPolicy{Backoff: r.Backoff, Factor: 2, Max: r.MaxBackoff, Jitter: 0.5}.Pause(retry, chance)
}

// maxSystemRetries bounds Max: the engine counts the system failures of a node in one byte, and a node that
// fails a hundred times will go on failing.
const maxSystemRetries = 100

// ParseSystemRetries reads the setting in the configuration: words of the form name=value with blanks between them, as in
// "max=3 backoff=1s max-backoff=5m". The defaults are 3 retries, no pause, and any length of pauses. All mistakes are reported
// at once.
func ParseSystemRetries(text string) (SystemRetries, error) {
	var r SystemRetries
	var wrong mistakes
	for name, value := range wrong.words(text) {
		switch name {
		case "max":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || n < 1 || n > maxSystemRetries {
				wrong.add("max %q is no number from 1 to %d", value, maxSystemRetries)
			}
			r.Max = uint32(n)
		case "backoff", "max-backoff":
			d, err := time.ParseDuration(value)
			if err != nil || d < 0 {
				wrong.add("%s %q is no duration such as 10s or 5m", name, value)
			}
			if name == "backoff" {
				r.Backoff = d
			} else {
				r.MaxBackoff = d
			}
		default:
			wrong.add("%q is none of max, backoff, max-backoff", name)
		}
	}
	if len(wrong) > 0 {
		return SystemRetries{}, fmt.Errorf("system retries %q: %w: %w", text, ErrInvalid, errors.Join(wrong...))
	}
	return r, nil
}

// mistakes are all mistakes in one setting of the configuration.
type mistakes []error

func (m *mistakes) add(format string, args ...any) { *m = append(*m, fmt.Errorf(format, args...)) }

// words reads words of the form name=value with blanks between them. It is a mistake if a name occurs twice.
func (m *mistakes) words(text string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		seen := map[string]bool{}
		for word := range strings.FieldsSeq(text) {
			name, value, _ := strings.Cut(word, "=")
			if seen[name] {
				m.add("%s is there twice", name)
			}
			seen[name] = true
			if !yield(name, value) {
				return
			}
		}
	}
}
