package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// wantFormat checks -o.
func wantFormat(format string) error {
	if format != "table" && format != "json" {
		return usageError{fmt.Errorf("-o %s: want table or json", format)}
	}
	return nil
}

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// printLine prints v as one line of JSON.
func printLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // a URL stays readable
	return e.Encode(v)
}

// printAs prints v as JSON, or as a table: the line of its columns' names, and what rows writes.
func printAs(cmd *cobra.Command, format string, v any, columns string, rows func(t io.Writer)) error {
	if err := wantFormat(format); err != nil {
		return err
	}
	if format == "json" {
		return printJSON(cmd.OutOrStdout(), v)
	}
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
	fmt.Fprintln(t, columns)
	rows(t)
	return t.Flush()
}
