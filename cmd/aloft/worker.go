package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft/config"
	"github.com/aloft-dev/aloft/internal/private"
	"github.com/aloft-dev/aloft/server"
	"github.com/aloft-dev/aloft/worker"
)

func newWorker() *cobra.Command {
	command := &cobra.Command{
		Use:    "worker",
		Short:  "Supervise the tasks of a data folder; the server starts it",
		Hidden: true,
		Args:   cobra.NoArgs,
	}
	dataDir := command.Flags().String("data-dir", "", "the server's data folder")
	groups := command.Flags().String("control-groups", os.Getenv("ALOFT_TEST_GROUPS"), "v1, v2 or none: hold processes in this way alone, as tests do")
	command.RunE = func(command *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		c := config.Default(config.Home())
		log := c.Logger(os.Stderr)
		if err := private.Process(); err != nil {
			log.Warn("tasks can look into their supervisor", "error", err)
		}
		return worker.Main(ctx, worker.Config{DataDir: *dataDir, Logger: log, Build: server.BuildVersion(version).Version, ControlGroups: *groups})
	}
	return command
}
