package job

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/recovery"
	"github.com/aloft-dev/aloft/store"
)

// pageSize is how many executions one query reads.
const pageSize = 500

// selectExecutions finds the executions of a selection. All mistakes of the selection are reported at once.
func (j *Jobs) selectExecutions(ctx context.Context, s *aloftv1.RecoverySelection) ([]recovery.FailedExecution, error) {
	var problems field.Problems
	pattern, err := errorPattern(s.GetError())
	if err != nil {
		problems.Add("invalid value for error: %v", err)
	}
	problems.Legible("selection", s)
	for _, phase := range s.GetPhases() {
		switch phase {
		case core.WorkflowExecution_FAILED, core.WorkflowExecution_ABORTED, core.WorkflowExecution_TIMED_OUT:
		default:
			problems.Add("invalid value for phases: %s cannot be recovered, only FAILED, ABORTED and TIMED_OUT", phase)
		}
	}
	named := len(s.GetExecutions()) > 0
	if named && (len(s.GetPhases()) > 0 || s.GetSince() != nil || s.GetWorkflow() != "" || s.GetError() != "") {
		problems.Add("invalid value for executions: give executions, or what selects them (phases, since, workflow, error), not both")
	}
	if !named {
		problems.Need("project", s.GetProject())
		problems.Need("domain", s.GetDomain())
	}
	if len(s.GetExecutions()) > aloft.MaxRecoveryItems {
		return nil, tooMany()
	}
	for _, id := range s.GetExecutions() {
		problems.Execution(id)
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	var all []recovery.FailedExecution
	if named {
		all, err = j.readNamed(ctx, s.GetExecutions())
	} else {
		all, err = j.findMatching(ctx, s, pattern)
	}
	if err != nil {
		return nil, err
	}
	return j.latestRecoveries(ctx, all)
}

// errorPattern reads a regular expression and bounds the number of its instructions, which is how many steps a match takes for each
// byte: a match cannot be cancelled. A short expression may have many instructions, as (?:a?){1000} has.
func errorPattern(text string) (*regexp.Regexp, error) {
	if n := len(text); n > aloft.MaxPattern {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", n, aloft.MaxPattern)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(program.Inst); n > aloft.MaxPatternSteps {
		return nil, fmt.Errorf("its program has %d instructions, the limit is %d: repeat less, such as with * instead of {1000}", n, aloft.MaxPatternSteps)
	}
	return regexp.Compile(text)
}

// matchedText is the text of an error that a pattern is matched with. The middle of a long error is left out: an error of Python
// begins with a traceback and ends with its message.
func matchedText(e *core.ExecutionError) string {
	text := e.GetCode() + ": " + e.GetMessage()
	const half = aloft.MaxMatched / 2
	if len(text) > aloft.MaxMatched {
		text = text[:half] + "\n…\n" + text[len(text)-half:]
	}
	return text
}

func tooMany() error {
	return fmt.Errorf("more than %d executions: narrow the selection, or recover them in several jobs: %w", aloft.MaxRecoveryItems, aloft.ErrExhausted)
}

// readNamed reads executions that the user named.
func (j *Jobs) readNamed(ctx context.Context, ids []*core.WorkflowExecutionIdentifier) ([]recovery.FailedExecution, error) {
	var all []recovery.FailedExecution
	var errs []error
	for _, id := range ids {
		e, err := j.Store.GetExecution(ctx, aloft.ExecutionIDOf(id))
		switch {
		case errors.Is(err, aloft.ErrNotFound):
			errs = append(errs, err)
		case err != nil:
			return nil, err
		case e.Phase == core.WorkflowExecution_SUCCEEDED:
			errs = append(errs, fmt.Errorf("execution %s has succeeded, there is nothing to recover: %w", e.ID, aloft.ErrPrecondition))
		case !aloft.Terminal(e.Phase):
			errs = append(errs, fmt.Errorf("execution %s has not ended: wait for its end, or terminate it: %w", e.ID, aloft.ErrPrecondition))
		default:
			all = append(all, recovery.FailedExecution{ID: e.ID, Error: e.Error})
		}
	}
	return all, errors.Join(errs...)
}

// findMatching reads the executions that a selection describes, in order of creation, without archived ones. If none runs a
// workflow of the name, the name is taken for that of a task.
func (j *Jobs) findMatching(ctx context.Context, s *aloftv1.RecoverySelection, pattern *regexp.Regexp) ([]recovery.FailedExecution, error) {
	all, err := j.findMatchingWorkflow(ctx, s, s.GetWorkflow(), pattern)
	if err == nil && len(all) == 0 && s.GetWorkflow() != "" {
		return j.findMatchingWorkflow(ctx, s, generatedPrefix+s.GetWorkflow(), pattern)
	}
	return all, err
}

// generatedPrefix begins the names of workflows that are generated to run one task; lists show them by the task's name.
const generatedPrefix = ".flytegen."

func (j *Jobs) findMatchingWorkflow(ctx context.Context, s *aloftv1.RecoverySelection, workflow string, pattern *regexp.Regexp) ([]recovery.FailedExecution, error) {
	phases := []string{core.WorkflowExecution_FAILED.String()}
	if len(s.GetPhases()) > 0 {
		phases = nil
		for _, phase := range s.GetPhases() {
			phases = append(phases, phase.String())
		}
	}
	q := store.Query{Project: s.GetProject(), Domain: s.GetDomain(), Ascending: true, Limit: pageSize, Filters: []store.Filter{
		{Field: "phase", Function: "value_in", Values: phases},
		{Field: "state", Function: "eq", Values: []string{"0"}},
	}}
	if workflow != "" {
		q.Filters = append(q.Filters, store.Filter{Field: "workflow.name", Function: "eq", Values: []string{workflow}})
	}
	if s.GetSince() != nil { // the last change of an execution that has ended is its end
		q.Filters = append(q.Filters, store.Filter{Field: "updated_at", Function: "gte", Values: []string{s.GetSince().AsTime().Format(time.RFC3339Nano)}})
	}
	var all []recovery.FailedExecution
	for {
		page, err := j.Store.ListExecutions(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			if err := ctx.Err(); err != nil {
				return nil, err // the client has gone: matching further pages would be in vain
			}
			if pattern.MatchString(matchedText(e.Error)) {
				all = append(all, recovery.FailedExecution{ID: e.ID, Error: e.Error})
			}
		}
		if len(all) > aloft.MaxRecoveryItems {
			return nil, tooMany()
		}
		if len(page) < q.Limit {
			return all, nil
		}
		q.After = store.PositionOf(page[len(page)-1]) // a number of rows would miss executions when others come and go meanwhile
	}
}

// Plan says what a job for the selection would do. With nodes, it lists the nodes and checks that the results to be reused are
// there. Without, nodes are only counted, because that check would cost too much for a selection of thousands of executions.
func (j *Jobs) Plan(ctx context.Context, s *aloftv1.RecoverySelection, nodes bool) (*aloftv1.PlanRecoveryResponse, error) {
	all, err := j.selectExecutions(ctx, s)
	if err != nil {
		return nil, err
	}
	answer := &aloftv1.PlanRecoveryResponse{}
	var items []*aloftv1.RecoveryItem
	answer.Causes, items = recovery.Group(all)
	histories, err := j.histories(ctx, items)
	if err != nil {
		return nil, err
	}
	graphs := map[aloft.Key]*core.CompiledWorkflowClosure{} // by workflow; the executions of a selection run few workflows
	for k, i := range items {
		planned := &aloftv1.PlannedRecovery{Execution: i.GetExecution(), Cause: i.GetCause(), Skipped: histories[k].Skip()}
		answer.Executions = append(answer.Executions, planned)
		if planned.GetSkipped() != "" {
			continue
		}
		plan, err := j.plan(ctx, aloft.ExecutionIDOf(i.GetExecution()), graphs, nodes)
		if err != nil {
			return nil, err
		}
		planned.Reused, planned.Runs = uint32(plan.Reused()), uint32(plan.Runs())
		if !nodes {
			continue
		}
		for _, step := range plan.Steps {
			n := &aloftv1.PlannedNode{Path: string(step.Path), Name: step.Name, Reused: step.Take, Reason: step.Reason}
			if step.Take {
				n.Source = string(step.Source.ID)
			}
			planned.Nodes = append(planned.Nodes, n)
		}
	}
	return answer, nil
}

func (j *Jobs) plan(ctx context.Context, id aloft.ExecutionID, graphs map[aloft.Key]*core.CompiledWorkflowClosure, look bool) (*recovery.Plan, error) {
	e, err := j.Store.GetExecution(ctx, id)
	if err != nil {
		return nil, err
	}
	key := aloft.KeyOf(e.Workflow)
	if graphs[key] == nil {
		w, err := j.Store.GetWorkflow(ctx, e.Workflow)
		if err != nil {
			return nil, err
		}
		graphs[key] = w.Compiled
	}
	nodes, err := j.Store.ListNodes(ctx, id, "", true, store.Query{Ascending: true})
	if err != nil {
		return nil, err
	}
	var lost map[aloft.NodeID]string
	if look {
		if lost, err = j.lost(ctx, id, nodes); err != nil {
			return nil, err
		}
	}
	return recovery.NewPlan(recovery.NewRun(nodes), graphs[key], lost), nil
}

// valuesPerRead is how many nodes' outputs one query reads, each up to 64 KiB.
const valuesPerRead = 256

// lost finds the finished nodes whose results are not all there any more, with a text about what is lost. The engine will make the
// same check before it takes a node over.
func (j *Jobs) lost(ctx context.Context, id aloft.ExecutionID, nodes []*store.Node) (map[aloft.NodeID]string, error) {
	var finished []aloft.NodeID
	for _, n := range nodes {
		if aloft.Succeeded(n.Phase) {
			finished = append(finished, n.ID)
		}
	}
	lost := map[aloft.NodeID]string{}
	for some := range slices.Chunk(finished, valuesPerRead) {
		records, err := j.Store.NodeValues(ctx, id, some)
		if err != nil {
			return nil, err
		}
		for _, n := range records {
			if n.Unreadable != nil {
				lost[n.ID] = n.Unreadable.Error()
				continue
			}
			problem, err := j.Results.Lost(ctx, n.Outputs)
			if err != nil {
				return nil, fmt.Errorf("look for the outputs of node %s of execution %s: %w", n.ID, id, err)
			}
			if problem != "" {
				lost[n.ID] = problem
			}
		}
	}
	return lost, nil
}

// Create commits a job for a selection, which begins at once. ErrExists if its name is taken, ErrPrecondition if no execution is
// selected.
func (j *Jobs) Create(ctx context.Context, r *aloftv1.CreateRecoveryJobRequest) (*aloftv1.RecoveryJob, error) {
	if rate := r.GetRate(); rate < 0 || math.IsNaN(rate) || math.IsInf(rate, 0) || rate > 0 && rate < 1e-6 {
		return nil, fmt.Errorf("invalid value for rate: %v is no number of recoveries per second: %w", rate, aloft.ErrInvalid)
	}
	if len(r.GetName()) > aloft.MaxExecutionName {
		return nil, fmt.Errorf("invalid value for name: it has %d characters, the limit is %d: %w", len(r.GetName()), aloft.MaxExecutionName, aloft.ErrInvalid)
	}
	all, err := j.selectExecutions(ctx, r.GetSelection())
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no execution is selected: %w", aloft.ErrPrecondition)
	}
	job := &aloftv1.RecoveryJob{Name: r.GetName(), Selection: r.GetSelection(), Canary: r.GetCanary(), Rate: r.GetRate()}
	if job.GetName() == "" {
		job.Name = "recovery-" + strings.ToLower(rand.Text()[:8])
	}
	b := recovery.NewBatch(job, all, j.Now())
	if err := j.Store.CreateRecoveryJob(ctx, b.Job, b.Items); err != nil {
		return nil, err
	}
	return b.Job, nil
}
