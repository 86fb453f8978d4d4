package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

func onCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "on HOST VERB [ARG...]",
		Short:              "Do something on a host of the stage that a script plays on",
		Hidden:             true,
		DisableFlagParsing: true,
		Args:               cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := lab.On(cmd.Context(), os.Getenv(lab.StageSocket), args[0], args[1], args[2:]...)
			if _, werr := io.WriteString(cmd.OutOrStdout(), out); err == nil {
				err = werr
			}
			return err
		},
	}
}
