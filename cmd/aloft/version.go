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
			fmt.Fprintln(command.OutOrStdout(), describeVersion())
		},
	}
}

func describeVersion() string {
	v := server.BuildVersion(version)
	return fmt.Sprintf("aloft %s (%s, %s)", v.Version, v.Build, runtime.Version())
}
