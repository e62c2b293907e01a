package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/aloft-dev/aloft/config"
)

// explainFlag says of a flag that is not understood what is wrong with it, and which one was meant.
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
	default:
		return err
	}
	return fmt.Errorf("--%s %q %s", wrong.GetFlag().Name, wrong.GetValue(), kind)
}
