package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/near"
	"github.com/aloft-dev/aloft/literal"
)

func newGet(defaults Defaults) *cobra.Command {
	command := &cobra.Command{
		Use:   "get",
		Short: "List executions, workflows, tasks or launch plans",
		Example: `  aloft get executions
  aloft get executions --phase failed,timed_out
  aloft get workflows -o json`,
	}
	return group(command, newGetExecutions(defaults), newGetWorkflows(defaults), newGetTasks(defaults), newGetLaunchPlans(defaults))
}

// page is what every list has.
type page struct{ limit int }

func (p *page) flags(command *cobra.Command) {
	command.Flags().IntVar(&p.limit, "limit", 20, "at most so many, newest first")
	connects := command.PreRunE
	command.PreRunE = func(command *cobra.Command, args []string) error {
		if p.limit < 1 || p.limit > math.MaxUint32 {
			return &ExitError{Code: 2, Message: fmt.Sprintf("--limit %d: want a number from 1 on", p.limit)}
		}
		return connects(command, args)
	}
}

func (p *page) request(c *client, args []string) *admin.ResourceListRequest {
	request := &admin.ResourceListRequest{
		Id: &admin.NamedEntityIdentifier{Project: c.project, Domain: c.domain}, Limit: uint32(p.limit),
		SortBy: &admin.Sort{Key: "created_at", Direction: admin.Sort_DESCENDING},
	}
	if len(args) > 0 {
		request.Id.Name = args[0]
	}
	return request
}

func newGetExecutions(defaults Defaults) *cobra.Command {
	var (
		p        page
		phases   []string
		workflow string
	)
	command := &cobra.Command{
		Use:     "executions [NAME]",
		Aliases: []string{"execution"},
		Short:   "List executions, newest first, or show one with its inputs and outputs",
		Long: `List executions, newest first, or show one with its inputs and outputs.

With -o json a list is Flyte's ExecutionList, and one execution its Execution with two fields more:
inputs and outputs, each a LiteralMap ({"literals": {NAME: …}}), or {"url": …, "bytes": …} of a
LiteralMap that is too large to show.`,
		Example: `  aloft get executions --phase failed,timed_out --workflow example.main
  aloft get executions a7xkq2m9fz4n8wv6tbrl
  aloft get executions a7xkq2m9fz4n8wv6tbrl -o json | jq .outputs.literals.o0`,
		Args: cobra.MaximumNArgs(1),
	}
	c := flags(command, defaults)
	p.flags(command)
	command.Flags().StringSliceVar(&phases, "phase", nil, "only those in this phase, or one of these: "+executionPhases)
	command.Flags().StringVar(&workflow, "workflow", "", "only those of this workflow")
	command.RunE = func(command *cobra.Command, args []string) error {
		if len(args) == 1 {
			return c.showExecution(command, args[0])
		}
		request := p.request(c, nil)
		var filters []string
		if len(phases) > 0 {
			var names []string
			for _, name := range phases {
				phase, err := parsePhase(name, executionPhases)
				if err != nil {
					return err
				}
				names = append(names, phase.String())
				if phase == core.WorkflowExecution_QUEUED {
					names = append(names, core.WorkflowExecution_UNDEFINED.String()) // phaseName
				}
			}
			filters = append(filters, "value_in(phase,"+strings.Join(names, ";")+")")
		}
		of := func(workflow string) string {
			if workflow == "" {
				return strings.Join(filters, "+")
			}
			return strings.Join(append(slices.Clone(filters), "eq(workflow.name,"+workflow+")"), "+")
		}
		request.Filters = of(workflow)
		list, err := c.admin.ListExecutions(command.Context(), request)
		if err == nil && workflow != "" && len(list.GetExecutions()) == 0 { // two equalities have an index, a list of names has none
			request.Filters = of(ofTask + workflow)
			list, err = c.admin.ListExecutions(command.Context(), request)
		}
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), list)
		}
		rows := [][]string{{"NAME", "WORKFLOW", "PHASE", "CREATED", "TOOK", "ERROR"}}
		asked := 0
		for _, e := range list.GetExecutions() {
			cl := e.GetClosure()
			message := cl.GetError().GetMessage()
			if cut := len(message) > listedError-utf8.UTFMax; cut && asked < fewItems {
				asked++
				if whole, err := c.admin.GetExecution(command.Context(), &admin.WorkflowExecutionGetRequest{Id: e.GetId()}); err == nil {
					message = whole.GetClosure().GetError().GetMessage()
				}
			} else if cut {
				message += "…"
			}
			note := firstLine(message)
			if cause := cl.GetAbortMetadata().GetCause(); cause != "" {
				note = cause
			}
			rows = append(rows, []string{e.GetId().GetName(), workflowName(cl.GetWorkflowId()), phaseName(cl.GetPhase()),
				ago(cl.GetCreatedAt()), executionTook(cl), note})
		}
		what := "executions"
		if len(phases) > 0 {
			what += " with phase " + printable(strings.Join(phases, " or "))
		}
		if workflow != "" {
			what += " of workflow " + printable(workflow)
		}
		return c.listed(command, what, rows, list.GetToken() != "", named{core.ResourceType_WORKFLOW, workflow})
	}
	return command
}

// listedError is how many bytes of an error lists have, as in Flyte. What happened may be in the rest.
const listedError = 100

// executionPhases are those that people ask for.
const executionPhases = "queued, running, succeeded, failed, aborted, timed_out"

// parsePhase reads a phase in small letters, with '-' or '_'; there says which there are.
func parsePhase(name, there string) (core.WorkflowExecution_Phase, error) {
	phase, known := core.WorkflowExecution_Phase_value[strings.ToUpper(strings.ReplaceAll(name, "-", "_"))]
	if !known {
		return 0, &ExitError{Code: 2, Message: fmt.Sprintf("phase %q: there is %s", name, there)}
	}
	return core.WorkflowExecution_Phase(phase), nil
}

func executionTook(cl *admin.ExecutionClosure) string {
	var end *timestamppb.Timestamp
	switch {
	case cl.GetStartedAt() != nil && cl.GetDuration() != nil:
		end = timestamppb.New(cl.GetStartedAt().AsTime().Add(cl.GetDuration().AsDuration()))
	case aloft.Terminal(cl.GetPhase()): // before it had started
		end = cl.GetUpdatedAt()
	}
	return ran(cl.GetCreatedAt(), cl.GetStartedAt(), end, time.Now())
}

// showExecution prints one execution with its inputs and outputs.
func (c *client) showExecution(command *cobra.Command, argument string) error {
	id, err := c.execution(argument)
	if err != nil {
		return err
	}
	execution, err := c.admin.GetExecution(command.Context(), &admin.WorkflowExecutionGetRequest{Id: id})
	if err != nil {
		return c.explain(err)
	}
	data, err := c.admin.GetExecutionData(command.Context(), &admin.WorkflowExecutionGetDataRequest{Id: id})
	if err != nil {
		return c.explain(err)
	}
	if c.output == "json" {
		values := map[string]any{}
		for name, m := range map[string]proto.Message{
			"inputs": valuesOf(data.GetFullInputs(), data.GetInputs()), "outputs": valuesOf(data.GetFullOutputs(), data.GetOutputs()),
		} {
			encoded, err := forMachines(m)
			if err != nil {
				return fmt.Errorf("print %s: %w", name, err)
			}
			values[name] = json.RawMessage(encoded)
		}
		return printJSONWith(command.OutOrStdout(), execution, values)
	}
	w, cl := command.OutOrStdout(), execution.GetClosure()
	fmt.Fprintf(w, "%s/%s/%s  %s  %s  %s\n", id.GetProject(), id.GetDomain(), id.GetName(),
		workflowName(cl.GetWorkflowId())+"@"+cl.GetWorkflowId().GetVersion(), phaseName(cl.GetPhase()), executionTook(cl))
	printLiterals(w, "inputs", data.GetFullInputs(), data.GetInputs())
	printLiterals(w, "outputs", data.GetFullOutputs(), data.GetOutputs())
	if cause := cl.GetAbortMetadata().GetCause(); cause != "" {
		fmt.Fprintf(w, "aborted: %s\n", cause)
	}
	if message := cl.GetError().GetMessage(); message != "" {
		fmt.Fprintf(w, "error %s:\n%s\n", cl.GetError().GetCode(), readable(message))
	}
	return nil
}

// valuesOf is values, or, of those that are too many for an answer, where they can be read.
func valuesOf(m *core.LiteralMap, rest *admin.UrlBlob) proto.Message {
	if len(m.GetLiterals()) == 0 && rest.GetUrl() != "" {
		return rest
	}
	return m
}

// printLiterals shows values, or, of those that are too many for an answer, how large they are and where they can be read.
func printLiterals(w io.Writer, title string, m *core.LiteralMap, rest *admin.UrlBlob) {
	if len(m.GetLiterals()) == 0 && rest.GetUrl() != "" {
		fmt.Fprintf(w, "%s: %s, which is too much to show; as a LiteralMap at %s\n", title, bytesText(rest.GetBytes()), rest.GetUrl())
		return
	}
	if len(m.GetLiterals()) == 0 {
		return
	}
	fmt.Fprintf(w, "%s:\n", title)
	for _, name := range sortedKeys(m.GetLiterals()) {
		fmt.Fprintf(w, "  %s = %s\n", name, printable(literal.PrintMax(m.GetLiterals()[name], 2000)))
	}
}

func newGetWorkflows(defaults Defaults) *cobra.Command {
	var p page
	command := &cobra.Command{Use: "workflows [NAME]", Aliases: []string{"workflow"}, Short: "List versions of workflows, newest first", Args: cobra.MaximumNArgs(1)}
	c := flags(command, defaults)
	p.flags(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		list, err := c.admin.ListWorkflows(command.Context(), p.request(c, args))
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), list)
		}
		rows := [][]string{{"NAME", "VERSION", "INPUTS", "OUTPUTS", "CREATED"}}
		for _, w := range list.GetWorkflows() {
			i := w.GetClosure().GetCompiledWorkflow().GetPrimary().GetTemplate().GetInterface()
			rows = append(rows, []string{w.GetId().GetName(), w.GetId().GetVersion(), variables(i.GetInputs()), variables(i.GetOutputs()), ago(w.GetClosure().GetCreatedAt())})
		}
		return c.listed(command, "workflows", rows, list.GetToken() != "", named{core.ResourceType_WORKFLOW, strings.Join(args, "")})
	}
	return command
}

func newGetTasks(defaults Defaults) *cobra.Command {
	var p page
	command := &cobra.Command{Use: "tasks [NAME]", Aliases: []string{"task"}, Short: "List versions of tasks, newest first", Args: cobra.MaximumNArgs(1)}
	c := flags(command, defaults)
	p.flags(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		list, err := c.admin.ListTasks(command.Context(), p.request(c, args))
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), list)
		}
		rows := [][]string{{"NAME", "VERSION", "TYPE", "INPUTS", "OUTPUTS", "CREATED"}}
		for _, t := range list.GetTasks() {
			template := t.GetClosure().GetCompiledTask().GetTemplate()
			rows = append(rows, []string{t.GetId().GetName(), t.GetId().GetVersion(), template.GetType(),
				variables(template.GetInterface().GetInputs()), variables(template.GetInterface().GetOutputs()), ago(t.GetClosure().GetCreatedAt())})
		}
		return c.listed(command, "tasks", rows, list.GetToken() != "", named{core.ResourceType_TASK, strings.Join(args, "")})
	}
	return command
}

func newGetLaunchPlans(defaults Defaults) *cobra.Command {
	var p page
	command := &cobra.Command{Use: "launch-plans [NAME]", Aliases: []string{"launch-plan", "launchplans", "launchplan"}, Short: "List versions of launch plans, newest first", Args: cobra.MaximumNArgs(1)}
	c := flags(command, defaults)
	p.flags(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		list, err := c.admin.ListLaunchPlans(command.Context(), p.request(c, args))
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), list)
		}
		rows := [][]string{{"NAME", "VERSION", "STATE", "WORKFLOW", "CREATED"}}
		for _, l := range list.GetLaunchPlans() {
			rows = append(rows, []string{l.GetId().GetName(), l.GetId().GetVersion(), l.GetClosure().GetState().String(), l.GetSpec().GetWorkflowId().GetName(), ago(l.GetClosure().GetCreatedAt())})
		}
		return c.listed(command, "launch plans", rows, list.GetToken() != "", named{core.ResourceType_LAUNCH_PLAN, strings.Join(args, "")})
	}
	return command
}

// named is what a list was asked for by its name; empty: all of a kind.
type named struct {
	kind core.ResourceType
	name string
}

// listed prints rows and whether there are more, or says that there are none and where was looked. That there is no such
// project or domain, or nothing of that name, is an error, which says what was meant.
func (c *client) listed(command *cobra.Command, what string, rows [][]string, more bool, of named) error {
	if len(rows) > 1 {
		if err := table(command.OutOrStdout(), rows); err != nil {
			return err
		}
		if more {
			fmt.Fprintf(command.ErrOrStderr(), "the newest %d are shown: --limit for more\n", len(rows)-1)
		}
		return nil
	}
	if err := c.noPlace(command.Context()); err != nil {
		return err
	}
	if of.name != "" {
		if err := c.missing(command.Context(), of); err != nil {
			return err
		}
	}
	fmt.Fprintf(command.ErrOrStderr(), "no %s in project %s, domain %s\n", what, c.project, c.domain)
	return nil
}

// noPlace says that the project, or the domain, that was asked for is not there; nil: it is, or that is not known.
func (c *client) noPlace(ctx context.Context) error {
	id, domain := c.project, c.domain
	if c.asked != nil {
		id, domain = c.asked.GetProject(), c.asked.GetDomain()
	}
	project, err := c.admin.GetProject(ctx, &admin.ProjectGetRequest{Id: id})
	if failure := new(connect.Error); errors.As(err, &failure) && failure.Code() == connect.CodeNotFound {
		return &ExitError{Code: 1, Message: saidBy(failure)}
	}
	var domains []string
	for _, d := range project.GetDomains() { // none where that could not be asked
		domains = append(domains, d.GetId())
	}
	if len(domains) == 0 || slices.Contains(domains, domain) {
		return nil
	}
	return &ExitError{Code: 1, Message: fmt.Sprintf("there is no domain [%s] in project %s; there is %s", printable(domain), printable(id), strings.Join(domains, ", "))}
}

// missing says that nothing of this name is registered, and what was meant; nil: something is.
func (c *client) missing(ctx context.Context, of named) error {
	found, known, err := c.meant(ctx, of)
	if err != nil || known {
		return err
	}
	kind := strings.ToLower(strings.ReplaceAll(of.kind.String(), "_", " "))
	message := fmt.Sprintf("there is no %s %s in project %s, domain %s", kind, printable(of.name), c.project, c.domain)
	if found != "" {
		message += "; did you mean " + printable(found) + "?"
	}
	return &ExitError{Code: 1, Message: message}
}

// meant is the registered name that a name stands for of which nothing is registered, if one is near. known: something is
// registered of it, or that cannot be told.
func (c *client) meant(ctx context.Context, of named) (found string, known bool, err error) {
	list, err := c.admin.ListNamedEntities(ctx, &admin.NamedEntityListRequest{ResourceType: of.kind, Project: c.project, Domain: c.domain, Limit: 1000})
	if err != nil {
		return "", false, c.explain(err)
	}
	var tasks *admin.NamedEntityList // each has a workflow, which is not listed
	if of.kind == core.ResourceType_WORKFLOW {
		tasks, err = c.admin.ListNamedEntities(ctx, &admin.NamedEntityListRequest{ResourceType: core.ResourceType_TASK, Project: c.project, Domain: c.domain, Limit: 1000})
		if err != nil {
			return "", false, c.explain(err)
		}
	}
	var names []string
	for _, e := range append(list.GetEntities(), tasks.GetEntities()...) {
		names = append(names, e.GetId().GetName())
	}
	if slices.Contains(names, strings.TrimPrefix(of.name, ofTask)) || list.GetToken() != "" || tasks.GetToken() != "" {
		return "", true, nil
	}
	if i := slices.IndexFunc(names, func(name string) bool { return strings.HasSuffix(name, "."+of.name) }); i >= 0 {
		return names[i], false, nil // its module was left out
	}
	return near.Name(of.name, names), false, nil
}

// ofTask is what names of the workflows begin with that flytekit makes to run one task; people know these by the task.
const ofTask = ".flytegen."

// workflowName is a workflow's name as it is shown, and taken as a filter.
func workflowName(id *core.Identifier) string { return strings.TrimPrefix(id.GetName(), ofTask) }

// variables is an interface in one line: "x: integer, y: string".
func variables(m *core.VariableMap) string {
	names := sortedKeys(m.GetVariables())
	for i, name := range names {
		names[i] = name + ": " + literal.PrintType(m.GetVariables()[name].GetType())
	}
	text := strings.Join(names, ", ")
	if len(text) > 60 {
		return strconv.Itoa(len(names)) + " variables"
	}
	return text
}

func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return took(time.Since(t.AsTime())) + " ago"
}
