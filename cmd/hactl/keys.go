package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// rotateTime is how long a rotation may take.
const rotateTime = time.Minute

func keysCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List and rotate the keys of the cluster",
		Long: `keys is about what the nodes seal with all that they say to each other. It begins as what
cluster.secret names; rotate makes another. Keys are shown by marks of which nobody can make
them.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var format string
	list := &cobra.Command{
		Use:   "list",
		Short: "List the keys, and which nodes have them",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return listKeys(cmd, o, format) },
	}
	outputFlag(list, &format)
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Give every node a new key, while all goes on",
		Long: `rotate makes a random key and gives it to every node: first all believe it, then all seal with
it, then all drop the old one. Nothing moves and nothing is lost. Every node of cluster.join must be heard.
Where it breaks off the nodes go on believing both, and rotate goes on where it was.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return rotateKeys(cmd, o) },
	}
	cmd.AddCommand(list, rotate)
	return cmd
}

func listKeys(cmd *cobra.Command, o *options, format string) error {
	ctx, cancel := within(cmd, 2*callTime)
	defer cancel()
	k, err := o.client().Keys(ctx)
	if err != nil {
		return err
	}
	err = printAs(cmd, format, k, "KEY\tNUMBER\tSINCE\tSEAL WITH IT\tBELIEVE IT\tIN THE FILE OF", func(t io.Writer) {
		for _, key := range k.Keys {
			since := "-"
			if !key.Since.IsZero() {
				since = key.Since.Format(time.RFC3339)
			}
			var files []string
			for _, n := range k.Nodes {
				if n.Secret == key.Mark {
					files = append(files, n.Node)
				}
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", key.Mark, key.Number, since, names(key.Seals), names(key.Belief), names(files))
		}
	})
	if err != nil || format == "json" {
		return err
	}
	for _, n := range k.Nodes {
		if n.Error != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s: %s\n", n.Node, n.Error)
		}
	}
	if !k.Settled {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: not every node is known to have one and the same key; hactl keys rotate finishes a rotation that broke off")
	}
	return nil
}

func names(of []string) string { return dash(strings.Join(of, ", ")) }

func rotateKeys(cmd *cobra.Command, o *options) error {
	ctx, cancel := within(cmd, rotateTime)
	defer cancel()
	r, err := o.client().RotateKeys(ctx, control.KeysWish{By: operatorName()})
	if err != nil {
		return err
	}
	how := "is in force"
	if r.Resumed {
		how = "of a rotation that broke off is in force"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "key %s (number %d) %s on %s after %.0f ms; dropped: %s\n", r.Key.Mark, r.Key.Number, how, strings.Join(r.Key.Seals, ", "), r.MS, names(r.Dropped))
	return nil
}
