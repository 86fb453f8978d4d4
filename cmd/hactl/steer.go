package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

func failoverCommand(o *options) *cobra.Command {
	var f control.Failover
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Hand VIPs over to another node, make before break",
		Long: `failover asks the holder to hand its VIPs to another node, and returns when they are held
there. It can be asked of any node of the cluster. Without --vip every VIP that --to does
not hold yet is moved; without --to the best fit node takes them.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd, wait)
			defer cancel()
			r, err := o.client().Failover(ctx, f)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s -> %s in %.1f ms\n", strings.Join(r.VIPs, ", "), r.From, r.To, r.MS)
			if r.Until != nil && r.Connections >= 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%s goes on serving %d older connections, until %s at the latest\n",
					r.From, r.Connections, r.Until.Local().Format(time.TimeOnly))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.To, "to", "", "node that shall hold them; default: the best fit one")
	cmd.Flags().StringVar(&f.VIP, "vip", "", "the one VIP to move; default: all")
	cmd.Flags().StringVar(&f.Reason, "reason", "", "why, for the record")
	cmd.Flags().DurationVar(&wait, "timeout", 10*time.Second, "how long to wait for the new holder")
	return cmd
}
