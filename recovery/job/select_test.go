package job_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/recovery/job"
	"github.com/aloft-dev/aloft/store"
)

// newFailed creates n failed executions with one error.
func (w *endedStore) newFailed(n int, message string) *job.Jobs {
	w.Helper()
	for i := range n {
		e := &store.Execution{
			ID: id(fmt.Sprintf("e%d", i)), Phase: core.WorkflowExecution_FAILED, CreatedAt: time.Now(), UpdatedAt: time.Now(), JournalVersion: store.JournalVersion,
			Workflow: &core.Identifier{Project: "flytesnacks", Domain: "development", Name: "wf", Version: "v1"},
			Error:    &core.ExecutionError{Code: "USER:E", Message: message},
		}
		if err := w.CreateExecution(w.Context(), e, &aloftv1.Inbox{}); err != nil {
			w.Fatal(err)
		}
	}
	return job.New(job.Config{Store: w, Launcher: w, Owner: "test"})
}

func selecting(pattern string) *aloftv1.CreateRecoveryJobRequest {
	return &aloftv1.CreateRecoveryJobRequest{Selection: &aloftv1.RecoverySelection{Project: "flytesnacks", Domain: "development", Error: pattern}}
}

// TestAPatternIsBoundedByItsProgram: a pattern of 362 bytes kept a processor busy for more than 35 s with one error of 20 KB.
func TestAPatternIsBoundedByItsProgram(t *testing.T) {
	t.Parallel()
	jobs := newEndedStore(t).newFailed(1, strings.Repeat("a", 20<<10))
	for _, pattern := range []string{strings.Repeat("(?:a?){1000}", 30) + "Z%", strings.Repeat("((a{9}){9}){9}", 3), "[a-z]{1000}[a-z]{1000}"} {
		begin := time.Now()
		_, err := jobs.Create(t.Context(), selecting(pattern))
		if !errors.Is(err, aloft.ErrInvalid) || !strings.Contains(err.Error(), "instructions, the limit is 2000") {
			t.Errorf("%.20s…: %v after %s", pattern, err, time.Since(begin))
		}
	}
	if _, err := jobs.Create(t.Context(), selecting(strings.Repeat("x", aloft.MaxPattern))); !errors.Is(err, aloft.ErrPrecondition) {
		t.Errorf("a text as long as one may be: %v, want that nothing is selected", err)
	}
}

func TestOfALongErrorTheBeginningAndTheEndAreMatched(t *testing.T) {
	t.Parallel()
	jobs := newEndedStore(t).newFailed(1, "Trace: "+strings.Repeat("frame ", 3000)+"middle "+strings.Repeat("frame ", 3000)+"ValueError: the end")
	for pattern, found := range map[string]bool{"^USER:E: Trace": true, "ValueError: the end$": true, "middle": false} {
		_, err := jobs.Create(t.Context(), selecting(pattern))
		if found && err != nil || !found && !errors.Is(err, aloft.ErrPrecondition) {
			t.Errorf("%s: %v, want found: %v", pattern, err, found)
		}
	}
}

// TestNothingIsMatchedForACallerWhoHasGone uses the most expensive pattern: when the client has gone, at most one more error is
// matched.
func TestNothingIsMatchedForACallerWhoHasGone(t *testing.T) {
	t.Parallel()
	jobs := newEndedStore(t).newFailed(400, strings.Repeat("a", 20<<10))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := jobs.Create(ctx, selecting("(?:a?){900}Z%"))
	if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 20*time.Second {
		t.Errorf("%v after %s", err, took)
	}
}
