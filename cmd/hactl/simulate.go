package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

func simulateCommand(o *options) *cobra.Command {
	var format string
	faults := []string{"kill", "cut", "freeze", "drain"}
	nodes := make([]string, len(faults))
	cmd := &cobra.Command{
		Use:   "simulate --kill|--cut|--freeze|--drain NODE",
		Short: "Tell what would happen now if a node failed",
		Long: `simulate plays a fault on the cluster as it is now, with the real election and virtual time,
and prints who would hold which VIP after how long, and why. Nothing is done to the cluster. The times are those of the
decision; adding and announcing an address comes on top (a few milliseconds).

Exit codes: 0 every VIP would be held, 2 one would have no holder, 4 there is no such node or it is down already.`,
		Example: "  hactl simulate --kill edge-1\n  hactl simulate --cut edge-2 -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wantFormat(format); err != nil {
				return err
			}
			var q control.SimulateQuery
			for i, f := range faults {
				if nodes[i] == "" {
					continue
				}
				if q.Fault != "" {
					return usageError{errors.New("simulate: one fault at a time")}
				}
				q.Fault, q.Node = f, nodes[i]
			}
			if q.Fault == "" {
				return usageError{errors.New("simulate: say --kill, --cut, --freeze or --drain NODE")}
			}
			ctx, cancel := within(cmd, answerTime)
			defer cancel()
			s, err := o.client().Simulate(ctx, q)
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(cmd.OutOrStdout(), s)
			} else {
				err = printSimulation(cmd.OutOrStdout(), s)
			}
			if err == nil && len(s.Unheld) > 0 {
				return statusError{code: exitFailed}
			}
			return err
		},
	}
	for i, f := range faults {
		cmd.Flags().StringVar(&nodes[i], f, "", map[string]string{
			"kill": "node whose process dies", "cut": "node whose cable is pulled", "freeze": "node whose process stands still", "drain": "node that an operator takes out",
		}[f])
	}
	outputFlag(cmd, &format)
	return cmd
}

func printSimulation(w io.Writer, s *control.Simulation) error {
	fmt.Fprintf(w, "if %s (%s) now:\n\n", s.Node, s.Fault)
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	fmt.Fprintln(t, "VIP\tHELD BY\tTHEN\tAFTER\tWITHOUT A HOLDER")
	for _, v := range s.VIPs {
		then, after, gap := "NOBODY", "-", "for good"
		if v.To != nil {
			then, gap = *v.To, fmt.Sprintf("%.0f ms", v.UnheldMS)
			if v.MS > 0 {
				after = fmt.Sprintf("%.0f ms", v.MS)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", v.VIP, orDash(v.From), then, after, gap)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, v := range s.VIPs {
		fmt.Fprintf(w, "\n%s\n", v.VIP)
		for _, p := range v.Steps {
			fmt.Fprintf(w, "%10.1f ms  %s %s\n", p.MS, p.Node, p.Text)
		}
	}
	if len(s.Unheld) > 0 {
		fmt.Fprintf(w, "\nnobody: %s would be unheld\n", strings.Join(s.Unheld, ", "))
	}
	return nil
}

func orDash(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}
