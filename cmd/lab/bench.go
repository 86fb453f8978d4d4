package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/lab"
)

func benchCommand() *cobra.Command {
	var proxyd, markdown string
	var b lab.Bench
	var skipForward, skipFailover bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure proxyd beside nginx, HAProxy and keepalived",
		Long: `bench runs proxyd, nginx, HAProxy, Caddy and Traefik in front of the same server, in turns, and prints what
a request costs each (user and system time of its processes), throughput, latency, the memory
of an idle connection, and how all that stands to what is aimed at; then failover of a proxyd pair beside keepalived with HAProxy
on the same stage. Programs that are absent are installed from Debian; services are not
started. It ends with an error if a goal is missed. Traefik is in no Debian release: it is built of the Go module proxy into build, once, which
takes ten minutes, unless --only leaves it out or --traefik names a program. Configurations:
internal/lab/bench.`,
		Args: cobra.NoArgs,
		RunE: privileged(func(cmd *cobra.Command, _ []string) error {
			// The collector of this program must not compete with what it measures.
			debug.SetGCPercent(400)
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			b.Out = cmd.ErrOrStderr()
			var err error
			if b.Plan, err = plan(proxyd, ""); err != nil {
				return err
			}
			if err := lab.Install(ctx, []string{"nginx", "haproxy", "keepalived", "wrk", "nghttp2-client", "caddy"}, b.Out); err != nil {
				return err
			}
			var tables []lab.Table
			var missed error
			if !skipForward {
				if b.Traefik == "" && b.Wants("Traefik") {
					if b.Traefik, err = lab.InstallTraefik(ctx, filepath.Join(filepath.Dir(b.Plan.Proxyd), "..", "build"), b.Out); err != nil {
						fmt.Fprintf(b.Out, "Traefik is not measured, unless --traefik names a program: %v\n", err)
					}
				}
				r, err := b.Run(ctx)
				if r != nil {
					fmt.Fprintf(out, "\n%s\n", r.Machine)
					goals, why := r.Goals()
					tables, missed = append(tables, r.Table(), r.MemoryTable(), goals), why
				}
				if err != nil {
					return errors.Join(printTables(cmd, tables, ""), err)
				}
			}
			if !skipFailover {
				t, err := b.Failover(ctx)
				if err != nil {
					return errors.Join(printTables(cmd, tables, ""), err)
				}
				tables = append(tables, t)
			}
			return errors.Join(printTables(cmd, tables, markdown), missed)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&proxyd, "proxyd", "", "the program to measure; default: the one beside this")
	f.IntVarP(&b.Rounds, "rounds", "n", 5, "turns of each with each kind of work")
	f.DurationVar(&b.Turn, "turn", 5*time.Second, "how long a turn lasts")
	f.IntVar(&b.Idle, "idle", 10000, "idle connections to measure memory with; 0: none")
	f.StringSliceVar(&b.Only, "only", nil, "names of proxies: forward through these alone")
	f.StringSliceVar(&b.Works, "work", nil, "parts of the names of kinds of work: these alone")
	f.StringVar(&b.Traefik, "traefik", "", "the program of Traefik; default: the one in the path, or one that is built")
	f.BoolVar(&skipForward, "skip-forward", false, "failover alone")
	f.BoolVar(&skipFailover, "skip-failover", false, "forwarding alone")
	f.StringVar(&markdown, "markdown", "", "also write the tables to this file")
	return cmd
}

// printTables writes tables as text, and as Markdown to a file if it has a name.
func printTables(cmd *cobra.Command, tables []lab.Table, file string) error {
	var md bytes.Buffer
	for _, t := range tables {
		fmt.Fprintln(cmd.OutOrStdout())
		if err := t.WriteText(cmd.OutOrStdout()); err != nil {
			return err
		}
		if err := t.WriteMarkdown(&md); err != nil {
			return err
		}
		md.WriteByte('\n')
	}
	if file == "" {
		return nil
	}
	return os.WriteFile(file, md.Bytes(), 0o644)
}
