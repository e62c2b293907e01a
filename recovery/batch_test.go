package recovery_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func execution(n int) aloft.ExecutionID {
	return aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: fmt.Sprintf("e%d", n)}
}

// story is a batch in which the cause of each execution is a letter: "aab" are three executions with two causes.
type story struct {
	*testing.T
	*recovery.Batch
	now time.Time
}

func newStory(t *testing.T, causes string, canary uint32, rate float64) *story {
	t.Helper()
	var all []recovery.FailedExecution
	for n, c := range causes {
		all = append(all, recovery.FailedExecution{ID: execution(n), Error: &core.ExecutionError{Code: "USER:" + string(c), Message: fmt.Sprintf("row %d", n)}})
	}
	return &story{t, recovery.NewBatch(&aloftv1.RecoveryJob{Name: "job", Canary: canary, Rate: rate}, all, start), start}
}

// pass starts the items that may begin.
func (s *story) pass() int {
	begin, _ := s.Pass(s.now, 64)
	for _, i := range begin {
		s.Begin(i, recovery.History{}, s.now)
		s.Started(i, "")
	}
	s.Advance(s.now)
	return len(begin)
}

// end ends all recoveries that run; those of the causes in failing fail.
func (s *story) end(failing string) {
	for _, i := range s.Items {
		phase, failure := core.WorkflowExecution_SUCCEEDED, (*core.ExecutionError)(nil)
		if code := s.Job.GetCauses()[i.GetCause()].GetCode(); strings.Contains(failing, strings.TrimPrefix(code, "USER:")) {
			phase, failure = core.WorkflowExecution_FAILED, &core.ExecutionError{Code: code, Message: "row 7"}
		}
		s.Observe(i, phase, failure)
	}
	s.Advance(s.now)
}

// want compares the phase and the counts of waiting, running, succeeded, failed and skipped items.
func (s *story) want(phase aloftv1.RecoveryJob_Phase, counts string) {
	s.Helper()
	n := s.Job.GetCounts()
	if got := fmt.Sprint(n.GetWaiting(), n.GetRunning(), n.GetSucceeded(), n.GetFailed(), n.GetSkipped()); s.Job.GetPhase() != phase || got != counts {
		s.Fatalf("the job is %s with %s (%s), want %s with %s", s.Job.GetPhase(), got, s.Job.GetReason(), phase, counts)
	}
}

func (s *story) began(got, want int) {
	s.Helper()
	if got != want {
		s.Fatalf("%d items began, want %d", got, want)
	}
}

func TestFailuresAreGroupedByCauseAndTheFirstOnesAreOfAllCauses(t *testing.T) {
	t.Parallel()
	s := newStory(t, "abbbcc", 0, 0)
	var got []string
	for _, c := range s.Job.GetCauses() {
		got = append(got, fmt.Sprintf("%s %q %d", c.GetCode(), c.GetMessage(), c.GetExecutions()))
	}
	if want := `USER:b "row <n>" 3, USER:c "row <n>" 2, USER:a "row <n>" 1`; strings.Join(got, ", ") != want {
		t.Errorf("causes are %s, want %s", strings.Join(got, ", "), want)
	}
	var order []string
	for _, i := range s.Items {
		order = append(order, i.GetExecution().GetName())
	}
	if got := strings.Join(order, " "); got != "e1 e4 e0 e2 e5 e3" {
		t.Errorf("the order is %s", got)
	}
}

func TestAJobWithoutCanaryStartsEverythingAndEndsWithTheLast(t *testing.T) {
	t.Parallel()
	s := newStory(t, "aab", 0, 0)
	s.want(aloftv1.RecoveryJob_RUNNING, "3 0 0 0 0")
	s.began(s.pass(), 3)
	s.want(aloftv1.RecoveryJob_RUNNING, "0 3 0 0 0")
	s.began(s.pass(), 0)
	s.end("b")
	s.want(aloftv1.RecoveryJob_ENDED, "0 0 2 1 0")
	if got := s.Items[1].GetReason(); got != "USER:b: row <n>" {
		t.Errorf("the item that failed says %q", got)
	}
	if s.Job.GetEndedAt() == nil {
		t.Error("nothing says when it ended")
	}
}

func TestTheOthersStartWhenTheCanaryHasSucceeded(t *testing.T) {
	t.Parallel()
	s := newStory(t, "aaaaa", 2, 0)
	s.began(s.pass(), 2)
	s.want(aloftv1.RecoveryJob_CANARY, "3 2 0 0 0")
	s.began(s.pass(), 0)
	s.Observe(s.Items[0], core.WorkflowExecution_SUCCEEDED, nil)
	s.Advance(s.now)
	s.want(aloftv1.RecoveryJob_CANARY, "3 1 1 0 0") // all items of the canary have to end
	s.began(s.pass(), 0)
	s.end("")
	s.want(aloftv1.RecoveryJob_RUNNING, "3 0 2 0 0")
	s.began(s.pass(), 3)
	s.end("a") // a failure after the canary does not pause the job
	s.want(aloftv1.RecoveryJob_ENDED, "0 0 2 3 0")
}

func TestAJobPausesWhenItsCanaryFailsAndSaysWhy(t *testing.T) {
	t.Parallel()
	s := newStory(t, "aabb", 2, 0)
	s.began(s.pass(), 2)
	s.end("b")
	s.want(aloftv1.RecoveryJob_PAUSED, "2 0 1 1 0")
	if got := s.Job.GetReason(); !strings.Contains(got, "1 of 2 in the canary failed, the first with USER:b: row <n>") {
		t.Errorf("the reason is %q", got)
	}
	s.began(s.pass(), 0)
	if err := recovery.Resume(s.Job, s.now); err != nil {
		t.Fatal(err)
	}
	s.want(aloftv1.RecoveryJob_RUNNING, "2 0 1 1 0")
	s.began(s.pass(), 2)
	s.end("")
	s.want(aloftv1.RecoveryJob_ENDED, "0 0 3 1 0")
}

func TestWhatIsSkippedIsNoCanary(t *testing.T) {
	t.Parallel()
	s := newStory(t, "aaaa", 1, 0)
	begin, _ := s.Pass(s.now, 64)
	s.began(len(begin), 1)
	s.Begin(begin[0], recovery.History{Equal: execution(9)}, s.now)
	s.Advance(s.now)
	s.want(aloftv1.RecoveryJob_CANARY, "3 0 0 0 1")
	s.began(s.pass(), 1)
	s.end("")
	s.want(aloftv1.RecoveryJob_RUNNING, "2 0 1 0 1")
}

func TestAPausedJobStartsNothingAndGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	s := newStory(t, "aaa", 1, 0)
	if err := recovery.Pause(s.Job, s.now); err != nil {
		t.Fatal(err)
	}
	s.began(s.pass(), 0)
	if err := recovery.Resume(s.Job, s.now); err != nil {
		t.Fatal(err)
	}
	s.want(aloftv1.RecoveryJob_CANARY, "3 0 0 0 0")
	s.began(s.pass(), 1)
	if err := recovery.Pause(s.Job, s.now); err != nil {
		t.Fatal(err)
	}
	s.end("") // recoveries that run go on while the job is paused
	s.want(aloftv1.RecoveryJob_PAUSED, "2 0 1 0 0")
	if err := recovery.Resume(s.Job, s.now); err != nil {
		t.Fatal(err)
	}
	s.want(aloftv1.RecoveryJob_RUNNING, "2 0 1 0 0")
	s.began(s.pass(), 2)
	s.end("")
	for _, err := range []error{recovery.Pause(s.Job, s.now), recovery.Resume(s.Job, s.now)} {
		if !errors.Is(err, aloft.ErrPrecondition) {
			t.Errorf("a job that has ended: got %v", err)
		}
	}
}

func TestTheRateHoldsOverAnyTime(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.5, 1, 7} {
		s := newStory(t, strings.Repeat("a", 60), 0, rate)
		began := 0
		for ; s.Job.GetCounts().GetWaiting() > 0; s.now = s.now.Add(50 * time.Millisecond) {
			began += s.pass()
			if allowed := rate*s.now.Sub(start).Seconds() + max(rate, 1); float64(began) > allowed+1e-6 {
				t.Fatalf("at %.1f a second %d began within %s", rate, began, s.now.Sub(start))
			}
		}
		if took := s.now.Sub(start).Seconds(); took > 60/rate+1 {
			t.Errorf("at %.1f a second all 60 began after %.1f s", rate, took)
		}
	}
}

func TestWhatIsDoneOrBeingDoneIsSkipped(t *testing.T) {
	t.Parallel()
	known := func(phase core.WorkflowExecution_Phase) recovery.History {
		return recovery.History{Recoveries: []recovery.ExecutionPhase{{ID: execution(5), Phase: phase}}}
	}
	for want, history := range map[string]recovery.History{
		"":                                   {},
		"execution e5 has recovered it":      known(core.WorkflowExecution_SUCCEEDED),
		"execution e5 is recovering it":      known(core.WorkflowExecution_RUNNING),
		"ended FAILED: recover that one":     known(core.WorkflowExecution_FAILED),
		"e6 has succeeded with equal inputs": {Equal: execution(6)},
	} {
		if got := history.Skip(); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTheNameOfARecoveryFollowsFromWhatItRecovers(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for n := range 1000 {
		name := recovery.RecoveryName(execution(n))
		if name != recovery.RecoveryName(execution(n)) || len(name) != 20 || seen[name] {
			t.Fatalf("the name of %d is %s", n, name)
		}
		seen[name] = true
	}
	elsewhere := execution(1)
	elsewhere.Domain = "production"
	if recovery.RecoveryName(elsewhere) == recovery.RecoveryName(execution(1)) {
		t.Error("executions of two domains have one name")
	}
}
