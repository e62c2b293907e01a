package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func newCache(defaults Defaults) *cobra.Command {
	command := &cobra.Command{
		Use:   "cache",
		Short: "Say why a node was computed or taken from the cache; list, remove and pin results",
		Example: `  aloft cache explain a7xkq2m9fz4n8wv6tbrl n2
  aloft cache ls --task example.train
  aloft cache rm 7b1c0f1e-5d0a-4f0e-9a57-2f2f8f0f6d3c
  aloft cache pin 7b1c0f1e-5d0a-4f0e-9a57-2f2f8f0f6d3c`,
	}
	return group(command, newCacheExplain(defaults), newCacheList(defaults), newCacheRemove(defaults), newCachePin(defaults, true), newCachePin(defaults, false))
}

func newCacheExplain(defaults Defaults) *cobra.Command {
	command := &cobra.Command{
		Use:   "explain EXECUTION NODE",
		Short: "Say why a node was, or was not, taken from the cache",
		Long: `Say why a node was, or was not, taken from the cache: what its result is found by, and on a miss
what differs from the earlier result of the task that is nearest.

EXECUTION is a name, project/domain/name, or the address of its page. NODE is its id, its id in
the workflow, or its name. A * marks what differs. Values are shown by their beginning.`,
		Example: `  aloft cache explain a7xkq2m9fz4n8wv6tbrl n2
  aloft cache explain a7xkq2m9fz4n8wv6tbrl train -o json`,
		Args: cobra.ExactArgs(2),
	}
	c := flags(command, defaults)
	command.ValidArgsFunction = c.completeExecutionAndNode
	command.RunE = func(command *cobra.Command, args []string) error {
		id, err := c.execution(args[0])
		if err != nil {
			return err
		}
		answer, err := c.result.ExplainCache(command.Context(), &aloftv1.ExplainCacheRequest{Id: id, Node: args[1]})
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), answer)
		}
		fmt.Fprintf(command.OutOrStdout(), "%s/%s  %s\n", id.GetName(), answer.GetNode(), answer.GetSummary())
		rows := keyRows(answer)
		if len(rows) == 0 {
			return nil
		}
		fmt.Fprintln(command.OutOrStdout())
		return table(command.OutOrStdout(), rows)
	}
	return command
}

// keyRows are the components of a node's key, with those of the nearest result beside them if the keys differ.
func keyRows(answer *aloftv1.ExplainCacheResponse) [][]string {
	now, before := answer.GetLookup().GetKey(), answer.GetNearest().GetKey()
	if now == nil {
		return nil
	}
	compare := len(answer.GetDifferences()) > 0 && before != nil
	rows := [][]string{{" ", "FOUND BY", "THIS NODE"}}
	if compare {
		rows[0] = append(rows[0], "NEAREST EARLIER RESULT")
	}
	add := func(component aloftv1.CacheDifference_Component, name, was, is string) {
		mark := " "
		if slices.ContainsFunc(answer.GetDifferences(), func(d *aloftv1.CacheDifference) bool {
			return d.GetComponent() == component && (d.GetName() == "" || "input "+d.GetName() == name)
		}) {
			mark = "*"
		}
		row := []string{mark, name, is}
		if compare {
			row = append(row, was)
		}
		rows = append(rows, row)
	}
	add(aloftv1.CacheDifference_PROJECT, "project", before.GetProject(), now.GetProject())
	add(aloftv1.CacheDifference_DOMAIN, "domain", before.GetDomain(), now.GetDomain())
	add(aloftv1.CacheDifference_TASK, "task", before.GetTask(), now.GetTask())
	add(aloftv1.CacheDifference_CACHE_VERSION, "cache version", before.GetCacheVersion(), now.GetCacheVersion())
	add(aloftv1.CacheDifference_INPUTS, "inputs type", before.GetInputsHash(), now.GetInputsHash())
	add(aloftv1.CacheDifference_OUTPUTS, "outputs type", before.GetOutputsHash(), now.GetOutputsHash())
	was, is := inputsByName(before), inputsByName(now)
	names := sortedKeys(is)
	for name := range was {
		if is[name] == nil && compare {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		component := aloftv1.CacheDifference_INPUT
		switch {
		case compare && was[name] == nil:
			component = aloftv1.CacheDifference_INPUT_ADDED
		case is[name] == nil:
			component = aloftv1.CacheDifference_INPUT_REMOVED
		}
		text := inputText(is[name])
		if is[name].GetPreview() == "" && was[name].GetHash() == is[name].GetHash() {
			text = inputText(was[name]) // the key of a hit has no values of inputs: its result has them
		}
		add(component, "input "+name, inputText(was[name]), text)
	}
	if len(now.GetIgnored())+len(before.GetIgnored()) > 0 {
		add(aloftv1.CacheDifference_IGNORED, "ignored inputs", strings.Join(before.GetIgnored(), ", "), strings.Join(now.GetIgnored(), ", "))
	}
	return rows
}

func inputsByName(k *aloftv1.CacheKey) map[string]*aloftv1.CacheInput {
	m := map[string]*aloftv1.CacheInput{}
	for _, i := range k.GetInputs() {
		m[i.GetName()] = i
	}
	return m
}

func inputText(i *aloftv1.CacheInput) string {
	switch {
	case i == nil:
		return "-"
	case i.GetByHash():
		return i.GetPreview() + " (by its hash)"
	case i.GetPreview() == "":
		return i.GetHash()
	}
	return i.GetPreview()
}

// resultFilter selects the results of a command that names no ids.
type resultFilter struct {
	task, execution string
	gone            bool
}

func (f *resultFilter) flags(command *cobra.Command, c *client) {
	command.Flags().StringVar(&f.task, "task", "", "only those of this task")
	command.Flags().StringVar(&f.execution, "execution", "", "only those that this execution computed")
	_ = command.RegisterFlagCompletionFunc("execution", func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return c.completeExecutions(command.Context()), cobra.ShellCompDirectiveNoFileComp
	})
}

func (f *resultFilter) request(c *client) (*aloftv1.ListResultsRequest, error) {
	request := &aloftv1.ListResultsRequest{Project: c.project, Domain: c.domain, Task: f.task, Gone: f.gone}
	if f.execution != "" {
		id, err := c.execution(f.execution)
		if err != nil {
			return nil, err
		}
		// Results belong to the project of their task, which an execution of another project may run.
		request.Execution, request.Project, request.Domain = id, "", ""
	}
	return request, nil
}

func newCacheList(defaults Defaults) *cobra.Command {
	var (
		f resultFilter
		p listFlags
	)
	command := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List cached results, newest first",
		Long: `List cached results, newest first: those of the project and domain, of one task, or those that an
execution computed. With --gone also those that cannot be found any more, and why.`,
		Example: `  aloft cache ls
  aloft cache ls --task example.train --gone
  aloft cache ls --execution a7xkq2m9fz4n8wv6tbrl -o json`,
		Args: cobra.NoArgs,
	}
	c := flags(command, defaults)
	p.flags(command)
	f.flags(command, c)
	command.Flags().BoolVar(&f.gone, "gone", false, "also those that are gone: removed, replaced, too old, without their objects")
	command.RunE = func(command *cobra.Command, _ []string) error {
		request, err := f.request(c)
		if err != nil {
			return err
		}
		request.Limit = uint32(p.limit)
		answer, err := c.result.ListResults(command.Context(), request)
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), answer)
		}
		rows := [][]string{{"RESULT", "TASK", "CACHE VERSION", "COMPUTED BY", "CREATED", "USED", "SIZE", "NOTE"}}
		for _, r := range answer.GetResults() {
			rows = append(rows, []string{r.GetId(), strings.TrimPrefix(r.GetName(), "flyte_task-"), cacheVersion(r), computedBy(r.GetSource()),
				ago(r.GetCreatedAt()), ago(r.GetUsedAt()), bytesText(r.GetSize()), resultNote(r)})
		}
		what := "cached results"
		if f.task != "" {
			what += " of task " + printable(f.task)
		}
		if f.execution != "" {
			what += " that execution " + printable(f.execution) + " computed"
		}
		if err := c.printList(command, what, rows, answer.GetToken() != "", nameQuery{}); err != nil || len(answer.GetResults()) > 0 {
			return err
		}
		return c.noResults(command, request)
	}
	return command
}

// noResults says for an empty list of results which flag shows more, or suggests a task. That a task is not registered is no error:
// clients may add results under any name.
func (c *client) noResults(command *cobra.Command, request *aloftv1.ListResultsRequest) error {
	if !request.GetGone() {
		request.Gone, request.Limit = true, 1
		answer, err := c.result.ListResults(command.Context(), request)
		if err != nil {
			return c.explain(err)
		}
		if len(answer.GetResults()) > 0 {
			fmt.Fprintln(command.ErrOrStderr(), "there were some, which are gone: --gone shows them, and why")
			return nil
		}
	}
	if request.GetTask() == "" {
		return nil
	}
	found, _, err := c.nearestName(command.Context(), nameQuery{core.ResourceType_TASK, request.GetTask()})
	if err == nil && found != "" {
		fmt.Fprintf(command.ErrOrStderr(), "did you mean --task %s?\n", printable(found))
	}
	return err
}

func cacheVersion(r *aloftv1.CachedResult) string {
	if r.GetKey() != nil {
		return r.GetKey().GetCacheVersion()
	}
	return r.GetVersion()
}

func computedBy(id *core.TaskExecutionIdentifier) string {
	if id == nil {
		return "a client"
	}
	return id.GetNodeExecutionId().GetExecutionId().GetName() + "/" + id.GetNodeExecutionId().GetNodeId()
}

func resultNote(r *aloftv1.CachedResult) string {
	var notes []string
	if r.GetPinned() {
		notes = append(notes, "pinned")
	}
	if r.GetGoneAt() != nil {
		notes = append(notes, "gone "+ago(r.GetGoneAt())+": "+r.GetGoneReason())
	} else if r.GetUnreadable() != "" {
		notes = append(notes, r.GetUnreadable())
	}
	return strings.Join(notes, ", ")
}

// bytesText is a size in the largest unit that fits.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n), "KMGTPE"
	for value /= unit; value >= unit && len(units) > 1; value /= unit {
		units = units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}

func newCacheRemove(defaults Defaults) *cobra.Command {
	var (
		f      resultFilter
		reason string
	)
	command := &cobra.Command{
		Use:     "rm RESULT…",
		Aliases: []string{"remove"},
		Short:   "Remove cached results: what needs them is computed again",
		Long: `Remove cached results, by the ids that "aloft cache ls" shows, or all of a task or of an execution.
The next node that would have used one computes it again, and "aloft cache explain" says why.
Executions that have used a result keep it.`,
		Example: `  aloft cache rm 7b1c0f1e-5d0a-4f0e-9a57-2f2f8f0f6d3c --reason "trained on wrong labels"
  aloft cache rm --task example.train
  aloft cache rm --execution a7xkq2m9fz4n8wv6tbrl`,
	}
	c := flags(command, defaults)
	f.flags(command, c)
	command.Flags().StringVar(&reason, "reason", "", "why, for those who ask later")
	command.ValidArgsFunction = c.completeResults
	command.RunE = func(command *cobra.Command, args []string) error {
		if len(args) == 0 == (f.task == "" && f.execution == "") {
			return &ExitError{Code: 2, Message: "name results by their ids, or all of a task (--task) or an execution (--execution)"}
		}
		ids := args
		if len(args) == 0 {
			request, err := f.request(c)
			if err != nil {
				return err
			}
			if ids, err = c.resultIDs(command.Context(), request); err != nil {
				return err
			}
		}
		answer := &aloftv1.RemoveResultsResponse{}
		for part := range slices.Chunk(ids, 1000) {
			removed, err := c.result.RemoveResults(command.Context(), &aloftv1.RemoveResultsRequest{Ids: part, Reason: reason})
			if err != nil {
				return c.explain(err)
			}
			answer.Removed += removed.GetRemoved()
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), answer)
		}
		fmt.Fprintf(command.OutOrStdout(), "removed %s\n", results(answer.GetRemoved()))
		return nil
	}
	return command
}

func newCachePin(defaults Defaults, pin bool) *cobra.Command {
	command := &cobra.Command{
		Use:     "pin RESULT…",
		Short:   "Keep cached results, whatever the limits of age and size",
		Long:    `Keep cached results, by the ids that "aloft cache ls" shows, whatever the limits of age and size.`,
		Example: `  aloft cache pin 7b1c0f1e-5d0a-4f0e-9a57-2f2f8f0f6d3c`,
		Args:    cobra.MinimumNArgs(1),
	}
	done := "pinned"
	if !pin {
		command.Use, command.Short, done = "unpin RESULT…", "Let limits of age and size apply to cached results again", "unpinned"
		command.Long = `Let limits of age and size apply to cached results again, by the ids that "aloft cache ls" shows.`
		command.Example = `  aloft cache unpin 7b1c0f1e-5d0a-4f0e-9a57-2f2f8f0f6d3c`
	}
	c := flags(command, defaults)
	command.ValidArgsFunction = c.completeResults
	command.RunE = func(command *cobra.Command, args []string) error {
		answer, err := c.result.PinResults(command.Context(), &aloftv1.PinResultsRequest{Ids: args, Unpin: !pin})
		if err != nil {
			return c.explain(err)
		}
		if c.output == "json" {
			return printJSON(command.OutOrStdout(), answer)
		}
		fmt.Fprintf(command.OutOrStdout(), "%s %s\n", done, results(answer.GetChanged()))
		return nil
	}
	return command
}

func results(n uint32) string {
	if n == 1 {
		return "1 result"
	}
	return fmt.Sprintf("%d results", n)
}

// resultIDs are the ids of all results of a request, through all pages.
func (c *client) resultIDs(ctx context.Context, request *aloftv1.ListResultsRequest) ([]string, error) {
	var ids []string
	request.Limit = 1000
	for {
		answer, err := c.result.ListResults(ctx, request)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, r := range answer.GetResults() {
			ids = append(ids, r.GetId())
		}
		if request.Token = answer.GetToken(); request.GetToken() == "" {
			return ids, nil
		}
	}
}
