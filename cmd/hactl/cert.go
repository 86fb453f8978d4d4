package main

import (
	"fmt"
	"io"
	"strings"
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
			return printAs(cmd, format, all, "SUBJECT\tNAMES\tSOURCE\tKEY\tISSUER\tSERIAL\tEXPIRES\tIN\tRENEWED\tNOTE", func(t io.Writer) {
				for _, c := range all {
					until, in, renewed := "-", "-", "-"
					if !c.Until.IsZero() {
						until, in = c.Until.Format(time.DateOnly), left(time.Until(c.Until))
					}
					if c.ACME != nil && !c.ACME.Renew.IsZero() {
						renewed = c.ACME.Renew.Format(time.DateOnly)
					}
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Subject, dash(strings.Join(c.Names, ",")), c.Source, dash(c.Kind), dash(c.Issuer),
						dash(c.Serial), until, in, renewed, dash(certNote(c)))
				}
			})
		},
	}
	outputFlag(list, &format)
	renew := &cobra.Command{
		Use:   "renew NAME",
		Short: "Order a certificate by ACME anew, now",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := within(cmd, 10*time.Second)
			defer cancel()
			r, err := o.client().RenewCertificate(ctx, control.CertificateWish{Name: args[0], By: operatorName()})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s orders a certificate for %s; the one before is served until it has come (hactl cert ls, hactl history)\n", r.Node, r.Name)
			return nil
		},
	}
	cmd.AddCommand(list, renew)
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
	notes = append(notes, c.Warnings...)
	if a := c.ACME; a != nil {
		switch {
		case a.Ordering:
			notes = append(notes, "an order is on its way")
		case a.Pending && a.Failures == 0:
			notes = append(notes, "there is none yet")
		}
		if a.Failures > 0 {
			notes = append(notes, fmt.Sprintf("%d failed in a row, the next try is at %s: %s", a.Failures, a.Next.Local().Format(time.TimeOnly), a.Error))
		}
	}
	return strings.Join(notes, "; ")
}
