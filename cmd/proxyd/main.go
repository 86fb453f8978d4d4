// Command proxyd is one node: a reverse proxy, a voter in its cluster, and a keeper of
// virtual addresses.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/ha/wire"
)

// version is set by the build.
var version = "dev"

// ahead is set by the build of drills alone: to how many versions of the wire a program pretends
// to speak beyond those that there are. Each is like the newest one in all but its number.
var ahead = "0"

// speaks returns the versions of what nodes send each other that this program speaks.
func speaks() wire.Range {
	r := wire.Range{}.Or()
	if n, err := strconv.ParseUint(ahead, 10, 4); err == nil {
		r.Newest += uint8(n)
	}
	return r
}

// Exit codes, as in sysexits.
const (
	exitUsage      = 64
	exitPermission = 77
	exitConfig     = 78
)

// A fault ends the program with a code of its own.
type fault struct {
	code int
	error
}

func (f fault) Unwrap() error { return f.error }

func main() {
	err := root().ExecuteContext(context.Background())
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	var f fault
	if errors.As(err, &f) {
		os.Exit(f.code)
	}
	os.Exit(1)
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "proxyd",
		Short:         "A high-availability reverse proxy",
		Long:          "proxyd forwards HTTP to pools of servers and holds virtual addresses together with its peers.\nhactl shows and steers it.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fault{exitUsage, err} })
	var file string
	for _, sub := range []*cobra.Command{
		{
			Use:   "run",
			Short: "Run this node until SIGTERM, which hands its VIPs over first",
			RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), file) },
		},
		{
			Use:   "check",
			Short: "Check a configuration file; exit code 78 if it is bad",
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := load(config.Texts{Main: file, Partial: true})
				if err != nil {
					return err
				}
				for _, w := range hostWarnings(c) {
					fmt.Fprintln(cmd.ErrOrStderr(), w)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (configuration %s)\n", file, c.Hash)
				return nil
			},
		},
		{
			Use:   "release",
			Short: "Take this host's VIPs away; for when proxyd itself is gone",
			RunE:  func(cmd *cobra.Command, _ []string) error { return release(file) },
		},
	} {
		sub.Args = noArgs
		sub.Flags().StringVarP(&file, "config", "c", "/etc/proxyd/proxyd.toml", "configuration file")
		cmd.AddCommand(sub)
	}
	cmd.AddCommand(versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := build()
			switch format {
			case "text":
				fmt.Fprintf(cmd.OutOrStdout(), "proxyd %s %s wire %d %s\n", b.Version, b.Go, b.Wire, b.Commit)
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(b)
			default:
				return fault{exitUsage, fmt.Errorf("version: -o %s: want text or json", format)}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fault{exitUsage, fmt.Errorf("%s: unknown command or argument %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

// load reads and checks a configuration file for a command line: warnings go to standard
// error, and a bad file has an exit code.
func load(t config.Texts) (*config.Config, error) {
	c, err := config.Load(t)
	if err != nil {
		return nil, fault{exitConfig, err}
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(os.Stderr, w)
	}
	return c, nil
}

// build tells what this binary is.
func build() control.Version {
	v := control.Version{Version: version, Go: runtime.Version(), Wire: int(speaks().Newest)}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}
