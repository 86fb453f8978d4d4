package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/config"
	"proxyd/internal/control"
)

// defaultCanary is how long each node is watched after it has a new configuration.
const defaultCanary = 5 * time.Second

// applyTime is how long an apply may take beside the time for which nodes are watched.
const applyTime = 5 * time.Minute

// canaryFlags are those of what puts a configuration in force on all nodes.
type canaryFlags struct {
	canary  time.Duration
	dry     bool
	without []string
	format  string
}

func (f *canaryFlags) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.canary, "canary", defaultCanary, "how long to watch each node before the next one")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "check on every node, change nothing, say what would change")
	cmd.Flags().StringSliceVar(&f.without, "without", nil, "nodes to leave out, such as one that is lost")
	cmd.Flags().StringVarP(&f.format, "output", "o", "text", "text or json")
}

func (f *canaryFlags) check(cmd *cobra.Command) error {
	if f.canary < 0 {
		return usageError{fmt.Errorf("%s: --canary %v: want no negative time", cmd.Name(), f.canary)}
	}
	if f.format != "text" && f.format != "json" {
		return usageError{fmt.Errorf("%s: -o %s: want text or json", cmd.Name(), f.format)}
	}
	return nil
}

// within is how long it may take: the number of nodes is not known here.
func (f *canaryFlags) time() time.Duration { return applyTime + 16*f.canary }

func applyCommand(o *options) *cobra.Command {
	var f canaryFlags
	var comment string
	cmd := &cobra.Command{
		Use:   "apply FILE|-",
		Short: "Put a configuration in force on every node of the cluster, or on none",
		Long: `apply has every node check FILE, with what it includes, as that node would have it, and then
puts it in force node by node, those that hold a VIP last. After each, all nodes are watched
for the time of --canary: ready, servers up, no more failed requests than before, no VIP
moved, nobody missing. If anything is wrong, and if this command is interrupted, every node
goes back to what it had. A node's own [node], [admin] and cluster.bind stay as they are in
its file; all else becomes what FILE says, in the node's own file. Two applies at once are
one and a refusal.

Exit codes: 0 done, 78 a node finds the file bad, 4 refused or rolled back.`,
		Example: "  hactl apply proxyd.toml --canary 30s --comment 'new pool'",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			file, err := fileOf(cmd, args)
			if err != nil {
				return err
			}
			a := control.Apply{File: file, CanaryMS: f.canary.Milliseconds(), DryRun: f.dry, By: operatorName(), Comment: comment, Without: f.without}
			if args[0] != "-" {
				if a.Included, err = includedOf(file.Name); err != nil {
					return err
				}
			}
			ctx, cancel := within(cmd, f.time())
			defer cancel()
			r, err := o.client().Apply(ctx, a)
			if err != nil {
				return err
			}
			return printApplied(cmd, r, f.format)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&comment, "comment", "", "what it is for; generations shows it")
	return cmd
}

// includedOf reads what a file includes. What is wrong with the file the nodes say.
func includedOf(name string) ([]control.File, error) {
	names, _ := config.Texts{Main: name}.Files()
	var out []control.File
	for _, name := range names[1:] {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, statusError{exitConfig, err.Error()}
		}
		out = append(out, control.File{Name: name, Text: string(text)})
	}
	return out, nil
}

func rollbackCommand(o *options) *cobra.Command {
	var f canaryFlags
	cmd := &cobra.Command{
		Use:   "rollback [GENERATION]",
		Short: "Put an earlier configuration in force on every node again",
		Long: `rollback applies an earlier generation, by default the one before that in force, as apply
does: checked everywhere, node by node, watched. It becomes a generation of its own. The
node that is asked must have kept it: hactl generations.`,
		Args: upTo(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			w := control.Rollback{CanaryMS: f.canary.Milliseconds(), DryRun: f.dry, By: operatorName(), Without: f.without}
			if len(args) > 0 {
				n, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil || n == 0 {
					return usageError{fmt.Errorf("rollback: %q: want the number of a generation", args[0])}
				}
				w.Generation = n
			}
			ctx, cancel := within(cmd, f.time())
			defer cancel()
			r, err := o.client().Rollback(ctx, w)
			if err != nil {
				return err
			}
			return printApplied(cmd, r, f.format)
		},
	}
	f.add(cmd)
	return cmd
}

// printApplied says what an apply did on each node.
func printApplied(cmd *cobra.Command, r *control.Applied, format string) error {
	if format == "json" {
		return printJSON(cmd.OutOrStdout(), r)
	}
	w := cmd.OutOrStdout()
	for _, warning := range r.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
	}
	said := map[string]bool{}
	for _, n := range r.Nodes {
		for _, warning := range n.Warnings {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", n.Name, warning)
		}
		// What is the same on every node is said once.
		if text := fmt.Sprint(n.Changes); !said[text] {
			said[text] = true
			for _, c := range n.Changes {
				fmt.Fprintln(w, c)
			}
		}
	}
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	for _, n := range r.Nodes {
		role, took := "-", ""
		if n.Holder {
			role = "holder"
		}
		if !r.DryRun {
			took = fmt.Sprintf("in force after %.0f ms", n.MS)
		}
		fmt.Fprintf(t, "%s\t%s\tconfig %s\t%d changes\t%s\n", n.Name, role, n.Config, len(n.Changes), took)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.DryRun {
		fmt.Fprintln(w, "every node would take it")
	} else {
		fmt.Fprintf(w, "generation %d is in force\n", r.Generation)
	}
	return nil
}

func generationsCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "generations",
		Short: "List the configurations that were applied, as this node keeps them",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return showGenerations(cmd, o, format) },
	}
	outputFlag(cmd, &format)
	return cmd
}

func showGenerations(cmd *cobra.Command, o *options, format string) error {
	ctx, cancel := within(cmd, callTime)
	defer cancel()
	all, err := o.client().Generations(ctx)
	if err != nil {
		return err
	}
	return printAs(cmd, format, all, "GENERATION\tWHEN\tBY\tASKED ON\tCONFIG\tSTATE\tCOMMENT", func(t io.Writer) {
		for _, g := range all {
			state := g.State
			if g.Why != "" {
				state += " (" + g.Why + ")"
			}
			if g.Current {
				state += ", in force"
			}
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Number, g.Time.UTC().Format(time.RFC3339), dash(g.By), dash(g.On), g.Config, state, dash(g.Comment))
		}
	})
}
