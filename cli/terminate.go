package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
)

func newTerminate(defaults Defaults) *cobra.Command {
	var cause string
	command := &cobra.Command{
		Use:   "terminate EXECUTION…",
		Short: "Stop executions",
		Long: `Stop executions: tasks that run are asked to end (SIGTERM, then SIGKILL), nothing new starts.

All of them are tried; the exit code is 1 if one could not be terminated.`,
		Example: `  aloft terminate a7xkq2m9fz4n8wv6tbrl --cause "wrong inputs"`,
		Args:    cobra.MinimumNArgs(1),
	}
	c := flags(command, defaults)
	command.Flags().StringVar(&cause, "cause", "", "why, for those who ask later")
	command.RunE = func(command *cobra.Command, args []string) error {
		failed := 0
		for _, argument := range args {
			id, err := c.execution(argument)
			if err == nil {
				_, err = c.admin.TerminateExecution(command.Context(), &admin.ExecutionTerminateRequest{Id: id, Cause: cause})
			}
			if err != nil {
				failed++
				fmt.Fprintf(command.ErrOrStderr(), "%s: %v\n", argument, c.explain(err))
				continue
			}
			fmt.Fprintf(command.OutOrStdout(), "%s: terminating\n", aloft.ExecutionIDOf(id))
		}
		if failed > 0 {
			return &ExitError{Code: 1}
		}
		return nil
	}
	return command
}
