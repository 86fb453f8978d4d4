package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// callTime is how long a node may take for one override.
const callTime = 10 * time.Second

func drainCommand(o *options) *cobra.Command {
	var undo bool
	var wait time.Duration
	var reason string
	cmd := &cobra.Command{
		Use:   "drain NODE|POOL/SERVER",
		Short: "Take the VIPs from a node, or give a server no new exchanges",
		Long: `drain gives a server no new exchanges on any node of the cluster. Those in progress end as
they would have, WebSockets too, and clients that a cookie keeps at the server stay with
it. --wait returns when no exchange is left on it on this node, with exit code 5 if some
are left by then. It stays over reloads and restarts, until --undo or until the server
leaves the configuration.

What has no slash is a node: it hands over every VIP that it holds and takes none, and its
/readyz says so, until online (or --undo). Exchanges in progress end as they would have;
--wait returns when there is none left. It is refused if no other node is fit.`,
		Example: "  hactl drain web/10.0.1.5:8080 --wait 30s && deploy 10.0.1.5 && hactl drain web/10.0.1.5:8080 --undo",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.Contains(args[0], "/") {
				w := control.NodeWish{Node: args[0], State: "drain", WaitMS: wait.Milliseconds(), Reason: reason}
				if undo {
					w = control.NodeWish{Node: args[0], State: "online"}
				}
				return steerNode(cmd, o, w)
			}
			mode := "drain"
			if undo {
				mode, wait = "serve", 0
			}
			return steerServer(cmd, o, control.ServerWish{Server: args[0], Mode: &mode, WaitMS: wait.Milliseconds()})
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			nodes, _ := o.completeNodes(cmd, args, word)
			servers, directive := o.completeServers(cmd, args, word)
			return append(nodes, servers...), directive
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let it serve again")
	cmd.Flags().StringVar(&reason, "reason", "", "of a node: why, for the record")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until no exchange is left on it; default: not at all")
	return cmd
}

func disableCommand(o *options) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "disable POOL/SERVER",
		Short: "Give a server no exchanges at all",
		Long: `disable is for the maintenance of a server: no exchange goes to it, not even of clients that
a cookie keeps there. What is in progress ends; health checks go on. enable ends it.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mode := "maint"
			return steerServer(cmd, o, control.ServerWish{Server: args[0], Mode: &mode, WaitMS: wait.Milliseconds()})
		},
		ValidArgsFunction: o.completeServers,
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until no exchange is left on it; default: not at all")
	return cmd
}

func enableCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "enable POOL/SERVER",
		Short: "Let a server serve again after disable or drain",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mode := "serve"
			return steerServer(cmd, o, control.ServerWish{Server: args[0], Mode: &mode})
		},
		ValidArgsFunction: o.completeServers,
	}
}

func weightCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "weight POOL/SERVER N|reset",
		Short: "Give a server another weight than the configuration does",
		Long: `weight gives a server another weight, 1 to 1000, on every node of the cluster; reset gives it
that of the configuration again. For no exchanges at all there is drain.`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			weight := 0
			if args[1] != "reset" {
				n, err := strconv.Atoi(args[1])
				if err != nil || n < 1 || n > 1000 {
					return usageError{fmt.Errorf("weight: %q: want 1 to 1000, or reset; drain gives a server nothing new", args[1])}
				}
				weight = n
			}
			return steerServer(cmd, o, control.ServerWish{Server: args[0], Weight: &weight})
		},
		ValidArgsFunction: o.completeServers,
	}
}

func maintenanceCommand(o *options) *cobra.Command {
	var w control.RouteWish
	var retry time.Duration
	var allow []string
	cmd := &cobra.Command{
		Use:   "maintenance on|off ROUTE",
		Short: "Let a route answer 503 by itself, and serve again",
		Long: `maintenance on lets a route answer every request with 503, or --status, and Retry-After; clients
in --allow are served as ever. Exchanges in progress end as they would have. It stays over
reloads and restarts until off, or until the route leaves the configuration.`,
		Example: "  hactl maintenance on example.com/api --allow 10.0.0.0/8 --retry-after 10m",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "on":
				w.Closed = true
			case "off":
			default:
				return usageError{fmt.Errorf("maintenance: %q: want on or off", args[0])}
			}
			if w.Status < 200 || w.Status > 599 || retry < 0 {
				return usageError{errors.New("maintenance: --status is 200 to 599, and --retry-after is not negative")}
			}
			for _, text := range allow {
				prefix, err := parsePrefix(text)
				if err != nil {
					return usageError{fmt.Errorf("maintenance: --allow %s: want an address or a network such as 10.0.0.0/8", text)}
				}
				w.Allow = append(w.Allow, prefix)
			}
			w.Route, w.RetryAfter = args[1], int(retry.Seconds())
			ctx, cancel := within(cmd, callTime)
			defer cancel()
			r, err := o.client().SteerRoute(ctx, w)
			if err != nil {
				return err
			}
			printSteered(cmd, r)
			return nil
		},
		ValidArgsFunction: o.completeMaintenance,
	}
	cmd.Flags().IntVar(&w.Status, "status", 503, "status of the answer")
	cmd.Flags().DurationVar(&retry, "retry-after", 5*time.Minute, "what clients are told to wait; 0: they are not told")
	cmd.Flags().StringSliceVar(&allow, "allow", nil, "addresses and networks of clients that are served all the same")
	return cmd
}

func steerServer(cmd *cobra.Command, o *options, w control.ServerWish) error {
	if !strings.Contains(w.Server, "/") {
		return usageError{fmt.Errorf("%s: %q: want POOL/SERVER, as `hactl pools` shows them", cmd.Name(), w.Server)}
	}
	ctx, cancel := within(cmd, callTime+time.Duration(w.WaitMS)*time.Millisecond)
	defer cancel()
	r, err := o.client().SteerServer(ctx, w)
	if err != nil {
		return err
	}
	printSteered(cmd, r)
	return nil
}

func printSteered(cmd *cobra.Command, r *control.Steered) {
	for _, w := range r.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s", subject(r.Override), wish(r.Override))
	if r.Override.Mode != "" {
		fmt.Fprintf(cmd.OutOrStdout(), ", %d exchanges in progress", r.Active)
	}
	fmt.Fprintln(cmd.OutOrStdout())
}

// subject is whom an override is about.
func subject(o control.Override) string {
	if o.Route != "" {
		return "route " + o.Route
	}
	return o.Pool + "/" + o.Server
}

// wish is what an override says.
func wish(o control.Override) string {
	var words []string
	switch {
	case o.Status != 0:
		words = append(words, fmt.Sprintf("maintenance, status %d", o.Status))
		if len(o.Allow) > 0 {
			words = append(words, fmt.Sprintf("but for %v", o.Allow))
		}
	case o.Mode != "":
		words = append(words, o.Mode)
	}
	if o.Weight != 0 {
		words = append(words, fmt.Sprintf("weight %d", o.Weight))
	}
	if len(words) == 0 {
		return "as configured"
	}
	return strings.Join(words, ", ")
}

func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Prefix(a.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// exactly lets n arguments pass.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("usage: %s", cmd.UseLine())}
		}
		return nil
	}
}
