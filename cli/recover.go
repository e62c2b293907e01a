package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// recoverFlags select executions and say how they are recovered.
type recoverFlags struct {
	phases                []string
	since                 time.Duration
	workflow, error, rate string
	canary                uint32
	dryRun, detach        bool
}

func newRecover(defaults Defaults) *cobra.Command {
	var f recoverFlags
	command := &cobra.Command{
		Use:   "recover [EXECUTION…]",
		Short: "Recover executions: what they finished is taken over, the rest runs",
		Long: `Recover executions: results of nodes that had finished are taken over, all others run.

Name the executions, or select them with --phase, --since, --workflow and --error. They are
recovered by a job of the server, which goes on whatever becomes of this command; what has been
recovered already, or has succeeded with equal inputs since, is skipped. No execution is
recovered twice.

--dry-run shows the causes of the failures, and which nodes would be reused and which would run.
With --canary N the first N, of different causes, have to succeed before the others start; if
one fails, the job pauses. The exit code is 3 if a recovery failed or the job paused.`,
		Example: `  aloft recover a7xkq2m9fz4n8wv6tbrl
  aloft recover --phase failed --since 24h --dry-run
  aloft recover --since 24h --workflow sales.daily --error "503 Service Unavailable" --canary 5 --rate 2/s
  aloft recover ls
  aloft recover show recovery-k3jd82ms`,
		Args: cobra.ArbitraryArgs,
	}
	c := flags(command, defaults)
	o := command.Flags()
	o.StringSliceVar(&f.phases, "phase", nil, "failed, aborted or timed_out; default failed")
	o.DurationVar(&f.since, "since", 0, "that ended within this time, such as 24h")
	o.StringVar(&f.workflow, "workflow", "", "of this workflow")
	o.StringVar(&f.error, "error", "", "whose \"CODE: message\" matches this regular expression")
	o.StringVar(&f.rate, "rate", "", "begin no more than this: 5/s, 30/m")
	o.Uint32Var(&f.canary, "canary", 0, "so many first; the others only if these succeed")
	o.BoolVar(&f.dryRun, "dry-run", false, "show what would be done, and do nothing")
	o.BoolVar(&f.detach, "detach", false, "do not wait for the end")
	command.RunE = func(command *cobra.Command, args []string) error { return c.recover(command, args, f) }
	command.AddCommand(newRecoverList(defaults), newRecoverShow(defaults),
		newRecoverChange(defaults, "pause", "Start nothing more; what runs goes on", func(ctx context.Context, c *client, name string) (*aloftv1.RecoveryJob, error) {
			return c.recovery.PauseRecoveryJob(ctx, &aloftv1.PauseRecoveryJobRequest{Name: name})
		}),
		newRecoverChange(defaults, "resume", "Go on; after a canary that failed, start all that is left", func(ctx context.Context, c *client, name string) (*aloftv1.RecoveryJob, error) {
			return c.recovery.ResumeRecoveryJob(ctx, &aloftv1.ResumeRecoveryJobRequest{Name: name})
		}), newRecoverRemove(defaults))
	return command
}

func (c *client) recover(command *cobra.Command, args []string, f recoverFlags) error {
	selection, err := c.selection(args, f)
	if err != nil {
		return err
	}
	rate, err := parseRate(f.rate)
	if err != nil {
		return err
	}
	ctx, w := command.Context(), command.OutOrStdout()
	if f.dryRun {
		plan, err := c.recovery.PlanRecovery(ctx, &aloftv1.PlanRecoveryRequest{Selection: selection, Nodes: len(args) > 0})
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(w, plan)
		}
		var planned []*core.WorkflowExecutionIdentifier
		for _, e := range plan.GetExecutions() {
			planned = append(planned, e.GetExecution())
		}
		fmt.Fprint(w, standIns(selection.GetExecutions(), planned))
		return printPlan(w, plan)
	}
	job, err := c.recovery.CreateRecoveryJob(ctx, &aloftv1.CreateRecoveryJobRequest{Selection: selection, Canary: f.canary, Rate: rate})
	if err != nil {
		return c.explain(err)
	}
	if c.output != "json" && len(args) > 0 {
		if answer, err := c.recovery.GetRecoveryJob(ctx, &aloftv1.GetRecoveryJobRequest{Name: job.GetName()}); err == nil { // without the items only the message about stand-ins is missing
			var items []*core.WorkflowExecutionIdentifier
			for _, i := range answer.GetItems() {
				items = append(items, i.GetExecution())
			}
			fmt.Fprint(w, standIns(selection.GetExecutions(), items))
		}
	}
	if f.detach {
		return c.printJob(w, job)
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	job, err = c.follow(ctx, w, job)
	if err != nil {
		return err
	}
	if job.GetPhase() == aloftv1.RecoveryJob_PAUSED || job.GetCounts().GetFailed() > 0 {
		return &ExitError{Code: 3}
	}
	return nil
}

// standIns says which of the named executions are not recovered themselves: if an execution was recovered before and its recovery
// failed, that recovery is recovered in its place, because more of its nodes have finished.
func standIns(named, recovered []*core.WorkflowExecutionIdentifier) string {
	only := func(these, those []*core.WorkflowExecutionIdentifier) (names []string) {
		for _, id := range these {
			if !slices.ContainsFunc(those, func(other *core.WorkflowExecutionIdentifier) bool { return proto.Equal(id, other) }) {
				names = append(names, printable(id.GetName()))
			}
		}
		return names
	}
	before, instead := only(named, recovered), only(recovered, named)
	if len(before) == 0 || len(instead) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: recovered before, without success; what is recovered now is the latest recovery: %s\n", strings.Join(before, ", "), strings.Join(instead, ", "))
}

func (c *client) selection(args []string, f recoverFlags) (*aloftv1.RecoverySelection, error) {
	s := &aloftv1.RecoverySelection{Project: c.project, Domain: c.domain, Workflow: f.workflow, Error: f.error}
	for _, argument := range args {
		former := c.server
		id, err := c.execution(argument)
		if err != nil {
			return nil, err
		}
		if len(s.GetExecutions()) > 0 && c.server != former {
			return nil, &ExitError{Code: 2, Message: fmt.Sprintf("execution %q is of the server %s, others are of %s: recover those of each by themselves", argument, c.server, former)}
		}
		s.Executions = append(s.Executions, id)
	}
	for _, name := range f.phases {
		phase, err := parsePhase(name, "failed, aborted, timed_out")
		if err != nil {
			return nil, err
		}
		s.Phases = append(s.Phases, phase)
	}
	if f.since < 0 {
		return nil, &ExitError{Code: 2, Message: "--since is negative"}
	}
	if f.since > 0 {
		s.Since = timestamppb.New(time.Now().Add(-f.since))
	}
	if len(args) == 0 && len(f.phases) == 0 && f.since == 0 && f.workflow == "" && f.error == "" {
		return nil, &ExitError{Code: 2, Message: "name executions, or select them: --phase failed, --since 24h, --workflow NAME, --error PATTERN"}
	}
	return s, nil
}

// parseRate reads "5/s", "30/m", "100/h" or a number per second.
func parseRate(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	number, per, _ := strings.Cut(text, "/")
	seconds, known := map[string]float64{"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[per]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || n <= 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return 0, &ExitError{Code: 2, Message: fmt.Sprintf("rate %q: want a number of recoveries per time, such as 5/s or 30/m", text)}
	}
	return n / seconds, nil
}

func printPlan(w io.Writer, plan *aloftv1.PlanRecoveryResponse) error {
	var reused, runs uint32
	skipped := 0
	rows := [][]string{{"EXECUTION", "CAUSE", "REUSED", "RUNS", ""}}
	for _, e := range plan.GetExecutions() {
		reused, runs = reused+e.GetReused(), runs+e.GetRuns()
		if e.GetSkipped() != "" {
			skipped++
			rows = append(rows, []string{e.GetExecution().GetName(), strconv.Itoa(int(e.GetCause()) + 1), "", "", "skipped: " + e.GetSkipped()})
			continue
		}
		rows = append(rows, []string{e.GetExecution().GetName(), strconv.Itoa(int(e.GetCause()) + 1), fmt.Sprint(e.GetReused()), fmt.Sprint(e.GetRuns()), ""})
	}
	fmt.Fprintf(w, "Executions: %d, of which %d would be recovered and %d skipped. Nodes: %d would be reused, %d would run.\n\n",
		len(plan.GetExecutions()), len(plan.GetExecutions())-skipped, skipped, reused, runs)
	if err := printCauses(w, plan.GetCauses()); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := table(w, rows); err != nil {
		return err
	}
	for _, e := range plan.GetExecutions() {
		if len(e.GetNodes()) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", e.GetExecution().GetName())
		nodes := [][]string{{"NODE", "NAME", "", "WHY"}}
		for _, n := range e.GetNodes() {
			what := "runs"
			if n.GetReused() {
				what = "reused"
			}
			nodes = append(nodes, []string{n.GetPath(), n.GetName(), what, n.GetReason()})
		}
		if err := table(w, nodes); err != nil {
			return err
		}
	}
	return nil
}

func printCauses(w io.Writer, causes []*aloftv1.RecoveryCause) error {
	rows := [][]string{{"", "EXECUTIONS", "SUCCEEDED", "FAILED", "CAUSE"}}
	for i, c := range causes {
		text := withoutRetryCount(c.GetMessage())
		if c.GetCode() != "" {
			text = c.GetCode() + ": " + text
		}
		rows = append(rows, []string{strconv.Itoa(i + 1), fmt.Sprint(c.GetExecutions()), fmt.Sprint(c.GetCounts().GetSucceeded()), fmt.Sprint(c.GetCounts().GetFailed()), text})
	}
	return table(w, rows)
}

func (c *client) printJob(w io.Writer, job *aloftv1.RecoveryJob) error {
	if c.output == "json" {
		return printJSON(w, job)
	}
	_, err := fmt.Fprintln(w, jobLine(job))
	return err
}

func jobLine(job *aloftv1.RecoveryJob) string {
	n := job.GetCounts()
	line := fmt.Sprintf("%s  %s  %d waiting, %d running, %d succeeded, %d failed, %d skipped", job.GetName(), job.GetPhase(),
		n.GetWaiting(), n.GetRunning(), n.GetSucceeded(), n.GetFailed(), n.GetSkipped())
	if job.GetReason() != "" {
		line += "\n  " + job.GetReason()
	}
	return line
}

// follow shows a job until it has ended or is paused, and returns it.
func (c *client) follow(ctx context.Context, w io.Writer, job *aloftv1.RecoveryJob) (*aloftv1.RecoveryJob, error) {
	screen := &screen{w: w}
	live := c.output != "json" && takesEscapes(w)
	show := func(last bool) error {
		switch {
		case live:
			screen.draw(strings.Split(jobLine(job), "\n"), last)
		case c.output == "json":
			return printJSON(w, job)
		default:
			_, err := fmt.Fprintln(w, jobLine(job))
			return err
		}
		return nil
	}
	over := func() bool {
		return job.GetPhase() == aloftv1.RecoveryJob_ENDED || job.GetPhase() == aloftv1.RecoveryJob_PAUSED
	}
	goesOn := backgroundWork{"The job goes on", " when the server does", "aloft recover show " + job.GetName()}
	for !over() {
		stream, err := c.recovery.WatchRecoveryJob(ctx, &aloftv1.WatchRecoveryJobRequest{Name: job.GetName()})
		if err != nil {
			return nil, c.explainEnd(ctx, err, goesOn)
		}
		for !over() && stream.Receive() {
			job = stream.Msg()
			if err := show(over()); err != nil {
				_ = stream.Close()
				return nil, err
			}
		}
		err = stream.Err()
		_ = stream.Close()
		if err != nil && !over() {
			return nil, c.explainEnd(ctx, err, goesOn)
		}
	}
	if c.output == "json" {
		return job, nil
	}
	fmt.Fprintln(w)
	if err := printCauses(w, job.GetCauses()); err != nil {
		return nil, err
	}
	if n := job.GetCounts(); n.GetWaiting()+n.GetRunning()+n.GetSucceeded()+n.GetFailed()+n.GetSkipped() <= fewItems {
		answer, err := c.recovery.GetRecoveryJob(ctx, &aloftv1.GetRecoveryJobRequest{Name: job.GetName()})
		if err != nil {
			return nil, c.explain(err)
		}
		if err := printItems(w, answer.GetItems()); err != nil {
			return nil, err
		}
	}
	if job.GetPhase() == aloftv1.RecoveryJob_PAUSED {
		fmt.Fprintf(w, "\nIt pauses: aloft recover show %s, aloft recover resume %s\n", job.GetName(), job.GetName())
	}
	return job, nil
}

func newRecoverList(defaults Defaults) *cobra.Command {
	command := &cobra.Command{Use: "ls", Short: "List jobs, the latest first", Args: cobra.NoArgs}
	c := flags(command, defaults)
	command.RunE = func(command *cobra.Command, _ []string) error {
		answer, err := c.recovery.ListRecoveryJobs(command.Context(), &aloftv1.ListRecoveryJobsRequest{Project: c.project, Domain: c.domain})
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), answer)
		}
		rows := [][]string{{"JOB", "PHASE", "CREATED", "WAITING", "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED", ""}}
		for _, job := range answer.GetJobs() {
			n, created := job.GetCounts(), ""
			if job.GetCreatedAt() != nil {
				created = job.GetCreatedAt().AsTime().Local().Format("2006-01-02 15:04:05")
			}
			rows = append(rows, []string{job.GetName(), job.GetPhase().String(), created,
				fmt.Sprint(n.GetWaiting()), fmt.Sprint(n.GetRunning()), fmt.Sprint(n.GetSucceeded()), fmt.Sprint(n.GetFailed()), fmt.Sprint(n.GetSkipped()), job.GetReason()})
		}
		return table(command.OutOrStdout(), rows)
	}
	return command
}

func newRecoverRemove(defaults Defaults) *cobra.Command {
	command := &cobra.Command{Use: "rm JOB…", Short: "Forget jobs that have ended, pause, or cannot be read; what they have started goes on", Args: cobra.MinimumNArgs(1)}
	c := flags(command, defaults)
	command.RunE = func(command *cobra.Command, args []string) error {
		for _, name := range args {
			if _, err := c.recovery.RemoveRecoveryJob(command.Context(), &aloftv1.RemoveRecoveryJobRequest{Name: name}); err != nil {
				return c.explain(err)
			}
			fmt.Fprintf(command.OutOrStdout(), "removed %s\n", printable(name))
		}
		return nil
	}
	return command
}

func newRecoverShow(defaults Defaults) *cobra.Command {
	command := &cobra.Command{Use: "show JOB", Short: "Report a job: its causes and each of its executions", Args: cobra.ExactArgs(1)}
	c := flags(command, defaults)
	command.RunE = func(command *cobra.Command, args []string) error {
		answer, err := c.recovery.GetRecoveryJob(command.Context(), &aloftv1.GetRecoveryJobRequest{Name: args[0]})
		if err != nil {
			return c.explain(err)
		}
		w := command.OutOrStdout()
		if c.output == "json" {
			return printJSON(w, answer)
		}
		fmt.Fprintf(w, "%s\n\n", jobLine(answer.GetJob()))
		if err := printCauses(w, answer.GetJob().GetCauses()); err != nil {
			return err
		}
		return printItems(w, answer.GetItems())
	}
	return command
}

// fewItems is up to how many executions are shown one by one without a flag.
const fewItems = 20

func printItems(w io.Writer, items []*aloftv1.RecoveryItem) error {
	fmt.Fprintln(w)
	rows := [][]string{{"EXECUTION", "CAUSE", "PHASE", "RECOVERY", ""}}
	for _, i := range items {
		rows = append(rows, []string{i.GetExecution().GetName(), strconv.Itoa(int(i.GetCause()) + 1), i.GetPhase().String(), i.GetRecovery().GetName(), withoutRetryCount(i.GetReason())})
	}
	return table(w, rows)
}

func newRecoverChange(defaults Defaults, verb, short string, call func(context.Context, *client, string) (*aloftv1.RecoveryJob, error)) *cobra.Command {
	command := &cobra.Command{Use: verb + " JOB", Short: short, Args: cobra.ExactArgs(1)}
	c := flags(command, defaults)
	command.RunE = func(command *cobra.Command, args []string) error {
		job, err := call(command.Context(), c, args[0])
		if err != nil {
			return c.explain(err)
		}
		return c.printJob(command.OutOrStdout(), job)
	}
	return command
}
