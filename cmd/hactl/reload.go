package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// reloadTime is how long a reload, or a look at what one would do, may take.
const reloadTime = 30 * time.Second

func reloadCommand(o *options) *cobra.Command {
	var dry, upgrade bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration file again, and say what that changed",
		Long: `reload reads the configuration file again. A file with an error changes nothing: what is
wrong with it is printed, the old configuration keeps serving, and the exit code is 78.
With --dry-run it only says what would change.

With --upgrade a program that was installed in the place of the running one is taken into
use too, as "hactl upgrade" does it: that is what "systemctl reload" asks for.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd, reloadTime)
			defer cancel()
			r, err := &control.Reload{}, error(nil)
			if dry {
				r, err = o.client().Diff(ctx, control.File{})
			} else {
				r, err = o.client().Reload(ctx)
			}
			if err != nil {
				return err
			}
			printChanges(cmd, r)
			switch {
			case !r.Changed:
				fmt.Fprintf(cmd.OutOrStdout(), "configuration %s: nothing changed\n", r.Config)
			case dry:
				fmt.Fprintf(cmd.OutOrStdout(), "configuration %s would be in force\n", r.Config)
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "configuration %s is in force\n", r.Config)
			}
			switch {
			case r.Binary && upgrade:
				return upgradeNode(cmd, o, control.Upgrade{})
			case r.Binary:
				fmt.Fprintln(cmd.OutOrStdout(), "another proxyd is installed than runs: hactl upgrade takes it into use")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing, say what would change")
	cmd.Flags().BoolVar(&upgrade, "upgrade", false, "take another proxyd that was installed meanwhile into use, too")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "upgrade")
	return cmd
}

func diffCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "diff [FILE|-]",
		Short: "Show what would change if FILE were the configuration",
		Long: `diff checks FILE ("-" is standard input) on the running node and shows, key by key, what would
change if it stood in the place of the configuration file. Without FILE it shows what a
reload would change. Nothing is changed.

Exit codes: 0 nothing would change, 1 something would, 78 the file is bad.`,
		Example: "  hactl diff proxyd.toml.new",
		Args:    upTo(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("diff: -o %s: want text or json", format)}
			}
			f, err := fileOf(cmd, args)
			if err != nil {
				return err
			}
			ctx, cancel := within(cmd, reloadTime)
			defer cancel()
			r, err := o.client().Diff(ctx, f)
			if err != nil {
				return err
			}
			if format == "json" {
				if err := printJSON(cmd.OutOrStdout(), r); err != nil {
					return err
				}
			} else if printChanges(cmd, r); !r.Changed {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing would change")
			}
			if r.Changed {
				return statusError{code: exitDiffers}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printChanges gives warnings on standard error and one change a line.
func printChanges(cmd *cobra.Command, r *control.Reload) {
	for _, w := range r.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), w)
	}
	for _, c := range r.Changes {
		fmt.Fprintln(cmd.OutOrStdout(), c)
	}
}

// fileOf reads the file that the arguments name. Without one it is the node's own.
func fileOf(cmd *cobra.Command, args []string) (control.File, error) {
	if len(args) == 0 {
		return control.File{}, nil
	}
	var text []byte
	name, err := args[0], error(nil)
	if name == "-" {
		text, err = io.ReadAll(cmd.InOrStdin())
		name = "stdin"
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return control.File{}, statusError{exitConfig, err.Error()}
	}
	if len(text) == 0 {
		return control.File{}, statusError{exitConfig, name + ": the file is empty"}
	}
	if name, err = filepath.Abs(name); err != nil {
		return control.File{}, err
	}
	return control.File{Name: name, Text: string(text)}, nil
}

// upTo lets at most n arguments pass.
func upTo(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError{errors.New(cmd.CommandPath() + ": too many arguments; see --help")}
		}
		return nil
	}
}
