package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
	"proxyd/internal/doctor"
)

// doctorTime is how long an examination may take: it listens for a while, and waits for
// ports that do not answer.
const doctorTime = 10 * time.Second

func doctorCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine whether this node and its cluster are fit to fail over",
		Long: `doctor examines the host, the VIPs with their networks, and the way to the other nodes, and
says of each thing what is the case, why it matters and what cures it. It changes nothing and takes a second or two. Ask
it of each node: what one cannot see, another can.

Exit codes: 0 all is well, 1 something works and will not in some case, 2 something does not work.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wantFormat(format); err != nil {
				return err
			}
			ctx, cancel := within(cmd, doctorTime)
			defer cancel()
			d, err := o.client().Doctor(ctx)
			if err != nil {
				return err
			}
			if format == "json" {
				if err := printJSON(cmd.OutOrStdout(), d); err != nil {
					return err
				}
			} else {
				printDoctor(cmd.OutOrStdout(), d)
			}
			switch d.Level {
			case doctor.OK:
				return nil
			case doctor.Warn:
				return statusError{code: exitDegraded}
			}
			return statusError{code: exitFailed}
		},
	}
	outputFlag(cmd, &format)
	return cmd
}

func printDoctor(w io.Writer, d *control.Doctor) {
	count := map[doctor.Level]int{}
	for _, f := range d.Findings {
		count[f.Level]++
		about := f.Check
		if f.About != "" {
			about += " " + f.About
		}
		fmt.Fprintf(w, "%-4s  %s: %s\n", strings.ToUpper(string(f.Level)), about, f.What)
		if f.Level == doctor.OK {
			continue
		}
		if f.Why != "" {
			fmt.Fprintf(w, "      why:  %s\n", f.Why)
		}
		if f.Cure != "" {
			fmt.Fprintf(w, "      cure: %s\n", f.Cure)
		}
	}
	fmt.Fprintf(w, "\n%s: %d fail, %d warn, %d ok\n", d.Node, count[doctor.Fail], count[doctor.Warn], count[doctor.OK])
}
