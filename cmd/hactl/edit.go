package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// edit asks for a change and says what it changed.
func edit(cmd *cobra.Command, o *options, e control.Edit) error {
	ctx, cancel := within(cmd, reloadTime)
	defer cancel()
	r, err := o.client().Edit(ctx, e)
	if err != nil {
		return err
	}
	printChanges(cmd, r)
	if !r.Changed {
		fmt.Fprintln(cmd.OutOrStdout(), "nothing changed")
	}
	return nil
}

func dryRun(cmd *cobra.Command, e *control.Edit) {
	cmd.Flags().BoolVar(&e.DryRun, "dry-run", false, "change nothing, say what would change")
}

func putCommand(o *options) *cobra.Command {
	var e control.Edit
	cmd := &cobra.Command{
		Use:   "put FILE|-",
		Short: "Add pools, policies, routes and listeners, or replace those of the same name",
		Long: `put takes a text in the language of the configuration file ("-" is standard input) with
[pool.NAME], [policy.NAME], [listener.NAME] and [[route]]; a route needs a name. What has
the same name is replaced. The whole is checked by the rules of the file: a bad change is
refused, nothing changes and the exit code is 78. It stays over reloads and restarts, in
changes.toml in node.state; the configuration file is not touched.`,
		Example: `  hactl put - <<'END'
  [pool.blue]
  servers = ["10.0.2.5:8080", "10.0.2.6:8080"]
  [[route]]
  name = "blue"
  host = "blue.example.com"
  pool = "blue"
  END`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := fileOf(cmd, args)
			if err != nil {
				return err
			}
			e.Put = &f
			return edit(cmd, o, e)
		},
	}
	dryRun(cmd, &e)
	return cmd
}

func addCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add server POOL SERVER",
		Short: "Add a server to a pool",
		Long: `add server adds host:port to a pool, of the file or made by put. It stays over reloads and
restarts; the configuration file is not touched.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var e control.Edit
	var s control.NewServer
	server := &cobra.Command{
		Use:   "server POOL SERVER",
		Short: "Add a server to a pool",
		Args:  exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Pool, s.Addr = args[0], args[1]
			e.Add = &s
			return edit(cmd, o, e)
		},
		ValidArgsFunction: o.completeThing("pool"),
	}
	server.Flags().IntVar(&s.Weight, "weight", 0, "its weight; default: that of the configuration")
	server.Flags().BoolVar(&s.Backup, "backup", false, "it is used only while no other server is up")
	dryRun(server, &e)
	cmd.AddCommand(server)
	return cmd
}

func removeCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm server POOL SERVER | rm pool|policy|route|listener NAME",
		Short: "Remove a server, pool, policy, route or listener",
		Long: `rm removes a thing at run time, whether it is of the file or was added. Exchanges in
progress on it end as they would have. What something else needs is not removed: a pool
that a route names is refused, with exit code 78. It stays removed over reloads and
restarts; the configuration file is not touched.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, kind := range []string{"server", "pool", "policy", "route", "listener"} {
		cmd.AddCommand(thingCommand(o, kind, "Remove a "+kind, func(e *control.Edit, t *control.Thing) { e.Remove = t }))
	}
	return cmd
}

func changesCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "changes",
		Short: "Show what was changed at run time, or forget it",
		Long: `changes shows what put, add and rm changed beside the configuration file. changes drop
forgets what was changed about one thing, changes clear all of it: then the file alone
counts again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd, callTime)
			defer cancel()
			text, err := o.client().Changes(ctx)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			return nil
		},
	}
	drop := &cobra.Command{
		Use:   "drop server POOL SERVER | drop pool|policy|route|listener NAME",
		Short: "Forget what was changed about one thing",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, kind := range []string{"server", "pool", "policy", "route", "listener"} {
		drop.AddCommand(thingCommand(o, kind, "Forget what was changed about a "+kind, func(e *control.Edit, t *control.Thing) { e.Drop = t }))
	}
	var e control.Edit
	clear := &cobra.Command{
		Use:   "clear",
		Short: "Forget all that was changed at run time",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e.Clear = true
			return edit(cmd, o, e)
		},
	}
	dryRun(clear, &e)
	cmd.AddCommand(drop, clear)
	return cmd
}

// thingCommand is about one thing; a server goes by its pool and its own name, or by
// POOL/SERVER.
func thingCommand(o *options, kind, short string, set func(*control.Edit, *control.Thing)) *cobra.Command {
	var e control.Edit
	use, args := kind+" NAME", exactly(1)
	if kind == "server" {
		use, args = "server POOL SERVER", between(1, 2)
	}
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args,
		RunE: func(cmd *cobra.Command, args []string) error {
			set(&e, &control.Thing{Kind: kind, Name: strings.Join(args, "/")})
			return edit(cmd, o, e)
		},
		ValidArgsFunction: o.completeThing(kind),
	}
	dryRun(cmd, &e)
	return cmd
}

// between lets lo to hi arguments pass.
func between(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < lo || len(args) > hi {
			return usageError{fmt.Errorf("usage: %s", cmd.UseLine())}
		}
		return nil
	}
}

// completeThing completes the names of the things of a kind that are in force.
func (o *options) completeThing(kind string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		pools := len(args) == 0 && (kind == "pool" || kind == "server")
		switch {
		case pools || kind == "server" && len(args) == 1:
			ctx, cancel := context.WithTimeout(context.Background(), completeTime)
			defer cancel()
			all, _ := o.client().Pools(ctx)
			var words []string
			for _, p := range all {
				if pools {
					words = append(words, p.Name)
					continue
				}
				for _, s := range p.Servers {
					if p.Name == args[0] {
						words = append(words, s.Name)
					}
				}
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		case len(args) == 0:
			return o.names(kind), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}
