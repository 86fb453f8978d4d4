package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

// plan fills in where the programs are: beside this one, unless said otherwise.
func plan(proxyd, timing string) (lab.Plan, error) {
	p := lab.Plan{Proxyd: proxyd, Timing: timing}
	var err error
	if p.Lab, err = os.Executable(); err != nil {
		return p, err
	}
	if p.Proxyd == "" {
		p.Proxyd, err = lab.Beside("proxyd")
	}
	return p, err
}

func drillCommand() *cobra.Command {
	var proxyd, timing, fence, relay, keep string
	var only, attacks []string
	var rounds, vips int
	var short, six, asJSON, markdown bool
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Break the pair in every way, many times, and hold it to its promises",
		Long: `drill plays faults on a pair of nodes while a client opens 200 connections a second and a
watcher on the LAN asks every 50 ms who has the virtual address. It prints what clients and
neighbours saw, beside what is promised. Exit code: 0 all promises kept by the medians,
1 one was not, 2 the drill could not be finished.`,
		Args: cobra.NoArgs,
		RunE: privileged(func(cmd *cobra.Command, _ []string) error {
			p, err := plan(proxyd, timing)
			if err != nil {
				return err
			}
			p.Fence, p.Relay, p.Six = fence, relay, six
			if slices.Equal(only, []string{"overload"}) {
				return lab.Overload{Plan: p, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"floods"}) {
				if !cmd.Flags().Changed("rounds") {
					rounds = 3
				}
				return lab.Floods{Plan: p, Rounds: rounds, Attacks: attacks, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"carry"}) {
				return lab.Carry{Plan: p, Rounds: rounds, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"handover3"}) {
				return lab.HandOver3{Plan: p, Rounds: rounds, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"resume"}) {
				return lab.Resume{Plan: p, Rounds: rounds, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"stay"}) {
				return lab.Stay{Plan: p, Rounds: rounds, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"flood3"}) {
				return lab.Flood3{Plan: p, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"many"}) {
				return lab.Many{Plan: p, Rounds: rounds, VIPs: vips, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"calm"}) {
				return lab.Calm{Plan: p, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"checks"}) {
				return lab.Checks{Plan: p, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			if slices.Equal(only, []string{"browser"}) {
				return lab.Browser{Plan: p, Out: cmd.OutOrStdout()}.Run(cmd.Context())
			}
			d := lab.Drill{Plan: p, Faults: lab.Faults(), Rounds: rounds, Keep: keep, Out: cmd.ErrOrStderr()}
			if short {
				d.Faults = lab.ShortFaults()
				if !cmd.Flags().Changed("rounds") {
					d.Rounds = 1
				}
			}
			if len(only) > 0 {
				d.Faults = nil
				for _, key := range only {
					f, err := lab.FaultByKey(key)
					if err != nil {
						return err
					}
					d.Faults = append(d.Faults, f)
				}
			}
			for _, w := range lab.Withheld() {
				fmt.Fprintln(d.Out, "this kernel refuses", w)
			}
			measures, failed := d.Run(cmd.Context())
			rows := lab.Rows(measures)
			table := lab.DrillTable(rows)
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				err = lab.WriteJSON(out, rows)
			case markdown:
				err = table.WriteMarkdown(out)
			default:
				fmt.Fprintln(out)
				err = table.WriteText(out)
			}
			if failed != nil {
				fmt.Fprintln(d.Out, "lab: drill:", failed)
				return exitCode(2)
			}
			if err == nil && !lab.AllKept(rows) {
				err = exitCode(1)
			}
			return err
		}),
	}
	f := cmd.Flags()
	f.StringVar(&proxyd, "proxyd", "", "the program to drill; default: the one beside this")
	f.StringVar(&timing, "timing", "", "timing preset of the cluster; default: its own")
	f.StringVar(&fence, "fence", "", "auto, ebpf, nftables or lifetime, which does not keep all promises; default: auto")
	f.StringVar(&relay, "handover", "", "auto, ebpf, nftables or plain; default: auto. carry and handover3 play each by themselves")
	f.BoolVar(&six, "ipv6", false, "the client asks a VIP of IPv6, which follows the one that the watcher asks for by ARP")
	f.StringSliceVar(&only, "only", nil, "play these faults alone; overload (one capped node), floods (attacks on HTTP/2 beside other clients), carry (200 live connections over hand-overs), handover3 (the same for HTTP/3), resume (sessions of TLS over a failover), stay (every client's server over a failover), flood3 (forged first packets of QUIC), many (50 VIPs at once), browser (Chromium, by all versions of HTTP), checks (what those of 5,000 servers take) and calm (what an idle node takes) are drills of their own")
	f.StringSliceVar(&attacks, "attacks", nil, "play these attacks of the drill floods alone")
	f.IntVar(&vips, "vips", 50, "how many VIPs the drill many moves")
	f.IntVarP(&rounds, "rounds", "n", 5, "times that each fault is played")
	f.BoolVar(&short, "short", false, "the few faults of a CI run, once")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&markdown, "markdown", false, "print a Markdown table")
	f.StringVar(&keep, "keep", "", "copy logs and configurations there if the drill cannot be finished")
	cmd.MarkFlagsMutuallyExclusive("json", "markdown")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if rounds < 1 {
			return errors.New("drill: --rounds must be at least 1")
		}
		return nil
	}
	return cmd
}
