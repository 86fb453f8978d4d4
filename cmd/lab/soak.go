package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

func soakCommand() *cobra.Command {
	var proxyd, timing, keep string
	var length time.Duration
	var seed uint64
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Break the pair in random order for a long time",
		Long: `soak plays the drills in random order while a client asks and a watcher looks who has the
virtual address. It ends with a table, with exit code 1 if an event cost more than five times
its promise, or if two nodes or none held the address while nothing was broken, and with
exit code 2 if the pair did not become well again. The seed of the order is printed.`,
		Args: cobra.NoArgs,
		RunE: privileged(func(cmd *cobra.Command, _ []string) error {
			p, err := plan(proxyd, timing)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("seed") {
				seed = rand.Uint64()
			}
			out, progress := cmd.OutOrStdout(), cmd.ErrOrStderr()
			fmt.Fprintf(progress, "soak for %v, --seed %d\n", length, seed)
			measures, broken := lab.Soak{Plan: p, Faults: lab.SoakFaults(), For: length, Seed: seed, Keep: keep, Out: progress}.Run(cmd.Context())
			fmt.Fprintln(out)
			table := lab.DrillTable(lab.Rows(measures))
			err = table.WriteText(out)
			if broken != nil {
				fmt.Fprintln(progress, "lab: soak:", broken)
				if errors.Is(broken, lab.ErrPromise) {
					return exitCode(1)
				}
				return exitCode(2)
			}
			return err
		}),
	}
	f := cmd.Flags()
	f.StringVar(&proxyd, "proxyd", "", "the program to break; default: the one beside this")
	f.StringVar(&timing, "timing", "", "timing preset of the cluster; default: its own")
	f.DurationVar(&length, "for", time.Hour, "how long")
	f.Uint64Var(&seed, "seed", 0, "of the order; default: another each time")
	f.StringVar(&keep, "keep", "", "copy logs and configurations there if anything goes wrong")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if length <= 0 {
			return errors.New("soak: --for must be longer than nothing")
		}
		return nil
	}
	return cmd
}
