package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// steerTime is how long a node may take to hand over what it holds.
const steerTime = 15 * time.Second

func standbyCommand(o *options) *cobra.Command {
	w := control.NodeWish{State: "standby"}
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "standby NODE",
		Short: "Let a node vote and hold nothing",
		Long: `standby makes a node hand over what it holds and take nothing, not even when nobody else is
left, until online or until --for is over. It votes and serves who asks it all the same. It
can be asked of any node about any node, and stays over restarts.`,
		Example: "  hactl standby edge-1 --for 30m --reason 'new kernel'",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := positive(cmd, long); err != nil {
				return err
			}
			w.Node, w.ForMS = args[0], long.Milliseconds()
			return steerNode(cmd, o, w)
		},
		ValidArgsFunction: o.completeNodes,
	}
	cmd.Flags().DurationVar(&long, "for", 0, "for how long; default: until online")
	cmd.Flags().StringVar(&w.Reason, "reason", "", "why, for the record")
	return cmd
}

func onlineCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "online NODE",
		Short: "Let a node hold again after drain or standby",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return steerNode(cmd, o, control.NodeWish{Node: args[0], State: "online"})
		},
		ValidArgsFunction: o.completeNodes,
	}
}

func pauseCommand(o *options) *cobra.Command {
	w := control.PauseWish{On: true}
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Let no VIP move by preference or fitness",
		Long: `pause is for work on the cluster: a holder keeps its VIPs though a check fails or a preferred
node is back. One that dies or falls silent is replaced all the same, and failover, drain
and standby do what they say. It stays until resume, or until --for is over.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := positive(cmd, long); err != nil {
				return err
			}
			w.ForMS = long.Milliseconds()
			return pause(cmd, o, w)
		},
	}
	cmd.Flags().DurationVar(&long, "for", 0, "for how long; default: until resume")
	cmd.Flags().StringVar(&w.Reason, "reason", "", "why, for the record")
	return cmd
}

func resumeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "Let VIPs move again after pause",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return pause(cmd, o, control.PauseWish{}) },
	}
}

// positive refuses a --for that would end before it began: that it was left out means for ever.
func positive(cmd *cobra.Command, long time.Duration) error {
	if cmd.Flags().Changed("for") && long < time.Millisecond {
		return usageError{fmt.Errorf("%s: --for %v: want a time from now on", cmd.Name(), long)}
	}
	return nil
}

func pause(cmd *cobra.Command, o *options, w control.PauseWish) error {
	ctx, cancel := within(cmd, callTime)
	defer cancel()
	w.By = operatorName()
	s, err := o.client().Pause(ctx, w)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s%s\n", s.State, end(s))
	return nil
}

func steerNode(cmd *cobra.Command, o *options, w control.NodeWish) error {
	ctx, cancel := within(cmd, steerTime+time.Duration(w.WaitMS)*time.Millisecond)
	defer cancel()
	w.By = operatorName()
	r, err := o.client().SteerNode(ctx, w)
	if err != nil {
		return err
	}
	for _, warning := range r.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s%s", r.Standing.Node, r.Standing.State, end(&r.Standing))
	if len(r.Moved) > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), ", %s handed over", strings.Join(r.Moved, ", "))
	}
	if w.State == "drain" {
		fmt.Fprintf(cmd.OutOrStdout(), ", %d exchanges in progress", r.Active)
	}
	fmt.Fprintln(cmd.OutOrStdout())
	return nil
}

// end says until when, if it ends by itself.
func end(s *control.Standing) string {
	if s.Until == nil {
		return ""
	}
	return " until " + s.Until.UTC().Format(time.RFC3339)
}

// operatorName is who asks: behind sudo the one who called it.
func operatorName() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func (o *options) completeNodes(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	s, err := o.client().Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	for _, n := range s.Nodes {
		words = append(words, n.Name+"\t"+n.State)
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
