// Command lab shows, drills and measures proxyd on a small network that it lays out on this
// machine: `lab demo`, `lab drill`, `lab bench`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

// An exitCode is returned by a command that has said all there is to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := root().ExecuteContext(ctx)
	stop()
	var code exitCode
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Show, drill and measure proxyd on a small network on this machine",
		Long: `lab lays out hosts, a switch, web servers and a client in network namespaces, runs the real
proxyd on them, and shows (demo), drills (drill) and measures (bench) it. It needs root, or
a kernel that lets users make user namespaces. Nothing is left behind, however it ends.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.AddCommand(benchCommand(), demoCommand(), drillCommand(), soakCommand(), serveCommand(), loadCommand(), paceCommand(), shakesCommand(), steadyCommand(), attackCommand(), onCommand(), watchCommand(), judgeCommand())
	return cmd
}

// privileged runs a command that makes namespaces: as it is, or again in a user namespace.
func privileged(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if lab.Privileged() {
			return run(cmd, args)
		}
		code, err := lab.RunInUserNamespace()
		if err != nil {
			return err
		}
		if code != 0 {
			return exitCode(code)
		}
		return nil
	}
}
