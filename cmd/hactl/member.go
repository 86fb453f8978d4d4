package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

func memberCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "List, add, remove and replace the nodes of the cluster",
		Long: `member changes cluster.join in the file of every node, by an apply: one voter at a time, checked
everywhere, watched, and undone everywhere if anything is wrong.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var f canaryFlags
	change := func(use, short string, args int, wish func([]string) control.MemberWish) *cobra.Command {
		sub := &cobra.Command{
			Use: use, Short: short, Args: exactly(args),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := f.check(cmd); err != nil {
					return err
				}
				w := wish(args)
				w.CanaryMS, w.DryRun, w.Without, w.By = f.canary.Milliseconds(), f.dry, f.without, operatorName()
				ctx, cancel := within(cmd, 2*f.time())
				defer cancel()
				r, err := o.client().Member(ctx, w)
				if err != nil {
					return err
				}
				return printApplied(cmd, r, f.format)
			},
		}
		f.add(sub)
		return sub
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the voters",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return listMembers(cmd, o) },
	}
	cmd.AddCommand(list,
		change("add ADDRESS", "Add a voter, before proxyd is started there", 1,
			func(a []string) control.MemberWish { return control.MemberWish{Op: "add", Address: a[0]} }),
		change("remove NODE", "Remove a voter that is lost, or that stands by", 1,
			func(a []string) control.MemberWish { return control.MemberWish{Op: "remove", Node: a[0]} }),
		change("replace OLD NEW", "Put the address NEW in the place of the voter OLD, which is lost or stands by", 2,
			func(a []string) control.MemberWish {
				return control.MemberWish{Op: "replace", Node: a[0], Address: a[1]}
			}))
	return cmd
}

func listMembers(cmd *cobra.Command, o *options) error {
	ctx, cancel := within(cmd, callTime)
	defer cancel()
	s, err := o.client().Status(ctx)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tADDRESS\tSTATE\tHOLDS\tCONFIG\tVERSION")
	for _, n := range s.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, dash(n.Address), n.State, held(s, n.Name), dash(n.Config), dash(n.Version))
	}
	return t.Flush()
}
