package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft/server"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which version this is", Args: cobra.NoArgs,
		Run: func(command *cobra.Command, _ []string) {
			v := server.BuildVersion(version)
			fmt.Fprintf(command.OutOrStdout(), "aloft %s (%s, %s)\n", v.Version, v.Build, runtime.Version())
		},
	}
}
