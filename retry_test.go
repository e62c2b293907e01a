package aloft_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
)

func parsePolicy(text string) (aloft.RetryPolicy, error) {
	return aloft.ParseRetryPolicy(text, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
}

func TestPausesGrowToTheirCapAndChanceOnlyShortensThem(t *testing.T) {
	t.Parallel()
	p, err := parsePolicy("backoff=10s factor=3 max=1m jitter=0.5")
	if err != nil {
		t.Fatal(err)
	}
	for retry, want := range map[uint32]time.Duration{1: 10 * time.Second, 2: 30 * time.Second, 3: time.Minute, 1000: time.Minute} {
		if got := p.Pause(retry, 0); got != want {
			t.Errorf("retry %d waits %s, want %s", retry, got, want)
		}
		if got := p.Pause(retry, 1); got != want/2 {
			t.Errorf("retry %d waits %s at the least, want %s", retry, got, want/2)
		}
	}
	endless := aloft.RetryPolicy{Backoff: time.Hour, Factor: 100}
	if got := endless.Pause(1000, 0); got <= 0 {
		t.Errorf("a pause without a cap overflows to %s", got)
	}
}

func TestMemoryGrowsToItsCeilingAndNeverShrinks(t *testing.T) {
	t.Parallel()
	p := aloft.RetryPolicy{Memory: 2, MaxMemory: 3000}
	for had, want := range map[int64]int64{0: 0, 1000: 2000, 2000: 3000, 3000: 3000, 5000: 5000} {
		if got := p.More(had); got != want {
			t.Errorf("after a death with %d bytes there are %d, want %d", had, got, want)
		}
	}
}

func TestAPolicyIsAboutTheTasksAndErrorsThatItNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy           aloft.RetryPolicy
		task, kind, code string
		want             bool
	}{
		{aloft.RetryPolicy{}, "a.b", "USER", "X", true},
		{aloft.RetryPolicy{Task: "etl.*"}, "etl.load", "USER", "X", true},
		{aloft.RetryPolicy{Task: "etl.*"}, "ml.train", "USER", "X", false},
		{aloft.RetryPolicy{Error: "SYSTEM"}, "a", "SYSTEM", "X", true},
		{aloft.RetryPolicy{Error: "SYSTEM"}, "a", "USER", "X", false},
		{aloft.RetryPolicy{Error: "OOM*"}, "a", "USER", "OOMKilled", true},
		{aloft.RetryPolicy{Task: "b", Error: "X"}, "a", "USER", "X", false},
	} {
		if got := c.policy.Matches(c.task, c.kind, c.code); got != c.want {
			t.Errorf("%+v matches %s %s %s: %t, want %t", c.policy, c.task, c.kind, c.code, got, c.want)
		}
	}
}

func TestAllMistakesOfAPolicyAreToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := parsePolicy("task=[ backoff=soon factor=0.5 jitter=2 memory=x max-memory=much max=-1s colour=red task=b")
	if !errors.Is(err, aloft.ErrInvalid) {
		t.Fatalf("got %v, want ErrInvalid", err)
	}
	for _, part := range []string{`task "["`, `backoff "soon"`, `factor "0.5"`, `jitter "2"`, `memory "x"`, `max-memory "much"`, `max "-1s"`, `"colour"`, "task is there twice"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
	if _, err := parsePolicy("task=a"); err == nil || !strings.Contains(err.Error(), "neither backoff nor memory") {
		t.Errorf("a policy that says nothing: %v", err)
	}
}

func TestSystemRetriesAreReadWithAllTheirMistakes(t *testing.T) {
	t.Parallel()
	got, err := aloft.ParseSystemRetries("max=5 backoff=2s max-backoff=1m")
	if want := (aloft.SystemRetries{Max: 5, Backoff: 2 * time.Second, MaxBackoff: time.Minute}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for retry, want := range map[uint32]time.Duration{1: 2 * time.Second, 2: 4 * time.Second, 6: time.Minute, 1000: time.Minute} {
		if pause := got.Pause(retry, 0); pause != want {
			t.Errorf("the pause before retry %d is %s, want %s", retry, pause, want)
		}
		if pause := got.Pause(retry, 1); pause != want/2 {
			t.Errorf("the shortest pause before retry %d is %s, want %s", retry, pause, want/2)
		}
	}
	if got, err := aloft.ParseSystemRetries(""); err != nil || got != (aloft.SystemRetries{}) || got.Pause(3, 0) != 0 {
		t.Errorf("nothing said: %+v, %v", got, err)
	}
	_, err = aloft.ParseSystemRetries("max=0 backoff=soon max-backoff=-1s colour=red max=101")
	if !errors.Is(err, aloft.ErrInvalid) {
		t.Fatalf("got %v, want ErrInvalid", err)
	}
	for _, part := range []string{`max "0"`, `max "101"`, `backoff "soon"`, `max-backoff "-1s"`, `"colour"`, "max is there twice"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
}
