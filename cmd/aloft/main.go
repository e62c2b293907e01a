// Command aloft is everything in one program: the server, the supervisor of its tasks, and the commands for users who run
// pipelines. It parses the command line and calls package server, worker or cli, which do the work.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft/cli"
	"github.com/aloft-dev/aloft/config"
)

var version = "" // set by the linker

func main() {
	defaults, err := config.Load(config.Default(config.Home()), nil, nil, os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, "aloft:", err)
		os.Exit(2)
	}
	root := &cobra.Command{
		Use:           "aloft",
		Short:         "Run Flyte pipelines on one machine, without losing what they have computed",
		Version:       describeVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(newServe(), newWorker(), newVersion())
	root.AddCommand(cli.Commands(cli.Defaults{Server: defaults.Server, Project: defaults.Project, Domain: defaults.Domain})...)
	root.SetHelpCommand(newHelp(root))
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		if command.Name() == "completion" {
			command.Args = cobra.NoArgs // otherwise an unknown shell would show the help, with exit code 0
			command.RunE = func(command *cobra.Command, _ []string) error { return command.Help() }
		}
	}
	root.SetFlagErrorFunc(explainFlag)
	explainArguments(root)
	understood := false // the command line was understood and the command has begun
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	if err := root.Execute(); err != nil {
		code := 1
		if exit, ok := errors.AsType[*cli.ExitError](err); ok {
			code = exit.Code
		} else if _, ok := errors.AsType[config.Mistakes](err); ok || !understood {
			code = 2
		}
		if err.Error() != "" {
			fmt.Fprintln(os.Stderr, "aloft:", err)
		}
		os.Exit(code)
	}
}
