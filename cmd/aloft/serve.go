package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft/config"
	"github.com/aloft-dev/aloft/internal/private"
	"github.com/aloft-dev/aloft/server"
)

func newServe() *cobra.Command {
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the server: registry, engine, tasks and pages in one process around one data folder",
		Example: `  aloft serve
  aloft serve --data-dir /srv/aloft --python /opt/venv/bin/python
  aloft serve --listen 0.0.0.0:30080 --auth none    # all who reach this machine may run commands on it`,
		Args: cobra.NoArgs,
	}
	flags := config.AddFlags(command.Flags(), config.Default(config.Home()))
	command.RunE = func(command *cobra.Command, _ []string) error {
		c, err := config.Load(config.Default(config.Home()), flags, command.Flags().Changed, os.Environ())
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program, which starts the supervisor of tasks: %w", err)
		}
		log := c.Logger(os.Stderr)
		if err := private.Process(); err != nil {
			log.Warn("tasks and programs of this user can look into the server", "error", err)
		}
		ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		s, err := server.Start(ctx, c, server.Options{
			Version: server.BuildVersion(version), Path: config.SearchPath(), Environ: os.Environ(), Worker: []string{self, "worker"}, Logger: log,
		})
		if err != nil {
			return err
		}
		if command.Flags().Changed("database") && c.PasswordInDatabase() {
			log.Warn("the list of processes shows the password in --database to all users of this machine: set it by ALOFT_DATABASE or in the configuration file")
		}
		fmt.Fprint(command.OutOrStdout(), s.Describe())
		failure := s.Wait(ctx)
		stop() // a second Ctrl-C ends the program at once
		fmt.Fprint(command.OutOrStdout(), s.Farewell(s.Running()))
		return errors.Join(failure, s.Close())
	}
	return command
}
