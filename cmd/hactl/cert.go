package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

func certCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Show the certificates that clients get",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var format string
	list := &cobra.Command{
		Use:   "ls",
		Short: "List the certificates in use on this node",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd, 3*time.Second)
			defer cancel()
			all, err := o.client().Certificates(ctx)
			if err != nil {
				return err
			}
			switch format {
			case "json":
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(all)
			case "table":
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
				fmt.Fprintln(t, "SUBJECT\tNAMES\tSOURCE\tKEY\tISSUER\tSERIAL\tEXPIRES\tIN\tNOTE")
				for _, c := range all {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Subject, dash(strings.Join(c.Names, ",")), c.Source, c.Kind, dash(c.Issuer),
						c.Serial, c.Until.Format(time.DateOnly), left(time.Until(c.Until)), dash(certNote(c)))
				}
				return t.Flush()
			}
			return usageError{errors.New("cert ls: -o: want table or json")}
		},
	}
	list.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	cmd.AddCommand(list)
	return cmd
}

// left is how long something lasts.
func left(d time.Duration) string {
	if d <= 0 {
		return "expired"
	}
	return age(d)
}

// certNote is what is to be said of a certificate besides its columns.
func certNote(c control.Certificate) string {
	var notes []string
	if c.Default {
		notes = append(notes, "default")
	}
	if c.Fault != "" {
		notes = append(notes, "changed files are not in use: "+c.Fault)
	}
	return strings.Join(append(notes, c.Warnings...), "; ")
}
