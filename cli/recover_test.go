package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestARateIsANumberPerTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"": 0, "5/s": 5, "30/m": 0.5, "30/min": 0.5, "36/h": 0.01, "2.5": 2.5} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"0/s", "-1/s", "x", "5/day", "NaN", "inf/s", "/s"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
}

func TestASelectionNamesExecutionsOrDescribesThem(t *testing.T) {
	t.Parallel()
	c := &client{project: "p", domain: "d"}
	s, err := c.selection([]string{"a", "x/y/b"}, recoverFlags{})
	if err != nil || len(s.GetExecutions()) != 2 || s.GetExecutions()[0].GetProject() != "p" || s.GetExecutions()[1].GetDomain() != "y" {
		t.Errorf("named: %v, %v", s, err)
	}
	s, err = c.selection(nil, recoverFlags{phases: []string{"failed", "timed-out"}, since: time.Hour, workflow: "w", error: "e"})
	if err != nil || len(s.GetPhases()) != 2 || s.GetPhases()[1] != core.WorkflowExecution_TIMED_OUT || s.GetWorkflow() != "w" || s.GetError() != "e" {
		t.Errorf("described: %v, %v", s, err)
	}
	if ago := time.Since(s.GetSince().AsTime()); ago < time.Hour || ago > 2*time.Hour {
		t.Errorf("since %s ago", ago)
	}
	for name, f := range map[string]recoverFlags{"nothing": {}, "a wrong phase": {phases: []string{"gone"}}, "a negative time": {since: -1}} {
		if _, err := c.selection(nil, f); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestAPlanSaysWhatIsReusedAndWhatRuns(t *testing.T) {
	t.Parallel()
	execution := func(name string) *core.WorkflowExecutionIdentifier {
		return &core.WorkflowExecutionIdentifier{Project: "p", Domain: "d", Name: name}
	}
	var b bytes.Buffer
	if err := printPlan(&b, &aloftv1.PlanRecoveryResponse{
		Causes: []*aloftv1.RecoveryCause{{Code: "USER:E", Message: "[<n>/<n>] currentAttempt done. Last Error: USER::row <n> " + strings.Repeat("and more ", 20) + "in whole", Executions: 2}},
		Executions: []*aloftv1.PlannedRecovery{
			{Execution: execution("one"), Reused: 3, Runs: 1, Nodes: []*aloftv1.PlannedNode{{Path: "n1/n0", Name: "load", Reused: true, Reason: "it had succeeded"}, {Path: "n2", Name: "fit", Reason: "it had failed: USER:E"}}},
			{Execution: execution("two"), Skipped: "execution r has recovered it"},
		},
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Executions: 2, of which 1 would be recovered and 1 skipped. Nodes: 3 would be reused, 1 would run.", "USER:E: row <n> and more", "in whole\n",
		"skipped: execution r has recovered it", "n1/n0  load  reused  it had succeeded", "n2     fit   runs    it had failed: USER:E",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, b.String())
		}
	}
}

func TestARecoveryThatStandsForWhatWasNamedIsSaidToDoSo(t *testing.T) {
	t.Parallel()
	ids := func(names string) (ids []*core.WorkflowExecutionIdentifier) {
		for name := range strings.FieldsSeq(names) {
			ids = append(ids, &core.WorkflowExecutionIdentifier{Project: "p", Domain: "d", Name: name})
		}
		return ids
	}
	for _, c := range [][3]string{
		{"x", "x", ""},
		{"x y", "y r", "x: recovered before, without success; what is recovered now is the latest recovery: r\n"},
		{"", "x y", ""}, // executions selected by phase, not by name
		{"x x2", "x", ""},
	} {
		if got := standIns(ids(c[0]), ids(c[1])); got != c[2] {
			t.Errorf("%s named, %s recovered: %q, want %q", c[0], c[1], got, c[2])
		}
	}
}
