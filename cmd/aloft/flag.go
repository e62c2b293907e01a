package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/aloft-dev/aloft/cli"
	"github.com/aloft-dev/aloft/config"
)

// explainFlag says what is wrong with a flag that is not understood, and suggests the flag whose name is near.
func explainFlag(command *cobra.Command, err error) error {
	if missing, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if missing.GetSpecifiedShortnames() != "" {
			return fmt.Errorf("there is no flag -%s of %s; `%[2]s --help` lists all", missing.GetSpecifiedName(), command.CommandPath())
		}
		var names []string
		command.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if found := config.Meant(missing.GetSpecifiedName(), names); found != "" {
			return fmt.Errorf("there is no flag --%s of %s; did you mean --%s?", missing.GetSpecifiedName(), command.CommandPath(), found)
		}
		return fmt.Errorf("there is no flag --%s of %s; `%[2]s --help` lists all", missing.GetSpecifiedName(), command.CommandPath())
	}
	wrong, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	var kind string
	switch wrong.GetFlag().Value.Type() {
	case "int", "int32", "int64":
		kind = "is no whole number"
	case "float64":
		kind = "is no number"
	case "bool":
		kind = "is neither true nor false"
	case "duration":
		kind = "is no duration such as 90m or 24h"
	case "uint", "uint32", "uint64":
		kind = "is no whole number from 0 on"
	default:
		return err
	}
	return fmt.Errorf("--%s %q %s", wrong.GetFlag().Name, wrong.GetValue(), kind)
}

// explainArguments makes all commands say what they take if they get too many or too few arguments.
func explainArguments(command *cobra.Command) {
	if takes := command.Args; takes != nil {
		command.Args = func(command *cobra.Command, args []string) error {
			err := takes(command, args)
			if _, ours := errors.AsType[*cli.ExitError](err); err == nil || ours {
				return err
			}
			got := "nothing more"
			if len(args) > 0 {
				got = fmt.Sprintf("%q", args)
			}
			return &cli.ExitError{Code: 2, Message: fmt.Sprintf("want `%s %s`, got %s; `%s --help` says more", command.Parent().CommandPath(), command.Use, got, command.CommandPath())}
		}
	}
	for _, member := range command.Commands() {
		explainArguments(member)
	}
}

// newHelp is `aloft help`, which fails if there is no such command.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command",
		RunE: func(_ *cobra.Command, args []string) error {
			command, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return &cli.ExitError{Code: 2, Message: fmt.Sprintf("there is no command %q; `aloft help` lists all", strings.Join(args, " "))}
			}
			return command.Help()
		},
	}
}
