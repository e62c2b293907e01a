package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// Completions of the shell call the server while the user types, so they are silent about errors and end after completionTime.

const completionTime = 2 * time.Second

func (c *client) completeExecutionAndNode(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return c.completeExecutions(command.Context()), cobra.ShellCompDirectiveNoFileComp
	case 1:
		return c.completeNodes(command.Context(), args[0]), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (c *client) completeExecutions(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	if c.connect() != nil {
		return nil
	}
	list, err := c.admin.ListExecutions(ctx, (&listFlags{limit: 50}).request(c, nil))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range list.GetExecutions() {
		hint := workflowName(e.GetClosure().GetWorkflowId()) + ", " + phaseName(e.GetClosure().GetPhase()) + ", " + ago(e.GetClosure().GetCreatedAt())
		names = append(names, cobra.CompletionWithDesc(e.GetId().GetName(), hint))
	}
	return names
}

func (c *client) completeNodes(ctx context.Context, argument string) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	id, err := c.execution(argument)
	if err != nil || c.connect() != nil {
		return nil
	}
	stream, err := c.run.WatchExecution(ctx, &aloftv1.WatchExecutionRequest{Id: id, Once: true})
	if err != nil {
		return nil
	}
	defer func() { _ = stream.Close() }()
	var names []string
	for stream.Receive() {
		for _, n := range stream.Msg().GetNodes() {
			names = append(names, cobra.CompletionWithDesc(n.GetId(), label(n)))
		}
	}
	return names
}

func (c *client) completeResults(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(command.Context(), completionTime)
	defer cancel()
	if c.connect() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	answer, err := c.result.ListResults(ctx, &aloftv1.ListResultsRequest{Project: c.project, Domain: c.domain})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, r := range answer.GetResults() {
		ids = append(ids, cobra.CompletionWithDesc(r.GetId(), strings.TrimPrefix(r.GetName(), "flyte_task-")+", "+ago(r.GetCreatedAt())))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
