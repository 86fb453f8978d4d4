package main

import (
	"os"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

func demoCommand() *cobra.Command {
	var proxyd, timing string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch a pair serve and fail over, and break it with keys",
		Long: `demo lays out two hosts with proxyd, three web servers and a client, and shows live who holds
the virtual address and what the client gets. Keys kill or freeze the holder, cut its cable,
hand over, and bring back. Without a terminal it plays a fixed script once, prints each
event's outage beside its promise, and ends with 0 if all stayed within five times theirs.`,
		Args: cobra.NoArgs,
		RunE: privileged(func(cmd *cobra.Command, _ []string) error {
			p, err := plan(proxyd, timing)
			if err != nil {
				return err
			}
			if term.IsTerminal(os.Stdin.Fd()) && term.IsTerminal(os.Stdout.Fd()) {
				return lab.Live(cmd.Context(), p, cmd.OutOrStdout())
			}
			kept, err := lab.Script(cmd.Context(), p, cmd.OutOrStdout())
			if err == nil && !kept {
				err = exitCode(1)
			}
			return err
		}),
	}
	cmd.Flags().StringVar(&proxyd, "proxyd", "", "the program to show; default: the one beside this")
	cmd.Flags().StringVar(&timing, "timing", "", "timing preset of the cluster; default: its own")
	return cmd
}
