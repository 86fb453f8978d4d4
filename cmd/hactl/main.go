// Command hactl shows and steers a proxyd through its admin socket.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// version is set by the build.
var version = "dev"

const defaultSocket = "/run/proxyd/admin.sock"

// options are the flags that every command has.
type options struct {
	socket string
}

func (o *options) client() *control.Client { return control.Dial(o.socket) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, "hactl:", text)
		}
		os.Exit(exitCode(err))
	}
}

func root() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "hactl",
		Short: "Show and steer a proxyd cluster",
		Long: `hactl shows and steers a proxyd cluster through the admin socket of the node it runs on.

Exit codes: status gives 0 healthy, 1 degraded, 2 a VIP without a holder or with two,
3 proxyd not reachable; diff gives 0 same, 1 differs. Other commands give 0 done, 4 refused, 5 timed out, 64 wrong
usage, 69 proxyd not reachable, 77 no permission, 78 bad configuration, 1 anything else.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&o.socket, "socket", defaultSocket, "admin socket of proxyd")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(watchCommand(o), historyCommand(o), whyCommand(o), simulateCommand(o), doctorCommand(o))
	cmd.AddCommand(initCommand(), statusCommand(o), failoverCommand(o), reloadCommand(o), applyCommand(o), rollbackCommand(o), generationsCommand(o), backupCommand(o), restoreCommand(o), memberCommand(o), keysCommand(o), upgradeCommand(o), diffCommand(o), explainCommand(o), putCommand(o), addCommand(o), removeCommand(o), changesCommand(o),
		poolsCommand(o), certCommand(o), drainCommand(o), standbyCommand(o), onlineCommand(o), pauseCommand(o), resumeCommand(o), disableCommand(o), enableCommand(o), weightCommand(o), maintenanceCommand(o),
		configCommand(o), versionCommand(o))
	return cmd
}

// within gives a call its time-out.
func within(cmd *cobra.Command, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), d)
}

func versionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of hactl, and of proxyd if it runs",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "hactl %s %s%s\n", version, runtime.Version(), commit())
			ctx, cancel := within(cmd, 2*time.Second)
			defer cancel()
			v, err := o.client().Version(ctx)
			if err != nil {
				fmt.Fprintf(cmd.OutOrStdout(), "proxyd not reachable at %s\n", o.socket)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "proxyd %s %s %s\n", v.Version, v.Go, v.Commit)
			return nil
		},
	}
}

// commit returns the revision that this binary was built from, if it knows it.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return " " + s.Value
		}
	}
	return ""
}
