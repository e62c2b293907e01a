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

// listFlags are the flags that every list of get has.
type listFlags struct{ limit int }

func (p *listFlags) flags(command *cobra.Command) {
	command.Flags().IntVar(&p.limit, "limit", 20, "at most so many, newest first")
	connects := command.PreRunE
	command.PreRunE = func(command *cobra.Command, args []string) error {
		if p.limit < 1 || p.limit > math.MaxUint32 {
			return &ExitError{Code: 2, Message: fmt.Sprintf("--limit %d: want a number from 1 on", p.limit)}
		}
		return connects(command, args)
	}
}

func (p *listFlags) request(c *client, args []string) *admin.ResourceListRequest {
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
		p        listFlags
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
		if err == nil && workflow != "" && len(list.GetExecutions()) == 0 { // two queries by equality, which have an index, instead of one by a list of names, which has none
			request.Filters = of(generatedPrefix + workflow)
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
		return c.printList(command, what, rows, list.GetToken() != "", nameQuery{core.ResourceType_WORKFLOW, workflow})
	}
	return command
}

// listedError is how many bytes of an error a list has, as in Flyte. The line that says what happened may be missing then.
const listedError = 100

// executionPhases are the phases that the help and messages name.
const executionPhases = "queued, running, succeeded, failed, aborted, timed_out"

// parsePhase reads a phase in small letters, with '-' or '_'. there is the list of phases for the message.
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
	case aloft.Terminal(cl.GetPhase()): // the execution ended before it had started
		end = cl.GetUpdatedAt()
	}
	return executionTime(cl.GetCreatedAt(), cl.GetStartedAt(), end, time.Now())
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

// valuesOf are the values of an answer, or, if they are too large for an answer, the link to them.
func valuesOf(m *core.LiteralMap, rest *admin.UrlBlob) proto.Message {
	if len(m.GetLiterals()) == 0 && rest.GetUrl() != "" {
		return rest
	}
	return m
}

// printLiterals prints the values of an answer, or, if they are too large for an answer, their size and the link to them.
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
	var p listFlags
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
		return c.printList(command, "workflows", rows, list.GetToken() != "", nameQuery{core.ResourceType_WORKFLOW, strings.Join(args, "")})
	}
	return command
}

func newGetTasks(defaults Defaults) *cobra.Command {
	var p listFlags
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
		return c.printList(command, "tasks", rows, list.GetToken() != "", nameQuery{core.ResourceType_TASK, strings.Join(args, "")})
	}
	return command
}

func newGetLaunchPlans(defaults Defaults) *cobra.Command {
	var p listFlags
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
		return c.printList(command, "launch plans", rows, list.GetToken() != "", nameQuery{core.ResourceType_LAUNCH_PLAN, strings.Join(args, "")})
	}
	return command
}

// nameQuery is the name that a list was limited to; empty: all names of a kind.
type nameQuery struct {
	kind core.ResourceType
	name string
}

// printList prints rows and whether there are more, or says that there are none in this project and domain. If the project, the
// domain or the name does not exist, that is an error with a suggestion.
func (c *client) printList(command *cobra.Command, what string, rows [][]string, more bool, of nameQuery) error {
	if len(rows) > 1 {
		if err := table(command.OutOrStdout(), rows); err != nil {
			return err
		}
		if more {
			fmt.Fprintf(command.ErrOrStderr(), "the newest %d are shown: --limit for more\n", len(rows)-1)
		}
		return nil
	}
	if err := c.checkPlace(command.Context()); err != nil {
		return err
	}
	if of.name != "" {
		if err := c.checkName(command.Context(), of); err != nil {
			return err
		}
	}
	fmt.Fprintf(command.ErrOrStderr(), "no %s in project %s, domain %s\n", what, c.project, c.domain)
	return nil
}

// checkPlace is an error if the project or the domain of the command does not exist; nil also if that cannot be found out.
func (c *client) checkPlace(ctx context.Context) error {
	id, domain := c.project, c.domain
	if c.execID != nil {
		id, domain = c.execID.GetProject(), c.execID.GetDomain()
	}
	project, err := c.admin.GetProject(ctx, &admin.ProjectGetRequest{Id: id})
	if failure := new(connect.Error); errors.As(err, &failure) && failure.Code() == connect.CodeNotFound {
		return &ExitError{Code: 1, Message: serverText(failure)}
	}
	var domains []string
	for _, d := range project.GetDomains() { // none if the call failed
		domains = append(domains, d.GetId())
	}
	if len(domains) == 0 || slices.Contains(domains, domain) {
		return nil
	}
	return &ExitError{Code: 1, Message: fmt.Sprintf("there is no domain [%s] in project %s; there is %s", printable(domain), printable(id), strings.Join(domains, ", "))}
}

// checkName is an error, with a suggestion, if nothing of this name is registered.
func (c *client) checkName(ctx context.Context, of nameQuery) error {
	found, known, err := c.nearestName(ctx, of)
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

// nearestName is the registered name that is nearest to a name, if one is near enough. known: something is registered under the
// name itself, or that cannot be told.
func (c *client) nearestName(ctx context.Context, of nameQuery) (found string, known bool, err error) {
	list, err := c.admin.ListNamedEntities(ctx, &admin.NamedEntityListRequest{ResourceType: of.kind, Project: c.project, Domain: c.domain, Limit: 1000})
	if err != nil {
		return "", false, c.explain(err)
	}
	var tasks *admin.NamedEntityList // each task can have a generated workflow, and those are not listed
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
	if slices.Contains(names, strings.TrimPrefix(of.name, generatedPrefix)) || list.GetToken() != "" || tasks.GetToken() != "" {
		return "", true, nil
	}
	if i := slices.IndexFunc(names, func(name string) bool { return strings.HasSuffix(name, "."+of.name) }); i >= 0 {
		return names[i], false, nil // the user left the module out
	}
	return near.Name(of.name, names), false, nil
}

// generatedPrefix begins the names of workflows that are generated to run one task; users know such a workflow by its task.
const generatedPrefix = ".flytegen."

// workflowName is a workflow's name as commands show it and take it as a filter.
func workflowName(id *core.Identifier) string {
	return strings.TrimPrefix(id.GetName(), generatedPrefix)
}

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
