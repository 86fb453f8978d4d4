package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// upgradeTime is how long an upgrade may take: the new process reads the file, looks names
// up and checks every server before it takes over.
const upgradeTime = time.Minute

func upgradeCommand(o *options) *cobra.Command {
	var u control.Upgrade
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Put a new proxyd in the place of the running one, without a failover",
		Long: `upgrade starts the proxyd binary that is on the disk now beside the running one, gives it
all sockets, addresses and what the cluster part knows, and returns when it serves. No
connection is refused and no VIP moves; what is in progress ends in the old process, which
then goes away. It restarts proxyd in the same way when the binary has not changed.

If the new process does not come up (another file's version, a configuration that it
refuses, a crash) the old one goes on as if nothing had happened, the reason is printed, and
the exit code is 78 if the binary or the file is at fault, else 1.`,
		Example: "  hactl upgrade\n  hactl upgrade --binary /usr/local/sbin/proxyd-1.4.0",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if u.Binary != "" {
				var err error
				if u.Binary, err = filepath.Abs(u.Binary); err != nil {
					return err
				}
			}
			return upgradeNode(cmd, o, u)
		},
	}
	cmd.Flags().StringVar(&u.Binary, "binary", "", "the new program; default: the file of the running one")
	return cmd
}

// upgradeNode asks for an upgrade and says how it went.
func upgradeNode(cmd *cobra.Command, o *options, u control.Upgrade) error {
	ctx, cancel := within(cmd, upgradeTime)
	defer cancel()
	r, err := o.client().Upgrade(ctx, u)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "upgraded %s -> %s in %d ms (pause %.1f ms); pid %d serves, the process before lets %d connections end\n",
		r.From.Version, r.To.Version, r.MS, r.PauseMS, r.PID, r.Left)
	return nil
}
